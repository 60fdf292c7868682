//! Several hosts with a vswitchd each, joined by an Ethernet: what tests and benchmarks of tunnels run on.

use crate::docker::DockerHost;
use crate::lab::Lab;
use crate::measure::iperf3;

/// The network between hosts: an Ethernet to which the `host` namespaces of labs are joined by `u0`, with addresses 192.0.2.N and
/// 2001:db8::N.
pub struct Underlay {
    /// The Ethernet, a bridge of the kernel's in its `host` namespace; `fN` leads to host N.
    pub fabric: Lab,
}

impl Underlay {
    /// An Ethernet without hosts.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn new() -> Self {
        let fabric = Lab::new();
        fabric.sh("ip -n @host link add fab type bridge mcast_snooping 0 && ip -n @host link set fab up").ok();
        Self { fabric }
    }

    /// Joins a lab as host `number`.
    ///
    /// # Panics
    /// If it cannot.
    #[track_caller]
    pub fn join(&self, lab: &Lab, number: u8) {
        let fabric = self.fabric.named("@host");
        lab.sh(&format!(
            "ip -n @host link add u0 type veth peer name f{number} netns {fabric} && ip -n @host link set u0 up && \
             ip -n @host addr add 192.0.2.{number}/24 dev u0 && ip -n @host addr add 2001:db8::{number}/64 dev u0 nodad && \
             ip -n {fabric} link set f{number} master fab up"
        ))
        .ok();
    }

    /// Joins a host with Docker by `u0`, with an address of another subnet: 192.0.2.0/24 is that of its way out.
    ///
    /// # Panics
    /// If it cannot.
    #[track_caller]
    pub fn join_docker(&self, host: &DockerHost, number: u8, address: &str) {
        let fabric = self.fabric.named("@host");
        let pid = host.holder();
        self.fabric
            .sh(&format!(
                "ip -n {fabric} link add f{number} type veth peer name u0 netns {pid} && ip -n {fabric} link set f{number} master fab up"
            ))
            .ok();
        host.sh(&format!("ip link set u0 up && ip addr add {address} dev u0")).ok();
    }

    /// Switches the offloads of a host's way to the others on or off: as a network card has or has not.
    ///
    /// # Panics
    /// If it cannot.
    #[track_caller]
    pub fn set_offloads(&self, lab: &Lab, number: u8, on: bool) {
        self.set_features(lab, number, "tx gso tso gro tx-udp-segmentation", on);
    }

    /// As [`Underlay::set_offloads`], for the features of ethtool with these names.
    ///
    /// # Panics
    /// If it cannot.
    #[track_caller]
    pub fn set_features(&self, lab: &Lab, number: u8, features: &str, on: bool) {
        let word = if on { "on" } else { "off" };
        let line = |device: &str| format!("for what in {features}; do ethtool -K {device} $what {word}; done");
        lab.run_in("host", &line("u0"));
        self.fabric.run_in("host", &line(&format!("f{number}")));
    }

    /// Whether the way to the others passes super-frames whole, which no real network does; other offloads are on.
    ///
    /// # Panics
    /// If it cannot.
    #[track_caller]
    pub fn set_segmentation(&self, lab: &Lab, number: u8, on: bool) {
        self.set_offloads(lab, number, true);
        self.set_features(lab, number, "tso gso tx-udp-segmentation", on);
    }

    /// A host with a vswitchd: station `a` on bridge `br0` with 10.0.0.N and fd00::N, and what else `more` says.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn host(&self, number: u8, more: &str) -> Lab {
        let mut lab = Lab::new();
        self.join(&lab, number);
        lab.write(&Self::file(number, more));
        lab.start();
        lab
    }

    /// What [`Underlay::host`] writes.
    pub fn file(number: u8, more: &str) -> String {
        format!(
            "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"@a\"\n\
             addresses = [\"10.0.0.{number}/24\", \"fd00::{number}/64\"]\n{more}"
        )
    }
}

impl Default for Underlay {
    fn default() -> Self {
        Self::new()
    }
}

/// iperf3 from station `a` of one lab to that of another; bits a second that arrived.
///
/// # Panics
/// If the connection fails or stalls.
#[track_caller]
pub fn across(from: &Lab, to: &Lab, address: &str, options: &str) -> f64 {
    let report = iperf3((from, "a"), (to, "a"), address, options);
    let end = &report["end"];
    let rate = |name: &str| end[name]["bits_per_second"].as_f64();
    rate("sum_received").or_else(|| rate("sum")).expect("a rate")
}
