//! The flight recorder's control side: turns it on and off, hands out what it has, and writes it down when something happens.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use tokio::sync::mpsc;

use super::{ControlError, Switch};
use crate::confine::Role;
use crate::frame;
use api::{CaptureRequest, DropInfo};
use plane::capture::{self, Incident, Limits, Program, Recorded, Replay, Selection, SlotHolder, Snapshot};
use plane::datapath::Fate;
use plane::worker::Command;

/// The folder in the state directory.
const FOLDER: &str = "recordings";
/// Most files in it.
const MOST: usize = 8;
/// How much of what came before an incident is written.
const BEFORE: Duration = Duration::from_secs(10);
/// Most drops that are shown at once.
const SHOWN: usize = 100;
/// How long after one recording no other is written.
const PAUSE: Duration = Duration::from_secs(30);

impl Switch {
    /// Tells the workers how much their recorders may keep.
    pub(super) fn set_recorder(&self) {
        let bytes = self.ledger.file.capture.recorder_of(self.plane.workers.len());
        self.plane.workers.iter().for_each(|worker| worker.hint(Command::SetRecorder(bytes)));
    }

    /// What the recorders have, as a capture would have it.
    ///
    /// # Errors
    /// There is no recorder, or no such port.
    pub(super) fn recall(
        &mut self,
        request: &CaptureRequest,
        selection: Selection,
    ) -> Result<mpsc::Receiver<Bytes>, ControlError> {
        let passed = self.wanted_holders(request)?;
        let last = Duration::from_millis(request.last_milliseconds.unwrap_or_default());
        let mut replay = self.replay(selection, passed.as_deref(), last, request.count)?;
        let (sender, receiver) = mpsc::channel(4);
        let sandbox = self.plane.sandbox.clone();
        std::thread::Builder::new().name("recall".to_owned()).spawn(move || {
            sandbox.enter(Role::Capture);
            while let Some(chunk) = replay.next_chunk() {
                if sender.blocking_send(chunk.into()).is_err() {
                    return;
                }
            }
        })?;
        Ok(receiver)
    }

    /// The last frames that were dropped, of those that the recorders have, the newest first.
    ///
    /// # Errors
    /// There is no recorder.
    pub(super) fn last_drops(&self) -> Result<Vec<DropInfo>, ControlError> {
        let snapshots = self.snapshots()?;
        let info = |frame: &Recorded| {
            let seen = frame.seen();
            let name = |slot| self.plane.captures.holders.at(slot, seen.at)?.name.parse().ok();
            Some(DropInfo {
                time: humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(seen.at)).to_string(),
                port: name(seen.port)?,
                came_in: seen.ingress.and_then(name),
                reason: seen.fate.and_then(Fate::drop_reason)?.name().to_owned(),
                vlan: seen.vlan,
                frame: frame::read(&frame.padded()).summary,
            })
        };
        Ok(Recorded::last_drops(&snapshots, SHOWN).into_iter().filter_map(info).collect())
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, ControlError> {
        if self.ledger.file.capture.recorder.is_none() {
            return Err(ControlError::NoRecorder);
        }
        let workers = self.plane.workers.iter();
        Ok(workers.map(|worker| worker.ask(Command::Recall)).collect::<Result<_, _>>()?)
    }

    fn replay(
        &self,
        selection: Selection,
        passed: Option<&[SlotHolder]>,
        last: Duration,
        count: Option<u64>,
    ) -> Result<Replay, ControlError> {
        let snapshots = self.snapshots()?;
        let limits = Limits { count, seconds: None };
        let (_, control, stream) = capture::open(selection.clone(), Vec::new(), limits);
        control.name_hosts(self.host_names()?);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(last);
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let holders = self.plane.captures.holders.all().cloned().collect();
        Ok(Replay::new(stream, selection, holders, passed, since, snapshots))
    }

    /// Writes down what came before an incident, unless it did so just now.
    pub(super) fn write_recording(&mut self, incident: Incident) {
        let now = Instant::now();
        let is_new = self.plane.captures.recorded.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if !is_new || self.ledger.file.capture.recorder.is_none() {
            return;
        }
        let everything = Program::new(&[]).map(Selection::from).map_err(ControlError::from);
        let Ok(mut replay) = everything.and_then(|everything| self.replay(everything, None, BEFORE, None)) else { return };
        self.plane.captures.recorded = Some(now);
        let folder = self.ledger.file.switch.state_dir.join(FOLDER);
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        let path = folder.join(format!("{time}-{}.pcapng", incident.name()));
        let write = move || match write(&folder, &path, &mut replay) {
            Ok(()) => tracing::warn!("{}: the last {} s are in {}", incident.name(), BEFORE.as_secs(), path.display()),
            Err(error) => tracing::warn!("{}: {} cannot be written: {error}", incident.name(), path.display()),
        };
        if let Err(error) = std::thread::Builder::new().name("recording".to_owned()).spawn(write) {
            tracing::warn!("the recorder cannot write: {error}");
        }
    }
}

/// Writes a recording, and removes the oldest where there are too many.
fn write(folder: &Path, path: &Path, replay: &mut Replay) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut files: Vec<_> = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "pcapng"));
    // Their names begin with their times.
    files.sort();
    for old in files.iter().take((files.len() + 1).saturating_sub(MOST)) {
        fs::remove_file(old)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    while let Some(chunk) = replay.next_chunk() {
        file.write_all(&chunk)?;
    }
    Ok(())
}
