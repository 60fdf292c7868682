//! Counters as rates, or as what was added since they were last written down.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::connection::Control;
use super::table::Table;
use super::{ClientError, print};
use api::{PortName, PortStats, Reply, Request};

/// What `vsctl stats` was asked for.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) request: Request,
    pub(super) how: How,
}

/// What to make of the counters.
#[derive(Debug)]
pub(super) enum How {
    /// They are shown as they are.
    Total,
    /// What is added in this time, so many times.
    Rates(Duration, u64),
    /// What was added since they were written into this file; `-`: stdin.
    Since(PathBuf),
}

/// A second's share of what a port did.
#[derive(Debug, PartialEq, Serialize)]
struct Rate {
    port: PortName,
    /// How long was counted.
    seconds: f64,
    rx_frames_per_second: f64,
    rx_bits_per_second: f64,
    tx_frames_per_second: f64,
    tx_bits_per_second: f64,
    /// Drops a second by reason, where there were any.
    rx_drops_per_second: BTreeMap<String, f64>,
    tx_drops_per_second: BTreeMap<String, f64>,
}

impl Stats {
    pub(super) async fn run(self, control: Control, json: bool) -> Result<(), ClientError> {
        match &self.how {
            How::Total => super::show(&Reply::Stats(self.ask(&control).await?), json),
            How::Since(path) => {
                let before = saved(path)?;
                let added = self.ask(&control).await?.iter().map(|now| difference(find(&before, now), now)).collect();
                super::show(&Reply::Stats(added), json)
            }
            How::Rates(interval, count) => {
                for _ in 0..*count {
                    let (start, before) = (Instant::now(), self.ask(&control).await?);
                    tokio::time::sleep(*interval).await;
                    let after = self.ask(&control).await?;
                    let rates = rates(&before, &after, start.elapsed());
                    let shown = if json { print::document(&rates) } else { text(&rates) };
                    if !print(shown.as_bytes())? {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    async fn ask(&self, control: &Control) -> Result<Vec<PortStats>, ClientError> {
        match control.ask(&self.request).await? {
            Reply::Stats(stats) => Ok(stats),
            _ => Err(ClientError::Answer("it has no counters".to_owned())),
        }
    }
}

fn saved(path: &PathBuf) -> Result<Vec<PortStats>, ClientError> {
    let shown = path.display();
    let read = if path.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let text = read.map_err(|error| ClientError::Argument(format!("{shown} cannot be read: {error}")))?;
    serde_json::from_str(&text).map_err(|_| {
        ClientError::Argument(format!(
            "{shown} holds no counters: write them with `vsctl --json stats > {shown}` and compare later"
        ))
    })
}

fn find<'a>(list: &'a [PortStats], port: &PortStats) -> Option<&'a PortStats> {
    list.iter().find(|other| other.port == port.port)
}

/// What was added. Counters that are lower than before belong to a port that was made anew: all of them was added since.
fn difference(before: Option<&PortStats>, now: &PortStats) -> PortStats {
    let before = before.filter(|before| {
        let drops = |stats: &PortStats| stats.rx_drops.values().chain(stats.tx_drops.values()).sum::<u64>();
        before.rx_frames <= now.rx_frames && before.tx_frames <= now.tx_frames && drops(before) <= drops(now)
    });
    let Some(before) = before else { return now.clone() };
    let drops = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
        let added =
            |(reason, count): (&String, &u64)| (reason.clone(), count.saturating_sub(before.get(reason).copied().unwrap_or(0)));
        now.iter().map(added).collect()
    };
    PortStats {
        rx_frames: now.rx_frames - before.rx_frames,
        rx_bytes: now.rx_bytes.saturating_sub(before.rx_bytes),
        tx_frames: now.tx_frames - before.tx_frames,
        tx_bytes: now.tx_bytes.saturating_sub(before.tx_bytes),
        rx_drops: drops(&now.rx_drops, &before.rx_drops),
        tx_drops: drops(&now.tx_drops, &before.tx_drops),
        counters: drops(&now.counters, &before.counters),
        ..now.clone()
    }
}

fn rates(before: &[PortStats], after: &[PortStats], time: Duration) -> Vec<Rate> {
    let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
    let share = |count: u64| count as f64 / seconds;
    let drops = |drops: &BTreeMap<String, u64>| {
        drops.iter().filter(|(_, count)| **count > 0).map(|(reason, count)| (reason.clone(), share(*count))).collect()
    };
    let rate = |now: &PortStats| {
        let added = difference(find(before, now), now);
        Rate {
            port: added.port,
            seconds,
            rx_frames_per_second: share(added.rx_frames),
            rx_bits_per_second: share(added.rx_bytes) * 8.0,
            tx_frames_per_second: share(added.tx_frames),
            tx_bits_per_second: share(added.tx_bytes) * 8.0,
            rx_drops_per_second: drops(&added.rx_drops),
            tx_drops_per_second: drops(&added.tx_drops),
        }
    };
    after.iter().map(rate).collect()
}

fn text(rates: &[Rate]) -> String {
    let mut table = Table::new(["PORT", "RX FRAMES/S", "RX BIT/S", "RX DROPS/S", "TX FRAMES/S", "TX BIT/S", "TX DROPS/S"]);
    let mut reasons = Table::new(["PORT", "DROPPED/S", "WAY", "REASON"]);
    let sum = |drops: &BTreeMap<String, f64>| rounded(drops.values().sum());
    for rate in rates {
        table.row([
            rate.port.to_string(),
            rounded(rate.rx_frames_per_second),
            rounded(rate.rx_bits_per_second),
            sum(&rate.rx_drops_per_second),
            rounded(rate.tx_frames_per_second),
            rounded(rate.tx_bits_per_second),
            sum(&rate.tx_drops_per_second),
        ]);
        for (way, drops) in [("in", &rate.rx_drops_per_second), ("out", &rate.tx_drops_per_second)] {
            for (reason, share) in drops {
                reasons.row([rate.port.to_string(), rounded(*share), way.to_owned(), reason.replace('_', "-")]);
            }
        }
    }
    if reasons.is_empty() { table.text() } else { format!("{}\n{}", table.text(), reasons.text()) }
}

/// A rate as a whole number; less than one, but more than none, is one.
fn rounded(rate: f64) -> String {
    let shown = if rate > 0.0 { rate.max(1.0) } else { 0.0 };
    format!("{shown:.0}")
}

/// The counters as they are.
pub(super) fn totals(ports: &[PortStats]) -> String {
    let mut table =
        Table::new(["PORT", "RX FRAMES", "RX BYTES", "RX DROPS", "TX FRAMES", "TX BYTES", "TX DROPS", "CONTAINER", "NETWORK"]);
    let sum = |drops: &BTreeMap<String, u64>| drops.values().sum::<u64>().to_string();
    for port in ports {
        let [container, network] = print::names(&port.docker);
        table.row([
            port.port.to_string(),
            port.rx_frames.to_string(),
            port.rx_bytes.to_string(),
            sum(&port.rx_drops),
            port.tx_frames.to_string(),
            port.tx_bytes.to_string(),
            sum(&port.tx_drops),
            container,
            network,
        ]);
    }
    let mut drops = Table::new(["PORT", "DROPPED", "WAY", "REASON"]);
    for port in ports {
        for (way, reasons) in [("in", &port.rx_drops), ("out", &port.tx_drops)] {
            for (reason, count) in reasons.iter().filter(|(_, count)| **count > 0) {
                drops.row([port.port.to_string(), count.to_string(), way.to_owned(), reason.replace('_', "-")]);
            }
        }
    }
    let counted = print::counted(ports.iter().map(|port| (&port.port, &port.counters)));
    table.text() + &drops.more() + &counted.more()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(frames: u64, drops: u64) -> PortStats {
        let text = serde_json::json!({
            "port": "a", "container": null, "network": null, "rx_frames": frames, "rx_bytes": frames * 100, "tx_frames": 2 * frames,
            "tx_bytes": frames, "rx_drops": { "guard_mac": drops, "runt": 0 }, "tx_drops": { "queue_full": 0 },
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_was_added_is_told_and_a_port_made_anew_starts_at_nothing() {
        let added = difference(Some(&stats(10, 1)), &stats(25, 4));
        assert_eq!((added.rx_frames, added.rx_bytes, added.tx_frames, added.rx_drops["guard_mac"]), (15, 1500, 30, 3));
        assert_eq!(difference(Some(&stats(10, 1)), &stats(5, 0)), stats(5, 0));
        assert_eq!(difference(None, &stats(5, 0)), stats(5, 0));
    }

    #[test]
    fn a_rate_is_what_was_added_in_each_second() {
        let rates = rates(&[stats(10, 1)], &[stats(30, 5)], Duration::from_secs(2));
        assert_eq!((rates[0].rx_frames_per_second, rates[0].rx_bits_per_second), (10.0, 8000.0));
        assert_eq!(rates[0].rx_drops_per_second, BTreeMap::from([("guard_mac".to_owned(), 2.0)]));
        let text = text(&rates);
        assert!(text.contains("guard-mac") && !text.contains("runt") && text.contains("8000"), "{text}");
        assert_eq!([rounded(0.0), rounded(0.2), rounded(1.6)], ["0", "1", "2"]);
    }
}
