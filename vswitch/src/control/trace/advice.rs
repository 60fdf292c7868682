//! What to do about a drop: one sentence for each reason, with the command that shows more or mends it.

use plane::datapath::DropReason;
use plane::datapath::DropReason as R;

/// Where a frame was dropped.
pub(super) struct Scope<'a> {
    /// The port that it came in by, or that it was to leave by.
    pub(super) port: &'a str,
    /// The bridge of that port, or the uplink.
    pub(super) bridge: &'a str,
}

/// What to do about a drop there.
pub(super) fn on(reason: DropReason, Scope { port, bridge }: Scope<'_>) -> String {
    let of_uplink = (reason == R::NoService && port == bridge).then_some(AT_UPLINK);
    let sentence = ADVICE.iter().find(|(about, _)| *about == reason).map(|(_, sentence)| *sentence);
    of_uplink.or(sentence).unwrap_or_default().replace("{port}", port).replace("{bridge}", bridge)
}

/// What is for an uplink itself, where a bridge would have a gateway.
const AT_UPLINK: &str = "Nothing listens there: publish a port with vsctl add-forward {port} PROTO/PORT IP:PORT.";

/// What is lost on purpose.
const IMPAIRED: &str = "It is lost on purpose: vsctl set-port {port} --impair-in none --impair-out none ends that.";

/// For each reason what to do; `{port}` and `{bridge}` stand for the names.
const ADVICE: [(DropReason, &str); DropReason::ALL.len()] = [
    (R::Runt, "Send at least the 14 bytes of an Ethernet header."),
    (R::Oversized, "Raise the MTU of {bridge} (vsctl set-br {bridge} --mtu N), or lower that of the sender."),
    (R::Malformed, "Look at the frame: its headers contradict its length, or a checksum is wrong."),
    (R::MissedByKernel, "The switch had no time to fetch it: see whether another port floods (vsctl stats {port})."),
    (
        R::InvalidSource,
        "Use a source MAC address that is no group, not zero and not the gateway's of {bridge} (vsctl show {bridge}).",
    ),
    (R::VlanNotAllowed, "Let {port} carry the VLAN: vsctl set-port {port} --vlan N, or --trunk N,N --native N."),
    (R::ControlFrame, "Let {bridge} pass STP, LACP and LLDP: vsctl set-br {bridge} --control-frames pass."),
    (
        R::GuardMac,
        "Send from the MAC address that {port} was given, or switch its guard off: vsctl set-port {port} --guard off.",
    ),
    (R::GuardIp, "Send from an address that {port} was given, add it (vsctl set-port {port} --address CIDR), or --guard off."),
    (R::GuardArp, "Send from an address that {port} was given, add it (vsctl set-port {port} --address CIDR), or --guard off."),
    (R::GuardNd, "Send from an address that {port} was given, add it (vsctl set-port {port} --address CIDR), or --guard off."),
    (
        R::GuardDhcp,
        "Only the gateway gives addresses here: stop the DHCP server behind {port}, or vsctl set-port {port} --guard off.",
    ),
    (
        R::SpoofedAddress,
        "Give the station another address: this one is the gateway's, or another port's (vsctl list-ports {bridge}).",
    ),
    (R::RogueRouter, "The gateway of {bridge} is the router: stop router advertisements behind {port}."),
    (
        R::RogueDhcp,
        "{bridge} gives out addresses itself: stop the DHCP server behind {port}, or vsctl set-br {bridge} --dhcp off.",
    ),
    (R::StormLimit, "Wait, or raise the limit: vsctl set-port {port} --broadcast-limit N; 0 lifts it."),
    (R::SendRate, "Wait, or raise the limit: vsctl set-port {port} --send-rate RATE."),
    (R::ReceiveRate, "Wait, or raise the limit: vsctl set-port {port} --receive-rate RATE."),
    (R::SamePort, "Nothing: the destination is behind {port} too, and has the frame (vsctl fdb {bridge})."),
    (R::Protected, "Two protected ports do not reach each other: vsctl set-port {port} --protected off."),
    (
        R::NoDestination,
        "Put the other station into the same VLAN: no other port of {bridge} carries it (vsctl list-ports {bridge}).",
    ),
    (
        R::MartianSource,
        "Give the station an address of the subnet of {bridge} (vsctl show {bridge}), other than the gateway's.",
    ),
    (R::HopLimit, "Send it with a higher TTL; if it has one, two routers send it to and fro."),
    (R::ExceedsMtu, "Send shorter packets: the sender is told the MTU by ICMP, which must not be filtered."),
    (
        R::NoRoute,
        "Give {bridge} a way there: vsctl set-br {bridge} --uplink NAME, whose uplink has an address of this IP version \
         (vsctl list-uplinks), or vsctl add-route {bridge} CIDR via IP. Loopback and link-local addresses are never routed to.",
    ),
    (R::Isolated, "Let both bridges be routed between: vsctl set-br {bridge} --isolated off, and the other one's too."),
    (
        R::NeighborUnresolved,
        "Start the station with that address, or mend its subnet: it does not answer (vsctl neighbors {bridge}).",
    ),
    (R::NoService, "Nothing listens there: the gateway of {bridge} has DHCP, DNS and ping."),
    (R::FragmentForGateway, "Send all fragments of the packet, none of which overlaps another."),
    (
        R::NoSession,
        "Publish the port (vsctl add-forward {port} PROTO/PORT IP:PORT), or let the station speak first (vsctl sessions).",
    ),
    (R::NatNoAddress, "Give the uplink {bridge} an address of this IP version: vsctl list-uplinks."),
    (R::NatMalformed, "Look at the frame: it claims a transport header that it does not have."),
    (R::NatUntrackedProtocol, "Use TCP, UDP or ICMP: NAT has no ports to translate in other protocols."),
    (R::NatStrayError, "Nothing: an ICMP error about a packet that no session sent."),
    (R::NatNoSession, "Begin with a packet that opens a session, such as a SYN."),
    (R::NatFiltered, "Let the station speak to this host first, publish the port (vsctl add-forward), or set nat.filtering."),
    (R::NatFragmentBeforeFirst, "Send the first fragment too: the others have no ports."),
    (R::NatNoPort, "Wait until sessions end (vsctl sessions), or widen nat.ports."),
    (R::NatSessionCap, "Raise nat.sessions, or find who has the most: vsctl sessions."),
    (R::NatSourceCap, "Raise nat.sessions-per-source, or see what the station has open: vsctl sessions."),
    (R::NatClash, "Use another source port: the two ends have a session already."),
    (R::NatOlder, "Nothing: the next packet from inside picks the connection up."),
    (R::QueueFull, "The device takes no more frames now: see vsctl stats {port}, and whether its station reads."),
    (R::DeviceDown, "Bring the device of {port} up: vsctl list-ports says what it lacks."),
    (R::Refused, "The device of {port} refuses this frame: see its MTU and offloads."),
    (R::Unsegmentable, "Switch segmentation off at the sender: the super-frame cannot be cut for {port}."),
    (R::PacketTooBig, "Lower the MTU of {bridge}, or raise that of the underlay: the way out of {port} carries less."),
    (R::UnknownVtep, "Name the host as a peer: vsctl set-vxlan {port} --add-peer IP."),
    (R::CongestionMark, "Nothing: the underlay is congested, and the packet cannot carry the mark (RFC 6040)."),
    (R::MacMove, "Find the loop: its MAC address is seen at two ports (vsctl show {bridge})."),
    (R::Suppressed, "Nothing: the switch answers for the station behind the tunnel."),
    (R::PortDown, "Plug {port} in: vsctl set-port {port} --up."),
    (R::StpDiscarding, "Nothing, if another way leads there; see who is the root and which port blocks: vsctl stp {bridge}."),
    (R::ImpairLoss, IMPAIRED),
    (R::ImpairQueue, "Raise its limit or its rate: vsctl set-port {port} --impair-in or --impair-out WORDS; none ends it."),
    (R::ImpairCodel, "Nothing, if the sender slows down: CoDel tells it to. Without codel more waits: vsctl set-port {port}."),
    (R::ImpairFlap, "Wait until the line is up again, or end it: vsctl set-port {port} --impair-in none --impair-out none."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_sentence() {
        for reason in DropReason::ALL {
            let advice = on(reason, Scope { port: "web1", bridge: "br0" });
            assert!(advice.ends_with('.') && advice.len() > 20 && !advice.contains('{'), "{}: {advice}", reason.name());
        }
    }
}
