//! What goes beside the bytes of a message: addresses, and control messages (cmsg(3)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;

use super::{Run, RunReceived};
use crate::{Control, length_of};

/// A socket address in the kernel's form.
pub(super) enum Name {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Name {
    pub(super) fn from(address: SocketAddr) -> Result<(Self, libc::socklen_t), Errno> {
        let port = address.port().to_be();
        Ok(match address.ip() {
            IpAddr::V4(ip) => {
                let sin_addr = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let name = libc::sockaddr_in { sin_family: family(libc::AF_INET)?, sin_port: port, sin_addr, sin_zero: [0; 8] };
                (Self::V4(name), length_of::<libc::sockaddr_in>()?)
            }
            IpAddr::V6(ip) => {
                let name = libc::sockaddr_in6 {
                    sin6_family: family(libc::AF_INET6)?,
                    sin6_port: port,
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
                    sin6_scope_id: 0,
                };
                (Self::V6(name), length_of::<libc::sockaddr_in6>()?)
            }
        })
    }

    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        match self {
            Self::V4(name) => std::ptr::from_ref(name).cast(),
            Self::V6(name) => std::ptr::from_ref(name).cast(),
        }
    }
}

/// `sockaddr_in` and `sockaddr_in6` have the family and the port in the same places, and the IPv4 address where the flow label is.
pub(super) fn address_of(name: &libc::sockaddr_in6) -> Option<SocketAddr> {
    let ip = match libc::c_int::from(name.sin6_family) {
        libc::AF_INET => Ipv4Addr::from(name.sin6_flowinfo.to_ne_bytes()).into(),
        libc::AF_INET6 => Ipv6Addr::from(name.sin6_addr.s6_addr).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be(name.sin6_port)))
}

fn family(number: libc::c_int) -> Result<libc::sa_family_t, Errno> {
    number.try_into().map_err(|_| Errno::INVAL)
}

/// Says the segments' size and the traffic class, each only where it is not what the kernel does anyway.
pub(super) fn write_control(message: &mut libc::msghdr, control: &mut Control, segment: Option<u16>, run: &Run<'_>) {
    let class = (run.class != 0).then_some(i32::from(run.class));
    let class_at = if run.to.is_ipv4() { (libc::IPPROTO_IP, libc::IP_TOS) } else { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) };
    let mut used = 0;
    if let Some(segment) = segment {
        used += control.put(used, (libc::SOL_UDP, libc::UDP_SEGMENT), segment);
    }
    if let Some(class) = class {
        used += control.put(used, class_at, class);
    }
    if used > 0 {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = used as _;
    }
}

impl Control {
    /// Writes a control message at `at`, which is aligned, and returns the space that it takes.
    fn put<T: Copy>(&mut self, at: usize, (cmsg_level, cmsg_type): (libc::c_int, libc::c_int), value: T) -> usize {
        let size = libc::c_uint::try_from(size_of::<T>()).unwrap_or_default();
        // SAFETY: these compute sizes and take no pointer.
        let (space, length) = unsafe { (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size)) };
        let header = libc::cmsghdr { cmsg_len: length as _, cmsg_level, cmsg_type };
        let Some(place) = self.0.get_mut(at..at + space) else { return 0 };
        let place = place.as_mut_ptr();
        // SAFETY: `place` has room for `space` bytes, the header and the value behind it; `write_unaligned` asks for no alignment.
        unsafe {
            place.cast::<libc::cmsghdr>().write_unaligned(header);
            place.add(libc::CMSG_LEN(0) as usize).cast::<T>().write_unaligned(value);
        }
        space
    }
}

/// What a message of a socket's error queue says (`IP_RECVERR`, ip(7)).
pub(super) fn read_error(message: &libc::msghdr) -> Option<Errno> {
    // SAFETY: recvmsg(2) has filled in `message`; its control buffer is still borrowed by the caller.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: the macros return null or a pointer to a whole header inside the control buffer, which the kernel wrote.
    while let Some(header) = unsafe { next.as_ref() } {
        let kinds = [(libc::IPPROTO_IP, libc::IP_RECVERR), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)];
        if kinds.contains(&(header.cmsg_level, header.cmsg_type)) {
            // SAFETY: as above; the kernel writes a `sock_extended_err` behind a header of these types (`ip_recv_error`).
            let error = unsafe { libc::CMSG_DATA(header).cast::<libc::sock_extended_err>().read_unaligned() };
            return i32::try_from(error.ee_errno).ok().map(Errno::from_raw_os_error);
        }
        // SAFETY: `message` and `header` are those of this walk.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

pub(super) fn read_control(message: &libc::msghdr, reception: &mut RunReceived) {
    // SAFETY: recvmsg(2) has filled in `message`; its control buffer is still borrowed by the caller.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: the macros return null or a pointer to a whole header inside the control buffer, which the kernel wrote.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: as above; the data begins behind the header.
        let data = unsafe { libc::CMSG_DATA(header) };
        let room = header.cmsg_len - (data as usize - std::ptr::from_ref(header) as usize);
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_UDP, libc::UDP_GRO) if room >= size_of::<libc::c_int>() => {
                // SAFETY: the kernel wrote an int there, and `room` says that it is whole.
                let size = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                reception.segment = usize::try_from(size).unwrap_or_default().clamp(1, reception.length.max(1));
            }
            // Over IPv4 it is one byte, over IPv6 an int.
            (libc::IPPROTO_IP, libc::IP_TOS) if room >= 1 => {
                // SAFETY: as above, for one byte.
                reception.class = unsafe { data.read() };
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if room >= size_of::<libc::c_int>() => {
                // SAFETY: as above.
                let class = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                reception.class = u8::try_from(class).unwrap_or_default();
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) if room >= size_of::<u32>() => {
                // SAFETY: as above, for one integer.
                reception.overflows = Some(unsafe { data.cast::<u32>().read_unaligned() });
            }
            _ => {}
        }
        // SAFETY: `message` and `header` are those of this walk.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
}
