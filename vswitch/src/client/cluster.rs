//! `vsctl cluster`: its commands, and what they print in 80 columns.

use std::fmt::Write;
use std::net::IpAddr;

use clap::Subcommand;
use serde_json::json;

use super::print;
use super::table::Table;
use api::{ClusterAnswer, ClusterHost, ClusterNetwork, ClusterQuestion, ClusterStation, ClusterStatus, Finding, OverlayName};

/// What is asked about the cluster.
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// The store, and how it stands with it.
    Status,
    /// The hosts: where their tunnels end, which networks they are in, how many stations they have.
    Hosts,
    /// The networks: VNI, subnets, this host's bridge, hosts.
    Networks,
    /// The stations: MAC and IP addresses, host, name, how often each moved.
    Endpoints {
        /// Of one network only.
        network: Option<OverlayName>,
    },
    /// Compares the store, the tables of the switch and what is here, and names what is stale.
    Check,
    /// Prints what to tell the store, so that it lets a host in with no more than it needs.
    Acl,
}

impl ClusterCommand {
    pub(super) fn question(self) -> ClusterQuestion {
        match self {
            Self::Status => ClusterQuestion::Status,
            Self::Hosts => ClusterQuestion::Hosts,
            Self::Networks => ClusterQuestion::Networks,
            Self::Endpoints { network } => ClusterQuestion::Endpoints(network),
            Self::Check => ClusterQuestion::Check,
            Self::Acl => ClusterQuestion::Acl,
        }
    }
}

/// An answer as JSON.
pub(super) fn document(answer: &ClusterAnswer) -> String {
    match answer {
        ClusterAnswer::Status(status) => print::document(status),
        ClusterAnswer::Hosts(hosts) => print::document(hosts),
        ClusterAnswer::Networks(networks) => print::document(networks),
        ClusterAnswer::Endpoints(stations) => print::document(stations),
        ClusterAnswer::Check(findings) => print::document(findings),
        ClusterAnswer::Acl(text) => print::document(&json!({ "text": text })),
    }
}

/// An answer as text.
pub(super) fn text(answer: &ClusterAnswer) -> String {
    match answer {
        ClusterAnswer::Status(status) => show(status),
        ClusterAnswer::Hosts(hosts) => list_hosts(hosts),
        ClusterAnswer::Networks(networks) => list_networks(networks),
        ClusterAnswer::Endpoints(stations) => list_stations(stations),
        ClusterAnswer::Check(findings) if findings.is_empty() => {
            "The store, the tables of the switch and what is here agree.\n".to_owned()
        }
        ClusterAnswer::Check(findings) => findings.iter().map(finding).collect(),
        ClusterAnswer::Acl(text) => format!("{text}\n"),
    }
}

fn show(status: &ClusterStatus) -> String {
    let mut text = format!("{}: {}, for {} s\n", status.store, status.state, status.since_seconds);
    // Writing into a string cannot fail.
    if let Some(sentence) = &status.problem {
        let _ = writeln!(text, "  {sentence}");
    }
    for endpoint in &status.endpoints {
        let _ = writeln!(text, "  member     {endpoint}");
    }
    let _ = writeln!(text, "  prefix     {}", status.prefix);
    let underlay = status.underlay.as_ref().map(IpAddr::to_string).unwrap_or_default();
    let _ = writeln!(text, "  this host  {}, underlay {underlay}", status.node);
    let _ = writeln!(text, "  its key    {}", status.key.as_deref().unwrap_or("none: it has no part in encrypted networks"));
    let _ = writeln!(text, "  cluster    {}", status.cluster_id.as_deref().unwrap_or("not known yet"));
    let (hosts, networks) = (print::count(status.hosts as u64, "host"), print::count(status.networks as u64, "network"));
    let _ = writeln!(text, "  known      {hosts}, {networks}, {}", print::count(status.stations as u64, "remote station"));
    if status.held {
        text.push_str("  The store has lost what it had: nothing is withdrawn until all hosts have said it again.\n");
    }
    text
}

/// The port of tunnels, which is the same at all of them, is left out.
fn list_hosts(hosts: &[ClusterHost]) -> String {
    let mut table = Table::new(["HOST", "UNDERLAY", "KEY", "VERSION", "STATIONS", "TUNNEL", "PROBE", "NETWORKS"]);
    for host in hosts {
        let tunnel = if host.here { Some("this host".to_owned()) } else { host.tunnel.clone() };
        table.row([
            host.name.clone(),
            host.underlay.to_string(),
            // Enough to tell one from another by eye; --json has all of it.
            host.key.as_ref().map_or_else(|| "-".to_owned(), |key| key.chars().take(3).collect()),
            host.version.clone(),
            host.stations.to_string(),
            tunnel.unwrap_or_else(|| "-".to_owned()),
            host.probe.clone().unwrap_or_else(|| "-".to_owned()),
            if host.idle { "no part".to_owned() } else { host.networks.join(",") },
        ]);
    }
    table.text()
}

fn list_networks(networks: &[ClusterNetwork]) -> String {
    let mut table = Table::new(["NETWORK", "VNI", "SUBNETS", "BRIDGE", "TUNNEL", "STATIONS", "ENCRYPTED", "HOSTS"]);
    let mut problems = String::new();
    for network in networks {
        let name = |name: Option<String>| name.unwrap_or_else(|| "-".to_owned());
        table.row([
            network.name.clone(),
            name(network.vni.map(|vni| vni.to_string())),
            network.subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            name(network.bridge.as_ref().map(ToString::to_string)),
            name(network.tunnel.as_ref().map(ToString::to_string)),
            network.stations.to_string(),
            if network.encrypt { "yes" } else { "no" }.to_owned(),
            network.hosts.join(","),
        ]);
        problems.extend(network.problem.iter().map(|problem| format!("{}: {problem}\n", network.name)));
    }
    table.text() + &problems + &docker_lines(networks)
}

/// What to type so that containers of this host join the networks that it has no bridge in; where there are none, the pattern.
fn docker_lines(networks: &[ClusterNetwork]) -> String {
    let lines: Vec<&str> =
        networks.iter().filter(|network| network.bridge.is_none()).map(|network| network.docker.as_str()).collect();
    let pattern = "docker network create -d vswitch-overlay --ipam-driver vswitch-overlay -o vswitch.net=NAME --ipam-opt \
                   vswitch.net=NAME NAME";
    let lines = if lines.is_empty() { vec![pattern] } else { lines };
    let broken = lines.iter().map(|line| format!("  {}\n", line.replace(" -o ", " \\\n    -o ")));
    format!("A network of Docker's on this host joins one by\n{}", broken.collect::<String>())
}

fn list_stations(stations: &[ClusterStation]) -> String {
    let mut table = Table::new(["NETWORK", "MAC", "HOST", "MOVES", "NAME", "ADDRESSES"]);
    for station in stations {
        table.row([
            station.network.clone(),
            station.mac.to_string(),
            station.host.clone(),
            station.sequence.to_string(),
            station.name.clone().unwrap_or_default(),
            station.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        ]);
    }
    table.text()
}

fn finding(Finding { network, mac, host, sentence }: &Finding) -> String {
    let mac = mac.as_ref().map(ToString::to_string);
    let host = host.as_ref().map(|host| format!("host {host}"));
    let about: Vec<String> = [network.clone(), host, mac].into_iter().flatten().collect();
    if about.is_empty() { format!("{sentence}\n") } else { format!("{}: {sentence}\n", about.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_fits_eighty_columns() {
        let host = ClusterHost {
            name: "rack1-host17".to_owned(),
            underlay: "192.0.2.117".parse().unwrap(),
            port: 4789,
            key: Some("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".to_owned()),
            version: "0.1.0".to_owned(),
            here: false,
            idle: false,
            networks: vec!["ov_net1".to_owned()],
            stations: 200,
            tunnel: Some("never heard".to_owned()),
            probe: Some("silent".to_owned()),
        };
        let idle = ClusterHost { idle: true, networks: Vec::new(), tunnel: None, probe: None, ..host.clone() };
        let network = ClusterNetwork {
            name: "ov_net1".to_owned(),
            vni: Some(16_777_215),
            encrypt: true,
            subnets: vec!["10.10.0.0/16".parse().unwrap()],
            bridge: Some("br0".parse().unwrap()),
            tunnel: Some("ov-br0".parse().unwrap()),
            hosts: vec!["a".to_owned(), "b".to_owned()],
            stations: 17,
            problem: None,
            docker: "docker network create -d vswitch-overlay -o vswitch.net=ov_net1 ov_net1".to_owned(),
        };
        let station = ClusterStation {
            network: "ov_net1".to_owned(),
            mac: packet::Mac([2, 0, 0, 0, 0, 1]),
            ips: ["10.10.255.254".parse().unwrap()].into(),
            host: "rack1-host17".to_owned(),
            name: Some("web1".to_owned()),
            sequence: 0,
        };
        let finding =
            Finding { network: Some("ov_net1".to_owned()), mac: None, host: Some("a".to_owned()), sentence: "x".to_owned() };
        let answers = [
            ClusterAnswer::Status(Box::new(ClusterStatus { state: "up".to_owned(), hosts: 1, ..ClusterStatus::default() })),
            ClusterAnswer::Hosts(vec![host, idle]),
            ClusterAnswer::Networks(vec![network]),
            ClusterAnswer::Endpoints(vec![station]),
            ClusterAnswer::Check(vec![finding]),
        ];
        for answer in &answers {
            let text = text(answer);
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(document(answer).ends_with('\n'));
        }
        assert!(text(&answers[0]).contains("known      1 host, 0 networks, 0 remote stations"));
        assert!(text(&answers[1]).ends_with(" -            -       no part\n"), "{}", text(&answers[1]));
        assert_eq!(text(&answers[4]), "ov_net1, host a: x\n");
        assert!(text(&ClusterAnswer::Check(Vec::new())).contains("agree"));
    }
}
