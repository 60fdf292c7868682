//! The network: what its administrator has put into etcd, and which subnet of it a new host takes.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::field;

/// A network of flannel's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlannelNet {
    /// Its addresses.
    pub network: Ipv4Net,
    /// How long the prefix of a host's subnet is.
    pub subnet_length: u8,
    /// The first subnet that hosts may take.
    pub first: Ipv4Addr,
    /// The last.
    pub last: Ipv4Addr,
    /// The number in VXLAN's header.
    pub vni: u32,
    /// The UDP port of all hosts.
    pub port: u16,
    /// The longest packet between hosts, if that is not what their interfaces say.
    pub mtu: Option<u16>,
}

/// Why a network is none that this host can take part in, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetFault {
    /// Not what flanneld reads either.
    #[error("is no network of flannel's ({0}): correct it")]
    Unreadable(String),
    /// Another backend.
    #[error(
        "has the backend \"{0}\", and vswitchd takes part in networks with the backend vxlan alone: {{\"Backend\": {{\"Type\": \"vxlan\"}}}}"
    )]
    Backend(String),
    /// Packets without VXLAN.
    #[error(
        "has DirectRouting, by which hosts of one link send each other packets without VXLAN, past vswitchd: set it to false, and start flanneld again"
    )]
    DirectRouting,
    /// No IPv4.
    #[error("is without IPv4, and vswitchd takes part in flannel's networks by IPv4")]
    NoIpv4,
}

/// The UDP port of Linux's VXLAN, which flannel leaves as it is.
pub const LINUX_PORT: u16 = 8472;

/// The smallest MTU: 576 bytes and what VXLAN adds.
const LEAST_MTU: u64 = 626;

impl FlannelNet {
    /// Reads the record of a network, and completes it as flanneld does.
    ///
    /// # Errors
    /// It is none that this host can take part in.
    pub fn read(text: &str) -> Result<Self, NetFault> {
        let wrong = |what: &str| NetFault::Unreadable(what.to_owned());
        let record: Value = serde_json::from_str(text).map_err(|error| NetFault::Unreadable(error.to_string()))?;
        // Without one, it is flannel's first: by UDP.
        let backend = field(&record, "Backend").unwrap_or(&Value::Null);
        let kind = if backend.is_null() { "udp" } else { field(backend, "Type").and_then(Value::as_str).unwrap_or_default() };
        if kind != "vxlan" {
            return Err(NetFault::Backend(kind.escape_debug().to_string()));
        }
        if field(&record, "EnableIPv4") == Some(&Value::Bool(false)) {
            return Err(NetFault::NoIpv4);
        }
        if field(backend, "DirectRouting") == Some(&Value::Bool(true)) {
            return Err(NetFault::DirectRouting);
        }
        let network = field(&record, "Network").and_then(Value::as_str).and_then(|text| text.parse::<Ipv4Net>().ok());
        let network = network.ok_or_else(|| wrong("`Network` must be such as \"10.244.0.0/16\""))?.trunc();
        if !is_of_hosts(network) {
            return Err(NetFault::Unreadable(format!(
                "`Network` is {network}: it must be a /8 or smaller, and have none of the addresses that are loopback, multicast, \
                 link-local, or of 0.0.0.0/8"
            )));
        }
        let subnet_length = length(&record, network)?;
        let number = |value: Option<&Value>, usual: u64, most: u64, name: &str| match value.map(Value::as_u64) {
            None => Ok(usual),
            Some(Some(number)) if number <= most => Ok(number),
            Some(_) => Err(NetFault::Unreadable(format!("`{name}` must be a number up to {most}"))),
        };
        let vni = number(field(backend, "VNI"), 1, 0xff_ffff, "VNI")?;
        let port = number(field(backend, "Port"), 0, 65_535, "Port")?;
        let mtu = number(field(backend, "MTU"), 0, 65_535, "MTU")?;
        // Inside of VXLAN, hosts must be able to send the 576 bytes that any takes.
        if (1..LEAST_MTU).contains(&mtu) {
            return Err(NetFault::Unreadable(format!("`MTU` is {mtu}: it must be at least {LEAST_MTU}")));
        }
        let size = 1u32 << (32 - subnet_length);
        // A subnet with the first address of the network is nothing for a host.
        let [first, last] =
            [("SubnetMin", u32::from(network.network()) + size), ("SubnetMax", u32::from(network.broadcast()) - (size - 1))]
                .map(|(name, usual)| bound(&record, name, usual, network, size));
        let (first, last) = (first?, last?);
        if first > last {
            return Err(wrong("`SubnetMin` must not be above `SubnetMax`"));
        }
        let small = |number: u64| u16::try_from(number).ok().filter(|number| *number > 0);
        let vni = u32::try_from(vni).unwrap_or_default();
        Ok(Self { network, subnet_length, first, last, vni, port: small(port).unwrap_or(LINUX_PORT), mtu: small(mtu) })
    }

    /// Whether a subnet is one that a host may have.
    pub fn fits(&self, subnet: Ipv4Net) -> bool {
        subnet.prefix_len() == self.subnet_length && (self.first..=self.last).contains(&subnet.network())
    }

    /// A subnet that overlaps none of these, any of them as `random` says; none if there is none.
    pub fn choose(&self, taken: impl Iterator<Item = Ipv4Net>, random: u32) -> Option<Ipv4Net> {
        let size = 1u32 << (32 - self.subnet_length);
        let [first, last] = [self.first, self.last].map(u32::from);
        let slot = |address: u32| (address.clamp(first, last) - first) / size;
        // The slots that are taken, as ranges that neither meet nor overlap.
        let is_within = |net: &Ipv4Net| u32::from(net.broadcast()) >= first && u32::from(net.network()) <= last + (size - 1);
        let mut ranges: Vec<(u32, u32)> =
            taken.filter(is_within).map(|net| (slot(u32::from(net.network())), slot(u32::from(net.broadcast())))).collect();
        ranges.sort_unstable();
        let (mut free, mut next) = (Vec::new(), 0);
        for (from, to) in ranges.into_iter().chain([(slot(last) + 1, slot(last) + 1)]) {
            if from > next {
                free.push((next, from - next));
            }
            next = next.max(to.saturating_add(1));
        }
        let count: u32 = free.iter().map(|(_, count)| count).sum();
        let mut left = random.checked_rem(count)?;
        let (from, _) = free.into_iter().find(|(_, count)| {
            let is_here = left < *count;
            if !is_here {
                left -= count;
            }
            is_here
        })?;
        Ipv4Net::new(Ipv4Addr::from(first + (from + left) * size), self.subnet_length).ok()
    }
}

/// The length of a host's prefix: as it is written, or what leaves room for four hosts and more.
fn length(record: &Value, network: Ipv4Net) -> Result<u8, NetFault> {
    let wrong = |what: String| Err(NetFault::Unreadable(what));
    let own = network.prefix_len();
    match field(record, "SubnetLen").map(|value| value.as_u64().and_then(|number| u8::try_from(number).ok())) {
        Some(None) => wrong("`SubnetLen` must be a number up to 30".to_owned()),
        Some(Some(length @ 1..)) if length > 30 || length < own.saturating_add(2) => {
            wrong(format!("`SubnetLen` is {length}: of a /{own} a host's subnet is a /{} to /30", own.saturating_add(2)))
        }
        Some(Some(length @ 1..)) => Ok(length),
        _ if own > 28 => wrong(format!("`Network` is a /{own}: it must be a /28 or larger")),
        _ => Ok(if own <= 22 { 24 } else { own + 2 }),
    }
}

/// The first or last subnet of hosts.
fn bound(record: &Value, name: &str, usual: u32, network: Ipv4Net, size: u32) -> Result<Ipv4Addr, NetFault> {
    let wrong = || NetFault::Unreadable(format!("`{name}` must be the first address of a host's subnet in {network}"));
    let written = field(record, name).map(|value| value.as_str().and_then(|text| text.parse().ok()).ok_or_else(wrong));
    let address: Ipv4Addr = written.transpose()?.filter(|address: &Ipv4Addr| !address.is_unspecified()).unwrap_or(usual.into());
    let is_sound = network.contains(&address) && u32::from(address).is_multiple_of(size);
    if is_sound { Ok(address) } else { Err(wrong()) }
}

/// Whether a network may be one of hosts: not too large, and without addresses that lead to no other host.
pub fn is_of_hosts(network: Ipv4Net) -> bool {
    let special = [([0, 0, 0, 0], 8), ([127, 0, 0, 0], 8), ([169, 254, 0, 0], 16), ([224, 0, 0, 0], 3)];
    let overlaps = |(address, length): ([u8; 4], u8)| {
        Ipv4Net::new(address.into(), length).is_ok_and(|special| special.contains(&network) || network.contains(&special))
    };
    network.prefix_len() >= 8 && !special.into_iter().any(overlaps)
}

/// Whether two subnets have an address in common.
pub fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// Whether packets can be sent to one host by this address.
pub fn is_of_one_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_broadcast() || IpAddr::V4(address).is_multicast())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<FlannelNet, String> {
        FlannelNet::read(text).map_err(|fault| fault.to_string())
    }

    #[test]
    fn what_is_not_written_is_as_flanneld_has_it() {
        let net = read(r#"{ "Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}"#).unwrap();
        assert_eq!(
            (net.network.to_string().as_str(), net.subnet_length, net.vni, net.port, net.mtu),
            ("10.5.0.0/16", 24, 1, 8472, None)
        );
        assert_eq!((net.first.to_string().as_str(), net.last.to_string().as_str()), ("10.5.1.0", "10.5.255.0"));
        let all = r#"{"network":"10.244.3.1/16","SubnetLen":26,"SubnetMin":"10.244.9.64","SubnetMax":"10.244.99.0","EnableIPv6":true,
            "IPv6Network":"fd00::/48","EnableNFTables":false,
            "backend":{"type":"vxlan","vni":7,"port":4789,"MTU":1400,"GBP":true,"Learning":false,"DirectRouting":false}}"#;
        let net = read(all).unwrap();
        assert_eq!(
            (net.network.to_string().as_str(), net.subnet_length, net.vni, net.port, net.mtu),
            ("10.244.0.0/16", 26, 7, 4789, Some(1400))
        );
        assert_eq!((net.first.to_string().as_str(), net.last.to_string().as_str()), ("10.244.9.64", "10.244.99.0"));
        let net = read(r#"{"Network":"10.0.0.0/24","Backend":{"Type":"vxlan"}}"#).unwrap();
        assert_eq!((net.subnet_length, net.first.to_string().as_str()), (26, "10.0.0.64"));
    }

    #[test]
    fn what_this_host_cannot_take_part_in_is_a_sentence() {
        let with = |rest: &str| format!(r#"{{"Network":"10.244.0.0/16","Backend":{{"Type":"vxlan"}}{rest}}}"#);
        for (text, part) in [
            (r#"{"Network":"10.244.0.0/16"}"#.to_owned(), "has the backend \"udp\", and vswitchd takes part"),
            (r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#.to_owned(), "the backend \"host-gw\""),
            (r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#.to_owned(), "has DirectRouting"),
            (r#"{"Backend":{"Type":"vxlan"}}"#.to_owned(), "`Network` must be"),
            (r#"{"Network":"fd00::/48","Backend":{"Type":"vxlan"}}"#.to_owned(), "`Network` must be"),
            (r#"{"Network":"10.0.0.0/29","Backend":{"Type":"vxlan"}}"#.to_owned(), "must be a /28"),
            (r#"{"Network":"10.0.0.0/16","Backend":{"Type":"vxlan","VNI":16777216}}"#.to_owned(), "`VNI` must be a number"),
            (with(r#","EnableIPv4":false"#), "is without IPv4"),
            (with(r#","SubnetLen":17"#), "`SubnetLen` is 17: of a /16 a host's subnet is a /18 to /30"),
            (with(r#","SubnetLen":31"#), "`SubnetLen` is 31"),
            (with(r#","SubnetMin":"10.245.0.0""#), "`SubnetMin` must be the first address"),
            (with(r#","SubnetMax":"10.244.0.7""#), "`SubnetMax` must be the first address"),
            (with(r#","SubnetMin":"10.244.9.0","SubnetMax":"10.244.8.0""#), "must not be above"),
            ("10.244.0.0/16".to_owned(), "is no network of flannel's"),
            (
                r#"{"Network":"10.0.0.0/16","Backend":{"Type":"vxlan","MTU":625}}"#.to_owned(),
                "`MTU` is 625: it must be at least 626",
            ),
            (r#"{"Network":"0.0.0.0/0","Backend":{"Type":"vxlan"}}"#.to_owned(), "must be a /8 or smaller"),
            (r#"{"Network":"10.0.0.0/7","Backend":{"Type":"vxlan"}}"#.to_owned(), "must be a /8 or smaller"),
            (r#"{"Network":"0.9.0.0/16","Backend":{"Type":"vxlan"}}"#.to_owned(), "none of the addresses that are loopback"),
            (r#"{"Network":"127.1.0.0/16","Backend":{"Type":"vxlan"}}"#.to_owned(), "none of the addresses that are loopback"),
            (r#"{"Network":"169.0.0.0/8","Backend":{"Type":"vxlan"}}"#.to_owned(), "none of the addresses that are loopback"),
            (r#"{"Network":"239.0.0.0/16","Backend":{"Type":"vxlan"}}"#.to_owned(), "none of the addresses that are loopback"),
        ] {
            let sentence = read(&text).unwrap_err();
            assert!(sentence.contains(part), "{text}: {sentence}");
        }
    }

    #[test]
    fn the_last_free_subnet_is_found_and_no_more() {
        let net =
            read(r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.0","SubnetMax":"10.244.3.0","Backend":{"Type":"vxlan"}}"#)
                .unwrap();
        let taken = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Ipv4Net>>();
        for random in [0, 1, 2, 77, u32::MAX] {
            let last = net.choose(taken(&["10.244.1.0/24", "10.244.3.128/25"]).into_iter(), random);
            assert_eq!(last, "10.244.2.0/24".parse().ok());
        }
        assert_eq!(net.choose(taken(&["10.244.0.0/22", "10.9.0.0/16"]).into_iter(), 5), None);
        assert_eq!(net.choose(taken(&["0.0.0.0/0"]).into_iter(), 5), None);
    }

    proptest! {
        #[test]
        fn no_numbers_are_a_panic(
            network in (any::<u32>(), 0u8..=32),
            length in 0u8..=40,
            bounds in any::<(u32, u32)>(),
            taken in any::<u32>(),
            random in any::<u32>(),
        ) {
            let [address, first, last] = [network.0, bounds.0, bounds.1].map(Ipv4Addr::from);
            let rest = format!(r#""SubnetLen":{length},"Backend":{{"Type":"vxlan"}}"#);
            let bare = format!(r#"{{"Network":"{address}/{}",{rest}}}"#, network.1);
            let bound = format!(r#"{{"Network":"{address}/{}","SubnetMin":"{first}","SubnetMax":"{last}",{rest}}}"#, network.1);
            for net in [FlannelNet::read(&bare), FlannelNet::read(&bound)].into_iter().flatten() {
                let taken = Ipv4Net::new(taken.into(), 32).unwrap();
                let chosen = net.choose(std::iter::once(taken), random);
                prop_assert!(chosen.is_none_or(|chosen| net.fits(chosen) && net.network.contains(&chosen) && !chosen.contains(&taken)));
            }
        }

        #[test]
        fn a_subnet_that_is_chosen_fits_and_is_free_and_any_may_be_chosen(
            length in 26u8..=30,
            taken in prop::collection::vec((any::<u16>(), 20u8..=32), 0..40),
            random in any::<u32>(),
        ) {
            let net = read(&format!(r#"{{"Network":"10.1.0.0/24","SubnetLen":{length},"Backend":{{"Type":"vxlan"}}}}"#)).unwrap();
            let net_of = |(low, length): &(u16, u8)| Ipv4Net::new(Ipv4Addr::from(0x0a01_0000 + u32::from(*low)), *length).unwrap().trunc();
            let taken: Vec<Ipv4Net> = taken.iter().map(net_of).collect();
            let overlaps = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
            let size = 1u32 << (32 - length);
            let slots = (u32::from(net.first)..=u32::from(net.last)).step_by(size as usize);
            let free: Vec<Ipv4Net> = slots
                .map(|address| Ipv4Net::new(address.into(), length).unwrap())
                .filter(|slot| !taken.iter().any(|other| overlaps(slot, other)))
                .collect();
            let chosen = net.choose(taken.iter().copied(), random);
            prop_assert_eq!(chosen, (!free.is_empty()).then(|| free[random as usize % free.len()]));
            prop_assert!(chosen.is_none_or(|chosen| net.fits(chosen)));
        }
    }
}
