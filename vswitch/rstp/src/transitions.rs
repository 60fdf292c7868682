//! The port role transition machine: from the role that was selected for a port to what it may learn and forward, without a loop on the way.
//! An agreement of its neighbour, or time, lets a designated port forward; a new root port may as soon as no other was one lately.

use crate::bridge::{Action, Bridge, Version};
use crate::port::{MIGRATE, Phase, Port, Role, State};

impl Bridge {
    /// Moves once.
    pub(crate) fn follow_role(&mut self, at: usize) -> bool {
        let roles = &self.ports[at].roles;
        if !roles.selected || roles.update {
            return false;
        }
        if roles.role != roles.selected_role {
            self.take_role(at);
            return true;
        }
        match roles.phase {
            Phase::Disable | Phase::Block => self.await_silence(at),
            Phase::Disabled => {
                let delay = self.ports[at].info.designated_times.max_age();
                self.ports[at].rest(delay)
            }
            Phase::Root => self.follow_root(at),
            Phase::Designated => self.follow_designated(at),
            Phase::Alternate => self.follow_alternate(at),
        }
    }

    /// The first state of each role.
    fn take_role(&mut self, at: usize) {
        let port = &mut self.ports[at];
        let roles = &mut port.roles;
        roles.role = roles.selected_role;
        self.actions.push(Action::Role(port.number, roles.role));
        let (phase, goes_on) = match roles.role {
            Role::Disabled => (Phase::Disable, false),
            Role::Alternate | Role::Backup => (Phase::Block, false),
            Role::Root => (Phase::Root, true),
            Role::Designated => (Phase::Designated, true),
        };
        roles.phase = phase;
        roles.learn &= goes_on;
        roles.forward &= goes_on;
        if roles.role == Role::Root {
            port.timers.recent_root = port.info.designated_times.forward_delay();
        }
    }

    /// DISABLE_PORT and BLOCK_PORT, which end when the port forwards nothing any more.
    fn await_silence(&mut self, at: usize) -> bool {
        let port = &mut self.ports[at];
        if port.roles.state != State::Discarding {
            return false;
        }
        port.roles.phase = if port.roles.phase == Phase::Disable { Phase::Disabled } else { Phase::Alternate };
        true
    }

    fn follow_root(&mut self, at: usize) -> bool {
        let (all_synced, re_rooted) = (self.all_synced(), self.re_rooted(at));
        let rapid = self.version == Version::Rstp;
        let port = &mut self.ports[at];
        let (roles, info) = (&mut port.roles, &mut port.info);
        let delay = info.designated_times.forward_delay();
        let may_go = port.timers.forward == 0 || re_rooted && port.timers.recent_backup == 0 && rapid;
        if port.timers.recent_root != delay {
            port.timers.recent_root = delay;
        } else if info.proposed && !info.agree {
            info.proposed = false;
            self.set_all(|roles| roles.sync = true);
        } else if all_synced && !info.agree || info.proposed && info.agree {
            (info.proposed, roles.sync, info.agree, port.new_info) = (false, false, true, true);
        } else if !roles.forward && !roles.re_root {
            self.set_all(|roles| roles.re_root = true);
        } else if may_go && !roles.learn {
            port.roles.learn = true;
            port.timers.forward = port.forward_delay();
        } else if may_go && !roles.forward {
            (roles.forward, port.timers.forward) = (true, 0);
        } else if roles.re_root && roles.forward {
            roles.re_root = false;
        } else {
            return false;
        }
        true
    }

    fn follow_designated(&mut self, at: usize) -> bool {
        let port = &mut self.ports[at];
        let (learning, forwarding) = (port.is_learning(), port.is_forwarding());
        let (roles, info, timers) = (&mut port.roles, &mut port.info, &mut port.timers);
        let retires = roles.re_root && timers.recent_root != 0;
        let may_go = (timers.forward == 0 || info.agreed || port.edge) && !retires && !roles.sync;
        let must_stop = roles.sync && !roles.synced || retires || info.disputed;
        if must_stop && !port.edge && (roles.learn || roles.forward) {
            (roles.learn, roles.forward, info.disputed) = (false, false, false);
            port.timers.forward = port.forward_delay();
        } else if !roles.forward && !info.agreed && !info.proposing && !port.edge {
            (info.proposing, timers.edge_delay, port.new_info) = (true, MIGRATE, true);
        } else if !roles.synced && (!learning && !forwarding || info.agreed || port.edge) || roles.sync && roles.synced {
            (timers.recent_root, roles.synced, roles.sync) = (0, true, false);
        } else if timers.recent_root == 0 && roles.re_root {
            roles.re_root = false;
        } else if may_go && !roles.learn {
            roles.learn = true;
            port.timers.forward = port.forward_delay();
        } else if may_go && !roles.forward {
            (roles.forward, timers.forward, info.agreed) = (true, 0, port.migration.send_rapid);
        } else {
            return false;
        }
        true
    }

    fn follow_alternate(&mut self, at: usize) -> bool {
        let all_synced = self.all_synced();
        let port = &mut self.ports[at];
        let info = &mut port.info;
        let recent = 2 * info.designated_times.hello();
        if info.proposed && !info.agree {
            info.proposed = false;
            self.set_all(|roles| roles.sync = true);
        } else if all_synced && !info.agree || info.proposed && info.agree {
            (info.proposed, info.agree, port.new_info) = (false, true, true);
        } else if port.roles.role == Role::Backup && port.timers.recent_backup != recent {
            port.timers.recent_backup = recent;
        } else {
            return port.rest(port.forward_delay());
        }
        true
    }

    /// Whether every port but the root port has stopped, or its neighbour agreed (clause 17.20.3).
    fn all_synced(&self) -> bool {
        let is_synced = |port: &Port| {
            let roles = &port.roles;
            let is_settled = roles.selected && !roles.update && roles.role == roles.selected_role;
            is_settled && (roles.synced || roles.role == Role::Root)
        };
        self.ports.iter().all(is_synced)
    }

    /// Whether no other port was the root port of late (clause 17.20.10).
    fn re_rooted(&self, at: usize) -> bool {
        self.ports.iter().enumerate().all(|(other, port)| other == at || port.timers.recent_root == 0)
    }

    /// Tells every port.
    fn set_all(&mut self, set: impl Fn(&mut crate::port::Roles)) {
        self.ports.iter_mut().for_each(|port| set(&mut port.roles));
    }
}

impl Port {
    /// DISABLED_PORT and ALTERNATE_PORT: it has stopped, and would begin to forward no sooner than after this time.
    fn rest(&mut self, delay: u16) -> bool {
        let roles = &mut self.roles;
        if self.timers.forward == delay && !roles.sync && !roles.re_root && roles.synced {
            return false;
        }
        (self.timers.forward, self.timers.recent_root) = (delay, 0);
        (roles.synced, roles.sync, roles.re_root) = (true, false, false);
        true
    }
}
