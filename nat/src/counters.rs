//! What a NAT counts: why packets are denied, and what became of sessions. Its user shows both.

/// Why a packet is not translated. Each is counted, and becomes a drop reason of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Denied {
    /// The uplink has no address of the packet's IP version.
    NoAddress,
    /// It claims headers that it does not have.
    Malformed,
    /// Neither TCP nor UDP nor a query or an error of ICMP.
    UntrackedProtocol,
    /// An ICMP error with a wrong checksum, or about no packet of a session.
    StrayError,
    /// A reset or a reply to nothing.
    NoSession,
    /// It came from outside, and no container opened the port to its sender (RFC 4787, REQ-8). For TCP this silence is what RFC 5382, REQ-4, wants.
    Filtered,
    /// A later fragment of a packet whose first one has not been seen.
    FragmentBeforeFirst,
    /// Every external port is in use.
    NoPort,
    /// The table is full, and of the source's own sessions none could go.
    SessionCap,
    /// The source has all the sessions that it may have, and all are established.
    SourceCap,
    /// The container and the remote port have a session already, by another external port.
    Clash,
    /// A TCP segment from outside that belongs to nothing, soon after the start: its connection may be older than the switch, and a reset
    /// would end it.
    Older,
}

impl Denied {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::NoAddress,
        Self::Malformed,
        Self::UntrackedProtocol,
        Self::StrayError,
        Self::NoSession,
        Self::Filtered,
        Self::FragmentBeforeFirst,
        Self::NoPort,
        Self::SessionCap,
        Self::SourceCap,
        Self::Clash,
        Self::Older,
    ];

    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAddress => "nat-no-address",
            Self::Malformed => "nat-malformed",
            Self::UntrackedProtocol => "nat-untracked-protocol",
            Self::StrayError => "nat-stray-error",
            Self::NoSession => "nat-no-session",
            Self::Filtered => "nat-filtered",
            Self::FragmentBeforeFirst => "nat-fragment-before-first",
            Self::NoPort => "nat-no-port",
            Self::SessionCap => "nat-session-cap",
            Self::SourceCap => "nat-source-cap",
            Self::Clash => "nat-clash",
            Self::Older => "nat-older",
        }
    }

    /// Whether it is for want of resources: RFC 5508, REQ-8, has the sender told so ("administratively prohibited").
    pub const fn is_shortage(self) -> bool {
        matches!(self, Self::NoPort | Self::SessionCap | Self::SourceCap)
    }
}

/// What a NAT did and has. All but the last two only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions that began.
    pub created: u64,
    /// Sessions that ended because they were idle.
    pub expired: u64,
    /// Sessions that had to make room.
    pub evicted: u64,
    /// Sessions that were flushed, lost their address or their forward, or gave way to a new one between the same ports.
    pub removed: u64,
    /// Sessions now.
    pub sessions: u64,
    /// External ports and ICMP identifiers in use now, of all protocols.
    pub ports_in_use: u64,
    pub(crate) denied: [u64; Denied::ALL.len()],
}

impl Counters {
    /// What became of sessions, with the names that users see. Denied packets are drops.
    pub const fn rows(&self) -> [(&'static str, u64); 4] {
        [
            ("sessions_created", self.created),
            ("sessions_expired", self.expired),
            ("sessions_evicted", self.evicted),
            ("sessions_removed", self.removed),
        ]
    }

    /// Packets denied for `reason`.
    pub fn denied(&self, reason: Denied) -> u64 {
        self.denied.get(reason as usize).copied().unwrap_or_default()
    }

    pub(crate) fn count(&mut self, reason: Denied) {
        if let Some(count) = self.denied.get_mut(reason as usize) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_and_in_order() {
        for (number, reason) in Denied::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{}", reason.name());
        }
        let names: std::collections::BTreeSet<_> = Denied::ALL.map(Denied::name).into_iter().collect();
        assert_eq!(names.len(), Denied::ALL.len(), "every name is its own");
    }
}
