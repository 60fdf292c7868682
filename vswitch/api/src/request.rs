//! What vswitchd can be asked to do or to tell. `vsctl`, the container plugins and other clients of the control socket make requests,
//! and the control side carries them out.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;
use packet::Mac;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::read::{Raw, Read};
use super::{
    BridgeName, BridgeSpec, ClusterQuestion, ContainerKey, ContainerNetwork, ContainerSpec, ForwardKey, ForwardSpec,
    NetworkName, Patch, PortName, PortSpec, RouteSpec, Runtime, TraceRequest, UplinkSpec, VxlanChange, VxlanSpec,
};

/// One change to the running switch, or one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Makes a bridge.
    AddBridge(BridgeSpec),
    /// Changes a bridge.
    SetBridge(BridgeName, Patch),
    /// Removes a bridge, which must have no ports.
    DeleteBridge(BridgeName),
    /// Lists the bridges.
    ListBridges,
    /// Makes and attaches a port.
    AddPort(PortSpec),
    /// Changes a port.
    SetPort(PortName, Patch),
    /// Detaches a port and removes the device if the switch made it.
    DeletePort(PortName),
    /// Makes an uplink.
    AddUplink(UplinkSpec),
    /// Changes an uplink.
    SetUplink(PortName, Patch),
    /// Removes an uplink, which no bridge may use.
    DeleteUplink(PortName),
    /// Lists the uplinks.
    ListUplinks,
    /// Publishes a port.
    AddForward(ForwardSpec),
    /// Publishes a port no more.
    DeleteForward(ForwardKey),
    /// Lists the forwards.
    ListForwards,
    /// Sessions, of one uplink or of all.
    Sessions(Option<PortName>),
    /// The neighbours of a bridge's gateway or of an uplink; of all, if none is named.
    Neighbors(Option<PortName>),
    /// The addresses that gateways have given out, on one bridge or on all.
    Leases(Option<BridgeName>),
    /// Adds a static route to a bridge's gateway.
    AddRoute(BridgeName, RouteSpec),
    /// Removes the static route to a destination.
    DeleteRoute(BridgeName, IpNet),
    /// Lists routes, those of one bridge's stations or of all.
    ListRoutes(Option<BridgeName>),
    /// Lists ports, of one bridge or of all.
    ListPorts(Option<BridgeName>),
    /// Makes a VXLAN tunnel.
    AddVxlan(VxlanSpec),
    /// Changes a tunnel.
    SetVxlan(PortName, VxlanChange),
    /// Removes a tunnel.
    DeleteVxlan(PortName),
    /// Lists the tunnels, of one bridge or of all.
    ListVxlans(Option<BridgeName>),
    /// How spanning trees stand, that of one bridge or of all.
    Stp(Option<BridgeName>),
    /// What the cluster of overlay networks is, as this host knows it.
    Cluster(ClusterQuestion),
    /// The network of flannel's, as this host knows it.
    Flannel,
    /// The whole switch.
    Show,
    /// One bridge, with what is on it.
    ShowBridge(BridgeName),
    /// MAC addresses: a bridge's, or those that a filter takes.
    Fdb(FdbFilter),
    /// Forgets MAC addresses that were learned.
    FlushFdb(FdbFilter),
    /// Counters of ports: `null` or an empty list for all, a name, or a list of names.
    Stats(#[serde(deserialize_with = "read_names")] Vec<PortName>),
    /// Counters, and how full the tables are, without asking the workers.
    Live,
    /// What happened lately, and is remembered.
    Events,
    /// Counters of the ports of a container of Docker's, by its name.
    ContainerStats(String),
    /// Gives a container an interface, instead of what it had under that key.
    AttachContainer(Box<ContainerSpec>),
    /// Takes it away again; one that is gone is fine.
    DetachContainer(ContainerKey),
    /// Says how a container's interface is, if it is as it was made.
    CheckContainer(ContainerKey),
    /// Whether a network of a runtime's could be; makes nothing.
    CheckNetwork(Runtime, Box<ContainerNetwork>),
    /// Takes away the interfaces that a runtime has on a network, by the name that it has there, but for these.
    KeepContainers(Runtime, NetworkName, BTreeSet<ContainerKey>),
    /// What would become of a frame; changes nothing.
    Trace(TraceRequest),
    /// Ends a capture, by its number; what it took so far still reaches its reader.
    StopCapture(u64),
    /// Reads the file again and applies the difference.
    Reload,
    /// The running switch as a `switch.toml`.
    Export,
    /// Lists what vsctl changed, so that the switch differs from the file.
    Changes {
        /// Forgets what is left out for not fitting the file any more, and lists only that.
        #[serde(default)]
        forget: bool,
    },
    /// Sets how much is logged until the next start.
    SetLog(LogLevel),
    /// Has the vswitchd of this file take over from the one that runs, which carries it out only for root and its own user.
    Upgrade(PathBuf),
    /// Ends vswitchd as SIGTERM does.
    Shutdown {
        /// Leaves every device and namespace for the next start, not only those that programs use.
        #[serde(default)]
        keep: bool,
    },
}

impl Request {
    /// What it changes, as the log has it; `None` of a question.
    pub fn change(&self) -> Option<String> {
        Some(match self {
            Self::AddBridge(spec) => format!("add-br {}", spec.name),
            Self::DeleteBridge(name) => format!("del-br {name}"),
            Self::AddPort(spec) => format!("add-port {} {}", spec.bridge, spec.name),
            Self::SetPort(name, _) => format!("set-port {name}"),
            Self::DeletePort(name) => format!("del-port {name}"),
            Self::AddUplink(spec) => format!("add-uplink {}", spec.name),
            Self::DeleteUplink(name) => format!("del-uplink {name}"),
            Self::AddForward(spec) => format!("add-forward {} {}", spec.key, spec.to),
            Self::DeleteForward(key) => format!("del-forward {key}"),
            Self::AddVxlan(spec) => format!("add-vxlan {} {}", spec.bridge, spec.name),
            Self::SetVxlan(name, _) => format!("set-vxlan {name}"),
            Self::DeleteVxlan(name) => format!("del-vxlan {name}"),
            Self::FlushFdb(filter) => format!("fdb{filter} --flush"),
            Self::SetBridge(name, _) => format!("set-br {name}"),
            Self::SetUplink(name, _) => format!("set-uplink {name}"),
            Self::AddRoute(bridge, route) => format!("add-route {bridge} {route}"),
            Self::DeleteRoute(bridge, to) => format!("del-route {bridge} {to}"),
            Self::AttachContainer(spec) => format!("attach container {}", spec.key),
            Self::DetachContainer(key) => format!("detach container {key}"),
            Self::KeepContainers(runtime, network, kept) => {
                format!("keep {} containers of {runtime} on network {network}", kept.len())
            }
            Self::Reload => "reload".to_owned(),
            Self::Changes { forget: true } => "changes --forget".to_owned(),
            Self::SetLog(level) => format!("log {level}"),
            Self::Upgrade(program) => format!("upgrade {}", program.display()),
            Self::Shutdown { keep } => format!("shutdown{}", if *keep { " --keep" } else { "" }),
            Self::ListBridges
            | Self::ListUplinks
            | Self::ListForwards
            | Self::Sessions(_)
            | Self::Neighbors(_)
            | Self::Leases(_)
            | Self::ListRoutes(_)
            | Self::ShowBridge(_)
            | Self::ListPorts(_)
            | Self::ListVxlans(_)
            | Self::Stp(_)
            | Self::Cluster(_)
            | Self::Flannel
            | Self::Show
            | Self::Fdb(_)
            | Self::Stats(_)
            | Self::Live
            | Self::Events
            | Self::ContainerStats(_)
            | Self::CheckContainer(_)
            | Self::CheckNetwork(..)
            | Self::Trace(_)
            | Self::StopCapture(_)
            | Self::Changes { forget: false }
            | Self::Export => return None,
        })
    }
}

/// How much is logged: each level with those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What cannot go on.
    Error,
    /// What the user should know.
    Warn,
    /// What is changed, and by whom.
    Info,
    /// What is asked, and what comes of it.
    Debug,
    /// Everything.
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// Which MAC addresses; what is `None` excludes none. A bridge's name alone stands for all of that bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "FdbFilterForm")]
pub struct FdbFilter {
    /// On this bridge.
    pub bridge: Option<BridgeName>,
    /// At this port, or behind this tunnel.
    pub port: Option<PortName>,
    /// This one.
    pub mac: Option<Mac>,
}

/// As the options of `vsctl fdb`, each with a space before it.
impl fmt::Display for FdbFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bridge.iter().try_for_each(|bridge| write!(f, " {bridge}"))?;
        self.port.iter().try_for_each(|port| write!(f, " --port {port}"))?;
        self.mac.iter().try_for_each(|mac| write!(f, " --mac {mac}"))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FdbFilterForm {
    Bridge(BridgeName),
    Filter {
        #[serde(default)]
        bridge: Option<BridgeName>,
        #[serde(default)]
        port: Option<PortName>,
        #[serde(default)]
        mac: Option<Mac>,
    },
}

impl From<FdbFilterForm> for FdbFilter {
    fn from(form: FdbFilterForm) -> Self {
        match form {
            FdbFilterForm::Bridge(bridge) => Self { bridge: Some(bridge), ..Self::default() },
            FdbFilterForm::Filter { bridge, port, mac } => Self { bridge, port, mac },
        }
    }
}

fn read_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PortName>, D::Error> {
    let names = match Raw::deserialize(deserializer)? {
        Raw::Nothing => Ok(Vec::new()),
        raw @ Raw::Text(_) => PortName::read(raw).map(|name| vec![name]),
        raw => Read::read(raw),
    };
    names.map_err(de::Error::custom)
}
