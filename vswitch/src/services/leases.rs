//! Who has which address of a subnet.
//!
//! **What it holds.** One row for each address that was ever given out, until its place is needed, so that a client that comes
//! back finds its old address. Both DHCP servers use it; the address of a station that the configuration names is no row, for
//! no other client can get it.
//!
//! **Which address.** The client's own if it had one; else the one that it wishes, if free; else a hash of its identifier says
//! where the search for a free one starts, so that clients keep their addresses even if the table is lost.
//!
//! **What bounds it.** [`MOST`] rows. A port may have [`OFFERS`] offers at a time, each for [`OFFER`] seconds, and at most half
//! of the pool: a client that invents identifiers takes no more than that from the others. A row in use is never evicted, since
//! two stations would share its address; when the pool is used up, newcomers wait for a lease to end.
//!
//! **In use already.** An address that a station uses without having it from here, as one typed by hand, is not given to others: the station
//! is remembered for [`DECLINED`] seconds after each ARP message ([`Leases::see`]). A station that says nothing is found by IPv4's server, which
//! asks the link for the address before an offer. What is found in use, by the server or by the client that declines it, rests for [`DECLINED`]
//! seconds too. As many stations are remembered as the pool has addresses, and of those a port may have as many as are left for others.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use packet::Mac;
use serde::{Deserialize, Serialize};

use super::Shortages;
use super::pool::AddressPool;
use super::shares::Shares;
use api::{LeaseState, PortName};

/// Most rows, and so most addresses in use, of one subnet.
pub(super) const MOST: usize = 8192;
/// Offers that a port may have at a time.
pub(super) const OFFERS: usize = 16;
/// Seconds for which an address is kept for the client it was offered to.
pub(super) const OFFER: u64 = 30;
/// Seconds for which a declined address rests.
pub(super) const DECLINED: u64 = 600;

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// What identifies its client: option 61 or the hardware address (RFC 2131, section 4.2), or IAID and DUID (RFC 8415).
    pub client: Vec<u8>,
    /// The client's Ethernet address.
    pub mac: Mac,
    /// Where it was seen.
    pub port: PortName,
    /// What it is to the client.
    pub state: LeaseState,
    /// The second, since the Unix epoch, in which that ends.
    pub until: u64,
}

impl Lease {
    /// Whether no other client may have the address now.
    pub const fn is_live(&self, now: u64) -> bool {
        now < self.until && !matches!(self.state, LeaseState::Released)
    }
}

/// A client, as a message shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    pub(super) client: &'a [u8],
    pub(super) mac: Mac,
    pub(super) port: &'a PortName,
}

/// Why a client gets no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its port has its share.
    Share,
    /// No address is left.
    Exhausted,
}

/// A station that uses an address.
#[derive(Debug)]
struct Seen {
    mac: Mac,
    port: PortName,
    until: u64,
}

/// The table of one subnet.
#[derive(Debug)]
pub(super) struct Leases {
    pool: AddressPool,
    rows: BTreeMap<IpAddr, Lease>,
    clients: HashMap<Vec<u8>, IpAddr>,
    seen: HashMap<IpAddr, Seen>,
    /// How many of those each port has.
    shares: Shares,
    changed: bool,
    shortages: Shortages,
}

impl Leases {
    /// A table with what was kept of an earlier one, as far as it fits.
    pub(super) fn new(pool: AddressPool, kept: Vec<Lease>) -> Self {
        let (rows, clients, seen, shares) = (BTreeMap::new(), HashMap::new(), HashMap::new(), Shares::new(pool.size()));
        let mut leases = Self { pool, rows, clients, seen, shares, changed: false, shortages: Shortages::default() };
        for lease in kept.into_iter().take(MOST) {
            if leases.pool.contains(lease.address) && lease.state != LeaseState::Offered {
                leases.put(lease);
            }
        }
        leases.changed = false;
        leases
    }

    /// Takes on another pool; rows outside it go.
    pub(super) fn set_pool(&mut self, pool: AddressPool) {
        if self.pool != pool {
            let kept = std::mem::take(&mut self.rows).into_values().collect();
            *self = Self { changed: true, shortages: self.shortages, ..Self::new(pool, kept) };
        }
    }

    /// All rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Lease> {
        self.rows.values()
    }

    /// The row of an address.
    pub(super) fn row(&self, address: IpAddr) -> Option<&Lease> {
        self.rows.get(&address)
    }

    /// Whether something worth keeping has changed since the last call.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// How many addresses there are, and how many of them are in use now.
    pub(super) fn usage(&self, now: u64) -> (usize, usize) {
        let is_live = |address: &IpAddr| self.rows.get(address).is_some_and(|row| row.is_live(now));
        let seen = self.seen.iter().filter(|(address, seen)| now < seen.until && !is_live(address)).count();
        (self.pool.size(), self.rows.values().filter(|row| row.is_live(now)).count() + seen)
    }

    /// What could not be offered.
    pub(super) const fn shortages(&self) -> Shortages {
        self.shortages
    }

    /// Keeps an address for a client for a little while; says which. If there is none, that is counted.
    pub(super) fn offer(&mut self, now: u64, who: Who<'_>, wish: Option<IpAddr>) -> Result<IpAddr, Refusal> {
        let offered = self.keep(now, who, wish);
        match offered {
            Ok(_) => {}
            Err(Refusal::Share) => self.shortages.refused += 1,
            Err(Refusal::Exhausted) => self.shortages.exhausted += 1,
        }
        offered
    }

    fn keep(&mut self, now: u64, who: Who<'_>, wish: Option<IpAddr>) -> Result<IpAddr, Refusal> {
        let address = self.choose(now, who, wish)?;
        let bound =
            self.own(who).is_some_and(|row| row.address == address && row.is_live(now) && row.state == LeaseState::Bound);
        if !bound {
            self.admit(now, who, true)?;
            self.give(who, address, LeaseState::Offered, now + OFFER);
        }
        Ok(address)
    }

    /// Gives a client the address that it asks for until `until`, if it may have it.
    pub(super) fn bind(&mut self, now: u64, who: Who<'_>, address: IpAddr, until: u64) -> bool {
        if !self.may_have(now, who, address) || self.admit(now, who, false).is_err() || !self.make_room(now, who.mac, address) {
            return false;
        }
        self.give(who, address, LeaseState::Bound, until);
        self.changed = true;
        true
    }

    /// A client gives its address back.
    pub(super) fn release(&mut self, now: u64, who: Who<'_>, address: IpAddr) -> bool {
        self.end(who, address, LeaseState::Released, now)
    }

    /// A client has found its address in use.
    pub(super) fn decline(&mut self, now: u64, who: Who<'_>, address: IpAddr) -> bool {
        let ended = self.end(who, address, LeaseState::Declined, now + DECLINED);
        if ended {
            self.clients.remove(who.client);
        }
        ended
    }

    /// An address that is about to be offered is in use.
    pub(super) fn rest(&mut self, now: u64, address: IpAddr) {
        if let Some(row) = self.rows.get_mut(&address) {
            (row.state, row.until) = (LeaseState::Declined, now + DECLINED);
            self.clients.remove(&row.client);
            self.changed = true;
        }
    }

    /// Takes note of a station that uses an address.
    pub(super) fn see(&mut self, now: u64, address: IpAddr, mac: Mac, port: &PortName) {
        let leased = self.rows.get(&address).is_some_and(|row| row.is_live(now) && row.mac == mac);
        if leased || !self.pool.contains(address) {
            return;
        }
        if let Some(old) = self.seen.remove(&address) {
            self.shares.end(&old.port);
        }
        let room = self.shares.begin(port);
        if room {
            self.seen.insert(address, Seen { mac, port: port.clone(), until: now + DECLINED });
        }
    }

    /// Forgets stations that have not been heard for long.
    pub(super) fn forget_unseen(&mut self, now: u64) {
        for (_, old) in self.seen.extract_if(|_, seen| seen.until <= now) {
            self.shares.end(&old.port);
        }
    }

    /// The address that a client has now, or is offered.
    pub(super) fn live(&self, now: u64, who: Who<'_>) -> Option<IpAddr> {
        self.own(who).filter(|row| row.is_live(now)).map(|row| row.address)
    }

    /// Whether another station than this client's uses an address.
    fn is_used(&self, now: u64, mac: Mac, address: IpAddr) -> bool {
        self.seen.get(&address).is_some_and(|seen| seen.mac != mac && now < seen.until)
    }

    /// A client has chosen another server's offer.
    pub(super) fn forget_offer(&mut self, who: Who<'_>) {
        if let Some(address) = self.own(who).filter(|row| row.state == LeaseState::Offered).map(|row| row.address) {
            self.remove(address);
        }
    }

    /// Whether another host of an overlay network gives out an address.
    pub(super) fn is_of_another_host(&self, address: IpAddr) -> bool {
        self.pool.contains(address) && !self.pool.may_begin(address) && !self.rows.contains_key(&address)
    }

    fn own(&self, who: Who<'_>) -> Option<&Lease> {
        self.clients.get(who.client).and_then(|address| self.rows.get(address))
    }

    fn choose(&self, now: u64, who: Who<'_>, wish: Option<IpAddr>) -> Result<IpAddr, Refusal> {
        let own = self.own(who).map(|row| row.address);
        let preferred = own.into_iter().chain(wish).find(|address| self.may_have(now, who, *address));
        let is_unused = |address: &IpAddr| !self.rows.contains_key(address) && !self.is_used(now, who.mac, *address);
        let unused = || self.pool.around(who.client).find(is_unused);
        let room = self.rows.len() < MOST;
        let chosen = preferred.or_else(|| if room { unused() } else { None });
        let idle = || self.longest_idle(now, who.mac, |address| self.pool.may_begin(address));
        chosen.or_else(idle).ok_or(Refusal::Exhausted)
    }

    /// Of these addresses the one that has been free the longest.
    fn longest_idle(&self, now: u64, mac: Mac, may_be: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let idle = |row: &&Lease| !row.is_live(now) && !self.is_used(now, mac, row.address) && may_be(row.address);
        self.rows.values().filter(idle).min_by_key(|row| row.until).map(|row| row.address)
    }

    fn may_have(&self, now: u64, who: Who<'_>, address: IpAddr) -> bool {
        self.pool.contains(address)
            && !self.is_used(now, who.mac, address)
            && match self.rows.get(&address) {
                Some(row) if row.client == who.client && row.state != LeaseState::Declined => true,
                row => self.pool.may_begin(address) && row.is_none_or(|row| !row.is_live(now)),
            }
    }

    /// Whether the port may have one more; what the client has already does not count.
    fn admit(&self, now: u64, who: Who<'_>, offer: bool) -> Result<(), Refusal> {
        let others = |row: &&Lease| row.port == *who.port && row.client != who.client && row.is_live(now);
        let (mut all, mut offers) = (0, 0);
        for row in self.rows.values().filter(others) {
            all += 1;
            offers += usize::from(row.state == LeaseState::Offered);
        }
        let full = all >= self.pool.size().div_ceil(2) || (offer && offers >= OFFERS);
        if full { Err(Refusal::Share) } else { Ok(()) }
    }

    fn give(&mut self, who: Who<'_>, address: IpAddr, state: LeaseState, until: u64) {
        if let Some(old) = self.clients.get(who.client).copied().filter(|old| *old != address) {
            self.remove(old);
        }
        self.put(Lease { address, client: who.client.to_vec(), mac: who.mac, port: who.port.clone(), state, until });
    }

    /// A full table takes a new address in the place of one that is free.
    fn make_room(&mut self, now: u64, mac: Mac, address: IpAddr) -> bool {
        if self.rows.contains_key(&address) || self.rows.len() < MOST {
            return true;
        }
        let idle = self.longest_idle(now, mac, |_| true);
        idle.into_iter().for_each(|idle| self.remove(idle));
        idle.is_some()
    }

    fn put(&mut self, lease: Lease) {
        self.remove(lease.address);
        if lease.state != LeaseState::Declined {
            self.clients.insert(lease.client.clone(), lease.address);
        }
        self.rows.insert(lease.address, lease);
    }

    fn remove(&mut self, address: IpAddr) {
        if let Some(old) = self.rows.remove(&address)
            && self.clients.get(&old.client) == Some(&address)
        {
            self.clients.remove(&old.client);
        }
    }

    fn end(&mut self, who: Who<'_>, address: IpAddr, state: LeaseState, until: u64) -> bool {
        let row = self.rows.get_mut(&address).filter(|row| row.client == who.client && row.state != LeaseState::Declined);
        let Some(row) = row else { return false };
        (row.state, row.until) = (state, until);
        self.changed = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(net: &str, reserved: &[&str]) -> AddressPool {
        AddressPool::new(net.parse().unwrap(), reserved.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn table(net: &str) -> Leases {
        Leases::new(pool(net, &[]), Vec::new())
    }

    fn with<T>(client: u32, port: &str, work: impl FnOnce(Who<'_>) -> T) -> T {
        let (client, port) = (client.to_be_bytes(), port.parse().unwrap());
        work(Who { client: &client, mac: Mac([2, 0, 0, 0, 0, 1]), port: &port })
    }

    /// Offer and bind.
    fn take(leases: &mut Leases, now: u64, client: u32, port: &str) -> Result<IpAddr, Refusal> {
        with(client, port, |who| {
            let address = leases.offer(now, who, None)?;
            if leases.bind(now, who, address, now + 3600) { Ok(address) } else { Err(Refusal::Share) }
        })
    }

    #[test]
    fn a_client_gets_its_address_again_even_from_an_empty_table() {
        let (mut one, mut other) = (table("10.0.0.0/24"), table("10.0.0.0/24"));
        let first = take(&mut one, 0, 7, "a").unwrap();
        assert_eq!(take(&mut one, 90_000, 7, "a"), Ok(first), "long after it ended");
        assert_eq!(take(&mut other, 0, 7, "a"), Ok(first));
    }

    #[test]
    fn an_offer_ends_after_half_a_minute() {
        let mut leases = table("10.0.0.0/30");
        let first = with(1, "a", |who| leases.offer(0, who, None)).unwrap();
        let second = with(2, "b", |who| leases.offer(0, who, None)).unwrap();
        assert_ne!(first, second);
        assert_eq!(with(3, "c", |who| leases.offer(29, who, None)), Err(Refusal::Exhausted));
        assert!(with(3, "c", |who| leases.offer(30, who, None)).is_ok());
    }

    #[test]
    fn a_port_has_few_offers_at_a_time() {
        let mut leases = table("10.0.0.0/16");
        let mut offer = |client, now| with(client, "a", |who| leases.offer(now, who, None));
        for client in 0..16 {
            offer(client, 0).unwrap();
        }
        assert_eq!(offer(16, 0), Err(Refusal::Share));
        assert!(offer(0, 0).is_ok(), "one that it has");
        assert!(offer(16, 30).is_ok());
    }

    #[test]
    fn a_port_takes_no_more_than_half_of_the_pool() {
        let mut leases = table("10.0.0.0/24");
        let taken = (0..1000).filter(|client| take(&mut leases, 0, *client, "greedy").is_ok()).count();
        assert_eq!(taken, 127);
        assert!(take(&mut leases, 0, 5000, "other").is_ok());
        let first = with(0, "greedy", |who| leases.offer(0, who, None)).unwrap();
        assert!(with(0, "greedy", |who| leases.bind(0, who, first, 100)), "it may renew what it has");
    }

    #[test]
    fn the_longest_idle_address_is_given_out_when_no_unused_one_is_left() {
        let mut leases = table("10.0.0.0/29");
        let all: Vec<_> =
            (0..6).map(|client| take(&mut leases, u64::from(client), client, &format!("p{client}")).unwrap()).collect();
        assert_eq!(take(&mut leases, 10, 9, "p9"), Err(Refusal::Exhausted));
        with(3, "p3", |who| assert!(leases.release(20, who, all[3])));
        assert_eq!(take(&mut leases, 21, 9, "p9"), Ok(all[3]));
        assert_eq!(take(&mut leases, 4000, 10, "p10"), Ok(all[0]), "its lease ended first");
    }

    #[test]
    fn a_declined_address_rests() {
        let mut leases = table("10.0.0.0/30");
        let first = take(&mut leases, 0, 1, "a").unwrap();
        with(2, "b", |who| assert!(!leases.decline(1, who, first), "not its own"));
        with(1, "a", |who| assert!(leases.decline(1, who, first)));
        with(2, "b", |who| assert!(!leases.bind(2, who, first, 100)));
        with(2, "b", |who| assert_ne!(leases.offer(2, who, Some(first)), Ok(first)));
        with(3, "c", |who| assert_eq!(leases.offer(1 + DECLINED, who, Some(first)), Ok(first)));
    }

    #[test]
    fn a_full_table_replaces_only_what_is_free() {
        let mut leases = table("10.0.0.0/8");
        for client in 0..8192 {
            take(&mut leases, 0, client, &format!("p{}", client / 1000)).unwrap();
        }
        let new: IpAddr = "10.77.77.77".parse().unwrap();
        assert_eq!(take(&mut leases, 0, 9000, "z"), Err(Refusal::Exhausted));
        with(9000, "z", |who| assert!(!leases.bind(0, who, new, 100)));
        with(9000, "z", |who| assert!(leases.bind(3600, who, new, 7200)));
        assert_eq!(leases.rows.len(), MOST);
        assert!(leases.clients.len() <= MOST);
    }

    #[test]
    fn of_a_shared_subnet_only_own_blocks_are_given_and_no_client_loses_its_address() {
        let within = |blocks: &[&str]| {
            let blocks = blocks.iter().map(|block| block.parse().unwrap()).collect();
            pool("10.0.0.0/24", &["10.0.0.65"]).within(Some(&blocks))
        };
        let mut leases = Leases::new(within(&["10.0.0.64/28", "10.0.0.128/28"]), Vec::new());
        let own = |address: IpAddr| {
            let IpAddr::V4(address) = address else { return false };
            matches!(address.octets()[3], 64..80 | 128..144)
        };
        let mut given = HashMap::new();
        for client in 0..31 {
            let port = format!("p{}", client % 4);
            let wish = Some(IpAddr::from([10, 0, 0, 200]));
            let address = with(client, &port, |who| leases.offer(0, who, wish)).unwrap();
            assert!(own(address) && given.insert(address, client).is_none(), "{address}");
            assert!(with(client, &port, |who| leases.bind(0, who, address, 1000)));
        }
        assert_eq!(with(99, "q", |who| leases.offer(0, who, None)), Err(Refusal::Exhausted));
        let strange = IpAddr::from([10, 0, 0, 200]);
        assert!(!with(99, "q", |who| leases.bind(0, who, strange, 1000)) && leases.is_of_another_host(strange));
        assert!(!leases.is_of_another_host(IpAddr::from([10, 0, 0, 66])));
        // Blocks that the store does not confirm any more give nothing new.
        leases.set_pool(within(&[]));
        let (address, client) = given.into_iter().next().unwrap();
        assert!(with(client, &format!("p{}", client % 4), |who| leases.bind(500, who, address, 1500)), "it stays");
        assert_eq!(with(99, "q", |who| leases.offer(0, who, None)), Err(Refusal::Exhausted));
    }

    #[test]
    fn another_pool_keeps_what_lies_in_it() {
        let mut leases = table("10.0.0.0/24");
        let first = take(&mut leases, 0, 1, "a").unwrap();
        leases.set_pool(pool("10.0.0.0/16", &[]));
        assert_eq!(take(&mut leases, 0, 1, "a"), Ok(first));
        leases.set_pool(pool("10.1.0.0/16", &[]));
        assert_eq!(leases.rows().count(), 0);
    }

    proptest! {
        #[test]
        fn no_address_has_two_clients(steps in prop::collection::vec((0u32..12, 0u32..4, 0u8..6, 0u64..900, 0u8..8), 0..200)) {
            let mut leases = table("10.0.0.0/29");
            let mut owners: HashMap<IpAddr, (u32, u64)> = HashMap::new();
            let mut now = 0;
            for (client, port, action, seconds, host) in steps {
                now += seconds;
                let wish = IpAddr::from([10, 0, 0, host]);
                with(client, &format!("p{port}"), |who| match action {
                    0 => { leases.release(now, who, wish).then(|| owners.remove(&wish)); }
                    1 => { leases.decline(now, who, wish).then(|| owners.remove(&wish)); }
                    2 => { let _ = leases.offer(now, who, Some(wish)); }
                    _ => if leases.bind(now, who, wish, now + 1000) {
                        let before = owners.insert(wish, (client, now + 1000));
                        assert!(before.is_none_or(|(owner, until)| owner == client || until <= now));
                        owners.retain(|address, (owner, _)| *owner != client || *address == wish);
                    }
                });
                prop_assert!(leases.rows.keys().all(|address| leases.pool.contains(*address)));
                for (client, address) in &leases.clients {
                    prop_assert_eq!(&leases.rows[address].client, client);
                }
            }
        }
    }
}
