//! What the switch should be: `switch.toml`, and what `vsctl` changed and Docker asked for while it ran.
//!
//! [`load`] reads the file and reports everything that is wrong with it at once, each problem with its line and column.
//! [`StateFile`] keeps the changes of the run time, and which devices were made, so that a start after a crash finds them.
//! [`merge`] puts them together: where two name the same bridge or port, the file wins. [`export`] is the way back.

mod capture;
mod carried;
mod changes;
mod document;
mod file;
mod layout;
mod merge;
mod nat;
mod problem;
mod source;
mod state;
mod syntax;
mod table;

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::docker::DockerSettings;
use crate::flannel::FlannelSettings;
use crate::overlay::ClusterSettings;
use crate::web::WebSettings;
use api::read::{Raw, Read, read};
use api::{BridgeSpec, ForwardSpec, PortSpec, Resource, ResourceKey, UplinkSpec, VxlanSpec};

pub use capture::CaptureSettings;
pub use changes::{Change, Changes};
pub use file::load;
pub(crate) use file::{REQUESTS, own, set_own};
pub use layout::Layout;
pub use merge::{Fate, Note, merge};
pub use nat::{FilteringName, MappingName, NatError, NatSettings};
pub use problem::Problem;
pub use source::FromHosts;
pub use state::{Made, State, StateError, StateFile};

/// Most data-plane threads.
const MOST_WORKERS: usize = 64;

/// What a `switch.toml` says.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `[switch]`.
    pub switch: SwitchSettings,
    /// `[nat]`.
    pub nat: NatSettings,
    /// `[docker]`.
    pub docker: DockerSettings,
    /// `[web]`; `None`: the web view is off.
    pub web: Option<WebSettings>,
    /// `[capture]`.
    pub capture: CaptureSettings,
    /// `[cluster]`; `None`: this host has no part in overlay networks.
    pub cluster: Option<ClusterSettings>,
    /// `[flannel]`; `None`: this host has no part in a network of flannel's.
    pub flannel: Option<FlannelSettings>,
    /// Every `[[uplink]]`, in order; no name twice.
    pub uplinks: Vec<UplinkSpec>,
    /// Every `[[forward]]`, in order; no port twice.
    pub forwards: Vec<ForwardSpec>,
    /// Every `[[bridge]]`, in order; no name twice.
    pub bridges: Vec<BridgeSpec>,
    /// Every `[[port]]`, in order; no name and no device twice, each on a bridge of the file.
    pub ports: Vec<PortSpec>,
    /// Every `[[vxlan]]`, in order; no name twice, also not a port's, each on a bridge of the file.
    pub vxlans: Vec<VxlanSpec>,
    /// What can be, and is most likely a mistake.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Whether the file has a resource that is called this.
    pub fn has(&self, key: &ResourceKey) -> bool {
        match key {
            ResourceKey::Uplink(name) => self.uplinks.iter().any(|spec| spec.name == *name),
            ResourceKey::Bridge(name) => self.bridges.iter().any(|spec| spec.name == *name),
            ResourceKey::Vxlan(name) => self.vxlans.iter().any(|spec| spec.name == *name),
            ResourceKey::Port(name) => self.ports.iter().any(|spec| spec.name == *name),
            ResourceKey::Forward(key) => self.forwards.iter().any(|spec| spec.key == *key),
        }
    }

    /// Whether the file has a resource that is just this.
    pub fn says(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Uplink(spec) => self.uplinks.contains(spec),
            Resource::Bridge(spec) => self.bridges.contains(spec),
            Resource::Vxlan(spec) => self.vxlans.contains(spec),
            Resource::Port(spec) => self.ports.contains(spec),
            Resource::Forward(spec) => self.forwards.contains(spec),
        }
    }
}

/// `[switch]`: what only a start reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct SwitchSettings {
    /// The control socket.
    #[serde(deserialize_with = "read")]
    pub control: PathBuf,
    /// The group that may use it, by name or number; `None`: that of vswitchd.
    #[serde(deserialize_with = "read")]
    pub control_group: Option<String>,
    /// Where [`State`] is kept.
    #[serde(deserialize_with = "read")]
    pub state_dir: PathBuf,
    /// Data-plane threads, 1 to 64.
    #[serde(deserialize_with = "read_workers")]
    pub workers: usize,
}

fn read_workers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let number = i64::read(Raw::deserialize(deserializer)?).map_err(D::Error::custom)?;
    let workers = usize::try_from(number).ok().filter(|workers| (1..=MOST_WORKERS).contains(workers));
    workers.ok_or_else(|| D::Error::custom(format!("is {number}: use 1 to {MOST_WORKERS}")))
}

impl Default for SwitchSettings {
    fn default() -> Self {
        Self {
            control: "/run/vswitch/control.sock".into(),
            control_group: None,
            state_dir: "/var/lib/vswitch".into(),
            workers: 1,
        }
    }
}

impl SwitchSettings {
    /// The first key that differs from `other`'s.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let keys = [
            (self.control != other.control, "control"),
            (self.control_group != other.control_group, "control-group"),
            (self.state_dir != other.state_dir, "state-dir"),
            (self.workers != other.workers, "workers"),
        ];
        keys.into_iter().find_map(|(differs, key)| differs.then_some(key))
    }
}

/// A `switch.toml` that says this.
pub fn export(config: &Config) -> String {
    #[derive(Serialize)]
    struct File<'a> {
        switch: &'a SwitchSettings,
        #[serde(skip_serializing_if = "is_default")]
        nat: &'a NatSettings,
        #[serde(skip_serializing_if = "is_default")]
        docker: &'a DockerSettings,
        #[serde(skip_serializing_if = "Option::is_none")]
        web: &'a Option<WebSettings>,
        #[serde(skip_serializing_if = "is_default")]
        capture: &'a CaptureSettings,
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster: &'a Option<ClusterSettings>,
        #[serde(skip_serializing_if = "Option::is_none")]
        flannel: &'a Option<FlannelSettings>,
        uplink: &'a [UplinkSpec],
        bridge: &'a [BridgeSpec],
        port: &'a [PortSpec],
        vxlan: &'a [VxlanSpec],
        forward: &'a [ForwardSpec],
    }
    fn is_default<T: Default + PartialEq>(table: &&T) -> bool {
        **table == T::default()
    }
    let Config { switch, nat, docker, web, capture, cluster, flannel, uplinks, forwards, bridges, ports, vxlans, warnings: _ } =
        config;
    // Strings, numbers and lists of them have no value that TOML cannot hold; a path that is not UTF-8 cannot come from a file.
    toml::to_string(&File {
        switch,
        nat,
        docker,
        web,
        capture,
        cluster,
        flannel,
        uplink: uplinks,
        bridge: bridges,
        port: ports,
        vxlan: vxlans,
        forward: forwards,
    })
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_reads_back_the_same() {
        let text = "[switch]\nworkers = 2\ncontrol-group = \"switchers\"\n\
            [[bridge]]\nname = \"br0\"\nmtu = 9000\nageing = \"5m\"\ncontrol-frames = \"pass\"\naddresses = [\"10.1.0.1/24\"]\ndhcp = true\n\
            isolated = false\nuplink = \"wan\"\ngateway-vlan = 9\noverlay = \"red\"\n[[bridge]]\nname = \"br1\"\n[nat]\nudp = \"60s\"\n\
            [docker]\nenabled = true\nuplink = \"wan\"\n[web]\nlisten = \"[::1]:9\"\nhosts = [\"switch.lan\"]\n[capture]\nrecorder = \"64MiB\"\n\
            [cluster]\nstore = \"etcd\"\nendpoints = [\"http://192.0.2.9:2379\"]\nnode = \"a\"\nunderlay = \"192.0.2.1\"\nttl = \"5s\"\n\
            [flannel]\nendpoints = [\"http://192.0.2.9:2379\"]\nunderlay = \"192.0.2.1\"\nbridge = \"br1\"\ndhcp = true\n\
            [[uplink]]\nname = \"wan\"\nkind = \"host\"\n\
            [[forward]]\nuplink = \"wan\"\nprotocol = \"tcp\"\nport = \"80-90\"\nto = \"10.1.0.2:80\"\n\
            [[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"a\"\nmac = \"02:00:00:00:00:0a\"\naddresses = [\"10.0.0.1/8\", \"fd00::1/64\"]\n\
            [[port]]\nname = \"b\"\nbridge = \"br1\"\nkind = \"veth\"\ntrunk = [10, 20]\nnative = 1\noffload = false\n\
            [[port]]\nname = \"c\"\nbridge = \"br1\"\nkind = \"link\"\ndevice = \"eth1\"\nvlan = 7\nbroadcast-limit = 100\n\
            [[vxlan]]\nname = \"vx0\"\nbridge = \"br1\"\nvni = 42\nlocal = \"192.0.2.1\"\npeers = [\"192.0.2.2\"]\n\
            static = [{ mac = \"02:00:00:00:00:01\", peer = \"192.0.2.2\", ip = \"10.0.0.9\" }]\n";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("switch.toml");
        std::fs::write(&path, text).unwrap();
        let config = load(&path).unwrap();
        std::fs::write(&path, export(&config)).unwrap();
        let again = load(&path).unwrap();
        assert_eq!((&again.switch, &again.docker, &again.web), (&config.switch, &config.docker, &config.web));
        assert_eq!((&again.capture, again.capture.recorder_of(2)), (&config.capture, Some(32 << 20)));
        assert_eq!(config.web.unwrap().listen.to_string(), "[::1]:9");
        assert!(config.cluster.is_some());
        assert!(config.flannel.is_some());
        assert_eq!((&again.bridges, &again.cluster, &again.flannel), (&config.bridges, &config.cluster, &config.flannel));
        assert_eq!(again.ports, config.ports);
        assert_eq!((&again.uplinks, &again.forwards, &again.nat), (&config.uplinks, &config.forwards, &config.nat));
        assert_eq!((&again.vxlans, config.vxlans.len()), (&config.vxlans, 1));
        assert_eq!((config.bridges.len(), config.ports.len()), (2, 3));
    }

    #[test]
    fn a_restart_is_needed_for_what_only_a_start_reads() {
        let settings = SwitchSettings::default();
        assert_eq!(settings.difference(&settings), None);
        assert_eq!(settings.difference(&SwitchSettings { workers: 2, ..settings.clone() }), Some("workers"));
        assert_eq!(settings.difference(&SwitchSettings { state_dir: "/x".into(), ..settings.clone() }), Some("state-dir"));
    }
}
