//! The DHCPv4 client of an uplink whose `address` is `"dhcp"`, or of a container on a LAN (RFC 2131, section 4.4): frames in, frames out,
//! the time as an argument.
//!
//! It takes the first offer, asks with a doubling pause and a jitter of a second, renews with the server at T1, with any server at
//! T2, and lets go when the lease ends. Its last lease is kept in `state-dir`; a restart asks for that one first (INIT-REBOOT).
//! It does not wait before its first message (section 4.4.1, "SHOULD"): one switch starts at a time, not a power-cycled office.
//!
//! **Conflicts** (RFC 5227). An address that is new is asked for on the link before it is used, which takes four to seven seconds; the
//! router hands over the ARP frames that may be answers. If a station has it, or asks for it at the same time, the server is told
//! (DHCPDECLINE) and asked for another one after a pause. The last lease, which a restart asks for again, is used at once: sessions of
//! stations should not wait for what was found out before. An address in use is defended once, and given up if its rival insists
//! within ten seconds (section 2.4 (b)).
//!
//! **Containers.** An address that a container has cannot be taken from it. So once it has one, its client wants no other: a lease that is
//! refused or ends is told ([`Event::Lost`]) and asked for again, by a DISCOVER that names the address, until a server offers that one. A
//! rival is told and defended against for as long as it lasts (RFC 5227, section 2.4 (c)).

mod conflict;
mod lease;
mod messages;
mod pace;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use packet::Mac;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use smoltcp::wire::{DhcpMessageType as Kind, DhcpOpCode};

pub(super) use conflict::{Probe, probe};
pub use lease::Terms;
use lease::{Held, Kept};
pub(super) use pace::CONTAINER;
use pace::Pace;

use super::dhcp4::{CLIENT_PORT, Message, option};
use super::store::Store;
use super::wire::{self, Received};

/// Pauses before the second, third, ... message (RFC 2131, section 4.1): 4 seconds, doubled up to 64.
const FIRST_PAUSE: u64 = 4;
const MOST_DOUBLINGS: u32 = 4;
/// Requests for an offer, and for the last lease, before it starts again.
const REQUESTS: u32 = 4;
const REBOOTS: u32 = 2;
/// Least pause between messages that extend a lease (section 4.4.5).
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
/// Pause after a declined address (section 3.1, step 5).
const DECLINE_PAUSE: Duration = Duration::from_secs(10);
/// How often an address is announced on the link (RFC 5227, section 1.1: `ANNOUNCE_NUM`).
const ANNOUNCEMENTS: u32 = 2;
/// Between two announcements (`ANNOUNCE_INTERVAL`).
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(2);
/// An address is defended no more often than this (`DEFEND_INTERVAL`).
const DEFENCE: Duration = Duration::from_secs(10);

/// For whom an address is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An uplink, which takes on whatever it is given.
    Uplink,
    /// A container, and the address that it has already.
    Container(Option<Ipv4Addr>),
}

/// A client on one link.
#[derive(Debug)]
pub struct Client {
    mac: Mac,
    purpose: Purpose,
    random: StdRng,
    store: Store,
    state: State,
    /// The number of the exchange that is under way.
    xid: u32,
    /// When it began.
    began: Duration,
    /// When there is something to do, if nothing arrives before.
    next: Duration,
}

#[derive(Debug)]
enum State {
    /// Looking for a server: DISCOVERs sent.
    Selecting { tries: u32 },
    /// Asking for what one offered: REQUESTs sent.
    Requesting { tries: u32, offer: Held },
    /// Asking for the last lease again: REQUESTs sent.
    Rebooting { tries: u32, last: Held },
    /// It was given an address, and asks on the link whether a station has it: probes sent.
    Probing { held: Held, probe: Probe },
    /// It has an address, and has said so on the link `announced` times.
    Holding { held: Held, stage: Stage, announced: u32, defended: Option<Duration> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Bound,
    Renewing,
    Rebinding,
}

/// What has become of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is this one, with what goes with it, for the first time or changed.
    Bound(Terms),
    /// No server grants it any more. An uplink has none now; a container keeps it.
    Lost,
    /// The station with this MAC address has this one too. An uplink has none now; a container keeps what it has.
    Conflict(Ipv4Addr, Mac),
    /// No server has offered one to a container in time.
    Unanswered,
    /// One was offered to a container, and not granted in time.
    Unfinished,
    /// No station has the one that a container was given otherwise, by Docker.
    Free,
}

/// What the client does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClientStep {
    /// Frames to send on the uplink.
    pub frames: Vec<Vec<u8>>,
    /// What has changed, in this order.
    pub events: Vec<Event>,
}

impl Client {
    /// A client with this address on the link; it keeps its lease in the file at `path`. It begins with the next
    /// [`tick`](Client::tick).
    pub fn new(now: Duration, purpose: Purpose, mac: Mac, path: PathBuf, seed: u64) -> Self {
        let store = Store::new(path);
        let kept: Option<Kept> = store.read();
        let mut random = StdRng::seed_from_u64(seed);
        let last = kept.and_then(|kept| kept.held(mac, now)).filter(|last| purpose.takes(last));
        let state = last.map_or(State::Selecting { tries: 0 }, |last| State::Rebooting { tries: 0, last });
        let xid = random.random();
        Self { mac, purpose, random, store, state, xid, began: now, next: now }
    }

    /// Whether a server has offered something, or is asked for what it gave before.
    pub(super) const fn is_answered(&self) -> bool {
        !matches!(self.state, State::Selecting { .. })
    }

    /// Its address on the link.
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// The address and what goes with it, if it has one.
    pub const fn terms(&self) -> Option<&Terms> {
        match &self.state {
            State::Holding { held, .. } => Some(&held.terms),
            _ => None,
        }
    }

    /// When [`tick`](Client::tick) next has something to do.
    pub const fn next(&self) -> Duration {
        self.next
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) -> ClientStep {
        let mut step = ClientStep::default();
        if now < self.next {
            return step;
        }
        match &mut self.state {
            State::Selecting { tries } => {
                *tries += 1;
                let tries = *tries;
                self.pause(now, tries);
                step.frames.extend(messages::discover(self, now));
            }
            State::Requesting { tries, .. } if *tries < REQUESTS => {
                *tries += 1;
                let tries = *tries;
                self.pause(now, tries);
                step.frames.extend(messages::request(self, now));
            }
            State::Rebooting { tries, .. } if *tries < REBOOTS => {
                *tries += 1;
                let tries = *tries;
                self.pause(now, tries);
                step.frames.extend(messages::request(self, now));
            }
            State::Requesting { .. } => self.restart(now, Duration::ZERO),
            State::Rebooting { .. } => self.stop_rebooting(now, &mut step),
            State::Probing { held, probe } => match probe.next(&mut self.random) {
                Some((frame, pause)) => {
                    self.next = now + pause;
                    step.frames.push(frame);
                }
                None => {
                    let held = held.clone();
                    self.hold(now, held, &mut step);
                }
            },
            State::Holding { held, announced, .. } if *announced < ANNOUNCEMENTS && now < held.renew => {
                *announced += 1;
                self.next = if *announced < ANNOUNCEMENTS { held.renew.min(now + ANNOUNCE_PAUSE) } else { held.renew };
                step.frames.push(conflict::announcement(self.mac, held.terms.address.addr()));
            }
            State::Holding { .. } => self.extend(now, &mut step),
        }
        step
    }

    /// Takes a frame that arrived on the uplink; those that are neither for a DHCP client nor about its address change nothing.
    pub fn receive(&mut self, now: Duration, frame: &[u8]) -> ClientStep {
        let mut step = ClientStep::default();
        self.watch(now, frame, &mut step);
        let Some(Received::Datagram(datagram)) = wire::parse(frame) else { return step };
        let Some(message) = Message::parse(datagram.payload, DhcpOpCode::Reply) else { return step };
        let ours = datagram.destination.port() == CLIENT_PORT && message.xid() == self.xid && message.chaddr() == self.mac;
        if !ours {
            return step;
        }
        match (message.kind, &self.state) {
            (Kind::Offer, State::Selecting { .. }) => {
                if let Some(offer) = Held::read(now, &message, datagram.mac).filter(|offer| self.purpose.takes(offer)) {
                    self.state = State::Requesting { tries: 0, offer };
                    self.next = now;
                    step = self.tick(now);
                }
            }
            (Kind::Ack, State::Requesting { .. } | State::Rebooting { .. } | State::Holding { .. }) => {
                match Held::read(now, &message, datagram.mac).filter(|held| self.awaits(held)) {
                    Some(held) if matches!(self.state, State::Requesting { .. }) => self.begin_to_probe(now, held),
                    Some(held) => self.hold(now, held, &mut step),
                    None => {}
                }
            }
            (Kind::Nak, State::Requesting { .. } | State::Rebooting { .. } | State::Holding { .. })
                if self.trusts(&message) =>
            {
                self.lose(now, Duration::ZERO, &mut step);
            }
            _ => {}
        }
        step
    }

    /// Looks in an ARP frame for another station with the address.
    fn watch(&mut self, now: Duration, frame: &[u8], step: &mut ClientStep) {
        let (address, rival) = match &self.state {
            State::Probing { held, probe } => (held.terms.address.addr(), probe.rival(frame)),
            State::Holding { held, .. } => {
                let address = held.terms.address.addr();
                (address, conflict::rival(frame, self.mac, address, false))
            }
            _ => return,
        };
        let Some(rival) = rival else { return };
        match &mut self.state {
            State::Holding { defended, .. } if defended.is_none_or(|last| now >= last + DEFENCE) => {
                *defended = Some(now);
                step.frames.push(conflict::announcement(self.mac, address));
                if self.purpose != Purpose::Uplink {
                    step.events.push(Event::Conflict(address, rival));
                }
            }
            State::Holding { .. } if self.purpose != Purpose::Uplink => {}
            State::Holding { held, .. } | State::Probing { held, .. } => {
                // The server is told, and asked for another after a pause.
                let held = held.clone();
                step.frames.extend(messages::decline(self, &held));
                step.events.push(Event::Conflict(address, rival));
                self.store.remove();
                self.restart(now, DECLINE_PAUSE);
            }
            _ => {}
        }
    }

    /// The uplink or container goes away for good: gives its address back and forgets it. (A restart keeps the lease instead.)
    pub fn release(&mut self, now: Duration) -> ClientStep {
        let mut step = ClientStep::default();
        if let State::Holding { held, .. } | State::Probing { held, .. } | State::Rebooting { last: held, .. } = &self.state {
            step.frames.extend(messages::release(self, held));
            self.lose(now, Duration::ZERO, &mut step);
        }
        step
    }

    /// Whether an ACK is about what was asked for, and at a time when something was asked for.
    fn awaits(&self, ack: &Held) -> bool {
        match &self.state {
            State::Selecting { .. } | State::Probing { .. } | State::Holding { stage: Stage::Bound, .. } => false,
            State::Requesting { offer: asked, .. } => asked.terms.server == ack.terms.server,
            State::Rebooting { last: asked, .. } | State::Holding { held: asked, .. } => {
                asked.terms.address == ack.terms.address
            }
        }
    }

    /// Whether a "no" comes from a server that was asked: the chosen one, or any when all were.
    fn trusts(&self, nak: &Message<'_>) -> bool {
        let server = nak.address(option::SERVER);
        match &self.state {
            State::Selecting { .. } | State::Probing { .. } | State::Holding { stage: Stage::Bound, .. } => false,
            State::Requesting { offer: asked, .. } | State::Holding { held: asked, stage: Stage::Renewing, .. } => {
                server == Some(asked.terms.server)
            }
            State::Rebooting { .. } | State::Holding { .. } => true,
        }
    }

    fn begin_to_probe(&mut self, now: Duration, held: Held) {
        let probe = Probe::new(self.mac, held.terms.address.addr(), Pace::of(self.purpose));
        self.next = now + probe.wait(&mut self.random);
        self.state = State::Probing { held, probe };
    }

    fn hold(&mut self, now: Duration, held: Held, step: &mut ClientStep) {
        if self.terms() != Some(&held.terms) {
            step.events.push(Event::Bound(held.terms.clone()));
        }
        self.store.write(&Some(Kept::new(self.mac, &held)));
        if let Purpose::Container(address) = &mut self.purpose {
            *address = Some(held.terms.address.addr());
        }
        let (announced, defended) = match self.state {
            State::Holding { announced, defended, .. } => (announced, defended),
            _ => (0, None),
        };
        self.next = if announced < ANNOUNCEMENTS { now } else { held.renew };
        self.state = State::Holding { held, stage: Stage::Bound, announced, defended };
    }

    /// No server knows the last lease, or none answers: an uplink asks for any address, a container for its own.
    fn stop_rebooting(&mut self, now: Duration, step: &mut ClientStep) {
        if self.purpose != Purpose::Uplink {
            step.events.push(Event::Lost);
        }
        self.restart(now, Duration::ZERO);
    }

    fn lose(&mut self, now: Duration, pause: Duration, step: &mut ClientStep) {
        let rebooting = matches!(self.state, State::Rebooting { .. }) && self.purpose != Purpose::Uplink;
        if self.terms().is_some() || rebooting {
            step.events.push(Event::Lost);
        }
        self.store.remove();
        self.restart(now, pause);
    }

    fn restart(&mut self, now: Duration, pause: Duration) {
        self.state = State::Selecting { tries: 0 };
        self.xid = self.random.random();
        (self.began, self.next) = (now, now + pause);
    }

    fn pause(&mut self, now: Duration, tries: u32) {
        let seconds = FIRST_PAUSE << (tries - 1).min(MOST_DOUBLINGS);
        let jitter = Duration::from_millis(self.random.random_range(0..=2000));
        self.next = now + Duration::from_secs(seconds - 1) + jitter;
    }

    /// T1, T2 and the end of the lease. A message asks again after half of the time that is left (RFC 2131, section 4.4.5).
    fn extend(&mut self, now: Duration, step: &mut ClientStep) {
        let State::Holding { held, stage, .. } = &mut self.state else { return };
        if now >= held.end {
            self.lose(now, Duration::ZERO, step);
            return;
        }
        if *stage == Stage::Bound {
            self.xid = self.random.random();
            self.began = now;
        }
        let (new, until) = if now < held.rebind { (Stage::Renewing, held.rebind) } else { (Stage::Rebinding, held.end) };
        *stage = new;
        self.next = until.min(now + RENEWAL_PAUSE.max((until - now) / 2));
        step.frames.extend(messages::request(self, now));
    }
}

impl Purpose {
    /// Whether an address may be taken on.
    fn takes(self, offer: &Held) -> bool {
        self.address().is_none_or(|address| address == offer.terms.address.addr())
    }

    /// The only address that will do.
    const fn address(self) -> Option<Ipv4Addr> {
        match self {
            Self::Uplink => None,
            Self::Container(address) => address,
        }
    }
}
