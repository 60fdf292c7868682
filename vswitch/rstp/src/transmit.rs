//! The port transmit machine: when a port says what.

use crate::SECOND;
use crate::bpdu::{Bpdu, Flags, Message, MessageRole};
use crate::bridge::{Action, Bridge};
use crate::port::{Port, Role};

/// Most BPDUs that leave a port in a second (`TxHoldCount`).
const HOLD: u8 = 6;

impl Bridge {
    /// Moves once.
    pub(crate) fn transmit(&mut self, at: usize) -> bool {
        let port = &mut self.ports[at];
        if !port.enabled || !port.roles.selected || port.roles.update {
            return false;
        }
        let hello = port.info.designated_times.hello();
        if port.timers.hello == 0 {
            let changing = port.roles.role == Role::Root && port.timers.topology_change != 0;
            port.new_info |= port.roles.role == Role::Designated || changing;
            port.timers.hello = hello;
            return true;
        }
        if !port.new_info || port.timers.sent >= HOLD {
            return false;
        }
        let Some(bpdu) = port.message() else { return false };
        (port.new_info, port.timers.hello) = (false, hello);
        port.timers.sent += 1;
        if port.info.told.tell(port.info.designated) {
            port.timers.settling = SECOND;
        }
        port.counts.sent += 1;
        if bpdu != Bpdu::TopologyChange {
            port.changes.acknowledge = false;
        }
        self.actions.push(Action::Send(port.number, bpdu));
        true
    }
}

impl Port {
    /// What it says now; nothing, where a port of its role says nothing in the older protocol.
    fn message(&self) -> Option<Bpdu> {
        let changing = Flags::default().with(Flags::TOPOLOGY_CHANGE, self.timers.topology_change != 0);
        let message = |flags| Message { flags, vector: self.info.designated, times: self.info.designated_times };
        match (self.migration.send_rapid, self.roles.role) {
            (_, Role::Disabled) => None,
            (true, role) => {
                let role = match role {
                    Role::Root => MessageRole::Root,
                    Role::Designated => MessageRole::Designated,
                    _ => MessageRole::Blocked,
                };
                let flags = changing
                    .of(role)
                    .with(Flags::PROPOSAL, self.info.proposing)
                    .with(Flags::AGREEMENT, self.info.agree)
                    .with(Flags::LEARNING, self.is_learning())
                    .with(Flags::FORWARDING, self.is_forwarding());
                Some(Bpdu::Rapid(message(flags)))
            }
            (false, Role::Designated) => {
                Some(Bpdu::Configuration(message(changing.with(Flags::ACKNOWLEDGEMENT, self.changes.acknowledge))))
            }
            (false, Role::Root) => Some(Bpdu::TopologyChange),
            (false, _) => None,
        }
    }
}
