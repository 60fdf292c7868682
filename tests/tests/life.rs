//! The life of a vswitchd: planned ends, what they leave to programs, and what keeps it from being of use without ending.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails its test")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use vswitch_tests::{Lab, Mounted, needs, ping, program};

const BRIDGE: &str = "[[bridge]]\nname = \"br0\"\n";

fn port(name: &str, more: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\n{more}")
}

fn address(n: u8) -> String {
    format!("addresses = [\"10.0.0.{n}/24\"]\n")
}

/// What a program would notice: index, addresses and routes of its device.
fn device(lab: &Lab, netns: &str) -> String {
    let text = lab.run_in(netns, "ip -o link show eth0; ip -o addr show eth0; ip route").ok();
    let changing =
        |word: &&str| word.contains("UP") || ["state", "DOWN", "UNKNOWN", "mode", "tentative", "linkdown"].contains(word);
    text.split_whitespace().filter(|word| !changing(word)).collect::<Vec<_>>().join(" ")
}

/// Starts a vswitchd through `prefix`, such as `prlimit …`, and waits until it answers.
fn start_through(lab: &mut Lab, prefix: &str) -> u32 {
    let line = format!("{prefix} {} --config {}", program("vswitchd").display(), lab.file().display());
    let pid = lab.spawn_in("host", &line);
    lab.until("it answers", |lab| lab.ctl("list-br").code == Some(0));
    pid
}

fn is_alive(pid: u32) -> bool {
    // A process that has ended is a zombie until its parent, this test, asks how.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

#[test]
fn programs_keep_their_network_over_a_planned_restart() {
    needs!("ping", "iperf3");
    let mut lab = Lab::new();
    lab.add_netns("theirs");
    lab.add_netns("empty");
    let more = ["theirs", "empty"].map(|name| port(name, ""));
    lab.write(&format!(
        "{BRIDGE}{}{}{}{}",
        port("a", &address(1)),
        port("b", &format!("kind = \"veth\"\n{}", address(2))),
        port("c", &address(3)),
        more.concat()
    ));
    lab.start();
    lab.spawn_in("b", "iperf3 -s");
    lab.until("iperf3 listens", |lab| !lab.run_in("b", "ss -Hltn sport = :5201").ok().is_empty());
    lab.spawn_in("theirs", "sleep 1000");
    // What vswitchd knows nothing of.
    lab.run_in("a", "ip addr add 10.99.0.1/32 dev eth0 && ip route add 10.98.0.0/16 via 10.0.0.2").ok();
    let log = lab.path("long").display().to_string();
    let mut long = lab.command_in("a", &format!("iperf3 -c 10.0.0.2 -b 20M -t 6 > {log} 2>&1")).spawn().unwrap();
    lab.until("traffic flows", |lab| lab.json("stats b")[0]["tx_frames"].as_u64().unwrap() > 200);
    let before: Vec<String> = ["a", "b", "theirs"].iter().map(|netns| device(&lab, netns)).collect();
    for _ in 0..2 {
        assert!(lab.stop().success());
        assert_eq!(lab.netns(), ["a", "b", "empty", "host", "theirs"], "c is empty and was made for a port");
        assert_eq!(lab.sh("ip -n @empty -br link | wc -l").ok(), "1\n", "a device that was made where no program runs goes");
        assert!(lab.log().contains("left for the next start: port \"b\": iperf3 ("), "{}", lab.log());
        lab.start();
        assert!(ping(&lab, "a", "10.0.0.2") && ping(&lab, "a", "10.0.0.3"));
        let after: Vec<String> = ["a", "b", "theirs"].iter().map(|netns| device(&lab, netns)).collect();
        assert_eq!(after, before);
    }
    assert!(long.wait().unwrap().success(), "{}", std::fs::read_to_string(&log).unwrap());
    // A file that no longer wants it has it removed, programs or not, as del-port does.
    assert!(lab.stop().success());
    lab.write(BRIDGE);
    lab.start();
    assert_eq!(lab.netns(), ["empty", "host", "theirs"]);
    assert_eq!(lab.sh("ip -n @theirs -br link | wc -l").ok(), "1\n");
}

#[test]
fn stations_know_each_other_over_a_restart() {
    needs!("ping");
    if !std::path::Path::new("/proc/sys/net/ipv4/conf/all/arp_evict_nocarrier").exists() {
        return vswitch_tests::skipped("stations_know_each_other_over_a_restart", "the kernel is older than 5.16");
    }
    let both = |n: u8| format!("addresses = [\"10.0.0.{n}/24\", \"fd00::{n}/64\"]\n");
    let mut lab = Lab::with(&format!("{BRIDGE}{}{}", port("a", &both(1)), port("b", &both(2))));
    lab.spawn_in("a", "sleep 1000");
    lab.spawn_in("b", "sleep 1000");
    assert!(ping(&lab, "a", "10.0.0.2") && ping(&lab, "a", "fd00::2"));
    // Asking anew takes a second: the first question is asked while the device has no carrier.
    let known = |lab: &Lab| {
        let text = lab.run_in("a", "ip neigh show dev eth0").ok();
        ["10.0.0.2 lladdr", "fd00::2 lladdr"].map(|part| text.contains(part))
    };
    for planned in [true, false] {
        if planned {
            lab.stop();
        } else {
            lab.kill();
        }
        lab.until("the kernel has seen that", |lab| lab.run_in("a", "ip link show eth0").ok().contains("NO-CARRIER"));
        assert_eq!(known(&lab), [true; 2], "planned: {planned}");
        lab.start();
        assert_eq!(known(&lab), [true; 2], "planned: {planned}");
    }
}

#[test]
fn shutdown_says_what_goes_and_what_stays_and_returns_when_it_is_over() {
    needs!("ping");
    let mut lab = Lab::with(&format!("{BRIDGE}{}{}", port("a", &address(1)), port("b", &address(2))));
    lab.ctl("add-port br0 host0").ok();
    let sleep = lab.spawn_in("b", "sleep 1000");
    let pid = lab.pid();
    let said = lab.ctl("shutdown").ok();
    assert!(!is_alive(pid), "it has ended when vsctl returns");
    assert!(lab.ended().success());
    let (a, b) = (lab.named("@a"), lab.named("@b"));
    let who = format!("sleep ({sleep}) in its namespace");
    let expected = [
        "removed port \"a\"".to_owned(),
        "removed port \"host0\"".to_owned(),
        format!("removed namespace \"{a}\""),
        format!("left port \"b\": {who}"),
        format!("left namespace \"{b}\": {who}"),
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    assert_eq!(lab.netns(), ["b", "host"]);

    // A start right after finds its directory and sockets free.
    lab.start();
    assert!(ping(&lab, "b", "10.0.0.1"));
    let pid = lab.pid();
    let ending = lab.json("shutdown --keep");
    assert!(!is_alive(pid));
    assert!(lab.ended().success());
    assert_eq!((&ending["removed"], ending["pid"].as_u64()), (&Value::Array(Vec::new()), Some(pid.into())));
    let left = |what: &str| -> Vec<&str> {
        let of = ending["left"].as_array().unwrap().iter().filter(|thing| thing["what"] == what);
        of.map(|thing| thing["name"].as_str().unwrap()).collect()
    };
    assert_eq!((left("port"), left("netns")), (vec!["a", "b", "host0"], vec![&*a, &*b]));
    assert_eq!(lab.netns(), ["a", "b", "host"]);
    lab.start();
    assert!(ping(&lab, "b", "10.0.0.1"));
}

/// A thread that ptrace(2) has stopped, alone of its process, until this is dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    fn new(process: u32, name: &str) -> Self {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|entry| entry.unwrap().path());
        let is_it = |path: &std::path::PathBuf| std::fs::read_to_string(path.join("comm")).unwrap().trim() == name;
        let path = threads.into_iter().find(is_it).unwrap();
        let tid = path.file_name().unwrap().to_str().unwrap().parse::<libc::pid_t>().unwrap();
        // SAFETY: stops a thread of a child of this test; neither call is given memory.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0), 0);
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0), 0);
            assert_eq!(libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL), tid);
        }
        Self(tid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: as above; it may be gone with its process.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}

#[test]
fn one_thread_that_hangs_starves_the_watchdog() {
    needs!();
    let mut lab = Lab::new();
    let file = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.1/24\"]\nuplink = \"host\"\n[[uplink]]\nname = \"host\"\nkind = \"host\"\n";
    lab.write(&format!(
        "[switch]\ncontrol = \"{d}/control.sock\"\nstate-dir = \"{d}/state\"\nworkers = 2\n{file}",
        d = lab.path("").display()
    ));
    let path = lab.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    // Its threads are idle and turn once a second by themselves: it must wake them to be in time.
    let patience = Duration::from_millis(1600);
    let pid = start_through(&mut lab, &format!("env NOTIFY_SOCKET={} WATCHDOG_USEC=1600000", path.display()));
    let fed = |within: Duration| {
        let until = Instant::now() + within;
        let mut text = [0; 100];
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left)).unwrap();
            if socket.recv(&mut text).is_ok_and(|length| text[..length].starts_with(b"WATCHDOG=1")) {
                return true;
            }
        }
        false
    };
    // Generous, for the machine may be busy: it is about whether, not when.
    let sometime = Duration::from_secs(30);
    assert!(fed(sometime) && fed(sometime));
    for thread in ["worker-0", "worker-1", "host-host"] {
        let stopped = Stopped::new(pid, thread);
        // What was on its way when the thread stopped.
        fed(patience);
        assert!(!fed(2 * patience), "fed without {thread}");
        drop(stopped);
        assert!(fed(sometime), "not fed again with {thread}");
    }
}

/// What the kernel says of each thread of a process: by name, its capabilities, whether it is filtered, and whether it can get new privileges.
fn threads(pid: u32) -> BTreeMap<String, [String; 4]> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
    let thread = |status: String| {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        (field("Name:"), [field("CapEff:"), field("CapBnd:"), field("Seccomp:"), field("NoNewPrivs:")])
    };
    statuses.map(thread).collect()
}

#[test]
fn the_process_that_reads_what_others_send_holds_no_right() {
    needs!("curl", "ping");
    let mut lab = Lab::new();
    let bridge = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.1/24\"]\nuplink = \"host\"\nstp = \"rstp\"\n";
    let uplink = "[[uplink]]\nname = \"host\"\nkind = \"host\"\n[web]\nlisten = \"127.0.0.1:8080\"\n";
    // A name takes a thread of its own to ask for, and none is there to answer.
    let cluster = "[cluster]\nstore = \"etcd\"\nnode = \"a\"\nunderlay = \"192.0.2.1\"\nendpoints = [\"http://localhost:1\"]\n";
    let forward = "[[forward]]\nuplink = \"host\"\nprotocol = \"tcp\"\nport = \"80\"\nto = \"10.0.0.2:80\"\n";
    lab.write(&format!("{bridge}{uplink}{forward}{cluster}{}", port("a", &address(2))));
    lab.start();
    lab.spawn_in(
        "host",
        &format!("{} --control {} capture -w /dev/null", program("vsctl").display(), lab.path("control.sock").display()),
    );
    lab.until("the capture runs", |lab| lab.json("show")["captures"] == 1);
    let nothing = ["0000000000000000", "0000000000000000", "2", "1"].map(str::to_owned);
    let all = threads(lab.pid());
    for name in ["worker-0", "services", "stp", "host-host", "web", "capture-0", "overlay"] {
        assert_eq!(all.get(name), Some(&nothing), "{name} of {all:?}");
    }
    for (name, held) in &all {
        assert_eq!(held, &nothing, "{name}");
    }
    let broker = threads(lab.broker());
    assert_ne!(broker["vswitchd-broker"][0], nothing[0], "it keeps the rights");
    let names: Vec<&str> = broker.keys().map(String::as_str).collect();
    assert_eq!(names, ["end", "vswitchd-broker"], "it does one thing at a time, until the other one ends");
    assert!(lab.json("show")["sandbox"].as_str().unwrap().starts_with("no capabilities, seccomp"));
    lab.until("the store was asked", |lab| lab.log().contains("check `endpoints` of [cluster]"));
    // What takes a right is done by threads that have it: a port below 1024, and a port made at run time.
    assert_ne!(lab.run_in("host", "ss -Hltn sport = :80").ok(), "");
    lab.ctl("add-port br0 b --netns @b --address 10.0.0.3/24 --stp-edge on").ok();
    lab.until("both are there", |lab| lab.run_in("b", "ping -c 1 -W 1 10.0.0.1").code == Some(0));
    assert!(lab.run_in("host", "curl -sS localhost:8080/api/show").ok().contains("\"sandbox\""));
    assert!(lab.stop().success());

    let line = format!("{} --no-sandbox --config {}", program("vswitchd").display(), lab.file().display());
    let pid = lab.spawn_in("host", &line);
    lab.until("it answers", |lab| lab.ctl("list-br").code == Some(0));
    let all = threads(pid);
    assert_eq!((&*all["worker-0"][2], lab.json("show")["sandbox"].as_str()), ("0", Some("off")));
    assert!(lab.ctl("show").ok().contains("sandbox off"));
    lab.ctl("shutdown").ok();
}

#[test]
fn a_switch_that_root_starts_becomes_the_user_that_it_is_given() {
    needs!("ping");
    const USER: &str = "64125";
    let mut lab = Lab::new();
    let directory = lab.path("").display().to_string();
    lab.sh(&format!("chmod 711 {directory}")).ok();
    lab.write(&format!("[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.1/24\"]\n{}", port("a", &address(2))));
    lab.sh(&format!("chmod 600 {}", lab.file().display())).ok();
    let refused = |lab: &Lab, user: &str, said: &str| {
        let outcome = lab.start_refused(&["--user", user]);
        assert!(outcome.code != Some(0) && outcome.stderr.contains(said), "{outcome:?}");
    };
    refused(&lab, "root", "name a user that owns nothing else");
    refused(&lab, "no-such-user", "there is no user of that name");
    // What is kept is given to nobody else without being asked.
    std::fs::create_dir(lab.path("state")).unwrap();
    refused(&lab, USER, &format!("`chown -R {USER}: {directory}state`"));
    std::fs::remove_dir(lab.path("state")).unwrap();
    lab.start_with(&["--user", USER]);
    let own = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        ["Uid:", "Gid:", "Groups:", "CapPrm:", "CapBnd:", "NoNewPrivs:"].map(line)
    };
    let ids = [USER; 4].join("\t");
    let nothing = [&ids, &ids, "", "0000000000000000", "0000000000000000", "1"].map(str::to_owned);
    assert_eq!(own(lab.pid()), nothing);
    assert!(own(lab.broker())[0].starts_with("0\t"), "its broker is root's");
    lab.ctl("add-port br0 b --netns @b --address 10.0.0.3/24").ok();
    lab.run_in("b", "ping -c 1 -W 5 10.0.0.2").ok();
    // The file is root's alone, and is read again; and what is made at run time survives a crash and an upgrade.
    lab.ctl("reload").ok();
    lab.kill();
    lab.start_with(&["--user", USER]);
    lab.run_in("b", "ping -c 1 -W 5 10.0.0.2").ok();
    let program = program("vswitchd").display().to_string();
    let theirs = lab.path("theirs").display().to_string();
    lab.sh(&format!("cp {program} {theirs} && chown {USER} {theirs}")).ok();
    assert!(lab.ctl(&format!("upgrade {theirs}")).stderr.contains("this vswitchd itself may have written it"));
    let before = lab.pid();
    lab.take_over_with(&["--user", USER]).ended();
    assert!(lab.pid() != before && own(lab.pid()) == nothing);
    lab.run_in("b", "ping -c 1 -W 5 10.0.0.2").ok();
    assert!(lab.stop().success());
}

#[test]
fn too_few_threads_are_a_sentence() {
    needs!("prlimit", "setpriv");
    let lab = Lab::new();
    lab.write(BRIDGE);
    lab.sh(&format!("chmod -R a+rX {}", lab.path("").display())).ok();
    // The limit of processes does not hold for root. No other process is this user's.
    let vswitchd = program("vswitchd");
    let copy = lab.path("vswitchd");
    std::fs::copy(vswitchd, &copy).unwrap();
    let line = format!(
        "setpriv --reuid 64123 --regid 64123 --clear-groups prlimit --nproc=2 timeout 60 {} --config {}",
        copy.display(),
        lab.file().display()
    );
    let sentence = lab.sh(&line).refused();
    assert!(sentence.contains("vswitchd needs 7 threads") && sentence.contains("pids.max"), "{sentence}");
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
}

#[test]
fn at_the_limit_of_open_files_a_port_is_refused_whole_and_the_switch_goes_on() {
    needs!("prlimit", "ping");
    let mut lab = Lab::new();
    let place = lab.path("").display().to_string();
    let head = format!("[switch]\ncontrol = \"{place}/control.sock\"\nstate-dir = \"{place}/state\"\nworkers = 2\n");
    lab.write(&format!("{head}{BRIDGE}"));
    start_through(&mut lab, "prlimit --nofile=100:100");
    let add =
        |lab: &Lab, number: u8| lab.ctl(&format!("add-port br0 p{number} --netns @p{number} --address 10.0.0.{number}/24"));
    let refused = (1..20).find_map(|number| {
        let outcome = add(&lab, number);
        (outcome.code != Some(0)).then(|| (number, outcome.refused()))
    });
    let (number, sentence) = refused.unwrap();
    assert!(number > 2 && sentence.contains("raise the limit of open files"), "{number}: {sentence}");
    assert!(!lab.netns().contains(&format!("p{number}")), "{:?}", lab.netns());
    assert!(ping(&lab, "p1", "10.0.0.2"));
    lab.ctl("del-port p2").ok();
    add(&lab, number).ok();
    lab.ctl("shutdown").ok();
    assert_eq!(lab.netns(), ["host"]);
}

#[test]
fn half_open_connections_leave_room_for_vsctl() {
    needs!("prlimit");
    let mut lab = Lab::new();
    lab.write(BRIDGE);
    let pid = start_through(&mut lab, "prlimit --nofile=100:200");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files: Vec<&str> = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!((files[3], files[4]), ("200", "200"), "the soft limit is raised");
    let socket = lab.path("control.sock");
    let half_open: Vec<UnixStream> = (0..400)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            // Some are closed before they have said anything.
            let _ = stream.write_all(b"POST /v1/request HTTP/1.1\r\nhost: x\r\n");
            stream
        })
        .collect();
    for n in 0..5 {
        lab.ctl(&format!("--timeout 20 add-br br{}", n + 1)).ok();
    }
    assert_eq!(lab.json("list-br").as_array().unwrap().len(), 6);
    // Who is slow with his headers is asked to come again.
    let mut last = half_open.last().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = Vec::new();
    let _ = last.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_socket_that_was_removed_is_made_again_on_sighup() {
    needs!();
    let mut lab = Lab::with(BRIDGE);
    let socket = lab.path("control.sock");
    for _ in 0..2 {
        std::fs::remove_file(&socket).unwrap();
        assert!(lab.ctl("list-br").refused().contains("no vswitchd answers"));
        lab.signal(libc::SIGHUP);
        lab.until("it answers again", |lab| lab.ctl("list-br").code == Some(0));
    }
    // What another put there meanwhile stays his.
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "precious").unwrap();
    lab.signal(libc::SIGHUP);
    lab.until("it says so", |lab| lab.log().contains("there is a file that is not a socket"));
    assert!(lab.stop().success());
    assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
}

#[test]
fn the_socket_is_for_the_group_that_the_file_names_and_others_are_told_so() {
    needs!("setpriv");
    let mut lab = Lab::new();
    let place = lab.path("inner").display().to_string();
    let head = format!("[switch]\ncontrol = \"{place}/control.sock\"\nstate-dir = \"{}\"\n", lab.path("state").display());
    lab.write(&format!("{head}control-group = \"no-such-group\"\n{BRIDGE}"));
    assert!(lab.start_refused(&[]).refused().contains("there is no group \"no-such-group\""));
    lab.write(&format!("{head}control-group = \"daemon\"\n{BRIDGE}"));
    lab.start();
    let copy = lab.path("vsctl");
    std::fs::copy(program("vsctl"), &copy).unwrap();
    let ask = |group: &str| {
        let user = format!("setpriv --reuid nobody --regid {group} --clear-groups");
        lab.sh(&format!("{user} {} --control {place}/control.sock list-br", copy.display()))
    };
    lab.sh(&format!("chmod 755 {} && chmod 700 {place}", lab.path("").display())).ok();
    let sentence = ask("daemon").refused();
    assert!(sentence.contains("permission denied") && sentence.contains("its directory is closed to you"), "{sentence}");
    lab.sh(&format!("chmod 755 {place}")).ok();
    ask("daemon").ok();
    let sentence = ask("nogroup").refused();
    assert!(sentence.contains("permission denied") && sentence.contains("usermod -aG daemon"), "{sentence}");
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    // Another group takes a restart.
    lab.write(&format!("{head}{BRIDGE}"));
    let reload = lab.sh(&format!("{} --control {place}/control.sock reload", copy.display()));
    assert!(reload.refused().contains("`control-group`"));
}

#[test]
fn the_log_says_who_changed_what_at_the_level_that_is_set() {
    needs!("setpriv");
    let lab = Lab::with(BRIDGE);
    let said = |words: &str| {
        let before = lab.log().len();
        let mut command = lab.ctl_command();
        let child = command
            .args(words.split_whitespace())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        child.wait().unwrap();
        (lab.log()[before..].to_owned(), format!("uid 0, vsctl ({})", child.id()))
    };
    let (log, who) = said("add-port br0 a");
    assert!(log.contains(&format!("add-port br0 a, asked for by {who}")), "{log}");
    assert_eq!(said("list-ports").0, "", "a question changes nothing");
    let (log, who) = said("del-port b");
    assert!(log.contains(&format!("refused: del-port b, asked for by {who}: there is no port")), "{log}");
    assert!(said("log debug").0.contains("log debug, asked for by"));
    assert!(said("list-ports").0.contains("DEBUG"));
    said("log error");
    assert_eq!(said("add-br br1").0, "");
    assert!(said("log info").0.contains("log info"));
    assert!(said("reload").0.contains("reload, asked for by"));
    assert!(!lab.log().contains('\u{1b}'), "no colours in a file: {:?}", lab.log());
    assert_eq!(lab.ctl("log verbose").code, Some(2));
}

#[test]
fn a_full_disk_keeps_no_switch_from_starting() {
    needs!("ping", "mount");
    let mut lab = Lab::new();
    let state = Mounted::new(&lab, "state");
    lab.write(&format!("{BRIDGE}{}{}", port("a", &address(1)), port("b", &address(2))));
    let (fill, free) = (format!("cat /dev/zero > {}/fill", state.path()), format!("rm {}/fill", state.path()));
    // Nothing was ever kept; then something was.
    for is_first in [true, false] {
        lab.sh(&fill);
        lab.start();
        assert!(ping(&lab, "a", "10.0.0.2"));
        assert!(lab.log().contains("No space left on device") && lab.log().contains("is refused"), "{}", lab.log());
        if !is_first {
            assert!(ping(&lab, "a", "10.0.0.3"), "what was kept is there");
        }
        let before = (lab.json("list-ports"), lab.netns());
        for words in ["add-port br0 d --netns @d", "set-port a --vlan 3", "del-port b", "add-br br1"] {
            let sentence = lab.ctl(words).refused();
            assert!(sentence.contains("state.json: No space left on device") && sentence.contains("`state-dir`"), "{sentence}");
            assert_eq!((lab.json("list-ports"), lab.netns()), before, "{words}");
        }
        lab.ctl("reload").ok();
        lab.sh(&free).ok();
        if is_first {
            lab.ctl("add-port br0 c --netns @c --address 10.0.0.3/24").ok();
        }
        lab.ctl("set-port b --guard on").ok();
        lab.kill();
    }
    lab.start();
    assert!(lab.stop().success());
    assert_eq!(lab.netns(), ["host"]);
}

#[test]
fn a_read_only_disk_keeps_no_switch_from_starting() {
    needs!("ping", "mount");
    let mut lab = Lab::new();
    let disk = Mounted::new(&lab, "disk");
    let file = |state: &str| {
        let directory = lab.path("").display().to_string();
        let head = format!("[switch]\ncontrol = \"{directory}/control.sock\"\nstate-dir = \"{}/{state}\"\n", disk.path());
        lab.write(&format!("{head}{BRIDGE}{}{}", port("a", &address(1)), port("b", &address(2))));
    };
    file("there");
    lab.start();
    lab.ctl("add-br br1").ok();
    assert!(lab.stop().success());
    lab.sh(&format!("mount -o remount,ro {}", disk.path())).ok();
    for (state, bridges) in [("there", 2), ("not/there", 1)] {
        let directory = lab.path("").display().to_string();
        let head = format!("[switch]\ncontrol = \"{directory}/control.sock\"\nstate-dir = \"{}/{state}\"\n", disk.path());
        lab.write(&format!("{head}{BRIDGE}{}{}", port("a", &address(1)), port("b", &address(2))));
        let said = lab.log().len();
        lab.start();
        assert!(lab.log()[said..].contains("Read-only file system"), "{}", lab.log());
        assert!(ping(&lab, "a", "10.0.0.2"));
        assert_eq!(lab.json("list-br").as_array().unwrap().len(), bridges);
        assert!(lab.ctl("add-br br2").refused().contains("Read-only file system"));
        if state == "there" {
            assert!(lab.start_refused(&[]).refused().contains("another vswitchd"));
            assert!(lab.stop().success());
        }
    }
    lab.sh(&format!("mount -o remount,rw {}", disk.path())).ok();
    lab.ctl("add-br br2").ok();
    assert!(lab.stop().success());
    assert_eq!(lab.netns(), ["host"]);
}

#[test]
fn a_damaged_state_costs_the_last_change_and_no_more() {
    needs!();
    let mut lab = Lab::with(BRIDGE);
    lab.ctl("add-br br1").ok();
    lab.ctl("add-br br2").ok();
    assert!(lab.stop().success());
    let state = lab.path("state/state.json");
    std::fs::write(&state, "{\"format\": 1, \"bridges\": {").unwrap();
    lab.start();
    assert!(lab.log().contains("it goes on with the one before, state.json.old"), "{}", lab.log());
    assert_eq!(lab.json("list-br")[1]["name"], "br1");
    assert!(lab.path("state/state.json.damaged").exists());
    let said = lab.log().len();
    assert!(lab.stop().success());
    lab.start();
    assert!(!lab.log()[said..].contains("state.json"), "{}", lab.log());
}

#[test]
fn links_in_the_state_directory_lead_nowhere() {
    needs!();
    let mut lab = Lab::new();
    lab.write(BRIDGE);
    let precious = lab.path("precious");
    std::fs::write(&precious, "precious").unwrap();
    let plant = |owner: &str| {
        let state = lab.path("state").display().to_string();
        let links = ["state.json.new", "state.json.old", "leases.json.new", "lock"]
            .map(|name| format!("ln -s {} {state}/{name}; ", precious.display()));
        lab.sh(&format!("rm -rf {state}; mkdir -m 755 {state}; {} chown -h {owner} {state} {state}/*", links.concat())).ok();
    };
    plant("nobody");
    let sentence = lab.start_refused(&[]).refused();
    assert!(sentence.contains("belongs to user 65534") && sentence.contains("state"), "{sentence}");
    plant("root");
    assert!(lab.start_refused(&[]).refused().contains("lock: it is a symbolic link"));
    lab.sh(&format!("rm {}", lab.path("state/lock").display())).ok();
    lab.start();
    lab.ctl("add-br br1").ok();
    assert!(lab.stop().success());
    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    // A state of somebody else's is none.
    lab.sh(&format!("chown nobody {}", lab.path("state/state.json").display())).ok();
    assert!(lab.start_refused(&[]).refused().contains("state.json: it belongs to user 65534"));
}

#[test]
fn what_no_longer_fits_is_listed_and_can_be_forgotten() {
    needs!();
    let with = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.1/24\"]\nuplink = \"up\"\n[[uplink]]\nname = \"up\"\nkind = \"host\"\n";
    let without = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.1/24\"]\n";
    let lab = Lab::with(&format!("{with}{}", port("f", "")));
    lab.ctl("add-forward up tcp/8080 10.0.0.2:80").ok();
    lab.ctl("add-br br1 --address 10.1.0.1/24 --uplink up").ok();
    lab.ctl("add-br br2").ok();
    lab.ctl("add-port br2 p --netns @p").ok();
    lab.ctl("set-port f --guard on").ok();
    lab.ctl("del-port f").ok();
    let listed = |lab: &Lab| -> Vec<String> {
        let text = |change: &Value, key: &str| change[key].as_str().unwrap().to_owned();
        let row = |change: &Value| {
            let state = if change["in_force"] == true { "in force" } else { "left out" };
            format!("{} {} {} {state}", text(change, "what"), text(change, "name"), text(change, "change"))
        };
        lab.json("changes").as_array().unwrap().iter().map(row).collect()
    };
    let all = [
        "bridge br1 added in force",
        "bridge br2 added in force",
        "port f deleted in force",
        "port p added in force",
        "forward up tcp/8080 added in force",
    ];
    assert_eq!(listed(&lab), all);
    // The file gives f back, and has no place for others.
    lab.write(&format!("{without}{}", port("f", "")));
    for _ in 0..2 {
        let outcome = lab.ctl("reload");
        let notes = (outcome.code, outcome.stderr);
        for command in ["`vsctl del-forward up tcp/8080` forgets it", "`vsctl del-br br1` forgets it"] {
            assert!(notes.0 == Some(0) && notes.1.contains(command), "{command}: {notes:?}");
        }
    }
    let left_out = [
        "bridge br1 added left out",
        "bridge br2 added in force",
        "port p added in force",
        "forward up tcp/8080 added left out",
    ];
    assert_eq!(listed(&lab), left_out);
    let text = lab.ctl("changes").ok();
    assert!(text.contains("WHY") && text.contains("is on uplink \"up\", which does not exist"), "{text}");
    lab.ctl("del-forward up tcp/8080").ok();
    assert!(lab.ctl("del-forward up tcp/8080").refused().contains("there is no forward"));
    assert!(!lab.ctl("reload").stderr.contains("forward"));
    assert!(lab.ctl("changes --forget").ok().contains("br1"));
    let outcome = lab.ctl("reload");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert_eq!(listed(&lab), ["bridge br2 added in force", "port p added in force"], "what is in force stays");
    assert_eq!(lab.json("changes --forget"), Value::Array(Vec::new()));
}

#[test]
fn what_vsctl_says_as_the_file_does_is_no_change() {
    needs!();
    let lab = Lab::with(&format!("{BRIDGE}mtu = 1500\n{}", port("one", "")));
    let nothing = Value::Array(Vec::new());
    lab.ctl("set-br br0 --mtu 1400").ok();
    assert_eq!(lab.json("changes")[0]["change"], "changed");
    lab.ctl("set-br br0 --mtu 1500").ok();
    lab.ctl("set-port one").ok();
    assert_eq!(lab.json("changes"), nothing);
    assert!(!lab.ctl("show").ok().contains("by vsctl"));
    lab.ctl("del-port one").ok();
    lab.ctl(&lab.named("add-port br0 one --netns @one")).ok();
    assert_eq!(lab.json("changes"), nothing, "as the file has it, again");
}

#[test]
fn an_address_that_is_given_no_more_makes_room_for_the_first_one() {
    needs!();
    for kind in ["tap", "veth"] {
        let lab = Lab::with(&format!("{BRIDGE}{}", port("p", &format!("kind = \"{kind}\"\n"))));
        let mac = |lab: &Lab| {
            let text = lab.run_in("p", "ip -o link show eth0").ok();
            text.split_once("link/ether ").unwrap().1[..17].to_owned()
        };
        let shown = |lab: &Lab| lab.json("list-ports")[0]["mac"].as_str().unwrap().to_owned();
        let first = mac(&lab);
        lab.ctl("set-port p --mac 02:00:00:00:12:56").ok();
        assert_eq!((mac(&lab).as_str(), shown(&lab).as_str()), ("02:00:00:00:12:56", "02:00:00:00:12:56"), "{kind}");
        let outcome = lab.ctl("reload");
        assert!(outcome.stderr.contains("is as switch.toml says"), "{outcome:?}");
        assert_eq!((mac(&lab), shown(&lab)), (first.clone(), first), "{kind}");
    }
}
