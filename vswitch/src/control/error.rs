//! Why the control side refuses a request, in sentences for the log and for the one that asked: `vsctl`, Docker or a plugin.
//! Touches nothing.

use std::net::IpAddr;

use crate::attach::AttachError;
use crate::config::Problem;
use crate::overlay::NO_BLOCKS;
use api::{BridgeName, ForwardKey, NetworkError, OverlayName, PortName, SpecError, UplinkError, VxlanError};
use plane::worker::Stopped;

/// Why a request was not carried out. Nothing of it was done then.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A vswitchd that wanted to take over could not be given what it needs.
    #[error("what it needs cannot be handed over: {0}")]
    Takeover(#[source] std::io::Error),
    /// The name is taken.
    #[error("bridge \"{0}\" exists already: choose another name")]
    BridgeExists(BridgeName),
    /// The name is taken.
    #[error("port \"{0}\" exists already on bridge \"{1}\": choose another name, or change it with set-port")]
    PortExists(PortName, BridgeName),
    /// No such bridge.
    #[error("there is no bridge \"{0}\"{bridges}", bridges = choices("the bridges are", .1))]
    NoBridge(BridgeName, Vec<String>),
    /// No such port.
    #[error("there is no port \"{0}\"{ports}", ports = choices("the ports are", .1))]
    NoPort(PortName, Vec<String>),
    /// A tunnel without a socket has no counters, no addresses and no frames.
    #[error("tunnel \"{0}\" is down: vsctl list-vxlan says why")]
    TunnelDown(PortName),
    /// No such container.
    #[error("there is no container \"{}\" on a network of the switch{containers}", .0.escape_debug(), containers = choices("the containers are", .1))]
    NoContainer(String, Vec<String>),
    /// There is no frame to trace.
    #[error("{0}")]
    Trace(String),
    /// No such uplink.
    #[error("there is no uplink \"{0}\"{uplinks}", uplinks = choices("the uplinks are", .1))]
    NoUplink(PortName, Vec<String>),
    /// No such forward.
    #[error("there is no forward {0}{forwards}", forwards = choices("the forwards are", .1))]
    NoForward(ForwardKey, Vec<String>),
    /// The name is taken.
    #[error("uplink \"{0}\" exists already: choose another name, or remove it first with del-uplink {0}")]
    UplinkExists(PortName),
    /// The port is published already.
    #[error("forward {0} exists already, to {1}: remove it first, or publish another port")]
    ForwardExists(ForwardKey, std::net::SocketAddr),
    /// The uplink is in use.
    #[error("uplink \"{0}\" is used by {1}: {2}")]
    UplinkInUse(PortName, String, String),
    /// Forwards go to the bridge.
    #[error("forward {1} goes to bridge \"{0}\": remove it first with del-forward {1}")]
    ForwardToBridge(BridgeName, ForwardKey),
    /// It does not fit what is there.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The specification contradicts itself.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// The host's sockets cannot be used.
    #[error(transparent)]
    Host(#[from] crate::host::HostError),
    /// No such tunnel.
    #[error("there is no vxlan \"{0}\"{tunnels}", tunnels = choices("the tunnels are", .1))]
    NoVxlan(PortName, Vec<String>),
    /// The name is taken.
    #[error("vxlan \"{0}\" exists already on bridge \"{1}\": choose another name, or change it with set-vxlan")]
    VxlanExists(PortName, BridgeName),
    /// Two tunnels would hear the same frames.
    #[error("vxlan \"{0}\" has VNI {1} on UDP port {2}, as vxlan \"{3}\" has: give it another `vni` or `port`")]
    VniTaken(PortName, u32, u16, PortName),
    /// The tunnel contradicts itself.
    #[error(transparent)]
    Vxlan(#[from] VxlanError),
    /// The bridge is in use.
    #[error("bridge \"{0}\" has {1} ports: remove them first, beginning with del-port {2}")]
    BridgeInUse(BridgeName, usize, PortName),
    /// The bridge is in use by a tunnel.
    #[error("bridge \"{0}\" has vxlan \"{1}\": remove it first, with del-vxlan {1}")]
    BridgeTunnelled(BridgeName, PortName),
    /// Two ports would share a device.
    #[error("port \"{port}\" has interface \"{ifname}\" of {netns} already: give this one another `ifname` or `netns`")]
    PlaceTaken {
        /// The port that has it.
        port: PortName,
        /// The interface.
        ifname: String,
        /// Where it is.
        netns: String,
    },
    /// The specification contradicts itself.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The kernel did not do it.
    #[error("port \"{0}\": {1}")]
    Attach(PortName, #[source] AttachError),
    /// The kernel did not do it.
    #[error("uplink \"{0}\": {1}")]
    AttachUplink(PortName, #[source] AttachError),
    /// An address that is there already.
    #[error(
        "uplink \"{0}\": {1} is an address of this host itself, so that both would answer for it: use another one of that network, or `kind = \"host\"`"
    )]
    AddressOfHost(PortName, IpAddr),
    /// The rules of NAT contradict themselves.
    #[error("[nat]: {0}")]
    Nat(String),
    /// The services have no thread.
    #[error("the thread of the gateways' services cannot start: {0}")]
    Services(#[source] std::io::Error),
    /// Spanning trees have no thread.
    #[error("the thread that speaks for spanning trees cannot start: {0}")]
    StpThread(#[source] std::io::Error),
    /// A bridge in an overlay network, and no store to hear of others.
    #[error(
        "bridge \"{0}\" has overlay \"{1}\", and switch.toml has no [cluster]: add one with `store`, `endpoints` and `underlay`, then reload"
    )]
    NoCluster(BridgeName, OverlayName),
    /// An encrypted network, and no key.
    #[error("vxlan \"{0}\" is that of an encrypted network, and this host has no key: {1}")]
    NoKey(PortName, String),
    /// DHCP on an overlay network without a store.
    #[error("bridge \"{0}\" has overlay \"{1}\" and `dhcp`, {end}", end = NO_BLOCKS)]
    NoBlocks(BridgeName, OverlayName),
    /// No `[cluster]`.
    #[error("this host is in no cluster: add [cluster] to switch.toml, with `store`, `endpoints` and `underlay`")]
    NotInCluster,
    /// The thread does not answer in time.
    #[error("the thread that deals with the cluster's store is too busy to answer: ask again")]
    ClusterBusy,
    /// The store is required and not to be used, or its thread cannot start.
    #[error("[cluster]: {0}")]
    Cluster(String),
    /// A tunnel that is not the user's.
    #[error(
        "vxlan \"{0}\" is that of bridge \"{1}\" in its overlay network, and goes with it: change the bridge with set-br {1} --overlay"
    )]
    ClustersVxlan(PortName, BridgeName),
    /// The thread for flannel's network cannot start.
    #[error("[flannel]: {0}")]
    Flannel(String),
    /// No `[flannel]`.
    #[error(
        "this host has no part in a network of flannel's: add [flannel] to switch.toml, with `endpoints`, `underlay` and `bridge`"
    )]
    NoFlannel,
    /// A tunnel that is flannel's.
    #[error(
        "vxlan \"{0}\" leads from bridge \"{1}\" to the other hosts of flannel's network, and goes with [flannel] of switch.toml"
    )]
    FlannelsVxlan(PortName, BridgeName),
    /// The bridge that has a subnet of flannel's network.
    #[error(
        "bridge \"{0}\" has the subnet of this host in flannel's network, so its `{1}` cannot be changed: see [flannel] of switch.toml"
    )]
    FlannelsBridge(BridgeName, &'static str),
    /// A subnet of flannel's network.
    #[error("flannel's network, in which [flannel] of switch.toml gives this host a part, {0}")]
    FlannelsSubnet(String),
    /// A bridge without a spanning tree.
    #[error("bridge \"{0}\" is part of no spanning tree: switch one on with vsctl set-br {0} --stp rstp")]
    NoTree(BridgeName),
    /// A TAP keeps its carrier.
    #[error("port \"{0}\": the kernel does not let its carrier be set (needs Linux 5.0): {1}")]
    Carrier(PortName, #[source] std::io::Error),
    /// A change that cannot be.
    #[error(transparent)]
    Patch(#[from] api::PatchError),
    /// No such route.
    #[error("bridge \"{0}\" has no route to {1}{hint}", hint = choices("its routes are", .2))]
    NoRoute(BridgeName, ipnet::IpNet, Vec<String>),
    /// A route that is there.
    #[error("bridge \"{0}\" has route \"{1}\" already: remove it first, with del-route {0} {to}", to = .1.to)]
    RouteExists(BridgeName, api::RouteSpec),
    /// Neither a bridge nor an uplink.
    #[error("there is no bridge and no uplink \"{0}\"{hint}", hint = choices("there are", .1))]
    NoInterface(PortName, Vec<String>),
    /// A port of another bridge.
    #[error("port \"{0}\" is on bridge \"{1}\", not on \"{2}\"")]
    PortElsewhere(PortName, BridgeName, BridgeName),
    /// The services do not answer.
    #[error("the services of the gateways do not answer: see the log")]
    NoServices,
    /// A worker could not watch the device.
    #[error("port \"{0}\": the kernel does not let its device be polled: {1}")]
    Poll(PortName, #[source] std::io::Error),
    /// The data plane is gone.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The file does not hold.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    File(Vec<Problem>),
    /// What was changed cannot be kept.
    #[error("{0}")]
    State(#[source] crate::config::StateError),
    /// Not a filter.
    #[error("the capture filter is not a classic BPF program: {0}")]
    Filter(#[from] plane::capture::BadProgram),
    /// No thread for a capture.
    #[error("the capture's thread cannot start: {0}")]
    Thread(#[from] std::io::Error),
    /// Too many captures.
    #[error("{0} captures run already: end one of them first")]
    Captures(usize),
    /// All numbers for ports are taken.
    #[error("there are {0} ports and uplinks already, the most that a switch can have: remove one first")]
    Ports(u32),
    /// The last frames were asked for, and are not kept.
    #[error(
        "no frames are kept: the flight recorder is off; turn it on with `recorder = \"64MiB\"` in [capture] of switch.toml, and reload"
    )]
    NoRecorder,
    /// No such capture.
    #[error("there is no capture {0}: it has ended")]
    NoCapture(u64),
    /// A setting that only a start reads.
    #[error("`{1}` in [{0}] differs from the running one: restart vswitchd to change it")]
    NeedsRestart(&'static str, &'static str),
    /// A file that leaves no room for containers that run.
    #[error(
        "switch.toml leaves no room for Docker's network {network}, which has {count} running, on bridge \"{bridge}\": change the \
         file, or end them first"
    )]
    TakesNetwork {
        /// Docker's identifier of the network.
        network: String,
        /// Its bridge.
        bridge: BridgeName,
        /// Its containers.
        count: usize,
    },
    /// What Docker asks for cannot be.
    #[error(transparent)]
    Docker(#[from] crate::docker::DockerError),
    /// What a container's plugin asks for cannot be.
    #[error(transparent)]
    Container(#[from] super::ContainerRefusal),
    /// A port that is a container's.
    #[error("port \"{0}\" is interface {1} of a container: remove that with its runtime, or stop it")]
    ContainersPort(PortName, api::ContainerKey),
    /// A file that leaves no room for a container that runs.
    #[error(
        "switch.toml leaves no room for the container {0} on network {1}, which runs, on bridge \"{2}\": change the file, or end it first"
    )]
    TakesContainer(api::ContainerKey, api::NetworkName, BridgeName),
    /// A bridge that a network of Docker's is on.
    #[error("bridge \"{0}\" has network {1} of Docker: remove it with docker network rm {1}")]
    DockersBridge(BridgeName, crate::docker::NetworkId),
    /// A port that is a container of Docker's.
    #[error(
        "port \"{0}\" is a container's place on network {1} of Docker: take the container off it with docker network disconnect, or stop it"
    )]
    DockersPort(PortName, crate::docker::NetworkId),
    /// A port that connects networks of Docker's with a LAN.
    #[error("port \"{0}\" connects network {1} of Docker with its LAN: remove that with docker network rm {1}")]
    DockersLan(PortName, crate::docker::NetworkId),
    /// An uplink that is there for networks of Docker.
    #[error(
        "uplink \"{0}\" is there for networks of Docker: it goes with the last of them, or when [docker] names another `uplink`"
    )]
    DockersUplink(PortName),
    /// Several things that failed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<ControlError>),
}

/// ", the bridges are a, b" or, where there is none, a hint.
fn choices(what: &str, names: &[String]) -> String {
    match names {
        [] => ": there are none yet".to_owned(),
        names if names.len() <= 8 => format!(": {what} {}", names.join(", ")),
        names => format!(": {what} {}, and {} more", names[..8].join(", "), names.len() - 8),
    }
}
