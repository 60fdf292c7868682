//! The place of a long run, and its traffic.

use std::fs;
use std::io::{Read, Seek, SeekFrom};

use crate::{EVERY_WAY, Lab, every_way};

/// Besides every other way, station `e` goes out by the host's own sockets.
const BY_THE_HOST: &str = r#"
[[bridge]]
name = "br1"
addresses = ["10.1.0.254/24"]
uplink = "host"
[[uplink]]
name = "host"
kind = "host"
[[port]]
name = "e"
bridge = "br1"
netns = "@e"
addresses = ["10.1.0.1/24"]
"#;

/// The namespaces of the place, without those of the switch's ports.
const OTHERS: [&str; 3] = ["d", "host", "world"];

/// What is sent: its name, from where, and what iperf3 is told. Those by the uplink `host` are cut when the switch is killed, and no others.
const WAYS: [(&str, &str, &str); 8] = [
    ("TAP to TAP", "a", "-c 10.0.0.2 -p 5211 -b 20M"),
    ("UDP", "a", "-c 10.0.0.2 -p 5212 -u -b 5M"),
    ("veth", "c", "-c 10.0.0.2 -p 5213 -b 20M"),
    ("link", "d", "-c 10.0.0.2 -p 5214 -b 20M"),
    ("NAT", "a", "-c 192.0.2.1 -p 5215 -b 20M"),
    ("published port", "world", "-c 192.0.2.10 -p 5202 -b 20M"),
    ("VXLAN", "c", "-c 10.0.0.9 -p 5216 -b 20M"),
    (HOST, "e", "-c 192.0.2.1 -p 5217 -b 20M"),
];
const HOST: &str = "host uplink";

/// Who is asked how long a frame takes, and what that shows.
pub(super) const ASKED: [(&str, &str); 3] = [("TAP", "10.0.0.2"), ("VXLAN", "10.0.0.9"), ("NAT", "192.0.2.1")];

/// The place, with a switch that runs.
pub(super) fn lab() -> Lab {
    every_way(&format!("{EVERY_WAY}{BY_THE_HOST}"))
}

/// What of ports that were removed is there still, by its name.
pub(super) fn left(lab: &Lab) -> Vec<String> {
    let known = |name: &String| OTHERS.contains(&&**name) || ["a", "b", "c", "e"].contains(&&**name);
    let mut left: Vec<String> = lab.netns().into_iter().filter(|name| !known(name)).collect();
    let devices = lab.run_in("host", "ip -o link | grep -o 'vsw-t[0-9]*'; true").ok();
    left.extend(devices.split_whitespace().map(str::to_owned));
    left
}

/// Traffic that goes on and on, and what is known of it by now.
#[derive(Debug)]
pub(super) struct Traffic {
    /// How much of each log of round trips was read.
    read: [u64; ASKED.len()],
}

impl Traffic {
    /// Begins all of it. Each connection lives for a minute, and the next one follows.
    pub(super) fn begin(lab: &mut Lab) -> Self {
        for port in [5201].into_iter().chain(5211..=5217) {
            for netns in ["b", "world"] {
                lab.spawn_in(netns, &format!("sh -c 'while :; do iperf3 -s -1 -p {port} > /dev/null 2>&1; done'"));
            }
        }
        lab.until("they listen", |lab| {
            ["b", "world"].iter().all(|netns| lab.run_in(netns, "ss -Hltn | grep -c ':52'").stdout.trim() == "8")
        });
        for (number, (_, from, words)) in WAYS.iter().enumerate() {
            let log = lab.path(&format!("cut-{number}")).display().to_string();
            // A server that is between two clients is asked again.
            let once = format!("iperf3 {words} -t 60 > {log}.last 2>&1");
            let again = format!(
                "grep -q 'unable to connect\\|busy' {log}.last && sleep 1 && continue; date +%T >> {log}; cat {log}.last >> {log}"
            );
            lab.spawn_in(from, &format!("sh -c 'while :; do {once} || {{ {again}; }}; done'"));
        }
        for (number, (_, to)) in ASKED.iter().enumerate() {
            let log = lab.path(&format!("round-{number}")).display().to_string();
            lab.spawn_in("a", &format!("sh -c 'ping -n -i 0.1 {to} > {log} 2>&1'"));
        }
        Self { read: [0; ASKED.len()] }
    }

    /// The round trips since the last call, in ms, to each that is asked.
    pub(super) fn round_trips(&mut self, lab: &Lab) -> [Vec<f64>; ASKED.len()] {
        std::array::from_fn(|number| {
            let mut text = String::new();
            let mut log = fs::File::open(lab.path(&format!("round-{number}"))).expect("a log");
            log.seek(SeekFrom::Start(self.read[number])).expect("a place in it");
            log.read_to_string(&mut text).expect("text");
            // The last line may not be whole yet.
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            self.read[number] += whole as u64;
            let times = text[..whole].lines().filter_map(|line| line.rsplit_once("time=")?.1.split(' ').next()?.parse().ok());
            times.collect()
        })
    }

    /// Which connections were cut that should not have been.
    pub(super) fn cut(lab: &Lab, crashes: u32) -> Vec<String> {
        let logs = WAYS
            .iter()
            .enumerate()
            .map(|(number, (name, ..))| (*name, fs::read_to_string(lab.path(&format!("cut-{number}"))).unwrap_or_default()));
        let count = |text: &str| text.lines().filter(|line| line.contains("iperf3: error")).count();
        let allowed = |name: &str| if name == HOST { crashes as usize } else { 0 };
        logs.filter(|(name, text)| count(text) > allowed(name))
            .map(|(name, text)| format!("{name}: {}", text.trim_end()))
            .collect()
    }
}
