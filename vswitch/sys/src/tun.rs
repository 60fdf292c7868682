//! `/dev/net/tun` (Documentation/networking/tuntap.rst, drivers/net/tun.c).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{check, interface_ioctl, request};

/// How the switch opens every queue: Ethernet frames, no packet information, a `virtio_net_hdr` before each frame.
const QUEUE: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Bits of `TUNSETOFFLOAD` (linux/if_tun.h), which the libc crate does not know yet.
const UDP_TUNNEL_GSO: libc::c_uint = 0x80;
const UDP_TUNNEL_GSO_CSUM: libc::c_uint = 0x100;

/// What the switch can take from a TAP without the kernel working it out first (`TUNSETOFFLOAD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// Those of [`Offloads::All`], and super-frames inside a tunnel over UDP (Linux 6.17), for which the header has to be
    /// `struct virtio_net_hdr_v1_hash_tunnel`.
    Tunnels,
    /// Partial checksums, TCP and UDP super-frames (Linux 6.2).
    All,
    /// Partial checksums and TCP super-frames.
    Tcp,
    /// Nothing: finished frames, as on a wire.
    None,
}

/// Opens `/dev/net/tun`. The descriptor makes and finds devices in the network namespace of the calling thread, and keeps
/// that namespace alive.
///
/// # Errors
/// What open(2) says.
pub fn open() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Makes `fd` a queue of the TAP called `name`, which is made if it does not exist. A device is opened again only as it was made: for
/// one queue, or for up to 256 (`many`), for each of which the kernel keeps room whether it is used or not.
///
/// # Errors
/// `EBUSY` for a device for one queue that is held already, `EINVAL` for one that was made with other flags or is no TAP, `E2BIG`
/// for too many queues, `EPERM` without `CAP_NET_ADMIN`.
pub fn attach_queue(fd: BorrowedFd<'_>, name: &str, many: bool) -> Result<(), Errno> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = flags(if many { QUEUE | libc::IFF_MULTI_QUEUE } else { QUEUE });
    interface_ioctl(fd, libc::TUNSETIFF, &mut request)
}

/// Takes a queue out of its TAP, for all processes that hold it, with the frames that wait in it. The last of the others gets its number.
///
/// # Errors
/// `EINVAL` for what is no queue of a TAP with several, or is out already.
pub fn detach_queue(queue: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut request = request("");
    request.ifr_ifru.ifru_flags = flags(libc::IFF_DETACH_QUEUE);
    interface_ioctl(queue, libc::TUNSETQUEUE, &mut request)
}

/// Puts a queue back that [`detach_queue`] took out, behind the others.
///
/// # Errors
/// `EINVAL` for what is not out.
pub fn attach_queue_again(queue: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut request = request("");
    request.ifr_ifru.ifru_flags = flags(libc::IFF_ATTACH_QUEUE);
    interface_ioctl(queue, libc::TUNSETQUEUE, &mut request)
}

/// Has a program (`sys::bpf`) say by which queue of the whole device each frame leaves the station: that with the number that it returns,
/// modulo how many there are, in the order in which they were opened. Without one, the kernel goes by the flow.
///
/// # Errors
/// `EINVAL` for a kernel that cannot (before Linux 4.16).
pub fn set_steering(queue: BorrowedFd<'_>, program: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let program: libc::c_int = program.map_or(-1, |program| program.as_raw_fd());
    // SAFETY: the descriptor is open, and TUNSETSTEERINGEBPF reads one int through the pointer, which outlives the call.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETSTEERINGEBPF, std::ptr::from_ref(&program)) }).map(drop)
}

/// What a queue belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueOf {
    /// The name of the device, in whichever namespace it is now.
    pub name: String,
    /// Whether it may have several queues.
    pub many: bool,
}

/// The TAP that a queue belongs to.
///
/// # Errors
/// `EBADFD` if the device is gone; `ENOTTY`, `EINVAL` for what is no queue.
pub fn device_of(queue: BorrowedFd<'_>) -> Result<QueueOf, Errno> {
    let mut request = request("");
    interface_ioctl(queue, libc::TUNGETIFF, &mut request)?;
    let bytes = request.ifr_name.iter().map(|place| place.to_ne_bytes()[0]).take_while(|byte| *byte != 0);
    let name = String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned();
    // SAFETY: every bit pattern is a number, and the kernel has written flags here.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(QueueOf { name, many: libc::c_int::from(flags) & libc::IFF_MULTI_QUEUE != 0 })
}

/// Says what the kernel may leave undone in frames that it hands to the switch. It counts for the whole device.
///
/// # Errors
/// `EINVAL` for an offload that this kernel does not know.
pub fn set_offloads(fd: BorrowedFd<'_>, offloads: Offloads) -> Result<(), Errno> {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let all = tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let bits = match offloads {
        Offloads::Tunnels => all | UDP_TUNNEL_GSO | UDP_TUNNEL_GSO_CSUM,
        Offloads::All => all,
        Offloads::Tcp => tcp,
        Offloads::None => 0,
    };
    // SAFETY: the descriptor is open, and TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(bits)) }).map(drop)
}

/// Sets the length of the header before each frame.
///
/// # Errors
/// `EINVAL` for a length below that of `struct virtio_net_hdr`.
pub fn set_header_size(fd: BorrowedFd<'_>, size: usize) -> Result<(), Errno> {
    let size = libc::c_int::try_from(size).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is open, and TUNSETVNETHDRSZ reads one int through the pointer, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, std::ptr::from_ref(&size)) }).map(drop)
}

/// Whether the device says that something is at its other end (`TUNSETCARRIER`, Linux 5.0).
///
/// # Errors
/// `EINVAL` for a kernel that cannot, `EBADFD` if the device is gone.
pub fn set_carrier(fd: BorrowedFd<'_>, carrier: bool) -> Result<(), Errno> {
    let carrier = libc::c_int::from(carrier);
    // SAFETY: the descriptor is open, and TUNSETCARRIER reads one int through the pointer, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETCARRIER, std::ptr::from_ref(&carrier)) }).map(drop)
}

/// Whether the device stays when its last queue is closed.
///
/// # Errors
/// `EBADFD` if the device is gone.
pub fn set_persistent(fd: BorrowedFd<'_>, persistent: bool) -> Result<(), Errno> {
    // SAFETY: the descriptor is open, and TUNSETPERSIST takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(persistent)) }).map(drop)
}

/// The flags have 16 bits in the kernel too; none of ours is above them.
fn flags(flags: libc::c_int) -> libc::c_short {
    let [low, high, ..] = flags.to_le_bytes();
    libc::c_short::from_le_bytes([low, high])
}
