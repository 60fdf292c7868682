//! What a name means to the stations of one bridge, by its ports and leases, and by the stations of its overlay network. `reply.rs` looks up each question here. Pure functions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{LOCAL, ZONE};
use api::LeaseState;

use crate::services::leases::{Lease, Leases};
use crate::services::{Link, Member};

/// What is known about a bridge's stations at a moment.
pub(in crate::services) struct NameDirectory<'a> {
    pub(in crate::services) link: &'a Link,
    pub(in crate::services) leases: Vec<&'a Leases>,
    /// Seconds since the Unix epoch.
    pub(in crate::services) now: u64,
}

/// What a name is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NameFound {
    /// A station with these addresses.
    Station(Vec<IpAddr>),
    /// The reverse name of this station.
    Reverse(String),
    /// A name that exists for the sake of those below it.
    Node,
    /// A name of ours that does not exist.
    Nothing,
    /// A name that is none of ours: the host's resolvers are asked.
    Foreign,
}

impl NameDirectory<'_> {
    /// Looks up a name of lower-case labels.
    pub(super) fn find(&self, labels: &[String]) -> NameFound {
        if let Some(address) = reverse(labels) {
            return self.find_address(address);
        }
        match labels {
            // RFC 6761, section 6.3.
            [.., last] if last == "localhost" => {
                return NameFound::Station(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
            }
            // Names of multicast DNS (RFC 6762, section 22.1).
            [.., _, last] if last == LOCAL => return NameFound::Nothing,
            _ => {}
        }
        let text = labels.join(".");
        let domain = self.link.domain().to_ascii_lowercase();
        if let Some(name) = text.strip_suffix(&domain).and_then(|rest| rest.strip_suffix('.')) {
            return self.station(name).unwrap_or_else(|| self.no_station(name));
        }
        if text == ZONE || text == domain {
            return NameFound::Node;
        }
        if labels.last().is_some_and(|last| last == ZONE) {
            return NameFound::Nothing;
        }
        let bare = labels.first().filter(|_| labels.len() == 1).and_then(|name| self.station(name));
        let other = if text == LOCAL { NameFound::Nothing } else { NameFound::Foreign };
        bare.unwrap_or(other)
    }

    /// A port may be called `web.1`, so that `1.br0.internal` has a name below it (RFC 8020).
    fn no_station(&self, name: &str) -> NameFound {
        let elsewhere = self.link.named_elsewhere().map(|(name, _)| name);
        let here = self.link.members.iter().flat_map(Member::all_names);
        let mut names = here.chain(elsewhere).map(str::to_ascii_lowercase);
        let above = names.any(|station| station.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')));
        if above { NameFound::Node } else { NameFound::Nothing }
    }

    /// The stations that have a name; several may share one.
    fn station(&self, name: &str) -> Option<NameFound> {
        let has = |member: &&Member| member.all_names().any(|own| own.eq_ignore_ascii_case(name));
        let here = self.link.members.iter().filter(has).map(|member| self.addresses(member));
        let elsewhere = self.link.named_elsewhere().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let elsewhere = elsewhere.map(|(_, addresses)| addresses.iter().copied().collect());
        let mut all = here.chain(elsewhere).peekable();
        all.peek()?;
        Some(NameFound::Station(all.flatten().collect()))
    }

    fn addresses(&self, member: &Member) -> Vec<IpAddr> {
        let mut addresses: Vec<_> = member.addresses.iter().map(|net| net.addr()).collect();
        let rows = self.leases.iter().flat_map(|leases| leases.rows());
        let leased = rows.filter(|lease| self.is_of(lease, member)).map(|lease| lease.address);
        addresses.extend(leased);
        addresses
    }

    fn is_of(&self, lease: &Lease, member: &Member) -> bool {
        member.mac == Some(lease.mac)
            && member.port == lease.port
            && lease.state == LeaseState::Bound
            && lease.is_live(self.now)
    }

    fn find_address(&self, address: IpAddr) -> NameFound {
        if let Some(member) = self.link.members.iter().find(|member| self.has(member, address)) {
            let name = member.names.first().map_or(member.port.as_str(), String::as_str);
            return NameFound::Reverse(format!("{name}.{}", self.link.domain()));
        }
        let elsewhere = self.link.named_elsewhere().find(|(_, addresses)| addresses.contains(&address));
        if let Some((name, _)) = elsewhere {
            return NameFound::Reverse(format!("{name}.{}", self.link.domain()));
        }
        if address.is_loopback() {
            return NameFound::Reverse("localhost".to_owned());
        }
        let is_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        let ours = is_local || self.link.addresses.iter().any(|net| net.contains(&address));
        if ours { NameFound::Nothing } else { NameFound::Foreign }
    }

    fn has(&self, member: &Member, address: IpAddr) -> bool {
        let leased = || self.leases.iter().filter_map(|leases| leases.row(address)).any(|lease| self.is_of(lease, member));
        member.addresses.iter().any(|net| net.addr() == address) || leased()
    }
}

/// The address that a name of `in-addr.arpa` (RFC 1035, section 3.5) or `ip6.arpa` (RFC 3596, section 2.5) stands for.
fn reverse(labels: &[String]) -> Option<IpAddr> {
    let [numbers @ .., tree, arpa] = labels else { return None };
    if arpa != "arpa" {
        return None;
    }
    let numbers = numbers.iter().rev();
    match (tree.as_str(), numbers.len()) {
        ("in-addr", 4) => {
            let bytes: Vec<u8> = numbers.map(|label| label.parse().ok()).collect::<Option<_>>()?;
            <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into())
        }
        ("ip6", 32) => {
            let digit = |label: &String| u128::from_str_radix(label, 16).ok().filter(|_| label.len() == 1);
            let digits: Vec<u128> = numbers.map(digit).collect::<Option<_>>()?;
            Some(Ipv6Addr::from(digits.into_iter().fold(0, |number, digit| number << 4 | digit)).into())
        }
        _ => None,
    }
}
