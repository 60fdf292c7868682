//! Gateways, uplinks, forwards and sessions as text; rows of sessions alone are wider than 80 columns.

use std::fmt::Write;
use std::net::SocketAddr;

use super::print::{origin, state_name};
use super::table::Table;
use crate::api::{BridgeInfo, ForwardInfo, NeighborInfo, PortState, SessionInfo, UplinkInfo};

pub(super) fn list_uplinks(uplinks: &[UplinkInfo]) -> String {
    let mut table = Table::new(["UPLINK", "KIND", "DEVICE", "ADDRESSES", "GATEWAY", "SESSIONS", "STATE"]);
    for uplink in uplinks {
        table.row([
            uplink.name.to_string(),
            uplink.kind.to_string(),
            uplink.device.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            listed(&uplink.addresses),
            listed(&uplink.gateways),
            uplink.sessions.to_string(),
            state_name(&uplink.state).to_owned(),
        ]);
    }
    table.text()
}

pub(super) fn list_forwards(forwards: &[ForwardInfo]) -> String {
    let mut table = Table::new(["UPLINK", "PORT", "TO"]);
    for forward in forwards {
        table.row([forward.uplink.to_string(), format!("{}/{}", forward.protocol, forward.ports), target(forward)]);
    }
    table.text()
}

pub(super) fn sessions(rows: &[SessionInfo]) -> String {
    let mut table = Table::new(["PROTO", "INSIDE", "", "OUTSIDE", "AS", "STATE", "LEFT", "BYTES OUT", "IN"]);
    for row in rows {
        table.row([
            row.protocol.clone(),
            row.inside.to_string(),
            if row.direction == "out" { "->" } else { "<-" }.to_owned(),
            row.remote.to_string(),
            row.external.as_ref().map_or_else(|| "-".to_owned(), SocketAddr::to_string),
            row.state.clone(),
            row.seconds_left.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds}s")),
            row.out_bytes.to_string(),
            row.in_bytes.to_string(),
        ]);
    }
    table.text()
}

pub(super) fn neighbors(rows: &[NeighborInfo]) -> String {
    let mut table = Table::new(["ADDRESS", "MAC", "AGE"]);
    for row in rows {
        let mac = row.mac.map_or_else(|| "no answer".to_owned(), |mac| mac.to_string());
        table.row([row.address.to_string(), mac, format!("{}s", row.age_seconds)]);
    }
    table.text()
}

/// The gateway's lines of a bridge in `vsctl show`.
pub(super) fn show_gateway(text: &mut String, bridge: &BridgeInfo) {
    let Some(mac) = bridge.gateway_mac else { return };
    let mut words = vec![format!("gateway {}, {mac}", listed(&bridge.addresses))];
    if bridge.gateway_vlan.number() != 1 {
        words.push(format!("vlan {}", bridge.gateway_vlan));
    }
    words.extend(bridge.dhcp.then(|| "dhcp".to_owned()));
    words.extend(bridge.uplink.as_ref().map(|uplink| format!("uplink {uplink}")));
    words.push(if bridge.isolated { "isolated" } else { "open" }.to_owned());
    // Writing into a string cannot fail.
    let _ = writeln!(text, "  {}", words.join(", "));
}

/// An uplink with its forwards in `vsctl show`.
pub(super) fn show_uplink(text: &mut String, uplink: &UplinkInfo, forwards: &[ForwardInfo]) {
    let device = uplink.device.as_ref().map_or_else(String::new, |device| format!(" {device}"));
    let _ = writeln!(
        text,
        "\nuplink {}: {}, {}{device}, {}, mtu {}{}",
        uplink.name,
        state_name(&uplink.state),
        uplink.kind,
        uplink.mac,
        uplink.mtu,
        origin(uplink.origin),
    );
    if let PortState::Down(why) = &uplink.state {
        let _ = writeln!(text, "      {why}");
    }
    if uplink.device.is_some() {
        let how = if uplink.dhcp { " by DHCP" } else { "" };
        let _ = writeln!(text, "      {}{how}, gateway {}", listed(&uplink.addresses), listed(&uplink.gateways));
    }
    let _ = writeln!(text, "      {} sessions", uplink.sessions);
    if !uplink.features.is_empty() {
        let _ = writeln!(text, "      {}", uplink.features.join(" "));
    }
    for forward in forwards.iter().filter(|forward| forward.uplink == uplink.name) {
        let from = format!("{}/{}", forward.protocol, forward.ports);
        let _ = writeln!(text, "  {from} -> {}{}", target(forward), origin(forward.origin));
    }
}

/// Where a forward goes: of a range, where its first port goes.
fn target(forward: &ForwardInfo) -> String {
    let more = if forward.ports.contains('-') { " and on" } else { "" };
    format!("{}{more}", forward.to)
}

fn listed<T: ToString>(things: &[T]) -> String {
    if things.is_empty() { "-".to_owned() } else { things.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ") }
}
