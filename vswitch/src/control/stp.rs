//! Spanning trees: which bridges and ports are in one, as the thread that speaks for them is told, and what it tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rstp::{BridgeSettings, Edge, PortSettings, Version, cost_of};

use super::carrier::TRIPPED;
use super::{Bridge, ControlError, Port, Switch};
use crate::confine::{Confinement, Role};
use crate::stp::{self, StpInput, StpNews, StpStates, TreePort, TreeSpec, What};
use api::{
    BridgeName, EventFacts, EventKind, PortKind, PortName, PortPolicy, PortSpec, PortState, Stp, StpCost, StpEdge, StpInfo,
    StpPortPriority, StpRole, StpState,
};
use plane::datapath::Punt;
use plane::worker::Handle;

/// The speed, in Mb/s, of a device that tells none, or that makes one up as TAPs and veths do.
const SPEED: u32 = 10_000;
/// The priority of a port that was given none.
const PORT_PRIORITY: u8 = 128;

/// The way to the thread that speaks for spanning trees.
pub(super) struct StpThread {
    inputs: Option<Sender<StpInput>>,
    thread: Option<JoinHandle<()>>,
    /// What it was told last.
    specs: Vec<TreeSpec>,
    states: StpStates,
}

impl StpThread {
    /// Starts the thread, confined, which gets the BPDUs that workers punt. What happens in trees goes to `tell`.
    pub(super) fn start(
        workers: Vec<Handle>,
        bpdus: Receiver<Punt>,
        tell: impl FnMut(StpNews) + Send + 'static,
        sandbox: Confinement,
    ) -> std::io::Result<Self> {
        let (inputs, inputs_in) = unbounded();
        let states = StpStates::default();
        let shown = StpStates::clone(&states);
        let run = move || {
            sandbox.enter(Role::Trees);
            stp::run((workers, shown), &inputs_in, &bpdus, tell);
        };
        let thread = std::thread::Builder::new().name("stp".to_owned()).spawn(run)?;
        Ok(Self { inputs: Some(inputs), thread: Some(thread), specs: Vec::new(), states })
    }

    /// Tells the thread which trees there are, and waits until it knows.
    fn set(&mut self, specs: Vec<TreeSpec>) {
        if self.specs == specs {
            return;
        }
        self.specs.clone_from(&specs);
        self.ask(|done| StpInput::Set(specs, done));
    }

    fn ask<T>(&self, input: impl FnOnce(Sender<T>) -> StpInput) -> Option<T> {
        let (reply, answer) = bounded(1);
        self.inputs.as_ref()?.send(input(reply)).ok()?;
        answer.recv().ok()
    }
}

impl Drop for StpThread {
    fn drop(&mut self) {
        self.inputs = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Switch {
    /// Tells the thread what is in trees now. To be called whenever a bridge, a port or a link has changed.
    pub(super) fn tell_trees(&mut self) {
        if !self.life.started_up {
            return;
        }
        let in_trees = self.inventory.bridges.values().filter(|bridge| bridge.spec.stp.is_on());
        let specs: Vec<TreeSpec> = in_trees.map(|bridge| self.tree_spec(bridge)).collect();
        self.trees.set(specs);
    }

    fn tree_spec(&self, bridge: &Bridge) -> TreeSpec {
        let name = &bridge.spec.name;
        let version = if bridge.spec.stp == Stp::Stp { Version::Stp } else { Version::Rstp };
        // Not the gateway's address: a switch outside that speaks no spanning tree would take the gateway to be where BPDUs come from.
        let address = self.ledger.state.station_mac(&format!("stp:{name}"));
        let ports = self.inventory.all::<Port>().filter(|port| port.spec.bridge == *name);
        TreeSpec {
            name: name.clone(),
            id: bridge.id,
            settings: BridgeSettings { address, priority: bridge.spec.stp_priority.number(), version },
            ports: ports.map(tree_port).collect(),
        }
    }

    /// Takes note of what happened in a tree.
    pub(super) fn note_tree(&mut self, news: StpNews) {
        let StpNews { bridge, port, what } = news;
        let summary = match what {
            What::Role(StpRole::Root) => "it leads to the root of the spanning tree now",
            What::Role(StpRole::Designated) => "it speaks for its link in the spanning tree now",
            What::Role(StpRole::Alternate) => "the spanning tree blocks it: another port is the better way to the root",
            What::Role(StpRole::Backup) => "the spanning tree blocks it: it leads to where another port of the bridge does",
            What::Role(StpRole::Disabled) => "it is out of the spanning tree: it has no link",
            What::TopologyChange => "it forwards now, so the way to stations has changed: their addresses are learned anew",
            What::Guarded => return self.trip(bridge, port),
        };
        let facts = EventFacts { bridge: Some(bridge), port: Some(port), ..EventFacts::new(summary) };
        self.views.events.record(EventKind::Stp, facts);
    }

    /// Takes a port down whose guard let no BPDU in.
    fn trip(&mut self, bridge: BridgeName, name: PortName) {
        let is_armed = |port: &&mut Port| port.spec.policy.bpdu_guard && !port.tripped;
        let Some(port) = self.inventory.find_mut::<Port>(&name).filter(is_armed) else { return };
        port.tripped = true;
        if let Err(error) = self.follow_guard(&name) {
            tracing::error!("port \"{name}\" could not be taken down: {error}");
        }
        let summary = format!("it is down: {TRIPPED}, so a bridge is there; vsctl set-port {name} --up, without it");
        tracing::warn!("port \"{name}\": {summary}");
        self.views
            .events
            .record(EventKind::Stp, EventFacts { bridge: Some(bridge), port: Some(name), ..EventFacts::new(summary) });
        self.tell_trees();
    }

    /// How the trees stand, that of one bridge or all.
    pub(super) fn stp(&self, bridge: Option<&BridgeName>) -> Result<Vec<StpInfo>, ControlError> {
        if let Some(name) = bridge
            && !self.inventory.bridge(name)?.spec.stp.is_on()
        {
            return Err(ControlError::NoTree(name.clone()));
        }
        let mut infos = self.trees.ask(StpInput::List).unwrap_or_default();
        infos.retain(|info| bridge.is_none_or(|name| info.bridge == *name));
        Ok(infos)
    }

    /// What trees let pass each port that is in one.
    pub(super) fn tree_states(&self) -> Arc<BTreeMap<PortName, StpState>> {
        self.trees.states.load_full()
    }
}

fn tree_port(port: &Port) -> TreePort {
    let PortPolicy { stp_cost, stp_priority, stp_edge, bpdu_guard, .. } = port.spec.policy;
    let edge = match stp_edge {
        StpEdge::Auto => Edge::Auto,
        StpEdge::Yes => Edge::Yes,
        StpEdge::No => Edge::No,
    };
    TreePort {
        name: port.spec.name.clone(),
        id: port.id,
        up: port.state() == PortState::Up,
        device: Some(port.spec.ifname.clone()).filter(|_| is_own_link(&port.spec)),
        settings: PortSettings {
            priority: stp_priority.map_or(PORT_PRIORITY, StpPortPriority::number),
            cost: stp_cost.map_or_else(|| cost_of(speed(&port.spec)), StpCost::number),
            edge,
        },
        guarded: bpdu_guard,
    }
}

/// Whether a port is an interface of vswitchd's own namespace.
fn is_own_link(spec: &PortSpec) -> bool {
    spec.kind == PortKind::Link && spec.netns.is_none()
}

/// What the link of a port carries, in Mb/s.
fn speed(spec: &PortSpec) -> u32 {
    let told = is_own_link(spec).then(|| sys::ethtool::speed(spec.ifname.as_str()).ok()).flatten();
    told.filter(|speed| (1..u32::MAX).contains(speed)).unwrap_or(SPEED)
}
