//! A bare forwarder between two TAPs of one queue each: the least that a switch in a process has to do, and so how fast one can be. It decides
//! nothing, and looks for work for as long as the switch does before it sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use sys::tun::{self, Offloads};

/// Makes `eth0` in both namespaces and moves frames between the two, until one of them is gone.
///
/// # Errors
/// A namespace or TAP cannot be opened, or a TAP is gone.
pub fn forward([one, other]: [&Path; 2]) -> io::Result<()> {
    let (one, other) = (open(one)?, open(other)?);
    let (one, other) = (one.as_fd(), other.as_fd());
    let mut buffer = vec![0; BUFFER];
    let mut busy = Instant::now();
    loop {
        let moved = turn((one, other), &mut buffer)? + turn((other, one), &mut buffer)?;
        if moved > 0 {
            busy = Instant::now();
        } else if busy.elapsed() > LOOK {
            poll(&mut [one, other].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)), None)?;
        }
    }
}

/// Makes `eth0` in a namespace. A queue stays its device's on whichever thread.
fn open(namespace: &Path) -> io::Result<OwnedFd> {
    let file = std::fs::File::open(namespace)?;
    let make = || {
        sys::netns::enter(file.as_fd())?;
        let queue = tun::open()?;
        tun::attach_queue(queue.as_fd(), "eth0", false)?;
        tun::set_offloads(queue.as_fd(), Offloads::All)?;
        Ok::<_, Errno>(queue)
    };
    let made = std::thread::scope(|scope| scope.spawn(make).join());
    Ok(made.map_err(|_| io::Error::other("the thread that made a TAP has failed"))??)
}

/// Moves what waits, up to a batch; how many frames. What the other side has no room for is lost, as in any switch.
fn turn((from, to): (BorrowedFd<'_>, BorrowedFd<'_>), buffer: &mut [u8]) -> io::Result<usize> {
    let (mut frames, mut bytes) = (0, 0);
    while frames < FRAMES && bytes < BYTES {
        let length = match rustix::io::read(from, &mut *buffer) {
            Ok(length) => length,
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        };
        let _ = rustix::io::write(to, &buffer[..length]);
        (frames, bytes) = (frames + 1, bytes + length);
    }
    Ok(frames)
}

/// A header of the kernel's, and the longest super-frame.
const BUFFER: usize = 68 * 1024;
/// A batch, as the switch has it.
const FRAMES: usize = 64;
const BYTES: usize = 512 * 1024;
const LOOK: Duration = Duration::from_micros(50);
