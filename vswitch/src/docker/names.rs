//! What Docker calls its containers and networks, read from the answers of its API. `daemon.rs` asks for them; the control side shows them.
//! Pure functions.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Docker, Endpoint, EndpointId, NetworkId};
use api::{BridgeName, DockerPlace};

/// Longest name that is shown, in bytes.
const LONGEST: usize = 255;

/// What Docker calls its containers and networks.
///
/// A driver is told identifiers only. Names are Docker's to give and to change, so they are no part of what is kept: they are looked up
/// ([`daemon`](super::daemon)) and shown, nothing depends on them, and there are never more than [`Docker`] has networks and endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    networks: BTreeMap<NetworkId, String>,
    containers: BTreeMap<EndpointId, String>,
}

impl Names {
    /// Reads what Docker's API answers to `GET /networks` and `GET /containers/json`. What is not as expected has no name.
    pub fn read(networks: &Value, containers: &Value) -> Self {
        let network = |network: &Value| Some((id(&network["Id"])?, name(network["Name"].as_str()?)?));
        let endpoints = |container| {
            let (name, places) = container_name(container).zip(container["NetworkSettings"]["Networks"].as_object())?;
            Some(places.values().filter_map(move |place| Some((id(&place["EndpointID"])?, name.clone()))))
        };
        let containers = list(containers).filter_map(endpoints).flatten().collect();
        Self { networks: list(networks).filter_map(network).collect(), containers }
    }

    /// Forgets those of networks and endpoints that are not there.
    pub fn retain(&mut self, docker: &Docker) {
        self.networks.retain(|id, _| docker.networks.contains_key(id));
        self.containers.retain(|id, _| docker.endpoints.contains_key(id));
    }

    /// Whether every network and every container that has joined one has its name.
    pub fn is_complete(&self, docker: &Docker) -> bool {
        let joined = |endpoint: &Endpoint| endpoint.sandbox.is_some() && !endpoint.left;
        let named = |(id, endpoint): (&EndpointId, &Endpoint)| self.containers.contains_key(id) || !joined(endpoint);
        docker.networks.keys().all(|id| self.networks.contains_key(id)) && docker.endpoints.iter().all(named)
    }

    /// Where an endpoint is.
    pub fn place(&self, id: &EndpointId, endpoint: &Endpoint) -> DockerPlace {
        DockerPlace { container: self.containers.get(id).cloned(), network: self.networks.get(&endpoint.network).cloned() }
    }

    /// The networks that are on a bridge.
    pub fn networks_on(&self, bridge: &BridgeName, docker: &Docker) -> Vec<String> {
        let on_it = docker.networks.iter().filter(|(_, network)| network.bridge == *bridge);
        on_it.filter_map(|(id, _)| self.networks.get(id).cloned()).collect()
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn id<T: TryFrom<String>>(value: &Value) -> Option<T> {
    value.as_str()?.to_owned().try_into().ok()
}

/// A container's own name; besides that it has one under each container that links to it.
fn container_name(container: &Value) -> Option<String> {
    let own = |text: &Value| text.as_str()?.strip_prefix('/').filter(|rest| !rest.contains('/')).and_then(name);
    list(&container["Names"]).find_map(own)
}

/// A name that can be shown on a terminal.
fn name(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept() -> Docker {
        serde_json::from_value(json!({
            "networks": { "11111111aa": { "bridge": "docker-11111111", "subnets": [], "internal": false, "options": {} } },
            "endpoints": {
                "22222222aa": {
                    "network": "11111111aa", "port": "ep-22222222", "mac": "02:42:0a:00:00:02", "addresses": ["10.0.0.2/24"],
                    "rates": {}, "sandbox": { "path": "/run/x", "inode": 1 }, "left": false, "published": [],
                },
            },
        }))
        .unwrap()
    }

    fn networks() -> Value {
        json!([{ "Name": "bridge", "Id": "33333333bb" }, { "Name": "net1", "Id": "11111111aa" }])
    }

    #[test]
    fn a_container_has_its_own_name_and_not_that_of_a_link_to_it() {
        let containers = json!([
            { "Names": ["/shop/db", "/box"], "NetworkSettings": { "Networks": { "net1": { "EndpointID": "22222222aa" }, "x": null } } },
        ]);
        let (names, docker) = (Names::read(&networks(), &containers), kept());
        let (id, endpoint) = docker.endpoints.first_key_value().unwrap();
        assert_eq!(names.place(id, endpoint).to_string(), "box on net1");
        assert_eq!(names.networks_on(&"docker-11111111".parse().unwrap(), &docker), ["net1"]);
        assert!(names.is_complete(&docker));
    }

    #[test]
    fn names_are_complete_when_whoever_joined_has_one() {
        let mut docker = kept();
        let names = Names::read(&networks(), &json!([]));
        assert!(!names.is_complete(&docker));
        docker.endpoints.values_mut().for_each(|endpoint| endpoint.left = true);
        assert!(names.is_complete(&docker));
        assert!(!Names::default().is_complete(&docker));
    }

    #[test]
    fn only_what_the_switch_has_keeps_a_name() {
        let containers = json!([{ "Names": ["/box"], "NetworkSettings": { "Networks": {
            "net1": { "EndpointID": "22222222aa" }, "bridge": { "EndpointID": "44444444aa" } } } }]);
        let mut names = Names::read(&networks(), &containers);
        names.retain(&kept());
        assert_eq!((names.networks.len(), names.containers.len()), (1, 1));
        names.retain(&Docker::default());
        assert_eq!(names, Names::default());
    }

    #[test]
    fn an_answer_that_is_none_names_nobody() {
        let odd = json!([null, {}, { "Names": null }, { "Names": ["/a\u{1b}[2J", "/"], "NetworkSettings": { "Networks": { "n": { "EndpointID": "22222222aa" } } } },
            { "Names": ["/box"], "NetworkSettings": { "Networks": { "host": { "EndpointID": "" } } } }, { "Id": "11111111aa", "Name": "n".repeat(256) }]);
        for answer in [json!(null), json!({ "message": "no" }), odd] {
            assert_eq!(Names::read(&answer, &answer), Names::default(), "{answer}");
        }
    }
}
