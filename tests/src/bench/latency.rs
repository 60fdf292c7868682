//! Round trips.

use std::time::Duration;

use super::contender::Place;
use super::generator::{self, Load};
use crate::measure::iperf3;

/// The mean of as many echoes as there is time for, one after another, in microseconds.
///
/// # Panics
/// If none comes back.
pub(crate) fn flood(place: &Place, seconds: u64) -> f64 {
    let (lab, netns) = place.from();
    let text = lab.run_in(netns, &format!("ping -n -q -f -w {seconds} {}", place.address)).ok();
    // rtt min/avg/max/mdev = 0.008/0.012/0.451/0.004 ms, ipg/ewma 0.021/0.011 ms
    let mean = text.split(" = ").nth(1).and_then(|rest| rest.split('/').nth(1)).and_then(|mean| mean.parse::<f64>().ok());
    mean.unwrap_or_else(|| panic!("ping says {text}")) * 1000.0
}

/// The median and the 99th percentile of the round trips of 500 echoes a second beside [`LOAD`], in microseconds.
///
/// # Panics
/// If none comes back, or the load was not reached.
pub(crate) fn loaded(place: &Place, seconds: u64) -> [f64; 2] {
    let (lab, netns) = place.from();
    let text = std::thread::scope(|scope| {
        let time = Duration::from_secs(seconds) + Duration::from_millis(200);
        let load = scope.spawn(move || generator::run(place, LOAD, time));
        // When the warm-up of the load is over.
        std::thread::sleep(Duration::from_millis(200));
        let text = lab.run_in(netns, &format!("ping -n -i 0.002 -w {seconds} {}", place.address)).stdout;
        let flow = load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        flow.at(LOAD);
        text
    });
    percentiles(&text)
}

/// TCP streams beside which is pinged.
#[derive(Clone, Copy)]
pub(crate) struct Streams {
    /// How many at a time.
    pub(crate) count: usize,
    /// What controls their rate, as the kernel calls it.
    pub(crate) control: &'static str,
}

/// The median and the 99th percentile of the round trips of 100 echoes a second beside TCP streams, in microseconds, and what the streams got
/// through, in bits a second. `None`: the kernel has no such control.
///
/// # Panics
/// If hardly any echo comes back, or a stream fails.
pub(crate) fn beside(place: &Place, Streams { count, control }: Streams, seconds: u64) -> Option<([f64; 2], f64)> {
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    if !known.split_whitespace().any(|name| name == control) {
        return None;
    }
    let (lab, netns) = place.from();
    Some(std::thread::scope(|scope| {
        let options = format!("-C {control} -P {count} -t {}", seconds + 1);
        let streams = scope.spawn(move || iperf3(place.from(), place.to(), place.address, &options));
        // When they have come to their rates.
        std::thread::sleep(Duration::from_millis(700));
        let text = lab.run_in(netns, &format!("ping -n -i 0.01 -w {seconds} {}", place.address)).stdout;
        let report = streams.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
        (percentiles(&text), rate.unwrap_or_else(|| panic!("iperf3 says no rate in {}", report["end"])))
    }))
}

/// The median and the 99th percentile of what ping says.
///
/// # Panics
/// If hardly any echo came back.
fn percentiles(text: &str) -> [f64; 2] {
    let mut times: Vec<f64> = text.lines().filter_map(time).collect();
    assert!(times.len() >= 50, "only {} echoes came back", times.len());
    times.sort_by(f64::total_cmp);
    [50, 99].map(|percent| times[(times.len() * percent / 100).min(times.len() - 1)])
}

/// 64 bytes from 10.0.0.2: icmp_seq=2 ttl=64 time=0.163 ms
fn time(line: &str) -> Option<f64> {
    let milliseconds: f64 = line.split("time=").nth(1)?.split(' ').next()?.parse().ok()?;
    Some(milliseconds * 1000.0)
}

const LOAD: Load = Load { frame: 1400, rate: Some(25e3) };

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_of_ping_has_a_time() {
        assert_eq!(super::time("64 bytes from 10.0.0.2: icmp_seq=2 ttl=64 time=0.163 ms"), Some(163.0));
        assert_eq!(super::time("PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data."), None);
    }
}
