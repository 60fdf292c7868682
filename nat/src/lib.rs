//! NAT and connection tracking without I/O.
//!
//! # Theory of operation
//!
//! A [`Nat`] is one uplink's translation between containers and the outside. The router asks it about a packet, in one of three
//! ways: [`Nat::outbound`] for a packet that leaves, [`Nat::inbound`] for one that came to an external address,
//! [`Nat::hairpin`] for one from inside to an external address. The answer is a [`Rewrite`], a small value that says what
//! changes, or a [`Denied`]; what it would be is told beforehand by [`Nat::peek_outbound`] and its like, in which nothing changes. Only
//! [`Rewrite::apply`] changes bytes. There is no clock (`now` is an argument), no I/O, no lock,
//! and no allocation once the table has been as full as it gets.
//!
//! **A session** is a container's port, a remote's port and the external port between them, in a table that finds it from both
//! sides. It begins with a packet from inside, with one from outside that a [`Forward`] covers, or with one from outside to a
//! port that a container has opened and that [filtering](Filtering) lets in. **A mapping** is all sessions of one container
//! port: they share the external port ([`Mapping`]), which is free again when the last one ends. A container's port that a
//! forward leads to has the forward's external port for what it sends as well, so a server's peers see one address.
//!
//! **Hairpins** are nothing special: the packet is translated on its way out and then on its way in, by two sessions, in one
//! [`Rewrite`]. So the other container sees the external address (RFC 4787, REQ-9), and replies come back the same way.
//!
//! **ICMP errors** belong to the session of the packet that they quote, and are translated outside and inside; they neither
//! keep a session alive nor end it (RFC 5508, REQ-6).
//!
//! **What bounds it.** [`Settings::sessions`] in all, [`Settings::sessions_per_source`] for one container; 2048 packets in
//! fragments; 65,536 ports for each protocol.
//!
//! **Who goes first.** A container at its own bound loses its oldest session that is not established. When the table is full, the
//! container with the most sessions loses its oldest one that is not established, or else one that was idle for long. No established
//! session ends for a new one of the same container. So a container that opens a flood of sessions competes with itself.
//!
//! **When they end.** Every state has [a timeout](Timeouts), exact to the second, and [`Nat::expire`] frees what is over.
//!
//! What is asked for by the RFCs, and what is done, is listed in `docs/nat-conformance.md`.
//!
//! # Reading on
//!
//! `translate`: the three questions. `prefetch`: what makes them cheap in a large table. `read`, `icmp`: from a packet to what it is
//! about. `table`, with `groups`, `wheel`, `sources`, `ports`, `index` and `rings`: where sessions are. `tcp`: how far a connection is.
//! `rules`: forwards. `rewrite`: bytes.
#![forbid(unsafe_code)]

mod counters;
mod fragments;
mod groups;
mod icmp;
mod index;
mod key;
mod persist;
mod ports;
mod prefetch;
mod read;
mod rewrite;
mod rings;
mod rules;
mod session;
mod sessions;
mod settings;
mod sources;
mod table;
mod tcp;
mod translate;
mod wheel;

use std::net::IpAddr;
use std::time::Instant;

pub use counters::{Counters, Denied};
pub use key::Transport;
pub use persist::SavedSession;
pub use rewrite::{EndChange, Rewrite};
pub use rules::{Forward, ForwardError, PortRange, Protocol};
pub use session::{Binding, Class, Direction, SessionRow, State, Traffic};
pub use settings::{Filtering, Mapping, Settings, Timeouts};

use fragments::Fragments;
use packet::IpVersion;
use ports::Random;
use rules::Forwards;
use session::Session;
use table::Table;

/// The translation of one uplink.
#[derive(Debug)]
pub struct Nat {
    settings: Settings,
    /// By [`IpVersion`].
    addresses: [Option<IpAddr>; 2],
    rules: Vec<Forward>,
    forwards: Forwards,
    table: Table,
    fragments: Fragments,
    random: Random,
    /// Second 0: its start, or when it was first told the time.
    began: Option<Instant>,
}

impl Nat {
    /// A NAT without addresses. `seed` should be random: it chooses ports and protects the tables' hashes.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            table: Table::new(&settings, seed),
            settings,
            addresses: [None; 2],
            rules: Vec::new(),
            forwards: Forwards::default(),
            fragments: Fragments::new(seed),
            random: Random(seed),
            began: None,
        }
    }

    /// The settings that it was made with.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The external addresses from now on: the first of each IP version. Sessions of an address that went end.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) {
        let first = |version| addresses.iter().copied().find(|address| key::version(*address) == version);
        let addresses = [first(IpVersion::V4), first(IpVersion::V6)];
        let before = std::mem::replace(&mut self.addresses, addresses);
        if before != addresses {
            let same = |version: IpVersion| before[version as usize] == addresses[version as usize];
            self.table.retain(|session| same(session.kind.version));
            self.fragments.clear();
            self.resolve_forwards();
        }
    }

    /// The forwards from now on; where two have the same port, the first has it. Sessions by a forward go on if one still says
    /// the same, and end otherwise. All others stay, even on a port that now is a forward's.
    pub fn set_forwards(&mut self, forwards: Vec<Forward>) {
        self.rules = forwards;
        self.resolve_forwards();
    }

    fn resolve_forwards(&mut self) {
        self.forwards = Forwards::new(&self.rules, self.addresses);
        let forwards = &self.forwards;
        let is_justified = |session: &Session| forwards.target(session.kind, session.port) == Some(session.inside());
        self.table.retain(|session| session.binding != Binding::Forwarded || is_justified(session));
    }

    /// Ends at most `budget` sessions whose time is over, and returns how many: less than `budget` means that none is left.
    pub fn expire(&mut self, now: Instant, budget: usize) -> usize {
        let now = self.second(now);
        self.table.expire(now, budget)
    }

    /// All sessions, in no order.
    pub fn sessions(&self, now: Instant) -> impl Iterator<Item = SessionRow> {
        let now = self.seconds_since(now);
        self.table.iter().filter(move |session| session.deadline > now).map(move |session| self.row(now, session))
    }

    /// Ends the sessions that `filter` picks, and returns how many.
    pub fn flush(&mut self, now: Instant, mut filter: impl FnMut(&SessionRow) -> bool) -> usize {
        let now = self.seconds_since(now);
        let addresses = self.addresses;
        self.table.retain(|session| !filter(&row(addresses, now, session)))
    }

    /// What it did and has.
    pub fn counters(&self) -> Counters {
        Counters { sessions: self.table.len() as u64, ports_in_use: self.table.ports.count(), ..self.table.counters }
    }

    fn row(&self, now: u32, session: &Session) -> SessionRow {
        row(self.addresses, now, session)
    }

    /// The second that it is, counted from the first packet.
    fn second(&mut self, now: Instant) -> u32 {
        self.began.get_or_insert(now);
        self.seconds_since(now)
    }

    fn seconds_since(&self, now: Instant) -> u32 {
        let seconds = self.began.map_or(0, |began| now.saturating_duration_since(began).as_secs());
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }
}

fn row(addresses: [Option<IpAddr>; 2], now: u32, session: &Session) -> SessionRow {
    let version = session.kind.version;
    let unspecified = || key::address(version, 0);
    SessionRow {
        transport: session.kind.transport,
        initiator: session.initiator,
        inside: session.inside().socket(version),
        external: (addresses[version as usize].unwrap_or_else(unspecified), session.port).into(),
        remote: session.remote().socket(version),
        state: session.state(),
        forwarded: session.binding == Binding::Forwarded,
        seconds_left: session.deadline.saturating_sub(now),
        outbound: session.traffic[Direction::Outbound as usize],
        inbound: session.traffic[Direction::Inbound as usize],
    }
}

#[cfg(test)]
mod tests;
