//! Three hosts with a vswitchd each, and one segment that they find by a store: etcd of three members here, and with `VSWITCH_STORES=all` also
//! Consul and ZooKeeper, where they are installed. Whatever becomes of hosts and stores, frames go where stations are.
//!
//! `VSWITCH_HEAL=1`, or the name of a store for that one alone, with `--nocapture`, prints how long each thing takes to heal, as a table of `docs/overlay.md`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use vswitch_tests::{Lab, Underlay, needs, ping, program};

/// How long a host may be silent, in the files of these tests.
const TTL: &str = "3s";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Etcd,
    Consul,
    ZooKeeper,
}

/// A store of three members, each on a host of its own: 192.0.2.101 to 103.
struct Store {
    kind: Kind,
    members: Vec<Lab>,
    /// Their processes, as far as they run.
    pids: Vec<Option<u32>>,
    /// How often its data was begun anew.
    life: u32,
}

impl Store {
    fn new(kind: Kind, underlay: &Underlay) -> Self {
        let members = (101..=103).map(|number| {
            let lab = Lab::new();
            underlay.join(&lab, number);
            lab
        });
        let mut store = Self { kind, members: members.collect(), pids: vec![None; 3], life: 0 };
        store.start();
        store
    }

    fn start(&mut self) {
        for index in 0..self.members.len() {
            if self.pids[index].is_none() {
                let line = self.line(index);
                self.pids[index] = Some(self.members[index].spawn_in("host", &line));
            }
        }
    }

    /// Kills one member.
    fn kill(&mut self, index: usize) {
        let pid = self.pids[index].take().unwrap();
        self.members[index].sh(&format!("kill -9 {pid}")).ok();
    }

    /// Kills all members at once.
    fn kill_all(&mut self) {
        let pids: Vec<String> = self.pids.iter_mut().filter_map(Option::take).map(|pid| pid.to_string()).collect();
        self.members[0].sh(&format!("kill -9 {}", pids.join(" "))).ok();
    }

    /// The next start finds no data.
    fn wipe(&mut self) {
        self.life += 1;
    }

    /// The member that leads, if any says so.
    fn leader(&self) -> Option<usize> {
        let asked = |index: usize| {
            let own = format!("192.0.2.{}", 101 + index);
            let line = match self.kind {
                Kind::Etcd => format!("curl -s -m 2 -d '{{}}' http://{own}:2379/v3/maintenance/status"),
                Kind::Consul => format!("curl -s -m 2 http://{own}:8500/v1/status/leader"),
                Kind::ZooKeeper => format!("echo srvr | nc -w 2 {own} 2181"),
            };
            let said = self.members[index].run_in("host", &line).stdout;
            match self.kind {
                Kind::Etcd => {
                    let said: serde_json::Value = serde_json::from_str(&said).ok()?;
                    Some(said["header"]["member_id"] == said["leader"])
                }
                Kind::Consul => Some(said.contains(&format!("{own}:"))),
                Kind::ZooKeeper => Some(said.contains("Mode: leader")),
            }
        };
        (0..self.members.len()).filter(|index| self.pids[*index].is_some()).find(|index| asked(*index) == Some(true))
    }

    fn line(&self, index: usize) -> String {
        let (name, own) = (format!("m{index}"), format!("192.0.2.{}", 101 + index));
        let data = self.members[index].path(&format!("data{}", self.life)).display().to_string();
        match self.kind {
            Kind::Etcd => {
                let all: Vec<String> = (0..3).map(|other| format!("m{other}=http://192.0.2.{}:2380", 101 + other)).collect();
                format!(
                    "etcd --name {name} --data-dir {data} --listen-peer-urls http://{own}:2380 \
                     --initial-advertise-peer-urls http://{own}:2380 --listen-client-urls http://{own}:2379 \
                     --advertise-client-urls http://{own}:2379 --initial-cluster-token t{life} --initial-cluster {all} \
                     --initial-cluster-state new --heartbeat-interval 100 --election-timeout 1000 --unsafe-no-fsync \
                     --log-level error",
                    life = self.life,
                    all = all.join(",")
                )
            }
            Kind::Consul => {
                let consul = consul().unwrap().display().to_string();
                format!(
                    "{consul} agent -server -bootstrap-expect=3 -node={name} -bind={own} -client=0.0.0.0 -data-dir={data} \
                     -retry-join=192.0.2.101 -retry-join=192.0.2.102 -retry-join=192.0.2.103 -retry-interval=1s -datacenter=t \
                     -hcl='performance {{ raft_multiplier = 1 }}' -hcl='disable_update_check = true' \
                     -hcl='session_ttl_min = \"2s\"' -log-level=err"
                )
            }
            Kind::ZooKeeper => {
                std::fs::create_dir_all(&data).unwrap();
                std::fs::write(format!("{data}/myid"), format!("{}\n", index + 1)).unwrap();
                let servers: String =
                    (0..3).map(|other| format!("server.{}=192.0.2.{}:2888:3888\n", other + 1, 101 + other)).collect();
                let file = format!("{data}/zoo.cfg");
                let text = format!(
                    "tickTime=500\ninitLimit=10\nsyncLimit=5\nminSessionTimeout=1000\ndataDir={data}\nclientPort=2181\n\
                     admin.enableServer=false\n{servers}"
                );
                std::fs::write(&file, text).unwrap();
                let jars =
                    ["zookeeper", "zookeeper-jute", "metrics-core", "slf4j-api", "slf4j-nop", "commons-cli", "snappy-java"];
                let jars: String = jars.map(|jar| format!("/usr/share/java/{jar}.jar ")).concat();
                format!(
                    "java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
                     -cp \"$(ls {jars} /usr/share/java/netty*.jar /usr/share/java/log4j-1.2.jar | tr '\\n' :)\" \
                     org.apache.zookeeper.server.quorum.QuorumPeerMain {file}"
                )
            }
        }
    }

    /// The file of `docs/overlay.md` for host `number`, with this store.
    fn file(&self, number: u8) -> String {
        let (word, scheme, port) = match self.kind {
            Kind::Etcd => ("etcd", "http://", 2379),
            Kind::Consul => ("consul", "http://", 8500),
            Kind::ZooKeeper => ("zookeeper", "", 2181),
        };
        let members: Vec<String> = (101..=103).map(|member| format!("\"{scheme}192.0.2.{member}:{port}\"")).collect();
        let line = |line: &str| match line.split_whitespace().next() {
            Some("store") => format!("store = \"{word}\"\nttl = \"{TTL}\"\n"),
            Some("endpoints") => format!("endpoints = [{}]\n", members.join(", ")),
            Some("node") => format!("node = \"h{number}\"\n"),
            Some("underlay") => format!("underlay = \"192.0.2.{number}\"\n"),
            Some("netns") => "netns = \"@a\"\n".to_owned(),
            Some("addresses") => format!("addresses = [\"10.0.0.{number}/24\"]\n"),
            _ => format!("{line}\n"),
        };
        document("toml").lines().map(line).collect()
    }
}

/// The first block of this kind in `docs/overlay.md`.
fn document(kind: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/overlay.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, block) = text.split_once(&format!("```{kind}\n")).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// Types what the document has, on the first host; all of it must work.
fn every_command_of_the_document_works(lab: &Lab) {
    let vsctl = format!("{} --control {}", program("vsctl").display(), lab.path("control.sock").display());
    for line in document("sh").lines() {
        let line = line.replace("netns exec a ", "netns exec @a ").replace("vsctl ", &format!("{vsctl} "));
        assert!(!lab.sh(&line).ok().is_empty(), "{line}");
    }
}

fn consul() -> Option<PathBuf> {
    let named = std::env::var_os("VSWITCH_CONSUL").map(PathBuf::from);
    named.into_iter().chain([PathBuf::from("/usr/bin/consul")]).find(|path| path.is_file())
}

/// A host with station `a`, 10.0.0.N.
fn host(underlay: &Underlay, store: &Store, number: u8) -> Lab {
    let mut lab = Lab::new();
    underlay.join(&lab, number);
    lab.write(&store.file(number));
    lab.start();
    lab
}

/// Waits for something, and says how long it took.
#[track_caller]
fn healed(lab: &Lab, kind: Kind, what: &str, holds: impl FnMut(&Lab) -> bool) -> Duration {
    let begun = Instant::now();
    lab.until(what, holds);
    eprintln!("{kind:?}: {what}: {:.1} s", begun.elapsed().as_secs_f64());
    begun.elapsed()
}

fn state(lab: &Lab) -> String {
    lab.json("cluster status")["state"].as_str().unwrap().to_owned()
}

/// The stations at other hosts that the bridge has been told of.
fn told(lab: &Lab) -> usize {
    let rows = lab.json("fdb br0");
    rows.as_array().unwrap().iter().filter(|row| row["static"] == true).count()
}

fn hosts(lab: &Lab) -> usize {
    lab.json("cluster hosts").as_array().unwrap().len()
}

/// Pings all the while something happens, and says how many of the pings were lost.
fn lost_meanwhile<T>(from: &mut Lab, address: &str, what: impl FnOnce() -> T) -> (usize, T) {
    let out = from.path("pings");
    let line = format!("sh -c 'exec ping -n -i 0.05 -W 1 -O {address} > {} 2>&1'", out.display());
    let pid = from.spawn_in("a", &line);
    let outcome = what();
    from.sh(&format!("kill -INT {pid}"));
    std::thread::sleep(Duration::from_millis(100));
    let text = std::fs::read_to_string(out).unwrap();
    assert!(text.contains("bytes from"), "{text}");
    (text.matches("no answer yet").count(), outcome)
}

fn live(kind: Kind) {
    let underlay = Underlay::new();
    let mut store = Store::new(kind, &underlay);
    let mut labs: Vec<Lab> = (1..=3).map(|number| host(&underlay, &store, number)).collect();
    for lab in &labs {
        healed(lab, kind, "a host knows the two others", |lab| told(lab) == 2);
    }
    all_reach_all(&labs);
    a_group_is_on_all_hosts(&labs);
    known_stations_are_not_flooded(&mut labs);
    a_station_is_followed(&labs, kind);
    names_are_shown(&labs[0]);
    every_command_of_the_document_works(&labs[0]);

    labs[2].kill();
    let gone = healed(&labs[0], kind, "a killed host is dropped", |lab| hosts(lab) == 2 && told(lab) == 1);
    assert!(gone < Duration::from_secs(20), "{gone:?}");
    assert!(ping(&labs[0], "a", "10.0.0.2"));
    labs[2].start();
    healed(&labs[2], kind, "it is back", |lab| told(lab) == 2);
    healed(&labs[0], kind, "the others know it again", |lab| told(lab) == 2);
    assert!(ping(&labs[0], "a", "10.0.0.3"));

    gateways_of_two_hosts_give_different_addresses(&labs[..2]);
    what_does_not_fit_is_said(&mut labs);
    store_is_away(&mut labs, &mut store);
}

/// Other subnets, a number that is taken, and another cluster's store: each is a sentence, and the rest goes on.
fn what_does_not_fit_is_said(labs: &mut [Lab]) {
    let problem = |lab: &Lab| lab.json("cluster status")["problem"].as_str().unwrap_or_default().to_owned();
    let add = |lab: &Lab, subnet: u8| drop(lab.ctl(&format!("add-br br2 --overlay green --address 10.{subnet}.0.1/24")).ok());
    add(&labs[0], 5);

    let is_green = |row: &serde_json::Value| row["name"] == "green";
    labs[1].until("the network is there", |lab| lab.json("cluster networks").as_array().unwrap().iter().any(is_green));
    add(&labs[1], 6);
    labs[1].until("it says so", |lab| problem(lab).contains("\"green\" has 10.5.0.0/24 in the store, and 10.6.0.0/24 here"));
    let taken = format!("add-vxlan br2 mine --vni {} --local 192.0.2.2", labs[1].json("list-vxlan br0")[0]["vni"]);
    assert!(labs[1].ctl(&taken).refused().contains("ov-br0"));
    labs[..2].iter().for_each(|lab| drop(lab.ctl("del-br br2").ok()));
    labs[1].until("all is well again", |lab| problem(lab).is_empty());

    assert!(labs[2].stop().success());
    let kept = labs[2].path("state/overlay.json");
    let text = std::fs::read_to_string(&kept).unwrap();
    let id = labs[0].json("cluster status")["cluster_id"].as_str().unwrap().to_owned();
    std::fs::write(&kept, text.replace(&id, "another")).unwrap();
    labs[2].start();
    labs[2].until("it says whose store that is", |lab| state(lab) == "refused" && problem(lab).contains("of another cluster"));
    labs[0].until("it is none of theirs", |lab| !ping(lab, "a", "10.0.0.3"));
    assert!(labs[2].stop().success());
    std::fs::write(&kept, text).unwrap();
    labs[2].start();
    labs[2].until("it is back", |lab| state(lab) == "up" && told(lab) == 2);
    labs[0].until("it is back here", |lab| told(lab) == 2);
}

/// Two gateways with one address give addresses out of blocks of their own.
fn gateways_of_two_hosts_give_different_addresses(labs: &[Lab]) {
    let lease = |lab: &Lab, netns: &str| {
        let said = lab.run_in(netns, "busybox udhcpc -f -n -q -t 8 -T 1 -i eth0 -s /bin/true 2>&1").ok();
        let address = said.split("lease of ").nth(1).unwrap_or_else(|| panic!("{said}"));
        address.split_whitespace().next().unwrap().parse::<std::net::Ipv4Addr>().unwrap()
    };
    for lab in labs {
        lab.ctl("add-br br1 --overlay blue --address 10.9.0.1/16 --dhcp").ok();
        (1..=2).for_each(|port| drop(lab.ctl(&format!("add-port br1 c{port} --netns @c{port}")).ok()));
    }
    let mut given = std::collections::BTreeMap::new();
    for lab in labs {
        lab.until("the gateway has a block", |lab| {
            lab.json("fdb br1").as_array().unwrap().iter().any(|row| row["static"] == true)
        });
        let block = |address: std::net::Ipv4Addr| u32::from(address) >> 6;
        let own: Vec<_> = (1..=2).map(|port| lease(lab, &format!("c{port}"))).collect();
        assert_eq!(block(own[0]), block(own[1]), "{own:?}");
        own.iter().for_each(|address| assert_eq!(given.insert(*address, lab.log()), None, "{address} twice"));
        assert!(given.len() == 2 || given.keys().any(|address| block(*address) != block(own[0])), "{:?}", given.keys());
    }
    for lab in labs {
        (1..=2).for_each(|port| drop(lab.ctl(&format!("del-port c{port}")).ok()));
        lab.ctl("del-br br1").ok();
    }
}

fn all_reach_all(labs: &[Lab]) {
    for from in labs {
        (1..=3).for_each(|to| assert!(ping(from, "a", &format!("10.0.0.{to}")), "to {to}"));
    }
}

/// What is for a group gets to each other host once: those who answer pings to all do so, and none twice.
fn a_group_is_on_all_hosts(labs: &[Lab]) {
    labs.iter().for_each(|lab| drop(lab.run_in("a", "sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=0").ok()));
    // After the first answer to the last of them ping ends.
    let said = labs[0].run_in("a", "ping -n -c 4 -i 0.3 -W 2 -I eth0 224.0.0.1").stdout;
    for host in ["10.0.0.2", "10.0.0.3"] {
        for number in 1..=3 {
            assert_eq!(said.matches(&format!("from {host}: icmp_seq={number} ")).count(), 1, "{host} {number}: {said}");
        }
    }
}

/// Neither pings nor the questions before them reach a third host; what is for all does.
fn known_stations_are_not_flooded(labs: &mut [Lab]) {
    let seen = labs[2].path("seen");
    let line = format!("sh -c 'exec tcpdump -n -l -i eth0 \"arp or icmp\" > {} 2>&1'", seen.display());
    let pid = labs[2].spawn_in("a", &line);
    let text = || std::fs::read_to_string(&seen).unwrap_or_default();
    labs[2].until("all is seen", |_| text().contains("listening on"));
    labs[0].sh("ip -n @a neigh flush all").ok();
    labs[0].run_in("a", "ping -n -c 5 -i 0.05 -W 2 10.0.0.2").ok();
    labs[0].run_in("a", "ping -n -c 1 -W 1 10.0.0.77");
    labs[2].until("what is for all gets there", |_| text().contains("who-has 10.0.0.77 tell 10.0.0.1"));
    let text = text();
    assert!(!text.contains("who-has 10.0.0.2 ") && !text.contains("> 10.0.0.2:"), "what is between two hosts: {text}");
    labs[2].sh(&format!("kill {pid}")).ok();
}

/// A station goes from one host to another, with its addresses.
fn a_station_is_followed(labs: &[Lab], kind: Kind) {
    let add = "add-port br0 m --netns @m --mac 02:00:00:00:00:99 --address 10.0.0.99/24";
    labs[0].ctl(add).ok();
    labs[2].until("the station is at the first host", |lab| told(lab) == 3 && ping(lab, "a", "10.0.0.99"));
    labs[0].ctl("del-port m").ok();
    labs[1].ctl(add).ok();
    let moved = |lab: &Lab| {
        let rows = lab.json("fdb br0");
        rows.as_array().unwrap().iter().any(|row| row["mac"] == "02:00:00:00:00:99" && row["host"] == "h2")
    };
    let took = healed(&labs[2], kind, "a station that moved is followed", moved);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(ping(&labs[2], "a", "10.0.0.99"));
    labs[1].ctl("del-port m").ok();
    labs[0].until("it is gone", |lab| told(lab) == 2);
}

fn names_are_shown(lab: &Lab) {
    let trace = lab.ctl("trace --port a --to 10.0.0.2").ok();
    assert!(trace.contains("to host h2 at 192.0.2.2"), "{trace}");
    let stations = lab.ctl("cluster endpoints red").ok();
    assert!(stations.contains("10.0.0.3") && stations.contains("h3"), "{stations}");
    lab.until("all agree", |lab| lab.json("cluster check").as_array().unwrap().is_empty());
    let networks = lab.json("cluster networks");
    assert_eq!(
        (&networks[0]["name"], &networks[0]["bridge"], &networks[0]["tunnel"]),
        (&"red".into(), &"br0".into(), &"ov-br0".into())
    );
    assert!(lab.ctl("export").ok().contains("overlay = \"red\""));
    assert!(lab.ctl("del-vxlan ov-br0").refused().contains("goes with it"));
}

/// Without the store all goes on, also after a restart; one that comes back empty is filled again, and nothing is withdrawn.
fn store_is_away(labs: &mut [Lab], store: &mut Store) {
    let kind = store.kind;
    // A host was just started again, of which not all may have heard.
    labs.iter().for_each(|lab| lab.until("all know all", |lab| told(lab) == 2));
    let (first, rest) = labs.split_first_mut().unwrap();
    store.kill(0);
    let (lost, ()) = lost_meanwhile(first, "10.0.0.3", || {
        store.kill_all();
        healed(&rest[1], kind, "the store is missed", |lab| state(lab) == "lost");
        std::thread::sleep(Duration::from_secs(2));
    });
    assert_eq!(lost, 0, "frames go on without the store");
    assert!(rest[0].stop().success());
    rest[0].start();
    assert_eq!((state(&rest[0]).as_str(), told(&rest[0])), ("waiting", 2), "{}", rest[0].log());
    assert!(ping(&rest[0], "a", "10.0.0.1"), "a host that starts without the store goes on as well");

    store.wipe();
    let (lost, ()) = lost_meanwhile(first, "10.0.0.3", || {
        store.start();
        for lab in rest.iter() {
            healed(lab, kind, "an empty store is filled again", |lab| {
                state(lab) == "up" && lab.json("cluster endpoints").as_array().unwrap().len() == 3
            });
        }
    });
    assert_eq!(lost, 0, "nothing is withdrawn because a store is empty");
    labs.iter().for_each(|lab| assert_eq!(told(lab), 2));
}

/// How long something takes, and how many pings from the first host to the second, 50 ms apart, get no answer meanwhile.
fn healing(row: &str, labs: &mut [Lab], work: impl FnOnce(&mut [Lab]) -> Duration) {
    let (first, rest) = labs.split_first_mut().unwrap();
    let (lost, took) = lost_meanwhile(first, "10.0.0.2", || work(rest));
    eprintln!("| {row} | {:.1} s | {lost} |", took.as_secs_f64());
}

/// How long it takes until a station that comes to the second host is known to the third.
fn a_station_becomes_known(labs: &[Lab], begun: Instant) -> Duration {
    labs[0].ctl("add-port br0 m --netns @m --mac 02:00:00:00:00:99 --address 10.0.0.99/24").ok();
    labs[1].until("a new station is known", |lab| told(lab) == 3);
    let took = begun.elapsed();
    labs[0].ctl("del-port m").ok();
    labs[1].until("it is gone", |lab| told(lab) == 2);
    took
}

/// What `docs/overlay.md` says of a store.
fn heal(kind: Kind) {
    let underlay = Underlay::new();
    let mut store = Store::new(kind, &underlay);
    let mut labs: Vec<Lab> = (1..=3).map(|number| host(&underlay, &store, number)).collect();
    let whole = |lab: &Lab| state(lab) == "up" && hosts(lab) == 3 && told(lab) == 2;
    let is_whole = |labs: &[Lab]| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) && !labs.iter().all(whole) {
            std::thread::sleep(Duration::from_millis(50));
        }
        labs.iter().for_each(|lab| lab.until("all is well", whole));
    };
    is_whole(&labs);
    eprintln!("\n| {kind:?} | healed after | pings lost |\n|---|---|---|");
    healing("A station comes, all is well", &mut labs, |rest| a_station_becomes_known(rest, Instant::now()));
    let until = |lab: &Lab, holds: &dyn Fn(&Lab) -> bool| {
        let begun = Instant::now();
        lab.until("it heals", holds);
        begun.elapsed()
    };
    labs[2].kill();
    healing("`kill -9` of a vswitchd: the others drop it", &mut labs, |rest| until(&rest[0], &|lab| told(lab) == 1));
    labs[2].start();
    healing("It is started again: the others know it", &mut labs, |rest| until(&rest[0], &whole));
    for (row, leads) in [("`kill -9` of a member: a station comes", false), ("`kill -9` of the leader: a station comes", true)]
    {
        is_whole(&labs);
        labs[0].until("there is a leader", |_| store.leader().is_some());
        let leader = store.leader().unwrap();
        let victim = if leads { leader } else { (leader + 1) % 3 };
        healing(row, &mut labs, |rest| {
            let begun = Instant::now();
            store.kill(victim);
            a_station_becomes_known(rest, begun)
        });
        store.start();
    }
    is_whole(&labs);
    healing("`kill -9` of the whole store, for 10 s, and started again: a station comes", &mut labs, |rest| {
        store.kill_all();
        std::thread::sleep(Duration::from_secs(10));
        let begun = Instant::now();
        store.start();
        a_station_becomes_known(rest, begun)
    });
    is_whole(&labs);
    healing("A host is cut off: the others drop it", &mut labs, |rest| {
        rest[1].sh("ip -n @host link set u0 down").ok();
        until(&rest[0], &|lab| told(lab) == 1)
    });
    healing("It is joined again: all know all", &mut labs, |rest| {
        let begun = Instant::now();
        rest[1].sh("ip -n @host link set u0 up").ok();
        is_whole(rest);
        begun.elapsed()
    });
    healing("The store is wiped: it is filled again", &mut labs, |rest| {
        store.kill_all();
        store.wipe();
        let begun = Instant::now();
        store.start();
        let is_full = |lab: &Lab| whole(lab) && lab.json("cluster endpoints").as_array().unwrap().len() == 3;
        rest.iter().for_each(|lab| lab.until("the store is full", is_full));
        begun.elapsed()
    });
}

#[test]
fn how_long_things_take_to_heal() {
    let Some(wanted) = std::env::var("VSWITCH_HEAL").ok() else { return };
    let is_wanted = |name: &str| wanted == "1" || wanted == name;
    if is_wanted("etcd") {
        heal(Kind::Etcd);
    }
    if is_wanted("consul") && consul().is_some() {
        heal(Kind::Consul);
    }
    if is_wanted("zookeeper") && PathBuf::from("/usr/share/java/zookeeper.jar").is_file() {
        heal(Kind::ZooKeeper);
    }
}

#[test]
fn three_hosts_and_etcd() {
    needs!("etcd", "ping", "tcpdump", "busybox");
    live(Kind::Etcd);
}

#[test]
fn three_hosts_and_consul() {
    match (std::env::var_os("VSWITCH_STORES"), consul()) {
        (Some(_), Some(_)) => live(Kind::Consul),
        _ => {
            eprintln!("SKIPPED three_hosts_and_consul: VSWITCH_STORES=all runs it, with consul, or VSWITCH_CONSUL its program")
        }
    }
}

#[test]
fn three_hosts_and_zookeeper() {
    let is_there = PathBuf::from("/usr/share/java/zookeeper.jar").is_file();
    match std::env::var_os("VSWITCH_STORES") {
        Some(_) if is_there => live(Kind::ZooKeeper),
        _ => eprintln!("SKIPPED three_hosts_and_zookeeper: VSWITCH_STORES=all runs it, with the package zookeeper"),
    }
}

#[test]
fn a_switch_starts_without_the_store_unless_it_is_required() {
    needs!("ip");
    let file = |more: &str| {
        format!(
            "[cluster]\nstore = \"etcd\"\nendpoints = [\"http://127.0.0.1:1\"]\nnode = \"a\"\nunderlay = \"192.0.2.1\"\n{more}\n\
             [[bridge]]\nname = \"br0\"\noverlay = \"red\"\n"
        )
    };
    let mut lab = Lab::with(&file(""));
    lab.until("it says why it waits", |lab| lab.log().contains("check `endpoints` of [cluster]"));
    let status = lab.ctl("cluster status").ok();
    assert!(status.starts_with("etcd: waiting, for ") && status.contains("http://127.0.0.1:1"), "{status}");
    assert!(lab.ctl("cluster acl").ok().contains("readwrite /vswitch/"));
    assert!(lab.ctl("add-br br1 --overlay red").refused().contains("as bridge \"br0\" has"));
    lab.ctl("set-br br0 --overlay none").ok();
    lab.ctl("add-br br1 --overlay red").ok();
    lab.ctl("del-br br1").ok();
    assert!(lab.stop().success());
    lab.write(&file("required = true"));
    let refused = lab.start_refused(&[]).refused();
    assert!(refused.contains("check `endpoints` of [cluster]") && refused.contains("`required = true`"), "{refused}");
    lab.write("[[bridge]]\nname = \"br0\"");
    lab.start();
    assert!(lab.ctl("cluster hosts").refused().contains("add [cluster] to switch.toml"));
    assert!(lab.ctl("set-br br0 --overlay red").refused().contains("has no [cluster]"));
}
