//! Which resolvers the host uses, and in what order to ask them. The services' thread asks for each question (`services/run.rs`), and asks the
//! kernel for the numbers of interfaces. It opens no file: the control side reads `/etc/resolv.conf` ([`ResolverFile`]) and tells it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

use super::{PORT, ResolverOutcome};

/// Most servers that are used; the C library uses three.
const MOST: usize = 8;
/// More than this of the file is not read.
const LONGEST: u64 = 64 << 10;
/// For how long a server that said nothing is asked after the others.
const SILENCE: Duration = Duration::from_secs(60);
/// For how long one question alone finds out whether it is back; longer than it is waited for.
const TRIAL: Duration = Duration::from_secs(3);

/// The host's resolvers, as `/etc/resolv.conf` has them now.
///
/// One that says nothing costs each question the time that it is waited for. So it goes behind the others for a minute, after which one
/// question tries it again.
#[derive(Debug, Default)]
pub struct Resolvers {
    servers: Vec<Server>,
    /// Servers that said nothing, and until when they are asked last.
    silent: HashMap<SocketAddr, Duration>,
}

/// The file that lists them, as it was read last.
#[derive(Debug)]
pub struct ResolverFile {
    path: PathBuf,
    /// Time and length of what was read.
    version: Option<(SystemTime, u64)>,
}

/// An address in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    address: IpAddr,
    /// The interface behind `%`, by name or number, which an address has that is good on one link alone.
    zone: Option<String>,
}

impl Resolvers {
    /// Those in a text as in `resolv.conf`, from now on.
    pub fn set(&mut self, text: &str) {
        let (servers, unread) = parse(text);
        self.servers = servers;
        if let Some(line) = unread.first() {
            let count = unread.len();
            tracing::warn!("/etc/resolv.conf: {line:?} names no server by its IP address: {count} such lines are passed over");
        }
    }

    /// The servers, in the order in which to ask them, without the switch's own addresses: it would ask itself.
    pub fn servers(&mut self, now: Duration, own: impl Fn(IpAddr) -> bool) -> Vec<SocketAddr> {
        let all = self.servers.iter().filter(|server| !own(server.address));
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for server in all.map(Server::socket_address) {
            match self.silent.get_mut(&server) {
                Some(until) if now < *until => last.push(server),
                Some(until) => {
                    *until = now + TRIAL;
                    first.push(server);
                }
                None => first.push(server),
            }
        }
        first.append(&mut last);
        first
    }

    /// Takes note of who answered a question, and who did not.
    pub fn note(&mut self, now: Duration, outcome: &ResolverOutcome) {
        let listed: Vec<SocketAddr> = self.servers.iter().map(Server::socket_address).collect();
        self.silent.extend(outcome.silent.iter().map(|server| (*server, now + SILENCE)));
        self.silent.retain(|server, _| listed.contains(server) && !outcome.heard.contains(server));
    }
}

impl ResolverFile {
    /// The file at `path`, not read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, version: None }
    }

    /// What it says, if that may be different from what it said when it was read last; one that is not there says nothing.
    pub fn changed(&mut self) -> Option<String> {
        let version = std::fs::metadata(&self.path).ok().and_then(|data| Some((data.modified().ok()?, data.len())));
        let is_new = version != self.version;
        self.version = version;
        is_new.then(|| self.text().unwrap_or_default())
    }

    fn text(&self) -> std::io::Result<String> {
        use std::io::Read;
        let mut bytes = Vec::new();
        std::fs::File::open(&self.path)?.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Server {
    /// An address as the C library takes it (`inet_aton`, or `inet_pton` with a zone).
    fn parse(text: &str) -> Option<Self> {
        if let Some(address) = ipv4(text) {
            return Some(Self { address: address.into(), zone: None });
        }
        let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
        let address: Ipv6Addr = address.parse().ok()?;
        Some(Self { address: address.into(), zone: zone.map(str::to_owned) })
    }

    fn socket_address(&self) -> SocketAddr {
        match (self.address, &self.zone) {
            (IpAddr::V6(address), Some(zone)) => SocketAddrV6::new(address, PORT, 0, scope(zone)).into(),
            (address, _) => (address, PORT).into(),
        }
    }
}

/// The number of an interface; 0, which is none, if it is not there.
fn scope(zone: &str) -> u32 {
    let number = || {
        let any = socket(AddressFamily::INET6, SocketType::DGRAM, None).ok()?;
        name_to_index(any, zone).ok()
    };
    zone.parse().ok().or_else(number).unwrap_or_default()
}

/// The servers behind `nameserver` (resolv.conf(5)), and the lines that have none. What follows the address is passed over, as by the C library.
fn parse(text: &str) -> (Vec<Server>, Vec<&str>) {
    let (mut servers, mut unread) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("nameserver").filter(|rest| rest.starts_with([' ', '\t'])) else { continue };
        let address = rest.trim_start_matches([' ', '\t']).split([' ', '\t', '#', ';']).next().unwrap_or_default();
        match Server::parse(address) {
            Some(server) if servers.len() < MOST => servers.push(server),
            Some(_) => {}
            None => unread.push(line),
        }
    }
    (servers, unread)
}

/// An address as `inet_aton` takes it: one to four numbers, decimal, octal or hexadecimal, of which the last fills what is left.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = numbers.split_last().filter(|(_, first)| first.len() < 4)?;
    let room = 32 - 8 * u32::try_from(first.len()).ok()?;
    if first.iter().any(|byte| *byte > 0xff) || u64::from(*last) >> room > 0 {
        return None;
    }
    let high = first.iter().fold(0_u64, |high, byte| high << 8 | u64::from(*byte));
    u32::try_from(high << room | u64::from(*last)).ok().map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text, 8),
        _ => (text, 10),
    };
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<String> {
        let name = |server: &Server| match &server.zone {
            Some(zone) => format!("{}%{zone}", server.address),
            None => server.address.to_string(),
        };
        parse(text).0.iter().map(name).collect()
    }

    #[test]
    fn servers_are_read_as_the_c_library_does() {
        let text = "# none\nnameserver 192.0.2.1\nnameserver\tfd00::1 \n nameserver 192.0.2.2\nnameserverx 192.0.2.3\nnameserver fe80::1%eth0\n";
        assert_eq!(servers(text), ["192.0.2.1", "fd00::1", "fe80::1%eth0"]);
        for (text, server) in [
            ("nameserver 192.0.2.1 # the router", "192.0.2.1"),
            ("nameserver 192.0.2.1\t192.0.2.2", "192.0.2.1"),
            ("nameserver  \t192.0.2.1;x", "192.0.2.1"),
            ("nameserver 192.0.3.001", "192.0.3.1"),
            ("nameserver 192.0.3.010", "192.0.3.8"),
            ("nameserver 0xc0.0.2.0x1F", "192.0.2.31"),
            ("nameserver 127.1", "127.0.0.1"),
            ("nameserver 10.513", "10.0.2.1"),
            ("nameserver 3221225985", "192.0.2.1"),
        ] {
            assert_eq!(servers(text), [server], "{text}");
        }
    }

    #[test]
    fn what_names_no_server_is_told_of() {
        for line in [
            "nameserver ",
            "nameserver dns.example",
            "nameserver 192.0.2.256",
            "nameserver 192.0.2.08",
            "nameserver 1.2.3.4.5",
            "nameserver 4294967296",
            "nameserver +1.2.3.4",
            "nameserver 0x",
            "nameserver fe80::x%eth0",
            "nameserver 1..2",
        ] {
            assert_eq!(parse(line), (vec![], vec![line]));
        }
        assert_eq!(parse("options edns0\n;nameserver x\nsearch example\n"), (vec![], vec![]));
    }

    #[test]
    fn an_address_of_one_link_has_its_interface() {
        let scope = |text: &str| match Server::parse(text).unwrap().socket_address() {
            SocketAddr::V6(address) => address.scope_id(),
            SocketAddr::V4(_) => panic!("IPv4"),
        };
        assert_eq!((scope("fe80::1%lo"), scope("fe80::1%7"), scope("fe80::1%no-such-link"), scope("fe80::1")), (1, 7, 0, 0));
    }

    #[test]
    fn a_server_that_says_nothing_is_asked_last_and_tried_by_one_question_a_minute() {
        let mut resolvers = Resolvers::default();
        resolvers.set("nameserver 192.0.2.1\nnameserver 192.0.2.2\n");
        let [dead, good]: [SocketAddr; 2] = ["192.0.2.1:53".parse().unwrap(), "192.0.2.2:53".parse().unwrap()];
        let silent = || ResolverOutcome { answer: Some(vec![]), silent: vec![dead], heard: vec![good] };
        let at = Duration::from_secs;
        let order = |resolvers: &mut Resolvers, second| resolvers.servers(at(second), |_| false);
        assert_eq!(order(&mut resolvers, 0), [dead, good]);
        resolvers.note(at(2), &silent());
        assert_eq!((order(&mut resolvers, 2), order(&mut resolvers, 61)), (vec![good, dead], vec![good, dead]));
        assert_eq!(order(&mut resolvers, 62), [dead, good], "one question finds out");
        assert_eq!(order(&mut resolvers, 62), [good, dead], "and no other waits for it");
        resolvers.note(at(64), &silent());
        assert_eq!(order(&mut resolvers, 120), [good, dead]);
        assert_eq!(order(&mut resolvers, 124), [dead, good]);
        resolvers.note(at(124), &ResolverOutcome { answer: Some(vec![]), silent: vec![], heard: vec![dead] });
        assert_eq!(
            (order(&mut resolvers, 124), order(&mut resolvers, 125)),
            (vec![dead, good], vec![dead, good]),
            "it is back"
        );
    }

    #[test]
    fn a_changed_file_is_read_again_and_the_switch_never_asks_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let (mut file, mut resolvers) = (ResolverFile::new(path.clone()), Resolvers::default());
        let mut servers = || {
            let text = file.changed();
            text.iter().for_each(|text| resolvers.set(text));
            let own = |address| address == IpAddr::from([10, 0, 0, 1]);
            (text.is_some(), resolvers.servers(Duration::ZERO, own))
        };
        assert_eq!(servers(), (false, vec![]));
        std::fs::write(&path, "nameserver 10.0.0.1\nnameserver 192.0.2.1\n").unwrap();
        assert_eq!(servers(), (true, vec!["192.0.2.1:53".parse().unwrap()]));
        assert!(!servers().0, "it is read once");
        std::fs::write(&path, "nameserver 192.0.2.22\n").unwrap();
        assert_eq!(servers(), (true, vec!["192.0.2.22:53".parse().unwrap()]));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(servers(), (true, vec![]));
    }
}
