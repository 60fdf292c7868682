//! What bridges show that is most likely a mistake: MAC addresses that move between ports, and ([`conflicts`](super::conflicts)) IP addresses
//! that two have. A MAC address that moves once has a reason; one that does all the time is in a loop, or two stations have it.

use std::time::{Duration, Instant};

use packet::Mac;

use super::inventory::VportKind;
use super::{Port, Switch};
use api::{BridgeName, EventFacts, EventKind, MacMoveInfo, MacMovesInfo, PortName};
use plane::datapath::{BridgeId, Hold, MacMove, MacMoves, Place, PortId, Symptoms};
use plane::worker::Command;

/// The time over which moves are counted.
const COUNTED: Duration = Duration::from_secs(1);
/// The shortest time between two lines of the log about moves of one bridge.
const PAUSE: Duration = Duration::from_secs(10);
/// The shortest time between two about addresses that are held. Each worker tells of one a minute; what comes sooner is another worker's.
const HOLD_PAUSE: Duration = Duration::from_secs(30);

/// The moves of one bridge as they were last looked at.
#[derive(Debug)]
pub(super) struct SeenMoves {
    moves: MacMoves,
    at: Instant,
    per_second: u64,
    /// When the last one was noticed.
    moved: Option<Instant>,
    told: Option<Instant>,
    /// What a worker holds and the log does not say yet, for want of a rate.
    held: Option<Hold>,
    told_hold: Option<Instant>,
}

/// What the log should say.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// An address is elsewhere now.
    Moved(MacMove),
    /// One is held because it moves to and fro; on its bridge there are so many moves a second.
    Held(Hold, u64),
}

impl SeenMoves {
    fn new(now: Instant) -> Self {
        Self { moves: MacMoves::default(), at: now, per_second: 0, moved: None, told: None, held: None, told_hold: None }
    }

    /// Takes note of an address that is held, for the next look.
    fn hold(&mut self, hold: Hold, now: Instant) {
        if is_over(self.told_hold, HOLD_PAUSE, now) {
            self.held.get_or_insert(hold);
        }
    }

    /// Takes note of how it is now, about once a second, and returns what the log should say.
    fn look(&mut self, moves: MacMoves, now: Instant) -> Option<News> {
        let passed = now.saturating_duration_since(self.at);
        if passed < COUNTED {
            return None;
        }
        // A bridge that was made anew under its name begins again.
        let new = moves.count.checked_sub(self.moves.count).unwrap_or(moves.count);
        let milliseconds = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        self.per_second = new.saturating_mul(1000).div_ceil(milliseconds);
        (self.moves, self.at) = (moves, now);
        if new > 0 {
            self.moved = Some(now);
        }
        if let Some(hold) = self.held.take() {
            (self.told, self.told_hold) = (Some(now), Some(now));
            return Some(News::Held(hold, self.per_second));
        }
        // What goes on beside a loop is the loop.
        if new == 0 || !is_over(self.told, PAUSE, now) || !is_over(self.told_hold, HOLD_PAUSE * 2, now) {
            return None;
        }
        self.told = Some(now);
        moves.last.map(News::Moved)
    }
}

fn is_over(told: Option<Instant>, pause: Duration, now: Instant) -> bool {
    told.is_none_or(|told| now.saturating_duration_since(told) >= pause)
}

impl Switch {
    /// Takes note of an address that moves to and fro between two ports; the next [`Self::follow_symptoms`] says so.
    pub(super) fn note_hold(&mut self, id: BridgeId, hold: Hold) {
        let Some(name) = self.inventory.bridges.iter().find(|(_, bridge)| bridge.id == id).map(|(name, _)| name.clone()) else {
            return;
        };
        let now = Instant::now();
        self.symptoms.mac_moves.entry(name).or_insert_with(|| SeenMoves::new(now)).hold(hold, now);
    }

    /// Asks the workers what bridges show, and tells the log. The control loop calls it at every `ROLL_CALL`.
    pub(super) fn follow_symptoms(&mut self, now: Instant) {
        if self.symptoms.mac_moves.values().all(|seen| now.saturating_duration_since(seen.at) < COUNTED)
            && !self.symptoms.mac_moves.is_empty()
        {
            return;
        }
        let Ok(all) = self.plane.workers.iter().map(|worker| worker.ask(Command::Symptoms)).collect::<Result<Vec<_>, _>>()
        else {
            return;
        };
        self.symptoms.mac_moves.retain(|name, _| self.inventory.bridges.contains_key(name));
        self.symptoms.address_conflicts.retain(|name, _| self.inventory.bridges.contains_key(name));
        let (mut moved, mut claimed) = (Vec::new(), Vec::new());
        for (name, bridge) in &self.inventory.bridges {
            let parts = || all.iter().flatten().filter(|(id, _)| *id == bridge.id).map(|(_, symptoms)| symptoms);
            // Each worker hears what the others learn, so that all of them see most moves.
            let moves = parts().map(|Symptoms { moves, .. }| *moves).max_by_key(|moves| moves.count).unwrap_or_default();
            let seen = self.symptoms.mac_moves.entry(name.clone()).or_insert_with(|| SeenMoves::new(now));
            moved.extend(seen.look(moves, now).map(|news| (name.clone(), news)));
            let conflicts = parts().map(|Symptoms { conflicts, .. }| *conflicts);
            let conflicts = conflicts.max_by_key(|conflicts| conflicts.count).unwrap_or_default();
            let seen = self.symptoms.address_conflicts.entry(name.clone()).or_default();
            claimed.extend(seen.look(conflicts, now).map(|news| (name.clone(), news)));
        }
        moved.iter().for_each(|(bridge, news)| self.tell_of_moves(bridge, news));
        claimed.iter().for_each(|(bridge, conflict)| self.tell_of_conflict(bridge, conflict));
    }

    fn tell_of_moves(&mut self, bridge: &BridgeName, news: &News) {
        let port = |id: PortId| self.inventory.name_of(id).map_or("?", PortName::as_str);
        match *news {
            News::Moved(MacMove { mac, from, to, .. }) => {
                tracing::info!(%bridge, "{mac} moved from {} to {}", port(from), port(to));
            }
            News::Held(Hold { mac, home: Place { port: home, .. }, away: Place { port: away, .. }, vlan }, per_second) => {
                // A move from one peer of a tunnel to another is none between ports.
                let rate = if per_second > 0 { format!(", {per_second} times a second") } else { String::new() };
                let both = home != away && [home, away].iter().all(|id| self.has_mac(*id, mac));
                let why = if both { "both ports have this MAC address." } else { "a loop?" };
                let (home, away) = (port(home), port(away));
                let summary = format!("{mac} moves between {home} and {away}{rate}: {why} It is held at {home}");
                tracing::warn!(
                    %bridge,
                    "{summary} for ten seconds at a time; what comes from elsewhere in its name is dropped and counted as mac-move"
                );
                let (bridge, vlan, mac) = (Some(bridge.clone()), Some(vlan), Some(mac));
                let facts = EventFacts { bridge, port: home.parse().ok(), vlan, mac, ..EventFacts::new(summary) };
                self.views.events.record(EventKind::LoopSuspected, facts);
            }
        }
    }

    fn has_mac(&self, id: PortId, mac: Mac) -> bool {
        let port = self.inventory.by_id(id).and_then(Port::of);
        port.is_some_and(|port| port.mac.or(port.spec.mac) == Some(mac))
    }

    pub(super) fn mac_moves_info(&self, bridge: &BridgeName) -> MacMovesInfo {
        let Some(seen) = self.symptoms.mac_moves.get(bridge) else { return MacMovesInfo::default() };
        let last = seen.moves.last.and_then(|MacMove { vlan, mac, from, to }| {
            let [from, to] = [from, to].map(|id| self.inventory.name_of(id).cloned());
            Some(MacMoveInfo {
                mac,
                vlan,
                from: from?,
                to: to?,
                seconds_ago: seen.moved.map_or(0, |at| at.elapsed().as_secs()),
            })
        });
        MacMovesInfo { count: seen.moves.count, per_second: seen.per_second, last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::VlanId;

    #[test]
    fn the_log_has_a_line_for_a_move_and_one_for_a_loop_and_no_flood_of_either() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let (vlan, mac) = (VlanId::DEFAULT, Mac([2, 0, 0, 0, 0, 1]));
        let last = MacMove { vlan, mac, from: PortId(1), to: PortId(2) };
        let hold = Hold { vlan, mac, home: PortId(1).into(), away: PortId(2).into() };
        let moves = |count| MacMoves { count, last: Some(last) };
        let mut seen = SeenMoves::new(start);
        assert_eq!(seen.look(moves(1), start + Duration::from_millis(400)), None, "not yet");
        assert_eq!(seen.look(moves(1), at(1)), Some(News::Moved(last)));
        assert_eq!(seen.look(moves(2), at(2)), None);
        seen.hold(hold, at(2));
        assert_eq!(seen.look(moves(5002), at(3)), Some(News::Held(hold, 5000)), "a loop is told at once, with its rate");
        let mut lines = 0;
        for second in 4..123 {
            // Two workers hold it, and each tells of it once a minute.
            if [3, 20].contains(&(second % 60)) {
                seen.hold(hold, at(second));
            }
            lines += usize::from(seen.look(moves(5000 * second), at(second)).is_some());
        }
        assert_eq!((lines, seen.per_second), (1, 5000), "one a minute says it all");
        assert_eq!((seen.look(moves(5000 * 122), at(123)), seen.per_second), (None, 0));
        seen.hold(hold, at(123));
        assert_eq!(seen.look(moves(5000 * 122), at(124)), Some(News::Held(hold, 0)), "between peers of one port");
    }
}
