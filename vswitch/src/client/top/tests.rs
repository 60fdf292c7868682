use std::collections::BTreeMap;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::draw::{number, screen};
use super::model::{Model, Rate};
use super::*;
use api::{LiveBridge, LiveFlow, LiveKind, LivePort, LiveTunnel, LiveUplink, PeerInfo, PortState};

fn port(name: &str, frames: u64, drops: u64) -> LivePort {
    let state = if name == "down" { PortState::NoCarrier } else { PortState::Up };
    LivePort {
        place: Some(format!("netns {name}")),
        rx_frames: frames,
        rx_bytes: frames * 1000,
        rx_drops: if drops > 0 { BTreeMap::from([("guard_ip".to_owned(), drops)]) } else { BTreeMap::new() },
        ..LivePort::new(name.parse().unwrap(), Some("br0".parse().unwrap()), LiveKind::Tap, state)
    }
}

fn live(seconds: f64, ports: Vec<LivePort>) -> LiveInfo {
    let bridge = LiveBridge {
        name: "br0".parse().unwrap(),
        macs: 8000,
        max_macs: 8192,
        evictions: 0,
        mac_moves: 0,
        addresses: Vec::new(),
        uplink: None,
        pools: Vec::new(),
    };
    let counters = BTreeMap::new();
    let uplink = LiveUplink { name: "wan".parse().unwrap(), sessions: 1, max_sessions: 65_536, ports_in_use: 1, counters };
    let peer = PeerInfo {
        address: "192.0.2.2".parse().unwrap(),
        named: true,
        state: "silent".to_owned(),
        heard_seconds: None,
        rx_frames: 0,
        tx_frames: 0,
        last_error: None,
    };
    LiveInfo {
        version: "0.1.0".to_owned(),
        uptime_seconds: 7300,
        counted_seconds: seconds,
        workers: 1,
        bridges: vec![bridge],
        ports,
        uplinks: vec![uplink],
        tunnels: vec![LiveTunnel { name: "vx0".parse().unwrap(), peers: vec![peer] }],
        ..LiveInfo::default()
    }
}

fn session(port: u16, bytes: u64) -> SessionInfo {
    serde_json::from_value(serde_json::json!({
        "uplink": "wan", "protocol": "tcp", "direction": "out", "inside": format!("10.10.0.2:{port}"), "container": null, "network": null,
        "external": null, "remote": "198.51.100.7:443", "state": "established", "seconds_left": null, "out_frames": null,
        "out_bytes": bytes, "in_frames": null, "in_bytes": 0,
    }))
    .unwrap()
}

fn flow(port: u16, bytes: f64) -> LiveFlow {
    serde_json::from_value(serde_json::json!({
        "in": "a", "out": "b", "verdict": "bridged", "drop_reason": null, "vlan": 1, "source_mac": "02:00:00:00:00:01",
        "destination_mac": "02:00:00:00:00:02", "ethertype": 0x800, "protocol": "udp", "source": "10.10.0.2", "destination": "10.10.0.3",
        "source_port": port, "destination_port": 53, "bytes_per_second": bytes, "frames_per_second": 10.0,
    }))
    .unwrap()
}

/// What a terminal of this size shows.
fn shown(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen(frame, model)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |row: u16| (0..width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..height).map(|row| line(row).trim_end().to_owned()).collect()
}

fn busy() -> Model {
    let mut model = Model::new(live(10.0, vec![port("a", 0, 0), port("b", 0, 0), port("down", 0, 7)]));
    model.take(live(12.0, vec![port("a", 100, 0), port("b", 2000, 50), port("down", 0, 7)]));
    model.count_sessions(vec![session(1, 0), session(2, 0)], 0.0);
    model.count_sessions(vec![session(1, 1000), session(2, 5_000_000)], 2.0);
    let dropped = LiveFlow {
        out: None,
        drop_reason: Some("guard_ip".to_owned()),
        source_port: None,
        destination_port: None,
        ..flow(7, 10.0)
    };
    model.live.flows = vec![flow(5, 1e6), flow(6, 2000.0), dropped];
    model
}

#[test]
fn everything_is_on_80_columns_and_24_lines() {
    let lines = shown(&mut busy(), 80, 24);
    let text = lines.join("\n");
    assert_eq!(lines[0], "vswitch 0.1.0  up 2h 1m  1 worker  2 of 3 ports up");
    assert!(lines[1].starts_with("PORT") && lines[1].contains("bit/s") && lines[1].ends_with("WHERE"), "{text}");
    let b = format!("{:15} {:10} {:>8} {:>8} {:>14} {:>8} br0 netns b", "b", "up", "8.00M", "0", "█", "25");
    assert_eq!(lines[2], b, "{text}");
    assert!(lines[3].starts_with("a ") && lines[3].contains("400k"), "{text}");
    assert!(lines[4].starts_with("down            no carrier"), "{text}");
    let has = |parts: &[&str]| lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(has(&["b        guard-ip", "25     50"]), "{text}");
    assert!(has(&["vx0 peers up", "░░░░░░░░         0 of 1"]), "{text}");
    assert!(has(&["br0 MACs", "████████ 8.00k of 8.19k"]), "{text}");
    let flows: Vec<&String> = lines.iter().filter(|line| line.starts_with("udp")).collect();
    assert!(
        flows[0].contains("10.10.0.2:5 ") && flows[0].contains("→ 10.10.0.3:53 ") && flows[0].contains(" a → b "),
        "{text}"
    );
    assert!(flows[0].ends_with("8.00M") && flows[1].ends_with("16.0k"), "{text}");
    assert!(flows[2].contains("10.10.0.2 ") && flows[2].contains(" a: guard-ip "), "{text}");
    assert!(has(&["FLOW", "estimated", "PORTS", "bit/s"]), "{text}");
    assert_eq!(lines[23], " q  quit   s  by rate   u  in bit/s   f  sessions   p  pause   ↑↓  scroll");
}

#[test]
fn sessions_take_the_place_of_flows() {
    let mut model = busy();
    assert!(!press(&mut model, KeyEvent::from(KeyCode::Char('f'))));
    let lines = shown(&mut model, 80, 24);
    let text = lines.join("\n");
    let sessions: Vec<&String> = lines.iter().filter(|line| line.starts_with("tcp")).collect();
    assert!(sessions[0].contains("10.10.0.2:2") && sessions[0].contains("→ 198.51.100.7:443"), "{text}");
    assert!(sessions[0].ends_with("20.0M       0") && sessions[1].ends_with("4.00k       0"), "{text}");
    assert_eq!(lines[23], " q  quit   s  by rate   u  in bit/s   f  flows   p  pause   ↑↓  scroll");
    model.turn_over();
    model.live.flows.clear();
    assert!(shown(&mut model, 80, 24).iter().any(|line| line == "nothing moves"));
}

#[test]
fn a_screen_of_any_size_is_drawn() {
    for width in [1, 20, 71, 72, 79, 81, 132, 300] {
        for height in [1, 5, 13, 14, 15, 20, 25, 60, 100] {
            let lines = shown(&mut busy(), width, height);
            assert_eq!(lines.len(), usize::from(height));
            if width >= 72 && height >= 14 {
                let text = lines.join("\n");
                assert!(
                    lines[2].starts_with("b ") && text.contains("guard-ip") && text.contains("udp"),
                    "{width}x{height}:\n{text}"
                );
            }
        }
    }
}

#[test]
fn keys_sort_count_scroll_pause_and_end() {
    let mut model = busy();
    let mut press = |code: KeyCode| press(&mut model, KeyEvent::from(code));
    assert!(press(KeyCode::Char('q')) && press(KeyCode::Esc));
    assert!(!press(KeyCode::Char('s')) && !press(KeyCode::Char('x')));
    assert_eq!(model.sort.name(), "drops");
    let order = |model: &Model| model.ports.iter().map(|row| row.port.name.to_string()).collect::<Vec<_>>();
    assert_eq!(order(&model), ["b", "down", "a"], "what drops now, then what dropped before");
    model.sort_otherwise();
    assert_eq!(order(&model), ["a", "b", "down"]);
    model.count_otherwise();
    model.count_otherwise();
    assert!(shown(&mut model, 80, 24)[3].contains("1.00k"), "frames in a second");
    model.scroll(isize::MAX);
    let lines = shown(&mut model, 80, 24);
    assert!(lines[1].starts_with("PORT ") && lines[2].starts_with("a "), "three ports fit: {}", lines[1]);
    let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert!(super::press(&mut model, ctrl_c));
    model.pause();
    assert!(shown(&mut model, 80, 24)[0].ends_with("paused"));
    model.lose("no vswitchd answers".to_owned());
    assert!(shown(&mut model, 80, 24)[0].starts_with("not now: no vswitchd answers"));
}

#[test]
fn many_ports_are_scrolled_and_one_made_anew_begins_at_nothing() {
    let ports = |frames: u64| (0..100).map(|number| port(&format!("p{number:02}"), frames, 0)).collect::<Vec<_>>();
    let mut model = Model::new(live(1.0, ports(10)));
    model.take(live(2.0, ports(10)));
    model.scroll(isize::MAX);
    let lines = shown(&mut model, 80, 24);
    assert!(lines[1].starts_with("PORT 9") && lines[1].contains("/100"), "{}", lines[1]);
    assert!(lines.iter().any(|line| line.starts_with("p99 ")));
    model.take(live(3.0, ports(4)));
    assert!(model.ports.iter().all(|row| row.rx == Rate::default()), "fewer than before: they are others");
    model.take(live(3.0, ports(4)));
    model.take(live(4.0, ports(6)));
    assert!(model.ports.iter().all(|row| (row.rx.frames - 2.0).abs() < 1e-9));
}

#[test]
fn a_number_has_three_digits() {
    let shown = [0.0, 0.3, 1.0, 999.0, 1000.0, 9_994.0, 12_345.0, 999_400.0, 999_600.0, 2.5e9, 7e12, 1e16].map(number);
    assert_eq!(shown, ["0", "<1", "1", "999", "1.00k", "9.99k", "12.3k", "999k", "1.00M", "2.50G", "7.00T", "10P"]);
}
