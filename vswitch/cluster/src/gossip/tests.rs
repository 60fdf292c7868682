//! Hosts on a network that loses, delays, doubles and parts, with a clock that is moved by hand.
//!
//! `VSWITCH_SEEDS=1000 cargo test --release -p vswitch-cluster gossip` tries more seeds than those of every run.

use std::collections::VecDeque;

use proptest::prelude::*;
use rand::RngExt;

use super::*;

const STEP: Duration = Duration::from_millis(10);

/// Network, clock and hosts.
struct World {
    seed: u64,
    random: StdRng,
    now: Duration,
    hosts: Vec<Machine>,
    /// Datagrams under way, by when they arrive.
    under_way: BTreeMap<(Duration, u64), (usize, SocketAddr, Vec<u8>)>,
    sent: u64,
    /// Of a hundred datagrams, how many are lost.
    loss: u32,
    /// In which part of a network that is parted a host is.
    parts: Vec<u32>,
    log: VecDeque<String>,
}

struct Machine {
    gossip: Option<Gossip>,
    /// When it was started.
    begun: Duration,
    /// What it announces.
    truth: BTreeMap<String, String>,
    /// Whether nothing reaches its port.
    is_walled: bool,
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(number + 1).unwrap()], UDP_PORT))
}

impl World {
    fn new(seed: u64, count: usize) -> Self {
        let machine = |_| Machine { gossip: None, begun: Duration::ZERO, truth: BTreeMap::new(), is_walled: false };
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            hosts: (0..count).map(machine).collect(),
            under_way: BTreeMap::new(),
            sent: 0,
            loss: 0,
            parts: vec![0; count],
            log: VecDeque::new(),
        }
    }

    /// All hosts run, and know the first.
    fn started(seed: u64, count: usize) -> Self {
        let mut world = Self::new(seed, count);
        (0..count).for_each(|number| world.start(number, 0));
        world
    }

    /// Starts a host whose clock is set back by so much.
    fn start(&mut self, number: usize, back: u64) {
        self.log.push_back(format!("{:?} {number} starts, {back} ms back", self.now));
        let boot = 1_000_000_000_000 + u64::try_from(self.now.as_millis()).unwrap() - back;
        let secret = self.seed.is_multiple_of(2).then(|| "a secret".to_owned());
        let profile = Profile { address: address(number), boot, prefix: "p".to_owned(), secret, is_store: true };
        let mut gossip = Gossip::new(profile, self.random.random());
        gossip.seek(BTreeMap::from([(address(0), String::new())]), Duration::ZERO);
        let machine = &mut self.hosts[number];
        (machine.gossip, machine.begun) = (Some(gossip), self.now);
        machine.truth.clear();
        self.announce(number, &format!("host/{number}"), Some(boot.to_string()));
    }

    fn stop(&mut self, number: usize) {
        self.log.push_back(format!("{:?} {number} ends", self.now));
        self.hosts[number].gossip = None;
    }

    fn announce(&mut self, number: usize, key: &str, value: Option<String>) {
        let machine = &mut self.hosts[number];
        let Some(gossip) = &mut machine.gossip else { return };
        gossip.announce([(key.to_owned(), value.clone())], u64::try_from(self.now.as_millis()).unwrap());
        match value {
            Some(value) => drop(machine.truth.insert(key.to_owned(), value)),
            None => drop(machine.truth.remove(key)),
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, datagram) = entry.remove();
            let Some(number) = (0..self.hosts.len()).find(|number| address(*number) == to) else { continue };
            let reaches = self.parts[from] == self.parts[number] && !self.hosts[number].is_walled;
            let machine = &mut self.hosts[number];
            if let Some(gossip) = machine.gossip.as_mut().filter(|_| reaches) {
                gossip.receive(address(from), datagram, self.now - machine.begun);
            }
        }
        for number in 0..self.hosts.len() {
            let machine = &mut self.hosts[number];
            let Some(gossip) = &mut machine.gossip else { continue };
            gossip.tick(self.now - machine.begun);
            let out = gossip.take_datagrams();
            out.into_iter().for_each(|(to, datagram)| self.send(number, to, datagram));
        }
    }

    fn send(&mut self, from: usize, to: SocketAddr, datagram: Vec<u8>) {
        assert!(datagram.len() <= 1232, "{} bytes pass no path of IPv6 whole", datagram.len());
        // Some arrive twice, and none in the order in which they were sent.
        for _ in 0..if self.random.random_range(0..100) < 2 { 2 } else { 1 } {
            if self.random.random_range(0..100) >= self.loss {
                self.sent += 1;
                let delay = Duration::from_millis(self.random.random_range(0..30));
                self.under_way.insert((self.now + delay, self.sent), (from, to, datagram.clone()));
            }
        }
    }

    fn gossip(&self, number: usize) -> &Gossip {
        self.hosts[number].gossip.as_ref().unwrap()
    }

    fn life(&self, at: usize, of: usize) -> Life {
        self.gossip(at).life(address(of))
    }

    fn running(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|number| self.hosts[*number].gossip.is_some()).collect()
    }

    /// Everyone has what all others announce, and knows who lives.
    fn check(&self) {
        let said =
            || format!("seed {} at {:?}\n{}", self.seed, self.now, self.log.iter().cloned().collect::<Vec<_>>().join("\n"));
        let running = self.running();
        let truth: BTreeMap<&str, &str> =
            running.iter().flat_map(|number| &self.hosts[*number].truth).map(|(key, value)| (&**key, &**value)).collect();
        for at in &running {
            let list = self.gossip(*at).list("");
            let list: BTreeMap<&str, &str> = list.iter().map(|entry| (&*entry.key, &*entry.value)).collect();
            assert_eq!(list, truth, "what {at} has\n{}", said());
            for of in (0..self.hosts.len()).filter(|of| of != at) {
                let is_up = self.life(*at, of) == Life::Up;
                assert_eq!(is_up, running.contains(&of), "{of} as {at} knows it\n{}", said());
            }
        }
    }

    /// One thing that happens.
    fn happen(&mut self) {
        let number = self.random.random_range(0..self.hosts.len());
        match self.random.random_range(0..100) {
            0..6 => self.stop(number),
            6..8 => {
                self.log.push_back(format!("{:?} {number} leaves", self.now));
                if let Some(mut gossip) = self.hosts[number].gossip.take() {
                    gossip.leave();
                    gossip.take_datagrams().into_iter().for_each(|(to, datagram)| self.send(number, to, datagram));
                }
            }
            8..20 if self.hosts[number].gossip.is_none() => {
                let back = [0, 0, 0, 100_000_000][self.random.random_range(0..4)];
                self.start(number, back);
            }
            20..26 => {
                self.parts = (0..self.hosts.len()).map(|_| self.random.random_range(0..2)).collect();
                self.log.push_back(format!("{:?} parted: {:?}", self.now, self.parts));
            }
            26..32 => self.parts.fill(0),
            32..36 => self.loss = self.random.random_range(0..40),
            _ => {
                let key = format!("{number}/{}", self.random.random_range(0..30));
                let value = (self.random.random_range(0..3) > 0).then(|| "x".repeat(self.random.random_range(1..200)));
                self.announce(number, &key, value);
            }
        }
    }

    /// What is parted is joined, the first host is there, and all comes to rest.
    fn quiet(&mut self) {
        self.log.push_back(format!("{:?} quiet", self.now));
        self.parts.fill(0);
        self.loss = 0;
        if self.hosts[0].gossip.is_none() {
            self.start(0, 0);
        }
        self.run(Duration::from_secs(10));
        self.check();
    }
}

fn seeds() -> u64 {
    std::env::var("VSWITCH_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(200)
}

#[test]
fn whatever_happens_all_know_the_same_once_it_is_quiet() {
    // In the last one, hosts that had been taken for dead asked no one any more.
    for seed in (0..seeds()).chain([372]) {
        let mut world = World::started(seed, 5);
        for _ in 0..2 {
            for _ in 0..world.random.random_range(10..40) {
                world.happen();
                let pause = Duration::from_millis(world.random.random_range(0..1000));
                world.run(pause);
            }
            world.quiet();
        }
    }
}

/// How long it takes until all of the others know that a host has ended.
fn death(seed: u64, count: usize) -> Duration {
    let mut world = World::started(seed, count);
    let more = world.random.random_range(0..1000);
    world.run(Duration::from_secs(8) + Duration::from_millis(more));
    world.check();
    world.stop(1);
    let begun = world.now;
    while world.running().iter().any(|at| world.life(*at, 1) != Life::Silent) {
        world.step();
        assert!(world.now < begun + Duration::from_secs(20), "seed {seed}");
    }
    world.now - begun
}

#[test]
fn a_death_is_known_to_three_hosts_within_three_seconds() {
    let longest = (0..seeds()).map(|seed| death(seed, 3)).max().unwrap();
    assert!(longest <= Duration::from_millis(2800), "{longest:?}");
}

#[test]
fn a_death_is_known_to_forty_hosts_in_about_three_seconds() {
    let mut took: Vec<Duration> = (0..seeds() / 20).map(|seed| death(seed, 40)).collect();
    took.sort_unstable();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    assert!(median < Duration::from_secs(3) && longest < Duration::from_secs(6), "{took:?}");
}

#[test]
fn two_hundred_stations_at_each_of_ten_hosts_are_known_to_all_in_a_few_seconds() {
    let mut world = World::started(1, 10);
    for number in 0..10 {
        for station in 0..200 {
            let key = format!("net/red/endpoint/h{number}/02:00:00:00:{number:02x}:{station:02x}");
            world.announce(number, &key, Some(r#"{"v":1,"ips":["10.224.16.17"],"name":"web-1","sequence":0}"#.to_owned()));
        }
    }
    world.loss = 5;
    world.run(Duration::from_secs(6));
    world.check();
    let sent = world.sent;
    world.announce(3, "net/red/endpoint/h3/02:00:00:00:03:07", None);
    world.run(Duration::from_secs(1));
    world.check();
    assert!(world.sent - sent < 800, "what changed is told, and not all again: {}", world.sent - sent);
}

#[test]
fn no_living_host_is_taken_for_dead_because_a_datagram_in_twenty_is_lost() {
    for seed in 0..seeds() / 10 {
        let mut world = World::started(seed, 4);
        world.run(Duration::from_secs(6));
        world.loss = 5;
        for _ in 0..6000 {
            world.step();
            let all = (0..4).flat_map(|at| (0..4).map(move |of| (at, of))).filter(|(at, of)| at != of);
            all.for_each(|(at, of)| assert_eq!(world.life(at, of), Life::Up, "{of} at {at}, seed {seed}, {:?}", world.now));
        }
    }
}

#[test]
fn a_host_that_nothing_reaches_is_never_taken_for_dead() {
    let mut world = World::new(1, 3);
    world.hosts[2].is_walled = true;
    (0..3).for_each(|number| world.start(number, 0));
    world.run(Duration::from_secs(10));
    assert_eq!((world.life(0, 1), world.life(0, 2), world.life(1, 2)), (Life::Up, Life::NeverHeard, Life::NeverHeard));
    assert_eq!(world.life(2, 0), Life::NeverHeard, "nothing reaches it");
    world.hosts[2].is_walled = false;
    world.run(Duration::from_secs(5));
    world.check();
}

#[test]
fn one_that_was_started_again_is_not_taken_for_dead_by_what_it_answered_before() {
    let mut world = World::started(1, 2);
    world.run(Duration::from_secs(6));
    world.stop(1);
    world.run(Duration::from_secs(4));
    assert_eq!(world.life(0, 1), Life::Silent);
    let now = world.now;
    let known = |boot: &str| BTreeMap::from([(address(1), boot.to_owned())]);
    world.hosts[0].gossip.as_mut().unwrap().seek(known("1"), now);
    assert_eq!(world.life(0, 1), Life::Silent);
    world.hosts[0].gossip.as_mut().unwrap().seek(known("2"), now);
    assert_eq!(world.life(0, 1), Life::NeverHeard);
}

#[test]
fn the_others_go_on_and_take_in_newcomers_without_the_first() {
    let mut world = World::started(2, 4);
    world.stop(3);
    world.run(Duration::from_secs(8));
    world.stop(0);
    world.run(Duration::from_secs(5));
    world.check();
    // One that was there before is looked for by the others, whom it does not know.
    world.stop(2);
    world.run(Duration::from_secs(5));
    world.start(2, 0);
    world.run(Duration::from_secs(5));
    world.check();
}

#[test]
fn what_was_there_first_counts_where_two_say_different_things() {
    let mut world = World::started(3, 2);
    world.parts = vec![0, 1];
    world.announce(0, "network/red", Some("b".to_owned()));
    world.run(STEP);
    world.announce(1, "network/red", Some("a".to_owned()));
    world.parts.fill(0);
    world.run(Duration::from_secs(3));
    for at in 0..2 {
        let list = world.gossip(at).list("network/");
        assert_eq!((list.len(), &*list[0].value), (1, "b"));
    }
    world.hosts[1].gossip.as_mut().unwrap().adopt("network/red");
    world.stop(0);
    world.run(Duration::from_secs(5));
    assert_eq!(world.gossip(1).list("network/")[0].value, "b", "it outlives the host that began it");
}

#[test]
fn hosts_with_different_secrets_know_nothing_of_each_other_and_say_why() {
    let mut world = World::new(0, 2);
    world.start(0, 0);
    world.seed = 1;
    world.start(1, 0);
    world.run(Duration::from_secs(6));
    for at in 0..2 {
        assert_eq!(world.life(at, 1 - at), Life::NeverHeard);
        assert_eq!(world.gossip(at).list("").len(), 1);
    }
    let problem = world.gossip(0).problem(world.now).unwrap();
    assert!(problem.contains("the last from 192.0.2.2: give all hosts the same `secret-file`"), "{problem}");
    let problem = world.gossip(1).problem(world.now).unwrap();
    assert!(problem.starts_with("no other host answers at UDP 192.0.2.1:7946: start one there"), "{problem}");
    assert!(problem.ends_with("or give this one the same `secret-file` as they have"), "{problem}");
}

#[test]
fn those_that_are_not_sought_are_no_members_where_there_is_a_store() {
    let profile = |number| Profile { address: address(number), boot: 1, prefix: "p".to_owned(), secret: None, is_store: false };
    let mut gossip = Gossip::new(profile(0), 1);
    let mut other = Gossip::new(profile(1), 2);
    other.seek(BTreeMap::from([(address(0), String::new())]), Duration::ZERO);
    other.tick(Duration::ZERO);
    let asked = other.take_datagrams().remove(0).1;
    gossip.receive(address(1), asked.clone(), Duration::ZERO);
    assert!(gossip.take_datagrams().is_empty(), "a stranger gets no answer");
    gossip.seek(BTreeMap::from([(address(1), String::new())]), Duration::ZERO);
    gossip.receive(address(2), asked.clone(), Duration::ZERO);
    assert!(gossip.take_datagrams().is_empty(), "nor one that says it is another");
    gossip.receive(address(1), asked, Duration::ZERO);
    assert!(!gossip.take_datagrams().is_empty());
}

/// What a host that gossips with two others has seen of them.
fn overheard() -> Vec<Vec<u8>> {
    let mut world = World::started(1, 3);
    let mut all = Vec::new();
    for _ in 0..300 {
        world.step();
        all.extend(world.under_way.values().map(|(_, _, datagram)| datagram.clone()));
    }
    all
}

proptest! {
    #[test]
    fn no_datagram_does_harm(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..60),
    ) {
        let heard = overheard();
        let mut world = World::started(1, 3);
        world.run(Duration::from_secs(1));
        for (which, place, byte, what) in places {
            let mut datagram = heard[which.index(heard.len())].clone();
            let place = place.index(datagram.len());
            match what {
                0 => datagram[place] = byte,
                1 => datagram.truncate(place),
                2 => datagram.insert(place, byte),
                _ => {}
            }
            let now = world.now;
            let gossip = world.hosts[0].gossip.as_mut().unwrap();
            gossip.receive(address(1), datagram, now);
            gossip.tick(now);
            prop_assert!(gossip.take_datagrams().len() <= 8);
        }
    }
}
