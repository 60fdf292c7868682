//! Who may say what a switch should be, as a list in the order of precedence. A further one is one more [`Source`] in
//! [`merged`].

use super::{Change, Changes, Config, Layout, State};
use crate::containers::Containers;
use crate::docker::{Docker, DockerSettings};
use crate::flannel::{FlannelSettings, FlannelTables};
use crate::overlay::{ClusterSettings, Elsewhere};
use api::{BridgeName, BridgeSpec, Kind, Origin, PortName, Resource};

/// A source of resources.
pub(super) trait Source {
    /// The word for it.
    fn origin(&self) -> Origin;

    /// What it asks for, where those before it came to `before`.
    fn resources(&self, before: &Layout) -> Vec<Resource>;
}

/// What all sources come to: the first wins where two name the same resource.
pub(super) fn merged(config: &Config, state: &State, heard: FromHosts<'_>) -> Layout {
    let docker = AskedByDocker { settings: &config.docker, docker: &state.docker };
    let containers = AskedByContainers { uplink: config.docker.uplink.as_ref(), containers: &state.containers };
    let cluster = AskedByCluster { settings: config.cluster.as_ref(), tables: heard.overlay };
    let flannel = AskedByFlannel { settings: config.flannel.as_ref(), tables: heard.flannel };
    let sources: [&dyn Source; 6] = [config, &state.changes, &docker, &containers, &cluster, &flannel];
    let mut layout = Layout::default();
    for source in sources {
        for resource in source.resources(&layout) {
            layout.insert_new(resource, source.origin());
        }
    }
    flannel.give(&mut layout);
    layout
}

/// What is heard of other hosts.
#[derive(Clone, Copy)]
pub struct FromHosts<'a> {
    /// Of overlay networks.
    pub overlay: &'a Elsewhere,
    /// Of flannel's network.
    pub flannel: &'a FlannelTables,
}

/// `switch.toml`.
impl Source for Config {
    fn origin(&self) -> Origin {
        Origin::File
    }

    fn resources(&self, _: &Layout) -> Vec<Resource> {
        fn of<T: Clone + Into<Resource>>(specs: &[T]) -> impl Iterator<Item = Resource> {
            specs.iter().cloned().map(Into::into)
        }
        let Self { uplinks, bridges, vxlans, ports, forwards, .. } = self;
        of(uplinks).chain(of(bridges)).chain(of(vxlans)).chain(of(ports)).chain(of(forwards)).collect()
    }
}

/// What `vsctl` set.
impl Source for Changes {
    fn origin(&self) -> Origin {
        Origin::Runtime
    }

    fn resources(&self, _: &Layout) -> Vec<Resource> {
        let set = |change: &Change| match change {
            Change::Set(resource) => Some((**resource).clone()),
            Change::Deleted => None,
        };
        self.0.values().filter_map(set).collect()
    }
}

/// Docker's networks and containers, if Docker is served.
struct AskedByDocker<'a> {
    settings: &'a DockerSettings,
    docker: &'a Docker,
}

impl Source for AskedByDocker<'_> {
    fn origin(&self) -> Origin {
        Origin::Docker
    }

    fn resources(&self, before: &Layout) -> Vec<Resource> {
        if !self.settings.enabled {
            return Vec::new();
        }
        let (uplinks, bridges) = self.docker.bridges(self.settings);
        let uplink_of = |name: &BridgeName| {
            let own = || bridges.iter().find(|bridge| bridge.name == *name);
            before.find::<BridgeSpec>(name).map(|(bridge, _)| bridge).or_else(own)?.uplink.clone()
        };
        let forwards = self.docker.forwards(uplink_of);
        let bridges = uplinks.into_iter().map(Resource::from).chain(bridges.iter().cloned().map(Resource::from));
        let members = self.docker.ports().map(Resource::from).chain(forwards.into_iter().map(Resource::from));
        bridges.chain(members).collect()
    }
}

/// What plugins of other runtimes asked for.
struct AskedByContainers<'a> {
    uplink: Option<&'a PortName>,
    containers: &'a Containers,
}

impl Source for AskedByContainers<'_> {
    fn origin(&self) -> Origin {
        Origin::Container
    }

    fn resources(&self, _: &Layout) -> Vec<Resource> {
        let (uplink, bridges) = self.containers.bridges(self.uplink);
        let bridges = uplink.into_iter().map(Resource::from).chain(bridges.into_iter().map(Resource::from));
        let members = self.containers.ports().map(Resource::from);
        bridges.chain(members).chain(self.containers.forwards().cloned().map(Resource::from)).collect()
    }
}

/// The tunnels of bridges that are in overlay networks.
struct AskedByCluster<'a> {
    settings: Option<&'a ClusterSettings>,
    tables: &'a Elsewhere,
}

impl Source for AskedByCluster<'_> {
    fn origin(&self) -> Origin {
        Origin::Cluster
    }

    fn resources(&self, before: &Layout) -> Vec<Resource> {
        let Some(settings) = self.settings else { return Vec::new() };
        before.all::<BridgeSpec>().filter_map(|bridge| self.tables.tunnel(settings, bridge)).map(Resource::from).collect()
    }
}

/// The tunnel to the other hosts of flannel's network, and the subnet of the bridge that has one there.
struct AskedByFlannel<'a> {
    settings: Option<&'a FlannelSettings>,
    tables: &'a FlannelTables,
}

impl AskedByFlannel<'_> {
    /// The settings, if the bridge is there and nothing else has this host's subnet.
    fn sound(&self, layout: &Layout) -> Option<&FlannelSettings> {
        let settings = self.settings.filter(|settings| layout.has(&BridgeSpec::key_of(settings.bridge.clone())))?;
        self.tables.is_apart(settings, &layout.network()).then_some(settings)
    }

    /// Gives the bridge its subnet, which source it may be of.
    fn give(&self, layout: &mut Layout) {
        let bridge = self.sound(layout).and_then(|settings| {
            let (bridge, origin) = layout.find::<BridgeSpec>(&settings.bridge)?;
            Some((self.tables.given(settings, bridge), origin))
        });
        if let Some((bridge, origin)) = bridge {
            layout.insert(bridge, origin);
        }
    }
}

impl Source for AskedByFlannel<'_> {
    fn origin(&self) -> Origin {
        Origin::Flannel
    }

    fn resources(&self, before: &Layout) -> Vec<Resource> {
        let tunnel = self.sound(before).and_then(|settings| self.tables.tunnel(settings, &before.network()));
        tunnel.into_iter().map(Resource::from).collect()
    }
}
