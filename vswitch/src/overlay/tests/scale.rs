//! Many hosts in one network, each with a thread of its own, through a real store: that they come to know the same, and how long it takes.
//!
//! `VSWITCH_SCALE=1`, or the name of a store for that one alone, with `--nocapture`, prints a table of `docs/overlay.md` for 50 hosts of 200 stations, or
//! as many as are named: `VSWITCH_SCALE=etcd:10x50`.

#[path = "../../../cluster/tests/servers/mod.rs"]
#[expect(dead_code, reason = "the tests of the stores themselves use the rest")]
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use packet::Mac;
use servers::{Kind, Place, isolated};

use super::super::{
    ClusterSettings, ClusterTable, Elsewhere, Local, LocalStation, OverlayFile, OverlayNews, StationRow, Thread, Truth,
};
use crate::confine::Confinement;
use api::{ClusterQuestion, OverlayName};

/// What a host heard last.
#[derive(Default)]
struct Heard {
    tables: Mutex<Arc<Elsewhere>>,
    news: Condvar,
}

struct Host {
    number: u8,
    thread: Option<Thread>,
    heard: Arc<Heard>,
    stations: BTreeMap<Mac, LocalStation>,
    state: tempfile::TempDir,
}

fn network() -> OverlayName {
    "red".parse().unwrap()
}

fn station(host: u8, number: u16) -> (Mac, LocalStation) {
    let [high, low] = number.to_be_bytes();
    let ip = IpAddr::V4(Ipv4Addr::new(10, host, high, low));
    let name = Some(format!("container-{host}-{number}"));
    (Mac([2, 0, 0, host, high, low]), LocalStation { ips: BTreeSet::from([ip]), name })
}

impl Host {
    fn new(number: u8, stations: u16) -> Self {
        let stations = (0..stations).map(|station_number| station(number, station_number)).collect();
        Self { number, thread: None, heard: Arc::default(), stations, state: tempfile::tempdir().unwrap() }
    }

    fn settings(&self, place: &Place) -> ClusterSettings {
        let store = place.settings();
        let number = self.number;
        let text = format!(
            "store = \"{}\"\nendpoints = [\"{}\"]\nnode = \"h{number}\"\nunderlay = \"192.0.2.{number}\"",
            store.kind.word(),
            store.endpoints[0]
        );
        toml::from_str::<ClusterTable>(&text).unwrap().check().unwrap()
    }

    fn start(&mut self, place: &Place) {
        let kept = OverlayFile::new(self.state.path());
        let (before, _) = kept.read();
        let heard = Arc::clone(&self.heard);
        let tell = move |news: OverlayNews| {
            *heard.tables.lock().unwrap() = news.tables;
            heard.news.notify_all();
        };
        self.thread = Some(Thread::start(self.settings(place), (kept, before, None), tell, Confinement::off()).unwrap());
        self.say();
    }

    /// Tells the thread what is here.
    fn say(&self) {
        let generation = self.heard.tables.lock().unwrap().generation;
        let local = Local { stations: self.stations.clone(), ..Local::default() };
        let truth = Truth { generation, networks: BTreeMap::from([(network(), local)]) };
        self.thread.as_ref().unwrap().set(truth);
    }

    /// Waits until what is heard of the network is so; when that was.
    fn until(&self, what: &str, holds: impl Fn(&BTreeMap<Mac, StationRow>) -> bool) -> Instant {
        let mut tables = self.heard.tables.lock().unwrap();
        loop {
            if holds(tables.networks.get(&network()).map_or(&BTreeMap::new(), |table| &table.stations)) {
                return Instant::now();
            }
            let waited;
            (tables, waited) = self.heard.news.wait_timeout(tables, Duration::from_secs(120)).unwrap();
            if waited.timed_out() {
                let known = tables.networks.get(&network()).map_or(0, |table| table.stations.len());
                let status = self.thread.as_ref().map(|thread| thread.ask(ClusterQuestion::Status));
                panic!("h{}: {what}: {known} stations are known after two minutes of silence: {status:?}", self.number);
            }
        }
    }
}

struct Cluster {
    place: Place,
    kind: Kind,
    hosts: Vec<Host>,
    bytes: u64,
    cpu: f64,
}

impl Cluster {
    /// Does something, and waits until all hosts but `except` hear of it.
    fn until(
        &mut self,
        what: &str,
        except: Option<usize>,
        work: impl FnOnce(&mut Self),
        holds: impl Fn(&Host, &BTreeMap<Mac, StationRow>) -> bool + Sync,
    ) -> Duration {
        (self.bytes, self.cpu) = (received(), cpu(self.place.child.id()));
        let begun = Instant::now();
        work(self);
        let others = self.hosts.iter().enumerate().filter(|(index, _)| Some(*index) != except);
        let known = std::thread::scope(|scope| {
            let holds = &holds;
            let wait = |host| scope.spawn(move || Host::until(host, what, |stations| holds(host, stations)));
            let waits: Vec<_> = others.map(|(_, host)| wait(host)).collect();
            waits.into_iter().map(|wait| wait.join().unwrap()).max()
        });
        known.unwrap().duration_since(begun)
    }

    fn row(&self, what: &str, took: Duration) {
        let (bytes, cpu) = (received() - self.bytes, cpu(self.place.child.id()) - self.cpu);
        let megabytes = u32::try_from(bytes >> 10).map_or(f64::NAN, f64::from) / 1024.0;
        eprintln!("{:?}: {what}: {:.2} s, {megabytes:.1} MB, server's CPU {cpu:.2} s", self.kind, took.as_secs_f64());
    }
}

/// What has passed the loopback of this namespace, where nothing is but the store and those who ask it.
fn received() -> u64 {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap();
    let (_, loopback) = devices.split_once("lo:").unwrap();
    loopback.split_whitespace().next().unwrap().parse().unwrap()
}

/// The processor time that a process has taken so far, in seconds.
fn cpu(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    // utime and stime of proc_pid_stat(5), in hundredths of a second.
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn begin(kind: Kind, hosts: u8, stations: u16) -> Cluster {
    // Where hosts ask each other whether they live.
    for number in 1..=hosts {
        let given = Command::new("ip").args(["addr", "add", &format!("192.0.2.{number}/32"), "dev", "lo"]).status().unwrap();
        assert!(given.success());
    }
    let mut place = None;
    servers::run(async { place = Some(Place::new(kind).await) });
    let hosts = (1..=hosts).map(|number| Host::new(number, stations)).collect();
    Cluster { place: place.unwrap(), kind, hosts, bytes: 0, cpu: 0.0 }
}

/// All hosts start at once, stations come, move and go, a host leaves, and all are started again.
fn live(kind: Kind, count: u8, stations: u16) {
    let mut cluster = begin(kind, count, stations);
    let others = usize::from(count - 1) * usize::from(stations);
    let start = |cluster: &mut Cluster| cluster.hosts.iter_mut().for_each(|host| host.start(&cluster.place));
    let took = cluster.until("all know all", None, start, |_, known| known.len() == others);
    cluster.row("all hosts start at once, until all know all", took);

    let mut took = Vec::new();
    for round in 0..10_u16 {
        let (mac, new) = station(1, 1000 + round);
        let work = |cluster: &mut Cluster| {
            cluster.hosts[0].stations.insert(mac, new);
            cluster.hosts[0].say();
        };
        took.push(cluster.until("a new station is known", Some(0), work, |_, known| known.contains_key(&mac)));
    }
    took.sort_unstable();
    cluster.row("one new station, until all know it (median; what the last cost)", took[5]);
    cluster.row("one new station, the slowest of ten", took[9]);

    let (mac, moved) = station(1, 0);
    let work = |cluster: &mut Cluster| {
        cluster.hosts[1].stations.insert(mac, moved);
        cluster.hosts[1].say();
    };
    let at_new_host = |known: &BTreeMap<Mac, StationRow>| known.get(&mac).is_some_and(|row| row.host == "h2");
    let took = cluster.until("a station that moved is followed", Some(1), work, |_, known| at_new_host(known));
    cluster.row("a station moves, until all follow", took);
    cluster.hosts[0].stations.remove(&mac);

    let is_of = |known: &BTreeMap<Mac, StationRow>, host: &str| known.values().any(|row| row.host == host);
    let leave = |cluster: &mut Cluster| cluster.hosts[2].thread.take().unwrap().end(true);
    let took = cluster.until("a host leaves", Some(2), leave, |_, known| !is_of(known, "h3"));
    cluster.row("a host leaves, until all have dropped it", took);
    let back = |cluster: &mut Cluster| cluster.hosts[2].start(&cluster.place);
    let whole = usize::from(stations);
    let took =
        cluster.until("it is back", Some(2), back, |_, known| known.values().filter(|row| row.host == "h3").count() == whole);
    cluster.row("it comes back, until all know its stations", took);

    // Every host is started again while the store runs, and a network's whole knowledge is put anew.
    let again = |cluster: &mut Cluster| {
        cluster.hosts.iter_mut().for_each(|host| host.thread.take().unwrap().end(true));
        cluster.hosts.iter_mut().for_each(|host| host.heard = Arc::default());
        cluster.hosts.iter_mut().for_each(|host| host.start(&cluster.place));
    };
    let total: usize = cluster.hosts.iter().map(|host| host.stations.len()).sum();
    let took = cluster.until("all know all again", None, again, |host, known| known.len() == total - host.stations.len());
    cluster.row("all hosts end and start again, until all know all", took);
}

fn many(kind: Kind, test: &str) {
    let asked = std::env::var("VSWITCH_SCALE").unwrap_or_default();
    let (store, size) = asked.split_once(':').unwrap_or((&asked, "50x200"));
    let is_asked = store == "1" || store.eq_ignore_ascii_case(&format!("{kind:?}"));
    if (is_asked || kind == Kind::Etcd) && isolated(test, kind) {
        let (hosts, stations) = size.split_once('x').filter(|_| is_asked).unwrap_or(("6", "20"));
        live(kind, hosts.parse().unwrap(), stations.parse().unwrap());
    }
}

#[test]
fn many_hosts_come_to_know_the_same_by_etcd() {
    many(Kind::Etcd, "overlay::tests::scale::many_hosts_come_to_know_the_same_by_etcd");
}

#[test]
fn many_hosts_come_to_know_the_same_by_consul() {
    many(Kind::Consul, "overlay::tests::scale::many_hosts_come_to_know_the_same_by_consul");
}

#[test]
fn many_hosts_come_to_know_the_same_by_zookeeper() {
    many(Kind::ZooKeeper, "overlay::tests::scale::many_hosts_come_to_know_the_same_by_zookeeper");
}
