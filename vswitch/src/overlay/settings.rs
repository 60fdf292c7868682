//! The table `[cluster]` of `switch.toml`: its keys and defaults, and what it says to the store. The files that it names are read when the store is
//! opened, so that a secret can be renewed without a restart.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster::gossip::{self, Node, Profile};
use cluster::record::Name;
use cluster::store::{Settings, Store, StoreKind};
use serde::{Deserialize, Serialize};

use api::read::{Raw, Read, about, parsed, read, write_seconds};

/// `[cluster]`: the store through which hosts share overlay networks, and what this host is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "ClusterTable")]
pub struct ClusterSettings {
    /// Which store.
    pub store: StoreKind,
    /// Its members.
    pub endpoints: Vec<String>,
    /// The name of this host, which no other may have; by default that of the machine.
    pub node: Name,
    /// The address of this host at which its tunnels end.
    pub underlay: IpAddr,
    /// The UDP port of the tunnels; 4789 by default.
    pub port: u16,
    /// The UDP port of WireGuard, for encrypted networks; 51820 by default.
    pub wireguard_port: u16,
    /// The UDP port at which hosts tell each other that they live; 7946 by default.
    pub gossip_port: u16,
    /// What all keys of the cluster begin with.
    pub prefix: String,
    /// How long a host may be silent before the store takes it for dead, 2 s to 3600 s; 10 s by default.
    pub ttl: Duration,
    /// Whether a start without the store is none.
    pub required: bool,
    /// Who asks.
    pub access: Access,
}

/// How a host shows a store who it is. Secrets are in files of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Access {
    /// A user of etcd or ZooKeeper.
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The file with that user's password.
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The file with a token of Consul's.
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The file of the certificates that a member's is checked by.
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The file of a certificate of this host's.
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// The file of its key.
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The file with what hosts that gossip share.
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
}

impl Access {
    /// Whether what belongs together is there.
    pub(crate) fn check(&self) -> Result<(), ClusterFault> {
        let Self { username, password_file, cert, key, .. } = self;
        pair(("username", username.is_some()), ("password-file", password_file.is_some()))?;
        pair(("cert", cert.is_some()), ("key", key.is_some()))
    }

    /// What a store needs to know, with who asks, but without secrets.
    pub(crate) fn shape(&self, settings: Settings) -> Settings {
        let Self { username, token_file, ca, cert, key, .. } = self;
        Settings {
            user: username.clone().map(|name| (name, String::new())),
            token: token_file.as_ref().map(|_| String::new()),
            ca: ca.clone(),
            identity: cert.clone().zip(key.clone()),
            ..settings
        }
    }

    /// The same with the secrets as their files have them now.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn complete(&self, settings: Settings) -> Result<Settings, String> {
        let Self { username, password_file, token_file, .. } = self;
        let password = password_file.as_deref().map(|path| secret("password-file", path)).transpose()?;
        let token = token_file.as_deref().map(|path| secret("token-file", path)).transpose()?;
        Ok(Settings { user: username.clone().zip(password), token, ..settings })
    }
}

/// `[cluster]` as it is written: each value of its kind, but not yet whether they fit together.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClusterTable {
    #[serde(deserialize_with = "read")]
    store: Kind,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<String>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(deserialize_with = "read")]
    underlay: IpAddr,
    #[serde(default = "assigned_port", deserialize_with = "read")]
    port: i64,
    #[serde(default = "wireguard_port", deserialize_with = "read")]
    wireguard_port: i64,
    #[serde(default = "gossip_port", deserialize_with = "read")]
    gossip_port: i64,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(default = "usual_ttl", deserialize_with = "read", serialize_with = "write_seconds")]
    ttl: Duration,
    #[serde(default, deserialize_with = "read")]
    required: bool,
    #[serde(flatten)]
    access: Access,
}

/// The word for a store.
#[derive(Clone, Copy)]
struct Kind(StoreKind);

impl Read for Kind {
    fn read(raw: Raw) -> Result<Self, String> {
        parsed(raw, "a store: etcd, consul, zookeeper or gossip").map(Self)
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.word())
    }
}

/// That of WireGuard's own examples.
const WIREGUARD_PORT: u16 = 51_820;

fn assigned_port() -> i64 {
    vxlan::UDP_PORT.into()
}

fn wireguard_port() -> i64 {
    WIREGUARD_PORT.into()
}

fn gossip_port() -> i64 {
    gossip::UDP_PORT.into()
}

const fn usual_ttl() -> Duration {
    Duration::from_secs(10)
}

/// What is wrong with the keys together: the first of them, and a sentence.
pub type ClusterFault = (&'static str, String);

impl ClusterTable {
    /// The settings that the keys come to.
    ///
    /// # Errors
    /// What cannot be, or does not fit together.
    pub fn check(self) -> Result<ClusterSettings, ClusterFault> {
        let fault = |key: &'static str, sentence: &str| Err((key, about(key, sentence)));
        let [port, wireguard_port, gossip_port] = self.ports()?;
        let (node, named) = match self.node {
            Some(node) => (node, true),
            None => (nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(), false),
        };
        let node = node.parse::<Name>().map_err(|wrong| {
            let hint = if named { "" } else { " (that is the machine's name: set `node`)" };
            ("node", about("node", &format!("{wrong}{hint}")))
        })?;
        let underlay = self.underlay.to_canonical();
        let is_link_local = matches!(underlay, IpAddr::V6(address) if address.is_unicast_link_local());
        if underlay.is_unspecified() || underlay.is_multicast() || underlay.is_loopback() || is_link_local {
            return fault("underlay", &format!("is {underlay}: use an address of this host that the other hosts reach"));
        }
        if !(2..=3600).contains(&self.ttl.as_secs()) {
            return fault("ttl", &format!("is {}s: use 2s to 3600s", self.ttl.as_secs()));
        }
        self.access.check()?;
        let settings = ClusterSettings {
            store: self.store.0,
            endpoints: self.endpoints,
            node,
            underlay,
            port,
            wireguard_port,
            gossip_port,
            prefix: self.prefix.unwrap_or_else(usual_prefix),
            ttl: self.ttl,
            required: self.required,
            access: self.access,
        };
        settings.shape().check()?;
        if let Some(seed) = settings.seeds().find(|seed| seed.is_ipv4() != underlay.is_ipv4()) {
            return fault("endpoints", &format!("has {}, and `underlay` is {underlay}: use one version of IP", seed.ip()));
        }
        Ok(settings)
    }

    /// The UDP ports of tunnels, of WireGuard and of gossip.
    fn ports(&self) -> Result<[u16; 3], ClusterFault> {
        let ports = [
            ("port", udp_port("port", self.port, vxlan::UDP_PORT)?),
            ("wireguard-port", udp_port("wireguard-port", self.wireguard_port, WIREGUARD_PORT)?),
            ("gossip-port", udp_port("gossip-port", self.gossip_port, gossip::UDP_PORT)?),
        ];
        for (index, (key, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..index].iter().find(|(_, other)| other == port) {
                return Err((key, about(key, &format!("is {port}, as `{other}`: use another for each"))));
            }
        }
        Ok(ports.map(|(_, port)| port))
    }
}

/// Of two keys that need each other, both are there or none. What is there is what is told of.
fn pair((one, has_one): (&'static str, bool), (two, has_two): (&'static str, bool)) -> Result<(), ClusterFault> {
    let wrong = |key, other| Err((key, about(key, &format!("and `{other}` belong together: give both, or none"))));
    match (has_one, has_two) {
        (true, false) => wrong(one, two),
        (false, true) => wrong(two, one),
        _ => Ok(()),
    }
}

impl From<ClusterSettings> for ClusterTable {
    fn from(settings: ClusterSettings) -> Self {
        Self {
            store: Kind(settings.store),
            endpoints: settings.endpoints,
            node: Some(settings.node.to_string()),
            underlay: settings.underlay,
            port: settings.port.into(),
            wireguard_port: settings.wireguard_port.into(),
            gossip_port: settings.gossip_port.into(),
            prefix: Some(settings.prefix).filter(|prefix| *prefix != usual_prefix()),
            ttl: settings.ttl,
            required: settings.required,
            access: settings.access,
        }
    }
}

/// A UDP port that a key has.
fn udp_port(key: &'static str, port: i64, usual: u16) -> Result<u16, ClusterFault> {
    match u16::try_from(port) {
        Ok(port @ 1..) => Ok(port),
        _ => Err((key, about(key, &format!("is {port}: use {usual}, or another UDP port from 1 to 65535")))),
    }
}

fn usual_prefix() -> String {
    "vswitch".to_owned()
}

impl ClusterSettings {
    /// Whether hosts share out the addresses of a network, which takes a store: hosts that only tell each other would, while they are apart, give one
    /// address to two stations.
    pub(crate) fn shares_addresses(&self) -> bool {
        self.store != StoreKind::Gossip
    }

    /// What the store needs to know, without secrets.
    fn shape(&self) -> Settings {
        let settings = Settings::new(self.store, self.endpoints.clone());
        self.access.shape(Settings { prefix: self.prefix.clone(), ttl: self.ttl, ..settings })
    }

    /// The hosts that gossip begins with, if that is the store.
    pub(super) fn seeds(&self) -> impl Iterator<Item = SocketAddr> {
        let seeds = self.endpoints.iter().filter(|_| self.store == StoreKind::Gossip);
        seeds.filter_map(|endpoint| gossip::seed(endpoint, self.gossip_port).ok())
    }

    /// The store and this host's gossip, with the secrets as their files have them now. `node` is a gossip that runs already.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn open(&self, node: Option<Arc<Node>>) -> Result<(Arc<dyn Store>, Arc<Node>), String> {
        let node = node.map_or_else(|| self.node().map(Arc::new), Ok)?;
        let settings = Settings { node: Some(Arc::clone(&node)), ..self.store()? };
        Ok((settings.open()?, node))
    }

    /// What is most likely a mistake, at its key: a secret that can be guessed. A file that cannot be read is told of when the store is opened.
    pub(crate) fn warning(&self) -> Option<ClusterFault> {
        let path = self.access.secret_file.as_deref().filter(|path| path.is_file())?;
        let length = secret("secret-file", path).ok()?.chars().count();
        let rest = "`openssl rand -base64 32` makes a good one";
        let sentence = || format!("the secret has {length} characters, so it can be guessed: use {SHORTEST} or more; {rest}");
        (length < SHORTEST).then(|| ("secret-file", about("secret-file", &sentence())))
    }

    fn node(&self) -> Result<Node, String> {
        let profile = Profile {
            address: SocketAddr::new(self.underlay, self.gossip_port),
            boot: gossip::milliseconds(),
            prefix: self.prefix.trim_matches('/').to_owned(),
            secret: self.access.secret_file.as_deref().map(|path| secret("secret-file", path)).transpose()?,
            is_store: self.store == StoreKind::Gossip,
        };
        Ok(Node::new(profile, self.seeds()))
    }

    /// What the store needs to know, with the secrets as their files have them now.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn store(&self) -> Result<Settings, String> {
        self.access.complete(self.shape())
    }
}

/// Why no addresses are given in an overlay network, as the end of a sentence.
pub(crate) const NO_BLOCKS: &str =
    "and store = \"gossip\" shares out no addresses: give stations fixed ones, or use etcd, Consul or ZooKeeper";

/// The shortest secret of which nothing is said.
const SHORTEST: usize = 16;

/// The first line of the file that a key names.
fn secret(key: &str, path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("`{key}` {}: {error}", path.display()))?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(format!("`{key}` {} is empty: its first line must be the secret", path.display()));
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(rest: &str) -> Result<ClusterSettings, ClusterFault> {
        let text = format!("store = \"etcd\"\nunderlay = \"192.0.2.1\"\nnode = \"a\"\n{rest}");
        toml::from_str::<ClusterTable>(&text).map_err(|error| ("", error.message().to_owned()))?.check()
    }

    const MEMBERS: &str = "endpoints = [\"http://127.0.0.1:2379\"]\n";

    #[test]
    fn what_is_not_said_has_a_default_and_is_written_as_it_was_read() {
        let read = settings(MEMBERS).unwrap();
        assert_eq!((read.port, &*read.prefix, read.ttl.as_secs(), read.required), (4789, "vswitch", 10, false));
        let all =
            settings(&format!("{MEMBERS}prefix = \"x\"\nttl = \"5s\"\nusername = \"u\"\npassword-file = \"/p\"\n")).unwrap();
        for settings in [read, all] {
            let text = toml::to_string(&settings).unwrap();
            let again = toml::from_str::<ClusterTable>(&text).unwrap().check().unwrap();
            assert_eq!(again, settings, "{text}");
        }
    }

    #[test]
    fn each_mistake_is_a_sentence_at_its_key() {
        let wrong = [
            ("", "endpoints", "`endpoints` is empty"),
            ("endpoints = [\"127.0.0.1:2379\"]", "endpoints", "has no scheme"),
            ("endpoints = [\"http://127.0.0.1\"]", "endpoints", "has no port"),
            ("endpoints = [\"https://127.0.0.1:2379\"]", "endpoints", "needs `ca`"),
            (&format!("{MEMBERS}ttl = \"1s\""), "ttl", "use 2s to 3600s"),
            (&format!("{MEMBERS}port = 0"), "port", "use 4789"),
            (&format!("{MEMBERS}wireguard-port = 65536"), "wireguard-port", "use 51820"),
            (&format!("{MEMBERS}wireguard-port = 4789"), "wireguard-port", "as `port`: use another"),
            (&format!("{MEMBERS}gossip-port = 0"), "gossip-port", "use 7946"),
            (&format!("{MEMBERS}gossip-port = 4789"), "gossip-port", "as `port`: use another"),
            (&format!("{MEMBERS}username = \"u\""), "username", "belong together"),
            (&format!("{MEMBERS}cert = \"/c\""), "cert", "belong together"),
            (&format!("{MEMBERS}token-file = \"/t\""), "token-file", "is for Consul"),
        ];
        for (text, key, part) in wrong {
            let (at, sentence) = settings(text).unwrap_err();
            assert!(at == key && sentence.contains(part), "{text}: {at}: {sentence}");
        }
    }

    #[test]
    fn secrets_are_read_when_the_store_is_opened() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("password");
        let text = format!("{MEMBERS}username = \"u\"\npassword-file = \"{}\"", path.display());
        let settings = settings(&text).unwrap();
        assert!(settings.store().unwrap_err().starts_with(&format!("`password-file` {}: No such file", path.display())));
        std::fs::write(&path, "\n").unwrap();
        assert!(settings.store().unwrap_err().contains("is empty"));
        std::fs::write(&path, "hush\n").unwrap();
        let secret = format!("{MEMBERS}secret-file = \"{}\"", path.display());
        let warning = self::settings(&secret).unwrap().warning().unwrap().1;
        assert!(warning.starts_with("`secret-file`: the secret has 4 characters, "), "{warning}");
        assert_eq!(settings.warning(), None, "a store's password is none of this host's");
        assert_eq!(settings.store().unwrap().user, Some(("u".to_owned(), "hush".to_owned())));
    }
}
