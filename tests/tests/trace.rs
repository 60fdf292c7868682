//! `vsctl trace` on a switch that runs: what it says is what then happens to real frames, and what to do about a drop.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails its test")]

use std::process::Output;

use serde_json::Value;
use vswitch_tests::{Lab, needs};

const SWITCH: &str = r#"
[[uplink]]
name = "up"
kind = "host"
[[bridge]]
name = "br0"
addresses = ["10.0.0.1/24", "fd00::1/64"]
uplink = "up"
[[bridge]]
name = "plain"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.0.0.2/24", "fd00::2/64"]
guard = true
[[port]]
name = "b"
bridge = "br0"
netns = "@b"
kind = "veth"
addresses = ["10.0.0.3/24", "fd00::3/64"]
[[port]]
name = "c"
bridge = "plain"
netns = "@c"
vlan = 10
[[port]]
name = "d"
bridge = "plain"
netns = "@d"
vlan = 20
"#;

fn trace(lab: &Lab, words: &[&str]) -> Output {
    lab.ctl_command().arg("trace").args(words).output().unwrap()
}

fn says(lab: &Lab, words: &[&str]) -> String {
    let output = trace(lab, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(lab: &Lab, words: &[&str]) -> Value {
    let output = lab.ctl_command().args(["--json", "trace"]).args(words).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_trace_says_what_then_happens_and_changes_nothing() {
    needs!("ip", "ping");
    let lab = Lab::with(SWITCH);
    // Neighbours are known to the gateway and to each other.
    lab.run_in("a", "sh -c 'ping -c 1 -W 2 10.0.0.1 && ping -c 1 -W 2 10.0.0.3'");
    let sessions = lab.json("sessions");
    let text = says(&lab, &["--port", "a", "--to", "b"]);
    assert!(text.contains("out  b: icmp echo 10.0.0.2 > 10.0.0.3") && text.contains("It is bridged to b."), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let drops = |lab: &Lab| lab.json("stats")[0]["rx_drops"]["guard_ip"].as_u64();
    let dropped = drops(&lab);
    let spoofed = json(&lab, &["--port", "a", "udp 10.0.0.77:5 > 10.0.0.3:7"]);
    assert_eq!((&spoofed["verdict"], &spoofed["drop_reason"]), (&"dropped".into(), &"guard_ip".into()), "{spoofed}");
    assert_eq!(drops(&lab), dropped, "it was not counted");
    for (words, verdict, conclusion) in [
        (&["--port", "a", "icmp echo fd00::2 > fd00::1"][..], "answered", "The gateway answers it."),
        (&["--port", "a", "udp 10.0.0.2:68 > 10.0.0.1:53"], "punted", "A service"),
        (&["--port", "b", "tcp 10.0.0.3:4000 > 198.51.100.1:80 syn"], "routed", "uplink up"),
        (&["--port", "a", "arp who-has 10.0.0.3"], "flooded", "one port"),
        (&["--port", "c", "--to", "02:00:00:00:00:99"], "dropped", "no-destination"),
        (&["--port", "b", "tcp 10.0.0.3:4000 > 198.51.100.1:80 ttl 1"], "dropped", "hop-limit"),
    ] {
        let told = json(&lab, words);
        assert_eq!(told["verdict"], verdict, "{told:#}");
        assert!(told["conclusion"].as_str().unwrap().contains(conclusion), "{told:#}");
    }
    assert_eq!(lab.json("sessions"), sessions, "none began");
    // A frame of a file, and the way as a page.
    let (file, page) = (lab.path("one.pcapng"), lab.path("way.html"));
    let (file, page) = (file.to_str().unwrap(), page.to_str().unwrap());
    let mut capture =
        lab.ctl_command().args(["capture", "--port", "a", "--filter", "icmp", "--count", "2", "-w", file]).spawn().unwrap();
    lab.until("the capture runs", |lab| lab.json("show")["captures"] == 1);
    lab.run_in("a", "ping -c 2 -i 0.2 -W 2 10.0.0.3");
    assert!(capture.wait().unwrap().success());
    let told = says(&lab, &["--port", "a", "--pcap", file, "--number", "1", "--html", page]);
    assert!(told.contains("It is bridged to b."), "{told}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("It is bridged to b.") && !page.contains("http"), "a page that needs nothing else");
    for (words, says) in [
        (&["--port", "a", "tcp 10.0.0.2:1 > 10.0.0.3:80 sin"][..], "column 30"),
        (&["--port", "x", "--to", "b"], "there is no port \"x\""),
        (&["--port", "a", "--to", "nobody"], "no port and no container"),
        (&["--port", "c", "tcp 10.1.0.2:1 > 10.2.0.3:80"], "no gateway"),
        (&["--port", "a", "--pcap", file, "--number", "9"], "none with the number 9"),
        (&["--port", "a", "--pcap", "/dev/null"], "neither a pcap nor a pcapng"),
    ] {
        let output = trace(&lab, words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains(says), "{words:?}: {error}");
    }
}
