//! Sessions as plain values, for a NAT that carries on where another ended: after an upgrade, or a crash. Times are what is left of them, so
//! the clocks of the two have nothing in common.

use std::net::SocketAddr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::counters::Denied;
use crate::key::{self, Endpoint, Kind, Transport};
use crate::rings::Link;
use crate::session::{Binding, Class, Direction, Session, Traffic};
use crate::sessions::Sessions;
use crate::settings::Mapping;
use crate::sources::CROWD;
use crate::tcp::Tcp;
use crate::{Nat, table::Table};

/// A session as it is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSession {
    /// The protocol.
    pub transport: Transport,
    /// Whose first packet it was.
    pub initiator: Direction,
    /// The container's address and port; for ICMP the identifier.
    pub inside: SocketAddr,
    /// The external port.
    pub port: u16,
    /// The other side, of the same IP version.
    pub remote: SocketAddr,
    /// How its external port came about.
    pub binding: Binding,
    /// Which timeout it has.
    pub class: Class,
    /// What was seen of a TCP connection, one bit for each fact; 0 of others.
    pub tcp: u8,
    /// Seconds until it ends, if it stays idle; more than its timeout counts as its timeout.
    pub seconds_left: u32,
    /// What went inbound and outbound, by [`Direction`].
    pub traffic: [Traffic; 2],
    /// Whether it counts as one of the crowd's: of the containers that came when [`Settings::sources`](crate::Settings::sources) others had
    /// sessions already.
    pub crowded: bool,
}

/// How much of the table one page goes through: a few hundred microseconds.
const PAGE: usize = 1 << 14;

impl Nat {
    /// All sessions whose time is not over, in no order.
    pub fn export(&self, now: Instant) -> impl Iterator<Item = SavedSession> {
        self.saved(self.table.iter(), now)
    }

    /// As [`Nat::export`], but only as many as take a moment, from the place `from` of the table on, which begins with 0; and the place that the next
    /// such call goes on from, if there is more. What comes about between two calls may be in none, and what was in one may be in the next again.
    pub fn export_page(&self, now: Instant, from: usize) -> (Vec<SavedSession>, Option<usize>) {
        let (sessions, next) = self.table.page(from, PAGE);
        (self.saved(sessions, now).collect(), next)
    }

    fn saved<'a>(&self, sessions: impl Iterator<Item = &'a Session>, now: Instant) -> impl Iterator<Item = SavedSession> {
        let now = self.seconds_since(now);
        sessions.filter(move |session| session.deadline > now).map(move |session| SavedSession {
            transport: session.kind.transport,
            initiator: session.initiator,
            inside: session.inside().socket(session.kind.version),
            port: session.port,
            remote: session.remote().socket(session.kind.version),
            binding: session.binding,
            class: session.class,
            tcp: session.tcp.bits(),
            seconds_left: session.deadline - now,
            traffic: session.traffic,
            crowded: session.source == CROWD,
        })
    }

    /// Takes on a session of another NAT, whose settings may have been others. The addresses and forwards must have been set before.
    ///
    /// # Errors
    /// It could not have come about here: the uplink has no address of its IP version, no forward says the same any more, its ports are
    /// another session's, there is no room. Nothing has changed then.
    pub fn import(&mut self, now: Instant, saved: &SavedSession) -> Result<(), Denied> {
        let now = self.second(now);
        let session = self.revived(now, saved)?;
        let (inside, remote) = (session.inside(), session.remote());
        let others = [
            self.table.find_outside(now, session.kind, session.port, remote),
            self.table.find_inside(now, session.kind, inside, remote),
        ];
        if others.iter().any(Option::is_some) {
            return Err(Denied::Clash);
        }
        match session.binding {
            Binding::Forwarded if self.forwards.target(session.kind, session.port) != Some(inside) => {
                return Err(Denied::NoSession);
            }
            Binding::Mapped => self.table.check_mapping(now, &session)?,
            Binding::Forwarded | Binding::Alone => {}
        }
        // Who was first is not known any more. Were it decided anew, the crowd might be another, and more than a source may have.
        if saved.crowded {
            self.table.make_room_for(Some(CROWD))?;
            self.table.insert_of(CROWD, session);
        } else {
            self.table.make_room(session.kind, session.inside_address)?;
            self.table.insert(session);
        }
        Ok(())
    }

    fn revived(&self, now: u32, saved: &SavedSession) -> Result<Session, Denied> {
        let version = key::version(saved.inside.ip());
        self.addresses[version as usize].ok_or(Denied::NoAddress)?;
        let kind = Kind { transport: saved.transport, version };
        let (tcp, class) = (Tcp::from_bits(saved.tcp), saved.class);
        let class = match kind.transport {
            Transport::Tcp => tcp.class(),
            Transport::Udp if matches!(class, Class::Udp | Class::UdpDns | Class::UdpUnreplied) => class,
            Transport::Icmp if class == Class::Icmp => class,
            Transport::Udp | Transport::Icmp => return Err(Denied::Malformed),
        };
        let depends = self.settings.mapping == Mapping::EndpointDependent;
        let is_of_mapping = saved.binding == Binding::Forwarded || (saved.binding == Binding::Alone) == depends;
        if key::version(saved.remote.ip()) != version || !is_of_mapping || saved.seconds_left == 0 {
            return Err(Denied::Malformed);
        }
        let inside = Endpoint::new(saved.inside.ip(), saved.inside.port());
        let remote = Endpoint::new(saved.remote.ip(), saved.remote.port());
        Ok(Session {
            inside_address: inside.address,
            remote_address: remote.address,
            traffic: saved.traffic,
            links: [Link::OUT; 4],
            deadline: now.saturating_add(saved.seconds_left.min(self.table.seconds(class))),
            listed: 0,
            source: 0,
            inside_port: inside.port,
            port: saved.port,
            remote_port: remote.port,
            kind,
            class,
            tcp,
            binding: saved.binding,
            initiator: saved.initiator,
        })
    }
}

impl Table {
    /// Whether a session's external port is that of its container's port, or free.
    fn check_mapping(&mut self, now: u32, session: &Session) -> Result<(), Denied> {
        let fits = match self.mapping(now, session.kind, session.inside()) {
            Some(mapped) => self.session(mapped).port == session.port,
            None => !self.ports.is_used(session.kind, session.port),
        };
        if fits { Ok(()) } else { Err(Denied::Clash) }
    }
}
