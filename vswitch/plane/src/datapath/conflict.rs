//! Two stations with one IP address, as their own ARP and neighbour discovery tell.
//!
//! **What it holds.** For each address that stations of a bridge claim, the station that claimed it last and the one before. An address
//! may go from one station to another for many good reasons. It has no reason to go back within a minute ([`TURN`]): then both stations
//! have it. A station may also ask whether an IPv6 address is free (duplicate address detection, RFC 4862, section 5.4). If another
//! station answers within [`DEFENCE`] seconds, that is a conflict too. IPv4's probes tell nothing: a DHCP server sends them as well,
//! before it gives the address away.
//!
//! **Who calls it.** [`claim`](super::claim), with the few frames that claim something.
//!
//! **What bounds it.** [`SETS`] sets of [`WAYS`] addresses for each bridge, allocated with the first. A station that claims thousands
//! pushes out what is remembered of other addresses. Their conflicts are missed as long as it goes on, but no false conflict comes of it.
//! Each of several workers knows only what it saw itself.

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::fast::FixedState;
use packet::{Mac, VlanId};

use super::PortId;

/// Seconds within which an address that goes back to the station before shows that both have it.
const TURN: u32 = 60;
/// Seconds within which the holder of an address answers a station that wants it (`RetransTimer` of RFC 4861, section 10, with some patience).
const DEFENCE: u32 = 3;
const SETS: usize = 128;
const WAYS: usize = 4;

/// A station, as a frame of its shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speaker {
    /// Its MAC address.
    pub mac: Mac,
    /// Where the frame came in.
    pub port: PortId,
}

/// The holder of an address that another station claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The gateway; the other's claim is dropped.
    Gateway,
    /// The station behind this port, by the configuration; the other's claim is dropped.
    Port(PortId),
    /// Another station, which claims it as well.
    Station(Speaker),
}

/// An IP address that two stations have, or a station and the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressConflict {
    /// The VLAN.
    pub vlan: VlanId,
    /// The address.
    pub address: IpAddr,
    /// The one.
    pub holder: Holder,
    /// The other.
    pub claimant: Speaker,
}

/// IP addresses of one bridge that two stations have, or a station and the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressConflicts {
    /// How often that showed.
    pub count: u64,
    /// The last time.
    pub last: Option<AddressConflict>,
}

/// The stations that claim addresses of a bridge.
#[derive(Debug)]
pub(super) struct Claims {
    slots: Box<[Option<Claimed>]>,
    seed: FixedState,
    conflicts: AddressConflicts,
}

/// What a station says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saying {
    /// That it has it.
    Mine,
    /// That it wants it, if it is free.
    Wanted,
}

#[derive(Debug, Clone, Copy)]
struct Claimed {
    key: (VlanId, IpAddr),
    last: Said,
    before: Option<Said>,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    speaker: Speaker,
    what: Saying,
    second: u32,
}

impl Claims {
    /// A table without claims. `seed` should be random.
    pub(super) fn new(seed: u64) -> Self {
        Self { slots: Box::default(), seed: FixedState::with_seed(seed), conflicts: AddressConflicts::default() }
    }

    pub(super) const fn conflicts(&self) -> AddressConflicts {
        self.conflicts
    }

    /// Takes note of what a station says of an address that the configuration gives to no port.
    pub(super) fn hear(&mut self, vlan: VlanId, address: IpAddr, speaker: Speaker, what: Saying, second: u32) {
        let (key, said) = ((vlan, address), Said { speaker, what, second });
        let slot = self.slot(key);
        let Some(known) = slot.as_mut().filter(|known| known.key == key) else {
            *slot = Some(Claimed { key, last: said, before: None });
            return;
        };
        let last = std::mem::replace(&mut known.last, said);
        if last.speaker.mac == speaker.mac {
            return;
        }
        let is_within = |said: &Said, seconds| second.saturating_sub(said.second) < seconds;
        let returns = known.before.is_some_and(|before| before.speaker.mac == speaker.mac && is_within(&before, TURN));
        let defends = last.what == Saying::Wanted && is_within(&last, DEFENCE);
        known.before = Some(last);
        if what == Saying::Mine && (returns || defends) {
            self.count(AddressConflict { vlan, address, holder: Holder::Station(last.speaker), claimant: speaker });
        }
    }

    pub(super) fn count(&mut self, conflict: AddressConflict) {
        self.conflicts = AddressConflicts { count: self.conflicts.count + 1, last: Some(conflict) };
    }

    /// Forgets the stations behind a port that is gone.
    pub(super) fn forget_port(&mut self, port: PortId) {
        for slot in &mut self.slots {
            let is_of = |said: &Said| said.speaker.port == port;
            if slot.as_ref().is_some_and(|known| is_of(&known.last) || known.before.as_ref().is_some_and(is_of)) {
                *slot = None;
            }
        }
    }

    /// The place of an address: the one that it has, or else a free one of its set, or else that of the address which was silent the longest.
    fn slot(&mut self, key: (VlanId, IpAddr)) -> &mut Option<Claimed> {
        if self.slots.is_empty() {
            self.slots = vec![None; SETS * WAYS].into();
        }
        let set = usize::try_from(self.seed.hash_one(key) % SETS as u64).unwrap_or(0);
        let set = &mut self.slots[set * WAYS..][..WAYS];
        let rank = |slot: &Option<Claimed>| {
            slot.as_ref().map_or((1, 0), |known| if known.key == key { (0, 0) } else { (2, known.last.second) })
        };
        let best = (0..WAYS).min_by_key(|way| rank(&set[*way])).unwrap_or(0);
        &mut set[best]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker(number: u8) -> Speaker {
        Speaker { mac: Mac([2, 0, 0, 0, 0, number]), port: PortId(number.into()) }
    }

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    /// Hears stations, by number, say something of one address; returns how many conflicts that shows.
    fn count(said: &[(u8, Saying, u32)]) -> u64 {
        let mut claims = Claims::new(1);
        for (number, what, second) in said {
            claims.hear(VlanId::DEFAULT, address(5), speaker(*number), *what, *second);
        }
        claims.conflicts().count
    }

    #[test]
    fn an_address_that_goes_to_and_fro_is_with_both_and_one_that_moves_is_not() {
        use Saying::{Mine, Wanted};
        assert_eq!(count(&[(1, Mine, 0), (1, Mine, 1), (1, Mine, 2)]), 0);
        assert_eq!(count(&[(1, Mine, 0), (2, Mine, 10), (2, Mine, 11)]), 0, "it moved");
        assert_eq!(count(&[(1, Mine, 0), (2, Mine, 10), (1, Mine, 70)]), 0, "it moved back much later");
        assert_eq!(count(&[(1, Mine, 0), (2, Mine, 10), (1, Mine, 20)]), 1);
        assert_eq!(count(&[(1, Mine, 0), (2, Mine, 10), (1, Mine, 20), (2, Mine, 21)]), 2);
        assert_eq!(count(&[(2, Wanted, 10), (1, Mine, 11)]), 1, "it is defended");
        assert_eq!(count(&[(1, Mine, 0), (2, Wanted, 10), (1, Mine, 11)]), 1);
        assert_eq!(count(&[(2, Wanted, 10), (2, Mine, 11), (1, Mine, 20)]), 0, "it was free, and moved");
        assert_eq!(count(&[(1, Wanted, 10), (2, Wanted, 10)]), 0);
    }

    #[test]
    fn a_flood_of_claims_finds_a_bound_and_brings_about_no_conflict() {
        let mut claims = Claims::new(1);
        for number in 10..100_000 {
            claims.hear(VlanId::DEFAULT, address(number), speaker(9), Saying::Mine, number / 1000);
            claims.hear(VlanId::DEFAULT, address(5), speaker(1), Saying::Mine, number / 1000);
        }
        assert_eq!(claims.slots.len(), SETS * WAYS);
        assert_eq!(claims.conflicts().count, 0);
    }

    #[test]
    fn who_is_gone_has_no_address_any_more() {
        let mut claims = Claims::new(1);
        let hear = |claims: &mut Claims, number| claims.hear(VlanId::DEFAULT, address(5), speaker(number), Saying::Mine, 0);
        hear(&mut claims, 1);
        hear(&mut claims, 2);
        claims.forget_port(PortId(1));
        hear(&mut claims, 1);
        hear(&mut claims, 1);
        assert_eq!(claims.conflicts().count, 0);
    }

    #[test]
    fn vlans_have_addresses_of_their_own() {
        let mut claims = Claims::new(1);
        let two = VlanId::try_from(2).unwrap();
        for (vlan, number) in [(VlanId::DEFAULT, 1), (two, 2), (VlanId::DEFAULT, 1), (two, 2)] {
            claims.hear(vlan, address(5), speaker(number), Saying::Mine, 0);
        }
        assert_eq!(claims.conflicts(), AddressConflicts::default());
    }
}
