//! Encrypted overlay networks: hosts with a vswitchd each and an etcd, an encrypted network and one in the clear beside it. Whatever starts, is killed,
//! is taken over or is installed anew, nothing of the encrypted network is to be read on the underlay, and nothing gets into it in the clear.
//!
//! `VSWITCH_ENCRYPT=1` with `--nocapture` measures both networks in turn, for `docs/performance.md`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use vswitch_tests::{Lab, Underlay, Wire, across, iperf3, mac, mark, needs, ping};

/// What stations of the encrypted network say to each other, and those of the other one.
const SECRET: &str = "no eyes but ours";
const OPEN: &str = "for all the eyes";

/// The hosts of a cluster. Station `a` of host N is 10.0.0.N, on the encrypted network red, `p` is 10.1.0.N, on blue.
struct Place {
    underlay: Underlay,
    hosts: Vec<Lab>,
    /// It runs the store.
    _store: Lab,
    prefix: &'static str,
}

impl Place {
    fn new(count: u8, prefix: &'static str) -> Self {
        let (underlay, mut store) = (Underlay::new(), Lab::new());
        underlay.join(&store, 9);
        let line = format!(
            "etcd --data-dir {} --listen-peer-urls http://127.0.0.1:2380 --listen-client-urls http://192.0.2.9:2379 \
             --advertise-client-urls http://192.0.2.9:2379 --unsafe-no-fsync --log-level error",
            store.path("data").display()
        );
        store.spawn_in("host", &line);
        let mut place = Self { underlay, hosts: Vec::new(), _store: store, prefix };
        for number in 1..=count {
            let mut lab = Lab::new();
            place.underlay.join(&lab, number);
            lab.write(&place.file(number));
            lab.start();
            place.hosts.push(lab);
        }
        for lab in &place.hosts {
            lab.until("all know all", |lab| (1..=count).all(|to| reaches(lab, "a", to) && reaches(lab, "p", to)));
        }
        place
    }

    fn file(&self, number: u8) -> String {
        let bridge = |bridge: &str, network: &str, port: &str, subnet: u8| {
            format!(
                "[[bridge]]\nname = \"{bridge}\"\noverlay = \"{network}\"\nencrypt = {}\n\
                 [[port]]\nname = \"{port}\"\nbridge = \"{bridge}\"\nnetns = \"@{port}\"\naddresses = [\"10.{subnet}.0.{number}/24\"]\n",
                network == "red"
            )
        };
        // The head of the file ends in [switch]. Workers of one host share its sessions.
        let workers = if number == 2 { "workers = 2\n" } else { "" };
        format!(
            "{workers}[cluster]\nstore = \"etcd\"\nendpoints = [\"http://192.0.2.9:2379\"]\nttl = \"3s\"\nnode = \"h{number}\"\n\
             underlay = \"{}{number}\"\n{}{}",
            self.prefix,
            bridge("br0", "red", "a", 0),
            bridge("br1", "blue", "p", 1)
        )
    }
}

fn reaches(lab: &Lab, from: &str, to: u8) -> bool {
    ping(lab, from, &format!("10.{}.0.{to}", if from == "a" { 0 } else { 1 }))
}

/// All that passes the underlay, written down.
struct Watch {
    file: PathBuf,
    pid: u32,
}

impl Watch {
    fn begin(underlay: &mut Underlay) -> Self {
        let fabric = &mut underlay.fabric;
        let (file, said) = (fabric.path("underlay.pcap"), fabric.path("underlay.said"));
        let line = format!("sh -c 'exec tcpdump -U -s 0 -i fab -w {} udp > {} 2>&1'", file.display(), said.display());
        let pid = fabric.spawn_in("host", &line);
        fabric.until("all is seen", |_| std::fs::read_to_string(&said).is_ok_and(|text| text.contains("listening on")));
        Self { file, pid }
    }

    fn has_seen(&self, what: &[u8]) -> bool {
        std::fs::read(&self.file).unwrap().windows(what.len()).any(|part| part == what)
    }

    fn end(&self, underlay: &Underlay) {
        underlay.fabric.sh(&format!("kill -INT {}", self.pid)).ok();
    }
}

/// The header of a network's frames in the clear.
fn header(lab: &Lab, network: &str) -> Vec<u8> {
    let rows = lab.json("cluster networks");
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == network).unwrap();
    let vni = u32::try_from(row["vni"].as_u64().unwrap()).unwrap();
    [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes()].concat()
}

/// Has a station say something to another all the while.
fn say(lab: &mut Lab, from: &str, to: &str, what: &str) {
    let pattern: String = what.bytes().map(|byte| format!("{byte:02x}")).collect();
    lab.spawn_in(from, &format!("ping -n -q -i 0.02 -p {pattern} {to}"));
}

/// Waits until a station is reached again, and says how long that took.
#[track_caller]
fn healed(lab: &Lab, what: &str, to: u8, since: Instant) {
    lab.until(what, |lab| reaches(lab, "a", to));
    eprintln!("{what}: {:.1} s", since.elapsed().as_secs_f64());
    assert!(since.elapsed() < Duration::from_secs(10), "{what}: {:?}", since.elapsed());
}

#[test]
fn nothing_of_an_encrypted_network_is_to_be_read_whatever_happens() {
    needs!("etcd", "ping", "tcpdump", "iperf3");
    let mut place = Place::new(3, "192.0.2.");
    let watch = Watch::begin(&mut place.underlay);
    let hosts = &mut place.hosts;
    say(&mut hosts[0], "a", "10.0.0.2", SECRET);
    say(&mut hosts[0], "a", "10.0.0.3", SECRET);
    say(&mut hosts[2], "a", "10.0.0.1", SECRET);
    say(&mut hosts[0], "p", "10.1.0.2", OPEN);
    let (red, blue) = (header(&hosts[0], "red"), header(&hosts[0], "blue"));
    hosts[0].until("what is in the clear is seen", |_| watch.has_seen(OPEN.as_bytes()) && watch.has_seen(&blue));
    it_is_shown(&hosts[0]);
    across(&hosts[0], &hosts[1], "10.0.0.2", "-n 4M");
    across(&hosts[1], &hosts[0], "10.0.0.1", "-n 4M -P 4");
    across(&hosts[1], &hosts[0], "10.0.0.1", "-n 4M -P 4 -R");

    hosts[1].kill();
    std::thread::sleep(Duration::from_secs(1));
    hosts[1].start();
    healed(&hosts[0], "a host that was killed is reached again", 2, Instant::now());
    assert!(hosts[1].stop().success());
    hosts[1].start();
    healed(&hosts[0], "a host that was stopped is reached again", 2, Instant::now());
    let old = hosts[1].take_over();
    healed(&hosts[0], "a host that was taken over is reached", 2, Instant::now());
    old.ended();
    another_key_is_followed(hosts);
    another_address_is_followed(hosts);
    one_who_wishes_otherwise_has_no_part(hosts);

    for lab in hosts.iter() {
        lab.until("all know all", |lab| (1..=3).all(|to| reaches(lab, "a", to) && reaches(lab, "p", to)));
        lab.until("all agree", |lab| lab.json("cluster check").as_array().unwrap().is_empty());
    }
    watch.end(&place.underlay);
    assert!(watch.has_seen(OPEN.as_bytes()) && watch.has_seen(&blue), "it looked at all");
    assert!(!watch.has_seen(SECRET.as_bytes()) && !watch.has_seen(&red));
}

fn mtu(lab: &Lab, netns: &str) -> u64 {
    let links: serde_json::Value = serde_json::from_str(&lab.run_in(netns, "ip -j link show eth0").ok()).unwrap();
    links[0]["mtu"].as_u64().unwrap()
}

/// What users are told.
fn it_is_shown(lab: &Lab) {
    let is_open = |name: &str| {
        lab.json("list-vxlan").as_array().unwrap().iter().any(|row| row["name"] == name && row["wireguard"].is_null())
    };
    assert!(!is_open("ov-br0") && is_open("ov-br1"));
    assert_eq!(["a", "p"].map(|netns| mtu(lab, netns)), [1390, 1450]);
    let told = lab.ctl("trace --port a --to 10.0.0.2").ok();
    assert!(told.contains(", inside WireGuard, to host h2 at 192.0.2.2"), "{told}");
    assert!(!lab.ctl("trace --port p --to 10.1.0.2").ok().contains("WireGuard"));
    let shown = lab.path("inside.pcapng");
    lab.ctl(&format!("capture --at underlay --port ov-br0 --count 2 -w {}", shown.display())).ok();
    let shown = std::fs::read(shown).unwrap();
    let has = |what: &[u8]| shown.windows(what.len()).any(|part| part == what);
    assert!(has(b"inside WireGuard on port 51820") && has(&header(lab, "red")) && has(SECRET.as_bytes()));
    let hosts = lab.json("cluster hosts");
    assert!(hosts.as_array().unwrap().iter().all(|host| host["key"].as_str().unwrap().len() == 44), "{hosts}");
    let networks = lab.json("cluster networks");
    let is_encrypted =
        |name: &str| networks.as_array().unwrap().iter().any(|row| row["name"] == name && row["encrypt"] == true);
    assert!(is_encrypted("red") && !is_encrypted("blue"), "{networks}");
    assert!(lab.ctl("show").ok().contains("overlay red, encrypted"));
}

/// A host is installed anew.
fn another_key_is_followed(hosts: &mut [Lab]) {
    let key = |lab: &Lab| lab.json("cluster status")["key"].as_str().unwrap().to_owned();
    let (before, file) = (key(&hosts[2]), hosts[2].path("state/wireguard.key"));
    assert!(hosts[2].stop().success());
    std::fs::remove_file(&file).unwrap();
    hosts[2].start();
    healed(&hosts[0], "a host with another key is reached", 3, Instant::now());
    assert_ne!(key(&hosts[2]), before);
}

/// A host moves to another address of the underlay.
fn another_address_is_followed(hosts: &mut [Lab]) {
    let (file, lab) = (hosts[2].file(), &mut hosts[2]);
    assert!(lab.stop().success());
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("underlay = \"192.0.2.3\"", "underlay = \"192.0.2.33\"")).unwrap();
    lab.sh("ip -n @host addr del 192.0.2.3/24 dev u0 && ip -n @host addr add 192.0.2.33/24 dev u0").ok();
    lab.start();
    healed(&hosts[0], "a host with another address is reached", 3, Instant::now());
}

/// One that would have the network in the clear has no part in it, and says so.
fn one_who_wishes_otherwise_has_no_part(hosts: &mut [Lab]) {
    let problem = |lab: &Lab| lab.json("cluster status")["problem"].as_str().unwrap_or_default().to_owned();
    hosts[2].ctl("set-br br0 --encrypt off").ok();
    hosts[2].until("it says so", |lab| {
        problem(lab).contains("\"red\" is encrypted in the store, and not here: give its bridge `encrypt = true`")
    });
    let tunnels = hosts[2].json("list-vxlan");
    assert!(tunnels.as_array().unwrap().iter().all(|tunnel| tunnel["bridge"] != "br0"), "{tunnels}");
    assert!(!reaches(&hosts[2], "a", 1));
    hosts[2].ctl("set-br br0 --encrypt on").ok();
    hosts[2].until("it is in it again", |lab| problem(lab).is_empty());
    healed(&hosts[0], "it is reached again", 3, Instant::now());
    assert_eq!(hosts[2].ctl("add-br br2 --encrypt").code, Some(2), "there is nothing to encrypt");
}

/// Frames in the clear from a third host, which forges the address of the second: at the port of tunnels in the clear and at that of WireGuard.
#[test]
fn nothing_gets_into_an_encrypted_network_in_the_clear() {
    needs!("etcd", "ping", "python3");
    let place = Place::new(2, "192.0.2.");
    let (victim, station) = (&place.hosts[0], Wire::open(&place.hosts[0], "a"));
    let mut attacker = Lab::new();
    place.underlay.join(&attacker, 66);
    let script = attacker.path("attack.py");
    let attack = mark(mac(66), "attack").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let [red, blue] =
        ["red", "blue"].map(|network| header(victim, network).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    std::fs::write(&script, ATTACK.replace("RED", &red).replace("BLUE", &blue).replace("FRAME", &attack)).unwrap();
    attacker.spawn_in("host", &format!("python3 {}", script.display()));
    let drops = |tunnel: &str, reason: &str| {
        let rows = victim.json("list-vxlan");
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == tunnel).unwrap();
        row["underlay_drops"][reason].as_u64().unwrap()
    };
    victim.until("it arrives", |_| {
        drops("ov-br1", "unknown_vni") >= 1000
            && drops("ov-br0", "not_authentic") >= 1000
            && drops("ov-br0", "unknown_host") >= 1000
    });
    // Of the network in the clear, the same is a frame.
    Wire::open(victim, "p").heard_before("attack");
    assert!(reaches(victim, "a", 2));
    Wire::open(&place.hosts[1], "a").send(&mark(mac(2), "end"));
    let heard = station.heard_before("end");
    assert!(heard.iter().all(|frame| !frame.windows(11).any(|part| part == b"mark attack")), "{heard:02x?}");
}

const ATTACK: &str = r#"
import socket, struct
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
frame = bytes.fromhex("FRAME")
def forge(source, port, payload):
    udp = struct.pack("!HHHH", 5555, port, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton("192.0.2.1"))
    raw.sendto(ip + udp, ("192.0.2.1", 0))
while True:
    forge("192.0.2.2", 4789, bytes.fromhex("RED") + frame)
    forge("192.0.2.2", 4789, bytes.fromhex("BLUE") + frame)
    forge("192.0.2.2", 51820, bytes.fromhex("RED") + frame)
    forge("192.0.2.2", 51820, b"\1\0\0\0" + bytes(144))
    forge("192.0.2.2", 51820, b"\4\0\0\0" + bytes(200))
    forge("192.0.2.66", 51820, b"\4\0\0\0" + bytes(200))
"#;

/// IPv6 between hosts has headers of its own, twice.
#[test]
fn hosts_with_ipv6_between_them_encrypt_too() {
    needs!("etcd", "ping", "iperf3");
    let place = Place::new(2, "2001:db8::");
    assert_eq!(mtu(&place.hosts[0], "a"), 1350);
    across(&place.hosts[0], &place.hosts[1], "10.0.0.2", "-n 4M");
    place.hosts[0].run_in("a", "ping -n -c 1 -W 2 -M do -s 1322 10.0.0.2").ok();
}

/// The same stream through both networks in turn.
#[test]
fn what_encryption_costs() {
    if std::env::var_os("VSWITCH_ENCRYPT").is_none() {
        return;
    }
    needs!("etcd", "ping", "iperf3");
    let place = Place::new(2, "192.0.2.");
    let rate = |netns: &str, address: &str| {
        let (from, to) = ((&place.hosts[0], netns), (&place.hosts[1], netns));
        let report = iperf3(from, to, address, "-t 4");
        report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e9
    };
    for is_whole in [true, false, true, false, true, false, true, false] {
        (1..=2).for_each(|number| place.underlay.set_segmentation(&place.hosts[usize::from(number) - 1], number, is_whole));
        let (open, sealed) = (rate("p", "10.1.0.2"), rate("a", "10.0.0.2"));
        let underlay = if is_whole { "whole" } else { "cut" };
        eprintln!("runs are {underlay} on the underlay: in the clear {open:.2} Gbit/s, encrypted {sealed:.2} Gbit/s");
    }
}
