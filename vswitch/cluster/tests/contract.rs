//! What every store must do, tried on each: the one in memory, and real servers of etcd, Consul and ZooKeeper where they are to be had.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails where it cannot go on")]

#[path = "servers/mod.rs"]
mod servers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::gossip::{Node, Profile};
use cluster::store::memory::{Link, Memory};
use cluster::store::{Change, Entry, Follow, MOST_STEPS, News, Outcome, Session, Step, Store, StoreKind, Trouble};
use servers::{Kind, Place, isolated, run};

const TTL: Duration = Duration::from_secs(2);

fn create(key: &str, value: &str) -> Step {
    Step::Create { key: key.to_owned(), value: value.to_owned() }
}

fn announce(key: &str, value: &str) -> Step {
    Step::Announce { key: key.to_owned(), value: value.to_owned() }
}

fn claim(key: &str, value: &str) -> Step {
    Step::Claim { key: key.to_owned(), value: value.to_owned() }
}

fn replace(entry: &Entry, value: &str) -> Step {
    Step::Replace { key: entry.key.clone(), value: value.to_owned(), version: entry.version }
}

fn remove(key: &str) -> Step {
    Step::Remove { key: key.to_owned() }
}

async fn pairs(store: &dyn Store, prefix: &str) -> Vec<(String, String)> {
    let listing = store.list(prefix).await.unwrap();
    listing.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// What a prefix holds by what its follower was told.
struct Told {
    follow: Box<dyn Follow>,
    holds: BTreeMap<String, String>,
    lists: usize,
}

impl Told {
    fn new(store: &dyn Store, prefix: &str) -> Self {
        Self { follow: store.follow(prefix), holds: BTreeMap::new(), lists: 0 }
    }

    async fn hear(&mut self) {
        let news = self.follow.next().await.unwrap();
        self.take(news);
    }

    fn take(&mut self, news: News) {
        match news {
            News::All(listing) => {
                self.lists += 1;
                self.holds = listing.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
            }
            News::Some(changes) => changes.into_iter().for_each(|change| match change {
                Change::Is(entry) => drop(self.holds.insert(entry.key, entry.value)),
                Change::Gone(key) => drop(self.holds.remove(&key)),
            }),
        }
    }

    async fn until(&mut self, what: &str, holds: &[(String, String)]) {
        let wanted: BTreeMap<String, String> = holds.iter().cloned().collect();
        let heard = tokio::time::timeout(Duration::from_secs(5), async {
            while self.holds != wanted {
                self.hear().await;
            }
        });
        assert!(heard.await.is_ok(), "{what}: {:?} instead of {wanted:?}", self.holds);
    }
}

async fn transactions_are_whole(store: &dyn Store) {
    assert_eq!(pairs(store, "t/").await, [], "an empty prefix");
    assert_eq!(store.commit(None, &[create("t/a", "1"), create("t/b/c", "2")]).await, Ok(Outcome::Done));
    assert_eq!(store.commit(None, &[create("t/d", "3"), create("t/a", "4")]).await, Ok(Outcome::Refused));
    assert_eq!(pairs(store, "t/").await, [pair("t/a", "1"), pair("t/b/c", "2")], "all or nothing");
    let old = store.list("t/").await.unwrap().entries.remove(0);
    assert_eq!(store.commit(None, &[replace(&old, "5")]).await, Ok(Outcome::Done));
    assert_eq!(store.commit(None, &[create("t/e", "6"), replace(&old, "7")]).await, Ok(Outcome::Refused), "an old version");
    let missing = Entry { key: "t/none".to_owned(), ..old };
    assert_eq!(store.commit(None, &[replace(&missing, "8")]).await, Ok(Outcome::Refused), "nothing to replace");
    let new = store.list("t/").await.unwrap().entries.remove(0);
    assert_eq!(store.commit(None, &[replace(&new, "9")]).await, Ok(Outcome::Done));
    assert_eq!(pairs(store, "t/").await, [pair("t/a", "9"), pair("t/b/c", "2")]);
}

async fn prefixes_are_kept_apart(store: &dyn Store) {
    let steps = [create("p/net1/a", "1"), create("p/net10/a", "2"), create("p/net1-b/a", "3")];
    assert_eq!(store.commit(None, &steps).await, Ok(Outcome::Done));
    assert_eq!(pairs(store, "p/net1/").await, [pair("p/net1/a", "1")]);
    assert_eq!(pairs(store, "p/").await.len(), 3);
}

async fn long_lists_are_whole(store: &dyn Store) {
    let keys: Vec<String> = (0..1230).map(|number| format!("long/{number:05}")).collect();
    for chunk in keys.chunks(MOST_STEPS) {
        let steps: Vec<Step> = chunk.iter().map(|key| create(key, "ü")).collect();
        assert_eq!(store.commit(None, &steps).await, Ok(Outcome::Done));
    }
    let listed = pairs(store, "long/").await;
    assert_eq!(listed, keys.iter().map(|key| pair(key, "ü")).collect::<Vec<_>>());
}

async fn what_is_announced_goes_with_the_session(store: &dyn Store, other: &dyn Store) {
    let session = store.open().await.unwrap();
    let steps: Vec<Step> = (0..MOST_STEPS).map(|number| announce(&format!("s/{number}"), "x")).collect();
    assert_eq!(store.commit(Some(&session), &steps).await, Ok(Outcome::Done), "the most steps of a transaction");
    assert_eq!(store.commit(Some(&session), &[announce("s/0", "y"), remove("s/1")]).await, Ok(Outcome::Done));
    assert_eq!(store.commit(Some(&session), &[remove("s/1")]).await, Ok(Outcome::Done), "what is gone may be removed");
    assert_eq!(pairs(store, "s/").await.len(), MOST_STEPS - 1);
    assert_eq!(store.renew(&session).await, Ok(true));
    // Another start of the same host takes over what its last one announced.
    let second = other.open().await.unwrap();
    assert_eq!(other.commit(Some(&second), &[announce("s/0", "z")]).await, Ok(Outcome::Done));
    let mut told = Told::new(other, "s/");
    told.hear().await;
    assert_eq!(told.holds.len(), MOST_STEPS - 1);
    store.close(&session).await.unwrap();
    told.until("the session's keys are gone, but for what was taken over", &[pair("s/0", "z")]).await;
    assert_eq!(store.renew(&session).await, Ok(false));
    let error = store.commit(Some(&session), &[announce("s/2", "x")]).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::SessionLost, "{error}");
    other.close(&second).await.unwrap();
    told.until("nothing is left", &[]).await;
}

async fn what_is_claimed_is_no_others_and_goes_with_the_session(store: &dyn Store, other: &dyn Store) {
    let (first, second) = (store.open().await.unwrap(), other.open().await.unwrap());
    assert_eq!(store.commit(Some(&first), &[claim("c/a", "1")]).await, Ok(Outcome::Done));
    assert_eq!(other.commit(Some(&second), &[claim("c/a", "2")]).await, Ok(Outcome::Refused));
    assert_eq!(pairs(other, "c/").await, [pair("c/a", "1")]);
    let mut told = Told::new(other, "c/");
    told.hear().await;
    store.close(&first).await.unwrap();
    told.until("it goes with its session", &[]).await;
    assert_eq!(other.commit(Some(&second), &[claim("c/a", "2")]).await, Ok(Outcome::Done));
    other.close(&second).await.unwrap();
    told.until("nothing is left", &[]).await;
}

async fn a_session_that_is_not_renewed_ends(store: &dyn Store, wait: impl AsyncFn(Duration)) {
    let session = store.open().await.unwrap();
    store.commit(Some(&session), &[announce("e/a", "1")]).await.unwrap();
    wait(TTL / 2).await;
    assert_eq!(store.renew(&session).await, Ok(true));
    wait(TTL * 3 / 4).await;
    assert_eq!(pairs(store, "e/").await, [pair("e/a", "1")], "it was renewed meanwhile");
    wait(TTL + TTL / 2).await;
    assert_eq!(pairs(store, "e/").await, [], "it ended");
    assert_eq!(store.renew(&session).await, Ok(false));
}

async fn followers_are_told(store: &dyn Store, other: &dyn Store) {
    other.commit(None, &[create("f/a", "1"), create("g/a", "1")]).await.unwrap();
    let mut told = Told::new(store, "f/");
    told.until("what was there", &[pair("f/a", "1")]).await;
    let session: Session = other.open().await.unwrap();
    other.commit(Some(&session), &[create("f/b/c", "2"), announce("f/d", "3"), create("g/b", "2")]).await.unwrap();
    told.until("what came", &[pair("f/a", "1"), pair("f/b/c", "2"), pair("f/d", "3")]).await;
    let old = other.list("f/").await.unwrap().entries.remove(0);
    other.commit(Some(&session), &[replace(&old, "4"), remove("f/d")]).await.unwrap();
    told.until("what changed and went", &[pair("f/a", "4"), pair("f/b/c", "2")]).await;
    other.commit(Some(&session), &[announce("f/d", "5")]).await.unwrap();
    other.close(&session).await.unwrap();
    told.until("what went with a session", &[pair("f/a", "4"), pair("f/b/c", "2")]).await;
    assert_eq!(told.lists, 1, "changes were told one by one");
}

/// All of it, on two ways to one store.
async fn contract(store: &dyn Store, other: &dyn Store) {
    transactions_are_whole(store).await;
    prefixes_are_kept_apart(store).await;
    long_lists_are_whole(store).await;
    what_is_announced_goes_with_the_session(store, other).await;
    what_is_claimed_is_no_others_and_goes_with_the_session(store, other).await;
    followers_are_told(store, other).await;
}

#[test]
fn memory() {
    run(async {
        let memory = Memory::new(TTL);
        let (store, other) = (memory.host(), memory.host());
        contract(&store, &other).await;
        a_session_that_is_not_renewed_ends(&store, async |time| memory.advance(time)).await;
        let mut told = Told::new(&store, "f/");
        told.hear().await;
        other.commit(None, &[create("f/x", "1")]).await.unwrap();
        memory.compact();
        told.until("lost history", &[pair("f/a", "4"), pair("f/b/c", "2"), pair("f/x", "1")]).await;
        assert_eq!(told.lists, 2, "all of it is told again");
        store.set_link(Link::Cut);
        assert_eq!(store.list("f/").await.unwrap_err().trouble, Trouble::Silent(2));
        store.set_link(Link::Deaf);
        assert!(store.commit(None, &[create("f/y", "1")]).await.is_err());
        store.set_link(Link::Up);
        assert_eq!(pairs(&store, "f/").await.len(), 4, "it was carried out, but the answer was lost");
        memory.wipe();
        told.until("another store", &[]).await;
    });
}

/// Without a store hosts tell each other what they announce; what takes an agreement of all is refused.
#[test]
fn gossip() {
    run(async {
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = |last: u8| std::net::SocketAddr::from(([127, 0, 0, last], port));
        let start = |last: u8, boot: u64| {
            let (prefix, secret) = ("p".to_owned(), Some("hush".to_owned()));
            let profile = Profile { address: address(last), boot, prefix, secret, is_store: true };
            let node = Arc::new(Node::new(profile, [address(1)]));
            let task = tokio::spawn(Arc::clone(&node).run());
            let mut settings = cluster::store::Settings::new(StoreKind::Gossip, vec!["127.0.0.1".to_owned()]);
            settings.node = Some(node);
            (settings.open().unwrap(), task)
        };
        let ((store, task), (other, _)) = (start(1, 1), start(2, 1));
        let (session, _) = (store.open().await.unwrap(), other.open().await.unwrap());
        let mut told = Told::new(&*other, "net/red/");
        told.until("nothing", &[]).await;
        let (host, station) = ("net/red/member/h1", "net/red/endpoint/h1/02:00:00:00:00:01");
        store.commit(Some(&session), &[create("cluster/network/red", "1"), create("cluster/vni/5000", "red")]).await.unwrap();
        store.commit(Some(&session), &[announce(host, "m"), announce(station, "s")]).await.unwrap();
        told.until("what was announced", &[pair(host, "m"), pair(station, "s")]).await;
        assert_eq!(
            other.commit(None, &[create("cluster/network/red", "2"), announce("net/red/member/h2", "m")]).await,
            Ok(Outcome::Refused)
        );
        assert_eq!(other.commit(None, &[create("net/red/block/10.0.0.0-26", "h2")]).await, Ok(Outcome::Refused));
        other.commit(None, &[announce("net/red/member/h2", "m")]).await.unwrap();
        store.commit(Some(&session), &[remove(station)]).await.unwrap();
        told.until("what is left", &[pair(host, "m"), pair("net/red/member/h2", "m")]).await;
        store.close(&session).await.unwrap();
        told.until("what went with a host", &[pair("net/red/member/h2", "m")]).await;
        let id = pair("cluster/id", "gossip of vswitch");
        assert_eq!(
            pairs(&*other, "cluster/").await,
            [id, pair("cluster/network/red", "1")],
            "who has a part in it keeps its record"
        );
        task.abort();
        let _ = task.await;
        drop(store);
        let (again, _) = start(1, 2);
        again.open().await.unwrap();
        assert_eq!(pairs(&*again, "net/").await, [pair("net/red/member/h2", "m")], "it is ready when it has heard the others");
    });
}

fn on(kind: Kind, test: impl AsyncFnOnce(Place)) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    if isolated(&name, kind) {
        run(async {
            let place = Place::new(kind).await;
            test(place).await;
        });
    }
}

fn on_secured(test: impl AsyncFnOnce(Place)) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    if isolated(&name, Kind::Etcd) {
        run(async { test(Place::secured().await).await });
    }
}

fn open(place: &Place) -> Arc<dyn Store> {
    let mut settings = place.settings();
    settings.ttl = TTL;
    settings.open().unwrap()
}

#[test]
fn etcd() {
    on(Kind::Etcd, async |place| {
        let (store, other) = (open(&place), open(&place));
        contract(&*store, &*other).await;
        a_session_that_is_not_renewed_ends(&*store, async |time| tokio::time::sleep(time).await).await;
        history_is_lost(&*store, &place).await;
    });
}

#[test]
fn a_follower_goes_on_when_the_store_comes_back() {
    on(Kind::Etcd, async |mut place| {
        let store = open(&place);
        let mut told = Told::new(&*store, "r/");
        store.commit(None, &[create("r/a", "1")]).await.unwrap();
        told.until("before", &[pair("r/a", "1")]).await;
        place.kill();
        assert!(told.follow.next().await.is_err());
        assert!(matches!(store.list("r/").await.unwrap_err().trouble, Trouble::Unreachable(_)));
        place.restart().await;
        let mut heard = told.follow.next().await;
        while heard.is_err() {
            heard = told.follow.next().await;
        }
        assert_eq!(heard, Ok(News::Some(Vec::new())), "that it works again is heard although nothing has changed");
        store.commit(None, &[create("r/b", "2")]).await.unwrap();
        told.until("after", &[pair("r/a", "1"), pair("r/b", "2")]).await;
        assert_eq!(told.lists, 1, "what it had heard is not told again");
    });
}

/// etcd tells one that lags behind of a thousand revisions at a time, each time with the revision that the store has come to meanwhile.
#[test]
fn a_follower_that_lags_behind_misses_nothing_when_its_connection_ends() {
    on(Kind::Etcd, async |mut place| {
        let store = open(&place);
        let mut told = Told::new(&*store, "l/");
        told.hear().await;
        let all: Vec<_> = (0..2500).map(|number| pair(&format!("l/{number}"), "1")).collect();
        for (key, value) in &all {
            store.commit(None, &[create(key, value)]).await.unwrap();
        }
        told.hear().await;
        assert!(told.holds.len() < all.len(), "all came at once");
        place.restart().await;
        while told.holds.len() < all.len() {
            let heard = tokio::time::timeout(Duration::from_secs(5), told.follow.next()).await;
            if let Ok(news) = heard.unwrap_or_else(|_| panic!("{} of {} were told", told.holds.len(), all.len())) {
                told.take(news);
            }
        }
        assert_eq!(told.lists, 1, "it went on where it was");
    });
}

/// What is written while a long list is read, before the place to which the reader has come, is told behind the list.
async fn what_comes_while_a_list_is_read_is_told(store: &dyn Store, other: &dyn Store) {
    let keys: Vec<String> = (0..6000).map(|number| format!("q/b/{number:05}")).collect();
    for chunk in keys.chunks(MOST_STEPS) {
        let steps: Vec<Step> = chunk.iter().map(|key| create(key, "1")).collect();
        assert_eq!(store.commit(None, &steps).await, Ok(Outcome::Done));
    }
    let mut told = Told::new(store, "q/");
    let fresh: Vec<String> = (0..200).map(|number| format!("q/a/{number}")).collect();
    let write = async {
        for key in &fresh {
            other.commit(None, &[create(key, "1")]).await.unwrap();
        }
    };
    tokio::join!(told.hear(), write);
    let all: Vec<_> = fresh.iter().chain(&keys).map(|key| pair(key, "1")).collect();
    told.until("all of it", &all).await;
    assert_eq!(told.lists, 1);
}

#[test]
fn what_comes_while_a_list_of_etcd_is_read_is_told() {
    on(Kind::Etcd, async |place| what_comes_while_a_list_is_read_is_told(&*open(&place), &*open(&place)).await);
}

#[test]
fn what_comes_while_a_list_of_consul_is_read_is_told() {
    on(Kind::Consul, async |place| what_comes_while_a_list_is_read_is_told(&*open(&place), &*open(&place)).await);
}

#[test]
fn what_comes_while_a_list_of_zookeeper_is_read_is_told() {
    on(Kind::ZooKeeper, async |place| what_comes_while_a_list_is_read_is_told(&*open(&place), &*open(&place)).await);
}

#[test]
fn what_is_wrong_with_certificates_is_said() {
    on_secured(async |place| {
        let says = async |change: &dyn Fn(&mut cluster::store::Settings)| {
            let mut settings = place.settings();
            change(&mut settings);
            settings.open().unwrap().commit(None, &[create("c/a", "1")]).await.unwrap_err().to_string()
        };
        let identity = |name: &str| Some((place.file(&format!("{name}.pem")), place.file(&format!("{name}.key"))));
        assert_eq!(open(&place).commit(None, &[create("c/b", "1")]).await, Ok(Outcome::Done));
        let said = says(&|settings| settings.identity = None).await;
        assert!(said.contains("the store wants a client certificate: give `cert` and `key`"), "{said}");
        let said = says(&|settings| settings.identity = identity("stranger")).await;
        assert!(said.contains("does not take this host's certificate: give a `cert` that is signed by"), "{said}");
        let said = says(&|settings| settings.identity = identity("expired")).await;
        assert!(said.contains("and has not expired"), "{said}");
        let said = says(&|settings| settings.ca = Some(place.file("other.pem"))).await;
        assert!(said.contains("the store's certificate is signed by none of those in `ca`"), "{said}");
        let said = says(&|settings| settings.endpoints = vec!["https://localhost:2379".to_owned()]).await;
        assert!(said.contains("the store's certificate is for another name"), "{said}");
        let said = says(&|settings| {
            *settings = cluster::store::Settings::new(settings.kind, vec!["http://127.0.0.1:2379".to_owned()]);
        });
        let said = said.await;
        assert!(
            said.contains("closed the connection without an answer (if it speaks TLS, write https:// and give `ca`)"),
            "{said}"
        );
        place.guard();
        let named = |settings: &mut cluster::store::Settings| {
            settings.identity = identity("named");
            settings.user = Some(("root".to_owned(), "secret".to_owned()));
        };
        let said = says(&named).await;
        assert!(said.contains("its gateway refuses every client certificate with a CommonName: make one without it"), "{said}");
        let mut settings = place.settings();
        settings.user = Some(("root".to_owned(), "secret".to_owned()));
        assert_eq!(settings.open().unwrap().commit(None, &[create("c/d", "1")]).await, Ok(Outcome::Done));
        // etcd reads its certificate for each connection.
        for ending in ["pem", "key"] {
            std::fs::copy(place.file(&format!("expired.{ending}")), place.file(&format!("server.{ending}"))).unwrap();
        }
        let said = says(&|_| ()).await;
        assert!(said.contains("the store's certificate has expired: renew it, or set this host's clock"), "{said}");
    });
}

/// Changes that a follower has not heard of are compacted away.
async fn history_is_lost(store: &dyn Store, place: &Place) {
    let mut told = Told::new(store, "h/");
    told.hear().await;
    for number in 0..5 {
        store.commit(None, &[create(&format!("h/{number}"), "1")]).await.unwrap();
    }
    place.compact();
    let all: Vec<_> = (0..5).map(|number| pair(&format!("h/{number}"), "1")).collect();
    told.until("what was compacted", &all).await;
    assert_eq!(told.lists, 2, "all of it is told again");
}

#[test]
fn consul() {
    on(Kind::Consul, async |place| contract(&*open(&place), &*open(&place)).await);
}

#[test]
fn zookeeper() {
    on(Kind::ZooKeeper, async |place| contract(&*open(&place), &*open(&place)).await);
}

#[test]
fn what_is_wrong_is_said_in_a_sentence() {
    on(Kind::Etcd, async |place| {
        let says = async |change: &dyn Fn(&mut cluster::store::Settings)| {
            let mut settings = place.settings();
            change(&mut settings);
            settings.open().unwrap().commit(None, &[create("w/a", "1")]).await.unwrap_err().to_string()
        };
        let with = |name: &str, password: &str| {
            let user = Some((name.to_owned(), password.to_owned()));
            move |settings: &mut cluster::store::Settings| settings.user = user.clone()
        };
        let none = "http://127.0.0.1:9".to_owned();
        let said = says(&|settings| settings.endpoints = vec![none.clone()]).await;
        assert!(said.starts_with("etcd at http://127.0.0.1:9: Connection refused (os error 111): check `endpoints`"), "{said}");
        let mut settings = place.settings();
        settings.endpoints.insert(0, none.clone());
        assert_eq!(settings.open().unwrap().commit(None, &[create("w/b", "1")]).await, Ok(Outcome::Done), "the next member");
        place.guard();
        let said = says(&|_| ()).await;
        assert!(said.contains("it lets in only users with a password: give `username` and `password-file`"), "{said}");
        let said = says(&with("root", "wrong")).await;
        assert!(said.contains("it knows no user \"root\" with the password of `password-file`"), "{said}");
        let said = says(&with("guest", "guest")).await;
        assert!(
            said.contains("user \"guest\" may not write: grant it reading and writing of all keys below \"/vswitch/\""),
            "{said}"
        );
        settings.user = Some(("root".to_owned(), "secret".to_owned()));
        let store = settings.open().unwrap();
        assert_eq!(store.commit(None, &[create("w/c", "1")]).await, Ok(Outcome::Done));
        // Tokens of this server last for two seconds.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(store.commit(None, &[create("w/d", "1")]).await, Ok(Outcome::Done), "logged in again");
        let mut told = Told::new(&*store, "w/");
        told.until("what was written", &["b", "c", "d"].map(|key| pair(&format!("w/{key}"), "1"))).await;
    });
}
