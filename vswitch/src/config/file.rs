//! Reading `switch.toml`. Every problem is found in one go: an entry in which something is wrong is read again without it.

mod check;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::syntax::{Damage, Stumble, repair};
use super::table::{TABLES, Tabular};
use super::{Config, Problem, SwitchSettings};
use crate::broker::{SystemError, requests};
use api::read::about;
use api::{BridgeSpec, ForwardSpec, PortSpec, UplinkSpec, VxlanSpec};

/// Most bytes of a file; 20,000 ports need less.
const LARGEST: u64 = 4 << 20;

/// The file of the switch whose broker this process is.
static OWN: OnceLock<PathBuf> = OnceLock::new();

requests! {
    /// Reads the file that vswitchd was started with, where its directories or itself are for those with rights. No other can be asked for.
    fn read_own() -> Result<Vec<u8>, SystemError>, by read_as_broker;
}

/// Says which file this process reads for others.
pub(crate) fn set_own(path: &Path) {
    // Said once.
    let _ = OWN.set(path.to_owned());
}

/// Which file that is.
pub(crate) fn own() -> Option<&'static Path> {
    OWN.get().map(PathBuf::as_path)
}

fn read_as_broker() -> Result<Vec<u8>, SystemError> {
    let path = own().ok_or_else(|| SystemError(io::ErrorKind::PermissionDenied.into()))?;
    read(path).map_err(SystemError)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    let unreadable = |error: std::io::Error| vec![Problem::of_file(path, format!("cannot be read: {error}"))];
    let bytes = read(path).or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => read_own().map_err(|error| error.0),
        _ => Err(error),
    });
    let bytes = bytes.map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(vec![Problem::of_file(path, format!("has more than {LARGEST} bytes, and no switch.toml needs so many"))]);
    }
    let text = String::from_utf8(bytes).map_err(|_| vec![Problem::of_file(path, "is not text in UTF-8".to_owned())])?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Config, Vec<Problem>> {
    let (repaired, stumbles) = repair(text);
    let root = DeTable::parse_recoverable(&repaired).0.into_inner();
    let damage = Damage::of(text, &root, stumbles.iter().map(|stumble| stumble.at).collect());
    let mut reader = Reader { path, text, damage, problems: Vec::new() };
    for Stumble { at, message } in stumbles {
        reader.problem(at..at, sentence_of(&message));
    }
    let config = reader.config(root);
    if reader.problems.is_empty() {
        return Ok(config);
    }
    reader.problems.sort_by_key(Problem::position);
    Err(reader.problems)
}

/// One entry, and where its keys are.
struct Entry<T> {
    spec: T,
    keys: HashMap<String, Range<usize>>,
    start: Range<usize>,
}

impl<T> Entry<T> {
    /// Where `key` is, or the entry.
    fn place(&self, key: &str) -> Range<usize> {
        self.keys.get(key).unwrap_or(&self.start).clone()
    }
}

/// Every entry of a name that could be read.
struct Entries<T> {
    list: Vec<Entry<T>>,
    /// Whether these are all that the file has.
    complete: bool,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { list: Vec::new(), complete: true }
    }
}

impl<T> Entries<T> {
    fn specs(self) -> Vec<T> {
        self.list.into_iter().map(|entry| entry.spec).collect()
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    damage: Damage,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, span: Range<usize>, sentence: String) {
        self.problems.push(Problem::at(self.path, self.text, span.start, sentence));
    }

    fn config(&mut self, mut root: DeTable<'_>) -> Config {
        self.take_flannels(&mut root);
        let (mut switch, mut nat, mut docker, mut web, mut capture) = (None, None, None, None, None);
        let (mut cluster, mut has_cluster, mut flannel) = (None, self.damage.may_hide("cluster"), None);
        let (mut uplinks, mut forwards) = (Entries::default(), Entries::default());
        let (mut bridges, mut ports, mut vxlans) = (Entries::default(), Entries::default(), Entries::default());
        for (key, value) in root {
            match &**key.get_ref() {
                "switch" => switch = self.entry(value),
                "nat" => nat = self.entry(value),
                "docker" => docker = self.entry(value),
                "web" => web = self.entry(value),
                "capture" => capture = self.entry(value),
                "cluster" => (cluster, has_cluster) = (self.entry(value), true),
                "flannel" => flannel = self.entry(value),
                "bridge" => bridges = self.entries(value),
                "port" => ports = self.entries(value),
                "uplink" => uplinks = self.entries(value),
                "forward" => forwards = self.entries(value),
                "vxlan" => vxlans = self.entries(value),
                _ => self.stray(&key, value.get_ref()),
            }
        }
        bridges.complete &= !self.damage.may_hide("bridge");
        uplinks.complete &= !self.damage.may_hide("uplink");
        self.check_names(("bridge", "name"), &bridges.list, |spec: &BridgeSpec| spec.name.to_string());
        self.check_names(("uplink", "name"), &uplinks.list, |spec: &UplinkSpec| spec.name.to_string());
        self.check_names(("forward", "port"), &forwards.list, |spec: &ForwardSpec| spec.key.to_string());
        self.check_places(&ports.list);
        self.check_tunnels(&ports.list, &uplinks.list, &vxlans.list);
        // A bridge in which something is wrong was left out. That its ports then lack a bridge is no news.
        if bridges.complete {
            self.check_members("port", &bridges.list, &ports.list, |spec: &PortSpec| (&spec.name, &spec.bridge));
            self.check_members("vxlan", &bridges.list, &vxlans.list, |spec: &VxlanSpec| (&spec.name, &spec.bridge));
        }
        self.check_network(&uplinks, &bridges, &ports.list, &forwards.list);
        if uplinks.complete {
            docker.iter().for_each(|docker| self.check_docker(docker, &uplinks.list));
        }
        if !has_cluster {
            self.check_overlays(&bridges.list);
        }
        cluster.iter().for_each(|cluster| self.check_given(&cluster.spec, &bridges.list));
        flannel.iter().for_each(|flannel| self.check_flannel(flannel, &bridges, &uplinks));
        let warnings = self.warnings(&bridges.list, &ports.list, cluster.as_ref());
        Config {
            switch: switch.map(|entry| entry.spec).unwrap_or_default(),
            nat: nat.map(|entry| entry.spec).unwrap_or_default(),
            docker: docker.map(|entry| entry.spec).unwrap_or_default(),
            web: web.map(|entry| entry.spec),
            capture: capture.map(|entry| entry.spec).unwrap_or_default(),
            cluster: cluster.map(|entry| entry.spec),
            flannel: flannel.map(|entry| entry.spec),
            bridges: bridges.specs(),
            ports: ports.specs(),
            vxlans: vxlans.specs(),
            uplinks: uplinks.specs(),
            forwards: forwards.specs(),
            warnings,
        }
    }

    /// Notes what stands in the file itself and is no table of it.
    fn stray(&mut self, key: &Spanned<Cow<'_, str>>, value: &DeValue<'_>) {
        let (name, span) = (&**key.get_ref(), key.span());
        if matches!(value, DeValue::Table(_) | DeValue::Array(_)) {
            return self.unknown("table", name, "the file", TABLES, span);
        }
        let place = if SwitchSettings::KEYS.contains(&name) { "[switch]" } else { "the table that it belongs to" };
        self.problem(span, format!("`{}` is above all tables: write it below {place}", name.escape_debug()));
    }

    fn entries<T: Tabular>(&mut self, value: Spanned<DeValue<'_>>) -> Entries<T> {
        let (span, table) = (value.span(), T::NAME);
        let DeValue::Array(array) = value.into_inner() else {
            self.problem(span, format!("{table} is a list of tables: write [[{table}]] above each"));
            return Entries { list: Vec::new(), complete: false };
        };
        let listed = array.len();
        let list: Vec<Entry<T>> = array.into_iter().filter_map(|value| self.entry(value)).collect();
        Entries { complete: list.len() == listed, list }
    }

    /// Reads a table, noting each problem; `None` if there were any.
    fn entry<T: Tabular>(&mut self, value: Spanned<DeValue<'_>>) -> Option<Entry<T>> {
        let (before, start, table) = (self.problems.len(), value.span(), T::NAME);
        let damaged = self.damage.is_in_table(start.start);
        let DeValue::Table(mut fields) = value.into_inner() else {
            self.problem(start, format!("{table} is a table: write its keys below {}", above::<T>()));
            return None;
        };
        let keys = fields.iter().map(|(key, _)| (key.get_ref().to_string(), key.span())).collect();
        for (key, value) in std::mem::take(&mut fields) {
            if self.is_known(table, key.get_ref(), key.span(), T::KEYS) {
                fields.insert(key, value);
            }
        }
        let spec = self.value(&Heading { keys: &keys, start: &start, damaged }, fields);
        let spec = spec.filter(|_| self.problems.len() == before && !damaged)?;
        Some(Entry { spec, keys, start })
    }

    /// Reads the fields of a table. One in which something is wrong is noted and taken out, and the rest is read again.
    fn value<T: Tabular>(&mut self, heading: &Heading<'_>, mut fields: DeTable<'_>) -> Option<T> {
        let missing: Vec<&str> = T::NEEDED.iter().copied().filter(|key| !heading.keys.contains_key(*key)).collect();
        if !missing.is_empty() && !heading.damaged {
            let list = missing.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and no ");
            self.problem(heading.start.clone(), format!("{} has no {list}", above::<T>()));
        }
        loop {
            let value = Spanned::new(heading.start.clone(), DeValue::Table(fields.clone()));
            let wrong = match T::read(value) {
                Ok(table) => match T::check(table) {
                    Ok(spec) => return Some(spec),
                    Err(wrong) => wrong,
                },
                Err(error) => {
                    // An error without a culprit is about a missing key: the file lacks it, which was noted above, or it was taken out here.
                    let key = culprit(&fields, &error)?;
                    let sentence = sentence_of(error.message());
                    let within = fields.get(key.as_str()).and_then(|value| self.place_within(value, &sentence));
                    self.problem(within.unwrap_or_else(|| heading.place(&key)), about(&key, &sentence));
                    fields.remove(key.as_str());
                    continue;
                }
            };
            // The table may seem wrong only because a key was taken out or is damaged.
            let is_there = |key: &&&str| fields.contains_key(**key);
            let lost = |key: &&str| heading.keys.contains_key(*key) && !fields.contains_key(*key);
            let hidden = wrong.keys.iter().any(lost) || heading.damaged && !wrong.keys.iter().all(|key| is_there(&key));
            let key = wrong.keys.iter().find(is_there).copied();
            if !hidden {
                let place = key.map_or_else(|| heading.start.clone(), |key| heading.place(key));
                self.problem(place, wrong.sentence);
            }
            fields.remove(key?);
        }
    }

    /// Where in a table that is a value the key is that a sentence begins with; if its value is an impairment, the word that is wrong.
    fn place_within(&self, value: &Spanned<DeValue<'_>>, sentence: &str) -> Option<Range<usize>> {
        let DeValue::Table(table) = value.get_ref() else { return None };
        let name = sentence.strip_prefix('`')?.split_once('`')?.0;
        let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
        let DeValue::String(words) = value.get_ref() else { return Some(key.span()) };
        let (start, written) = (value.span().start, self.text.get(value.span())?);
        // In what is written otherwise, the words are not where they are in the text that it stands for.
        let is_plain = written.len() == words.len() + 2 && !written.contains('\\');
        let before = words.parse::<api::Impairment>().err().filter(|_| is_plain).map(|wrong| wrong.column() - 1);
        let at = start + before.map_or(0, |before| 1 + words.chars().take(before).map(char::len_utf8).sum::<usize>());
        Some(at..at)
    }

    /// Whether a key is for its table's type to read; if it is not, that is noted unless it means nothing.
    fn is_known(&mut self, table: &str, key: &str, span: Range<usize>, known: &[&str]) -> bool {
        if known.contains(&key) {
            return true;
        }
        self.unknown("key", key, &format!("[{table}]"), known, span);
        false
    }

    fn unknown(&mut self, what: &str, name: &str, place: &str, known: &[&str], span: Range<usize>) {
        let near = nearest(name, known.iter().copied());
        let hint = near.map_or_else(|| format!("use {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
        self.problem(span, format!("unknown {what} `{}` in {place}: {hint}", name.escape_debug()));
    }
}

/// A table while it is read.
struct Heading<'a> {
    /// Where its keys are.
    keys: &'a HashMap<String, Range<usize>>,
    start: &'a Range<usize>,
    /// Whether something in it is no TOML.
    damaged: bool,
}

impl Heading<'_> {
    fn place(&self, key: &str) -> Range<usize> {
        self.keys.get(key).unwrap_or(self.start).clone()
    }
}

/// What stands above the keys of a table.
fn above<T: Tabular>() -> String {
    if T::IS_SINGLE { format!("[{}]", T::NAME) } else { format!("[[{}]]", T::NAME) }
}

/// The key whose value an error is about.
fn culprit(fields: &DeTable<'_>, error: &toml::de::Error) -> Option<String> {
    let at = error.span()?;
    let holds = |value: &Spanned<DeValue<'_>>| value.span().start <= at.start && at.end <= value.span().end;
    let (key, _) = fields.iter().find(|(_, value)| holds(value))?;
    Some(key.get_ref().to_string())
}

/// What the parser says, on one line.
fn sentence_of(message: &str) -> String {
    let message = message.trim();
    // A table within a table is read by serde, which calls its keys fields.
    let field = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected "));
    match field {
        Some((key, known)) => format!("unknown key `{key}`: use {}", known.trim_start_matches("one of ")),
        None => message.replace('\n', "; "),
    }
}

/// The name that was probably meant: at most a third of its characters are different.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|known| (strsim::damerau_levenshtein(name, known), known));
    let (distance, known) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance * 3 <= known.len().max(3)).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NatSettings;
    use crate::docker::DockerSettings;

    fn problems(text: &str) -> Vec<String> {
        match parse(Path::new("f"), text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[track_caller]
    fn only(text: &str, problem: &str) {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].starts_with(problem), "{found:?} instead of {problem:?}");
    }

    const BRIDGE: &str = "[[bridge]]\nname = \"br0\"\n";

    #[test]
    fn an_empty_file_is_a_switch() {
        let config = parse(Path::new("f"), "").unwrap();
        assert_eq!(config.switch, SwitchSettings::default());
        assert_eq!((config.bridges.len(), config.ports.len()), (0, 0));
    }

    #[test]
    fn what_is_most_likely_a_mistake_is_warned_of_where_it_stands() {
        let warnings = |text: &str| -> Vec<String> {
            let config = parse(Path::new("f"), text).unwrap();
            config.warnings.iter().map(ToString::to_string).collect()
        };
        let bridge = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.254/24\"]\n";
        let port = |name: &str, rest: &str| format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\n{rest}\n");
        let two = |one: &str, other: &str| format!("{bridge}{}{}", port("a", one), port("b", other));
        let (mac, address) = ("mac = \"02:00:00:00:00:01\"", "addresses = [\"10.0.0.1/24\"]");
        let found = warnings(&two(mac, mac));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("f:11:1: warning: port \"b\" has MAC address 02:00:00:00:00:01 as port \"a\" has"),
            "{found:?}"
        );
        let found = warnings(&two(address, address));
        assert!(found[0].starts_with("f:11:1: warning: port \"b\" has address 10.0.0.1 as port \"a\" has"), "{found:?}");
        let found = warnings(&two("addresses = [\"10.1.0.1/24\", \"fd00::1/64\"]", ""));
        assert_eq!(found.len(), 1, "the bridge has no subnet of IPv6: {found:?}");
        assert!(
            found[0].starts_with("f:7:1: warning: port \"a\" has address 10.1.0.1/24, which is in none of the subnets"),
            "{found:?}"
        );
        let apart = |one: &str| (format!("{one}\nvlan = 10"), format!("{one}\nvlan = 20"));
        for one in [mac, address, "addresses = [\"10.1.0.1/24\"]"] {
            let (one, other) = apart(one);
            assert_eq!(warnings(&two(&one, &other)), [""; 0], "in VLANs of their own");
        }
        assert_eq!(warnings(&two(address, "addresses = [\"10.0.0.2/24\"]")), [""; 0]);
    }

    #[test]
    fn a_problem_has_its_line_and_column() {
        only("[switch\n", "f:1:8: ");
        only("[switch]\nworkers = \"two\"\n", "f:2:1: `workers` is \"two\": write a whole number");
        only("[switch]\nworkers = 0\n", "f:2:1: `workers` is 0: use 1 to 64");
        only("[[bridge]]\nname = \"br0\"\ncolour = 1\n", "f:3:1: unknown key `colour` in [bridge]: use name, mtu, ");
        only("[[bridge]]\nname = \"br0\"\nmax-mac = 1\n", "f:3:1: unknown key `max-mac` in [bridge]: did you mean `max-macs`?");
        only("[[brigde]]\nname = \"br0\"\n", "f:1:3: unknown table `brigde` in the file: did you mean `bridge`?");
        only("workers = 2\n", "f:1:1: `workers` is above all tables: write it below [switch]");
        only("mtu = 1500\n", "f:1:1: `mtu` is above all tables: write it below the table that it belongs to");
        only("[bridge]\nname = \"br0\"\n", "f:1:1: bridge is a list of tables: write [[bridge]] above each");
        only(
            "[[bridge]]\nname = \"a-name-of-18-chars\"\n",
            "f:2:1: `name`: bridge name \"a-name-of-18-chars\" has 18 characters",
        );
        only("[[bridge]]\nmtu = 1500\n", "f:1:1: [[bridge]] has no `name`");
        only("[[bridge]]\nname = \"br0\"\nmtu = 9\n", "f:3:1: MTU 9 of bridge \"br0\" is out of range");
    }

    #[test]
    fn every_problem_is_reported_in_order() {
        let text = "[[bridge]]\nname = \"br0\"\nmtu = \"x\"\ncolour = 2\nageing = \"soon\"\n\
                    [[port]]\nname = \"a\"\nbridge = \"br0\"\nmac = \"ä\"\nvlan = 4095\n[clusters]\n";
        let found = problems(text);
        let starts = [
            "f:3:1: `mtu` is \"x\"",
            "f:4:1: unknown key",
            "f:5:1: `ageing`",
            "f:9:1: `mac`",
            "f:10:1: `vlan`",
            "f:11:2: unknown table `clusters`",
        ];
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        for (problem, start) in found.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem:?} instead of {start:?}");
        }
    }

    #[test]
    fn docker_is_given_an_uplink_of_the_file() {
        only(
            "[docker]\nenabled = true\nuplink = \"wan\"\n",
            "f:3:1: `uplink` of [docker] is \"wan\", which the file does not have",
        );
        only("[docker]\nsockets = \"/x\"\n", "f:2:1: unknown key `sockets` in [docker]: did you mean `socket`?");
        assert_eq!(problems("[docker]\nuplink = \"wan\"\n[[uplink]]\nname = \"wan\"\nkind = \"host\"\n"), Vec::<String>::new());
    }

    #[test]
    fn names_and_devices_are_used_once() {
        only(&format!("{BRIDGE}{BRIDGE}"), "f:4:1: bridge \"br0\" is in line 2 already");
        let port = |name: &str, rest: &str| format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\n{rest}");
        only(&format!("{BRIDGE}{}{}", port("a", ""), port("a", "")), "f:7:1: port \"a\" is in line 4 already");
        let same = "ifname = \"eth0\"\nnetns = ";
        let text =
            format!("{BRIDGE}{}{}", port("a", &format!("{same}\"x\"\n")), port("b", &format!("{same}\"/run/netns/x\"\n")));
        only(&text, "f:11:1: port \"b\" wants interface \"eth0\", which is that of port \"a\"");
        let text = format!("{BRIDGE}[[port]]\nname = \"a\"\nbridge = \"br1\"\n");
        only(&text, "f:5:1: port \"a\" is on bridge \"br1\", which the file does not have: did you mean \"br0\"?");
    }

    #[test]
    fn tunnels_share_neither_names_nor_networks() {
        let vxlan =
            |name: &str, rest: &str| format!("[[vxlan]]\nname = \"{name}\"\nbridge = \"br0\"\nlocal = \"192.0.2.1\"\n{rest}\n");
        let text = format!("{BRIDGE}[[port]]\nname = \"a\"\nbridge = \"br0\"\n{}", vxlan("a", "vni = 1"));
        only(&text, "f:7:1: the name \"a\" is in line 4 already");
        let text = format!("{BRIDGE}{}{}", vxlan("x", "vni = 7"), vxlan("y", "vni = 7"));
        only(&text, "f:12:1: vxlan \"y\" has VNI 7 on UDP port 4789, as vxlan \"x\" has: give it another `vni` or `port`");
        let text = format!("{BRIDGE}{}{}", vxlan("x", "vni = 7"), vxlan("y", "vni = 7\nport = 8472"));
        assert_eq!(problems(&text), [""; 0]);
        let uplink = "[[uplink]]\nname = \"x\"\nkind = \"host\"\n";
        only(&format!("{BRIDGE}{}{uplink}", vxlan("x", "vni = 7")), "f:4:1: the name \"x\" is in line 9 already");
        only(&format!("{BRIDGE}{}", vxlan("x", "vni = 16777216")), "f:7:1: `vni`: 16777216 is not a VNI: use a number from 0");
        let text = vxlan("x", "vni = 7").replace("br0", "br1");
        only(&format!("{BRIDGE}{text}"), "f:5:1: vxlan \"x\" is on bridge \"br1\", which the file does not have: did you mean");
    }

    #[test]
    fn an_overlay_needs_a_cluster_and_one_bridge() {
        only(
            &format!("{BRIDGE}overlay = \"x\"\n"),
            "f:3:1: bridge \"br0\" has overlay \"x\", and the file has no [cluster]: add one",
        );
        let cluster =
            "[cluster]\nstore = \"etcd\"\nnode = \"a\"\nunderlay = \"192.0.2.1\"\nendpoints = [\"http://192.0.2.9:2379\"]\n";
        let sound = format!("{BRIDGE}overlay = \"x\"\n{cluster}");
        assert_eq!(problems(&sound), [""; 0]);
        // What is wrong with the cluster is told, and not that there is none.
        only(&sound.replace("etcd", "redis"), "f:5:1: `store`: \"redis\" is no store: use etcd, consul, zookeeper or gossip");
        let gossip = sound
            .replace("etcd", "gossip")
            .replace("http://", "")
            .replace(BRIDGE, &format!("{BRIDGE}dhcp = true\naddresses = [\"10.0.0.1/24\"]\n"));
        only(
            &gossip,
            "f:3:1: bridge \"br0\" has overlay \"x\" and `dhcp`, and store = \"gossip\" shares out no addresses: give",
        );
        only(&sound.replace("http://", ""), "f:8:1: endpoint \"192.0.2.9:2379\" has no scheme");
        let slip = problems(&sound.replace("store", "stores"));
        let unknown = "f:5:1: unknown key `stores` in [cluster]: did you mean `store`?";
        assert_eq!(slip, ["f:4:1: [cluster] has no `store`", unknown]);
        only(
            &format!("{sound}[[bridge]]\nname = \"br1\"\noverlay = \"x\"\n"),
            "f:11:1: bridge \"br1\" has overlay \"x\", as bridge \"br0\"",
        );
    }

    #[test]
    fn the_bridge_of_flannel_is_told_to_give_no_subnet() {
        let flannel = "[flannel]\nendpoints = [\"http://192.0.2.9:2379\"]\nunderlay = \"192.0.2.1\"\nbridge = \"br0\"\n";
        for (line, advice) in [
            ("dhcp = true", "write `dhcp` in [flannel]"),
            ("uplink = \"wan\"", "write `uplink` in [flannel]"),
            ("addresses = [\"10.0.0.1/24\"]", "remove `addresses`, and write `dhcp` and `uplink` in [flannel]"),
            ("routes = [\"10.9.0.0/16 via 10.0.0.2\"]", "remove `routes`: those of the other hosts come with it"),
        ] {
            let said = format!("f:3:1: bridge \"br0\" is the bridge of [flannel], which gets its subnet there: {advice}");
            only(&format!("{BRIDGE}{line}\n{flannel}"), &said);
        }
        assert_eq!(problems(&format!("{BRIDGE}dhcp = false\naddresses = []\n{flannel}")), [""; 0]);
    }

    #[test]
    fn what_cannot_be_together_is_named_where_it_comes_later() {
        let bridge = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.1/24\"]\nuplink = \"wan\"\n";
        let wan = "[[uplink]]\nname = \"wan\"\nkind = \"link\"\ndevice = \"e\"\naddress = ";
        only(bridge, "f:4:1: bridge \"br0\" has uplink \"wan\", which does not exist");
        let text = format!("{bridge}{wan}\"10.0.0.9/8\"\n");
        only(&text, "f:3:1: subnet 10.0.0.1/24 of bridge \"br0\" overlaps 10.0.0.9/8 of uplink \"wan\"");
        let forward = "[[forward]]\nuplink = \"wan\"\nprotocol = \"tcp\"\nport = 80\nto = \"10.0.1.2:80\"\n";
        let text = format!("{bridge}{wan}\"192.0.2.9/24\"\n{forward}");
        only(&text, "f:14:1: forward wan tcp/80 goes to 10.0.1.2");
        let text = format!("{bridge}{wan}\"192.0.2.9/24\"\n{}", forward.replace("0.1.2", "0.0.2"));
        assert_eq!(problems(&text), [""; 0]);
        only("[nat]\nudp = \"0s\"\n", "f:2:1: `udp` is 0s: use 1s to 1000000s");
    }

    /// A line of each kind of value that TOML knows, sound and far from what any key wants.
    const VALUES: [&str; 12] = [
        "true",
        "-5",
        "70000000000",
        "1.5",
        "\"no such thing!\"",
        "\"\"",
        "1979-05-27",
        "[]",
        "[true]",
        "[{ x = 1 }]",
        "{ x = 1 }",
        "[\"10.0.0.1\"]",
    ];

    /// What a reader of serde's or toml's source would understand.
    const JARGON: [&str; 12] =
        ["invalid", "expected", "variant", "sequence", "boolean", "u16", "u32", "i64", "usize", "string", "field", "struct"];

    /// A table with all that it needs, and which must have the values that are right to know which are wrong.
    fn sound(table: &str) -> (&'static str, &'static str) {
        match table {
            "switch" => ("[switch]", ""),
            "nat" => ("[nat]", ""),
            "docker" => ("[docker]", ""),
            "cluster" => (
                "[cluster]",
                "store = \"etcd\"\nnode = \"a\"\nunderlay = \"192.0.2.1\"\nendpoints = [\"http://192.0.2.9:2379\"]",
            ),
            "bridge" => ("[[bridge]]", "name = \"br0\""),
            "port" => ("[[port]]", "name = \"a\"\nbridge = \"br0\""),
            "uplink" => ("[[uplink]]", "name = \"wan\"\nkind = \"host\""),
            "forward" => ("[[forward]]", "uplink = \"wan\"\nprotocol = \"tcp\"\nport = 80\nto = \"10.0.0.2:80\""),
            _ => ("[[vxlan]]", "name = \"vx0\"\nbridge = \"br0\"\nvni = 1\nlocal = \"192.0.2.1\""),
        }
    }

    /// Puts each wrong value at a key, and looks at every sentence about that line.
    fn try_values<T: Tabular>() -> usize {
        let (header, rest) = sound(T::NAME);
        let mut tried = 0;
        for key in T::KEYS {
            let others = rest.lines().filter(|line| !line.starts_with(&format!("{key} ="))).collect::<Vec<_>>().join("\n");
            for value in VALUES {
                // A line before and one after, so that a wrong position does not go unseen.
                let text = format!("# nothing\n\n{header}\n  {key} = {value}\n{others}\n");
                let found = problems(&text);
                let here: Vec<&String> = found.iter().filter(|problem| problem.starts_with("f:4:3: ")).collect();
                for problem in &found {
                    let lower = problem.to_lowercase();
                    let jargon = JARGON.iter().find(|word| lower.contains(*word));
                    assert_eq!(jargon, None, "{text}{problem}");
                    assert!(!problem.contains('\n') && problem.contains(": "), "{text}{problem}");
                }
                let is_fine = toml::from_str::<T::Table>(&format!("{key} = {value}\n{others}"))
                    .is_ok_and(|table| T::check(table).is_ok());
                assert!(is_fine || !here.is_empty(), "{text}{found:#?}");
                assert!(here.len() <= 1, "one problem of a value: {text}{here:#?}");
                tried += usize::from(!is_fine);
            }
        }
        tried
    }

    #[test]
    fn every_key_tells_every_wrong_value_in_a_sentence_at_its_own_place() {
        let tried = [
            try_values::<SwitchSettings>(),
            try_values::<NatSettings>(),
            try_values::<DockerSettings>(),
            try_values::<BridgeSpec>(),
            try_values::<PortSpec>(),
            try_values::<UplinkSpec>(),
            try_values::<ForwardSpec>(),
            try_values::<VxlanSpec>(),
            try_values::<crate::overlay::ClusterSettings>(),
        ];
        assert!(tried.iter().sum::<usize>() > 600, "{tried:?}");
    }

    #[test]
    fn the_commonest_slips_are_told_with_what_would_be_right() {
        let port = "[[port]]\nname = \"a\"\nbridge = \"br0\"\n";
        only(
            &format!("{BRIDGE}addresses = [\"10.0.0.1\"]\n"),
            "f:3:1: `addresses`: \"10.0.0.1\" has no prefix length: add it, such as /24",
        );
        only(
            &format!("{BRIDGE}addresses = [\"fd00::1\"]\n"),
            "f:3:1: `addresses`: \"fd00::1\" has no prefix length: add it, such as /64",
        );
        only(
            &format!("{BRIDGE}addresses = \"10.0.0.1/24\"\n"),
            "f:3:1: `addresses` is \"10.0.0.1/24\", and a list is wanted: write it in brackets, [\"10.0.0.1/24\"]",
        );
        only(&format!("{BRIDGE}mtu = -5\n"), "f:3:1: MTU -5 of bridge \"br0\" is out of range: use 68 to 65535");
        let taps = "[[port]]\nname = \"a\"\nbridge = \"br0\"\n[[port]]\nname = \"b\"\nbridge = \"br0\"\n";
        only(
            &format!("{BRIDGE}mtu = 65535\n{taps}"),
            "f:3:1: bridge \"br0\" would have MTU 65535, but port \"a\" is on it, a TAP, which takes at most 65521: use that or less",
        );
        only(&format!("{BRIDGE}mtu = \"1500\"\n"), "f:3:1: `mtu` is \"1500\": write the number without quotes");
        only(&format!("{BRIDGE}ageing = 300\n"), "f:3:1: `ageing`: 300 has no unit: write \"300s\" if seconds are meant");
        only(&format!("{BRIDGE}dhcp = \"yes\"\n"), "f:3:1: `dhcp` is \"yes\": write true or false, without quotes");
        only(
            &format!("{BRIDGE}control-frames = \"flood\"\n"),
            "f:3:1: `control-frames` is \"flood\": write \"drop\" or \"pass\"",
        );
        only(&format!("{BRIDGE}{port}kind = \"bridge\"\n"), "f:6:1: `kind` is \"bridge\": write \"tap\", \"veth\" or \"link\"");
        only(&format!("{BRIDGE}{port}vlan = -1\n"), "f:6:1: `vlan`: -1 is not a VLAN: use a number from 1 to 4094");
        only(
            &format!("{BRIDGE}{port}netns = 1234\n"),
            "f:6:1: `netns` is 1234: write a network namespace such as \"red\", in quotes",
        );
        let forward = "[[uplink]]\nname = \"wan\"\nkind = \"host\"\n[[forward]]\nuplink = \"wan\"\nprotocol = \"tcp\"\nto = \"10.0.0.2:80\"\nport = ";
        only(&format!("{forward}70000\n"), "f:8:1: \"70000\" is not a port or a range of ports: write 8080 or 5000-5100");
        let vxlan = format!("{BRIDGE}[[vxlan]]\nname = \"x\"\nbridge = \"br0\"\nvni = 1\nlocal = \"192.0.2.1\"\n");
        only(&format!("{vxlan}port = 70000\n"), "f:8:1: `port` of vxlan \"x\" is 70000: use 4789, ");
        only(&format!("{vxlan}peers = [\"192.0.2.2/24\"]\n"), "f:8:1: `peers`: \"192.0.2.2/24\" has a prefix length");
        only(&format!("{vxlan}static = [{{ mac = \"02:00:00:00:00:01\" }}]\n"), "f:8:1: `static`: a station has no `peer`");
        only("[[uplink]]\nkind = \"host\"\n", "f:1:1: [[uplink]] has no `name`");
    }

    #[test]
    fn a_wrong_word_of_an_impairment_is_pointed_at() {
        let port = format!("{BRIDGE}[[port]]\nname = \"a\"\nbridge = \"br0\"\n");
        let loss = "at \"130%\", column 18: that is more than all packets";
        for (text, at) in [
            ("[port.impair]\nseed = 7\nin = \"rate 50mbit loss 130%\"\n", "8:24"),
            ("impair = { in = \"rate 50mbit loss 130%\" }\n", "6:35"),
            ("[port.impair]\nin = '''rate 50mbit loss 130%'''\n", "7:6"),
        ] {
            only(&format!("{port}{text}"), &format!("f:{at}: `impair`: `in` {loss}"));
        }
        only(&format!("{port}[port.impair]\nout = \"delay 5ms\"\nseed = -1\n"), "f:8:1: `impair`: `seed` is -1");
        only(&format!("{port}[port.impair]\nout = \"delay 5ms\"\nsede = 1\n"), "f:6:7: `impair`: unknown key `sede`");
        only(&format!("{port}[port.impair]\nseed = 1\n"), "f:7:1: `impair`: `seed` stands alone");
    }

    #[test]
    fn a_trunk_is_a_list_or_a_text_of_vlans_and_ranges() {
        let trunk = |value: &str| {
            let text = format!("{BRIDGE}[[port]]\nname = \"a\"\nbridge = \"br0\"\ntrunk = {value}\n");
            let config = parse(Path::new("f"), &text).map_err(|problems| problems[0].to_string())?;
            let api::VlanMode::Trunk { allowed, .. } = config.ports[0].vlans.clone() else { panic!("{value}") };
            Ok::<_, String>(allowed.iter().map(|vlan| vlan.number()).collect::<Vec<u16>>())
        };
        assert_eq!(trunk("\"1-10\"").unwrap(), (1..=10).collect::<Vec<_>>());
        assert_eq!(trunk("\"20,1-3\"").unwrap(), [1, 2, 3, 20]);
        assert_eq!(trunk("[\"1-3\", 20, \"7\"]").unwrap(), [1, 2, 3, 7, 20]);
        assert_eq!(trunk("20").unwrap(), [20]);
        assert_eq!(trunk("\"9-1\"").unwrap_err(), "f:6:1: `trunk`: 9-1 goes backwards: write 1-9");
        assert_eq!(trunk("true").unwrap_err(), "f:6:1: `trunk` is true: write VLANs, such as [10, 20] or \"10-20\"");
    }

    #[test]
    fn all_that_is_wrong_with_an_entry_is_told_at_once() {
        let text = "[[bridge]]\nname = \"br0\"\nageing = 5\nmtu = 9\nmax-macs = 0\naddresses = [\"10.0.0.0/24\"]\ndhcp = 1\n";
        let starts =
            ["f:3:1: `ageing`", "f:4:1: MTU 9", "f:5:1: max-macs 0", "f:6:1: bridge \"br0\" cannot have", "f:7:1: `dhcp`"];
        let found = problems(text);
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        found.iter().zip(starts).for_each(|(problem, start)| assert!(problem.starts_with(start), "{problem} {start}"));
        // What only seems wrong because something else could not be read is not told.
        only("[[bridge]]\nname = \"br0\"\naddresses = \"10.0.0.1/24\"\ndhcp = true\n", "f:3:1: `addresses` is");
        only(&format!("{BRIDGE}[[port]]\nname = \"a\"\nbridge = \"br0\"\nkind = 1\ndevice = \"e\"\n"), "f:6:1: `kind` is 1");
    }

    #[test]
    fn what_is_wrong_elsewhere_is_told_beside_what_is_no_toml() {
        let two = "[[port]]\nname = \"a\"\nbridge = \"br0\"\n[[port]]\nname = \"a\"\nbridge = \"br0\"\n";
        let with = |damaged: &str| problems(&format!("{damaged}{BRIDGE}{two}[nat]\nudp = \"0s\"\n"));
        for damaged in
            ["[switch]\nworkers =\n", "[switch]\nworkers 2\n", "[switch]\ncontrol = /run/x\n", "[switch]\ncontrol = \"/run/x\n"]
        {
            let found = with(damaged);
            assert_eq!(found.len(), 3, "{damaged}{found:#?}");
            assert!(found[0].starts_with("f:2:"), "{found:#?}");
            assert!(found[1].contains("port \"a\" is in line 6 already"), "{found:#?}");
            assert!(found[2].contains("`udp` is 0s"), "{found:#?}");
        }
        // In a damaged entry, other lines are read; a bridge that lost its name is not missed.
        let text = "[[bridge]]\nname = br0\nmtu = \"x\"\n[[port]]\nname = \"a\"\nbridge = \"br0\"\nmac = 5\n";
        let found = problems(text);
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(found[1].starts_with("f:3:1: `mtu`") && found[2].starts_with("f:7:1: `mac`"), "{found:#?}");
        // A bridge that is missed and not hidden is told.
        let found = problems("[switch]\nworkers =\n[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"a\"\nbridge = \"br1\"\n");
        assert!(found.len() == 2 && found[1].starts_with("f:7:1: port \"a\" is on bridge \"br1\""), "{found:#?}");
        // A broken heading may have been that of anything.
        only(&format!("[[bridge]\nname = \"br1\"\n{}", two.replace("br0", "br1").replacen("\"a\"", "\"b\"", 1)), "f:1:10: ");
    }
}
