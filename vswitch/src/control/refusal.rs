//! Why a container does not get what its plugin asks for, in sentences that its runtime shows.

use std::path::PathBuf;

use packet::Mac;

use super::ControlError;
use crate::containers::{self, AddressError};
use crate::host::HostError;
use api::{BridgeName, ContainerKey, Runtime};

/// Why a container does not get what its plugin asks for.
#[derive(Debug, thiserror::Error)]
pub enum ContainerRefusal {
    /// Its network is not there.
    #[error("there is no bridge \"{0}\"{bridges}: add it to switch.toml, or have the network make it with `subnets`", bridges = .1)]
    NoBridge(BridgeName, String),
    /// A bridge of another kind.
    #[error("bridge \"{0}\" is there already, with other subnets: use another name, or leave the subnets to that bridge")]
    OtherBridge(BridgeName),
    /// Its address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its MAC address.
    #[error("the MAC address {0} is that of {1} already: use another")]
    MacTaken(Mac, String),
    /// Nothing can be published.
    #[error("port {0} cannot be published: bridge \"{1}\" has no uplink, by which it would be reached")]
    NoUplink(u16, BridgeName),
    /// Nothing to lead to.
    #[error("port {0} cannot be published: the container has no address of the IP version that it would listen on")]
    NoTarget(u16),
    /// The host's own namespace.
    #[error("{} is the network namespace that vswitchd itself is in: a container has one of its own", .0.display().to_string().escape_debug())]
    OwnNetns(PathBuf),
    /// The runtime itself holds the port.
    #[error(
        "{0}; Podman itself may hold it, for it reserves what it publishes: `enable_port_reservation = false` under [engine] of \
         containers.conf leaves it to the switch"
    )]
    Reserved(HostError),
    /// It is not as it was made.
    #[error("interface \"{0}\" of the container is not as it was made: {1}")]
    Changed(String, String),
    /// Nothing is known of it.
    #[error("the switch knows no interface {0}: it was removed, or its container was taken for dead; start it again")]
    Unknown(ContainerKey),
    /// More than fits.
    #[error("there are {most} interfaces of containers already, the most that the switch takes: remove some first", most = containers::MOST_INTERFACES)]
    TooMany,
}

/// Podman holds the ports that it has published, unless it is told not to.
pub(super) fn hint(runtime: Runtime, error: ControlError) -> ControlError {
    match error {
        ControlError::Host(error @ HostError::InUse { .. }) if runtime == Runtime::Podman => {
            ContainerRefusal::Reserved(error).into()
        }
        error => error,
    }
}
