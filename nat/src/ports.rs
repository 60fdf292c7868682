//! External ports: which are in use, and the choice of a new one.
//!
//! A source port is kept where that is possible. Otherwise any free port of the range is as likely as another (RFC 6056,
//! section 3.3; RFC 7857, section 9), of the same parity for UDP (RFC 4787, REQ-4). The search goes through 1,024 words at
//! most.

use crate::PortRange;
use crate::key::{Kind, Transport};

/// A set of ports.
#[derive(Clone, Debug)]
pub(crate) struct PortSet(Box<[u64; 1024]>);

/// The ports that mappings have, for each kind of transport.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    used: [PortSet; Kind::COUNT],
    count: u64,
}

/// A sequence of numbers (SplitMix64) in which a host outside cannot easily guess the next one.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

/// What is asked for: a source port, which ports it may become, and which of them forwards have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    pub(crate) range: PortRange,
    pub(crate) reserved: Option<&'a PortSet>,
}

const EVEN: u64 = 0x5555_5555_5555_5555;

impl PortSet {
    pub(crate) fn new() -> Self {
        Self(Box::new([0; 1024]))
    }

    pub(crate) const fn contains(&self, port: u16) -> bool {
        self.0[port as usize / 64] >> (port % 64) & 1 == 1
    }

    pub(crate) const fn insert(&mut self, port: u16) {
        self.0[port as usize / 64] |= 1 << (port % 64);
    }

    const fn remove(&mut self, port: u16) {
        self.0[port as usize / 64] &= !(1 << (port % 64));
    }
}

impl Random {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(((self.next() >> 32) * u64::from(bound)) >> 32).unwrap_or_default()
    }
}

impl Wanted<'_> {
    /// The ranges to choose from, the better one first.
    fn ranges(&self) -> [PortRange; 2] {
        match self.kind.transport {
            Transport::Icmp => [PortRange::ALL; 2],
            _ if self.port < 1024 => [PortRange::PRIVILEGED, self.range],
            _ => [self.range; 2],
        }
    }

    fn is_reserved(&self, port: u16) -> bool {
        self.reserved.is_some_and(|reserved| reserved.contains(port))
    }

    fn may_keep(&self) -> bool {
        self.ranges()[0].contains(self.port) && !self.is_reserved(self.port)
    }

    /// Which bits of a word keep the port's parity.
    const fn parity(&self) -> u64 {
        match self.kind.transport {
            Transport::Udp => EVEN << (self.port % 2),
            _ => u64::MAX,
        }
    }

    /// A port by chance, as it is wanted, such that `is_free` likes it. Some tries, then none.
    pub(crate) fn guess(&self, random: &mut Random, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        if self.may_keep() && is_free(self.port) {
            return Some(self.port);
        }
        let [first, second] = self.ranges();
        [(first, self.parity()), (second, u64::MAX)].into_iter().find_map(|(range, mask)| {
            (0..64).find_map(|_| {
                let port = range.nth(random.below(range.count()));
                let fits = mask >> (port % 64) & 1 == 1 && !self.is_reserved(port);
                (fits && is_free(port)).then_some(port)
            })
        })
    }
}

impl Ports {
    pub(crate) fn new() -> Self {
        Self { used: std::array::from_fn(|_| PortSet::new()), count: 0 }
    }

    /// Number of ports in use.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) const fn is_used(&self, kind: Kind, port: u16) -> bool {
        self.used[kind.index()].contains(port)
    }

    /// A free port, as it is wanted.
    pub(crate) fn find(&self, wanted: Wanted<'_>, random: &mut Random) -> Option<u16> {
        if wanted.may_keep() && !self.is_used(wanted.kind, wanted.port) {
            return Some(wanted.port);
        }
        let [first, second] = wanted.ranges();
        [(first, wanted.parity()), (first, u64::MAX), (second, u64::MAX)]
            .into_iter()
            .find_map(|(range, mask)| self.search(wanted, range, mask, random))
    }

    fn search(&self, wanted: Wanted<'_>, range: PortRange, mask: u64, random: &mut Random) -> Option<u16> {
        let used = &self.used[wanted.kind.index()].0;
        let words = range.words();
        let (start, turn) = (random.below(words.end - words.start), random.below(64));
        words.clone().find_map(|word| {
            let word = words.start + (word - words.start + start) % (words.end - words.start);
            let reserved = wanted.reserved.map_or(0, |reserved| reserved.0[word as usize]);
            let free = !(used[word as usize] | reserved) & mask & range.word(word);
            let bit = (free.rotate_right(turn).trailing_zeros() + turn) % 64;
            u16::try_from(word * 64 + bit).ok().filter(|_| free != 0)
        })
    }

    pub(crate) const fn take(&mut self, kind: Kind, port: u16) {
        if !self.is_used(kind, port) {
            self.used[kind.index()].insert(port);
            self.count += 1;
        }
    }

    pub(crate) const fn release(&mut self, kind: Kind, port: u16) {
        if self.is_used(kind, port) {
            self.used[kind.index()].remove(port);
            self.count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::IpVersion;

    const UDP: Kind = Kind { transport: Transport::Udp, version: IpVersion::V4 };
    const TCP: Kind = Kind { transport: Transport::Tcp, version: IpVersion::V4 };

    fn wanted(kind: Kind, port: u16, range: &str) -> Wanted<'static> {
        Wanted { kind, port, range: range.parse().unwrap(), reserved: None }
    }

    #[test]
    fn a_port_is_kept_where_it_is_free() {
        let (mut ports, mut random) = (Ports::new(), Random(1));
        let wanted = wanted(TCP, 5000, "1024-65535");
        assert_eq!(ports.find(wanted, &mut random), Some(5000));
        ports.take(TCP, 5000);
        assert_ne!(ports.find(wanted, &mut random), Some(5000));
        assert_eq!(
            ports.find(Wanted { kind: UDP, ..wanted }, &mut random),
            Some(5000),
            "protocols do not share (RFC 7857, section 5)"
        );
        ports.release(TCP, 5000);
        assert_eq!((ports.find(wanted, &mut random), ports.count()), (Some(5000), 0));
    }

    #[test]
    fn every_port_is_found_before_there_is_none() {
        let (mut ports, mut random) = (Ports::new(), Random(7));
        for _ in 0..100 {
            let port = ports.find(wanted(UDP, 3, "2000-2099"), &mut random);
            assert!(port.is_some_and(|port| (600..1024).contains(&port)), "{port:?}");
            let port = ports.find(wanted(UDP, 2001, "2000-2099"), &mut random).unwrap();
            assert!((2000..2100).contains(&port) && !ports.is_used(UDP, port));
            ports.take(UDP, port);
            assert!(port % 2 == 1 || ports.count() > 50, "the same parity while there is one");
        }
        assert_eq!(ports.find(wanted(UDP, 2001, "2000-2099"), &mut random), None);
        assert_eq!(ports.find(wanted(TCP, 2001, "2000-2099"), &mut random), Some(2001));
    }

    #[test]
    fn privileged_sources_stay_privileged() {
        let (ports, mut random) = (Ports::new(), Random(3));
        assert_eq!(ports.find(wanted(TCP, 700, "1024-65535"), &mut random), Some(700));
        let port = ports.find(wanted(TCP, 68, "1024-65535"), &mut random);
        assert!(port.is_some_and(|port| (600..1024).contains(&port)), "below 600 are services: {port:?}");
    }

    #[test]
    fn reserved_ports_are_not_chosen() {
        let mut reserved = PortSet::new();
        (2000..2050).for_each(|port| reserved.insert(port));
        let (ports, mut random) = (Ports::new(), Random(3));
        for _ in 0..200 {
            let wanted = Wanted { reserved: Some(&reserved), ..wanted(TCP, 2001, "2000-2099") };
            assert!(ports.find(wanted, &mut random).is_some_and(|port| port >= 2050));
            assert!(wanted.guess(&mut random, |_| true).is_some_and(|port| port >= 2050));
        }
    }

    #[test]
    fn ports_are_chosen_evenly() {
        let (ports, mut random) = (Ports::new(), Random(11));
        let mut eighths = [0_u32; 8];
        let mut reserved = PortSet::new();
        reserved.insert(1);
        for _ in 0..8000 {
            let port = ports.find(wanted(TCP, 1024, "32768-65535"), &mut random).unwrap();
            eighths[usize::from(port - 32768) / 4096] += 1;
        }
        assert!(eighths.iter().all(|count| (800..1200).contains(count)), "{eighths:?}");
    }
}
