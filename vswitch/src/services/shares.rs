//! A fair share of something bounded for each port: questions to resolvers, connections to the DNS server, leases. `services/mod.rs`,
//! `dns/stream.rs` and `leases.rs` count by it. Pure functions.

use std::collections::HashMap;

use api::PortName;
use plane::table::may_have_another;

/// How much of something bounded is in use, by port.
///
/// **Fairness.** [`may_have_another`].
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    all: usize,
    ports: HashMap<PortName, usize>,
}

impl Shares {
    /// Nothing in use of `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { most, all: 0, ports: HashMap::new() }
    }

    /// Whether the port may have one more now; counts it if so.
    pub(super) fn begin(&mut self, port: &PortName) -> bool {
        let own = self.ports.get(port).copied().unwrap_or_default();
        let admitted = may_have_another(own, self.all, self.most);
        if admitted {
            self.all += 1;
            self.ports.insert(port.clone(), own + 1);
        }
        admitted
    }

    /// The port has one less.
    pub(super) fn end(&mut self, port: &PortName) {
        if let Some(own) = self.ports.get_mut(port) {
            *own -= 1;
            self.all -= 1;
            if *own == 0 {
                self.ports.remove(port);
            }
        }
    }
}
