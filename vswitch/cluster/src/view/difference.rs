//! What comes of what a host hears: differences for its tunnels, and why it takes no part.

use std::collections::BTreeSet;
use std::net::IpAddr;

use packet::Mac;

use crate::record::Name;

/// Why a host takes no part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The store has an id, and it is not that of this host's cluster.
    #[error(
        "the store is of another cluster ({store}, and this host belongs to {ours}): correct `endpoints` and `prefix`, or remove overlay.json from `state-dir` to have this host join it"
    )]
    Foreign {
        /// The store's id.
        store: String,
        /// What this host remembers.
        ours: String,
    },
    /// Another host has the same name.
    #[error("host \"{name}\" is in the store already, with underlay address {underlay}: give one of the two another `node`")]
    NameTaken {
        /// The name.
        name: Name,
        /// The other's address.
        underlay: IpAddr,
    },
    /// Another host has the same address.
    #[error("host \"{other}\" of the cluster has the underlay {underlay} already: give this one its own `underlay`")]
    UnderlayTaken {
        /// The other host.
        other: Name,
        /// The address.
        underlay: IpAddr,
    },
    /// A network was made with other subnets.
    #[error("network \"{network}\" has {theirs} in the store, and {ours} here: give the bridge addresses of the same subnets")]
    Subnets {
        /// The network.
        network: Name,
        /// The subnets of the store's record.
        theirs: String,
        /// The subnets of this host.
        ours: String,
    },
    /// A network is encrypted and this host would have it in the clear, or the other way round.
    #[error(
        "network \"{network}\" is {} in the store, and {} here: {}",
        if *encrypt { "encrypted" } else { "not encrypted" },
        if *encrypt { "not" } else { "to be" },
        if *encrypt { "give its bridge `encrypt = true` (with Docker, -o vswitch.encrypt=true)" } else { "leave out `encrypt`, or choose another name" }
    )]
    Encryption {
        /// The network.
        network: Name,
        /// Whether the store has it encrypted.
        encrypt: bool,
    },
    /// Without a store, another network has the number that follows from a network's name.
    #[error(
        "networks \"{other}\" and \"{network}\" come to one number, {vni}: give network \"{network}\" another name, or use a store"
    )]
    Clash {
        /// The network that takes no part.
        network: Name,
        /// The one that has the number.
        other: Name,
        /// The number.
        vni: u32,
    },
}

/// A station at another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// The host.
    pub host: Name,
    /// Where that host's tunnels end.
    pub vtep: IpAddr,
    /// Its addresses, for which ARP and neighbour discovery are answered here.
    pub ips: BTreeSet<IpAddr>,
    /// Its name.
    pub name: Option<String>,
}

/// How the tunnels of a network must change. A station's peer joins before it, and leaves after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The network has this VNI.
    Vni(Name, u32),
    /// A host has joined: it gets what is flooded.
    Joined(Name, IpAddr),
    /// A station is at another host now, or has other addresses.
    Is(Name, Mac, Station),
    /// A station is at no other host.
    Gone(Name, Mac),
    /// A host has left.
    Left(Name, IpAddr),
    /// A station that was announced here has moved to this host: it was seen there later.
    Taken(Name, Mac, Name),
}

/// What came of the announcement of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The others will hear of it.
    Told,
    /// It was known so.
    Known,
    /// It moves to and fro between hosts, so two stations have this address: it stays where it is for now (RFC 7432, section 15.1).
    Duplicate,
    /// The host has no part in that network, or the network has [`MOST_RECORDS`](super::MOST_RECORDS) stations here.
    Ignored,
}
