//! Many new UDP sessions through a NAT: datagrams of one station, each from a port of its own, by a raw socket, because binding a
//! socket for each would cost more than the NAT does.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, ipproto};

use super::contender::Place;
use super::generator::{in_netns, message, socket_in};
use crate::interrupt::interrupted;

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    /// Sessions whose datagram arrived.
    pub(crate) sessions: u32,
    /// From the first that was sent to the last that arrived.
    pub(crate) time: Duration,
}

/// Begins `count` sessions, at most [`MOST`], as fast as they can be sent.
///
/// # Panics
/// If fewer than a hundredth of them get through.
pub(crate) fn open(place: &Place, count: u16) -> Opened {
    let port = place.fresh_port();
    let receiver = socket_in(place.to(), ("0.0.0.0", port));
    receiver.set_read_timeout(Some(SILENCE)).expect("a timeout");
    let sender = in_netns(place.from(), || {
        rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).expect("a raw socket")
    });
    let address: Ipv4Addr = place.address.parse().expect("an IPv4 address");
    let begun = Instant::now();
    let (sessions, last) = std::thread::scope(|scope| {
        let received = scope.spawn(|| {
            let (mut sessions, mut last, mut bytes) = (0_u32, begun, [0; 64]);
            // The first answer of a user-space NAT may take its time; then silence is the end.
            while receiver.recv(&mut bytes).is_ok() {
                sessions += 1;
                last = Instant::now();
            }
            (sessions, last)
        });
        send(&sender, address, port, count.min(MOST));
        received.join().expect("a receiver")
    });
    assert!(sessions * 100 >= u32::from(count), "only {sessions} of {count} new sessions got through");
    Opened { sessions, time: last - begun }
}

fn send(socket: &OwnedFd, address: Ipv4Addr, port: u16, count: u16) {
    let mut target = target(address);
    let numbers: Vec<u16> = (0..count).collect();
    for numbers in numbers.chunks(MANY) {
        if interrupted() {
            return;
        }
        let mut packets = [[0; LENGTH]; MANY];
        let mut parts: Vec<libc::iovec> = Vec::with_capacity(MANY);
        for (bytes, number) in packets.iter_mut().zip(numbers) {
            *bytes = packet(address, FIRST_PORT + number, port);
            parts.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: LENGTH });
        }
        let mut messages: Vec<libc::mmsghdr> = parts.iter_mut().map(|part| to(&mut target, message(part))).collect();
        let count = libc::c_uint::try_from(messages.len()).unwrap_or(0);
        // SAFETY: the descriptor is open; messages, parts, packets and the address live through the call.
        unsafe { libc::sendmmsg(socket.as_fd().as_raw_fd(), messages.as_mut_ptr(), count, 0) };
    }
}

fn target(address: Ipv4Addr) -> libc::sockaddr_in {
    let sin_addr = libc::in_addr { s_addr: u32::from(address).to_be() };
    let sin_family = libc::sa_family_t::try_from(libc::AF_INET).expect("a family is a small number");
    libc::sockaddr_in { sin_family, sin_port: 0, sin_addr, sin_zero: [0; 8] }
}

fn to(target: &mut libc::sockaddr_in, mut message: libc::mmsghdr) -> libc::mmsghdr {
    message.msg_hdr.msg_namelen = libc::socklen_t::try_from(size_of_val(target)).expect("a small size");
    message.msg_hdr.msg_name = std::ptr::from_mut(target).cast();
    message
}

/// An IPv4 packet with a UDP datagram; the kernel fills in source, length, identification and checksum (raw(7)), and zero is no
/// checksum in UDP's header.
fn packet(address: Ipv4Addr, from: u16, to: u16) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[0] = 0x45;
    bytes[8] = 64;
    bytes[9] = 17;
    bytes[16..20].copy_from_slice(&address.octets());
    bytes[20..22].copy_from_slice(&from.to_be_bytes());
    bytes[22..24].copy_from_slice(&to.to_be_bytes());
    bytes[25] = 8 + PAYLOAD;
    bytes
}

/// The most sessions of one station to one port: there are no more ports from [`FIRST_PORT`] on.
pub(crate) const MOST: u16 = 40_000;
/// Where each session is a socket: so many that all rounds of a run stay within any limit.
pub(crate) const FEW: u16 = 600;
const FIRST_PORT: u16 = 20_000;
const PAYLOAD: u8 = 4;
const LENGTH: usize = 20 + 8 + PAYLOAD as usize;
/// Datagrams that a system call carries.
const MANY: usize = 64;
/// After so long without a datagram no more will come.
const SILENCE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_one_that_a_parser_takes() {
        let bytes = packet(Ipv4Addr::new(198, 51, 100, 1), 20_001, 9001);
        assert_eq!(&bytes[16..20], &[198, 51, 100, 1]);
        assert_eq!(u16::from_be_bytes([bytes[20], bytes[21]]), 20_001);
        assert_eq!(u16::from_be_bytes([bytes[22], bytes[23]]), 9001);
        assert_eq!(usize::from(u16::from_be_bytes([bytes[24], bytes[25]])), LENGTH - 20);
        assert!(FIRST_PORT.checked_add(MOST).is_some());
    }
}
