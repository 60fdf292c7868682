//! Ends of vswitchd, wanted and unwanted, and what they leave.

use std::time::Duration;

use vswitch_tests::{EVERY_WAY, Lab, Traffic, every_way, needs, ping, program, tcp};

const TWO: &str = r#"
[[bridge]]
name = "br0"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.0.0.1/24", "fd00::1/64"]
[[port]]
name = "b"
bridge = "br0"
netns = "@b"
kind = "veth"
addresses = ["10.0.0.2/24"]
"#;

/// What a station would notice: index, address and addresses of its device.
fn device(lab: &Lab, netns: &str) -> String {
    let text = lab.run_in(netns, "ip -o link show eth0; ip -o addr show eth0; ip route").ok();
    // Whether carrier and duplicate address detection have come round at this moment is not the point.
    let changing = |word: &&str| word.contains("UP") || ["state", "DOWN", "UNKNOWN", "mode", "tentative"].contains(word);
    text.split_whitespace().filter(|word| !changing(word)).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_killed_switch_is_taken_over_without_touching_the_containers() {
    needs!("ping", "iperf3");
    let mut lab = Lab::with(TWO);
    assert!(ping(&lab, "a", "10.0.0.2"));
    lab.ctl("add-port br0 c --netns @c --address 10.0.0.3/24").ok();
    assert!(ping(&lab, "a", "10.0.0.3"));
    let before: Vec<String> = ["a", "b", "c"].iter().map(|netns| device(&lab, netns)).collect();
    for netns in ["b", "c"] {
        lab.spawn_in(netns, "iperf3 -s");
    }
    // One connection lives through every crash.
    let (count, log) = (200_u32, lab.path("long").display().to_string());
    lab.until("iperf3 listens", |lab| !lab.run_in("b", "ss -Hltn sport = :5201").ok().is_empty());
    let mut long = lab.command_in("a", &format!("iperf3 -c 10.0.0.2 -b 20M -t 8 > {log} 2>&1")).spawn().unwrap();
    lab.until("traffic flows", |lab| lab.json("stats b")[0]["tx_frames"].as_u64().unwrap() > u64::from(count));
    for _ in 0..3 {
        lab.kill();
        lab.start();
        assert!(ping(&lab, "a", "10.0.0.2") && ping(&lab, "a", "10.0.0.3") && ping(&lab, "c", "10.0.0.2"));
    }
    let after: Vec<String> = ["a", "b", "c"].iter().map(|netns| device(&lab, netns)).collect();
    assert_eq!(after, before);
    assert!(long.wait().unwrap().success(), "{}", std::fs::read_to_string(&log).unwrap());
    assert!(lab.stop().success());
    assert_eq!(lab.netns(), ["b", "c", "host"], "where programs run");
}

/// What keeps its rights, and what it is asked by, end together; the next vswitchd finds devices as after any crash.
#[test]
fn neither_process_outlives_the_other() {
    needs!("ping");
    let mut lab = Lab::with(TWO);
    // One that nobody waits for stays a zombie.
    let is_gone = |pid: u32| {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |stat| stat.rsplit(')').next().unwrap().starts_with(" Z"))
    };
    let first = lab.broker();
    lab.kill();
    lab.until("the broker has ended", |_| is_gone(first));
    lab.start();
    assert!(ping(&lab, "a", "10.0.0.2"));
    lab.sh(&format!("kill -9 {}", lab.broker())).ok();
    assert_eq!(lab.ended().code(), Some(1));
    assert!(lab.log().contains("the process that keeps the rights has ended"), "{}", lab.log());
    lab.start();
    assert!(ping(&lab, "a", "10.0.0.2"));
}

#[test]
fn the_end_removes_what_was_made_and_nothing_else() {
    needs!("ping");
    let mut lab = Lab::new();
    lab.add_netns("b");
    lab.sh("ip -n @b link add mine type veth peer name mine2").ok();
    lab.sh("ip -n @host link add lan type veth peer name lan2 && ip -n @host link set lan up").ok();
    lab.write(&format!("{TWO}[[port]]\nname = \"lan\"\nbridge = \"br0\"\nkind = \"link\"\ndevice = \"lan\"\n"));
    for signal in [libc::SIGTERM, libc::SIGINT] {
        lab.start();
        assert_eq!(lab.netns(), ["a", "b", "host"]);
        lab.signal(signal);
        assert!(lab.ended().success());
        assert_eq!(lab.netns(), ["b", "host"]);
        assert_eq!(lab.sh("ip -n @b -o link | wc -l").ok(), "3\n");
        assert_eq!(lab.sh("ip -n @host -o link | wc -l").ok(), "3\n");
        assert!(!lab.path("control.sock").exists());
    }
}

#[test]
fn what_a_crash_left_and_nobody_wants_is_removed_at_the_next_start() {
    needs!("ping");
    let mut lab = Lab::with(TWO);
    lab.kill();
    assert_eq!(lab.netns(), ["a", "b", "host"]);
    lab.write(&TWO.replace("\"b\"", "\"c\"").replace("@b", "@c").replace(".0.2", ".0.3"));
    lab.start();
    assert_eq!(lab.netns(), ["a", "c", "host"]);
    assert!(ping(&lab, "a", "10.0.0.3"));
    assert_eq!(lab.json("list-ports").as_array().unwrap().len(), 2);
    assert!(lab.stop().success());
    assert_eq!(lab.netns(), ["host"]);
    assert_eq!(lab.sh("ip -n @host -br link | wc -l").ok(), "1\n");
}

#[test]
fn a_crash_forgets_no_namespace_that_was_to_be_removed_and_takes_none_that_has_its_name_since() {
    needs!();
    let mut lab = Lab::with("[[bridge]]\nname = \"br0\"\n");
    // What a crash leaves between the write of a deletion and what it removes.
    let forget = |lab: &Lab, path: &[&str]| {
        let file = lab.path("state/state.json");
        let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let (last, parents) = path.split_last().unwrap();
        let parent = parents.iter().fold(&mut state, |value, key| &mut value[*key]);
        assert!(parent.as_object_mut().unwrap().remove(*last).is_some(), "{path:?}");
        std::fs::write(&file, state.to_string()).unwrap();
    };
    lab.ctl("add-port br0 c --netns @c").ok();
    lab.ctl("add-port br0 d --netns @d").ok();
    lab.kill();
    forget(&lab, &["ports", "d"]);
    lab.start();
    assert_eq!(lab.netns(), ["c", "host"]);
    // The state that a crash leaves after a deletion may still name what is gone.
    lab.ctl("del-port c").ok();
    lab.add_netns("c");
    lab.kill();
    lab.start();
    assert_eq!(lab.netns(), ["c", "host"]);
    lab.ctl("add-port br0 e --netns @c").ok();
    lab.kill();
    lab.start();
    lab.ctl("del-port e").ok();
    assert_eq!(lab.netns(), ["c", "host"]);
    // An earlier release gave namespaces no mark.
    lab.ctl("add-port br0 f --netns @f").ok();
    lab.kill();
    lab.sh("ip -n @f link set lo alias ''").ok();
    forget(&lab, &["made", "marked"]);
    lab.start();
    assert_eq!(lab.netns(), ["c", "f", "host"]);
    lab.ctl("del-port f").ok();
    assert_eq!(lab.netns(), ["c", "host"]);
}

#[test]
fn a_second_switch_leaves_the_first_alone() {
    needs!("ping");
    let mut lab = Lab::with(TWO);
    let sentence = lab.start_refused(&[]).refused();
    assert!(sentence.contains("another vswitchd serves it"), "{sentence}");
    // Another socket, but the same directory.
    let other = lab.path("other.sock").display().to_string();
    let state = lab.path("state").display().to_string();
    lab.write(&format!("[switch]\ncontrol = \"{other}\"\nstate-dir = \"{state}\"\n{TWO}"));
    let sentence = lab.start_refused(&[]).refused();
    assert!(sentence.contains(&format!("process {}", lab.pid())), "{sentence}");
    assert!(!lab.path("other.sock").exists());
    // Another directory too, but the same devices.
    let state = lab.path("state2").display().to_string();
    lab.write(&format!("[switch]\ncontrol = \"{other}\"\nstate-dir = \"{state}\"\n{TWO}"));
    let outcome = lab.start_refused(&[]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.lines().all(|line| line.contains("in use by another process") || line.contains("exists already")),
        "{outcome:?}"
    );
    assert!(ping(&lab, "a", "10.0.0.2"));
    assert!(lab.stop().success());
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    needs!();
    let lab = Lab::new();
    lab.sh("ip -n @host link add taken type veth peer name taken2").ok();
    let bad = "[[port]]\nname = \"x\"\nbridge = \"br0\"\nnetns = \"/run/netns/none\"\n\
               [[port]]\nname = \"taken\"\nbridge = \"br0\"\n[[port]]\nname = \"lan\"\nbridge = \"br0\"\nkind = \"link\"\ndevice = \"nolan\"\n";
    lab.write(&format!("{TWO}{bad}"));
    let sentence = lab.start_refused(&[]).refused();
    assert_eq!(sentence.lines().count(), 3, "{sentence}");
    for part in ["/run/netns/none", "\"taken\" exists already", "no interface \"nolan\""] {
        assert!(sentence.contains(part), "{part}: {sentence}");
    }
    assert_eq!(lab.netns(), ["host"]);
    assert_eq!(lab.sh("ip -n @host -br link | wc -l").ok(), "3\n");
    assert!(!lab.path("control.sock").exists());
}

#[test]
fn a_start_that_fails_forgets_nothing_that_it_found() {
    needs!();
    let mut lab = Lab::new();
    lab.sh("ip -n @host link add wan type veth peer name wan2 && ip -n @host link set wan up").ok();
    let uplink = "[[uplink]]\nname = \"wan\"\nkind = \"link\"\ndevice = \"wan\"\naddress = [\"192.0.2.10/24\"]\n";
    let bridge = "name = \"br0\"\naddresses = [\"10.0.0.254/24\"]\nuplink = \"wan\"\n";
    lab.write(&format!("{uplink}{}", TWO.replacen("name = \"br0\"\n", bridge, 1)));
    lab.start();
    lab.kill();
    lab.sh("ip -n @host link del wan").ok();
    let sentences = lab.start_refused(&[]).refused();
    assert!(sentences.contains("no interface \"wan\""), "{sentences}");
    assert_eq!(lab.netns(), ["a", "b", "host"], "containers that run");
    lab.write("[[bridge]]\nname = \"br0\"\n");
    lab.start();
    assert_eq!(lab.netns(), ["host"]);
    assert_eq!(lab.sh("ip -n @host -br link | wc -l").ok(), "1\n");
    assert!(lab.stop().success());
}

#[test]
fn a_device_that_goes_away_takes_only_its_port_down() {
    needs!("ping", "iperf3");
    let lab =
        Lab::with(&format!("{TWO}[[port]]\nname = \"c\"\nbridge = \"br0\"\nnetns = \"@c\"\naddresses = [\"10.0.0.3/24\"]\n"));
    assert!(ping(&lab, "a", "10.0.0.3"));
    lab.sh("ip -n @c link del eth0").ok();
    lab.until("the port is down", |lab| lab.json("list-ports")[2]["state"] == "its device is gone");
    assert!(lab.ctl("show").ok().contains("its device is gone"));
    assert!(tcp(&lab, "a", "b", "10.0.0.2", "-n 64M").bits > 50e6);
    // A veth loses its other end with it.
    lab.sh("ip -n @b link del eth0").ok();
    lab.until("the port is down", |lab| lab.json("list-ports")[1]["state"] == "its device is gone");
    lab.ctl("reload").ok();
    // The new devices have addresses of their own, which a's stack takes a moment to ask for.
    lab.until("they are back", |lab| ping(lab, "a", "10.0.0.3") && ping(lab, "a", "10.0.0.2"));
}

#[test]
fn an_end_that_is_asked_for_during_the_start_leaves_nothing() {
    needs!();
    let lab = Lab::new();
    let port = |n: u32| format!("[[port]]\nname = \"p{n}\"\nbridge = \"br0\"\nnetns = \"@p{n}\"\n");
    lab.write(&format!("[[bridge]]\nname = \"br0\"\n{}", (0..30).map(port).collect::<String>()));
    let line = format!("exec {} --config {}", program("vswitchd").display(), lab.file().display());
    let mut child = lab.command_in("host", &line).stdout(std::process::Stdio::null()).spawn().unwrap();
    lab.until("it has begun", |lab| lab.netns().len() > 5);
    // SAFETY: the process is a child that was not waited for, so the pid is its own.
    assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) }, 0);
    assert!(child.wait().unwrap().success());
    assert_eq!(lab.netns(), ["host"]);
    assert!(!lab.path("control.sock").exists());
}

/// A connection, of which both ends say what they get; each says something when it is given a line.
const TALK: &str = r#"
import socket, sys, threading
role, port = sys.argv[1], int(sys.argv[2])
if role == "server":
    listening = socket.create_server(("192.0.2.1", port))
    print("listening", flush=True)
    peer, _ = listening.accept()
else:
    peer = socket.create_connection(("192.0.2.1", port))
def hear():
    while True:
        got = peer.recv(100)
        print("got", got.decode() if got else "the end", flush=True)
        if not got:
            break
threading.Thread(target=hear, daemon=True).start()
for line in open(sys.argv[3]):
    peer.sendall(line.strip().encode())
"#;

#[test]
fn sessions_of_a_link_outlive_every_end_whoever_speaks_first() {
    needs!("python3", "ping");
    let mut lab = Lab::new();
    lab.add_netns("world");
    lab.run_in("host", "ip link add wan type veth peer name wan netns @world && ip link set wan up").ok();
    lab.run_in("world", "ip link set wan up && ip addr add 192.0.2.1/24 dev wan").ok();
    lab.write(
        "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.254/24\"]\nuplink = \"wan\"\n[[uplink]]\nname = \"wan\"\nkind = \"link\"\n\
         device = \"wan\"\naddress = \"192.0.2.10/24\"\n[[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"@a\"\naddresses = [\"10.0.0.1/24\"]\n",
    );
    lab.start();
    assert!(ping(&lab, "a", "192.0.2.1"));
    std::fs::write(lab.path("talk.py"), TALK).unwrap();
    // A connection for each end of the switch, idle until then, so that only the image has it.
    let place = lab.path("").display().to_string();
    for port in 1..=3 {
        let pipes = ["server", "client"].map(|role| format!("{place}/{role}{port}"));
        lab.sh(&format!("mkfifo {} {}", pipes[0], pipes[1])).ok();
        for (netns, role) in [("world", "server"), ("a", "client")] {
            lab.spawn_in(
                netns,
                &format!("python3 {place}/talk.py {role} {port} {place}/{role}{port} > {place}/{role}{port}.said 2>&1"),
            );
            if role == "server" {
                lab.until("it listens", |lab| lab.sh(&format!("cat {place}/server{port}.said")).stdout.contains("listening"));
            }
        }
        lab.until("they are connected", |lab| {
            lab.json("sessions").as_array().unwrap().iter().filter(|row| row["state"] == "established").count() == port
        });
    }
    let before = lab.json("sessions");
    let ports = |rows: &serde_json::Value| {
        let mut ports: Vec<String> = rows.as_array().unwrap().iter().map(|row| row["as"].to_string()).collect();
        ports.sort();
        ports
    };
    for (port, first) in [(1, "server"), (2, "client"), (3, "server")] {
        // What is new is written down within a second or two.
        std::thread::sleep(Duration::from_millis(2500));
        if port == 3 {
            lab.stop();
        } else {
            lab.kill();
        }
        lab.start();
        let second = if first == "server" { "client" } else { "server" };
        lab.sh(&format!("echo hello > {place}/{first}{port}")).ok();
        lab.until("the other one hears it", |lab| {
            lab.sh(&format!("cat {place}/{second}{port}.said")).stdout.contains("got hello")
        });
    }
    assert_eq!(ports(&lab.json("sessions")), ports(&before));
}

#[test]
fn a_crash_cuts_no_connection_by_any_way() {
    needs!("iperf3", "ping");
    let mut lab = every_way(EVERY_WAY);
    assert!(ping(&lab, "a", "10.0.0.9") && ping(&lab, "a", "10.0.0.4") && ping(&lab, "a", "192.0.2.1"));
    // More of them, by hand: VSWITCH_CRASHES=50.
    let count: u32 = std::env::var("VSWITCH_CRASHES").map_or(3, |count| count.parse().unwrap());
    let traffic = Traffic::begin(&mut lab, 12 + 3 * count, "-b 20M");
    for _ in 0..count {
        // What is new is written down within a second or two.
        std::thread::sleep(Duration::from_millis(2500));
        lab.kill();
        lab.start();
    }
    let pings = traffic.end();
    println!("{pings:#?}");
    assert!(pings.iter().all(|pings| pings.missed < pings.sent / 4), "{pings:#?}");
    assert!(lab.stop().success());
}
