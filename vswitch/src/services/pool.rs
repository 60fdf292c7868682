//! Which addresses of a subnet may be given out, and where the search for a free one starts. `leases.rs` asks. Pure functions.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::leases::MOST;

/// The addresses of a subnet that may be given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddressPool {
    first: u128,
    last: u128,
    v4: bool,
    reserved: HashSet<IpAddr>,
    /// The parts out of which an address may be given that no client has yet, by their ends; `None`: all.
    parts: Option<Vec<(u128, u128)>>,
}

impl AddressPool {
    /// All of `net` but its reserved ends and `reserved`: the addresses of the gateway and of configured stations.
    pub(super) fn new(net: IpNet, reserved: HashSet<IpAddr>) -> Self {
        let (first, last) = (number(net.network()), number(net.broadcast()));
        let (low, high) = match net {
            // Network and broadcast; a /31 has neither (RFC 3021).
            IpNet::V4(net) if net.prefix_len() < 31 => (1, 1),
            IpNet::V4(_) => (0, 0),
            // The routers' anycast address (RFC 4291, section 2.6.1); the highest 128 are reserved too (RFC 2526).
            IpNet::V6(net) if net.prefix_len() <= 64 => (1, 128),
            IpNet::V6(net) => (u128::from(net.prefix_len() < 127), 0),
        };
        Self { first: first + low, last: last - high, v4: matches!(net, IpNet::V4(_)), reserved, parts: None }
    }

    /// The same, of which only these blocks are given to clients that have no address yet; `None`: all.
    pub(super) fn within(self, blocks: Option<&BTreeSet<IpNet>>) -> Self {
        let ends = |block: &IpNet| {
            let (first, last) = (number(block.network()).max(self.first), number(block.broadcast()).min(self.last));
            (block.addr().is_ipv4() == self.v4 && first <= last).then_some((first, last))
        };
        let parts = blocks.map(|blocks| blocks.iter().filter_map(ends).collect());
        Self { parts, ..self }
    }

    /// Whether a client may be given it that has it not yet.
    pub(super) fn may_begin(&self, address: IpAddr) -> bool {
        let number = number(address);
        self.contains(address) && self.parts().iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    fn parts(&self) -> Vec<(u128, u128)> {
        self.parts.clone().unwrap_or_else(|| vec![(self.first, self.last)])
    }

    /// Whether it may be given out.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let number = number(address);
        address.is_ipv4() == self.v4 && (self.first..=self.last).contains(&number) && !self.reserved.contains(&address)
    }

    /// How many addresses it has, the reserved ones among them.
    fn count(&self) -> u128 {
        size(&(self.first, self.last))
    }

    /// How many addresses it has, or [`MOST`].
    pub(super) fn size(&self) -> usize {
        let all = self.count();
        let inside = self.reserved.iter().filter(|address| (self.first..=self.last).contains(&number(**address))).count();
        usize::try_from(all.saturating_sub(inside as u128)).unwrap_or(MOST).min(MOST)
    }

    /// Addresses from a place that depends on `client`, once around, so many that one of them must be free if any is.
    pub(super) fn around(&self, client: &[u8]) -> impl Iterator<Item = IpAddr> {
        let parts = self.parts();
        let all = parts.iter().map(size).fold(0, u128::saturating_add);
        let start = if all == 0 { 0 } else { u128::from(spread(client)) % all };
        let steps = all.min((MOST + self.reserved.len() + 1) as u128);
        let address = move |step| {
            let mut place = (start + step) % all;
            let part = parts.iter().find(|part| {
                let is_in = place < size(part);
                place -= if is_in { 0 } else { size(part) };
                is_in
            });
            part.map(|(first, _)| address(first + place, self.v4))
        };
        (0..steps).filter_map(address).filter(|address| !self.reserved.contains(address))
    }
}

/// How many addresses there are from the first to the last.
fn size((first, last): &(u128, u128)) -> u128 {
    last.checked_sub(*first).map_or(0, |difference| difference.saturating_add(1))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => IpAddr::V4(number.into()),
        _ => IpAddr::V6(number.into()),
    }
}

/// The same number for the same bytes in every process (FNV-1a, then the finalizer of SplitMix64).
fn spread(bytes: &[u8]) -> u64 {
    let hash =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool_of(net: &str, reserved: &[&str]) -> AddressPool {
        AddressPool::new(net.parse().unwrap(), reserved.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn a_pool_is_the_subnet_less_its_ends_and_what_is_taken() {
        let pool = pool_of("10.0.0.0/29", &["10.0.0.1", "10.0.0.3", "10.0.9.9"]);
        let mut all: Vec<_> = pool.around(b"x").collect();
        all.sort();
        let expected: Vec<IpAddr> = ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"].map(|text| text.parse().unwrap()).into();
        assert_eq!((all, pool.size()), (expected, 4));
        for (net, size) in
            [("10.0.0.0/31", 2), ("10.0.0.0/32", 1), ("fd00::/127", 2), ("fd00::/64", MOST), ("10.0.0.0/8", MOST)]
        {
            assert_eq!(pool_of(net, &[]).size(), size, "{net}");
        }
        assert_eq!(pool_of("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124", &[]).size(), 15);
    }
}
