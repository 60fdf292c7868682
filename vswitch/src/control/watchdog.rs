//! The service manager's watchdog (`WatchdogSec=`, sd_notify(3)): it kills a vswitchd that does not move, and starts another.
//!
//! It is fed from the control side's thread, and only after every thread that moves frames has come round its loop since the last
//! time: a thread that hangs starves it as well as a control side that does. Idle threads are woken so that they come round. A long
//! change feeds it between its steps.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::{Switch, Uplink};

/// When it is to be fed, and what had moved when it last was.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// A quarter of the time that the manager waits. It wants to be fed every half; the other quarter is for threads to come round.
    every: Duration,
    looked: Instant,
    turns: BTreeMap<String, u64>,
}

impl Watchdog {
    /// That of this process, if it has one.
    pub(super) fn from_environment() -> Option<Self> {
        let patience = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())?;
        Some(Self { every: patience / 4, looked: Instant::now(), turns: BTreeMap::new() })
    }

    /// Whether it is time to look again.
    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.looked) >= self.every
    }

    /// Whether it may be fed: each thread, by its name, has turned since it last was. A new thread counts as having turned.
    fn may_be_fed(&mut self, now: Instant, turns: BTreeMap<String, u64>) -> bool {
        self.looked = now;
        let stuck = |(name, count): (&String, &u64)| self.turns.get(name) == Some(count);
        let fed = !turns.iter().any(stuck);
        if fed {
            self.turns = turns;
        }
        fed
    }
}

impl Switch {
    /// How often [`Self::feed_watchdog`] wants to be called; `None`: never.
    pub(super) fn watchdog_interval(&self) -> Option<Duration> {
        self.life.watchdog.as_ref().map(|watchdog| watchdog.every)
    }

    /// Feeds the watchdog if there is one, it is time, and everything moves.
    pub(super) fn feed_watchdog(&mut self) {
        let now = Instant::now();
        let Some(watchdog) = self.life.watchdog.as_mut().filter(|watchdog| watchdog.is_due(now)) else { return };
        let workers =
            self.plane.workers.iter().enumerate().map(|(number, worker)| (format!("worker {number}"), worker.turns()));
        let hosts = self
            .inventory
            .named::<Uplink>()
            .filter_map(|(name, uplink)| Some((format!("uplink {name}"), uplink.host.as_ref()?.turns())));
        if watchdog.may_be_fed(now, workers.chain(hosts).collect())
            && let Err(error) = sd_notify::notify(&[NotifyState::Watchdog])
        {
            tracing::warn!("systemd could not be told that vswitchd moves: {error}");
        }
        self.plane.workers.iter().for_each(plane::worker::Handle::wake);
        self.inventory.all::<Uplink>().filter_map(|uplink| uplink.host.as_ref()).for_each(crate::host::HostUplink::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_that_does_not_turn_starves_it() {
        let begin = Instant::now();
        let mut watchdog = Watchdog { every: Duration::from_secs(5), looked: begin, turns: BTreeMap::new() };
        let turns = |a, b| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(!watchdog.is_due(at(4)) && watchdog.is_due(at(5)));
        assert!(watchdog.may_be_fed(at(5), turns(1, 1)));
        assert!(watchdog.may_be_fed(at(10), turns(2, 9)));
        assert!(!watchdog.may_be_fed(at(15), turns(3, 9)));
        // What turned once before the last look does not count for ever.
        assert!(!watchdog.may_be_fed(at(20), turns(2, 10)));
        assert!(watchdog.may_be_fed(at(25), turns(4, 10)));
        assert!(watchdog.may_be_fed(at(30), BTreeMap::from([("c".to_owned(), 0)])), "others are gone");
    }
}
