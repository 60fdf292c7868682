//! One interface of a container.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use packet::Mac;
use serde::{Deserialize, Serialize};

use crate::attach;
use api::{
    ContainerKey, ContainerNetwork, ContainerRoute, ForwardKey, ForwardSpec, Netns, PortName, PortPolicy, PortSpec,
    PublishedPort, Rate, SpecError, UplinkError, UplinkKindName, VlanMode,
};

/// What a plugin asked for, with what the switch chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Interface {
    /// The network.
    pub network: ContainerNetwork,
    /// Its port.
    pub port: PortName,
    /// The file of the container's network namespace.
    pub netns: PathBuf,
    /// The namespace's number, by which it is told from one that has its file later.
    pub inode: u64,
    /// What the container is called; then its other names.
    pub names: Vec<String>,
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its default gateways; `None`: those of its bridge.
    pub gateways: Option<Vec<IpAddr>>,
    /// Its other routes.
    pub routes: Vec<ContainerRoute>,
    /// Most that it may send.
    pub send_rate: Option<Rate>,
    /// Most that it may receive.
    pub receive_rate: Option<Rate>,
    /// The ports that its runtime wants published.
    #[serde(default)]
    pub publish: Vec<PublishedPort>,
    /// Those of them that it publishes, and another interface of its container does not.
    pub published: Vec<ForwardSpec>,
}

impl Interface {
    /// Its port.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn port_spec(&self, key: &ContainerKey) -> Result<PortSpec, SpecError> {
        let spec = PortSpec {
            name: self.port.clone(),
            bridge: self.network.bridge.clone(),
            kind: self.network.kind,
            netns: Some(Netns::Path(self.netns.clone())),
            ifname: key.ifname.clone(),
            mac: Some(self.mac),
            addresses: self.addresses.clone(),
            vlans: self.network.vlan.map_or(VlanMode::All, VlanMode::Access),
            policy: PortPolicy {
                guard: self.network.guard,
                send_rate: self.send_rate,
                receive_rate: self.receive_rate,
                ..PortPolicy::default()
            },
            offload: true,
        };
        spec.checked()
    }

    /// Whether its namespace is still there. A queue that was opened inside keeps a namespace alive, so the sign is its file.
    pub fn is_alive(&self) -> bool {
        attach::netns_inode(&self.netns) == Some(self.inode)
    }

    /// Whether it has this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address)
    }

    /// What its default routes may lead to, of those addresses that its bridge has.
    pub fn gateways(&self, bridge: &[IpNet]) -> Vec<IpNet> {
        match &self.gateways {
            None => bridge.to_vec(),
            Some(given) => given.iter().map(|address| IpNet::from(*address)).collect(),
        }
    }
}

/// What a published port comes to at an uplink, for a container with these addresses.
///
/// A link translates within one IP version. The host's sockets lead from either to either, and then the container does not see its client's
/// address: so each version goes to the address of its own, where there is one.
///
/// # Errors
/// Not ports, or no address that they could lead to.
pub fn forwards(
    port: &PublishedPort,
    addresses: &[IpNet],
    (uplink, kind): (&PortName, UplinkKindName),
) -> Result<Vec<ForwardSpec>, UplinkError> {
    let PublishedPort { protocol, listen, port: first, to, count } = port;
    let last = u32::from(*first) + u32::from((*count).max(1)) - 1;
    let ports = if last > u32::from(*first) { format!("{first}-{last}") } else { first.to_string() };
    let key = ForwardKey::parse(uplink.clone(), &format!("{protocol}/{ports}"), None)?;
    let of = |v4: bool| addresses.iter().map(IpNet::addr).find(|address| address.is_ipv4() == v4);
    let all = |v4: bool| if v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let either = || of(true).or(of(false));
    let targets: Vec<(Option<IpAddr>, Option<IpAddr>)> = match (*listen, kind) {
        (Some(listen), UplinkKindName::Host) => vec![(Some(listen), of(listen.is_ipv4()).or_else(either))],
        (Some(listen), UplinkKindName::Link) => vec![(Some(listen), of(listen.is_ipv4()))],
        (None, UplinkKindName::Host) if of(true).is_some() && of(false).is_some() => {
            vec![(Some(all(true)), of(true)), (Some(all(false)), of(false))]
        }
        (None, UplinkKindName::Host) => vec![(None, either())],
        (None, UplinkKindName::Link) => vec![(None, of(true)), (None, of(false))],
    };
    let forward = |(listen, target): (Option<IpAddr>, Option<IpAddr>)| {
        let to = SocketAddr::new(target?, *to);
        Some(ForwardSpec { key: ForwardKey { v6: to.is_ipv6(), listen, ..key.clone() }, to })
    };
    let forwards: Vec<ForwardSpec> = targets.into_iter().filter_map(forward).collect();
    forwards.iter().try_for_each(|forward| forward.rule().map(drop))?;
    Ok(forwards)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(addresses: &[&str], listen: Option<&str>, kind: UplinkKindName, count: u16) -> Vec<String> {
        let addresses: Vec<IpNet> = addresses.iter().map(|net| net.parse().unwrap()).collect();
        let listen = listen.map(|text| text.parse().unwrap());
        let port = PublishedPort { protocol: "tcp".to_owned(), listen, port: 8080, to: 80, count };
        let uplink = "up".parse().unwrap();
        let forwards = forwards(&port, &addresses, (&uplink, kind)).unwrap();
        forwards.iter().map(|forward| format!("{} {}", forward.key, forward.to)).collect()
    }

    #[test]
    fn each_ip_version_leads_to_the_address_of_its_own() {
        use UplinkKindName::{Host, Link};
        let both = ["10.0.0.2/24", "fd00::2/64"];
        assert_eq!(
            published(&both, None, Host, 1),
            ["up tcp/8080 --listen 0.0.0.0 10.0.0.2:80", "up tcp6/8080 --listen :: [fd00::2]:80"]
        );
        assert_eq!(published(&both, None, Link, 1), ["up tcp/8080 10.0.0.2:80", "up tcp6/8080 [fd00::2]:80"]);
        assert_eq!(published(&both[..1], None, Host, 1), ["up tcp/8080 10.0.0.2:80"]);
        assert_eq!(published(&both, Some("::1"), Host, 1), ["up tcp6/8080 --listen ::1 [fd00::2]:80"]);
        assert_eq!(published(&both[..1], Some("::1"), Host, 1), ["up tcp/8080 --listen ::1 10.0.0.2:80"]);
        assert!(published(&both[..1], Some("::1"), Link, 1).is_empty());
        let everybody =
            PublishedPort { protocol: "tcp".to_owned(), listen: "224.0.0.1".parse().ok(), port: 80, to: 80, count: 1 };
        let error = forwards(&everybody, &["10.0.0.2/24".parse().unwrap()], (&"up".parse().unwrap(), Host)).unwrap_err();
        assert!(error.to_string().contains("\"224.0.0.1\" is not an address to listen on"), "{error}");
        assert_eq!(published(&both[..1], None, Host, 101), ["up tcp/8080-8180 10.0.0.2:80"], "a range is one rule");
    }
}
