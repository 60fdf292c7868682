//! A host's subnet, as its record in etcd has it.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use packet::Mac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::net::{is_of_hosts, is_of_one_host};
use super::{SUBNETS, field};

/// Longest key that is looked at: that of a subnet of both versions has room in it.
pub const LONGEST_KEY: usize = 80;

/// Longest record that is looked at. flanneld's own have a few hundred bytes.
pub const LONGEST_VALUE: usize = 4096;

/// A host of a flannel network with the backend vxlan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlannelLease {
    /// Where its tunnel ends.
    pub host: Ipv4Addr,
    /// The MAC address of that end.
    pub mac: Mac,
}

/// The subnet that a key is about; none, unless it reads as this host would write it, for two keys of one subnet would be two hosts that have it. What
/// follows behind `&` is an IPv6 subnet, which is left alone.
pub fn subnet_of(key: &str) -> Option<Ipv4Net> {
    let name = key.strip_prefix(SUBNETS)?;
    let (v4, v6) = name.split_once('&').map_or((name, None), |(v4, v6)| (v4, Some(v6)));
    if let Some((address, length)) = v6.map(|v6| v6.split_once('-').unwrap_or_default()) {
        Ipv6Net::new(address.parse().ok()?, length.parse().ok()?).ok()?;
    }
    let (address, length) = v4.split_once('-')?;
    let subnet = Ipv4Net::new(address.parse().ok()?, length.parse().ok()?).ok()?.trunc();
    (key_of(subnet).strip_prefix(SUBNETS) == Some(v4) && is_of_hosts(subnet)).then_some(subnet)
}

/// The key of a subnet.
pub fn key_of(subnet: Ipv4Net) -> String {
    format!("{SUBNETS}{}-{}", subnet.network(), subnet.prefix_len())
}

impl FlannelLease {
    /// Reads a record; none, if it is of another backend, or of none that packets can be sent to.
    pub fn read(text: &str) -> Option<Self> {
        let record: Value = serde_json::from_str(text).ok()?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        if text(field(&record, "BackendType")).as_deref() != Some("vxlan") {
            return None;
        }
        let host: Ipv4Addr = text(field(&record, "PublicIP"))?.parse().ok()?;
        let mac: Mac = text(field(field(&record, "BackendData")?, "VtepMAC"))?.parse().ok()?;
        (is_of_one_host(host) && !mac.is_group() && mac != Mac::ZERO).then_some(Self { host, mac })
    }

    /// Where a host is, whatever its backend.
    pub fn host_of(text: &str) -> Option<Ipv4Addr> {
        let record: Value = serde_json::from_str(text).ok()?;
        field(&record, "PublicIP")?.as_str()?.parse().ok()
    }

    /// The record, as flanneld writes it.
    pub fn written(&self, vni: u32) -> String {
        let Self { host, mac } = self;
        let data = json!({ "VNI": vni, "VtepMAC": mac });
        json!({ "PublicIP": host, "PublicIPv6": null, "BackendType": "vxlan", "BackendData": data }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As flannel's own documentation has it (Documentation/reservations.md).
    const RECORDED: &str = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#;
    /// The forms before IPv6, and of both versions.
    const OLDER: &str = r#"{"PublicIP":"192.168.64.3","BackendType":"vxlan","BackendData":{"VtepMAC":"c6:d2:32:6f:8f:44"}}"#;
    const BOTH: &str = r#"{"PublicIP":"192.168.64.3","PublicIPv6":"fd00::3","BackendType":"vxlan",
        "BackendData":{"VNI":1,"VtepMAC":"C6:D2:32:6F:8F:44"},"BackendV6Data":{"VNI":1,"VtepMAC":"16:95:ab:d5:9f:a8"}}"#;

    #[test]
    fn records_are_read_as_flanneld_writes_them_and_written_so() {
        let lease = FlannelLease { host: "192.168.64.3".parse().unwrap(), mac: "c6:d2:32:6f:8f:44".parse().unwrap() };
        for text in [RECORDED, OLDER, BOTH] {
            assert_eq!(FlannelLease::read(text), Some(lease), "{text}");
        }
        let (written, recorded): (Value, Value) =
            (serde_json::from_str(&lease.written(1)).unwrap(), serde_json::from_str(RECORDED).unwrap());
        assert_eq!(written, recorded);
        for text in [
            r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"host-gw"}"#,
            r#"{"PublicIP":"192.168.64.3","BackendType":"vxlan"}"#,
            r#"{"PublicIP":"224.0.0.1","BackendType":"vxlan","BackendData":{"VtepMAC":"c6:d2:32:6f:8f:44"}}"#,
            r#"{"PublicIP":"192.168.64.3","BackendType":"vxlan","BackendData":{"VtepMAC":"ff:ff:ff:ff:ff:ff"}}"#,
            "[]",
            "",
        ] {
            assert_eq!(FlannelLease::read(text), None, "{text}");
        }
        let other = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"host-gw"}"#;
        assert_eq!(FlannelLease::host_of(other), Some(lease.host));
    }

    #[test]
    fn keys_are_subnets_of_one_version_or_of_both() {
        let subnet: Ipv4Net = "10.244.5.0/24".parse().unwrap();
        assert_eq!(key_of(subnet), "subnets/10.244.5.0-24");
        for key in ["subnets/10.244.5.0-24", "subnets/10.244.5.0-24&fd00:5::-64"] {
            assert_eq!(subnet_of(key), Some(subnet), "{key}");
        }
        for key in ["config", "subnets/", "subnets/10.244.5.0", "subnets/10.244.5.0-33", "subnets/x-24", "subnet/10.244.5.0-24"]
        {
            assert_eq!(subnet_of(key), None, "{key}");
        }
        for end in [
            "10.244.5.7-24",
            "10.244.5.0-024",
            "10.244.5.0-+24",
            "10.244.5.0-24&",
            "10.244.5.0-24&x",
            "10.244.5.0-24&fd00::-129",
        ] {
            assert_eq!(subnet_of(&format!("subnets/{end}")), None, "{end}");
        }
    }

    proptest! {
        #[test]
        fn every_subnet_has_a_key_of_its_own(address in any::<u32>(), length in 1u8..=32) {
            let subnet = Ipv4Net::new(address.into(), length).unwrap().trunc();
            prop_assert_eq!(subnet_of(&key_of(subnet)), Some(subnet).filter(|subnet| is_of_hosts(*subnet)));
        }

        #[test]
        fn nothing_that_another_wrote_is_a_panic(text in any::<String>(), key in any::<String>()) {
            let _ = (FlannelLease::read(&text), subnet_of(&format!("subnets/{key}")));
            let _ = super::super::net::FlannelNet::read(&text);
        }
    }
}
