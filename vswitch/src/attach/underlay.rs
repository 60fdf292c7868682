//! The sockets of VXLAN tunnels, in vswitchd's own network namespace.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::AttachError;
use super::error::{Doing, NET_ADMIN, NET_RAW};
use super::netlink::{KernelLink, Netlink};
use super::netns::Namespace;
use crate::broker::Descriptor;
use api::{PortName, Reach, VxlanSpec};
use plane::device::{SourceHeaders, Sources};
use sys::udp;

/// Sockets that a tunnel's frames leave from. The underlay spreads load by flows of its own; this many of them are enough for the
/// paths and network card queues between two hosts.
const SOURCES: usize = 16;
/// Room for datagrams that wait, in each direction and socket: a few milliseconds at 10 Gb/s, for which a worker may be busy.
const BUFFER: i32 = 8 << 20;

/// What is known about the way to a tunnel's other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// Index of the interface that groups are joined on and sent out of.
    pub interface: Option<u32>,
    /// The smallest MTU on the way to any of the other hosts, as far as this host knows it.
    pub mtu: u32,
    /// Whether a route leads to any of them, or the interface of their group is up.
    pub has_way: bool,
}

impl Underlay {
    /// Why nothing that a tunnel sends leaves this host.
    pub fn trouble(&self, spec: &VxlanSpec) -> Option<String> {
        let local = spec.local;
        let sentence = || match (&spec.reach, &spec.reach.peers()[..]) {
            (Reach::Group(group, device), _) => format!("interface \"{device}\", on which group {group} is, is down"),
            (_, [peer]) => format!("there is no route to its peer: see `ip route get {peer} from {local}`"),
            (_, peers) => {
                let first = peers.first().map_or_else(String::new, |peer| format!(": see `ip route get {peer} from {local}`"));
                format!("there is no route to any of its peers{first}")
            }
        };
        (!self.has_way).then(sentence)
    }
}

/// What the sockets that a tunnel sends from are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourcePlan {
    local: IpAddr,
    ttl: u8,
    udp_checksum: bool,
    /// The index of the interface that groups are reached by.
    interface: Option<u32>,
}

impl SourcePlan {
    /// Those of a tunnel, whatever its name and peers are.
    pub const fn of(spec: &VxlanSpec, underlay: &Underlay) -> Self {
        let VxlanSpec { local, ttl, udp_checksum, .. } = *spec;
        Self { local, ttl, udp_checksum, interface: underlay.interface }
    }
}

/// Looks at the way.
///
/// # Errors
/// `local` is not an address of this host, or there is no such interface.
pub fn survey(spec: &VxlanSpec) -> Result<Underlay, AttachError> {
    let own = Namespace::own();
    let (here, device) = own.with_netlink(|netlink| {
        let here = link_with(netlink, spec.local).doing(NET_ADMIN, || format!("look up address {}", spec.local))?;
        let device = match &spec.reach {
            Reach::Peers(_) => None,
            Reach::Group(_, name) => {
                let gone = || AttachError::NoInterface { ifname: name.to_string(), place: own.place.clone() };
                let link = netlink.link(name.as_str()).doing(NET_ADMIN, || format!("look up interface \"{name}\""))?;
                Some(link.ok_or_else(gone)?)
            }
        };
        Ok((here, device))
    })?;
    let here = here.ok_or(AttachError::NotLocal(spec.local))?;
    let peers = spec.reach.peers();
    let routes = peers.iter().filter_map(|peer| route_mtu(spec.local, SocketAddr::new(*peer, spec.port)).ok()).min();
    let has_way = device.as_ref().map_or(peers.is_empty() || routes.is_some(), |link| link.up);
    let mtu = device.as_ref().map(|link| link.mtu).or(routes).unwrap_or(here.mtu);
    Ok(Underlay { interface: device.map(|link| link.index), mtu, has_way })
}

/// Opens the sockets that a tunnel sends from.
///
/// # Errors
/// Mostly too many open files.
pub(super) fn open_sources(tunnel: &PortName, plan: &SourcePlan) -> Result<OpenSources, AttachError> {
    let doing = || format!("open the sockets that vxlan \"{tunnel}\" sends from");
    let open = || -> Result<Vec<OwnedFd>, Errno> { (0..SOURCES).map(|_| open_source(plan)).collect() };
    let sockets = open().doing(NET_RAW, doing)?;
    let segmenting = plan.udp_checksum && sockets.first().is_some_and(|socket| udp::can_segment(socket.as_fd()));
    Ok(OpenSources { sockets: sockets.into_iter().map(Descriptor).collect(), segmenting })
}

fn open_source(plan: &SourcePlan) -> Result<OwnedFd, Errno> {
    let socket = udp::open(plan.local)?;
    let fd = socket.as_fd();
    udp::deafen(fd)?;
    sys::set_buffers(fd, BUFFER)?;
    udp::never_fragment(fd, plan.local)?;
    udp::set_hops(fd, plan.local, plan.ttl)?;
    udp::report_errors(fd, plan.local)?;
    if !plan.udp_checksum {
        udp::send_zero_checksum(fd, plan.local)?;
    }
    if let Some(interface) = plan.interface {
        udp::send_groups_out_of(fd, plan.local, interface)?;
    }
    udp::bind(fd, SocketAddr::new(plan.local, 0))?;
    Ok(socket)
}

/// Open sockets that a tunnel's frames leave from.
#[derive(Debug, Serialize, Deserialize)]
pub struct OpenSources {
    sockets: Vec<Descriptor>,
    /// Whether the kernel cuts runs.
    segmenting: bool,
}

impl OpenSources {
    /// For the tunnels that send by this plan, by which they were opened.
    pub fn of(self, plan: &SourcePlan) -> Sources {
        let sockets = self.sockets.into_iter().map(|socket| socket.0).collect();
        Sources::new(sockets, self.segmenting, SourceHeaders { hops: plan.ttl, is_summed: plan.udp_checksum })
    }
}

/// A socket that receives, and whether the kernel hands over runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listening {
    /// The socket.
    pub socket: Descriptor,
    /// Whether `UDP_GRO` is on.
    pub runs: bool,
}

/// Opens `count` sockets on an address and port of this host, among which the kernel spreads flows; or takes those that the last vswitchd `left`, if
/// they are as many.
///
/// # Errors
/// Another process has the port.
pub(super) fn listen(address: &SocketAddr, count: &usize, left: &[Descriptor]) -> Result<Vec<Listening>, AttachError> {
    let (address, count) = (*address, (*count).max(1));
    let doing = || format!("listen on UDP port {} of {}", address.port(), address.ip());
    let in_use = |error: Errno| match error {
        Errno::ADDRINUSE => AttachError::PortInUse(address),
        Errno::ADDRNOTAVAIL => AttachError::NotLocal(address.ip()),
        error => Err::<(), _>(error).doing(NET_RAW, doing).err().unwrap_or(AttachError::PortInUse(address)),
    };
    if left.len() == count {
        let again = |socket: &Descriptor| -> std::io::Result<Listening> {
            Ok(Listening { socket: Descriptor::of(&socket.0)?, runs: prepare(&socket.0, address.ip())? })
        };
        return left.iter().map(again).collect::<Result<_, _>>().doing(NET_RAW, doing);
    }
    if count > 1 {
        // Sockets that share a port would also share it with those of another process.
        udp::open(address.ip()).and_then(|probe| udp::bind(probe.as_fd(), address)).map_err(in_use)?;
    }
    let open = || -> Result<Listening, Errno> {
        let socket = udp::open(address.ip())?;
        if count > 1 {
            udp::share_port(socket.as_fd())?;
        }
        let runs = prepare(&socket, address.ip())?;
        udp::bind(socket.as_fd(), address)?;
        Ok(Listening { socket: Descriptor(socket), runs })
    };
    (0..count).map(|_| open()).collect::<Result<_, _>>().map_err(in_use)
}

/// Opens a socket that hears a group on an interface. One is enough: every socket would hear every datagram.
///
/// # Errors
/// The group cannot be joined.
pub(super) fn listen_to_group(group: &SocketAddr, interface: &u32) -> Result<Listening, AttachError> {
    let open = || -> Result<Listening, Errno> {
        let socket = udp::open(group.ip())?;
        udp::share_address(socket.as_fd())?;
        let runs = prepare(&socket, group.ip())?;
        udp::join(socket.as_fd(), group.ip(), *interface)?;
        udp::bind(socket.as_fd(), *group)?;
        Ok(Listening { socket: Descriptor(socket), runs })
    };
    open().doing(NET_RAW, || format!("join multicast group {} for UDP port {}", group.ip(), group.port()))
}

fn prepare(socket: &OwnedFd, address: IpAddr) -> Result<bool, Errno> {
    sys::set_buffers(socket.as_fd(), BUFFER)?;
    udp::prepare_receiving(socket.as_fd(), address)
}

/// Takes datagrams without a checksum over IPv6, which only a tunnel that was configured so may (RFC 6936, section 4).
pub fn accept_zero_checksum(socket: BorrowedFd<'_>) {
    // An older kernel does not know it, and drops and counts them.
    let _ = udp::accept_zero_checksum(socket, true);
}

/// The MTU of the route to an address.
fn route_mtu(local: IpAddr, to: SocketAddr) -> Result<u32, Errno> {
    let socket = udp::open(local)?;
    udp::bind(socket.as_fd(), SocketAddr::new(local, 0))?;
    udp::route_mtu(socket.as_fd(), to)
}

/// The interface that has an address.
fn link_with(netlink: &Netlink, address: IpAddr) -> std::io::Result<Option<KernelLink>> {
    let Some(index) = netlink.interface_with(address)? else { return Ok(None) };
    Ok(netlink.links()?.into_iter().find(|link| link.index == index))
}
