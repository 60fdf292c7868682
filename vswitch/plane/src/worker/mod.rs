//! The loop: wait, receive, forward, send, expire. The only clock of the data plane.
//!
//! A worker is a thread that owns part *i* of every device, its own [`Datapath`], and one batch of buffers. It runs each
//! batch to completion (Snabb calls it a breath): read from one device until the batch is full or nothing waits, forward,
//! send every queue. No lock is taken and nothing is opened. What the control side wants arrives over a bounded channel that is drained
//! between batches, so frames never meet a half-made change.
//!
//! **Fairness.** Ports that have something to read stand in a queue; one that filled its batch goes to the end. Among the flows of one port, its
//! device sees to it ([`crate::device::Tap`]).
//!
//! **Waiting.** Readiness is edge-triggered, so a port leaves the queue only when a read found nothing. A worker without work keeps looking for a
//! moment, if what came last came in quick succession (`lookout`), and offers its processor to others each time that it finds nothing. An idle worker
//! wakes once a second to expire.
//!
//! **Routing** is the first worker's: it owns the sessions and neighbours. The others hand over copies of the frames that gateways
//! get.
//!
//! **Impaired lines and rates** hold packets until they are due (`waiting`), to the microsecond: a timer wakes the worker, since what it waits with
//! counts in milliseconds.
//!
//! **Counters**, and the flows that move most, are shown without being asked for (`publish`).
//!
//! **Sessions** that begin are told of soon (`births`), to be written down before anything happens to the process.
//!
//! **Several workers** learn from different flows of the same stations, so each tells the others what is new to it
//! ([`crate::datapath::News`]).

mod births;
mod capture;
mod command;
mod foretell;
mod lookout;
mod ports;
mod publish;
mod stops;
mod timer;
mod turn;
mod waiting;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use packet::{Batch, Egress};

pub use command::{CaptureId, Command, Event, Handle, Stopped};
pub use foretell::{Exit, Foretold};

use crate::datapath::{Datapath, Outputs, PortId, Slots};
use crate::device::Device;
use capture::Watch;
use command::Inbox;
use lookout::Lookout;
use publish::Publisher;
use stops::Stops;
use timer::Timer;

/// Batches of what was handed over that are routed before a pause: more than have room.
const DRAIN: usize = 2048;
/// How often tables expire.
const EXPIRY: Duration = Duration::from_secs(1);
/// How soon a device without a descriptor is asked again.
const POLLED: Duration = Duration::from_millis(1);
/// Stands for the waker among the ports' numbers.
const WAKER: Token = Token(usize::MAX);
/// Stands for the timer among them.
const TIMER: Token = Token(usize::MAX - 1);

/// One thread of the data plane.
pub struct Worker {
    poll: Poll,
    inbox: Inbox,
    /// The other workers.
    peers: Vec<Handle>,
    /// The worker that routes, if it is another one.
    router: Option<Handle>,
    notify: Box<dyn FnMut(Event) + Send>,
    datapath: Datapath,
    shares: Slots<Share>,
    /// Ports that may have something to read.
    ready: VecDeque<PortId>,
    /// Ports whose device has no descriptor.
    polled: Vec<PortId>,
    /// Where packets of ports have to wait.
    stops: Stops,
    watch: Watch,
    batch: Batch,
    outputs: Outputs,
    egress: Egress,
    publisher: Publisher,
}

/// This worker's part of a port.
struct Share {
    device: Option<Box<dyn Device>>,
    /// Whether the port stands in `ready`.
    ready: bool,
    /// Whether any capture wants its frames.
    captured: bool,
    /// Whether the frames that it receives are those of other ports.
    shared: bool,
    /// Whether the control side knows that a frame was too long for it.
    told_too_big: bool,
}

impl Worker {
    /// A worker without ports, and the handle to it. `notify` is called on the worker's thread and must not wait. `seed` should
    /// be random.
    ///
    /// # Errors
    /// The kernel gives no descriptor for polling.
    pub fn new(seed: u64, notify: Box<dyn FnMut(Event) + Send>) -> io::Result<(Self, Handle)> {
        let poll = Poll::new()?;
        let (handle, inbox) = Handle::new(Waker::new(poll.registry(), WAKER)?);
        let timer = Timer::new(poll.registry(), TIMER)?;
        let publisher = Publisher::new(Arc::clone(&handle.counts), Instant::now());
        let worker = Self {
            poll,
            inbox,
            peers: Vec::new(),
            router: None,
            notify,
            datapath: Datapath::new(Instant::now(), seed),
            shares: Slots::default(),
            ready: VecDeque::new(),
            polled: Vec::new(),
            stops: Stops::new(timer),
            watch: Watch::default(),
            batch: Batch::new(),
            outputs: Outputs::new(),
            egress: Egress::new(),
            publisher,
        };
        Ok((worker, handle))
    }

    /// Names the other workers, which hear what this one learns.
    pub fn set_peers(&mut self, peers: Vec<Handle>) {
        self.peers = peers;
    }

    /// Names the worker that routes instead of this one.
    pub fn set_router(&mut self, router: Handle) {
        self.datapath.leave_routing();
        self.router = Some(router);
    }

    /// Runs until [`Command::Stop`], or until every handle is gone.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut expiry = Instant::now() + EXPIRY;
        let mut lookout = Lookout::new(Instant::now());
        loop {
            self.inbox.turns.fetch_add(1, Ordering::Relaxed);
            let now = Instant::now();
            if self.listen(now).is_break() {
                return;
            }
            if self.inbox.paused {
                self.wait(&mut events, EXPIRY);
                continue;
            }
            let expires = now >= expiry;
            if expires {
                self.datapath.expire(now, &mut self.batch, &mut self.outputs);
                self.capture_late();
                self.flush(now);
                self.expire_devices(now);
                // Not every device announces that it has gone.
                self.make_all_ready();
                expiry = now + EXPIRY;
            }
            let round = self.ready.len();
            for _ in 0..round {
                self.turn(now);
            }
            let routed = self.route(now);
            let released = self.release(now);
            self.tell_holds();
            self.watch.take_incident().into_iter().for_each(|incident| (self.notify)(Event::Incident(incident)));
            self.tell_punts();
            let worked = round > 0 || routed || released;
            if worked {
                lookout.note_work(now);
            }
            let patience = if worked || lookout.looks(now) { Duration::ZERO } else { expiry.saturating_duration_since(now) };
            let patience = patience.min(self.publish(worked || expires, now));
            let patience = patience.min(self.stops.patience(now));
            let patience = patience.min(self.tell_births(worked, now));
            if patience.is_zero() && !worked {
                // The process that sends the next frame may wait for this processor.
                std::thread::yield_now();
            }
            self.wait(&mut events, patience);
        }
    }

    /// Waits up to `patience` for a device or a command.
    fn wait(&mut self, events: &mut Events, patience: Duration) {
        let polled = self.make_polled_ready();
        let patience = if polled { patience.min(POLLED) } else { patience };
        let sleeps = !patience.is_zero() && self.inbox.begin_sleep();
        let outcome = self.poll.poll(events, Some(if sleeps { patience } else { Duration::ZERO }));
        self.inbox.end_sleep();
        if outcome.is_err() {
            // Only EINTR happens here; the loop comes round again.
            return;
        }
        for event in events.iter().filter(|event| ![WAKER, TIMER].contains(&event.token())) {
            let (id, descriptor) = source(event.token());
            if let Some(device) = self.shares.get_mut(id.0).and_then(|share| share.device.as_mut()) {
                device.wake(descriptor);
            }
            self.make_ready(id);
        }
    }

    fn make_ready(&mut self, id: PortId) {
        let receives = |share: &&mut Share| share.device.as_ref().is_some_and(|device| device.receives());
        if let Some(share) = self.shares.get_mut(id.0).filter(|share| !share.ready).filter(receives) {
            share.ready = true;
            self.ready.push_back(id);
        }
    }

    fn make_all_ready(&mut self) {
        let ids: Vec<PortId> = self.shares.iter().map(|(number, _)| PortId(number)).collect();
        ids.into_iter().for_each(|id| self.make_ready(id));
    }

    /// Devices that nothing announces are asked every turn; says whether there are any.
    fn make_polled_ready(&mut self) -> bool {
        for index in 0..self.polled.len() {
            self.make_ready(self.polled[index]);
        }
        !self.polled.is_empty()
    }

    /// Carries out what the control side wants; breaks when it wants the end.
    fn listen(&mut self, now: Instant) -> std::ops::ControlFlow<()> {
        self.hear_news(now);
        loop {
            match self.inbox.commands.try_recv() {
                Ok(Command::Stop) | Err(crossbeam_channel::TryRecvError::Disconnected) => {
                    return std::ops::ControlFlow::Break(());
                }
                Ok(command) => self.execute(command, now),
                Err(crossbeam_channel::TryRecvError::Empty) => return std::ops::ControlFlow::Continue(()),
            }
        }
    }

    /// Takes over what other workers learned.
    fn hear_news(&mut self, now: Instant) {
        while let Ok(news) = self.inbox.news.try_recv() {
            self.datapath.hear(now, news);
        }
    }

    fn execute(&mut self, command: Command, now: Instant) {
        match command {
            Command::SetBridge(id, settings) => self.datapath.set_bridge(now, id, settings),
            Command::RemoveBridge(id) => self.datapath.remove_bridge(id),
            Command::SetPort(id, settings) => self.set_port(id, &settings, now),
            Command::FlushFdb(id, port, mac) => self.datapath.flush_fdb(id, port, mac),
            Command::ForgetPeer(id, peer) => self.datapath.forget_peer(id, peer),
            Command::StartCapture(id, ports, tap) => {
                self.watch.start(id, ports, tap);
                self.mark_captured();
            }
            Command::StopCapture(id) => {
                self.watch.stop(id);
                self.mark_captured();
            }
            Command::SetRecorder(bytes) => {
                self.watch.set_recorder(bytes);
                self.mark_captured();
            }
            Command::SetGateway(id, settings) => self.datapath.set_gateway(id, settings),
            Command::ForgetStations(id, addresses) => self.datapath.forget_stations(now, id, &addresses),
            Command::ForgetNeighbors(id) => self.datapath.forget_neighbors(id),
            Command::SetForwards(uplink, forwards) => self.datapath.set_forwards(uplink, forwards),
            Command::SetClients(id, clients) => self.datapath.set_clients(id, clients),
            Command::Emit(id, vlan, frame) => {
                self.datapath.emit((id, vlan), &frame, &mut self.batch, &mut self.outputs);
                self.flush(now);
            }
            Command::Transmit(id, bpdu) => {
                self.datapath.transmit(id, &bpdu, &mut self.batch, &mut self.outputs);
                self.flush(now);
            }
            Command::Resume => {
                self.inbox.paused = false;
                self.make_all_ready();
            }
            Command::Stop => {}
            asked => self.answer(asked, now),
        }
    }

    /// Carries out a command that is answered. The caller that asked may have gone away: an answer that no caller hears is no error.
    fn answer(&mut self, command: Command, now: Instant) {
        fn send<T>(reply: &crossbeam_channel::Sender<T>, answer: T) {
            let _ = reply.send(answer);
        }
        match command {
            Command::Attach(id, settings, device, reply) => send(&reply, self.attach(id, &settings, device, now)),
            Command::Listen(id, device, reply) => send(&reply, self.open(id, device, true)),
            Command::Detach(id, reply) => send(&reply, self.detach(id, now)),
            Command::Take(id, reply) => send(&reply, self.close(id)),
            Command::IsOpen(id, reply) => {
                send(&reply, self.shares.get_mut(id.0).is_some_and(|share| share.device.is_some()));
            }
            Command::Duplicate(id, reply) => {
                let device = self.shares.get_mut(id.0).and_then(|share| share.device.as_ref());
                send(&reply, device.and_then(|device| device.duplicate()));
            }
            Command::Fdb(id, reply) => send(&reply, self.datapath.fdb(now, id)),
            Command::Recall(reply) => send(&reply, self.watch.snapshot()),
            Command::Symptoms(reply) => send(&reply, self.datapath.symptoms()),
            Command::Counters(ids, reply) => {
                let counters = ids.iter().map(|id| self.datapath.counters(*id).cloned().unwrap_or_default());
                send(&reply, counters.collect());
            }
            Command::Sessions(uplink, reply) => {
                let sessions = self.datapath.nat(uplink).map(|nat| nat.sessions(now).collect());
                send(&reply, sessions.unwrap_or_default());
            }
            Command::NatCounters(uplink, reply) => {
                send(&reply, self.datapath.nat(uplink).map(nat::Nat::counters).unwrap_or_default());
            }
            Command::Neighbors(id, reply) => send(&reply, self.datapath.neighbors(now, id)),
            Command::SetTree(bridge, id, state, reply) => {
                self.datapath.set_tree(bridge, id, state);
                send(&reply, ());
            }
            Command::Pause(reply) => {
                // What the others handed over before they were paused has no other way on. There may be more of it than fits only while they go on.
                let _ = (0..DRAIN).take_while(|_| self.route(now)).count();
                self.open_rates(now);
                self.inbox.paused = true;
                send(&reply, ());
            }
            Command::Export(id, from, reply) => {
                self.publisher.births.known = self.datapath.sessions_created();
                send(&reply, self.datapath.export_page(id, from, now));
            }
            Command::Import(id, saved, reply) => send(&reply, self.datapath.import(id, *saved, now)),
            Command::Foretell(place, frame, offload, reply) => {
                send(&reply, self.foretell(place, (&frame, offload), now));
            }
            // The others are not answered.
            _ => {}
        }
    }

    fn mark_captured(&mut self) {
        for (id, share) in self.shares.iter_mut() {
            share.captured = self.watch.wants(PortId(id)) || share.shared && self.watch.is_on();
        }
    }

    fn tell_holds(&mut self) {
        for (bridge, hold) in self.datapath.take_holds() {
            (self.notify)(Event::Held(bridge, hold));
        }
    }

    fn expire_devices(&mut self, now: Instant) {
        let devices = self.shares.iter_mut().filter_map(|(_, share)| share.device.as_mut());
        devices.for_each(|device| device.expire(now));
    }

    fn tell_news(&mut self) {
        for news in self.datapath.take_news() {
            self.peers.iter().for_each(|peer| peer.pass_on(news));
        }
    }
}

/// Stands for one of the descriptors of a port's device.
const fn token(PortId(id): PortId, descriptor: usize) -> Token {
    Token(id as usize | descriptor << u32::BITS)
}

/// What a token of [`token`] stands for.
const fn source(Token(token): Token) -> (PortId, usize) {
    // The lower half is the port's number.
    let [a, b, c, d, ..] = token.to_le_bytes();
    (PortId(u32::from_le_bytes([a, b, c, d])), token >> u32::BITS)
}
