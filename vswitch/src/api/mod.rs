//! One vocabulary for `switch.toml`, `vsctl`, HTTP and tests.
//!
//! Names and specifications cannot be built wrong: what a [`PortName`] or a [`PortSpec`] holds was checked where it was
//! parsed, whichever door it came through. A [`Request`] is one change or question, a [`Reply`] its answer; both travel as
//! JSON. Specifications are written as in the file (kebab-case), replies in snake_case.

mod change;
mod container;
mod docker;
mod ending;
mod forward;
mod gateway;
mod name;
mod network;
mod patch;
mod port_state;
mod rate;
pub(crate) mod read;
mod reply;
mod request;
mod route;
mod spec;
mod uplink;
mod vxlan;

pub use change::{ChangeInfo, ChangeKind, Part};
pub use container::{
    ContainerAddresses, ContainerError, ContainerInfo, ContainerKey, ContainerNetwork, ContainerRoute, ContainerSpec,
    PublishedPort, Runtime,
};
pub use docker::DockerPlace;
pub use ending::{Ending, MadeKind, MadeThing};
pub(crate) use forward::ForwardTable;
pub use forward::{ForwardKey, ForwardSpec, protocol_name};
pub use gateway::{ForwardInfo, LeaseRow, NeighborInfo, RouteInfo, SessionInfo, UplinkInfo};
pub use name::{BridgeName, InterfaceName, NameError, PortName};
pub use network::{Network, NetworkError, NetworkWarning};
pub(crate) use patch::from_table;
pub use patch::{Patch, PatchError};
pub use port_state::PortState;
pub use rate::{Rate, RateChange, RateError};
pub use reply::{
    AddressConflictInfo, AddressConflictsInfo, AddressHolderInfo, BridgeInfo, FdbEntry, LeaseInfo, MacMoveInfo, MacMovesInfo,
    Origin, PeerInfo, PoolInfo, PortInfo, PortStats, Reply, SwitchInfo, VxlanInfo,
};
pub use request::{CaptureRequest, FdbFilter, Instruction, LogLevel, PortChange, Request, VlanChange};
pub use route::{RouteError, RouteSpec};
pub(crate) use spec::check_ipv6_mtu;
pub use spec::{BridgeSpec, ControlFrames, Netns, PortKind, PortSpec, SpecError, VlanError, VlanList, VlanListError, VlanMode};
pub(crate) use spec::{BridgeTable, PortTable};
pub use uplink::{UplinkAddress, UplinkError, UplinkKind, UplinkKindName, UplinkSpec};
pub(crate) use uplink::{UplinkTable, is_host};
pub(crate) use vxlan::VxlanTable;
pub use vxlan::{Reach, StationSpec, VxlanChange, VxlanError, VxlanSpec};
