//! Where the worker's side and the uplink's thread meet: a bounded queue of frames in each direction.
//!
//! Frames lie in slots of two sizes, which travel to the other side full and come back empty for ever; as many are made as are
//! in flight at once, up to a cap, so a steady state allocates nothing. Nobody waits: a writer without an empty slot drops the
//! frame (the device) or tries again when it hears that a slot came back (the thread). A side is woken only if it said that it
//! sleeps.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use mio::Waker;
use packet::{Batch, Capabilities, MAX_FRAME, Offload, Packet};
use rustix::event::EventfdFlags;
use rustix::io::Errno;

use crate::device::{Device, ReceiveStatus, Received, Sent};

/// Bytes of a small slot: a frame of MTU 1500.
const SMALL: usize = 2048;
/// Most slots of each size in one direction: 1 MiB of small and 4 MiB of large ones.
const MOST_SMALL: usize = 512;
const MOST_LARGE: usize = 64;

/// A frame under way.
pub(super) struct Slot {
    buffer: Box<[u8]>,
    length: usize,
    pub(super) offload: Offload,
}

impl Slot {
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.length).unwrap_or_default()
    }
}

/// Which sides want to be told what.
#[derive(Default)]
struct Bells {
    /// The reader looked, found nothing, and sleeps.
    reader_sleeps: AtomicBool,
    /// The writer found no empty slot.
    writer_starves: AtomicBool,
}

/// Empty slots of one size, from the writer's side.
struct Shelf {
    size: usize,
    most: usize,
    made: usize,
    back: Receiver<Box<[u8]>>,
    /// An empty slot taken from the shelf in advance.
    ready: Option<Box<[u8]>>,
}

impl Shelf {
    fn new(size: usize, most: usize) -> (Self, Sender<Box<[u8]>>) {
        let (give, back) = bounded(most);
        (Self { size, most, made: 0, back, ready: None }, give)
    }

    fn has_one(&mut self) -> bool {
        if self.ready.is_none() {
            self.ready = self.back.try_recv().ok().or_else(|| self.make());
        }
        self.ready.is_some()
    }

    fn take(&mut self) -> Option<Box<[u8]>> {
        self.has_one();
        self.ready.take()
    }

    fn make(&mut self) -> Option<Box<[u8]>> {
        (self.made < self.most).then(|| {
            self.made += 1;
            vec![0; self.size].into_boxed_slice()
        })
    }
}

/// The sending end of a direction.
pub(super) struct Writer {
    full: Sender<Slot>,
    small: Shelf,
    large: Shelf,
    bells: Arc<Bells>,
}

/// The receiving end of a direction.
pub(super) struct Reader {
    full: Receiver<Slot>,
    small: Sender<Box<[u8]>>,
    large: Sender<Box<[u8]>>,
    bells: Arc<Bells>,
}

fn direction() -> (Writer, Reader) {
    let (send, receive) = bounded(MOST_SMALL + MOST_LARGE);
    let (small, small_back) = Shelf::new(SMALL, MOST_SMALL);
    let (large, large_back) = Shelf::new(MAX_FRAME, MOST_LARGE);
    let bells = Arc::new(Bells::default());
    let writer = Writer { full: send, small, large, bells: Arc::clone(&bells) };
    (writer, Reader { full: receive, small: small_back, large: large_back, bells })
}

impl Writer {
    /// An empty slot for a frame of `length` bytes; `None`: all are under way.
    pub(super) fn slot(&mut self, length: usize) -> Option<Slot> {
        let shelf = if length <= SMALL { &mut self.small } else { &mut self.large };
        let buffer = shelf.take()?;
        Some(Slot { length: length.min(buffer.len()), buffer, offload: Offload::default() })
    }

    /// Whether [`Writer::slot`] would give one of any size. If not, the reader rings when one comes back.
    pub(super) fn has_room(&mut self) -> bool {
        for _ in 0..2 {
            if self.small.has_one() && self.large.has_one() {
                return true;
            }
            // One that came back before the bell was set would ring nobody, so look again behind it.
            self.bells.writer_starves.store(true, Ordering::SeqCst);
        }
        false
    }

    /// Sends a slot of this direction; says whether the reader has to be woken. There is room for all slots that exist.
    fn send(&self, slot: Slot) -> Result<bool, Closed> {
        self.full.try_send(slot).map_err(|_| Closed)?;
        Ok(self.bells.reader_sleeps.swap(false, Ordering::SeqCst))
    }
}

/// The other side is gone.
struct Closed;

impl Reader {
    fn next(&self) -> Result<Slot, TryRecvError> {
        self.full.try_recv()
    }

    /// Gives an empty slot back; says whether the writer has to be woken.
    fn give_back(&self, slot: Slot) -> bool {
        let shelf = if slot.buffer.len() <= SMALL { &self.small } else { &self.large };
        // A writer that is gone needs none.
        let _ = shelf.try_send(slot.buffer);
        self.bells.writer_starves.load(Ordering::Relaxed) && self.bells.writer_starves.swap(false, Ordering::SeqCst)
    }

    /// Says that this side is about to sleep; returns whether it may, because nothing has come meanwhile.
    fn may_sleep(&self) -> bool {
        self.bells.reader_sleeps.store(true, Ordering::SeqCst);
        self.full.is_empty()
    }

    fn is_awake(&self) {
        self.bells.reader_sleeps.store(false, Ordering::SeqCst);
    }
}

/// The worker's side: the uplink as a port.
pub(super) struct HostDevice {
    writer: Writer,
    reader: Reader,
    /// Rung by the thread.
    bell: Arc<OwnedFd>,
    thread: Arc<Waker>,
}

/// The thread's side.
pub(super) struct Link {
    pub(super) writer: Writer,
    reader: Reader,
    bell: Arc<OwnedFd>,
}

/// Both sides of a link; `thread` wakes the thread.
pub(super) fn link(thread: Arc<Waker>) -> Result<(HostDevice, Link), Errno> {
    let bell = Arc::new(rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (device_writer, thread_reader) = direction();
    let (thread_writer, device_reader) = direction();
    let device = HostDevice { writer: device_writer, reader: device_reader, bell: Arc::clone(&bell), thread };
    Ok((device, Link { writer: thread_writer, reader: thread_reader, bell }))
}

impl Link {
    /// Sends a frame to the switch.
    pub(super) fn send(&self, slot: Slot) {
        // Without a device the frame goes nowhere, and the thread is about to be ended.
        if self.writer.send(slot).is_ok_and(|sleeps| sleeps) {
            ring(&self.bell);
        }
    }

    /// The next frame from the switch.
    pub(super) fn next(&self) -> Option<Slot> {
        self.reader.next().ok()
    }

    /// Gives a slot that was read back.
    pub(super) fn give_back(&self, slot: Slot) {
        // The device never waits for a slot.
        self.reader.give_back(slot);
    }

    /// Whether the thread may sleep until its waker rings.
    pub(super) fn may_sleep(&self) -> bool {
        self.reader.may_sleep()
    }

    /// Says that the waker need not ring.
    pub(super) fn is_awake(&self) {
        self.reader.is_awake();
    }
}

impl Drop for Link {
    /// A worker that sleeps hears that the device is gone.
    fn drop(&mut self) {
        let (closed, _) = bounded(0);
        self.writer.full = closed;
        ring(&self.bell);
    }
}

impl Device for HostDevice {
    fn descriptor(&self) -> Option<RawFd> {
        Some(self.bell.as_raw_fd())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn receive(&mut self, batch: &mut Batch) -> Received {
        self.reader.is_awake();
        let mut wake = false;
        let status = loop {
            if batch.is_full() {
                break ReceiveStatus::More;
            }
            match self.reader.next() {
                Ok(slot) => {
                    batch.push(slot.bytes(), slot.offload);
                    wake |= self.reader.give_back(slot);
                }
                Err(TryRecvError::Disconnected) => break ReceiveStatus::Gone,
                Err(TryRecvError::Empty) => {
                    silence(&self.bell);
                    if self.reader.may_sleep() {
                        break ReceiveStatus::Drained;
                    }
                }
            }
        };
        if wake {
            // It fails only when the thread is gone.
            let _ = self.thread.wake();
        }
        Received { status, malformed: 0, missed: 0 }
    }

    fn send(&mut self, packet: &Packet<'_>) -> Sent {
        let (parts, offload) = (packet.parts, packet.offload);
        let length = parts.iter().map(|part| part.len()).sum();
        if length > MAX_FRAME {
            return Sent::Refused;
        }
        let Some(mut slot) = self.writer.slot(length) else { return Sent::QueueFull };
        let mut rest = slot.bytes_mut();
        for part in parts {
            let (place, behind) = rest.split_at_mut(part.len().min(rest.len()));
            place.copy_from_slice(part.get(..place.len()).unwrap_or_default());
            rest = behind;
        }
        slot.offload = offload;
        match self.writer.send(slot) {
            Ok(true) => self.thread.wake().map_or(Sent::Down, |()| Sent::Done),
            Ok(false) => Sent::Done,
            Err(Closed) => Sent::Down,
        }
    }
}

fn ring(bell: &OwnedFd) {
    // A counter that is full has rung already.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

fn silence(bell: &OwnedFd) {
    // EAGAIN: it is silent.
    let _ = rustix::io::read(bell, &mut [0_u8; 8]);
}
