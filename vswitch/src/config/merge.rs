use std::collections::BTreeMap;
use std::fmt::Display;

use super::{Change, Config, State};
use crate::api::{BridgeName, BridgeSpec, Origin, PortName, PortSpec, VxlanSpec};

/// What the file and the changes of the run time come to.
#[derive(Debug)]
pub struct Merged {
    /// The bridges.
    pub bridges: BTreeMap<BridgeName, (BridgeSpec, Origin)>,
    /// The ports; each is on one of the bridges.
    pub ports: BTreeMap<PortName, (PortSpec, Origin)>,
    /// The tunnels; each is on one of the bridges.
    pub vxlans: BTreeMap<PortName, (VxlanSpec, Origin)>,
    /// What the user should know, one sentence each.
    pub notes: Vec<String>,
}

/// Puts the two together. Where both name the same bridge or port, the file wins, and a note says so.
pub fn merge(config: &Config, state: &State) -> Merged {
    let mut notes = Vec::new();
    let bridges = config.bridges.iter().map(|spec| (spec.name.clone(), spec.clone()));
    let bridges = both("bridge", bridges, &state.bridges, &mut notes);
    let ports = config.ports.iter().map(|spec| (spec.name.clone(), spec.clone()));
    let mut ports = both("port", ports, &state.ports, &mut notes);
    let vxlans = config.vxlans.iter().map(|spec| (spec.name.clone(), spec.clone()));
    let mut vxlans = both("vxlan", vxlans, &state.vxlans, &mut notes);
    let mut on_bridge = |what: &str, name: &PortName, bridge: &BridgeName| {
        let has_bridge = bridges.contains_key(bridge);
        if !has_bridge {
            notes.push(format!(
                "{what} \"{name}\", which vsctl added, is left out: its bridge \"{bridge}\" is no more in switch.toml"
            ));
        }
        has_bridge
    };
    ports.retain(|name, (spec, _)| on_bridge("port", name, &spec.bridge));
    vxlans.retain(|name, (spec, _)| on_bridge("vxlan", name, &spec.bridge));
    leave_out_collisions(&ports, &mut vxlans, &mut notes);
    Merged { bridges, ports, vxlans, notes }
}

/// What vsctl added gives way to what the file names since.
fn leave_out_collisions(
    ports: &BTreeMap<PortName, (PortSpec, Origin)>,
    vxlans: &mut BTreeMap<PortName, (VxlanSpec, Origin)>,
    notes: &mut Vec<String>,
) {
    let all = vxlans.clone();
    let in_file = |spec: &VxlanSpec| {
        all.iter().find(|(name, (other, origin))| *origin == Origin::File && **name != spec.name && other.collides_with(spec))
    };
    vxlans.retain(|name, (spec, origin)| {
        let why = match in_file(spec).filter(|_| *origin == Origin::Runtime) {
            Some((other, _)) => format!("vxlan \"{other}\" of switch.toml has its VNI"),
            None if ports.contains_key(name) => "a port has its name".to_owned(),
            None => return true,
        };
        notes.push(format!("vxlan \"{name}\", which vsctl added, is left out: {why}"));
        false
    });
}

fn both<N: Ord + Clone + Display, T: Clone + PartialEq>(
    what: &str,
    file: impl Iterator<Item = (N, T)>,
    changes: &BTreeMap<N, Change<T>>,
    notes: &mut Vec<String>,
) -> BTreeMap<N, (T, Origin)> {
    let mut merged: BTreeMap<N, (T, Origin)> = file.map(|(name, spec)| (name, (spec, Origin::File))).collect();
    for (name, change) in changes {
        match (merged.get(name), change) {
            (None, Change::Set(spec)) => {
                merged.insert(name.clone(), (spec.clone(), Origin::Runtime));
            }
            (None, Change::Deleted) => {}
            (Some((in_file, _)), Change::Set(spec)) if in_file == spec => {}
            (Some(_), Change::Set(_)) => {
                notes.push(format!("{what} \"{name}\" is as switch.toml says: what vsctl changed about it is dropped"));
            }
            (Some(_), Change::Deleted) => {
                notes.push(format!("{what} \"{name}\" is back, as switch.toml says, though vsctl deleted it"));
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::super::SwitchSettings;
    use super::*;

    fn bridge(name: &str) -> BridgeSpec {
        toml::from_str(&format!("name = \"{name}\"")).unwrap()
    }

    fn port(name: &str, bridge: &str, rest: &str) -> PortSpec {
        toml::from_str(&format!("name = \"{name}\"\nbridge = \"{bridge}\"\n{rest}")).unwrap()
    }

    fn set(specs: Vec<PortSpec>) -> BTreeMap<PortName, Change<PortSpec>> {
        specs.into_iter().map(|spec| (spec.name.clone(), Change::Set(spec))).collect()
    }

    #[test]
    fn the_file_wins_and_says_so() {
        let ports = vec![port("a", "br0", "vlan = 1"), port("b", "br0", ""), port("c", "br0", "")];
        let config = Config { switch: SwitchSettings::default(), bridges: vec![bridge("br0")], ports, vxlans: Vec::new() };
        let changed = vec![port("a", "br0", "vlan = 2"), port("b", "br0", ""), port("d", "br0", ""), port("e", "gone", "")];
        let mut state = State { ports: set(changed), ..State::default() };
        state.ports.insert("c".parse().unwrap(), Change::Deleted);
        let merged = merge(&config, &state);
        let origins: Vec<(&str, Origin)> = merged.ports.iter().map(|(name, (_, origin))| (name.as_str(), *origin)).collect();
        assert_eq!(origins, [("a", Origin::File), ("b", Origin::File), ("c", Origin::File), ("d", Origin::Runtime)]);
        assert_eq!(merged.ports[&"a".parse().unwrap()].0, config.ports[0]);
        let notes = merged.notes.join("\n");
        assert_eq!(merged.notes.len(), 3, "{notes}");
        for part in ["port \"a\" is as switch.toml says", "port \"c\" is back", "port \"e\", which vsctl added, is left out"] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
        state.forget_overruled(&config);
        assert_eq!(state.ports.keys().map(PortName::as_str).collect::<Vec<_>>(), ["d", "e"]);
    }
}
