//! What to do about a drop: one sentence for each reason, with the command that shows more or mends it.

use plane::datapath::DropReason;

/// Where a frame was dropped.
pub(super) struct Place<'a> {
    /// The port that it came in by, or that it was to leave by.
    pub(super) port: &'a str,
    /// The bridge of that port, or the uplink.
    pub(super) bridge: &'a str,
}

/// What to do about a drop at a place.
pub(super) fn on(reason: DropReason, Place { port, bridge }: Place<'_>) -> String {
    use DropReason as R;
    match reason {
        R::Runt => "Send at least the 14 bytes of an Ethernet header.".to_owned(),
        R::Oversized => format!("Raise the MTU of {bridge} (vsctl set-br {bridge} --mtu N), or lower that of the sender."),
        R::Malformed => "Look at the frame: its headers contradict its length, or a checksum is wrong.".to_owned(),
        R::MissedByKernel => {
            format!("The switch had no time to fetch it: see whether another port floods (vsctl stats {port}).")
        }
        R::InvalidSource => {
            format!(
                "Use a source MAC address that is no group, not zero and not the gateway's of {bridge} (vsctl show {bridge})."
            )
        }
        R::VlanNotAllowed => format!("Let {port} carry the VLAN: vsctl set-port {port} --vlan N, or --trunk N,N --native N."),
        R::ControlFrame => format!("Let {bridge} pass STP, LACP and LLDP: vsctl set-br {bridge} --control-frames pass."),
        R::GuardMac => format!(
            "Send from the MAC address that {port} was given, or switch its guard off: vsctl set-port {port} --guard off."
        ),
        R::GuardIp | R::GuardArp | R::GuardNd => {
            format!(
                "Send from an address that {port} was given, add it (vsctl set-port {port} --address CIDR), or --guard off."
            )
        }
        R::GuardDhcp => format!(
            "Only the gateway gives addresses here: stop the DHCP server behind {port}, or vsctl set-port {port} --guard off."
        ),
        R::SpoofedAddress => format!(
            "Give the station another address: this one is the gateway's, or another port's (vsctl list-ports {bridge})."
        ),
        R::RogueRouter => format!("The gateway of {bridge} is the router: stop router advertisements behind {port}."),
        R::RogueDhcp => format!(
            "{bridge} gives out addresses itself: stop the DHCP server behind {port}, or vsctl set-br {bridge} --dhcp off."
        ),
        R::StormLimit => format!("Wait, or raise the limit: vsctl set-port {port} --broadcast-limit N; 0 lifts it."),
        R::SendRate => format!("Wait, or raise the limit: vsctl set-port {port} --send-rate RATE."),
        R::ReceiveRate => format!("Wait, or raise the limit: vsctl set-port {port} --receive-rate RATE."),
        R::SamePort => format!("Nothing: the destination is behind {port} too, and has the frame (vsctl fdb {bridge})."),
        R::Protected => format!("Two protected ports do not reach each other: vsctl set-port {port} --protected off."),
        R::NoDestination => format!(
            "Put the other station into the same VLAN: no other port of {bridge} carries it (vsctl list-ports {bridge})."
        ),
        R::MartianSource => {
            format!("Give the station an address of the subnet of {bridge} (vsctl show {bridge}), other than the gateway's.")
        }
        R::HopLimit => "Send it with a higher TTL; if it has one, two routers send it to and fro.".to_owned(),
        R::ExceedsMtu => "Send shorter packets: the sender is told the MTU by ICMP, which must not be filtered.".to_owned(),
        R::NoRoute => {
            format!("Give {bridge} a way there: vsctl set-br {bridge} --uplink NAME, or vsctl add-route {bridge} CIDR via IP.")
        }
        R::Isolated => {
            format!("Let both bridges be routed between: vsctl set-br {bridge} --isolated off, and the other one's too.")
        }
        R::NeighborUnresolved => {
            format!("Start the station with that address, or mend its subnet: it does not answer (vsctl neighbors {bridge}).")
        }
        R::NoService if port == bridge => {
            format!("Nothing listens there: publish a port with vsctl add-forward {port} PROTO/PORT IP:PORT.")
        }
        R::NoService => format!("Nothing listens there: the gateway of {bridge} has DHCP, DNS and ping."),
        R::FragmentForGateway => "Send all fragments of the packet, none of which overlaps another.".to_owned(),
        R::NoSession => format!(
            "Publish the port (vsctl add-forward {port} PROTO/PORT IP:PORT), or let the station speak first (vsctl sessions)."
        ),
        R::NatNoAddress => format!("Give the uplink {bridge} an address of this IP version: vsctl list-uplinks."),
        R::NatMalformed => "Look at the frame: it claims a transport header that it does not have.".to_owned(),
        R::NatUntrackedProtocol => "Use TCP, UDP or ICMP: NAT has no ports to translate in other protocols.".to_owned(),
        R::NatStrayError => "Nothing: an ICMP error about a packet that no session sent.".to_owned(),
        R::NatNoSession => "Begin with a packet that opens a session, such as a SYN.".to_owned(),
        R::NatFiltered => {
            "Let the station speak to this host first, publish the port (vsctl add-forward), or set nat.filtering.".to_owned()
        }
        R::NatFragmentBeforeFirst => "Send the first fragment too: the others have no ports.".to_owned(),
        R::NatNoPort => "Wait until sessions end (vsctl sessions), or widen nat.ports.".to_owned(),
        R::NatSessionCap => "Raise nat.sessions, or find who has the most: vsctl sessions.".to_owned(),
        R::NatSourceCap => "Raise nat.sessions-per-source, or see what the station has open: vsctl sessions.".to_owned(),
        R::NatClash => "Use another source port: the two ends have a session already.".to_owned(),
        R::NatOlder => "Nothing: the next packet from inside picks the connection up.".to_owned(),
        R::QueueFull => format!("The device takes no more frames now: see vsctl stats {port}, and whether its station reads."),
        R::DeviceDown => format!("Bring the device of {port} up: vsctl list-ports says what it lacks."),
        R::Refused => format!("The device of {port} refuses this frame: see its MTU and offloads."),
        R::Unsegmentable => format!("Switch segmentation off at the sender: the super-frame cannot be cut for {port}."),
        R::PacketTooBig => {
            format!("Lower the MTU of {bridge}, or raise that of the underlay: the way out of {port} carries less.")
        }
        R::UnknownVtep => format!("Name the host as a peer: vsctl set-vxlan {port} --add-peer IP."),
        R::CongestionMark => "Nothing: the underlay is congested, and the packet cannot carry the mark (RFC 6040).".to_owned(),
        R::MacMove => format!("Find the loop: its MAC address is seen at two ports (vsctl show {bridge})."),
        R::Suppressed => "Nothing: the switch answers for the station behind the tunnel.".to_owned(),
        R::PortDown => format!("Plug {port} in: vsctl set-port {port} --up."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_sentence() {
        for reason in DropReason::ALL {
            let advice = on(reason, Place { port: "web1", bridge: "br0" });
            assert!(advice.ends_with('.') && advice.len() > 20, "{}: {advice}", reason.name());
        }
    }
}
