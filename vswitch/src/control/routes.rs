//! What gateways know and have given out: static routes, neighbours, leases.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;

use super::{Bridge, ControlError, Switch, Uplink};
use crate::services::{Input, Lease, Listing};
use api::{BridgeName, LeaseRow, NeighborInfo, PoolInfo, PortName, Reply, RouteInfo, RouteSpec, RoutedTunnel};
use plane::datapath::{BridgeId, NeighborRow};
use plane::worker::Command;

/// How long the services may take to list leases. They answer between two frames, but write files too.
const PATIENCE: Duration = Duration::from_secs(5);

impl Switch {
    pub(super) fn add_route(&mut self, bridge: &BridgeName, route: RouteSpec) -> Result<Reply, ControlError> {
        let mut spec = self.inventory.bridge(bridge)?.spec.clone();
        if let Some(old) = spec.routes.iter().find(|old| old.to == route.to) {
            return Err(ControlError::RouteExists(bridge.clone(), *old));
        }
        spec.routes.push(route);
        self.put_bridge(spec.checked()?)
    }

    pub(super) fn delete_route(&mut self, bridge: &BridgeName, to: IpNet) -> Result<Reply, ControlError> {
        let mut spec = self.inventory.bridge(bridge)?.spec.clone();
        let routes = spec.routes.iter().map(ToString::to_string).collect();
        let before = spec.routes.len();
        spec.routes.retain(|route| route.to != to);
        if spec.routes.len() == before {
            return Err(ControlError::NoRoute(bridge.clone(), to, routes));
        }
        self.put_bridge(spec)
    }

    pub(super) fn route_infos(&self, bridge: Option<&BridgeName>) -> Result<Vec<RouteInfo>, ControlError> {
        let bridges = self.chosen(bridge)?;
        Ok(bridges.into_iter().flat_map(|bridge| routes(bridge, self.routed_tunnels(&bridge.spec.name))).collect())
    }

    /// The bridge of this name, or all.
    pub(super) fn chosen(&self, bridge: Option<&BridgeName>) -> Result<Vec<&Bridge>, ControlError> {
        bridge.map_or_else(|| Ok(self.inventory.bridges.values().collect()), |name| Ok(vec![self.inventory.bridge(name)?]))
    }

    /// The neighbours on a bridge or uplink of this name, or on all.
    pub(super) fn neighbors(&self, name: Option<&PortName>) -> Result<Vec<NeighborInfo>, ControlError> {
        let gateways = self.inventory.bridges.values().filter(|bridge| !bridge.spec.addresses.is_empty());
        let gateways = gateways.map(|bridge| (bridge.spec.name.to_string(), bridge.id));
        let uplinks = self.inventory.all::<Uplink>().map(|uplink| (uplink.spec.name.to_string(), uplink.bridge));
        let all: Vec<(String, BridgeId)> = gateways.chain(uplinks).collect();
        let is_bridge = |name: &PortName| self.inventory.bridges.keys().any(|bridge| bridge.as_str() == name.as_str());
        if let Some(name) = name.filter(|name| !is_bridge(name) && !self.inventory.has::<Uplink>(name)) {
            let names = self
                .inventory
                .bridges
                .keys()
                .map(ToString::to_string)
                .chain(self.inventory.names::<Uplink>().map(ToString::to_string));
            return Err(ControlError::NoInterface(name.clone(), names.collect()));
        }
        let mut infos = Vec::new();
        for (interface, id) in all.into_iter().filter(|(own, _)| name.is_none_or(|name| name.as_str() == own)) {
            let rows = self.neighbor_rows(id)?;
            let info = |row: &NeighborRow| NeighborInfo {
                interface: interface.clone(),
                address: row.address,
                mac: row.mac,
                age_seconds: row.age.into(),
            };
            infos.extend(rows.iter().map(info));
        }
        Ok(infos)
    }

    /// What the gateway of a bridge, or an uplink, knows of its neighbours, by address.
    pub(super) fn neighbor_rows(&self, id: BridgeId) -> Result<Vec<NeighborRow>, ControlError> {
        let mut rows = self.plane.router()?.ask(|reply| Command::Neighbors(id, reply))?;
        rows.sort_by_key(|row| row.address);
        Ok(rows)
    }

    /// What the services have given out.
    fn listing(&self) -> Result<Listing, ControlError> {
        let (sender, answer) = crossbeam_channel::bounded(1);
        self.services.tell(Input::List(sender));
        answer.recv_timeout(PATIENCE).map_err(|_| ControlError::NoServices)
    }

    /// How far the gateways' addresses are given out; nothing, where the services have no time to say.
    pub(super) fn pool_infos(&self) -> BTreeMap<BridgeName, Vec<PoolInfo>> {
        let pools = self.listing().map(|listing| listing.pools).unwrap_or_default();
        pools.into_iter().map(|(bridge, pools)| (bridge, pools.into_iter().map(PoolInfo::from).collect())).collect()
    }

    /// The addresses that the gateway of this bridge, or of all, has given out and not got back.
    pub(super) fn leases(&self, bridge: Option<&BridgeName>) -> Result<Vec<LeaseRow>, ControlError> {
        let names: Vec<BridgeName> = self.chosen(bridge)?.iter().map(|bridge| bridge.spec.name.clone()).collect();
        let Listing { now, leases: all, .. } = self.listing()?;
        let places = self.docker_places();
        let row = |bridge: &BridgeName, lease: &Lease| LeaseRow {
            bridge: bridge.clone(),
            address: lease.address,
            mac: lease.mac,
            name: lease.port.clone(),
            docker: places.get(&lease.port).cloned().unwrap_or_default(),
            state: lease.state,
            seconds_left: lease.until.saturating_sub(now),
        };
        let mut rows = Vec::new();
        for name in names {
            let mut leases: Vec<&Lease> = all.get(&name).into_iter().flatten().filter(|lease| lease.is_live(now)).collect();
            leases.sort_by_key(|lease| lease.address);
            rows.extend(
                leases.into_iter().filter(|lease| lease.state != api::LeaseState::Released).map(|lease| row(&name, lease)),
            );
        }
        Ok(rows)
    }
}

/// The ways of a bridge's stations, the longest prefix first.
fn routes<'a>(bridge: &Bridge, routed: impl Iterator<Item = &'a RoutedTunnel>) -> Vec<RouteInfo> {
    let spec = &bridge.spec;
    let info = |to, via, uplink, kind: &str| RouteInfo { bridge: spec.name.clone(), to, via, uplink, kind: kind.to_owned() };
    let connected = spec.addresses.iter().map(|net| info(net.trunc(), None, None, "connected"));
    let by_station = spec.routes.iter().map(|route| info(route.to, Some(route.via), None, "static"));
    let by_host = routed.flat_map(|tunnel| &tunnel.routes).map(|route| info(route.to, Some(route.via), None, "flannel"));
    let mut all: Vec<RouteInfo> = connected.chain(by_station).chain(by_host).collect();
    for v6 in [false, true] {
        let Some(uplink) = spec.uplink.as_ref().filter(|_| spec.addresses.iter().any(|net| net.addr().is_ipv6() == v6)) else {
            continue;
        };
        let Ok(to) = RouteSpec::destination("default", v6) else { continue };
        if !all.iter().any(|route| route.to == to) {
            all.push(info(to, None, Some(uplink.clone()), "default"));
        }
    }
    all.sort_by_key(|route| (route.to.addr().is_ipv6(), std::cmp::Reverse(route.to.prefix_len()), route.to));
    all
}
