//! Reads a lab's file, and finds every problem that can be seen without starting it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use toml::Spanned;

use super::switch::{End, Link, part};
use super::table::{CheckTable, Draws, File, HostTable, LinkTable, PortTable, QuestionTable, StageTable};
use super::{Answer, Check, Host, HostName, Lab, Question, Stage, Task, TaskKind};
use crate::course;
use crate::draw::{draw, fill};
use crate::step::Step;
use crate::{During, LabError, Problem};

/// Most bytes of a file.
const LARGEST: u64 = 1 << 20;
/// How long what must be so may take to become so if the lab does not say: as long as a kernel takes to ask again for a neighbour.
const SETTLED: Duration = Duration::from_secs(2);
/// How long a check may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A lab as its author wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// As problems call it.
    pub(crate) file: String,
    pub(crate) toml: String,
    /// The text in Markdown.
    pub(crate) text: String,
}

impl Source {
    /// Reads a file, and the text beside it, of the same name with `.md`.
    pub(crate) fn of_file(path: &Path) -> Result<Self, LabError> {
        let read = |path: &Path| -> Result<String, LabError> {
            let what = || format!("{} cannot be read", path.display());
            let size = std::fs::metadata(path).during(what)?.len();
            if size > LARGEST {
                return Err(LabError::refused(format!("{} has {size} bytes, more than any lab needs", path.display())));
            }
            std::fs::read_to_string(path).during(what)
        };
        Ok(Self { file: path.display().to_string(), toml: read(path)?, text: read(&path.with_extension("md"))? })
    }
}

/// What a file comes to for a seed.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read(source: &Source, seed: &str) -> Result<Lab, LabError> {
    let problem = |line, sentence: String| LabError::File(vec![Problem { file: source.file.clone(), line, sentence }]);
    let broken = |text: &str, error: &toml::de::Error| {
        problem(error.span().map_or(0, |span| line(text, span.start)), error.message().trim().replace('\n', "; "))
    };
    // The first time only for what is drawn; what is wrong elsewhere is told by the second.
    let first = fill(&source.toml, |_| Some("0")).unwrap_or_default();
    let draws: Draws = toml::from_str(&first).map_err(|error| broken(&first, &error))?;
    let values = draw(&draws.draw, seed).map_err(|(name, wrong)| {
        let at = source.toml.lines().position(|line| line.trim_start().starts_with(&name)).map_or(0, |at| at + 1);
        problem(at, format!("`{name}` of [draw] {wrong}"))
    })?;
    let value = |name: &str| if name == "seed" { Some(seed) } else { values.get(name).map(String::as_str) };
    let unknown = |name: &str| format!("{{{{{name}}}}} has no value: [draw] has {}", list(values.keys().map(String::as_str)));
    let filled = fill(&source.toml, value).map_err(|(line, name)| problem(line, unknown(&name)))?;
    let file: File = toml::from_str(&filled).map_err(|error| broken(&filled, &error))?;
    let text = fill(&source.text, value).map_err(|(line, name)| {
        LabError::File(vec![Problem { file: format!("the text of {}", source.file), line, sentence: unknown(&name) }])
    })?;
    let mut reader = Reader { source, text: &filled, hosts: BTreeSet::new(), problems: Vec::new() };
    let lab = reader.lab(file, values.clone(), &text);
    reader.problems.sort_by_key(|problem| problem.line);
    if reader.problems.is_empty() { Ok(lab) } else { Err(LabError::File(reader.problems)) }
}

fn line(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

struct Reader<'a> {
    source: &'a Source,
    /// The file with its values.
    text: &'a str,
    hosts: BTreeSet<HostName>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, at: usize, sentence: String) {
        let line = line(self.text, at);
        self.problems.push(Problem { file: self.source.file.clone(), line, sentence });
    }

    /// The value, or its problem noted.
    fn sound<T>(&mut self, at: usize, result: Result<T, String>) -> Option<T> {
        result.map_err(|sentence| self.problem(at, sentence)).ok()
    }

    fn lab(&mut self, file: File, values: BTreeMap<String, String>, text: &str) -> Lab {
        let links = self.links(file.link);
        self.places(&file.port, &file.host, &links);
        let hosts = self.hosts(file.host);
        let faults = file.fault.into_iter().flat_map(|fault| self.steps(fault.run)).collect();
        let (introduction, parts) = course::parts(text);
        if parts.len() != file.stage.len() {
            let sentence = format!(
                "there are {} stages, and the text has {} headings that begin with \"## \": each stage has one, in the same order",
                file.stage.len(),
                parts.len()
            );
            self.problems.push(Problem { file: self.source.file.clone(), line: 0, sentence });
        }
        let mut parts = parts.into_iter().map(str::to_owned);
        let stages: Vec<Stage> =
            file.stage.into_iter().map(|stage| self.stage(stage, parts.next().unwrap_or_default())).collect();
        if stages.is_empty() {
            self.problem(0, "a lab has a [[stage]] at least: something to do, with a check".to_owned());
        }
        self.names(&stages);
        let introduction = introduction.to_owned();
        Lab { about: file.lab, values, switch: part(self.text, &links), hosts, faults, stages, introduction }
    }

    fn links(&mut self, links: Vec<LinkTable>) -> Vec<Link> {
        let mut read = Vec::new();
        for LinkTable { name, ends } in links {
            let at = ends.span().start;
            let [one, other] = ends.into_inner();
            let (Some(one), Some(other)) = (self.sound(at, End::parse(&one)), self.sound(at, End::parse(&other))) else {
                continue;
            };
            if one.host == other.host {
                self.problem(at, format!("both ends of the link are at {}: a link leads to another host", one.host));
            }
            for end in [&one, &other].into_iter().filter(|end| end.port().len() > 15) {
                self.problem(
                    at,
                    format!(
                        "\"{}\" is too long for a port: host and interface have 14 characters together at most",
                        end.port()
                    ),
                );
            }
            let name = name.unwrap_or_else(|| format!("{}-{}", one.host, other.host));
            read.push(Link { name, ends: [one, other] });
        }
        read
    }

    /// Finds all hosts: those of `[[host]]`, and wherever a port or a cable ends.
    fn places(&mut self, ports: &[PortTable], hosts: &[HostTable], links: &[Link]) {
        let mut found: Vec<(usize, String)> =
            hosts.iter().map(|host| (host.name.span().start, host.name.get_ref().clone())).collect();
        found.extend(
            ports.iter().filter_map(|port| port.netns.as_ref()).map(|netns| (netns.span().start, netns.get_ref().clone())),
        );
        for switch in hosts.iter().filter_map(|host| host.switch.as_ref()) {
            #[derive(Default, Deserialize)]
            #[serde(default)]
            struct Inner {
                port: Vec<PortTable>,
            }
            // What else is wrong in it, vswitchd tells.
            let inner: Inner = toml::from_str(switch.get_ref()).unwrap_or_default();
            let names = inner.port.into_iter().filter_map(|port| port.netns);
            found.extend(names.map(|netns| (switch.span().start, netns.into_inner())));
        }
        for (at, name) in found {
            if let Some(name) = self.sound(at, HostName::parse(&name)) {
                self.hosts.insert(name);
            }
        }
        self.hosts.extend(links.iter().flat_map(|link| &link.ends).map(|end| end.host.clone()));
    }

    fn hosts(&mut self, tables: Vec<HostTable>) -> Vec<Host> {
        let empty = |name: &HostName| Host {
            name: name.clone(),
            start: Vec::new(),
            daemons: Vec::new(),
            files: Vec::new(),
            switch: None,
        };
        let mut hosts: BTreeMap<HostName, Host> = self.hosts.iter().map(|name| (name.clone(), empty(name))).collect();
        let mut seen = BTreeSet::new();
        for table in tables {
            let at = table.name.span().start;
            let Ok(name) = HostName::parse(table.name.get_ref()) else { continue };
            if !seen.insert(name.clone()) {
                self.problem(at, format!("host \"{name}\" is there twice: put all of it below one [[host]]"));
            }
            let mut files = Vec::new();
            for (path, content) in table.files {
                let at = path.span().start;
                let path = self.sound(at, file_path(path.get_ref()));
                files.extend(path.map(|path| (path, content)));
            }
            let switch = table.switch.map(|text| {
                // Every line where it is in the lab's file.
                let before = line(self.text, text.span().start);
                let skipped = usize::from(
                    !self.text[text.span()].starts_with("\"\"\"\n") && !self.text[text.span()].starts_with("'''\n"),
                );
                "\n".repeat(before.saturating_sub(skipped)) + text.get_ref()
            });
            hosts.insert(name.clone(), Host { name, start: table.start, daemons: table.daemons, files, switch });
        }
        hosts.into_values().collect()
    }

    fn stage(&mut self, stage: StageTable, text: String) -> Stage {
        let at = stage.title.span().start;
        let checks = !stage.check.is_empty();
        let mut tasks: Vec<Task> = stage.check.into_iter().filter_map(|check| self.check(check)).collect();
        tasks.extend(stage.question.into_iter().filter_map(|question| self.question(question)));
        let title = stage.title.into_inner();
        if tasks.is_empty() {
            self.problem(at, format!("stage \"{title}\" has neither a [[stage.check]] nor a [[stage.question]]"));
        }
        if checks && (stage.solve.is_empty() || stage.wrong.is_empty()) {
            let sentence =
                format!("stage \"{title}\" needs `solve`, which does it, and `wrong`, which seems to: `lab verify` tries both");
            self.problem(at, sentence);
        }
        Stage { title, text, hints: stage.hints, solve: self.steps(stage.solve), wrong: self.steps(stage.wrong), tasks }
    }

    fn steps(&mut self, lines: Vec<Spanned<String>>) -> Vec<Step> {
        lines.into_iter().filter_map(|line| self.step(&line)).collect()
    }

    fn step(&mut self, line: &Spanned<String>) -> Option<Step> {
        let at = line.span().start;
        let step = self.sound(at, Step::parse(line.get_ref()))?;
        if let Some(host) = step.host.as_ref().filter(|host| !self.hosts.contains(*host)) {
            let known = list(self.hosts.iter().map(HostName::as_str));
            self.problem(at, format!("there is no host \"{host}\": this lab has {known}"));
            return None;
        }
        Some(step)
    }

    fn check(&mut self, table: CheckTable) -> Option<Task> {
        let step = self.step(&table.run);
        let between = table.between.as_ref().map(|range| (range.span().start, *range.get_ref()));
        let shows = self.pattern(table.shows.as_ref());
        if let Some((at, [low, high])) = between {
            if shows.as_ref().is_none_or(|pattern| pattern.captures_len() < 2) {
                self.problem(at, "`between` is about the number that the first group of `shows` matches: give it one, such as `shows = '(\\d+)% loss'`".to_owned());
            }
            if low.is_nan() || high.is_nan() || low > high {
                self.problem(at, format!("no number is between {low} and {high}: write the smaller first"));
            }
        }
        if table.fails && table.shows.is_none() && table.hides.is_none() && table.within.is_some() {
            self.problem(
                table.run.span().start,
                "`within` has no use where a command must fail: it fails until it does not".to_owned(),
            );
        }
        let within = table.within.and_then(|text| {
            let at = text.span().start;
            let time = humantime::parse_duration(text.get_ref()).ok().filter(|time| *time <= LONGEST_WAIT);
            self.sound(
                at,
                time.ok_or_else(|| {
                    format!("\"{}\" is no time up to 60s: write one such as \"5s\"", text.get_ref().escape_debug())
                }),
            )
        });
        let check = Check {
            step: step?,
            fails: table.fails,
            shows,
            hides: self.pattern(table.hides.as_ref()),
            between: between.map(|(_, range)| range),
            within: within.unwrap_or(if table.fails { Duration::ZERO } else { SETTLED }),
            holds: table.holds,
        };
        Some(Task { says: table.says, points: table.points, kind: TaskKind::Check(check) })
    }

    fn pattern(&mut self, text: Option<&Spanned<String>>) -> Option<Regex> {
        let text = text?;
        let pattern = RegexBuilder::new(text.get_ref()).multi_line(true).build();
        let wrong = |error: regex::Error| {
            let said = error.to_string();
            format!(
                "\"{}\" is no regular expression: {}",
                text.get_ref().escape_debug(),
                said.lines().last().unwrap_or_default()
            )
        };
        self.sound(text.span().start, pattern.map_err(wrong))
    }

    fn question(&mut self, table: QuestionTable) -> Option<Task> {
        let at = table.name.span().start;
        let name = table.name.into_inner();
        let answer = match (table.answer, table.from) {
            (Some(text), None) => Answer::Text(text),
            (None, Some(step)) => Answer::Asked(self.step(&step)?),
            _ => {
                self.problem(at, format!("question \"{name}\" has one of `answer`, a text, and `from`, a step that prints it"));
                return None;
            }
        };
        let question = Question { name, answer, tolerance: table.tolerance };
        Some(Task { says: table.ask, points: table.points, kind: TaskKind::Question(question) })
    }

    fn names(&mut self, stages: &[Stage]) {
        let mut seen = BTreeSet::new();
        for task in stages.iter().flat_map(|stage| &stage.tasks) {
            if let TaskKind::Question(question) = &task.kind
                && !seen.insert(&question.name)
            {
                let at = self.text.rfind(&format!("\"{}\"", question.name)).unwrap_or(0);
                self.problem(at, format!("two questions are called \"{}\": by its name a question is answered", question.name));
            }
        }
    }
}

/// A path of a host's file: relative and below, or in /etc.
fn file_path(path: &str) -> Result<String, String> {
    let below = path.strip_prefix("/etc/").unwrap_or(path);
    let is_sound = !below.is_empty() && below.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if is_sound {
        Ok(path.to_owned())
    } else {
        Err(format!("\"{}\" is no path for a host's file: use a relative one, or one in /etc", path.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"[lab]
name = "x"
title = "X"
summary = "S"
minutes = 10
[draw]
vlan = { between = [10, 99] }
[[bridge]]
name = "br0"
[[port]]
name = "a"
bridge = "br0"
netns = "pc1"
vlan = {{vlan}}
[[host]]
name = "h2"
files = { "/etc/resolv.conf" = "nameserver 10.0.0.1", "a.conf" = "x" }
switch = """
[[port]]
name = "c"
netns = "pc3"
"""
[[link]]
ends = ["pc1:eth1 10.0.0.1/30", "h2:eth1"]
[[stage]]
title = "One"
solve = ["pc1$ true"]
wrong = ["$ false"]
  [[stage.check]]
  says = "it is so"
  run = "pc3$ echo 5%"
  shows = '^(\d+)%'
  between = [4, 6]
  within = "2s"
  [[stage.question]]
  name = "q"
  ask = "Which?"
  answer = "{{vlan}}"
"#;

    fn told(toml: &str, text: &str) -> Vec<String> {
        let source = Source { file: "f".to_owned(), toml: toml.to_owned(), text: text.to_owned() };
        match read(&source, "1") {
            Ok(_) => Vec::new(),
            Err(LabError::File(problems)) => problems.iter().map(ToString::to_string).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_lab_is_a_switch_with_hosts_and_stages() {
        let source = Source { file: "f".to_owned(), toml: GOOD.to_owned(), text: "Intro {{vlan}}\n## One\nDo.\n".to_owned() };
        let lab = read(&source, "1").unwrap();
        let names: Vec<&str> = lab.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["h2", "pc1", "pc3"]);
        assert_eq!(lab.points(), 2);
        assert_eq!(lab.introduction, format!("Intro {}\n", lab.values["vlan"]));
        assert_eq!(lab.stages[0].text, "## One\nDo.\n");
        // What vswitchd says of a line is said of the lab's.
        let place = |text: &str, part: &str| text.lines().position(|line| line.contains(part)).unwrap();
        assert_eq!(place(&lab.switch, "netns = \"pc1\""), place(GOOD, "netns = \"pc1\""));
        let inner = lab.hosts[0].switch.as_ref().unwrap();
        assert_eq!(place(inner, "netns = \"pc3\""), place(GOOD, "netns = \"pc3\""));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let text = "## One\n";
        assert_eq!(told(GOOD, text), Vec::<String>::new());
        for (from, to, expected) in [
            ("pc1$ true", "pc9$ true", "f:27: there is no host \"pc9\": this lab has h2, pc1, pc3"),
            ("h2:eth1\"]", "pc1:eth2\"]", "f:24: both ends of the link are at pc1"),
            ("vlan = {{vlan}}", "vlan = {{wlan}}", "f:14: {{wlan}} has no value: [draw] has vlan"),
            ("[10, 99]", "[99, 10]", "f:7: `vlan` of [draw] is between 99 and 10"),
            ("'^(\\d+)%'", "'^(\\d+%'", "f:32: \"^(\\\\d+%\" is no regular expression"),
            ("between = [4, 6]", "between = [6, 4]", "f:33: no number is between 6 and 4"),
            ("'^(\\d+)%'", "'%'", "f:33: `between` is about the number"),
            ("\"2s\"", "\"2\"", "f:34: \"2\" is no time up to 60s"),
            ("wrong = [\"$ false\"]", "", "f:26: stage \"One\" needs `solve`"),
            ("answer = \"{{vlan}}\"", "", "f:36: question \"q\" has one of"),
            ("minutes = 10", "minute = 10", "f:5: unknown field `minute`"),
            ("\"a.conf\"", "\"../a.conf\"", "f:17: \"../a.conf\" is no path"),
            ("[[link]]", "[[cable]]", "f:23: unknown field `cable`"),
            ("[draw]", "[switch]\nworkers = 2\n[draw]", "f:6: unknown field `switch`"),
        ] {
            let found = told(&GOOD.replacen(from, to, 1), text);
            assert!(found.iter().any(|told| told.starts_with(expected)), "{expected:?}: {found:?}");
        }
        assert!(told(GOOD, "## One\n## Two\n")[0].contains("there are 1 stages, and the text has 2 headings"));
    }
}
