//! From the sources to what the switch should be, and what to say about it. Pure: it is computed anew at each start, reload and change.

use std::fmt::{self, Display};

use super::source::{self, FromHosts};
use super::{Change, Config, Layout, State};
use api::{Origin, Part, ResourceKey};

/// A resource that is not as its source wanted it, and why.
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

impl Note {
    fn new(key: &ResourceKey, fate: Fate) -> Self {
        Self { what: key.part(), name: key.to_string(), fate }
    }
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

/// Puts the file, the changes of the run time and what containers' runtimes and the cluster ask for together, and says what the user should know about it. Where
/// two name the same thing, the file wins; what was added at run time and does not fit the file any more is left out.
pub fn merge(config: &Config, state: &State, heard: FromHosts<'_>) -> (Layout, Vec<Note>) {
    let mut layout = source::merged(config, state, heard);
    let mut notes = overruled(&layout, state);
    // What does not fit is taken out before what depends on it is looked at.
    for part in [Part::Uplink, Part::Bridge, Part::Vxlan, Part::Port, Part::Forward] {
        for (key, origin, why) in layout.misfits(part) {
            layout.remove(&key);
            notes.push(Note::new(&key, Fate::LeftOut { origin, why }));
        }
    }
    (layout, notes)
}

/// The changes of vsctl's to what the file names.
fn overruled(layout: &Layout, state: &State) -> Vec<Note> {
    let note = |(key, change): (&ResourceKey, &Change)| {
        let (in_file, _) = layout.get(key).filter(|(_, origin)| *origin == Origin::File)?;
        match change {
            Change::Set(resource) if **resource == *in_file => None,
            Change::Set(_) => Some(Note::new(key, Fate::Overruled)),
            Change::Deleted => Some(Note::new(key, Fate::Back)),
        }
    };
    state.changes.0.iter().filter_map(note).collect()
}

/// Who asked for something, in the middle of a sentence.
const fn who(origin: Origin) -> &'static str {
    match origin {
        Origin::File => "switch.toml has",
        Origin::Runtime => "vsctl added",
        Origin::Docker => "Docker asked for",
        Origin::Container => "a container's runtime asked for",
        Origin::Cluster => "an overlay network needs",
        Origin::Flannel => "flannel's network needs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flannel::FlannelTables;
    use crate::overlay::Elsewhere;
    use api::{BridgeSpec, ForwardSpec, PortSpec, UplinkSpec};

    fn bridge(name: &str) -> BridgeSpec {
        toml::from_str(&format!("name = \"{name}\"")).unwrap()
    }

    fn port(name: &str, bridge: &str, rest: &str) -> PortSpec {
        toml::from_str(&format!("name = \"{name}\"\nbridge = \"{bridge}\"\n{rest}")).unwrap()
    }

    fn unheard(config: &Config, state: &State) -> (Layout, Vec<Note>) {
        merge(config, state, FromHosts { overlay: &Elsewhere::default(), flannel: &FlannelTables::default() })
    }

    fn texts(notes: &[Note]) -> Vec<String> {
        notes.iter().map(ToString::to_string).collect()
    }

    /// What is called what, and who asked for it.
    fn origins(layout: &Layout, part: Part) -> Vec<(String, Origin)> {
        layout.iter().filter(|(key, ..)| key.part() == part).map(|(key, _, origin)| (key.to_string(), origin)).collect()
    }

    fn names(layout: &Layout, part: Part) -> Vec<String> {
        origins(layout, part).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn the_file_wins_and_says_so() {
        let ports = vec![port("a", "br0", "vlan = 1"), port("b", "br0", ""), port("c", "br0", "")];
        let config = Config { bridges: vec![bridge("br0")], ports, ..Config::default() };
        let changed = vec![port("a", "br0", "vlan = 2"), port("b", "br0", ""), port("d", "br0", ""), port("e", "gone", "")];
        let mut state = State::default();
        changed.into_iter().for_each(|spec| state.changes.set(spec));
        state.changes.0.insert(ResourceKey::Port("c".parse().unwrap()), Change::Deleted);
        let (merged, notes) = unheard(&config, &state);
        let expected = [("a", Origin::File), ("b", Origin::File), ("c", Origin::File), ("d", Origin::Runtime)];
        assert_eq!(origins(&merged, Part::Port), expected.map(|(name, origin)| (name.to_owned(), origin)));
        assert_eq!(merged.find::<PortSpec>(&"a".parse().unwrap()).unwrap().0, &config.ports[0]);
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
        assert_eq!(state.changes.0.keys().map(ToString::to_string).collect::<Vec<_>>(), ["d", "e"]);
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
            state.changes.set(spec);
        }
        state.changes.set(forward);
        state.changes.set(uplink("more"));
        let (merged, notes) = unheard(&config, &state);
        assert_eq!(names(&merged, Part::Bridge), ["br0"]);
        assert_eq!((names(&merged, Part::Uplink).len(), names(&merged, Part::Forward).len(), notes.len()), (2, 0, 3));
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
        assert_eq!(names(&unheard(&config, &state).0, Part::Bridge).len(), 1, "Docker is not served");

        config.docker.enabled = true;
        let (merged, notes) = unheard(&config, &state);
        let expected = [("br0", Origin::File), ("docker-aaaaaaaa", Origin::Docker), ("docker-bbbbbbbb", Origin::Docker)];
        let expected = expected.map(|(name, origin)| (name.to_owned(), origin)).to_vec();
        assert_eq!((origins(&merged, Part::Bridge), notes.len()), (expected, 0));
        assert_eq!(origins(&merged, Part::Uplink), [("docker".to_owned(), Origin::Docker)]);

        config.bridges[0].addresses = vec!["10.2.0.9/16".parse().unwrap()];
        let (merged, notes) = unheard(&config, &state);
        assert_eq!(names(&merged, Part::Bridge), ["br0", "docker-aaaaaaaa"]);
        let notes = texts(&notes);
        assert!(notes[0].contains("bridge \"docker-bbbbbbbb\", which Docker asked for, is left out: "), "{notes:?}");
        assert!(!notes[0].contains("vsctl"), "{notes:?}");
    }
}
