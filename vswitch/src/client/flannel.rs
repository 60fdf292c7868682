//! `vsctl flannel`: what it prints in 80 columns.

use std::fmt::{Display, Write};

use super::print;
use super::table::Table;
use api::{FlannelHost, FlannelInfo};

/// The network, and its other hosts.
pub(super) fn text(info: &FlannelInfo) -> String {
    let or = |value: Option<String>, else_: &str| value.unwrap_or_else(|| else_.to_owned());
    let shown = |value: Option<&dyn Display>| value.map(ToString::to_string);
    let mut text = format!("flannel by etcd: {}\n", info.state);
    // Writing into a string cannot fail.
    if let Some(sentence) = &info.problem {
        let _ = writeln!(text, "  {sentence}");
    }
    for endpoint in &info.endpoints {
        let _ = writeln!(text, "  member     {endpoint}");
    }
    let _ = writeln!(text, "  prefix     {}", info.prefix);
    let network = match (&info.network, info.vni, info.port) {
        (Some(network), Some(vni), Some(port)) => format!("{network}, VNI {vni}, UDP port {port}"),
        _ => "not known yet".to_owned(),
    };
    let _ = writeln!(text, "  network    {network}");
    let underlay = or(shown(info.underlay.as_ref().map(|value| value as &dyn Display)), "-");
    let mac = or(shown(info.mac.as_ref().map(|value| value as &dyn Display)), "-");
    let _ = writeln!(text, "  this host  {underlay}, {mac}");
    let subnet = or(shown(info.subnet.as_ref().map(|value| value as &dyn Display)), "none yet");
    let bridge = or(shown(info.bridge.as_ref().map(|value| value as &dyn Display)), "-");
    let tunnel = info.tunnel.as_ref().map_or_else(String::new, |tunnel| format!(", tunnel {tunnel}"));
    let _ = writeln!(text, "  its subnet {subnet}, bridge {bridge}{tunnel}");
    let _ = writeln!(text, "  known      {}", print::count(info.hosts.len() as u64, "other host"));
    if info.held {
        text.push_str("  etcd has lost what it had: no host is withdrawn until all have said it again.\n");
    }
    text + &hosts(&info.hosts)
}

fn hosts(hosts: &[FlannelHost]) -> String {
    let mut table = Table::new(["SUBNET", "HOST", "MAC", "TUNNEL"]);
    for host in hosts {
        let tunnel = host.tunnel.clone().unwrap_or_else(|| "-".to_owned());
        table.row([host.subnet.to_string(), host.underlay.to_string(), host.mac.to_string(), tunnel]);
    }
    if hosts.is_empty() { String::new() } else { table.text() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_fits_eighty_columns() {
        let host = FlannelHost {
            subnet: "10.244.106.0/24".parse().unwrap(),
            underlay: "192.168.100.112".parse().unwrap(),
            mac: packet::Mac([2, 0, 0, 0, 0, 2]),
            tunnel: Some("never heard".to_owned()),
        };
        let whole = FlannelInfo {
            state: "up".to_owned(),
            endpoints: vec!["http://192.0.2.9:2379".to_owned()],
            prefix: "/coreos.com/network".to_owned(),
            underlay: Some("192.0.2.1".parse().unwrap()),
            bridge: Some("br0".parse().unwrap()),
            tunnel: Some("flannel.1".parse().unwrap()),
            network: Some("10.244.0.0/16".parse().unwrap()),
            vni: Some(1),
            port: Some(8472),
            subnet: Some("10.244.5.0/24".parse().unwrap()),
            mac: Some(packet::Mac([2, 0, 0, 0, 0, 1])),
            hosts: vec![host],
            ..FlannelInfo::default()
        };
        for info in [&whole, &FlannelInfo { held: true, ..FlannelInfo::default() }] {
            let text = text(info);
            assert!(text.lines().all(|line| line.chars().count() <= 82), "{text}");
        }
        let text = text(&whole);
        assert!(text.contains("its subnet 10.244.5.0/24, bridge br0, tunnel flannel.1\n  known      1 other host\n"), "{text}");
    }
}
