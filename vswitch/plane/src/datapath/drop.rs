//! Why frames are dropped, and a port's counters. Every part of the data plane names its reason here;
//! the control side reads the counters for `vsctl stats`.

use nat::Denied;

use crate::impair::Treated;

/// Why a frame went no further. Every drop is one of these, counted per port, and named the same in `vsctl stats`, in captures
/// and in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than its Ethernet header.
    Runt,
    /// Longer than the bridge's MTU allows.
    Oversized,
    /// Cut short on the way in, or with offload metadata that does not fit it.
    Malformed,
    /// The kernel had no room to keep it until the switch read it.
    MissedByKernel,
    /// Its source address is a group address or zero.
    InvalidSource,
    /// It is in a VLAN that the port does not carry.
    VlanNotAllowed,
    /// It goes to a link-local control address (`01:80:c2:00:00:0x`).
    ControlFrame,
    /// The source guard does not know its source MAC address.
    GuardMac,
    /// The source guard does not know its source IP address.
    GuardIp,
    /// The source guard does not know the sender in its ARP message.
    GuardArp,
    /// The source guard does not accept its neighbour discovery message.
    GuardNd,
    /// The source guard lets no DHCP server speak.
    GuardDhcp,
    /// It claims, by ARP or neighbour discovery, an address that is the gateway's or another port's.
    SpoofedAddress,
    /// It advertises a router where the gateway is the router.
    RogueRouter,
    /// It speaks as a DHCP server where the switch gives out the addresses.
    RogueDhcp,
    /// The port has sent more broadcast frames than its limit.
    StormLimit,
    /// It is more than the port may send into the switch.
    SendRate,
    /// Its destination is on the port that it came from.
    SamePort,
    /// Its destination is on a protected port, and it came from another one.
    Protected,
    /// No other port carries its VLAN: its sender is alone there.
    NoDestination,
    /// The gateway cannot be spoken to from this source address: a group, its own, or one that is not of the subnet.
    MartianSource,
    /// Its hop limit is used up.
    HopLimit,
    /// It is longer than the MTU of the way on, and may not be cut.
    ExceedsMtu,
    /// There is no route to its destination.
    NoRoute,
    /// Its destination is on a bridge that is isolated from this one.
    Isolated,
    /// The next hop does not say its MAC address.
    NeighborUnresolved,
    /// It is for the gateway, where no service listens.
    NoService,
    /// It is a fragment for the gateway itself, and the rest of its packet did not come, or contradicted it.
    FragmentForGateway,
    /// It came in by an uplink and belongs to no session and no published port.
    NoSession,
    /// The uplink has no address of its IP version.
    NatNoAddress,
    /// It claims transport headers that it does not have.
    NatMalformed,
    /// NAT knows neither TCP nor UDP nor a query or an error of ICMP in it.
    NatUntrackedProtocol,
    /// It is an ICMP error with a wrong checksum, or about no packet of a session.
    NatStrayError,
    /// It is a reset or a reply to nothing.
    NatNoSession,
    /// It came in by an uplink, and no station opened the port to its sender.
    NatFiltered,
    /// It is a later fragment of a packet whose first one has not been seen.
    NatFragmentBeforeFirst,
    /// Every external port is in use.
    NatNoPort,
    /// The session table is full, and of the source's own sessions none could go.
    NatSessionCap,
    /// Its source has all the sessions that it may have.
    NatSourceCap,
    /// Its two ends have a session already, by another external port.
    NatClash,
    /// It is of a TCP connection that may be older than the switch.
    NatOlder,
    /// It is more than may leave by the port.
    ReceiveRate,
    /// The device takes no more frames now.
    QueueFull,
    /// The device is down.
    DeviceDown,
    /// The device does not take this frame.
    Refused,
    /// The device takes no super-frames, and this one could not be cut into segments.
    Unsegmentable,
    /// The way out of the port carries no frame as long as this one.
    PacketTooBig,
    /// It came through a tunnel from an endpoint that does not belong to it.
    UnknownVtep,
    /// The underlay marked congestion on a packet that cannot carry the mark (RFC 6040).
    CongestionMark,
    /// Its source address moves to and fro between ports, as it does in a loop, and is held at another one, or floods too much.
    MacMove,
    /// It asked for a station behind a tunnel that the switch knows, and the switch answered.
    Suppressed,
    /// The port is unplugged: `set-port --down`; or its cable was pulled while the frame was on its impaired line, as for a move to another bridge.
    PortDown,
    /// The spanning tree has blocked the port that it came in by, or the only ports that it could leave by.
    StpDiscarding,
    /// The port's impairment loses it.
    ImpairLoss,
    /// As many bytes wait on the port's impaired line as may.
    ImpairQueue,
    /// CoDel keeps short what waits on the port's impaired line.
    ImpairCodel,
    /// The port's impaired line is interrupted now.
    ImpairFlap,
}

impl DropReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 57] = [
        Self::Runt,
        Self::Oversized,
        Self::Malformed,
        Self::MissedByKernel,
        Self::InvalidSource,
        Self::VlanNotAllowed,
        Self::ControlFrame,
        Self::GuardMac,
        Self::GuardIp,
        Self::GuardArp,
        Self::GuardNd,
        Self::GuardDhcp,
        Self::SpoofedAddress,
        Self::RogueRouter,
        Self::RogueDhcp,
        Self::StormLimit,
        Self::SendRate,
        Self::SamePort,
        Self::Protected,
        Self::NoDestination,
        Self::MartianSource,
        Self::HopLimit,
        Self::ExceedsMtu,
        Self::NoRoute,
        Self::Isolated,
        Self::NeighborUnresolved,
        Self::NoService,
        Self::FragmentForGateway,
        Self::NoSession,
        Self::NatNoAddress,
        Self::NatMalformed,
        Self::NatUntrackedProtocol,
        Self::NatStrayError,
        Self::NatNoSession,
        Self::NatFiltered,
        Self::NatFragmentBeforeFirst,
        Self::NatNoPort,
        Self::NatSessionCap,
        Self::NatSourceCap,
        Self::NatClash,
        Self::NatOlder,
        Self::ReceiveRate,
        Self::QueueFull,
        Self::DeviceDown,
        Self::Refused,
        Self::Unsegmentable,
        Self::PacketTooBig,
        Self::UnknownVtep,
        Self::CongestionMark,
        Self::MacMove,
        Self::Suppressed,
        Self::PortDown,
        Self::StpDiscarding,
        Self::ImpairLoss,
        Self::ImpairQueue,
        Self::ImpairCodel,
        Self::ImpairFlap,
    ];

    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runt => "runt",
            Self::Oversized => "oversized",
            Self::Malformed => "malformed",
            Self::MissedByKernel => "missed-by-kernel",
            Self::InvalidSource => "invalid-source",
            Self::VlanNotAllowed => "vlan-not-allowed",
            Self::ControlFrame => "control-frame",
            Self::GuardMac => "guard-mac",
            Self::GuardIp => "guard-ip",
            Self::GuardArp => "guard-arp",
            Self::GuardNd => "guard-nd",
            Self::GuardDhcp => "guard-dhcp",
            Self::SpoofedAddress => "spoofed-address",
            Self::RogueRouter => "rogue-router",
            Self::RogueDhcp => "rogue-dhcp",
            Self::StormLimit => "storm-limit",
            Self::SendRate => "send-rate",
            Self::SamePort => "same-port",
            Self::Protected => "protected",
            Self::NoDestination => "no-destination",
            Self::MartianSource => "martian-source",
            Self::HopLimit => "hop-limit",
            Self::ExceedsMtu => "exceeds-mtu",
            Self::NoRoute => "no-route",
            Self::Isolated => "isolated",
            Self::NeighborUnresolved => "neighbor-unresolved",
            Self::NoService => "no-service",
            Self::FragmentForGateway => "fragment-for-gateway",
            Self::NoSession => "no-session",
            Self::NatNoAddress => Denied::NoAddress.name(),
            Self::NatMalformed => Denied::Malformed.name(),
            Self::NatUntrackedProtocol => Denied::UntrackedProtocol.name(),
            Self::NatStrayError => Denied::StrayError.name(),
            Self::NatNoSession => Denied::NoSession.name(),
            Self::NatFiltered => Denied::Filtered.name(),
            Self::NatFragmentBeforeFirst => Denied::FragmentBeforeFirst.name(),
            Self::NatNoPort => Denied::NoPort.name(),
            Self::NatSessionCap => Denied::SessionCap.name(),
            Self::NatSourceCap => Denied::SourceCap.name(),
            Self::NatClash => Denied::Clash.name(),
            Self::NatOlder => Denied::Older.name(),
            Self::ReceiveRate => "receive-rate",
            Self::QueueFull => "queue-full",
            Self::DeviceDown => "device-down",
            Self::Refused => "refused",
            Self::Unsegmentable => "unsegmentable",
            Self::PacketTooBig => "packet-too-big",
            Self::UnknownVtep => "unknown-vtep",
            Self::CongestionMark => "congestion-mark",
            Self::MacMove => "mac-move",
            Self::Suppressed => "suppressed",
            Self::PortDown => "port-down",
            Self::StpDiscarding => "stp-discarding",
            Self::ImpairLoss => "impair-loss",
            Self::ImpairQueue => "impair-queue",
            Self::ImpairCodel => "impair-codel",
            Self::ImpairFlap => "impair-flap",
        }
    }

    /// The name that JSON has.
    pub fn json_name(self) -> String {
        self.name().replace('-', "_")
    }

    /// Whether frames are dropped for this reason on their way into the switch, not out of it. On an impaired line they may be on either.
    pub const fn is_ingress(self) -> bool {
        use DropReason::{DeviceDown, PacketTooBig, QueueFull, ReceiveRate, Refused, Unsegmentable};
        !matches!(self, ReceiveRate | QueueFull | DeviceDown | Refused | Unsegmentable | PacketTooBig)
    }

    /// Whether frames are dropped for this reason on this way.
    const fn is_on(self, ingress: bool) -> bool {
        use DropReason::{ImpairCodel, ImpairFlap, ImpairLoss, ImpairQueue};
        self.is_ingress() == ingress || matches!(self, ImpairLoss | ImpairQueue | ImpairCodel | ImpairFlap)
    }
}

impl From<Denied> for DropReason {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NoAddress => Self::NatNoAddress,
            Denied::Malformed => Self::NatMalformed,
            Denied::UntrackedProtocol => Self::NatUntrackedProtocol,
            Denied::StrayError => Self::NatStrayError,
            Denied::NoSession => Self::NatNoSession,
            Denied::Filtered => Self::NatFiltered,
            Denied::FragmentBeforeFirst => Self::NatFragmentBeforeFirst,
            Denied::NoPort => Self::NatNoPort,
            Denied::SessionCap => Self::NatSessionCap,
            Denied::SourceCap => Self::NatSourceCap,
            Denied::Clash => Self::NatClash,
            Denied::Older => Self::NatOlder,
        }
    }
}

/// What one port did, seen by one worker. Only ever grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Frames received from the device; a super-frame counts once.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames handed to the device.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// What impaired lines did to packets, on their way in and out.
    pub impaired: [Treated; 2],
    /// What its rates did to packets, on their way in and out.
    pub shaped: [Treated; 2],
    /// On the way in, and on the way out.
    drops: [[u64; DropReason::ALL.len()]; 2],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            rx_frames: 0,
            rx_bytes: 0,
            tx_frames: 0,
            tx_bytes: 0,
            impaired: Default::default(),
            shaped: Default::default(),
            drops: [[0; DropReason::ALL.len()]; 2],
        }
    }
}

impl Counters {
    /// Counts `frames` drops.
    pub fn count_drops(&mut self, reason: DropReason, frames: u64) {
        self.count_drops_on(reason.is_ingress(), reason, frames);
    }

    /// Counts `frames` drops on the way in, or else on the way out.
    pub fn count_drops_on(&mut self, ingress: bool, reason: DropReason, frames: u64) {
        if let Some(count) = self.drops[way(ingress)].get_mut(reason as usize) {
            *count += frames;
        }
    }

    /// Frames dropped for `reason`.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops_on(true, reason) + self.drops_on(false, reason)
    }

    /// Frames dropped for `reason` on the way in, or else on the way out.
    pub fn drops_on(&self, ingress: bool, reason: DropReason) -> u64 {
        self.drops[way(ingress)].get(reason as usize).copied().unwrap_or_default()
    }

    /// What was done to packets on impaired lines, and by rates, by the names that JSON has; nothing of a port that had none.
    pub fn named_treatments(&self) -> impl Iterator<Item = (String, u64)> {
        let by = |what: &'static str, ways: [Treated; 2]| {
            let any = ways != [Treated::default(); 2];
            ["in", "out"].into_iter().zip(ways).filter(move |_| any).map(move |(way, treated)| (what, way, treated))
        };
        let impaired = by("impair", self.impaired).flat_map(|(what, way, treated)| named(what, way, treated.rows()));
        // A rate does no more than these.
        let shaped = by("rate", self.shaped).flat_map(|(what, way, Treated { delayed, marked, .. })| {
            named(what, way, [("delayed", delayed), ("marked", marked)])
        });
        impaired.chain(shaped)
    }

    /// Drops on the way in, or else on the way out, by the names that JSON has. Every reason is listed, also with 0.
    pub fn named_drops(&self, ingress: bool) -> impl Iterator<Item = (String, u64)> {
        let reasons = DropReason::ALL.into_iter().filter(move |reason| reason.is_on(ingress));
        reasons.map(move |reason| (reason.json_name(), self.drops_on(ingress, reason)))
    }

    /// Adds what another worker saw on the same port.
    pub fn add(&mut self, other: &Self) {
        self.rx_frames += other.rx_frames;
        self.rx_bytes += other.rx_bytes;
        self.tx_frames += other.tx_frames;
        self.tx_bytes += other.tx_bytes;
        for (mine, theirs) in self.drops.iter_mut().flatten().zip(other.drops.iter().flatten()) {
            *mine += theirs;
        }
        let mine = self.impaired.iter_mut().chain(&mut self.shaped);
        mine.zip(other.impaired.into_iter().chain(other.shaped)).for_each(|(mine, theirs)| mine.add(theirs));
    }
}

/// Counters of one way, by the names that JSON has.
fn named<const N: usize>(what: &str, way: &str, rows: [(&str, u64); N]) -> [(String, u64); N] {
    rows.map(|(row, count)| (format!("{what}_{way}_{row}"), count))
}

/// The place of a way in a pair.
const fn way(ingress: bool) -> usize {
    if ingress { 0 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_and_in_order() {
        for (number, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{}", reason.name());
        }
        let names: std::collections::BTreeSet<_> = DropReason::ALL.map(DropReason::name).into_iter().collect();
        assert_eq!(names.len(), DropReason::ALL.len(), "every name is its own");
    }
}
