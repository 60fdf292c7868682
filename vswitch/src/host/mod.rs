//! The `host` uplink: the outside world through the host's own sockets.
//!
//! What containers send leaves from the host's address without any privilege on it, as with passt or slirp4netns: their TCP ends
//! here and is spliced to a socket of the host, their datagrams are sent anew, their pings are the host's. A forward is a listening
//! socket of the host.
//!
//! ```text
//!  router ─▶ HostDevice ═ link ═▶ engine ─▶ tcp ── connection (smoltcp) ──▶ sockets
//!        ◀─  (a port)   ◀═════     │   └──▶ udp, echo ────────────────────▶
//!           worker's thread      thread "host-NAME"
//! ```
//!
//! To the switch it is a [`Device`] of a port that stands alone, between the router's MAC address and one of its own. What comes
//! has the containers' own addresses; what goes out, the addresses of the hosts out there. Frames may be super-frames and
//! have partial checksums in both directions.
//!
//! - `link`, `shares`: the bounded queues between the two threads, and a fair part of them and of the thread's time for each port. The worker
//!   never waits for the uplink, nor the uplink for the worker.
//! - `engine`: one thread with one `epoll`, in the network namespace where the uplink was opened. An event costs time for
//!   the sessions that it concerns, not for all that there are.
//! - `tcp`, `connection`, `segment`, `stack`: a SYN is answered when the host is connected, not before.
//! - `udp`, `echo`: datagrams, and the ICMP errors that come back for them.
//! - `elder`, `succession`: sessions and published ports over an upgrade.
//! - `forward`: published ports. `doors`: those that take rights, which the thread has not ([`Confinement`]).
//!
//! **What is reached.** Whatever the host reaches, its own services among it where they listen on an address that is not the
//! loopback's, as a neighbour of the host would. Loopback, link-local and multicast addresses are refused, and so are the networks that
//! are to be apart ([`HostUplink::set_apart`]): the host has a leg in those of other containers of its own, and would lead into them.
//!
//! **What is hidden.** Behind the host, TCP's path is the host's: a hop limit, ECN marks and options other than the MSS and those of
//! the window do not go through. UDP and ICMP echo keep their hop limit and "don't fragment", so `traceroute` and path MTU discovery
//! work. Multicast, and protocols other than TCP, UDP and ICMP echo, do not go through.

mod apart;
mod common;
mod connection;
mod doors;
mod echo;
mod elder;
mod engine;
mod error;
mod forward;
mod link;
mod outbox;
mod peers;
mod report;
mod segment;
mod shares;
mod stack;
mod succession;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use crossbeam_channel::{Sender, bounded};
use ipnet::IpNet;
use mio::{Poll, Waker};
use nat::Filtering;
use packet::Mac;
use rustix::process::Resource;

use apart::Apart;
use common::Common;
use doors::Doorkeeper;
use engine::{Engine, Order, Watched};
use outbox::Outbox;
use plane::device::Device;

use crate::confine::{Confinement, Role};
use crate::inherited::Inherited;

pub(crate) use doors::{REQUESTS, open_listener};
pub use elder::{Elder, ElderSession, HostLoan, Relay, wire};
pub use error::HostError;
pub use forward::Forward;
pub use outbox::Gateway;
pub use report::{Counters, Direction, Protocol, Session, Totals};

/// What an uplink is opened with.
#[derive(Debug)]
pub struct Settings {
    /// The uplink's name.
    pub name: String,
    /// Its MAC address, as the router knows it.
    pub mac: Mac,
    /// The router's.
    pub router: Mac,
    /// The longest IP packet between the two, 1280 to 65,535.
    pub mtu: u16,
    /// How many sessions it may have.
    pub capacity: Capacity,
    /// What its thread is confined by.
    pub sandbox: Confinement,
    /// Sockets that the last vswitchd left, among them those of its published ports.
    pub inherited: Arc<Inherited>,
    /// Whether nothing that comes to published ports is taken in before [`HostUplink::go_on`].
    pub holds: bool,
}

/// How many sessions of each kind there may be at once. Less, if the process may not open so many descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// TCP connections.
    pub tcp: usize,
    /// UDP flows that containers began, and as many that came in by forwards.
    pub udp: usize,
    /// Pairs of a pinging container and its target.
    pub echo: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { tcp: 8192, udp: 4096, echo: 512 }
    }
}

/// An open uplink. Dropping it ends its thread and closes all that it has open; its device is gone then.
pub struct HostUplink {
    commands: Sender<Order>,
    waker: Arc<Waker>,
    /// How often the thread came round its loop.
    turns: Arc<AtomicU64>,
    totals: Arc<ArcSwap<Totals>>,
    thread: Option<JoinHandle<()>>,
}

/// Commands that may wait for the thread; with more of them the control side waits.
const COMMANDS: usize = 16;
/// Descriptors that are left to the rest of the process.
const SPARE: usize = 256;

/// Opens an uplink in the network namespace of the calling thread: the uplink, and the device by which the switch reaches it.
///
/// # Errors
/// An MTU that cannot be, or no descriptors or thread to be had.
pub fn open(settings: Settings) -> Result<(HostUplink, Box<dyn Device>), HostError> {
    let Settings { name, mac, router, mtu, capacity, sandbox, inherited, holds } = settings;
    if mtu < 1280 {
        return Err(HostError::Mtu { name, mtu });
    }
    let failed = |source: std::io::Error| HostError::Open { name: name.clone(), source };
    let poll = Poll::new().map_err(failed)?;
    let waker = Arc::new(Waker::new(poll.registry(), engine::WAKER).map_err(failed)?);
    let (device, link) = link::link(Arc::clone(&waker)).map_err(|errno| failed(errno.into()))?;
    let registry = poll.registry().try_clone().map_err(failed)?;
    let outbox = Outbox::new(link, mac, router, mtu);
    let doors = Doorkeeper::start(&name, inherited).map_err(failed)?;
    let common = Common { outbox, registry, apart: Apart::default(), counters: Counters::default(), doors };
    let (commands, inbox) = bounded(COMMANDS);
    let (turns, descriptors) = (Arc::new(AtomicU64::new(0)), descriptors());
    let capacity = capacity.within(descriptors);
    let totals = Arc::new(ArcSwap::from_pointee(Totals { capacity: capacity.sum(), ..Totals::default() }));
    let watched = Watched { turns: Arc::clone(&turns), totals: Arc::clone(&totals) };
    let engine = Engine::new(poll, inbox, common, capacity, descriptors, watched, holds);
    // A new thread is in the network namespace of the one that makes it.
    let run = move || {
        sandbox.enter(Role::Host);
        engine.run();
    };
    let thread = std::thread::Builder::new().name(format!("host-{name}")).spawn(run).map_err(failed)?;
    Ok((HostUplink { commands, waker, turns, totals, thread: Some(thread) }, Box::new(device)))
}

impl HostUplink {
    /// Publishes these ports and no others, all or none. A port that was published and still is keeps its socket and its
    /// connections.
    ///
    /// # Errors
    /// One sentence that names the first port that cannot be had; everything is then as it was.
    pub fn set_forwards(&self, forwards: Vec<Forward>) -> Result<(), HostError> {
        self.ask(|reply| Order::SetForwards(forwards, reply))?
    }

    /// What a successor needs, once more. From now on the thread takes in nothing that comes to published ports or from elders.
    ///
    /// # Errors
    /// The thread has ended, or has no descriptors left.
    pub fn lend(&self) -> Result<HostLoan, HostError> {
        self.ask(Order::Lend)?
    }

    /// The sessions that this process would see through for a successor.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn handed_over(&self) -> Result<Vec<ElderSession>, HostError> {
        Ok(self.sessions()?.iter().filter_map(ElderSession::of).collect())
    }

    /// Takes in from now on what comes to published ports and from elders, with these added.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn go_on(&self, elders: Vec<Elder>) -> Result<(), HostError> {
        self.ask(|reply| Order::GoOn(elders, reply))
    }

    /// Says which gateways lead here, with the subnets of their stations and what their links take. A client of a forward on the host itself,
    /// whose address means nothing to a container, seems to come from the container's gateway, and so do the uplink's ICMP errors.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn set_gateways(&self, gateways: Vec<Gateway>) -> Result<(), HostError> {
        self.ask(|reply| Order::SetGateways(gateways, reply))
    }

    /// Says who may send to a UDP port that a container has opened, from now on.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn set_filtering(&self, filtering: Filtering) -> Result<(), HostError> {
        self.ask(|reply| Order::SetFiltering(filtering, reply))
    }

    /// Says which networks are not reached from now on, by the host's own addresses in them, which stay reachable. Open connections go on.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn set_apart(&self, addresses: &[IpNet]) -> Result<(), HostError> {
        self.ask(|reply| Order::SetApart(Apart::new(addresses), reply))
    }

    /// Ends the sessions of containers that are gone, whose addresses may soon be others'.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn forget(&self, containers: &[IpAddr]) -> Result<(), HostError> {
        self.ask(|reply| Order::Forget(containers.to_vec(), reply))
    }

    /// Lists the sessions, in no order.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn sessions(&self) -> Result<Vec<Session>, HostError> {
        self.ask(Order::Sessions)
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn counters(&self) -> Result<Counters, HostError> {
        self.ask(Order::Counters)
    }

    /// Its counters as the thread shows them once a second, where they are read without asking it.
    pub fn totals(&self) -> Arc<ArcSwap<Totals>> {
        Arc::clone(&self.totals)
    }

    /// How often the thread came round its loop so far. If that stays the same after a [`HostUplink::wake`], the thread hangs.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Makes the thread come round its loop if it waits.
    pub fn wake(&self) {
        // It fails only without the thread.
        let _ = self.waker.wake();
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Order) -> Result<T, HostError> {
        let (reply, answer) = bounded(1);
        self.commands.send(command(reply)).map_err(|_| HostError::Stopped)?;
        self.waker.wake().map_err(|_| HostError::Stopped)?;
        answer.recv().map_err(|_| HostError::Stopped)
    }
}

impl Drop for HostUplink {
    fn drop(&mut self) {
        // A thread that has ended hears nothing, and is joined all the same.
        let _ = self.commands.send(Order::Stop);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Capacity {
    /// All sessions that there may be: as many UDP flows by forwards as begun by containers.
    const fn sum(self) -> usize {
        self.tcp + 2 * self.udp + self.echo
    }

    /// As much of it as `descriptors` allow.
    fn within(self, descriptors: usize) -> Self {
        let share = |wanted: usize, parts: usize| wanted.min(descriptors / 8 * parts).max(1);
        Self { tcp: share(self.tcp, 5), udp: share(self.udp, 2), echo: share(self.echo, 1) }
    }
}

/// How many descriptors the uplink may open.
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX)).saturating_sub(SPARE)
}

impl std::fmt::Debug for HostUplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostUplink").finish_non_exhaustive()
    }
}
