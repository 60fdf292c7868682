//! What vsctl changed, by resource. In `state.json` each kind has a table of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use api::{
    BridgeName, BridgeSpec, ForwardKey, ForwardSpec, Kind, PortName, PortSpec, Resource, ResourceKey, UplinkSpec, VxlanSpec,
};

/// A change that vsctl made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was added, or is to be like this.
    Set(Box<Resource>),
    /// It was in the file and was deleted.
    Deleted,
}

/// The changes, by what they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(pub BTreeMap<ResourceKey, Change>);

impl Changes {
    /// Notes that a resource is to be like this.
    pub fn set(&mut self, resource: impl Into<Resource>) {
        let resource = resource.into();
        self.0.insert(resource.key(), Change::Set(Box::new(resource)));
    }
}

/// A change as it is written, of one kind.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Written<T> {
    Set(T),
    Deleted,
}

/// The changes as they are written.
#[derive(Clone, Default)]
pub(super) struct Tables {
    pub(super) bridges: BTreeMap<BridgeName, Written<BridgeSpec>>,
    pub(super) ports: BTreeMap<PortName, Written<PortSpec>>,
    pub(super) uplinks: BTreeMap<PortName, Written<UplinkSpec>>,
    pub(super) forwards: BTreeMap<ForwardKey, Written<ForwardSpec>>,
    pub(super) vxlans: BTreeMap<PortName, Written<VxlanSpec>>,
}

impl From<Tables> for Changes {
    fn from(tables: Tables) -> Self {
        fn of<T: Kind>(table: BTreeMap<T::Key, Written<T>>) -> impl Iterator<Item = (ResourceKey, Change)> {
            table.into_iter().map(|(key, written)| match written {
                Written::Set(spec) => (T::key_of(key), Change::Set(Box::new(spec.into()))),
                Written::Deleted => (T::key_of(key), Change::Deleted),
            })
        }
        let Tables { bridges, ports, uplinks, forwards, vxlans } = tables;
        Self(of(bridges).chain(of(ports)).chain(of(uplinks)).chain(of(forwards)).chain(of(vxlans)).collect())
    }
}

impl From<&Changes> for Tables {
    fn from(changes: &Changes) -> Self {
        let mut tables = Self::default();
        let Self { bridges, ports, uplinks, forwards, vxlans } = &mut tables;
        for (key, change) in &changes.0 {
            match key {
                ResourceKey::Bridge(key) => drop(bridges.insert(key.clone(), change.written())),
                ResourceKey::Port(key) => drop(ports.insert(key.clone(), change.written())),
                ResourceKey::Uplink(key) => drop(uplinks.insert(key.clone(), change.written())),
                ResourceKey::Forward(key) => drop(forwards.insert(key.clone(), change.written())),
                ResourceKey::Vxlan(key) => drop(vxlans.insert(key.clone(), change.written())),
            }
        }
        tables
    }
}

impl Change {
    /// As it is written in the table of its kind.
    fn written<T: Kind>(&self) -> Written<T> {
        match self {
            Self::Set(resource) => T::of(resource).cloned().map_or(Written::Deleted, Written::Set),
            Self::Deleted => Written::Deleted,
        }
    }
}
