//! What becomes of the devices of ports, as the kernel tells it.
//!
//! One netlink socket hears of links in vswitchd's own network namespace and in all others that have a number there
//! (`NETLINK_LISTEN_ALL_NSID`). A namespace gets one when a port is attached in it. Numbers hold no namespace, as a socket inside would, so
//! one that is deleted ends as it does without vswitchd.
//!
//! The order is: number, then the look at the device that [`super::attach`] takes anyway, then its events. So none is missed, and those that
//! were older than the look say nothing new when all have been read.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use packet::Mac;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::{AttachError, Doing, NET_ADMIN, is};
use super::netlink::KernelLink;
use super::netns::Namespace;
use super::requests;
use crate::broker::Descriptor;
use api::{Netns, PortName};
use sys::{netlink, set_buffers};

/// `RTNLGRP_LINK` (linux/rtnetlink.h).
const LINKS: u32 = 1;
/// Room for messages that wait: of thousands of ports that are made at once.
const BUFFER: i32 = 8 << 20;
/// Longer than any message about one link, whose attributes are a page or two.
const LONGEST: usize = 64 << 10;

/// A network namespace as vswitchd's own one numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NamespaceNumber(pub(crate) i32);

/// One device of those that a port's frames pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Where it is.
    pub namespace: Option<NamespaceNumber>,
    /// Its index there.
    pub index: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Whether it has carrier.
    pub carrier: bool,
}

impl End {
    pub(super) fn of(link: &KernelLink, namespace: &Namespace) -> Self {
        Self { namespace: namespace.number, index: link.index, up: link.up, carrier: link.carrier }
    }
}

/// What the kernel says about a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Where the link is, its index, and how it is.
    pub end: End,
    /// Its name.
    pub ifname: String,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// The port that its alias names, if it is the station's end.
    pub port: Option<PortName>,
    /// Whether it is there no more.
    pub gone: bool,
}

impl News {
    /// About a link that is there.
    pub(super) fn of(link: &KernelLink, namespace: Option<NamespaceNumber>) -> Self {
        let end = End { namespace, index: link.index, up: link.up, carrier: link.carrier };
        let port = link.alias.as_deref().and_then(super::claim::marked_port);
        Self { end, ifname: link.name.clone(), mac: link.mac, port, gone: false }
    }
}

/// What waits to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This.
    News(News),
    /// Some news were lost, because there were too many: the control side has to look at the links again.
    Lost,
    /// Nothing.
    Nothing,
}

/// What the kernel tells, as it comes in.
pub struct Watch {
    open: WatchSocket,
    buffer: Box<[u8]>,
    /// Read, and not yet told.
    waiting: std::collections::VecDeque<News>,
}

/// An open socket by which the kernel tells of links, for another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WatchSocket {
    socket: Descriptor,
    /// The number of vswitchd's own namespace.
    own: Option<NamespaceNumber>,
    /// Whether links in other namespaces are told of.
    hears_others: bool,
}

impl WatchSocket {
    /// Listens in the network namespace of the calling thread. What the kernel tells of other namespaces depends on who opened the socket
    /// (`do_one_broadcast`), not on who reads it.
    pub(super) fn open() -> Result<Self, AttachError> {
        let open = || -> io::Result<(OwnedFd, bool)> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            // A lost message is told by ENOBUFS, whatever the room.
            let _ = set_buffers(socket.as_fd(), BUFFER);
            socket.bind_auto()?;
            let hears_others = socket.set_listen_all_namespaces(true).is_ok();
            socket.add_membership(LINKS)?;
            Ok((socket.as_fd().try_clone_to_owned()?, hears_others))
        };
        let (socket, hears_others) = open().doing(NET_ADMIN, || "hear of network interfaces".to_owned())?;
        Ok(Self { socket: Descriptor(socket), own: Namespace::own().numbered().number, hears_others })
    }
}

/// The number of a namespace in vswitchd's own, which is given one if it has none.
pub(super) fn number(namespace: BorrowedFd<'_>) -> io::Result<NamespaceNumber> {
    let mut requests = Socket::new(NETLINK_ROUTE)?;
    requests.bind_auto()?;
    requests.connect(&SocketAddr::new(0, 0))?;
    let fd = NsidAttribute::Fd(u32::try_from(namespace.as_raw_fd()).map_err(|_| Errno::BADF)?);
    let mut wish = NsidMessage::default();
    // -1: whichever is free.
    wish.attributes = vec![fd.clone(), NsidAttribute::Id(-1)];
    match exchange(&requests, RouteNetlinkMessage::NewNsId(wish), NLM_F_REQUEST | NLM_F_ACK) {
        Ok(_) => {}
        Err(error) if is(&error, Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let mut question = NsidMessage::default();
    question.attributes = vec![fd];
    let answer = exchange(&requests, RouteNetlinkMessage::GetNsId(question), NLM_F_REQUEST)?;
    let Some(RouteNetlinkMessage::NewNsId(answer)) = answer else { return Err(Errno::NODATA.into()) };
    let id =
        answer.attributes.iter().find_map(|attribute| if let NsidAttribute::Id(id) = attribute { Some(*id) } else { None });
    id.filter(|id| *id >= 0).map(NamespaceNumber).ok_or_else(|| Errno::NODATA.into())
}

/// Sends a request, and waits for its one answer.
fn exchange(requests: &Socket, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    requests.send(&bytes, 0)?;
    let (answer, _) = requests.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(None),
    }
}

/// The number of the namespace with this name; `None`: there is none, or it gets none.
pub(super) fn number_of(netns: &Netns) -> Option<NamespaceNumber> {
    Namespace::open(Some(netns)).ok()?.numbered().number
}

impl Watch {
    /// Listens in vswitchd's network namespace.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self, AttachError> {
        let (buffer, waiting) = (vec![0; LONGEST].into(), std::collections::VecDeque::new());
        Ok(Self { open: requests::open_watch()?, buffer, waiting })
    }

    /// Whether links in other namespaces are told of, which takes `CAP_NET_BROADCAST`.
    pub const fn hears_others(&self) -> bool {
        self.open.hears_others
    }

    /// The number of vswitchd's own namespace.
    pub const fn own(&self) -> Option<NamespaceNumber> {
        self.open.own
    }

    /// The socket once more, for waiting until it is readable.
    ///
    /// # Errors
    /// Too many open files.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.open.socket.0.as_fd().try_clone_to_owned()
    }

    /// Takes what waits, one thing at a time. Never waits itself.
    pub fn hear(&mut self) -> Heard {
        loop {
            if let Some(news) = self.waiting.pop_front() {
                return Heard::News(news);
            }
            match netlink::receive(self.open.socket.0.as_fd(), &mut self.buffer) {
                Ok(reception) => self.read(reception),
                Err(Errno::NOBUFS) => return Heard::Lost,
                Err(Errno::INTR) => {}
                Err(_) => return Heard::Nothing,
            }
        }
    }

    fn read(&mut self, reception: netlink::Heard) {
        let namespace = reception.namespace.map(NamespaceNumber).or(self.open.own);
        let mut rest = self.buffer.get(..reception.length).unwrap_or_default();
        while let Some(length) = rest.first_chunk::<4>().map(|length| u32::from_ne_bytes(*length) as usize) {
            let Some(message) = rest.get(..length).filter(|message| message.len() >= HEADER) else { return };
            self.waiting.extend(read_link(message, namespace));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// What a message says about a link; that a bridge of the kernel's takes or leaves a port is told in messages of another family.
fn read_link(message: &[u8], namespace: Option<NamespaceNumber>) -> Option<News> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
        .inspect_err(|error| tracing::debug!("a message about a link cannot be read: {error}"))
        .ok()?;
    let (link, gone) = match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => (link, false),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => (link, true),
        _ => return None,
    };
    if link.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    Some(News { gone, ..News::of(&KernelLink::from(link), namespace) })
}
