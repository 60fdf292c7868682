//! Containers about whose addresses their LANs are asked, and what each comes to by what its LAN says: decided here, carried out by `ask`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use packet::Mac;

use crate::docker::message::CreateEndpoint;
use crate::docker::server::Reply;
use crate::docker::{Docker, DockerError, Endpoint, EndpointId, Network};
use crate::services::client::{Event, Terms};
use api::PortName;

/// A container that waits until its LAN was asked about its address.
pub(in crate::control) struct Asking {
    pub(super) request: CreateEndpoint,
    pub(super) endpoint: Endpoint,
    pub(super) reply: Reply,
    /// The last address that it was given, and the station that has it.
    declined: Option<(Ipv4Addr, Mac)>,
}

/// What is to be done for a container whose LAN has spoken.
pub(super) enum LanVerdict {
    /// Nothing yet.
    Wait,
    /// It gets what a DHCP server has granted.
    Grant(Asking, Terms),
    /// It gets what Docker gave it, which no other station has.
    Admit(Asking),
    /// Docker is told why it cannot be.
    Refuse(Reply, DockerError),
}

/// All that wait.
#[derive(Default)]
pub(in crate::control) struct LanQuestions(BTreeMap<EndpointId, Asking>);

impl LanQuestions {
    /// Takes on a container. Docker asks again after its connection broke: it does not hear the first answer any more.
    pub(super) fn begin(&mut self, request: CreateEndpoint, endpoint: Endpoint, reply: Reply) {
        let id = request.reference.endpoint.clone();
        self.0.insert(id, Asking { request, endpoint, reply, declined: None });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.values().map(|asking| &asking.endpoint)
    }

    /// Keeps those for which this holds and for which Docker still waits.
    pub(super) fn retain(&mut self, keeps: impl Fn(&EndpointId, &Endpoint) -> bool) {
        self.0.retain(|id, asking| !asking.reply.is_closed() && keeps(id, &asking.endpoint));
    }

    /// What a container comes to by what its LAN says; the event again, if no container with this port waits.
    pub(super) fn hear(&mut self, port: &PortName, event: Event, docker: &Docker) -> Result<LanVerdict, Event> {
        let Some(id) = self.0.iter().find(|(_, asking)| asking.endpoint.port == *port).map(|(id, _)| id.clone()) else {
            return Err(event);
        };
        let Some(mut asking) = self.0.remove(&id) else { return Err(event) };
        Ok(match event {
            Event::Bound(terms) => LanVerdict::Grant(asking, terms),
            Event::Free => LanVerdict::Admit(asking),
            Event::Unanswered => asking.refused(docker, DockerError::Unanswered),
            Event::Unfinished => asking.refused(docker, DockerError::Unfinished),
            Event::Conflict(address, mac) if !asking.endpoint.addresses.is_empty() => {
                asking.refused(docker, |lan| DockerError::InUse(lan, address, mac))
            }
            Event::Conflict(address, mac) => {
                tracing::warn!(%port, "DHCP gave {address}, which {mac} has: another is asked for");
                asking.declined = Some((address, mac));
                self.0.insert(id, asking);
                LanVerdict::Wait
            }
            // The lease is one that a crash left, before Docker had the address: the client asks for another.
            Event::Lost => {
                self.0.insert(id, asking);
                LanVerdict::Wait
            }
        })
    }
}

impl Asking {
    fn refused(self, docker: &Docker, refusal: impl FnOnce(String) -> DockerError) -> LanVerdict {
        let lan = docker.networks.get(&self.endpoint.network).map_or_else(String::new, Network::lan);
        let refusal = match self.declined {
            Some((address, mac)) => DockerError::Declined(lan, address, mac),
            None => refusal(lan),
        };
        LanVerdict::Refuse(self.reply, refusal)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// One container that waits, with this address or for one, and where its answer would come.
    fn waiting(addresses: &[&str]) -> (LanQuestions, PortName, oneshot::Receiver<Result<serde_json::Value, String>>) {
        let (network, id) = ("f".repeat(64), "a".repeat(64));
        let request = serde_json::json!({ "NetworkID": network, "EndpointID": id });
        let endpoint = serde_json::json!({
            "network": network, "port": "ep-a", "mac": "02:00:00:00:00:01", "addresses": addresses, "rates": {},
            "sandbox": null, "left": false, "published": [],
        });
        let (reply, answer) = oneshot::channel();
        let mut questions = LanQuestions::default();
        questions.begin(serde_json::from_value(request).unwrap(), serde_json::from_value(endpoint).unwrap(), reply);
        (questions, "ep-a".parse().unwrap(), answer)
    }

    fn conflict() -> Event {
        Event::Conflict("192.0.2.7".parse().unwrap(), Mac([2, 0, 0, 0, 0, 9]))
    }

    #[test]
    fn an_address_that_another_station_has_is_refused_if_docker_gave_it_and_else_another_is_waited_for() {
        let docker = Docker::default();
        let (mut questions, port, _answer) = waiting(&["192.0.2.7/24"]);
        let refusal = match questions.hear(&port, conflict(), &docker) {
            Ok(LanVerdict::Refuse(_, refusal)) => refusal.to_string(),
            _ => panic!("not refused"),
        };
        assert!(refusal.contains("192.0.2.7") && refusal.contains("02:00:00:00:00:09"), "{refusal}");
        assert_eq!(questions.len(), 0);
        let (mut questions, port, _answer) = waiting(&[]);
        for event in [conflict(), Event::Lost] {
            assert!(matches!(questions.hear(&port, event, &docker), Ok(LanVerdict::Wait)));
        }
        // What came of it is worth more to the user than that nothing came afterwards.
        let Ok(LanVerdict::Refuse(_, refusal)) = questions.hear(&port, Event::Unanswered, &docker) else {
            panic!("not refused")
        };
        assert!(refusal.to_string().contains("192.0.2.7"), "{refusal}");
    }

    #[test]
    fn what_is_said_of_a_container_that_waits_for_nothing_is_handed_back() {
        let docker = Docker::default();
        let (mut questions, port, _answer) = waiting(&["192.0.2.7/24"]);
        assert!(matches!(questions.hear(&"ep-b".parse().unwrap(), Event::Free, &docker), Err(Event::Free)));
        assert!(matches!(questions.hear(&port, Event::Free, &docker), Ok(LanVerdict::Admit(_))));
        assert!(matches!(questions.hear(&port, Event::Free, &docker), Err(Event::Free)));
    }

    #[test]
    fn one_for_which_docker_has_stopped_waiting_is_forgotten() {
        let (mut questions, _, answer) = waiting(&[]);
        questions.retain(|_, _| true);
        assert_eq!(questions.endpoints().count(), 1);
        drop(answer);
        questions.retain(|_, _| true);
        assert_eq!(questions.len(), 0);
    }
}
