//! Link settings through the ethtool ioctl (linux/ethtool.h, net/ethtool/ioctl.c), in the network namespace of the calling
//! thread.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{interface_ioctl, request};

const ETHTOOL_GSET: u32 = 0x01;
const ETHTOOL_SSET: u32 = 0x02;
const ETHTOOL_GLINK: u32 = 0x0a;
const ETHTOOL_STXCSUM: u32 = 0x17;
const FULL_DUPLEX: u8 = 1;

/// `struct ethtool_cmd`, which every kernel still translates to `ethtool_link_ksettings`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Settings {
    command: u32,
    supported: u32,
    advertising: u32,
    speed: u16,
    duplex: u8,
    port: u8,
    phy_address: u8,
    transceiver: u8,
    autonegotiation: u8,
    mdio_support: u8,
    max_tx: u32,
    max_rx: u32,
    speed_high: u16,
    eth_tp_mdix: u8,
    eth_tp_mdix_ctrl: u8,
    partner_advertising: u32,
    reserved: [u32; 2],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Sets what a virtual link says about its speed, in Mb/s, full duplex. A TAP says 10 Mb/s otherwise, from which OSPF and
/// spanning tree derive costs.
///
/// # Errors
/// `EOPNOTSUPP` for a device without settable speed, `EPERM`, `ENODEV`.
pub fn set_speed(interface: &str, megabits: u32) -> Result<(), Errno> {
    let mut settings = Settings { command: ETHTOOL_GSET, ..Settings::default() };
    ioctl(interface, &mut settings)?;
    let [a, b, c, d] = megabits.to_le_bytes();
    settings.command = ETHTOOL_SSET;
    settings.speed = u16::from_le_bytes([a, b]);
    settings.speed_high = u16::from_le_bytes([c, d]);
    settings.duplex = FULL_DUPLEX;
    ioctl(interface, &mut settings)
}

/// The speed in Mb/s; `u32::MAX` where it is unknown.
///
/// # Errors
/// `EOPNOTSUPP` for a device that has none, `ENODEV`.
pub fn speed(interface: &str) -> Result<u32, Errno> {
    let mut settings = Settings { command: ETHTOOL_GSET, ..Settings::default() };
    ioctl(interface, &mut settings)?;
    let ([a, b], [c, d]) = (settings.speed.to_le_bytes(), settings.speed_high.to_le_bytes());
    Ok(u32::from_le_bytes([a, b, c, d]))
}

/// Whether the device has carrier now. The kernel tells of a carrier that is lost by netlink up to a second later (`linkwatch`, which tells of
/// those that come back at once).
///
/// # Errors
/// `EOPNOTSUPP` for a device that does not know, `ENODEV`.
pub fn has_carrier(interface: &str) -> Result<bool, Errno> {
    let mut value = Value { command: ETHTOOL_GLINK, data: 0 };
    ioctl(interface, &mut value).map(|()| value.data != 0)
}

/// Whether the device's stack may leave transport checksums to it. Without them the kernel segments super-frames too before it
/// hands them over (`netdev_fix_features`, `harmonize_features`), so that what leaves the device are finished frames.
///
/// # Errors
/// `EOPNOTSUPP` for a device whose offload is fixed, `EPERM`, `ENODEV`.
pub fn set_checksum_offload(interface: &str, on: bool) -> Result<(), Errno> {
    ioctl(interface, &mut Value { command: ETHTOOL_STXCSUM, data: u32::from(on) })
}

/// `T` is the structure that its own first field, the command, stands for.
fn ioctl<T>(interface: &str, argument: &mut T) -> Result<(), Errno> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = request(interface);
    request.ifr_ifru.ifru_data = std::ptr::from_mut(argument).cast();
    interface_ioctl(socket.as_fd(), libc::SIOCETHTOOL, &mut request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_size() {
        assert_eq!((size_of::<Settings>(), size_of::<Value>()), (44, 8));
    }

    #[test]
    fn a_missing_interface_is_an_error() {
        assert_eq!(speed("vst-none"), Err(Errno::NODEV));
        assert_eq!(has_carrier("vst-none"), Err(Errno::NODEV));
        assert!(has_carrier("lo").is_ok());
    }
}
