//! Bare frames in tests: a packet socket on a station's device, which sends any bytes and hears what arrives.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use sys::{netns, packet};

use crate::lab::Lab;

/// A station that sends and receives bare frames: a packet socket on a device in a namespace of a lab.
///
/// It hears only frames whose source address begins with `02:54`, which only tests use.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// The EtherType for experiments (IEEE 802, local experimental 1), of frames that end a silence.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

impl Wire {
    /// Opens the socket on `eth0` of a namespace of the lab.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn open(lab: &Lab, netns: &str) -> Self {
        let path = lab.named(&format!("/run/netns/@{netns}"));
        let socket = std::thread::spawn(move || {
            let file = std::fs::File::open(path).expect("a namespace");
            netns::enter(file.as_fd()).expect("a namespace to enter");
            let socket = packet::open().expect("a packet socket");
            // SAFETY: it reads a string that ends in zero.
            let index = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) };
            packet::set_auxiliary_data(socket.as_fd()).expect("auxiliary data");
            packet::ignore_outgoing(socket.as_fd()).expect("no echo");
            packet::set_buffers(socket.as_fd(), 16 << 20).expect("buffers");
            packet::bind(socket.as_fd(), index).expect("a device to bind to");
            packet::set_promiscuous(socket.as_fd(), index).expect("promiscuous");
            socket
        });
        Self { socket: socket.join().expect("a thread") }
    }

    /// Sends a frame.
    ///
    /// # Panics
    /// If the device does not take it.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        let begun = Instant::now();
        loop {
            match rustix::io::write(&self.socket, frame) {
                Ok(_) => return,
                Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::AGAIN) if begun.elapsed() < PATIENCE => {
                    std::thread::yield_now()
                }
                Err(error) => panic!("not sent: {error}"),
            }
        }
    }

    /// Sends a frame and returns whether the device took it.
    pub fn try_send(&self, frame: &[u8]) -> bool {
        rustix::io::write(&self.socket, frame).is_ok()
    }

    /// What arrives up to and without the frame that [`mark`] makes for `marker`. Frames of one port stay in order, so what
    /// was sent before the mark and is not here did not come.
    ///
    /// # Panics
    /// If the mark does not arrive.
    #[track_caller]
    pub fn heard_before(&self, marker: &str) -> Vec<Vec<u8>> {
        self.heard_until(|frame| is_mark(frame, marker))
    }

    /// What arrives up to and without the frame at which `over` says so.
    ///
    /// # Panics
    /// If it never does.
    #[track_caller]
    pub fn heard_until(&self, mut over: impl FnMut(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let begun = Instant::now();
        let mut heard = Vec::new();
        while begun.elapsed() < PATIENCE {
            match self.receive() {
                Some(frame) if over(&frame) => return heard,
                Some(frame) => heard.push(frame),
                None => {}
            }
        }
        panic!("what was waited for does not arrive; only {heard:02x?} came");
    }

    /// The next frame, within a second.
    fn receive(&self) -> Option<Vec<u8>> {
        let mut poll = [PollFd::new(&self.socket, PollFlags::IN)];
        let _ = rustix::event::poll(&mut poll, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
        let mut bytes = vec![0; 70_000];
        let reception = packet::receive(self.socket.as_fd(), &mut [IoSliceMut::new(&mut bytes)]).ok()?;
        bytes.truncate(reception.length);
        if let Some(tag) = reception.tag {
            bytes.splice(12..12, tag);
        }
        bytes.get(6..8).is_some_and(|source| source == [0x02, 0x54]).then_some(bytes)
    }
}

/// The address of test station `number`.
pub const fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x02, 0x54, 0, 0, high, low]
}

/// The address of every station.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// A frame of an EtherType, possibly behind tags that `kind` begins with.
pub fn frame(destination: [u8; 6], source: [u8; 6], kind: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&destination[..], &source, kind, payload].concat();
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

/// A broadcast frame that says `marker`.
pub fn mark(source: [u8; 6], marker: &str) -> Vec<u8> {
    frame(BROADCAST, source, &EXPERIMENTAL, format!("mark {marker} ").as_bytes())
}

/// Whether a frame is the mark of that name, from any station.
fn is_mark(frame: &[u8], marker: &str) -> bool {
    let text = format!("mark {marker} ");
    frame.windows(text.len()).any(|window| window == text.as_bytes())
}
