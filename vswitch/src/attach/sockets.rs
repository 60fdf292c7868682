//! Packet sockets on one interface: several for each worker, as the queues of a TAP are ([`tap`](super::tap)), or one.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};

use packet::{Capabilities, Mac};
use rustix::io::Errno;

use super::error::{Doing, NET_RAW, Place};
use super::queues::{QueueKind, Queues, steering};
use super::{AttachError, Plan, bulk_queues};
use crate::broker::Descriptor;
use plane::device::SteeringTable;
use sys::packet as socket;

/// Room for frames that wait, in each direction and socket: a few milliseconds at 10 Gb/s, for which a worker may be busy.
const BUFFER: i32 = 8 << 20;
/// No more frames fit into it: the kernel counts at least 512 bytes for each, and doubles the room (socket(7)).
pub(super) const MOST_FRAMES: usize = 2 * (8 << 20) / 512;

/// What they can do.
pub(super) type Features = Vec<String>;

/// Opens sockets for the workers of `plan` on the interface, in the network namespace of the calling thread, and says what they can do. Those
/// that the last vswitchd left are taken if they are as many.
pub(super) fn open((ifname, index): (&str, u32), plan: &Plan, place: &Place) -> Result<(Queues, Features), AttachError> {
    let workers = plan.workers;
    let plan = Sockets { index, offload: plan.spec.offload, station: None, held: &plan.held };
    if let Ok(opened) = plan.open_steered(workers.max(1)) {
        return Ok(opened);
    }
    let doing = || format!("open a packet socket on \"{ifname}\" {place}");
    let sockets = (0..workers.max(1)).map(|_| plan.open_one()).collect::<Result<Vec<_>, _>>().doing(NET_RAW, doing)?;
    if workers > 1 {
        join(&sockets, false).doing(NET_RAW, || format!("share \"{ifname}\" {place} between workers"))?;
    }
    Ok(queues(sockets, None))
}

/// Opens sockets of one worker that get frames to `mac` and to groups only.
pub(super) fn open_for(index: u32, mac: Mac, held: &[Descriptor]) -> Result<(Queues, Features), Errno> {
    let plan = Sockets { index, offload: true, station: Some(mac), held };
    plan.open_steered(1).or_else(|_| Ok(queues(vec![plan.open_one()?], None)))
}

/// What all sockets of an interface have in common.
struct Sockets<'a> {
    index: u32,
    offload: bool,
    /// Whose frames alone they get.
    station: Option<Mac>,
    /// Those that the last vswitchd left.
    held: &'a [Descriptor],
}

struct Socket {
    fd: OwnedFd,
    capabilities: Capabilities,
    virtio_header: bool,
}

impl Sockets<'_> {
    /// Opens several for each worker, where the kernel lets the switch say which of them gets a flow.
    fn open_steered(&self, workers: usize) -> Result<(Queues, Features), Errno> {
        let (table, each) = (SteeringTable::new(workers)?, bulk_queues(workers));
        let count = workers * (1 + each);
        let left = self.held.iter().filter(|held| socket::bound_to(held.0.as_fd()) == Some(self.index));
        let left = left.map(|held| Ok(self.with_header(held.0.try_clone().map_err(|_| Errno::MFILE)?)));
        let mut sparse = left.collect::<Result<Vec<_>, _>>()?;
        if sparse.len() != count {
            sparse = (0..count).map(|_| self.open_one()).collect::<Result<Vec<_>, _>>()?;
            join(&sparse, true)?;
            // The first gets all from here on, so what the others have is what they got before that, and the first got as well.
            sparse.iter().skip(1).try_for_each(|socket| drain(&socket.fd))?;
        }
        socket::steer_group(sparse[0].fd.as_fd(), table.program.as_fd())?;
        let bulk = sparse.split_off(workers);
        Ok(queues(sparse, Some((bulk, table))))
    }

    /// Everything is set before the socket is bound, so that no frame arrives in another shape.
    fn open_one(&self) -> Result<Socket, Errno> {
        let Self { index, station, .. } = *self;
        let socket = self.with_header(socket::open()?);
        let fd = &socket.fd;
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
        Ok(socket)
    }

    /// Headers are read even without offload: the other end of a veth pair may leave frames unfinished all the same, and only the header says what
    /// is missing.
    fn with_header(&self, fd: OwnedFd) -> Socket {
        let header = socket::set_virtio_header(fd.as_fd());
        let capabilities = match header {
            Ok(udp) if self.offload => Capabilities { udp, ..Capabilities::PLAIN },
            _ => Capabilities::default(),
        };
        Socket { fd, capabilities, virtio_header: header.is_ok() }
    }
}

/// Makes a group of them, in this order.
fn join(sockets: &[Socket], steered: bool) -> Result<(), Errno> {
    let Some((first, others)) = sockets.split_first() else { return Ok(()) };
    let group = socket::found_group(first.fd.as_fd(), steered)?;
    others.iter().try_for_each(|other| socket::join_group(other.fd.as_fd(), group, steered))
}

/// Throws away what waits.
fn drain(fd: &OwnedFd) -> Result<(), Errno> {
    loop {
        match socket::receive(fd.as_fd(), &mut [IoSliceMut::new(&mut [0; 64])]) {
            Err(Errno::AGAIN) => return Ok(()),
            // A frame that has no virtio header.
            Ok(_) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
}

/// One socket for each worker, and those for bulk flows with what places these. All are of one kind.
fn queues(sparse: Vec<Socket>, bulk: Option<(Vec<Socket>, SteeringTable)>) -> (Queues, Features) {
    let features = features(&sparse, bulk.is_some());
    let (virtio_header, capabilities) =
        sparse.first().map_or_else(Default::default, |first| (first.virtio_header, first.capabilities));
    let (bulk, table) = bulk.unzip();
    let descriptors = |sockets: Vec<Socket>| sockets.into_iter().map(|socket| Descriptor(socket.fd)).collect();
    let queues = Queues {
        kind: QueueKind::Sockets { virtio_header },
        capabilities,
        sparse: descriptors(sparse),
        bulk: descriptors(bulk.unwrap_or_default()),
        steering: table.map(steering),
    };
    (queues, features)
}

fn features(sockets: &[Socket], steered: bool) -> Features {
    let of_first = sockets.first().into_iter().flat_map(Socket::features);
    let of_all = [(sockets.len() > 1, "fanout"), (steered, "flow_queues")];
    let of_all = of_all.into_iter().filter_map(|(has, name)| has.then_some(name));
    std::iter::once("vlan_auxdata").chain(of_first).chain(of_all).map(str::to_owned).collect()
}

impl Socket {
    fn features(&self) -> impl Iterator<Item = &'static str> + use<> {
        let Capabilities { checksum, tcp4, udp, .. } = self.capabilities;
        let all = [(self.virtio_header, "vnet_hdr"), (checksum, "checksum"), (tcp4, "tso"), (udp, "uso")];
        all.into_iter().filter_map(|(has, name)| has.then_some(name))
    }
}
