//! `docs/docker.md`, every command of it: run in order on a host with a dockerd, and what the document says came back is compared with
//! what does.
//!
//! - In a `sh` block all is typed. In a `console` block, lines with `$ ` are typed on the host and lines with `other$ ` outside; the
//!   others are the output, which must hold them in this order, other lines between them or not.
//! - `…` stands for any text. Runs of blanks count as one, for columns are as wide as what is in them.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use vswitch_tests::{DockerHost, Engine, needs_engine, on_each_engine};

/// Where one command's output ends and that of the next begins.
const MARK: char = '\u{1}';

/// What is typed, and the lines that come back.
#[derive(Default)]
struct Step {
    line: usize,
    typed: String,
    promised: Vec<String>,
}

on_each_engine!(every_command_of_the_tour_does_what_it_says);

fn every_command_of_the_tour_does_what_it_says(engine: Engine) {
    needs_engine!(
        engine,
        "dockerd",
        "docker",
        "docker-compose",
        "unshare",
        "busybox",
        "dnsmasq",
        "iptables",
        "curl",
        "nc",
        "tcpdump"
    );
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/docker.md")).unwrap();
    let steps = steps(&text);
    assert!(steps.len() > 40, "{}", steps.len());
    let mut host = DockerHost::bare(engine);
    host.start_dockerd(&[]);
    host.import();
    let script: String = steps.iter().map(|step| format!("printf '\\n{MARK}\\n'\n{}\n", step.typed)).collect();
    host.write("/run/tour", &format!("exec 2>&1; export COMPOSE_COMPATIBILITY=1; mkdir /run/tour.d; cd /run/tour.d\n{script}"));
    let outcome = host.sh_within(300, "bash /run/tour");
    let outputs: Vec<&str> = outcome.stdout.split(MARK).skip(1).collect();
    assert_eq!((outputs.len(), outcome.code), (steps.len(), Some(0)), "it ended early: {outcome:#?}");
    let faults: Vec<String> = steps.iter().zip(outputs).filter_map(|(step, output)| fault(step, output)).collect();
    assert!(faults.is_empty(), "docs/docker.md promises otherwise:\n\n{}", faults.join("\n"));
    // Its last command has removed everything.
    assert_eq!(host.sh("docker ps -aq; docker network ls -q --filter type=custom; ip -o link | grep ep-").stdout, "");
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block = "";
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        if let Some(kind) = line.strip_prefix("```") {
            block = if block.is_empty() { kind } else { "" };
            if block == "sh" {
                steps.push(Step { line: line_number, ..Step::default() });
            }
        } else if block == "sh" {
            let step = steps.last_mut().unwrap();
            step.typed += line;
            step.typed.push('\n');
        } else if block == "console" {
            let continued = steps.last().is_some_and(|step| step.typed.ends_with('\\') && step.promised.is_empty());
            match (line.strip_prefix("$ "), line.strip_prefix("other$ ")) {
                (Some(typed), _) => steps.push(Step { line: line_number, typed: typed.to_owned(), promised: Vec::new() }),
                (_, Some(typed)) => {
                    steps.push(Step { line: line_number, typed: format!("outside {typed}"), promised: Vec::new() })
                }
                _ if continued => steps.last_mut().unwrap().typed += &format!("\n{line}"),
                _ => steps.last_mut().unwrap().promised.push(line.to_owned()),
            }
        }
    }
    steps
}

/// What is wrong with the output of a step.
fn fault(step: &Step, output: &str) -> Option<String> {
    let mut lines = output.lines();
    let missing = step.promised.iter().find(|promised| !lines.any(|line| matches(&squeezed(promised), &squeezed(line))))?;
    Some(format!("line {}: {}\n  promised {missing}\n  but came\n{}", step.line, step.typed, output.trim()))
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the line is the pattern, with any text where that has `…`.
fn matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = "";
    let mut is_whole = true;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        (last, is_whole) = (part, false);
    }
    if is_whole { rest.is_empty() } else { last.is_empty() || line.ends_with(last) }
}

#[test]
fn patterns_match_what_they_should() {
    for (pattern, line, holds) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a…", "ab", true),
        ("…b", "ab", true),
        ("…b", "bab", true),
        ("…b", "abc", false),
        ("a…c…e", "abcde", true),
        ("a…c…e", "abde", false),
    ] {
        assert_eq!(matches(pattern, line), holds, "{pattern} {line}");
    }
}
