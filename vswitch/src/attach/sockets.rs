//! Packet sockets on one interface, one for each worker.

use std::os::fd::{AsFd, OwnedFd};

use packet::{Capabilities, Mac};
use rustix::io::Errno;

use super::AttachError;
use super::error::{Doing, NET_RAW, Place};
use plane::device::{Device, PacketSocket};
use sys::packet as socket;

/// Room for frames that wait, in each direction and socket: a few milliseconds at 10 Gb/s, for which a worker may be busy.
const BUFFER: i32 = 8 << 20;

/// What they can do.
pub(super) type Features = Vec<String>;

/// Opens `count` sockets on the interface, in the network namespace of the calling thread, and says what they can do.
pub(super) fn open(
    (ifname, index): (&str, u32),
    count: usize,
    offload: bool,
    place: &Place,
) -> Result<(Vec<Box<dyn Device>>, Features), AttachError> {
    let doing = || format!("open a packet socket on \"{ifname}\" {place}");
    let mut devices: Vec<Box<dyn Device>> = Vec::new();
    let mut features = vec!["vlan_auxdata"];
    let mut group = None;
    for _ in 0..count.max(1) {
        let socket = open_one(index, offload, None).doing(NET_RAW, doing)?;
        if count > 1 {
            group = Some(join(&socket.fd, group).doing(NET_RAW, || format!("share \"{ifname}\" {place} between workers"))?);
        }
        if devices.is_empty() {
            features.extend(socket.features());
        }
        devices.push(Box::new(PacketSocket::new(socket.fd, socket.capabilities, socket.virtio_header)));
    }
    features.extend((count > 1).then_some("fanout"));
    Ok((devices, features.into_iter().map(str::to_owned).collect()))
}

/// Opens one socket that gets frames to `mac` and to groups only.
pub(super) fn open_for(index: u32, mac: Mac) -> Result<(Box<dyn Device>, Features), Errno> {
    let socket = open_one(index, true, Some(mac))?;
    let features = std::iter::once("vlan_auxdata").chain(socket.features()).map(str::to_owned).collect();
    Ok((Box::new(PacketSocket::new(socket.fd, socket.capabilities, socket.virtio_header)), features))
}

struct Socket {
    fd: OwnedFd,
    capabilities: Capabilities,
    virtio_header: bool,
}

/// Everything is set before the socket is bound, so that no frame arrives in another shape.
fn open_one(index: u32, offload: bool, station: Option<Mac>) -> Result<Socket, Errno> {
    let fd = socket::open()?;
    let header = socket::set_virtio_header(fd.as_fd());
    // Headers are read even without offload: the other end of a veth pair may leave frames unfinished all the same, and only
    // the header says what is missing.
    let capabilities = match header {
        Ok(udp) if offload => Capabilities { udp, ..Capabilities::PLAIN },
        _ => Capabilities::default(),
    };
    socket::set_auxiliary_data(fd.as_fd())?;
    // Older kernels mark such frames, and the device throws them away.
    let _ = socket::ignore_outgoing(fd.as_fd());
    socket::set_buffers(fd.as_fd(), BUFFER)?;
    if let Some(mac) = station {
        socket::hear_only(fd.as_fd(), mac.0)?;
    }
    socket::bind(fd.as_fd(), index)?;
    match station {
        Some(mac) => socket::add_station(fd.as_fd(), index, mac.0)?,
        None => socket::set_promiscuous(fd.as_fd(), index)?,
    }
    Ok(Socket { fd, capabilities, virtio_header: header.is_ok() })
}

fn join(fd: &OwnedFd, group: Option<u16>) -> Result<u16, Errno> {
    match group {
        Some(group) => socket::join_group(fd.as_fd(), group).map(|()| group),
        None => socket::found_group(fd.as_fd()),
    }
}

impl Socket {
    fn features(&self) -> impl Iterator<Item = &'static str> + use<> {
        let Capabilities { checksum, tcp4, udp, .. } = self.capabilities;
        let all = [(self.virtio_header, "vnet_hdr"), (checksum, "checksum"), (tcp4, "tso"), (udp, "uso")];
        all.into_iter().filter_map(|(has, name)| has.then_some(name))
    }
}
