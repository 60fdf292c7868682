//! Captures, read by tcpdump and tshark.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails its test")]

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vswitch_tests::{BROADCAST, Footprint, Lab, Wire, frame, mac, needs, ping, program, tcp};

const TWO: &str = r#"
[[bridge]]
name = "br0"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.0.0.1/24"]
[[port]]
name = "b"
bridge = "br0"
netns = "@b"
kind = "veth"
addresses = ["10.0.0.2/24"]
vlan = 1
"#;

/// A `vsctl capture` that runs.
struct Capture(Option<Child>);

impl Capture {
    /// Starts it and waits until vswitchd captures.
    #[track_caller]
    fn begin(lab: &Lab, words: &[&str], stdout: Stdio) -> Self {
        let running = |lab: &Lab| lab.json("show")["captures"].as_u64().unwrap();
        let before = running(lab);
        let mut command = lab.ctl_command();
        let child = command.arg("capture").args(words).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let capture = Self(Some(child));
        lab.until("the capture runs", |lab| running(lab) > before);
        // What it does last before it waits for packets is to catch signals.
        let catches = |line: &str| u64::from_str_radix(line.trim(), 16).is_ok_and(|mask| mask >> (libc::SIGTERM - 1) & 1 == 1);
        let ready = || {
            std::fs::read_to_string(&status)
                .unwrap_or_default()
                .lines()
                .any(|line| line.strip_prefix("SigCgt:").is_some_and(catches))
        };
        lab.until("it can be interrupted", |_| ready());
        capture
    }

    fn signal(&self, signal: i32) {
        let pid = self.0.as_ref().unwrap().id().cast_signed();
        // SAFETY: the process is a child that was not waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Waits for its end, which must be a good one, and returns the packets captured and missed that it names.
    #[track_caller]
    fn ended(mut self) -> (u64, u64) {
        let mut child = self.0.take().unwrap();
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the capture does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let (first, last) = said.trim_end().split_once('\n').unwrap();
        assert!(
            first.starts_with("capturing ") && first.contains("Ctrl-C"),
            "it says what it does, and how to stop it: {said}"
        );
        assert_eq!(last.lines().count(), 1, "{said}");
        let numbers: Vec<u64> = last.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[1])
    }

    /// Ctrl-C.
    #[track_caller]
    fn end(self) -> (u64, u64) {
        self.signal(libc::SIGINT);
        self.ended()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What tshark says of each packet of a file that takes `filter`: the fields, separated by tabs. It complains about a file that
/// is cut short or otherwise wrong.
#[track_caller]
fn tshark(lab: &Lab, file: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let fields: String = fields.iter().map(|field| format!(" -e {field}")).collect();
    let outcome = lab.sh(&format!(
        "tshark -n -r {} -Y '{filter}' -T fields{fields} 2>&1 >/dev/stdout | grep -v 'Running as user'",
        file.display()
    ));
    assert!(!outcome.stdout.contains("tshark:"), "{}", outcome.stdout);
    outcome.stdout.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// How many packets tcpdump finds in a file. What it does not know it shows in further lines, which begin with a tab.
#[track_caller]
fn tcpdump(lab: &Lab, file: &Path, filter: &str) -> usize {
    let text = lab.sh(&format!("tcpdump -nr {} '{filter}' 2>{}", file.display(), lab.path("tcpdump.log").display())).ok();
    text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())).count()
}

#[test]
fn a_file_has_names_directions_times_and_reasons() {
    needs!("ping", "tcpdump", "tshark");
    let lab = Lab::with(TWO);
    let wire = Wire::open(&lab, "b");
    assert!(ping(&lab, "a", "10.0.0.2"));
    let file = lab.path("all.pcapng");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let began = now();
    let capture = Capture::begin(&lab, &["-w", &file.to_string_lossy()], Stdio::null());
    lab.run_in("a", "ping -n -c 5 -i 0.05 -W 2 10.0.0.2").ok();
    // An access port takes no tags.
    wire.send(&frame(BROADCAST, mac(1), &[0x81, 0, 0, 1, 0x88, 0xb6], &[]));
    lab.until("it is dropped", |lab| lab.json("stats b")[0]["rx_drops"]["vlan_not_allowed"] == 1);
    let (captured, missed) = capture.end();
    let ended = now();
    assert_eq!(missed, 0);
    assert_eq!(lab.json("show")["captures"], 0);
    let fields = [
        "frame.interface_name",
        "frame.interface_description",
        "frame.packet_flags_direction",
        "frame.time_epoch",
        "frame.comment",
    ];
    let rows = tshark(&lab, &file, "icmp", &fields);
    let shape: Vec<[&str; 3]> = rows.iter().map(|row| [&*row[0], &*row[2], &*row[4]]).collect();
    let (echo, answer) = (["a", "b"], ["b", "a"]);
    for (row, [from, to]) in shape.iter().zip([echo, answer].repeat(5)) {
        let said = format!(" at=ingress in={from} out={to} vlan=1");
        assert!(row[..2] == [from, "0x00000001"] && row[2].starts_with("id=") && row[2].ends_with(&said), "{row:?}");
    }
    assert_eq!(shape.len(), 10, "each echo and each answer is there once, where it came in");
    assert!(rows.iter().all(|row| row[1].contains("eth0 in netns")), "{rows:?}");
    let times: Vec<f64> = rows.iter().map(|row| row[3].parse().unwrap()).collect();
    assert!(times.is_sorted() && times.iter().all(|time| (began..ended).contains(time)), "{began} {times:?} {ended}");
    assert!(rows.iter().all(|row| row[3].split('.').next_back().unwrap().len() == 9), "nanoseconds: {rows:?}");
    assert!(rows.iter().any(|row| !row[3].ends_with("000")), "{rows:?}");
    let dropped = tshark(
        &lab,
        &file,
        "eth.src == 02:54:00:00:00:01",
        &["frame.interface_name", "frame.packet_flags_direction", "frame.comment"],
    );
    assert_eq!(dropped.len(), 1);
    assert_eq!(dropped[0][..2], ["b", "0x00000001"]);
    assert!(dropped[0][2].ends_with(" at=ingress in=b drop=vlan-not-allowed"), "{dropped:?}");
    // The kernel's timestamps would be the same to a ping: both answers are there, and nothing is doubled.
    let all = tshark(&lab, &file, "", &["frame.number"]).len();
    assert_eq!((all as u64, tcpdump(&lab, &file, "")), (captured, all));
    assert_eq!(tcpdump(&lab, &file, "icmp"), 10);
}

#[test]
fn stdout_feeds_tcpdump_while_it_runs() {
    needs!("ping", "tcpdump");
    let mut lab = Lab::with(TWO);
    assert!(ping(&lab, "a", "10.0.0.2"));
    lab.spawn_in("a", "ping -n -i 0.05 10.0.0.2");
    let vsctl = format!("{} --control {}", program("vsctl").display(), lab.path("control.sock").display());
    let text = lab.sh(&format!("{vsctl} capture -w - --filter icmp --count 12 2>/dev/null | tcpdump -nr - 2>/dev/null")).ok();
    assert_eq!(text.lines().filter(|line| line.contains("ICMP echo")).count(), 12, "{text}");
    // tcpdump itself may be what has seen enough.
    let text = lab.sh(&format!("{vsctl} capture -w - | tcpdump -c 3 -nr - icmp 2>/dev/null")).ok();
    assert_eq!(text.lines().count(), 3, "{text}");
    // Without -w it shows them, each with its port and way.
    let outcome = lab.sh(&format!("{vsctl} capture --port a --filter icmp --count 4"));
    assert_eq!((outcome.code, outcome.stdout.matches("ICMP echo").count()), (Some(0), 4), "{outcome:?}");
    let ways = [" a in  vlan 1 IP 10.0.0.1 > 10.0.0.2: ", " a out vlan 1 IP 10.0.0.2 > 10.0.0.1: "];
    assert!(ways.iter().all(|way| outcome.stdout.matches(way).count() == 2), "{outcome:?}");
    assert!(outcome.stderr.contains("4 packets captured"), "{outcome:?}");
    lab.until("all captures are over", |lab| lab.json("show")["captures"] == 0);
}

#[test]
fn filters_take_what_tcpdump_would_take() {
    needs!("ping", "tcpdump", "tshark");
    let mut lab = Lab::new();
    // Stacks that say nothing by themselves: the captures do not begin and end together.
    for name in ["a", "b", "c"] {
        lab.add_netns(name);
        lab.run_in(name, "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6").ok();
    }
    lab.write(&format!("{TWO}[[port]]\nname = \"c\"\nbridge = \"br0\"\nnetns = \"@c\"\n"));
    lab.start();
    let (a, c) = (Wire::open(&lab, "a"), Wire::open(&lab, "c"));
    let everything = lab.path("everything.pcapng");
    let filters = [
        "",
        "icmp",
        "arp or tcp",
        "vlan 10",
        "vlan and ip",
        "ether src 02:54:00:00:00:05",
        "len > 1000",
        "ip[8] = 64 and not icmp",
        "ether[12:2] = 0x88b6",
    ];
    let at = ["--at", "ingress,egress,drop"];
    let all = Capture::begin(&lab, &[&at[..], &["-w", &everything.to_string_lossy()]].concat(), Stdio::null());
    let captures: Vec<Capture> = filters
        .iter()
        .enumerate()
        .map(|(n, filter)| {
            let file = lab.path(&format!("{n}.pcapng"));
            Capture::begin(&lab, &["--port", "a", "--filter", filter, "-w", &file.to_string_lossy()], Stdio::null())
        })
        .collect();
    let ip = |length: u8| [&[0x08, 0, 0x45, 0, 0, length, 0, 0, 0, 0, 64, 17, 0, 0][..], &[10, 0, 0, 1, 10, 0, 0, 9]].concat();
    let tagged = |inner: &[u8]| [&[0x81, 0, 0x60, 10][..], inner].concat();
    for kind in [vec![0x88, 0xb6], ip(28), tagged(&[0x88, 0xb6]), tagged(&ip(28))] {
        for size in [20, 1400] {
            a.send(&frame(BROADCAST, mac(5), &kind, &vec![0; size]));
            c.send(&frame(BROADCAST, mac(6), &kind, &vec![0; size]));
        }
    }
    lab.run_in("a", "ping -n -c 3 -i 0.05 -W 2 10.0.0.2").ok();
    c.send(&frame(BROADCAST, mac(6), &[0x88, 0xb6], b"last"));
    let last = |lab: &Lab| lab.json("stats a")[0]["tx_frames"].as_u64().unwrap();
    let before = last(&lab);
    lab.until("it is quiet", |lab| last(lab) == before);
    let counts: Vec<(u64, u64)> = captures.into_iter().map(Capture::end).collect();
    all.end();
    // What port a saw, as tcpdump takes it out of the capture of everything.
    let of_a = lab.path("a.pcapng");
    lab.sh(&format!("tshark -n -r {} -Y 'frame.interface_name == \"a\"' -w {}", everything.display(), of_a.display())).ok();
    for (n, filter) in filters.iter().enumerate() {
        let taken = tcpdump(&lab, &of_a, filter);
        assert_eq!((counts[n], tcpdump(&lab, &lab.path(&format!("{n}.pcapng")), "")), ((taken as u64, 0), taken), "{filter}");
        assert!(taken > 0, "{filter} is tested by nothing");
    }
}

#[test]
fn a_capture_ends_when_it_was_told_to() {
    needs!("ping", "tcpdump", "tshark");
    let mut lab = Lab::with(TWO);
    assert!(ping(&lab, "a", "10.0.0.2"));
    lab.spawn_in("a", "ping -n -q -f 10.0.0.2");
    let directory = lab.path("");
    let path = |name: &str| directory.join(name);
    let words = |name: &str| path(name).to_string_lossy().into_owned();
    // After its count, to the packet.
    for count in ["1", "7", "1000"] {
        let outcome = lab.ctl(&format!("capture --count {count} -w {}", words(count)));
        assert!(outcome.code == Some(0) && outcome.stderr.contains(&format!("\n{count} packets")), "{outcome:?}");
        assert_eq!(tshark(&lab, &path(count), "", &["frame.number"]).len(), count.parse::<usize>().unwrap());
    }
    // After its time.
    let begun = Instant::now();
    lab.ctl(&format!("capture --seconds 1 -w {}", words("seconds"))).ok();
    assert!((0.9..8.0).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
    assert!(!tshark(&lab, &path("seconds"), "", &["frame.number"]).is_empty());
    // Also when nothing comes.
    assert!(lab.ctl(&format!("capture --seconds 1 --filter udp -w {}", words("nothing"))).code == Some(0));
    assert_eq!(tshark(&lab, &path("nothing"), "", &["frame.number"]).len(), 0);
    // At Ctrl-C or SIGTERM, with a file that is whole.
    for (name, signal) in [("INT", libc::SIGINT), ("TERM", libc::SIGTERM)] {
        let capture = Capture::begin(&lab, &["-w", &words(name)], Stdio::null());
        std::thread::sleep(Duration::from_millis(300));
        capture.signal(signal);
        let (captured, missed) = capture.ended();
        let rows = tshark(&lab, &path(name), "", &["frame.number"]);
        assert!(
            captured > 0 && rows.len() as u64 == captured,
            "{name}: {captured} and {missed} missed, {} in the file",
            rows.len()
        );
    }
    // With its vsctl, however that ends.
    let capture = Capture::begin(&lab, &["-w", &words("killed")], Stdio::null());
    lab.until("it has written something", |_| std::fs::metadata(path("killed")).is_ok_and(|file| file.len() > 10_000));
    drop(capture);
    lab.until("vswitchd has noticed", |lab| lab.json("show")["captures"] == 0);
    // A write that the kill interrupts leaves half a block; what is before it can be read.
    let text = lab.sh(&format!("tcpdump -nr {} icmp", path("killed").display())).stdout;
    assert!(text.lines().count() > 50, "{text}");
    // With its vswitchd.
    let capture = Capture::begin(&lab, &["-w", &words("ended")], Stdio::null());
    std::thread::sleep(Duration::from_millis(300));
    assert!(lab.stop().success());
    let (captured, _) = capture.ended();
    assert_eq!(tshark(&lab, &path("ended"), "", &["frame.number"]).len() as u64, captured);
}

#[test]
fn only_the_ports_that_were_named_are_captured() {
    needs!("ping", "tshark");
    let lab =
        Lab::with(&format!("{TWO}[[port]]\nname = \"c\"\nbridge = \"br0\"\nnetns = \"@c\"\naddresses = [\"10.0.0.3/24\"]\n"));
    assert!(ping(&lab, "a", "10.0.0.2"));
    let files = ["a", "ac", "all"].map(|name| lab.path(&format!("{name}.pcapng")));
    let words = files.each_ref().map(|file| file.to_string_lossy().into_owned());
    let captures = [
        Capture::begin(&lab, &["--port", "a", "-w", &words[0]], Stdio::null()),
        Capture::begin(&lab, &["--port", "a", "--port", "c", "-w", &words[1]], Stdio::null()),
        Capture::begin(&lab, &["-w", &words[2]], Stdio::null()),
    ];
    for (from, to) in [("a", "10.0.0.2"), ("a", "10.0.0.3"), ("c", "10.0.0.2")] {
        lab.run_in(from, &format!("ping -n -c 1 -W 2 {to}")).ok();
    }
    for capture in captures {
        capture.end();
    }
    let seen = |file: &Path| {
        let rows = tshark(&lab, file, "icmp", &["frame.interface_name"]);
        let names: BTreeSet<String> = rows.iter().map(|row| row[0].clone()).collect();
        (rows.len(), names.into_iter().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(seen(&files[0]), (4, "a".to_owned()));
    assert_eq!(seen(&files[1]), (6, "a c".to_owned()), "what goes from a to c and back is there once");
    assert_eq!(seen(&files[2]), (6, "a b c".to_owned()));
}

#[test]
fn ports_come_and_go_while_a_capture_runs() {
    needs!("ping", "tshark");
    let lab = Lab::with(TWO);
    let (all, one) = (lab.path("all.pcapng"), lab.path("one.pcapng"));
    let captures = [
        Capture::begin(&lab, &["--filter", "icmp", "-w", &all.to_string_lossy()], Stdio::null()),
        Capture::begin(&lab, &["--port", "b", "--filter", "icmp", "-w", &one.to_string_lossy()], Stdio::null()),
    ];
    assert!(ping(&lab, "a", "10.0.0.2"));
    lab.ctl("del-port b").ok();
    // The same number, another port.
    lab.ctl("add-port br0 c --netns @c --address 10.0.0.3/24").ok();
    assert!(ping(&lab, "a", "10.0.0.3"));
    lab.ctl("add-port br0 b --netns @b --address 10.0.0.2/24").ok();
    lab.until("it is back", |lab| ping(lab, "c", "10.0.0.2"));
    let [(all_count, _), (_, _)] = captures.map(Capture::end);
    let rows = tshark(&lab, &all, "", &["frame.interface_name", "ip.src", "ip.dst"]);
    assert_eq!(rows.len() as u64, all_count);
    for (port, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
        let own = |row: &&Vec<String>| row[0] == port;
        assert!(rows.iter().any(|row| own(&row)), "{port} is in {rows:?}");
        assert!(rows.iter().filter(own).all(|row| row[1] == address || row[2] == address), "{port}: {rows:?}");
    }
    let rows = tshark(&lab, &one, "", &["frame.interface_name", "ip.src", "ip.dst"]);
    assert!(!rows.is_empty() && rows.iter().all(|row| row[0] == "b" && row[1..].contains(&"10.0.0.2".to_owned())), "{rows:?}");
    assert!(ping(&lab, "a", "10.0.0.2"));
}

#[test]
fn a_slow_reader_slows_nothing_and_is_told_what_it_missed() {
    needs!("ping", "iperf3", "tshark");
    let lab = Lab::with(TWO);
    assert!(ping(&lab, "a", "10.0.0.2"));
    let free = tcp(&lab, "a", "b", "10.0.0.2", "-n 256M").bits;
    let memory = || Footprint::of(&lab).memory;
    let before = memory();
    let mut capture = Capture::begin(&lab, &["-w", "-"], Stdio::piped());
    let watched = tcp(&lab, "a", "b", "10.0.0.2", "-n 512M").bits;
    eprintln!("{:.0} Mbit/s, with a capture that nobody reads {:.0} Mbit/s", free / 1e6, watched / 1e6);
    // The first megabytes were copied; from then on a frame costs the filter and a count.
    assert!(watched > free / 3.0, "{free} became {watched}");
    assert!(memory() < before + 64 * 1024, "{before} kB became {} kB", memory());
    assert!(ping(&lab, "b", "10.0.0.1"), "and nothing is lost");
    // Now it is read, to its end.
    let mut stdout = capture.0.as_mut().unwrap().stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let (captured, missed) = capture.end();
    let file = lab.path("slow.pcapng");
    std::fs::write(&file, reader.join().unwrap()).unwrap();
    assert!(missed > 1000, "{captured} captured, {missed} missed");
    assert_eq!(tshark(&lab, &file, "", &["frame.number"]).len() as u64, captured);
    let stats = lab.json("stats");
    let frames = |port: usize| stats[port]["rx_frames"].as_u64().unwrap() + stats[port]["tx_frames"].as_u64().unwrap();
    assert!(captured + missed <= frames(0) + frames(1), "{captured} + {missed} of {}", frames(0) + frames(1));
}

#[test]
fn checksums_are_those_of_the_wire() {
    needs!("ping", "iperf3", "tshark");
    let lab = Lab::with(TWO);
    let file = lab.path("tcp.pcapng");
    let capture = Capture::begin(&lab, &["-w", &file.to_string_lossy()], Stdio::null());
    assert!(tcp(&lab, "a", "b", "10.0.0.2", "-n 1M").bits > 0.0);
    capture.end();
    let fields = ["frame.len", "tcp.checksum.status", "frame.comment"];
    let lines = lab.sh(&format!(
        "tshark -n -o tcp.check_checksum:TRUE -r {} -Y tcp -T fields{} 2>/dev/null",
        file.display(),
        fields.map(|field| format!(" -e {field}")).concat()
    ));
    let rows: Vec<Vec<String>> = lines.ok().lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    assert!(rows.len() > 20, "{rows:?}");
    // 0 is bad. Of a super-frame, the comment says that its checksum is still to come.
    let wrong: Vec<&Vec<String>> = rows.iter().filter(|row| row[1] == "0" && row[2].is_empty()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(rows.iter().any(|row| row[1] == "1"), "{rows:?}");
}

#[test]
fn what_cannot_be_captured_is_one_sentence() {
    needs!();
    let lab = Lab::with(TWO);
    let directory = lab.path("").display().to_string();
    for (words, parts) in [
        (vec!["--filter", "tcp prot 80", "-w", "-"], &["\"tcp prot 80\" is not a filter", "syntax error"][..]),
        (vec!["--filter", "inner(tcp prot 80)", "-w", "-"], &["at column 11, \"prot\""]),
        (vec!["--filter", "vni x", "-w", "-"], &["vni 42", "at column 5, \"x\""]),
        (vec!["--filter", "host nowhere.invalid.", "-w", "-"], &["is not a filter", "nowhere.invalid"]),
        (vec!["--port", "nobody", "-w", "-"], &["no port \"nobody\"", "a, b"]),
        (vec!["-w", "/nowhere/file"], &["/nowhere/file"]),
        (vec!["-w", &directory], &[&directory]),
        (vec!["--count", "x"], &["x"]),
        (vec!["--seconds", "-1"], &["-1"]),
    ] {
        let output = lab.ctl_command().arg("capture").args(&words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)) && output.stdout.is_empty(), "{words:?}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{words:?}: {said}");
        assert!(output.status.code() == Some(2) || said.lines().count() == 1, "{words:?}: {said}");
    }
    lab.until("none of them is left", |lab| lab.json("show")["captures"] == 0);
    // Sixteen at a time, and no more.
    let captures: Vec<Capture> = (0..16).map(|_| Capture::begin(&lab, &["-w", "/dev/null"], Stdio::null())).collect();
    let sentence = lab.ctl("capture -w /dev/null").refused();
    assert!(sentence.contains("16 captures run already"), "{sentence}");
    drop(captures);
    lab.until("all are over", |lab| lab.json("show")["captures"] == 0);
    assert_eq!(lab.ctl("capture --seconds 1 -w /dev/null").code, Some(0));
}

#[test]
fn the_recorder_has_what_was_before() {
    needs!("ping", "tshark", "curl");
    let lab = Lab::with(&format!("[capture]\nrecorder = \"4MiB\"\n[web]\nlisten = \"127.0.0.1:8080\"\n{TWO}"));
    let wire = Wire::open(&lab, "b");
    lab.run_in("a", "ping -n -c 5 -i 0.05 -W 2 10.0.0.2").ok();
    // A burst of drops writes itself down.
    let tagged = frame(BROADCAST, mac(1), &[0x81, 0, 0, 1, 0x88, 0xb6], &[]);
    (0..600).for_each(|_| wire.send(&tagged));
    let file = lab.path("before.pcapng");
    let said = lab.ctl(&format!("capture --last 60s --filter icmp -w {}", file.display()));
    assert!(said.code == Some(0) && said.stderr.starts_with("10 packets captured, 0 missed"), "{said:?}");
    let rows = tshark(&lab, &file, "", &["frame.interface_name", "frame.comment"]);
    assert!(rows.len() == 10 && rows.iter().all(|row| row[1].contains(" at=ingress in=")), "{rows:?}");
    lab.ctl(&format!("capture --last 60s --dropped --port b --count 3 -w {}", file.display())).ok();
    assert!(tshark(&lab, &file, "", &["frame.comment"]).iter().all(|row| row[0].ends_with("drop=vlan-not-allowed")));
    let page = lab.run_in("host", "curl -sS -m 5 localhost:8080/api/last-drops").ok();
    let drops: Vec<serde_json::Value> = serde_json::from_str(&page).unwrap();
    let words =
        drops.iter().map(|row| [&row["port"], &row["came_in"], &row["reason"], &row["frame"]].map(|cell| cell.to_string()));
    let expected = ["\"b\"", "\"b\"", "\"vlan-not-allowed\""];
    assert!(drops.len() == 100 && words.clone().all(|row| row[..3] == expected && row[3].contains("vlan 1")), "{page}");
    assert!(drops.is_sorted_by(|one, next| one["time"].as_str() >= next["time"].as_str()), "the newest first");
    lab.until("the burst is written down", |lab| {
        let folder = std::fs::read_dir(lab.path("state/recordings")).into_iter().flatten().flatten();
        folder.into_iter().any(|file| file.file_name().to_string_lossy().ends_with("-drop-burst.pcapng"))
    });
}

#[test]
fn the_recorder_knows_whose_a_slot_was() {
    needs!("ping", "tshark", "curl");
    let lab = Lab::with(&format!("[capture]\nrecorder = \"4MiB\"\n[web]\nlisten = \"127.0.0.1:8080\"\n{TWO}"));
    lab.ctl("add-port br0 oldp --netns @o --address 10.0.0.3/24 --vlan 1").ok();
    lab.run_in("o", "ping -n -c 2 -i 0.05 -W 2 10.0.0.2").ok();
    let wire = Wire::open(&lab, "o");
    wire.send(&frame(BROADCAST, mac(1), &[0x81, 0, 0, 1, 0x88, 0xb6], &[]));
    drop(wire);
    lab.ctl("del-port oldp").ok();
    let file = lab.path("before.pcapng");
    let recall = |options: &str| {
        lab.ctl(&format!("capture --last 60s --filter icmp {options} -w {}", file.display())).ok();
        tshark(&lab, &file, "", &["frame.interface_name", "frame.comment"])
    };
    let senders = |rows: &[Vec<String>]| rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    assert_eq!(senders(&recall("")), ["oldp", "b", "oldp", "b"]);
    lab.ctl("add-br br1").ok();
    lab.ctl("add-port br1 newp --netns @n --address 10.0.1.3/24").ok();
    let rows = recall("--port oldp");
    assert_eq!(senders(&rows), ["oldp", "b", "oldp", "b"]);
    assert!(rows.iter().filter(|row| row[0] == "b").all(|row| row[1].contains("out=oldp")), "{rows:?}");
    assert!(recall("--port newp").is_empty());
    let sentence = lab.ctl("capture --last 60s --port ghost -w /dev/null").refused();
    assert!(sentence.contains("there is no port \"ghost\""), "{sentence}");
    let drops = lab.run_in("host", "curl -sS -m 5 localhost:8080/api/last-drops").ok();
    assert!(drops.contains("\"port\":\"oldp\",\"came_in\":\"oldp\",\"reason\":\"vlan-not-allowed\""), "{drops}");
}

#[test]
fn without_a_recorder_nothing_is_recalled() {
    needs!();
    let lab = Lab::with(TWO);
    let sentence = lab.ctl("capture --last 10s -w /dev/null").refused();
    assert!(sentence.contains("the flight recorder is off") && sentence.contains("recorder = \"64MiB\""), "{sentence}");
}

/// An ordinary user who has installed what Wireshark needs, for root's Wireshark reads none of it: what to type before a command.
#[track_caller]
fn wireshark_user(lab: &Lab) -> String {
    let place = |name: &str| lab.path(name).display().to_string();
    let (home, vsctl, socket) = (place("home"), place("vsctl"), place("control.sock"));
    lab.sh(&format!("mkdir {home} && chown 65534 {home} && chmod 755 {} && chmod 666 {socket}", place(""))).ok();
    lab.sh(&format!("cp {} {vsctl} && chmod 755 {vsctl}", program("vsctl").display())).ok();
    let user = format!("setpriv --reuid=65534 --regid=65534 --clear-groups env HOME={home} TMPDIR={home}");
    lab.sh(&format!("{user} {vsctl} --control {socket} extcap install")).ok();
    user
}

#[test]
fn wireshark_lists_the_ports_and_captures_as_an_ordinary_user() {
    needs!("ping", "tshark", "setpriv");
    let mut lab = Lab::with(TWO);
    assert!(ping(&lab, "a", "10.0.0.2"));
    lab.spawn_in("a", "ping -n -q -i 0.1 10.0.0.2");
    let user = wireshark_user(&lab);
    let interfaces = lab.sh(&format!("{user} tshark -D")).ok();
    assert!(
        ["vswitch-all (vswitch: all ports)", "vswitch-port-a", "vswitch-port-b"].iter().all(|name| interfaces.contains(name))
    );
    let fields = "-T fields -e frame.interface_name -e vswitch.in -e vswitch.out -e vswitch.vlan";
    let shown = lab
        .sh(&format!("timeout 20 {user} tshark -i vswitch-all -f icmp -Y 'vswitch.in == \"a\"' -c 3 {fields} 2>/dev/null"))
        .ok();
    assert!(shown.lines().count() >= 2 && shown.lines().all(|line| line == "a\ta\tb\t1"), "{shown}");
    let wrong = lab.sh(&format!("timeout 20 {user} tshark -i vswitch-all -f 'tcp prot 80' -c 1 2>&1"));
    assert!(wrong.stdout.contains("at column 5, \"prot\""), "{wrong:?}");
    lab.until("no capture is left", |lab| lab.json("show")["captures"] == 0);
}

#[test]
fn a_bridged_transfer_looks_whole_to_wireshark() {
    needs!("ping", "iperf3", "tshark");
    let lab = Lab::with(TWO);
    assert!(ping(&lab, "a", "10.0.0.2"));
    let file = lab.path("transfer.pcapng");
    // What stations really repeat, as where one of them had to wait for the processor, is flagged rightly.
    let repeated = || -> u64 {
        let of = |station| {
            lab.run_in(station, "grep '^Tcp: [0-9]' /proc/net/snmp | cut -d ' ' -f 13").ok().trim().parse::<u64>().unwrap()
        };
        of("a") + of("b")
    };
    let transfers = (0..5).any(|_| {
        let before = repeated();
        let words = ["--filter", "tcp", "--snaplen", "128", "-w", &file.to_string_lossy()];
        let capture = Capture::begin(&lab, &words, Stdio::null());
        tcp(&lab, "a", "b", "10.0.0.2", "-n 16M");
        let (captured, missed) = capture.end();
        assert!(captured > 100 && missed == 0, "{captured} captured, {missed} missed");
        repeated() == before
    });
    assert!(transfers, "no transfer of five went without repetition");
    let ports = tshark(&lab, &file, "tcp.len > 0", &["frame.interface_name"]);
    assert!(["a", "b"].iter().all(|port| ports.iter().any(|row| row[0] == *port)), "both ways are there");
    // A window that is full, and opens again, is the receiver's, which had to wait for the processor.
    let windows = ["window_full", "window_update", "zero_window"].map(|name| format!(" && !tcp.analysis.{name}")).concat();
    let flagged = tshark(&lab, &file, &format!("tcp.analysis.flags{windows}"), &["frame.number", "_ws.col.Info"]);
    assert!(flagged.is_empty(), "{flagged:?}");
}

#[test]
fn wireshark_finds_the_drops_that_are_counted() {
    needs!("ping", "tshark", "setpriv");
    let lab = Lab::with(&TWO.replacen("addresses", "guard = true\naddresses", 1));
    assert!(ping(&lab, "a", "10.0.0.2"));
    let file = lab.path("drops.pcapng");
    let capture = Capture::begin(&lab, &["-w", &file.to_string_lossy()], Stdio::null());
    let wire = Wire::open(&lab, "b");
    // An access port takes no tags.
    (0..3).for_each(|_| wire.send(&frame(BROADCAST, mac(1), &[0x81, 0, 0, 1, 0x88, 0xb6], &[])));
    lab.run_in("a", "ip address add 10.0.0.77/24 dev eth0").ok();
    lab.run_in("a", "ping -n -c 7 -i 0.05 -W 1 -I 10.0.0.77 10.0.0.2");
    lab.run_in("a", "ping -n -c 2 -i 0.05 -W 1 -I 10.0.0.1 10.0.0.2").ok();
    capture.end();
    let counted = |port: usize, reason: &str| lab.json("stats")[port]["rx_drops"][reason].as_u64().unwrap();
    let user = wireshark_user(&lab);
    for (filter, count) in [("guard-ip", counted(0, "guard_ip")), ("vlan-not-allowed", counted(1, "vlan_not_allowed"))] {
        let line = format!(
            "{user} tshark -n -r {} -Y 'vswitch.drop == \"{filter}\"' -T fields -e vswitch.in -e ip.src",
            file.display()
        );
        let rows = lab.sh(&format!("{line} 2>/dev/null")).ok();
        let wanted = if filter == "guard-ip" { "a\t10.0.0.77" } else { "b\t" };
        assert!(count >= 3 && rows.lines().count() as u64 == count, "{count} of {filter}: {rows}");
        assert!(rows.lines().all(|row| row.trim_end() == wanted.trim_end()), "{rows}");
    }
}

#[test]
fn a_filter_sees_into_tunnels_and_says_where_it_is_blind() {
    needs!("tshark");
    let lab = Lab::with(&format!("{TWO}[[port]]\nname = \"t\"\nbridge = \"br0\"\nnetns = \"@t\"\ntrunk = \"10,20\"\n"));
    let wire = Wire::open(&lab, "a");
    let file = lab.path("inner.pcapng");
    let filter = "vni 42 and inner(arp or ether proto 0x88b6) and not inner(ip)";
    let capture = Capture::begin(&lab, &["--filter", "vni 42", "-w", "/dev/null"], Stdio::null());
    let words = ["--port", "a", "--filter", filter, "--count", "2", "-w", &file.to_string_lossy()];
    let other = Capture::begin(&lab, &words, Stdio::null());
    // The VXLAN of a station of its own, from 10.0.0.1 to 10.0.0.2.
    let carried = |vni: u8, kind: [u8; 2]| {
        let inner = frame(BROADCAST, mac(9), &kind, &[0; 46]);
        let udp = [&[0x30, 0, 0x12, 0xb5, 0, 16 + 60, 0, 0, 8, 0, 0, 0, 0, 0, vni, 0][..], &inner].concat();
        let ip = [0x45, 0, 0, 96, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        wire.send(&frame(BROADCAST, mac(5), &[0x08, 0], &[&ip[..], &udp].concat()));
    };
    for (vni, kind) in [(43, [8, 6]), (42, [8, 6]), (42, [8, 0]), (42, [0x88, 0xb6])] {
        carried(vni, kind);
    }
    assert_eq!(other.ended().0, 2);
    assert_eq!(capture.end().0, 3);
    let rows = tshark(&lab, &file, "", &["vxlan.vni", "eth.type"]);
    assert_eq!(rows, [["42", "0x0800,0x0806"], ["42", "0x0800,0x88b6"]]);
    for words in ["watch --filter arp --timeout 100ms", "capture --filter arp --seconds 1 -w /dev/null"] {
        let said = lab.ctl(words).stderr;
        assert!(said.contains("port t is a trunk") && said.contains("'(arp) or (vlan and (arp))'"), "{words}: {said}");
    }
    assert!(!lab.ctl("watch --filter inner(arp) --timeout 100ms").stderr.contains("trunk"));
}

#[test]
fn a_watched_frame_has_its_steps_below_it() {
    let lab = Lab::with(&format!("{TWO}[[port]]\nname = \"c\"\nbridge = \"br0\"\nnetns = \"@c\"\nguard = true\n"));
    let wire = Wire::open(&lab, "c");
    let foreign = frame(BROADCAST, mac(5), &[0x88, 0xb6], &[0; 46]);
    let watched = |more: &[&str]| {
        let words = ["watch", "--steps", "--reason", "guard-mac", "--port", "c", "--first", "1", "--timeout", "20s"];
        let mut watch = lab.ctl_command().args(words).args(more).stdout(Stdio::piped()).spawn().unwrap();
        // It begins some time after its program did.
        let mut sent = 0;
        while watch.try_wait().unwrap().is_none() && sent < 400 {
            wire.send(&foreign);
            std::thread::sleep(Duration::from_millis(50));
            sent += 1;
        }
        String::from_utf8(watch.wait_with_output().unwrap().stdout).unwrap()
    };
    let text = watched(&[]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("c dropped: guard-mac: "), "{text}");
    assert!(lines.len() > 1 && lines[1..].iter().all(|line| line.starts_with("  ")), "{text}");
    assert!(lines[1].starts_with("  1  ") && text.contains("guard"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&watched(&["--json"])).unwrap();
    assert_eq!((&json["verdict"], &json["drop_reason"]), (&"dropped".into(), &"guard_mac".into()));
    let steps = json["steps"].as_array().unwrap();
    assert_eq!(steps.last().unwrap()["step"], "dropped", "{json}");
}

#[test]
fn a_watched_super_frame_is_traced_as_what_travels() {
    needs!("iperf3", "ping");
    // The port of c takes no super-frames.
    let third = "[[port]]\nname = \"c\"\nbridge = \"br0\"\nnetns = \"@c\"\naddresses = [\"10.0.0.3/24\"]\noffload = false\n";
    let mut lab = Lab::with(&format!("{TWO}{third}"));
    for (netns, address) in [("b", "10.0.0.2"), ("c", "10.0.0.3")] {
        lab.spawn_in(netns, "iperf3 -s");
        lab.until("iperf3 listens", |lab| !lab.run_in(netns, "ss -Hltn sport = :5201").ok().is_empty());
        assert!(ping(&lab, "a", address));
        lab.spawn_in("a", &format!("iperf3 -c {address} -b 100M -t 60"));
    }
    let filter = |address: &str| format!("src host 10.0.0.1 and dst host {address} and greater 9000");
    let watched = |address: &str, more: &[&str]| {
        let words = ["watch", "--steps", "--port", "a", "--first", "1", "--timeout", "30s", "--filter"];
        let watch = lab.ctl_command().args(words).arg(filter(address)).args(more).output().unwrap();
        assert!(watch.status.success(), "{watch:?}");
        String::from_utf8(watch.stdout).unwrap()
    };
    let text = watched("10.0.0.2", &[]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains(" a -> b: tcp 10.0.0.1:") && lines[0].contains(" TCP segments of 1448 bytes"), "{text}");
    assert!(!text.contains("dropped") && lines.last().unwrap().contains("leaves by b"), "{text}");
    let json = serde_json::from_str::<serde_json::Value>(&watched("10.0.0.3", &["--json"])).unwrap();
    let super_frame = &json["frame"]["super_frame"];
    assert_eq!((&super_frame["kind"], &super_frame["segment_bytes"]), (&"tcp".into(), &1448.into()), "{json}");
    let segments = super_frame["segments"].as_u64().unwrap();
    let cut = json["steps"].as_array().unwrap().last().unwrap();
    let says = format!("c takes no such super-frame: it is cut into {segments} frames");
    assert_eq!((&cut["step"], cut["text"].as_str()), (&"cut".into(), Some(&*says)), "{json}");
    // A file says the same.
    let file = lab.path("super.pcapng");
    let words = ["capture", "--port", "a", "--count", "1", "--seconds", "30", "--filter"];
    let captured = lab.ctl_command().args(words).arg(filter("10.0.0.3")).arg("-w").arg(&file).output().unwrap();
    assert!(captured.status.success(), "{captured:?}");
    let trace = lab.ctl(&format!("trace --port a --pcap {}", file.display())).ok();
    assert!(
        trace.contains("a super-frame: ") && trace.contains("the first of ") && trace.ends_with("It is bridged to c.\n"),
        "{trace}"
    );
    assert!(trace.lines().all(|line| line.chars().count() <= 80), "{trace}");
}

#[test]
fn wireshark_captures_on_another_host_by_ssh() {
    needs!("ping", "tshark");
    let mut lab = Lab::with(TWO);
    assert!(ping(&lab, "a", "10.0.0.2"));
    lab.spawn_in("a", "ping -n -q -i 0.1 10.0.0.2");
    let place = |name: &str| lab.path(name).display().to_string();
    let (bin, told, file) = (place("bin"), place("told"), place("there.pcapng"));
    // It runs here what it should run there.
    let vsctl = program("vsctl");
    let there = vsctl.parent().unwrap().display();
    let ssh = format!("#!/bin/sh\nfor word; do echo \"$word\"; done > {told}\nPATH={there}:$PATH exec sh -c \"exec $5\"\n");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(format!("{bin}/ssh"), ssh).unwrap();
    lab.sh(&format!("chmod 755 {bin}/ssh && touch {file}")).ok();
    let words = "--extcap-interface vswitch-all --capture --extcap-capture-filter 'icmp and host 10.0.0.2'";
    let remote = format!("--remote-host far.example --remote-control {}", place("control.sock"));
    let extcap = |more: &str| {
        let vsctl = vsctl.display();
        lab.sh(&format!(
            "PATH={bin}:$PATH VSWITCH_CONTROL=/nowhere timeout 2 {vsctl} extcap call -- {words} --fifo {file} {more}"
        ))
    };
    extcap(&remote);
    let said = std::fs::read_to_string(&told).unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said[..5], ["-o", "BatchMode=yes", "--", "far.example", said[4]], "{said:?}");
    let rows = tshark(&lab, std::path::Path::new(&file), "", &["frame.interface_name", "ip.proto"]);
    assert!(rows.len() >= 4 && rows.iter().all(|row| row[1] == "1"), "{rows:?}");
    // A name that ssh would take for an option is none.
    let refused = extcap("--remote-host -oProxyCommand=touch");
    assert!(refused.stderr.contains("a host's name does not begin with -"), "{refused:?}");
    lab.until("no capture is left", |lab| lab.json("show")["captures"] == 0);
}
