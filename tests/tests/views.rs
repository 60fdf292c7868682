//! What others look at while the switch runs: events, metrics, the web view's doors.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use vswitch_tests::{Lab, needs};

const FILE: &str = "[web]\nlisten = \"127.0.0.1:8080\"\n\
    [[bridge]]\nname = \"br0\"\naddresses = [\"10.10.0.1/24\"]\ndhcp = true\n\
    [[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"@a\"\naddresses = [\"10.10.0.2/24\"]\n\
    [[port]]\nname = \"b\"\nbridge = \"br0\"\nnetns = \"@b\"\naddresses = [\"10.10.0.3/24\"]\n";

/// What a page of the web view says, behind the status.
fn get(lab: &Lab, more: &str) -> String {
    lab.run_in("host", &format!("curl -sS -m 20 -w '\\n%{{http_code}}' {more}")).ok()
}

fn status(lab: &Lab, more: &str) -> String {
    get(lab, more).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn metrics_and_events_follow_what_happens_and_only_who_may_does_more_than_look() {
    needs!("curl", "promtool");
    let mut lab = Lab::with(FILE);
    let mut follower =
        lab.ctl_command().args(["--json", "events", "--follow", "--kind", "change"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    lab.run_in("a", "ping -c 3 -i 0.2 10.10.0.3").ok();

    let frames = |lab: &Lab| {
        let text = get(lab, "localhost:8080/metrics");
        let line =
            text.lines().find_map(|line| line.strip_prefix("vswitch_port_frames_total{port=\"a\",direction=\"receive\"} "));
        line.unwrap_or_else(|| panic!("{text}")).parse::<u64>().unwrap()
    };
    lab.until("the worker has shown what it counted", |lab| frames(lab) >= 4);
    let exact = lab.json("stats a")[0]["rx_frames"].as_u64().unwrap();
    lab.until("the counters are those of stats", |lab| frames(lab) >= exact);
    let check = lab.run_in("host", "curl -sS localhost:8080/metrics | promtool check metrics");
    assert_eq!((check.code, check.stderr.as_str()), (Some(0), ""), "{check:?}");

    lab.ctl("set-port a --guard on").ok();
    lab.ctl("set-port nobody --guard on").refused();
    let next: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((next["kind"].as_str(), next["summary"].as_str()), (Some("change"), Some("set-port a")));
    assert!(next["by"].as_str().unwrap().contains("uid 0, vsctl"), "{next}");
    assert!(lines.next().unwrap().unwrap().contains("refused: set-port nobody"));
    lab.until("the station is learned", |lab| lab.ctl("events --kind mac-learned").ok().contains("is at b"));
    lab.ctl("del-port a").ok();
    assert!(!get(&lab, "localhost:8080/metrics").contains("port=\"a\""), "its series go with it");

    let trace = "-X POST -d '{\"port\": \"b\", \"frame\": {\"to\": \"10.10.0.1\"}}' localhost:8080/api/trace";
    assert!(get(&lab, trace).contains("\"verdict\":\"answered\""), "{}", get(&lab, trace));
    assert_eq!(status(&lab, &format!("-H 'origin: http://evil.example' {trace}")), "403");
    let token = std::fs::read_to_string(lab.path("state/web-token")).unwrap();
    let post = "-X POST -d '\"list_bridges\"' localhost:8080/api/request";
    assert_eq!(status(&lab, post), "401");
    assert!(get(&lab, post).contains("/state/web-token"));
    let allowed = format!("-H 'authorization: Bearer {}' {post}", token.trim());
    assert!(get(&lab, &allowed).contains("\"br0\""));
    assert_eq!(status(&lab, &format!("-H 'origin: http://evil.example' {allowed}")), "403");
    for url in ["-H 'host: evil.example' localhost:8080/metrics", "-H 'host: evil.example' localhost:8080/"] {
        assert_eq!(status(&lab, url), "421", "{url}");
    }
    assert!(get(&lab, "-I localhost:8080/").contains("default-src 'none'"));
    assert_eq!(status(&lab, "localhost:8080/api/fdb"), "200");
    assert_eq!(status(&lab, "localhost:8080/api/leases"), "200");

    // The stream of a page that looks on does not hold up the end.
    lab.spawn_in("host", "curl -sSN localhost:8080/api/live");
    lab.until("a page looks on", |lab| lab.run_in("host", "ss -Htn state established sport = :8080").ok().contains(":8080"));
    let begun = std::time::Instant::now();
    assert!(lab.stop().success());
    assert!(begun.elapsed().as_millis() < 1900, "{:?}", begun.elapsed());
    assert!(follower.wait().unwrap().success(), "what follows ends with the switch");
}

#[test]
fn the_busiest_flows_are_those_of_all_traffic() {
    needs!("curl", "iperf3", "ping");
    let mut lab = Lab::with(FILE);
    lab.spawn_in("b", "iperf3 -s");
    lab.until("iperf3 listens", |lab| !lab.run_in("b", "ss -Hltn sport = :5201").ok().is_empty());
    lab.spawn_in("a", "iperf3 -c 10.10.0.3 -b 20M -t 60");
    lab.spawn_in("b", "ping -n -q -i 0.1 10.10.0.1");
    lab.until("the stream has its rate", |lab| {
        let live = lab.json("top");
        let flow = &live["flows"][0];
        let is_stream = flow["protocol"] == "tcp" && flow["destination_port"] == 5201 && flow["source"] == "10.10.0.2";
        let is_bridged = flow["in"] == "a" && flow["out"] == "b" && flow["verdict"] == "bridged" && flow["vlan"] == 1;
        let bits = flow["bytes_per_second"].as_f64().unwrap_or_default() * 8.0;
        is_stream && is_bridged && (15e6..26e6).contains(&bits)
    });
    lab.until("what is for the gateway is a flow too", |lab| {
        let live = lab.json("top");
        let flows = live["flows"].as_array().cloned().unwrap_or_default();
        let is_ping = |flow: &serde_json::Value| flow["protocol"] == "icmp" && flow["destination"] == "10.10.0.1";
        flows.iter().any(|flow| {
            is_ping(flow) && flow["verdict"] == "answered" && flow["out"].is_null() && flow["source_port"].is_null()
        })
    });
    let page = lab.run_in("host", "timeout 3 curl -sSN localhost:8080/api/live").stdout;
    let first = page.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or_else(|| panic!("{page}"));
    let live: serde_json::Value = serde_json::from_str(first).unwrap();
    assert_eq!((&live["flows"][0]["in"], &live["flows"][0]["destination_port"]), (&"a".into(), &5201.into()), "{live}");
    assert!(!get(&lab, "localhost:8080/metrics").contains("5201"), "no label names a flow");
}

#[test]
fn a_web_view_that_cannot_be_is_refused_in_a_sentence() {
    needs!();
    let lab = Lab::new();
    lab.write("[web]\nlisten = \"0.0.0.0:80\"\n");
    let sentence = lab.start_refused(&["--check"]).refused();
    assert!(sentence.contains(":5:") && sentence.contains("`listen` is 0.0.0.0:80, which other hosts reach"), "{sentence}");
    lab.write("[web]\nlisten = \"127.0.0.1\"\n");
    assert!(lab.start_refused(&["--check"]).refused().contains("write one such as \"127.0.0.1:8080\""));
    lab.write("[web]\nlisten = \"192.0.2.1:80\"\nremote = true\n");
    let sentence = lab.start_refused(&[]).refused();
    assert!(
        sentence.contains("[web] cannot listen on 192.0.2.1:80") && sentence.contains("does not have the address"),
        "{sentence}"
    );
}
