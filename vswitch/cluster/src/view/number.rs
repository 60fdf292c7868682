//! The numbers of networks. With a store each is taken, beginning with the hash of the network's name; hosts that only tell each other have nothing but
//! that hash.

use std::collections::BTreeSet;

use super::segment::Segment;
use super::{Refusal, View, hash};
use crate::record::{Key, Name, Network};
use crate::store::Step;

impl View {
    /// A network and its VNI, taken together. The VNI is the one that it had, or else begins with the hash of its name.
    pub(super) fn new_network(&self, name: &Name, segment: &Segment) -> Option<Vec<Step>> {
        let first = first_vni(name);
        let is_free = |vni: &u32| !self.cluster.vnis.contains(vni);
        let vni = if self.is_apart {
            first
        } else {
            let mut others = (0..VNIS).map(|step| FIRST_VNI + (first - FIRST_VNI + step) % VNIS);
            segment.vni.filter(is_free).or_else(|| others.find(is_free))?
        };
        let (wish, gateways) = (&segment.wish, segment.addresses.gateways.clone());
        let network = Network { vni, subnets: wish.subnets.clone(), gateways, encrypt: wish.encrypt };
        Some(vec![
            Step::Create { key: Key::Network(name.clone()).to_string(), value: network.written() },
            Step::Create { key: Key::Vni(vni).to_string(), value: name.to_string() },
        ])
    }

    /// Of networks whose names come to one number, the first in the order of names has it.
    pub(super) fn refuse_clashes(&mut self) {
        let known: BTreeSet<Name> = self.cluster.networks.keys().chain(self.segments.keys()).cloned().collect();
        for (name, segment) in &mut self.segments {
            let vni = first_vni(name);
            if let Some(other) = known.range(..name.clone()).find(|other| first_vni(other) == vni) {
                segment.refusal = Some(Refusal::Clash { network: name.clone(), other: other.clone(), vni });
            }
        }
    }
}

/// The number that a network asks for first.
pub(super) fn first_vni(network: &Name) -> u32 {
    FIRST_VNI + hash(network.as_str()) % VNIS
}

/// The VNIs of networks: those below are left to tunnels that are configured by hand, as Docker and Kubernetes do.
const FIRST_VNI: u32 = 4096;
const VNIS: u32 = (1 << 24) - FIRST_VNI;
