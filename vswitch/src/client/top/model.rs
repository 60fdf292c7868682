//! What two looks at the counters come to: rates, the busiest, and how full the tables are. Touches nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use api::{LiveInfo, LivePort, PortName, SessionInfo};

/// Rates that are remembered of each port, for its curve.
const REMEMBERED: usize = 60;

/// What is shown.
pub(super) struct Model {
    pub(super) live: LiveInfo,
    /// In the order in which they are shown.
    pub(super) ports: Vec<PortRow>,
    /// The most frequent first.
    pub(super) drops: Vec<DropRow>,
    /// The busiest first.
    pub(super) sessions: Vec<SessionRow>,
    pub(super) sort: Sort,
    pub(super) unit: Unit,
    /// Whether sessions are shown in the place of flows.
    pub(super) with_sessions: bool,
    pub(super) scrolled: usize,
    pub(super) paused: bool,
    /// Why what is shown is old.
    pub(super) problem: Option<String>,
    known: HashMap<SessionKey, (u64, u64)>,
    asked: Option<Instant>,
}

/// What tells a session from others.
type SessionKey = (PortName, String, String, String);

/// A port, and what passes it in a second.
#[derive(Clone, Debug)]
pub(super) struct PortRow {
    pub(super) port: LivePort,
    pub(super) rx: Rate,
    pub(super) tx: Rate,
    /// Drops a second.
    pub(super) drops: f64,
    /// Both ways together, in bits a second, the newest last.
    pub(super) curve: VecDeque<f64>,
}

/// What passes in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) frames: f64,
    pub(super) bytes: f64,
}

/// Drops of a port for one reason.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DropRow {
    pub(super) port: PortName,
    pub(super) reason: String,
    pub(super) total: u64,
    pub(super) rate: f64,
}

/// A session, and its bytes in a second.
#[derive(Clone, Debug)]
pub(super) struct SessionRow {
    pub(super) session: SessionInfo,
    pub(super) out_bytes: f64,
    pub(super) in_bytes: f64,
}

/// The order of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Rate,
    Drops,
    Name,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bits,
    Bytes,
    Frames,
}

impl Unit {
    /// A rate in this unit.
    pub(super) fn of(self, rate: Rate) -> f64 {
        match self {
            Self::Bits => rate.bytes * 8.0,
            Self::Bytes => rate.bytes,
            Self::Frames => rate.frames,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bits => "bit/s",
            Self::Bytes => "B/s",
            Self::Frames => "frames/s",
        }
    }
}

impl Sort {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Drops => "drops",
            Self::Name => "name",
        }
    }
}

impl Model {
    pub(super) fn new(live: LiveInfo) -> Self {
        let mut model = Self {
            live: LiveInfo::default(),
            ports: Vec::new(),
            drops: Vec::new(),
            sessions: Vec::new(),
            sort: Sort::Rate,
            unit: Unit::Bits,
            with_sessions: false,
            scrolled: 0,
            paused: false,
            problem: None,
            known: HashMap::new(),
            asked: None,
        };
        model.take(live);
        model
    }

    /// Takes the counters as they are now.
    pub(super) fn take(&mut self, live: LiveInfo) {
        self.problem = None;
        let seconds = live.counted_seconds - self.live.counted_seconds;
        let restarted = live.uptime_seconds < self.live.uptime_seconds;
        if seconds <= 0.0 && !restarted {
            // The workers have made no copy since, so the rates are still those.
            self.live = live;
            return;
        }
        let mut before: BTreeMap<PortName, PortRow> =
            if restarted { BTreeMap::new() } else { self.ports.drain(..).map(|row| (row.port.name.clone(), row)).collect() };
        let (mut ports, mut drops) = (Vec::new(), Vec::new());
        for port in &live.ports {
            let old = before.remove(&port.name);
            drops.extend(drop_rows(port, old.as_ref().map(|old| &old.port), seconds));
            ports.push(port_row(port.clone(), old, seconds));
        }
        drops.sort_by(|one, other| other.rate.total_cmp(&one.rate).then(other.total.cmp(&one.total)));
        (self.live, self.ports, self.drops) = (live, ports, drops);
        self.arrange();
    }

    /// Takes the sessions as they are now.
    pub(super) fn take_sessions(&mut self, sessions: Vec<SessionInfo>) {
        let seconds = self.asked.replace(Instant::now()).map_or(0.0, |asked| asked.elapsed().as_secs_f64());
        self.count_sessions(sessions, seconds);
    }

    pub(super) fn count_sessions(&mut self, sessions: Vec<SessionInfo>, seconds: f64) {
        let before = std::mem::take(&mut self.known);
        let row = |session: SessionInfo| {
            let (sent, received) = before.get(&key(&session)).copied().unwrap_or_default();
            let rate = |now: u64, before: u64| share(now.checked_sub(before).unwrap_or(now), seconds);
            SessionRow { out_bytes: rate(session.out_bytes, sent), in_bytes: rate(session.in_bytes, received), session }
        };
        self.known = sessions.iter().map(|session| (key(session), (session.out_bytes, session.in_bytes))).collect();
        self.sessions = sessions.into_iter().map(row).collect();
        let total = |row: &SessionRow| (row.session.out_bytes + row.session.in_bytes, row.session.inside);
        self.sessions.sort_by(|one, other| {
            let rate = |row: &SessionRow| row.out_bytes + row.in_bytes;
            rate(other).total_cmp(&rate(one)).then(total(other).cmp(&total(one)))
        });
    }

    /// What is shown is old, and why.
    pub(super) fn lose(&mut self, problem: String) {
        self.problem = Some(problem);
    }

    pub(super) fn sort_otherwise(&mut self) {
        self.sort = match self.sort {
            Sort::Rate => Sort::Drops,
            Sort::Drops => Sort::Name,
            Sort::Name => Sort::Rate,
        };
        self.arrange();
    }

    pub(super) fn count_otherwise(&mut self) {
        self.unit = match self.unit {
            Unit::Bits => Unit::Bytes,
            Unit::Bytes => Unit::Frames,
            Unit::Frames => Unit::Bits,
        };
        self.arrange();
    }

    /// Shows sessions instead of flows, or the other way round.
    pub(super) fn turn_over(&mut self) {
        self.with_sessions = !self.with_sessions;
    }

    pub(super) fn pause(&mut self) {
        self.paused = !self.paused;
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Moves the list of ports; `draw` keeps it within its end.
    pub(super) fn scroll(&mut self, by: isize) {
        self.scrolled = self.scrolled.saturating_add_signed(by).min(self.ports.len().saturating_sub(1));
    }

    fn arrange(&mut self) {
        self.ports.sort_by(|one, other| one.port.name.cmp(&other.port.name));
        let unit = self.unit;
        match self.sort {
            Sort::Name => {}
            Sort::Rate => {
                let rate = |row: &PortRow| unit.of(row.rx) + unit.of(row.tx);
                self.ports.sort_by(|one, other| rate(other).total_cmp(&rate(one)));
            }
            Sort::Drops => {
                self.ports.sort_by(|one, other| other.drops.total_cmp(&one.drops));
                // Those that drop nothing now come by what they dropped before.
                let quiet = self.ports.iter().position(|row| row.drops == 0.0).unwrap_or(self.ports.len());
                self.ports[quiet..].sort_by_key(|row| Reverse(row.port.drops()));
            }
        }
    }
}

fn port_row(port: LivePort, old: Option<PortRow>, seconds: f64) -> PortRow {
    // A port that was made anew under its name begins at nothing.
    let same = old.as_ref().filter(|old| {
        old.port.rx_frames <= port.rx_frames && old.port.tx_frames <= port.tx_frames && old.port.drops() <= port.drops()
    });
    let mut curve = old.as_ref().map(|old| old.curve.clone()).unwrap_or_default();
    let Some(old) = same.map(|old| &old.port) else {
        return PortRow { port, rx: Rate::default(), tx: Rate::default(), drops: 0.0, curve };
    };
    let rate = |frames: u64, bytes: u64| Rate { frames: share(frames, seconds), bytes: share(bytes, seconds) };
    let rx = rate(port.rx_frames - old.rx_frames, port.rx_bytes.saturating_sub(old.rx_bytes));
    let tx = rate(port.tx_frames - old.tx_frames, port.tx_bytes.saturating_sub(old.tx_bytes));
    let drops = share(port.drops() - old.drops(), seconds);
    if curve.len() == REMEMBERED {
        curve.pop_front();
    }
    curve.push_back(Unit::Bits.of(rx) + Unit::Bits.of(tx));
    PortRow { port, rx, tx, drops, curve }
}

fn drop_rows(port: &LivePort, old: Option<&LivePort>, seconds: f64) -> Vec<DropRow> {
    let all = |port: &LivePort| -> BTreeMap<String, u64> {
        port.rx_drops.iter().chain(&port.tx_drops).map(|(reason, count)| (reason.clone(), *count)).collect()
    };
    let before = old.map(all);
    let row = |(reason, total): (String, u64)| {
        let known = before.as_ref().map(|before| before.get(&reason).copied().unwrap_or(0)).filter(|known| *known <= total);
        let rate = known.map_or(0.0, |known| share(total - known, seconds));
        DropRow { port: port.name.clone(), reason: reason.replace('_', "-"), total, rate }
    };
    all(port).into_iter().map(row).collect()
}

fn share(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn key(session: &SessionInfo) -> SessionKey {
    (session.uplink.clone(), session.protocol.clone(), session.inside.to_string(), session.remote.to_string())
}
