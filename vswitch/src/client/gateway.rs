//! Gateways, uplinks, forwards and sessions as text that 80 columns hold, where addresses are of IPv4.

use std::fmt::Write;

use super::print::{counted, explanation, origin, state_name};
use super::table::Table;
use api::{BridgeInfo, ForwardInfo, LeaseRow, LeaseState, NeighborInfo, RouteInfo, SessionInfo, UplinkInfo};

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
            state_name(&uplink.state),
        ]);
    }
    let counted = counted(uplinks.iter().map(|uplink| (&uplink.name, &uplink.counters)));
    table.text() + &counted.more()
}

pub(super) fn list_forwards(forwards: &[ForwardInfo]) -> String {
    let mut table = Table::new(["UPLINK", "PORT", "LISTEN", "TO"]);
    for forward in forwards {
        let listen = forward.listen.map_or_else(|| "-".to_owned(), |address| address.to_string());
        table.row([forward.uplink.to_string(), format!("{}/{}", forward.protocol, forward.ports), listen, target(forward)]);
    }
    table.text()
}

/// AS is only the port of the outer address that stands for the station, for the uplink has one address of each IP version. LEFT is in
/// seconds, OUT and IN are in bytes.
pub(super) fn sessions(rows: &[SessionInfo]) -> String {
    let mut table = Table::new(["", "INSIDE", "", "OUTSIDE", "AS", "STATE", "LEFT", "OUT", "IN", "CONTAINER"]);
    for row in rows {
        table.row([
            row.protocol.clone(),
            row.inside.to_string(),
            if row.direction == "out" { "->" } else { "<-" }.to_owned(),
            row.remote.to_string(),
            row.external.as_ref().map_or_else(|| "-".to_owned(), |external| external.port().to_string()),
            row.state.clone(),
            row.seconds_left.map_or_else(|| "-".to_owned(), |seconds| seconds.to_string()),
            scaled(row.out_bytes),
            scaled(row.in_bytes),
            row.docker.container.clone().unwrap_or_default(),
        ]);
    }
    table.text()
}

/// A number of bytes in at most five characters: 999, 1.0k, 12M.
fn scaled(bytes: u64) -> String {
    const STEP: u64 = 1000;
    let units = ["", "k", "M", "G", "T", "P", "E"];
    let mut power = 0;
    while power + 1 < units.len() && bytes / STEP.pow(u32::try_from(power).unwrap_or(0)) >= STEP {
        power += 1;
    }
    let unit = STEP.pow(u32::try_from(power).unwrap_or(0));
    let (whole, tenths) = (bytes / unit, bytes % unit * 10 / unit);
    if power > 0 && whole < 10 { format!("{whole}.{tenths}{}", units[power]) } else { format!("{whole}{}", units[power]) }
}

pub(super) fn neighbors(rows: &[NeighborInfo]) -> String {
    let mut table = Table::new(["ON", "ADDRESS", "MAC", "AGE"]);
    let one = rows.iter().all(|row| rows.first().is_some_and(|first| first.interface == row.interface));
    for row in rows {
        let on = if one { String::new() } else { row.interface.clone() };
        let mac = row.mac.map_or_else(|| "no answer".to_owned(), |mac| mac.to_string());
        table.row([on, row.address.to_string(), mac, format!("{}s", row.age_seconds)]);
    }
    table.text()
}

pub(super) fn leases(rows: &[LeaseRow]) -> String {
    let mut table = Table::new(["BRIDGE", "ADDRESS", "MAC", "NAME", "STATE", "LEFT", "CONTAINER"]);
    for row in rows {
        let state = match row.state {
            LeaseState::Offered => "offered",
            LeaseState::Bound => "bound",
            LeaseState::Declined => "declined",
            LeaseState::Released => "released",
        };
        table.row([
            row.bridge.to_string(),
            row.address.to_string(),
            row.mac.to_string(),
            row.name.to_string(),
            state.to_owned(),
            format!("{}s", row.seconds_left),
            row.docker.container.clone().unwrap_or_default(),
        ]);
    }
    table.text()
}

pub(super) fn routes(rows: &[RouteInfo]) -> String {
    let mut table = Table::new(["BRIDGE", "TO", "VIA", "KIND"]);
    for row in rows {
        let uplink = row.uplink.as_ref().map(|uplink| format!("uplink {uplink}"));
        let via = row.via.map(|via| via.to_string()).or(uplink).unwrap_or_else(|| "-".to_owned());
        table.row([row.bridge.to_string(), row.to.to_string(), via, row.kind.clone()]);
    }
    table.text()
}

/// The gateway's lines of a bridge in `vsctl show`.
pub(super) fn show_gateway(text: &mut String, bridge: &BridgeInfo) {
    let Some(mac) = bridge.gateway.gateway_mac else { return };
    let mut words = vec![format!("gateway {}, {mac}", listed(&bridge.gateway.addresses))];
    if bridge.gateway.gateway_vlan.number() != 1 {
        words.push(format!("vlan {}", bridge.gateway.gateway_vlan));
    }
    words.extend(bridge.gateway.dhcp.then(|| "dhcp".to_owned()));
    words.extend(bridge.gateway.uplink.as_ref().map(|uplink| format!("uplink {uplink}")));
    words.push(if bridge.gateway.isolated { "isolated" } else { "open" }.to_owned());
    // Writing into a string cannot fail.
    let _ = writeln!(text, "  {}", words.join(", "));
    for route in &bridge.gateway.routes {
        let _ = writeln!(text, "  route {route}");
    }
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
    if let Some(why) = explanation(&uplink.state, true) {
        let _ = writeln!(text, "      {why}");
    }
    if uplink.device.is_some() {
        let how = if uplink.dhcp { " by DHCP" } else { "" };
        let _ = writeln!(text, "      {}{how}, gateway {}", listed(&uplink.addresses), listed(&uplink.gateways));
    }
    let counted: String =
        uplink.counters.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!(", {name} {count}")).collect();
    let _ = writeln!(text, "      {} sessions{}", uplink.sessions, counted.replace('_', "-"));
    if !uplink.features.is_empty() {
        let _ = writeln!(text, "      {}", uplink.features.join(" "));
    }
    for forward in forwards.iter().filter(|forward| forward.uplink == uplink.name) {
        let on = forward.listen.map_or_else(String::new, |address| format!("{address} "));
        let from = format!("{}/{}", forward.protocol, forward.ports);
        let _ = writeln!(text, "  {on}{from} -> {}{}", target(forward), origin(forward.origin));
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

#[cfg(test)]
mod tests {
    use super::*;
    use api::DockerPlace;

    #[test]
    fn bytes_take_five_characters_at_most() {
        let expected = [(0, "0"), (999, "999"), (1000, "1.0k"), (9_990, "9.9k"), (12_345, "12k"), (1_222_211_213, "1.2G")];
        expected.into_iter().for_each(|(bytes, text)| assert_eq!(scaled(bytes), text));
        assert_eq!(scaled(u64::MAX), "18E");
    }

    #[test]
    fn a_session_of_ipv4_fits_eighty_columns() {
        let row = SessionInfo {
            uplink: "wan".parse().unwrap(),
            protocol: "tcp".to_owned(),
            direction: "out".to_owned(),
            inside: "10.10.0.2:57862".parse().unwrap(),
            docker: DockerPlace::default(),
            external: Some("192.0.2.10:57862".parse().unwrap()),
            remote: "198.51.100.1:443".parse().unwrap(),
            state: "established".to_owned(),
            seconds_left: Some(7440),
            out_frames: Some(1),
            out_bytes: 1_222_211_213,
            in_frames: Some(1),
            in_bytes: 380_776,
        };
        let text = sessions(&[row]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("tcp  10.10.0.2:57862  ->  198.51.100.1:443  57862  established  7440  1.2G  380k"), "{text}");
    }
}
