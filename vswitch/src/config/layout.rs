//! Every resource of a switch with who asked for it: as it runs, or as it should be. Pure data, compared by the control side's planner.

use std::collections::BTreeMap;

use api::{
    BridgeSpec, ForwardSpec, Kind, Network, Origin, Part, PortName, PortSpec, Resource, ResourceKey, UplinkSpec, VxlanSpec,
};

/// Resources by what they are called, in the order in which they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout(BTreeMap<ResourceKey, (Resource, Origin)>);

impl FromIterator<(Resource, Origin)> for Layout {
    fn from_iter<I: IntoIterator<Item = (Resource, Origin)>>(resources: I) -> Self {
        Self(resources.into_iter().map(|(resource, origin)| (resource.key(), (resource, origin))).collect())
    }
}

impl Layout {
    /// Each resource, in the order in which they are made.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&ResourceKey, &Resource, Origin)> {
        self.0.iter().map(|(key, (resource, origin))| (key, resource, *origin))
    }

    /// The resources of one kind.
    pub fn all<'a, T: Kind + 'a>(&'a self) -> impl Iterator<Item = &'a T> {
        self.0.values().filter_map(|(resource, _)| T::of(resource))
    }

    /// What is called this.
    pub fn get(&self, key: &ResourceKey) -> Option<(&Resource, Origin)> {
        self.0.get(key).map(|(resource, origin)| (resource, *origin))
    }

    /// What is called this, of one kind.
    pub fn find<T: Kind>(&self, key: &T::Key) -> Option<(&T, Origin)> {
        let (resource, origin) = self.get(&T::key_of(key.clone()))?;
        Some((T::of(resource)?, origin))
    }

    /// Whether something is called this.
    pub fn has(&self, key: &ResourceKey) -> bool {
        self.0.contains_key(key)
    }

    /// Whether a port, tunnel or uplink has this name, of which only one may.
    pub fn has_port(&self, name: &PortName) -> bool {
        [ResourceKey::Port, ResourceKey::Vxlan, ResourceKey::Uplink].iter().any(|key| self.has(&key(name.clone())))
    }

    /// Puts a resource in the place of one that is called the same.
    pub fn insert(&mut self, resource: impl Into<Resource>, origin: Origin) {
        let resource = resource.into();
        self.0.insert(resource.key(), (resource, origin));
    }

    /// Adds a resource unless one is called the same.
    pub fn insert_new(&mut self, resource: impl Into<Resource>, origin: Origin) {
        let resource = resource.into();
        self.0.entry(resource.key()).or_insert((resource, origin));
    }

    /// Takes a resource out, if it is there.
    pub fn remove(&mut self, key: &ResourceKey) {
        self.0.remove(key);
    }

    /// Keeps the resources for which this holds.
    pub fn retain(&mut self, keeps: impl Fn(&Resource, Origin) -> bool) {
        self.0.retain(|_, (resource, origin)| keeps(resource, *origin));
    }

    /// What must hold between all of it.
    pub fn network(&self) -> Network<'_> {
        Network {
            bridges: self.all::<BridgeSpec>().collect(),
            ports: self.all::<PortSpec>().collect(),
            uplinks: self.all::<UplinkSpec>().collect(),
            forwards: self.all::<ForwardSpec>().collect(),
        }
    }

    /// The resources of a kind that do not fit the rest, with who asked for them and why they do not. What the file has was checked when it was read.
    pub(super) fn misfits(&self, part: Part) -> Vec<(ResourceKey, Origin, String)> {
        let network = self.network();
        let added = self.0.iter().filter(|(key, (_, origin))| key.part() == part && *origin != Origin::File);
        added
            .filter_map(|(key, (resource, origin))| Some((key.clone(), *origin, self.check(&network, resource).err()?)))
            .collect()
    }

    fn check(&self, network: &Network<'_>, resource: &Resource) -> Result<(), String> {
        if let Some(bridge) = resource.bridge().filter(|bridge| !self.has(&ResourceKey::Bridge((*bridge).clone()))) {
            return Err(format!("its bridge \"{bridge}\" is no more there"));
        }
        let fits = match resource {
            Resource::Uplink(spec) => network.check_uplink(spec),
            Resource::Bridge(spec) => network.check_bridge(spec),
            Resource::Port(spec) if self.has(&ResourceKey::Vxlan(spec.name.clone())) => {
                return Err("a tunnel has its name".to_owned());
            }
            Resource::Port(spec) => network.check_port(spec),
            Resource::Vxlan(spec) => return self.check_vxlan(spec),
            Resource::Forward(spec) => network.check_forward(spec),
        };
        fits.map_err(|error| error.to_string())
    }

    fn check_vxlan(&self, spec: &VxlanSpec) -> Result<(), String> {
        let in_file = self.0.values().filter(|(_, origin)| *origin == Origin::File);
        let other = in_file.filter_map(|(resource, _)| VxlanSpec::of(resource)).find(|other| other.collides_with(spec));
        if let Some(other) = other.filter(|other| other.name != spec.name) {
            return Err(format!("vxlan \"{}\" of switch.toml has its VNI", other.name));
        }
        for (key, whose) in
            [(ResourceKey::Port(spec.name.clone()), "a port"), (ResourceKey::Uplink(spec.name.clone()), "an uplink")]
        {
            if self.has(&key) {
                return Err(format!("{whose} has its name"));
            }
        }
        Ok(())
    }
}
