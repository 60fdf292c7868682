//! Packets that containers send in fragments, put together before a socket sends them anew.
//!
//! The rules are the kernel's: a fragment that overlaps another ends the packet (RFC 5722, and `ip_frag_queue` for IPv4), one that
//! is there already is ignored, and 30 s after the first nobody waits for the rest. At most 128 packets are under way, of at most
//! 64 KiB each; when there are more, the container with the most loses its oldest.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use packet::{ETHERNET_HEADER, Ethernet, Fragment, IpPacket};

use super::outbox::whole;
use super::table::Table;

const PATIENCE: Duration = Duration::from_secs(30);
const MOST: usize = 128;
const LONGEST: usize = 65_535 - 20;

type Key = (IpAddr, IpAddr, u8, u32);

/// Packets that are not complete.
pub(super) struct Reassembly {
    packets: Table<Key, Parts>,
    /// Fragments that came for nothing.
    pub(super) dropped: u64,
}

#[derive(Default)]
struct Parts {
    payload: Vec<u8>,
    /// Where the fragments that came begin and end, in no order.
    there: Vec<(usize, usize)>,
    total: Option<usize>,
}

impl Reassembly {
    pub(super) fn new() -> Self {
        Self { packets: Table::new(MOST), dropped: 0 }
    }

    /// Takes in a fragment; returns the frame that its packet would have been, if it was the last to come.
    pub(super) fn add(&mut self, frame: &[u8], ip: &IpPacket, fragment: Fragment, now: Instant) -> Option<(Vec<u8>, IpPacket)> {
        let key = (ip.source, ip.destination, ip.protocol, fragment.identification);
        let number = match self.packets.find(&key) {
            Some(number) => number,
            None => self.begin(key, now),
        };
        let parts = &mut self.packets.get_mut(number)?.value;
        match parts.add(frame.get(ip.transport..ip.end)?, fragment) {
            Ok(false) => None,
            Ok(true) => {
                let parts = self.packets.remove(number)?.value;
                let frame = whole(ip.source, ip.destination, ip.protocol, &parts.payload);
                let ip = IpPacket::parse(&frame, &Ethernet::parse(&frame).ok()?)?;
                Some((frame, ip))
            }
            Err(Nonsense) => {
                self.give_up(number);
                None
            }
        }
    }

    fn begin(&mut self, key: Key, now: Instant) -> usize {
        if let Some(victim) = self.packets.victim() {
            self.give_up(victim);
        }
        self.packets.insert(key, key.0, now, Parts::default())
    }

    fn give_up(&mut self, number: usize) {
        let parts = self.packets.remove(number);
        self.dropped += parts.map_or(0, |row| row.value.there.len().max(1) as u64);
    }

    /// Gives up packets that have waited for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        for number in self.packets.which(|row| now.saturating_duration_since(row.used) >= PATIENCE) {
            self.give_up(number);
        }
    }
}

/// A fragment that contradicts another, or its header.
struct Nonsense;

impl Parts {
    /// Says whether the packet is complete.
    fn add(&mut self, bytes: &[u8], fragment: Fragment) -> Result<bool, Nonsense> {
        let start = usize::from(fragment.offset);
        let end = start + bytes.len();
        let odd = fragment.more && (bytes.is_empty() || !bytes.len().is_multiple_of(8));
        if odd || end > LONGEST || self.total.is_some_and(|total| end > total || !fragment.more && end != total) {
            return Err(Nonsense);
        }
        if self.there.contains(&(start, end)) {
            return Ok(false);
        }
        if self.there.iter().any(|(from, to)| start < *to && *from < end) {
            return Err(Nonsense);
        }
        if !fragment.more {
            self.total = Some(end);
        }
        self.there.push((start, end));
        self.payload.resize(self.payload.len().max(end), 0);
        if let Some(place) = self.payload.get_mut(start..end) {
            place.copy_from_slice(bytes);
        }
        // Nothing overlaps, so it is all there when there is as much of it.
        let have: usize = self.there.iter().map(|(from, to)| to - from).sum();
        match self.total {
            Some(total) if self.payload.len() > total => Err(Nonsense),
            total => Ok(total == Some(have)),
        }
    }
}

const _: () = assert!(ETHERNET_HEADER == 14, "what `whole` writes");

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(offset: u16, more: bool, identification: u32) -> Fragment {
        Fragment { identification, offset, more }
    }

    /// The packet of which a fragment of these bytes is one.
    fn frame(source: u8, bytes: &[u8]) -> (Vec<u8>, IpPacket) {
        let frame = whole([10, 0, 0, source].into(), [10, 0, 0, 99].into(), 17, bytes);
        let ip = IpPacket::parse(&frame, &Ethernet::parse(&frame).unwrap()).unwrap();
        (frame, ip)
    }

    #[test]
    fn fragments_in_any_order_are_the_packet() {
        let payload: Vec<u8> = (0..100).collect();
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
            let mut reassembly = Reassembly::new();
            let mut whole = None;
            for part in order {
                let (from, to) = (part * 40, 100.min(part * 40 + 40));
                let (bytes, ip) = frame(1, &payload[from..to]);
                assert!(whole.is_none());
                let offset = u16::try_from(from).unwrap();
                whole = reassembly.add(&bytes, &ip, fragment(offset, to < 100, 7), Instant::now());
            }
            let (bytes, ip) = whole.unwrap();
            assert_eq!((&bytes[ip.transport..ip.end], reassembly.packets.len()), (&payload[..], 0));
        }
    }

    #[test]
    fn an_overlap_ends_the_packet() {
        let mut reassembly = Reassembly::new();
        let (bytes, ip) = frame(1, &[0; 40]);
        assert!(reassembly.add(&bytes, &ip, fragment(0, true, 7), Instant::now()).is_none());
        assert!(reassembly.add(&bytes, &ip, fragment(0, true, 7), Instant::now()).is_none(), "the same again");
        assert!(reassembly.add(&bytes, &ip, fragment(32, false, 7), Instant::now()).is_none());
        assert_eq!((reassembly.packets.len(), reassembly.dropped), (0, 1));
    }

    #[test]
    fn incomplete_packets_expire_and_the_container_with_the_most_loses_its_oldest() {
        let (now, mut reassembly) = (Instant::now(), Reassembly::new());
        let (bytes, ip) = frame(1, &[0; 40]);
        reassembly.add(&bytes, &ip, fragment(0, true, 1), now);
        let (greedy, greedy_ip) = frame(2, &[0; 40]);
        for identification in 0..1000 {
            reassembly.add(&greedy, &greedy_ip, fragment(0, true, identification), now);
        }
        assert_eq!(reassembly.packets.len(), MOST);
        assert!(reassembly.add(&bytes, &ip, fragment(40, false, 1), now).is_some(), "the modest one's is still there");
        reassembly.expire(now + PATIENCE);
        assert_eq!((reassembly.packets.len(), reassembly.dropped), (0, 1000));
    }
}
