//! The neighbour table: which MAC address an IP address of a bridge has (ARP, RFC 826; neighbour discovery, RFC 4861).
//!
//! **What it holds.** For each bridge with a gateway, one entry for an address that the router wanted to reach or that asked for the
//! gateway. An entry is *unresolved*, with the last packets that wait for it (RFC 1122, section 2.3.2.2, and RFC 4861, section 7.2.2,
//! ask for one; a packet in fragments needs more), or *known*, with its MAC address.
//!
//! **Who calls it.** The router, for each packet that it sends on ([`Neighbors::find`], [`Neighbors::ask`]), for each ARP and
//! neighbour discovery message ([`Neighbors::learn`]), and once a second ([`Neighbors::tick`]).
//!
//! **What bounds it.** [`MOST_UNRESOLVED`] and [`MOST_KNOWN`] entries for each bridge. For an unresolved one, [`MOST_PENDING`] packets of
//! [`PENDING_BYTES`] in all, of which the oldest gives way, as in Linux (`unres_qlen_bytes`). When there are too many unresolved entries,
//! the oldest goes: a station that scans a subnet pushes out its own dead addresses, and a live address answers long before it is pushed
//! out. When there are too many known entries, one that nothing was ever sent to goes, or else the one that was used longest ago: a station
//! that asks under many addresses pushes out only those.
//!
//! **Expiry.** An unresolved address is asked for three times, a second apart, and then given up, as Linux does
//! (`mcast_solicit`, `retrans_time`). A known one that is used is confirmed after [`CONFIRMED`] seconds, by asking it directly, and
//! given up after three more; one that is not used is forgotten after [`UNUSED`] seconds.

mod persist;

pub use persist::SavedNeighbor;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use foldhash::fast::FixedState;
use packet::{Ethernet, IpPacket, Mac};

use super::Plan;
use crate::datapath::{BridgeId, DropReason, Kept, LateDrop, Slots};

/// Most unresolved addresses of a bridge.
const MOST_UNRESOLVED: usize = 128;
/// Most known addresses of a bridge.
const MOST_KNOWN: usize = 4096;
/// Most packets that wait for an address, and their bytes; one alone may be longer. The longest IP packet has room in fragments for an MTU of 1280,
/// each with headers of its own: without any one of them, the others would have waited in vain.
const MOST_PENDING: usize = 64;
const PENDING_BYTES: usize = 72 << 10;
/// Seconds for which an address is known without doubt; `REACHABLE_TIME` of RFC 4861, section 10.
const CONFIRMED: u32 = 30;
/// Seconds after which an address is forgotten that nothing was sent to.
const UNUSED: u32 = 600;
/// How often an address is asked for, a second apart; `MAX_MULTICAST_SOLICIT` of RFC 4861, section 10.
const TRIES: u8 = 3;

/// The addresses of all bridges.
#[derive(Debug)]
pub(super) struct Neighbors {
    tables: Slots<Table>,
    seed: u64,
}

/// A packet that waits for its next hop's MAC address: as it came in, with its Ethernet header.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) frame: Kept,
    /// What is to become of it.
    pub(super) plan: Plan,
}

impl Pending {
    /// Its headers.
    pub(super) fn parse(&self) -> Option<(Ethernet, IpPacket)> {
        let ethernet = Ethernet::parse(&self.frame.bytes).ok()?;
        Some((ethernet, IpPacket::parse(&self.frame.bytes, &ethernet)?))
    }

    /// The drop that it is if its next hop does not say its MAC address.
    pub(super) fn unresolved(self) -> LateDrop {
        LateDrop { port: self.plan.port, reason: DropReason::NeighborUnresolved, frame: self.frame }
    }
}

/// The neighbours on one bridge; an address is in one of the two at most.
#[derive(Debug)]
struct Table {
    unresolved: Map<Unresolved>,
    known: Map<Known>,
}

type Map<T> = HashMap<IpAddr, T, FixedState>;

#[derive(Debug)]
struct Unresolved {
    since: u32,
    tries: u8,
    pending: VecDeque<Pending>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    mac: Mac,
    /// Second in which it was last heard of.
    confirmed: u32,
    /// Second of the last packet to it, or in which it was learned.
    used: u32,
    /// Whether a packet was ever for it.
    wanted: bool,
    /// Times that it was asked since it was last heard of.
    tries: u8,
}

/// What [`Neighbors::ask`] wants the router to do.
#[derive(Debug)]
pub(super) struct Asked {
    /// Whether to ask for the address now.
    pub(super) solicit: bool,
    /// Packets that waited and lost their place.
    pub(super) displaced: Vec<Pending>,
}

/// What is due.
#[derive(Debug)]
pub(super) enum Due {
    /// Ask for an address: all stations, or the one with the MAC address that is known for it.
    Solicit(BridgeId, IpAddr, Option<Mac>),
    /// No station answered; this packet goes nowhere.
    Unreachable(Pending),
}

/// One address, as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighborRow {
    /// The address.
    pub address: IpAddr,
    /// Its MAC address; `None`: it does not answer.
    pub mac: Option<Mac>,
    /// Seconds since it was last heard of, or first asked for.
    pub age: u32,
}

impl Neighbors {
    pub(super) fn new(seed: u64) -> Self {
        Self { tables: Slots::default(), seed }
    }

    /// The MAC address of a neighbour that a packet is about to be sent to, if it is known.
    pub(super) fn find(&mut self, bridge: BridgeId, address: IpAddr, now: u32) -> Option<Mac> {
        let known = self.tables.get_mut(bridge.0)?.known.get_mut(&address)?;
        (known.used, known.wanted) = (now, true);
        Some(known.mac)
    }

    /// As [`Neighbors::find`], of a packet that is not sent.
    pub(super) fn peek(&self, bridge: BridgeId, address: IpAddr) -> Option<Mac> {
        self.tables.get(bridge.0)?.known.get(&address).map(|known| known.mac)
    }

    /// Whether [`Neighbors::ask`] would have the address asked for: no packet waits for it yet.
    pub(super) fn would_ask(&self, bridge: BridgeId, address: IpAddr) -> bool {
        self.tables.get(bridge.0).is_none_or(|table| !table.unresolved.contains_key(&address))
    }

    /// Whether [`Neighbors::learn`] would note what a neighbour says about itself.
    pub(super) fn would_learn(&self, bridge: BridgeId, address: IpAddr, welcome: bool) -> bool {
        let has = |table: &Table| table.known.contains_key(&address) || table.unresolved.contains_key(&address);
        welcome || self.tables.get(bridge.0).is_some_and(has)
    }

    /// The MAC address of a neighbour, if there is no doubt about it.
    pub(super) fn confirmed(&self, bridge: BridgeId, address: IpAddr, now: u32) -> Option<Mac> {
        let known = self.tables.get(bridge.0)?.known.get(&address)?;
        (now.saturating_sub(known.confirmed) < CONFIRMED).then_some(known.mac)
    }

    /// Lets a packet wait for a neighbour that [`Neighbors::find`] does not know.
    pub(super) fn ask(&mut self, bridge: BridgeId, address: IpAddr, packet: Pending, now: u32) -> Asked {
        let unresolved = &mut self.table(bridge).unresolved;
        if let Some(entry) = unresolved.get_mut(&address) {
            return Asked { solicit: false, displaced: entry.keep(packet) };
        }
        let displaced = if unresolved.len() < MOST_UNRESOLVED { Vec::new() } else { take_oldest(unresolved) };
        unresolved.insert(address, Unresolved { since: now, tries: 1, pending: VecDeque::from([packet]) });
        Asked { solicit: true, displaced }
    }

    /// Notes what a neighbour said about itself, and returns the packets that waited for it, oldest first. A neighbour that is not known, and
    /// that no packet waits for, is noted only if `welcome`.
    pub(super) fn learn(&mut self, bridge: BridgeId, address: IpAddr, mac: Mac, welcome: bool, now: u32) -> VecDeque<Pending> {
        let table = self.table(bridge);
        if let Some(known) = table.known.get_mut(&address) {
            (known.mac, known.confirmed, known.tries) = (mac, now, 0);
            return VecDeque::new();
        }
        let waited = table.unresolved.remove(&address);
        if waited.is_some() || welcome {
            if table.known.len() >= MOST_KNOWN {
                forget_least_used(&mut table.known);
            }
            table.known.insert(address, Known { mac, confirmed: now, used: now, wanted: waited.is_some(), tries: 0 });
        }
        waited.map(|entry| entry.pending).unwrap_or_default()
    }

    /// Forgets one neighbour: another station may soon have its address. Packets that wait for the address go on waiting for that station.
    pub(super) fn forget(&mut self, bridge: BridgeId, address: IpAddr) {
        if let Some(table) = self.tables.get_mut(bridge.0) {
            table.known.remove(&address);
        }
    }

    /// Forgets all neighbours of a bridge, and what its stations sent and still waits elsewhere: another bridge may soon have the number,
    /// and its stations would be told of it.
    pub(super) fn forget_bridge(&mut self, bridge: BridgeId) {
        self.tables.remove(bridge.0);
        for (_, table) in self.tables.iter_mut() {
            table.unresolved.retain(|_, entry| {
                entry.pending.retain(|packet| packet.plan.from != bridge);
                !entry.pending.is_empty()
            });
        }
    }

    /// Finds what is due in this second. To be called once a second.
    pub(super) fn tick(&mut self, now: u32, due: &mut Vec<Due>) {
        for (number, table) in self.tables.iter_mut() {
            let bridge = BridgeId(number);
            let given_up = table.unresolved.extract_if(|address, entry| {
                if now <= entry.since {
                    return false;
                }
                if entry.tries < TRIES {
                    entry.tries += 1;
                    due.push(Due::Solicit(bridge, *address, None));
                    return false;
                }
                true
            });
            let given_up: Vec<Due> = given_up.flat_map(|(_, entry)| entry.pending).map(Due::Unreachable).collect();
            due.extend(given_up);
            table.known.retain(|address, known| known.tick(bridge, *address, now, due));
        }
    }

    /// All addresses on a bridge, in no order.
    pub(super) fn rows(&self, bridge: BridgeId, now: u32) -> Vec<NeighborRow> {
        let Some(table) = self.tables.get(bridge.0) else { return Vec::new() };
        let age = |since: u32| now.saturating_sub(since);
        let known = table.known.iter();
        let known = known.map(|(at, known)| NeighborRow { address: *at, mac: Some(known.mac), age: age(known.confirmed) });
        let unresolved = table.unresolved.iter();
        let unresolved = unresolved.map(|(at, entry)| NeighborRow { address: *at, mac: None, age: age(entry.since) });
        known.chain(unresolved).collect()
    }

    fn table(&mut self, bridge: BridgeId) -> &mut Table {
        let seed = FixedState::with_seed(self.seed);
        self.tables.get_or_insert_with(bridge.0, || Table {
            unresolved: HashMap::with_hasher(seed.clone()),
            known: HashMap::with_hasher(seed),
        })
    }
}

impl Unresolved {
    /// Lets one more packet wait; returns those that must go for it.
    fn keep(&mut self, packet: Pending) -> Vec<Pending> {
        let mut bytes = packet.frame.bytes.len() + self.pending.iter().map(|packet| packet.frame.bytes.len()).sum::<usize>();
        self.pending.push_back(packet);
        let mut displaced = Vec::new();
        while self.pending.len() > MOST_PENDING || self.pending.len() > 1 && bytes > PENDING_BYTES {
            let oldest = self.pending.pop_front();
            bytes -= oldest.as_ref().map_or(0, |packet| packet.frame.bytes.len());
            displaced.extend(oldest);
        }
        displaced
    }
}

impl Known {
    /// Whether the address stays known.
    fn tick(&mut self, bridge: BridgeId, address: IpAddr, now: u32, due: &mut Vec<Due>) -> bool {
        if now.saturating_sub(self.used) >= UNUSED {
            return false;
        }
        let in_doubt = now.saturating_sub(self.confirmed) >= CONFIRMED;
        let in_use = self.tries > 0 || self.used > self.confirmed;
        if !(in_doubt && in_use) {
            return true;
        }
        if self.tries >= TRIES {
            return false;
        }
        self.tries += 1;
        due.push(Due::Solicit(bridge, address, Some(self.mac)));
        true
    }
}

/// Takes out the oldest address, the one asked for most often among those of one second.
fn take_oldest(unresolved: &mut Map<Unresolved>) -> Vec<Pending> {
    let age = |entry: &Unresolved| (entry.since, std::cmp::Reverse(entry.tries));
    let oldest = unresolved.iter().map(|(address, entry)| (age(entry), *address)).min();
    let entry = oldest.and_then(|(_, address)| unresolved.remove(&address));
    entry.map(|entry| entry.pending.into()).unwrap_or_default()
}

fn forget_least_used(known: &mut Map<Known>) {
    if let Some((_, address)) = known.iter().map(|(address, entry)| ((entry.wanted, entry.used), *address)).min() {
        known.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PortId, Way};
    use super::*;
    use packet::Offload;

    const BRIDGE: BridgeId = BridgeId(0);

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    fn mac(number: u64) -> Mac {
        Mac::from_u64(0x0200_0000_0000 + number)
    }

    fn packet(marker: u8) -> Pending {
        let way = Way { egress: BRIDGE, next_hop: address(2) };
        let plan = Plan { port: PortId(0), from: BRIDGE, way, nat: None };
        Pending { frame: Kept { bytes: vec![marker], offload: Offload::default(), id: 0 }, plan }
    }

    fn count(table: &Neighbors) -> usize {
        table.rows(BRIDGE, 0).len()
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Asked(IpAddr, Option<Mac>),
        GivenUp(Vec<u8>),
    }

    fn due(table: &mut Neighbors, now: u32) -> Vec<Seen> {
        let mut due = Vec::new();
        table.tick(now, &mut due);
        let seen = due.into_iter().map(|due| match due {
            Due::Solicit(_, address, known) => Seen::Asked(address, known),
            Due::Unreachable(pending) => Seen::GivenUp(pending.frame.bytes),
        });
        seen.collect()
    }

    #[test]
    fn a_packet_waits_for_its_neighbour_and_then_goes() {
        let mut table = Neighbors::new(1);
        assert_eq!(table.find(BRIDGE, address(2), 0), None);
        let first = table.ask(BRIDGE, address(2), packet(1), 0);
        assert!(first.solicit && first.displaced.is_empty());
        let again = table.ask(BRIDGE, address(2), packet(2), 0);
        assert!(!again.solicit && again.displaced.is_empty());
        let waited = table.learn(BRIDGE, address(2), mac(2), false, 0);
        assert_eq!(waited.into_iter().map(|packet| packet.frame.bytes).collect::<Vec<_>>(), [[1], [2]], "in order");
        assert_eq!(table.find(BRIDGE, address(2), 0), Some(mac(2)));
    }

    #[test]
    fn the_longest_packet_waits_whole_in_its_fragments() {
        // Ethernet, IPv6 and fragment headers, and payload in units of eight bytes (RFC 8200, section 4.5).
        for mtu in [1280, 1500_usize] {
            let (mut table, mut left) = (Neighbors::new(1), 65_535_usize);
            while left > 0 {
                let part = left.min((mtu - 48) / 8 * 8);
                let frame = Kept { bytes: vec![0; 14 + 48 + part], offload: Offload::default(), id: 0 };
                assert!(
                    table.ask(BRIDGE, address(2), Pending { frame, ..packet(0) }, 0).displaced.is_empty(),
                    "{left} of {mtu}"
                );
                left -= part;
            }
        }
    }

    #[test]
    fn the_oldest_of_too_many_packets_gives_way() {
        let mut table = Neighbors::new(1);
        let mut ask = |marker, length| {
            let frame = Kept { bytes: vec![marker; length], offload: Offload::default(), id: 0 };
            let packet = Pending { frame, ..packet(0) };
            table
                .ask(BRIDGE, address(2), packet, 0)
                .displaced
                .into_iter()
                .map(|packet| packet.frame.bytes[0])
                .collect::<Vec<_>>()
        };
        assert!((0..64).all(|marker| ask(marker, 100).is_empty()));
        assert_eq!(ask(64, 100), [0], "too many");
        assert_eq!(ask(65, PENDING_BYTES - 6200), [1, 2], "too long together");
        assert_eq!(ask(66, 2 * PENDING_BYTES).len(), 63, "too long alone");
        assert_eq!(table.learn(BRIDGE, address(2), mac(2), false, 0).len(), 1);
    }

    #[test]
    fn who_does_not_answer_is_asked_three_times_and_given_up() {
        let mut table = Neighbors::new(1);
        table.ask(BRIDGE, address(2), packet(1), 10);
        let asked = || vec![Seen::Asked(address(2), None)];
        assert_eq!([10, 11, 12].map(|now| due(&mut table, now)), [vec![], asked(), asked()]);
        assert_eq!(due(&mut table, 13), [Seen::GivenUp(vec![1])]);
        assert_eq!(count(&table), 0);
    }

    #[test]
    fn a_neighbour_that_is_gone_is_asked_for_anew() {
        let mut neighbors = Neighbors::new(1);
        neighbors.learn(BridgeId(0), address(1), mac(1), true, 0);
        neighbors.learn(BridgeId(0), address(2), mac(2), true, 0);
        neighbors.forget(BridgeId(0), address(1));
        neighbors.forget(BridgeId(7), address(2));
        assert_eq!(neighbors.find(BridgeId(0), address(1), 0), None);
        assert_eq!(neighbors.find(BridgeId(0), address(2), 0), Some(mac(2)));
        assert!(neighbors.ask(BridgeId(0), address(1), packet(1), 0).solicit);
    }

    #[test]
    fn a_known_neighbour_in_use_is_confirmed_and_a_silent_one_forgotten() {
        let mut table = Neighbors::new(1);
        table.learn(BRIDGE, address(2), mac(2), true, 0);
        table.find(BRIDGE, address(2), 20);
        assert_eq!(due(&mut table, 29), []);
        let asked = || vec![Seen::Asked(address(2), Some(mac(2)))];
        assert_eq!(due(&mut table, 30), asked());
        table.learn(BRIDGE, address(2), mac(2), false, 30);
        table.find(BRIDGE, address(2), 50);
        assert_eq!([60, 61, 62, 63].map(|now| due(&mut table, now)), [asked(), asked(), asked(), vec![]]);
        assert_eq!(table.find(BRIDGE, address(2), 63), None, "it did not answer");
        table.learn(BRIDGE, address(3), mac(3), true, 100);
        assert_eq!(due(&mut table, 699), [], "nothing is asked of one that nobody uses");
        assert_eq!(count(&table), 1);
        due(&mut table, 700);
        assert_eq!(count(&table), 0);
    }

    #[test]
    fn nobody_is_noted_who_was_not_asked_for_and_is_not_welcome() {
        let mut table = Neighbors::new(1);
        table.learn(BRIDGE, address(2), mac(2), false, 0);
        assert_eq!(count(&table), 0);
    }

    #[test]
    fn a_scan_of_dead_addresses_pushes_out_only_the_unresolved() {
        let mut table = Neighbors::new(1);
        for number in 0..100 {
            table.learn(BRIDGE, address(number), mac(number.into()), true, 0);
        }
        for number in 1000..11_000 {
            table.ask(BRIDGE, address(number), packet(0), number);
        }
        let rows = table.rows(BRIDGE, 11_000);
        assert_eq!(rows.iter().filter(|row| row.mac.is_some()).count(), 100);
        assert_eq!(rows.len(), 100 + MOST_UNRESOLVED);
        assert_eq!(table.find(BRIDGE, address(5), 11_000), Some(mac(5)));
    }

    #[test]
    fn a_full_table_forgets_the_one_used_longest_ago() {
        let mut table = Neighbors::new(1);
        let full = u32::try_from(MOST_KNOWN).unwrap();
        for number in 0..full {
            table.learn(BRIDGE, address(number), mac(number.into()), true, 0);
        }
        for number in (0..full).filter(|number| *number != 77) {
            table.find(BRIDGE, address(number), 1);
        }
        table.learn(BRIDGE, address(full), mac(full.into()), true, 1);
        assert_eq!(table.find(BRIDGE, address(77), 1), None);
        assert_eq!(count(&table), MOST_KNOWN);
        table.forget_bridge(BRIDGE);
        assert_eq!(count(&table), 0);
    }

    #[test]
    fn a_full_table_forgets_who_was_never_sent_to_first() {
        let mut table = Neighbors::new(1);
        table.learn(BRIDGE, address(1), mac(1), true, 0);
        table.find(BRIDGE, address(1), 0);
        let flood = u32::try_from(2 * MOST_KNOWN).unwrap();
        for number in 2..flood {
            table.learn(BRIDGE, address(number), mac(number.into()), true, 100);
        }
        assert_eq!(table.find(BRIDGE, address(1), 100), Some(mac(1)));
        assert_eq!(count(&table), MOST_KNOWN);
    }
}
