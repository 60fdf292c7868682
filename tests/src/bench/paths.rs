//! The plan of a run: which contenders are compared, on which paths, by which measures.

use super::contender::Contender;
use super::measure::{self, Measure};
use super::{memory, places};

/// A way of frames, the contenders that offer it, and what is measured there.
pub(crate) struct Path {
    /// The word for it on the command line.
    pub(crate) name: &'static str,
    /// What it is called in tables.
    pub(crate) title: &'static str,
    /// This project's switch, then those that it is compared with.
    pub(crate) contenders: &'static [&'static Contender],
    /// What is measured, in turn. What wants a fresh place comes first.
    pub(crate) measures: &'static [&'static Measure],
}

/// All paths between stations.
pub(crate) static PATHS: &[Path] = &[
    Path {
        name: "tap",
        title: "TAP to TAP, MTU 1500",
        contenders: &[&places::VSWITCH_TAP, &places::BRIDGE, &places::OVS_TAP, &places::VDE, &places::BARE],
        measures: &[
            &memory::PER_MAC,
            &measure::TCP,
            &measure::TCP_8,
            &measure::TCP_REVERSE,
            &measure::TCP_BOTH,
            &measure::UDP_64_LOW,
            &measure::UDP_64_HIGH,
            &measure::UDP_64_FULL,
            &measure::UDP_64_CLEAN,
            &measure::UDP_1400_LOW,
            &measure::UDP_1400_FULL,
            &measure::PING,
            &measure::PING_LOADED,
            &measure::LATENCY_LOAD,
            &measure::LATENCY_LOAD_BBR,
        ],
    },
    Path {
        name: "veth",
        title: "veth to veth, MTU 1500",
        contenders: &[&places::VSWITCH_VETH, &places::BRIDGE, &places::OVS_VETH],
        measures: &[
            &measure::TCP,
            &measure::UDP_64_LOW,
            &measure::UDP_64_FULL,
            &measure::UDP_64_CLEAN,
            &measure::PING,
            &measure::PING_LOADED,
            &measure::LATENCY_LOAD,
        ],
    },
    Path {
        name: "nat",
        title: "NAT by an uplink of kind link, TAP to veth",
        contenders: &[&places::VSWITCH_LINK, &places::NFTABLES],
        measures: &[
            &memory::PER_SESSION,
            &measure::TCP,
            &measure::TCP_8,
            &measure::TCP_REVERSE,
            &measure::UDP_64_LOW,
            &measure::UDP_64_FULL,
            &measure::UDP_64_CLEAN,
            &measure::PING,
            &measure::PING_LOADED,
            &measure::LATENCY_LOAD,
            &measure::SESSIONS,
        ],
    },
    Path {
        name: "host",
        title: "NAT by an uplink of kind host, MTU 1500",
        contenders: &[&places::VSWITCH_HOST, &places::SLIRP4NETNS, &places::PASTA],
        measures: &[
            &memory::PER_SESSION_OF_SOCKETS,
            &measure::TCP,
            &measure::TCP_REVERSE,
            &measure::UDP_64_FULL,
            &measure::PING,
            &measure::LATENCY_LOAD,
            &measure::SESSIONS_OF_SOCKETS,
        ],
    },
    Path {
        name: "vxlan",
        title: "VXLAN, the underlay's tso and gso off",
        contenders: &[&places::VSWITCH_VXLAN, &places::KERNEL_VXLAN],
        measures: &[&measure::TCP, &measure::UDP_64_FULL, &measure::UDP_1400_LOW, &measure::PING, &measure::LATENCY_LOAD],
    },
    Path {
        name: "vxlan-offload",
        title: "VXLAN, the underlay's offloads on",
        contenders: &[&places::VSWITCH_VXLAN_OFFLOAD, &places::KERNEL_VXLAN_OFFLOAD],
        measures: &[&measure::TCP],
    },
];

/// Many ports: see [`super::scale`].
pub(crate) const PORTS: (&str, &str) = ("ports", "Many ports: TAPs; veth pairs of the Linux bridge");
/// The datapath without devices: see [`super::alone`].
pub(crate) const DATAPATH: (&str, &str) = ("datapath", "The datapath alone, 64-byte frames, per CPU second");

/// The words for all paths, with what they are called.
pub(crate) fn titles() -> impl Iterator<Item = (&'static str, &'static str)> {
    PATHS.iter().map(|path| (path.name, path.title)).chain([PORTS, DATAPATH])
}

impl Contender {
    /// Whether it takes part in a measure.
    pub(crate) fn takes_part(&self, measure: &str) -> bool {
        self.only.is_none_or(|only| only.contains(&measure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_is_measured_and_every_name_fits() {
        for path in PATHS {
            for contender in path.contenders {
                let only = contender.only.unwrap_or_default();
                assert!(
                    only.iter().all(|name| path.measures.iter().any(|measure| measure.name == *name)),
                    "{}",
                    contender.name
                );
            }
            for metric in path.measures.iter().flat_map(|measure| measure.metrics) {
                assert!(metric.name.len() <= 30, "{} is too long for the table", metric.name);
            }
            let fresh = path.measures.iter().skip(1).all(|measure| measure.rounds > 1);
            assert!(fresh, "{}: what wants a fresh place comes first", path.name);
        }
    }
}
