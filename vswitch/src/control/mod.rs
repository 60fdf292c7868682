//! The control side: everything that may block.
//!
//! [`Switch`] is the one owner of what the switch *is*. It carries out one [`Request`] after the other, on one thread. A change is kept for the
//! next start, with what is about to be made for it, by one durable write; then it becomes steps, and each step has an inverse: when one fails,
//! those before it are taken back, so a change is all or nothing. Steps act on the kernel ([`attach`]), then on every worker.
//!
//! What runs is what the sources say: `switch.toml`, run time, containers' runtimes. A start, a reload and a call of Docker's are the same
//! computation: merge them, take the difference to what runs, carry it out.
//!
//! Its rooms, each of which owns its fields:
//!
//! - `ledger`: what should be; the sources, and where they are kept.
//! - `inventory`: what is; every resource as it runs. `plan` has the steps from one to the other, `apply` carries them out, `change` checks and
//!   keeps what `vsctl` wants; `ports`, `uplink`, `vxlan` and `forward` have what is each kind's own.
//! - `plane_handle`: the workers, and one way to tell and ask them.
//! - `image`: what the tables know, kept for the vswitchd that comes after this one; `handover` and `takeover`: what it is left besides.
//! - What follows the world: `links` and `presence` (devices), `docker` and `containers` (runtimes), `overlay` (other hosts), `lease`
//!   and `routes` (LANs), `moves`, `conflicts` and `peers` (symptoms), `services` (the gateways'), `stp` (spanning trees). What each remembers is a
//!   type of its own that is given what it needs, also the time, and returns what is to be done; [`Switch`] carries that out.
//! - `views`: what others look at while the switch runs, as events and counters.
//! - The loop: `run`, who speaks to it (`voices`), and how it ends (`exit`, `ending`).
//! - Faces: `doors`, `server`, `socket` (the control socket), `answer` and `sessions` (listings), `capture`, `holders` (of slots), `log`.

mod answer;
mod apply;
mod capture;
mod carrier;
mod change;
mod changes;
mod conflicts;
mod containers;
mod docker;
mod doors;
mod ending;
mod error;
mod exit;
mod flannel;
mod forward;
mod handover;
mod holders;
mod image;
mod inventory;
mod lease;
mod ledger;
mod links;
mod log;
mod moves;
mod overlay;
mod peers;
mod plan;
mod plane_handle;

mod ports;
mod presence;
mod recorder;
mod refusal;
mod rights;
mod routed;
mod routes;
mod run;
pub(crate) mod server;
mod services;
mod sessions;
mod socket;
mod sockets;
mod stp;
mod takeover;
mod trace;
mod upgrade;
mod uplink;
mod views;
mod voices;
mod vxlan;
mod watchdog;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

pub use error::ControlError;
pub use log::Log;
pub use refusal::ContainerRefusal;
pub use rights::{connect_to_broker, serve_as_broker, serve_as_starter};
pub use run::{Keeper, RunError, RunMode, run};
pub use takeover::TakeoverError;
pub use workers::end_with_any_thread;

use crate::attach;
use crate::config::{self, Config, StateFile};
use crate::confine::Confinement;
use crate::services::{Output, Services};
use crate::stp::StpNews;
use crate::web::WebSettings;
use api::{BridgeName, Origin, Reply, Request, Resource, ResourceKey};
use capture::Captures;
use crossbeam_channel::Receiver;
use docker::{DockerDesk, Lans};
use flannel::FlannelDesk;
use handover::Handover;
use image::ImageClock;
use inventory::{Bridge, Inventory, Port};
use ledger::Ledger;
use overlay::OverlayDesk;
use plan::Step;
use plane::capture::Incident;
use plane::datapath::Punt;
use plane::worker::{Command, Event, Handle};
use plane_handle::PlaneHandle;
use services::ServicesThread;
use sockets::Sockets;
use stp::StpThread;
use uplink::Uplink;
use views::Views;
use watchdog::Watchdog;

/// The running switch: what it should be, what it is, the workers, and what follows the world around it.
pub struct Switch {
    ledger: Ledger,
    inventory: Inventory,
    plane: PlaneHandle,
    services: ServicesThread,
    trees: StpThread,
    docker: DockerDesk,
    overlay: OverlayDesk,
    flannel: FlannelDesk,
    lans: Lans,
    symptoms: SymptomLog,
    views: Views,
    life: Life,
    /// Empty when the start is over.
    handover: Handover,
    /// What the kernel tells of devices; `None`: it does not.
    watch: Option<attach::Watch>,
    /// When what the tables know is written down next.
    image: ImageClock,
}

/// Since when the switch runs, who watches that it does, and what it says of that.
struct Life {
    started: Instant,
    /// Whether the start is over, so that the services are told of changes; before that they would hear of half a switch.
    started_up: bool,
    /// The service manager's, if it has one for this process.
    watchdog: Option<Watchdog>,
    log: Log,
}

/// What is most likely wrong with the network, as far as the log has told it.
#[derive(Default)]
struct SymptomLog {
    /// How MAC addresses move on each bridge.
    mac_moves: BTreeMap<BridgeName, moves::SeenMoves>,
    /// IP addresses of each bridge that two have.
    address_conflicts: BTreeMap<BridgeName, conflicts::SeenConflicts>,
    peers: peers::SeenPeers,
}

/// What a start needs to know.
pub struct Start {
    /// Where the file is, for reloads.
    pub path: PathBuf,
    /// What it said.
    pub config: Config,
    /// The data plane.
    pub workers: Vec<Handle>,
    /// What its threads are confined by.
    pub sandbox: Confinement,
    /// Queues that the last vswitchd left for this one.
    pub handover: Handover,
    /// The log.
    pub log: Log,
    /// Gets what the gateways' services have to say, for `Switch::speak`; it must not wait.
    pub output: Box<dyn FnMut(Output) + Send>,
    /// The BPDUs that workers punt, and what gets the news of spanning trees, for `Switch::note_tree`; it must not wait.
    pub(crate) trees: (Receiver<Punt>, Box<dyn FnMut(StpNews) + Send>),
    /// Gets what is heard of overlay networks, for `Switch::hear_overlay`.
    pub(crate) overlay: tokio::sync::mpsc::UnboundedSender<crate::overlay::OverlayNews>,
    /// Gets what is heard of flannel's network, for `Switch::hear_flannel`.
    pub(crate) flannel: tokio::sync::mpsc::UnboundedSender<crate::flannel::FlannelNews>,
}

impl Switch {
    /// Builds the switch that the file and the kept state describe, and says what the user should know about it. Frames come in after
    /// `Switch::begin`.
    ///
    /// Ports that a killed vswitchd left are taken over as they are; what it left and neither file nor state names any more is removed. A port
    /// that was added at run time and cannot be attached now (its container is gone, say) stays, down.
    ///
    /// # Errors
    /// A port of the file cannot be attached, or the state cannot be read. What this call made is removed again; what was there
    /// before stays. A state that cannot be kept is a note: the switch runs, and changes are refused.
    pub fn start(start: Start) -> Result<(Self, Vec<String>), ControlError> {
        let Start { path, config, workers, sandbox, handover, log, output, trees, overlay, flannel } = start;
        let (state_file, state, read) = StateFile::open(&config.switch.state_dir).map_err(ControlError::State)?;
        let services = Services::new(&config.switch.state_dir, state.seed ^ u64::from(std::process::id()));
        let services = ServicesThread::start(services, output, sandbox.clone()).map_err(ControlError::Services)?;
        let trees = StpThread::start(workers.clone(), trees.0, trees.1, sandbox.clone()).map_err(ControlError::StpThread)?;
        let watch =
            attach::Watch::open().inspect_err(|error| tracing::warn!("what becomes of devices is not known: {error}")).ok();
        let (overlay, tables, lost) = OverlayDesk::start(&config, overlay, &sandbox)?;
        let (flannel, known, unread) = FlannelDesk::start(&config, flannel, &sandbox).map_err(ControlError::Flannel)?;
        let started = Instant::now();
        let views = Views::new(started, &workers);
        let mut switch = Self {
            ledger: Ledger {
                path,
                file: config,
                state,
                state_file,
                tables: Arc::new(tables),
                flannel: Arc::new(known),
                dead: BTreeSet::new(),
            },
            inventory: Inventory::default(),
            plane: PlaneHandle { workers, sandbox, sockets: Sockets::default(), captures: Captures::default() },
            services,
            trees,
            docker: DockerDesk::default(),
            overlay,
            flannel,
            lans: Lans::default(),
            symptoms: SymptomLog::default(),
            views,
            life: Life { started, started_up: false, watchdog: Watchdog::from_environment(), log },
            handover,
            watch,
            image: ImageClock::new(started),
        };
        // What comes waits until the switch is whole and knows what the last one knew.
        switch.plane.workers.iter().try_for_each(|worker| worker.ask(Command::Pause))?;
        if switch.handover.is_complete {
            // Containers' runtimes may be in the middle of something.
            switch.await_all();
        } else {
            switch.forget_dead();
            switch.forget_dead_containers();
        }
        switch.set_recorder();
        let (wanted, left_out) = switch.ledger.wanted();
        switch.remove_leftovers(&wanted, switch.handover.is_complete);
        let mut notes = read;
        notes.extend(lost);
        notes.extend(unread);
        notes.extend(left_out);
        notes.extend(switch.ledger.file.warnings.iter().map(ToString::to_string));
        notes.extend(switch.build(wanted)?);
        std::mem::take(&mut switch.handover).end();
        notes.extend(switch.follow_all());
        Ok((switch, notes))
    }

    /// Begins to follow the world, and to tell others what is here. Returns what is to be said of that.
    fn follow_all(&mut self) -> Vec<String> {
        self.life.started_up = true;
        self.follow_resolvers();
        self.tell_services();
        self.tell_stations();
        self.follow_overlay();
        self.follow_flannel();
        let mut notes = self.overlay_notes();
        notes.extend(self.mtu_notes());
        notes.extend(self.watch_note());
        notes.extend(attach::netns_warning().filter(|_| !self.ledger.state.made.netns.is_empty()));
        notes
    }

    /// Carries out a request.
    ///
    /// # Errors
    /// Why it was not; nothing of it was done then.
    pub fn execute(&mut self, request: Request) -> Result<Reply, ControlError> {
        // What is asked about, and what is changed, is what is there now.
        self.follow_links();
        if matches!(request, Request::Show | Request::ListPorts(_) | Request::ListUplinks | Request::Reload) {
            self.follow_namespaces();
        }
        match request {
            Request::AddBridge(spec) => self.add(spec),
            Request::SetBridge(name, patch) => self.set_bridge(&name, &patch),
            Request::DeleteBridge(name) => self.delete(&ResourceKey::Bridge(name)),
            Request::AddPort(spec) => self.add(spec),
            Request::SetPort(name, patch) => self.set_port(&name, &patch),
            Request::DeletePort(name) => self.delete(&ResourceKey::Port(name)),
            Request::AddUplink(spec) => self.add(spec),
            Request::SetUplink(name, patch) => self.set_uplink(&name, &patch),
            Request::DeleteUplink(name) => self.delete(&ResourceKey::Uplink(name)),
            Request::AddForward(spec) => self.add(spec),
            Request::DeleteForward(key) => self.delete_forward(&key),
            Request::ListUplinks => self.uplink_infos().map(Reply::Uplinks),
            Request::ListForwards => Ok(Reply::Forwards(self.forward_infos())),
            Request::Sessions(uplink) => self.sessions(uplink.as_ref()).map(Reply::Sessions),
            Request::Neighbors(interface) => self.neighbors(interface.as_ref()).map(Reply::Neighbors),
            Request::Leases(bridge) => self.leases(bridge.as_ref()).map(Reply::Leases),
            Request::AddRoute(bridge, route) => self.add_route(&bridge, route),
            Request::DeleteRoute(bridge, to) => self.delete_route(&bridge, to),
            Request::ListRoutes(bridge) => self.route_infos(bridge.as_ref()).map(Reply::Routes),
            Request::AddVxlan(spec) => self.add(spec),
            Request::SetVxlan(name, change) => self.set_vxlan(&name, &change),
            Request::DeleteVxlan(name) => self.delete(&ResourceKey::Vxlan(name)),
            Request::ListVxlans(bridge) => self.vxlan_infos(bridge.as_ref()).map(Reply::Vxlans),
            Request::Reload => self.with_mtu_notes(Self::reload),
            Request::ListBridges => Ok(Reply::Bridges(self.bridge_infos(None)?)),
            Request::ListPorts(bridge) => self.port_infos(bridge.as_ref()).map(Reply::Ports),
            Request::Stp(bridge) => self.stp(bridge.as_ref()).map(Reply::Stp),
            Request::Cluster(question) => self.cluster(question),
            Request::Flannel => self.flannel_info().map(|info| Reply::Flannel(Box::new(info))),
            Request::Show => self.show(None),
            Request::ShowBridge(bridge) => self.show(Some(&bridge)),
            Request::Fdb(filter) => self.fdb(&filter).map(Reply::Fdb),
            Request::FlushFdb(filter) => self.flush_fdb(&filter),
            Request::Stats(ports) => self.stats(&ports).map(Reply::Stats),
            Request::Live => Ok(self.live()),
            Request::Events => Ok(self.events()),
            Request::ContainerStats(name) => self.stats(&self.ports_of_container(&name)?).map(Reply::Stats),
            Request::AttachContainer(spec) => self.attach_container(*spec),
            Request::DetachContainer(key) => self.detach_container(&key),
            Request::CheckContainer(key) => self.check_container(&key),
            Request::CheckNetwork(runtime, network) => self.check_container_network(runtime, &network),
            Request::KeepContainers(runtime, network, kept) => self.keep_containers(runtime, &network, &kept),
            Request::StopCapture(number) => self.stop_capture(number),
            Request::Trace(request) => self.trace(&request),
            Request::Export => Ok(Reply::Export(self.export())),
            Request::Changes { forget } => self.changes(forget),
            Request::SetLog(level) => Ok(self.life.log.set(level)),
            // The caller starts or ends processes, and answers after that.
            Request::Upgrade(_) | Request::Shutdown { .. } => Ok(Reply::Done(Vec::new())),
        }
    }

    /// Takes note of what a worker found.
    pub fn note(&mut self, event: Event) {
        match event {
            Event::DeviceGone(id) => self.note_gone(id),
            Event::Punt(punt) => self.serve(punt),
            // They go to the thread that speaks for spanning trees, past this one.
            Event::Bpdu(_) => {}
            Event::Macs(bridge, changes) => {
                self.note_macs(bridge, &changes);
                self.note_overlay_macs(bridge);
            }
            Event::PacketTooBig(id) => self.note_too_big(id),
            Event::Held(bridge, hold) => {
                self.note_hold(bridge, hold);
                self.write_recording(Incident::Loop);
            }
            Event::Incident(incident) => self.write_recording(incident),
            Event::Sessions => self.hurry_image(),
        }
    }

    fn reload(&mut self) -> Result<Reply, ControlError> {
        let config = config::load(&self.ledger.path).map_err(ControlError::File)?;
        if let Some(key) = self.ledger.file.switch.difference(&config.switch) {
            return Err(ControlError::NeedsRestart("switch", key));
        }
        if let Some(key) = self.ledger.file.docker.difference(&config.docker) {
            return Err(ControlError::NeedsRestart("docker", key));
        }
        if let Some(key) = WebSettings::difference(self.ledger.file.web.as_ref(), config.web.as_ref()) {
            return Err(ControlError::NeedsRestart("web", key));
        }
        let before = std::mem::replace(&mut self.ledger.file, config);
        let (wanted, mut notes) = self.ledger.wanted();
        let mut steps = plan::steps(&self.inventory.layout(), &wanted);
        steps.extend(plan::revival(&wanted, &steps, |key| self.inventory.lacks_device(key)));
        // Whether another program has the port of a forward that is not the file's is no matter of the file's.
        let is_others = |step: &Step| matches!(step, Step::Add(Resource::Forward(_), origin) if *origin != Origin::File);
        let (forwards, steps) = steps.into_iter().partition(is_others);
        let has_other_rules = before.nat != self.ledger.file.nat;
        let applied = self.check_containers(&wanted).and_then(|()| self.apply(steps)).and_then(|undo| {
            if !has_other_rules {
                return Ok(());
            }
            self.refresh_uplinks().inspect_err(|_| self.take_back(undo))
        });
        if let Err(error) = applied {
            self.ledger.file = before;
            return Err(error);
        }
        notes.extend(self.publish_what_can_be_had(forwards));
        if before.capture != self.ledger.file.capture {
            self.set_recorder();
        }
        notes.extend(self.change_cluster(&before));
        notes.extend(self.change_flannel(&before));
        notes.extend(self.overlay_notes());
        self.ledger.state.forget_overruled(&self.ledger.file);
        notes.extend(self.ledger.save().err().map(|error| error.to_string()));
        notes.extend(self.ledger.file.warnings.iter().map(ToString::to_string));
        notes.extend(self.restore_stations());
        notes.extend(self.state_notes());
        notes.extend(self.underlay_notes());
        notes.extend(self.peer_notes());
        Ok(Reply::Done(notes))
    }
}
