//! A port and its variables (clause 17.19), in groups by the state machine that owns them.

use serde::{Deserialize, Serialize};

use crate::SECOND;
use crate::bpdu::Message;
use crate::status::PortCounts;
use crate::vector::{PortIdentifier, Times, Vector};

/// How a port of a bridge stands to the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It leads to the root.
    Root,
    /// It leads away from the root, and speaks for the bridge on its link.
    Designated,
    /// It leads to the root as well, on a longer way.
    Alternate,
    /// It leads to a link for which another port of this bridge speaks.
    Backup,
    /// It has no link.
    #[default]
    Disabled,
}

/// What passes a port, besides BPDUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing.
    #[default]
    Discarding,
    /// Nothing, but addresses are learned.
    Learning,
    /// Every frame.
    Forwarding,
}

/// Whether a port leads to a station, and no bridge is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Edge {
    /// It does when no bridge was heard there for three seconds.
    #[default]
    Auto,
    /// It does, until a bridge is heard there.
    Yes,
    /// It does not.
    No,
}

/// What a port is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// A multiple of 16; of two ways as short, that by the port with the lower one is taken.
    pub priority: u8,
    /// What the way through it costs, 1 to 200,000,000.
    pub cost: u32,
    /// Whether it leads to a station.
    pub edge: Edge,
}

/// What the way through a port costs, by the speed of its link in Mb/s (table 17-3).
pub const fn cost_of(megabits: u32) -> u32 {
    match 20_000_000_u32.checked_div(megabits) {
        None => 200_000_000,
        Some(0) => 1,
        Some(cost) => cost,
    }
}

/// Where the information of a port comes from; the state of its port information machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InfoIs {
    Disabled,
    Aged,
    Mine,
    Received,
}

/// What a port and its neighbour say of the way to the root, and what they have agreed on.
#[derive(Debug)]
pub(crate) struct Information {
    pub(crate) is: InfoIs,
    pub(crate) vector: Vector,
    pub(crate) times: Times,
    pub(crate) designated: Vector,
    pub(crate) designated_times: Times,
    pub(crate) told: Told,
    /// A message, and whether it is an RST BPDU, that was not looked at yet.
    pub(crate) message: Option<(Message, bool)>,
    pub(crate) proposing: bool,
    pub(crate) proposed: bool,
    pub(crate) agree: bool,
    pub(crate) agreed: bool,
    pub(crate) disputed: bool,
}

/// What the neighbour was told, which is all that it can have agreed to.
#[derive(Debug, Default)]
pub(crate) struct Told {
    last: Option<Vector>,
    /// What it was told within the last second before that.
    before: Vec<Vector>,
    /// Whether the last was among those: then an agreement may be about the first time.
    doubtful: bool,
}

impl Told {
    /// Takes note of what is told now, and returns whether that is something else than before.
    pub(crate) fn tell(&mut self, vector: Vector) -> bool {
        let changed = self.last != Some(vector);
        if changed {
            self.doubtful = self.before.contains(&vector);
            self.before.extend(self.last.replace(vector));
        }
        changed
    }

    /// For a second it was the same.
    pub(crate) fn settle(&mut self) {
        self.before.clear();
        self.doubtful = false;
    }

    /// Whether an agreement that comes now is about this.
    pub(crate) fn is(&self, vector: Vector) -> bool {
        self.last == Some(vector) && !self.doubtful
    }
}

/// Where the port role transition machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Disable,
    Disabled,
    Root,
    Designated,
    Block,
    Alternate,
}

/// The role of a port, and what is to follow from it.
#[derive(Debug)]
pub(crate) struct Roles {
    pub(crate) phase: Phase,
    pub(crate) role: Role,
    pub(crate) selected_role: Role,
    pub(crate) selected: bool,
    pub(crate) reselect: bool,
    /// `updtInfo`.
    pub(crate) update: bool,
    pub(crate) learn: bool,
    pub(crate) forward: bool,
    /// What was done of it: `learning` and `forwarding`.
    pub(crate) state: State,
    pub(crate) sync: bool,
    pub(crate) synced: bool,
    pub(crate) re_root: bool,
}

/// Where the topology change machine stands between two moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangePhase {
    Inactive,
    Learning,
    Active,
}

/// Changes of the topology, as they are heard and told.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) phase: ChangePhase,
    pub(crate) received: bool,
    pub(crate) notified: bool,
    pub(crate) acknowledged: bool,
    pub(crate) propagate: bool,
    pub(crate) acknowledge: bool,
}

/// Where the port protocol migration machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MigrationPhase {
    CheckingRapid,
    SelectingOld,
    Sensing,
}

/// Which protocol the neighbour speaks.
#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) phase: MigrationPhase,
    pub(crate) send_rapid: bool,
    pub(crate) received_rapid: bool,
    pub(crate) received_old: bool,
}

/// What counts down (clause 17.17), in ticks.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    pub(crate) edge_delay: u16,
    pub(crate) forward: u16,
    pub(crate) hello: u16,
    pub(crate) migration: u16,
    pub(crate) recent_backup: u16,
    pub(crate) information: u16,
    pub(crate) recent_root: u16,
    pub(crate) topology_change: u16,
    /// Until what the neighbour was told has been the same for a second.
    pub(crate) settling: u16,
    /// BPDUs sent of late.
    pub(crate) sent: u8,
}

/// A port.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    pub(crate) settings: PortSettings,
    pub(crate) enabled: bool,
    /// `operEdge`.
    pub(crate) edge: bool,
    /// Whether a BPDU came since its link is up.
    pub(crate) heard: bool,
    pub(crate) new_info: bool,
    pub(crate) info: Information,
    pub(crate) roles: Roles,
    pub(crate) changes: Changes,
    pub(crate) migration: Migration,
    pub(crate) timers: Timers,
    pub(crate) counts: PortCounts,
}

/// Ticks after which a port that heard no bridge may be an edge, and for which a change of the protocol is waited (`MigrateTime`).
pub(crate) const MIGRATE: u16 = 3 * SECOND;

impl Port {
    /// A port without a link, as all machines begin. The bridge has no root yet but itself: `own`.
    pub(crate) fn new(number: u16, settings: PortSettings, own: Vector, times: Times, rapid: bool) -> Self {
        let vector = Vector { port: PortIdentifier::new(settings.priority, number), ..own };
        Self {
            number,
            settings,
            enabled: false,
            edge: settings.edge == Edge::Yes,
            heard: false,
            new_info: true,
            info: Information {
                is: InfoIs::Disabled,
                vector,
                times,
                designated: vector,
                designated_times: times,
                told: Told::default(),
                message: None,
                proposing: false,
                proposed: false,
                agree: false,
                agreed: false,
                disputed: false,
            },
            roles: Roles {
                phase: Phase::Disable,
                role: Role::Disabled,
                selected_role: Role::Disabled,
                selected: false,
                reselect: true,
                update: false,
                learn: false,
                forward: false,
                state: State::Discarding,
                sync: true,
                synced: false,
                re_root: true,
            },
            changes: Changes {
                phase: ChangePhase::Inactive,
                received: false,
                notified: false,
                acknowledged: false,
                propagate: false,
                acknowledge: false,
            },
            migration: Migration {
                phase: MigrationPhase::CheckingRapid,
                send_rapid: rapid,
                received_rapid: false,
                received_old: false,
            },
            timers: Timers {
                edge_delay: MIGRATE,
                migration: MIGRATE,
                recent_root: times.forward_delay(),
                forward: times.max_age(),
                ..Timers::default()
            },
            counts: PortCounts::default(),
        }
    }

    /// Its identifier.
    pub(crate) const fn id(&self) -> PortIdentifier {
        PortIdentifier::new(self.settings.priority, self.number)
    }

    /// `forwardDelay` (clause 17.20.5): a neighbour that speaks RSTP would have answered.
    pub(crate) fn forward_delay(&self) -> u16 {
        let times = self.info.designated_times;
        if self.migration.send_rapid { times.hello() } else { times.forward_delay() }
    }

    pub(crate) fn is_learning(&self) -> bool {
        self.roles.state != State::Discarding
    }

    pub(crate) fn is_forwarding(&self) -> bool {
        self.roles.state == State::Forwarding
    }

    /// Whether it is part of the tree.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.roles.role, Role::Root | Role::Designated)
    }

    /// Has the roles selected anew.
    pub(crate) fn reselect(&mut self) {
        (self.roles.reselect, self.roles.selected) = (true, false);
    }

    /// A tick has passed; every fourth is a second.
    pub(crate) fn count_down(&mut self, second: bool) {
        let Timers {
            edge_delay,
            forward,
            hello,
            migration,
            recent_backup,
            information,
            recent_root,
            topology_change,
            settling,
            sent,
        } = &mut self.timers;
        for timer in [edge_delay, forward, hello, migration, recent_backup, information, recent_root, topology_change, settling]
        {
            *timer = timer.saturating_sub(1);
        }
        if second {
            *sent = sent.saturating_sub(1);
        }
        if *settling == 0 {
            self.info.told.settle();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_those_of_the_table() {
        let costs = [0, 10, 100, 1000, 10_000, 100_000, 1_000_000, u32::MAX].map(cost_of);
        assert_eq!(costs, [200_000_000, 2_000_000, 200_000, 20_000, 2000, 200, 20, 1]);
    }
}
