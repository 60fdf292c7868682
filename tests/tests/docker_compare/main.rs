//! Docker's built-in `bridge` driver and `vswitch` on the same daemon: the same commands, the answers side by side.
//!
//! A check is a line of shell, run once with `$d` = `bridge`, `$n` = 80 and once with `$d` = `vswitch`, `$n` = 81, and the answer that
//! it must print. Where the switch answers otherwise, its answer and the reason stand in the table. So an answer of either
//! that changes fails the test: also one that became the same.
//!
//! The table of the newest engine is [docs/docker-comparison.md](../../../docs/docker-comparison.md).
//!
//! `VSWITCH_COMPARE=bridge` runs Docker's column only, a second word only the topics that begin with it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod addresses;
mod compose;
mod life;
mod names;
mod networks;
mod page;
mod ports;
mod reach;

use vswitch_tests::{DockerHost, Engine, needs_engine, on_each_engine};

/// What belongs together: checks that build on each other, run in this order.
struct Topic {
    name: &'static str,
    checks: &'static [Check],
}

/// A command and its answer.
struct Check {
    what: &'static str,
    line: &'static str,
    answer: &'static str,
    otherwise: Option<(&'static str, &'static str)>,
    /// What Docker's bridge and the switch answer on the newest engine, where that is another answer.
    newest: Option<(&'static str, &'static str)>,
}

impl Check {
    /// On the newest engine both answer this.
    const fn newest(self, answer: &'static str) -> Self {
        Self { newest: Some((answer, answer)), ..self }
    }

    /// On the newest engine Docker's bridge answers this, and the switch as ever.
    const fn newest_bridge(self, answer: &'static str) -> Self {
        let ours = match self.otherwise {
            Some((ours, _)) => ours,
            None => self.answer,
        };
        Self { newest: Some((answer, ours)), ..self }
    }

    /// What a driver answers on an engine.
    fn wanted(&self, engine: Engine, theirs: bool) -> &'static str {
        let ours = self.otherwise.map_or(self.answer, |(ours, _)| ours);
        let (answer, ours) = self.newest.filter(|_| engine == Engine::Newest).unwrap_or((self.answer, ours));
        if theirs { answer } else { ours }
    }

    /// Why they answer differently, where they do.
    fn reason(&self, engine: Engine) -> Option<&'static str> {
        let differs = self.wanted(engine, true) != self.wanted(engine, false);
        self.otherwise.filter(|_| differs).map(|(_, reason)| reason)
    }
}

/// Both answer this. In the line and the answers, `$d` is the driver's name and `$n` its number.
const fn same(what: &'static str, line: &'static str, answer: &'static str) -> Check {
    Check { what, line, answer, otherwise: None, newest: None }
}

/// Docker's bridge answers this; the switch answers that, for this reason.
const fn differs(
    what: &'static str,
    line: &'static str,
    answer: &'static str,
    ours: &'static str,
    reason: &'static str,
) -> Check {
    Check { what, line, answer, otherwise: Some((ours, reason)), newest: None }
}

const TOPICS: [Topic; 7] =
    [networks::TOPIC, addresses::TOPIC, names::TOPIC, reach::TOPIC, ports::TOPIC, life::TOPIC, compose::TOPIC];

/// A driver in the comparison.
#[derive(Clone, Copy)]
struct Column {
    driver: &'static str,
    number: &'static str,
}

const DOCKERS: Column = Column { driver: "bridge", number: "80" };
const OURS: Column = Column { driver: "vswitch", number: "81" };

impl Column {
    fn in_its_words(self, text: &str) -> String {
        let hex = format!("{:02x}", self.number.parse::<u8>().unwrap());
        text.replace("$d", self.driver).replace("$n", self.number).replace("$x", &hex)
    }

    /// The answers to all checks of a topic.
    fn run(self, host: &DockerHost, topic: &Topic) -> Vec<String> {
        let answers = topic.checks.iter().map(|check| self.answer(host, check.line)).collect();
        assert_eq!(self.answer(host, CLEAN), "", "after {}, {}", topic.name, self.driver);
        answers
    }

    fn answer(self, host: &DockerHost, line: &str) -> String {
        let Self { driver, number } = self;
        let outcome = host.sh(&format!("d={driver} n={number}\n{WORDS}\n{line}"));
        if outcome.code == Some(124) {
            return "it does not end".to_owned();
        }
        [outcome.stdout.trim(), outcome.stderr.trim()]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Words that the lines use.
const WORDS: &str = r#"
# docker run --rm: on a loaded machine Docker may lose what a container says that ends at once; then another is asked.
docker() {
    [ "$1 $2" = "run --rm" ] || { command docker "$@"; return; }
    local said code
    for i in 1 2 3; do said=$(command docker "$@") code=$?; [ $code = 0 ] && [ -z "$said" ] || break; done
    [ -z "$said" ] || echo "$said"
    return $code
}
# box NAME [OPTIONS]: a container that waits. web NAME [OPTIONS]: one that says who asks. Both are named after the driver.
box() { local name=$1; shift; docker run -d --name $d-$name --hostname $name "$@" busybox sleep 1000000 > /dev/null; }
web() { local name=$1; shift; docker run -d --name $d-$name --hostname $name "$@" httpd > /dev/null; ready $name; }
# ready NAME: its server has begun to listen.
ready() { on $1 sh -c 'until netstat -ltn | grep -q :80; do usleep 20000; done'; }
# on NAME COMMAND: in a container, as docker exec does it but ten times as fast.
on() { local name=$1; shift; nsenter --all --target $(docker inspect -f '{{.State.Pid}}' $d-$name) -- "$@"; }
# from NAME|host|outside ADDRESS[:PORT]: who answers there, and as whom it is asked. Asked again for some seconds, as IPv6 addresses
# take a moment.
from() { for i in 1 2 3 4; do ask 3 "$@" && return; sleep 0.3; done; echo nobody; }
# silence NAME|host|outside ADDRESS[:PORT]: the same, where nobody should answer.
silence() { ask 1 "$@" || echo nobody; }
ask() {
    local url=http://$3/cgi-bin/who
    case $2 in
        host) curl -g -s -m $1 $url ;;
        outside) outside curl -g -s -m $1 $url ;;
        *) on $2 timeout $1 wget -q -O- $url 2> /dev/null ;;
    esac
}
# prune WHAT [OPTIONS]: docker WHAT prune, which Docker refuses while that of the other driver runs.
prune() {
    local said what=$1; shift
    until said=$(docker $what prune -f "$@" 2>&1) || ! echo "$said" | grep -q 'already running'; do sleep 0.1; done
    echo "$said"
}
# name: of the answer, only who gave it.
name() { sed 's/ [^ ]*$//'; }
# pings NAME ADDRESS [SECONDS]: yes or no.
pings() { on $1 ping -c 1 -W ${3:-5} $2 > /dev/null 2>&1 && echo yes || echo no; }
# compose COMMAND: docker-compose with the driver's file; its second version joins names as the first did. running: its containers.
export COMPOSE_COMPATIBILITY=1
running() { docker ps -q --filter name=^$d-shop_ | sort; }
compose() { docker-compose --ansi never --project-directory /run/$d-shop -f /run/$d-shop/docker-compose.yml -p $d-shop "$@" 2>&1; }
# refused COMMAND: how it ends and the first line of what it says, without what newer Dockers put around it.
refused() {
    local said
    said=$("$@" 2>&1)
    echo "$? $(head -n 1 <<< "$said" | sed -E 's/[0-9a-f]{64}/ID/g; s/endpoint [a-z]+_[a-z]+ /endpoint NAME /; s/\.$//; s/failed to set up container networking: //')"
}
"#;

/// Removes what the checks of a topic left.
const CLEAN: &str = "docker ps -aq --filter name=^$d- | xargs -r docker rm -f > /dev/null
docker network ls -q --filter name=^$d- | xargs -r docker network rm > /dev/null";

/// The switch that the driver's column runs on.
const FILE: &str = r#"
[docker]
enabled = true
uplink = "host"
[[uplink]]
name = "host"
kind = "host"
"#;

on_each_engine!(the_switch_answers_as_dockers_bridge_does);

fn the_switch_answers_as_dockers_bridge_does(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "docker-compose", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc");
    let wanted = std::env::var("VSWITCH_COMPARE").unwrap_or_default();
    let (only, topics) = wanted.split_once(' ').unwrap_or((&wanted, ""));
    let host = if only == DOCKERS.driver { without_switch(engine) } else { DockerHost::on(engine, FILE) };
    println!("\nDocker {}", host.sh("docker version -f '{{.Server.Version}}'").ok().trim());
    let columns: Vec<Column> = [DOCKERS, OURS].into_iter().filter(|column| only.is_empty() || column.driver == only).collect();
    let mut faults = Vec::new();
    for topic in TOPICS.iter().filter(|topic| topic.name.starts_with(topics)) {
        println!("\n{}\n", topic.name);
        let answers: Vec<Vec<String>> = std::thread::scope(|scope| {
            let running: Vec<_> = columns.iter().map(|column| scope.spawn(|| column.run(&host, topic))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (index, check) in topic.checks.iter().enumerate() {
            let both: Vec<&str> = answers.iter().map(|answers| answers[index].as_str()).collect();
            faults.extend(judge(check, engine, &columns, &both));
        }
    }
    assert!(faults.is_empty(), "{} answers are not what they should be:\n\n{}", faults.len(), faults.join("\n"));
}

fn without_switch(engine: Engine) -> DockerHost {
    let mut host = DockerHost::bare(engine);
    host.start_dockerd(&[]);
    host.import();
    host
}

/// Prints a check's row, and says what is wrong with it.
fn judge(check: &Check, engine: Engine, columns: &[Column], answers: &[&str]) -> Vec<String> {
    print!("{}", page::row(check.what, answers, check.reason(engine)));
    let mut faults = Vec::new();
    for (column, answer) in columns.iter().zip(answers) {
        let theirs = column.driver == DOCKERS.driver;
        let wanted = column.in_its_words(check.wanted(engine, theirs));
        if *answer != wanted {
            let (what, line, driver) = (check.what, check.line, column.driver);
            faults.push(format!("{what}, {driver}\n  {line}\n  said   {answer}\n  wanted {wanted}\n"));
        }
    }
    faults
}

/// What the newest engine answers, as docs/docker-comparison.md has it.
fn page() -> String {
    let mut page = "# Docker's bridge and the switch, side by side\n\n\
        What Debian's newest Docker answers to the same commands on a network of its own driver `bridge` and on one of `vswitch`. A test runs them all \
        on both, there\nand on Docker 20.10, and fails where an answer is another than here. ` / ` is the end of a line.\n"
        .to_owned();
    for topic in &TOPICS {
        page += &format!("\n## {}\n\n```text\n{}", topic.name, page::row("", &["bridge", "vswitch"], None));
        for check in topic.checks {
            let answers = [DOCKERS, OURS]
                .map(|column| column.in_its_words(check.wanted(Engine::Newest, column.driver == DOCKERS.driver)));
            page += &page::row(check.what, &answers.each_ref().map(String::as_str), check.reason(Engine::Newest));
        }
        page += "```\n";
    }
    page
}

#[test]
fn the_page_is_what_the_table_says() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/docker-comparison.md");
    let (printed, made) = (page(), concat!(env!("CARGO_TARGET_TMPDIR"), "/docker-comparison.md"));
    std::fs::write(made, &printed).unwrap();
    assert!(std::fs::read_to_string(document).unwrap() == printed, "{document} is not what the table says: take {made}");
}

#[test]
fn the_table_is_long_enough_and_its_differences_are_some() {
    let checks: Vec<&Check> = TOPICS.iter().flat_map(|topic| topic.checks).collect();
    assert!(checks.len() >= 60, "{}", checks.len());
    for check in checks {
        if let Some((ours, reason)) = check.otherwise {
            assert!(ours != check.answer && reason.len() > 20, "{}", check.what);
        }
    }
}
