//! Where a station is in Docker's words. The control side fills it in, and replies show it beside ports, counters, sessions and leases.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A container and the network that it is on, by Docker's names. Names that Docker was not asked for yet are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerPlace {
    /// What Docker calls the container.
    pub container: Option<String>,
    /// What Docker calls the network.
    pub network: Option<String>,
}

impl fmt::Display for DockerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.container, &self.network) {
            (Some(container), Some(network)) => write!(f, "{container} on {network}"),
            (Some(name), None) | (None, Some(name)) => f.write_str(name),
            (None, None) => Ok(()),
        }
    }
}
