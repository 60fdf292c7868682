//! Replies as text that 80 columns hold, or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::json;

use super::table::Table;
use super::{cluster, events, flannel, gateway, stp, symptoms};
use api::{
    BridgeInfo, ChangeInfo, DockerPlace, Ending, FdbEntry, MadeThing, Origin, PeerInfo, PortInfo, PortKind, PortName,
    PortState, Reply, SwitchInfo, UnderlayInfo, VlanList, VxlanInfo,
};

/// One document, without the name of the reply around it.
pub(super) fn json(reply: &Reply) -> String {
    match reply {
        Reply::Done(notes) => document(notes),
        Reply::Bridges(bridges) => document(bridges),
        Reply::Ports(ports) => document(ports),
        Reply::Vxlans(vxlans) => document(vxlans),
        Reply::Switch(switch) => document(switch),
        Reply::Fdb(entries) => document(entries),
        Reply::Stats(stats) => document(stats),
        Reply::Uplinks(uplinks) => document(uplinks),
        Reply::Forwards(forwards) => document(forwards),
        Reply::Sessions(sessions) => document(sessions),
        Reply::Neighbors(neighbors) => document(neighbors),
        Reply::Container(container) => document(container),
        Reply::Leases(leases) => document(leases),
        Reply::Live(live) => document(live),
        Reply::Events(events) => document(events),
        Reply::Routes(routes) => document(routes),
        Reply::Stp(trees) => document(trees),
        Reply::Cluster(answer) => cluster::document(answer),
        Reply::Flannel(info) => document(info),
        Reply::Trace(trace) => document(trace),
        Reply::Export(text) => document(&json!({ "toml": text })),
        Reply::Changes(changes) => document(changes),
        Reply::Ended(ending) => document(ending),
    }
}

/// A value as JSON.
pub(super) fn document(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

pub(super) fn text(reply: &Reply) -> String {
    match reply {
        Reply::Done(notes) => notes.iter().fold(String::new(), |text, note| text + note + "\n"),
        Reply::Bridges(bridges) => list_bridges(bridges),
        Reply::Ports(ports) => list_ports(ports),
        Reply::Vxlans(vxlans) => list_vxlans(vxlans),
        Reply::Switch(switch) => show(switch),
        Reply::Fdb(entries) => fdb(entries),
        Reply::Stats(ports) => super::stats::totals(ports),
        Reply::Uplinks(uplinks) => gateway::list_uplinks(uplinks),
        Reply::Forwards(forwards) => gateway::list_forwards(forwards),
        Reply::Sessions(rows) => gateway::sessions(rows),
        Reply::Neighbors(rows) => gateway::neighbors(rows),
        Reply::Container(container) => format!("{}: {}\n", container.port, container.key),
        Reply::Leases(rows) => gateway::leases(rows),
        Reply::Live(live) => document(live),
        Reply::Events(rows) => events::list(rows),
        Reply::Routes(rows) => gateway::routes(rows),
        Reply::Stp(trees) => stp::list(trees),
        Reply::Cluster(answer) => cluster::text(answer),
        Reply::Flannel(info) => flannel::text(info),
        Reply::Trace(trace) => super::trace::text(trace),
        Reply::Export(text) => text.clone(),
        Reply::Changes(changes) => list_changes(changes),
        Reply::Ended(ending) => end(ending),
    }
}

fn list_changes(changes: &[ChangeInfo]) -> String {
    let mut table = Table::new(["WHAT", "NAME", "CHANGE", "STATE", "WHY"]);
    for ChangeInfo { what, name, change, in_force, why } in changes {
        let state = if *in_force { "in force" } else { "left out" };
        let row = [what.to_string(), name.clone(), change.to_string(), state.to_owned(), why.clone().unwrap_or_default()];
        table.row(row);
    }
    table.text()
}

fn end(ending: &Ending) -> String {
    let lines = |what: &str, things: &[MadeThing]| things.iter().map(|thing| format!("{what} {thing}\n")).collect::<String>();
    lines("removed", &ending.removed) + &lines("left", &ending.left)
}

fn list_bridges(bridges: &[BridgeInfo]) -> String {
    let mut table =
        Table::new(["BRIDGE", "MTU", "PORTS", "MACS", "MAX MACS", "EVICTED", "AGEING", "CONTROL FRAMES", "NETWORK", "OVERLAY"]);
    for bridge in bridges {
        table.row([
            bridge.name.to_string(),
            bridge.mtu.to_string(),
            bridge.ports.to_string(),
            bridge.macs.to_string(),
            bridge.max_macs.to_string(),
            bridge.evictions.to_string(),
            format!("{}s", bridge.ageing_seconds),
            stp::control_frames(&bridge.between).to_owned(),
            bridge.networks.join(","),
            bridge.between.overlay.clone().map(String::from).unwrap_or_default(),
        ]);
    }
    table.text()
}

fn list_ports(ports: &[PortInfo]) -> String {
    let mut table = Table::new(["PORT", "BRIDGE", "KIND", "DEVICE", "NETNS", "MAC", "VLAN", "STATE", "CONTAINER", "NETWORK"]);
    for port in ports {
        let [container, network] = names(&port.docker);
        table.row([
            port.name.to_string(),
            port.bridge.to_string(),
            port.kind.to_string(),
            port.ifname.to_string(),
            port.netns.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            port.mac.map_or_else(|| "-".to_owned(), |mac| mac.to_string()),
            vlans(port),
            state_name(&port.state) + &stp::note(port),
            container,
            network,
        ]);
    }
    table.text()
}

fn show(switch: &SwitchInfo) -> String {
    let mut text = String::new();
    let uptime = humantime::format_duration(std::time::Duration::from_secs(switch.uptime_seconds));
    // Writing into a string cannot fail.
    let _ = writeln!(
        text,
        "vswitchd {}, process {}, up {uptime}, {}\nfile {}, sandbox {}{}",
        switch.version,
        switch.pid,
        count(switch.workers as u64, "worker"),
        switch.config,
        if switch.sandbox == "off" { "off" } else { "on" },
        if switch.captures > 0 { format!("\n{} running", count(switch.captures as u64, "capture")) } else { String::new() },
    );
    for bridge in &switch.bridges {
        let _ = writeln!(
            text,
            "\nbridge {}: mtu {}{}, {} of {} MACs, ageing {}s, control frames {}{}",
            bridge.name,
            bridge.mtu,
            if bridge.port_mtu == bridge.mtu { String::new() } else { format!(" (its devices {})", bridge.port_mtu) },
            bridge.macs,
            bridge.max_macs,
            bridge.ageing_seconds,
            stp::between(&bridge.between),
            whose(bridge.origin, &bridge.networks.join(",")),
        );
        gateway::show_gateway(&mut text, bridge);
        let ports = switch.ports.iter().filter(|port| port.bridge == bridge.name);
        ports.for_each(|port| show_port(&mut text, port));
        let vxlans = switch.vxlans.iter().filter(|vxlan| vxlan.bridge == bridge.name);
        vxlans.for_each(|vxlan| show_vxlan(&mut text, vxlan));
        symptoms::show(&mut text, bridge);
    }
    for uplink in &switch.uplinks {
        gateway::show_uplink(&mut text, uplink, &switch.forwards);
    }
    if !switch.warnings.is_empty() {
        let _ = writeln!(text, "\nwarnings");
        for warning in &switch.warnings {
            let _ = writeln!(text, "  {warning}");
        }
    }
    text
}

fn show_port(text: &mut String, port: &PortInfo) {
    let place = port.netns.as_ref().map_or_else(String::new, |netns| format!(" in {netns}"));
    let mac = port.mac.map_or_else(String::new, |mac| format!(", {mac}"));
    let origin = whose(port.origin, &port.docker.to_string());
    let _ = writeln!(
        text,
        "  {}: {}, {} {}{place}{mac}{origin}",
        port.name,
        state_name(&port.state) + &stp::note(port),
        port.kind,
        port.ifname
    );
    let mut line = |words: Vec<String>| {
        if !words.is_empty() {
            let _ = writeln!(text, "      {}", words.join(" "));
        }
    };
    line(explanation(&port.state, port.kind == PortKind::Link).into_iter().collect());
    line(port.now.altered.iter().map(|altered| format!("its device {altered}")).collect());
    if port.policy.down {
        line(vec![format!("unplugged: `vsctl set-port {} --up` plugs it in", port.name)]);
    }
    line(port.addresses.iter().map(ToString::to_string).collect());
    if let Some(lease) = &port.now.lease {
        let grant = match lease.seconds {
            Some(seconds) => format!("for {seconds} s at a time"),
            None => "which does not grant it now and is asked again".to_owned(),
        };
        line(vec![format!("by DHCP from {}, {grant}", lease.server)]);
    }
    let mut rules = Vec::new();
    if vlans(port) != "all" {
        rules.push(format!("vlan {}", vlans(port)));
    }
    // Whether it is unplugged was told above.
    rules.extend(port.policy.rules().into_iter().filter(|rule| rule != "down"));
    line(rules);
    line(port.features.clone());
}

fn list_vxlans(vxlans: &[VxlanInfo]) -> String {
    let mut table = Table::new(["VXLAN", "BRIDGE", "VNI", "LOCAL", "PORT", "REMOTE", "MTU", "UNDERLAY", "STATE"]);
    let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for vxlan in vxlans {
        table.row([
            vxlan.name.to_string(),
            vxlan.bridge.to_string(),
            vxlan.vni.to_string(),
            vxlan.underlay.local.to_string(),
            vxlan.underlay.port.to_string(),
            remotes(vxlan),
            number(vxlan.mtu.map(u32::from)),
            number(vxlan.underlay.underlay_mtu),
            state_name(&vxlan.state),
        ]);
    }
    table.text()
}

/// The peers, or the group.
fn remotes(vxlan: &VxlanInfo) -> String {
    match (&vxlan.reach.group, &vxlan.reach.device) {
        (Some(group), Some(device)) => format!("{group} on {device}"),
        _ if vxlan.reach.peers.is_empty() => "-".to_owned(),
        _ => vxlan.reach.peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

fn show_vxlan(text: &mut String, vxlan: &VxlanInfo) {
    let state = state_name(&vxlan.state);
    let VxlanInfo { name, vni, underlay: UnderlayInfo { local, port, .. }, .. } = vxlan;
    let _ = writeln!(text, "  {name}: {state}, vxlan {vni}, {local} port {port} to {}{}", remotes(vxlan), origin(vxlan.origin));
    if let Some(why) = explanation(&vxlan.state, false) {
        let _ = writeln!(text, "      {why}");
    }
    if let (Some(mtu), Some(underlay)) = (vxlan.mtu, vxlan.underlay.underlay_mtu) {
        let _ = writeln!(text, "      mtu {mtu}, underlay mtu {underlay}");
    }
    for PeerInfo { address, state, heard_seconds, rx_frames, tx_frames, last_error, .. } in &vxlan.reach.remotes {
        let heard = heard_seconds.map_or_else(String::new, |seconds| format!(", heard {seconds}s ago"));
        let error = last_error
            .as_ref()
            .filter(|error| *error != state)
            .map_or_else(String::new, |error| format!(", last error: {error}"));
        let _ = writeln!(text, "      {address}: {state}{heard}, {rx_frames} frames in, {tx_frames} out{error}");
    }
    let mut rules: Vec<String> =
        vxlan.r#static.iter().map(|station| format!("static {} at {}", station.mac, station.peer)).collect();
    rules.extend(vxlan.underlay.wireguard.map(|port| format!("inside WireGuard, port {port}")));
    rules.extend((!vxlan.learn).then(|| "no learning".to_owned()));
    rules.extend((!vxlan.underlay.udp_checksum).then(|| "no udp checksum".to_owned()));
    rules.extend(vxlan.bum_limit.map(|limit| format!("bum-limit {limit}/s")));
    rules.extend(vxlan.features.iter().cloned());
    let _ = writeln!(text, "      {}", rules.join(", "));
    let drops: Vec<String> = vxlan
        .underlay
        .underlay_drops
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(why, count)| format!("{} {count}", why.replace('_', "-")))
        .collect();
    if !drops.is_empty() {
        let _ = writeln!(text, "      dropped at the UDP port: {}", drops.join(", "));
    }
}

fn fdb(entries: &[FdbEntry]) -> String {
    let mut table = Table::new(["BRIDGE", "MAC", "VLAN", "PORT", "REMOTE", "HOST", "AGE"]);
    let one = entries.iter().all(|entry| entries.first().is_some_and(|first| first.bridge == entry.bridge));
    for entry in entries {
        let bridge = if one { String::new() } else { entry.bridge.to_string() };
        let age = match (entry.r#static, entry.held) {
            (true, _) => "static".to_owned(),
            (_, true) => format!("{}s, held", entry.age_seconds),
            _ => format!("{}s", entry.age_seconds),
        };
        let remote = entry.remote.map_or_else(|| "-".to_owned(), |remote| remote.to_string());
        let host = entry.host.clone().unwrap_or_default();
        table.row([bridge, entry.mac.to_string(), entry.vlan.to_string(), entry.port.to_string(), remote, host, age]);
    }
    table.text()
}

/// What uplinks counted besides frames, and ports of packets that were impaired or had to wait for a rate, where it is anything.
pub(super) fn counted<'a>(uplinks: impl Iterator<Item = (&'a PortName, &'a BTreeMap<String, u64>)>) -> Table<3> {
    let mut table = Table::new(["PORT", "COUNTED", "WHAT"]);
    for (name, counters) in uplinks {
        for (what, count) in counters.iter().filter(|(_, count)| **count > 0) {
            table.row([name.to_string(), count.to_string(), what.replace('_', "-")]);
        }
    }
    table
}

/// A few words for a state.
pub(super) fn state_name(state: &PortState) -> String {
    match state {
        PortState::Unusable(_) => "down".to_owned(),
        state => state.to_string(),
    }
}

/// What the user can do about a state, or what the switch will do. `is_link`: the switch did not make the device, and takes it again.
pub(super) fn explanation(state: &PortState, is_link: bool) -> Option<String> {
    match state {
        PortState::Up | PortState::Down | PortState::NoCarrier => None,
        PortState::DeviceGone if is_link => Some("it is taken again as soon as it is back".to_owned()),
        PortState::DeviceGone | PortState::NamespaceGone => Some("remove it, or reload to make it again".to_owned()),
        PortState::Unusable(why) => Some(why.clone()),
    }
}

fn vlans(port: &PortInfo) -> String {
    match (&port.vlans.vlan, &port.vlans.trunk, &port.vlans.native) {
        (Some(vlan), ..) => vlan.to_string(),
        (None, Some(trunk), native) => {
            let tagged = trunk.iter().copied().collect::<VlanList>();
            native.map_or_else(|| format!("{tagged} tagged"), |native| format!("{tagged} tagged, {native} native"))
        }
        (None, None, _) => "all".to_owned(),
    }
}

pub(super) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::File => "",
        Origin::Runtime => " (by vsctl)",
        Origin::Docker => " (Docker's)",
        Origin::Container => " (of a container's network)",
        Origin::Cluster => " (of an overlay)",
        Origin::Flannel => " (flannel's)",
    }
}

/// As [`origin`], with what Docker calls it.
fn whose(from: Origin, name: &str) -> String {
    match from {
        _ if name.is_empty() => origin(from).to_owned(),
        Origin::Docker => format!(" (Docker's {name})"),
        Origin::Container | Origin::Cluster | Origin::Flannel => format!(" (of {name})"),
        Origin::File | Origin::Runtime => format!("{} (with Docker's {name})", origin(from)),
    }
}

/// The cells of a container and its network.
pub(super) fn names(place: &DockerPlace) -> [String; 2] {
    [&place.container, &place.network].map(|name| match name {
        Some(name) => name.clone(),
        None if *place == DockerPlace::default() => String::new(),
        None => "-".to_owned(),
    })
}

pub(super) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
