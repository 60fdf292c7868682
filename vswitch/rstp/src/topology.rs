//! The topology change machine: a port that begins to forward says so, and the bridges that hear it forget where stations were.

use crate::SECOND;
use crate::bridge::{Action, Bridge};
use crate::port::{ChangePhase, Role};

impl Bridge {
    /// Moves once.
    pub(crate) fn follow_topology(&mut self, at: usize) -> bool {
        let port = &mut self.ports[at];
        let (active, learning) = (port.is_active(), port.roles.learn || port.is_learning());
        let changes = &mut port.changes;
        let heard = changes.received || changes.notified || changes.acknowledged || changes.propagate;
        match changes.phase {
            ChangePhase::Inactive if port.roles.learn => self.listen(at),
            ChangePhase::Learning if heard => self.listen(at),
            ChangePhase::Learning if active && port.roles.forward && !port.edge => self.detect(at),
            ChangePhase::Learning if !active && !learning => {
                (changes.phase, changes.acknowledge, port.timers.topology_change) = (ChangePhase::Inactive, false, 0);
                self.actions.push(Action::Flush(port.number));
            }
            ChangePhase::Active if !active || port.edge => self.listen(at),
            ChangePhase::Active if changes.notified || changes.received => self.hear_change(at),
            ChangePhase::Active if changes.propagate => {
                changes.propagate = false;
                self.actions.push(Action::Flush(port.number));
                self.announce(at);
            }
            ChangePhase::Active if changes.acknowledged => {
                (changes.acknowledged, port.timers.topology_change) = (false, 0);
            }
            _ => return false,
        }
        true
    }

    /// LEARNING.
    fn listen(&mut self, at: usize) {
        let changes = &mut self.ports[at].changes;
        changes.phase = ChangePhase::Learning;
        (changes.received, changes.notified, changes.acknowledged, changes.propagate) = (false, false, false, false);
    }

    /// DETECTED.
    fn detect(&mut self, at: usize) {
        self.announce(at);
        self.propagate(at);
        self.topology_changes += 1;
        let port = &mut self.ports[at];
        (port.new_info, port.changes.phase) = (true, ChangePhase::Active);
        port.counts.topology_changes += 1;
        self.actions.push(Action::TopologyChange(port.number));
    }

    /// NOTIFIED_TCN and NOTIFIED_TC.
    fn hear_change(&mut self, at: usize) {
        if self.ports[at].changes.notified {
            self.announce(at);
        }
        let port = &mut self.ports[at];
        (port.changes.received, port.changes.notified) = (false, false);
        port.changes.acknowledge |= port.roles.role == Role::Designated;
        if self.ports.iter().all(|port| port.timers.topology_change == 0) {
            self.topology_changes += 1;
        }
        self.propagate(at);
    }

    /// `setTcPropTree`.
    fn propagate(&mut self, from: usize) {
        let others = self.ports.iter_mut().enumerate().filter(|(at, _)| *at != from);
        others.for_each(|(_, port)| port.changes.propagate = true);
    }

    /// `newTcWhile`: how long the port says that the topology has changed.
    fn announce(&mut self, at: usize) {
        let root = self.root.times;
        let port = &mut self.ports[at];
        if port.timers.topology_change != 0 {
            return;
        }
        if port.migration.send_rapid {
            port.timers.topology_change = port.info.designated_times.hello() + SECOND;
            port.new_info = true;
        } else {
            port.timers.topology_change = root.max_age() + root.forward_delay();
        }
    }
}
