//! Which of Docker's endpoints are those of dead containers: decided by what is kept, by when Docker last spoke of each, and by the time that it is
//! given. `endpoint` asks and carries it out. Looks at the files of sandboxes alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::docker::{Docker, DockerError, Endpoint, EndpointId};

/// How long an endpoint may be without a sandbox before its container counts as dead; Docker goes on at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// When Docker last spoke of endpoints whose devices have not been seen in a sandbox yet.
#[derive(Debug, Default)]
pub(in crate::control) struct Awaited(BTreeMap<EndpointId, Instant>);

impl Awaited {
    /// The devices of all endpoints.
    pub(super) fn all(docker: &Docker, now: Instant) -> Self {
        Self(docker.endpoints.keys().map(|id| (id.clone(), now)).collect())
    }

    /// Awaits the device of an endpoint of which Docker speaks now.
    pub(super) fn begin(&mut self, id: EndpointId, now: Instant) {
        self.0.insert(id, now);
    }

    /// Stops awaiting the devices that have arrived, and those of endpoints that are gone.
    pub(super) fn settle(&mut self, docker: &Docker, has_arrived: impl Fn(&Endpoint) -> bool) {
        self.0.retain(|id, _| docker.endpoints.get(id).is_some_and(|endpoint| !has_arrived(endpoint)));
    }

    /// Endpoints whose containers are dead.
    pub(super) fn dead(&self, docker: &Docker, now: Instant) -> BTreeSet<EndpointId> {
        let dead = docker.endpoints.iter().filter(|(id, endpoint)| !self.is_alive(id, endpoint, now));
        dead.map(|(id, _)| id.clone()).collect()
    }

    /// Endpoints that have an address of a new one and whose containers are dead.
    ///
    /// # Errors
    /// One has it whose container lives.
    pub(super) fn rivals(
        &self,
        new: &Endpoint,
        docker: &Docker,
        now: Instant,
        has_arrived: impl Fn(&Endpoint) -> bool,
    ) -> Result<BTreeSet<EndpointId>, DockerError> {
        let mut stale = BTreeSet::new();
        for (id, old) in docker.endpoints.iter().filter(|(_, old)| old.network == new.network) {
            let address = old.addresses.iter().find(|net| new.has(net.addr())).map(|net| net.addr().to_string());
            let mac = (old.mac == new.mac).then(|| old.mac.to_string());
            // Docker gives an IP address to one container at a time, so that it has forgotten the other; a MAC address comes from the user.
            let starting = address.is_none() && self.has(id, now);
            let Some(shared) = address.or(mac) else { continue };
            if self.is_alive(id, old, now) && (starting || has_arrived(old)) {
                return Err(DockerError::AddressTaken(shared, old.port.clone()));
            }
            stale.insert(id.clone());
        }
        Ok(stale)
    }

    fn is_alive(&self, id: &EndpointId, endpoint: &Endpoint, now: Instant) -> bool {
        match &endpoint.sandbox {
            _ if endpoint.left => false,
            Some(sandbox) if sandbox.inode.is_some() => sandbox.is_alive(),
            Some(sandbox) => sandbox.is_alive() || self.has(id, now),
            None => self.has(id, now),
        }
    }

    fn has(&self, id: &EndpointId, now: Instant) -> bool {
        self.0.get(id).is_some_and(|since| now.saturating_duration_since(*since) < PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::Sandbox;

    fn id(letter: &str) -> EndpointId {
        letter.repeat(64).try_into().unwrap()
    }

    fn endpoint(letter: &str, mac: u8, address: &str) -> Endpoint {
        let value = serde_json::json!({
            "network": "f".repeat(64), "port": format!("ep-{letter}"), "mac": format!("02:00:00:00:00:0{mac}"),
            "addresses": [address], "rates": {}, "sandbox": null, "left": false, "published": [],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_container_may_come_for_a_minute_and_is_dead_then() {
        let (start, mut awaited) = (Instant::now(), Awaited::default());
        let mut docker = Docker::default();
        docker.endpoints.insert(id("a"), endpoint("a", 1, "10.0.0.2/24"));
        assert_eq!(awaited.dead(&docker, start), [id("a")].into());
        awaited.begin(id("a"), start);
        let dead =
            |awaited: &Awaited, docker: &Docker, seconds| awaited.dead(docker, start + Duration::from_secs(seconds)).len();
        assert_eq!([0, 59, 60].map(|seconds| dead(&awaited, &docker, seconds)), [0, 0, 1]);
        // What has a sandbox that is there lives without being awaited, until it leaves.
        docker.endpoints.get_mut(&id("a")).unwrap().sandbox = Some(Sandbox { path: "/proc".into(), inode: None });
        awaited.settle(&docker, |_| true);
        assert_eq!(dead(&awaited, &docker, 600), 0);
        docker.endpoints.get_mut(&id("a")).unwrap().left = true;
        assert_eq!(dead(&awaited, &docker, 0), 1);
        assert_eq!(dead(&Awaited::all(&docker, start), &docker, 0), 1, "it has left");
    }

    #[test]
    fn an_address_passes_on_from_the_dead_and_not_from_the_living() {
        let start = Instant::now();
        let mut docker = Docker::default();
        docker.endpoints.insert(id("a"), endpoint("a", 1, "10.0.0.2/24"));
        let mut awaited = Awaited::all(&docker, start);
        let rivals = |awaited: &Awaited, docker: &Docker, new: &Endpoint, arrived: bool| {
            awaited.rivals(new, docker, start, |_| arrived).map_err(|error| error.to_string())
        };
        let same_mac = endpoint("b", 1, "10.0.0.3/24");
        let same_address = endpoint("b", 2, "10.0.0.2/24");
        assert_eq!(rivals(&awaited, &docker, &endpoint("b", 2, "10.0.0.3/24"), true), Ok(BTreeSet::new()));
        // One that starts keeps the address that its user gave; of one that Docker gave, Docker knows better.
        assert!(rivals(&awaited, &docker, &same_mac, false).unwrap_err().contains("02:00:00:00:00:01"));
        assert_eq!(rivals(&awaited, &docker, &same_address, false), Ok([id("a")].into()));
        assert!(rivals(&awaited, &docker, &same_address, true).unwrap_err().contains("10.0.0.2"));
        awaited.settle(&docker, |_| true);
        assert_eq!(
            rivals(&awaited, &docker, &same_mac, true),
            Ok([id("a")].into()),
            "nothing awaits it, and it has no sandbox"
        );
    }
}
