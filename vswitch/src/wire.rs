//! Messages and descriptors between processes of vswitchd's on a Unix socket: each message behind its length, descriptors a few at a time beside
//! one byte.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg,
    sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No message is longer: an offer of 65,536 ports with 16 queues each.
const LONGEST: usize = 64 << 20;
/// Descriptors that go together; the kernel takes 253 (`SCM_MAX_FD`).
const TOGETHER: usize = 64;

/// Sends a message.
///
/// # Errors
/// The other side has ended, or does not read.
pub(crate) fn send<T: Serialize>(mut stream: &UnixStream, message: &T) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_le_bytes()[..], &text].concat())
}

/// Waits for a message.
///
/// # Errors
/// The other side has ended, is silent for as long as the socket waits, or says something else.
pub(crate) fn receive<T: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::Error::other("it says something else than a vswitchd does"));
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
/// Sends descriptors.
///
/// # Errors
/// As for [`send`].
pub(crate) fn send_descriptors(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for some in descriptors.chunks(TOGETHER) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(some));
        sendmsg(stream, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Waits for so many descriptors.
///
/// # Errors
/// As for [`receive`], or this process may not open as many.
pub(crate) fn receive_descriptors(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    // Where some do not come, the rest of the message is read all the same, so that what follows is understood.
    let (mut left, mut missing) = (count, 0);
    while left > 0 {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let read = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let before = descriptors.len();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
        let (expected, came) = (left.min(TOGETHER), descriptors.len() - before);
        if read.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        missing += expected - came.min(expected);
        left -= expected;
    }
    if missing > 0 {
        let sentence = format!("of {count} descriptors {missing} did not come: raise the limit of open files");
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, sentence));
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_arrive_in_their_order_behind_what_names_them() {
        let (one, other) = UnixStream::pair().unwrap();
        let files: Vec<OwnedFd> = (0..150).map(|_| tempfile::tempfile().unwrap().into()).collect();
        let sent = std::thread::spawn(move || {
            send(&one, &["a", "b"]).unwrap();
            send_descriptors(&one, &files.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
            send(&one, &7).unwrap();
            files
        });
        assert_eq!(receive::<Vec<String>>(&other).unwrap(), ["a", "b"]);
        let arrived = receive_descriptors(&other, 150).unwrap();
        assert_eq!(receive::<u8>(&other).unwrap(), 7);
        let same = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_eq!(arrived.iter().map(same).collect::<Vec<_>>(), sent.join().unwrap().iter().map(same).collect::<Vec<_>>());
        assert!(receive::<u8>(&other).is_err(), "the other side has ended");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [&[0xff; 8][..], &[2, 0, 0, 0, b'{', b'x'], &[9, 0, 0]] {
            let (one, other) = UnixStream::pair().unwrap();
            (&one).write_all(bytes).unwrap();
            drop(one);
            receive::<u8>(&other).unwrap_err();
        }
    }
}
