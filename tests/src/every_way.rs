//! A place with every kind of port, uplink and tunnel, and traffic by each of them.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use crate::Lab;

/// Every kind of port, uplink and tunnel: `a` and `b` are TAPs, `c` is a veth pair, `d` a link; `wan` leads to the world, where a kernel's VXLAN has
/// 10.0.0.9.
pub const EVERY_WAY: &str = r#"
[[bridge]]
name = "br0"
addresses = ["10.0.0.254/24"]
uplink = "wan"
[[uplink]]
name = "wan"
kind = "link"
device = "wan"
address = "192.0.2.10/24"
[[forward]]
uplink = "wan"
protocol = "tcp"
port = 5202
to = "10.0.0.2:5201"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.0.0.1/24"]
[[port]]
name = "b"
bridge = "br0"
netns = "@b"
addresses = ["10.0.0.2/24"]
[[port]]
name = "c"
bridge = "br0"
kind = "veth"
netns = "@c"
addresses = ["10.0.0.3/24"]
[[port]]
name = "d"
bridge = "br0"
kind = "link"
device = "d0"
[[vxlan]]
name = "vx0"
bridge = "br0"
vni = 7
local = "198.51.100.1"
peers = ["198.51.100.2"]
"#;

/// A lab with a switch that runs `file`, which has these uplinks and tunnels, and the world around it.
///
/// # Panics
/// If something does not come up.
pub fn every_way(file: &str) -> Lab {
    let mut lab = Lab::new();
    lab.add_netns("world");
    lab.add_netns("d");
    lab.run_in("host", "ip link add wan type veth peer name wan netns @world && ip link set wan up").ok();
    lab.run_in("world", "ip link set wan up && ip addr add 192.0.2.1/24 dev wan && ip addr add 198.51.100.2/32 dev lo").ok();
    lab.run_in("host", "ip addr add 198.51.100.1/32 dev lo && ip addr add 192.0.2.20/24 dev wan && ip route add 198.51.100.2 via 192.0.2.1 src 198.51.100.1").ok();
    lab.run_in("world", "ip route add 198.51.100.1 via 192.0.2.20 src 198.51.100.2").ok();
    lab.run_in("world", "ip link add vx0 type vxlan id 7 local 198.51.100.2 remote 198.51.100.1 dstport 4789 && ip link set vx0 up && ip addr add 10.0.0.9/24 dev vx0").ok();
    lab.run_in("host", "ip link add d0 type veth peer name eth0 netns @d && ip link set d0 up").ok();
    lab.run_in("d", "ip link set eth0 up && ip addr add 10.0.0.4/24 dev eth0").ok();
    lab.write(file);
    lab.start();
    lab
}

/// TCP connections by every way of [`every_way`], and pings every 10 ms from `a`.
pub struct Traffic {
    /// What iperf3 says, and iperf3.
    connections: Vec<(PathBuf, Child)>,
    /// Whom ping asks, what it says, and ping.
    pings: Vec<(&'static str, PathBuf, Child)>,
}

/// What came of the pings to one address.
#[derive(Debug)]
pub struct Pings {
    /// The address.
    pub to: &'static str,
    /// How many were sent.
    pub sent: usize,
    /// How many were not answered.
    pub missed: usize,
    /// How long none was answered.
    pub silence: Duration,
    /// How long the slowest answer took.
    pub slowest: Duration,
}

/// Between two pings.
const PACE: Duration = Duration::from_millis(10);

impl Traffic {
    /// Connections that go on for so many seconds: the stations' to `b`, out to the world, in by the published port. `rate` is iperf3's option for
    /// each. The pings end some seconds earlier.
    ///
    /// # Panics
    /// If nothing flows within a minute.
    pub fn begin(lab: &mut Lab, seconds: u32, rate: &str) -> Self {
        let ways = [
            ("a", "10.0.0.2"),
            ("c", "10.0.0.2"),
            ("d", "10.0.0.2"),
            ("world", "10.0.0.2"),
            ("a", "192.0.2.1"),
            ("c", "10.0.0.9"),
        ];
        for port in 5210..5210 + ways.len() {
            for netns in ["b", "world"] {
                lab.spawn_in(netns, &format!("iperf3 -s -p {port}"));
            }
        }
        lab.spawn_in("b", "iperf3 -s");
        lab.until("they listen", |lab| {
            ["b", "world"].iter().all(|netns| {
                lab.run_in(netns, "ss -Hltn | grep -c ':52'")
                    .stdout
                    .trim()
                    .parse::<usize>()
                    .is_ok_and(|count| count >= ways.len())
            })
        });
        let spawn = |lab: &mut Lab, name: String, from: &str, line: &str| {
            let log = lab.path(&name);
            let child = lab.command_in(from, &format!("{line} > {} 2>&1", log.display())).spawn().expect("a shell");
            (log, child)
        };
        let connections = ways.into_iter().zip(5210..).map(|((from, to), port)| (from, to, port));
        let connections: Vec<(PathBuf, Child)> = connections
            .chain([("world", "192.0.2.10", 5202)])
            .map(|(from, to, port)| {
                spawn(lab, format!("way-{port}"), from, &format!("iperf3 -c {to} -p {port} {rate} -t {seconds}"))
            })
            .collect();
        lab.until("traffic flows", |lab| lab.json("stats b")[0]["tx_frames"].as_u64().is_some_and(|frames| frames > 1000));
        let (pace, seconds) = (PACE.as_secs_f64(), seconds.saturating_sub(3));
        let pings = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.9", "192.0.2.1"].map(|to| {
            let (log, child) = spawn(lab, format!("ping-{to}"), "a", &format!("ping -i {pace} -w {seconds} {to}"));
            (to, log, child)
        });
        Self { connections, pings: pings.into() }
    }

    /// Waits until all have ended, and says what came of the pings.
    ///
    /// # Panics
    /// If a connection was cut.
    pub fn end(self) -> Vec<Pings> {
        let said = |log: &PathBuf| std::fs::read_to_string(log).expect("a log");
        for (log, mut child) in self.connections {
            assert!(child.wait().expect("it ends").success(), "{}: {}", log.display(), said(&log));
        }
        let pings = self.pings.into_iter().map(|(to, log, mut child)| {
            child.wait().expect("it ends");
            Pings::of(to, &said(&log))
        });
        pings.collect()
    }
}

impl Pings {
    fn of(to: &'static str, said: &str) -> Self {
        let number = |line: &str, key: &str| line.split(key).nth(1)?.split(' ').next()?.parse::<f64>().ok();
        let sent =
            said.lines().find_map(|line| line.contains("packets transmitted").then(|| line.split(' ').next()?.parse().ok())?);
        let sent: usize = sent.expect("what ping says at its end");
        let answers = said.lines().filter(|line| !line.contains("DUP!"));
        let answers: Vec<(f64, f64)> =
            answers.filter_map(|line| Some((number(line, "icmp_seq=")?, number(line, "time=")?))).collect();
        let mut numbers: Vec<f64> = answers.iter().map(|(number, _)| *number).chain([0.0, sent as f64 + 1.0]).collect();
        numbers.sort_by(f64::total_cmp);
        let silence = numbers.windows(2).map(|pair| pair[1] - pair[0] - 1.0).fold(0.0, f64::max);
        let slowest = answers.iter().map(|(_, time)| *time).fold(0.0, f64::max);
        Self {
            to,
            sent,
            missed: sent.saturating_sub(answers.len()),
            silence: PACE.mul_f64(silence),
            slowest: Duration::from_secs_f64(slowest / 1000.0),
        }
    }
}
