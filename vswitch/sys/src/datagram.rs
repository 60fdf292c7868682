//! UDP, ping and raw ICMP sockets with what comes beside a datagram: addresses (ip(7), `IP_PKTINFO`) and queued ICMP errors
//! (`IP_RECVERR`).

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::{check, last_error};

/// A datagram that was read.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// Bytes of it in the buffer.
    pub length: usize,
    /// The sender.
    pub from: SocketAddr,
    /// The address of this host that it was sent to, where [`ask_for_addresses`] was called.
    pub to: Option<IpAddr>,
}

/// An error that came back for a datagram sent earlier, or that the kernel had with it.
#[derive(Clone, Copy, Debug)]
pub struct QueuedError {
    /// Bytes of the datagram's payload in the buffer.
    pub length: usize,
    /// Where the datagram went.
    pub to: SocketAddr,
    /// Where the error comes from.
    pub origin: Origin,
    /// `EMSGSIZE`: the MTU.
    pub info: u32,
    /// What the kernel makes of it.
    pub errno: Errno,
}

/// Where an error comes from (`SO_EE_ORIGIN_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This kernel.
    Local,
    /// An ICMP or ICMPv6 message of this type and code, from this address where that is known.
    Icmp(u8, u8, Option<IpAddr>),
    /// Something else, such as a timestamp.
    Other,
}

/// Asks for the errors of a socket of either version; they then wait for [`receive_error`].
///
/// # Errors
/// What setsockopt(2) says.
pub fn ask_for_errors(fd: BorrowedFd<'_>, v6: bool) -> Result<(), Errno> {
    let (level, option) = if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) } else { (libc::IPPROTO_IP, libc::IP_RECVERR) };
    set(fd, level, option, &1)
}

/// Asks for the address that each datagram was sent to.
///
/// # Errors
/// What setsockopt(2) says.
pub fn ask_for_addresses(fd: BorrowedFd<'_>, v6: bool) -> Result<(), Errno> {
    let (level, option) = if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    set(fd, level, option, &1)
}

/// Keeps everything but echo replies out of a raw ICMP socket (`ICMP_FILTER`, `ICMP6_FILTER`).
///
/// # Errors
/// What setsockopt(2) says.
pub fn only_echo_replies(fd: BorrowedFd<'_>, v6: bool) -> Result<(), Errno> {
    if v6 {
        // A set bit blocks a type; 129 is the second bit of the fifth word (RFC 3542, section 3.2).
        let mut blocked = [u32::MAX; 8];
        blocked[4] &= !(1 << 1);
        return set(fd, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &blocked);
    }
    set(fd, SOL_RAW, ICMP_FILTER, &!1_u32)
}

/// Reads one datagram.
///
/// # Errors
/// `EAGAIN` if none waits; a pending error of the socket.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Datagram, Errno> {
    let mut received = Received::read(fd, buffer, 0)?;
    let from = received.name().ok_or(Errno::AFNOSUPPORT)?;
    let mut to = None;
    received.walk(|level, kind, data| match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => to = data.read::<libc::in_pktinfo>().map(|info| v4(info.ipi_addr)),
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => to = data.read::<libc::in6_pktinfo>().map(|info| v6(info.ipi6_addr)),
        _ => {}
    });
    Ok(Datagram { length: received.length, from, to })
}

/// Reads the oldest queued error, and as much of the datagram that it is about as is known.
///
/// # Errors
/// `EAGAIN` if none waits.
pub fn receive_error(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<QueuedError, Errno> {
    let mut received = Received::read(fd, buffer, libc::MSG_ERRQUEUE)?;
    let to = received.name().ok_or(Errno::AFNOSUPPORT)?;
    let mut error = QueuedError { length: received.length, to, origin: Origin::Other, info: 0, errno: Errno::IO };
    received.walk(|level, kind, data| {
        let is_error = matches!((level, kind), (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR));
        let Some(extended) = data.read::<libc::sock_extended_err>().filter(|_| is_error) else { return };
        error.info = extended.ee_info;
        error.errno = Errno::from_raw_os_error(i32::try_from(extended.ee_errno).unwrap_or(libc::EIO));
        error.origin = match extended.ee_origin {
            libc::SO_EE_ORIGIN_LOCAL => Origin::Local,
            libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 => {
                let offender = data.after(size_of::<libc::sock_extended_err>()).address();
                Origin::Icmp(extended.ee_type, extended.ee_code, offender.map(|address| address.ip()))
            }
            _ => Origin::Other,
        };
    });
    Ok(error)
}

/// Sends `bytes` as one datagram, or as several of `segment` bytes each (`UDP_SEGMENT`); `from` is the address of this host to
/// send it from, where it matters.
///
/// # Errors
/// `EAGAIN` if the socket's buffer is full; `EMSGSIZE`, `ECONNREFUSED`, `EHOSTUNREACH` and their kin.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8], to: SocketAddr, from: Option<IpAddr>, segment: Option<u16>) -> Result<(), Errno> {
    let (mut name, length) = raw_address(to)?;
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([MaybeUninit::zeroed(); CONTROL]);
    let mut message = empty_message();
    message.msg_name = std::ptr::from_mut(&mut name).cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    let mut writer = Writer { message: &message, used: 0 };
    match from {
        Some(IpAddr::V4(address)) => writer.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &source_v4(address)),
        Some(IpAddr::V6(address)) => writer.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &source_v6(address)),
        None => {}
    }
    if let Some(size) = segment {
        writer.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size);
    }
    message.msg_controllen = writer.used as _;
    if message.msg_controllen == 0 {
        message.msg_control = std::ptr::null_mut();
    }
    // SAFETY: the descriptor is open; name, part and control live until the end of this function, with their true lengths, and
    // the kernel only reads them.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    if sent >= 0 { Ok(()) } else { Err(last_error()) }
}

/// `ICMP_FILTER` (linux/icmp.h) and `ICMPV6_FILTER` (linux/icmpv6.h).
const ICMP_FILTER: libc::c_int = 1;
const ICMP6_FILTER: libc::c_int = 1;
/// The level of options of raw IPv4 sockets (linux/socket.h).
const SOL_RAW: libc::c_int = 255;
/// Room for the control messages that we ask for; the largest is an error with an IPv6 offender, 16 + 16 + 28 bytes.
const CONTROL: usize = 256;

/// Aligned as `struct cmsghdr` has to be.
#[repr(align(8))]
struct Control([MaybeUninit<u8>; CONTROL]);

/// What recvmsg(2) gave besides bytes.
struct Received {
    name: MaybeUninit<libc::sockaddr_storage>,
    name_length: usize,
    control: Control,
    control_length: usize,
    length: usize,
}

impl Received {
    fn read(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: libc::c_int) -> Result<Self, Errno> {
        let mut received = Self {
            name: MaybeUninit::zeroed(),
            name_length: 0,
            control: Control([MaybeUninit::zeroed(); CONTROL]),
            control_length: 0,
            length: 0,
        };
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut message = empty_message();
        message.msg_name = received.name.as_mut_ptr().cast();
        message.msg_namelen = length_of::<libc::sockaddr_storage>()?;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = received.control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL as _;
        // SAFETY: the descriptor is open; name, part and control are exclusively ours for the call, with their true lengths.
        let length = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) };
        received.length = usize::try_from(length).map_err(|_| last_error())?;
        received.name_length = usize::try_from(message.msg_namelen).unwrap_or(0);
        received.control_length = message.msg_controllen as _;
        Ok(received)
    }

    fn name(&self) -> Option<SocketAddr> {
        Data { start: self.name.as_ptr().cast(), length: self.name_length }.address()
    }

    /// Shows every control message.
    fn walk(&mut self, mut see: impl FnMut(libc::c_int, libc::c_int, Data)) {
        let mut message = empty_message();
        message.msg_control = self.control.0.as_mut_ptr().cast();
        message.msg_controllen = self.control_length as _;
        // SAFETY: the control buffer is ours and holds `control_length` bytes that the kernel wrote.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: the macros return null or a pointer to a whole header inside the control buffer.
        while let Some(header) = unsafe { next.as_ref() } {
            // SAFETY: as above; the data begins behind the header.
            let start = unsafe { libc::CMSG_DATA(header) };
            let before = start as usize - std::ptr::from_ref(header) as usize;
            let length = header.cmsg_len.saturating_sub(before);
            see(header.cmsg_level, header.cmsg_type, Data { start, length });
            // SAFETY: `message` and `header` are those of this walk.
            next = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
    }
}

/// Bytes that the kernel wrote.
#[derive(Clone, Copy)]
struct Data {
    start: *const u8,
    length: usize,
}

impl Data {
    /// A structure of integers at the front; `None` if it is not all there.
    fn read<T: Copy>(self) -> Option<T> {
        // SAFETY: `length` bytes are there and initialised, and every `T` of this module is made of integers.
        (self.length >= size_of::<T>()).then(|| unsafe { self.start.cast::<T>().read_unaligned() })
    }

    fn after(self, bytes: usize) -> Self {
        let bytes = bytes.min(self.length);
        // SAFETY: not beyond the end of what is there.
        Self { start: unsafe { self.start.add(bytes) }, length: self.length - bytes }
    }

    fn address(self) -> Option<SocketAddr> {
        match libc::c_int::from(self.read::<libc::sa_family_t>()?) {
            libc::AF_INET => {
                let name = self.read::<libc::sockaddr_in>()?;
                Some(SocketAddr::new(v4(name.sin_addr), u16::from_be(name.sin_port)))
            }
            libc::AF_INET6 => {
                let name = self.read::<libc::sockaddr_in6>()?;
                let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(address, u16::from_be(name.sin6_port), 0, name.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// Fills in control messages.
struct Writer<'a> {
    message: &'a libc::msghdr,
    used: usize,
}

impl Writer<'_> {
    fn push<T: Copy>(&mut self, level: libc::c_int, kind: libc::c_int, value: &T) {
        let Ok(size) = u32::try_from(size_of::<T>()) else { return };
        // SAFETY: both only compute with a small number.
        let (space, length) = unsafe { (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size)) };
        if self.used + space > CONTROL {
            return;
        }
        // SAFETY: the control buffer of `message` is zeroed, aligned, exclusively ours and has `space` bytes left at `used`, a
        // multiple of the alignment since every message before took its whole space.
        unsafe {
            let header = self.message.msg_control.cast::<u8>().add(self.used).cast::<libc::cmsghdr>();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = length as _;
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(*value);
        }
        self.used += space;
    }
}

fn empty_message() -> libc::msghdr {
    // SAFETY: every field of `msghdr` is an integer or a pointer, for which zero is valid.
    unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() }
}

fn v4(address: libc::in_addr) -> IpAddr {
    Ipv4Addr::from(u32::from_be(address.s_addr)).into()
}

fn v6(address: libc::in6_addr) -> IpAddr {
    Ipv6Addr::from(address.s6_addr).into()
}

fn source_v4(address: Ipv4Addr) -> libc::in_pktinfo {
    let none = libc::in_addr { s_addr: 0 };
    libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: libc::in_addr { s_addr: u32::from(address).to_be() }, ipi_addr: none }
}

fn source_v6(address: Ipv6Addr) -> libc::in6_pktinfo {
    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: address.octets() }, ipi6_ifindex: 0 }
}

fn raw_address(address: SocketAddr) -> Result<(libc::sockaddr_storage, libc::socklen_t), Errno> {
    // SAFETY: a structure of integers, for which zero is valid.
    let mut storage = unsafe { MaybeUninit::<libc::sockaddr_storage>::zeroed().assume_init() };
    let place = std::ptr::from_mut(&mut storage);
    let length = match address {
        SocketAddr::V4(address) => {
            // SAFETY: the storage is larger than and aligned for every address.
            unsafe { place.cast::<libc::sockaddr_in>().write(raw_v4(address)?) };
            length_of::<libc::sockaddr_in>()?
        }
        SocketAddr::V6(address) => {
            // SAFETY: as above.
            unsafe { place.cast::<libc::sockaddr_in6>().write(raw_v6(address)?) };
            length_of::<libc::sockaddr_in6>()?
        }
    };
    Ok((storage, length))
}

fn raw_v4(address: SocketAddrV4) -> Result<libc::sockaddr_in, Errno> {
    Ok(libc::sockaddr_in {
        sin_family: family(libc::AF_INET)?,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    })
}

fn raw_v6(address: SocketAddrV6) -> Result<libc::sockaddr_in6, Errno> {
    Ok(libc::sockaddr_in6 {
        sin6_family: family(libc::AF_INET6)?,
        sin6_port: address.port().to_be(),
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
        sin6_scope_id: address.scope_id(),
    })
}

fn family(family: libc::c_int) -> Result<libc::sa_family_t, Errno> {
    libc::sa_family_t::try_from(family).map_err(|_| Errno::AFNOSUPPORT)
}

fn set<T: Copy>(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &T) -> Result<(), Errno> {
    let length = length_of::<T>()?;
    // SAFETY: the descriptor is open; the kernel reads at most `length` bytes, the size of `value`.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) }).map(drop)
}

fn length_of<T>() -> Result<libc::socklen_t, Errno> {
    libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn datagrams_come_with_both_addresses_and_leave_from_the_one_asked_for() {
        let (one, two) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("0.0.0.0:0").unwrap());
        ask_for_addresses(two.as_fd(), false).unwrap();
        let target = SocketAddr::new([127, 0, 0, 9].into(), two.local_addr().unwrap().port());
        send(one.as_fd(), b"abcdef", target, None, Some(4)).unwrap();
        let mut buffer = [0; 100];
        let first = receive(two.as_fd(), &mut buffer).unwrap();
        assert_eq!(
            (&buffer[..first.length], first.from, first.to),
            (&b"abcd"[..], one.local_addr().unwrap(), Some(target.ip()))
        );
        assert_eq!(receive(two.as_fd(), &mut buffer).unwrap().length, 2);
        send(two.as_fd(), b"back", first.from, first.to, None).unwrap();
        assert_eq!(receive(one.as_fd(), &mut buffer).unwrap().from, target);
    }

    #[test]
    fn a_closed_port_is_a_queued_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        ask_for_errors(socket.as_fd(), false).unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut buffer = [0; 100];
        assert_eq!(receive_error(socket.as_fd(), &mut buffer).unwrap_err(), Errno::AGAIN);
        send(socket.as_fd(), b"abc", closed, None, None).unwrap();
        let error = receive_error(socket.as_fd(), &mut buffer).unwrap();
        let expected = (closed, Origin::Icmp(3, 3, Some([127, 0, 0, 1].into())), Errno::CONNREFUSED);
        assert_eq!((error.to, error.origin, error.errno), expected);
    }
}
