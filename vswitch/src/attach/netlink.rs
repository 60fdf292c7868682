//! rtnetlink(7) in small blocking steps.
//!
//! A [`Netlink`] belongs to the network namespace of the thread that opens it and drives its own little runtime, so it must
//! not be used on a thread that runs asynchronous tasks.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
    LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use packet::Mac;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::{AddressMessageBuilder, Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::io::Errno;
use tokio::runtime::Runtime;

use super::error::is;

/// `IFA_PROTO` of addresses that the switch set (Linux 5.18; older kernels ignore it), a number that no program has registered.
const OUR_ADDRESSES: AddressProtocol = AddressProtocol::Other(0x76);

/// A netlink socket.
pub(super) struct Netlink {
    pub(super) runtime: Runtime,
    pub(super) handle: Handle,
}

/// A network interface.
#[derive(Clone, Debug)]
pub(super) struct KernelLink {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: Option<String>,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    pub(super) queue_length: u32,
    pub(super) up: bool,
    /// Up, with a carrier of which the kernel has taken note.
    pub(super) running: bool,
    pub(super) loopback: bool,
    pub(super) ethernet: bool,
    pub(super) kind: Option<InfoKind>,
    /// Whether it has a carrier: for a TAP, up or not, whether a process holds it open (`tun_set_iff`, `__tun_detach`).
    pub(super) carrier: bool,
    /// Index of the other end in its namespace (veth).
    pub(super) peer: Option<u32>,
    /// Index of the bridge that it is a port of.
    pub(super) bridge: Option<u32>,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (connection, handle, _) = {
            let _inside = runtime.enter();
            // Linux before 4.20 does not filter, which costs time only.
            rtnetlink::new_connection_with_strict_check().or_else(|_| rtnetlink::new_connection())?
        };
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    pub(super) fn links(&self) -> io::Result<Vec<KernelLink>> {
        let links = self.handle.link().get().execute().map_ok(KernelLink::from).try_collect();
        self.runtime.block_on(links).map_err(into_io)
    }

    pub(super) fn link(&self, name: &str) -> io::Result<Option<KernelLink>> {
        let mut links = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match self.runtime.block_on(links.try_next()).map_err(into_io) {
            Ok(message) => Ok(message.map(KernelLink::from)),
            Err(error) if is(&error, Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits a moment for a link that is up and has just got its carrier. The kernel notes it on a work queue, and until then throws away
    /// what is sent there (`linkwatch_do_dev`, `dev_activate`).
    pub(super) fn settle(&self, name: &str) -> io::Result<()> {
        for _ in 0..100 {
            if self.link(name)?.is_none_or(|link| link.running || !link.up) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Applies a message that names its link by index.
    pub(super) fn change(&self, message: LinkMessage) -> io::Result<()> {
        self.runtime.block_on(self.handle.link().change(message).execute()).map_err(into_io)
    }

    /// Has a link hand what it sends to its driver at once, instead of queueing it first. A link that was given a queueing discipline keeps it,
    /// and a kernel without any needs nothing.
    pub(super) fn leave_unqueued(&self, index: u32) -> io::Result<()> {
        let mut message = TcMessage::with_index(index.cast_signed());
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind("noqueue".to_owned()));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let mut handle = self.handle.clone();
        let answer = self.runtime.block_on(async { Ok(handle.request(request)?.next().await) }).map_err(into_io)?;
        let Some(NetlinkPayload::Error(error)) = answer.map(|answer| answer.payload) else { return Ok(()) };
        match error.code {
            Some(_) if [Errno::EXIST, Errno::OPNOTSUPP].iter().any(|errno| is(&error.to_io(), *errno)) => Ok(()),
            Some(_) => Err(error.to_io()),
            None => Ok(()),
        }
    }

    /// Deletes a link; one that is gone is fine.
    pub(super) fn delete(&self, index: u32) -> io::Result<()> {
        match self.runtime.block_on(self.handle.link().del(index).execute()).map_err(into_io) {
            Err(error) if is(&error, Errno::NODEV) => Ok(()),
            result => result,
        }
    }

    /// Makes a veth pair, the far end at once in its namespace and with its address, so that no program sees it elsewhere.
    pub(super) fn add_veth(&self, name: &str, peer: &str, mac: Option<Mac>, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut far = LinkMessageBuilder::<LinkUnspec>::new().name(peer).setns_by_fd(namespace.as_raw_fd());
        if let Some(mac) = mac {
            far = far.address(mac.0.to_vec());
        }
        let pair = LinkVeth::new(name, peer).set_info_data(InfoData::Veth(InfoVeth::Peer(far.build())));
        self.runtime.block_on(self.handle.link().add(pair.build()).execute()).map_err(into_io)
    }

    /// The index of the link that has an address.
    pub(super) fn interface_with(&self, address: IpAddr) -> io::Result<Option<u32>> {
        let dump = self.handle.address().get().execute();
        let messages: Vec<_> = self.runtime.block_on(dump.try_collect()).map_err(into_io)?;
        let has = |message: &&AddressMessage| {
            message.attributes.iter().any(|attribute| match attribute {
                AddressAttribute::Local(ip) => *ip == address,
                AddressAttribute::Address(ip) => *ip == address && address.is_ipv6(),
                _ => false,
            })
        };
        Ok(messages.iter().find(has).map(|message| message.header.index))
    }

    /// The addresses of a link, and whether the switch set each.
    pub(super) fn addresses(&self, index: u32) -> io::Result<Vec<(IpNet, bool)>> {
        let mut request = self.handle.address().get().set_link_index_filter(index);
        request.message_mut().header.index = index;
        let messages: Vec<_> = self.runtime.block_on(request.execute().try_collect()).map_err(into_io)?;
        Ok(messages.iter().filter_map(address).collect())
    }

    /// The addresses of all links, each with its link's index.
    pub(super) fn all_addresses(&self) -> io::Result<Vec<(u32, IpNet)>> {
        let dump = self.handle.address().get().execute();
        let messages: Vec<_> = self.runtime.block_on(dump.try_collect()).map_err(into_io)?;
        let row = |message: &AddressMessage| Some((message.header.index, address(message)?.0));
        Ok(messages.iter().filter_map(row).collect())
    }

    /// Sets an address at once, without asking the link whether it is free (IPv6 DAD): it is ours to give. One that is set
    /// already is fine.
    pub(super) fn add_address(&self, index: u32, address: IpNet) -> io::Result<()> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        let message = request.message_mut();
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Protocol(OUR_ADDRESSES));
        match self.runtime.block_on(request.execute()).map_err(into_io) {
            Err(error) if is(&error, Errno::EXIST) => Ok(()),
            result => result,
        }
    }

    /// Removes an address; one that is gone is fine.
    pub(super) fn delete_address(&self, index: u32, address: IpNet) -> io::Result<()> {
        let message = match address {
            IpNet::V4(net) => {
                AddressMessageBuilder::<std::net::Ipv4Addr>::new().address(net.addr(), net.prefix_len()).index(index).build()
            }
            IpNet::V6(net) => {
                AddressMessageBuilder::<std::net::Ipv6Addr>::new().address(net.addr(), net.prefix_len()).index(index).build()
            }
        };
        match self.runtime.block_on(self.handle.address().del(message).execute()).map_err(into_io) {
            Err(error) if is(&error, Errno::ADDRNOTAVAIL) => Ok(()),
            result => result,
        }
    }

    /// The gateways of the static default routes through a link.
    pub(super) fn gateways(&self, index: u32) -> io::Result<Vec<IpAddr>> {
        self.static_routes(index, gateway)
    }

    /// The static routes to single addresses by a link.
    pub(super) fn host_routes(&self, index: u32) -> io::Result<BTreeSet<IpAddr>> {
        self.static_routes(index, only_address).map(|found| found.into_iter().collect())
    }

    /// What `read` finds in the static routes through a link.
    fn static_routes(&self, index: u32, read: fn(&RouteMessage) -> Option<IpAddr>) -> io::Result<Vec<IpAddr>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut wanted = RouteMessage::default();
            wanted.header.address_family = family;
            // Not the table: one without routes is an error.
            wanted.header.protocol = RouteProtocol::Static;
            wanted.attributes.push(RouteAttribute::Oif(index));
            let dump = self.handle.route().get(wanted).execute();
            let messages: Vec<_> = self.runtime.block_on(dump.try_collect()).map_err(into_io)?;
            found.extend(messages.iter().filter(|route| is_static(route, index)).filter_map(read));
        }
        Ok(found)
    }

    /// Adds a route to a single address, unless there is one already.
    pub(super) fn add_host_route(&self, index: u32, address: IpAddr) -> io::Result<()> {
        self.add_static_route(host_route(index, address))
    }

    /// Removes a route to a single address; one that is gone is fine.
    pub(super) fn delete_host_route(&self, index: u32, address: IpAddr) -> io::Result<()> {
        match self.runtime.block_on(self.handle.route().del(host_route(index, address)).execute()).map_err(into_io) {
            Err(error) if is(&error, Errno::SRCH) => Ok(()),
            result => result,
        }
    }

    /// Adds a default route, unless there is one already.
    pub(super) fn add_default_route(&self, index: u32, gateway: IpAddr) -> io::Result<()> {
        self.add_static_route(default_route(index, gateway))
    }

    /// Adds a route by a next hop, unless there is one already.
    pub(super) fn add_route(&self, index: u32, to: IpNet, via: IpAddr) -> io::Result<()> {
        let mut route = default_route(index, via);
        route.header.destination_prefix_length = to.prefix_len();
        route.attributes.push(RouteAttribute::Destination(match to.network() {
            IpAddr::V4(ip) => RouteAddress::Inet(ip),
            IpAddr::V6(ip) => RouteAddress::Inet6(ip),
        }));
        self.add_static_route(route)
    }

    fn add_static_route(&self, route: RouteMessage) -> io::Result<()> {
        match self.runtime.block_on(self.handle.route().add(route).execute()).map_err(into_io) {
            Err(error) if is(&error, Errno::EXIST) => Ok(()),
            result => result,
        }
    }

    /// Removes a default route; one that is gone is fine.
    pub(super) fn delete_default_route(&self, index: u32, gateway: IpAddr) -> io::Result<()> {
        match self.runtime.block_on(self.handle.route().del(default_route(index, gateway)).execute()).map_err(into_io) {
            Err(error) if is(&error, Errno::SRCH) => Ok(()),
            result => result,
        }
    }
}

/// A change of the link with this index; add attributes and build.
pub(super) fn change(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

/// Sets a link up.
pub(super) fn up(index: u32) -> LinkMessage {
    change(index).up().build()
}

/// Keeps the kernel from giving a link an IPv6 address of its own.
pub(super) fn no_ipv6_address(index: u32) -> LinkMessage {
    let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    change(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode])).build()
}

pub(super) fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

impl From<LinkMessage> for KernelLink {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            alias: None,
            mac: None,
            mtu: 0,
            queue_length: 0,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            loopback: flags.contains(LinkFlags::Loopback),
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            kind: None,
            carrier: false,
            peer: None,
            bridge: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::TxQueueLen(length) => link.queue_length = length,
                LinkAttribute::Carrier(carrier) => link.carrier = carrier != 0,
                LinkAttribute::Link(peer) => link.peer = Some(peer),
                LinkAttribute::Controller(bridge) => link.bridge = Some(bridge),
                LinkAttribute::LinkInfo(infos) => {
                    let kind = |info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None };
                    link.kind = infos.into_iter().find_map(kind);
                }
                _ => {}
            }
        }
        link
    }
}

fn address(message: &AddressMessage) -> Option<(IpNet, bool)> {
    if message.header.scope == AddressScope::Link {
        return None;
    }
    let ours = message.attributes.contains(&AddressAttribute::Protocol(OUR_ADDRESSES));
    // IFA_LOCAL is the address where both are given (point to point); IPv6 gives IFA_ADDRESS only.
    let local = message.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let plain = message.attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
    let net = IpNet::new(local.or(plain)?, message.header.prefix_len).ok()?;
    Some((net, ours))
}

fn is_static(route: &RouteMessage, index: u32) -> bool {
    let ours = route.header.table == RouteHeader::RT_TABLE_MAIN && route.header.protocol == RouteProtocol::Static;
    ours && route.attributes.contains(&RouteAttribute::Oif(index))
}

/// The gateway of a default route.
fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    if route.header.destination_prefix_length != 0 {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

/// The destination of a route to a single address.
fn only_address(route: &RouteMessage) -> Option<IpAddr> {
    let length = route.header.destination_prefix_length;
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) if length == 32 => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) if length == 128 => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

fn host_route(index: u32, address: IpAddr) -> RouteMessage {
    match address {
        IpAddr::V4(ip) => {
            let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(ip, 32);
            route.scope(RouteScope::Link).output_interface(index).build()
        }
        IpAddr::V6(ip) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(ip, 128).output_interface(index).build()
        }
    }
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    match gateway {
        IpAddr::V4(ip) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(ip).output_interface(index).build(),
        IpAddr::V6(ip) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(ip).output_interface(index).build(),
    }
}
