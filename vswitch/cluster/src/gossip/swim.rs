//! Who lives, by SWIM: each host asks one other at a time whether it is there, and others to ask it for itself; what comes of that is told along with
//! all that they say (Das, Gupta and Motivala, 2002). The protocol is the crate foca; its clock, its timers and its datagrams are values here.
//!
//! **Who takes part.** Hosts that are welcome, as [`Gossip`](super::Gossip) says; what is said of others is left out. So the table is bounded by what is
//! welcome.
//!
//! **Who is dead.** A host that does not answer any more, and has: one that was never heard to answer may have its port behind a firewall.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use foca::{Foca, Header, Message, NoCustomBroadcast, Notification, PostcardCodec, Runtime, Timer};
use rand::rngs::StdRng;

use super::member::{Member, pace};

/// SWIM, as one host has it.
pub(super) struct Swim {
    foca: Foca<Member, PostcardCodec, StdRng, NoCustomBroadcast>,
    world: World,
    /// The hosts that were heard to answer.
    answered: BTreeSet<SocketAddr>,
}

/// What the protocol asks of the world.
#[derive(Default)]
struct World {
    now: Duration,
    timers: BTreeMap<(Duration, u64), Timer<Member>>,
    /// How many timers were set.
    set: u64,
    out: Vec<(SocketAddr, Vec<u8>)>,
    /// Who came or went.
    turned: Vec<(SocketAddr, bool)>,
}

impl Runtime<Member> for &mut World {
    fn notify(&mut self, notification: Notification<'_, Member>) {
        match notification {
            Notification::MemberUp(member) => self.turned.push((member.address, true)),
            Notification::MemberDown(member) => self.turned.push((member.address, false)),
            _ => {}
        }
    }

    fn send_to(&mut self, to: Member, data: &[u8]) {
        self.out.push((to.address, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Member>, after: Duration) {
        self.set += 1;
        self.timers.retain(|_, timer| !supersedes(&event, timer));
        self.timers.insert((self.now + after, self.set), event);
    }
}

/// Whether a timer makes another void. Those that are far in the future are there once, or for each host once, or what is said of hosts would fill memory.
fn supersedes(new: &Timer<Member>, old: &Timer<Member>) -> bool {
    match (new, old) {
        (Timer::RemoveDown(new), Timer::RemoveDown(old)) => new.address == old.address,
        (Timer::PeriodicAnnounce(_), Timer::PeriodicAnnounce(_))
        | (Timer::PeriodicAnnounceDown(_), Timer::PeriodicAnnounceDown(_)) => true,
        _ => false,
    }
}

/// A message that cannot be one of SWIM's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Swim {
    pub(super) fn new(address: SocketAddr, boot: u64, random: StdRng) -> Self {
        let foca = Foca::new(Member { address, boot }, pace(), random, PostcardCodec);
        Self { foca, world: World::default(), answered: BTreeSet::new() }
    }

    /// Asks a host whether it is there.
    pub(super) fn ask(&mut self, address: SocketAddr) {
        // Only what is longer than a datagram cannot be said.
        let _ = self.foca.announce(Member { address, boot: 0 }, &mut self.world);
    }

    /// Takes in a message.
    pub(super) fn receive(
        &mut self,
        from: SocketAddr,
        message: &[u8],
        is_welcome: impl Fn(SocketAddr) -> bool,
        now: Duration,
    ) -> Result<(), Malformed> {
        self.world.now = now;
        let (header, rest): (Header<Member>, _) = postcard::take_from_bytes(message).map_err(|_| Malformed)?;
        if header.src.address != from {
            return Err(Malformed);
        }
        if !is_welcome(from) || third(&header.message).is_some_and(|third| !is_welcome(third.address)) {
            return Ok(());
        }
        let head = &message[..message.len() - rest.len()];
        let is_ours = |address| address == self.foca.identity().address;
        let told = without_strangers(rest, |address| is_ours(address) || is_welcome(address))?;
        // What it says otherwise of a message is that it came late, or of this host's earlier starts.
        match self.foca.handle_data(&[head, &told].concat(), &mut self.world) {
            Err(foca::Error::Decode(_) | foca::Error::MalformedPacket | foca::Error::DataTooBig) => Err(Malformed),
            _ => {
                self.note_answer(&header);
                Ok(())
            }
        }
    }

    /// Who knows which start of this host this is has heard it. A question whether it is there needs no such knowledge.
    fn note_answer(&mut self, header: &Header<Member>) {
        if header.dst != *self.foca.identity() || header.message == Message::Announce {
            return;
        }
        let through = match &header.message {
            Message::ForwardedAck { origin, .. } => Some(origin.address),
            _ => None,
        };
        for address in std::iter::once(header.src.address).chain(through) {
            if self.is_member(address) {
                self.answered.insert(address);
            }
        }
    }

    /// Whether a host is there, as far as it was heard to answer before; `None`: it never was.
    pub(super) fn lives(&self, address: SocketAddr) -> Option<bool> {
        self.answered.contains(&address).then(|| self.is_member(address))
    }

    /// A host was started again, or is there after all: whether it answers is not known.
    pub(super) fn forget_answer(&mut self, address: SocketAddr) {
        self.answered.remove(&address);
    }

    /// Whether a host is taken to be there.
    pub(super) fn is_member(&self, address: SocketAddr) -> bool {
        self.members().any(|member| member == address)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = SocketAddr> {
        self.foca.iter_members().map(|member| member.id().address)
    }

    /// The hosts that were members, and are dead.
    pub(super) fn dead(&self) -> impl Iterator<Item = SocketAddr> {
        self.foca.iter_membership_state().filter(|member| member.state() == foca::State::Down).map(|member| member.id().address)
    }

    /// The hosts that are remembered, dead ones among them, if there are as many as `most`.
    pub(super) fn remembered_if(&self, most: usize) -> Option<BTreeSet<SocketAddr>> {
        let remembered = self.foca.iter_membership_state();
        (remembered.len() >= most).then(|| remembered.map(|member| member.id().address).collect())
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Duration) {
        self.world.now = now;
        while let Some(entry) = self.world.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let timer = entry.remove();
            // What it says is that a timer came late, and that it goes on.
            let _ = self.foca.handle_timer(timer, &mut self.world);
        }
        self.keep_asking();
    }

    /// Has foca look whether there is someone to ask. After it has taken another identity, because others took this host for dead, it asks no one until it
    /// hears of a change, although it has members (`Foca::change_identity`, foca 2.0).
    fn keep_asking(&mut self) {
        // No updates are none that could be wrong.
        let _ = self.foca.apply_many(std::iter::empty(), false, &mut self.world);
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Duration> {
        self.world.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Says goodbye.
    pub(super) fn leave(&mut self) {
        let _ = self.foca.leave_cluster(&mut self.world);
    }

    /// Takes the messages that are to be sent.
    pub(super) fn take_messages(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.world.out)
    }

    /// Takes who came or went.
    pub(super) fn take_turned(&mut self) -> Vec<(SocketAddr, bool)> {
        std::mem::take(&mut self.world.turned)
    }
}

/// The host that a message is to be passed on to, or on from.
const fn third(message: &Message<Member>) -> Option<&Member> {
    match message {
        Message::PingReq { target: third, .. }
        | Message::IndirectAck { target: third, .. }
        | Message::IndirectPing { origin: third, .. }
        | Message::ForwardedAck { origin: third, .. } => Some(third),
        _ => None,
    }
}

/// What a message tells of hosts, without those that are not welcome: a count, and as many of them.
fn without_strangers(told: &[u8], is_welcome: impl Fn(SocketAddr) -> bool) -> Result<Vec<u8>, Malformed> {
    let Some((count, mut rest)) = told.split_first_chunk::<2>() else {
        return if told.is_empty() { Ok(Vec::new()) } else { Err(Malformed) };
    };
    let (mut kept, mut members) = (0_u16, Vec::new());
    for _ in 0..u16::from_be_bytes(*count) {
        let (member, after): (foca::Member<Member>, _) = postcard::take_from_bytes(rest).map_err(|_| Malformed)?;
        if is_welcome(member.id().address) {
            kept += 1;
            members.extend_from_slice(&rest[..rest.len() - after.len()]);
        }
        rest = after;
    }
    if !rest.is_empty() {
        return Err(Malformed);
    }
    Ok([&kept.to_be_bytes()[..], &members].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_one_host_fills_no_memory() {
        let mut world = World::default();
        for boot in 0..10_000 {
            for last in 1..=3 {
                let member = Member { address: ([192, 0, 2, last], 7946).into(), boot };
                (&mut world).submit_after(Timer::RemoveDown(member), Duration::from_secs(86_400));
            }
        }
        assert_eq!(world.timers.len(), 3);
    }
}
