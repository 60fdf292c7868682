//! The DHCPv4 client of an uplink whose `address` is `"dhcp"` (RFC 2131, section 4.4): frames in, frames out, the time as an
//! argument.
//!
//! It takes the first offer, asks with a doubling pause and a jitter of a second, renews with the server at T1, with anybody at
//! T2, and lets go when the lease ends. Its last lease is kept in `state-dir`; a restart asks for that one first (INIT-REBOOT).
//! It does not wait before its first message (section 4.4.1, "SHOULD"): one switch starts at a time, not a power-cycled office.
//!
//! Whether somebody else has the address is for the uplink's ARP to find out, which then calls [`Client::decline`].

mod lease;
mod messages;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use packet::Mac;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use smoltcp::wire::{DhcpMessageType as Kind, DhcpOpCode};

pub use lease::Terms;
use lease::{Held, Kept};

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

/// A client on one uplink.
#[derive(Debug)]
pub struct Client {
    mac: Mac,
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
    /// It has an address.
    Holding { held: Held, stage: Stage },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Bound,
    Renewing,
    Rebinding,
}

/// What has become of the uplink's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has this address and what goes with it, for the first time or changed.
    Bound(Terms),
    /// It has none any more.
    Lost,
}

/// What the client does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Frames to send on the uplink.
    pub frames: Vec<Vec<u8>>,
    /// What has changed, in this order.
    pub events: Vec<Event>,
}

impl Client {
    /// A client with this address on the link; it keeps its lease in the file at `path`. It begins with the next
    /// [`tick`](Client::tick).
    pub fn new(now: Duration, mac: Mac, path: PathBuf, seed: u64) -> Self {
        let store = Store::new(path);
        let kept: Option<Kept> = store.read();
        let mut random = StdRng::seed_from_u64(seed);
        let last = kept.and_then(|kept| kept.held(mac, now));
        let state = last.map_or(State::Selecting { tries: 0 }, |last| State::Rebooting { tries: 0, last });
        let xid = random.random();
        Self { mac, random, store, state, xid, began: now, next: now }
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
    pub fn tick(&mut self, now: Duration) -> Step {
        let mut step = Step::default();
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
            State::Requesting { .. } | State::Rebooting { .. } => self.restart(now, Duration::ZERO),
            State::Holding { .. } => self.extend(now, &mut step),
        }
        step
    }

    /// Takes a frame that arrived on the uplink; those that are not for a DHCP client change nothing.
    pub fn receive(&mut self, now: Duration, frame: &[u8]) -> Step {
        let mut step = Step::default();
        let Some(Received::Datagram(datagram)) = wire::parse(frame) else { return step };
        let Some(message) = Message::parse(datagram.payload, DhcpOpCode::Reply) else { return step };
        let ours = datagram.destination.port() == CLIENT_PORT && message.xid() == self.xid && message.chaddr() == self.mac;
        if !ours {
            return step;
        }
        match (message.kind, &self.state) {
            (Kind::Offer, State::Selecting { .. }) => {
                if let Some(offer) = Held::read(now, &message, datagram.mac) {
                    self.state = State::Requesting { tries: 0, offer };
                    self.next = now;
                    step = self.tick(now);
                }
            }
            (Kind::Ack, State::Requesting { .. } | State::Rebooting { .. } | State::Holding { .. }) => {
                if let Some(held) = Held::read(now, &message, datagram.mac).filter(|held| self.awaits(held)) {
                    self.hold(held, &mut step);
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

    /// The address turned out to be somebody else's: tells the server and starts again after a pause.
    pub fn decline(&mut self, now: Duration) -> Step {
        let mut step = Step::default();
        if let State::Holding { held, .. } = &self.state {
            step.frames.extend(messages::decline(self, held));
            self.lose(now, DECLINE_PAUSE, &mut step);
        }
        step
    }

    /// The uplink goes away for good: gives the address back and forgets it. (A restart keeps its lease instead.)
    pub fn release(&mut self, now: Duration) -> Step {
        let mut step = Step::default();
        if let State::Holding { held, .. } = &self.state {
            step.frames.extend(messages::release(self, held));
            self.lose(now, Duration::ZERO, &mut step);
        }
        step
    }

    /// Whether an ACK is about what was asked for, and at a time when something was asked for.
    fn awaits(&self, ack: &Held) -> bool {
        match &self.state {
            State::Selecting { .. } | State::Holding { stage: Stage::Bound, .. } => false,
            State::Requesting { offer: asked, .. } => asked.terms.server == ack.terms.server,
            State::Rebooting { last: asked, .. } | State::Holding { held: asked, .. } => {
                asked.terms.address == ack.terms.address
            }
        }
    }

    /// Whether a "no" comes from whom it was asked: the chosen server; anybody, when everybody was.
    fn trusts(&self, nak: &Message<'_>) -> bool {
        let server = nak.address(option::SERVER);
        match &self.state {
            State::Selecting { .. } | State::Holding { stage: Stage::Bound, .. } => false,
            State::Requesting { offer: asked, .. } | State::Holding { held: asked, stage: Stage::Renewing } => {
                server == Some(asked.terms.server)
            }
            State::Rebooting { .. } | State::Holding { .. } => true,
        }
    }

    fn hold(&mut self, held: Held, step: &mut Step) {
        if self.terms() != Some(&held.terms) {
            step.events.push(Event::Bound(held.terms.clone()));
        }
        self.store.write(&Some(Kept::new(self.mac, &held)));
        self.next = held.renew;
        self.state = State::Holding { held, stage: Stage::Bound };
    }

    fn lose(&mut self, now: Duration, pause: Duration, step: &mut Step) {
        if self.terms().is_some() {
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
    fn extend(&mut self, now: Duration, step: &mut Step) {
        let State::Holding { held, stage } = &mut self.state else { return };
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
