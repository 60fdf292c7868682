//! `AF_PACKET` sockets (packet(7), net/packet/af_packet.c).

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

pub use super::set_buffers;
use super::{CONTROL, Control, check, last_error, length_of, set};

/// What came beside a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reception {
    /// Bytes read, those of the virtio header among them.
    pub length: usize,
    /// Whether the frame was longer than the buffers.
    pub truncated: bool,
    /// Whether this host sent the frame.
    pub outgoing: bool,
    /// Whether the transport checksum is still to be computed. Without a virtio header nothing says where it goes.
    pub unfinished: bool,
    /// The outermost tag, TPID first, which the kernel keeps apart from the frame.
    pub tag: Option<[u8; 4]>,
    /// Frames that did not fit the socket's buffer since it was opened, modulo 2^32 (`SO_RXQ_OVFL`); `None`: none.
    pub overflows: Option<u32>,
}

/// Opens a nonblocking socket that is bound to nothing and gets nothing, in the network namespace of the calling thread.
///
/// # Errors
/// `EPERM` without `CAP_NET_RAW`.
pub fn open() -> Result<OwnedFd, Errno> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) takes no pointer.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the kernel has just given us this descriptor, and no other code knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds the socket to every protocol of one interface.
///
/// # Errors
/// `ENODEV` if the interface is gone. One that is down is not an error.
pub fn bind(fd: BorrowedFd<'_>, interface: u32) -> Result<(), Errno> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(|_| Errno::INVAL)?,
        sll_protocol: u16::try_from(libc::ETH_P_ALL).map_err(|_| Errno::INVAL)?.to_be(),
        sll_ifindex: index(interface)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = length_of::<libc::sockaddr_ll>()?;
    // SAFETY: the descriptor is open; the address is initialised and `length` is its size.
    check(unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) }).map(drop)
}

/// The index of the interface that the socket was bound to, if that still exists in its namespace. The kernel tells "removed" from "down" in
/// the bound index only, which becomes -1 (`packet_notifier`, `NETDEV_UNREGISTER`); both read as `ENETDOWN`.
pub fn bound_to(fd: BorrowedFd<'_>) -> Option<u32> {
    let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
    let mut length = length_of::<libc::sockaddr_ll>().ok()?;
    // SAFETY: the descriptor is open; the kernel writes at most `length` bytes to `address`.
    let result = check(unsafe { libc::getsockname(fd.as_raw_fd(), address.as_mut_ptr().cast(), &raw mut length) });
    // SAFETY: all fields are integers, for which the zeroes from the start are valid too.
    let index = unsafe { address.assume_init() }.sll_ifindex;
    u32::try_from(index).ok().filter(|index| result.is_ok() && *index > 0)
}

/// Puts a `struct virtio_net_hdr` before each frame, in both directions. Returns whether the kernel knows UDP super-frames:
/// the option that sets the header's size is newer than they are (Linux 6.5 and 6.2).
///
/// # Errors
/// `ENOPROTOOPT` or `EINVAL` on a kernel without.
pub fn set_virtio_header(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    if set(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR_SZ, &10).is_ok() {
        return Ok(true);
    }
    set(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1).map(|()| false)
}

/// Asks for the tags that the kernel takes out of frames, and for the count of lost frames.
///
/// # Errors
/// What setsockopt(2) says.
pub fn set_auxiliary_data(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    set(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1)?;
    set(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &1)
}

/// Keeps frames that this host sends out of the socket (Linux 4.20); [`Reception::outgoing`] tells them on older kernels.
///
/// # Errors
/// `ENOPROTOOPT` on an older kernel.
pub fn ignore_outgoing(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    set(fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)
}

/// Takes in frames to every address while the socket is open.
///
/// # Errors
/// `ENODEV` if the interface is gone.
pub fn set_promiscuous(fd: BorrowedFd<'_>, interface: u32) -> Result<(), Errno> {
    let mr_type = u16::try_from(libc::PACKET_MR_PROMISC).map_err(|_| Errno::INVAL)?;
    let request = libc::packet_mreq { mr_ifindex: index(interface)?, mr_type, mr_alen: 0, mr_address: [0; 8] };
    set(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// Takes in frames to one more unicast address and to every group while the socket is open. A device that can filter by several
/// addresses goes on filtering; another becomes promiscuous (`__dev_set_rx_mode`).
///
/// # Errors
/// `ENODEV` if the interface is gone.
pub fn add_station(fd: BorrowedFd<'_>, interface: u32, address: [u8; 6]) -> Result<(), Errno> {
    let membership = |kind: libc::c_int, length: u16| {
        let mr_type = u16::try_from(kind).map_err(|_| Errno::INVAL)?;
        let mut mr_address = [0; 8];
        mr_address[..6].copy_from_slice(&address);
        let request = libc::packet_mreq { mr_ifindex: index(interface)?, mr_type, mr_alen: length, mr_address };
        set(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
    };
    membership(libc::PACKET_MR_UNICAST, 6)?;
    membership(libc::PACKET_MR_ALLMULTI, 0)
}

/// Lets the kernel throw away frames that are neither to `address` nor to a group, before they are copied.
///
/// # Errors
/// What setsockopt(2) says.
pub fn hear_only(fd: BorrowedFd<'_>, address: [u8; 6]) -> Result<(), Errno> {
    let [a, b, c, d, e, f] = address;
    let (front, back) = (u32::from_be_bytes([a, b, c, d]), u32::from(u16::from_be_bytes([e, f])));
    // Classic BPF (linux/filter.h): the group bit of the first byte, else all six bytes.
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 4, 0, 1),
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, front),
        step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 4),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, back),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Founds a group of bound sockets among which the kernel spreads frames by flow; returns its number, for
/// [`join_group`]. A group has its own filter of outgoing frames, which does not follow the sockets'.
///
/// # Errors
/// `EINVAL` if the socket is not bound or its interface is down.
pub fn found_group(fd: BorrowedFd<'_>, steered: bool) -> Result<u16, Errno> {
    let how = how(steered) | libc::PACKET_FANOUT_FLAG_UNIQUEID;
    let unique = |flags| set(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &((how | flags) << 16));
    unique(libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING).or_else(|_| unique(0))?;
    let mut group: libc::c_int = 0;
    let mut length = length_of::<libc::c_int>()?;
    let value = std::ptr::from_mut(&mut group).cast();
    // SAFETY: the descriptor is open; the kernel writes at most `length` bytes, the size of an int, to `group`.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT, value, &raw mut length) })?;
    let [a, b, ..] = group.to_le_bytes();
    Ok(u16::from_le_bytes([a, b]))
}

/// Joins a group of sockets bound to the same interface.
///
/// # Errors
/// As [`found_group`]; `ENOSPC` for more than 256 sockets.
pub fn join_group(fd: BorrowedFd<'_>, group: u16, steered: bool) -> Result<(), Errno> {
    let join = |flags: u32| set(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &(u32::from(group) | (how(steered) | flags) << 16));
    join(libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING).or_else(|_| join(0))
}

/// Has a program (`sys::bpf`) say which socket of a steered group gets each frame: that with the number that it returns, modulo how many there
/// are, in the order in which they joined. Before that, the first gets all.
///
/// # Errors
/// `EINVAL` for a group that is not steered.
pub fn steer_group(fd: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    set(fd, libc::SOL_PACKET, libc::PACKET_FANOUT_DATA, &program.as_raw_fd())
}

/// How a group shares out frames: as a program says, or by the flow.
const fn how(steered: bool) -> u32 {
    if steered { libc::PACKET_FANOUT_EBPF } else { libc::PACKET_FANOUT_HASH }
}

/// Reads one frame into `parts`, one after the other.
///
/// # Errors
/// `EAGAIN` if none waits; `ENETDOWN` once after the interface went down or away; `EINVAL` for a frame that has no virtio
/// header, which is then lost.
pub fn receive(fd: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>]) -> Result<Reception, Errno> {
    let mut from = MaybeUninit::<libc::sockaddr_ll>::zeroed();
    let mut control = Control([MaybeUninit::uninit(); CONTROL]);
    // SAFETY: every field of `msghdr` is an integer or a pointer, for which zero is valid.
    let mut message = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
    message.msg_name = from.as_mut_ptr().cast();
    message.msg_namelen = length_of::<libc::sockaddr_ll>()?;
    // `IoSliceMut` has the layout of `struct iovec` by its documentation.
    message.msg_iov = parts.as_mut_ptr().cast();
    message.msg_iovlen = parts.len() as _;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    // SAFETY: the descriptor is open; name, parts and control are exclusively ours for the call, with their true lengths.
    let length = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| last_error())?;
    // SAFETY: all fields are integers, for which the zeroes from the start are valid too.
    let outgoing = unsafe { from.assume_init() }.sll_pkttype == libc::PACKET_OUTGOING;
    let truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    let mut reception = Reception { length, truncated, outgoing, ..Reception::default() };
    read_control(&message, &mut reception);
    Ok(reception)
}

fn read_control(message: &libc::msghdr, reception: &mut Reception) {
    // SAFETY: recvmsg(2) has filled in `message`; its control buffer is still borrowed by the caller.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: the macros return null or a pointer to a whole header inside the control buffer, which the kernel wrote.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: as above; the data begins behind the header.
        let data = unsafe { libc::CMSG_DATA(header) };
        let room = header.cmsg_len - (data as usize - std::ptr::from_ref(header) as usize);
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) if room >= size_of::<libc::tpacket_auxdata>() => {
                // SAFETY: the kernel wrote this structure of integers there, and `room` says that it is whole.
                let data = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
                reception.unfinished = data.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
                reception.tag = tag(&data);
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

/// The tag in network byte order. Kernels before 3.14 knew only one TPID and did not say it.
fn tag(data: &libc::tpacket_auxdata) -> Option<[u8; 4]> {
    if data.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let said = data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let tpid = if said { data.tp_vlan_tpid } else { 0x8100 };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), data.tp_vlan_tci.to_be_bytes());
    Some([a, b, c, d])
}

fn index(interface: u32) -> Result<libc::c_int, Errno> {
    libc::c_int::try_from(interface).map_err(|_| Errno::NODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auxdata(tp_status: u32) -> libc::tpacket_auxdata {
        let (tp_vlan_tci, tp_vlan_tpid) = (0x600a, 0x88a8);
        libc::tpacket_auxdata { tp_status, tp_len: 0, tp_snaplen: 0, tp_mac: 0, tp_net: 0, tp_vlan_tci, tp_vlan_tpid }
    }

    #[test]
    fn a_tag_is_there_only_where_the_status_says_so() {
        assert_eq!(tag(&auxdata(0)), None);
        assert_eq!(tag(&auxdata(libc::TP_STATUS_VLAN_VALID)), Some([0x81, 0, 0x60, 0x0a]));
        let both = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID;
        assert_eq!(tag(&auxdata(both)), Some([0x88, 0xa8, 0x60, 0x0a]));
    }
}
