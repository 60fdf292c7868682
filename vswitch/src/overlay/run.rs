//! The thread that deals with the store: it has the clock, and one thing at a time under way.
//!
//! A task for each prefix follows the store and tells the news; one errand at a time is carried out beside it. So the loop itself waits for nothing
//! but the next event, and answers questions at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::agent::{self, Agent, Carried, Errand};
use cluster::gossip::Node;
use cluster::key::PublicKey;
use cluster::pace::Backoff;
use cluster::record::{Host, Name};
use cluster::store::{Store, StoreKind};
use cluster::view::{Difference, View};
use crossbeam_channel::Sender;
use packet::Mac;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::follow::{Follows, Lines};
use super::here::Here;
use super::lives::Lives;
use super::standing::{Standing, Turn};
use super::thread::{Happening, OverlayInput, OverlayNews};
use super::{ClusterSettings, Elsewhere, OverlayFile, Truth};

/// Shortest time between two tables that are told.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// Shortest time between two batches of transactions, of which it takes up to twice as long: other hosts ask as well.
const BREATH: Duration = Duration::from_millis(100);

/// How often is looked after what is due by itself.
const TICK: Duration = Duration::from_secs(1);

/// How long the goodbye to a store may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// News of the store that may wait.
const NEWS: usize = 64;

/// The ways to the rest of the switch.
pub(super) struct Ways {
    pub(super) inputs: mpsc::UnboundedReceiver<OverlayInput>,
    pub(super) tell: Box<dyn FnMut(OverlayNews) + Send>,
    /// Gets the first thing that is known of the store.
    pub(super) first: Option<Sender<Result<(), String>>>,
    pub(super) kept: OverlayFile,
    /// This host's key for encrypted networks.
    pub(super) key: Option<PublicKey>,
}

/// The loop's own.
pub(super) struct Room {
    pub(super) settings: ClusterSettings,
    pub(super) agent: Agent,
    pub(super) truth: Truth,
    pub(super) standing: Standing,
    pub(super) tables: Arc<Elsewhere>,
    ways: Ways,
    begun: Instant,
    pub(super) lines: Lines,
    pub(super) lives: Lives,
    pub(super) here: Here,
    pub(super) pace: Due,
    /// Stations that are at another host now, and the tables that say so: what was seen here before those does not count.
    pub(super) taken: BTreeMap<(Name, Mac), u64>,
    pub(super) said: SaidOnce,
    /// Whether it was told what is here.
    pub(super) is_told: bool,
    /// Whether the store has not known this host for so long that its blocks of addresses may be another's.
    is_away: bool,
}

/// What was said once, and is not said again while it is so.
#[derive(Default)]
pub(super) struct SaidOnce {
    /// Stations that are at two hosts.
    pub(super) doubled: BTreeSet<(Name, Mac)>,
    /// Networks that this host has no part in, and why.
    refused: BTreeMap<Name, String>,
}

/// What is due, and when.
pub(super) struct Due {
    backoff: Backoff,
    /// Nothing is asked before.
    not_before: Duration,
    /// Whether there may be something to put.
    pub(super) eager: bool,
    /// Whether the tables have changed since they were told.
    pub(super) is_changed: bool,
    told: Duration,
    /// Whether the tables have changed since they were kept.
    is_unkept: bool,
    kept: Duration,
    pub(super) happened: Vec<Happening>,
}

/// Deals with the store until the end is said.
pub(super) async fn run(settings: ClusterSettings, before: Elsewhere, ways: Ways) {
    let (news, mut news_in) = mpsc::channel(NEWS);
    let mut room = Room::new(settings, before, ways, news);
    let mut under_way: Option<UnderWay> = None;
    loop {
        room.advance();
        if under_way.is_none() {
            under_way = room.errand();
        }
        let wait = room.wait(under_way.is_some());
        tokio::select! {
            input = room.ways.inputs.recv() => match input {
                Some(OverlayInput::End { leave }) => return room.end(leave, under_way).await,
                Some(input) => room.take(input),
                None => return room.end(true, under_way).await,
            },
            Some(first) = news_in.recv() => {
                // What comes in a burst is looked at once.
                let rest = std::iter::from_fn(|| news_in.try_recv().ok());
                std::iter::once(first).chain(rest).take(NEWS).for_each(|(prefix, news)| room.hear(&prefix, news));
            }
            () = room.lives.heard() => {}
            done = finished(under_way.as_mut()) => {
                under_way = None;
                room.done(done);
            }
            () = tokio::time::sleep(wait) => room.pace.eager = true,
        }
    }
}

/// What is done beside the loop, one at a time.
type UnderWay = JoinHandle<Done>;

/// What came of it.
enum Done {
    /// The store and the gossip, if the store can be asked at all.
    Opened(Result<(Arc<dyn Store>, Arc<Node>), String>),
    /// What the store was asked for.
    Asked(Carried),
}

/// Waits for what is under way, for ever if that is nothing.
pub(crate) async fn finished<T>(under_way: Option<&mut JoinHandle<T>>) -> Option<T> {
    match under_way {
        Some(handle) => handle.await.ok(),
        None => std::future::pending().await,
    }
}

impl Room {
    fn new(settings: ClusterSettings, before: Elsewhere, ways: Ways, news: mpsc::Sender<Follows>) -> Self {
        let random = || format!("{:016x}", rand::random::<u64>());
        let program = env!("CARGO_PKG_VERSION").to_owned();
        let (underlay, port, gossip) = (settings.underlay, settings.port, Some(settings.gossip_port));
        let host = Host { underlay, port, boot: random(), program, gossip, key: ways.key, idle: false };
        let view = View::new(settings.node.clone(), host, before.cluster.clone(), random());
        let view = if settings.store == StoreKind::Gossip { view.apart() } else { view };
        let pace = Due {
            backoff: Backoff::default(),
            not_before: Duration::ZERO,
            eager: true,
            is_changed: false,
            told: Duration::ZERO,
            is_unkept: false,
            kept: Duration::ZERO,
            happened: Vec::new(),
        };
        Self {
            agent: Agent::new(view, settings.ttl),
            settings,
            truth: Truth::default(),
            standing: Standing::default(),
            tables: Arc::new(before),
            ways,
            begun: Instant::now(),
            lines: Lines::new(news),
            lives: Lives::default(),
            here: Here::default(),
            pace,
            taken: BTreeMap::new(),
            said: SaidOnce::default(),
            is_told: false,
            is_away: false,
        }
    }

    /// The time since the thread began.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Begins what is next, if it is time: to read what the store is asked with, or to ask it.
    fn errand(&mut self) -> Option<UnderWay> {
        let now = self.now();
        if now < self.pace.not_before {
            return None;
        }
        let Some(store) = self.lines.store.clone() else {
            let (settings, node) = (self.settings.clone(), self.lives.node());
            let open = move || Done::Opened(settings.open(node));
            return Some(tokio::task::spawn_blocking(open));
        };
        let errand = self.agent.errand(self.pace.eager, now);
        if matches!(errand, None | Some(Errand::Put(..))) {
            // What is refused, or waits for news, is not asked for again at once.
            self.pace.eager = false;
        }
        let errand = errand?;
        Some(tokio::spawn(async move { Done::Asked(agent::carry_out(store, errand).await) }))
    }

    fn failed(&mut self, sentence: String) {
        let now = self.now();
        self.standing.asked(Err(sentence), now);
        self.pace.not_before = now + self.pace.backoff.wait(rand::random());
    }

    /// Takes note of what came of what was under way.
    fn done(&mut self, done: Option<Done>) {
        match done {
            Some(Done::Opened(Ok((store, node)))) => {
                self.lines.store = Some(store);
                self.lives.begin(node);
            }
            Some(Done::Opened(Err(sentence))) => self.failed(sentence),
            Some(Done::Asked(carried)) => self.asked(carried),
            // A task that panicked was carried out in part, or not at all; nothing is known of it.
            None => self.failed("what the store was asked ended early".to_owned()),
        }
    }

    fn asked(&mut self, carried: Carried) {
        let now = self.now();
        match self.agent.done(carried, now) {
            Ok(more) => {
                self.pace.backoff.reset();
                self.pace.eager |= more;
                if more {
                    self.pace.not_before = now + BREATH.mul_f64(1.0 + rand::random::<f64>());
                }
                if self.standing.asked(Ok(()), now) {
                    self.follow_again();
                }
            }
            Err(error) => {
                if error.trouble.is_of_secrets() {
                    self.lines.close();
                }
                self.pace.eager = true;
                self.failed(error.to_string());
            }
        }
    }

    fn take(&mut self, input: OverlayInput) {
        match input {
            OverlayInput::Truth(truth) => self.believe(truth),
            OverlayInput::Ask(question, reply) => drop(reply.send(self.answer(&question))),
            OverlayInput::End { .. } => {}
        }
    }

    /// Follows what is to be followed, and tells what has changed if it is time.
    fn advance(&mut self) {
        let now = self.now();
        self.look_here(now);
        self.set_follows();
        self.follow_lives(now);
        for difference in self.agent.view_mut().differences(now) {
            if let Difference::Taken(network, mac, _) = &difference {
                self.taken.insert((network.clone(), *mac), self.tables.generation + 1);
            }
            self.pace.is_changed = true;
        }
        let is_away = self.agent.view().is_away(now);
        self.pace.is_changed |= std::mem::replace(&mut self.is_away, is_away) != is_away;
        let view = self.agent.view();
        let refused = view.refused_networks().map(|(name, refusal)| (name.clone(), refusal.to_string()));
        let before = std::mem::replace(&mut self.said.refused, refused.collect());
        let news = self.said.refused.iter().filter(|(name, sentence)| before.get(*name) != Some(sentence));
        self.pace.happened.extend(news.map(|(_, sentence)| Happening::Note(sentence.clone())));
        let heard = self.agent.session().is_some() && view.is_heard();
        if let Some(turn) = self.standing.look(heard, view.refusal(), now) {
            self.turn(turn);
        }
        if now >= self.pace.told + PAUSE && (self.pace.is_changed || !self.pace.happened.is_empty()) {
            self.tell(now);
        }
        if self.pace.is_unkept && now >= self.pace.kept + TICK {
            self.keep(now);
        }
    }

    fn turn(&mut self, turn: Turn) {
        let (first, happening) = match turn {
            Turn::Up { again } => (Ok(()), Happening::Up { again }),
            Turn::Down(_, sentence) => (Err(sentence.clone()), Happening::Down(sentence)),
        };
        // Only a start that requires the store listens.
        let _ = self.ways.first.take().map(|sender| sender.send(first));
        self.pace.happened.push(happening);
    }

    fn tell(&mut self, now: Duration) {
        // Before it is known which networks this host is in, those that were kept are all.
        let mut tables = if self.is_told { self.elsewhere(now) } else { (*self.tables).clone() };
        let has_changed = tables != *self.tables;
        // What was taken from this host needs tables of its own.
        let is_new = has_changed || self.taken.values().any(|since| *since > tables.generation);
        if is_new {
            tables.generation += 1;
            self.tables = Arc::new(tables);
        }
        self.pace.is_unkept |= has_changed;
        (self.pace.is_changed, self.pace.told) = (false, now);
        let happened = std::mem::take(&mut self.pace.happened);
        if is_new || !happened.is_empty() {
            (self.ways.tell)(OverlayNews { tables: Arc::clone(&self.tables), happened });
        }
    }

    /// The tables as the view has them now.
    fn elsewhere(&mut self, now: Duration) -> Elsewhere {
        let blocks = self.truth.blocks(self.agent.view_mut(), now);
        let silent = self.lives.silent();
        Elsewhere { silent, is_absent: self.here.is_absent, ..Elsewhere::of(self.agent.view(), &self.tables, &blocks) }
    }

    /// Keeps the tables on another thread, for a disk may be slow.
    fn keep(&mut self, now: Duration) -> JoinHandle<()> {
        (self.pace.is_unkept, self.pace.kept) = (false, now);
        let (kept, tables) = (self.ways.kept.clone(), Arc::clone(&self.tables));
        tokio::task::spawn_blocking(move || {
            if let Err(error) = kept.write(&tables) {
                tracing::warn!("what is known of overlay networks cannot be kept for the next start: {error}");
            }
        })
    }

    /// How long there is nothing to do.
    fn wait(&self, is_busy: bool) -> Duration {
        let now = self.now();
        let mut next = now + TICK;
        if !is_busy {
            let renewal = if self.pace.eager { now } else { self.agent.renewal().unwrap_or_default() };
            next = next.min(renewal.max(self.pace.not_before));
        }
        if self.pace.is_changed || !self.pace.happened.is_empty() {
            next = next.min(self.pace.told + PAUSE);
        }
        next.saturating_sub(now)
    }

    /// The end. What is under way comes to its own end first, so that nothing is announced after the goodbye.
    async fn end(mut self, leave: bool, under_way: Option<UnderWay>) {
        if self.pace.is_unkept {
            let _ = self.keep(self.now()).await;
        }
        let goodbye = async {
            if let Some(Ok(Done::Asked(done))) = futures_util::future::OptionFuture::from(under_way).await {
                let now = self.now();
                let _ = self.agent.done(done, now);
            }
            if let (true, Some(store), Some(session)) = (leave, self.lines.store.take(), self.agent.leave()) {
                let _ = store.close(&session).await;
            }
        };
        // A store that does not answer finds out by itself.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        if leave {
            self.lives.leave();
        }
    }
}
