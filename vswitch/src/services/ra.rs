//! Router advertisements (RFC 4861, section 6.2): how stations find the gateway and make their own IPv6 addresses (RFC 4862) and
//! where they ask for names (RFC 8106).
//!
//! A solicitation is answered to its sender alone, at once; one without a source address, to all, and not more often than every
//! [`PAUSE`]. A prefix that the bridge no longer has is advertised a few times more, as deprecated, and a gateway that ends says
//! so, for stations would keep either for half an hour and more.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use rand::RngExt;
use rand::rngs::StdRng;

use super::Link;
use super::wire::{self, Hop, Solicitation};

/// ICMPv6 type of a router advertisement.
const ADVERTISEMENT: u8 = 134;
/// All nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Seconds for which the gateway is a default router: three times the longest interval.
const ROUTER_LIFETIME: u16 = 1800;
/// Seconds for which an address is valid, and for which it is preferred (RFC 4861, section 6.2.1).
const VALID: u32 = 2_592_000;
const PREFERRED: u32 = 604_800;
/// Seconds for which the addresses of a prefix that is gone stay valid; stations take no less (RFC 4862, section 5.5.3).
const RETIRED: u32 = 7200;
/// Between two advertisements to all (`MIN_DELAY_BETWEEN_RAS`).
const PAUSE: Duration = Duration::from_secs(3);
/// Seconds between advertisements for which no station asked (`MinRtrAdvInterval`, `MaxRtrAdvInterval`).
const INTERVAL: std::ops::RangeInclusive<u64> = 200..=600;
/// After a start or a change: this many come this soon (`MAX_INITIAL_RTR_ADVERTISEMENTS`, `MAX_INITIAL_RTR_ADVERT_INTERVAL`).
const INITIAL: u8 = 3;
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// Prefixes that are remembered as gone.
const MOST_RETIRED: usize = 8;

/// The advertisements of one bridge.
#[derive(Debug)]
pub(super) struct Advertiser {
    prefixes: Vec<Ipv6Net>,
    retired: Vec<Ipv6Net>,
    /// How many still come soon.
    initial: u8,
    next: Duration,
    last: Option<Duration>,
}

impl Advertiser {
    /// Begins to advertise at once.
    pub(super) fn new(now: Duration, link: &Link) -> Self {
        Self { prefixes: link.prefixes(), retired: Vec::new(), initial: INITIAL, next: now, last: None }
    }

    /// Takes on another configuration of the bridge, and tells soon.
    pub(super) fn set_link(&mut self, now: Duration, link: &Link) {
        let prefixes = link.prefixes();
        let gone = self.prefixes.iter().chain(&self.retired).filter(|prefix| !prefixes.contains(prefix));
        self.retired = gone.copied().take(MOST_RETIRED).collect();
        self.prefixes = prefixes;
        self.initial = INITIAL;
        self.next = self.earliest(now);
    }

    fn earliest(&self, now: Duration) -> Duration {
        self.last.map_or(now, |last| now.max(last + PAUSE))
    }

    /// The advertisement that is due, if one is.
    pub(super) fn tick(&mut self, now: Duration, link: &Link, random: &mut StdRng) -> Option<Vec<u8>> {
        if now < self.next {
            return None;
        }
        self.initial = self.initial.saturating_sub(1);
        let interval = Duration::from_secs(random.random_range(INTERVAL));
        self.next = now + if self.initial > 0 { interval.min(INITIAL_INTERVAL) } else { interval };
        self.last = Some(now);
        let frame = self.to_all(link, ROUTER_LIFETIME);
        if self.initial == 0 {
            self.retired.clear();
        }
        frame
    }

    /// Answers a solicitation.
    pub(super) fn solicited(&mut self, now: Duration, link: &Link, from: Solicitation) -> Option<Vec<u8>> {
        if from.source.is_unspecified() {
            self.next = self.next.min(self.earliest(now));
            return None;
        }
        self.frame(link, Hop { from: link.mac, to: from.mac }, from.source, ROUTER_LIFETIME)
    }

    /// The last advertisement: the gateway is none any more.
    pub(super) fn cease(&mut self, link: &Link) -> Option<Vec<u8>> {
        self.retired.append(&mut self.prefixes);
        self.to_all(link, 0)
    }

    fn to_all(&self, link: &Link, lifetime: u16) -> Option<Vec<u8>> {
        self.frame(link, Hop { from: link.mac, to: wire::group(ALL_NODES) }, ALL_NODES, lifetime)
    }

    fn frame(&self, link: &Link, hop: Hop, to: Ipv6Addr, lifetime: u16) -> Option<Vec<u8>> {
        // The hop limit for stations, then the flags: M, addresses by DHCPv6; O, other things by DHCPv6.
        let flags = if link.dhcp { 0xc0 } else { 0 };
        let [high, low] = lifetime.to_be_bytes();
        // Reachable time and retransmission timer: not the router's to say.
        let mut rest = vec![0; 8];
        rest.extend([1, 1]);
        rest.extend(link.mac.0);
        rest.extend([5, 1, 0, 0]);
        rest.extend(u32::from(link.mtu).to_be_bytes());
        for prefix in &self.prefixes {
            rest.extend(prefix_option(*prefix, VALID, PREFERRED));
        }
        for prefix in &self.retired {
            rest.extend(prefix_option(*prefix, RETIRED, 0));
        }
        if let Some(server) = link.addresses6().next() {
            rest.extend([25, 3, 0, 0]);
            rest.extend(u32::from(lifetime).to_be_bytes());
            rest.extend(server.addr().octets());
        }
        wire::discovery(hop, (link.mac.link_local(), to), (ADVERTISEMENT, [64, flags, high, low]), &rest)
    }
}

/// RFC 4861, section 4.6.2. On-link always; stations make addresses of 64 + 64 bits only.
fn prefix_option(prefix: Ipv6Net, valid: u32, preferred: u32) -> Vec<u8> {
    let flags = if prefix.prefix_len() == 64 { 0xc0 } else { 0x80 };
    let mut option = vec![3, 4, prefix.prefix_len(), flags];
    option.extend(valid.to_be_bytes());
    option.extend(preferred.to_be_bytes());
    option.extend([0; 4]);
    option.extend(prefix.network().octets());
    option
}
