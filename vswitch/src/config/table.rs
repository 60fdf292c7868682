//! The tables of `switch.toml`: what each becomes, and the keys that it has.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IntoDeserializer};
use toml::Spanned;
use toml::de::DeValue;

use super::capture::CaptureSettings;
use super::{NatSettings, SwitchSettings};
use crate::docker::DockerSettings;
use crate::flannel::{FlannelSection, FlannelSettings};
use crate::overlay::{Access, ClusterSettings, ClusterTable};
use crate::web::WebSettings;
use api::read::about;
use api::{
    BridgeSpec, BridgeTable, ForwardSpec, ForwardTable, PortSpec, PortTable, SpecError, UplinkError, UplinkSpec, UplinkTable,
    VxlanError, VxlanSpec, VxlanTable,
};

/// The tables that a file may have.
pub(super) const TABLES: &[&str] =
    &["switch", "bridge", "port", "vxlan", "uplink", "forward", "nat", "docker", "web", "capture", "cluster", "flannel"];

/// What a table of the file becomes.
pub(super) trait Tabular: Sized {
    /// As serde reads it.
    type Table: DeserializeOwned;
    /// Its name.
    const NAME: &'static str;
    /// Its keys.
    const KEYS: &'static [&'static str];
    /// Whether there is one of its kind.
    const IS_SINGLE: bool = false;
    /// Those that it cannot do without.
    const NEEDED: &'static [&'static str] = &[];

    /// Reads its keys.
    ///
    /// # Errors
    /// What the first of them cannot be, and its place.
    fn read(value: Spanned<DeValue<'_>>) -> Result<Self::Table, toml::de::Error> {
        Self::Table::deserialize(value.into_deserializer())
    }

    /// Checks what its keys come to together.
    fn check(table: Self::Table) -> Result<Self, Wrong>;
}

/// What is wrong with a table whose values are sound, each for itself.
pub(super) struct Wrong {
    /// The keys that it is about, the wrong one first.
    pub(super) keys: Vec<&'static str>,
    pub(super) sentence: String,
}

impl From<SpecError> for Wrong {
    fn from(error: SpecError) -> Self {
        Self { keys: error.keys().to_vec(), sentence: error.to_string() }
    }
}

impl From<UplinkError> for Wrong {
    fn from(error: UplinkError) -> Self {
        Self { keys: error.keys().to_vec(), sentence: error.to_string() }
    }
}

impl From<VxlanError> for Wrong {
    fn from(error: VxlanError) -> Self {
        Self { keys: error.keys().to_vec(), sentence: error.to_string() }
    }
}

impl Tabular for SwitchSettings {
    type Table = Self;
    const NAME: &'static str = "switch";
    const IS_SINGLE: bool = true;
    const KEYS: &'static [&'static str] = &["control", "control-group", "state-dir", "workers"];

    fn check(table: Self) -> Result<Self, Wrong> {
        Ok(table)
    }
}

impl Tabular for NatSettings {
    type Table = Self;
    const NAME: &'static str = "nat";
    const IS_SINGLE: bool = true;
    const KEYS: &'static [&'static str] = &[
        "mapping",
        "filtering",
        "inbound-refresh",
        "ports",
        "sessions",
        "sessions-per-source",
        "udp",
        "udp-unreplied",
        "udp-dns",
        "icmp",
        "tcp-opening",
        "tcp-established",
        "tcp-closing",
    ];

    fn check(table: Self) -> Result<Self, Wrong> {
        match table.rules() {
            Ok(_) => Ok(table),
            Err(error) => Err(Wrong { keys: vec![error.key], sentence: about(error.key, &error.sentence) }),
        }
    }
}

impl Tabular for DockerSettings {
    type Table = Self;
    const NAME: &'static str = "docker";
    const IS_SINGLE: bool = true;
    const KEYS: &'static [&'static str] = &["enabled", "socket", "api", "uplink"];

    fn check(table: Self) -> Result<Self, Wrong> {
        Ok(table)
    }
}

impl Tabular for CaptureSettings {
    type Table = Self;
    const NAME: &'static str = "capture";
    const IS_SINGLE: bool = true;
    const KEYS: &'static [&'static str] = &["recorder"];

    fn check(table: Self) -> Result<Self, Wrong> {
        match table.problem() {
            None => Ok(table),
            Some(sentence) => Err(Wrong { keys: vec!["recorder"], sentence }),
        }
    }
}

impl Tabular for ClusterSettings {
    type Table = ClusterTable;
    const NAME: &'static str = "cluster";
    const KEYS: &'static [&'static str] = &[
        "store",
        "endpoints",
        "node",
        "underlay",
        "port",
        "wireguard-port",
        "gossip-port",
        "prefix",
        "ttl",
        "required",
        "username",
        "password-file",
        "token-file",
        "ca",
        "cert",
        "key",
        "secret-file",
    ];
    const NEEDED: &'static [&'static str] = &["store", "underlay"];
    const IS_SINGLE: bool = true;

    fn read(value: Spanned<DeValue<'_>>) -> Result<ClusterTable, toml::de::Error> {
        read_with_access(value)
    }

    fn check(table: ClusterTable) -> Result<Self, Wrong> {
        table.check().map_err(|(key, sentence)| Wrong { keys: vec![key], sentence })
    }
}

/// Reads a table of which [`Access`] is a part. Errors within what is flattened know no places, so it is read by itself first.
fn read_with_access<T: DeserializeOwned>(value: Spanned<DeValue<'_>>) -> Result<T, toml::de::Error> {
    Access::deserialize(value.clone().into_deserializer())?;
    T::deserialize(value.into_deserializer())
}

impl Tabular for FlannelSettings {
    type Table = FlannelSection;
    const NAME: &'static str = "flannel";
    const KEYS: &'static [&'static str] = &[
        "endpoints",
        "underlay",
        "bridge",
        "prefix",
        "dhcp",
        "uplink",
        "username",
        "password-file",
        "token-file",
        "ca",
        "cert",
        "key",
        "secret-file",
    ];
    const NEEDED: &'static [&'static str] = &["endpoints", "underlay", "bridge"];
    const IS_SINGLE: bool = true;

    fn read(value: Spanned<DeValue<'_>>) -> Result<FlannelSection, toml::de::Error> {
        read_with_access(value)
    }

    fn check(table: FlannelSection) -> Result<Self, Wrong> {
        table.check().map_err(|(key, sentence)| Wrong { keys: vec![key], sentence })
    }
}

impl Tabular for WebSettings {
    type Table = Self;
    const NAME: &'static str = "web";
    const IS_SINGLE: bool = true;
    const KEYS: &'static [&'static str] = &["listen", "remote", "hosts", "guide"];

    fn check(table: Self) -> Result<Self, Wrong> {
        match table.problem() {
            None => Ok(table),
            Some((key, sentence)) => Err(Wrong { keys: vec![key], sentence: about(key, &sentence) }),
        }
    }
}

impl Tabular for BridgeSpec {
    type Table = BridgeTable;
    const NAME: &'static str = "bridge";
    const KEYS: &'static [&'static str] = &[
        "name",
        "mtu",
        "ageing",
        "max-macs",
        "control-frames",
        "stp",
        "stp-priority",
        "addresses",
        "gateway-vlan",
        "dhcp",
        "uplink",
        "isolated",
        "routes",
        "overlay",
        "encrypt",
    ];
    const NEEDED: &'static [&'static str] = &["name"];

    fn check(table: BridgeTable) -> Result<Self, Wrong> {
        Ok(table.try_into()?)
    }
}

impl Tabular for UplinkSpec {
    type Table = UplinkTable;
    const NAME: &'static str = "uplink";
    const KEYS: &'static [&'static str] = &["name", "kind", "device", "address", "gateway", "mac", "isolate-bridges"];
    const NEEDED: &'static [&'static str] = &["name", "kind"];

    fn check(table: UplinkTable) -> Result<Self, Wrong> {
        Ok(table.try_into()?)
    }
}

impl Tabular for ForwardSpec {
    type Table = ForwardTable;
    const NAME: &'static str = "forward";
    const KEYS: &'static [&'static str] = &["uplink", "protocol", "port", "listen", "to"];
    const NEEDED: &'static [&'static str] = &["uplink", "protocol", "port", "to"];

    fn check(table: ForwardTable) -> Result<Self, Wrong> {
        Ok(table.try_into()?)
    }
}

impl Tabular for PortSpec {
    type Table = PortTable;
    const NAME: &'static str = "port";
    const KEYS: &'static [&'static str] = PortTable::KEYS;
    const NEEDED: &'static [&'static str] = &["name", "bridge"];

    fn check(table: PortTable) -> Result<Self, Wrong> {
        Ok(table.try_into()?)
    }
}

impl Tabular for VxlanSpec {
    type Table = VxlanTable;
    const NAME: &'static str = "vxlan";
    const KEYS: &'static [&'static str] = &[
        "name",
        "bridge",
        "vni",
        "local",
        "port",
        "peers",
        "group",
        "device",
        "learn",
        "udp-checksum",
        "ttl",
        "vlan",
        "trunk",
        "native",
        "bum-limit",
        "static",
    ];
    const NEEDED: &'static [&'static str] = &["name", "bridge", "vni", "local"];

    fn check(table: VxlanTable) -> Result<Self, Wrong> {
        Ok(table.try_into()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lists of keys are those that the types read: a type's own complaint lists them.
    #[test]
    fn the_keys_are_those_of_the_types() {
        fn keys<T: Tabular>() {
            let Err(error) = toml::from_str::<T::Table>("x = 1") else { panic!("{}", T::NAME) };
            let list = error.message().split_once("expected one of").map(|(_, list)| list.to_owned()).unwrap();
            let read: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
            assert_eq!(read, T::KEYS, "{}", T::NAME);
        }
        keys::<SwitchSettings>();
        keys::<BridgeSpec>();
        keys::<UplinkSpec>();
        keys::<ForwardSpec>();
        keys::<NatSettings>();
        keys::<PortSpec>();
        keys::<VxlanSpec>();
        keys::<DockerSettings>();
    }

    /// A type that has another within it complains of no key that is unknown; what it does not know is lost on the way through it.
    #[test]
    fn the_keys_of_a_cluster_are_those_that_its_type_keeps() {
        let value = |key: &&str| match *key {
            "store" => "\"etcd\"".to_owned(),
            "endpoints" => "[\"http://192.0.2.1:2379\"]".to_owned(),
            "underlay" => "\"192.0.2.1\"".to_owned(),
            "ttl" => "\"5s\"".to_owned(),
            "required" => "true".to_owned(),
            key if key.ends_with("port") => "1000".to_owned(),
            key => format!("\"{key}\""),
        };
        let text: String = ClusterSettings::KEYS.iter().map(|key| format!("{key} = {}\n", value(key))).collect();
        let kept = toml::Table::try_from(toml::from_str::<ClusterTable>(&text).unwrap()).unwrap();
        let kept: std::collections::BTreeSet<&str> = kept.keys().map(String::as_str).collect();
        assert_eq!(kept, ClusterSettings::KEYS.iter().copied().collect());
    }

    #[test]
    fn what_a_table_needs_is_what_its_type_misses() {
        fn needed<T: Tabular>() {
            for key in T::NEEDED {
                assert!(T::KEYS.contains(key), "{key}");
            }
            let missing = toml::from_str::<T::Table>("").err().map(|error| error.message().to_owned());
            let first = T::NEEDED.first().map(|key| format!("missing field `{key}`"));
            assert_eq!(missing, first, "{}", T::NAME);
        }
        needed::<SwitchSettings>();
        needed::<BridgeSpec>();
        needed::<UplinkSpec>();
        needed::<ForwardSpec>();
        needed::<NatSettings>();
        needed::<PortSpec>();
        needed::<VxlanSpec>();
        needed::<DockerSettings>();
        needed::<ClusterSettings>();
        needed::<FlannelSettings>();
    }
}
