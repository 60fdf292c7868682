//! The addresses of a network, in blocks: a host takes a block by a transaction, and then hands out of it without asking anyone, also while the store
//! is away.
//!
//! A block is 64 addresses, or the whole subnet if that is smaller. One is taken anew only when few addresses of the own ones are free, and never while
//! the store may have lost what others hold: what it has lost is put there again by every host that knows. A block of a host that has been gone for [`RECLAIM`] is taken over when no other is left.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::segment::Segment;
use super::{RECLAIM, View, hash};
use crate::record::{self, Block, Key, Name};
use crate::store::Step;

/// Why there is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// The host has no part in the network, or the network no such subnet.
    #[error("this host has no part in that network, or the network no such subnet")]
    NoNetwork,
    /// A block is being asked for.
    #[error("no block of addresses is this host's yet: the store is asked for one")]
    Soon,
    /// The store has not known this host for too long.
    #[error("the store was not reached for so long that another host may have this one's addresses")]
    Away,
}

impl View {
    /// An address of a subnet that is no station's; `reserved` are those that no station gets, such as the gateway's. It is this host's until it is
    /// given back by [`View::release`].
    ///
    /// # Errors
    /// Why there is none; after [`NoAddress::Soon`] it is worth to ask again.
    pub fn address(
        &mut self,
        network: &Name,
        subnet: IpNet,
        reserved: &BTreeSet<IpAddr>,
        now: Duration,
    ) -> Result<IpAddr, NoAddress> {
        let is_away = self.is_away(now);
        let segment = self.segments.get_mut(network).filter(|segment| segment.wish.subnets.contains(&subnet.trunc()));
        let segment = segment.ok_or(NoAddress::NoNetwork)?;
        if is_away {
            return Err(NoAddress::Away);
        }
        let used = segment.used();
        let own = segment.addresses.mine.iter().filter(|block| subnet.contains(*block));
        let mut usable = own.flat_map(all_of).filter(|address| is_usable(subnet, *address));
        match usable.find(|address| !reserved.contains(address) && !used.contains(address)) {
            Some(address) => {
                segment.addresses.handed_out.insert(address);
                Ok(address)
            }
            None => {
                segment.addresses.wanted = Some(subnet.trunc());
                Err(NoAddress::Soon)
            }
        }
    }

    /// The blocks of a subnet out of which this host gives addresses. One more is asked for while few are free; there are none while the store has not
    /// known this host for so long that another may have them.
    pub fn blocks(&mut self, network: &Name, subnet: IpNet, now: Duration) -> BTreeSet<IpNet> {
        let is_away = self.is_away(now);
        let segment = self.segments.get_mut(network).filter(|segment| segment.wish.subnets.contains(&subnet.trunc()));
        let Some(segment) = segment.filter(|_| !is_away) else { return BTreeSet::new() };
        if segment.is_short(subnet) {
            segment.addresses.wanted = Some(subnet.trunc());
        }
        segment.addresses.mine.iter().copied().filter(|block| subnet.contains(block)).collect()
    }

    /// Whether the store has not known this host for so long that another may have its blocks of addresses.
    pub fn is_away(&self, now: Duration) -> bool {
        now >= self.renewed + RECLAIM / 2
    }

    /// An address that was handed out before this host was started again.
    pub fn keep(&mut self, network: &Name, address: IpAddr) {
        let segment = self.segments.get_mut(network);
        segment.map(|segment| segment.addresses.handed_out.insert(address));
    }

    /// An address is free again.
    pub fn release(&mut self, network: &Name, address: IpAddr) {
        let segment = self.segments.get_mut(network);
        segment.map(|segment| segment.addresses.handed_out.remove(&address));
    }

    /// What stations of this host were given, and the addresses that are wanted for more of them: the block of each is asked for, if it is no host's.
    pub fn set_addresses(&mut self, network: &Name, handed_out: BTreeSet<IpAddr>, claims: BTreeSet<IpAddr>) {
        if let Some(segment) = self.segments.get_mut(network) {
            (segment.addresses.handed_out, segment.addresses.claims) = (handed_out, claims);
        }
    }

    /// The blocks of other hosts.
    pub fn blocks_of_others(&self, network: &Name) -> impl Iterator<Item = (IpNet, &Name)> {
        let blocks = self.segments.get(network).into_iter().flat_map(|segment| &segment.blocks);
        blocks.map(|(block, (host, _))| (*block, host)).filter(|(_, host)| **host != self.me)
    }

    /// The blocks of any host that the store has lost, those that are claimed, and one more for this host if it wants one: each in a transaction of
    /// its own.
    pub(super) fn new_blocks(&self, name: &Name, segment: &Segment, now: Duration) -> Vec<Vec<Step>> {
        // Hosts that only tell each other cannot agree whose a block is.
        if !segment.listed || segment.refusal.is_some() || self.is_apart {
            return Vec::new();
        }
        let key = |block: IpNet| Key::Block(name.clone(), block).to_string();
        let value = |host: &Name| record::written(&Block { host: host.clone() });
        let lost = segment.blocks.iter().filter(|(block, _)| !segment.stored.contains(*block));
        let lost = lost.map(|(block, (host, _))| vec![Step::Create { key: key(*block), value: value(host) }]);
        let mut due: Vec<Vec<Step>> = lost.collect();
        if due.is_empty() && self.held.is_none() {
            let take = |block: IpNet| vec![Step::Create { key: key(block), value: value(&self.me) }];
            due.extend(segment.claimed_blocks().into_iter().map(take));
        }
        let wanted =
            segment.addresses.wanted.filter(|subnet| due.is_empty() && self.held.is_none() && segment.is_short(*subnet));
        let Some(subnet) = wanted else { return due };
        if let Some(block) = segment.free_block(subnet, &self.me) {
            due.push(vec![Step::Create { key: key(block), value: value(&self.me) }]);
            return due;
        }
        let is_dead = |host: &Name| self.cluster.absent.get(host).is_some_and(|since| now >= *since + RECLAIM);
        let used = segment.used();
        let dead = segment.blocks.iter().find(|(block, (host, _))| {
            subnet.contains(*block) && is_dead(host) && !used.iter().any(|address| block.contains(address))
        });
        due.extend(
            dead.map(|(block, (_, version))| {
                vec![Step::Replace { key: key(*block), value: value(&self.me), version: *version }]
            }),
        );
        due
    }
}

impl Segment {
    /// The addresses that were handed out here, and those of all stations that are known.
    fn used(&self) -> BTreeSet<IpAddr> {
        let endpoints = self.ours.values().chain(self.endpoints.values()).flat_map(|endpoint| &endpoint.ips);
        let told = self.told.stations.values().flat_map(|station| &station.ips);
        endpoints.chain(told).chain(&self.addresses.handed_out).copied().collect()
    }

    /// Whether few addresses of this host's blocks are no station's.
    fn is_short(&self, subnet: IpNet) -> bool {
        let used = self.used();
        let own = self.addresses.mine.iter().filter(|block| subnet.contains(*block));
        let free = own.flat_map(all_of).filter(|address| is_usable(subnet, *address) && !used.contains(address));
        free.take(FEW).count() < FEW
    }

    /// The blocks of the addresses that are wanted, as far as no host has them.
    fn claimed_blocks(&self) -> BTreeSet<IpNet> {
        let block = |address: &IpAddr| {
            let subnet = self.wish.subnets.iter().find(|subnet| subnet.contains(address))?;
            IpNet::new(*address, block_length(*subnet)).ok().map(|block| block.trunc())
        };
        self.addresses.claims.iter().filter_map(block).filter(|block| !self.blocks.contains_key(block)).collect()
    }

    /// A block that no host has. Each host begins elsewhere, so that two seldom ask for the same.
    fn free_block(&self, subnet: IpNet, me: &Name) -> Option<IpNet> {
        let count = block_count(subnet);
        let first = hash(me.as_str()) % count;
        let blocks = (0..count).filter_map(|step| nth_block(subnet, (first + step) % count));
        let mut free = blocks.filter(|block| !self.blocks.contains_key(block));
        free.next()
    }
}

/// How many blocks a subnet has, of which no more than 65,536 are used.
fn block_count(subnet: IpNet) -> u32 {
    let bits = block_length(subnet) - subnet.prefix_len();
    1 << bits.min(16)
}

fn block_length(subnet: IpNet) -> u8 {
    (subnet.max_prefix_len() - BLOCK_BITS).max(subnet.prefix_len())
}

fn nth_block(subnet: IpNet, number: u32) -> Option<IpNet> {
    let length = block_length(subnet);
    let host_bits = u32::from(subnet.max_prefix_len() - length);
    match subnet.trunc() {
        IpNet::V4(net) => {
            let first = u32::from(net.network()).checked_add(number.checked_shl(host_bits)?)?;
            Ipv4Net::new(first.into(), length).ok().map(IpNet::V4)
        }
        IpNet::V6(net) => {
            let first = u128::from(net.network()).checked_add(u128::from(number).checked_shl(host_bits)?)?;
            Ipv6Net::new(first.into(), length).ok().map(IpNet::V6)
        }
    }
}

/// Every address of a block.
fn all_of(block: &IpNet) -> Vec<IpAddr> {
    match block {
        IpNet::V4(net) => (u32::from(net.network())..=u32::from(net.broadcast())).map(|bits| IpAddr::V4(bits.into())).collect(),
        IpNet::V6(net) => {
            (u128::from(net.network())..=u128::from(net.broadcast())).map(|bits| IpAddr::V6(bits.into())).collect()
        }
    }
}

/// Neither the subnet's own address nor its broadcast's, which of IPv6 is the anycast address of routers alone (RFC 4291, section 2.6.1).
fn is_usable(subnet: IpNet, address: IpAddr) -> bool {
    address != subnet.network() && (address != subnet.broadcast() || address.is_ipv6())
}

const BLOCK_BITS: u8 = 6;

/// With fewer free addresses than these one more block is asked for.
const FEW: usize = 16;
