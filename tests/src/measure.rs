//! Traffic between stations of a lab, and what became of it.

use std::process::{Child, Stdio};

use serde_json::Value;

use crate::lab::{Lab, children_of};

/// What a transfer by iperf3 came to.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Bits a second that the receiver saw.
    pub bits: f64,
    /// UDP datagrams that the receiver saw, a second.
    pub packets: f64,
    /// Share of the UDP datagrams that were lost, 0.0 to 1.0.
    pub lost: f64,
}

/// One TCP stream from one station to another. `extent` and what else the sending iperf3 should be told: `-n 64M`, `-t 5`
/// (whole seconds).
///
/// # Panics
/// If the connection fails or stalls.
#[track_caller]
pub fn tcp(lab: &Lab, from: &str, to: &str, address: &str, extent: &str) -> Transfer {
    let report = iperf3((lab, from), (lab, to), address, extent);
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().expect("a rate");
    Transfer { bits, packets: 0.0, lost: 0.0 }
}

/// UDP datagrams from one station to another; `extent` says how many, how fast (`-b`) and how long (`-l`).
///
/// # Panics
/// If the control connection fails.
#[track_caller]
pub fn udp(lab: &Lab, from: &str, to: &str, address: &str, extent: &str) -> Transfer {
    let report = iperf3((lab, from), (lab, to), address, &format!("-u {extent}"));
    let sum = &report["end"]["sum"];
    let number = |name: &str| sum[name].as_f64().unwrap_or_else(|| panic!("no {name} in {sum}"));
    let (sent, lost) = (number("packets"), number("lost_packets"));
    Transfer { bits: number("bits_per_second"), packets: (sent - lost) / number("seconds"), lost: lost / sent.max(1.0) }
}

/// As [`udp`], until a transfer `is_well`, three times at most: a loaded machine may be late once or twice, a path that loses what it
/// should carry loses it each time.
///
/// # Panics
/// If none of them is, with what they came to.
#[track_caller]
pub fn udp_is_well(lab: &Lab, [from, to]: [&str; 2], address: &str, extent: &str, is_well: impl Fn(&Transfer) -> bool) {
    let mut transfers = Vec::new();
    while !transfers.last().is_some_and(&is_well) {
        assert!(transfers.len() < 3, "{from} to {to}, {address}, {extent}: {transfers:?}");
        transfers.push(udp(lab, from, to, address, extent));
    }
}

/// What a lab's vswitchd holds, its broker with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint {
    /// Open file descriptors.
    pub descriptors: usize,
    /// Its threads.
    pub threads: usize,
    /// Resident memory, in kB.
    pub memory: u64,
}

impl Footprint {
    /// At this moment.
    ///
    /// # Panics
    /// If it does not run.
    pub fn of(lab: &Lab) -> Self {
        let processes = [lab.pid()].into_iter().chain(children_of(lab.pid()));
        processes.map(Self::of_process).fold(Self::default(), |all, one| Self {
            descriptors: all.descriptors + one.descriptors,
            threads: all.threads + one.threads,
            memory: all.memory + one.memory,
        })
    }

    fn of_process(process: u32) -> Self {
        let place = format!("/proc/{process}");
        let count = |what: &str| std::fs::read_dir(format!("{place}/{what}")).expect("vswitchd runs").count();
        let status = std::fs::read_to_string(format!("{place}/status")).expect("vswitchd runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let memory = line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number of kB");
        Self { descriptors: count("fd"), threads: count("task"), memory }
    }
}

/// In a namespace: TCP is controlled by CUBIC, the default of Linux, if namespaces may choose it ([`AllowCubic`]). BBR keeps to the rate
/// that it believes the way has, and would measure less of what is between.
pub(crate) const CUBIC: &str = "! grep -qw cubic /proc/sys/net/ipv4/tcp_allowed_congestion_control || \
    echo cubic > /proc/sys/net/ipv4/tcp_congestion_control";

/// While it lives, namespaces may choose CUBIC. Where it is not the machine's own choice, the kernel keeps it from them, root or not
/// (`tcp_set_default_congestion_control`), and new ones begin with that choice.
#[must_use]
pub struct AllowCubic {
    /// The list as it was.
    before: Option<String>,
}

impl AllowCubic {
    const LIST: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

    /// Puts it on the machine's list. Says so if that is not possible: all contenders then have the machine's choice.
    pub fn for_now() -> Self {
        let before = std::fs::read_to_string(Self::LIST).unwrap_or_default();
        if before.split_whitespace().any(|name| name == "cubic") {
            return Self { before: None };
        }
        match std::fs::write(Self::LIST, format!("{} cubic", before.trim())) {
            Ok(()) => Self { before: Some(before) },
            Err(error) => {
                eprintln!(
                    "CUBIC cannot be chosen in namespaces ({}: {error}); TCP is controlled as the machine does it",
                    Self::LIST
                );
                Self { before: None }
            }
        }
    }
}

impl Drop for AllowCubic {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = std::fs::write(Self::LIST, before.trim())
        {
            eprintln!("{} is not as before, which was \"{}\": {error}", Self::LIST, before.trim());
        }
    }
}

/// iperf3 between two stations, each of a lab: its report.
///
/// # Panics
/// If the connection fails or stalls.
#[track_caller]
pub fn iperf3(from: (&Lab, &str), to: (&Lab, &str), address: &str, options: &str) -> Value {
    let server = format!("{CUBIC}; exec iperf3 -s -1 --forceflush");
    let _server = Server(to.0.command_in(to.1, &server).stdout(Stdio::null()).spawn().expect("iperf3"));
    to.0.until("iperf3 listens", |lab| !lab.run_in(to.1, "ss -Hltn sport = :5201").ok().is_empty());
    let outcome = from.0.run_in(from.1, &format!("{CUBIC}; iperf3 -J -c {address} {options}"));
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    assert!(report["error"].is_null(), "iperf3 from {} to {} {options}: {}", from.1, to.1, report["error"]);
    report
}

/// It ends with the measurement, also if that fails.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Pings once, at most three times; whether an answer came.
pub fn ping(lab: &Lab, from: &str, address: &str) -> bool {
    (0..3).any(|_| lab.run_in(from, &format!("ping -n -c 1 -W 1 {address}")).code == Some(0))
}

/// How many packets this station received with a bad TCP, UDP or ICMP checksum, ever.
///
/// # Panics
/// If the kernel does not say.
#[track_caller]
pub fn checksum_errors(lab: &Lab, netns: &str) -> u64 {
    let text = lab.run_in(netns, "cat /proc/net/snmp /proc/net/snmp6").ok();
    let mut total = 0;
    let mut names: Vec<&str> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [name, value] if name.ends_with("InCsumErrors") => total += value.parse::<u64>().expect("a number"),
            [_, first, ..] if first.parse::<i64>().is_err() => names = words,
            _ => {
                let column = names.iter().position(|name| *name == "InCsumErrors");
                let value = column.and_then(|column| words.get(column)).filter(|_| words.first() == names.first());
                total += value.map_or(0, |value| value.parse::<u64>().expect("a number"));
            }
        }
    }
    total
}

/// The middle one of some figures, or the mean of the two in the middle.
///
/// # Panics
/// If there are none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 9.0, 2.0]), 3.0);
    }
}
