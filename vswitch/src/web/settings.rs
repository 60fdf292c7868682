//! The table `[web]` of `switch.toml`: its keys and defaults. `config` reads it, and the control side opens what it names. Touches nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, de};

use api::read::{Raw, Read, read};

/// `[web]`, which only a start reads. The web view is off where the file has no such table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct WebSettings {
    /// Where it listens.
    #[serde(deserialize_with = "read_listen")]
    pub listen: SocketAddr,
    /// Whether that may be an address which other hosts reach.
    #[serde(deserialize_with = "read")]
    pub remote: bool,
    /// Names by which browsers may call it, besides `localhost` and the address where it listens.
    #[serde(deserialize_with = "read", skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// A file with a piece of HTML that stands beside the topology, such as what a class is to do; read whenever a page asks.
    #[serde(deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    pub guide: Option<PathBuf>,
}

impl Default for WebSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080), remote: false, hosts: Vec::new(), guide: None }
    }
}

fn read_listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::read(Raw::deserialize(deserializer)?).map_err(de::Error::custom)?;
    let wrong = |_| {
        format!(
            "\"{}\" is not an address with a port: write one such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
            text.escape_debug()
        )
    };
    text.parse().map_err(wrong).map_err(de::Error::custom)
}

impl WebSettings {
    /// The first key that differs between two files; where only one has the table, `listen`.
    pub fn difference(one: Option<&Self>, other: Option<&Self>) -> Option<&'static str> {
        match (one, other) {
            (Some(one), Some(other)) => {
                let keys = [
                    (one.listen != other.listen, "listen"),
                    (one.remote != other.remote, "remote"),
                    (one.hosts != other.hosts, "hosts"),
                    (one.guide != other.guide, "guide"),
                ];
                keys.into_iter().find_map(|(differs, key)| differs.then_some(key))
            }
            (one, other) => (one.is_some() != other.is_some()).then_some("listen"),
        }
    }

    /// What is wrong with the keys together: the first of them, and a sentence that begins after its name.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        if !self.remote && !self.listen.ip().is_loopback() {
            let sentence = format!(
                "is {}, which other hosts reach: listen on 127.0.0.1, or set `remote = true` if everybody there may see the network",
                self.listen
            );
            return Some(("listen", sentence));
        }
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]_".contains(c));
        let wrong = self.hosts.iter().find(|name| !is_name(name) || (name.contains(':') && !name.starts_with('[')))?;
        let sentence =
            format!("has \"{}\": write names only, such as \"switch.lan\", without http:// and port", wrong.escape_debug());
        Some(("hosts", sentence))
    }
}
