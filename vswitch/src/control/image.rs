//! What the tables of the switch know, for the vswitchd that comes after this one, however this one ends: MAC addresses, neighbours, sessions of
//! `link` uplinks, and what DHCP gave those.
//!
//! It is written once a second, and sooner where sessions have begun; less often where it is large, so that writing takes at most a hundredth of a
//! processor, and of the control side's time a fifth however slow the disk or busy the machine is. Two files in `state-dir` take turns, each
//! overwritten in its place and never waited for: they outlive the process, not the machine, and a write that was cut short leaves the other one. A
//! start takes on what still fits, before any frame comes in.
//!
//! Ages and times left are as of [`Image::second`], of a clock that all processes share until the next boot.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use packet::{Mac, VlanId};
use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::inventory::Vport;
use super::{ControlError, Switch, Uplink};
use crate::keep::Directory;
use api::{BridgeName, PortName};
use nat::SavedSession;
use plane::datapath::{BridgeId, Fixed, Place, Row, SavedBridge, SavedNeighbor};
use plane::worker::{Command, Stopped};

/// The format that this vswitchd writes. Another number has another meaning; fields that are new need no other.
const FORMAT: u32 = 1;
/// The files.
const FILES: [&str; 2] = ["tables-0.json", "tables-1.json"];
/// The usual time between two writes.
const PAUSE: Duration = Duration::from_secs(1);
/// The same where sessions have begun.
const HURRY: Duration = Duration::from_millis(20);
/// How many times as long as a write took of a processor there is none after it, and how many times as long as it was under way.
const REST: u32 = 100;
const BREATH: u32 = 4;
/// For how many seconds an address that DHCP gave is used before its client has asked again.
const FRESH: u64 = 300;
/// No image is longer: that of a million sessions has 300 MB.
const LONGEST: u64 = 1 << 30;

/// What is known, by the names of things, which the successor numbers anew.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Image {
    format: u32,
    /// Which boot of the machine `second` counts from.
    boot: String,
    /// Seconds since the machine was started, and what was over of the last one.
    second: u64,
    #[serde(default)]
    nanosecond: u32,
    bridges: BTreeMap<BridgeName, Known>,
    uplinks: BTreeMap<PortName, Known>,
    /// What DHCP gave uplinks: addresses and gateways.
    #[serde(default)]
    leases: BTreeMap<PortName, (Vec<IpNet>, Vec<IpAddr>)>,
}

/// What is known on a bridge, or on the link of an uplink.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    #[serde(default)]
    addresses: Vec<KnownAddress>,
    #[serde(default)]
    neighbors: Vec<SavedNeighbor>,
    #[serde(default)]
    sessions: Vec<SavedSession>,
}

/// A learned MAC address.
#[derive(Debug, Serialize, Deserialize)]
struct KnownAddress {
    vlan: VlanId,
    mac: Mac,
    port: PortName,
    /// The host behind which it is, of a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<IpAddr>,
    age: u32,
}

/// When the next image is due, and which file is next.
#[derive(Debug)]
pub(super) struct ImageClock {
    due: Instant,
    /// The earliest time for it.
    rested: Instant,
    file: usize,
}

impl ImageClock {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now + PAUSE, rested: now, file: 0 }
    }

    /// Has the next one come as soon as the last one is long enough ago.
    fn hurry(&mut self, now: Instant) {
        self.due = self.due.min(self.rested.max(now));
    }

    /// Takes note that one was written: the longer it took, the rarer they are. `worked` is what this thread worked for it, `took` how long it was
    /// under way.
    fn wrote(&mut self, begun: Instant, worked: Duration, took: Duration) {
        let rest = (worked * REST).max(took * BREATH);
        *self = Self { due: begun + PAUSE.max(rest), rested: begun + HURRY.max(rest), file: 1 - self.file };
    }
}

impl Image {
    /// The newest of what the last vswitchd left, of what is of this boot and can be read.
    fn newest(files: impl IntoIterator<Item = Vec<u8>>, boot: &str) -> Option<Self> {
        let parse = |bytes: Vec<u8>| {
            // Behind it may be the end of an older one that was longer.
            let mut values = serde_json::Deserializer::from_slice(&bytes).into_iter::<Self>();
            values.next()?.ok().filter(|image| image.format == FORMAT && image.boot == boot)
        };
        files.into_iter().filter_map(parse).max_by_key(|image| (image.second, image.nanosecond))
    }

    /// Lets so many seconds pass.
    fn age(&mut self, seconds: u64) {
        let passed = u32::try_from(seconds).unwrap_or(u32::MAX);
        for known in self.bridges.values_mut().chain(self.uplinks.values_mut()) {
            known.addresses.iter_mut().for_each(|address| address.age = address.age.saturating_add(passed));
            for neighbor in &mut known.neighbors {
                neighbor.confirmed = neighbor.confirmed.saturating_add(passed);
                neighbor.used = neighbor.used.saturating_add(passed);
            }
            known.sessions.retain_mut(|session| {
                session.seconds_left = session.seconds_left.saturating_sub(passed);
                session.seconds_left > 0
            });
        }
        if seconds > FRESH {
            self.leases.clear();
        }
    }
}

/// Reads what the last vswitchd left in its directory, as old as it is now.
pub(super) fn read(directory: &Directory) -> Option<Image> {
    let file = |name: &&str| {
        let mut bytes = Vec::new();
        directory.open_file(name, OFlags::RDONLY).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    newest(FILES.iter().filter_map(file))
}

/// Reads what the last vswitchd handed over.
pub(super) fn parse(bytes: Vec<u8>) -> Option<Image> {
    newest([bytes])
}

fn newest(files: impl IntoIterator<Item = Vec<u8>>) -> Option<Image> {
    let mut image = Image::newest(files, &boot())?;
    image.age(moment().0.saturating_sub(image.second));
    Some(image)
}

/// Overwrites a file in its place, so that no disk is waited for.
fn overwrite(directory: &Directory, name: &str, bytes: &[u8]) -> io::Result<()> {
    let file = directory.open_file(name, OFlags::RDWR | OFlags::CREATE)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)
}

/// Which boot this is (random(4), `boot_id`).
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Seconds since the machine was started, also those that it slept, and nanoseconds.
fn moment() -> (u64, u32) {
    let now = clock_gettime(ClockId::Boottime);
    (u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// What the calling thread has worked so far.
fn worked() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

impl Switch {
    /// When [`Self::write_image`] is to be called next.
    pub(super) const fn image_due(&self) -> Instant {
        self.image.due
    }

    /// Has what is known written down soon.
    pub(super) fn hurry_image(&mut self) {
        self.image.hurry(Instant::now());
    }

    /// Writes down what is known.
    pub(super) fn write_image(&mut self) {
        let (begun, before) = (Instant::now(), worked());
        let file = self.image.file;
        // Where there is no directory, it is tried again as rarely.
        self.image.due = begun + PAUSE;
        let Some(directory) = self.ledger.state_file.directory() else { return };
        let written = self.image().map_err(io::Error::other).and_then(|image| {
            let bytes = serde_json::to_vec(&image)?;
            overwrite(directory, FILES[file], &bytes)
        });
        if let Err(error) = written {
            tracing::debug!("what the tables know is not written down: {error}");
        }
        self.image.wrote(begun, worked().saturating_sub(before), begun.elapsed());
    }

    /// What the tables know now.
    pub(super) fn image(&self) -> Result<Image, Stopped> {
        let bridges = self.inventory.bridges.iter().map(|(name, bridge)| Ok((name.clone(), self.known(bridge.id)?)));
        let uplinks = self.inventory.named::<Uplink>().map(|(name, uplink)| Ok((name.clone(), self.known(uplink.bridge)?)));
        let leases = self.inventory.named::<Uplink>().filter_map(|(name, uplink)| Some((name.clone(), uplink.lease.clone()?)));
        let (second, nanosecond) = moment();
        Ok(Image {
            format: FORMAT,
            boot: boot(),
            second,
            nanosecond,
            bridges: bridges.collect::<Result<_, Stopped>>()?,
            uplinks: uplinks.collect::<Result<_, Stopped>>()?,
            leases: leases.collect(),
        })
    }

    fn known(&self, bridge: BridgeId) -> Result<Known, Stopped> {
        let router = self.plane.router()?;
        let (mut saved, mut next) = router.ask(|reply| Command::Export(bridge, 0, reply))?;
        while let Some(from) = next {
            let (page, more) = router.ask(|reply| Command::Export(bridge, from, reply))?;
            saved.sessions.extend(page.sessions);
            next = more;
        }
        let SavedBridge { addresses, neighbors, sessions } = saved;
        let address = |row: Row| {
            let vport = self.inventory.by_id(row.place.port)?;
            let peer = match vport {
                Vport::Tunnel(tunnel) => Some(tunnel.live()?.shared.peers.address(row.place.peer)?),
                Vport::Port(_) | Vport::Uplink(_) => None,
            };
            Some(KnownAddress { vlan: row.vlan, mac: row.mac, port: vport.name().clone(), peer, age: row.age })
        };
        Ok(Known { addresses: addresses.into_iter().filter_map(address).collect(), neighbors, sessions })
    }

    /// Takes on what the last vswitchd knew, as far as it fits what is there now. Before any frame comes in, so that no session finds its port taken.
    pub(super) fn restore_image(&mut self, image: Image) -> Result<(), ControlError> {
        let Image { bridges, uplinks, leases, .. } = image;
        for (name, lease) in leases {
            let Some(uplink) = self.inventory.find_mut::<Uplink>(&name).filter(|uplink| uplink.spec.is_by_dhcp()) else {
                continue;
            };
            uplink.lease = Some(lease);
            self.refresh_uplink(&name)?;
        }
        let bridges = bridges.into_iter().filter_map(|(name, known)| Some((self.inventory.bridges.get(&name)?.id, known)));
        let uplinks =
            uplinks.into_iter().filter_map(|(name, known)| Some((self.inventory.find::<Uplink>(&name)?.bridge, known)));
        let mut lost = 0;
        for (id, known) in bridges.chain(uplinks) {
            lost += self.take_on(id, known)?;
        }
        if lost > 0 {
            tracing::info!(sessions = lost, "sessions of the last vswitchd that fit no uplink any more are forgotten");
        }
        Ok(())
    }

    /// Returns how many sessions did not fit.
    fn take_on(&self, bridge: BridgeId, known: Known) -> Result<usize, Stopped> {
        let row = |address: KnownAddress| {
            let KnownAddress { vlan, mac, port, peer, age } = address;
            let vport = self.inventory.vport(&port)?;
            let peer = match (vport, peer) {
                (Vport::Tunnel(tunnel), Some(peer)) => tunnel.live()?.shared.peers.number(peer)?,
                (Vport::Tunnel(_), None) | (Vport::Port(_) | Vport::Uplink(_), Some(_)) => return None,
                (Vport::Port(_) | Vport::Uplink(_), None) => 0,
            };
            Some(Row { vlan, mac, place: Place { port: vport.id()?, peer }, age, fixed: Fixed::No })
        };
        let addresses: Vec<Row> = known.addresses.into_iter().filter_map(row).collect();
        for worker in self.plane.workers.iter().skip(1) {
            let saved = SavedBridge { addresses: addresses.clone(), ..SavedBridge::default() };
            worker.ask(|reply| Command::Import(bridge, Box::new(saved), reply))?;
        }
        let saved = SavedBridge { addresses, neighbors: known.neighbors, sessions: known.sessions };
        self.plane.router()?.ask(|reply| Command::Import(bridge, Box::new(saved), reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first release that hands anything over writes. It stays as it is: the next one must read it.
    const FIRST: &str = r#"{"format":1,"boot":"b","second":1000,"bridges":{"br0":{"addresses":[{"vlan":1,"mac":"02:00:00:00:00:01","port":"a","age":7},{"vlan":1,"mac":"02:00:00:00:00:02","port":"vx0","peer":"192.0.2.2","age":299}],"neighbors":[{"address":"10.0.0.1","mac":"02:00:00:00:00:01","confirmed":3,"used":4,"wanted":true}],"sessions":[]}},"uplinks":{"wan":{"addresses":[],"neighbors":[],"sessions":[{"transport":"Tcp","initiator":"Outbound","inside":"10.0.0.1:5000","port":5000,"remote":"198.51.100.1:80","binding":"Mapped","class":"TcpEstablished","tcp":3,"seconds_left":7000,"traffic":[{"packets":1,"bytes":60},{"packets":2,"bytes":120}],"crowded":false}]}},"leases":{"wan":[["192.0.2.10/24"],["192.0.2.1"]]}}"#;

    fn image(second: u64) -> Image {
        Image { format: FORMAT, boot: "b".to_owned(), second, ..Image::default() }
    }

    fn bytes(image: &Image) -> Vec<u8> {
        serde_json::to_vec(image).unwrap()
    }

    #[test]
    fn what_takes_long_to_write_is_written_rarely_and_in_turn_to_each_file() {
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut clock = ImageClock::new(start);
        clock.hurry(after(5));
        assert_eq!((clock.due, clock.file), (after(5), 0));
        let (little, long) = (Duration::from_micros(50), Duration::from_millis(30));
        clock.wrote(after(5), little, little);
        assert_eq!((clock.due, clock.file), (after(1005), 1));
        clock.hurry(after(6));
        assert_eq!(clock.due, after(25), "not so soon after the last one");
        // On a busy machine it is under way for long, and the next one is soon all the same.
        clock.wrote(after(25), little, long);
        clock.hurry(after(26));
        assert_eq!(clock.due, after(145));
        clock.file = 1;
        clock.wrote(after(25), long, long);
        assert_eq!((clock.due, clock.file), (after(3025), 0));
        clock.hurry(after(26));
        assert_eq!(clock.due, after(3025), "what took long is not hurried");
    }

    #[test]
    fn what_the_first_format_says_is_understood_and_written_again() {
        let first = Image::newest([FIRST.as_bytes().to_vec()], "b").unwrap();
        let [a, vx0] = &first.bridges[&"br0".parse().unwrap()].addresses[..] else { panic!("{first:?}") };
        assert_eq!((a.age, a.peer, vx0.peer), (7, None, Some("192.0.2.2".parse().unwrap())));
        assert_eq!(first.uplinks[&"wan".parse().unwrap()].sessions[0].seconds_left, 7000);
        // Since then it has been said when within the second.
        let again = FIRST.replacen("\"second\":1000", "\"second\":1000,\"nanosecond\":0", 1);
        assert_eq!(String::from_utf8(bytes(&first)).unwrap(), again);
        // A newer one may say more.
        let more = FIRST.replacen("\"second\"", "\"more\":[1],\"second\"", 1);
        assert!(Image::newest([more.into_bytes()], "b").is_some());
    }

    #[test]
    fn the_newest_that_can_be_read_counts_if_it_is_of_this_boot() {
        let behind = [&bytes(&image(5))[..], b"\"},the end of a longer one"].concat();
        let cut = bytes(&image(9))[..20].to_vec();
        let other_boot = bytes(&Image { boot: "c".to_owned(), ..image(8) });
        let other_format = bytes(&Image { format: FORMAT + 1, ..image(7) });
        let files = [bytes(&image(4)), behind, cut, other_boot, other_format, Vec::new()];
        assert_eq!(Image::newest(files, "b").map(|image| image.second), Some(5));
        assert!(Image::newest([bytes(&image(4))], "another").is_none());
        // Several are written within a second.
        let of = |nanosecond| Image { nanosecond, ..image(5) };
        assert_eq!(Image::newest([2, 1].map(|nanosecond| bytes(&of(nanosecond))), "b").map(|image| image.nanosecond), Some(2));
    }

    #[test]
    fn what_was_known_grows_old_while_nobody_runs() {
        let mut image = Image::newest([FIRST.as_bytes().to_vec()], "b").unwrap();
        image.age(FRESH);
        let (bridge, uplink) = (&image.bridges[&"br0".parse().unwrap()], &image.uplinks[&"wan".parse().unwrap()]);
        assert_eq!((bridge.addresses[0].age, bridge.neighbors[0].confirmed, bridge.neighbors[0].used), (307, 303, 304));
        assert_eq!((uplink.sessions[0].seconds_left, image.leases.len()), (6700, 1));
        image.age(6699);
        assert_eq!((image.uplinks[&"wan".parse().unwrap()].sessions.len(), image.leases.len()), (1, 0));
        image.age(u64::MAX);
        assert_eq!(image.uplinks[&"wan".parse().unwrap()].sessions.len(), 0);
    }

    #[test]
    fn two_files_take_turns_and_a_shorter_one_ends_where_it_ends() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        assert!(read(&directory).is_none());
        for (number, text) in [(0, "a longer text"), (0, "short"), (1, "other")] {
            overwrite(&directory, FILES[number], text.as_bytes()).unwrap();
        }
        assert_eq!(FILES.map(|name| std::fs::read_to_string(place.path().join(name)).unwrap()), ["short", "other"]);
        let now = Image { boot: boot(), second: moment().0, ..image(0) };
        overwrite(&directory, FILES[1], &bytes(&now)).unwrap();
        assert_eq!(read(&directory).map(|image| image.boot), Some(boot()));
    }
}
