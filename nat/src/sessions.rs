//! What the router's questions ask of the sessions, and what they do to them. The table itself answers, or a [`Peek`](crate::table::Peek), in
//! which nothing changes.

use crate::counters::Denied;
use crate::key::{Endpoint, Kind};
use crate::ports::{Random, Wanted};
use crate::session::{Class, Direction, Session};
use crate::tcp::Flags;

/// Sessions, known by numbers.
pub(crate) trait Sessions {
    /// The session with a number.
    fn session(&self, index: u32) -> &Session;

    /// Seconds that an idle session of a class is kept.
    fn seconds(&self, class: Class) -> u32;

    /// The session of a container's port with a remote.
    fn find_inside(&mut self, now: u32, kind: Kind, inside: Endpoint, remote: Endpoint) -> Option<u32>;

    /// The session of an external port with a remote.
    fn find_outside(&mut self, now: u32, kind: Kind, port: u16, remote: Endpoint) -> Option<u32>;

    /// Whether an external port has a session with a remote, were it over or not.
    fn is_taken(&self, kind: Kind, port: u16, remote: Endpoint) -> bool;

    /// Whether a container's port has an external port for some remote already, were it over or not. Only where each remote has another.
    fn has_port(&self, kind: Kind, inside: Endpoint, port: u16) -> bool;

    /// Whether an external port is a mapping's.
    fn is_used(&self, kind: Kind, port: u16) -> bool;

    /// A port that no mapping has, as it is wanted.
    fn free_port(&self, wanted: Wanted<'_>, random: &mut Random) -> Option<u16>;

    /// A session of the mapping of a container's port.
    fn mapping(&mut self, now: u32, kind: Kind, inside: Endpoint) -> Option<u32>;

    /// A session of the mapping with an external port whose remote, for all that filtering cares, is `address`.
    fn peer(&mut self, now: u32, kind: Kind, port: u16, address: u128) -> Option<u32>;

    /// Notes a packet of a session.
    fn pass(&mut self, now: u32, index: u32, direction: Direction, flags: Flags, bytes: usize);

    /// Sees to it that a container may have one more session, if need be by the end of another.
    ///
    /// # Errors
    /// None may end for it.
    fn make_room(&mut self, kind: Kind, inside: u128) -> Result<(), Denied>;

    /// Adds a session. There is room, and no other session has its ports.
    fn insert(&mut self, session: Session);

    /// Ends a session that gives way to another between the same ports.
    fn give_way(&mut self, index: u32);
}
