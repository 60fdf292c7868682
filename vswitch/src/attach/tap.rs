//! TAPs: made in the station's namespace, persistent.
//!
//! A TAP has several queues for each worker, so that what is sparse does not wait behind bulk flows ([`Tap`]). The first queue of each worker
//! is that of what is sparse; only those outlive the process ([`Plan::held`]). Where the kernel does not let this process say by which
//! queue a flow leaves, which takes `CAP_BPF` on the host, there is one for each worker. A TAP that is found is opened as it was made; where that
//! is with one queue, the first worker reads it, and the others only write.
//!
//! A multi-queue TAP has room for 256 queues whatever it uses, and for each the kernel's usual queueing discipline makes room for [`QUEUE_LENGTH`]
//! frames in three bands: 50 MB a port (`pfifo_fast_init`). So it has none (`noqueue`): what a queue of a TAP has no room for is dropped in
//! either case (`tun_net_xmit`). Without it the sender hears of that: TCP slows down, and the sender of raw frames gets `ENOBUFS`, as where
//! the queue of a network card is full.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_route::link::InfoKind;
use packet::Capabilities;
use rustix::io::Errno;

use super::error::{Doing, NET_ADMIN};
use super::netlink::{self, KernelLink, Netlink};
use super::netns::Namespace;
use super::queues::{QueueKind, Queues, steering};
use super::station::{StationChange, StationSetup};
use super::{AttachError, Attachment, End, Place, Plan, bulk_queues, claim, mark};
use crate::broker::Descriptor;
use plane::device::{SteeringTable, header_size};
use sys::tun::Offloads;
use sys::{ethtool, tun};

/// Frames that wait in each queue: 12 MB at MTU 1500. The kernel's default of 1000 overflows under one TCP connection with a
/// large window, because a TAP drops what does not fit instead of making the sender wait (`tun_net_xmit`).
pub(super) const QUEUE_LENGTH: u32 = 8192;
/// What the TAP says about its speed, in Mb/s: 10 by default, which routing and spanning tree protocols would believe.
const SPEED: u32 = 10_000;

pub(super) fn attach(plan: &Plan, namespace: &Namespace) -> Result<Attachment, AttachError> {
    let place = &namespace.place;
    namespace.with_netlink(|netlink| {
        let device = plan.held.iter().find_map(|queue| tun::device_of(queue.0.as_fd()).ok());
        let held = device.as_ref().map(|device| device.name.as_str());
        let found = claim::claim(netlink, &plan.spec, &InfoKind::Tun, held, place)?;
        let ifname = found.as_ref().map_or(plan.spec.ifname.as_str(), |link| &link.name);
        let is_its_own = |queue: &&Descriptor| tun::device_of(queue.0.as_fd()).is_ok_and(|device| device.name == ifname);
        let held = plan.held.iter().filter(is_its_own).filter_map(|queue| queue.0.try_clone().ok());
        let opened = OpenTap::open(ifname, plan.workers, held, place)?;
        Opened { netlink, namespace, plan, ifname, reopened: found.is_some() }.finish(opened)
    })
}

/// The open queues of a TAP.
struct OpenTap {
    /// The first of each worker.
    sparse: Vec<OwnedFd>,
    /// Whether each of those is a queue of its own; else they are the same one.
    many: bool,
    /// Those of bulk flows, of one worker after the other, and what sends flows there; none where the kernel does not take that.
    bulk: Option<(Vec<OwnedFd>, SteeringTable)>,
}

impl OpenTap {
    /// For so many workers: first those queues that are held, all of this device.
    fn open(ifname: &str, workers: usize, held: impl Iterator<Item = OwnedFd>, place: &Place) -> Result<Self, AttachError> {
        let doing = || format!("open TAP \"{ifname}\" {place}");
        let (mut held, table) = (held.fuse(), SteeringTable::new(workers).ok());
        let (first, many) = match held.next() {
            Some(first) => {
                let many = tun::device_of(first.as_fd()).doing(NET_ADMIN, doing)?.many;
                (first, many)
            }
            None => open_first(ifname, workers > 1 || table.is_some(), place)?,
        };
        let mut another = || match (many, held.next()) {
            (true, Some(queue)) => Ok(queue),
            (true, None) => open_queue(ifname, true, place)?.doing(NET_ADMIN, doing),
            (false, _) => first.try_clone().map_err(|source| AttachError::Kernel { doing: doing(), needs: NET_ADMIN, source }),
        };
        let others: Vec<OwnedFd> = (1..workers).map(|_| another()).collect::<Result<_, _>>()?;
        let sparse: Vec<OwnedFd> = std::iter::once(first).chain(others).collect();
        let bulk = Self::open_bulk(ifname, table.filter(|_| many), &sparse, held.collect(), place)?;
        Ok(Self { sparse, many, bulk })
    }

    /// Opens the queues of bulk flows, if the kernel takes what sends those there. Those that are `held` are taken if they are as many.
    fn open_bulk(
        ifname: &str,
        table: Option<SteeringTable>,
        sparse: &[OwnedFd],
        mut held: Vec<OwnedFd>,
        place: &Place,
    ) -> Result<Option<(Vec<OwnedFd>, SteeringTable)>, AttachError> {
        let set = |table: &SteeringTable| tun::set_steering(sparse[0].as_fd(), Some(table.program.as_fd())).is_ok();
        let table = table.filter(set);
        let count = sparse.len() * bulk_queues(sparse.len());
        if table.is_none() || held.len() != count {
            // Who left them holds them still, but the queues that follow are to have the numbers that follow.
            held.drain(..).for_each(|queue| tun::detach_queue(queue.as_fd()).unwrap_or_default());
        }
        let Some(table) = table else { return Ok(None) };
        let doing = || format!("open TAP \"{ifname}\" {place}");
        while held.len() < count {
            held.push(open_queue(ifname, true, place)?.doing(NET_ADMIN, doing)?);
        }
        Ok(Some((held, table)))
    }

    fn queues(self, capabilities: Capabilities) -> Queues {
        let (bulk, table) = self.bulk.unzip();
        Queues {
            kind: QueueKind::Tap { many: self.many },
            capabilities,
            sparse: self.sparse.into_iter().map(Descriptor).collect(),
            bulk: bulk.into_iter().flatten().map(Descriptor).collect(),
            steering: table.map(steering),
        }
    }
}

/// Opens the first queue, and says whether there may be several.
fn open_first(ifname: &str, many: bool, place: &Place) -> Result<(OwnedFd, bool), AttachError> {
    let doing = || format!("open TAP \"{ifname}\" {place}");
    match open_queue(ifname, many, place)? {
        Ok(first) => Ok((first, many)),
        // It was made for another number of workers.
        Err(Errno::INVAL) => Ok((open_queue(ifname, !many, place)?.doing(NET_ADMIN, doing)?, !many)),
        Err(errno) => Err(errno).doing(NET_ADMIN, doing),
    }
}

/// Opens a queue; the inner error is what the kernel said to the device's name and flags.
fn open_queue(ifname: &str, many: bool, place: &Place) -> Result<Result<OwnedFd, Errno>, AttachError> {
    let fd = tun::open().map_err(|errno| match errno {
        // ENOENT: no device file; ENODEV, ENXIO: no driver behind it.
        Errno::NOENT | Errno::NODEV | Errno::NXIO => AttachError::NoTun(errno.into()),
        _ => AttachError::Kernel { doing: "open /dev/net/tun".to_owned(), needs: NET_ADMIN, source: errno.into() },
    })?;
    match tun::attach_queue(fd.as_fd(), ifname, many) {
        Err(Errno::BUSY) => return Err(AttachError::InUse { ifname: ifname.to_owned(), place: place.clone() }),
        Err(errno) => return Ok(Err(errno)),
        Ok(()) => {}
    }
    Ok(Ok(fd))
}

/// A TAP whose queues are open.
struct Opened<'a> {
    netlink: &'a Netlink,
    namespace: &'a Namespace,
    plan: &'a Plan,
    ifname: &'a str,
    reopened: bool,
}

impl Opened<'_> {
    /// A new TAP is not persistent before everything else has worked, so that a failure takes it away with its queues.
    fn finish(&self, opened: OpenTap) -> Result<Attachment, AttachError> {
        let first = opened.sparse[0].as_fd();
        let (capabilities, mut features) = self.set_offloads(first)?;
        features.extend(opened.many.then(|| "multi_queue".to_owned()));
        features.extend(opened.bulk.is_some().then(|| "flow_queues".to_owned()));
        let link = self.look_up()?;
        self.set_properties(&link)?;
        let mut wanted = StationSetup::wanted(&self.plan.spec, self.plan.mtu, &self.plan.gateways);
        if !self.reopened {
            wanted.mac = wanted.mac.or(self.plan.first_mac);
        }
        let change = StationChange { netlink: self.netlink, place: &self.namespace.place, link: &link, known: &[] };
        change.make_or_undo(&wanted)?;
        change.add_routes(&self.plan.routes)?;
        if ethtool::set_speed(self.ifname, SPEED).is_ok() {
            features.push("speed".to_owned());
        }
        // A TAP that is opened again was without carrier.
        self.netlink.settle(self.ifname).doing(NET_ADMIN, || self.doing("wait for", ""))?;
        let link = self.look_up()?;
        tun::set_persistent(first, true).doing(NET_ADMIN, || self.doing("make", "persistent"))?;
        Ok(Attachment {
            queues: opened.queues(capabilities),
            ifname: link.name.clone(),
            ifindex: link.index,
            mac: link.mac,
            features,
            made_netns: false,
            reopened: self.reopened,
            ends: vec![End::of(&link, self.namespace)],
            namespace: None,
        })
    }

    fn look_up(&self) -> Result<KernelLink, AttachError> {
        self.netlink.link(self.ifname).doing(NET_ADMIN, || self.doing("look up", ""))?.ok_or_else(|| self.gone())
    }

    fn gone(&self) -> AttachError {
        AttachError::NoInterface { ifname: self.ifname.to_owned(), place: self.namespace.place.clone() }
    }

    fn set_properties(&self, link: &KernelLink) -> Result<(), AttachError> {
        let mut message = netlink::change(link.index).alias(mark(&self.plan.spec.name));
        if link.queue_length != QUEUE_LENGTH {
            message = message.txqueuelen(QUEUE_LENGTH);
        }
        self.netlink.change(message.build()).doing(NET_ADMIN, || self.doing("set alias and queue length of", ""))?;
        self.netlink.leave_unqueued(link.index).doing(NET_ADMIN, || self.doing("set the queueing discipline of", ""))
    }

    /// Asks for the most that the kernel knows, and for the header in which it says so. A frame of the switch may be unfinished as soon
    /// as the kernel knows the kind.
    fn set_offloads(&self, queue: BorrowedFd<'_>) -> Result<(Capabilities, Vec<String>), AttachError> {
        let mut features = vec!["vnet_hdr", "persistent"];
        let set = |offloads| tun::set_offloads(queue, offloads);
        let (capabilities, more): (_, &[&str]) = if !self.plan.spec.offload {
            set(Offloads::None).doing(NET_ADMIN, || self.doing("switch off the offloads of", ""))?;
            (Capabilities::default(), &[])
        } else if set(Offloads::Tunnels).is_ok() {
            (Capabilities::ALL, &["checksum", "tso", "uso", "tunnel_gso"])
        } else if set(Offloads::All).is_ok() {
            (Capabilities::PLAIN, &["checksum", "tso", "uso"])
        } else if set(Offloads::Tcp).is_ok() {
            (Capabilities { udp: false, ..Capabilities::PLAIN }, &["checksum", "tso"])
        } else {
            (Capabilities::default(), &[])
        };
        let size = header_size(capabilities);
        tun::set_header_size(queue, size).doing(NET_ADMIN, || self.doing("set the header size of", ""))?;
        features.extend_from_slice(more);
        Ok((capabilities, features.into_iter().map(str::to_owned).collect()))
    }

    fn doing(&self, verb: &str, how: &str) -> String {
        let how = if how.is_empty() { String::new() } else { format!(" {how}") };
        format!("{verb} TAP \"{}\" {}{how}", self.ifname, self.namespace.place)
    }
}
