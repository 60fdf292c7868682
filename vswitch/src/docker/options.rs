//! What `docker network create -o` says to the driver.

use std::fmt;
use std::net::IpAddr;

use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::DockerError;
use super::message::{self, Driver, GENERIC, IFNAME};
use super::overlay::{ENCRYPT, NET};
use api::{BridgeName, InterfaceName, MOST_TAP_MTU, OverlayName, PortKind, PortName, Rate};

/// As macvlan's.
const PARENT: &str = "parent";
const BRIDGE: &str = "vswitch.bridge";
const UPLINK: &str = "vswitch.uplink";
const VLAN: &str = "vswitch.vlan";
const MTU: &str = "vswitch.mtu";
/// What Docker's own drivers call the MTU.
const DRIVER_MTU: &str = "com.docker.network.driver.mtu";
const ISOLATED: &str = "vswitch.isolated";
const GUARD: &str = "vswitch.guard";
const ATTACH: &str = "vswitch.attach";
const SEND_RATE: &str = "vswitch.send-rate";
const RECEIVE_RATE: &str = "vswitch.receive-rate";
const MAC: &str = "vswitch.mac";
/// What Docker's own bridge knows.
const ICC: &str = "com.docker.network.bridge.enable_icc";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// What every driver of Docker's knows. The driver need not heed `ADVERTISE`: dockerd itself makes a container known to its neighbours.
const PREFIX: &str = "com.docker.network.container_iface_prefix";
const ADVERTISE: [&str; 2] = ["com.docker.network.advertise_addr_nmsgs", "com.docker.network.advertise_addr_ms"];
const KNOWN: [&str; 10] = [BRIDGE, UPLINK, VLAN, MTU, DRIVER_MTU, ISOLATED, GUARD, ATTACH, SEND_RATE, RECEIVE_RATE];
const KNOWN_OF_BRIDGES: [&str; 4] = [ICC, HOST_BINDING, BRIDGE_NAME, MASQUERADE];
const KNOWN_ON_OVERLAYS: [&str; 10] = [NET, ENCRYPT, UPLINK, MTU, DRIVER_MTU, ISOLATED, GUARD, ATTACH, SEND_RATE, RECEIVE_RATE];
const KNOWN_ON_LANS: [&str; 8] = [PARENT, VLAN, MTU, DRIVER_MTU, GUARD, ATTACH, SEND_RATE, RECEIVE_RATE];

/// The options of a network. What is `None` was not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct NetworkOptions {
    /// The interface of the LAN that the network is part of, of a network of the driver `vswitch-lan`.
    pub parent: Option<InterfaceName>,
    /// A bridge of `switch.toml` that the network is on, instead of one of its own.
    pub bridge: Option<BridgeName>,
    /// The overlay network that the network is a part of, of one of the driver `vswitch-overlay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<OverlayName>,
    /// Whether that network is an encrypted one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encrypt: bool,
    /// The uplink of its bridge.
    pub uplink: Option<PortName>,
    /// The VLAN of its ports.
    pub vlan: Option<VlanId>,
    /// The MTU of its bridge in bytes.
    pub mtu: Option<u16>,
    /// Whether nothing is routed between it and other bridges.
    pub isolated: Option<bool>,
    /// Whether its ports are guarded.
    pub guard: bool,
    /// What its containers are attached by.
    pub attach: Attach,
    /// How fast each of its containers may be.
    pub rates: Rates,
    /// Whether its containers do not reach each other.
    pub protected: bool,
    /// Where ports are published that name no address; `None`: everywhere.
    pub publish_at: Option<IpAddr>,
    /// What its containers' interfaces are called, before a number; `None`: `eth`.
    pub prefix: Option<String>,
}

/// How fast a container may be; `None`: there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Rates {
    /// Most that it may send.
    pub send: Option<Rate>,
    /// Most that it may receive.
    pub receive: Option<Rate>,
}

impl Rates {
    /// Reads the options of a container, which has those of its network where it says nothing. Docker's own are about the
    /// sandbox, or come again when they matter.
    ///
    /// # Errors
    /// An option that is unknown, or not a rate.
    pub fn read(options: &message::Options, network: Self) -> Result<Self, DockerError> {
        Self::read_beside(&[], options, network)
    }

    /// The same where other options were read already.
    fn read_beside(others: &[&str], options: &message::Options, network: Self) -> Result<Self, DockerError> {
        let mut read = network;
        for (key, value) in options.iter().filter(|(key, _)| !key.starts_with("com.docker.")) {
            match key.as_str() {
                SEND_RATE => read.send = Some(rate(key, &text(value))?),
                RECEIVE_RATE => read.receive = Some(rate(key, &text(value))?),
                other if others.contains(&other) => {}
                _ => {
                    let known = [&[SEND_RATE, RECEIVE_RATE], others].concat().join(", ");
                    return Err(DockerError::Option(format!(
                        "unknown option `{}` of a container: the driver vswitch knows {known}, and more for networks (docker network create -o)",
                        key.escape_debug()
                    )));
                }
            }
        }
        Ok(read)
    }
}

/// The options of a container's place on a network (`--driver-opt`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointOptions {
    /// How fast it may be: as its network says where it says nothing.
    pub(super) rates: Rates,
    /// Its MAC address.
    pub(super) mac: Option<Mac>,
    /// What its interface is called, before a number.
    pub(super) prefix: Option<String>,
}

impl EndpointOptions {
    /// Reads the options of a container on a network with these.
    ///
    /// # Errors
    /// An option that is unknown, or whose value is none of its own.
    pub(super) fn read(options: &message::Options, network: &NetworkOptions) -> Result<Self, DockerError> {
        let given = |key| options.get(key).map(text);
        let mac = given(MAC).map(|mac| parse(MAC, &mac, "a MAC address, such as 02:00:00:00:00:07")).transpose()?;
        let prefix = given(IFNAME).map(|name| prefix_of(IFNAME, &name)).transpose()?;
        let rates = Rates::read_beside(&[MAC], options, network.rates)?;
        Ok(Self { rates, mac, prefix: prefix.or_else(|| network.prefix.clone()) })
    }
}

/// The prefix of an interface's name. Docker counts a network driver's interfaces itself, from 0.
fn prefix_of(key: &str, value: &str) -> Result<String, DockerError> {
    let what = "a name that ends in 0, such as wan0: Docker numbers the interfaces of a network driver itself, from 0";
    prefix(key, value.strip_suffix('0').unwrap_or_default(), value, what)
}

/// What interfaces may be called before a number.
fn prefix(key: &str, prefix: &str, value: &str, what: &str) -> Result<String, DockerError> {
    let fits = !prefix.is_empty() && format!("{prefix}00").parse::<InterfaceName>().is_ok();
    if fits { Ok(prefix.to_owned()) } else { Err(wrong(key, value, what)) }
}

fn rate(key: &str, value: &str) -> Result<Rate, DockerError> {
    parse(key, value, "bits a second, such as 500kbit, 10mbit or 1gbit")
}

/// What a container is attached by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    /// A TAP, whose other end is the switch itself.
    #[default]
    Tap,
    /// A veth pair, one end of which stays on the host.
    Veth,
}

impl From<Attach> for PortKind {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Tap => Self::Tap,
            Attach::Veth => Self::Veth,
        }
    }
}

impl NetworkOptions {
    /// Reads the options of a network.
    ///
    /// # Errors
    /// One that is unknown, or whose value is none of its own.
    pub(super) fn of_docker(driver: Driver, options: &message::Options) -> Result<Self, DockerError> {
        let given = options
            .get(GENERIC)
            .map(|given| given.as_object().ok_or_else(|| DockerError::Malformed(format!("`{GENERIC}` is no list of options"))));
        Self::read(driver, given.transpose()?.unwrap_or(&serde_json::Map::new()))
    }

    /// Reads what was given with `-o`.
    ///
    /// # Errors
    /// One that is unknown, or whose value is none of its own.
    pub fn read(driver: Driver, given: &serde_json::Map<String, Value>) -> Result<Self, DockerError> {
        let mut read = Self::default();
        let (own, dockers) = match driver {
            Driver::Lan => (&KNOWN_ON_LANS[..], &[][..]),
            // What is between ports of one host only means nothing between hosts.
            Driver::Overlay => (&KNOWN_ON_OVERLAYS[..], &KNOWN_OF_BRIDGES[1..]),
            Driver::Bridge => (&KNOWN[..], &KNOWN_OF_BRIDGES[..]),
        };
        let known = || own.iter().chain(dockers).chain(&ADVERTISE).chain(&[PREFIX]).copied();
        for (key, value) in given {
            if !known().any(|known| known == key) {
                let (key, known) = (key.escape_debug(), known().collect::<Vec<_>>().join(", "));
                return Err(DockerError::Option(format!("unknown option `{key}`: the driver {driver} knows {known}")));
            }
            read.set(key, &text(value))?;
        }
        match driver {
            Driver::Lan if read.parent.is_none() => Err(DockerError::Option(format!(
                "the network has no `{PARENT}`: add -o {PARENT}=eth0, or whatever the interface of its LAN is called"
            ))),
            Driver::Overlay if read.net.is_none() => Err(DockerError::Option(format!(
                "the network has no `{NET}`: add -o {NET}=NAME and --ipam-opt {NET}=NAME, the same name on every host"
            ))),
            _ => read.check(),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), DockerError> {
        match key {
            PARENT => {
                let (parent, vlan) = split_parent(value);
                self.parent = Some(parse(key, parent, "the name of an interface, such as eth0 or, for VLAN 10, eth0.10")?);
                if let Some(vlan) = vlan {
                    self.set_vlan(vlan)?;
                }
            }
            NET => self.net = Some(parse(key, value, "a name of 1 to 63 letters, digits, '-', '_' and '.'")?),
            ENCRYPT => self.encrypt = parse(key, value, "true or false")?,
            BRIDGE => self.bridge = Some(parse(key, value, "the name of a bridge of switch.toml")?),
            UPLINK => self.uplink = Some(parse(key, value, "the name of an uplink")?),
            VLAN => self.set_vlan(parse(key, value, "a number from 1 to 4094")?)?,
            MTU | DRIVER_MTU => {
                let mtu = parse(key, value, "a number from 68 to 65535")?;
                if self.mtu.is_some_and(|other| other != mtu) {
                    return Err(DockerError::Option(format!("`{MTU}` and `{DRIVER_MTU}` differ: give one of them")));
                }
                self.mtu = Some(mtu);
            }
            ISOLATED => self.isolated = Some(parse(key, value, "true or false")?),
            GUARD => self.guard = parse(key, value, "true or false")?,
            ATTACH => {
                self.attach = match value {
                    "tap" => Attach::Tap,
                    "veth" => Attach::Veth,
                    _ => return Err(wrong(key, value, "tap or veth")),
                };
            }
            SEND_RATE => self.rates.send = Some(rate(key, value)?),
            RECEIVE_RATE => self.rates.receive = Some(rate(key, value)?),
            _ => self.set_as_docker(key, value)?,
        }
        Ok(())
    }

    /// Sets an option of Docker's own drivers.
    fn set_as_docker(&mut self, key: &str, value: &str) -> Result<(), DockerError> {
        match key {
            ICC => self.protected = !truth(key, value)?,
            HOST_BINDING => {
                let at: IpAddr = parse(key, value, "an address of the host, such as 127.0.0.1")?;
                // So does Docker: it stands for all.
                self.publish_at = Some(at).filter(|at| *at != IpAddr::from([0; 4]));
            }
            PREFIX => {
                self.prefix =
                    Some(prefix(key, value, value, "what an interface may be called before its number, such as eth")?);
            }
            BRIDGE_NAME => {
                tracing::info!(
                    "Docker's network is not called \"{}\": bridges are called after its identifier",
                    value.escape_debug()
                );
            }
            MASQUERADE if truth(key, value)? => tracing::info!("`{key}` says nothing new: an uplink translates always"),
            MASQUERADE => return Err(wrong(key, value, "true, for an uplink translates always, or leave it out")),
            // Every known key is above.
            _ => {}
        }
        Ok(())
    }

    fn set_vlan(&mut self, vlan: VlanId) -> Result<(), DockerError> {
        match self.vlan.replace(vlan) {
            Some(other) if other != vlan => {
                Err(DockerError::Option(format!("`{PARENT}` and `{VLAN}` name different VLANs: give one of them")))
            }
            _ => Ok(()),
        }
    }

    /// A bridge of `switch.toml` is as `switch.toml` says, and no MTU more than that of what containers are attached by.
    fn check(self) -> Result<Self, DockerError> {
        if let Some(mtu) = self.mtu.filter(|mtu| self.attach == Attach::Tap && *mtu > MOST_TAP_MTU) {
            let what = format!("at most {MOST_TAP_MTU}, which is what a TAP takes, or `{ATTACH}=veth`");
            return Err(wrong(MTU, &mtu.to_string(), what));
        }
        let of_the_bridge = [(self.uplink.is_some(), UPLINK), (self.mtu.is_some(), MTU), (self.isolated.is_some(), ISOLATED)];
        match (&self.bridge, of_the_bridge.into_iter().find(|(given, _)| *given)) {
            (Some(bridge), Some((_, key))) => Err(DockerError::Option(format!(
                "`{key}` is for a network with a bridge of its own: bridge \"{bridge}\" is as switch.toml says, so leave one of the two out"
            ))),
            _ => Ok(self),
        }
    }
}

/// `eth0.10` is VLAN 10 of `eth0`, as for macvlan.
fn split_parent(value: &str) -> (&str, Option<VlanId>) {
    let split = value.rsplit_once('.').and_then(|(parent, vlan)| Some((parent, vlan.parse().ok()?)));
    split.map_or((value, None), |(parent, vlan)| (parent, Some(vlan)))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn parse<T: std::str::FromStr>(key: &str, value: &str, what: &str) -> Result<T, DockerError> {
    value.parse().map_err(|_| wrong(key, value, what))
}

/// Docker's own options are read by Go's `strconv.ParseBool`.
fn truth(key: &str, value: &str) -> Result<bool, DockerError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(wrong(key, value, "true or false")),
    }
}

fn wrong(key: &str, value: &str, what: impl fmt::Display) -> DockerError {
    DockerError::Option(format!("the option `{key}` is \"{}\": use {what}", value.escape_debug()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(given: Value) -> Result<NetworkOptions, String> {
        NetworkOptions::of_docker(Driver::Bridge, &[(GENERIC.to_owned(), given)].into()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_option_is_read() {
        assert_eq!(read(json!({ MTU: "65535", ATTACH: "veth" })).unwrap().mtu, Some(65_535));
        let all = json!({ UPLINK: "wan", VLAN: "7", MTU: "1400", DRIVER_MTU: "1400", ISOLATED: "false", GUARD: "true", ATTACH: "veth", RECEIVE_RATE: "10mbit" });
        let options = read(all).unwrap();
        assert_eq!((options.vlan.map(VlanId::number), options.mtu, options.isolated), (Some(7), Some(1400), Some(false)));
        assert_eq!((options.guard, options.attach), (true, Attach::Veth));
        assert_eq!(options.rates.receive.map(|rate| rate.to_string()), Some("10mbit".to_owned()));
        assert_eq!(options.uplink.map(String::from), Some("wan".to_owned()));
        assert_eq!(read(json!({ BRIDGE: "br0" })).unwrap().bridge.map(String::from), Some("br0".to_owned()));
        assert_eq!(NetworkOptions::of_docker(Driver::Bridge, &message::Options::new()).unwrap(), NetworkOptions::default());
    }

    #[test]
    fn what_is_wrong_with_an_option_is_said() {
        for (given, part) in [
            (json!({ "vswitch.colour": "red" }), "unknown option `vswitch.colour`: the driver vswitch knows vswitch.bridge,"),
            (json!({ VLAN: "0" }), "use a number from 1 to 4094"),
            (json!({ MTU: "9", DRIVER_MTU: "10" }), "differ"),
            (json!({ MTU: "65535" }), "use at most 65521, which is what a TAP takes, or `vswitch.attach=veth`"),
            (json!({ ATTACH: "string" }), "use tap or veth"),
            (json!({ GUARD: 1 }), "use true or false"),
            (json!({ SEND_RATE: "fast" }), "use bits a second, such as 500kbit"),
            (json!({ BRIDGE: "br0", UPLINK: "wan" }), "leave one of the two out"),
            (json!("x"), "no list of options"),
        ] {
            let error = read(given.clone()).unwrap_err();
            assert!(error.contains(part), "{given}: {error}");
        }
    }

    #[test]
    fn a_network_on_a_lan_has_a_parent() {
        let read = |given: Value| {
            NetworkOptions::of_docker(Driver::Lan, &[(GENERIC.to_owned(), given)].into()).map_err(|error| error.to_string())
        };
        for (parent, name, vlan) in [("eth1", "eth1", None), ("eth1.10", "eth1", Some(10)), ("eth.x", "eth.x", None)] {
            let options = read(json!({ PARENT: parent })).unwrap();
            assert_eq!(options.parent.as_ref().map(InterfaceName::as_str), Some(name));
            assert_eq!(options.vlan.map(VlanId::number), vlan);
        }
        assert_eq!(read(json!({ PARENT: "eth1", VLAN: "7" })).unwrap().vlan.map(VlanId::number), Some(7));
        for (given, part) in [
            (json!({}), "no `parent`: add -o parent=eth0"),
            (json!({ PARENT: "eth1.10", VLAN: "11" }), "different VLANs"),
            (json!({ PARENT: "eth/1" }), "use the name of an interface"),
            (json!({ PARENT: "eth1", UPLINK: "wan" }), "the driver vswitch-lan knows parent, vswitch.vlan"),
        ] {
            let error = read(given.clone()).unwrap_err();
            assert!(error.contains(part), "{given}: {error}");
        }
        assert!(
            super::NetworkOptions::of_docker(Driver::Bridge, &[(GENERIC.to_owned(), json!({ PARENT: "eth1" }))].into())
                .is_err()
        );
    }
}
