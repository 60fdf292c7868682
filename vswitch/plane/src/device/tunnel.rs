//! VXLAN at the edge of the switch: UDP on one side, bare frames on the other.
//!
//! A tunnel is a port whose device is a [`Sender`]. Its frames arrive elsewhere: a [`Receiver`] reads one UDP socket, on which many
//! tunnels meet, and says of each frame which port and which peer it came from. So the datapath does not know VXLAN.
//!
//! **Speed.** The kernel hands over runs of datagrams of one size in one read (`UDP_GRO`) and takes them in one call (`UDP_SEGMENT`),
//! so the UDP and IP layers are walked once for up to 64 frames. A super-frame is cut into segments once, each behind its own
//! VXLAN header, and they leave as one run. On the way in, segments become a super-frame again as they are copied out of the
//! socket's buffer, also where it came in several runs, so the datapath walks once for all of them; for this their checksums are
//! verified here.
//!
//! **Encryption.** A tunnel of an encrypted network differs in its edges alone: what its sender would send goes inside WireGuard ([`wireguard`]), and
//! its receiver is another one, on another UDP port, where nothing is heard that is not sealed. So such a tunnel has no way in or out in the clear.
//!
//! **Underlay paths.** Routers and network cards spread load by the outer ports. The source port stands for the inner flow: a few
//! [`Sources`] sockets, chosen by [`vxlan::Inner::flow`], so a flow stays in order.

mod outer;
mod receiver;
mod sealing;
mod sender;
#[cfg(test)]
mod tests;
mod wireguard;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use rustix::io::Errno;
use vxlan::{Peers, Vni};

pub use receiver::{Change, Receiver};
pub use sender::Sender;
pub use wireguard::{PrivateKey, Wireguard, wireguard_overhead};

use sys::udp;

/// Most errors that are taken from one socket at a time.
const MOST_ERRORS: usize = 64;

/// What sender and receiver of one tunnel share on all workers. The control side changes it while frames pass.
#[derive(Debug)]
pub struct Tunnel {
    /// The network.
    pub vni: Vni,
    /// The UDP port of the others.
    pub port: u16,
    /// Where flooded frames go instead of to every peer.
    pub group: Option<IpAddr>,
    /// The others.
    pub peers: Peers,
    /// Second 0 of the peers' table.
    epoch: Instant,
    /// Counts changes of the peers.
    generation: AtomicU32,
    /// Longest inner packet, without Ethernet header.
    mtu: AtomicU32,
    /// How long the forwarding database remembers addresses, in seconds.
    ageing: AtomicU32,
}

impl Tunnel {
    /// A tunnel without peers.
    pub fn new(vni: Vni, port: u16, group: Option<IpAddr>, mtu: u16) -> Self {
        Self {
            vni,
            port,
            group,
            peers: Peers::new(group.is_some()),
            epoch: Instant::now(),
            generation: AtomicU32::new(0),
            mtu: AtomicU32::new(mtu.into()),
            ageing: AtomicU32::new(300),
        }
    }

    /// Makes these its peers, and returns the numbers of those that no longer are.
    pub fn set_peers(&self, addresses: &[IpAddr]) -> Vec<u16> {
        let gone = self.peers.configure(addresses, self.second(Instant::now()));
        self.generation.fetch_add(1, Ordering::Release);
        gone
    }

    /// Sets the longest inner packet.
    pub fn set_mtu(&self, mtu: u16) {
        self.mtu.store(mtu.into(), Ordering::Relaxed);
    }

    /// The longest inner packet.
    pub fn mtu(&self) -> u16 {
        u16::try_from(self.mtu.load(Ordering::Relaxed)).unwrap_or(u16::MAX)
    }

    /// Says for how long the forwarding database remembers addresses, in seconds.
    pub fn set_ageing(&self, seconds: u32) {
        self.ageing.store(seconds, Ordering::Relaxed);
    }

    /// Calls `to` with the number and address of each to which frames for a peer go, of which 0 is all; says whether the peer is one.
    fn destinations(&self, peer: u16, mut to: impl FnMut(u16, IpAddr)) -> bool {
        match (peer, self.group) {
            (0, Some(group)) => to(0, group),
            (0, None) => self.peers.configured().for_each(|(number, address)| to(number, address)),
            (peer, _) => match self.peers.address(peer) {
                Some(address) => to(peer, address),
                None => return false,
            },
        }
        true
    }

    fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Longest inner frame.
    fn room(&self) -> usize {
        usize::from(self.mtu()) + packet::ETHERNET_HEADER
    }

    /// A moment as the peers' table counts it.
    pub fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.epoch).as_secs()).unwrap_or(u32::MAX)
    }

    /// The forwarding database looks once a second, and a second begun counts.
    fn expire(&self, now: Instant) {
        const GRACE: u32 = 5;
        self.peers.expire(self.second(now), self.ageing.load(Ordering::Relaxed).saturating_add(GRACE));
    }
}

/// The sockets that tunnels with one local address send from.
#[derive(Debug)]
pub struct Sources {
    sockets: Vec<OwnedFd>,
    /// Their addresses and ports.
    names: Vec<SocketAddr>,
    /// What they write into the headers.
    headers: SourceHeaders,
    /// Whether runs can be sent in one piece; found out as the first one is refused.
    segmenting: AtomicBool,
}

/// What the sockets of a tunnel write into the headers of datagrams.
#[derive(Clone, Copy, Debug)]
pub struct SourceHeaders {
    /// How many hops datagrams live.
    pub hops: u8,
    /// Whether they have a UDP checksum.
    pub is_summed: bool,
}

impl Sources {
    /// Calls `take` with what came back about datagrams: the address that each was for, and the reason. It takes a few hundred at most, so
    /// that a flood of them cannot hold the caller.
    pub fn errors(&self, mut take: impl FnMut(IpAddr, Errno)) {
        for socket in &self.sockets {
            for _ in 0..MOST_ERRORS {
                match udp::take_error(socket.as_fd()) {
                    Ok(Some((address, error))) => take(address, error),
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
        }
    }

    /// Takes nonblocking sockets, at least one, as [`sys::udp`](sys::udp) opens and binds them.
    pub fn new(sockets: Vec<OwnedFd>, segmenting: bool, headers: SourceHeaders) -> Self {
        // Only captures show the names: a socket without one would have none to show.
        let name = |socket: &OwnedFd| SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok();
        let unnamed = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
        let names = sockets.iter().map(|socket| name(socket).unwrap_or(unnamed)).collect();
        Self { sockets, names, headers, segmenting: segmenting.into() }
    }

    /// The address and port of a socket.
    fn name(&self, socket: usize) -> Option<SocketAddr> {
        self.names.get(socket).copied()
    }

    /// Whether runs are sent in one piece.
    pub fn is_segmenting(&self) -> bool {
        self.segmenting.load(Ordering::Relaxed)
    }
}

/// Why a datagram belongs to no tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UnderlayDrop {
    /// It ends inside its VXLAN header, or did not fit the longest buffer.
    Malformed,
    /// Its I flag is not set, so it names no network.
    NoVni,
    /// No tunnel has this VNI.
    UnknownVni,
    /// The kernel had no room to keep it until the switch read it.
    MissedByKernel,
    /// WireGuard's, from an address that no host of an encrypted network has.
    UnknownHost,
    /// WireGuard's, and not sealed with the key of that host for this one; or it came before, or in a flood of handshakes.
    NotAuthentic,
}

impl UnderlayDrop {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Malformed, Self::NoVni, Self::UnknownVni, Self::MissedByKernel, Self::UnknownHost, Self::NotAuthentic];

    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoVni => "no-vni",
            Self::UnknownVni => "unknown-vni",
            Self::MissedByKernel => "missed-by-kernel",
            Self::UnknownHost => "unknown-host",
            Self::NotAuthentic => "not-authentic",
        }
    }
}

/// Datagrams that arrived at one UDP port and were dropped before their tunnel was known.
#[derive(Debug, Default)]
pub struct UnderlayCounters([AtomicU64; UnderlayDrop::ALL.len()]);

impl UnderlayCounters {
    /// How many were dropped for `reason`.
    pub fn read(&self, reason: UnderlayDrop) -> u64 {
        self.0.get(reason as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn count(&self, reason: UnderlayDrop, datagrams: u64) {
        if let Some(count) = self.0.get(reason as usize) {
            count.fetch_add(datagrams, Ordering::Relaxed);
        }
    }
}
