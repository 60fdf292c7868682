//! The router's three questions: asked of the table itself, which then has the packet's session, or of a [`Peek`], to know the answer beforehand.

use std::net::IpAddr;
use std::time::Instant;

use packet::IpPacket;

use crate::counters::Denied;
use crate::fragments::{Fragments, Way};
use crate::icmp::Error;
use crate::key::{self, Endpoint, Kind, Transport};
use crate::ports::{Random, Wanted};
use crate::read::{Flow, Subject};
use crate::rewrite::Rewrite;
use crate::rings::Link;
use crate::rules::Forwards;
use crate::session::{Binding, Class, Direction, Session, Traffic};
use crate::sessions::Sessions;
use crate::settings::{Filtering, Mapping};
use crate::table::{Peek, Table};
use crate::tcp::Tcp;
use crate::{Nat, Settings};

/// A question about one packet, in one second, with all that the answer depends on.
struct Question<'a, T> {
    now: u32,
    settings: &'a Settings,
    addresses: [Option<IpAddr>; 2],
    forwards: &'a Forwards,
    fragments: &'a Fragments,
    table: &'a mut T,
    random: &'a mut Random,
}

/// A session that is about to begin.
#[derive(Clone, Copy, Debug)]
struct Opening {
    inside: Endpoint,
    remote: Endpoint,
    port: u16,
    binding: Binding,
    initiator: Direction,
    /// The second in which it ends at the latest, while only the outside wants it.
    at_most: u32,
}

impl Nat {
    /// What becomes of a packet that leaves by this uplink.
    ///
    /// # Errors
    /// Why it does not leave.
    pub fn outbound(&mut self, now: Instant, packet: &IpPacket, frame: &[u8]) -> Result<Rewrite, Denied> {
        let now = self.second(now);
        let result = self.question(now).outbound(packet, frame);
        self.note(now, Way::Outbound, packet, result.as_ref().map(Some));
        result
    }

    /// What becomes of a packet that came to one of the external addresses; `None` if no session and no forward wants it, so
    /// that it is for the switch itself. Sessions that are older than the NAT are unknown, so for its first 15 minutes a TCP segment without
    /// SYN is not for the switch, which would reset a connection that the next packet from inside picks up. To be true to RFC 5382, REQ-4,
    /// the switch does not answer a TCP SYN to a closed port at once.
    ///
    /// # Errors
    /// Why it does not get in.
    pub fn inbound(&mut self, now: Instant, packet: &IpPacket, frame: &[u8]) -> Result<Option<Rewrite>, Denied> {
        let now = self.second(now);
        let result = self.question(now).inbound(packet, frame);
        self.note(now, Way::Inbound, packet, result.as_ref().map(Option::as_ref));
        result
    }

    /// What becomes of a packet from inside to one of the external addresses (RFC 4787, REQ-9); `None` if it is for the switch
    /// itself.
    ///
    /// # Errors
    /// Why it does not get through.
    pub fn hairpin(&mut self, now: Instant, packet: &IpPacket, frame: &[u8]) -> Result<Option<Rewrite>, Denied> {
        let now = self.second(now);
        let result = self.question(now).hairpin(packet, frame);
        self.note(now, Way::Hairpin, packet, result.as_ref().map(Option::as_ref));
        result
    }

    /// Counts what was denied, and remembers what becomes of a packet whose later fragments are to come.
    fn note(&mut self, now: u32, way: Way, packet: &IpPacket, result: Result<Option<&Rewrite>, &Denied>) {
        match result {
            Ok(rewrite) if packet.fragment.is_some_and(|fragment| fragment.offset == 0) => {
                self.fragments.remember(now, way, packet, rewrite);
            }
            Ok(_) => {}
            Err(denied) => self.table.counters.count(*denied),
        }
    }

    /// What [`Nat::outbound`] would say now. Nothing changes.
    ///
    /// # Errors
    /// Why the packet would not leave.
    pub fn peek_outbound(&self, now: Instant, packet: &IpPacket, frame: &[u8]) -> Result<Rewrite, Denied> {
        self.peek(now, |question| question.outbound(packet, frame))
    }

    /// What [`Nat::inbound`] would say now. Nothing changes.
    ///
    /// # Errors
    /// Why the packet would not get in.
    pub fn peek_inbound(&self, now: Instant, packet: &IpPacket, frame: &[u8]) -> Result<Option<Rewrite>, Denied> {
        self.peek(now, |question| question.inbound(packet, frame))
    }

    /// What [`Nat::hairpin`] would say now. Nothing changes.
    ///
    /// # Errors
    /// Why the packet would not get through.
    pub fn peek_hairpin(&self, now: Instant, packet: &IpPacket, frame: &[u8]) -> Result<Option<Rewrite>, Denied> {
        self.peek(now, |question| question.hairpin(packet, frame))
    }

    fn question(&mut self, now: u32) -> Question<'_, Table> {
        let Self { settings, addresses, forwards, table, fragments, random, .. } = self;
        Question { now, settings, addresses: *addresses, forwards, fragments, table, random }
    }

    fn peek<R>(&self, now: Instant, ask: impl FnOnce(&mut Question<'_, Peek<'_>>) -> R) -> R {
        let Self { settings, addresses, forwards, table, fragments, random, .. } = self;
        let (now, mut random, mut peek) = (self.seconds_since(now), random.clone(), Peek::at(table));
        let (table, random) = (&mut peek, &mut random);
        ask(&mut Question { now, settings, addresses: *addresses, forwards, fragments, table, random })
    }
}

impl<T: Sessions> Question<'_, T> {
    fn outbound(&mut self, packet: &IpPacket, frame: &[u8]) -> Result<Rewrite, Denied> {
        let external = self.external(packet)?;
        match Subject::of(packet, frame)? {
            Subject::Flow(flow) => {
                let port = self.leave(&flow, packet.length())?;
                Ok(Rewrite::flow(packet, flow.kind).from(Endpoint::new(external, port)))
            }
            Subject::Error(error) => {
                let port = self.quoted_inside(packet, &error).ok_or(Denied::StrayError)?;
                Ok(Rewrite::error(packet, &error).from(Endpoint::new(external, port)))
            }
            Subject::Fragment => {
                self.fragments.find(self.now, Way::Outbound, packet).flatten().ok_or(Denied::FragmentBeforeFirst)
            }
        }
    }

    fn inbound(&mut self, packet: &IpPacket, frame: &[u8]) -> Result<Option<Rewrite>, Denied> {
        if self.external(packet) != Ok(packet.destination) {
            return Ok(None);
        }
        match Subject::of(packet, frame) {
            Ok(Subject::Flow(flow)) => match self.enter(&flow, packet.length())? {
                Some(inside) => Ok(Some(Rewrite::flow(packet, flow.kind).to(inside))),
                None if self.now < PICK_UP && flow.is_in_connection() => Err(Denied::Older),
                None => Ok(None),
            },
            Ok(Subject::Error(error)) => {
                let inside = self.quoted_outside(&error.flow);
                Ok(inside.map(|inside| Rewrite::error(packet, &error).to(inside)))
            }
            Ok(Subject::Fragment) => self.fragments.find(self.now, Way::Inbound, packet).ok_or(Denied::FragmentBeforeFirst),
            Err(Denied::UntrackedProtocol) => Ok(None),
            Err(denied) => Err(denied),
        }
    }

    fn hairpin(&mut self, packet: &IpPacket, frame: &[u8]) -> Result<Option<Rewrite>, Denied> {
        let external = self.external(packet)?;
        if external != packet.destination {
            return Ok(None);
        }
        match Subject::of(packet, frame) {
            Ok(Subject::Flow(flow)) if flow.kind.transport != Transport::Icmp => {
                self.turn(&flow, packet.length(), external).map(|ends| {
                    let (source, inside) = ends?;
                    Some(Rewrite::flow(packet, flow.kind).from(source).to(inside))
                })
            }
            Ok(Subject::Error(error)) => {
                let Some(port) = self.quoted_inside(packet, &error) else { return Ok(None) };
                let outside = Endpoint::new(external, port);
                let quoted = Flow { destination: outside, ..error.flow };
                let inside = self.quoted_outside(&quoted).ok_or(Denied::StrayError)?;
                Ok(Some(Rewrite::error(packet, &error).from(outside).to(inside)))
            }
            Ok(Subject::Fragment) => self.fragments.find(self.now, Way::Hairpin, packet).ok_or(Denied::FragmentBeforeFirst),
            Ok(Subject::Flow(_)) | Err(Denied::UntrackedProtocol) => Ok(None),
            Err(denied) => Err(denied),
        }
    }

    /// A packet from inside to an external port: out as `outbound` has it, in as `inbound` does. No session begins if no container
    /// is behind that port.
    fn turn(&mut self, flow: &Flow, bytes: usize, external: IpAddr) -> Result<Option<(Endpoint, Endpoint)>, Denied> {
        let port = flow.destination.port;
        let known = self.table.find_inside(self.now, flow.kind, flow.source, flow.destination).is_some();
        if !known && self.forwards.target(flow.kind, port).is_none() && !self.table.is_used(flow.kind, port) {
            return Ok(None);
        }
        let source = Endpoint::new(external, self.leave(flow, bytes)?);
        Ok(self.enter(&Flow { source, ..*flow }, bytes)?.map(|inside| (source, inside)))
    }

    /// The external port of an outbound packet, which may begin a session.
    fn leave(&mut self, flow: &Flow, bytes: usize) -> Result<u16, Denied> {
        let (kind, inside, remote) = (flow.kind, flow.source, flow.destination);
        if flow.is_reply {
            return Err(Denied::NoSession);
        }
        if let Some(index) = self.table.find_inside(self.now, kind, inside, remote) {
            self.table.pass(self.now, index, Direction::Outbound, flow.flags, bytes);
            return Ok(self.table.session(index).port);
        }
        if flow.flags.rst() {
            return Err(Denied::NoSession);
        }
        self.table.make_room(kind, inside.address)?;
        let (port, binding) = self.bind(kind, inside, remote)?;
        let initiator = Direction::Outbound;
        self.begin(flow, bytes, Opening { inside, remote, port, binding, initiator, at_most: u32::MAX })?;
        Ok(port)
    }

    /// An external port for a container's: a forward's, its mapping's, or a new one.
    fn bind(&mut self, kind: Kind, inside: Endpoint, remote: Endpoint) -> Result<(u16, Binding), Denied> {
        if let Some(port) = self.forwards.port(kind, inside) {
            return Ok((port, Binding::Forwarded));
        }
        let Settings { mapping, ports: range, .. } = *self.settings;
        let wanted = Wanted { kind, port: inside.port, range, reserved: self.forwards.reserved(kind) };
        if mapping == Mapping::EndpointDependent {
            let is_free = |port| !self.table.is_taken(kind, port, remote);
            let is_new = |port| is_free(port) && !self.table.has_port(kind, inside, port);
            // A container's port with more remotes than there are ports has one for several.
            let port = wanted.guess(self.random, is_new).or_else(|| wanted.guess(self.random, is_free));
            return port.map(|port| (port, Binding::Alone)).ok_or(Denied::NoPort);
        }
        let mapped = self.table.mapping(self.now, kind, inside).map(|index| self.table.session(index).port);
        let port = mapped.or_else(|| self.table.free_port(wanted, self.random)).ok_or(Denied::NoPort)?;
        Ok((port, Binding::Mapped))
    }

    /// The container that an inbound packet is for, which may begin a session; `None` if no mapping and no forward has the port.
    fn enter(&mut self, flow: &Flow, bytes: usize) -> Result<Option<Endpoint>, Denied> {
        let (kind, port, remote) = (flow.kind, flow.destination.port, flow.source);
        if kind.transport == Transport::Icmp && !flow.is_reply {
            return Ok(None);
        }
        if let Some(index) = self.table.find_outside(self.now, kind, port, remote) {
            self.table.pass(self.now, index, Direction::Inbound, flow.flags, bytes);
            return Ok(Some(self.table.session(index).inside()));
        }
        let Some((inside, binding, at_most)) = self.welcome(flow)? else { return Ok(None) };
        self.table.make_room(kind, inside.address)?;
        // Room may have been made at the cost of the very mapping.
        if binding == Binding::Mapped && !self.table.is_used(kind, port) {
            return Err(Denied::Filtered);
        }
        let initiator = Direction::Inbound;
        self.begin(flow, bytes, Opening { inside, remote, port, binding, initiator, at_most })?;
        Ok(Some(inside))
    }

    /// Whether a packet from outside may begin a session: with which container's port, by a mapping or a forward, and until when.
    fn welcome(&mut self, flow: &Flow) -> Result<Option<(Endpoint, Binding, u32)>, Denied> {
        let (kind, port) = (flow.kind, flow.destination.port);
        if let Some(inside) = self.forwards.target(kind, port) {
            return if flow.flags.rst() { Err(Denied::NoSession) } else { Ok(Some((inside, Binding::Forwarded, u32::MAX))) };
        }
        if !self.table.is_used(kind, port) {
            return Ok(None);
        }
        let may_begin = match kind.transport {
            Transport::Tcp => flow.flags.opens(),
            Transport::Udp => true,
            Transport::Icmp => false,
        };
        if !may_begin || self.settings.filtering == Filtering::AddressAndPortDependent {
            return Err(Denied::Filtered);
        }
        let peer = self.table.peer(self.now, kind, port, flow.source.address).ok_or(Denied::Filtered)?;
        let peer = self.table.session(peer);
        // A new remote must not keep a mapping alive where packets of known ones do not (RFC 4787, REQ-6).
        let is_bound = kind.transport == Transport::Udp && !self.settings.inbound_refresh;
        Ok(Some((peer.inside(), Binding::Mapped, if is_bound { peer.deadline } else { u32::MAX })))
    }

    /// Begins a session with its first packet.
    fn begin(&mut self, flow: &Flow, bytes: usize, opening: Opening) -> Result<(), Denied> {
        let Opening { inside, remote, port, binding, initiator, at_most } = opening;
        let kind = flow.kind;
        let others =
            [self.table.find_outside(self.now, kind, port, remote), self.table.find_inside(self.now, kind, inside, remote)];
        for other in others.into_iter().flatten() {
            if !self.table.session(other).is_over() {
                return Err(Denied::Clash);
            }
            self.table.give_way(other);
        }
        let tcp = Tcp::first(initiator, flow.flags);
        let class = match kind.transport {
            Transport::Tcp => tcp.class(),
            Transport::Udp if remote.port == DNS && initiator == Direction::Outbound => Class::UdpDns,
            Transport::Udp => Class::UdpUnreplied,
            Transport::Icmp => Class::Icmp,
        };
        let mut session = Session {
            inside_address: inside.address,
            remote_address: remote.address,
            traffic: [Traffic::default(); 2],
            links: [Link::OUT; 4],
            deadline: self.now.saturating_add(self.table.seconds(class)).min(at_most),
            listed: 0,
            source: 0,
            inside_port: inside.port,
            port,
            remote_port: remote.port,
            kind,
            class,
            tcp,
            binding,
            initiator,
        };
        session.count(initiator, bytes);
        self.table.insert(session);
        Ok(())
    }

    /// The external port of the session whose inbound packet an error from inside quotes (RFC 5508, REQ-5).
    fn quoted_inside(&mut self, packet: &IpPacket, error: &Error) -> Option<u16> {
        let Flow { kind, source, destination, is_reply, .. } = error.flow;
        if source.address != key::bits(packet.destination) || is_reply != (kind.transport == Transport::Icmp) {
            return None;
        }
        let index = self.table.find_inside(self.now, kind, destination, source)?;
        Some(self.table.session(index).port)
    }

    /// The container of the session whose outbound packet an error from outside quotes (RFC 5508, REQ-4).
    fn quoted_outside(&mut self, quoted: &Flow) -> Option<Endpoint> {
        let Flow { kind, source, destination, is_reply, .. } = *quoted;
        if self.addresses[kind.version as usize].map(key::bits) != Some(source.address) || is_reply {
            return None;
        }
        let index = self.table.find_outside(self.now, kind, source.port, destination)?;
        Some(self.table.session(index).inside())
    }

    fn external(&self, packet: &IpPacket) -> Result<IpAddr, Denied> {
        self.addresses[packet.version as usize].ok_or(Denied::NoAddress)
    }
}

/// Seconds after the start in which a connection that is older may still be picked up by its next packet from inside. A peer that hears
/// nothing gives up about then (`tcp_retries2` of Linux).
const PICK_UP: u32 = 900;
/// The port of name servers.
const DNS: u16 = 53;
