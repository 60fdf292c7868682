//! The steps of a frame in words, with the names that users know.

use std::net::IpAddr;

use packet::{Mac, TagEdit, VlanId};

use api::{TraceStep, TraceVerdict};
use plane::capture::Direction;
use plane::datapath::DropReason as R;
use plane::datapath::{BridgeId, DropReason, Fate, Learned, PortId, Step, Wait};

/// What the numbers of ports and bridges are called.
pub(super) trait Naming {
    /// A port, tunnel or uplink.
    fn port(&self, id: PortId) -> String;

    /// A bridge or an uplink, with a word that says which of them it is.
    fn bridge(&self, id: BridgeId) -> String;

    /// The host behind a tunnel, with a word before it; nothing of any other port.
    fn peer(&self, id: PortId, peer: u16) -> String;
}

/// A step as it is told; `None`: nothing that the others do not say.
pub(super) fn step(frame: usize, step: &Step, names: &impl Naming) -> Option<TraceStep> {
    let (kind, text) = match step {
        Step::Admitted { port, bridge, vlan, guarded } => {
            let guard = if *guarded { ", past its source guard" } else { "" };
            ("admitted", format!("{} takes it in{guard}: {}, VLAN {vlan}", names.port(*port), names.bridge(*bridge)))
        }
        Step::ClaimsChecked => ("claims_checked", "it claims no address that is another's".to_owned()),
        Step::SourceLearned { mac, place, outcome } => {
            let there = format!("{}{}", names.port(place.port), names.peer(place.port, place.peer));
            let text = match outcome {
                Learned::Known => format!("{mac} is known at {there}"),
                Learned::News => format!("{mac} would be learned at {there}"),
                Learned::Held => format!("{mac} moves to and fro, and is held at another port than {there}"),
            };
            ("source_learned", text)
        }
        Step::DestinationLookedUp { mac, place } => ("destination_looked_up", destination(*mac, place.as_ref(), names)),
        Step::ForGateway { alone } => {
            let text = if *alone { "its destination MAC is the switch's own" } else { "the gateway hears it as well" };
            ("for_gateway", text.to_owned())
        }
        Step::RouteLookedUp { destination, way } => ("route_looked_up", route(*destination, *way, names)),
        Step::Translated { uplink, rewrite } => ("translated", translation(*uplink, rewrite.as_ref(), names)),
        Step::NeighborLookedUp { bridge, address, mac } => {
            let on = names.bridge(*bridge);
            let text = match mac {
                Some(mac) => format!("{address} on {on} has {mac}"),
                None => format!("no station on {on} said yet that it has {address}: the packet waits, and the gateway asks"),
            };
            ("neighbor_looked_up", text)
        }
        Step::Queued { port, edit, peer } => {
            let made = if frame > 0 { "a frame of the switch's own " } else { "" };
            let text = format!("{made}leaves by {}{}{}", names.port(*port), names.peer(*port, *peer), tag(*edit));
            ("queued", text)
        }
        Step::Impaired { port, direction, rules } => {
            let way = if *direction == Direction::In { "in" } else { "out" };
            ("impaired", format!("the line {way} of {} is impaired: {}", names.port(*port), rules.effects()))
        }
        Step::Shaped { port, direction, wait } => {
            let key = if *direction == Direction::In { "send-rate" } else { "receive-rate" };
            let held = if wait.is_zero() { "lets it pass".to_owned() } else { format!("has it wait {wait:.1?} or more") };
            ("shaped", format!("the {key} of {} {held}", names.port(*port)))
        }
        Step::Cut { port, frames } => {
            ("cut", format!("{} takes no such super-frame: it is cut into {frames} frames", names.port(*port)))
        }
        Step::Settled(fate) => {
            let reason = fate.drop_reason()?;
            ("dropped", format!("dropped: {}", reason.name()))
        }
    };
    Some(TraceStep { step: kind.to_owned(), text, own: frame > 0 })
}

fn destination(mac: Mac, place: Option<&plane::datapath::Place>, names: &impl Naming) -> String {
    match place {
        Some(place) => format!("{mac} is at {}{}", names.port(place.port), names.peer(place.port, place.peer)),
        None if mac == Mac::BROADCAST => "a broadcast goes to all ports of the VLAN".to_owned(),
        None if mac.is_group() => format!("the group {mac} goes to all ports of the VLAN"),
        None => format!("{mac} was not seen yet, so the frame goes to all ports of the VLAN"),
    }
}

fn route(destination: IpAddr, way: Option<(BridgeId, IpAddr)>, names: &impl Naming) -> String {
    match way {
        Some((into, hop)) if hop == destination => format!("{destination} is on {}", names.bridge(into)),
        Some((into, hop)) => format!("{destination} is reached by {}, next hop {hop}", names.bridge(into)),
        None => format!("there is no route to {destination}"),
    }
}

fn translation(uplink: BridgeId, rewrite: Option<&nat::Rewrite>, names: &impl Naming) -> String {
    let on = names.bridge(uplink);
    let Some(rewrite) = rewrite else { return format!("NAT of {on} leaves it as it is: it is for the switch itself") };
    let [source, destination] = rewrite.ends();
    let parts = [("source", source), ("destination", destination)];
    let parts = parts.into_iter().filter_map(|(what, end)| Some(format!("its {what} becomes {}", end?)));
    format!("NAT of {on}: {}", parts.collect::<Vec<_>>().join(", "))
}

fn tag(edit: TagEdit) -> String {
    let number = |tag: packet::Tag| tag.vlan().map_or_else(|| "0".to_owned(), |vlan: VlanId| vlan.to_string());
    match edit {
        TagEdit::Keep => String::new(),
        TagEdit::Push(tag) => format!(", tagged with VLAN {}", number(tag)),
        TagEdit::Pop => ", without its tag".to_owned(),
        TagEdit::Set(tag) => format!(", its tag changed to VLAN {}", number(tag)),
    }
}

/// What becomes of a frame, in one word and in a sentence.
pub(super) fn verdict(fate: Fate, names: &impl Naming) -> (TraceVerdict, String) {
    match fate {
        Fate::Bridged(port) => (TraceVerdict::Bridged, format!("It is bridged to {}.", names.port(port))),
        Fate::Flooded(ports) if ports.get() == 1 => (TraceVerdict::Flooded, "It is flooded to one port.".to_owned()),
        Fate::Flooded(ports) => (TraceVerdict::Flooded, format!("It is flooded to {ports} ports.")),
        Fate::Routed { into, translated } => {
            let nat = if translated { ", its addresses translated" } else { "" };
            (TraceVerdict::Routed, format!("It is routed to {}{nat}.", names.bridge(into)))
        }
        Fate::Answered => (TraceVerdict::Answered, "The gateway answers it.".to_owned()),
        Fate::Noted => (TraceVerdict::Noted, "The gateway takes note of it, and has nothing to say.".to_owned()),
        Fate::Punted => (
            TraceVerdict::Punted,
            "A service of the switch gets it: DHCP, DNS, router advertisements or the spanning tree.".to_owned(),
        ),
        Fate::Waiting(Wait::Neighbor) => {
            (TraceVerdict::Waiting, "It waits for the MAC address of its next hop, for three seconds at most.".to_owned())
        }
        Fate::Waiting(Wait::Fragments) => (TraceVerdict::Waiting, "It waits for the other fragments of its packet.".to_owned()),
        Fate::HandedOver => (TraceVerdict::Waiting, "The worker that routes decides about it.".to_owned()),
        Fate::Dropped(reason) => (TraceVerdict::Dropped, format!("It is dropped: {} ({}).", meaning(reason), reason.name())),
    }
}

/// What a reason means, as the end of a sentence.
fn meaning(reason: DropReason) -> &'static str {
    MEANINGS.iter().find(|(of, _)| *of == reason).map_or("for a reason that has no words", |(_, meaning)| meaning)
}

/// What each reason means.
const MEANINGS: [(DropReason, &str); DropReason::ALL.len()] = [
    (R::Runt, "it is shorter than an Ethernet header"),
    (R::Oversized, "it is longer than the MTU of the bridge allows"),
    (R::Malformed, "it is malformed"),
    (R::MissedByKernel, "the switch did not read it in time"),
    (R::InvalidSource, "no station may have its source MAC address"),
    (R::VlanNotAllowed, "the port does not carry its VLAN"),
    (R::ControlFrame, "link-local control frames stay on their link"),
    (R::GuardMac, "the port's guard does not know its source MAC address"),
    (R::GuardIp, "the port's guard does not know its source IP address"),
    (R::GuardArp, "the port's guard does not know the sender in its ARP message"),
    (R::GuardNd, "the port's guard does not accept its neighbour discovery"),
    (R::GuardDhcp, "the port's guard lets no DHCP server speak"),
    (R::SpoofedAddress, "it claims an address of the gateway or of another port"),
    (R::RogueRouter, "it speaks as a router, and the gateway is the router"),
    (R::RogueDhcp, "it speaks as a DHCP server, and the gateway is the server"),
    (R::StormLimit, "the port is over its broadcast limit"),
    (R::SendRate, "the port sends more than its rate, and too much waits for it"),
    (R::SamePort, "its destination is behind the port that it came from"),
    (R::Protected, "both ports are protected"),
    (R::NoDestination, "no other port carries its VLAN"),
    (R::MartianSource, "no packet may come from its source address here"),
    (R::HopLimit, "its hop limit is used up"),
    (R::ExceedsMtu, "it is longer than the way on takes, and may not be cut"),
    (R::NoRoute, "there is no route to its destination"),
    (R::Isolated, "its destination is on a bridge that is isolated from this one"),
    (R::NeighborUnresolved, "its next hop does not say its MAC address"),
    (R::NoService, "it is for the gateway, where nothing takes it"),
    (R::FragmentForGateway, "its fragments contradict each other"),
    (R::NoSession, "it belongs to no session and no published port"),
    (R::NatNoAddress, "the uplink has no address of its IP version"),
    (R::NatMalformed, "its transport header is not all there"),
    (R::NatUntrackedProtocol, "NAT does not know its protocol"),
    (R::NatStrayError, "it is an ICMP error about nothing that was sent"),
    (R::NatNoSession, "it is a reset or a reply to nothing"),
    (R::NatFiltered, "no station opened the port to its sender"),
    (R::NatFragmentBeforeFirst, "the first fragment of its packet was not seen"),
    (R::NatNoPort, "every external port is in use"),
    (R::NatSessionCap, "the session table is full"),
    (R::NatSourceCap, "its source has all the sessions that it may have"),
    (R::NatClash, "its ends have a session already by another port"),
    (R::NatOlder, "its connection may be older than the switch"),
    (R::ReceiveRate, "the port receives more than its rate, and too much waits for it"),
    (R::QueueFull, "a queue is full"),
    (R::DeviceDown, "the device is down"),
    (R::Refused, "the device does not take it"),
    (R::Unsegmentable, "it cannot be cut into segments"),
    (R::PacketTooBig, "the way out carries no frame as long"),
    (R::UnknownVtep, "its tunnel endpoint is no peer"),
    (R::CongestionMark, "the underlay marked congestion that it cannot carry"),
    (R::MacMove, "its source MAC address moves to and fro between ports"),
    (R::Suppressed, "the switch answers for the station that it asks for"),
    (R::PortDown, "the port is unplugged"),
    (R::StpDiscarding, "the spanning tree blocks the port that it came by, or all that it could leave by"),
    (R::ImpairLoss, "the port's impairment loses it"),
    (R::ImpairQueue, "the queue of the port's impaired line is full"),
    (R::ImpairCodel, "CoDel keeps the queue of the port's impaired line short"),
    (R::ImpairFlap, "the port's impaired line is interrupted now"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_meaning() {
        for reason in DropReason::ALL {
            assert!(MEANINGS.iter().filter(|(of, _)| *of == reason).count() == 1, "{}", reason.name());
        }
    }
}
