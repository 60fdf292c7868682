//! The reader's end of a capture, on a thread of the control side: takes frames out of the channel and makes a pcapng file of them.
//! It counts what the workers had to miss, and ends by its limits or as `Control` says.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TryRecvError, select};

use super::pcapng::{Statistics, Writer};
use super::tap::Shared;
use super::{Captured, CapturedPort, Limits, Program, Seen};

/// The reader's end of a capture: a pcapng file, chunk by chunk. Reading waits, so it belongs on a thread that may.
#[derive(Debug)]
pub struct Stream {
    frames: Receiver<Captured>,
    commands: Receiver<StreamOrder>,
    shared: Arc<Shared>,
    writer: Writer,
    interfaces: Vec<Known>,
    /// Index of the interface that a port slot means now.
    by_port: HashMap<u32, usize>,
    /// Names of ports by their slots, also of those that are not captured.
    names: HashMap<u32, String>,
    /// Packets that may still be written.
    left: u64,
    deadline: Option<Instant>,
    /// Nanoseconds since the epoch.
    began: u64,
    phase: Phase,
}

/// The controlling end of a capture: adds interfaces, stops it. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Control {
    pub(super) commands: Sender<StreamOrder>,
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) enum StreamOrder {
    Add(CapturedPort),
    Name(CapturedPort),
    Hosts(Vec<(IpAddr, String)>),
    Stop,
}

/// An interface of the file.
#[derive(Debug)]
struct Known {
    port: u32,
    /// Packets written.
    written: u64,
    /// The port slot's count of missed frames when this interface came.
    missed_before: u64,
    /// The count that the packets written so far account for.
    missed_seen: u64,
    /// The count when the slot went to another interface.
    missed_after: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// No more frames are asked for; those in the channel are still written.
    Draining,
    /// The statistics are written.
    Ended,
}

impl Control {
    /// Announces the interface of a port. Call it before the port is made known to the workers; a slot that is announced again
    /// is another interface from then on.
    pub fn add_interface(&self, interface: CapturedPort) {
        self.shared.meet(&interface);
        // A stream that has ended needs no interfaces.
        let _ = self.commands.send(StreamOrder::Add(interface));
    }

    /// Names a port that is not captured itself, for what is said of the frames that leave by it.
    pub fn name_port(&self, port: CapturedPort) {
        self.shared.meet(&port);
        let _ = self.commands.send(StreamOrder::Name(port));
    }

    /// Gives addresses their names.
    pub fn name_hosts(&self, names: Vec<(IpAddr, String)>) {
        let _ = self.commands.send(StreamOrder::Hosts(names));
    }

    /// Ends the capture: what workers took so far is still written.
    pub fn stop(&self) {
        let _ = self.commands.send(StreamOrder::Stop);
    }
}

impl Stream {
    pub(super) fn new(
        frames: Receiver<Captured>,
        commands: Receiver<StreamOrder>,
        shared: Arc<Shared>,
        interfaces: Vec<CapturedPort>,
        limits: Limits,
    ) -> Self {
        let mut stream = Self {
            frames,
            commands,
            shared,
            writer: Writer::new(),
            interfaces: Vec::new(),
            by_port: HashMap::new(),
            names: HashMap::new(),
            left: limits.count.unwrap_or(u64::MAX),
            deadline: limits.seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
            began: now(),
            phase: Phase::Running,
        };
        for interface in interfaces {
            stream.announce(&interface);
        }
        stream
    }

    /// Adds the interface of a port, to which its slot belongs from here on.
    pub(super) fn announce(&mut self, interface: &CapturedPort) {
        self.shared.meet(interface);
        self.add(interface);
    }

    /// The next bytes of the file, as many as are there but not many more than 256 KiB; the first are its headers, at once.
    /// Waits up to `timeout` if there are none and then returns an empty chunk. `None` is the end of the file.
    pub fn next_chunk(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        if self.phase == Phase::Ended {
            return None;
        }
        if self.writer.len() == 0 && self.phase == Phase::Running {
            self.wait(timeout);
            // A worker that finds its reader asleep has to wake it, and so has each that comes after it in turn. Those that come meanwhile do not.
            if self.writer.len() > 0 {
                std::thread::sleep(GATHERING);
            }
        }
        self.obey();
        self.fill();
        Some(self.writer.take())
    }

    /// Waits for one event.
    fn wait(&mut self, timeout: Duration) {
        let timeout = self.deadline.map_or(timeout, |deadline| timeout.min(deadline.saturating_duration_since(Instant::now())));
        select! {
            recv(self.frames) -> frame => match frame {
                Ok(frame) => self.receive(frame),
                Err(_) => self.drain(),
            },
            recv(self.commands) -> command => match command {
                Ok(command) => self.execute(command),
                // The control side has let go of this capture, which is no reason to spin.
                Err(_) => self.commands = crossbeam_channel::never(),
            },
            default(timeout) => {}
        }
    }

    /// Writes what is in the channel, up to a chunk's worth, and the statistics behind the last frame.
    fn fill(&mut self) {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.drain();
        }
        while self.left > 0 && self.writer.len() < CHUNK {
            match self.frames.try_recv() {
                Ok(frame) => self.receive(frame),
                Err(TryRecvError::Empty) if self.phase == Phase::Running => return,
                Err(_) => return self.finish(),
            }
        }
        if self.left == 0 {
            self.finish();
        }
    }

    fn receive(&mut self, captured: Captured) {
        self.shared.release(captured.bytes.len());
        self.write(captured);
    }

    /// Whether a chunk's worth waits to be taken.
    pub(super) fn is_chunk_full(&self) -> bool {
        self.writer.len() >= CHUNK
    }

    /// Whether its file has ended, or has all the packets that it may have; the end is then written.
    pub(super) fn has_enough(&mut self) -> bool {
        if self.left == 0 && self.phase != Phase::Ended {
            self.finish();
        }
        self.phase == Phase::Ended
    }

    /// How many bytes of a frame a filter keeps.
    pub(super) fn run(&self, program: &Program, seen: &Seen, bytes: &[u8]) -> u32 {
        self.shared.run(program, seen, bytes)
    }

    /// What was written and not taken yet.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.obey();
        self.writer.take()
    }

    pub(super) fn write(&mut self, mut captured: Captured) {
        let Some(left) = self.left.checked_sub(1) else { return };
        self.left = left;
        let index = self.interface(captured.seen.port);
        let Some(known) = self.interfaces.get_mut(index) else { return };
        let missed = captured.missed.saturating_sub(known.missed_seen);
        known.missed_seen += missed;
        known.written += 1;
        let name = |port| self.names.get(&port).cloned().unwrap_or_else(|| format!("port {port}"));
        let said = captured.seen.note(name, |port| self.shared.network(port));
        self.writer.packet(number(index), missed, &mut captured, &said);
    }

    /// The interface of a port. A port that was announced too late is found among the commands; one that was never announced
    /// gets a name from its slot, for its frames were asked for.
    fn interface(&mut self, port: u32) -> usize {
        if !self.by_port.contains_key(&port) {
            self.obey();
        }
        if !self.by_port.contains_key(&port) {
            self.add(&CapturedPort { port, name: format!("port {port}"), ..CapturedPort::default() });
        }
        self.by_port.get(&port).copied().unwrap_or_default()
    }

    fn add(&mut self, interface: &CapturedPort) {
        let missed = self.shared.missed(interface.port);
        let index = self.interfaces.len();
        if let Some(before) = self.by_port.insert(interface.port, index).and_then(|before| self.interfaces.get_mut(before)) {
            before.missed_after = Some(missed);
        }
        self.writer.interface(&interface.name, &interface.description);
        self.names.insert(interface.port, interface.name.clone());
        self.interfaces.push(Known {
            port: interface.port,
            written: 0,
            missed_before: missed,
            missed_seen: missed,
            missed_after: None,
        });
    }

    fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.execute(command);
        }
    }

    fn execute(&mut self, command: StreamOrder) {
        match command {
            StreamOrder::Add(interface) => self.add(&interface),
            StreamOrder::Name(port) => drop(self.names.insert(port.port, port.name)),
            StreamOrder::Hosts(names) => self.writer.names(&names),
            StreamOrder::Stop => self.drain(),
        }
    }

    /// Tells the workers to take no more.
    fn drain(&mut self) {
        self.shared.end();
        if self.phase == Phase::Running {
            self.phase = Phase::Draining;
        }
    }

    pub(super) fn finish(&mut self) {
        self.shared.end();
        let to = now();
        for (index, known) in self.interfaces.iter().enumerate() {
            let missed =
                known.missed_after.unwrap_or_else(|| self.shared.missed(known.port)).saturating_sub(known.missed_before);
            let received = known.written.saturating_add(missed);
            self.writer.statistics(number(index), &Statistics { from: self.began, to, received, missed });
        }
        self.phase = Phase::Ended;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// Bytes at which a chunk is full.
const CHUNK: usize = 256 * 1024;
/// How long the reader lets frames gather once one is there: at 4 million frames a second a channel of [`MOST_FRAMES`](super::MOST_FRAMES) would be full then.
const GATHERING: Duration = Duration::from_millis(1);

/// A capture has as many interfaces as the switch has ports, and some more.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
