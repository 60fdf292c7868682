//! Where the file of a capture goes: into one file or several, to stdout, or into the live view. What is written into a file can be read at any moment,
//! also when the disk is full.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::blocks::{self, PACKET, each};
use super::live::LiveView;
use super::rotate::{Rotate, Rotation, numbered};
use crate::client::ClientError;

/// Where a capture goes.
pub(super) enum CaptureOutput {
    Files(Files),
    Stdout,
    Live(LiveView),
}

/// The file that is written now, and those before it.
pub(super) struct Files {
    path: PathBuf,
    rotation: Option<Rotation>,
    current: Part,
    /// Of those that are finished, and stay.
    finished: VecDeque<PathBuf>,
    number: u64,
    /// What every file begins with: the section, interfaces and names so far.
    preamble: Vec<u8>,
}

/// One file.
struct Part {
    path: PathBuf,
    file: File,
    /// Bytes of whole blocks in it.
    written: u64,
    packets: u64,
    begun: Instant,
}

impl CaptureOutput {
    pub(super) fn open(path: Option<&Path>, rotation: Option<Rotation>) -> Result<Self, ClientError> {
        match path {
            None => LiveView::start().map(Self::Live),
            Some(path) if path.as_os_str() == "-" => Ok(Self::Stdout),
            Some(path) => {
                let first = if rotation.is_some() { numbered(path, 1) } else { path.to_owned() };
                let (path, current) = (path.to_owned(), Part::create(first)?);
                Ok(Self::Files(Files { path, rotation, current, finished: VecDeque::new(), number: 1, preamble: Vec::new() }))
            }
        }
    }

    /// Writes whole blocks, and returns whether there is still a reader.
    pub(super) fn write(&mut self, blocks: &[u8]) -> Result<bool, ClientError> {
        match self {
            Self::Files(files) => files.write(blocks),
            Self::Live(live) => live.write(blocks),
            Self::Stdout => crate::client::print(blocks),
        }
    }

    pub(super) fn close(self) -> Result<(), ClientError> {
        match self {
            Self::Live(live) => live.close(),
            Self::Files(_) | Self::Stdout => Ok(()),
        }
    }
}

impl Files {
    /// Writes whole blocks, and returns whether there is still a reader, if the file is a FIFO.
    fn write(&mut self, blocks: &[u8]) -> Result<bool, ClientError> {
        match self.put(blocks) {
            Err(ClientError::Write { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            put => put.map(|()| true),
        }
    }

    fn put(&mut self, blocks: &[u8]) -> Result<(), ClientError> {
        let Some(Rotation { rotate, files }) = self.rotation else { return self.current.write(blocks) };
        for (kind, block) in each(blocks) {
            let is_full = match rotate {
                Rotate::Bytes(most) => self.current.written + block.len() as u64 > most,
                Rotate::After(age) => self.current.begun.elapsed() >= age,
            };
            if kind == PACKET && is_full && self.current.packets > 0 {
                self.turn(files)?;
            }
            if blocks::is_preamble(kind) {
                self.preamble.extend_from_slice(block);
            }
            self.current.write(block)?;
        }
        Ok(())
    }

    /// Goes on in the next file, and removes what is too many.
    fn turn(&mut self, most: Option<usize>) -> Result<(), ClientError> {
        self.number += 1;
        let next = Part::create(numbered(&self.path, self.number))?;
        let before = std::mem::replace(&mut self.current, next);
        self.finished.push_back(before.path);
        while most.is_some_and(|most| self.finished.len() >= most)
            && let Some(oldest) = self.finished.pop_front()
        {
            // It may be moved away already.
            let _ = std::fs::remove_file(oldest);
        }
        self.current.write(&self.preamble)
    }
}

impl Part {
    fn create(path: PathBuf) -> Result<Self, ClientError> {
        match File::create(&path) {
            Ok(file) => Ok(Self { path, file, written: 0, packets: 0, begun: Instant::now() }),
            Err(source) => Err(ClientError::Write { what: path.display().to_string(), source }),
        }
    }

    /// Writes whole blocks. If the disk is full, the file ends with the last block that fits.
    fn write(&mut self, blocks: &[u8]) -> Result<(), ClientError> {
        let written = self.file.write_all(blocks).and_then(|()| self.file.flush());
        let mut room = match &written {
            Ok(()) => blocks.len() as u64,
            Err(_) => self.file.stream_position().unwrap_or(self.written).saturating_sub(self.written),
        };
        for (kind, block) in each(blocks) {
            let length = block.len() as u64;
            let Some(left) = room.checked_sub(length) else { break };
            room = left;
            self.written += length;
            self.packets += u64::from(kind == PACKET);
        }
        let Err(source) = written else { return Ok(()) };
        let what = self.path.display().to_string();
        if self.file.set_len(self.written).is_err() {
            return Err(ClientError::Write { what, source });
        }
        Err(ClientError::Full { what, source, packets: self.packets })
    }
}
