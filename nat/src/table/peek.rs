//! The table as it would be, beside the table as it is: what one packet would change is kept here.

use std::borrow::Cow;

use super::{Room, Table};
use crate::counters::Denied;
use crate::key::{Endpoint, Kind};
use crate::ports::{Ports, Random, Wanted};
use crate::session::{Binding, Class, Direction, Session};
use crate::sessions::Sessions;
use crate::tcp::Flags;

/// A table that is looked at, with the few sessions that ended or began in this view of it only.
///
/// A hairpin may begin two sessions. Which source has the most is told from the table as it is, so in a full one the end of another session for
/// the second of them may be foretold wrongly.
#[derive(Debug)]
pub(crate) struct Peek<'a> {
    table: &'a Table,
    ports: Cow<'a, Ports>,
    gone: Vec<u32>,
    /// Numbered from [`BEGUN`] on.
    begun: Vec<Session>,
}

/// More than a table has numbers for.
const BEGUN: u32 = u32::MAX - 0xff;

impl<'a> Peek<'a> {
    /// The table as it is.
    pub(crate) const fn at(table: &'a Table) -> Self {
        Self { table, ports: Cow::Borrowed(&table.ports), gone: Vec::new(), begun: Vec::new() }
    }

    fn is_gone(&self, index: u32) -> bool {
        self.gone.contains(&index)
    }

    /// The number of a session that began here.
    fn begun(&self, is: impl Fn(&Session) -> bool) -> Option<u32> {
        let numbers = BEGUN..;
        numbers.zip(&self.begun).find(|(index, session)| !self.is_gone(*index) && is(session)).map(|(index, _)| index)
    }

    fn alive(&mut self, now: u32, index: u32) -> Option<u32> {
        if self.session(index).deadline > now {
            return Some(index);
        }
        self.end(index);
        None
    }

    /// The first of these that is not over, or else one that began here.
    fn first_alive(&mut self, now: u32, members: Vec<u32>, is: impl Fn(&Session) -> bool) -> Option<u32> {
        let there = members.into_iter().find(|index| !self.is_gone(*index) && self.alive(now, *index).is_some());
        there.or_else(|| self.begun(is))
    }

    fn end(&mut self, index: u32) {
        self.gone.push(index);
        let session = *self.session(index);
        if session.binding != Binding::Mapped {
            return;
        }
        let mappings = &self.table.mappings;
        let of_mapping = mappings.of(&session);
        let stays = mappings.members(&self.table.sessions, of_mapping).any(|index| !self.is_gone(index));
        if !stays && self.begun(|session| mappings.of(session) == of_mapping).is_none() {
            self.ports.to_mut().release(session.kind, session.port);
        }
    }
}

impl Sessions for Peek<'_> {
    fn session(&self, index: u32) -> &Session {
        match index.checked_sub(BEGUN) {
            Some(number) => &self.begun[number as usize],
            None => self.table.session(index),
        }
    }

    fn seconds(&self, class: Class) -> u32 {
        self.table.seconds(class)
    }

    fn find_inside(&mut self, now: u32, kind: Kind, inside: Endpoint, remote: Endpoint) -> Option<u32> {
        let there = self.table.at_inside(kind, inside, remote).filter(|index| !self.is_gone(*index));
        let is = |session: &Session| (session.kind, session.inside(), session.remote()) == (kind, inside, remote);
        there.or_else(|| self.begun(is)).and_then(|index| self.alive(now, index))
    }

    fn find_outside(&mut self, now: u32, kind: Kind, port: u16, remote: Endpoint) -> Option<u32> {
        let there = self.table.at_outside(kind, port, remote).filter(|index| !self.is_gone(*index));
        let is = |session: &Session| (session.kind, session.port, session.remote()) == (kind, port, remote);
        there.or_else(|| self.begun(is)).and_then(|index| self.alive(now, index))
    }

    fn is_taken(&self, kind: Kind, port: u16, remote: Endpoint) -> bool {
        self.table.at_outside(kind, port, remote).is_some_and(|index| !self.is_gone(index))
            || self.begun(|session| (session.kind, session.port, session.remote()) == (kind, port, remote)).is_some()
    }

    fn has_port(&self, kind: Kind, inside: Endpoint, port: u16) -> bool {
        let Table { mappings, sessions, .. } = self.table;
        let group = (kind, inside, port);
        mappings.members(sessions, group).any(|index| !self.is_gone(index))
            || self.begun(|session| session.binding != Binding::Forwarded && mappings.of(session) == group).is_some()
    }

    fn is_used(&self, kind: Kind, port: u16) -> bool {
        self.ports.is_used(kind, port)
    }

    fn free_port(&self, wanted: Wanted<'_>, random: &mut Random) -> Option<u16> {
        self.ports.find(wanted, random)
    }

    fn mapping(&mut self, now: u32, kind: Kind, inside: Endpoint) -> Option<u32> {
        let Table { mappings, sessions, .. } = self.table;
        let group = (kind, inside, 0);
        let is = |session: &Session| session.binding != Binding::Forwarded && mappings.of(session) == group;
        self.first_alive(now, mappings.members(sessions, group).collect(), is)
    }

    fn peer(&mut self, now: u32, kind: Kind, port: u16, address: u128) -> Option<u32> {
        let Table { peers, sessions, .. } = self.table;
        let group = self.table.peers_at(kind, port, address);
        let is = |session: &Session| session.binding == Binding::Mapped && peers.of(session) == group;
        self.first_alive(now, peers.members(sessions, group).collect(), is)
    }

    // No later question about the same packet asks how far the session is.
    fn pass(&mut self, _: u32, _: u32, _: Direction, _: Flags, _: usize) {}

    fn make_room(&mut self, kind: Kind, inside: u128) -> Result<(), Denied> {
        let source = self.table.sources.find(kind.version, inside);
        let is_of = |session: &&Session| {
            let own = self.table.sources.find(session.kind.version, session.inside_address);
            own == source && (source.is_some() || (session.kind.version, session.inside_address) == (kind.version, inside))
        };
        let ended = || self.gone.iter().map(|index| self.session(*index));
        let (begun, gone) = (self.begun.iter().filter(is_of).count(), ended().filter(is_of).count());
        let before = source.map_or(0, |source| self.table.sources.count(source) as usize);
        let of_source = u32::try_from((before + begun).saturating_sub(gone)).unwrap_or(u32::MAX);
        let in_all = (self.table.len() + self.begun.len()).saturating_sub(self.gone.len());
        let victim = self.table.victim(Room { source, of_source, in_all }, |index| !self.is_gone(index))?;
        victim.into_iter().for_each(|victim| self.end(victim));
        Ok(())
    }

    fn insert(&mut self, session: Session) {
        if session.binding == Binding::Mapped {
            self.ports.to_mut().take(session.kind, session.port);
        }
        self.begun.push(session);
    }

    fn give_way(&mut self, index: u32) {
        self.end(index);
    }
}
