//! Where the worker's side and the uplink's thread meet: a bounded queue of frames in each direction.
//!
//! Frames lie in slots of two sizes, which travel to the other side full and come back empty for ever; as many are made as are
//! in flight at once, up to a cap, so a steady state allocates nothing. No side waits for the other: a writer without an empty slot
//! drops the frame (the device) or tries again when it hears that a slot came back (the thread). A side is woken only if it said that it
//! sleeps.
//!
//! **Shares.** The thread works much longer on a frame than the worker, so one port could take all of its time, and all slots.
//! Towards the thread a frame is of the port that it came in at: a port may have twice as many slots under way as are free (so one alone
//! takes two thirds, two take two fifths each), and [`PortShares`] says whose frame the thread takes next.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use mio::Waker;
use packet::{Batch, Capabilities, MAX_FRAME, Offload, Packet};
use rustix::event::EventfdFlags;
use rustix::io::Errno;

use super::shares::{PortShares, Share};
use plane::device::{Device, ReceiveStatus, Received, Sent};

/// Bytes of a small slot: a frame of MTU 1500.
const SMALL: usize = 2048;
/// Most slots of each size in one direction: 1 MiB of small and 4 MiB of large ones.
const MOST_SMALL: usize = 512;
const MOST_LARGE: usize = 64;
/// Empty slots with which a datagram of any length can be sent: one of 64 KiB is 118 pieces where the MTU is 576, and 32 where it is just too
/// much for a small slot.
const DATAGRAM_SMALL: usize = 128;
const DATAGRAM_LARGE: usize = 32;

/// A frame under way.
pub(super) struct Slot {
    buffer: Box<[u8]>,
    length: usize,
    pub(super) offload: Offload,
    /// The share of the port that it came from, towards the thread.
    pub(super) share: Share,
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

/// An empty slot, and the share whose frame was in it.
type Empty = (Box<[u8]>, Share);

/// Empty slots of one size, from the writer's side.
struct Shelf {
    size: usize,
    most: usize,
    made: usize,
    back: Receiver<Empty>,
    /// Empty slots that have come back.
    empty: Vec<Box<[u8]>>,
    /// Slots under way, by share.
    held: [usize; Share::COUNT],
}

impl Shelf {
    fn new(size: usize, most: usize) -> (Self, Sender<Empty>) {
        let (give, back) = bounded(most);
        (Self { size, most, made: 0, back, empty: Vec::new(), held: [0; Share::COUNT] }, give)
    }

    fn free(&self) -> usize {
        self.empty.len() + self.most - self.made
    }

    /// Whether there are so many empty slots.
    fn has(&mut self, count: usize) -> bool {
        if self.free() < count {
            self.collect();
        }
        self.free() >= count
    }

    /// Whether a share may have another slot.
    fn grants(&mut self, share: Share) -> bool {
        let grants = |shelf: &Self| shelf.held[share.index()] < 2 * shelf.free();
        if !grants(self) {
            self.collect();
        }
        grants(self)
    }

    /// Takes in the slots that have come back.
    fn collect(&mut self) {
        while let Ok((buffer, share)) = self.back.try_recv() {
            self.held[share.index()] -= 1;
            self.empty.push(buffer);
        }
    }

    fn take(&mut self, share: Share) -> Option<Box<[u8]>> {
        if !self.has(1) {
            return None;
        }
        let buffer = self.empty.pop().unwrap_or_else(|| {
            self.made += 1;
            vec![0; self.size].into_boxed_slice()
        });
        self.held[share.index()] += 1;
        Some(buffer)
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
    small: Sender<Empty>,
    large: Sender<Empty>,
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
        self.take(length, Share::default())
    }

    /// The same for a frame of this share, unless that has enough under way.
    fn slot_of(&mut self, length: usize, share: Share) -> Option<Slot> {
        if self.shelf(length).grants(share) { self.take(length, share) } else { None }
    }

    fn take(&mut self, length: usize, share: Share) -> Option<Slot> {
        let buffer = self.shelf(length).take(share)?;
        Some(Slot { length: length.min(buffer.len()), buffer, offload: Offload::default(), share })
    }

    const fn shelf(&mut self, length: usize) -> &mut Shelf {
        if length <= SMALL { &mut self.small } else { &mut self.large }
    }

    /// Whether [`Writer::slot`] would give one of any size. If not, the reader rings when one comes back.
    pub(super) fn has_room(&mut self) -> bool {
        self.has(1, 1)
    }

    /// Whether there is room for a datagram of any length, whatever it is cut into. If not, the reader rings when a slot comes back.
    pub(super) fn has_room_for_datagram(&mut self) -> bool {
        self.has(DATAGRAM_SMALL, DATAGRAM_LARGE)
    }

    fn has(&mut self, small: usize, large: usize) -> bool {
        for _ in 0..2 {
            if self.small.has(small) && self.large.has(large) {
                return true;
            }
            // A slot that came back before the bell was set would not wake the writer, so look again after setting it.
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
        let _ = shelf.try_send((slot.buffer, slot.share));
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
pub(super) struct SwitchLink {
    pub(super) writer: Writer,
    reader: Reader,
    /// Frames that have been read, and wait for their turn.
    waiting: PortShares<Slot>,
    bell: Arc<OwnedFd>,
}

/// Both sides of a link; `thread` wakes the thread.
pub(super) fn link(thread: Arc<Waker>) -> Result<(HostDevice, SwitchLink), Errno> {
    let bell = Arc::new(rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (device_writer, thread_reader) = direction();
    let (thread_writer, device_reader) = direction();
    let device = HostDevice { writer: device_writer, reader: device_reader, bell: Arc::clone(&bell), thread };
    Ok((device, SwitchLink { writer: thread_writer, reader: thread_reader, waiting: PortShares::new(), bell }))
}

impl SwitchLink {
    /// Sends a frame to the switch.
    pub(super) fn send(&self, slot: Slot) {
        // Without a device the frame goes nowhere, and the thread is about to be ended.
        if self.writer.send(slot).is_ok_and(|sleeps| sleeps) {
            ring(&self.bell);
        }
    }

    /// The next frame from the switch: of the port that has had the least.
    pub(super) fn next(&mut self) -> Option<Slot> {
        while let Ok(slot) = self.reader.next() {
            self.waiting.push(slot.share, slot);
        }
        self.waiting.next()
    }

    /// Says what a frame has cost.
    pub(super) fn charge(&mut self, share: Share, time: Duration) {
        self.waiting.charge(share, time);
    }

    /// Gives a slot that was read back.
    pub(super) fn give_back(&self, slot: Slot) {
        // The device never waits for a slot.
        self.reader.give_back(slot);
    }

    /// Whether the thread may sleep until its waker rings.
    pub(super) fn may_sleep(&self) -> bool {
        self.reader.may_sleep() && self.waiting.is_empty()
    }

    /// Says that the waker need not ring.
    pub(super) fn is_awake(&self) {
        self.reader.is_awake();
    }
}

impl Drop for SwitchLink {
    /// A worker that sleeps hears that the device is gone.
    fn drop(&mut self) {
        let (closed, _) = bounded(0);
        self.writer.full = closed;
        ring(&self.bell);
    }
}

impl Device for HostDevice {
    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.bell.as_raw_fd()]
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::PLAIN
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
        let Some(mut slot) = self.writer.slot_of(length, Share::of(packet.ingress)) else { return Sent::QueueFull };
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

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;

    fn send(device: &mut HostDevice, ingress: u32) -> Sent {
        device.send(&Packet { ingress, ..Packet::whole(&[IoSlice::new(&[7; 100])]) })
    }

    fn pair() -> (mio::Poll, HostDevice, SwitchLink) {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let (device, link) = link(waker).unwrap();
        (poll, device, link)
    }

    #[test]
    fn a_port_that_floods_leaves_slots_to_the_others_and_its_frames_wait_behind_theirs() {
        let (_poll, mut device, mut link) = pair();
        let sent = (0..1000).filter(|_| send(&mut device, 1) == Sent::Done).count();
        assert_eq!(sent, MOST_SMALL * 2 / 3 + 1, "two thirds for one that is alone");
        for _ in 0..40 {
            assert_eq!(send(&mut device, 2), Sent::Done);
        }
        assert_eq!(send(&mut device, 1), Sent::QueueFull);
        // Each frame costs the same: the other's go by turns with as many of the flood's.
        let mut order = Vec::new();
        for _ in 0..80 {
            let slot = link.next().unwrap();
            link.charge(slot.share, Duration::from_micros(20));
            order.push(slot.share);
            link.give_back(slot);
        }
        assert_eq!(order.iter().filter(|share| **share == Share::of(2)).count(), 40);
        assert_eq!(send(&mut device, 1), Sent::Done, "slots that came back are there for all");
    }

    #[test]
    fn there_is_room_for_a_datagram_again_once_the_switch_has_taken_some() {
        let (_poll, mut device, mut link) = pair();
        while link.writer.has_room_for_datagram() {
            let slot = link.writer.slot(1514).unwrap();
            link.send(slot);
        }
        assert!(link.writer.has_room(), "what is left is for others");
        let mut batch = Batch::new();
        device.receive(&mut batch);
        assert!(!batch.frames().is_empty() && link.writer.has_room_for_datagram());
    }
}
