//! The hosts at the other ends of tunnels: whether they are heard.
//!
//! VXLAN has no hello, so silence means something only while frames are sent there, and to that host alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use vxlan::PeerRow;

use super::Switch;
use super::links::NAMED;
use super::vxlan::{Live, TunnelPort};
use api::{EventFacts, EventKind, PeerInfo, PortName, PortState};

/// For how many seconds a host may be silent while frames are sent to it alone.
const PATIENCE: u32 = 10;

/// How it stands with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerState {
    /// It was heard, and has not been silent for long while frames were sent to it alone.
    Up,
    /// Nothing came from it yet.
    NeverHeard,
    /// It was heard, but not lately.
    Silent,
    /// What was sent there last came back. It is over once nothing came back for [`PATIENCE`] of what was sent since.
    Unreachable(String),
}

impl PeerState {
    pub(super) fn of(row: &PeerRow) -> Self {
        match (row.heard, row.error) {
            (heard, Some((error, at)))
                if is_final(error) && heard.is_none_or(|heard| at > heard) && row.asked_at <= at.saturating_add(PATIENCE) =>
            {
                Self::Unreachable(text(error))
            }
            (None, _) => Self::NeverHeard,
            (Some(heard), _) if row.asked_at > heard.saturating_add(PATIENCE) => Self::Silent,
            (Some(_), _) => Self::Up,
        }
    }
}

impl std::fmt::Display for PeerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::NeverHeard => "never heard",
            Self::Silent => "silent",
            Self::Unreachable(why) => why,
        })
    }
}

/// Whether nothing gets there: not so where a packet was too long, or a queue full.
fn is_final(error: i32) -> bool {
    ![libc::EMSGSIZE, libc::ENOBUFS, libc::ENOMEM, libc::EAGAIN].contains(&error)
}

/// What an error number says.
fn text(error: i32) -> String {
    let text = std::io::Error::from_raw_os_error(error).to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_owned();
    text.chars().take(1).flat_map(char::to_lowercase).chain(text.chars().skip(1)).collect()
}

/// What the log last said about each tunnel's peers.
#[derive(Default)]
pub(super) struct SeenPeers(BTreeMap<(PortName, IpAddr), PeerState>);

impl SeenPeers {
    /// Takes note of how it stands now, and returns what the log should say. A peer of which nothing was said is expected to be up.
    fn look(&mut self, states: BTreeMap<(PortName, IpAddr), PeerState>) -> Vec<(PortName, IpAddr, PeerState)> {
        let is_news = |key: &(PortName, IpAddr), state: &PeerState| self.0.get(key).unwrap_or(&PeerState::Up) != state;
        let news = states.iter().filter(|(key, state)| is_news(key, state));
        let news = news.map(|((tunnel, address), state)| (tunnel.clone(), *address, state.clone())).collect();
        self.0 = states;
        news
    }
}

/// Up, unless there are hosts and none is. One that was never asked has not failed to answer.
fn state_of(rows: impl Iterator<Item = PeerRow>) -> PortState {
    let is_idle = |row: &PeerRow| row.heard.is_none() && row.error.is_none() && row.sent == 0;
    let mut rows = rows.peekable();
    let alone = rows.peek().is_some() && !rows.any(|row| is_idle(&row) || PeerState::of(&row) == PeerState::Up);
    if alone { PortState::NoCarrier } else { PortState::Up }
}

impl Live {
    /// How it stands with each host.
    pub(super) fn remotes(&self) -> Vec<PeerInfo> {
        let now = self.shared.second(Instant::now());
        let info = |row: PeerRow| PeerInfo {
            address: row.address,
            named: row.configured,
            state: PeerState::of(&row).to_string(),
            heard_seconds: row.heard.map(|heard| now.saturating_sub(heard).into()),
            rx_frames: row.received,
            tx_frames: row.sent,
            last_error: row.error.map(|(error, _)| text(error)),
        };
        self.shared.peers.rows().map(info).collect()
    }

    /// How it stands with the tunnel.
    pub(super) fn state(&self) -> PortState {
        self.trouble.clone().map_or_else(|| state_of(self.shared.peers.rows()), PortState::Unusable)
    }
}

impl Switch {
    /// Takes note of what came back from the underlay, and tells the log which tunnels' peers are heard no more, or again. The control loop calls
    /// it at every `ROLL_CALL`.
    pub(super) fn follow_peers(&mut self) {
        let mut states = BTreeMap::new();
        for (name, live) in self.inventory.named::<TunnelPort>().filter_map(|(name, tunnel)| Some((name, tunnel.live()?))) {
            let now = live.shared.second(Instant::now());
            live.sources.errors(|address, error| self.note_peer_error(address, error.raw_os_error()));
            let rows = live.shared.peers.rows().filter(|row| row.configured);
            // A tunnel that has just begun has not been answered yet, nor one over which nothing was sent.
            let is_due = |row: &PeerRow| row.heard.is_some() || row.error.is_some() || row.sent > 0 && now > PATIENCE;
            states.extend(rows.filter(is_due).map(|row| ((name.clone(), row.address), PeerState::of(&row))));
        }
        for (tunnel, address, state) in self.symptoms.peers.look(states) {
            match &state {
                PeerState::Up => tracing::info!(vxlan = %tunnel, "peer {address} is heard again"),
                state => tracing::warn!(vxlan = %tunnel, "peer {address}: {state}"),
            }
            let summary = format!("peer {address}: {state}");
            let facts = EventFacts { port: Some(tunnel), address: Some(address), ..EventFacts::new(summary) };
            self.views.events.record(EventKind::Peer, facts);
        }
    }

    /// What a reload says of peers that are not up, and should be.
    pub(super) fn peer_notes(&self) -> Vec<String> {
        let mut out = self.symptoms.peers.0.iter().filter(|(_, state)| **state != PeerState::Up);
        let note =
            |((name, address), state): (&(PortName, IpAddr), &PeerState)| format!("vxlan \"{name}\": peer {address}: {state}");
        let mut notes: Vec<String> = out.by_ref().take(NAMED).map(note).collect();
        let more = out.count();
        notes.extend((more > 0).then(|| format!("and {more} more peers: see vsctl list-vxlan")));
        notes
    }

    /// Sockets are shared, so an error may be about a peer of any tunnel that has it.
    fn note_peer_error(&self, address: IpAddr, error: i32) {
        for live in self.inventory.all::<TunnelPort>().filter_map(TunnelPort::live) {
            if let Some(number) = live.shared.peers.number(address) {
                live.shared.peers.note_error(number, error, live.shared.second(Instant::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_means_something_only_while_frames_are_sent() {
        let address: IpAddr = "192.0.2.2".parse().unwrap();
        let row = PeerRow { address, configured: true, heard: None, received: 0, sent: 0, asked_at: 0, error: None };
        let heard = PeerRow { heard: Some(100), ..row };
        assert_eq!(PeerState::of(&row), PeerState::NeverHeard);
        assert_eq!(PeerState::of(&PeerRow { sent: 9, asked_at: 500, ..row }), PeerState::NeverHeard);
        assert_eq!(PeerState::of(&heard), PeerState::Up);
        assert_eq!(PeerState::of(&PeerRow { asked_at: 110, ..heard }), PeerState::Up);
        assert_eq!(PeerState::of(&PeerRow { asked_at: 111, ..heard }), PeerState::Silent);
        let refused = PeerState::Unreachable("no route to host".to_owned());
        assert_eq!(PeerState::of(&PeerRow { error: Some((libc::EHOSTUNREACH, 101)), ..heard }), refused);
        assert_eq!(PeerState::of(&PeerRow { error: Some((libc::EHOSTUNREACH, 99)), ..heard }), PeerState::Up, "that is over");
        let error = Some((libc::ECONNREFUSED, 101));
        assert_eq!(
            PeerState::of(&PeerRow { error, asked_at: 112, ..row }),
            PeerState::NeverHeard,
            "it is not refused any more"
        );
        assert_eq!(
            PeerState::of(&PeerRow { error: Some((libc::EMSGSIZE, 101)), ..heard }),
            PeerState::Up,
            "shorter ones get there"
        );
    }
    #[test]
    fn a_tunnel_over_which_nothing_was_sent_is_not_said_to_lead_nowhere() {
        let address: IpAddr = "192.0.2.2".parse().unwrap();
        let row = PeerRow { address, configured: true, heard: None, received: 0, sent: 0, asked_at: 0, error: None };
        let asked = PeerRow { sent: 1, asked_at: 9, ..row };
        let heard = PeerRow { heard: Some(9), ..asked };
        for (rows, state) in [
            (vec![], PortState::Up),
            (vec![row], PortState::Up),
            (vec![asked, row], PortState::Up),
            (vec![asked, asked], PortState::NoCarrier),
            (vec![asked, heard], PortState::Up),
        ] {
            assert_eq!(state_of(rows.into_iter()), state);
        }
    }

    #[test]
    fn a_peer_is_told_of_when_it_falls_silent_and_when_it_is_heard_again() {
        let mut seen = SeenPeers::default();
        let mut look = |state: Option<PeerState>| {
            let key = ("vx0".parse().unwrap(), "192.0.2.2".parse().unwrap());
            let news = seen.look(state.map(|state| (key, state)).into_iter().collect());
            news.into_iter().map(|(_, _, state)| state).next()
        };
        assert_eq!(look(Some(PeerState::Up)), None, "as is expected of it");
        assert_eq!(look(Some(PeerState::Silent)), Some(PeerState::Silent));
        assert_eq!(look(Some(PeerState::Silent)), None);
        assert_eq!(look(Some(PeerState::Up)), Some(PeerState::Up));
        // One that is named anew begins again.
        assert_eq!((look(None), look(Some(PeerState::NeverHeard))), (None, Some(PeerState::NeverHeard)));
    }
}
