//! A planned end: what goes, and what stays for the next start because programs would be cut off without it.

use std::collections::BTreeMap;

use super::plan::Step;
use super::vxlan::TunnelPort;
use super::{Port, Switch};
use crate::attach;
use api::{Ending, MadeKind, MadeThing, Netns, PortKind, PortName, ResourceKey};

impl Switch {
    /// Removes every device and namespace that this switch made, but for those of `Self::staying`, which find the next vswitchd at
    /// their other end. What vsctl changed and containers' runtimes asked for is kept for the next start.
    pub fn shut_down(mut self, keep: bool) -> Ending {
        // Other hosts stop sending here before the ports are gone.
        self.overlay.end(!keep);
        self.flannel.end();
        self.plane.captures.stop_all(&self.plane.workers);
        self.write_image();
        let staying = self.staying(keep);
        self.hand_over(&staying);
        let devices: Vec<PortName> = self
            .inventory
            .all::<Port>()
            .filter(|port| port.spec.kind != PortKind::Link)
            .map(|port| port.spec.name.clone())
            .collect();
        let netns = self.ledger.state.made.netns.clone();
        // Devices that stay forward until the workers end.
        let going: Vec<ResourceKey> = self
            .inventory
            .names::<Port>()
            .filter(|name| !staying.contains_key(*name))
            .cloned()
            .map(ResourceKey::Port)
            .collect();
        let tunnels: Vec<ResourceKey> = self.inventory.names::<TunnelPort>().cloned().map(ResourceKey::Vxlan).collect();
        for key in going.into_iter().chain(tunnels) {
            if let Err(error) = self.perform(Step::Delete(key)) {
                tracing::warn!("{error}");
            }
        }
        // An uplink made nothing; its threads end with it.
        self.inventory.clear_uplinks();
        if let Err(error) = self.ledger.save() {
            tracing::warn!("{error}");
        }
        let devices = devices.into_iter().map(|name| {
            let (left, why) = (self.inventory.has::<Port>(&name), staying.get(&name).cloned());
            (left, MadeThing { what: MadeKind::Port, name: name.to_string(), why })
        });
        let netns = netns.into_iter().map(|name| {
            let why = self.inventory.all::<Port>().find(|port| port.spec.netns == Some(Netns::Name(name.clone())));
            let why = why.and_then(|port| staying.get(&port.spec.name)).cloned();
            (self.ledger.state.made.netns.contains(&name), MadeThing { what: MadeKind::Netns, name, why })
        });
        let (left, removed): (Vec<_>, Vec<_>) = devices.chain(netns).partition(|(left, _)| *left);
        let things = |things: Vec<(bool, MadeThing)>| things.into_iter().map(|(_, thing)| thing).collect();
        let ending = Ending { pid: std::process::id(), removed: things(removed), left: things(left) };
        ending.left.iter().for_each(|thing| tracing::info!("left for the next start: {thing}"));
        ending
    }

    /// The ports whose devices stay, with the reason: those in namespaces in which programs run, which would be without a network for
    /// good, and those in containers; or all.
    fn staying(&self, all: bool) -> BTreeMap<PortName, String> {
        let places: Vec<Netns> = self.inventory.all::<Port>().filter_map(|port| port.spec.netns.clone()).collect();
        let programs = attach::programs_in(&places).map(|found| places.into_iter().zip(found).collect::<BTreeMap<_, _>>());
        let why = |port: &Port| match (&programs, &port.spec.netns) {
            _ if all => Some("as asked for".to_owned()),
            _ if port.spec.kind == PortKind::Link => None,
            _ if port.is_of_container() => Some("a container has it".to_owned()),
            (_, None) => None,
            (Ok(programs), Some(netns)) => programs.get(netns)?.as_ref().map(|who| format!("{who} in its namespace")),
            (Err(error), Some(_)) => Some(format!("it cannot be seen whether programs run in its namespace: {}", error.0)),
        };
        self.inventory.named::<Port>().filter_map(|(name, port)| Some((name.clone(), why(port)?))).collect()
    }
}
