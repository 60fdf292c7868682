//! The spanning trees of all bridges: what is told of ports and BPDUs becomes commands to workers, and news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use packet::Mac;
use rstp::{Action, Bpdu, BridgeIdentifier, BridgeSettings, PortSettings, Version};

use api::{BridgeName, InterfaceName, PortName, Stp, StpIdentifier, StpInfo, StpPortInfo, StpRole, StpState};
use plane::datapath::{BridgeId, PortId, Punt};
use plane::worker::{Command, Handle};

/// A bridge that is part of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeSpec {
    pub(crate) name: BridgeName,
    pub(crate) id: BridgeId,
    pub(crate) settings: BridgeSettings,
    pub(crate) ports: Vec<TreePort>,
}

/// A port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreePort {
    pub(crate) name: PortName,
    pub(crate) id: PortId,
    /// Whether frames can pass its link, as far as the kernel has told.
    pub(crate) up: bool,
    /// The device of a link, whose carrier is looked at besides.
    pub(crate) device: Option<InterfaceName>,
    pub(crate) settings: PortSettings,
    /// Whether a BPDU takes it down.
    pub(crate) guarded: bool,
}

impl TreePort {
    /// Whether frames can pass its link now.
    fn has_link(&self) -> bool {
        let carrier = |device: &InterfaceName| sys::ethtool::has_carrier(device.as_str()).unwrap_or(true);
        self.up && self.device.as_ref().is_none_or(carrier)
    }
}

/// What passes each port that is in a tree, for those who look. Neither side waits for the other.
pub(crate) type StpStates = Arc<ArcSwap<BTreeMap<PortName, StpState>>>;

/// What happened in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StpNews {
    pub(crate) bridge: BridgeName,
    /// At which port.
    pub(crate) port: PortName,
    pub(crate) what: What,
}

/// And what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The port has another role.
    Role(StpRole),
    /// The port forwards from now on, so the way to stations is another.
    TopologyChange,
    /// A BPDU came in by the port, whose guard lets none in.
    Guarded,
}

/// All trees.
pub(super) struct Trees<F> {
    workers: Vec<Handle>,
    trees: BTreeMap<BridgeId, Tree>,
    states: StpStates,
    tell: F,
}

struct Tree {
    name: BridgeName,
    id: BridgeId,
    settings: BridgeSettings,
    bridge: rstp::Bridge,
    /// By their number in the tree.
    ports: BTreeMap<u16, TreePort>,
    /// Ports at which addresses are to be forgotten, each of which may be named many times in what is received at once.
    flushes: BTreeSet<PortId>,
    /// Whether the state of a port has changed, and was not yet shown.
    moved: bool,
}

impl<F: FnMut(StpNews)> Trees<F> {
    pub(super) const fn new(workers: Vec<Handle>, states: StpStates, tell: F) -> Self {
        Self { workers, trees: BTreeMap::new(), states, tell }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// Takes on these bridges and ports instead of those before. What stays goes on.
    pub(super) fn set(&mut self, specs: Vec<TreeSpec>) {
        self.trees.retain(|id, tree| specs.iter().any(|spec| spec.id == *id && spec.name == tree.name));
        for spec in specs {
            let tree = self.trees.entry(spec.id).or_insert_with(|| Tree::new(&spec));
            tree.settings = spec.settings;
            tree.bridge.set(spec.settings);
            let stays = |old: &TreePort| spec.ports.iter().any(|port| (&port.name, port.id) == (&old.name, old.id));
            let gone: Vec<u16> = tree.ports.iter().filter(|(_, port)| !stays(port)).map(|(number, _)| *number).collect();
            for number in gone {
                tree.bridge.remove_port(number);
                // What had to be done about it is done, or the port is not there any more.
                tree.carry_out(&self.workers, &mut self.tell);
                tree.ports.remove(&number);
            }
            for port in spec.ports {
                let Some(number) = tree.number(&port) else { continue };
                tree.bridge.set_port(number, port.settings);
                tree.bridge.set_link(number, port.has_link());
                tree.ports.insert(number, port);
                tree.carry_out(&self.workers, &mut self.tell);
            }
        }
        self.flush();
        self.publish();
    }

    /// A BPDU came in. One that cannot be read is passed over. When all that waits is received, [`Self::flush`] ends it.
    pub(super) fn receive(&mut self, punt: &Punt) {
        let (Some(tree), Some(bpdu)) = (self.trees.get_mut(&punt.bridge), Bpdu::from_frame(&punt.frame)) else { return };
        let found = tree.ports.iter_mut().find(|(_, port)| port.id == punt.port);
        let Some((&number, port)) = found else { return };
        if port.guarded {
            // It forwards nothing from now on. The control side, which may be busy, takes it down after that.
            port.up = false;
            tree.bridge.set_link(number, false);
            (self.tell)(StpNews { bridge: tree.name.clone(), port: port.name.clone(), what: What::Guarded });
        } else {
            tree.bridge.receive(number, &bpdu);
        }
        tree.carry_out(&self.workers, &mut self.tell);
    }

    /// Has addresses forgotten where what was received asks for it: once for each port, since workers take longer for that than BPDUs to come.
    pub(super) fn flush(&mut self) {
        for tree in self.trees.values_mut() {
            std::mem::take(&mut tree.flushes).into_iter().for_each(|port| flush(&self.workers, tree.id, port));
        }
        if self.trees.values().any(|tree| tree.moved) {
            self.trees.values_mut().for_each(|tree| tree.moved = false);
            self.publish();
        }
    }

    /// Shows what passes each port.
    fn publish(&self) {
        let ports = self.trees.values().flat_map(|tree| tree.ports.iter().map(move |(number, port)| (tree, number, port)));
        let state =
            |(tree, number, port): (&Tree, &u16, &TreePort)| Some((port.name.clone(), tree.bridge.port_status(*number)?.state));
        self.states.store(Arc::new(ports.filter_map(state).collect()));
    }

    /// A [`rstp::TICK`] has passed.
    pub(super) fn tick(&mut self) {
        for tree in self.trees.values_mut() {
            for (number, port) in tree.ports.iter().filter(|(_, port)| port.device.is_some()) {
                tree.bridge.set_link(*number, port.has_link());
            }
            tree.bridge.tick();
            tree.carry_out(&self.workers, &mut self.tell);
        }
        self.flush();
    }

    /// Begins anew with all links that are up: what was heard and agreed on is older than neighbours wait.
    pub(super) fn restart(&mut self) {
        for tree in self.trees.values_mut() {
            let up = |number: &&u16| tree.bridge.port_status(**number).is_some_and(|status| status.role != StpRole::Disabled);
            let up: Vec<u16> = tree.ports.keys().filter(up).copied().collect();
            for link in [false, true] {
                up.iter().for_each(|number| tree.bridge.set_link(*number, link));
                tree.carry_out(&self.workers, &mut self.tell);
            }
        }
        self.flush();
    }

    /// How they stand.
    pub(super) fn list(&self) -> Vec<StpInfo> {
        let mut infos: Vec<StpInfo> = self.trees.values().map(Tree::info).collect();
        infos.sort_by(|one, other| one.bridge.cmp(&other.bridge));
        infos
    }
}

impl Tree {
    fn new(spec: &TreeSpec) -> Self {
        let (name, id, settings) = (spec.name.clone(), spec.id, spec.settings);
        Self {
            name,
            id,
            settings,
            bridge: rstp::Bridge::new(settings),
            ports: BTreeMap::new(),
            flushes: BTreeSet::new(),
            moved: true,
        }
    }

    /// The number of a port, the lowest that is free if it is new; none, if there is none.
    fn number(&mut self, port: &TreePort) -> Option<u16> {
        if let Some((number, _)) = self.ports.iter().find(|(_, known)| known.id == port.id) {
            return Some(*number);
        }
        let number = (1..=rstp::Bridge::MOST_PORTS).find(|number| !self.ports.contains_key(number));
        if number.is_none() {
            tracing::warn!(port = %port.name, "it forwards nothing: a spanning tree has at most 4095 ports of a bridge");
        }
        number
    }

    /// Has the workers do what is to be done, each thing before the next.
    fn carry_out(&mut self, workers: &[Handle], tell: &mut impl FnMut(StpNews)) {
        for action in self.bridge.take_actions() {
            let (Action::State(number, _)
            | Action::Flush(number)
            | Action::Send(number, _)
            | Action::Role(number, _)
            | Action::TopologyChange(number)) = action;
            let Some(TreePort { name, id, .. }) = self.ports.get(&number) else { continue };
            let mut news = |what| tell(StpNews { bridge: self.name.clone(), port: name.clone(), what });
            match action {
                Action::State(_, state) => {
                    set_state(workers, self.id, *id, state);
                    self.moved = true;
                }
                Action::Flush(_) => drop(self.flushes.insert(*id)),
                Action::Send(_, bpdu) => {
                    // A data plane that has stopped ends vswitchd.
                    let frame = bpdu.to_frame(self.settings.address);
                    workers.first().into_iter().for_each(|worker| worker.hint(Command::Transmit(*id, frame.clone())));
                }
                Action::Role(_, role) => news(What::Role(role)),
                Action::TopologyChange(_) => news(What::TopologyChange),
            }
        }
    }

    fn info(&self) -> StpInfo {
        let status = self.bridge.status();
        let name = |number: u16| self.ports.get(&number).map(|port| port.name.clone());
        let ports = self.ports.iter().filter_map(|(number, TreePort { name, .. })| {
            let port = self.bridge.port_status(*number)?;
            let [priority, _] = port.id.0.to_be_bytes();
            Some(StpPortInfo {
                port: name.clone(),
                priority: priority & 0xf0,
                number: *number,
                role: port.role,
                state: port.state,
                cost: port.cost,
                edge: port.edge,
                peer: port.peer,
                designated: identifier(port.designated),
                bpdus_in: port.counts.received,
                bpdus_out: port.counts.sent,
                topology_changes: port.counts.topology_changes,
            })
        });
        let mut ports: Vec<StpPortInfo> = ports.collect();
        ports.sort_by(|one, other| one.port.cmp(&other.port));
        StpInfo {
            bridge: self.name.clone(),
            stp: if self.settings.version == Version::Stp { Stp::Stp } else { Stp::Rstp },
            id: identifier(status.id),
            root: identifier(status.root),
            root_cost: status.cost,
            root_port: status.root_port.and_then(name),
            topology_changes: status.topology_changes,
            ports,
        }
    }
}

const fn identifier(id: BridgeIdentifier) -> StpIdentifier {
    let BridgeIdentifier { priority, address } = id;
    let mac: Mac = address;
    StpIdentifier { priority, mac }
}

/// Has every worker let pass what a state lets pass, and waits until it does.
fn set_state(workers: &[Handle], bridge: BridgeId, port: PortId, state: StpState) {
    for worker in workers {
        // A data plane that has stopped ends vswitchd.
        let _ = worker.ask(|reply| Command::SetTree(bridge, port, state, reply));
    }
}

/// Has every worker forget the addresses at a port. Where there are several, what one of them has told another may still be on its way, so they
/// do it again when each has done it once.
fn flush(workers: &[Handle], bridge: BridgeId, port: PortId) {
    let rounds = if workers.len() > 1 { 2 } else { 1 };
    for _ in 0..rounds {
        workers.iter().for_each(|worker| worker.hint(Command::FlushFdb(bridge, Some(port), None)));
        for worker in workers.iter().filter(|_| rounds > 1) {
            let _ = worker.ask(|reply| Command::IsOpen(port, reply));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use rstp::Edge;

    use super::*;

    const NEIGHBOUR: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn spec(edge: Edge, guarded: &[u32]) -> TreeSpec {
        let port = |id: u32| TreePort {
            name: format!("p{id}").parse().unwrap(),
            id: PortId(id),
            up: true,
            device: None,
            settings: PortSettings { priority: 128, cost: 2000, edge },
            guarded: guarded.contains(&id),
        };
        let settings = BridgeSettings { address: Mac([2, 0, 0, 0, 0, 1]), priority: 4096, version: Version::Rstp };
        TreeSpec { name: "br0".parse().unwrap(), id: BridgeId(0), settings, ports: (0..3).map(port).collect() }
    }

    fn punt(port: u32, bpdu: Bpdu) -> Punt {
        let (frame, ticket) = (bpdu.to_frame(NEIGHBOUR), plane::datapath::Ticket::default());
        Punt { bridge: BridgeId(0), port: PortId(port), vlan: None, frame, ticket }
    }

    /// Trees of one bridge, all of whose ports forward.
    fn forwarding<F: FnMut(StpNews)>(edge: Edge, guarded: &[u32], tell: F) -> (Trees<F>, StpStates) {
        let states = StpStates::default();
        let mut trees = Trees::new(Vec::new(), StpStates::clone(&states), tell);
        trees.set(vec![spec(edge, guarded)]);
        (0..200).for_each(|_| trees.tick());
        assert!(states.load().len() == 3 && states.load().values().all(|state| *state == StpState::Forwarding));
        (trees, states)
    }

    #[test]
    fn a_flood_of_topology_changes_has_addresses_forgotten_once() {
        let (mut trees, _) = forwarding(Edge::No, &[], |_| {});
        (0..500).for_each(|_| trees.receive(&punt(1, Bpdu::TopologyChange)));
        let flushes = &trees.trees[&BridgeId(0)].flushes;
        assert_eq!(flushes.iter().collect::<Vec<_>>(), [&PortId(0), &PortId(2)]);
        trees.flush();
        assert!(trees.trees[&BridgeId(0)].flushes.is_empty());
    }

    #[test]
    fn a_bpdu_where_none_may_come_blocks_the_port_until_it_is_set_up_again() {
        let told = RefCell::new(Vec::new());
        let (mut trees, states) = forwarding(Edge::Auto, &[1], |news: StpNews| told.borrow_mut().push(news));
        let state = |name: &str| states.load()[&name.parse::<PortName>().unwrap()];
        told.borrow_mut().clear();
        trees.receive(&punt(1, Bpdu::TopologyChange));
        trees.flush();
        let guarded = |news: &StpNews| news.port.as_str() == "p1" && news.what == What::Guarded;
        assert!(told.borrow().iter().any(guarded), "{told:?}");
        assert_eq!([state("p0"), state("p1")], [StpState::Forwarding, StpState::Discarding]);
        (0..200).for_each(|_| trees.tick());
        assert_eq!(state("p1"), StpState::Discarding);
        // A port without the guard is no edge any more, and goes on.
        trees.receive(&punt(2, Bpdu::TopologyChange));
        trees.flush();
        assert_eq!(state("p2"), StpState::Forwarding);
        trees.set(vec![spec(Edge::Auto, &[1])]);
        (0..200).for_each(|_| trees.tick());
        assert_eq!(state("p1"), StpState::Forwarding);
    }
}
