//! The table `[flannel]` of `switch.toml`: its keys and defaults, and what it says to etcd.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use cluster::flannel::PREFIX;
use cluster::flannel::net::is_of_one_host;
use cluster::store::{Settings, Store, StoreKind};
use serde::{Deserialize, Serialize};

use crate::overlay::{Access, ClusterFault};
use api::read::{about, read};
use api::{BridgeName, PortName};

/// How long etcd keeps a host's subnet that the host does not renew; flanneld's own.
const TTL: Duration = Duration::from_secs(24 * 3600);

/// `[flannel]`: the network of flannel's that this host has a part in, and the bridge that has its subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "FlannelSection")]
pub struct FlannelSettings {
    /// The members of etcd.
    pub endpoints: Vec<String>,
    /// What all keys of the network begin with.
    pub prefix: String,
    /// The address of this host at which its tunnel ends; flanneld calls it the public IP.
    pub underlay: Ipv4Addr,
    /// The bridge that gets this host's subnet.
    pub bridge: BridgeName,
    /// Whether its gateway gives out the rest of the subnet.
    pub dhcp: bool,
    /// The uplink by which its stations reach the rest of the world.
    pub uplink: Option<PortName>,
    /// Who asks.
    pub access: Access,
}

/// `[flannel]` as it is written: each value of its kind, but not yet whether they fit together.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FlannelSection {
    #[serde(deserialize_with = "read")]
    endpoints: Vec<String>,
    #[serde(deserialize_with = "read")]
    underlay: IpAddr,
    #[serde(deserialize_with = "read")]
    bridge: BridgeName,
    #[serde(default = "usual_prefix", deserialize_with = "read")]
    prefix: String,
    #[serde(default, deserialize_with = "read")]
    dhcp: bool,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    uplink: Option<PortName>,
    #[serde(flatten)]
    access: Access,
}

fn usual_prefix() -> String {
    PREFIX.to_owned()
}

impl FlannelSection {
    /// The settings that the keys come to.
    ///
    /// # Errors
    /// What cannot be, or does not fit together: the key, and a sentence.
    pub fn check(self) -> Result<FlannelSettings, ClusterFault> {
        let fault = |key: &'static str, sentence: &str| Err((key, about(key, sentence)));
        let Self { endpoints, underlay, bridge, prefix, dhcp, uplink, access } = self;
        let own = match underlay.to_canonical() {
            IpAddr::V4(own) if is_of_one_host(own) => Some(own),
            _ => None,
        };
        let Some(own) = own else {
            return fault("underlay", &format!("is {underlay}: use an IPv4 address of this host that the other hosts reach"));
        };
        let parts = prefix.strip_prefix('/').map(|path| path.trim_end_matches('/').split('/'));
        let is_path = parts.is_some_and(|mut parts| parts.all(|part| !part.is_empty() && !part.contains(char::is_whitespace)));
        if !is_path {
            let sentence = format!("is \"{}\": write it as flanneld has it, such as \"{PREFIX}\"", prefix.escape_debug());
            return fault("prefix", &sentence);
        }
        if access.token_file.is_some() {
            return fault("token-file", "is for Consul: give `username` and `password-file` to etcd");
        }
        if access.secret_file.is_some() {
            return fault("secret-file", "is for gossip: flannel's hosts meet in etcd");
        }
        access.check()?;
        let settings = FlannelSettings { endpoints, prefix, underlay: own, bridge, dhcp, uplink, access };
        settings.shape().check()?;
        Ok(settings)
    }
}

impl From<FlannelSettings> for FlannelSection {
    fn from(settings: FlannelSettings) -> Self {
        let FlannelSettings { endpoints, prefix, underlay, bridge, dhcp, uplink, access } = settings;
        Self { endpoints, underlay: underlay.into(), bridge, prefix, dhcp, uplink, access }
    }
}

impl FlannelSettings {
    fn shape(&self) -> Settings {
        let settings = Settings::new(StoreKind::Etcd, self.endpoints.clone());
        self.access.shape(Settings { prefix: self.prefix.clone(), ttl: TTL, ..settings })
    }

    /// etcd, with the secrets as their files have them now.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn open(&self) -> Result<Arc<dyn Store>, String> {
        self.access.complete(self.shape())?.open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(rest: &str) -> Result<FlannelSettings, ClusterFault> {
        let text = format!("underlay = \"192.0.2.1\"\nbridge = \"br0\"\n{rest}");
        toml::from_str::<FlannelSection>(&text).map_err(|error| ("", error.message().to_owned()))?.check()
    }

    const MEMBERS: &str = "endpoints = [\"http://127.0.0.1:2379\"]\n";

    #[test]
    fn what_is_not_said_has_a_default_and_is_written_as_it_was_read() {
        let read = settings(MEMBERS).unwrap();
        assert_eq!((&*read.prefix, read.dhcp), ("/coreos.com/network", false));
        let all = settings(&format!(
            "{MEMBERS}prefix = \"/x\"\ndhcp = true\nuplink = \"wan\"\nusername = \"u\"\npassword-file = \"/p\"\n"
        ));
        for settings in [read, all.unwrap()] {
            let text = toml::to_string(&settings).unwrap();
            assert_eq!(toml::from_str::<FlannelSection>(&text).unwrap().check().unwrap(), settings, "{text}");
        }
    }

    #[test]
    fn each_mistake_is_a_sentence_at_its_key() {
        let with = |rest: &str| format!("{MEMBERS}{rest}");
        for (text, key, part) in [
            ("endpoints = []".to_owned(), "endpoints", "`endpoints` is empty"),
            ("endpoints = [\"127.0.0.1:2379\"]".to_owned(), "endpoints", "has no scheme"),
            (with("prefix = \"\""), "prefix", "such as \"/coreos.com/network\""),
            (with("prefix = \"coreos.com/network\""), "prefix", "write it as flanneld has it"),
            (with("prefix = \"/a//b\""), "prefix", "write it as flanneld has it"),
            (with("username = \"u\""), "username", "belong together"),
            (with("token-file = \"/t\""), "token-file", "is for Consul"),
            (with("secret-file = \"/t\""), "secret-file", "is for gossip"),
        ] {
            let (at, sentence) = settings(&text).unwrap_err();
            assert!(at == key && sentence.contains(part), "{text}: {at}: {sentence}");
        }
        let own = "underlay = \"127.0.0.1\"\nbridge = \"br0\"\n";
        let (at, _) = toml::from_str::<FlannelSection>(&format!("{own}{MEMBERS}")).unwrap().check().unwrap_err();
        assert_eq!(at, "underlay");
    }
}
