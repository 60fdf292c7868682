//! Who is behind a port: a station or a bridge (the bridge detection machine), and which protocol the bridge speaks (the port protocol
//! migration machine).

use crate::bridge::{Bridge, Version};
use crate::port::{Edge, MIGRATE, Migration, MigrationPhase, Port};

impl Bridge {
    /// The bridge detection machine. A BPDU ends an edge before this runs, in [`Bridge::receive`]. A bridge that was heard since the link is up may
    /// be silent now because it is the root port that is there, or because what it said was lost: no port becomes an edge then.
    pub(crate) fn find_edge(&mut self, at: usize) -> bool {
        let port = &mut self.ports[at];
        let is_edge = match (port.enabled, port.edge) {
            (false, _) => port.settings.edge == Edge::Yes,
            (true, true) => true,
            (true, false) => {
                let silent = !port.heard && port.timers.edge_delay == 0 && port.info.proposing && port.migration.send_rapid;
                port.settings.edge == Edge::Auto && silent
            }
        };
        std::mem::replace(&mut port.edge, is_edge) != is_edge
    }

    /// The port protocol migration machine.
    pub(crate) fn migrate(&mut self, at: usize) -> bool {
        let (version, port) = (self.version, &mut self.ports[at]);
        let Migration { phase, send_rapid, received_rapid, received_old } = &mut port.migration;
        let back = version == Version::Rstp && !*send_rapid && *received_rapid;
        match *phase {
            MigrationPhase::CheckingRapid if !port.enabled && port.timers.migration != MIGRATE => {
                port.restart_migration(version);
            }
            MigrationPhase::CheckingRapid | MigrationPhase::SelectingOld if port.enabled && port.timers.migration == 0 => {
                (*phase, *received_rapid, *received_old) = (MigrationPhase::Sensing, false, false);
            }
            MigrationPhase::SelectingOld if !port.enabled => {
                (*phase, *received_rapid, *received_old) = (MigrationPhase::Sensing, false, false);
            }
            MigrationPhase::Sensing if !port.enabled || back => port.restart_migration(version),
            MigrationPhase::Sensing if *send_rapid && *received_old => {
                (*phase, *send_rapid, port.timers.migration) = (MigrationPhase::SelectingOld, false, MIGRATE);
            }
            _ => return false,
        }
        true
    }
}

impl Port {
    /// Speaks what the bridge speaks of itself, and listens for three seconds before that may change.
    pub(crate) const fn restart_migration(&mut self, version: Version) {
        self.migration.phase = MigrationPhase::CheckingRapid;
        self.migration.send_rapid = matches!(version, Version::Rstp);
        self.timers.migration = MIGRATE;
    }
}
