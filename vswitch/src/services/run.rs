//! The loop of the services' thread, which the control side starts (`control/services.rs`): inputs, the clock, and questions to resolvers.
//! Touches the clock and, by what it calls, the network and the files of `state-dir`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crossbeam_channel::Sender;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::dns::{Query, ResolverOutcome, Resolvers, exchange};
use super::{Lease, LeasedUplink, Link, Output, Punt, Services, Station, Usage};
use api::{BridgeName, PortName};
use plane::datapath::Ticket;

/// What the services are told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A frame for the gateway.
    Frame(Punt, Ticket),
    /// A frame that arrived at an uplink.
    Uplink(PortName, Vec<u8>, Ticket),
    /// A bridge that has a gateway from now on, or another.
    Link(Link),
    /// A bridge that has none any more.
    Unlink(BridgeName),
    /// The uplinks that ask for an address from now on.
    Uplinks(Vec<LeasedUplink>),
    /// The containers that ask about their addresses from now on.
    Stations(Vec<Station>),
    /// What `/etc/resolv.conf` says from now on.
    Resolvers(String),
    /// A question for every lease of every bridge.
    List(Sender<Listing>),
}

/// What is given out, by bridge.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The second, since the Unix epoch, in which it was listed.
    pub now: u64,
    /// Every lease.
    pub leases: BTreeMap<BridgeName, Vec<Lease>>,
    /// How far the addresses are given out.
    pub pools: BTreeMap<BridgeName, Vec<Usage>>,
}

/// Serves until the last sender of `inputs` is gone, then keeps the leases. It writes files, so it wants a thread of its own,
/// which is this one. `output` must not wait: it puts frames into a bounded queue or drops them. It is never given an
/// [`Output::Ask`]; the servers of [`Input::Resolvers`] are asked here, from sockets of the thread's network namespace.
pub async fn run(mut services: Services, mut inputs: mpsc::Receiver<Input>, mut output: impl FnMut(Output)) {
    let clock = Clock::start();
    let mut resolvers = Resolvers::default();
    let mut questions = JoinSet::new();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut moments = interval(Duration::from_millis(100));
    moments.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let outputs = tokio::select! {
            input = inputs.recv() => match input {
                Some(input) => take(&mut services, &mut resolvers, clock.now(), input),
                None => break,
            },
            _ = seconds.tick() => {
                let outputs = services.tick(clock.now());
                outputs.into_iter().chain(services.news(clock.now())).collect()
            }
            _ = moments.tick(), if services.is_hurried() => services.hurry(clock.now()),
            Some(done) = questions.join_next() => answered(&mut services, &mut resolvers, clock.now(), done),
        };
        for out in outputs {
            match out {
                Output::Ask(query) => {
                    let servers = resolvers.servers(clock.now(), |address| services.is_own(address));
                    questions.spawn(async move {
                        let outcome = exchange(query.message(), query.transport(), &servers).await;
                        (query, outcome)
                    });
                }
                out => output(out),
            }
        }
    }
    services.keep();
}

type Done = Result<(Query, ResolverOutcome), tokio::task::JoinError>;

fn answered(services: &mut Services, resolvers: &mut Resolvers, now: Duration, done: Done) -> Vec<Output> {
    // These tasks are never cancelled, and do not panic.
    let Ok((query, outcome)) = done else { return Vec::new() };
    resolvers.note(now, &outcome);
    services.resolved(now, &query, outcome.answer)
}

fn take(services: &mut Services, resolvers: &mut Resolvers, now: Duration, input: Input) -> Vec<Output> {
    match input {
        Input::Frame(punt, _) => services.receive(now, &punt),
        Input::Uplink(name, frame, _) => services.receive_uplink(now, &name, &frame),
        Input::Link(link) => services.set_link(now, link).into_iter().collect(),
        Input::Unlink(bridge) => services.remove_link(&bridge).into_iter().collect(),
        Input::Uplinks(uplinks) => services.set_uplinks(now, &uplinks),
        Input::Stations(stations) => services.set_stations(now, stations),
        Input::Resolvers(text) => {
            resolvers.set(&text);
            Vec::new()
        }
        Input::List(reply) => {
            // The control side may have given up waiting.
            let _ = reply.try_send(Listing { now: now.as_secs(), leases: services.all_leases(), pools: services.pools(now) });
            Vec::new()
        }
    }
}

/// Wall-clock time that does not follow when the system's clock is set.
struct Clock {
    wall: Duration,
    start: Instant,
}

impl Clock {
    fn start() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { wall, start: Instant::now() }
    }

    fn now(&self) -> Duration {
        self.wall + self.start.elapsed()
    }
}
