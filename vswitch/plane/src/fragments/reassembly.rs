//! Packets that stations send in fragments, put together.
//!
//! The rules are the kernel's: a fragment that overlaps another ends the packet (RFC 5722, and `ip_frag_queue` for IPv4), one that
//! is there already is ignored, and 30 s after the first a packet is given up. At most [`MOST`] packets are under way, of at most 64 KiB in
//! [`PIECES`] fragments each. When there are more, [`Table`] says which of them is given up.

use std::hash::Hash;
use std::time::{Duration, Instant};

use packet::{ETHERNET_HEADER, Ethernet, Fragment, FragmentKey, IpPacket};

use super::whole;
use crate::table::{Owner, Table};

const PATIENCE: Duration = Duration::from_secs(30);
const MOST: usize = 128;
const LONGEST: usize = 65_535 - 20;
/// Most fragments of a packet: fewer than a hundred make up the longest where links have the usual MTU.
const PIECES: usize = 256;

/// Packets that are not complete, by where they come from besides their addresses.
#[derive(Debug)]
pub struct Reassembly<T> {
    packets: Table<(T, FragmentKey), T, Parts>,
    /// Fragments that came for nothing.
    pub dropped: u64,
}

/// What became of a fragment.
pub struct Added<T> {
    /// The frame that its packet would have been, if it was the last to come.
    pub whole: Option<(Vec<u8>, IpPacket)>,
    /// It contradicts another, or its header, and its packet was given up.
    pub contradicts: bool,
    /// Packets that were given up.
    pub lost: Vec<Lost<T>>,
}

/// A packet that was given up.
pub struct Lost<T> {
    /// Where it came from.
    pub origin: T,
    /// The fragments of it that had come, as they came.
    pub frames: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
struct Parts {
    /// The fragments that came, in no order.
    there: Vec<Part>,
    total: Option<usize>,
    /// What the first fragment says that the payload is. In IPv6 the others may say something else (RFC 8200, section 4.5).
    protocol: u8,
}

/// A fragment.
#[derive(Clone, Debug)]
struct Part {
    /// Where it begins and ends in the packet's payload.
    start: usize,
    end: usize,
    /// The frame that it came in, and where its part of the payload is there.
    frame: Vec<u8>,
    data: usize,
}

/// Without any packet.
impl<T: Copy + Eq + Hash> Default for Reassembly<T> {
    fn default() -> Self {
        Self { packets: Table::new(MOST), dropped: 0 }
    }
}

impl<T: Copy + Eq + Hash> Reassembly<T> {
    /// Takes in a fragment that came from `origin`.
    pub fn add(&mut self, origin: T, frame: &[u8], ip: &IpPacket, fragment: Fragment, now: Instant) -> Added<T> {
        let key = (origin, ip.key_of(fragment));
        let mut added = Added { whole: None, contradicts: false, lost: Vec::new() };
        let number = match self.packets.find(&key) {
            Some(number) => number,
            None => {
                added.lost.extend(self.packets.victim().and_then(|victim| self.give_up(victim)));
                self.packets.insert(key, Owner { port: origin, container: ip.source }, now, Parts::default())
            }
        };
        match self.packets.get_mut(number).map(|row| row.value.add(frame, ip, fragment)) {
            Some(Ok(true)) => {
                let parts = self.packets.remove(number).map(|row| row.value);
                added.whole = parts.and_then(|parts| put_together(ip, &parts));
            }
            Some(Err(Nonsense)) => {
                self.dropped += 1;
                added.contradicts = true;
                added.lost.extend(self.give_up(number));
            }
            Some(Ok(false)) | None => {}
        }
        added
    }

    /// What [`Reassembly::add`] would say now, but for the packets that would be given up. Nothing changes.
    pub fn peek(&self, origin: T, frame: &[u8], ip: &IpPacket, fragment: Fragment) -> Added<T> {
        let number = self.packets.find(&(origin, ip.key_of(fragment)));
        let mut parts = number.and_then(|number| self.packets.get(number)).map(|row| row.value.clone()).unwrap_or_default();
        let added = parts.add(frame, ip, fragment);
        let whole = matches!(added, Ok(true)).then(|| put_together(ip, &parts)).flatten();
        Added { whole, contradicts: added.is_err(), lost: Vec::new() }
    }

    fn give_up(&mut self, number: usize) -> Option<Lost<T>> {
        let row = self.packets.remove(number)?;
        let frames: Vec<Vec<u8>> = row.value.there.into_iter().map(|part| part.frame).collect();
        self.dropped += frames.len() as u64;
        Some(Lost { origin: row.key.0, frames })
    }

    /// Gives up packets that have waited for too long.
    pub fn expire(&mut self, now: Instant) -> Vec<Lost<T>> {
        let old = self.packets.which(|row| now.saturating_duration_since(row.used) >= PATIENCE);
        old.into_iter().filter_map(|number| self.give_up(number)).collect()
    }
}

fn put_together(ip: &IpPacket, parts: &Parts) -> Option<(Vec<u8>, IpPacket)> {
    let frame = whole(ip.source, ip.destination, parts.protocol, &parts.payload());
    let ip = IpPacket::parse(&frame, &Ethernet::parse(&frame).ok()?)?;
    Some((frame, ip))
}

/// A fragment that contradicts another, or its header.
struct Nonsense;

impl Parts {
    /// Says whether the packet is complete.
    fn add(&mut self, frame: &[u8], ip: &IpPacket, fragment: Fragment) -> Result<bool, Nonsense> {
        let bytes = frame.get(fragment.data..ip.end).unwrap_or_default();
        let start = usize::from(fragment.offset);
        let end = start + bytes.len();
        let odd = fragment.more && (bytes.is_empty() || !bytes.len().is_multiple_of(8));
        if odd || end > LONGEST || self.total.is_some_and(|total| end > total || !fragment.more && end != total) {
            return Err(Nonsense);
        }
        if self.there.iter().any(|part| (part.start, part.end) == (start, end)) {
            return Ok(false);
        }
        let overlaps = self.there.iter().any(|part| start < part.end && part.start < end);
        if overlaps || self.there.len() >= PIECES {
            return Err(Nonsense);
        }
        if !fragment.more {
            self.total = Some(end);
        }
        if start == 0 {
            self.protocol = fragment.protocol;
        }
        self.there.push(Part { start, end, frame: frame.to_vec(), data: fragment.data });
        // Nothing overlaps, so it is all there when there is as much of it.
        let have: usize = self.there.iter().map(|part| part.end - part.start).sum();
        let longest = self.there.iter().map(|part| part.end).max().unwrap_or_default();
        match self.total {
            Some(total) if longest > total => Err(Nonsense),
            total => Ok(total == Some(have)),
        }
    }

    /// What came of the payload, with zeros where nothing did.
    fn payload(&self) -> Vec<u8> {
        let mut payload = vec![0; self.there.iter().map(|part| part.end).max().unwrap_or_default()];
        for Part { start, end, frame, data } in &self.there {
            let bytes = frame.get(*data..data + (end - start));
            if let (Some(place), Some(bytes)) = (payload.get_mut(*start..*end), bytes) {
                place.copy_from_slice(bytes);
            }
        }
        payload
    }
}

const _: () = assert!(ETHERNET_HEADER == 14, "what `whole` writes");

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds a fragment with the payload of a packet.
    fn add(to: &mut Reassembly<()>, (frame, ip): &(Vec<u8>, IpPacket), at: (u16, bool, u32), now: Instant) -> Added<()> {
        let (offset, more, identification) = at;
        let fragment = Fragment { identification, offset, more, data: ip.transport, protocol: ip.protocol };
        to.add((), frame, ip, fragment, now)
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
            let mut reassembly = Reassembly::default();
            let mut whole = None;
            for part in order {
                let (from, to) = (part * 40, 100.min(part * 40 + 40));
                let part = frame(1, &payload[from..to]);
                assert!(whole.is_none());
                let offset = u16::try_from(from).unwrap();
                whole = add(&mut reassembly, &part, (offset, to < 100, 7), Instant::now()).whole;
            }
            let (bytes, ip) = whole.unwrap();
            assert_eq!((&bytes[ip.transport..ip.end], reassembly.packets.occupied()), (&payload[..], 0));
        }
    }

    #[test]
    fn an_overlap_ends_the_packet() {
        let mut reassembly = Reassembly::default();
        let part = frame(1, &[0; 40]);
        assert!(add(&mut reassembly, &part, (0, true, 7), Instant::now()).whole.is_none());
        assert!(add(&mut reassembly, &part, (0, true, 7), Instant::now()).whole.is_none(), "the same again");
        assert!(add(&mut reassembly, &part, (32, false, 7), Instant::now()).whole.is_none());
        assert_eq!((reassembly.packets.occupied(), reassembly.dropped), (0, 2));
    }

    #[test]
    fn incomplete_packets_expire_and_the_container_with_the_most_loses_its_oldest() {
        let (now, mut reassembly) = (Instant::now(), Reassembly::default());
        let part = frame(1, &[0; 40]);
        add(&mut reassembly, &part, (0, true, 1), now);
        let greedy = frame(2, &[0; 40]);
        for identification in 0..1000 {
            add(&mut reassembly, &greedy, (0, true, identification), now);
        }
        assert_eq!(reassembly.packets.occupied(), MOST);
        assert!(add(&mut reassembly, &part, (40, false, 1), now).whole.is_some(), "the modest one's is still there");
        reassembly.expire(now + PATIENCE);
        assert_eq!((reassembly.packets.occupied(), reassembly.dropped), (0, 1000));
    }

    #[test]
    fn a_packet_in_too_many_fragments_is_given_up() {
        let (now, mut reassembly) = (Instant::now(), Reassembly::default());
        let part = frame(1, &[0; 8]);
        let mut contradicts = |number: usize| {
            let offset = u16::try_from(number * 8).unwrap();
            add(&mut reassembly, &part, (offset, true, 7), now).contradicts
        };
        assert_eq!((0..=PIECES).map(&mut contradicts).filter(|given_up| *given_up).count(), 1);
    }

    /// Destination options are in the part that is cut. So the fragment header of the first fragment names these options, and not the protocol
    /// behind them. The header of another fragment may name anything.
    #[test]
    fn in_ipv6_the_first_fragment_says_what_it_is() {
        const OPTIONS: [u8; 8] = [17, 0, 1, 4, 0, 0, 0, 0];
        const UDP: [u8; 8] = [0, 1, 0, 2, 0, 24, 0, 0];
        let fragment = |next: u8, bits: u8, data: &[u8]| {
            let addresses: [u8; 32] = std::array::from_fn(|at| if at % 16 == 0 { 0xfd } else { 1 });
            let [.., high, low] = (8 + data.len()).to_be_bytes();
            let header = [&[0; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, high, low, 44, 64], &addresses].concat();
            let frame = [&header[..], &[next, 0, 0, bits, 0, 0, 0, 7], data].concat();
            let ip = IpPacket::parse(&frame, &Ethernet::parse(&frame).unwrap()).unwrap();
            (frame, ip)
        };
        let (first, second) = (fragment(60, 1, &[OPTIONS, UDP].concat()), fragment(59, 16, &[9; 16]));
        for [(one, one_ip), (other, other_ip)] in [[&first, &second], [&second, &first]] {
            let (now, mut reassembly) = (Instant::now(), Reassembly::default());
            assert!(reassembly.add((), one, one_ip, one_ip.fragment.unwrap(), now).whole.is_none());
            let (whole, ip) = reassembly.add((), other, other_ip, other_ip.fragment.unwrap(), now).whole.unwrap();
            assert_eq!((ip.protocol, &whole[ip.transport..]), (17, &[&UDP[..], &[9; 16]].concat()[..]));
        }
    }
}
