//! Hosts that join, leave, crash, are cut off, lose answers and sessions, with stations that come, go and move, on a store that forgets: whatever
//! happens, once it is quiet every host's tunnels are what the store says, the store is what the hosts have, and no address is held twice.
//!
//! `VSWITCH_SEEDS=1000 cargo test --release -p vswitch-cluster --test simulation` tries more seeds than the few of every run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails where it cannot go on")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cluster::agent::{self, Agent};
use cluster::record::{CLUSTER, Host, Key, Name, network_prefix};
use cluster::store::memory::{Link, Memory, MemoryHost};
use cluster::store::{Follow, Store};
use cluster::view::{Announced, Difference, HOLD, NoAddress, Station, View};
use ipnet::IpNet;
use packet::Mac;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const TTL: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(500);
const HOSTS: u32 = 5;
const MACS: u8 = 24;

/// The answer of a memory store, which is there at once or not at all.
fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// A tunnel, which does as it is told.
#[derive(Clone, Default)]
struct Tunnel {
    peers: BTreeSet<IpAddr>,
    stations: BTreeMap<Mac, Station>,
}

struct Machine {
    name: Name,
    number: u32,
    way: MemoryHost,
    /// The cluster that it remembers, on its disk.
    id: Option<String>,
    /// What its tunnels were when it crashed, with the network's VNI; on its disk as well.
    kept: BTreeMap<Name, (u32, Tunnel)>,
    /// What runs there; none if it crashed.
    running: Option<Running>,
}

struct Running {
    agent: Agent,
    follows: BTreeMap<String, Box<dyn Follow>>,
    tunnels: BTreeMap<Name, Tunnel>,
    /// What stations it has, by network: their addresses, which they keep as long as they live.
    stations: BTreeMap<(Name, Mac), BTreeSet<IpAddr>>,
}

struct World {
    seed: u64,
    random: StdRng,
    memory: Memory,
    now: Duration,
    machines: Vec<Machine>,
    boots: u32,
    networks: Vec<(Name, IpNet)>,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let memory = Memory::new(TTL);
        // In every other world the hosts know their cluster from before.
        let known = (!seed.is_multiple_of(2)).then(|| "known".to_owned());
        let machine = |number: u32| Machine {
            name: format!("h{number}").parse().unwrap(),
            number,
            way: memory.host(),
            id: known.clone(),
            kept: BTreeMap::new(),
            running: None,
        };
        let network = |name: &str, subnet: &str| (name.parse().unwrap(), subnet.parse().unwrap());
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            machines: (0..HOSTS).map(machine).collect(),
            memory,
            now: Duration::ZERO,
            boots: 0,
            networks: vec![network("red", "10.1.0.0/23"), network("blue", "fd00:1::/118")],
            log: Vec::new(),
        }
    }

    fn note(&mut self, what: String) {
        self.log.push(format!("{:?} {what}", self.now));
    }

    /// Whether a host that runs remembers the cluster, so that it can say so to an empty store.
    fn is_remembered(&self) -> bool {
        self.machines.iter().any(|machine| machine.running.is_some() && machine.id.is_some())
    }

    fn start(&mut self, number: usize) {
        self.boots += 1;
        let machine = &mut self.machines[number];
        if machine.running.is_some() {
            return;
        }
        let underlay = IpAddr::from([192, 0, 2, u8::try_from(machine.number).unwrap() + 1]);
        let host = Host {
            underlay,
            port: 4789,
            boot: self.boots.to_string(),
            program: "test".to_owned(),
            key: None,
            gossip: None,
            idle: false,
        };
        let view = View::new(machine.name.clone(), host, machine.id.clone(), format!("id{}", self.boots));
        let agent = Agent::new(view, TTL);
        machine.running =
            Some(Running { agent, follows: BTreeMap::new(), tunnels: BTreeMap::new(), stations: BTreeMap::new() });
    }

    /// One thing that happens.
    fn happen(&mut self) {
        let number = self.random.random_range(0..self.machines.len());
        let what = self.random.random_range(0..100);
        match what {
            0..4 => {
                self.note(format!("h{number} crashes"));
                self.machines[number].crash();
            }
            4..6 => {
                self.note(format!("h{number} leaves"));
                if let Some(mut running) = self.machines[number].running.take()
                    && let Some(session) = running.agent.leave()
                {
                    let _ = now_or_never(self.machines[number].way.close(&session));
                }
            }
            6..20 => {
                self.note(format!("h{number} starts"));
                self.start(number);
            }
            20..30 => {
                let link = [Link::Cut, Link::Deaf, Link::Up, Link::Up][self.random.random_range(0..4)];
                self.note(format!("h{number} is {link:?}"));
                self.machines[number].way.set_link(link);
            }
            30..32 => {
                self.note("history is lost".to_owned());
                self.memory.compact();
            }
            32..34 => self.wipe(),
            34..40 => {
                let network = self.networks[self.random.random_range(0..self.networks.len())].0.clone();
                self.note(format!("h{number} leaves {network}"));
                if let Some(running) = &mut self.machines[number].running {
                    running.agent.view_mut().leave(&network);
                    running.stations.retain(|(of, _), _| *of != network);
                    running.tunnels.remove(&network);
                    running.follows.remove(&network_prefix(&network));
                }
            }
            40..80 => self.come(number),
            _ => self.go(number),
        }
    }

    /// The store comes back empty. What was in it is lost for good if those who knew it cannot say so, so in every other world they can.
    fn wipe(&mut self) {
        if self.is_gentle() && !self.is_remembered() {
            return;
        }
        self.note("the store comes back empty".to_owned());
        if self.is_gentle() {
            self.machines.iter().for_each(|machine| machine.way.set_link(Link::Up));
        }
        self.memory.wipe();
        for _ in 0..if self.is_gentle() { 10 } else { 0 } {
            self.tick();
        }
    }

    fn is_gentle(&self) -> bool {
        self.seed.is_multiple_of(2)
    }

    /// A station comes to a host. Containers stay where they are born, with an address of that host's; the others come from anywhere.
    fn come(&mut self, number: usize) {
        let (network, subnet) = self.networks[self.random.random_range(0..self.networks.len())].clone();
        let last = self.random.random_range(0..MACS);
        let mac = Mac([2, 0, 0, 0, 0, last]);
        let key = (network.clone(), mac);
        let is_container = last < MACS / 2;
        let elsewhere = |other: &Machine| other.number as usize != number && other.holds(&key);
        if self.machines[number].running.is_none() || is_container && self.machines.iter().any(elsewhere) {
            return;
        }
        for machine in &mut self.machines {
            let Some(running) = machine.running.as_mut().filter(|_| machine.number as usize != number) else { continue };
            if running.stations.remove(&key).is_some() {
                running.agent.view_mut().withdraw(&network, mac);
            }
        }
        let (now, gateway) = (self.now, BTreeSet::from([subnet.hosts().next().unwrap()]));
        let machine = &mut self.machines[number];
        let Some(running) = &mut machine.running else { return };
        let view = running.agent.view_mut();
        view.join(network.clone(), &[subnet], false);
        if let Some((vni, tunnel)) = machine.kept.remove(&network) {
            view.recall(&network, vni, tunnel.peers.clone(), tunnel.stations.clone(), now);
            running.tunnels.insert(network.clone(), tunnel);
        }
        let mut ips = running.stations.get(&key).cloned().unwrap_or_default();
        if is_container && ips.is_empty() {
            match view.address(&network, subnet, &gateway, now) {
                Ok(address) => drop(ips.insert(address)),
                Err(NoAddress::Soon | NoAddress::Away) => return,
                Err(error) => panic!("{error}"),
            }
        }
        let announced = view.announce(&network, mac, ips.clone(), None, now);
        if announced != Announced::Duplicate {
            running.stations.insert(key, ips.clone());
        }
        self.note(format!("{mac} {ips:?} of {network} comes to h{number}: {announced:?}"));
    }

    fn go(&mut self, number: usize) {
        let Some(running) = &mut self.machines[number].running else { return };
        let Some((network, mac)) = running.stations.keys().next().cloned() else { return };
        for ip in running.stations.remove(&(network.clone(), mac)).unwrap_or_default() {
            running.agent.view_mut().release(&network, ip);
        }
        running.agent.view_mut().withdraw(&network, mac);
        self.note(format!("{mac} of {network} goes from h{number}"));
    }

    /// Half a second passes, and every host has its turn.
    fn tick(&mut self) {
        self.now += TICK;
        self.memory.advance(TICK);
        for number in 0..self.machines.len() {
            // A busy host misses a turn.
            if self.random.random_range(0..10) > 0 {
                self.machines[number].turn(self.now);
            }
        }
        self.no_address_is_held_twice();
    }

    fn no_address_is_held_twice(&self) {
        if !self.is_gentle() {
            return;
        }
        let mut held: BTreeMap<(&Name, IpAddr), (Mac, &Name)> = BTreeMap::new();
        for machine in &self.machines {
            let Some(running) = &machine.running else { continue };
            for ((network, mac), ips) in &running.stations {
                for ip in ips {
                    if let Some((other, at)) = held.insert((network, *ip), (*mac, &machine.name)) {
                        assert_eq!(other, *mac, "{}: {ip} is at {at} and {}\n{}", self.seed, machine.name, self.log.join("\n"));
                    }
                }
            }
        }
    }

    /// What hangs is mended, and all that is under way comes to its end.
    fn quiet(&mut self) {
        self.note("quiet".to_owned());
        for number in 0..self.machines.len() {
            self.machines[number].way.set_link(Link::Up);
        }
        let end = self.now + HOLD + TTL * 3;
        while self.now < end {
            self.tick();
        }
        self.check();
    }

    fn check(&self) {
        let said = || format!("seed {}:\n{}", self.seed, self.log.join("\n"));
        let store = self.memory.host();
        let listing = now_or_never(store.list("")).unwrap().unwrap();
        let mut announced = BTreeSet::new();
        for entry in &listing.entries {
            match Key::parse(&entry.key).unwrap_or_else(|| panic!("{}", entry.key)) {
                Key::Endpoint(network, host, mac) => drop(announced.insert((network, host, mac))),
                Key::Member(_, host) | Key::Host(host) => {
                    assert!(self.machine(&host).running.is_some(), "{host} is gone, and is in the store\n{}", said());
                }
                _ => {}
            }
        }
        let mut there = BTreeSet::new();
        for machine in &self.machines {
            let Some(running) = &machine.running else { continue };
            assert_eq!(running.agent.view().refusal(), None, "{}\n{}", machine.name, said());
            there.extend(running.stations.keys().map(|(network, mac)| (network.clone(), machine.name.clone(), *mac)));
        }
        assert_eq!(announced, there, "the store is what the hosts have\n{}", said());
        for machine in &self.machines {
            let Some(running) = &machine.running else { continue };
            for (network, _) in &self.networks {
                let joined = running.agent.view().joined().any(|joined| joined == network);
                let tunnel = running.tunnels.get(network);
                if joined {
                    let Some(tunnel) = tunnel else { panic!("{} has no tunnel of {network}\n{}", machine.name, said()) };
                    self.check_tunnel(machine, network, tunnel, &said);
                } else {
                    assert!(tunnel.is_none(), "{}", said());
                }
            }
        }
    }

    fn check_tunnel(&self, machine: &Machine, network: &Name, tunnel: &Tunnel, said: &dyn Fn() -> String) {
        let others = self.machines.iter().filter(|other| other.name != machine.name);
        let others = others.filter_map(|other| Some((other, other.running.as_ref()?)));
        let joined: Vec<_> = others.filter(|(_, running)| running.agent.view().joined().any(|of| of == network)).collect();
        let peers: BTreeSet<IpAddr> = joined.iter().map(|(other, _)| other.underlay()).collect();
        assert_eq!(tunnel.peers, peers, "the peers of {} in {network}\n{}", machine.name, said());
        let mut stations = BTreeMap::new();
        for (other, running) in &joined {
            let here = running.stations.iter().filter(|((of, _), _)| of == network);
            stations.extend(here.map(|((_, mac), ips)| (*mac, (other.underlay(), ips.clone()))));
        }
        let told: BTreeMap<_, _> =
            tunnel.stations.iter().map(|(mac, station)| (*mac, (station.vtep, station.ips.clone()))).collect();
        assert_eq!(told, stations, "the stations of {network} as {} knows them\n{}", machine.name, said());
    }

    fn machine(&self, name: &Name) -> &Machine {
        self.machines.iter().find(|machine| machine.name == *name).unwrap()
    }
}

impl Machine {
    fn underlay(&self) -> IpAddr {
        IpAddr::from([192, 0, 2, u8::try_from(self.number).unwrap() + 1])
    }

    fn crash(&mut self) {
        let Some(running) = self.running.take() else { return };
        let view = running.agent.view();
        let kept =
            running.tunnels.into_iter().filter_map(|(network, tunnel)| Some((network.clone(), (view.vni(&network)?, tunnel))));
        self.kept.extend(kept);
    }

    fn holds(&self, key: &(Name, Mac)) -> bool {
        self.running.as_ref().is_some_and(|running| running.stations.contains_key(key))
    }

    /// What the driver of a host does: hears what there is, puts what is due, and programs the tunnels.
    fn turn(&mut self, now: Duration) {
        let Some(running) = self.running.as_mut() else { return };
        let view = running.agent.view();
        let mut prefixes = vec![CLUSTER.to_owned()];
        prefixes.extend(view.joined().map(network_prefix));
        running.follows.retain(|prefix, _| prefixes.contains(prefix));
        for prefix in prefixes {
            let follow = running.follows.entry(prefix.clone()).or_insert_with(|| self.way.follow(&prefix));
            while let Some(Ok(news)) = now_or_never(follow.next()) {
                running.agent.view_mut().hear(&prefix, &news, now);
            }
        }
        // What the store could not do is tried again with the next turn. A session, a renewal, and then what is due.
        for _ in 0..3 {
            let Some(errand) = running.agent.errand(true, now) else { break };
            let is_last = matches!(errand, agent::Errand::Put(..));
            let done =
                now_or_never(agent::carry_out(Arc::new(self.way.clone()), errand)).expect("a memory store answers at once");
            if running.agent.done(done, now).is_err() || is_last {
                break;
            }
        }
        self.id = running.agent.view().id().map(str::to_owned).or(self.id.take());
        for difference in running.agent.view_mut().differences(now) {
            running.program(difference);
        }
    }
}

impl Running {
    fn program(&mut self, difference: Difference) {
        match difference {
            Difference::Vni(network, _) => drop(self.tunnels.entry(network).or_default()),
            Difference::Joined(network, vtep) => assert!(self.tunnel(network).peers.insert(vtep)),
            Difference::Is(network, mac, station) => {
                let tunnel = self.tunnel(network);
                assert!(tunnel.peers.contains(&station.vtep), "a station behind a stranger");
                tunnel.stations.insert(mac, station);
            }
            Difference::Gone(network, mac) => assert!(self.tunnel(network).stations.remove(&mac).is_some()),
            Difference::Left(network, vtep) => {
                let tunnel = self.tunnel(network);
                assert!(tunnel.peers.remove(&vtep));
                assert!(tunnel.stations.values().all(|station| station.vtep != vtep), "a station is left behind");
            }
            Difference::Taken(network, mac, _) => drop(self.stations.remove(&(network, mac))),
        }
    }

    fn tunnel(&mut self, network: Name) -> &mut Tunnel {
        self.tunnels.entry(network).or_default()
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for number in 0..3 {
        world.start(number);
    }
    for _ in 0..3 {
        for _ in 0..world.random.random_range(20..80) {
            world.happen();
            for _ in 0..world.random.random_range(0..8) {
                world.tick();
            }
        }
        world.quiet();
    }
}

#[test]
fn whatever_happens_all_agree_once_it_is_quiet() {
    let seeds = std::env::var("VSWITCH_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20);
    let first = std::env::var("VSWITCH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    (first..first + seeds).for_each(run);
}
