//! The port role selection machine: from what all ports know, the root, and a role for each port.

use crate::bridge::{Bridge, Root, own};
use crate::port::{InfoIs, Port, Role};
use crate::vector::{Times, Vector};

impl Bridge {
    /// Selects roles if any port asks for it.
    pub(crate) fn select_roles(&mut self) -> bool {
        if self.ports.iter().all(|port| !port.roles.reselect) {
            return false;
        }
        self.root = self.best_root();
        let (root, id) = (self.root, self.id);
        let hello = Times::DEFAULT.hello;
        for port in &mut self.ports {
            port.info.designated = Vector { bridge: id, port: port.id(), ..root.vector };
            port.info.designated_times = Times { hello, ..root.times };
            let (role, update) = port.select(&root, id.address);
            (port.roles.selected_role, port.roles.update) = (role, update);
            (port.roles.reselect, port.roles.selected) = (false, true);
        }
        true
    }

    /// The best of what neighbours say and of this bridge as the root.
    fn best_root(&self) -> Root {
        let own = Root { vector: own(self.id), times: Times::DEFAULT, port: None };
        let heard =
            self.ports.iter().filter(|port| port.has_heard_better() && port.info.vector.bridge.address != self.id.address);
        let roots = heard.map(|port| {
            let cost = port.info.vector.cost.saturating_add(port.settings.cost);
            let vector = Vector { cost, ..port.info.vector };
            Root { vector, times: port.info.times.aged(), port: Some(port.id()) }
        });
        let best = roots.chain([own]).min_by_key(|root| (root.vector, root.port));
        best.unwrap_or(own)
    }
}

impl Port {
    /// Its role, and whether it has to say something else than before (`updtRolesTree`, clause 17.21.25, f to l).
    fn select(&self, root: &Root, own: packet::Mac) -> (Role, bool) {
        let info = &self.info;
        let news = (info.vector, info.times) != (info.designated, info.designated_times);
        match info.is {
            InfoIs::Disabled => (Role::Disabled, false),
            InfoIs::Aged => (Role::Designated, true),
            InfoIs::Mine => (Role::Designated, news),
            InfoIs::Received if root.port == Some(self.id()) => (Role::Root, false),
            InfoIs::Received if info.designated < info.vector => (Role::Designated, true),
            InfoIs::Received if info.vector.bridge.address == own => (Role::Backup, false),
            InfoIs::Received => (Role::Alternate, false),
        }
    }
}
