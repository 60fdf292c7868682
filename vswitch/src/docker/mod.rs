//! Docker's remote network driver and remote IPAM driver: `docker network create -d vswitch` makes a bridge of the switch, and a container on
//! it is a port.
//!
//! ```text
//!  dockerd ── HTTP, Unix socket ──▶ server ── message ──▶ the owner of the switch (control)
//!                                                             │ keeps Docker{networks, endpoints, pools}, then answers
//!                                                             ▼
//!          switch.toml + what vsctl changed + what Docker asked for ── config::merge ──▶ the difference is carried out
//! ```
//!
//! **What is kept.** Docker tells of a network once, when it is created, and never again: not when it is restarted, nor when vswitchd is. So
//! what Docker asked for ([`Docker`]) is part of the [`State`](crate::config::State), written before the answer. Bridges, ports and forwards
//! follow from it by pure functions ([`Docker::bridges`], [`Docker::ports`], [`Docker::forwards`]); a call of Docker's is the same computation
//! as a reload.
//!
//! **Three drivers.** `vswitch` makes a network of its own, a bridge with a gateway; `vswitch-lan` makes one that is part of a LAN of the host's
//! (`lan`); `vswitch-overlay` makes the host's part of a network of several hosts ([`overlay`]). They have a socket each and differ only in how a network
//! is read, and in where addresses come from.
//!
//! **The life of a container's port.** *CreateEndpoint* only notes addresses; on a LAN it is answered when that was asked about them: a DHCP server
//! for one, or all stations whether one has it. *Join* makes the device, a TAP or veth, in vswitchd's own namespace
//! ([`Netns::Sandbox`](api::Netns::Sandbox)); Docker moves it into the container as `eth0` and gives it its addresses, and the queues go
//! on working. *ProgramExternalConnectivity* publishes its ports. *Leave* changes nothing: the device is still in the container. Docker then
//! moves it back, and *DeleteEndpoint* removes it, wherever it is.
//!
//! **Deaths of which Docker does not tell.** Docker forgets endpoints without a word when it is killed, or when vswitchd does not answer. So
//! sandboxes are looked at ([`Sandbox::is_alive`]) when vswitchd starts, when a device goes, and every half minute; and a new endpoint that gets
//! the address of a dead one takes it over.
//!
//! **Docker waits.** Until it has the answer, Docker blocks all that concerns the container, and other containers of its network. Everything but
//! what a LAN is asked, or the store of overlay networks, is answered from memory, and no answer waits for Docker, which may be waiting for this very answer. Every call may come
//! twice: to do again what is done, and to remove what is gone, succeeds.
//!
//! **Names.** A driver is told identifiers. What Docker calls its containers and networks ([`Names`]) is asked for afterwards, only to be shown, by a
//! task for which the switch never waits ([`daemon`]).

pub mod daemon;
mod endpoint;
mod error;
mod id;
mod ipam;
mod lan;
mod layout;
mod lease;
pub mod message;
mod names;
mod network;
mod options;
pub mod overlay;
mod publish;
mod sandbox;
pub mod server;
mod settings;
#[cfg(test)]
mod tests;

pub use endpoint::{Endpoint, default_mac};
pub use error::DockerError;
pub use id::{EndpointId, IdError, NetworkId};
pub use ipam::{Pools, asked_address, asked_subnet};
pub use lan::host_port_name;
pub use layout::Docker;
pub use lease::LanLease;
pub use names::Names;
pub use network::{Network, Subnet};
pub use options::{Attach, NetworkOptions, Rates};
pub use publish::{Outside, bindings, choose, leaves_ipv6};
pub use sandbox::Sandbox;
pub use settings::DockerSettings;

/// Most networks.
pub const MOST_NETWORKS: usize = 1024;
/// Most endpoints on all networks.
pub const MOST_ENDPOINTS: usize = 16_384;
