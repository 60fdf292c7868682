//! Hosts that tell each other who lives: with no store at all, as `docs/overlay.md` has it, and beside a store, whose leases last longer than a
//! host that has died.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use vswitch_tests::{Lab, Underlay, needs, ping, program};

/// Within so long a death is known; the last second is for a machine that is busy.
const DEATH: Duration = Duration::from_secs(4);

/// A block of a section of `docs/overlay.md`.
fn document(section: &str, kind: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/overlay.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once(&format!("\n## {section}\n")).unwrap();
    let (_, block) = section.split_once(&format!("```{kind}\n")).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// The file of the document for host `number`, with other lines for these keys of `[cluster]`.
fn file(section: &str, number: u8, cluster: &str) -> String {
    let line = |line: &str| match line.split_whitespace().next() {
        Some("[cluster]") => format!("[cluster]\n{cluster}\n"),
        Some(key) if cluster.lines().any(|line| line.starts_with(&format!("{key} ="))) => String::new(),
        Some("node") => format!("node = \"h{number}\"\n"),
        Some("underlay") => format!("underlay = \"192.0.2.{number}\"\n"),
        Some("netns") => "netns = \"@a\"\n".to_owned(),
        Some("addresses") => format!("addresses = [\"10.0.0.{number}/24\"]\n"),
        _ => format!("{line}\n"),
    };
    document(section, "toml").lines().map(line).collect()
}

const WITHOUT: &str = "Without a store";

/// A host with station `a`, 10.0.0.N.
fn host(underlay: &Underlay, number: u8, text: &str) -> Lab {
    let mut lab = Lab::new();
    underlay.join(&lab, number);
    lab.write(text);
    lab.start();
    lab
}

/// Three hosts without a store, which know each other.
fn three(underlay: &Underlay) -> [Lab; 3] {
    let labs = [1, 2, 3].map(|number| host(underlay, number, &file(WITHOUT, number, "")));
    labs.iter().for_each(|lab| lab.until("it knows the two others", |lab| told(lab) == 2));
    labs
}

/// The stations at other hosts that the bridge has been told of.
fn told(lab: &Lab) -> usize {
    let rows = lab.json("fdb br0");
    rows.as_array().unwrap().iter().filter(|row| row["static"] == true).count()
}

fn hosts(lab: &Lab) -> usize {
    lab.json("cluster hosts").as_array().unwrap().len()
}

/// What the probe says of a host.
fn probe(lab: &Lab, host: &str) -> String {
    let hosts = lab.json("cluster hosts");
    let row = hosts.as_array().unwrap().iter().find(|row| row["name"] == host);
    row.and_then(|row| row["probe"].as_str()).unwrap_or("none").to_owned()
}

/// Pings from station `a`, five a second.
struct Pings {
    pid: u32,
    said: PathBuf,
}

impl Pings {
    fn start(lab: &mut Lab, address: &str) -> Self {
        let said = lab.path("pings");
        let line = format!("sh -c 'exec ping -n -i 0.2 -W 1 -O {address} > {} 2>&1'", said.display());
        Self { pid: lab.spawn_in("a", &line), said }
    }

    /// Ends them, and says how many got no answer.
    fn end(self, lab: &Lab) -> usize {
        lab.sh(&format!("kill -INT {}", self.pid));
        let said = std::fs::read_to_string(self.said).unwrap();
        assert!(said.contains("bytes from"), "{said}");
        said.matches("no answer yet").count()
    }
}

fn problem(lab: &Lab) -> String {
    lab.json("cluster status")["problem"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn within(patience: Duration, lab: &Lab, what: &str, holds: impl FnMut(&Lab) -> bool) {
    let begun = Instant::now();
    lab.until(what, holds);
    let took = begun.elapsed();
    eprintln!("{what}: {:.1} s", took.as_secs_f64());
    assert!(took < patience, "{what}: {took:?}");
}

#[test]
fn three_hosts_find_each_other_from_one_address() {
    needs!("ping");
    let underlay = Underlay::new();
    let mut labs = three(&underlay);
    for from in &labs {
        (1..=3).for_each(|to| assert!(ping(from, "a", &format!("10.0.0.{to}")), "to {to}"));
    }
    every_command_of_the_document_works(&labs[0]);
    assert!(
        labs[1].ctl("add-br br1 --overlay blue --address 10.9.0.1/24 --dhcp").refused().contains("shares out no addresses")
    );
    assert_eq!((probe(&labs[0], "h2").as_str(), probe(&labs[0], "h1").as_str()), ("up", "none"));

    labs[2].kill();
    within(DEATH, &labs[0], "a killed host is dropped", |lab| hosts(lab) == 2 && told(lab) == 1);
    labs[2].start();
    labs[0].until("it is back", |lab| told(lab) == 2);
    labs[2].until("it knows the others", |lab| told(lab) == 2);
    assert!(ping(&labs[0], "a", "10.0.0.3"));

    labs[0].kill();
    within(DEATH, &labs[1], "the first host is dropped", |lab| told(lab) == 1);
    labs[2].until("by one that was just started, too", |lab| told(lab) == 1);
    let add = "add-port br0 m --netns @m --mac 02:00:00:00:00:99 --address 10.0.0.99/24";
    labs[1].ctl(add).ok();
    labs[2].until("a new station is known without the first", |lab| told(lab) == 2 && ping(lab, "a", "10.0.0.99"));
    labs[1].ctl("del-port m").ok();
    labs[2].ctl(add).ok();
    labs[1].until("it has moved", |lab| told(lab) == 2 && ping(lab, "a", "10.0.0.99"));
    // One that was there before is looked for by those that remember it.
    assert!(labs[2].stop().success());
    within(Duration::from_secs(2), &labs[1], "one that says goodbye is dropped at once", |lab| told(lab) == 0);
    labs[2].start();
    labs[1].until("the others take it in again, with both its stations", |lab| told(lab) == 2);
    labs[0].start();
    labs.iter().for_each(|lab| lab.until("all know all", |lab| hosts(lab) == 3));

    // A successor goes on with what is kept, once a second.
    let kept = |lab: &Lab| std::fs::read_to_string(lab.path("state/overlay.json")).unwrap();
    labs[1].until("what it knows is kept", |lab| kept(lab).matches("\"vtep\":\"192.0.2.1\"").count() == 1);
    let pings = Pings::start(&mut labs[0], "10.0.0.2");
    let old = labs[1].take_over();
    labs[1].until("its successor has the cluster", |lab| lab.json("cluster status")["state"] == "up" && hosts(lab) == 3);
    labs[0].until("it answers", |lab| probe(lab, "h2") == "up");
    std::thread::sleep(DEATH);
    assert_eq!(pings.end(&labs[0]), 0, "the others do not notice that one takes over");
    drop(old);

    labs[1].sh("ip -n @host link set u0 down").ok();
    within(DEATH, &labs[0], "one that is cut off is dropped", |lab| hosts(lab) == 2);
    labs[1].until("it is alone", |lab| hosts(lab) == 1);
    labs[1].sh("ip -n @host link set u0 up").ok();
    labs.iter().for_each(|lab| lab.until("all know all again", |lab| hosts(lab) == 3));
    labs[0].until("frames get there", |lab| ping(lab, "a", "10.0.0.2"));
    labs.iter().for_each(|lab| lab.until("all agree", |lab| lab.json("cluster check").as_array().unwrap().is_empty()));
}

/// Types what the document has, on the first host; all of it must work.
fn every_command_of_the_document_works(lab: &Lab) {
    let vsctl = format!("{} --control {}", program("vsctl").display(), lab.path("control.sock").display());
    for line in document(WITHOUT, "sh").lines() {
        let line = line.replace("netns exec a ", "netns exec @a ").replace("vsctl ", &format!("{vsctl} "));
        assert!(!lab.sh(&line).ok().is_empty(), "{line}");
    }
}

#[test]
fn only_those_with_the_secret_take_part() {
    needs!("ping");
    let underlay = Underlay::new();
    let start = |number: u8, secret: &str| {
        let mut lab = Lab::new();
        underlay.join(&lab, number);
        let path = lab.path("secret");
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        lab.write(&file(WITHOUT, number, &format!("secret-file = \"{}\"", path.display())));
        lab.start();
        lab
    };
    let labs = [start(1, "hush"), start(2, "hush"), start(3, "wrong")];
    labs[..2].iter().for_each(|lab| lab.until("it knows the other", |lab| told(lab) == 1));
    labs[0].until("it says who has another secret", |lab| {
        let said = problem(lab);
        said.contains("not sealed with this host's secret") && said.contains("192.0.2.3: give all hosts the same `secret-file`")
    });
    labs[2].until("so does the other", |lab| problem(lab).contains("not sealed") || problem(lab).contains("no other host"));
    labs[2].until("it is alone", |lab| hosts(lab) == 1);
    assert_eq!(hosts(&labs[0]), 2);
    assert!(ping(&labs[0], "a", "10.0.0.2") && !ping(&labs[0], "a", "10.0.0.3"));
}

/// A store of one member.
fn etcd(underlay: &Underlay) -> Lab {
    let mut store = Lab::new();
    underlay.join(&store, 101);
    let data = store.path("data").display().to_string();
    store.spawn_in(
        "host",
        &format!(
            "etcd --data-dir {data} --listen-client-urls http://192.0.2.101:2379 --advertise-client-urls http://192.0.2.101:2379 \
             --listen-peer-urls http://192.0.2.101:2380 --unsafe-no-fsync --log-level error"
        ),
    );
    store
}

/// The file of host `number` beside that store.
fn beside(number: u8, ttl: &str) -> String {
    file("Two hosts", number, &format!("ttl = \"{ttl}\"\nendpoints = [\"http://192.0.2.101:2379\"]"))
}

/// Closes the port of gossip.
const CLOSE: &str = "nft add table inet wall && nft add chain inet wall in '{ type filter hook input priority 0; }' && \
                     nft add rule inet wall in udp dport 7946 drop";

#[test]
fn a_host_that_the_store_still_has_after_its_lease_lives() {
    needs!("etcd", "ping", "nft");
    let underlay = Underlay::new();
    let _store = etcd(&underlay);
    let labs = [1, 2].map(|number| host(&underlay, number, &beside(number, "2s")));
    labs.iter().for_each(|lab| lab.until("they know each other", |lab| told(lab) == 1));
    labs[0].until("they probe each other", |lab| probe(lab, "h2") == "up");
    labs[1].run_in("host", CLOSE).ok();
    labs[0].until("it is taken for dead", |lab| told(lab) == 0);
    labs[0].until("it lives after all", |lab| told(lab) == 1 && probe(lab, "h2") == "never");
    labs[1].until("so does the other", |lab| told(lab) == 1);
    labs[0].until("frames get there", |lab| ping(lab, "a", "10.0.0.2"));
    std::thread::sleep(DEATH);
    assert_eq!(told(&labs[0]), 1, "and it stays so");
}

#[test]
fn a_death_is_known_long_before_the_lease_ends_and_a_closed_port_is_no_death() {
    needs!("etcd", "ping", "nft");
    let underlay = Underlay::new();
    let _store = etcd(&underlay);
    let text = |number| beside(number, "30s");
    let mut labs = [1, 2].map(|number| host(&underlay, number, &text(number)));
    let mut third = Lab::new();
    underlay.join(&third, 3);
    third.run_in("host", CLOSE).ok();
    third.write(&text(3));
    third.start();
    labs.iter().for_each(|lab| lab.until("it knows the two others", |lab| told(lab) == 2));
    labs[0].until("they probe each other", |lab| probe(lab, "h2") == "up");
    assert_eq!(probe(&labs[0], "h3"), "never");

    labs[1].kill();
    within(DEATH, &labs[0], "a killed host's rows go", |lab| told(lab) == 1);
    assert_eq!((hosts(&labs[0]), probe(&labs[0], "h2").as_str()), (3, "silent"), "its lease lives");
    let events = labs[0].ctl("events --kind cluster").ok();
    assert!(events.contains("host h2 is dead: it does not answer any more"), "{events}");
    assert!(ping(&labs[0], "a", "10.0.0.3"), "a host that was never heard to answer is no dead one");
    labs[1].start();
    labs[0].until("it is back", |lab| told(lab) == 2 && probe(lab, "h2") == "up" && ping(lab, "a", "10.0.0.2"));
    assert!(labs[0].ctl("events --kind cluster").ok().contains("host h2 is taken to live again"));

    // Its port is closed while frames go to and fro: nothing is withdrawn.
    let pings = Pings::start(&mut labs[0], "10.0.0.2");
    labs[1].run_in("host", CLOSE).ok();
    labs[0].until("it does not answer", |lab| probe(lab, "h2") == "silent");
    std::thread::sleep(DEATH);
    assert_eq!(told(&labs[0]), 2);
    assert_eq!(pings.end(&labs[0]), 0);
}

fn check(lab: &Lab) -> String {
    let findings = lab.json("cluster check");
    let sentences =
        findings.as_array().unwrap().iter().map(|finding| finding["sentence"].as_str().unwrap_or_default().to_owned());
    sentences.collect::<Vec<_>>().join("\n")
}

/// The hosts that take no part.
fn idle(lab: &Lab) -> Vec<String> {
    let hosts = lab.json("cluster hosts");
    let idle = hosts.as_array().unwrap().iter().filter(|host| host["idle"] == true);
    idle.map(|host| host["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_host_with_the_address_of_another_takes_no_part_and_harms_none() {
    needs!("etcd", "ping");
    let underlay = Underlay::new();
    let _store = etcd(&underlay);
    let labs = [1, 2].map(|number| host(&underlay, number, &beside(number, "10s")));
    labs.iter().for_each(|lab| lab.until("they know each other", |lab| told(lab) == 1));
    let copy = host(&underlay, 3, &beside(3, "10s").replace("\"192.0.2.3\"", "\"192.0.2.2\""));
    let taken = "host \"h2\" of the cluster has the underlay 192.0.2.2 already: give this one its own `underlay`";
    copy.until("it says so", |lab| problem(lab) == taken);
    let both = "hosts h2 and h3 both say that their `underlay` is 192.0.2.2: correct one";
    [&labs[0], &labs[1], &copy].iter().for_each(|lab| lab.until("all name both", |lab| check(lab).contains(both)));
    assert!(check(&copy).starts_with("`underlay` 192.0.2.2 is not an address of this host: "), "{}", check(&copy));
    [&labs[0], &labs[1], &copy].iter().for_each(|lab| lab.until("all list the later as idle", |lab| idle(lab) == ["h3"]));
    assert_eq!((hosts(&labs[0]), told(&labs[0])), (3, 1));
    let listed = labs[0].json("cluster hosts");
    let later = listed.as_array().unwrap().iter().find(|host| host["name"] == "h3").unwrap();
    assert_eq!((&later["underlay"], &later["tunnel"], &later["probe"]), (&"192.0.2.2".into(), &().into(), &().into()));
    assert!(ping(&labs[0], "a", "10.0.0.2"));
}

#[test]
fn a_host_that_loses_its_address_says_so_and_blames_no_other() {
    needs!("ip");
    let underlay = Underlay::new();
    let labs = [1, 2].map(|number| host(&underlay, number, &file(WITHOUT, number, "")));
    labs.iter().for_each(|lab| lab.until("it knows the other", |lab| told(lab) == 1));
    let lost = "`underlay` 192.0.2.2 is not an address of this host: `ip address` lists those that are";
    labs[1].sh("ip -n @host addr del 192.0.2.2/24 dev u0").ok();
    labs[1].until("it says so", |lab| problem(lab) == lost);
    std::thread::sleep(DEATH);
    assert!(check(&labs[1]).starts_with(lost) && !check(&labs[1]).contains("does not answer"), "{}", check(&labs[1]));
    labs[1].sh("ip -n @host addr add 192.0.2.2/24 dev u0").ok();
    labs.iter().for_each(|lab| lab.until("all is well again", |lab| told(lab) == 1 && problem(lab).is_empty()));
}
