//! What the switch answers when it is asked about itself.

use std::collections::{BTreeMap, BTreeSet};

use super::inventory::Vport;
use super::{Bridge, ControlError, Port, Switch, Uplink};
use crate::config::{self, Config};
use api::{
    BridgeInfo, BridgeName, BridgeSpec, DockerPlace, FdbEntry, FdbFilter, ForwardSpec, GatewayInfo, PortInfo, PortName,
    PortNow, PortStats, Reply, SwitchInfo,
};
use plane::datapath::{Counters, FdbListing, Fixed, PortId, Row};
use plane::worker::{Command, Stopped};

impl Switch {
    /// The whole switch, or one bridge with what is on it and its uplink.
    pub(super) fn show(&self, bridge: Option<&BridgeName>) -> Result<Reply, ControlError> {
        let chosen = self.chosen(bridge)?;
        let uplinks: BTreeSet<&PortName> = chosen.iter().filter_map(|bridge| bridge.spec.uplink.as_ref()).collect();
        let is_shown = |uplink: &PortName| bridge.is_none() || uplinks.contains(uplink);
        Ok(Reply::Switch(Box::new(SwitchInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.life.started.elapsed().as_secs(),
            workers: self.plane.workers.len(),
            config: self.ledger.path.display().to_string(),
            sandbox: self.plane.sandbox.words().to_owned(),
            bridges: self.bridge_infos(bridge)?,
            uplinks: self.uplink_infos()?.into_iter().filter(|uplink| is_shown(&uplink.name)).collect(),
            forwards: self.forward_infos().into_iter().filter(|forward| is_shown(&forward.uplink)).collect(),
            ports: self.port_infos(bridge)?,
            vxlans: self.vxlan_infos(bridge)?,
            captures: self.plane.captures.count(),
            warnings: self.inventory.warnings().iter().map(ToString::to_string).collect(),
        })))
    }

    pub(super) fn bridge_infos(&self, bridge: Option<&BridgeName>) -> Result<Vec<BridgeInfo>, ControlError> {
        let chosen = self.chosen(bridge)?;
        let dhcp = chosen.iter().any(|bridge| bridge.spec.dhcp);
        let mut pools = if dhcp { self.pool_infos() } else { BTreeMap::new() };
        let info = |bridge: &Bridge| {
            let members = self.inventory.vports().filter(|vport| vport.bridge() == Some(&bridge.spec.name)).count();
            let table = self.table(bridge)?;
            let gateway = self.gateway_mac(&bridge.spec.name);
            let counts = (members, table.rows.len(), table.evictions);
            let plain = BridgeInfo::new(&bridge.spec, bridge.origin, gateway, counts);
            let pools = pools.remove(&bridge.spec.name).unwrap_or_default();
            Ok(BridgeInfo {
                gateway: GatewayInfo { pools, ..plain.gateway.clone() },
                port_mtu: self.inventory.port_mtu(&bridge.spec.name)?,
                networks: self.networks_on(&bridge.spec.name),
                mac_moves: self.mac_moves_info(&bridge.spec.name),
                address_conflicts: self.address_conflicts_info(&bridge.spec.name),
                moving_macs: table.rows.iter().filter(|row| row.fixed == Fixed::Held).count(),
                ..plain
            })
        };
        chosen.into_iter().map(info).collect()
    }

    pub(super) fn port_infos(&self, bridge: Option<&BridgeName>) -> Result<Vec<PortInfo>, ControlError> {
        if let Some(name) = bridge {
            self.inventory.bridge(name)?;
        }
        let (mut places, states) = (self.docker_places(), self.tree_states());
        let info = |port: &Port| {
            let mac = port.mac.or(port.spec.mac);
            let state = port.state();
            let mut info = PortInfo::new(&port.spec, port.origin, mac, state, port.features.clone());
            info.policy.impair = info.policy.impair.or_seed(port.seed);
            let now = PortNow {
                lease: self.lease_info(&port.spec.name),
                stp_state: states.get(&port.spec.name).copied(),
                altered: port.altered(),
            };
            PortInfo { docker: places.remove(&port.spec.name).unwrap_or_default(), now, ..info }
        };
        let on_it = |port: &&Port| bridge.is_none_or(|name| port.spec.bridge == *name);
        Ok(self.inventory.all::<Port>().filter(on_it).map(info).collect())
    }

    pub(super) fn fdb(&self, filter: &FdbFilter) -> Result<Vec<FdbEntry>, ControlError> {
        let mut entries = Vec::new();
        for bridge in self.filtered(filter)? {
            entries.extend(self.bridge_fdb(bridge)?);
        }
        let is_meant = |entry: &FdbEntry| {
            filter.port.as_ref().is_none_or(|port| *port == entry.port) && filter.mac.is_none_or(|mac| mac == entry.mac)
        };
        entries.retain(is_meant);
        Ok(entries)
    }

    fn bridge_fdb(&self, bridge: &Bridge) -> Result<Vec<FdbEntry>, ControlError> {
        let table = self.table(bridge)?;
        let mut entries: Vec<FdbEntry> = table
            .rows
            .into_iter()
            .filter_map(|row| {
                let port = self.inventory.name_of(row.place.port)?.clone();
                Some(FdbEntry {
                    bridge: bridge.spec.name.clone(),
                    mac: row.mac,
                    vlan: row.vlan,
                    remote: self.inventory.remote(&port, row.place.peer),
                    host: self.host_behind(&port, row.place.peer),
                    port,
                    age_seconds: row.age.into(),
                    r#static: row.fixed == Fixed::Given,
                    held: row.fixed == Fixed::Held,
                })
            })
            .collect();
        entries.sort_by_key(|entry| (entry.vlan, entry.mac));
        Ok(entries)
    }

    pub(super) fn flush_fdb(&self, filter: &FdbFilter) -> Result<Reply, ControlError> {
        let port = filter.port.as_ref().map(|port| self.inventory.port_id(port)).transpose()?;
        for bridge in self.filtered(filter)? {
            self.plane.tell_all(|| Command::FlushFdb(bridge.id, port, filter.mac))?;
        }
        Ok(Reply::Done(Vec::new()))
    }

    /// The bridges whose addresses a filter may take.
    fn filtered(&self, filter: &FdbFilter) -> Result<Vec<&Bridge>, ControlError> {
        let Some(port) = &filter.port else { return self.chosen(filter.bridge.as_ref()) };
        let on_bridge = self.inventory.vport(port).and_then(Vport::bridge);
        let home = on_bridge.map_or_else(|| self.inventory.port(port).map(|port| &port.spec.bridge), Ok)?;
        match &filter.bridge {
            Some(bridge) if bridge != home => Err(ControlError::PortElsewhere(port.clone(), home.clone(), bridge.clone())),
            _ => self.chosen(Some(home)),
        }
    }

    /// The counters of these ports; of all, if there are none.
    pub(super) fn stats(&self, names: &[PortName]) -> Result<Vec<PortStats>, ControlError> {
        let ports: Vec<(PortName, PortId)> = match names {
            [_, ..] => names
                .iter()
                .map(|name| Ok((name.clone(), self.inventory.port_id(name)?)))
                .collect::<Result<_, ControlError>>()?,
            [] => self.inventory.vports().filter_map(|vport| Some((vport.name().clone(), vport.id()?))).collect(),
        };
        let ids: Vec<PortId> = ports.iter().map(|(_, id)| *id).collect();
        let mut sums = vec![Counters::default(); ids.len()];
        for worker in &self.plane.workers {
            let counters = worker.ask(|reply| Command::Counters(ids.clone(), reply))?;
            sums.iter_mut().zip(&counters).for_each(|(sum, part)| sum.add(part));
        }
        let mut places = self.docker_places();
        let row = |((name, _), counters): ((PortName, PortId), Counters)| {
            let docker = places.remove(&name).unwrap_or_default();
            PortStats { docker, ..stats(name, &counters) }
        };
        let mut rows: Vec<PortStats> = ports.into_iter().zip(sums).map(row).collect();
        for row in &mut rows {
            if let Some(uplink) = self.inventory.find::<Uplink>(&row.port) {
                row.counters = self.uplink_counts(uplink)?.counters;
            }
        }
        Ok(rows)
    }

    /// What containers' runtimes asked for, and what vsctl added to it, is left out: they bring it.
    pub(super) fn export(&self) -> String {
        let mut layout = self.inventory.layout();
        layout.retain(|_, origin| origin.is_of_users());
        let bridges: BTreeSet<BridgeName> = layout.all::<BridgeSpec>().map(|spec| spec.name.clone()).collect();
        layout.retain(|resource, _| resource.bridge().is_none_or(|bridge| bridges.contains(bridge)));
        let network = layout.network();
        let fits = |spec: &&ForwardSpec| network.check_forward(spec).is_ok();
        config::export(&Config {
            switch: self.ledger.file.switch.clone(),
            nat: self.ledger.file.nat.clone(),
            docker: self.ledger.file.docker.clone(),
            web: self.ledger.file.web.clone(),
            capture: self.ledger.file.capture.clone(),
            cluster: self.ledger.file.cluster.clone(),
            flannel: self.ledger.file.flannel.clone(),
            warnings: Vec::new(),
            forwards: layout.all().filter(fits).cloned().collect(),
            uplinks: layout.all().cloned().collect(),
            bridges: layout.all().map(|bridge| self.without_subnet(bridge)).collect(),
            ports: layout.all().cloned().collect(),
            vxlans: layout.all().cloned().collect(),
        })
    }

    /// A bridge's addresses, of all workers together.
    pub(super) fn table(&self, bridge: &Bridge) -> Result<FdbListing, Stopped> {
        let parts: Result<Vec<FdbListing>, Stopped> =
            self.plane.workers.iter().map(|worker| worker.ask(|reply| Command::Fdb(bridge.id, reply))).collect();
        Ok(together(parts?, usize::try_from(bridge.spec.max_macs).unwrap_or(usize::MAX)))
    }
}

/// What the tables of the workers come to: the youngest sight of each address, and of learned ones no more than one table holds. Each worker hears
/// what the others learn and puts out addresses for it, so the count of one worker is that of the bridge.
fn together(parts: Vec<FdbListing>, most: usize) -> FdbListing {
    let evictions = parts.iter().map(|part| part.evictions).max().unwrap_or_default();
    let mut youngest = BTreeMap::new();
    for row in parts.into_iter().flat_map(|part| part.rows) {
        let known = youngest.entry((row.vlan, row.mac)).or_insert(row);
        if row.age < known.age {
            *known = row;
        }
    }
    let (mut rows, mut learned): (Vec<Row>, Vec<Row>) = youngest.into_values().partition(|row| row.fixed == Fixed::Given);
    learned.sort_by_key(|row| row.age);
    rows.extend(learned.into_iter().take(most));
    FdbListing { rows, evictions }
}

fn stats(port: PortName, counters: &Counters) -> PortStats {
    PortStats {
        port,
        docker: DockerPlace::default(),
        rx_frames: counters.rx_frames,
        rx_bytes: counters.rx_bytes,
        tx_frames: counters.tx_frames,
        tx_bytes: counters.tx_bytes,
        rx_drops: counters.named_drops(true).collect(),
        tx_drops: counters.named_drops(false).collect(),
        counters: counters.named_treatments().collect(),
    }
}

#[cfg(test)]
mod tests {
    use packet::{Mac, VlanId};

    use super::*;

    #[test]
    fn the_tables_of_all_workers_are_listed_as_one_that_holds_no_more_than_its_most() {
        let row = |number: u64, age, fixed| Row {
            vlan: VlanId::DEFAULT,
            mac: Mac::from_u64(number),
            place: PortId(0).into(),
            age,
            fixed,
        };
        // Of 12 addresses each worker has put out two others; one that is given counts for itself.
        let part = |numbers: std::ops::Range<u64>, age| FdbListing {
            rows: numbers.map(|number| row(number, age, Fixed::No)).chain([row(99, 0, Fixed::Given)]).collect(),
            evictions: 2,
        };
        for workers in [1, 2, 4] {
            let parts = (0..workers).map(|worker| if worker % 2 == 0 { part(0..10, 7) } else { part(2..12, 3) }).collect();
            let all = together(parts, 10);
            assert_eq!((all.rows.len(), all.evictions), (11, 2), "{workers} workers");
            let learned = all.rows.iter().filter(|row| row.fixed == Fixed::No);
            let expected = if workers == 1 { 0..10 } else { 2..12 };
            assert_eq!(learned.map(|row| row.mac).collect::<BTreeSet<_>>(), expected.map(Mac::from_u64).collect());
        }
    }
}
