//! One vocabulary for `switch.toml`, `vsctl`, HTTP and tests.
//!
//! Names and specifications cannot be built wrong: what a [`PortName`] or a [`PortSpec`] holds was checked where it was
//! parsed, whichever door it came through. A [`Request`] is one change or question, a [`Reply`] its answer; both travel as
//! JSON. Specifications are written as in the file (kebab-case), replies in snake_case.

#![forbid(unsafe_code)]

mod capture;
mod change;
mod cluster;
mod container;
mod docker;
mod ending;
mod event;
mod flannel;
mod flow;
mod forward;
mod gateway;
mod impair;
mod live;
mod name;
mod network;
mod patch;
mod port_state;
mod rate;
pub mod read;
mod reply;
mod request;
mod resource;
mod route;
mod size;
mod spec;
mod stp;
mod super_frame;
mod symptom;
mod trace;
mod uplink;
mod vxlan;

pub use self::vxlan::VxlanTable;
pub use self::vxlan::{Reach, RoutedTunnel, StationSpec, VxlanChange, VxlanError, VxlanSpec};
pub use self::vxlan::{ReachInfo, UnderlayInfo, VxlanInfo};
pub use capture::{
    CAPTURE_NUMBER, CaptureDirection, CaptureFilter, CapturePoint, CaptureRequest, DropInfo, FrameNote, Instruction,
    PointError, TUNNEL_STEP, TUNNEL_TESTS, TunnelTest,
};
pub use change::{ChangeInfo, ChangeKind, Part};
pub use cluster::{ClusterAnswer, ClusterHost, ClusterNetwork, ClusterQuestion, ClusterStation, ClusterStatus, Finding};
pub use container::{
    ContainerAddresses, ContainerError, ContainerInfo, ContainerKey, ContainerNetwork, ContainerRoute, ContainerSpec,
    NetworkName, PublishedPort, Runtime,
};
pub use docker::DockerPlace;
pub use ending::{Ending, MadeKind, MadeThing};
pub use event::{EventFacts, EventInfo, EventKind};
pub use flannel::{FlannelHost, FlannelInfo};
pub use flow::{FlowEnd, LiveFlow};
pub use forward::{ForwardKey, ForwardSpec, ForwardTable, protocol_name};
pub use gateway::{ForwardInfo, LeaseRow, LeaseState, NeighborInfo, RouteInfo, SessionInfo, UplinkInfo};
pub use impair::{Burst, Delay, Distribution, Flap, Impair, ImpairError, Impairment, Loss, Percent, Reorder};
pub use live::{LiveBridge, LiveCluster, LiveInfo, LiveKind, LivePort, LiveTunnel, LiveUplink};
pub use name::{BridgeName, InterfaceName, NameError, OverlayName, PortName};
pub use network::{MOST_TAP_MTU, Network, NetworkError, NetworkWarning};
pub use patch::{Patch, PatchError, from_table};
pub use port_state::PortState;
pub use rate::{FrameRate, Rate, RateError};
pub use reply::{
    BetweenInfo, BridgeInfo, FdbEntry, GatewayInfo, LeaseInfo, Origin, PortInfo, PortNow, PortStats, Reply, SwitchInfo,
    VlanInfo,
};
pub use request::{FdbFilter, LogLevel, Request};
pub use resource::{Kind, Resource, ResourceKey};
pub use route::{RouteError, RouteSpec};
pub use size::{ByteSize, SizeError};
pub use spec::check_ipv6_mtu;
pub use spec::{
    BridgeSpec, ControlFrames, Netns, PortKind, PortPolicy, PortSpec, SpecError, VlanError, VlanList, VlanListError, VlanMode,
};
pub use spec::{BridgeTable, PortTable};
pub use spec::{Stp, StpBridgePriority, StpCost, StpEdge, StpPortPriority};
pub use stp::{StpIdentifier, StpInfo, StpPeer, StpPortInfo, StpRole, StpState};
pub use super_frame::{SegmentKind, SuperFrame, SuperFrameInfo};
pub use symptom::{
    AddressConflictInfo, AddressConflictsInfo, AddressHolderInfo, MacMoveInfo, MacMovesInfo, PeerInfo, PoolInfo,
};
pub use trace::hex;
pub use trace::{
    EthernetInfo, FrameInfo, IpInfo, L4Info, TraceExit, TraceFrame, TraceInfo, TraceRequest, TraceStep, TraceVerdict,
};
pub use uplink::{UplinkAddress, UplinkError, UplinkKind, UplinkKindName, UplinkSpec};
pub use uplink::{UplinkTable, is_host};
