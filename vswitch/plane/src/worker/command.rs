//! What the control side and a worker say to each other, and the channels and handles that carry it.
//! Other workers pass on what they learned, and frames to be routed, the same way.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded};
use packet::{Mac, Offload, VlanId};
use rstp::State;

use super::foretell::Foretold;
use crate::capture::{CaptureTap, Direction, Incident, Snapshot};
use crate::datapath::{
    BridgeId, BridgeSettings, Counters, Errand, FdbListing, GatewaySettings, Hold, MacChanges, NeighborRow, News, Place,
    PortId, PortSettings, Punt, SavedBridge, Symptoms, WorkerCounts,
};
use crate::device::{Device, Inheritance};
use crate::fair::{FairQueue, Weighed};

/// What the control side tells a worker. Commands are carried out between batches, in order.
pub enum Command {
    /// Make or change a bridge.
    SetBridge(BridgeId, BridgeSettings),
    /// Remove a bridge without ports.
    RemoveBridge(BridgeId),
    /// Put a device on a port that this makes.
    Attach(PortId, PortSettings, Box<dyn Device>, Sender<std::io::Result<()>>),
    /// Read from a device that receives for several ports; the number is its own.
    Listen(PortId, Box<dyn Device>, Sender<std::io::Result<()>>),
    /// Change a port.
    SetPort(PortId, PortSettings),
    /// Remove a port, and give its device away: to close it may take long. The kernel waits for all its processors with each packet socket
    /// (`packet_release`).
    Detach(PortId, Sender<Option<Box<dyn Device>>>),
    /// Give the device of a port away; the port stays.
    Take(PortId, Sender<Option<Box<dyn Device>>>),
    /// Say whether the port has a device.
    IsOpen(PortId, Sender<bool>),
    /// Open the device of a port once more.
    Duplicate(PortId, Sender<Option<Inheritance>>),
    /// List a bridge's addresses.
    Fdb(BridgeId, Sender<FdbListing>),
    /// Say what each bridge shows that is most likely a mistake.
    Symptoms(Sender<Vec<(BridgeId, Symptoms)>>),
    /// Forget the addresses that a bridge learned; only those at a port, or only one, if these are given.
    FlushFdb(BridgeId, Option<PortId>, Option<Mac>),
    /// Forget the addresses behind one peer of a tunnel.
    ForgetPeer(PortId, u16),
    /// Read the counters of all these ports.
    Counters(Vec<PortId>, Sender<Vec<Counters>>),
    /// Give a bridge a gateway, change it, or take it away.
    SetGateway(BridgeId, Option<GatewaySettings>),
    /// Forget the neighbours and sessions of stations of a bridge that are gone. Only the worker that routes has any.
    ForgetStations(BridgeId, Vec<IpAddr>),
    /// Forget the neighbours of a gateway, as Linux does when a link goes down: where its device leads now, they may have other MAC addresses.
    ForgetNeighbors(BridgeId),
    /// Set the published ports of an uplink.
    SetForwards(BridgeId, Vec<nat::Forward>),
    /// List the sessions of an uplink. Only the worker that routes has any.
    Sessions(BridgeId, Sender<Vec<nat::SessionRow>>),
    /// What the NAT of an uplink did and has, without its sessions.
    NatCounters(BridgeId, Sender<nat::Counters>),
    /// List the neighbours of a bridge's gateway. Only the worker that routes has any.
    Neighbors(BridgeId, Sender<Vec<NeighborRow>>),
    /// Say what would become of a frame that came in at a place, with this left to do on it. Only the worker that routes can.
    Foretell(Place, Vec<u8>, Offload, Sender<Option<Foretold>>),
    /// Set the containers, by VLAN and MAC address, for which the services ask a DHCP server on a bridge without a gateway.
    SetClients(BridgeId, Vec<(VlanId, Mac)>),
    /// Send a frame that the services made, in a VLAN of a bridge; none: its gateway's.
    Emit(BridgeId, Option<VlanId>, Vec<u8>),
    /// Let the spanning tree of a bridge decide what passes a port of it.
    SetTree(BridgeId, PortId, State, Sender<()>),
    /// Send a BPDU by a port.
    Transmit(PortId, Vec<u8>),
    /// Offer frames to a capture: those of these ports, or of all.
    StartCapture(CaptureId, Option<Vec<PortId>>, CaptureTap),
    /// Offer no more.
    StopCapture(CaptureId),
    /// Keep the last frames in so many bytes, or no more.
    SetRecorder(Option<usize>),
    /// Give what the recorder holds.
    Recall(Sender<Snapshot>),
    /// Carry out commands alone, until `Resume`: nothing is read, routed, let go or expired. What comes waits, as far as the devices have room.
    Pause(Sender<()>),
    /// Read again.
    Resume,
    /// Give what is known of a bridge or uplink, a page at a time ([`Datapath::export_page`](crate::datapath::Datapath::export_page)).
    Export(BridgeId, usize, Sender<(SavedBridge, Option<usize>)>),
    /// Take on what another data plane knew of it; says how many sessions did not fit.
    Import(BridgeId, Box<SavedBridge>, Sender<usize>),
    /// End the thread.
    Stop,
}

/// A running capture's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaptureId(pub u64);

/// What a worker tells the control side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The device of a port is gone; the port stays, without it.
    DeviceGone(PortId),
    /// A frame was longer than what the way out of a port carries; told once.
    PacketTooBig(PortId),
    /// An address on a bridge moves to and fro between ports; not told of each.
    Held(BridgeId, Hold),
    /// What became of addresses of a bridge; told twice a second at most.
    Macs(BridgeId, Box<MacChanges>),
    /// Sessions of an uplink have begun since the last export; told once.
    Sessions,
    /// The recorder found something worth writing down.
    Incident(Incident),
    /// A frame for the services.
    Punt(Punt),
    /// A BPDU for the spanning tree of a bridge.
    Bpdu(Punt),
}

/// A frame on its way to the worker that routes, which also has all impaired lines.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) bytes: Vec<u8>,
    pub(super) offload: Offload,
    pub(super) ingress: u32,
    pub(super) peer: u16,
    /// When it was received, by the clock of captures.
    pub(super) at: u64,
    /// The number by which captures know it.
    pub(super) id: u64,
    pub(super) purpose: Purpose,
}

/// What a frame is handed over for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// To be routed.
    Route(Errand),
    /// To enter the line of a port, in this direction.
    Enter(PortId, Direction),
}

/// The data plane has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data plane has stopped: restart vswitchd")]
pub struct Stopped;

/// Commands that may wait for a worker; the sender waits when there are more.
const COMMANDS: usize = 256;
/// Learned addresses that may wait for a worker; more are forgotten, for they will be heard again.
const NEWS: usize = 4096;
/// Frames that may be on their way to the worker that routes; more are dropped.
const HANDOVERS: usize = 1024;
/// Frames that may wait there, each flow in a queue of its own; more are dropped from the longest queue.
const WAITING: usize = 1024;
/// What a flow may have routed before it is another's turn: a super-frame.
const TURN: i64 = 65_550;
/// Most frames that the longest queue loses at once.
const LOST: usize = 64;

/// The end of a worker that the control side and the other workers have.
#[derive(Clone)]
pub struct Handle {
    pub(super) commands: Sender<Command>,
    pub(super) news: Sender<News>,
    pub(super) handovers: Sender<Handover>,
    pub(super) waker: Arc<mio::Waker>,
    turns: Arc<AtomicU64>,
    /// Whether the worker sleeps, or is about to.
    sleeps: Arc<AtomicBool>,
    pub(super) counts: Arc<ArcSwap<WorkerCounts>>,
}

/// The worker's end.
pub(super) struct Inbox {
    pub(super) commands: Receiver<Command>,
    pub(super) news: Receiver<News>,
    handovers: Receiver<Handover>,
    waiting: FairQueue<Handover>,
    /// How often the worker came round its loop.
    pub(super) turns: Arc<AtomicU64>,
    sleeps: Arc<AtomicBool>,
    /// Whether the control side wants what comes left to wait.
    pub(super) paused: bool,
}

impl Handle {
    pub(super) fn new(waker: mio::Waker) -> (Self, Inbox) {
        let (commands, commands_in) = bounded(COMMANDS);
        let (news, news_in) = bounded(NEWS);
        let (handovers, handovers_in) = bounded(HANDOVERS);
        let turns = Arc::new(AtomicU64::new(0));
        let sleeps = Arc::<AtomicBool>::default();
        let inbox = Inbox {
            commands: commands_in,
            news: news_in,
            handovers: handovers_in,
            waiting: FairQueue::new(TURN),
            turns: Arc::clone(&turns),
            sleeps: Arc::clone(&sleeps),
            paused: false,
        };
        (Self { commands, news, handovers, waker: Arc::new(waker), turns, sleeps, counts: Arc::default() }, inbox)
    }

    /// How often the worker came round its loop so far: what stays the same over a [`Handle::wake`] hangs.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// What the worker counted until half a second ago or less. Neither waits for the other.
    pub fn counts(&self) -> Arc<WorkerCounts> {
        self.counts.load_full()
    }

    /// Makes the worker come round its loop if it waits.
    pub fn wake(&self) {
        // It fails only without the worker.
        let _ = self.waker.wake();
    }

    /// Tells the worker something. Waits while 256 commands wait already.
    ///
    /// # Errors
    /// The worker has ended.
    pub fn tell(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).map_err(|_| Stopped)?;
        self.waker.wake().map_err(|_| Stopped)
    }

    /// Tells the worker something that does not matter if it has ended.
    pub fn hint(&self, command: Command) {
        let _ = self.tell(command);
    }

    /// Tells the worker something and waits for the answer.
    ///
    /// # Errors
    /// The worker has ended.
    pub fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, Stopped> {
        let (sender, answer) = bounded(1);
        self.tell(command(sender))?;
        answer.recv().map_err(|_| Stopped)
    }

    /// Hands over a frame; says whether there was room.
    pub(super) fn hand_over(&self, frame: Handover) -> bool {
        let taken = self.handovers.try_send(frame).is_ok();
        if taken {
            self.wake_sleeper();
        }
        taken
    }

    /// Passes on what another worker learned; never waits.
    pub(super) fn pass_on(&self, news: News) {
        if self.news.try_send(news).is_ok() {
            self.wake_sleeper();
        }
    }

    /// Wakes the worker if it sleeps, or is about to. One that is awake looks into its channels before it goes to sleep.
    fn wake_sleeper(&self) {
        fence(Ordering::SeqCst);
        if self.sleeps.load(Ordering::Relaxed) {
            // A failed wake-up only delays what was sent until the worker's next turn.
            let _ = self.waker.wake();
        }
    }
}

impl Inbox {
    /// Tells the others that the worker is about to sleep, so that they wake it. Returns whether it may: one that is paused takes nothing out of the
    /// channels, and sleeps beside what waits there.
    pub(super) fn begin_sleep(&self) -> bool {
        self.sleeps.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.paused || self.handovers.is_empty() && self.news.is_empty()
    }

    /// Tells the others that the worker is awake.
    pub(super) fn end_sleep(&self) {
        self.sleeps.store(false, Ordering::Relaxed);
    }

    /// Takes in what was handed over; returns what there is no room for.
    pub(super) fn take_in(&mut self, now: Instant) -> Vec<Handover> {
        let mut lost = Vec::new();
        while let Ok(frame) = self.handovers.try_recv() {
            self.waiting.push(self.waiting.flow_of(&frame.bytes), now, frame);
            if self.waiting.cost() > WAITING {
                lost.extend(self.waiting.shorten_longest(LOST));
            }
        }
        lost
    }

    /// The frame that was handed over and is next.
    pub(super) fn next_handover(&mut self) -> Option<Handover> {
        self.waiting.head()?;
        self.waiting.pop().map(|(_, frame, ..)| frame)
    }
}

/// Each counts as one: a frame is bounded itself.
impl Weighed for Handover {
    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn cost(&self) -> usize {
        1
    }
}
