//! Reading `switch.toml`. Every problem is found in one go: an entry in which something is wrong is read again without it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use serde::de::{DeserializeOwned, IntoDeserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, NatSettings, Problem, SwitchSettings};
use crate::api::{
    BridgeName, BridgeSpec, ForwardSpec, Netns, Network, NetworkError, PortName, PortSpec, UplinkSpec, VxlanSpec,
};
use crate::docker::DockerSettings;

/// Most bytes of a file; 20,000 ports need less.
const LARGEST: u64 = 4 << 20;
/// Most data-plane threads.
const MOST_WORKERS: usize = 64;

const TABLES: &[&str] = &["switch", "bridge", "port", "vxlan", "uplink", "forward", "nat", "docker"];
const DOCKER_KEYS: &[&str] = &["enabled", "socket", "api", "uplink"];
const SWITCH_KEYS: &[&str] = &["control", "control-group", "state-dir", "workers"];
const BRIDGE_KEYS: &[&str] =
    &["name", "mtu", "ageing", "max-macs", "control-frames", "addresses", "gateway-vlan", "dhcp", "uplink", "isolated"];
const UPLINK_KEYS: &[&str] = &["name", "kind", "device", "address", "gateway", "mac", "isolate-bridges"];
const FORWARD_KEYS: &[&str] = &["uplink", "protocol", "port", "listen", "to"];
const NAT_KEYS: &[&str] = &[
    "mapping",
    "filtering",
    "inbound-refresh",
    "ports",
    "sessions",
    "sessions-per-source",
    "udp",
    "udp-unreplied",
    "udp-dns",
    "icmp",
    "tcp-opening",
    "tcp-established",
    "tcp-closing",
];
const PORT_KEYS: &[&str] = &[
    "name",
    "bridge",
    "kind",
    "netns",
    "ifname",
    "device",
    "mac",
    "addresses",
    "vlan",
    "trunk",
    "native",
    "guard",
    "protected",
    "broadcast-limit",
    "send-rate",
    "receive-rate",
    "offload",
];
const VXLAN_KEYS: &[&str] = &[
    "name",
    "bridge",
    "vni",
    "local",
    "port",
    "peers",
    "group",
    "device",
    "learn",
    "udp-checksum",
    "ttl",
    "vlan",
    "trunk",
    "native",
    "bum-limit",
    "static",
];

/// What a later version will know, and this one must not pretend to.
const TABLES_TO_COME: &[&str] = &["cluster"];
const BRIDGE_KEYS_TO_COME: &[&str] = &["overlay"];

/// Reads a file.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    let unreadable = |error: std::io::Error| vec![Problem::of_file(path, format!("cannot be read: {error}"))];
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.len() > LARGEST {
        return Err(vec![Problem::of_file(path, format!("has {} bytes, more than any switch.toml needs", metadata.len()))]);
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| vec![Problem::of_file(path, "is not text in UTF-8".to_owned())])?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader { path, text, problems: Vec::new() };
    let (root, syntax) = DeTable::parse_recoverable(text);
    for error in syntax {
        reader.problem(error.span().unwrap_or_default(), sentence_of(error.message()));
    }
    // What the parser made up to go on would give problems that nobody wrote.
    let config = if reader.problems.is_empty() { reader.config(root.into_inner()) } else { None };
    match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => {
            reader.problems.sort_by_key(Problem::position);
            Err(reader.problems)
        }
    }
}

/// One entry, and where its keys are.
struct Entry<T> {
    spec: T,
    keys: HashMap<String, Range<usize>>,
    start: Range<usize>,
}

impl<T> Entry<T> {
    /// Where the value of `key` is, or the entry.
    fn place(&self, key: &str) -> Range<usize> {
        self.keys.get(key).unwrap_or(&self.start).clone()
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, span: Range<usize>, sentence: String) {
        self.problems.push(Problem::at(self.path, self.text, span.start, sentence));
    }

    fn config(&mut self, root: DeTable<'_>) -> Option<Config> {
        let (mut switch, mut nat) = (Some(SwitchSettings::default()), Some(NatSettings::default()));
        let mut docker = None;
        let (mut bridges, mut ports, mut uplinks, mut forwards) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut vxlans = Vec::new();
        let mut listed = 0;
        for (key, value) in root {
            match &**key.get_ref() {
                "switch" => switch = self.switch(value),
                "bridge" => {
                    listed = value.get_ref().as_array().map_or(0, |array| array.len());
                    bridges = self.entries("bridge", value, BRIDGE_KEYS);
                }
                "port" => ports = self.entries("port", value, PORT_KEYS),
                "uplink" => uplinks = self.entries("uplink", value, UPLINK_KEYS),
                "forward" => forwards = self.entries("forward", value, FORWARD_KEYS),
                "nat" => nat = self.nat(value),
                "docker" => docker = self.entry("docker", value, DOCKER_KEYS),
                "vxlan" => vxlans = self.entries("vxlan", value, VXLAN_KEYS),
                name if TABLES_TO_COME.contains(&name) => {
                    let sentence = format!("[{name}] is not built yet: remove it; this version knows {}", TABLES.join(", "));
                    self.problem(key.span(), sentence);
                }
                name => self.unknown("table", name, "the file", TABLES, key.span()),
            }
        }
        self.check_names("bridge", &bridges, |spec: &BridgeSpec| spec.name.to_string());
        self.check_names("uplink", &uplinks, |spec: &UplinkSpec| spec.name.to_string());
        self.check_names("forward", &forwards, |spec: &ForwardSpec| spec.key.to_string());
        self.check_places(&ports);
        self.check_tunnels(&ports, &vxlans);
        // A bridge in which something is wrong is none, but it is no news that its ports miss it.
        if bridges.len() == listed {
            self.check_members("port", &bridges, &ports, |spec: &PortSpec| (&spec.name, &spec.bridge));
            self.check_members("vxlan", &bridges, &vxlans, |spec: &VxlanSpec| (&spec.name, &spec.bridge));
        }
        if self.problems.is_empty() {
            self.check_network(&uplinks, &bridges, &ports, &forwards);
            docker.iter().for_each(|docker| self.check_docker(docker, &uplinks));
        }
        Some(Config {
            switch: switch?,
            nat: nat?,
            docker: docker.map(|entry| entry.spec).unwrap_or_default(),
            bridges: specs(bridges),
            ports: specs(ports),
            vxlans: specs(vxlans),
            uplinks: specs(uplinks),
            forwards: specs(forwards),
        })
    }

    fn switch(&mut self, value: Spanned<DeValue<'_>>) -> Option<SwitchSettings> {
        let entry: Entry<SwitchSettings> = self.entry("switch", value, SWITCH_KEYS)?;
        if !(1..=MOST_WORKERS).contains(&entry.spec.workers) {
            self.problem(entry.place("workers"), format!("`workers` is {}: use 1 to {MOST_WORKERS}", entry.spec.workers));
        }
        Some(entry.spec)
    }

    fn nat(&mut self, value: Spanned<DeValue<'_>>) -> Option<NatSettings> {
        let entry: Entry<NatSettings> = self.entry("nat", value, NAT_KEYS)?;
        if let Err(error) = entry.spec.rules() {
            self.problem(entry.place(error.key), error.to_string());
        }
        Some(entry.spec)
    }

    fn check_docker(&mut self, docker: &Entry<DockerSettings>, uplinks: &[Entry<UplinkSpec>]) {
        let missing = |name: &&PortName| uplinks.iter().all(|uplink| uplink.spec.name != **name);
        if let Some(name) = docker.spec.uplink.as_ref().filter(missing) {
            let sentence = format!(
                "`uplink` of [docker] is \"{name}\", which the file does not have: add an [[uplink]] with that name, or leave it out"
            );
            self.problem(docker.place("uplink"), sentence);
        }
    }

    fn entries<T: DeserializeOwned>(&mut self, table: &str, value: Spanned<DeValue<'_>>, keys: &[&str]) -> Vec<Entry<T>> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(array) => array.into_iter().filter_map(|value| self.entry(table, value, keys)).collect(),
            _ => {
                self.problem(span, format!("{table} is a list of tables: write [[{table}]] above each"));
                Vec::new()
            }
        }
    }

    /// Reads a table, noting each problem; `None` if there were any.
    fn entry<T: DeserializeOwned>(&mut self, table: &str, value: Spanned<DeValue<'_>>, known: &[&str]) -> Option<Entry<T>> {
        let before = self.problems.len();
        let start = value.span();
        let DeValue::Table(mut fields) = value.into_inner() else {
            self.problem(start, format!("{table} is a table: write its keys below [{table}] or [[{table}]]"));
            return None;
        };
        let keys = fields.iter().map(|(key, value)| (key.get_ref().to_string(), value.span())).collect();
        let all = std::mem::take(&mut fields);
        for (key, value) in all {
            if self.is_known(table, key.get_ref(), key.span(), known) {
                fields.insert(key, value);
            }
        }
        let spec = loop {
            let value = Spanned::new(start.clone(), DeValue::Table(fields.clone()));
            match T::deserialize(value.into_deserializer()) {
                Ok(spec) => break Some(spec),
                Err(error) => match culprit(&fields, &error) {
                    Some((key, span)) => {
                        self.problem(span, format!("`{key}`: {}", sentence_of(error.message())));
                        fields.remove(key.as_str());
                    }
                    None => {
                        // Without what was taken out, more may seem to be missing.
                        if self.problems.len() == before {
                            self.problem(start.clone(), sentence_of(error.message()));
                        }
                        break None;
                    }
                },
            }
        };
        let spec = spec.filter(|_| self.problems.len() == before)?;
        Some(Entry { spec, keys, start })
    }

    /// Whether a key is for its table's type to read; if it is not, that is noted unless it means nothing.
    fn is_known(&mut self, table: &str, key: &str, span: Range<usize>, known: &[&str]) -> bool {
        if table == "bridge" && BRIDGE_KEYS_TO_COME.contains(&key) {
            self.problem(span, format!("`{key}` of a bridge is not built yet: remove it"));
            return false;
        }
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

    fn check_names<T>(&mut self, what: &str, entries: &[Entry<T>], name: impl Fn(&T) -> String) {
        let mut seen = HashMap::new();
        for entry in entries {
            let name = name(&entry.spec);
            let place = entry.place("name");
            if let Some(first) = seen.insert(name.clone(), place.clone()) {
                let line = self.line(first);
                self.problem(place, format!("{what} \"{name}\" is in line {line} already"));
            }
        }
    }

    /// Checks each entry against those before it, so that of two that cannot be together the later is named.
    fn check_network(
        &mut self,
        uplinks: &[Entry<UplinkSpec>],
        bridges: &[Entry<BridgeSpec>],
        ports: &[Entry<PortSpec>],
        forwards: &[Entry<ForwardSpec>],
    ) {
        let mut network = Network::default();
        for entry in uplinks {
            self.note(entry, network.check_uplink(&entry.spec));
            network.uplinks.push(&entry.spec);
        }
        for entry in bridges {
            self.note(entry, network.check_bridge(&entry.spec));
            network.bridges.push(&entry.spec);
        }
        for entry in ports {
            self.note(entry, network.check_port(&entry.spec));
            network.ports.push(&entry.spec);
        }
        for entry in forwards {
            self.note(entry, network.check_forward(&entry.spec));
            network.forwards.push(&entry.spec);
        }
    }

    fn note<T>(&mut self, entry: &Entry<T>, checked: Result<(), NetworkError>) {
        if let Err(error) = checked {
            let key = error.key();
            // An uplink has `address` where a bridge has `addresses`.
            let key = if key == "addresses" && !entry.keys.contains_key(key) { "address" } else { key };
            self.problem(entry.place(key), error.to_string());
        }
    }

    fn check_places(&mut self, ports: &[Entry<PortSpec>]) {
        let (mut names, mut places) = (HashMap::new(), HashMap::new());
        for entry in ports {
            let spec = &entry.spec;
            if let Some(first) = names.insert(&spec.name, entry) {
                let line = self.line(first.place("name"));
                self.problem(entry.place("name"), format!("port \"{}\" is in line {line} already", spec.name));
            } else if let Some(first) = places.insert((spec.netns.as_ref().map(Netns::path), &spec.ifname), entry) {
                let key = if entry.keys.contains_key("ifname") { "ifname" } else { "name" };
                let sentence = format!(
                    "port \"{}\" wants interface \"{}\", which is that of port \"{}\": give it another `ifname` or `netns`",
                    spec.name, spec.ifname, first.spec.name
                );
                self.problem(entry.place(key), sentence);
            }
        }
    }

    /// A tunnel is a port too, so it shares their names; and no two hear the same frames.
    fn check_tunnels(&mut self, ports: &[Entry<PortSpec>], vxlans: &[Entry<VxlanSpec>]) {
        let mut names: HashMap<_, _> = ports.iter().map(|entry| (&entry.spec.name, entry.place("name"))).collect();
        for (index, entry) in vxlans.iter().enumerate() {
            let spec = &entry.spec;
            if let Some(first) = names.insert(&spec.name, entry.place("name")) {
                let line = self.line(first);
                self.problem(entry.place("name"), format!("the name \"{}\" is in line {line} already", spec.name));
            } else if let Some(first) = vxlans[..index].iter().find(|first| first.spec.collides_with(spec)) {
                let sentence = format!(
                    "vxlan \"{}\" has VNI {} on UDP port {}, as vxlan \"{}\" has: give it another `vni` or `port`",
                    spec.name, spec.vni, spec.port, first.spec.name
                );
                self.problem(entry.place("vni"), sentence);
            }
        }
    }

    fn check_members<T>(
        &mut self,
        what: &str,
        bridges: &[Entry<BridgeSpec>],
        members: &[Entry<T>],
        names: impl Fn(&T) -> (&PortName, &BridgeName),
    ) {
        let known: Vec<&str> = bridges.iter().map(|entry| entry.spec.name.as_str()).collect();
        for entry in members {
            let (name, bridge) = names(&entry.spec);
            if known.contains(&bridge.as_str()) {
                continue;
            }
            let hint = match nearest(bridge.as_str(), known.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("add a [[bridge]] with name = \"{bridge}\""),
            };
            let sentence = format!("{what} \"{name}\" is on bridge \"{bridge}\", which the file does not have: {hint}");
            self.problem(entry.place("bridge"), sentence);
        }
    }

    fn line(&self, span: Range<usize>) -> usize {
        self.text.get(..span.start).unwrap_or_default().matches('\n').count() + 1
    }
}

fn specs<T>(entries: Vec<Entry<T>>) -> Vec<T> {
    entries.into_iter().map(|entry| entry.spec).collect()
}

/// The key whose value an error is about, and where that value is wrong.
fn culprit(fields: &DeTable<'_>, error: &toml::de::Error) -> Option<(String, Range<usize>)> {
    let at = error.span()?;
    let holds = |value: &Spanned<DeValue<'_>>| value.span().start <= at.start && at.end <= value.span().end;
    let (key, _) = fields.iter().find(|(_, value)| holds(value))?;
    Some((key.get_ref().to_string(), at))
}

/// What the parser says, on one line.
fn sentence_of(message: &str) -> String {
    message.trim().replace('\n', "; ")
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
    fn a_problem_has_its_line_and_column() {
        only("[switch\n", "f:1:8: ");
        only("[switch]\nworkers = \"two\"\n", "f:2:11: `workers`: invalid type: string \"two\", expected usize");
        only("[switch]\nworkers = 0\n", "f:2:11: `workers` is 0: use 1 to 64");
        only("[[bridge]]\nname = \"br0\"\ncolour = 1\n", "f:3:1: unknown key `colour` in [bridge]: use name, mtu, ");
        only("[[bridge]]\nname = \"br0\"\nmax-mac = 1\n", "f:3:1: unknown key `max-mac` in [bridge]: did you mean `max-macs`?");
        only("[[brigde]]\nname = \"br0\"\n", "f:1:3: unknown table `brigde` in the file: did you mean `bridge`?");
        only("[bridge]\nname = \"br0\"\n", "f:1:1: bridge is a list of tables: write [[bridge]] above each");
        only(
            "[[bridge]]\nname = \"a-name-of-18-chars\"\n",
            "f:2:8: `name`: bridge name \"a-name-of-18-chars\" has 18 characters",
        );
        only("[[bridge]]\nmtu = 1500\n", "f:1:1: missing field `name`");
        only("[[bridge]]\nname = \"br0\"\nmtu = 9\n", "f:1:1: MTU 9 of bridge \"br0\" is out of range");
    }

    #[test]
    fn every_problem_is_reported_in_order() {
        let text = "[[bridge]]\nname = \"br0\"\nmtu = \"x\"\ncolour = 2\nageing = \"soon\"\n\
                    [[port]]\nname = \"a\"\nbridge = \"br0\"\nmac = \"ä\"\nvlan = 4095\n[cluster]\n";
        let found = problems(text);
        let starts = [
            "f:3:7: `mtu`",
            "f:4:1: unknown key",
            "f:5:10: `ageing`",
            "f:9:7: `mac`",
            "f:10:8: `vlan`",
            "f:11:2: [cluster] is not built",
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
            "f:3:10: `uplink` of [docker] is \"wan\", which the file does not have",
        );
        only("[docker]\nsockets = \"/x\"\n", "f:2:1: unknown key `sockets` in [docker]: did you mean `socket`?");
        assert_eq!(problems("[docker]\nuplink = \"wan\"\n[[uplink]]\nname = \"wan\"\nkind = \"host\"\n"), Vec::<String>::new());
    }

    #[test]
    fn names_and_devices_are_used_once() {
        only(&format!("{BRIDGE}{BRIDGE}"), "f:4:8: bridge \"br0\" is in line 2 already");
        let port = |name: &str, rest: &str| format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\n{rest}");
        only(&format!("{BRIDGE}{}{}", port("a", ""), port("a", "")), "f:7:8: port \"a\" is in line 4 already");
        let same = "ifname = \"eth0\"\nnetns = ";
        let text =
            format!("{BRIDGE}{}{}", port("a", &format!("{same}\"x\"\n")), port("b", &format!("{same}\"/run/netns/x\"\n")));
        only(&text, "f:11:10: port \"b\" wants interface \"eth0\", which is that of port \"a\"");
        let text = format!("{BRIDGE}[[port]]\nname = \"a\"\nbridge = \"br1\"\n");
        only(&text, "f:5:10: port \"a\" is on bridge \"br1\", which the file does not have: did you mean \"br0\"?");
    }

    #[test]
    fn tunnels_share_neither_names_nor_networks() {
        let vxlan =
            |name: &str, rest: &str| format!("[[vxlan]]\nname = \"{name}\"\nbridge = \"br0\"\nlocal = \"192.0.2.1\"\n{rest}\n");
        let text = format!("{BRIDGE}[[port]]\nname = \"a\"\nbridge = \"br0\"\n{}", vxlan("a", "vni = 1"));
        only(&text, "f:7:8: the name \"a\" is in line 4 already");
        let text = format!("{BRIDGE}{}{}", vxlan("x", "vni = 7"), vxlan("y", "vni = 7"));
        only(&text, "f:12:7: vxlan \"y\" has VNI 7 on UDP port 4789, as vxlan \"x\" has: give it another `vni` or `port`");
        let text = format!("{BRIDGE}{}{}", vxlan("x", "vni = 7"), vxlan("y", "vni = 7\nport = 8472"));
        assert_eq!(problems(&text), [""; 0]);
        only(&format!("{BRIDGE}{}", vxlan("x", "vni = 16777216")), "f:7:7: `vni`: 16777216 is not a VNI: use a number from 0");
        let text = vxlan("x", "vni = 7").replace("br0", "br1");
        only(
            &format!("{BRIDGE}{text}"),
            "f:5:10: vxlan \"x\" is on bridge \"br1\", which the file does not have: did you mean",
        );
    }

    #[test]
    fn what_is_not_built_is_not_pretended() {
        only(&format!("{BRIDGE}overlay = \"x\"\n"), "f:3:1: `overlay` of a bridge is not built yet");
        for table in TABLES_TO_COME {
            only(&format!("[[{table}]]\nname = \"x\"\n"), &format!("f:1:3: [{table}] is not built yet"));
        }
    }

    #[test]
    fn what_cannot_be_together_is_named_where_it_comes_later() {
        let bridge = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.1/24\"]\nuplink = \"wan\"\n";
        let wan = "[[uplink]]\nname = \"wan\"\nkind = \"link\"\ndevice = \"e\"\naddress = ";
        only(bridge, "f:4:10: bridge \"br0\" has uplink \"wan\", which does not exist");
        let text = format!("{bridge}{wan}\"10.0.0.9/8\"\n");
        only(&text, "f:3:13: subnet 10.0.0.1/24 of bridge \"br0\" overlaps 10.0.0.9/8 of uplink \"wan\"");
        let forward = "[[forward]]\nuplink = \"wan\"\nprotocol = \"tcp\"\nport = 80\nto = \"10.0.1.2:80\"\n";
        let text = format!("{bridge}{wan}\"192.0.2.9/24\"\n{forward}");
        only(&text, "f:14:6: forward wan tcp/80 goes to 10.0.1.2");
        let text = format!("{bridge}{wan}\"192.0.2.9/24\"\n{}", forward.replace("0.1.2", "0.0.2"));
        assert_eq!(problems(&text), [""; 0]);
        only("[nat]\nudp = \"0s\"\n", "f:2:7: `udp` is 0s: use 1s to 1000000s");
    }

    /// The lists of keys are those that the types read: a type's own complaint lists them.
    #[test]
    fn the_keys_are_those_of_the_types() {
        fn keys<T: DeserializeOwned>(text: &str) -> Vec<String> {
            let Err(error) = toml::from_str::<T>(text) else { return Vec::new() };
            let message = error.message().split_once("expected one of").map(|(_, list)| list.to_owned()).unwrap();
            message.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        }
        assert_eq!(keys::<SwitchSettings>("x = 1"), SWITCH_KEYS);
        assert_eq!(keys::<BridgeSpec>("x = 1"), BRIDGE_KEYS);
        assert_eq!(keys::<UplinkSpec>("x = 1"), UPLINK_KEYS);
        assert_eq!(keys::<ForwardSpec>("x = 1"), FORWARD_KEYS);
        assert_eq!(keys::<NatSettings>("x = 1"), NAT_KEYS);
        assert_eq!(keys::<PortSpec>("x = 1"), PORT_KEYS);
        assert_eq!(keys::<VxlanSpec>("x = 1"), VXLAN_KEYS);
    }
}
