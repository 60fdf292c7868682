//! What must hold between the entries of a file, each of which is sound for itself. Every fault is noted at the key that is wrong.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Entries, Entry, Reader, nearest};
use crate::config::Problem;
use crate::docker::DockerSettings;
use crate::flannel::FlannelSettings;
use crate::overlay::{ClusterSettings, NO_BLOCKS};
use api::{
    BridgeName, BridgeSpec, ForwardSpec, Netns, Network, NetworkError, NetworkWarning, PortName, PortSpec, UplinkSpec,
    VxlanSpec,
};

/// What the bridge is that [flannel] names.
const OF_FLANNEL: &str = "the bridge of [flannel], which gets its subnet there";

impl Reader<'_> {
    pub(super) fn check_docker(&mut self, docker: &Entry<DockerSettings>, uplinks: &[Entry<UplinkSpec>]) {
        let missing = |name: &&PortName| uplinks.iter().all(|uplink| uplink.spec.name != **name);
        if let Some(name) = docker.spec.uplink.as_ref().filter(missing) {
            let sentence = format!(
                "`uplink` of [docker] is \"{name}\", which the file does not have: add an [[uplink]] with that name, or leave it out"
            );
            self.problem(docker.place("uplink"), sentence);
        }
    }

    /// The bridge that gets its subnet from flannel's network has none of its own.
    pub(super) fn check_flannel(
        &mut self,
        flannel: &Entry<FlannelSettings>,
        bridges: &Entries<BridgeSpec>,
        uplinks: &Entries<UplinkSpec>,
    ) {
        let FlannelSettings { bridge, uplink, .. } = &flannel.spec;
        let missing = |name: &&PortName| uplinks.complete && uplinks.list.iter().all(|entry| entry.spec.name != **name);
        if let Some(name) = uplink.as_ref().filter(missing) {
            let sentence =
                format!("`uplink` of [flannel] is \"{name}\", which the file does not have: add an [[uplink]] with that name");
            self.problem(flannel.place("uplink"), sentence);
        }
        let Some(entry) = bridges.list.iter().find(|entry| entry.spec.name == *bridge) else {
            if bridges.complete {
                let sentence = format!(
                    "`bridge` of [flannel] is \"{bridge}\", which the file does not have: add a [[bridge]] with that name"
                );
                self.problem(flannel.place("bridge"), sentence);
            }
            return;
        };
        if entry.spec.overlay.is_some() {
            self.problem(
                entry.place("overlay"),
                format!("bridge \"{bridge}\" is {OF_FLANNEL}: remove `overlay`, or use another bridge"),
            );
        }
    }

    /// Takes out what the bridge of [flannel] may not have, and says so: without a subnet, another sentence would advise to give it one.
    pub(super) fn take_flannels(&mut self, root: &mut DeTable<'_>) {
        let Some(DeValue::Table(flannel)) = root.get("flannel").map(Spanned::get_ref) else { return };
        let Some(DeValue::String(bridge)) = flannel.get("bridge").map(Spanned::get_ref) else { return };
        let bridge = bridge.to_string();
        let Some(DeValue::Array(bridges)) = root.get_mut("bridge").map(Spanned::get_mut) else { return };
        let is_it = |table: &DeTable<'_>| matches!(table.get("name").map(Spanned::get_ref), Some(DeValue::String(name)) if *name == bridge);
        for entry in bridges.iter_mut() {
            let DeValue::Table(table) = entry.get_mut() else { continue };
            if !is_it(table) {
                continue;
            }
            for (key, advice) in [
                ("addresses", "remove `addresses`, and write `dhcp` and `uplink` in [flannel]"),
                ("dhcp", "write `dhcp` in [flannel]"),
                ("uplink", "write `uplink` in [flannel]"),
                ("routes", "remove `routes`: those of the other hosts come with it"),
            ] {
                let is_said = match table.get(key).map(Spanned::get_ref) {
                    Some(DeValue::Array(list)) => !list.is_empty(),
                    value => !matches!(value, None | Some(DeValue::Boolean(false))),
                };
                if let Some((key, _)) = table.remove_entry(key).filter(|_| is_said) {
                    self.problem(key.span(), format!("bridge \"{bridge}\" is {OF_FLANNEL}: {advice}"));
                }
            }
        }
    }

    /// A file without [cluster] has no overlays.
    pub(super) fn check_overlays(&mut self, bridges: &[Entry<BridgeSpec>]) {
        for entry in bridges {
            let Some(overlay) = &entry.spec.overlay else { continue };
            let sentence = format!(
                "bridge \"{}\" has overlay \"{overlay}\", and the file has no [cluster]: add one with `store`, `endpoints` and `underlay`",
                entry.spec.name
            );
            self.problem(entry.place("overlay"), sentence);
        }
    }

    /// Addresses of an overlay network are given only where hosts share them out.
    pub(super) fn check_given(&mut self, cluster: &ClusterSettings, bridges: &[Entry<BridgeSpec>]) {
        for entry in bridges.iter().filter(|entry| entry.spec.dhcp && !cluster.shares_addresses()) {
            let Some(overlay) = &entry.spec.overlay else { continue };
            let sentence = format!("bridge \"{}\" has overlay \"{overlay}\" and `dhcp`, {NO_BLOCKS}", entry.spec.name);
            self.problem(entry.place("dhcp"), sentence);
        }
    }

    pub(super) fn check_names<T>(&mut self, (what, key): (&str, &str), entries: &[Entry<T>], name: impl Fn(&T) -> String) {
        let mut seen = HashMap::new();
        for entry in entries {
            let name = name(&entry.spec);
            let place = entry.place(key);
            if let Some(first) = seen.insert(name.clone(), place.clone()) {
                let line = self.line(first);
                self.problem(place, format!("{what} \"{name}\" is in line {line} already"));
            }
        }
    }

    /// Checks each entry against those before it, so that of two that cannot be together the later is named.
    pub(super) fn check_network(
        &mut self,
        uplinks: &Entries<UplinkSpec>,
        bridges: &Entries<BridgeSpec>,
        ports: &[Entry<PortSpec>],
        forwards: &[Entry<ForwardSpec>],
    ) {
        let mut network = Network::default();
        let complete = uplinks.complete && bridges.complete;
        for entry in &uplinks.list {
            self.note(entry, network.check_uplink(&entry.spec), complete);
            network.uplinks.push(&entry.spec);
        }
        for entry in &bridges.list {
            self.note(entry, network.check_bridge(&entry.spec), complete);
            network.bridges.push(&entry.spec);
        }
        let mut too_long = HashSet::new();
        for entry in ports {
            match network.check_port(&entry.spec) {
                // The value that is wrong is the bridge's, and it is wrong once.
                Err(error @ NetworkError::MtuOfTap(..)) => {
                    let is_first = too_long.insert(&entry.spec.bridge);
                    let bridge = bridges.list.iter().find(|bridge| is_first && bridge.spec.name == entry.spec.bridge);
                    bridge.into_iter().for_each(|bridge| self.note(bridge, Err(error.clone()), complete));
                }
                checked => self.note(entry, checked, complete),
            }
            network.ports.push(&entry.spec);
        }
        for entry in forwards {
            self.note(entry, network.check_forward(&entry.spec), complete);
            network.forwards.push(&entry.spec);
        }
    }

    /// What is most likely a mistake: of ports, in the order of the file, and of [cluster].
    pub(super) fn warnings(
        &self,
        bridges: &[Entry<BridgeSpec>],
        ports: &[Entry<PortSpec>],
        cluster: Option<&Entry<ClusterSettings>>,
    ) -> Vec<Problem> {
        let network = Network {
            bridges: bridges.iter().map(|entry| &entry.spec).collect(),
            ports: ports.iter().map(|entry| &entry.spec).collect(),
            ..Network::default()
        };
        let places: HashMap<_, _> = ports.iter().map(|entry| (&entry.spec.name, entry)).collect();
        let warning = |warning: &NetworkWarning| {
            let place = places.get(warning.port())?.place(warning.key());
            Some(Problem::at(self.path, self.text, place.start, format!("warning: {warning}")))
        };
        let of_cluster = cluster.and_then(|cluster| {
            let (key, sentence) = cluster.spec.warning()?;
            Some(Problem::at(self.path, self.text, cluster.place(key).start, format!("warning: {sentence}")))
        });
        network.warnings(|port| port.mac).iter().filter_map(warning).chain(of_cluster).collect()
    }

    /// Notes what a check found. Where not all of the file could be read, something that seems to be missing is not noted: it may be there.
    pub(super) fn note<T>(&mut self, entry: &Entry<T>, checked: Result<(), NetworkError>, complete: bool) {
        if let Err(error) = checked
            && (complete || !error.is_of_absence())
        {
            let key = error.key();
            // An uplink has `address` where a bridge has `addresses`.
            let key = if key == "addresses" && !entry.keys.contains_key(key) { "address" } else { key };
            self.problem(entry.place(key), error.to_string());
        }
    }

    pub(super) fn check_places(&mut self, ports: &[Entry<PortSpec>]) {
        let (mut names, mut places) = (HashMap::new(), HashMap::new());
        for entry in ports {
            let spec = &entry.spec;
            if let Some(first) = names.insert(&spec.name, entry) {
                let line = self.line(first.place("name"));
                self.problem(entry.place("name"), format!("port \"{}\" is in line {line} already", spec.name));
            } else if let Some(first) = places.insert((spec.netns.as_ref().map(Netns::path), &spec.ifname), entry) {
                let key = if entry.keys.contains_key("ifname") { "ifname" } else { "name" };
                let sentence = format!(
                    "port \"{}\" wants interface \"{}\", which is that of port \"{}\": give it another `ifname` or `netns`",
                    spec.name, spec.ifname, first.spec.name
                );
                self.problem(entry.place(key), sentence);
            }
        }
    }

    /// A tunnel shares the names of ports and uplinks; and no two hear the same frames.
    pub(super) fn check_tunnels(
        &mut self,
        ports: &[Entry<PortSpec>],
        uplinks: &[Entry<UplinkSpec>],
        vxlans: &[Entry<VxlanSpec>],
    ) {
        let ports = ports.iter().map(|entry| (&entry.spec.name, entry.place("name")));
        let uplinks = uplinks.iter().map(|entry| (&entry.spec.name, entry.place("name")));
        let mut names: HashMap<_, _> = ports.chain(uplinks).collect();
        for (index, entry) in vxlans.iter().enumerate() {
            let spec = &entry.spec;
            if let Some(first) = names.insert(&spec.name, entry.place("name")) {
                let line = self.line(first);
                self.problem(entry.place("name"), format!("the name \"{}\" is in line {line} already", spec.name));
            } else if let Some(first) = vxlans[..index].iter().find(|first| first.spec.collides_with(spec)) {
                let sentence = format!(
                    "vxlan \"{}\" has VNI {} on UDP port {}, as vxlan \"{}\" has: give it another `vni` or `port`",
                    spec.name, spec.vni, spec.port, first.spec.name
                );
                self.problem(entry.place("vni"), sentence);
            }
        }
    }

    pub(super) fn check_members<T>(
        &mut self,
        what: &str,
        bridges: &[Entry<BridgeSpec>],
        members: &[Entry<T>],
        names: impl Fn(&T) -> (&PortName, &BridgeName),
    ) {
        let known: Vec<&str> = bridges.iter().map(|entry| entry.spec.name.as_str()).collect();
        for entry in members {
            let (name, bridge) = names(&entry.spec);
            if known.contains(&bridge.as_str()) {
                continue;
            }
            let hint = match nearest(bridge.as_str(), known.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("add a [[bridge]] with name = \"{bridge}\""),
            };
            let sentence = format!("{what} \"{name}\" is on bridge \"{bridge}\", which the file does not have: {hint}");
            self.problem(entry.place("bridge"), sentence);
        }
    }

    pub(super) fn line(&self, span: Range<usize>) -> usize {
        self.text.get(..span.start).unwrap_or_default().matches('\n').count() + 1
    }
}
