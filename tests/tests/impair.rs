//! Lines made worse on purpose, between real stations: what is asked for is what their tools measure.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails its test")]

use std::process::Output;

use vswitch_tests::{Lab, needs, tcp, udp};

const SWITCH: &str = r#"
[[bridge]]
name = "br0"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.0.0.2/24"]
[port.impair]
in = "delay 20ms"
[[port]]
name = "b"
bridge = "br0"
netns = "@b"
kind = "veth"
addresses = ["10.0.0.3/24"]
"#;

/// `vsctl set-port` with options whose words have blanks.
fn set(lab: &Lab, port: &str, options: &[&str]) -> Output {
    lab.ctl_command().args(["set-port", port]).args(options).output().unwrap()
}

#[track_caller]
fn set_well(lab: &Lab, port: &str, options: &[&str]) {
    let done = set(lab, port, options);
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn tools_measure_what_was_asked_for_and_a_change_takes_no_restart() {
    needs!("ping", "iperf3");
    let lab = Lab::with(SWITCH);
    let pings = lab.run_in("a", "ping -c 10 -i 0.1 10.0.0.3").ok();
    let times = pings.lines().filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok());
    let best = times.fold(f64::MAX, f64::min);
    assert!((20.0..21.0).contains(&best), "{pings}");
    let trace = lab.ctl("trace --port a --to b").ok();
    assert!(trace.contains("the line in of a is impaired: delayed by 20ms"), "{trace}");

    set_well(&lab, "a", &["--impair-in", "none", "--impair-out", "loss 5%", "--impair-seed", "3"]);
    // A loaded machine may lose more than the line does, and never less.
    let lossy: Vec<f64> = (0..3).map(|_| udp(&lab, "b", "a", "10.0.0.2", "-b 40M -t 1 -l 1000").lost).collect();
    assert!(lossy.iter().all(|lost| *lost > 0.04) && lossy.iter().any(|lost| *lost < 0.06), "{lossy:?}");
    let port = lab.json("list-ports")[0].clone();
    assert_eq!(port["impair"], serde_json::json!({ "in": null, "out": "loss 5%", "seed": 3 }));
    let stats = lab.json("stats a");
    assert!(stats[0]["tx_drops"]["impair_loss"].as_u64().unwrap() > 150, "{stats}");
    assert!(stats[0]["counters"]["impair_in_delayed"].as_u64().unwrap() >= 10, "{stats}");

    // Super-frames of TCP are cut for the rate, and merged again.
    set_well(&lab, "a", &["--impair-out", "none"]);
    set_well(&lab, "b", &["--impair-in", "rate 50mbit delay 1ms"]);
    // A loaded machine may give less than the line does, and never more.
    let slow: Vec<f64> = (0..3).map(|_| tcp(&lab, "b", "a", "10.0.0.2", "-t 1").bits).collect();
    assert!(slow.iter().all(|bits| *bits < 50e6) && slow.iter().any(|bits| *bits > 30e6), "{slow:?}");
    let shown = lab.ctl("show").ok();
    assert!(shown.contains("impair-in 'delay 1ms rate 50mbit' impair-seed "), "{shown}");
    let refused = set(&lab, "b", &["--impair-in", "rate 50mbit loss 130%"]);
    let sentence = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{sentence}");
    assert!(sentence.contains("at \"130%\", column 18: that is more than all packets"), "{sentence}");

    let exported = lab.ctl("export").ok();
    assert!(exported.contains("in = \"delay 1ms rate 50mbit\""), "{exported}");
    set_well(&lab, "b", &["--impair-in", "off"]);
    assert!(!lab.ctl("export").ok().contains("50mbit"));

    // What is made at run time outlives a restart with all that it is.
    let made = lab.ctl_command().args(["add-port", "br0", "c", "--impair-out", "delay 3ms"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut lab = lab;
    lab.stop();
    lab.start();
    assert!(lab.ctl("show").ok().contains("impair-out 'delay 3ms'"));
}

#[test]
fn a_wrong_word_in_the_file_is_told_with_its_place() {
    let lab = Lab::new();
    lab.write(&SWITCH.replace("delay 20ms", "delay 20ms reorder 120%"));
    let refused = lab.start_refused(&["--check"]);
    let text = format!("{refused:?}");
    assert!(
        text.contains("switch.toml:") && text.contains("`in` at") && text.contains("120%") && text.contains("column 20"),
        "{text}"
    );
}
