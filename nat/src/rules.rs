//! Destination NAT by rule, `docker run -p 5000-5100:80-180`: the rules, and what they say about a port.
//!
//! A range costs one rule and at most one entry more in [`Forwards`] for each rule that it overlaps. Where two rules have the
//! same port, the one that comes first has it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::key::{self, Endpoint, Kind};
use crate::ports::PortSet;

/// The transport protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One port, or several that follow each other. Port 0 is in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Destination NAT of a range of ports, `docker run -p 5000-5100:80-180` in one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The protocol.
    pub protocol: Protocol,
    /// The ports on the uplink.
    pub ports: PortRange,
    /// The address on the uplink; `None`: whichever it has, of the target's IP version.
    pub external: Option<IpAddr>,
    address: IpAddr,
    first: u16,
}

/// A forward that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// Not a range of ports.
    #[error("\"{0}\" is not a port or a range of ports: write 8080 or 5000-5100, from 1 to 65535")]
    Ports(String),
    /// The last ports of the range would be beyond 65,535.
    #[error("{0} ports from {1} on go beyond 65535: choose a lower port")]
    BeyondLast(u32, u16),
    /// Not an address with a port.
    #[error("\"{0}\" is not an address with a port: write 10.10.0.2:80 or [fd10::2]:80")]
    Target(String),
}

impl PortRange {
    /// Every number, for ICMP identifiers, which may be 0.
    pub(crate) const ALL: Self = Self { first: 0, last: u16::MAX };
    /// What sources below 1024 become. Lower ones belong to services, such as the uplink's own DHCP client.
    pub(crate) const PRIVILEGED: Self = Self { first: 600, last: 1023 };
    /// Ports that need no privilege.
    pub const UNPRIVILEGED: Self = Self { first: 1024, last: u16::MAX };

    /// The ports from one to another; `None` if there is none.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last { None } else { Some(Self { first, last }) }
    }

    /// Its first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Its last port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Number of ports, 1 to 65,535.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Whether both have a port in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether the port is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Its ports among the 64 of a word, one bit for each.
    pub(crate) fn word(self, word: u32) -> u64 {
        let (first, last) = (u32::from(self.first), u32::from(self.last));
        if word < first / 64 || word > last / 64 {
            return 0;
        }
        let from = if word == first / 64 { first % 64 } else { 0 };
        let to = if word == last / 64 { last % 64 } else { 63 };
        u64::MAX << from & u64::MAX >> (63 - to)
    }

    /// The words that have any of its ports.
    pub(crate) fn words(self) -> std::ops::Range<u32> {
        u32::from(self.first / 64)..u32::from(self.last / 64) + 1
    }

    /// Its port number `number`, counted from 0.
    pub(crate) fn nth(self, number: u32) -> u16 {
        u16::try_from(u32::from(self.first) + number).map_or(self.last, |port| port.min(self.last))
    }
}

impl FromStr for PortRange {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(ForwardError::Ports(text.to_owned())),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl Forward {
    /// A forward of `ports` to as many ports from that of `target` on.
    ///
    /// # Errors
    /// The target's ports would go beyond 65,535, or its port is 0.
    pub fn new(protocol: Protocol, ports: PortRange, target: SocketAddr) -> Result<Self, ForwardError> {
        if target.port() == 0 {
            return Err(ForwardError::Target(target.to_string()));
        }
        if u32::from(target.port()) + ports.count() - 1 > u32::from(u16::MAX) {
            return Err(ForwardError::BeyondLast(ports.count(), target.port()));
        }
        Ok(Self { protocol, ports, external: None, address: target.ip(), first: target.port() })
    }

    /// Where a packet to `port` of the uplink goes; `None` if this forward does not cover it.
    pub fn target(&self, port: u16) -> Option<SocketAddr> {
        let inside = self.ports.contains(port).then(|| port - self.ports.first)?;
        Some(SocketAddr::new(self.address, self.first + inside))
    }
}

/// The rules of an uplink, resolved for its addresses.
#[derive(Debug, Default)]
pub(crate) struct Forwards {
    /// By kind and first external port; no two overlap.
    spans: Vec<Span>,
    /// The same, by kind, target and its first port.
    targets: Vec<Span>,
    /// External ports that rules have, by kind of TCP and UDP.
    reserved: [Option<PortSet>; 4],
}

/// Consecutive ports of one rule.
#[derive(Clone, Copy, Debug)]
struct Span {
    kind: Kind,
    ports: PortRange,
    target: Endpoint,
}

impl Forwards {
    /// Resolves `rules`. One whose target or external address fits none of `addresses` waits until one does.
    pub(crate) fn new(rules: &[Forward], addresses: [Option<IpAddr>; 2]) -> Self {
        let mut forwards = Self::default();
        for rule in rules {
            let external = addresses[key::version(rule.address) as usize];
            if external.is_some() && rule.external.is_none_or(|address| Some(address) == external) {
                forwards.add(rule);
            }
        }
        forwards.targets = forwards.spans.clone();
        forwards.spans.sort_by_key(|span| (span.kind.index(), span.ports.first));
        forwards.targets.sort_by_key(|span| span.target_order());
        forwards
    }

    /// Adds the ports of a rule that no earlier rule has.
    fn add(&mut self, rule: &Forward) {
        let kind = Kind::of(rule.protocol, key::version(rule.address));
        let reserved = self.reserved[kind.index()].get_or_insert_with(PortSet::new);
        let mut open: Option<Span> = None;
        for port in rule.ports.first..=rule.ports.last {
            let Some(target) = rule.target(port).filter(|_| !reserved.contains(port)) else {
                self.spans.extend(open.take());
                continue;
            };
            reserved.insert(port);
            let target = Endpoint::new(target.ip(), target.port());
            open.get_or_insert(Span { kind, ports: PortRange { first: port, last: port }, target }).ports.last = port;
        }
        self.spans.extend(open);
    }

    /// Where a packet to an external port goes.
    pub(crate) fn target(&self, kind: Kind, port: u16) -> Option<Endpoint> {
        let behind = self.spans.partition_point(|span| (span.kind.index(), span.ports.first) <= (kind.index(), port));
        let span = self.spans.get(behind.checked_sub(1)?)?;
        let inside = (span.kind == kind && span.ports.contains(port)).then(|| port - span.ports.first)?;
        Some(Endpoint { port: span.target.port + inside, ..span.target })
    }

    /// An external port that is forwarded to `inside`.
    pub(crate) fn port(&self, kind: Kind, inside: Endpoint) -> Option<u16> {
        let wanted = (kind.index(), inside.address, inside.port);
        let behind = self.targets.partition_point(|span| span.target_order() <= wanted);
        let of_the_same = |span: &&Span| span.kind == kind && span.target.address == inside.address;
        let before = self.targets.get(..behind)?.iter().rev().take_while(of_the_same);
        before.into_iter().find_map(|span| {
            let port = span.ports.first.checked_add(inside.port - span.target.port)?;
            span.ports.contains(port).then_some(port)
        })
    }

    /// External ports that are not for mappings.
    pub(crate) fn reserved(&self, kind: Kind) -> Option<&PortSet> {
        self.reserved.get(kind.index())?.as_ref()
    }
}

impl Span {
    const fn target_order(&self) -> (usize, u128, u16) {
        (self.kind.index(), self.target.address, self.target.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_parsed_or_named() {
        assert_eq!("8080".parse::<PortRange>().unwrap().count(), 1);
        assert_eq!("5000-5100".parse::<PortRange>().unwrap().to_string(), "5000-5100");
        for bad in ["", "0", "0-5", "5-4", "1-65536", "a", "1-2-3", "+80", "-5"] {
            assert_eq!(bad.parse::<PortRange>(), Err(ForwardError::Ports(bad.to_owned())));
        }
    }

    #[test]
    fn a_range_that_does_not_fit_is_refused() {
        let target = "10.0.0.2:65530".parse().unwrap();
        let error = Forward::new(Protocol::Tcp, "1-10".parse().unwrap(), target).unwrap_err();
        assert_eq!(error, ForwardError::BeyondLast(10, 65530));
    }

    fn rule(ports: &str, to: &str) -> Forward {
        Forward::new(Protocol::Tcp, ports.parse().unwrap(), to.parse().unwrap()).unwrap()
    }

    const TCP4: Kind = Kind { transport: key::Transport::Tcp, version: packet::IpVersion::V4 };

    #[test]
    fn the_first_rule_has_the_port() {
        let rules = [rule("80", "10.0.0.2:8080"), rule("70-90", "10.0.0.3:1070"), rule("90-91", "10.0.0.4:1")];
        let forwards = Forwards::new(&rules, [Some([192, 0, 2, 1].into()), None]);
        let target = |port| forwards.target(TCP4, port).map(|target| target.socket(TCP4.version).to_string());
        let expected = [(69, None), (70, Some("10.0.0.3:1070")), (80, Some("10.0.0.2:8080")), (90, Some("10.0.0.3:1090"))];
        for (port, to) in expected {
            assert_eq!(target(port).as_deref(), to);
        }
        assert_eq!((target(91).as_deref(), target(92)), (Some("10.0.0.4:2"), None));
        let port = |inside: &str| {
            let inside: SocketAddr = inside.parse().unwrap();
            forwards.port(TCP4, Endpoint::new(inside.ip(), inside.port()))
        };
        assert_eq!((port("10.0.0.3:1090"), port("10.0.0.3:1080"), port("10.0.0.2:8080")), (Some(90), None, Some(80)));
        assert_eq!((port("10.0.0.4:1"), port("10.0.0.4:2"), port("10.0.0.5:2")), (None, Some(91), None));
    }

    #[test]
    fn a_rule_waits_for_its_address() {
        let mut forward = rule("80", "10.0.0.2:80");
        forward.external = Some([192, 0, 2, 9].into());
        let resolved = |address: [u8; 4]| Forwards::new(&[forward], [Some(address.into()), None]).target(TCP4, 80).is_some();
        assert_eq!((resolved([192, 0, 2, 1]), resolved([192, 0, 2, 9])), (false, true));
        let six = rule("80", "[fd00::2]:80");
        assert!(Forwards::new(&[six], [Some([192, 0, 2, 1].into()), None]).spans.is_empty());
    }

    #[test]
    fn a_word_has_the_ports_of_its_range() {
        let range: PortRange = "100-200".parse().unwrap();
        let ports: Vec<u32> = (0..1024)
            .flat_map(|word| (0..64).map(move |bit| (word, bit)))
            .filter(|(word, bit)| range.word(*word) >> bit & 1 == 1)
            .map(|(word, bit)| word * 64 + bit)
            .collect();
        assert_eq!(ports, (100..=200).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn ports_map_one_to_one(first in 1u16.., count in 0u16..200, to in 1u16.., port: u16) {
            let last = first.saturating_add(count);
            let ports = PortRange { first, last };
            let target = SocketAddr::new([10, 0, 0, 2].into(), to);
            if let Ok(forward) = Forward::new(Protocol::Udp, ports, target) {
                let expected = ports.contains(port).then(|| SocketAddr::new([10, 0, 0, 2].into(), to + (port - first)));
                prop_assert_eq!(forward.target(port), expected);
            } else {
                prop_assert!(u32::from(to) + ports.count() > 65536);
            }
        }
    }
}
