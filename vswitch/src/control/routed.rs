//! Tunnels that lead from the gateway of a bridge, not from the bridge: to hosts that route, each to a subnet of its own. Such a tunnel is the only port of a
//! bridge that has no name and no stations, and whose side of the router is for the one that the tunnel is on.

use packet::VlanId;

use super::uplink::bridge_settings;
use super::vxlan::{Live, TunnelPort};
use super::{ControlError, Switch};
use api::{BridgeName, RoutedTunnel, VxlanSpec};
use ipnet::IpNet;
use plane::datapath::{BridgeId, GatewaySettings, Side};
use plane::worker::Command;

impl Switch {
    /// The bridge of a tunnel that is to be opened, if it leads from the gateway.
    pub(super) fn open_beyond(&mut self, spec: &VxlanSpec) -> Result<Option<BridgeId>, ControlError> {
        if spec.routed.is_none() {
            return Ok(None);
        }
        let id = BridgeId(self.inventory.bridge_ids.vacancy());
        self.plane.tell_all(|| Command::SetBridge(id, bridge_settings(u16::MAX)))?;
        self.inventory.bridge_ids.insert(id.0, ());
        Ok(Some(id))
    }

    /// Tells the workers which subnets are at which hosts.
    pub(super) fn set_beyond(&self, id: Option<BridgeId>, spec: &VxlanSpec, mtu: u16) -> Result<(), ControlError> {
        let (Some(id), Some(RoutedTunnel { mac, address, network, routes, .. })) = (id, &spec.routed) else { return Ok(()) };
        let of = self.inventory.bridge(&spec.bridge)?.id;
        let settings = GatewaySettings {
            mac: *mac,
            vlan: VlanId::DEFAULT,
            mtu,
            addresses: vec![IpNet::from(*address)],
            routes: routes.iter().map(|route| (route.to, route.via)).collect(),
            side: Side::Beyond { of, network: *network },
        };
        self.plane.tell_all(|| Command::SetGateway(id, Some(settings.clone())))?;
        Ok(())
    }

    /// Removes the bridge of a tunnel that is closed.
    pub(super) fn close_beyond(&mut self, live: &Live) {
        let Some(id) = live.beyond else { return };
        self.inventory.bridge_ids.remove(id.0);
        // Workers that have ended have no bridges.
        let _ = self.plane.tell_all(|| Command::RemoveBridge(id));
    }

    /// Where the tunnels of a bridge lead that lead from its gateway.
    pub(super) fn routed_tunnels(&self, bridge: &BridgeName) -> impl Iterator<Item = &RoutedTunnel> {
        let on_it = self.inventory.all::<TunnelPort>().filter(move |tunnel| tunnel.spec.bridge == *bridge);
        on_it.filter(|tunnel| tunnel.live().is_some()).filter_map(|tunnel| tunnel.spec.routed.as_ref())
    }
}
