//! Networks that are a host's part of an overlay network (`vswitch-overlay`): which subnets they have, and which addresses are this host's to give.
//!
//! Docker's identifiers of a network are other ones on each host, and its address management is asked before there is a network. So a name, given
//! with `-o` to the one and with `--ipam-opt` to the other, says which overlay network is meant. Its subnets are those of the store's record; the
//! record is begun by the first host that makes the network. Containers get addresses of the host's own blocks, of which no other host gives any.
//!
//! `control/docker` calls this. Pure functions.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;

use super::endpoint::hash;
use super::ipam::overlap;
use super::message::{self, CreateNetwork, Driver};
use super::{DockerError, Network};
use crate::overlay::{Elsewhere, KnownNetwork, NO_BLOCKS, NetworkTable};
use api::OverlayName;

/// The option, of `-o` and of `--ipam-opt`, that says which overlay network is meant.
pub(super) const NET: &str = "vswitch.net";

/// The option of `-o` that says whether the network is an encrypted one.
pub(super) const ENCRYPT: &str = "vswitch.encrypt";

/// How many subnets there are to choose from.
const CHOICES: u32 = 256;

/// The overlay network that the options of a subnet name.
///
/// # Errors
/// None is named, or something that no overlay network is called.
pub fn named(options: &message::Options) -> Result<OverlayName, DockerError> {
    let name = options.get(NET).and_then(Value::as_str);
    let name = name.ok_or_else(|| {
        let line = format!("add --ipam-opt {NET}=NAME, with the name of -o {NET}=NAME");
        DockerError::Ipam(format!("--ipam-driver {} is not told which overlay network it is for: {line}", Driver::Overlay))
    })?;
    name.parse().map_err(|error| DockerError::Ipam(format!("--ipam-opt {NET}: {error}")))
}

/// The subnet of an overlay network that a host joins: the one that is asked for, or else the first of the IP version. `None`: the network
/// has no subnets.
///
/// # Errors
/// The network has another, or none of that IP version.
pub fn subnet_of(
    name: &OverlayName,
    known: &KnownNetwork,
    wanted: Option<IpNet>,
    v6: bool,
) -> Result<Option<IpNet>, DockerError> {
    let own = known.subnets.iter().copied().find(|net| wanted.map_or(net.addr().is_ipv6() == v6, |wanted| wanted == *net));
    match (own, wanted) {
        (Some(own), _) => Ok(Some(own)),
        (None, wanted) if known.subnets.is_empty() => Ok(wanted),
        (None, Some(wanted)) => Err(DockerError::Ipam(format!(
            "overlay network \"{name}\" has {}, and not {wanted}: leave out --subnet, or give what it has",
            list(&known.subnets)
        ))),
        (None, None) => {
            let version = if v6 { "--ipv6" } else { "--ipv4" };
            let has = list(&known.subnets);
            Err(DockerError::Ipam(format!("overlay network \"{name}\" has {has} alone: create the network without {version}")))
        }
    }
}

/// A subnet for a network that begins here: a /20 of 10.224.0.0/12, or a /64 of a unique local prefix (RFC 4193). It follows from the name, so that
/// hosts which make one network at once choose the same.
///
/// # Errors
/// All are in use.
pub fn choose(name: &OverlayName, v6: bool, is_used: impl Fn(&IpNet) -> bool) -> Result<IpNet, DockerError> {
    let first = hash(name.as_str()) % CHOICES;
    let all = (0..CHOICES).filter_map(|step| choice((first + step) % CHOICES, v6));
    let free = all.into_iter().find(|net| !is_used(net));
    free.ok_or_else(|| {
        DockerError::Ipam("every subnet that the driver chooses from is in use: give one with --subnet".to_owned())
    })
}

fn choice(number: u32, v6: bool) -> Option<IpNet> {
    if v6 {
        let group = u16::try_from(0x1000 + number).ok()?;
        return Ipv6Net::new(Ipv6Addr::new(0xfd76, 0x7377, 0x6974, group, 0, 0, 0, 0), 64).ok().map(IpNet::V6);
    }
    Ipv4Net::new(Ipv4Addr::from(0x0ae0_0000 | number << 12), 20).ok().map(IpNet::V4)
}

/// Whether a subnet is that of any overlay network.
pub fn is_known(tables: &Elsewhere, net: &IpNet) -> bool {
    tables.known.values().flat_map(|known| &known.subnets).any(|other| overlap(other, net))
}

/// Whether the subnets of a new network are given by the address management of its driver.
///
/// # Errors
/// They are another's.
pub(super) fn check_spaces(request: &CreateNetwork, net: Option<&OverlayName>) -> Result<(), DockerError> {
    let ours = Driver::Overlay.to_string();
    let mut pools = request.v4.iter().chain(&request.v6);
    match net {
        None if pools.any(|pool| pool.space == ours) => Err(DockerError::Option(format!(
            "--ipam-driver {ours} is for networks of -d {ours}, and this is one of -d {}: give both the same driver",
            request.driver
        ))),
        Some(net) if pools.clone().next().is_none() || pools.any(|pool| pool.space != ours) => {
            Err(DockerError::Option(format!(
                "a network of -d {ours} has addresses of its own driver only: add --ipam-driver {ours} --ipam-opt {NET}={net}"
            )))
        }
        _ => Ok(()),
    }
}

/// Whether a new network is what the store's record says.
///
/// # Errors
/// It is not.
pub fn check_record(name: &OverlayName, known: &KnownNetwork, network: &Network) -> Result<(), DockerError> {
    let subnets: Vec<IpNet> = network.subnets.iter().map(|subnet| subnet.net).collect();
    match (known.encrypt, network.options.encrypt) {
        (true, false) => Err(DockerError::Option(format!("overlay network \"{name}\" is encrypted: add -o {ENCRYPT}=true"))),
        (false, true) => Err(DockerError::Option(format!(
            "overlay network \"{name}\" is not encrypted: leave out -o {ENCRYPT}, or choose another name"
        ))),
        _ => check_subnets(name, known, &subnets),
    }
}

fn check_subnets(name: &OverlayName, known: &KnownNetwork, subnets: &[IpNet]) -> Result<(), DockerError> {
    let own: BTreeSet<&IpNet> = subnets.iter().collect();
    if known.subnets.is_empty() || own == known.subnets.iter().collect() {
        return Ok(());
    }
    let flag = |net: &IpNet| format!("{}--subnet {net}", if net.addr().is_ipv6() { "--ipv6 " } else { "" });
    let flags: Vec<String> = known.subnets.iter().map(flag).collect();
    let (has, flags) = (list(&known.subnets), flags.join(" "));
    Err(DockerError::Option(format!("overlay network \"{name}\" has {has}, and not {}: give {flags}", list(subnets))))
}

/// The names of a network and of its addresses differ.
pub fn other_name(net: &OverlayName, ipam: &OverlayName) -> DockerError {
    DockerError::Option(format!("-o {NET}={net} and --ipam-opt {NET}={ipam} differ: give both the same name"))
}

fn list(nets: &[IpNet]) -> String {
    if nets.is_empty() { "no subnet".to_owned() } else { nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" and ") }
}

/// What is known of an overlay network when an address of it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Its name.
    pub name: &'a OverlayName,
    /// This host's part.
    pub table: Option<&'a NetworkTable>,
    /// The store's record.
    pub known: Option<&'a KnownNetwork>,
    /// Whether this host's network is there. Before that, Docker asks for addresses that no container gets.
    pub is_made: bool,
    /// Whether hosts share out its addresses; else each is the user's to give.
    pub is_shared: bool,
}

impl Part<'_> {
    /// The gateway in a subnet that the host had which began the network.
    pub(super) fn gateway(&self, net: &IpNet) -> Option<IpAddr> {
        self.known?.gateways.iter().copied().find(|address| net.contains(address))
    }

    /// The first of this host's addresses in a subnet that may be given.
    ///
    /// # Errors
    /// There is none yet, or hosts share out no addresses.
    pub(super) fn free(&self, net: &IpNet, is_free: impl Fn(IpAddr) -> bool) -> Result<IpAddr, DockerError> {
        if !self.is_shared {
            let end = "and for that make the network with --subnet";
            return Err(DockerError::Ipam(format!(
                "overlay network \"{}\" gives no addresses, {NO_BLOCKS}; here, start the container with --ip, {end}",
                self.name
            )));
        }
        let blocks = self.table.into_iter().flat_map(|table| &table.blocks).filter(|block| net.contains(*block));
        let is_elsewhere = |address: &IpAddr| self.holder(*address).is_some();
        let mut all = blocks.flat_map(|block| super::ipam::addresses(*block));
        let free = all.find(|address| is_free(*address) && !is_elsewhere(address));
        free.ok_or_else(|| self.not_yet(&format!("this host has no free address of {net}, and gets none from the store")))
    }

    /// Whether an address is this host's to give.
    ///
    /// # Errors
    /// It is another host's, or of no host's block yet.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), DockerError> {
        if let Some(host) = self.holder(address) {
            return Err(DockerError::Ipam(format!("the address {address} is that of a station at host {host}: use another")));
        }
        let table = self.table;
        if !self.is_shared || table.is_some_and(|table| table.blocks.iter().any(|block| block.contains(&address))) {
            return Ok(());
        }
        let other = table.and_then(|table| table.others.iter().find(|(block, _)| block.contains(&address)));
        Err(match other {
            Some((block, host)) => DockerError::Ipam(format!(
                "the address {address} is of {block}, which host {host} gives out: use one that is this host's, or none"
            )),
            None => {
                self.not_yet(&format!("the address {address} is of no block of this host, and the store does not give it one"))
            }
        })
    }

    /// The host with a station that has an address.
    fn holder(&self, address: IpAddr) -> Option<&str> {
        let stations = self.table?.stations.values();
        stations.into_iter().find(|row| row.ips.contains(&address)).map(|row| row.host.as_str())
    }

    fn not_yet(&self, sentence: &str) -> DockerError {
        DockerError::NotYet(self.name.clone(), sentence.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use packet::Mac;
    use serde_json::json;

    use super::super::message::{ADDRESS_TYPE, GATEWAY, RequestAddress};
    use super::super::{Network, Pools};
    use super::*;
    use crate::overlay::StationRow;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn known(subnets: &[&str], gateways: &[&str]) -> KnownNetwork {
        let gateways = gateways.iter().map(|text| text.parse().unwrap()).collect();
        KnownNetwork { subnets: subnets.iter().map(|text| net(text)).collect(), gateways, encrypt: false }
    }

    fn red() -> OverlayName {
        "red".parse().unwrap()
    }

    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T, DockerError>, part: &str) {
        let sentence = result.unwrap_err().to_string();
        assert!(sentence.contains(part), "{sentence:?} instead of {part:?}");
    }

    #[test]
    fn a_host_that_joins_has_the_subnets_of_the_record() {
        let both = known(&["10.5.0.0/24", "fd05::/64"], &[]);
        let subnet = |known: &KnownNetwork, wanted: Option<&str>, v6| subnet_of(&red(), known, wanted.map(net), v6);
        assert_eq!(subnet(&both, None, false).unwrap(), Some(net("10.5.0.0/24")));
        assert_eq!(subnet(&both, Some("fd05::/64"), true).unwrap(), Some(net("fd05::/64")));
        refused(subnet(&both, Some("10.6.0.0/24"), false), "has 10.5.0.0/24 and fd05::/64, and not 10.6.0.0/24");
        refused(subnet(&known(&["10.5.0.0/24"], &[]), None, true), "10.5.0.0/24 alone: create the network without --ipv6");
        assert_eq!(subnet(&known(&[], &[]), Some("10.6.0.0/24"), false).unwrap(), Some(net("10.6.0.0/24")));
        assert_eq!(subnet(&known(&[], &[]), None, false).unwrap(), None);
        assert!(check_subnets(&red(), &both, &[net("fd05::/64"), net("10.5.0.0/24")]).is_ok());
        refused(check_subnets(&red(), &both, &[net("10.5.0.0/24")]), "give --subnet 10.5.0.0/24 --ipv6 --subnet fd05::/64");
    }

    #[test]
    fn hosts_that_begin_a_network_at_once_choose_the_same_subnet() {
        let first = choose(&red(), false, |_| false).unwrap();
        assert_eq!((first, first.prefix_len()), (choose(&red(), false, |_| false).unwrap(), 20));
        assert!(net("10.224.0.0/12").contains(&first) && choose(&red(), false, |net| *net == first).unwrap() != first);
        assert!(net("fd76:7377:6974::/48").contains(&choose(&red(), true, |_| false).unwrap()));
        refused(choose(&red(), false, |_| true), "give one with --subnet");
    }

    #[test]
    fn both_drivers_and_both_names_are_the_same() {
        let create = |driver, space: &str, options: Value| {
            let body = json!({
                "NetworkID": "a".repeat(64),
                "Options": { message::GENERIC: options },
                "IPv4Data": [{ "AddressSpace": space, "Pool": "10.5.0.0/24", "Gateway": "10.5.0.1/24" }],
            });
            let create: CreateNetwork = serde_json::from_value(body).unwrap();
            Network::read(&CreateNetwork { driver, ..create })
        };
        let made = create(Driver::Overlay, "vswitch-overlay", json!({ NET: "red" })).unwrap();
        let bridge = made.own_bridge(None).unwrap().unwrap();
        assert_eq!((bridge.overlay, bridge.addresses), (Some(red()), vec![net("10.5.0.1/24")]));
        refused(create(Driver::Overlay, "LocalDefault", json!({ NET: "red" })), "add --ipam-driver vswitch-overlay");
        refused(create(Driver::Bridge, "vswitch-overlay", json!({})), "one of -d vswitch: give both the same driver");
        refused(create(Driver::Overlay, "vswitch-overlay", json!({})), "the network has no `vswitch.net`");
        refused(create(Driver::Bridge, "vswitch", json!({ NET: "red" })), "unknown option `vswitch.net`");
        refused(named(&message::Options::new()), "add --ipam-opt vswitch.net=NAME");
        refused(named(&[(NET.to_owned(), json!("a/b"))].into()), "--ipam-opt vswitch.net: ");
        assert_eq!(named(&[(NET.to_owned(), json!("red"))].into()).unwrap(), red());
    }

    #[test]
    fn containers_get_addresses_of_the_hosts_own_blocks() {
        let station = |ip: &str| StationRow {
            host: "h2".to_owned(),
            vtep: "192.0.2.2".parse().unwrap(),
            ips: [ip.parse().unwrap()].into(),
            name: None,
        };
        let table = NetworkTable {
            vni: 5000,
            stations: BTreeMap::from([(Mac([2, 0, 0, 0, 0, 1]), station("10.5.0.65"))]),
            blocks: [net("10.5.0.64/30")].into(),
            others: [(net("10.5.0.128/26"), "h2".to_owned())].into(),
            ..NetworkTable::default()
        };
        let (name, record) = (red(), known(&["10.5.0.0/24"], &["10.5.0.66"]));
        let part = Part { name: &name, table: Some(&table), known: Some(&record), is_made: true, is_shared: true };
        let mut pools = Pools::default();
        let id = pools.join(red(), net("10.5.0.0/24")).unwrap()["PoolID"].as_str().unwrap().to_owned();
        assert_eq!((id.as_str(), pools.overlay_of(&id)), ("red/10.5.0.0/24", Some(&name)));
        let mut take = |address: &str, kind: Option<&str>, part| {
            let options = kind.map(|kind| (ADDRESS_TYPE.to_owned(), json!(kind))).into_iter().collect();
            let request = RequestAddress { pool: id.clone(), address: address.to_owned(), options };
            pools.request_address(&request, Some(part)).map(|answer| answer["Address"].as_str().unwrap().to_owned())
        };
        assert_eq!(take("", Some(GATEWAY), part).unwrap(), "10.5.0.66/24", "that of the host that began it");
        assert_eq!(take("", None, part).unwrap(), "10.5.0.64/24");
        assert_eq!(take("", None, part).unwrap(), "10.5.0.67/24", "the others are a station's and the gateway's");
        assert!(matches!(take("", None, part), Err(DockerError::NotYet(..))));
        refused(take("10.5.0.65", None, part), "is that of a station at host h2");
        refused(take("10.5.0.130", None, part), "is of 10.5.0.128/26, which host h2 gives out");
        assert!(matches!(take("10.5.0.9", None, part), Err(DockerError::NotYet(..))), "its block may become this host's");
        let before = Part { table: None, is_made: false, ..part };
        assert_eq!(take("10.5.0.9", None, before).unwrap(), "10.5.0.9/24", "--aux-address");
        let alone = Part { is_shared: false, ..part };
        refused(take("", None, alone), "start the container with --ip");
        refused(take("10.5.0.65", None, alone), "is that of a station at host h2");
        assert_eq!(take("10.5.0.200", None, alone).unwrap(), "10.5.0.200/24", "whose it is, is the user's to know");
        assert_eq!(pools.given_of(&red()).len(), 5);
        pools.forget("10.5.0.64".parse().unwrap());
        assert_eq!(pools.given_of(&red()).len(), 4);
        refused(
            pools.join(red(), net("10.5.0.0/24")),
            "this host has a network of Docker's in overlay network \"red\" already",
        );
        refused(pools.join("blue".parse().unwrap(), net("10.5.0.0/25")), "overlaps 10.5.0.0/24 of another network");
    }
}
