use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::PORT;

/// Most servers that are used; the C library uses three.
const MOST: usize = 8;
/// How often the file is looked at, at most.
const PAUSE: Duration = Duration::from_secs(1);
/// More than this of the file is not read.
const LONGEST: u64 = 64 << 10;

/// The host's resolvers, as `/etc/resolv.conf` has them now.
#[derive(Debug)]
pub struct Resolvers {
    path: PathBuf,
    checked: Option<Duration>,
    /// Time and length of what was read.
    version: Option<(SystemTime, u64)>,
    servers: Vec<IpAddr>,
}

impl Resolvers {
    /// Those in the file at `path`, read when they are first asked for.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, checked: None, version: None, servers: Vec::new() }
    }

    /// The servers, in the file's order, without the switch's own addresses: it would ask itself.
    pub fn servers(&mut self, now: Duration, own: impl Fn(IpAddr) -> bool) -> Vec<SocketAddr> {
        if self.checked.is_none_or(|checked| now >= checked + PAUSE) {
            self.checked = Some(now);
            self.read();
        }
        self.servers.iter().filter(|server| !own(**server)).map(|server| (*server, PORT).into()).collect()
    }

    fn read(&mut self) {
        let version = std::fs::metadata(&self.path).ok().and_then(|data| Some((data.modified().ok()?, data.len())));
        if version.is_none() || version != self.version {
            self.version = version;
            self.servers = self.text().map(|text| parse(&text)).unwrap_or_default();
        }
    }

    fn text(&self) -> std::io::Result<String> {
        use std::io::Read;
        let mut bytes = Vec::new();
        std::fs::File::open(&self.path)?.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The addresses behind `nameserver` (resolv.conf(5)). One with a zone (`fe80::1%eth0`) is none that can be used here.
fn parse(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| line.strip_prefix("nameserver")?.strip_prefix([' ', '\t'])?.trim().parse().ok();
    text.lines().filter_map(server).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_c_library_does() {
        let text = "# none\nnameserver 192.0.2.1\nnameserver\tfd00::1 \n nameserver 192.0.2.2\nnameserverx 192.0.2.3\nnameserver fe80::1%eth0\n";
        assert_eq!(parse(text), ["192.0.2.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    }

    #[test]
    fn a_changed_file_is_read_again_and_the_switch_never_asks_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let mut resolvers = Resolvers::new(path.clone());
        let mut servers = |second| resolvers.servers(Duration::from_secs(second), |own| own == IpAddr::from([10, 0, 0, 1]));
        assert_eq!(servers(0), []);
        std::fs::write(&path, "nameserver 10.0.0.1\nnameserver 192.0.2.1\n").unwrap();
        assert_eq!(servers(0), [], "not looked at again so soon");
        assert_eq!(servers(1), ["192.0.2.1:53".parse().unwrap()]);
        std::fs::write(&path, "nameserver 192.0.2.22\n").unwrap();
        assert_eq!(servers(2), ["192.0.2.22:53".parse().unwrap()]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(servers(3), []);
    }
}
