use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use packet::Mac;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::api::{BridgeName, BridgeSpec, ForwardKey, ForwardSpec, PortName, PortSpec, UplinkSpec, VxlanSpec};
use crate::containers::Containers;
use crate::docker::Docker;

/// What a start must know besides `switch.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// From which the addresses of stations that were given none are derived, so that they stay.
    #[serde(default = "random")]
    pub seed: u64,
    /// Bridges that vsctl set or deleted.
    pub bridges: BTreeMap<BridgeName, Change<BridgeSpec>>,
    /// Ports that vsctl set or deleted.
    pub ports: BTreeMap<PortName, Change<PortSpec>>,
    /// Uplinks that vsctl set or deleted.
    #[serde(default)]
    pub uplinks: BTreeMap<PortName, Change<UplinkSpec>>,
    /// Forwards that vsctl set or deleted.
    #[serde(default)]
    pub forwards: BTreeMap<ForwardKey, Change<ForwardSpec>>,
    /// Tunnels that vsctl set or deleted.
    #[serde(default)]
    pub vxlans: BTreeMap<PortName, Change<VxlanSpec>>,
    /// What Docker asked for.
    #[serde(default)]
    pub docker: Docker,
    /// What plugins of other runtimes asked for.
    #[serde(default)]
    pub containers: Containers,
    /// What exists in the kernel because of vswitchd.
    pub made: Made,
}

/// A change that vsctl made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change<T> {
    /// It was added, or is to be like this.
    Set(T),
    /// It was in the file and was deleted.
    Deleted,
}

/// What exists in the kernel because of vswitchd. Written down before it is made, so it may also not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Namespaces under `/run/netns`.
    pub netns: BTreeSet<String>,
    /// Ports, as their devices were asked for.
    pub ports: BTreeMap<PortName, PortSpec>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            seed: random(),
            bridges: BTreeMap::new(),
            ports: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            forwards: BTreeMap::new(),
            vxlans: BTreeMap::new(),
            docker: Docker::default(),
            containers: Containers::default(),
            made: Made::default(),
        }
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(())
}

impl State {
    /// The MAC address of a port's station, or of a gateway, that was given none: locally administered, and the same whenever its device is made
    /// again, for the others remember it in their neighbour tables (FNV-1a, then the finalizer of SplitMix64, without which names
    /// that differ in their last character collide).
    pub fn station_mac(&self, name: &str) -> Mac {
        let bytes = self.seed.to_le_bytes().into_iter().chain(name.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [a, b, c, d, e, ..] = (mixed ^ (mixed >> 31)).to_le_bytes();
        Mac([0x02, a, b, c, d, e])
    }

    /// Drops the changes to what the file names: it has won, and its user was told.
    pub fn forget_overruled(&mut self, config: &Config) {
        self.bridges.retain(|name, _| config.bridges.iter().all(|spec| spec.name != *name));
        self.ports.retain(|name, _| config.ports.iter().all(|spec| spec.name != *name));
        self.uplinks.retain(|name, _| config.uplinks.iter().all(|spec| spec.name != *name));
        self.forwards.retain(|key, _| config.forwards.iter().all(|spec| spec.key != *key));
        self.vxlans.retain(|name, _| config.vxlans.iter().all(|spec| spec.name != *name));
    }
}

/// Why the state cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has the directory.
    #[error("state-dir {}: {} uses it: stop that one, or set another `state-dir`", path.display(), user(pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other's process, if it could be read.
        pid: Option<u32>,
    },
    /// The file is not what was written.
    #[error("{}: not a state that this vswitchd wrote ({source}): move it away to start with switch.toml alone", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The operating system refused.
    #[error("{}: {source}: `state-dir` must be a directory that vswitchd can write", path.display())]
    Refused {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn user(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another vswitchd".to_owned(), |pid| format!("another vswitchd, process {pid},"))
}

/// The file that keeps a [`State`], and the lock that makes this process its only user.
#[derive(Debug)]
pub struct StateFile {
    directory: PathBuf,
    _lock: File,
}

/// `Refused` at a path.
fn refused(path: &Path) -> impl Fn(io::Error) -> StateError {
    move |source| StateError::Refused { path: path.to_owned(), source }
}

impl StateFile {
    /// Takes the directory, which is made if missing, and reads what was kept there; nothing the first time.
    ///
    /// # Errors
    /// Another vswitchd uses it, it cannot be written, or what is there is damaged.
    pub fn open(directory: &Path) -> Result<(Self, State), StateError> {
        let make = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        make.map_err(refused(directory))?;
        let file = Self { directory: directory.to_owned(), _lock: lock(directory)? };
        let path = file.path();
        let state = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| StateError::Damaged { path, source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(refused(&path)(error)),
        };
        Ok((file, state))
    }

    /// Keeps a state; a crash at any moment leaves this one or the one before.
    ///
    /// # Errors
    /// The disk is full or read-only.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        let path = self.path();
        let new = path.with_extension("json.new");
        let write = || -> io::Result<()> {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(state)?)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(refused(&path))
    }

    fn path(&self) -> PathBuf {
        self.directory.join("state.json")
    }
}

/// The kernel takes the lock from a process that ends, however it ends.
fn lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join("lock");
    let options = || File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = options().map_err(refused(&path))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
        return Err(StateError::InUse { path: directory.to_owned(), pid });
    }
    let note = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    note.map_err(refused(&path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> State {
        let port: PortSpec = toml::from_str("name = \"a\"\nbridge = \"br0\"\nnetns = \"x\"").unwrap();
        let mut state = State::default();
        state.bridges.insert("br0".parse().unwrap(), Change::Deleted);
        state.ports.insert("a".parse().unwrap(), Change::Set(port.clone()));
        let forward: ForwardSpec =
            toml::from_str("uplink = \"wan\"\nprotocol = \"tcp\"\nport = \"80-90\"\nto = \"10.0.0.2:80\"").unwrap();
        state.uplinks.insert("wan".parse().unwrap(), Change::Set(toml::from_str("name = \"wan\"\nkind = \"host\"").unwrap()));
        state.forwards.insert(forward.key.clone(), Change::Set(forward));
        let vxlan = "name = \"vx0\"\nbridge = \"br0\"\nvni = 1\nlocal = \"192.0.2.1\"";
        state.vxlans.insert("vx0".parse().unwrap(), Change::Set(toml::from_str(vxlan).unwrap()));
        state.made.netns.insert("x".to_owned());
        state.made.ports.insert("a".parse().unwrap(), port);
        state
    }

    #[test]
    fn what_is_saved_is_there_the_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/when/missing");
        let (file, state) = StateFile::open(&path).unwrap();
        assert_eq!((state.bridges.len(), state.ports.len(), &state.made), (0, 0, &Made::default()));
        let some = some();
        file.save(&some).unwrap();
        drop(file);
        assert_eq!(StateFile::open(&path).unwrap().1, some);
    }

    #[test]
    fn a_station_keeps_its_address_and_shares_it_with_nobody() {
        let state = State::default();
        let macs: BTreeSet<Mac> = (0..1000).map(|n| state.station_mac(&format!("p{n}"))).collect();
        assert_eq!(macs.len(), 1000);
        assert!(macs.iter().all(|mac| !mac.is_group()));
        assert_eq!(state.station_mac("a"), state.clone().station_mac("a"));
        assert_ne!(state.station_mac("a"), State { seed: state.seed ^ 1, ..state.clone() }.station_mac("a"));
    }

    #[test]
    fn one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let (file, _) = StateFile::open(directory.path()).unwrap();
        let error = StateFile::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("another vswitchd, process {},", std::process::id())), "{error}");
        drop(file);
        StateFile::open(directory.path()).unwrap();
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        for text in ["", "{", "[]", "{\"ports\":{\"a/b\":\"deleted\"}}", "\u{0}\u{0}"] {
            std::fs::write(&path, text).unwrap();
            let error = StateFile::open(directory.path()).unwrap_err().to_string();
            assert!(error.contains("state.json") && error.contains("move it away"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "").unwrap();
        let error = StateFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("file: ") && error.contains("`state-dir`"), "{error}");
    }
}
