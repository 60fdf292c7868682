//! What the uplink tells about itself.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo; the ports of a session's addresses are its identifier.
    Echo,
}

/// Who began a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// The container.
    Out,
    /// A client outside, by a forward.
    In,
}

/// A connection, or a flow of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The protocol.
    pub protocol: Protocol,
    /// Who began it.
    pub direction: Direction,
    /// The container's end.
    pub container: SocketAddr,
    /// The other end, as the container knows it. Of a UDP flow that the container began, the last that it sent to.
    pub remote: SocketAddr,
    /// A word or two.
    pub state: &'static str,
    /// Bytes of payload from the container.
    pub sent: u64,
    /// Bytes of payload to it.
    pub received: u64,
    /// How long nothing has come from the container.
    pub idle: Duration,
}

/// What an uplink has, as its thread shows it once a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sessions that it has.
    pub sessions: usize,
    /// Most sessions that it may have.
    pub capacity: usize,
    /// What it counted.
    pub counters: Counters,
}

/// Totals since the uplink was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP connections that were opened, either way.
    pub tcp_opened: u64,
    /// TCP connections that were refused: by the other end, by the network, or because there were too many.
    pub tcp_refused: u64,
    /// TCP connections that were reset to make room.
    pub tcp_evicted: u64,
    /// UDP and echo flows that were forgotten to make room.
    pub flows_evicted: u64,
    /// Datagrams from containers that the host's kernel did not take.
    pub unsent: u64,
    /// Datagrams to a container's port from a host to which the container has not sent, and which may not send to it.
    pub filtered: u64,
    /// Packets to addresses that containers may not reach by the host: its loopback, multicast, broadcast, networks that are apart.
    pub refused_addresses: u64,
    /// Packets of other protocols.
    pub unknown_protocols: u64,
    /// Packets that were cut, contradicted themselves or had a wrong checksum.
    pub malformed: u64,
    /// Fragments that were thrown away, because the others did not come or there were too many.
    pub fragments_dropped: u64,
    /// Frames to the switch for which there was no room.
    pub queue_full: u64,
}

impl Counters {
    /// All of them, with the names that users see.
    pub const fn rows(&self) -> [(&'static str, u64); 11] {
        [
            ("tcp_opened", self.tcp_opened),
            ("tcp_refused", self.tcp_refused),
            ("tcp_evicted", self.tcp_evicted),
            ("flows_evicted", self.flows_evicted),
            ("unsent", self.unsent),
            ("filtered", self.filtered),
            ("refused_addresses", self.refused_addresses),
            ("unknown_protocols", self.unknown_protocols),
            ("malformed", self.malformed),
            ("fragments_dropped", self.fragments_dropped),
            ("queue_full", self.queue_full),
        ]
    }
}
