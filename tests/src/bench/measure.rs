//! What is measured between the stations of a place.

use std::time::Duration;

use serde_json::Value;

use super::contender::Place;
use super::generator::{self, Load};
use super::latency::Streams;
use super::{latency, sessions};
use crate::measure::iperf3;

/// A figure that a measure yields.
pub(crate) struct Metric {
    /// What it is and its unit; at most 30 characters, for the table.
    pub(crate) name: &'static str,
    /// Whether a smaller one is better.
    pub(crate) less: bool,
}

/// Figures of one measurement, one for each [`Metric`]; `None` where it does not apply, as the CPU time of a switch in the kernel.
pub(crate) type Figures = Vec<Option<f64>>;

/// Something that is measured.
pub(crate) struct Measure {
    /// The word for it on the command line.
    pub(crate) name: &'static str,
    /// What it yields. The first is what the chart shows.
    pub(crate) metrics: &'static [Metric],
    /// At most so many rounds: what each time takes a fresh switch, or comes out the same, need not be repeated.
    pub(crate) rounds: usize,
    /// Measures once. It panics where it cannot; the message is the reason.
    pub(crate) run: fn(&Place, u64) -> Figures,
}

const fn more(name: &'static str) -> Metric {
    Metric { name, less: false }
}

const fn less(name: &'static str) -> Metric {
    Metric { name, less: true }
}

const fn measure(name: &'static str, metrics: &'static [Metric], run: fn(&Place, u64) -> Figures) -> Measure {
    Measure { name, metrics, rounds: usize::MAX, run }
}

const PER_GB: Metric = less("  switch CPU, s per GB");
const PER_MILLION: Metric = less("  switch CPU, s per M packets");

/// One TCP stream.
pub(crate) static TCP: Measure =
    measure("tcp", &[more("1 TCP stream, Gbit/s"), PER_GB], |place, seconds| tcp(place, &format!("-t {seconds}")));
/// One TCP stream against the direction of the others.
pub(crate) static TCP_REVERSE: Measure =
    measure("tcp-reverse", &[more("1 TCP stream reversed, Gbit/s"), PER_GB], |place, seconds| {
        tcp(place, &format!("-R -t {}", third(seconds)))
    });
/// A stream in each direction at a time.
pub(crate) static TCP_BOTH: Measure =
    measure("tcp-both", &[more("1 TCP stream each way, Gbit/s"), PER_GB], |place, seconds| {
        tcp(place, &format!("--bidir -t {}", third(seconds)))
    });
/// Eight TCP streams.
pub(crate) static TCP_8: Measure = measure("tcp-8", &[more("8 TCP streams, Gbit/s"), PER_GB], |place, seconds| {
    tcp(place, &format!("-P 8 -t {}", third(seconds)))
});

/// 64-byte frames at a low load.
pub(crate) static UDP_64_LOW: Measure =
    measure("udp-64-50k", &[more("UDP 64 B at 50 k/s, k/s"), PER_MILLION], |place, seconds| {
        udp(place, Load { frame: 64, rate: Some(50e3) }, seconds)
    });
/// 64-byte frames at a load that not all can carry.
pub(crate) static UDP_64_HIGH: Measure =
    measure("udp-64-100k", &[more("UDP 64 B at 100 k/s, k/s"), PER_MILLION], |place, seconds| {
        udp(place, Load { frame: 64, rate: Some(100e3) }, seconds)
    });
/// 1400-byte frames at a low load.
pub(crate) static UDP_1400_LOW: Measure =
    measure("udp-1400-50k", &[more("UDP 1400 B at 50 k/s, k/s"), PER_MILLION], |place, seconds| {
        udp(place, Load { frame: 1400, rate: Some(50e3) }, seconds)
    });
/// 64-byte frames, as many as one thread sends.
pub(crate) static UDP_64_FULL: Measure =
    measure("udp-64-full", &[more("UDP 64 B flat out, k/s"), PER_MILLION], |place, seconds| {
        udp(place, Load { frame: 64, rate: None }, seconds)
    });
/// 1400-byte frames, as many as one thread sends.
pub(crate) static UDP_1400_FULL: Measure =
    measure("udp-1400-full", &[more("UDP 1400 B flat out, k/s"), PER_MILLION], |place, seconds| {
        udp(place, Load { frame: 1400, rate: None }, seconds)
    });
/// The highest load of 64-byte frames that is carried.
pub(crate) static UDP_64_CLEAN: Measure = measure("udp-64-clean", &[more("UDP 64 B without loss, k/s")], |place, _| {
    let trial = |rate| {
        let load = Load { frame: 64, rate: Some(rate) };
        let flow = generator::run(place, load, TRIAL);
        Trial { offered: flow.offered(), lost: flow.lost(), reached: flow.reached(load) }
    };
    vec![Some(highest(trial) / 1e3)]
});
/// The round trip of `ping -f`.
pub(crate) static PING: Measure =
    measure("ping", &[less("ping -f, round trip, us")], |place, seconds| vec![Some(latency::flood(place, third(seconds)))]);
/// Round trips while other traffic passes.
pub(crate) static PING_LOADED: Measure =
    measure("ping-loaded", &[less("ping at 280 Mbit/s, p50, us"), less("ping at 280 Mbit/s, p99, us")], |place, seconds| {
        latency::loaded(place, third(seconds)).map(Some).to_vec()
    });
/// Round trips beside one and four streams that fill the way.
pub(crate) static LATENCY_LOAD: Measure = Measure {
    name: "latency-load",
    metrics: &[
        less("ping by 1 CUBIC, p50, us"),
        less("  p99, us"),
        more("  the stream, Gbit/s"),
        less("ping by 4 CUBIC, p50, us"),
        less("  p99, us"),
        more("  the streams, Gbit/s"),
    ],
    rounds: 3,
    run: |place, seconds| beside(place, "cubic", seconds),
};
/// The same where BBR controls the streams, if the kernel has it.
pub(crate) static LATENCY_LOAD_BBR: Measure = Measure {
    name: "latency-load-bbr",
    metrics: &[
        less("ping by 1 BBR, p50, us"),
        less("  p99, us"),
        more("  the stream, Gbit/s"),
        less("ping by 4 BBR, p50, us"),
        less("  p99, us"),
        more("  the streams, Gbit/s"),
    ],
    rounds: 3,
    run: |place, seconds| beside(place, "bbr", seconds),
};
/// New sessions through an uplink of kind link or the kernel.
pub(crate) static SESSIONS: Measure =
    measure("sessions", &[more("new sessions, k/s")], |place, _| new_sessions(place, sessions::MOST));
/// New sessions where each is a socket.
pub(crate) static SESSIONS_OF_SOCKETS: Measure =
    measure("sessions", &[more("new sessions, k/s")], |place, _| new_sessions(place, sessions::FEW));

/// The seconds of all but the first of measures, which are many.
fn third(seconds: u64) -> u64 {
    (seconds / 3).max(1)
}

/// CPU seconds of the contender for each of `units` that `run` counts.
fn with_cpu<T>(place: &Place, run: impl FnOnce() -> T, units: impl FnOnce(&T) -> f64) -> (T, Option<f64>) {
    let before = place.cpu();
    let result = run();
    let used = place.cpu().zip(before).map(|(after, before)| (after - before).as_secs_f64());
    let units = units(&result);
    (result, used.map(|used| used / units))
}

fn tcp(place: &Place, options: &str) -> Figures {
    let run = || iperf3(place.from(), place.to(), place.address, options);
    let (report, per_gb) = with_cpu(place, run, |report| sum(report, "bytes") / 1e9);
    vec![Some(sum(&report, "bits_per_second") / 1e9), per_gb]
}

fn beside(place: &Place, control: &'static str, seconds: u64) -> Figures {
    let of = |count| match latency::beside(place, Streams { count, control }, third(seconds)) {
        Some(([median, worst], rate)) => [median, worst, rate / 1e9].map(Some),
        None => [None; 3],
    };
    [of(1), of(4)].concat()
}

/// What both receivers saw.
fn sum(report: &Value, name: &str) -> f64 {
    let of = |part: &str| report["end"][part][name].as_f64();
    let one = of("sum_received").unwrap_or_else(|| panic!("iperf3 says no {name} in {}", report["end"]));
    one + of("sum_received_bidir_reverse").unwrap_or(0.0)
}

fn udp(place: &Place, load: Load, seconds: u64) -> Figures {
    let run = || generator::run(place, load, Duration::from_secs(third(seconds))).at(load);
    let (flow, per_million) = with_cpu(place, run, |flow| flow.received as f64 / 1e6);
    vec![Some(flow.rate() / 1e3), per_million]
}

/// What became of a rate.
#[derive(Clone, Copy)]
struct Trial {
    /// Frames a second that were sent.
    offered: f64,
    /// The share that did not arrive.
    lost: f64,
    /// Whether the sender could keep the rate.
    reached: bool,
}

/// The highest rate at which at most [`LOSS`] is lost: doubled until it is too much, or more than the sender can, then halved in.
///
/// # Panics
/// If the lowest is too much.
fn highest(mut trial: impl FnMut(f64) -> Trial) -> f64 {
    let (mut best, mut rate, mut bound) = (0.0_f64, LOWEST, None);
    for _ in 0..TRIALS {
        let Trial { offered, lost, reached } = trial(rate);
        if lost <= LOSS {
            best = best.max(offered);
            if !reached {
                return best;
            }
        } else {
            bound = Some(rate);
        }
        rate = bound.map_or(rate * 2.0, |bound| f64::midpoint(best, bound));
        if rate < LOWEST {
            break;
        }
    }
    assert!(best > 0.0, "even at {:.0} thousand packets a second some are lost", LOWEST / 1e3);
    best
}

fn new_sessions(place: &Place, count: u16) -> Figures {
    let opened = sessions::open(place, count);
    vec![Some(f64::from(opened.sessions) / opened.time.as_secs_f64().max(1e-6) / 1e3)]
}

/// The share of packets that may be lost: on a machine with other things to do none at all is chance.
const LOSS: f64 = 0.001;
const LOWEST: f64 = 20e3;
const TRIALS: usize = 7;
const TRIAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    /// What a path with this capacity, and a sender with that, do at a rate.
    fn path(capacity: f64, sender: f64) -> impl FnMut(f64) -> Trial {
        move |rate| {
            let offered = rate.min(sender);
            Trial { offered, lost: 1.0 - offered.min(capacity) / offered, reached: offered >= rate }
        }
    }

    #[test]
    fn the_highest_rate_without_loss_is_found() {
        let found = highest(path(100e3, 1e9));
        assert!((90e3..=100.2e3).contains(&found), "{found}");
        let found = highest(path(25e3, 1e9));
        assert!((23e3..=25.1e3).contains(&found), "{found}");
    }

    #[test]
    fn the_sender_may_be_the_limit() {
        assert_eq!(highest(path(1e9, 70e3)), 70e3);
    }

    #[test]
    #[should_panic(expected = "even at 20 thousand")]
    fn a_path_that_always_loses_has_none() {
        highest(path(10e3, 1e9));
    }
}
