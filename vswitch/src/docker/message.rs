//! What Docker writes and reads: the remote network driver and remote IPAM protocols of libnetwork, as Docker 20.10 to 29 speak them.
//!
//! Only what the driver uses is read; what else a message holds is ignored, for every version of Docker adds something.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{EndpointId, NetworkId};
use crate::json;

/// A call that is carried out by the owner of the switch.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `docker network create`.
    CreateNetwork(CreateNetwork),
    /// `docker network rm`.
    DeleteNetwork(NetworkReference),
    /// A container is about to come to a network.
    CreateEndpoint(CreateEndpoint),
    /// It has left.
    DeleteEndpoint(EndpointReference),
    /// Its sandbox is there: the device is wanted.
    Join(Join),
    /// Docker is about to take the device out of the sandbox.
    Leave(EndpointReference),
    /// Its published ports are wanted.
    Publish(Publish),
    /// They are wanted no more.
    Withdraw(EndpointReference),
    /// What `docker inspect` asks about it.
    Describe(EndpointReference),
    /// A subnet is wanted.
    RequestPool(RequestPool),
    /// It is wanted no more.
    ReleasePool(PoolReference),
    /// An address is wanted.
    RequestAddress(RequestAddress),
    /// It is wanted no more.
    ReleaseAddress(ReleaseAddress),
}

impl Request {
    /// What it changes for containers, as the log has it; `None` of a question, and of what Docker's address management asks.
    pub fn change(&self) -> Option<String> {
        let endpoint = |doing: &str, EndpointReference { network, endpoint }: &EndpointReference| {
            Some(format!("{doing} endpoint {endpoint} of network {network}"))
        };
        match self {
            Self::CreateNetwork(request) => Some(format!("create network {}", request.network)),
            Self::DeleteNetwork(request) => Some(format!("delete network {}", request.network)),
            Self::CreateEndpoint(request) => endpoint("create", &request.reference),
            Self::DeleteEndpoint(reference) => endpoint("delete", reference),
            Self::Join(request) => endpoint("join", &request.reference),
            Self::Leave(reference) => endpoint("leave", reference),
            Self::Publish(request) => endpoint("publish ports of", &request.reference),
            Self::Withdraw(reference) => endpoint("withdraw ports of", reference),
            Self::Describe(_)
            | Self::RequestPool(_)
            | Self::ReleasePool(_)
            | Self::RequestAddress(_)
            | Self::ReleaseAddress(_) => None,
        }
    }
}

/// What a call comes to before the control side is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum DockerCall {
    /// It must be carried out.
    Request(Request),
    /// It always has this answer.
    Answer(Value),
}

/// Why a call is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such method: Docker does without some.
    #[error("there is no method {}", .0.escape_default())]
    Unknown(String),
    /// Docker sends a request whose connection broke again with its body drained.
    #[error("the request is empty: Docker lost it with a connection that broke, so try again")]
    Empty,
    /// Not what the method takes.
    #[error("the request is not understood: {0}")]
    Malformed(String),
}

/// Reads a call of a driver: the path, such as `/NetworkDriver.Join`, and the body.
///
/// # Errors
/// It is not one.
pub fn read(driver: Driver, path: &str, body: &[u8]) -> Result<DockerCall, CallError> {
    let request = match path {
        "/Plugin.Activate" => return Ok(DockerCall::Answer(json!({ "Implements": ["NetworkDriver", "IpamDriver"] }))),
        "/NetworkDriver.GetCapabilities" => {
            return Ok(DockerCall::Answer(json!({ "Scope": "local", "ConnectivityScope": "local", "GwAllocChecker": true })));
        }
        // As macvlan does it: the gateway of a LAN is its router, if the user says which that is.
        "/NetworkDriver.GwAllocCheck" => {
            let skip = driver == Driver::Lan;
            return Ok(DockerCall::Answer(json!({ "SkipIPv4": skip, "SkipIPv6": skip })));
        }
        // Of swarm, whose networks a driver of local scope has no part in.
        "/NetworkDriver.AllocateNetwork" => return Ok(DockerCall::Answer(json!({ "Options": {} }))),
        "/NetworkDriver.FreeNetwork" | "/NetworkDriver.DiscoverNew" | "/NetworkDriver.DiscoverDelete" => {
            return Ok(DockerCall::Answer(json!({})));
        }
        "/IpamDriver.GetCapabilities" => {
            return Ok(DockerCall::Answer(json!({ "RequiresMACAddress": false, "RequiresRequestReplay": false })));
        }
        "/IpamDriver.GetDefaultAddressSpaces" => {
            // A network is told the space of its subnets, and so which driver gave them.
            let space = if driver == Driver::Overlay { driver } else { Driver::Bridge };
            let global = format!("{space}-global");
            let spaces = json!({ "LocalDefaultAddressSpace": space.to_string(), "GlobalDefaultAddressSpace": global });
            return Ok(DockerCall::Answer(spaces));
        }
        "/NetworkDriver.CreateNetwork" => Request::CreateNetwork(CreateNetwork { driver, ..parse(body)? }),
        "/NetworkDriver.DeleteNetwork" => Request::DeleteNetwork(parse(body)?),
        "/NetworkDriver.CreateEndpoint" => Request::CreateEndpoint(parse(body)?),
        "/NetworkDriver.DeleteEndpoint" => Request::DeleteEndpoint(parse(body)?),
        "/NetworkDriver.Join" => Request::Join(parse(body)?),
        "/NetworkDriver.Leave" => Request::Leave(parse(body)?),
        "/NetworkDriver.ProgramExternalConnectivity" => Request::Publish(parse(body)?),
        "/NetworkDriver.RevokeExternalConnectivity" => Request::Withdraw(parse(body)?),
        "/NetworkDriver.EndpointOperInfo" => Request::Describe(parse(body)?),
        "/IpamDriver.RequestPool" => Request::RequestPool(RequestPool { driver, ..parse(body)? }),
        "/IpamDriver.ReleasePool" => Request::ReleasePool(parse(body)?),
        "/IpamDriver.RequestAddress" => Request::RequestAddress(parse(body)?),
        "/IpamDriver.ReleaseAddress" => Request::ReleaseAddress(parse(body)?),
        unknown => return Err(CallError::Unknown(unknown.to_owned())),
    };
    Ok(DockerCall::Request(request))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    if body.is_empty() {
        return Err(CallError::Empty);
    }
    json::read(body).map_err(CallError::Malformed)
}

/// Options by their keys; Docker's own have values of many types.
pub type Options = BTreeMap<String, Value>;

/// The options that the user gave with `-o`.
pub const GENERIC: &str = "com.docker.network.generic";
/// Whether the network has no way out (`--internal`).
pub const INTERNAL: &str = "com.docker.network.internal";
/// The ports that `-p` and `-P` publish.
pub const PORT_MAP: &str = "com.docker.network.portmap";
/// Whether the container's IPv6 gateway is on another network, whose endpoint has its IPv6 ports; from Docker 28 on.
pub const NO_PROXY_6_TO_4: &str = "com.docker.network.driver.private.no_proxy_6to4";
/// The name of a container's interface; from Docker 28 on.
pub const IFNAME: &str = "com.docker.network.endpoint.ifname";
/// What an address is requested for.
pub const ADDRESS_TYPE: &str = "RequestAddressType";
/// The value of [`ADDRESS_TYPE`] for the gateway of a network.
pub const GATEWAY: &str = "com.docker.network.gateway";

/// Which driver is asked: each has a socket of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// `vswitch`: a network is a bridge with a gateway.
    #[default]
    Bridge,
    /// `vswitch-lan`: a network is part of a LAN of the host's.
    Lan,
    /// `vswitch-overlay`: a network is the host's part of an overlay network.
    Overlay,
}

impl std::fmt::Display for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Bridge => "vswitch",
            Self::Lan => "vswitch-lan",
            Self::Overlay => "vswitch-overlay",
        })
    }
}

/// A network as the user asked for it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct CreateNetwork {
    /// The driver that was asked; no message says it.
    #[serde(skip)]
    pub driver: Driver,
    /// Which.
    #[serde(rename = "NetworkID")]
    pub network: NetworkId,
    /// Docker's options, [`GENERIC`] among them.
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub options: Options,
    /// Its IPv4 subnets.
    #[serde(rename = "IPv4Data", default, deserialize_with = "or_default")]
    pub v4: Vec<Pool>,
    /// Its IPv6 subnets.
    #[serde(rename = "IPv6Data", default, deserialize_with = "or_default")]
    pub v6: Vec<Pool>,
}

/// A subnet of a network.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pool {
    /// The default address space of the driver that gave the subnet.
    #[serde(rename = "AddressSpace", default)]
    pub space: String,
    /// The subnet, such as `10.78.0.0/24`.
    #[serde(default)]
    pub pool: String,
    /// The gateway's address with its prefix, such as `10.78.0.1/24`; may be empty.
    #[serde(default)]
    pub gateway: String,
}

/// A network by its identifier.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct NetworkReference {
    /// Which.
    #[serde(rename = "NetworkID")]
    pub network: NetworkId,
}

/// An endpoint by its identifier.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct EndpointReference {
    /// Its network.
    #[serde(rename = "NetworkID")]
    pub network: NetworkId,
    /// Which.
    #[serde(rename = "EndpointID")]
    pub endpoint: EndpointId,
}

/// A container's place on a network.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct CreateEndpoint {
    /// Which, and where.
    #[serde(flatten)]
    pub reference: EndpointReference,
    /// The addresses that Docker chose, or the user.
    #[serde(rename = "Interface", default, deserialize_with = "or_default")]
    pub interface: JoinedInterface,
    /// Docker's options, and those of `--driver-opt`.
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub options: Options,
}

/// The addresses of an endpoint; what is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct JoinedInterface {
    /// IPv4, with the subnet's prefix.
    #[serde(rename = "Address", default)]
    pub v4: String,
    /// IPv6, with the subnet's prefix.
    #[serde(rename = "AddressIPv6", default)]
    pub v6: String,
    /// MAC.
    #[serde(rename = "MacAddress", default)]
    pub mac: String,
}

/// A container's sandbox is there.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Join {
    /// Which endpoint.
    #[serde(flatten)]
    pub reference: EndpointReference,
    /// The file of its network namespace.
    #[serde(rename = "SandboxKey", default)]
    pub sandbox: String,
}

/// Ports to be published.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Publish {
    /// The endpoint whose ports they are.
    #[serde(flatten)]
    pub reference: EndpointReference,
    /// Docker's options, [`PORT_MAP`] among them.
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub options: Options,
}

/// What one `-p` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Binding {
    /// The protocol's number (IANA): 6 TCP, 17 UDP, 132 SCTP.
    #[serde(rename = "Proto")]
    pub protocol: u8,
    /// The container's port.
    #[serde(rename = "Port")]
    pub port: u16,
    /// The host's address; empty: all.
    #[serde(rename = "HostIP", default)]
    pub host_ip: String,
    /// The first port of the host that will do; 0: any.
    #[serde(rename = "HostPort", default)]
    pub first: u16,
    /// The last that will do.
    #[serde(rename = "HostPortEnd", default)]
    pub last: u16,
}

/// A subnet is wanted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RequestPool {
    /// The driver that was asked; no message says it.
    #[serde(skip)]
    pub driver: Driver,
    /// What the user gave with `--ipam-opt`.
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub options: Options,
    /// The subnet; empty: any.
    #[serde(rename = "Pool", default)]
    pub pool: String,
    /// The part of it that addresses are chosen from (`--ip-range`); empty: all.
    #[serde(rename = "SubPool", default)]
    pub range: String,
    /// Whether it is for IPv6.
    #[serde(rename = "V6", default)]
    pub v6: bool,
}

/// A subnet by its identifier.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PoolReference {
    /// Which.
    #[serde(rename = "PoolID")]
    pub pool: String,
}

/// An address is wanted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RequestAddress {
    /// From which subnet.
    #[serde(rename = "PoolID")]
    pub pool: String,
    /// The address; empty: any.
    #[serde(rename = "Address", default)]
    pub address: String,
    /// What for.
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub options: Options,
}

/// An address is wanted no more.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ReleaseAddress {
    /// The subnet.
    #[serde(rename = "PoolID")]
    pub pool: String,
    /// The address.
    #[serde(rename = "Address", default)]
    pub address: String,
}

/// Go writes `null` for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn what_docker_sends_is_read() {
        let body = format!(
            r#"{{"NetworkID":"{ID}","Options":{{"com.docker.network.enable_ipv6":true,"com.docker.network.generic":{{"a":"b"}}}},
            "IPv4Data":[{{"AddressSpace":"LocalDefault","AuxAddresses":{{"r1":"10.78.0.5/24"}},"Gateway":"10.78.0.254/24",
            "Pool":"10.78.0.0/24"}}],"IPv6Data":null}}"#
        );
        let Ok(DockerCall::Request(Request::CreateNetwork(network))) =
            read(Driver::Bridge, "/NetworkDriver.CreateNetwork", body.as_bytes())
        else {
            panic!("not a network");
        };
        assert_eq!((network.v4.len(), network.v6.len(), network.v4[0].gateway.as_str()), (1, 0, "10.78.0.254/24"));
        let body = format!(
            r#"{{"NetworkID":"{ID}","EndpointID":"{ID}","Interface":{{"Address":"10.77.0.50/24","AddressIPv6":"","MacAddress":""}},
            "Options":{{"com.docker.network.portmap":[{{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":80,"HostPortEnd":80}}]}}}}"#
        );
        let Ok(DockerCall::Request(Request::CreateEndpoint(endpoint))) =
            read(Driver::Bridge, "/NetworkDriver.CreateEndpoint", body.as_bytes())
        else {
            panic!("not an endpoint");
        };
        assert_eq!(endpoint.interface.v4, "10.77.0.50/24");
        let bindings: Vec<Binding> = serde_json::from_value(endpoint.options[PORT_MAP].clone()).unwrap();
        assert_eq!((bindings[0].protocol, bindings[0].first), (6, 80));
    }

    #[test]
    fn what_is_no_call_is_told_so() {
        assert!(matches!(read(Driver::Bridge, "/NetworkDriver.Fly", b"{}"), Err(CallError::Unknown(_))));
        assert_eq!(read(Driver::Bridge, "/NetworkDriver.Join", b""), Err(CallError::Empty));
        // Of a list, the first would be its first field.
        assert!(matches!(read(Driver::Bridge, "/IpamDriver.RequestPool", b"[]"), Err(CallError::Malformed(_))));
        for body in [&b"{"[..], b"[]", b"null", b"{\"NetworkID\":7}", b"\xff", b"{\"NetworkID\":\"../../etc\"}"] {
            assert!(
                matches!(read(Driver::Bridge, "/NetworkDriver.DeleteNetwork", body), Err(CallError::Malformed(_))),
                "{body:?}"
            );
        }
        assert!(matches!(read(Driver::Bridge, "/Plugin.Activate", b""), Ok(DockerCall::Answer(_))));
    }
}
