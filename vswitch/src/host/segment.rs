//! Segments that belong to no connection: read to find theirs, or answered with a reset or an ICMP error. And the first step of a
//! connection on the host.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use packet::IpPacket;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::common::Common;
use super::outbox::Unreachable;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

/// A container's end and the other end, as the container knows it.
pub(super) type Key = (SocketAddr, SocketAddr);

/// What is looked at in a TCP header.
pub(super) struct Header {
    pub(super) key: Key,
    pub(super) flags: u8,
    pub(super) sequence: u32,
    pub(super) acknowledgment: u32,
    /// Bytes of sequence space.
    pub(super) length: u32,
}

impl Header {
    pub(super) fn parse(frame: &[u8], ip: &IpPacket) -> Option<Self> {
        let header: &[u8; 20] = frame.get(ip.transport..ip.end)?.first_chunk()?;
        let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, ..] = *header;
        let payload = (ip.end - ip.transport).checked_sub(usize::from(offset >> 4) * 4).filter(|_| offset >= 0x50)?;
        let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let source = SocketAddr::new(ip.source, u16::from_be_bytes([s0, s1]));
        let destination = SocketAddr::new(ip.destination, u16::from_be_bytes([d0, d1]));
        Some(Self {
            key: (source, destination),
            flags,
            sequence: u32::from_be_bytes([q0, q1, q2, q3]),
            acknowledgment: u32::from_be_bytes([a0, a1, a2, a3]),
            length: u32::try_from(payload).ok()?.saturating_add(control),
        })
    }
}

/// Answers a segment of no connection (RFC 9293, section 3.10.7.1).
pub(super) fn refuse(common: &mut Common, header: &Header) {
    common.counters.tcp_refused += 1;
    let (container, remote) = header.key;
    let (sequence, acknowledged) = if header.flags & ACK != 0 {
        (header.acknowledgment, None)
    } else {
        (0, Some(header.sequence.wrapping_add(header.length)))
    };
    common.outbox.bare_tcp(remote, container, sequence, acknowledged);
}

/// Tells the container why the host could not connect: by the ICMP error that fits what the kernel said, or by a reset.
pub(super) fn answer(common: &mut Common, key: Key, syn: &[u8], error: Errno) {
    common.counters.tcp_refused += 1;
    let what = match error {
        // Silence is the truth here: the container's own patience ends about now.
        Errno::TIMEDOUT => return,
        Errno::NETUNREACH | Errno::NETDOWN => Unreachable::Network,
        Errno::HOSTUNREACH | Errno::HOSTDOWN => Unreachable::Host,
        Errno::ACCESS | Errno::PERM => Unreachable::Prohibited,
        // Refused; or the host is short of something, which the container can do nothing about either.
        _ => return reset_syn(common, key, syn),
    };
    let (container, remote) = key;
    common.outbox.unreachable(what, common.voice(container.ip(), remote.ip()), container.ip(), syn);
}

fn reset_syn(common: &mut Common, key: Key, syn: &[u8]) {
    let transport = if key.0.is_ipv4() { 20 } else { 40 };
    let sequence = syn.get(transport + 4..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes));
    common.outbox.bare_tcp(key.1, key.0, 0, Some(sequence.wrapping_add(1)));
}

/// A nonblocking socket that connects, and whether it has already.
pub(super) fn open_and_connect(remote: SocketAddr) -> Result<(OwnedFd, bool), Errno> {
    let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    sockopt::set_socket_keepalive(&fd, true)?;
    match rustix::net::connect(&fd, &remote) {
        Ok(()) => Ok((fd, true)),
        Err(Errno::INPROGRESS) => Ok((fd, false)),
        Err(error) => Err(error),
    }
}
