//! What hosts keep in a store: keys, and JSON with a version.
//!
//! ```text
//!  cluster/id                      which cluster this is                 stays
//!  cluster/host/HOST               a host: where its tunnels end         announced
//!  cluster/network/NETWORK         a network: VNI, subnets               stays
//!  cluster/vni/VNI                 whose VNI this is                     stays
//!  net/NETWORK/member/HOST         that a host has ports in it           announced
//!  net/NETWORK/endpoint/HOST/MAC   a station, at that host               announced
//!  net/NETWORK/block/SUBNET        a host's part of the addresses        stays
//! ```
//!
//! An endpoint's key bears the host's name, so no two hosts ever write the same: a station that moves is announced by both for a moment, and the
//! higher sequence number wins (RFC 7432, section 7.7).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use packet::Mac;
use serde::{Deserialize, Serialize};

use crate::key::PublicKey;

/// The version of all records but one. One with a higher number is left alone.
pub const VERSION: u32 = 1;

/// The version of an encrypted network's record: a program that cannot encrypt leaves it alone, so it has no part in the network.
const ENCRYPTED: u32 = 2;

/// The version of the record of a host that takes no part: a program that does not know of such leaves it alone.
const IDLE: u32 = 2;

/// The name of a host or of a network: 1 to 63 letters, digits, `-`, `_` and `.`, which are what every store takes in a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name before all others, which no host or network has.
    pub(crate) fn first() -> Self {
        Self(String::new())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        let bad = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c)));
        match bad.or(matches!(text, "." | "..").then_some('.')) {
            Some(bad) => Err(format!("name \"{shown}\" holds {bad:?}: use letters, digits, '-', '_' and '.'")),
            None if text.is_empty() => Err("a name is empty: use 1 to 63 characters".to_owned()),
            None if text.len() > 63 => Err(format!("name \"{shown}\" has {} characters: use at most 63", text.len())),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where all of the cluster's records are.
pub const CLUSTER: &str = "cluster/";

/// Where the records of a network are.
pub fn network_prefix(network: &Name) -> String {
    format!("net/{network}/")
}

/// A key, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The id of the cluster.
    Id,
    /// A host.
    Host(Name),
    /// A network.
    Network(Name),
    /// The taker of a VNI.
    Vni(u32),
    /// A host's part in a network.
    Member(Name, Name),
    /// A station of a network, at a host.
    Endpoint(Name, Name, Mac),
    /// A block of a network's addresses.
    Block(Name, IpNet),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => write!(f, "cluster/id"),
            Self::Host(host) => write!(f, "cluster/host/{host}"),
            Self::Network(network) => write!(f, "cluster/network/{network}"),
            Self::Vni(vni) => write!(f, "cluster/vni/{vni}"),
            Self::Member(network, host) => write!(f, "net/{network}/member/{host}"),
            Self::Endpoint(network, host, mac) => write!(f, "net/{network}/endpoint/{host}/{mac}"),
            Self::Block(network, block) => write!(f, "net/{network}/block/{}-{}", block.addr(), block.prefix_len()),
        }
    }
}

impl Key {
    /// The key that a text is; `None` for one that means nothing here.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let name = |text: &str| text.parse::<Name>().ok();
        Some(match parts.as_slice() {
            ["cluster", "id"] => Self::Id,
            ["cluster", "host", host] => Self::Host(name(host)?),
            ["cluster", "network", network] => Self::Network(name(network)?),
            ["cluster", "vni", vni] => Self::Vni(vni.parse().ok()?),
            ["net", network, "member", host] => Self::Member(name(network)?, name(host)?),
            ["net", network, "endpoint", host, mac] => Self::Endpoint(name(network)?, name(host)?, mac.parse().ok()?),
            ["net", network, "block", block] => Self::Block(name(network)?, block.replace('-', "/").parse().ok()?),
            _ => return None,
        })
    }
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Where its tunnels end.
    pub underlay: IpAddr,
    /// The UDP port that they listen on.
    pub port: u16,
    /// Which start of the host this is, so that two hosts of one name are told from one that was started again.
    pub boot: String,
    /// The version of its program.
    pub program: String,
    /// The key by which others encrypt for it; without one it has no part in encrypted networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// The UDP port at which it says whether it lives; none of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gossip: Option<u16>,
    /// Whether it takes no part, and is there to be named only. The version of the record says it, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idle: bool,
}

impl Host {
    /// As it is kept.
    pub fn written(&self) -> String {
        written_as(self.version(), self)
    }

    /// One that was kept; `None` if it is none, or says one thing by its version and another by its fields.
    pub fn read(text: &str) -> Option<Self> {
        read_as(Self::version, text)
    }

    const fn version(&self) -> u32 {
        if self.idle { IDLE } else { VERSION }
    }
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its number in frames.
    pub vni: u32,
    /// Its subnets; those of the host that made it.
    pub subnets: Vec<IpNet>,
    /// The gateways of the host that made it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Whether its frames are encrypted between hosts. The version of the record says it, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypt: bool,
}

impl Network {
    /// As it is kept.
    pub fn written(&self) -> String {
        written_as(self.version(), self)
    }

    /// One that was kept; `None` if it is none, or says one thing by its version and another by its fields.
    pub fn read(text: &str) -> Option<Self> {
        read_as(Self::version, text)
    }

    const fn version(&self) -> u32 {
        if self.encrypt { ENCRYPTED } else { VERSION }
    }
}

/// A station.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its addresses, as far as they are known.
    #[serde(default)]
    pub ips: BTreeSet<IpAddr>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Grows each time that it is seen at another host (RFC 7432, section 7.7).
    #[serde(default)]
    pub sequence: u32,
}

/// A host's part of a network's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The host.
    pub host: Name,
}

/// A record with its version.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    record: T,
}

/// A record as it is kept.
pub fn written<T: Serialize>(record: &T) -> String {
    written_as(VERSION, record)
}

fn written_as<T: Serialize>(v: u32, record: &T) -> String {
    // The records are structs of numbers, texts and lists, which can all be written.
    serde_json::to_string(&Versioned { v, record }).unwrap_or_default()
}

/// A record that was kept; `None` if it is none of this version.
pub fn read<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    read_as(|_| VERSION, text)
}

/// The same of a record whose version is told by what it says.
fn read_as<T: for<'de> Deserialize<'de>>(version: impl FnOnce(&T) -> u32, text: &str) -> Option<T> {
    let Versioned { v, record } = serde_json::from_str::<Versioned<T>>(text).ok()?;
    (v == version(&record)).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let mac = "02:00:00:00:00:0a".parse().unwrap();
        let keys = [
            Key::Id,
            Key::Host(name("h1")),
            Key::Network(name("ov_net1")),
            Key::Vni(4097),
            Key::Member(name("a"), name("h-1")),
            Key::Endpoint(name("a"), name("h1"), mac),
            Key::Block(name("a"), "10.1.0.64/26".parse().unwrap()),
            Key::Block(name("a"), "fd00::40/122".parse().unwrap()),
        ];
        for key in keys {
            assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
        for none in
            ["", "cluster", "cluster/host/", "cluster/host/a/b", "cluster/vni/x", "net/a/endpoint/h/zz", "net/../member/h"]
        {
            assert_eq!(Key::parse(none), None, "{none}");
        }
    }

    #[test]
    fn a_record_of_another_version_is_left_alone() {
        let network =
            Network { vni: 5000, subnets: vec!["10.0.0.0/24".parse().unwrap()], gateways: Vec::new(), encrypt: false };
        let text = network.written();
        assert_eq!(text, r#"{"v":1,"vni":5000,"subnets":["10.0.0.0/24"]}"#);
        assert_eq!(Network::read(&text), Some(network.clone()));
        assert_eq!(Network::read(&text.replace("\"v\":1", "\"v\":2")), None);
        assert_eq!(Network::read("{}"), None);
        assert_eq!(read::<Endpoint>(r#"{"v":1,"more":[]}"#), Some(Endpoint::default()));
        // What a program reads that cannot encrypt.
        let encrypted = Network { encrypt: true, ..network };
        assert_eq!(read::<Network>(&encrypted.written()), None);
        assert_eq!(Network::read(&encrypted.written()), Some(encrypted.clone()));
        assert_eq!(Network::read(&encrypted.written().replace("\"v\":2", "\"v\":1")), None);
    }

    #[test]
    fn a_name_is_what_every_store_takes_in_a_key() {
        assert_eq!("a/b".parse::<Name>().unwrap_err(), "name \"a/b\" holds '/': use letters, digits, '-', '_' and '.'");
        for wrong in ["", ".", "..", "ä", "a b", &"x".repeat(64)] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }
}
