//! The thread that deals with etcd: it has the clock, and one thing at a time under way. A task beside it follows what is below the prefix.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::flannel::lease::FlannelLease;
use cluster::flannel::member::{FlannelMember, FlannelTable};
use cluster::pace::Backoff;
use cluster::store::{Outcome, Session, Step, Store, StoreError, Trouble};
use ipnet::{IpNet, Ipv4Net};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

use super::{FlannelFile, FlannelNews, FlannelSettings, FlannelTables};
use crate::overlay::{Follows, Happening, Standing, Turn, finished, follow};

/// How often a subnet is renewed, which etcd keeps for a day.
const RENEWAL: Duration = Duration::from_secs(3600);

/// Shortest time between two tables that are told.
const PAUSE: Duration = Duration::from_millis(50);

/// How often is looked after what is due by itself.
const TICK: Duration = Duration::from_secs(1);

/// How long nothing is put after a refusal, unless there is news that explains it.
const AFTER_REFUSAL: Duration = Duration::from_secs(3);

/// News of etcd that may wait.
const NEWS: usize = 64;

/// All of the prefix.
const ALL: &str = "";

/// The ways to the rest of the switch.
pub(super) struct FlannelWays {
    pub(super) ends: mpsc::Receiver<()>,
    pub(super) tell: Box<dyn FnMut(FlannelNews) + Send>,
    /// The subnets of other bridges and of uplinks; none: they are not told yet.
    pub(super) others: watch::Receiver<Option<Vec<IpNet>>>,
    pub(super) kept: FlannelFile,
}

/// The loop's own.
struct Room {
    settings: FlannelSettings,
    member: FlannelMember,
    standing: Standing,
    ways: FlannelWays,
    begun: Instant,
    store: Option<Arc<dyn Store>>,
    follower: Option<AbortHandle>,
    news: mpsc::Sender<Follows>,
    /// With when it was renewed last.
    session: Option<(Session, Duration)>,
    pace: Pace,
    /// What was told last.
    told: FlannelNews,
    /// What was said to be wrong, and is not said again while it is so.
    said: Option<String>,
    /// What was to be kept last.
    keeping: Option<JoinHandle<()>>,
}

/// What is due, and when.
#[derive(Default)]
struct Pace {
    backoff: Backoff,
    /// Nothing is asked before.
    not_before: Duration,
    /// Whether there may be something to put.
    eager: bool,
    /// Nothing is put before: it was refused, and would be again.
    not_put_before: Duration,
    told: Duration,
    /// Whether the tables have changed since they were kept.
    is_unkept: bool,
    kept: Duration,
    happened: Vec<Happening>,
}

/// What is done beside the loop, one at a time.
type UnderWay = JoinHandle<Done>;

/// What came of it.
enum Done {
    Opened(Result<Arc<dyn Store>, String>),
    Begun(Result<Session, StoreError>),
    Renewed(Result<bool, StoreError>),
    Put(Step, Result<Outcome, StoreError>),
}

/// Deals with etcd until the end is said. This host keeps its subnet then, until etcd forgets it.
pub(super) async fn run(settings: FlannelSettings, before: FlannelTables, ways: FlannelWays) {
    let (news, mut news_in) = mpsc::channel(NEWS);
    let mut room = Room::new(settings, before, ways, news);
    let mut under_way: Option<UnderWay> = None;
    loop {
        room.advance();
        if under_way.is_none() {
            under_way = room.errand();
        }
        let wait = room.wait();
        tokio::select! {
            _ = room.ways.ends.recv() => return room.end().await,
            Some(first) = news_in.recv() => {
                // What comes in a burst is looked at once.
                let rest = std::iter::from_fn(|| news_in.try_recv().ok());
                std::iter::once(first).chain(rest).take(NEWS).for_each(|news| room.hear(news));
            }
            done = finished(under_way.as_mut()) => {
                under_way = None;
                room.done(done);
            }
            () = tokio::time::sleep(wait) => room.pace.eager = true,
        }
    }
}

impl Room {
    fn new(settings: FlannelSettings, before: FlannelTables, ways: FlannelWays, news: mpsc::Sender<Follows>) -> Self {
        let me = FlannelLease { host: settings.underlay, mac: before.mac };
        let standing = Standing::default();
        let told = FlannelNews {
            state: standing.state().word(),
            problem: None,
            is_held: false,
            happened: Vec::new(),
            tables: Arc::new(before.clone()),
        };
        Self {
            member: FlannelMember::new(me, &settings.prefix, before.table),
            settings,
            standing,
            ways,
            begun: Instant::now(),
            store: None,
            follower: None,
            news,
            session: None,
            pace: Pace { eager: true, ..Pace::default() },
            told,
            said: None,
            keeping: None,
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Begins what is next, if it is time.
    fn errand(&mut self) -> Option<UnderWay> {
        let now = self.now();
        if now < self.pace.not_before {
            return None;
        }
        let Some(store) = self.store.clone() else {
            let settings = self.settings.clone();
            return Some(tokio::task::spawn_blocking(move || Done::Opened(settings.open())));
        };
        let Some((session, renewed)) = self.session.clone() else {
            return Some(tokio::spawn(async move { Done::Begun(store.open().await) }));
        };
        if now >= renewed + RENEWAL {
            return Some(tokio::spawn(async move { Done::Renewed(store.renew(&session).await) }));
        }
        if now < self.pace.not_put_before || !std::mem::take(&mut self.pace.eager) {
            return None;
        }
        let step = self.member.due(rand::random()).filter(|_| self.may_take())?;
        Some(tokio::spawn(async move {
            let outcome = store.commit(Some(&session), std::slice::from_ref(&step)).await;
            Done::Put(step, outcome)
        }))
    }

    /// Whether a subnet may be taken, if there is none yet: nothing here has one of the network.
    fn may_take(&self) -> bool {
        let FlannelTable { net, own, .. } = self.member.table();
        let (None, Some(net)) = (own, net) else { return true };
        let network = IpNet::V4(net.network);
        let overlaps = |other: &IpNet| network.contains(&other.network()) || other.contains(&network.network());
        self.ways.others.borrow().as_ref().is_some_and(|others| !others.iter().any(overlaps))
    }

    /// Takes note of what came of what was under way.
    fn done(&mut self, done: Option<Done>) {
        let now = self.now();
        match done {
            Some(Done::Opened(Ok(store))) => {
                let task = follow(Arc::clone(&store), ALL.to_owned(), self.news.clone());
                self.follower = Some(tokio::spawn(task).abort_handle());
                self.store = Some(store);
            }
            Some(Done::Opened(Err(sentence))) => self.failed(sentence),
            Some(Done::Begun(Ok(session))) => {
                self.session = Some((session, now));
                self.worked(now);
            }
            Some(Done::Renewed(Ok(goes_on))) => {
                self.session = self.session.take().filter(|_| goes_on).map(|(session, _)| (session, now));
                if !goes_on {
                    self.member.session_ended();
                }
                self.worked(now);
            }
            Some(Done::Put(step, Ok(outcome))) => {
                if outcome == Outcome::Refused {
                    self.pace.not_put_before = now + AFTER_REFUSAL;
                }
                self.member.done(&step, outcome, now);
                self.worked(now);
            }
            Some(Done::Begun(Err(error)) | Done::Renewed(Err(error)) | Done::Put(_, Err(error))) => self.refused(error),
            // A task that panicked was carried out in part, or not at all; nothing is known of it.
            None => self.failed("what etcd was asked ended early".to_owned()),
        }
    }

    fn worked(&mut self, now: Duration) {
        self.pace.backoff.reset();
        self.pace.eager = true;
        let works_again = self.standing.asked(Ok(()), now);
        if works_again && !self.standing.failing().is_empty() {
            self.follow_again();
        }
    }

    fn refused(&mut self, error: StoreError) {
        self.pace.eager = true;
        match &error.trouble {
            // It is no failure: another is opened, and the record put again.
            Trouble::SessionLost => {
                self.session = None;
                self.member.session_ended();
                return;
            }
            trouble if trouble.is_of_secrets() => {
                self.store = None;
                self.follower.take().iter().for_each(AbortHandle::abort);
            }
            _ => {}
        }
        self.failed(error.to_string());
    }

    fn failed(&mut self, sentence: String) {
        let now = self.now();
        self.standing.asked(Err(sentence), now);
        self.pace.not_before = now + self.pace.backoff.wait(rand::random());
    }

    /// etcd is back: what was lost of it is asked for at once.
    fn follow_again(&mut self) {
        let Some(store) = self.store.clone() else { return };
        self.follower.take().iter().for_each(AbortHandle::abort);
        self.follower = Some(tokio::spawn(follow(store, ALL.to_owned(), self.news.clone())).abort_handle());
    }

    fn hear(&mut self, (prefix, news): Follows) {
        let now = self.now();
        self.standing.followed(&prefix, news.as_ref().map(drop), now);
        if let Ok(news) = news {
            self.member.hear(&news, now);
            (self.pace.eager, self.pace.not_put_before) = (true, now);
        }
    }

    /// Looks after what is due by itself, and tells what has changed if it is time.
    fn advance(&mut self) {
        let now = self.now();
        self.member.expire(now);
        match self.standing.look(self.session.is_some() && self.member.is_heard(), None, now) {
            Some(Turn::Up { again }) => self.pace.happened.push(Happening::Up { again }),
            Some(Turn::Down(_, sentence)) => self.pace.happened.push(Happening::Down(of_flannel(&sentence))),
            None => {}
        }
        let wrong = self.member.problem();
        if wrong != self.said {
            self.pace.happened.extend(wrong.clone().map(Happening::Note));
            self.said = wrong;
        }
        if now >= self.pace.told + PAUSE {
            self.tell(now);
        }
        if self.pace.is_unkept && now >= self.pace.kept + TICK {
            self.keep(now);
        }
    }

    fn tell(&mut self, now: Duration) {
        let (state, is_held) = (self.standing.state().word(), self.member.is_held());
        let problem = self.standing.problem().map(of_flannel).or_else(|| self.member.problem());
        let before = Arc::clone(&self.told.tables);
        let has_changed = *self.member.table() != before.table;
        let is_told = (state, is_held, &problem) == (self.told.state, self.told.is_held, &self.told.problem);
        if is_told && !has_changed && self.pace.happened.is_empty() {
            return;
        }
        let tables = if has_changed {
            Arc::new(FlannelTables { table: self.member.table().clone(), ..(*before).clone() })
        } else {
            before
        };
        if has_changed {
            self.note_hosts(&tables);
            self.pace.is_unkept = true;
        }
        self.pace.told = now;
        self.told = FlannelNews { tables, state, problem, is_held, happened: Vec::new() };
        let happened = std::mem::take(&mut self.pace.happened);
        (self.ways.tell)(FlannelNews { happened, ..self.told.clone() });
    }

    /// Takes note of which hosts have come and gone since they were told.
    fn note_hosts(&mut self, tables: &FlannelTables) {
        let hosts = |tables: &FlannelTables| -> BTreeSet<(Ipv4Net, Ipv4Addr)> {
            tables.table.hosts.iter().map(|(subnet, host)| (*subnet, host.host)).collect()
        };
        let (before, after) = (hosts(&self.told.tables), hosts(tables));
        let gone = before.difference(&after).map(|(subnet, host)| Happening::Gone(subnet.to_string(), (*host).into()));
        let come = after.difference(&before).map(|(subnet, host)| Happening::Joined(subnet.to_string(), (*host).into()));
        self.pace.happened.extend(gone.chain(come));
    }

    /// Keeps what is known on another thread, for a disk may be slow.
    fn keep(&mut self, now: Duration) {
        (self.pace.is_unkept, self.pace.kept) = (false, now);
        let (kept, tables) = (self.ways.kept.clone(), Arc::clone(&self.told.tables));
        // One thread does this, so the last is written last.
        self.keeping = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = kept.write(&tables) {
                tracing::warn!("what is known of flannel's network cannot be kept for the next start: {error}");
            }
        }));
    }

    /// The end comes when what is known is kept.
    async fn end(mut self) {
        if self.pace.is_unkept {
            self.keep(self.now());
        }
        if let Some(keeping) = self.keeping.take() {
            let _ = keeping.await;
        }
    }

    /// How long there is nothing to do.
    fn wait(&self) -> Duration {
        let (now, mut next) = (self.now(), self.now() + TICK);
        if self.pace.not_before > now {
            next = next.min(self.pace.not_before);
        }
        if self.pace.told + PAUSE > now {
            next = next.min(self.pace.told + PAUSE);
        }
        next.saturating_sub(now)
    }
}

/// What is said of a store names the table in which it stands.
fn of_flannel(sentence: &str) -> String {
    sentence.replace("[cluster]", "[flannel]")
}
