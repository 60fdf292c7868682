//! A bridge: what its owner tells it, and how its machines run.

use packet::Mac;

use crate::SECOND;
use crate::bpdu::Bpdu;
use crate::port::{Edge, InfoIs, MIGRATE, Port, PortSettings, Role, State};
use crate::vector::{BridgeIdentifier, PortIdentifier, Times, Vector};

/// Which protocol a bridge speaks of itself (`ForceProtocolVersion`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Version {
    /// That of 1998 only.
    Stp,
    /// RSTP, and the older one on links where that is spoken.
    #[default]
    Rstp,
}

/// What a bridge is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeSettings {
    /// Its address, which no other bridge has.
    pub address: Mac,
    /// A multiple of 4096; the bridge with the lowest is the root.
    pub priority: u16,
    /// What it speaks.
    pub version: Version,
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What may pass a port changes. It must have changed, on every thread that forwards, before the next action.
    State(u16, State),
    /// The addresses learned at a port are to be forgotten.
    Flush(u16),
    /// A BPDU leaves by a port.
    Send(u16, Bpdu),
    /// A port has another role: nothing is to be done.
    Role(u16, Role),
    /// The way to stations changed, and a port with this number is the first of this bridge to tell: nothing is to be done.
    TopologyChange(u16),
}

/// What a bridge knows of the root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    /// `rootPriority`, as the bridge itself would say it.
    pub(crate) vector: Vector,
    pub(crate) times: Times,
    pub(crate) port: Option<PortIdentifier>,
}

/// A bridge.
#[derive(Debug)]
pub struct Bridge {
    pub(crate) id: BridgeIdentifier,
    pub(crate) version: Version,
    pub(crate) root: Root,
    /// By number.
    pub(crate) ports: Vec<Port>,
    pub(crate) actions: Vec<Action>,
    pub(crate) topology_changes: u64,
    tick: u16,
}

/// More rounds of its machines than any event takes: a fault ends here, and goes on at the next tick.
const MOST_ROUNDS: usize = 10_000;

impl Bridge {
    /// Most ports: a port's number has twelve bits, and none is 0.
    pub const MOST_PORTS: u16 = 0x0fff;

    /// A bridge without ports, which is its own root.
    pub fn new(settings: BridgeSettings) -> Self {
        let id = settings.id();
        let root = Root { vector: own(id), times: Times::DEFAULT, port: None };
        let (ports, actions) = (Vec::new(), Vec::new());
        Self { id, version: settings.version, root, ports, actions, topology_changes: 0, tick: 0 }
    }

    /// Changes its settings.
    pub fn set(&mut self, settings: BridgeSettings) {
        if (self.id, self.version) == (settings.id(), settings.version) {
            return;
        }
        (self.id, self.version) = (settings.id(), settings.version);
        for port in &mut self.ports {
            port.restart_migration(settings.version);
            port.reselect();
        }
        self.run();
    }

    /// Makes a port, whose link is down, or changes its settings. A number is from 1 to [`Bridge::MOST_PORTS`]; others are not taken.
    pub fn set_port(&mut self, number: u16, settings: PortSettings) {
        if number == 0 || number > Self::MOST_PORTS {
            return;
        }
        match self.ports.binary_search_by_key(&number, |port| port.number) {
            Ok(at) => self.ports[at].change(settings),
            Err(at) => {
                let rapid = self.version == Version::Rstp;
                self.ports.insert(at, Port::new(number, settings, own(self.id), Times::DEFAULT, rapid));
            }
        }
        self.run();
    }

    /// Removes a port. What its removal has to be done about it comes before.
    pub fn remove_port(&mut self, number: u16) {
        self.set_link(number, false);
        self.ports.retain(|port| port.number != number);
        self.ports.iter_mut().for_each(Port::reselect);
        self.run();
    }

    /// The link of a port came up, or went down.
    pub fn set_link(&mut self, number: u16, up: bool) {
        let Some(port) = self.port_mut(number).filter(|port| port.enabled != up) else { return };
        (port.enabled, port.heard) = (up, false);
        if !up {
            (port.info.message, port.timers.edge_delay) = (None, MIGRATE);
        }
        self.run();
    }

    /// A BPDU came in by a port (the port receive machine).
    pub fn receive(&mut self, number: u16, bpdu: &Bpdu) {
        let Some(port) = self.port_mut(number).filter(|port| port.enabled) else { return };
        port.counts.received += 1;
        (port.heard, port.edge, port.timers.edge_delay) = (true, false, MIGRATE);
        match bpdu {
            Bpdu::Rapid(_) => port.migration.received_rapid = true,
            Bpdu::Configuration(_) | Bpdu::TopologyChange => port.migration.received_old = true,
        }
        match bpdu {
            Bpdu::Rapid(message) | Bpdu::Configuration(message) => {
                let bounded = crate::bpdu::Message { times: message.times.bounded(), ..*message };
                port.info.message = Some((bounded, matches!(bpdu, Bpdu::Rapid(_))));
            }
            Bpdu::TopologyChange => port.changes.notified = true,
        }
        self.run();
    }

    /// A [`TICK`](crate::TICK) has passed.
    pub fn tick(&mut self) {
        self.tick = (self.tick + 1) % SECOND;
        let second = self.tick == 0;
        self.ports.iter_mut().for_each(|port| port.count_down(second));
        self.run();
    }

    /// What is to be done since it was last asked.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn port_mut(&mut self, number: u16) -> Option<&mut Port> {
        let at = self.ports.binary_search_by_key(&number, |port| port.number).ok()?;
        self.ports.get_mut(at)
    }

    /// Lets every machine move until none does.
    fn run(&mut self) {
        for _ in 0..MOST_ROUNDS {
            let mut moved = self.select_roles();
            for at in 0..self.ports.len() {
                moved |= self.find_edge(at);
                moved |= self.migrate(at);
                moved |= self.inform(at);
                moved |= self.follow_role(at);
                moved |= self.change_state(at);
                moved |= self.follow_topology(at);
                moved |= self.transmit(at);
            }
            if !moved {
                return;
            }
        }
        debug_assert!(false, "the machines do not come to rest");
    }

    /// The port state transition machine. What it asks for has happened when the next action is carried out.
    fn change_state(&mut self, at: usize) -> bool {
        let Port { number, roles, .. } = &mut self.ports[at];
        let state = match (roles.state, roles.learn, roles.forward) {
            (State::Discarding, true, _) | (State::Learning, true, false) => State::Learning,
            (State::Learning, true, true) | (State::Forwarding, _, true) => State::Forwarding,
            (State::Discarding, false, _) | (State::Learning, false, _) | (State::Forwarding, _, false) => State::Discarding,
        };
        let moved = state != roles.state;
        if moved {
            roles.state = state;
            self.actions.push(Action::State(*number, state));
        }
        moved
    }
}

impl BridgeSettings {
    fn id(&self) -> BridgeIdentifier {
        BridgeIdentifier { priority: self.priority & 0xf000, address: self.address }
    }
}

impl Port {
    /// Takes on other settings while it runs.
    fn change(&mut self, settings: PortSettings) {
        if self.settings == settings {
            return;
        }
        if settings.edge != self.settings.edge {
            let is_edge = match settings.edge {
                Edge::Yes => !self.heard,
                Edge::Auto => self.edge,
                Edge::No => false,
            };
            self.edge = is_edge;
        }
        self.settings = settings;
        self.reselect();
    }

    /// Whether its information comes from a neighbour.
    pub(crate) fn has_heard_better(&self) -> bool {
        self.info.is == InfoIs::Received
    }
}

/// What a bridge says of itself as the root.
pub(crate) const fn own(id: BridgeIdentifier) -> Vector {
    Vector { root: id, cost: 0, bridge: id, port: PortIdentifier(0) }
}
