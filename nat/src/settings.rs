//! How an uplink translates: mapping, filtering, ports, limits and timeouts, with the defaults that the RFCs ask for.
//! Plain values: the control side makes them from the table `[nat]` of `switch.toml`, and `Nat` reads them.

use std::time::Duration;

use crate::PortRange;
use crate::session::Class;

/// How one uplink translates. The default is what the RFCs ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When a container's port keeps its external port.
    pub mapping: Mapping,
    /// Which remote hosts may send to a port that a container has opened.
    pub filtering: Filtering,
    /// Whether packets from outside keep a UDP mapping alive as well (RFC 4787, REQ-6). TCP, and sessions of a forward, are
    /// always kept alive by both sides.
    pub inbound_refresh: bool,
    /// External ports for sources from port 1024 on. Sources below 1024 get one of 600 to 1023 (RFC 4787, REQ-3).
    pub ports: PortRange,
    /// Most sessions, up to [`Settings::MOST_SESSIONS`].
    pub sessions: u32,
    /// Most sessions of one inside address; `None`: a quarter of all, but no more than a quarter of the ports.
    pub sessions_per_source: Option<u32>,
    /// Most inside addresses that are accounted for one by one; further ones count as one source together.
    pub sources: u32,
    /// How long idle sessions are kept.
    pub timeouts: Timeouts,
}

/// When a container's port keeps its external port (RFC 4787, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Always, with whichever remote it talks (REQ-1): 64,512 container ports per protocol at a time.
    EndpointIndependent,
    /// Another for each remote address and port ("symmetric NAT", RFC 7857, section 3), as long as there are enough: external ports
    /// are shared by containers with different remotes. Only replies get in, whatever the filtering.
    EndpointDependent,
}

/// Which remote hosts may send to a port that a container has opened (RFC 4787, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// All.
    EndpointIndependent,
    /// The addresses that the container has sent to from that port, from any port of theirs (REQ-8).
    AddressDependent,
    /// The addresses and ports that it has sent to.
    AddressAndPortDependent,
}

/// How long idle sessions are kept, in whole seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// UDP with traffic in both directions.
    pub udp: Duration,
    /// UDP without a reply. RFC 4787, REQ-5, wants two minutes at least for that too.
    pub udp_unreplied: Duration,
    /// UDP to port 53, where a query is over with its reply (REQ-5a).
    pub udp_dns: Duration,
    /// ICMP queries (RFC 5508, REQ-2).
    pub icmp: Duration,
    /// TCP before it is established (RFC 5382, REQ-5: transitory).
    pub tcp_opening: Duration,
    /// TCP established, or closed by one side only.
    pub tcp_established: Duration,
    /// TCP closed by both sides, or reset (RFC 5382, REQ-5; RFC 7857, section 2).
    pub tcp_closing: Duration,
}

impl Settings {
    /// The largest session table.
    pub const MOST_SESSIONS: u32 = 1 << 21;

    pub(crate) fn per_source(&self) -> u32 {
        self.sessions_per_source.unwrap_or((self.sessions / 4).min(1 << 14)).max(1)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mapping: Mapping::EndpointIndependent,
            filtering: Filtering::AddressDependent,
            inbound_refresh: false,
            ports: PortRange::UNPRIVILEGED,
            sessions: 1 << 16,
            sessions_per_source: None,
            sources: 4096,
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(300),
            udp_unreplied: Duration::from_secs(120),
            udp_dns: Duration::from_secs(30),
            icmp: Duration::from_secs(60),
            tcp_opening: Duration::from_secs(240),
            tcp_established: Duration::from_secs(7440),
            tcp_closing: Duration::from_secs(240),
        }
    }
}

impl Timeouts {
    /// Seconds that a session of a class is kept. One more than was asked for: the clock's second may nearly be over.
    pub(crate) fn seconds(&self, class: Class) -> u32 {
        let timeout = match class {
            Class::Udp => self.udp,
            Class::UdpUnreplied => self.udp_unreplied,
            Class::UdpDns => self.udp_dns,
            Class::Icmp => self.icmp,
            Class::TcpOpening => self.tcp_opening,
            Class::TcpEstablished => self.tcp_established,
            Class::TcpClosing => self.tcp_closing,
        };
        u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX / 4).min(u32::MAX / 4) + 1
    }
}
