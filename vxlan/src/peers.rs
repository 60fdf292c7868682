//! The table of a tunnel's remote endpoints. The control side configures it while workers send and receive,
//! so it is made of atomics; one caller at a time fills a slot.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The remote endpoints (VTEPs) of one tunnel, by number, for the senders and receivers of all threads.
///
/// **What it holds.** A slot for each endpoint, whose number the forwarding database keeps with the addresses behind it. Configured
/// ones come from the user, by [`Peers::configure`]. An *open* tunnel (one with a multicast group, where the user does not list the others)
/// also takes in every endpoint that sends to it.
///
/// **Who changes it.** One control side configures; any number of receivers admit and touch. Reading takes no lock. Slots are filled by
/// one at a time. A receiver that finds another one filling does not wait: it refuses this datagram, and takes its sender in at the next one.
///
/// **What bounds it.** [`Peers::MOST`] slots, made at the start.
///
/// **Expiry.** A slot that is not configured is free again when its endpoint was silent for longer than the forwarding database
/// remembers an address, so no entry is left that could mean another endpoint.
///
/// **Fairness.** When it is full, the newcomer is refused. A host that forges source addresses can keep new endpoints out for a while, but
/// never pushes out one that is there.
#[derive(Debug)]
pub struct Peers {
    open: bool,
    slots: Box<[Slot]>,
    /// Slots from here on were never used.
    used: AtomicUsize,
    /// Whether a caller is filling a slot.
    filling: AtomicBool,
}

#[derive(Debug, Default)]
struct Slot {
    state: AtomicU8,
    high: AtomicU64,
    low: AtomicU64,
    /// Second of its last datagram.
    seen: AtomicU32,
    /// Whether it has ever sent one.
    heard: AtomicBool,
    received: AtomicU64,
    sent: AtomicU64,
    /// Second in which something was last sent to it alone.
    asked_at: AtomicU32,
    /// What the operating system last said about what was sent to it, and when; 0: nothing.
    error: AtomicI32,
    error_at: AtomicU32,
}

/// How it stands with one endpoint. Times are seconds as the caller counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// Its address.
    pub address: IpAddr,
    /// Whether the user named it.
    pub configured: bool,
    /// When it was last heard; `None`: never.
    pub heard: Option<u32>,
    /// Frames that came from it.
    pub received: u64,
    /// Frames that were sent to it.
    pub sent: u64,
    /// When one was last sent to it alone. What is flooded to all asks for no answer of each: a router solicitation has none where no router is.
    pub asked_at: u32,
    /// The last error number about what was sent to it, and when.
    pub error: Option<(i32, u32)>,
}

/// A slot without an endpoint.
const FREE: u8 = 0;
/// An endpoint that was admitted.
const ADMITTED: u8 = 2;
/// An endpoint that the user named.
const CONFIGURED: u8 = 3;
/// An endpoint that the user named once; nothing is taken from it or sent to it.
const RETIRED: u8 = 4;

/// What becomes of a datagram's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is this one.
    Known(u16),
    /// It does not belong to the tunnel, or there is no room for it.
    Refused,
}

impl Peers {
    /// Most endpoints of a tunnel.
    pub const MOST: usize = 1024;

    /// A tunnel without endpoints; `open` to any that sends.
    pub fn new(open: bool) -> Self {
        Self {
            open,
            slots: (0..Self::MOST).map(|_| Slot::default()).collect(),
            used: AtomicUsize::new(0),
            filling: AtomicBool::new(false),
        }
    }

    /// Makes `addresses` the configured ones and returns the numbers of those that no longer are. To be called by one thread only.
    /// What is more than [`Peers::MOST`] is left out.
    pub fn configure(&self, addresses: &[IpAddr], now: u32) -> Vec<u16> {
        let mut gone = Vec::new();
        for (number, slot) in self.numbered().filter(|(_, slot)| slot.state() == CONFIGURED) {
            if !addresses.contains(&slot.address()) {
                slot.seen.store(now, Ordering::Relaxed);
                slot.state.store(if self.open { ADMITTED } else { RETIRED }, Ordering::Release);
                gone.push(number);
            }
        }
        while !self.begin_filling() {
            std::thread::yield_now();
        }
        for address in addresses {
            match self.position(*address, |_| true) {
                Some(number) => self.slot(number).into_iter().for_each(|slot| slot.state.store(CONFIGURED, Ordering::Release)),
                None => drop(self.fill(*address, CONFIGURED, now)),
            }
        }
        self.filling.store(false, Ordering::Release);
        gone
    }

    /// Finds the sender of a datagram. An open tunnel takes in one that it does not know.
    pub fn admit(&self, address: IpAddr, now: u32) -> Admission {
        let welcome = |state| state == CONFIGURED || state == ADMITTED;
        if let Some(number) = self.position(address, welcome) {
            self.touch(number, now);
            return Admission::Known(number);
        }
        if !self.open || !self.begin_filling() {
            return Admission::Refused;
        }
        // It may have come in since.
        let number = self.position(address, welcome).or_else(|| self.fill(address, ADMITTED, now));
        self.filling.store(false, Ordering::Release);
        number.into_iter().for_each(|number| self.touch(number, now));
        number.map_or(Admission::Refused, Admission::Known)
    }

    /// Whether the caller may fill slots now: no other one does.
    fn begin_filling(&self) -> bool {
        self.filling.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Notes that an endpoint was heard in second `now`.
    pub fn touch(&self, number: u16, now: u32) {
        if let Some(slot) = self.slot(number) {
            slot.heard.store(true, Ordering::Relaxed);
            if slot.seen.load(Ordering::Relaxed) != now {
                slot.seen.store(now, Ordering::Relaxed);
            }
        }
    }

    /// Counts frames that came from an endpoint.
    pub fn count_received(&self, number: u16, frames: u64) {
        if let Some(slot) = self.slot(number) {
            slot.received.fetch_add(frames, Ordering::Relaxed);
        }
    }

    /// Counts frames that were sent to an endpoint.
    pub fn count_sent(&self, number: u16, frames: u64) {
        if let Some(slot) = self.slot(number) {
            slot.sent.fetch_add(frames, Ordering::Relaxed);
        }
    }

    /// Notes that frames were sent to this endpoint alone in second `now`, so that it should be heard.
    pub fn note_asked(&self, number: u16, now: u32) {
        if let Some(slot) = self.slot(number) {
            slot.asked_at.store(now, Ordering::Relaxed);
        }
    }

    /// Notes what the operating system said about something that was sent to an endpoint.
    pub fn note_error(&self, number: u16, error: i32, now: u32) {
        if let Some(slot) = self.slot(number) {
            slot.error_at.store(now, Ordering::Relaxed);
            slot.error.store(error, Ordering::Relaxed);
        }
    }

    /// How it stands with all that frames are taken from.
    pub fn rows(&self) -> impl Iterator<Item = PeerRow> {
        let known = self.numbered().map(|(_, slot)| slot).filter(|slot| matches!(slot.state(), ADMITTED | CONFIGURED));
        known.map(|slot| {
            let error = slot.error.load(Ordering::Relaxed);
            PeerRow {
                address: slot.address(),
                configured: slot.state() == CONFIGURED,
                heard: slot.heard.load(Ordering::Relaxed).then(|| slot.seen.load(Ordering::Relaxed)),
                received: slot.received.load(Ordering::Relaxed),
                sent: slot.sent.load(Ordering::Relaxed),
                asked_at: slot.asked_at.load(Ordering::Relaxed),
                error: (error != 0).then(|| (error, slot.error_at.load(Ordering::Relaxed))),
            }
        })
    }

    /// Frees the slots of endpoints that are not configured and that were silent for longer than `ageing` seconds.
    pub fn expire(&self, now: u32, ageing: u32) {
        for (_, slot) in self.numbered() {
            let state = slot.state();
            let silent = now.saturating_sub(slot.seen.load(Ordering::Relaxed)) > ageing;
            if silent && (state == ADMITTED || state == RETIRED) {
                // It may just have been configured; then it stays.
                let _ = slot.state.compare_exchange(state, FREE, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    /// The number of an endpoint that frames are taken from.
    pub fn number(&self, address: IpAddr) -> Option<u16> {
        self.position(address, |state| state == CONFIGURED || state == ADMITTED)
    }

    /// Where to send what is for this one.
    pub fn address(&self, number: u16) -> Option<IpAddr> {
        self.slot(number).filter(|slot| matches!(slot.state(), ADMITTED | CONFIGURED)).map(Slot::address)
    }

    /// The configured ones, to which a flooded frame goes.
    pub fn configured(&self) -> impl Iterator<Item = (u16, IpAddr)> {
        let configured = self.numbered().filter(|(_, slot)| slot.state() == CONFIGURED);
        configured.map(|(number, slot)| (number, slot.address()))
    }

    /// All that frames are taken from, and whether each is configured.
    pub fn all(&self) -> impl Iterator<Item = (IpAddr, bool)> {
        let known = self.numbered().map(|(_, slot)| (slot.state(), slot));
        known
            .filter(|(state, _)| matches!(*state, ADMITTED | CONFIGURED))
            .map(|(state, slot)| (slot.address(), state == CONFIGURED))
    }

    fn numbered(&self) -> impl Iterator<Item = (u16, &Slot)> {
        (1..).zip(&self.slots).take(self.used.load(Ordering::Acquire))
    }

    fn slot(&self, number: u16) -> Option<&Slot> {
        self.slots.get(usize::from(number).checked_sub(1)?)
    }

    fn position(&self, address: IpAddr, state: impl Fn(u8) -> bool) -> Option<u16> {
        let (high, low) = halves(address);
        let here = |slot: &Slot| {
            let current = slot.state();
            current != FREE
                && state(current)
                && slot.low.load(Ordering::Relaxed) == low
                && slot.high.load(Ordering::Relaxed) == high
        };
        self.numbered().find(|(_, slot)| here(slot)).map(|(number, _)| number)
    }

    /// Only for a caller that began to fill slots.
    fn fill(&self, address: IpAddr, state: u8, now: u32) -> Option<u16> {
        let (number, slot) = (1_u16..).zip(&self.slots).find(|(_, slot)| slot.state() == FREE)?;
        let (high, low) = halves(address);
        slot.high.store(high, Ordering::Relaxed);
        slot.low.store(low, Ordering::Relaxed);
        slot.seen.store(now, Ordering::Relaxed);
        slot.forget();
        slot.state.store(state, Ordering::Release);
        self.used.fetch_max(number.into(), Ordering::AcqRel);
        Some(number)
    }
}

impl Slot {
    /// Its next endpoint begins anew.
    fn forget(&self) {
        self.heard.store(false, Ordering::Relaxed);
        self.received.store(0, Ordering::Relaxed);
        self.sent.store(0, Ordering::Relaxed);
        self.asked_at.store(0, Ordering::Relaxed);
        self.error.store(0, Ordering::Relaxed);
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    fn address(&self) -> IpAddr {
        let bits = u128::from(self.high.load(Ordering::Relaxed)) << 64 | u128::from(self.low.load(Ordering::Relaxed));
        Ipv6Addr::from(bits).to_canonical()
    }
}

/// An address as two words; IPv4 as an IPv6 address that stands for it (RFC 4291, section 2.5.5.2).
fn halves(address: IpAddr) -> (u64, u64) {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let low = u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    (u64::try_from(bits >> 64).unwrap_or_default(), low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> IpAddr {
        IpAddr::from([10, 0, u8::try_from(number >> 8).unwrap(), u8::try_from(number & 0xff).unwrap()])
    }

    #[test]
    fn a_closed_tunnel_takes_only_what_is_configured() {
        let peers = Peers::new(false);
        assert_eq!(peers.configure(&[address(1), "fd00::2".parse().unwrap()], 0), []);
        assert_eq!(peers.admit(address(1), 0), Admission::Known(1));
        assert_eq!(peers.admit("fd00::2".parse().unwrap(), 0), Admission::Known(2));
        assert_eq!(peers.admit(address(3), 0), Admission::Refused);
        assert_eq!(peers.address(2), Some("fd00::2".parse().unwrap()));
        assert_eq!((peers.address(0), peers.address(3), peers.address(u16::MAX)), (None, None, None));
    }

    #[test]
    fn a_peer_taken_out_is_refused_and_the_others_keep_their_numbers() {
        let peers = Peers::new(false);
        peers.configure(&[address(1), address(2), address(3)], 0);
        assert_eq!(peers.configure(&[address(1), address(3), address(4)], 5), [2]);
        assert_eq!((peers.admit(address(2), 5), peers.address(2)), (Admission::Refused, None));
        assert_eq!((peers.admit(address(3), 5), peers.admit(address(4), 5)), (Admission::Known(3), Admission::Known(4)));
        assert_eq!(peers.configured().map(|(_, address)| address).collect::<Vec<_>>(), [1, 3, 4].map(address));
        peers.configure(&[address(2)], 6);
        assert_eq!(peers.admit(address(2), 6), Admission::Known(2), "it is taken back with its number");
    }

    #[test]
    fn a_number_is_given_away_only_after_the_tables_forgot_it() {
        let peers = Peers::new(true);
        assert_eq!(peers.admit(address(1), 100), Admission::Known(1));
        peers.expire(400, 300);
        assert_eq!(peers.admit(address(2), 400), Admission::Known(2));
        peers.expire(401, 300);
        assert_eq!(peers.admit(address(3), 401), Admission::Known(1));
        peers.touch(1, 700);
        peers.expire(990, 300);
        assert_eq!((peers.address(1), peers.address(2)), (Some(address(3)), None));
    }

    #[test]
    fn a_peer_that_was_never_heard_is_told_from_one_that_was() {
        let peers = Peers::new(false);
        peers.configure(&[address(1), address(2)], 5);
        peers.admit(address(1), 9);
        peers.count_received(1, 3);
        peers.count_sent(2, 7);
        peers.note_asked(2, 8);
        peers.note_error(2, 113, 8);
        let rows: Vec<PeerRow> = peers.rows().collect();
        assert_eq!((rows[0].heard, rows[0].received, rows[0].error), (Some(9), 3, None));
        assert_eq!((rows[1].heard, rows[1].sent, rows[1].asked_at, rows[1].error), (None, 7, 8, Some((113, 8))));
    }

    #[test]
    fn configured_peers_do_not_expire() {
        let peers = Peers::new(true);
        peers.configure(&[address(1)], 0);
        peers.expire(1_000_000, 300);
        assert_eq!(peers.admit(address(1), 1_000_000), Admission::Known(1));
    }

    #[test]
    fn forged_newcomers_push_nobody_out() {
        let peers = Peers::new(true);
        peers.configure(&[address(0)], 0);
        assert_eq!(peers.admit(address(1), 0), Admission::Known(2));
        let admitted = (2..5000).filter(|number| peers.admit(address(*number), 0) != Admission::Refused).count();
        assert_eq!(admitted, Peers::MOST - 2);
        assert_eq!((peers.admit(address(0), 0), peers.admit(address(1), 0)), (Admission::Known(1), Admission::Known(2)));
        peers.expire(301, 300);
        assert_ne!(peers.admit(address(4000), 301), Admission::Refused, "and room comes back");
    }

    #[test]
    fn receivers_on_several_threads_agree() {
        let peers = Peers::new(true);
        let known = |peers: &Peers, number| loop {
            if let Admission::Known(known) = peers.admit(address(number), 0) {
                return known;
            }
        };
        let all: Vec<Vec<u16>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..200).map(|number| known(&peers, number)).collect())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|numbers| *numbers == all[0]));
        assert!((0..200).all(|number| peers.address(all[0][number]) == Some(address(number))));
        assert_eq!(peers.all().count(), 200, "no address is there twice");
    }
}
