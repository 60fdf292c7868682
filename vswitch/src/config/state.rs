//! What a start must know besides `switch.toml`, and the file that keeps it. The control side changes the one and saves it in the other, before
//! it touches the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use packet::Mac;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::carried::{self, Carried};
use super::document::Document;
use super::{Changes, Config};
use crate::containers::Containers;
use crate::docker::Docker;
use crate::keep::Directory;
use api::{PortKind, PortName, PortSpec};

/// What a start must know besides `switch.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Document")]
pub struct State {
    /// From which the addresses of stations that were given none are derived, so that they stay.
    pub seed: u64,
    /// What vsctl set or deleted.
    pub changes: Changes,
    /// What Docker asked for.
    pub docker: Docker,
    /// What plugins of other runtimes asked for.
    pub containers: Containers,
    /// What exists in the kernel because of vswitchd.
    pub made: Made,
}

/// What exists in the kernel because of vswitchd. It is written down before it is made, and stays written down until the write after it is gone; so a
/// start removes only what bears its mark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Namespaces under `/run/netns`.
    pub netns: BTreeSet<String>,
    /// Whether those bear [`State::netns_mark`]; earlier releases gave them none.
    #[serde(default)]
    pub marked: bool,
    /// Ports, as their devices were asked for.
    pub ports: BTreeMap<PortName, PortSpec>,
}

impl Made {
    /// Notes that the port's device is about to be made, if it will be one that the switch makes or puts somewhere. Returns whether that is
    /// news.
    pub fn expect(&mut self, spec: &PortSpec) -> bool {
        let is_made = spec.kind != PortKind::Link || spec.netns.is_some();
        is_made && self.ports.insert(spec.name.clone(), spec.clone()).as_ref() != Some(spec)
    }

    /// Whether all of `other` is among it.
    pub fn covers(&self, other: &Self) -> bool {
        let has_namespaces = self.netns.is_superset(&other.netns) && self.marked >= other.marked;
        has_namespaces && other.ports.iter().all(|(name, spec)| self.ports.get(name) == Some(spec))
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            seed: random(),
            changes: Changes::default(),
            docker: Docker::default(),
            containers: Containers::default(),
            made: Made::default(),
        }
    }
}

pub(super) fn random() -> u64 {
    RandomState::new().hash_one(())
}

impl State {
    /// The MAC address of a port's station, or of a gateway, that was given none: locally administered, and the same whenever its device is made
    /// again, for the others remember it in their neighbour tables (FNV-1a, then the finalizer of SplitMix64, without which names
    /// that differ in their last character collide).
    pub fn station_mac(&self, name: &str) -> Mac {
        let [a, b, c, d, e, ..] = self.derived(name);
        Mac([0x02, a, b, c, d, e])
    }

    /// The alias of the loopback in each namespace that is made (`ip link` shows it), which no other vswitchd gives.
    pub fn netns_mark(&self) -> String {
        let [a, b, c, d, ..] = self.derived("its namespaces");
        format!("vswitch namespace {a:02x}{b:02x}{c:02x}{d:02x}")
    }

    fn derived(&self, name: &str) -> [u8; 8] {
        let bytes = self.seed.to_le_bytes().into_iter().chain(name.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    }

    /// Drops the changes to what the file names: it has won, and its user was told.
    pub fn forget_overruled(&mut self, config: &Config) {
        self.changes.0.retain(|key, _| !config.has(key));
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
    /// The file is not what was written, and there is none from before.
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

/// The file that keeps a [`State`], and the locks that make this process its only user.
///
/// It is written when a state differs from what it holds, and need not be writable for a start: what it cannot keep is not changed.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// `None`: it is not there and cannot be made.
    place: Option<Place>,
    /// What the file holds, if that is known and good.
    kept: Option<State>,
    /// Whether the file is damaged, and what was read is the one before.
    damaged: bool,
    /// What the file has besides, from a newer vswitchd.
    carried: Carried,
}

/// The directory, which is this process's.
#[derive(Debug)]
struct Place {
    directory: Directory,
    lock: Option<File>,
}

const FILE: &str = "state.json";
/// What the file held before it was last written.
const BEFORE: &str = "state.json.old";
/// Where a damaged one is put when another is written.
const DAMAGED: &str = "state.json.damaged";

/// `Refused` at a path.
fn refused(path: &Path) -> impl Fn(io::Error) -> StateError {
    move |source| StateError::Refused { path: path.to_owned(), source }
}

impl StateFile {
    /// Takes the directory, which is made if missing, and reads what was kept there; nothing the first time. Says what the user should
    /// know about it.
    ///
    /// # Errors
    /// Another vswitchd uses the directory, another user owns it, or what is kept there is damaged and there is none from before.
    pub fn open(path: &Path) -> Result<(Self, State, Vec<String>), StateError> {
        let is_missing = std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let place = match Place::take(path) {
            Ok(place) => Some(place),
            // There is nothing to be read, and maybe never anything to be kept.
            Err(StateError::Refused { source, .. }) if is_missing && is_unwritable(&source) => None,
            Err(error) => return Err(error),
        };
        let mut file = Self { path: path.to_owned(), place, kept: None, damaged: false, carried: Carried::default() };
        let (state, notes) = file.read()?;
        Ok((file, state, notes))
    }

    fn read(&mut self) -> Result<(State, Vec<String>), StateError> {
        let Some(place) = &self.place else { return Ok((State::default(), Vec::new())) };
        let path = self.path.join(FILE);
        let bytes = match place.directory.read(FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((State::default(), Vec::new())),
            Err(error) => return Err(refused(&path)(error)),
        };
        let source = match parse(&bytes) {
            Ok((state, carried)) => {
                (self.kept, self.carried) = (Some(state.clone()), carried);
                return Ok((state, Vec::new()));
            }
            Err(source) => source,
        };
        let before = place.directory.read(BEFORE).ok().and_then(|bytes| parse(&bytes).ok());
        let Some((state, carried)) = before else { return Err(StateError::Damaged { path, source }) };
        (self.damaged, self.carried) = (true, carried);
        let note = format!(
            "{}: not a state that this vswitchd wrote ({source}): it goes on with the one before, {BEFORE}, without what was changed \
             last; the damaged one will be {DAMAGED}",
            path.display()
        );
        Ok((state, vec![note]))
    }

    /// Keeps a state, unless it is kept already; a crash at any moment leaves this one or the one before.
    ///
    /// # Errors
    /// The disk is full or read-only.
    pub fn save(&mut self, state: &State) -> Result<(), StateError> {
        if self.kept.as_ref() == Some(state) { Ok(()) } else { self.try_save(state.clone()) }
    }

    /// The same, of a state that is needed for nothing else.
    ///
    /// # Errors
    /// As for [`StateFile::save`].
    pub fn keep(&mut self, state: State) -> Result<(), StateError> {
        if self.kept.as_ref() == Some(&state) { Ok(()) } else { self.try_save(state) }
    }

    /// Lets another vswitchd have the directory. What this one changes meanwhile is not kept.
    pub(crate) fn unlock(&self) {
        if let Some(Place { directory, lock }) = &self.place {
            let locked = std::iter::once(directory.descriptor().as_fd()).chain(lock.as_ref().map(AsFd::as_fd));
            // What is open can be unlocked.
            locked.for_each(|file| rustix::fs::flock(file, FlockOperation::Unlock).unwrap_or_default());
        }
    }

    /// Takes the directory back from one that has ended.
    ///
    /// # Errors
    /// It has not.
    pub(crate) fn lock_again(&mut self) -> Result<(), StateError> {
        if self.place.is_some() {
            self.place = Some(Place::take(&self.path)?);
        }
        Ok(())
    }

    /// The directory, if it is there.
    pub(crate) fn directory(&self) -> Option<&Directory> {
        self.place.as_ref().map(|place| &place.directory)
    }

    /// What exists in the kernel because of vswitchd, as far as the next start would know it.
    pub fn known_made(&self) -> Option<&Made> {
        self.kept.as_ref().map(|state| &state.made)
    }

    /// Whether a start with what was kept last would do as with this state. The kept one may name devices and namespaces besides, which are gone: a
    /// start removes only what bears its mark.
    pub fn suffices(&self, state: &State) -> bool {
        let State { seed, changes, docker, containers, made } = state;
        self.kept.as_ref().is_some_and(|kept| {
            (kept.seed, &kept.changes, &kept.docker, &kept.containers) == (*seed, changes, docker, containers)
                && kept.made.covers(made)
        })
    }

    /// As [`StateFile::save`], but finds out whether states can be kept even if this one is.
    ///
    /// # Errors
    /// The disk is full or read-only.
    pub fn try_save(&mut self, state: State) -> Result<(), StateError> {
        let bytes = self.bytes(&state)?;
        self.write(&bytes, state)
    }

    fn bytes(&self, state: &State) -> Result<Vec<u8>, StateError> {
        let text = || {
            if self.carried == Carried::default() {
                return serde_json::to_vec_pretty(state);
            }
            let mut document = serde_json::to_value(state)?;
            self.carried.add_to(&mut document);
            serde_json::to_vec_pretty(&document)
        };
        text().map_err(|error| refused(&self.path.join(FILE))(error.into()))
    }

    fn write(&mut self, bytes: &[u8], state: State) -> Result<(), StateError> {
        if self.place.is_none() {
            self.place = Some(Place::take(&self.path)?);
        }
        let Some(Place { directory, .. }) = &self.place else { return Ok(()) };
        let old = match &self.kept {
            _ if self.damaged => Some(DAMAGED),
            // What is the same again is no reason to forget what was before.
            Some(kept) if *kept != state => Some(BEFORE),
            _ => None,
        };
        let path = self.path.join(FILE);
        directory.write(FILE, bytes, old).map_err(refused(&path))?;
        self.damaged = false;
        self.kept = Some(state);
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Result<(State, Carried), serde_json::Error> {
    carried::read::<State>(&serde_json::from_slice(bytes)?)
}

/// Whether something could not be made for want of a right or of room.
fn is_unwritable(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::StorageFull];
    kinds.contains(&error.kind()) || error.kind() == io::ErrorKind::QuotaExceeded
}

impl Place {
    /// Makes the directory if it is missing, and locks it. The kernel takes the locks from a process that ends, however it ends.
    fn take(path: &Path) -> Result<Self, StateError> {
        let directory = Directory::make(path).map_err(refused(path))?;
        // The directory itself can be locked on any disk. The file says whose lock it is, and is all that older releases look at.
        let is_taken = |locked: Result<(), Errno>| locked == Err(Errno::WOULDBLOCK);
        let taken = is_taken(rustix::fs::flock(directory.descriptor(), FlockOperation::NonBlockingLockExclusive));
        let file = directory.open_file("lock", OFlags::RDWR | OFlags::CREATE);
        let lock = match file.or_else(|_| directory.open_file("lock", OFlags::RDONLY)) {
            Ok(lock) => Some(lock),
            Err(error) if is_unwritable(&error) || error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(refused(&path.join("lock"))(error)),
        };
        let is_locked = |lock: &File| is_taken(rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive));
        if taken || lock.as_ref().is_some_and(is_locked) {
            let mut text = String::new();
            let pid = lock.and_then(|mut lock| lock.read_to_string(&mut text).ok()).and_then(|_| text.trim().parse().ok());
            return Err(StateError::InUse { path: path.to_owned(), pid });
        }
        if let Some(mut lock) = lock.as_ref() {
            // A full disk takes nothing from the lock.
            let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        }
        Ok(Self { directory, lock })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::config::Change;
    use api::{ForwardSpec, ResourceKey, UplinkSpec, VxlanSpec};

    fn some() -> State {
        let port: PortSpec = toml::from_str("name = \"a\"\nbridge = \"br0\"\nnetns = \"x\"").unwrap();
        let mut state = State::default();
        state.changes.0.insert(ResourceKey::Bridge("br0".parse().unwrap()), Change::Deleted);
        state.changes.set(port.clone());
        let forward: ForwardSpec =
            toml::from_str("uplink = \"wan\"\nprotocol = \"tcp\"\nport = \"80-90\"\nto = \"10.0.0.2:80\"").unwrap();
        state.changes.set(toml::from_str::<UplinkSpec>("name = \"wan\"\nkind = \"host\"").unwrap());
        state.changes.set(forward);
        let vxlan = "name = \"vx0\"\nbridge = \"br0\"\nvni = 1\nlocal = \"192.0.2.1\"";
        state.changes.set(toml::from_str::<VxlanSpec>(vxlan).unwrap());
        state.made.netns.insert("x".to_owned());
        state.made.ports.insert("a".parse().unwrap(), port);
        state
    }

    /// Opens a directory that no other vswitchd has. A process that another test forks has its lock too until it becomes another program.
    fn open(path: &Path) -> (StateFile, State, Vec<String>) {
        for _ in 0..500 {
            match StateFile::open(path) {
                Err(StateError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
                opened => return opened.unwrap(),
            }
        }
        panic!("{} stays in use", path.display());
    }

    #[test]
    fn what_is_saved_is_there_the_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/when/missing");
        let (mut file, state, notes) = open(&path);
        assert_eq!((state.changes.0.len(), &state.made, notes.len()), (0, &Made::default(), 0));
        let some = some();
        file.save(&some).unwrap();
        drop(file);
        assert_eq!(open(&path).1, some);
    }

    #[test]
    fn what_is_kept_already_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, state, _) = open(directory.path());
        file.save(&state).unwrap();
        let path = directory.path().join(FILE);
        let written = || std::fs::metadata(&path).unwrap().ino();
        let first = written();
        file.save(&state).unwrap();
        assert_eq!(written(), first);
        drop(file);
        let (mut file, state, _) = open(directory.path());
        file.save(&state).unwrap();
        assert_eq!(written(), first);
        file.try_save(state).unwrap();
        assert_ne!(written(), first);
    }

    #[test]
    fn what_is_gone_needs_no_write_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, mut state, _) = StateFile::open(directory.path()).unwrap();
        let port: PortSpec = toml::from_str("name = \"a\"\nbridge = \"br0\"\nnetns = \"x\"").unwrap();
        assert!(!file.suffices(&state), "nothing is kept yet");
        state.made.expect(&port);
        state.made.netns.insert("x".to_owned());
        file.save(&state).unwrap();
        assert!(file.suffices(&state));
        state.made.ports.clear();
        assert!(file.suffices(&state));
        let changed =
            State { changes: Changes([(ResourceKey::Port(port.name.clone()), Change::Deleted)].into()), ..state.clone() };
        assert!(!file.suffices(&changed));
        state.made.netns.clear();
        assert!(file.suffices(&state));
        state.made.netns.insert("y".to_owned());
        assert!(!file.suffices(&state), "a namespace that the start would not know");
        state.made = Made { marked: true, ..Made::default() };
        assert!(!file.suffices(&state), "the start would mark what has these names by then");
        state.made = Made { ports: [(port.name.clone(), port)].into(), ..Made::default() };
        state.made.ports.values_mut().for_each(|spec| spec.offload = false);
        assert!(!file.suffices(&state), "another device than the start would look for");
    }

    #[test]
    fn a_damaged_file_is_replaced_by_the_one_before_and_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (mut file, first, _) = open(directory.path());
        file.save(&first).unwrap();
        file.save(&some()).unwrap();
        drop(file);
        for garbage in ["", "{\"made\":", "\u{0}\u{0}\u{0}"] {
            std::fs::write(path(FILE), garbage).unwrap();
            let (_, state, notes) = open(directory.path());
            assert_eq!(state, first);
            assert!(notes[0].contains("state.json.old") && notes[0].contains("state.json.damaged"), "{notes:?}");
            // Nothing is touched before there is something to write.
            assert_eq!(std::fs::read_to_string(path(FILE)).unwrap(), garbage);
        }
        let (mut file, _, _) = open(directory.path());
        file.save(&some()).unwrap();
        assert_eq!(std::fs::read_to_string(path(DAMAGED)).unwrap(), "\u{0}\u{0}\u{0}");
        drop(file);
        let (_, state, notes) = open(directory.path());
        assert_eq!((state.changes, notes.len()), (some().changes, 0));
    }

    #[test]
    fn fields_of_a_newer_release_outlive_this_one() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, state, _) = open(directory.path());
        file.save(&state).unwrap();
        drop(file);
        let path = directory.path().join(FILE);
        let read = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&path).unwrap()).unwrap();
        let mut document = read();
        (document["format"], document["labs"]) = (2.into(), "vlan".into());
        std::fs::write(&path, document.to_string()).unwrap();
        let (mut file, mut state, notes) = open(directory.path());
        assert_eq!(notes.len(), 0, "{notes:?}");
        state.changes.0.insert(ResourceKey::Bridge("br0".parse().unwrap()), Change::Deleted);
        file.save(&state).unwrap();
        let now = read();
        assert_eq!((&now["format"], &now["labs"], &now["bridges"]["br0"]), (&1.into(), &"vlan".into(), &"deleted".into()));
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
        let (file, ..) = open(directory.path());
        let error = StateFile::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("another vswitchd, process {},", std::process::id())), "{error}");
        drop(file);
        open(directory.path());
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
