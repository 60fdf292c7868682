//! UDP sockets with segmentation offload (udp(7), ip(7), ipv6(7)): many datagrams of one size in one call, both ways.

mod message;

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::{CONTROL, Control, check, last_error, length_of, set};
use message::{Name, address_of, read_control, read_error, write_control};

/// What came beside a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunReceived {
    /// Bytes read.
    pub length: usize,
    /// Whether there was more than the buffer holds.
    pub truncated: bool,
    /// The sender.
    pub source: SocketAddr,
    /// Bytes of each datagram, of which the last may have fewer; `length` where it is only one.
    pub segment: usize,
    /// TOS field or traffic class.
    pub class: u8,
    /// Datagrams that did not fit the socket's buffer since it was opened, modulo 2^32 (`SO_RXQ_OVFL`); `None`: none.
    pub overflows: Option<u32>,
}

/// Datagrams in a row.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Their bytes.
    pub bytes: &'a [u8],
    /// Bytes of each, at least 1; the last may have fewer.
    pub segment: usize,
    /// Where they go.
    pub to: SocketAddr,
    /// TOS field or traffic class.
    pub class: u8,
}

/// Most datagrams of a run: `UDP_MAX_SEGMENTS` of older kernels (linux/udp.h).
pub const MOST: usize = 64;

/// Opens a nonblocking socket for the family of `address`, in the network namespace of the calling thread.
///
/// # Errors
/// `EAFNOSUPPORT` where the kernel has no IPv6.
pub fn open(address: IpAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) takes no pointer.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the kernel has just given us this descriptor, and no other code knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds the socket to an address and port; port 0 is the kernel's choice.
///
/// # Errors
/// `EADDRNOTAVAIL` if the address is not this host's, `EADDRINUSE` if another socket has the port.
pub fn bind(fd: BorrowedFd<'_>, address: SocketAddr) -> Result<(), Errno> {
    let (name, length) = Name::from(address)?;
    // SAFETY: the descriptor is open; `name` holds an address of `length` bytes.
    check(unsafe { libc::bind(fd.as_raw_fd(), name.as_ptr(), length) }).map(drop)
}

/// Lets several sockets of this user have one port; the kernel spreads datagrams over them by flow.
///
/// # Errors
/// What setsockopt(2) says.
pub fn share_port(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1_i32)
}

/// Lets several sockets have one multicast address and port, each for another interface.
///
/// # Errors
/// What setsockopt(2) says.
pub fn share_address(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32)
}

/// Asks for what a receiver wants to know beside the bytes, and for runs (`UDP_GRO`, Linux 5.0), which older kernels do not know.
/// Returns whether they come.
///
/// # Errors
/// What setsockopt(2) says.
pub fn prepare_receiving(fd: BorrowedFd<'_>, address: IpAddr) -> Result<bool, Errno> {
    match address {
        IpAddr::V4(_) => set(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, &1_i32)?,
        IpAddr::V6(_) => set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, &1_i32)?,
    }
    set(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &1_i32)?;
    Ok(set(fd, libc::SOL_UDP, libc::UDP_GRO, &1_i32).is_ok())
}

/// Takes datagrams over IPv6 without a checksum (RFC 6936); over IPv4 they are always taken.
///
/// # Errors
/// What setsockopt(2) says.
pub fn accept_zero_checksum(fd: BorrowedFd<'_>, accept: bool) -> Result<(), Errno> {
    set(fd, libc::SOL_UDP, UDP_NO_CHECK6_RX, &i32::from(accept))
}

/// Sends without a checksum.
///
/// # Errors
/// What setsockopt(2) says.
pub fn send_zero_checksum(fd: BorrowedFd<'_>, address: IpAddr) -> Result<(), Errno> {
    match address {
        IpAddr::V4(_) => set(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, &1_i32),
        IpAddr::V6(_) => set(fd, libc::SOL_UDP, UDP_NO_CHECK6_TX, &1_i32),
    }
}

/// Sends datagrams whole or not at all: a tunnel endpoint must not fragment (RFC 7348, section 4.3).
///
/// # Errors
/// What setsockopt(2) says.
pub fn never_fragment(fd: BorrowedFd<'_>, address: IpAddr) -> Result<(), Errno> {
    match address {
        IpAddr::V4(_) => set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_DO),
        IpAddr::V6(_) => {
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &libc::IPV6_PMTUDISC_DO)?;
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, &1_i32)
        }
    }
}

/// Sets how many hops datagrams live, to one and to many.
///
/// # Errors
/// What setsockopt(2) says.
pub fn set_hops(fd: BorrowedFd<'_>, address: IpAddr, hops: u8) -> Result<(), Errno> {
    let hops = i32::from(hops);
    match address {
        IpAddr::V4(_) => {
            set(fd, libc::IPPROTO_IP, libc::IP_TTL, &hops)?;
            set(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, &hops)
        }
        IpAddr::V6(_) => {
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, &hops)?;
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &hops)
        }
    }
}

/// Sends to groups out of one interface, and not back to this host.
///
/// # Errors
/// `ENODEV` if there is no such interface.
pub fn send_groups_out_of(fd: BorrowedFd<'_>, address: IpAddr, interface: u32) -> Result<(), Errno> {
    match address {
        IpAddr::V4(_) => {
            set(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &membership(Ipv4Addr::UNSPECIFIED, interface)?)?;
            set(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, &0_i32)
        }
        IpAddr::V6(_) => {
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &index(interface)?)?;
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, &0_i32)
        }
    }
}

/// Joins a group on an interface (IGMP, MLD), and hears this group on this interface only.
///
/// # Errors
/// `ENODEV` if there is no such interface, `ENOBUFS` if the system joins no more groups (`net.ipv4.igmp_max_memberships`).
pub fn join(fd: BorrowedFd<'_>, group: IpAddr, interface: u32) -> Result<(), Errno> {
    set(fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, &index(interface)?)?;
    match group {
        IpAddr::V4(group) => {
            set(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, &0_i32)?;
            set(fd, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &membership(group, interface)?)
        }
        IpAddr::V6(group) => {
            set(fd, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, &0_i32)?;
            let ipv6mr_multiaddr = libc::in6_addr { s6_addr: group.octets() };
            let request = libc::ipv6_mreq { ipv6mr_multiaddr, ipv6mr_interface: interface };
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)
        }
    }
}

/// Throws away whatever arrives, for a socket that only sends.
///
/// # Errors
/// What setsockopt(2) says.
pub fn deafen(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    const RETURN: u16 = 0x06;
    let mut nothing = libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &libc::sock_fprog { len: 1, filter: &raw mut nothing })
}

/// Has the kernel keep what comes back about datagrams, such as that a host cannot be reached, for [`take_error`]. The next send fails with it
/// once.
///
/// # Errors
/// What setsockopt(2) says.
pub fn report_errors(fd: BorrowedFd<'_>, address: IpAddr) -> Result<(), Errno> {
    match address {
        IpAddr::V4(_) => set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, &1_i32),
        IpAddr::V6(_) => set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &1_i32),
    }
}

/// Takes one message that came back about a datagram: the address that it was for, and why it did not get there. `None`: another message.
///
/// # Errors
/// `EAGAIN` where nothing waits.
pub fn take_error(fd: BorrowedFd<'_>) -> Result<Option<(IpAddr, Errno)>, Errno> {
    // SAFETY: the structures are plain data, for which zero bytes are valid.
    let (mut name, mut message): (libc::sockaddr_in6, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut control = Control([MaybeUninit::uninit(); CONTROL]);
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = length_of::<libc::sockaddr_in6>()?;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    // SAFETY: the descriptor is open; the message has no parts, and points to `name` and `control`, each with its length.
    let length = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if length < 0 {
        return Err(last_error());
    }
    Ok(address_of(&name).map(|to| to.ip()).zip(read_error(&message)))
}

/// Whether the kernel knows how to send runs (`UDP_SEGMENT`, Linux 4.18).
pub fn can_segment(fd: BorrowedFd<'_>) -> bool {
    set(fd, libc::SOL_UDP, libc::UDP_SEGMENT, &0_i32).is_ok()
}

/// The MTU of the route to an address, as a socket that is connected to it sees it. Nothing is sent.
///
/// # Errors
/// `ENETUNREACH` and the like where there is no route.
pub fn route_mtu(fd: BorrowedFd<'_>, to: SocketAddr) -> Result<u32, Errno> {
    let (name, length) = Name::from(to)?;
    // SAFETY: the descriptor is open; `name` holds an address of `length` bytes.
    check(unsafe { libc::connect(fd.as_raw_fd(), name.as_ptr(), length) })?;
    let (level, option) = if to.is_ipv4() { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
    let mut mtu: libc::c_int = 0;
    let mut length = length_of::<libc::c_int>()?;
    let value = std::ptr::from_mut(&mut mtu).cast();
    // SAFETY: the descriptor is open; the kernel writes at most `length` bytes, the size of an int, to `mtu`.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, value, &raw mut length) })?;
    u32::try_from(mtu).map_err(|_| Errno::INVAL)
}

/// Reads one datagram or one run.
///
/// # Errors
/// `EAGAIN` if none waits.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<RunReceived, Errno> {
    let mut from = MaybeUninit::<libc::sockaddr_in6>::zeroed();
    let mut control = Control([MaybeUninit::uninit(); CONTROL]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = empty_message();
    message.msg_name = from.as_mut_ptr().cast();
    message.msg_namelen = length_of::<libc::sockaddr_in6>()?;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    // SAFETY: the descriptor is open; name, buffer and control are exclusively ours for the call, with their true lengths.
    let length = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| last_error())?;
    // SAFETY: all fields are integers, for which the zeroes from the start are valid too.
    let source = address_of(&unsafe { from.assume_init() }).ok_or(Errno::AFNOSUPPORT)?;
    let truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    let mut reception = RunReceived { length, truncated, source, segment: length, class: 0, overflows: None };
    read_control(&message, &mut reception);
    Ok(reception)
}

/// Sends a run of at most [`MOST`] datagrams in one piece, which the kernel or the network card cuts (`UDP_SEGMENT`).
///
/// # Errors
/// `EAGAIN`, `ENOBUFS`: no room. `EMSGSIZE`: a datagram is longer than the route's MTU. `EIO`, `EINVAL`: the device or the socket
/// cannot do it; one by one, they can be sent.
pub fn send_run(fd: BorrowedFd<'_>, run: &Run<'_>) -> Result<(), Errno> {
    let (name, length) = Name::from(run.to)?;
    let mut part = libc::iovec { iov_base: run.bytes.as_ptr().cast_mut().cast(), iov_len: run.bytes.len() };
    let mut control = Control([MaybeUninit::uninit(); CONTROL]);
    let mut message = empty_message();
    message.msg_name = name.as_ptr().cast_mut().cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let segment = if run.bytes.len() > run.segment { u16::try_from(run.segment).ok() } else { None };
    write_control(&mut message, &mut control, segment, run);
    // SAFETY: the descriptor is open; name, part and control live until the call returns, and the kernel only reads them.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, 0) };
    if sent < 0 { Err(last_error()) } else { Ok(()) }
}

/// Sends a run of at most [`MOST`] datagrams one by one, in one call (`sendmmsg`). Returns how many the kernel took before the first
/// that it did not.
///
/// # Errors
/// It took none, and why.
pub fn send_each(fd: BorrowedFd<'_>, run: &Run<'_>) -> Result<usize, Errno> {
    let (name, length) = Name::from(run.to)?;
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MOST];
    let mut control = Control([MaybeUninit::uninit(); CONTROL]);
    let mut message = empty_message();
    message.msg_name = name.as_ptr().cast_mut().cast();
    message.msg_namelen = length;
    message.msg_iovlen = 1;
    write_control(&mut message, &mut control, None, run);
    let mut messages = [libc::mmsghdr { msg_hdr: message, msg_len: 0 }; MOST];
    let mut count: libc::c_uint = 0;
    for ((datagram, part), message) in run.bytes.chunks(run.segment.max(1)).zip(&mut parts).zip(&mut messages) {
        *part = libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
        message.msg_hdr.msg_iov = std::ptr::from_mut(part);
        count += 1;
    }
    // SAFETY: the descriptor is open; the first `count` messages are whole, and what they point to lives until the call returns. The
    // kernel reads it and writes only the lengths in `messages`.
    let sent = check(unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, 0) })?;
    usize::try_from(sent).map_err(|_| Errno::IO)
}

/// `UDP_NO_CHECK6_TX`, `UDP_NO_CHECK6_RX` (linux/udp.h) and `IPV6_MULTICAST_ALL` (linux/in6.h), which libc lacks.
const UDP_NO_CHECK6_TX: libc::c_int = 101;
const UDP_NO_CHECK6_RX: libc::c_int = 102;
const IPV6_MULTICAST_ALL: libc::c_int = 29;

fn membership(group: Ipv4Addr, interface: u32) -> Result<libc::ip_mreqn, Errno> {
    let address = |ip: Ipv4Addr| libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
    let (imr_multiaddr, imr_address) = (address(group), address(Ipv4Addr::UNSPECIFIED));
    Ok(libc::ip_mreqn { imr_multiaddr, imr_address, imr_ifindex: index(interface)? })
}

fn index(interface: u32) -> Result<libc::c_int, Errno> {
    libc::c_int::try_from(interface).map_err(|_| Errno::NODEV)
}

fn empty_message() -> libc::msghdr {
    // SAFETY: every field of `msghdr` is an integer or a pointer, for which zero is valid.
    unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn pair(address: &str) -> (OwnedFd, OwnedFd, SocketAddr) {
        let ip: IpAddr = address.parse().unwrap();
        let (sender, receiver) = (open(ip).unwrap(), open(ip).unwrap());
        bind(sender.as_fd(), SocketAddr::new(ip, 0)).unwrap();
        prepare_receiving(receiver.as_fd(), ip).unwrap();
        let port = (40_000..50_000).find(|port| bind(receiver.as_fd(), SocketAddr::new(ip, *port)).is_ok()).unwrap();
        (sender, receiver, SocketAddr::new(ip, port))
    }

    #[test]
    fn runs_arrive_with_their_size_and_class() {
        for address in ["127.0.0.1", "::1"] {
            let (sender, receiver, to) = pair(address);
            let bytes: Vec<u8> = (0..2500).map(|number: u16| number.to_be_bytes()[1]).collect();
            let run = Run { bytes: &bytes, segment: 1000, to, class: 0xb9 };
            send_run(sender.as_fd(), &run).unwrap();
            assert_eq!(send_each(sender.as_fd(), &run), Ok(3));
            let (mut buffer, mut heard, mut sizes) = (vec![0; 65_536], Vec::new(), Vec::new());
            while let Ok(reception) = receive(receiver.as_fd(), &mut buffer) {
                assert_eq!((reception.source.ip(), reception.class, reception.truncated), (to.ip(), 0xb9, false));
                assert_ne!(reception.source.port(), to.port(), "that of the sender");
                sizes.extend(buffer[..reception.length].chunks(reception.segment).map(<[u8]>::len));
                heard.extend_from_slice(&buffer[..reception.length]);
            }
            assert_eq!(sizes, [1000, 1000, 500, 1000, 1000, 500]);
            assert_eq!(heard, [&bytes[..], &bytes].concat());
        }
    }

    #[test]
    fn a_deaf_socket_keeps_nothing() {
        let (sender, receiver, to) = pair("127.0.0.1");
        deafen(receiver.as_fd()).unwrap();
        send_run(sender.as_fd(), &Run { bytes: b"x", segment: 1, to, class: 0 }).unwrap();
        assert_eq!(receive(receiver.as_fd(), &mut [0; 10]), Err(Errno::AGAIN));
    }

    #[test]
    fn without_checksum_they_arrive_one_by_one() {
        for address in ["127.0.0.1", "::1"] {
            let (sender, receiver, to) = pair(address);
            send_zero_checksum(sender.as_fd(), to.ip()).unwrap();
            if to.is_ipv6() {
                accept_zero_checksum(receiver.as_fd(), true).unwrap();
            }
            assert_eq!(send_each(sender.as_fd(), &Run { bytes: &[7; 30], segment: 10, to, class: 0 }), Ok(3));
            let mut buffer = [0; 100];
            let lengths: Vec<usize> = (0..3).map(|_| receive(receiver.as_fd(), &mut buffer).unwrap().length).collect();
            assert_eq!(lengths, [10, 10, 10]);
        }
    }
}
