//! A [`State`] as it is written, called by [`StateFile`](super::StateFile) through serde.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::changes::{Tables, Written};
use super::state::{Made, State, random};
use crate::containers::Containers;
use crate::docker::Docker;
use api::{BridgeName, BridgeSpec, ForwardKey, ForwardSpec, PortName, PortSpec, UplinkSpec, VxlanSpec};

/// The format that this vswitchd writes. Another number has another meaning; fields that are new need no other.
const FORMAT: u32 = 1;

/// A [`State`] as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document<'a> {
    /// How it is written: `FORMAT`.
    #[serde(default)]
    format: u32,
    #[serde(default = "random")]
    seed: u64,
    bridges: BTreeMap<BridgeName, Written<BridgeSpec>>,
    ports: BTreeMap<PortName, Written<PortSpec>>,
    #[serde(default)]
    uplinks: BTreeMap<PortName, Written<UplinkSpec>>,
    #[serde(default)]
    forwards: BTreeMap<ForwardKey, Written<ForwardSpec>>,
    #[serde(default)]
    vxlans: BTreeMap<PortName, Written<VxlanSpec>>,
    #[serde(default)]
    docker: Cow<'a, Docker>,
    #[serde(default)]
    containers: Cow<'a, Containers>,
    made: Cow<'a, Made>,
}

impl From<Document<'_>> for State {
    fn from(document: Document<'_>) -> Self {
        let Document { format: _, seed, bridges, ports, uplinks, forwards, vxlans, docker, containers, made } = document;
        let changes = Tables { bridges, ports, uplinks, forwards, vxlans }.into();
        let (docker, containers) = (docker.into_owned(), containers.into_owned());
        Self { seed, changes, docker, containers, made: made.into_owned() }
    }
}

impl<'a> From<&'a State> for Document<'a> {
    fn from(state: &'a State) -> Self {
        let State { seed, changes, docker, containers, made } = state;
        let Tables { bridges, ports, uplinks, forwards, vxlans } = changes.into();
        let (docker, containers, made) = (Cow::Borrowed(docker), Cow::Borrowed(containers), Cow::Borrowed(made));
        Self { format: FORMAT, seed: *seed, bridges, ports, uplinks, forwards, vxlans, docker, containers, made }
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Document::from(self).serialize(serializer)
    }
}
