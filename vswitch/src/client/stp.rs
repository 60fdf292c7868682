//! `vsctl stp`: spanning trees as text that 80 columns hold; and the options of a bridge about its own.

use std::fmt::Write;

use clap::Args;

use super::table::Table;
use api::read::number;
use api::{BetweenInfo, ControlFrames, PortInfo, StpIdentifier, StpInfo, StpPeer, StpRole, StpState};

/// What `add-br` and `set-br` say of a bridge's spanning tree.
#[derive(Debug, Args)]
pub(super) struct StpOptions {
    /// The spanning tree that it is part of: rstp, stp (the older protocol) or off.
    #[arg(long, value_name = "WHAT")]
    pub(super) stp: Option<String>,
    /// Its priority there, a multiple of 4096; 32768 by default. The lowest of all is the root.
    #[arg(long, value_name = "N", value_parser = number)]
    pub(super) stp_priority: Option<i64>,
}

pub(super) fn list(trees: &[StpInfo]) -> String {
    trees.iter().map(tree).collect::<Vec<_>>().join("\n")
}

fn tree(tree: &StpInfo) -> String {
    let mut text = format!("bridge {}: {}, id {}\n", tree.bridge, tree.stp, identifier(tree.id));
    // Writing into a string cannot fail.
    let _ = match &tree.root_port {
        None => writeln!(text, "  it is the root"),
        Some(port) => writeln!(text, "  root {}, cost {}, by port {port}", identifier(tree.root), tree.root_cost),
    };
    let _ = writeln!(text, "  topology changes {}", tree.topology_changes);
    let mut table = Table::new(["PORT", "ROLE", "STATE", "COST", "EDGE", "PEER", "BPDUS IN", "OUT", "CHANGES"]);
    for port in &tree.ports {
        table.row([
            port.port.to_string(),
            role(port.role).to_owned(),
            state(port.state).to_owned(),
            port.cost.to_string(),
            if port.edge { "yes" } else { "no" }.to_owned(),
            peer(port.peer).to_owned(),
            port.bpdus_in.to_string(),
            port.bpdus_out.to_string(),
            port.topology_changes.to_string(),
        ]);
    }
    text + &table.more()
}

fn identifier(StpIdentifier { priority, mac }: StpIdentifier) -> String {
    format!("{priority}/{mac}")
}

const fn role(role: StpRole) -> &'static str {
    match role {
        StpRole::Root => "root",
        StpRole::Designated => "designated",
        StpRole::Alternate => "alternate",
        StpRole::Backup => "backup",
        StpRole::Disabled => "disabled",
    }
}

const fn state(state: StpState) -> &'static str {
    match state {
        StpState::Discarding => "discarding",
        StpState::Learning => "learning",
        StpState::Forwarding => "forwarding",
    }
}

const fn peer(peer: StpPeer) -> &'static str {
    match peer {
        StpPeer::None => "-",
        StpPeer::Stp => "stp",
        StpPeer::Rstp => "rstp",
    }
}

pub(super) const fn control_frames(between: &BetweenInfo) -> &'static str {
    match between.control_frames {
        ControlFrames::Drop => "drop",
        ControlFrames::Pass => "pass",
    }
}

/// What becomes of frames between bridges, in words.
pub(super) fn between(between: &BetweenInfo) -> String {
    let tree = if between.stp.is_on() { format!(", {}", between.stp) } else { String::new() };
    let encrypted = if between.encrypt { ", encrypted" } else { "" };
    let overlay = between.overlay.as_ref().map(|name| format!(", overlay {name}{encrypted}"));
    control_frames(between).to_owned() + &tree + &overlay.unwrap_or_default()
}

/// What stands behind the state of a port that is up, where the spanning tree lets not everything pass it.
pub(super) fn note(port: &PortInfo) -> String {
    match port.now.stp_state {
        Some(StpState::Forwarding) | None => String::new(),
        Some(blocked) => format!(", {}", state(blocked)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Stp, StpPortInfo};

    #[test]
    fn a_tree_stands_on_a_page() {
        let id = |priority, last| StpIdentifier { priority, mac: packet::Mac([2, 0, 0, 0, 0, last]) };
        let port = |port: &str, number, role, state, edge, peer| StpPortInfo {
            port: port.parse().unwrap(),
            priority: 128,
            number,
            role,
            state,
            cost: 2000,
            edge,
            peer,
            designated: id(4096, 1),
            bpdus_in: 12,
            bpdus_out: 3,
            topology_changes: 1,
        };
        let mut info = StpInfo {
            bridge: "br0".parse().unwrap(),
            stp: Stp::Rstp,
            id: id(32768, 2),
            root: id(4096, 1),
            root_cost: 2000,
            root_port: Some("up".parse().unwrap()),
            topology_changes: 2,
            ports: vec![
                port("a", 1, StpRole::Designated, StpState::Forwarding, true, StpPeer::None),
                port("spare", 2, StpRole::Alternate, StpState::Discarding, false, StpPeer::Stp),
            ],
        };
        let text = list(std::slice::from_ref(&info));
        let expected = "bridge br0: rstp, id 32768/02:00:00:00:00:02
  root 4096/02:00:00:00:00:01, cost 2000, by port up
  topology changes 2

PORT   ROLE        STATE       COST  EDGE  PEER  BPDUS IN  OUT  CHANGES
a      designated  forwarding  2000  yes   -           12    3        1
spare  alternate   discarding  2000  no    stp         12    3        1
";
        assert_eq!(text, expected);
        info.root_port = None;
        assert!(list(&[info]).contains("it is the root"));
    }
}
