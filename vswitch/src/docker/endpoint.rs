//! A container's place on a network: read from *CreateEndpoint*, kept in `state-dir`, and turned into a port and forwards.
//! `control/docker` and `layout.rs` call it, and `control/containers.rs` for MAC addresses. Pure functions.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use packet::Mac;
use serde::{Deserialize, Serialize};

use super::message::CreateEndpoint;
use super::options::EndpointOptions;
use super::sandbox::Sandbox;
use super::{DockerError, EndpointId, LanLease, Network, NetworkId, Rates};
use api::{ForwardKey, ForwardSpec, Netns, PortName, PortPolicy, PortSpec, SpecError};

/// A container's place on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Endpoint {
    /// Its network.
    pub network: NetworkId,
    /// Its port, and what its device is called before Docker takes it.
    pub port: PortName,
    /// Its MAC address.
    pub mac: Mac,
    /// What its interface is called, before a number; `None`: `eth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Its addresses, of each IP version one at most; none where the network has no subnet.
    pub addresses: Vec<IpNet>,
    /// What came with its address from a DHCP server of the LAN; none: the address did not come from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LanLease>,
    /// How fast it may be.
    pub rates: Rates,
    /// The sandbox that has joined; none: there is no device yet.
    pub sandbox: Option<Sandbox>,
    /// Whether it has left the sandbox again.
    pub left: bool,
    /// Its published ports.
    pub published: Vec<ForwardSpec>,
}

impl Endpoint {
    /// Reads what Docker asks for, on this network.
    ///
    /// # Errors
    /// An option or an address that cannot be.
    pub fn read(request: &CreateEndpoint, network: &Network) -> Result<Self, DockerError> {
        let EndpointOptions { rates, mac, prefix } = EndpointOptions::read(&request.options, &network.options)?;
        let interface = &request.interface;
        let given = [&interface.v4, &interface.v6].into_iter().filter(|text| !text.is_empty());
        let addresses = given.map(|text| address(text, network)).collect::<Result<Vec<_>, _>>()?;
        let mac = match (interface.mac.as_str(), mac) {
            ("", Some(mac)) => mac,
            ("", None) if network.subnets.is_empty() => made_up_mac(&request.reference.endpoint.to_string()),
            ("", None) => default_mac(&addresses).ok_or(DockerError::NoAddress)?,
            (text, mac) => {
                let dockers = text.parse().map_err(|_| DockerError::NotAnAddress(text.to_owned(), "a MAC address"))?;
                if mac.is_some_and(|mac| mac != dockers) {
                    return Err(DockerError::TwoMacs);
                }
                dockers
            }
        };
        let port = port_name(&request.reference.endpoint)?;
        let (network, published) = (request.reference.network.clone(), Vec::new());
        Ok(Self { network, port, mac, prefix, addresses, lease: None, rates, sandbox: None, left: false, published })
    }

    /// Its port, once it has joined a sandbox.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn port_spec(&self, network: &Network, sandbox: PathBuf) -> Result<PortSpec, SpecError> {
        let spec = PortSpec {
            name: self.port.clone(),
            bridge: network.bridge.clone(),
            kind: network.options.attach.into(),
            netns: Some(Netns::Sandbox(sandbox)),
            ifname: (&self.port).into(),
            mac: Some(self.mac),
            addresses: self.addresses.clone(),
            vlans: network.vlans(),
            policy: PortPolicy {
                guard: network.options.guard,
                protected: network.options.protected,
                send_rate: self.rates.send,
                receive_rate: self.rates.receive,
                ..PortPolicy::default()
            },
            offload: true,
        };
        spec.checked()
    }

    /// Its published ports at an uplink, which may be another than when they were chosen.
    pub fn forwards_at(&self, uplink: &PortName) -> impl Iterator<Item = ForwardSpec> {
        let key = |spec: &ForwardSpec| ForwardKey { uplink: uplink.clone(), ..spec.key.clone() };
        self.published.iter().map(move |spec| ForwardSpec { key: key(spec), to: spec.to })
    }

    /// Whether it has this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address)
    }

    /// The gateway of an IP version that its container is to use.
    pub fn gateway(&self, network: &Network, v4: bool) -> Option<IpAddr> {
        if let Some(lease) = &self.lease {
            return lease.gateway.filter(|gateway| gateway.is_ipv4() == v4);
        }
        let mut own = self.addresses.iter().map(IpNet::addr).filter(|address| address.is_ipv4() == v4);
        own.find_map(|address| network.way_out(address))
    }
}

fn address(text: &str, network: &Network) -> Result<IpNet, DockerError> {
    let what = "an address with its prefix, such as 10.78.0.2/24";
    let net: IpNet = text.parse().map_err(|_| DockerError::NotAnAddress(text.to_owned(), what))?;
    network.subnet(net.addr()).map(|_| net).ok_or(DockerError::AddressOutside(net.addr()))
}

/// `02:42` and the IPv4 address, as Docker's own bridge has it; where there is none, a hash of the IPv6 address. So a container that comes back
/// with its address has its MAC address too, and its neighbours need not ask for it again.
pub fn default_mac(addresses: &[IpNet]) -> Option<Mac> {
    let v4 = addresses.iter().find_map(|net| if let IpNet::V4(net) = net { Some(net.addr().octets()) } else { None });
    let own = v4.map(|[a, b, c, d]| Mac([0x02, 0x42, a, b, c, d]));
    own.or_else(|| addresses.first().map(|net| made_up_mac(&net.addr().to_string())))
}

/// `02:42` and the hash of a text.
fn made_up_mac(text: &str) -> Mac {
    let [a, b, c, d] = hash(text).to_be_bytes();
    Mac([0x02, 0x42, a, b, c, d])
}

/// A number that is the same on every host (FNV-1a).
pub(super) fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn port_name(endpoint: &EndpointId) -> Result<PortName, DockerError> {
    let name = format!("ep-{}", endpoint.short());
    name.parse().map_err(|error| DockerError::Malformed(format!("{error}")))
}
