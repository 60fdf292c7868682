//! What keeps a host uplink from starting or from listening on a published port, in sentences that the control side passes on. Touches nothing.

use std::io;
use std::net::SocketAddr;

use nat::Protocol;

use super::forward::MOST_LISTENERS;

/// Why the uplink cannot do what it is asked, in one sentence that says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The sockets of published ports cannot be handed to another process.
    #[error("the sockets of published ports cannot be handed over: {0}")]
    Lend(#[source] std::io::Error),
    /// The kernel gives no thread or descriptor.
    #[error("cannot open the host uplink \"{name}\": {source}")]
    Open {
        /// The uplink.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The MTU is too small for IPv6, or for anything.
    #[error("the host uplink \"{name}\" cannot have an MTU of {mtu}: it takes from 1280 to 65535")]
    Mtu {
        /// The uplink.
        name: String,
        /// The MTU.
        mtu: u16,
    },
    /// Another program listens there.
    #[error(
        "cannot forward {} port {} of the host: {address} is in use by another program: choose another port, or stop that program (`ss -lnp` names it)",
        word(*protocol),
        address.port()
    )]
    InUse {
        /// The protocol.
        protocol: Protocol,
        /// The address.
        address: SocketAddr,
    },
    /// Ports below 1024 take a capability.
    #[error(
        "cannot forward {} port {} of the host without CAP_NET_BIND_SERVICE: choose a port from 1024 on, or lower net.ipv4.ip_unprivileged_port_start",
        word(*protocol),
        address.port()
    )]
    Privileged {
        /// The protocol.
        protocol: Protocol,
        /// The address.
        address: SocketAddr,
    },
    /// The host does not have the address.
    #[error("cannot forward {} port {}: the host has no address {}: `ip addr` lists those that it has", word(*protocol), address.port(), address.ip())]
    NoAddress {
        /// The protocol.
        protocol: Protocol,
        /// The address.
        address: SocketAddr,
    },
    /// Two forwards of one port.
    #[error("{} port {} of {} is forwarded twice: remove one of the two forwards", word(*protocol), address.port(), address.ip())]
    Twice {
        /// The protocol.
        protocol: Protocol,
        /// The address.
        address: SocketAddr,
    },
    /// More sockets than the uplink opens.
    #[error(
        "the published ports take {0} sockets, and a host uplink opens at most {1}: one for each port and address, two for a port of all addresses; publish fewer, or raise the limit of descriptors (LimitNOFILE=), of which they may have half, up to {MOST_LISTENERS}"
    )]
    TooMany(usize, usize),
    /// The kernel refused for another reason.
    #[error("cannot listen on {} port {}: {source}", word(*protocol), address)]
    Listen {
        /// The protocol.
        protocol: Protocol,
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread has ended.
    #[error("the host uplink has stopped: restart vswitchd")]
    Stopped,
}

const fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}
