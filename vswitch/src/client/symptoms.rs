//! What `vsctl show` says of a bridge that is most likely a mistake.

use std::fmt::Write;

use super::print::count;
use api::{AddressConflictInfo, BridgeInfo, MacMoveInfo, PoolInfo};

/// The lines of a bridge; none, if all is well.
pub(super) fn show(text: &mut String, bridge: &BridgeInfo) {
    // Writing into a string cannot fail.
    let mut line = |words: String| {
        let _ = writeln!(text, "  {words}");
    };
    if let Some(MacMoveInfo { mac, from, to, seconds_ago, .. }) = &bridge.mac_moves.last {
        let moves = count(bridge.mac_moves.count, "MAC move");
        let now = Some(bridge.mac_moves.per_second).filter(|moves| *moves > 0);
        let now = now.map_or_else(String::new, |moves| format!(", {moves} in the last second"));
        line(format!("{moves}, the last {seconds_ago}s ago: {mac} between {from} and {to}{now}"));
    }
    if bridge.moving_macs > 0 {
        let (moving, are) = if bridge.moving_macs == 1 { ("address moves", "is") } else { ("addresses move", "are") };
        line(format!(
            "loop suspected: {} MAC {moving} to and fro between ports and {are} held in place: is there a second way between two ports?",
            bridge.moving_macs
        ));
    }
    if let Some(AddressConflictInfo { address, holder, claimant, seconds_ago, .. }) = &bridge.address_conflicts.last {
        let conflicts = count(bridge.address_conflicts.count, "IP address conflict");
        line(format!("{conflicts}, the last {seconds_ago}s ago: {address} is claimed by {claimant} and is that of {holder}"));
    }
    for PoolInfo { subnet, size, used, exhausted, refused } in &bridge.gateway.pools {
        if used >= size {
            let asked = if *exhausted > 0 { format!("; {} got none", count(*exhausted, "request")) } else { String::new() };
            line(format!("no address of {subnet} is left to give out: {used} of {size} are in use{asked}"));
        }
        if *refused > 0 {
            let asked = count(*refused, "request");
            line(format!("{asked} got no address of {subnet}, for their port has its share, half of what may be given out"));
        }
    }
}
