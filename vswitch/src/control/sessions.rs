//! What `vsctl list-sessions` says of a session, whether NAT has it or the host's own sockets do.

use api::{DockerPlace, PortName, SessionInfo};
use nat::{Direction, SessionRow, State, Transport};

use crate::host;

/// A row about a session of NAT.
pub(super) fn by_nat(uplink: &PortName, row: &SessionRow) -> SessionInfo {
    let protocol = match row.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Icmp => "icmp",
    };
    SessionInfo {
        uplink: uplink.clone(),
        protocol: protocol.to_owned(),
        direction: direction(row.initiator == Direction::Outbound),
        inside: row.inside,
        docker: DockerPlace::default(),
        external: Some(row.external),
        remote: row.remote,
        state: State::name(row.state).to_owned(),
        seconds_left: Some(row.seconds_left.into()),
        out_frames: Some(row.outbound.packets),
        out_bytes: row.outbound.bytes,
        in_frames: Some(row.inbound.packets),
        in_bytes: row.inbound.bytes,
    }
}

/// A row about a session of the host's own sockets.
pub(super) fn by_host(uplink: &PortName, row: &host::Session) -> SessionInfo {
    let protocol = match row.protocol {
        host::Protocol::Tcp => "tcp",
        host::Protocol::Udp => "udp",
        host::Protocol::Echo => "icmp",
    };
    SessionInfo {
        uplink: uplink.clone(),
        protocol: protocol.to_owned(),
        direction: direction(row.direction == host::Direction::Out),
        inside: row.container,
        docker: DockerPlace::default(),
        external: None,
        remote: row.remote,
        state: row.state.to_owned(),
        seconds_left: None,
        out_frames: None,
        out_bytes: row.sent,
        in_frames: None,
        in_bytes: row.received,
    }
}

fn direction(out: bool) -> String {
    if out { "out" } else { "in" }.to_owned()
}
