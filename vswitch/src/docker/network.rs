//! A network of Docker's: read from *CreateNetwork*, kept in `state-dir`, and turned into a bridge. `control/docker` and `layout.rs` call it.
//! Pure functions.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use packet::VlanId;
use serde::{Deserialize, Serialize};

use super::message::{CreateNetwork, INTERNAL, Pool};
use super::{DockerError, NetworkId, NetworkOptions, lan, overlay};
use api::{BridgeName, BridgeSpec, ControlFrames, PortName, SpecError, Stp, StpBridgePriority, VlanMode};

/// MTU of a network for which none is given, in bytes.
const MTU: u16 = 1500;

/// A network that Docker asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Network {
    /// The bridge that it is: one of its own, or one of `switch.toml`.
    pub bridge: BridgeName,
    /// Its subnets, each with the gateway's address; none: a DHCP server of its LAN has them, or its containers have no addresses.
    pub subnets: Vec<Subnet>,
    /// Whether nothing beyond it is reached.
    pub internal: bool,
    /// What the user said.
    pub options: NetworkOptions,
}

/// A subnet of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Subnet {
    /// The subnet.
    pub net: IpNet,
    /// Its gateway.
    pub gateway: Option<IpAddr>,
}

impl Network {
    /// Reads what Docker asks for.
    ///
    /// # Errors
    /// An option or a subnet that cannot be.
    pub fn read(request: &CreateNetwork) -> Result<Self, DockerError> {
        let options = NetworkOptions::of_docker(request.driver, &request.options)?;
        overlay::check_spaces(request, options.net.as_ref())?;
        let internal = match request.options.get(INTERNAL) {
            None | Some(serde_json::Value::Null) => false,
            Some(value) => {
                value.as_bool().ok_or_else(|| DockerError::Malformed(format!("`{INTERNAL}` is neither true nor false")))?
            }
        };
        if internal && options.parent.is_some() {
            return Err(DockerError::Internal("parent"));
        }
        match (internal, &options.uplink, options.isolated) {
            (true, Some(_), _) => return Err(DockerError::Internal("vswitch.uplink")),
            (true, _, Some(false)) => return Err(DockerError::Internal("vswitch.isolated=false")),
            _ => {}
        }
        let mut subnets = request.v4.iter().chain(&request.v6).map(Subnet::read).collect::<Result<Vec<_>, _>>()?;
        // What `--ipam-driver null` comes to.
        subnets.retain(|subnet| subnet.net.prefix_len() > 0);
        if subnets.is_empty() && options.uplink.is_some() {
            return Err(DockerError::NoWayOut);
        }
        let bridge = match (&options.bridge, &options.parent) {
            (Some(bridge), _) => bridge.clone(),
            (None, Some(parent)) => lan::bridge(parent)?,
            (None, None) => own_bridge(&request.network)?,
        };
        let network = Self { bridge, subnets, internal, options };
        network.own_bridge(None)?;
        Ok(network)
    }

    /// The bridge to be made for it, with `uplink` where it names none; `None` if it is on a bridge of `switch.toml`.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn own_bridge(&self, uplink: Option<&PortName>) -> Result<Option<BridgeSpec>, SpecError> {
        let NetworkOptions { mtu, isolated, .. } = self.options;
        if self.options.bridge.is_some() {
            return Ok(None);
        }
        // The gateway of a LAN is the LAN's.
        let addresses = if self.options.parent.is_none() { self.gateways() } else { Vec::new() };
        let uplink = self.options.uplink.as_ref().or(uplink).filter(|_| !self.internal && !addresses.is_empty());
        let spec = BridgeSpec {
            name: self.bridge.clone(),
            mtu: mtu.unwrap_or(MTU),
            ageing: Duration::from_secs(300),
            max_macs: 8192,
            control_frames: ControlFrames::Drop,
            stp: Stp::Off,
            stp_priority: StpBridgePriority::default(),
            addresses,
            gateway_vlan: self.vlan(),
            // Docker gives the addresses.
            dhcp: false,
            uplink: uplink.cloned(),
            routes: Vec::new(),
            isolated: isolated.unwrap_or(true),
            overlay: self.options.net.clone(),
            encrypt: self.options.encrypt,
        };
        spec.checked().map(Some)
    }

    /// The addresses of its gateways, with their subnets.
    pub fn gateways(&self) -> Vec<IpNet> {
        self.subnets.iter().filter_map(Subnet::gateway_net).collect()
    }

    /// Whether it fits the bridge of `switch.toml` that it is to be on. If the bridge's gateway is in the
    /// network's VLAN, it must be the network's; else the network's gateway is a station on the segment, which is not checked.
    ///
    /// # Errors
    /// Another gateway.
    pub fn check_bridge(&self, bridge: &BridgeSpec) -> Result<(), DockerError> {
        if self.vlan() != bridge.gateway_vlan {
            return Ok(());
        }
        for Subnet { gateway, .. } in &self.subnets {
            let Some(gateway) = gateway else { continue };
            let same_version = |net: &&IpNet| net.addr().is_ipv4() == gateway.is_ipv4();
            let own: Vec<&IpNet> = bridge.addresses.iter().filter(same_version).collect();
            if let Some(first) = own.first().filter(|_| own.iter().all(|net| net.addr() != *gateway)) {
                let (bridge, subnet) = (bridge.name.clone(), first.trunc());
                return Err(DockerError::OtherGateway { gateway: *gateway, bridge, own: first.addr(), subnet });
            }
        }
        Ok(())
    }

    /// The VLANs of its ports.
    pub fn vlans(&self) -> VlanMode {
        match (self.options.vlan, &self.options.parent) {
            (None, None) => VlanMode::All,
            _ => VlanMode::Access(self.vlan()),
        }
    }

    /// Whether its containers get their addresses from a DHCP server of its LAN.
    pub fn is_by_dhcp(&self) -> bool {
        self.options.parent.is_some() && self.subnets.is_empty()
    }

    /// What a user calls the LAN that it is part of.
    pub fn lan(&self) -> String {
        let parent = self.options.parent.as_ref().map_or("", |parent| parent.as_str());
        self.options.vlan.map_or_else(|| parent.to_owned(), |vlan| format!("VLAN {} of {parent}", vlan.number()))
    }

    /// The VLAN of its containers.
    pub fn vlan(&self) -> VlanId {
        self.options.vlan.unwrap_or(VlanId::DEFAULT)
    }

    /// The subnet that an address is in.
    pub fn subnet(&self, address: IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.net.contains(&address))
    }

    /// The gateway by which an address reaches the rest of the world.
    pub fn way_out(&self, address: IpAddr) -> Option<IpAddr> {
        self.subnet(address)?.gateway.filter(|_| !self.internal)
    }
}

impl Subnet {
    fn read(pool: &Pool) -> Result<Self, DockerError> {
        let wrong = |text: &str, what| DockerError::NotAnAddress(text.to_owned(), what);
        let net: IpNet = pool.pool.parse().map_err(|_| wrong(&pool.pool, "a subnet, such as 10.78.0.0/24"))?;
        let gateway = match pool.gateway.as_str() {
            "" => None,
            text => {
                let net: IpNet = text.parse().map_err(|_| wrong(text, "a gateway, such as 10.78.0.1/24"))?;
                Some(net.addr())
            }
        };
        match gateway.filter(|gateway| !net.contains(gateway)) {
            Some(gateway) => Err(DockerError::GatewayOutside(gateway, net.trunc())),
            None => Ok(Self { net: net.trunc(), gateway }),
        }
    }

    /// The gateway's address with the prefix.
    fn gateway_net(&self) -> Option<IpNet> {
        IpNet::new(self.gateway?, self.net.prefix_len()).ok()
    }
}

/// The name of a network's own bridge.
fn own_bridge(network: &NetworkId) -> Result<BridgeName, DockerError> {
    let name = format!("docker-{}", network.short());
    name.parse().map_err(|error| DockerError::Malformed(format!("{error}")))
}
