//! The switch as it should be, put together from `switch.toml` and the kept state. The control side calls `merge` at a start, at a reload
//! and for every change, and carries out the difference. A pure function: it touches neither files nor the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::{Change, Config, State};
use api::{
    BridgeName, BridgeSpec, ForwardKey, ForwardSpec, Network, NetworkError, Origin, Part, PortName, PortSpec, UplinkSpec,
    VxlanSpec,
};

/// Everything that the switch should be, by name, with who asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The uplinks.
    pub uplinks: BTreeMap<PortName, (UplinkSpec, Origin)>,
    /// The bridges; each one's uplink is among the uplinks.
    pub bridges: BTreeMap<BridgeName, (BridgeSpec, Origin)>,
    /// The ports; each is on one of the bridges.
    pub ports: BTreeMap<PortName, (PortSpec, Origin)>,
    /// The forwards; each is on one of the uplinks and goes to one of the bridges.
    pub forwards: BTreeMap<ForwardKey, (ForwardSpec, Origin)>,
    /// The tunnels; each is on one of the bridges.
    pub vxlans: BTreeMap<PortName, (VxlanSpec, Origin)>,
}

impl Layout {
    /// Whether a port, tunnel or uplink has this name.
    pub fn has_port(&self, name: &PortName) -> bool {
        self.ports.contains_key(name) || self.vxlans.contains_key(name) || self.uplinks.contains_key(name)
    }

    /// What must hold between all of it.
    pub fn network(&self) -> Network<'_> {
        Network {
            bridges: self.bridges.values().map(|(spec, _)| spec).collect(),
            ports: self.ports.values().map(|(spec, _)| spec).collect(),
            uplinks: self.uplinks.values().map(|(spec, _)| spec).collect(),
            forwards: self.forwards.values().map(|(spec, _)| spec).collect(),
        }
    }
}

/// Something that is not as it was asked for, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is.
    pub what: Part,
    /// What it is called.
    pub name: String,
    /// What became of it.
    pub fate: Fate,
}

/// What became of something that was asked for besides the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does not fit, so it is not there.
    LeftOut {
        /// Who asked for it.
        origin: Origin,
        /// Why it does not.
        why: String,
    },
    /// It is as the file says instead.
    Overruled,
    /// It is back as the file says.
    Back,
}

impl Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, name, fate } = self;
        match fate {
            Fate::LeftOut { origin, why } => {
                let who = who(*origin);
                write!(f, "{what} \"{name}\", which {who}, is left out: {why}")?;
                // Docker forgets its own.
                if *origin == Origin::Runtime { write!(f, "; `vsctl {}` forgets it", what.deletion(name)) } else { Ok(()) }
            }
            Fate::Overruled => write!(f, "{what} \"{name}\" is as switch.toml says: what vsctl changed about it is dropped"),
            Fate::Back => write!(f, "{what} \"{name}\" is back, as switch.toml says, though vsctl deleted it"),
        }
    }
}

/// Puts the file, the changes of the run time and what Docker asked for together, and says what the user should know about it. Where two
/// name the same thing, the file wins; what was added at run time and does not fit the file any more is left out.
pub fn merge(config: &Config, state: &State) -> (Layout, Vec<Note>) {
    let mut notes = Vec::new();
    let uplinks = config.uplinks.iter().map(|spec| (spec.name.clone(), spec.clone()));
    let bridges = config.bridges.iter().map(|spec| (spec.name.clone(), spec.clone()));
    let ports = config.ports.iter().map(|spec| (spec.name.clone(), spec.clone()));
    let forwards = config.forwards.iter().map(|spec| (spec.key.clone(), spec.clone()));
    let vxlans = config.vxlans.iter().map(|spec| (spec.name.clone(), spec.clone()));
    let mut layout = Layout {
        uplinks: both(Part::Uplink, uplinks, &state.uplinks, &mut notes),
        bridges: both(Part::Bridge, bridges, &state.bridges, &mut notes),
        ports: both(Part::Port, ports, &state.ports, &mut notes),
        forwards: both(Part::Forward, forwards, &state.forwards, &mut notes),
        vxlans: both(Part::Vxlan, vxlans, &state.vxlans, &mut notes),
    };
    if config.docker.enabled {
        add_docker(&mut layout, config, state);
    }
    add_containers(&mut layout, config, state);
    let misfits = misfits(Part::Uplink, &layout.uplinks, &mut notes, |spec| layout.network().check_uplink(spec));
    layout.uplinks.retain(|name, _| !misfits.contains(name));
    let misfits = self::misfits(Part::Bridge, &layout.bridges, &mut notes, |spec| layout.network().check_bridge(spec));
    layout.bridges.retain(|name, _| !misfits.contains(name));
    let misfits = self::misfits(Part::Port, &layout.ports, &mut notes, |spec| layout.network().check_port(spec));
    layout.ports.retain(|name, _| !misfits.contains(name));
    let bridges = &layout.bridges;
    let mut on_bridge = |what: Part, name: &PortName, bridge: &BridgeName, origin: Origin| {
        let has_bridge = bridges.contains_key(bridge);
        if !has_bridge {
            notes.push(left_out(what, name, origin, format!("its bridge \"{bridge}\" is no more there")));
        }
        has_bridge
    };
    layout.ports.retain(|name, (spec, origin)| on_bridge(Part::Port, name, &spec.bridge, *origin));
    layout.vxlans.retain(|name, (spec, origin)| on_bridge(Part::Vxlan, name, &spec.bridge, *origin));
    leave_out_collisions(&mut layout, &mut notes);
    let misfits = self::misfits(Part::Forward, &layout.forwards, &mut notes, |spec| layout.network().check_forward(spec));
    layout.forwards.retain(|key, _| !misfits.contains(key));
    (layout, notes)
}

/// Adds what Docker asked for, but for names that the file or `vsctl` has given already.
fn add_docker(layout: &mut Layout, config: &Config, state: &State) {
    let (uplinks, bridges) = state.docker.bridges(&config.docker);
    for spec in uplinks {
        layout.uplinks.entry(spec.name.clone()).or_insert((spec, Origin::Docker));
    }
    for spec in bridges {
        layout.bridges.entry(spec.name.clone()).or_insert((spec, Origin::Docker));
    }
    for spec in state.docker.ports() {
        layout.ports.entry(spec.name.clone()).or_insert((spec, Origin::Docker));
    }
    let uplink_of = |bridge: &BridgeName| layout.bridges.get(bridge).and_then(|(spec, _)| spec.uplink.clone());
    for spec in state.docker.forwards(uplink_of) {
        layout.forwards.entry(spec.key.clone()).or_insert((spec, Origin::Docker));
    }
}

/// Adds what plugins of other runtimes asked for, but for names that the file, `vsctl` or Docker has given already.
fn add_containers(layout: &mut Layout, config: &Config, state: &State) {
    let (uplink, bridges) = state.containers.bridges(config.docker.uplink.as_ref());
    if let Some(spec) = uplink {
        layout.uplinks.entry(spec.name.clone()).or_insert((spec, Origin::Container));
    }
    for spec in bridges {
        layout.bridges.entry(spec.name.clone()).or_insert((spec, Origin::Container));
    }
    for spec in state.containers.ports() {
        layout.ports.entry(spec.name.clone()).or_insert((spec, Origin::Container));
    }
    for spec in state.containers.forwards() {
        layout.forwards.entry(spec.key.clone()).or_insert((spec.clone(), Origin::Container));
    }
}

fn left_out(what: Part, name: &impl Display, origin: Origin, why: String) -> Note {
    Note { what, name: name.to_string(), fate: Fate::LeftOut { origin, why } }
}

/// Who asked for something, in the middle of a sentence.
const fn who(origin: Origin) -> &'static str {
    match origin {
        Origin::File => "switch.toml has",
        Origin::Runtime => "vsctl added",
        Origin::Docker => "Docker asked for",
        Origin::Container => "a container's runtime asked for",
    }
}

/// What vsctl added gives way to what the file names since.
fn leave_out_collisions(layout: &mut Layout, notes: &mut Vec<Note>) {
    let all = layout.vxlans.clone();
    let in_file = |spec: &VxlanSpec| {
        all.iter().find(|(name, (other, origin))| *origin == Origin::File && **name != spec.name && other.collides_with(spec))
    };
    let (ports, uplinks) = (&layout.ports, &layout.uplinks);
    layout.vxlans.retain(|name, (spec, origin)| {
        let why = match in_file(spec).filter(|_| *origin == Origin::Runtime) {
            Some((other, _)) => format!("vxlan \"{other}\" of switch.toml has its VNI"),
            None if ports.contains_key(name) => "a port has its name".to_owned(),
            None if uplinks.contains_key(name) => "an uplink has its name".to_owned(),
            None => return true,
        };
        notes.push(left_out(Part::Vxlan, name, *origin, why));
        false
    });
}

/// What was added at run time and does not fit the rest.
fn misfits<N: Ord + Clone + Display, T>(
    what: Part,
    all: &BTreeMap<N, (T, Origin)>,
    notes: &mut Vec<Note>,
    check: impl Fn(&T) -> Result<(), NetworkError>,
) -> BTreeSet<N> {
    let added = all.iter().filter(|(_, (_, origin))| *origin != Origin::File);
    let wrong = added.filter_map(|(name, (spec, origin))| Some((name, *origin, check(spec).err()?)));
    let wrong = wrong.map(|(name, origin, error)| {
        notes.push(left_out(what, name, origin, error.to_string()));
        name.clone()
    });
    wrong.collect()
}

fn both<N: Ord + Clone + Display, T: Clone + PartialEq>(
    what: Part,
    file: impl Iterator<Item = (N, T)>,
    changes: &BTreeMap<N, Change<T>>,
    notes: &mut Vec<Note>,
) -> BTreeMap<N, (T, Origin)> {
    let mut merged: BTreeMap<N, (T, Origin)> = file.map(|(name, spec)| (name, (spec, Origin::File))).collect();
    for (name, change) in changes {
        match (merged.get(name), change) {
            (None, Change::Set(spec)) => {
                merged.insert(name.clone(), (spec.clone(), Origin::Runtime));
            }
            (None, Change::Deleted) => {}
            (Some((in_file, _)), Change::Set(spec)) if in_file == spec => {}
            (Some(_), Change::Set(_)) => notes.push(Note { what, name: name.to_string(), fate: Fate::Overruled }),
            (Some(_), Change::Deleted) => notes.push(Note { what, name: name.to_string(), fate: Fate::Back }),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(name: &str) -> BridgeSpec {
        toml::from_str(&format!("name = \"{name}\"")).unwrap()
    }

    fn port(name: &str, bridge: &str, rest: &str) -> PortSpec {
        toml::from_str(&format!("name = \"{name}\"\nbridge = \"{bridge}\"\n{rest}")).unwrap()
    }

    fn texts(notes: &[Note]) -> Vec<String> {
        notes.iter().map(ToString::to_string).collect()
    }

    fn set(specs: Vec<PortSpec>) -> BTreeMap<PortName, Change<PortSpec>> {
        specs.into_iter().map(|spec| (spec.name.clone(), Change::Set(spec))).collect()
    }

    #[test]
    fn the_file_wins_and_says_so() {
        let ports = vec![port("a", "br0", "vlan = 1"), port("b", "br0", ""), port("c", "br0", "")];
        let config = Config { bridges: vec![bridge("br0")], ports, ..Config::default() };
        let changed = vec![port("a", "br0", "vlan = 2"), port("b", "br0", ""), port("d", "br0", ""), port("e", "gone", "")];
        let mut state = State { ports: set(changed), ..State::default() };
        state.ports.insert("c".parse().unwrap(), Change::Deleted);
        let (merged, notes) = merge(&config, &state);
        let origins: Vec<(&str, Origin)> = merged.ports.iter().map(|(name, (_, origin))| (name.as_str(), *origin)).collect();
        assert_eq!(origins, [("a", Origin::File), ("b", Origin::File), ("c", Origin::File), ("d", Origin::Runtime)]);
        assert_eq!(merged.ports[&"a".parse().unwrap()].0, config.ports[0]);
        let (count, notes) = (notes.len(), texts(&notes).join("\n"));
        assert_eq!(count, 3, "{notes}");
        for part in [
            "port \"a\" is as switch.toml says",
            "port \"c\" is back",
            "port \"e\", which vsctl added, is left out",
            "`vsctl del-port e` forgets it",
        ] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
        state.forget_overruled(&config);
        assert_eq!(state.ports.keys().map(PortName::as_str).collect::<Vec<_>>(), ["d", "e"]);
    }
    #[test]
    fn what_does_not_fit_the_file_any_more_is_left_out() {
        let uplink = |name: &str| -> UplinkSpec { toml::from_str(&format!("name = \"{name}\"\nkind = \"host\"")).unwrap() };
        let with = |name: &str, rest: &str| -> BridgeSpec { toml::from_str(&format!("name = \"{name}\"\n{rest}")).unwrap() };
        let forward: ForwardSpec =
            toml::from_str("uplink = \"up\"\nprotocol = \"tcp\"\nport = 80\nto = \"10.0.0.2:80\"").unwrap();
        let config = Config {
            uplinks: vec![uplink("up")],
            bridges: vec![with("br0", "addresses = [\"10.0.1.1/24\"]\nuplink = \"up\"")],
            ..Config::default()
        };
        let mut state = State::default();
        for spec in
            [with("br1", "addresses = [\"10.0.1.9/24\"]"), with("br2", "addresses = [\"10.2.0.1/24\"]\nuplink = \"gone\"")]
        {
            state.bridges.insert(spec.name.clone(), Change::Set(spec));
        }
        state.forwards.insert(forward.key.clone(), Change::Set(forward));
        state.uplinks.insert("more".parse().unwrap(), Change::Set(uplink("more")));
        let (merged, notes) = merge(&config, &state);
        assert_eq!(merged.bridges.keys().map(BridgeName::as_str).collect::<Vec<_>>(), ["br0"]);
        assert_eq!((merged.uplinks.len(), merged.forwards.len(), notes.len()), (2, 0, 3));
        let notes = texts(&notes);
        assert!(notes.iter().all(|note| note.contains("which vsctl added, is left out: ")), "{notes:?}");
        assert!(notes[2].ends_with("; `vsctl del-forward up tcp/80` forgets it"), "{notes:?}");
    }

    #[test]
    fn what_docker_asked_for_gives_way_to_all_others() {
        let network = |id: &str, subnet: &str| -> (crate::docker::NetworkId, crate::docker::Network) {
            let net: ipnet::IpNet = subnet.parse().unwrap();
            let request = serde_json::json!({
                "NetworkID": id.repeat(8), "IPv4Data": [{ "Pool": net.trunc().to_string(), "Gateway": subnet }],
            });
            let request: crate::docker::message::CreateNetwork = serde_json::from_value(request).unwrap();
            (request.network.clone(), crate::docker::Network::read(&request).unwrap())
        };
        let mut state = State::default();
        state.docker.networks = [network("a", "10.1.0.1/24"), network("b", "10.2.0.1/24")].into();
        let mut config = Config { bridges: vec![bridge("br0")], ..Config::default() };
        assert_eq!(merge(&config, &state).0.bridges.len(), 1, "Docker is not served");

        config.docker.enabled = true;
        let (merged, notes) = merge(&config, &state);
        let origins: Vec<(&str, Origin)> = merged.bridges.iter().map(|(name, (_, origin))| (name.as_str(), *origin)).collect();
        let expected = [("br0", Origin::File), ("docker-aaaaaaaa", Origin::Docker), ("docker-bbbbbbbb", Origin::Docker)];
        assert_eq!((&origins[..], notes.len()), (&expected[..], 0));
        assert_eq!(merged.uplinks.values().map(|(_, origin)| *origin).collect::<Vec<_>>(), [Origin::Docker]);

        config.bridges[0].addresses = vec!["10.2.0.9/16".parse().unwrap()];
        let (merged, notes) = merge(&config, &state);
        assert_eq!(merged.bridges.keys().map(BridgeName::as_str).collect::<Vec<_>>(), ["br0", "docker-aaaaaaaa"]);
        let notes = texts(&notes);
        assert!(notes[0].contains("bridge \"docker-bbbbbbbb\", which Docker asked for, is left out: "), "{notes:?}");
        assert!(!notes[0].contains("vsctl"), "{notes:?}");
    }
}
