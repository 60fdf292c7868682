//! The table `[nat]` of `switch.toml`: its keys, their defaults and their limits. `file.rs` reads it, and the control side makes the rules
//! of the crate `nat` from it. Pure functions.

use std::time::Duration;

use nat::{Filtering, Mapping, Settings, Timeouts};
use serde::{Deserialize, Serialize};

use api::read::{Raw, Read, read, word, write_seconds};

/// `[nat]`: how uplinks of kind link translate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct NatSettings {
    /// Whether a station's port appears as one external port to every host (RFC 4787, REQ-1).
    #[serde(deserialize_with = "read")]
    pub mapping: MappingName,
    /// Who may send to a port that a station has opened (RFC 4787, REQ-8).
    #[serde(deserialize_with = "read")]
    pub filtering: FilteringName,
    /// Whether packets from outside keep a UDP session alive as well (RFC 4787, REQ-6).
    #[serde(deserialize_with = "read")]
    pub inbound_refresh: bool,
    /// External ports, such as `"1024-65535"`.
    #[serde(deserialize_with = "read")]
    pub ports: String,
    /// Most sessions of an uplink, 1 to 2,097,152.
    #[serde(deserialize_with = "read")]
    pub sessions: i64,
    /// Most sessions of one station; 0: a quarter of all.
    #[serde(deserialize_with = "read")]
    pub sessions_per_source: i64,
    /// UDP with traffic in both directions.
    #[serde(deserialize_with = "read", serialize_with = "write_seconds")]
    pub udp: Duration,
    /// UDP without a reply.
    #[serde(deserialize_with = "read", serialize_with = "write_seconds")]
    pub udp_unreplied: Duration,
    /// UDP to port 53.
    #[serde(deserialize_with = "read", serialize_with = "write_seconds")]
    pub udp_dns: Duration,
    /// ICMP queries.
    #[serde(deserialize_with = "read", serialize_with = "write_seconds")]
    pub icmp: Duration,
    /// TCP before it is established.
    #[serde(deserialize_with = "read", serialize_with = "write_seconds")]
    pub tcp_opening: Duration,
    /// TCP established.
    #[serde(deserialize_with = "read", serialize_with = "write_seconds")]
    pub tcp_established: Duration,
    /// TCP closed or reset.
    #[serde(deserialize_with = "read", serialize_with = "write_seconds")]
    pub tcp_closing: Duration,
}

/// [`Mapping`] in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MappingName {
    /// [`Mapping::EndpointIndependent`].
    EndpointIndependent,
    /// [`Mapping::EndpointDependent`].
    EndpointDependent,
}

/// [`Filtering`] in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilteringName {
    /// [`Filtering::EndpointIndependent`].
    EndpointIndependent,
    /// [`Filtering::AddressDependent`].
    AddressDependent,
    /// [`Filtering::AddressAndPortDependent`].
    AddressAndPortDependent,
}

impl Default for NatSettings {
    fn default() -> Self {
        let Settings { inbound_refresh, ports, sessions, timeouts, .. } = Settings::default();
        Self {
            mapping: MappingName::EndpointIndependent,
            filtering: FilteringName::AddressDependent,
            inbound_refresh,
            ports: ports.to_string(),
            sessions: sessions.into(),
            sessions_per_source: 0,
            udp: timeouts.udp,
            udp_unreplied: timeouts.udp_unreplied,
            udp_dns: timeouts.udp_dns,
            icmp: timeouts.icmp,
            tcp_opening: timeouts.tcp_opening,
            tcp_established: timeouts.tcp_established,
            tcp_closing: timeouts.tcp_closing,
        }
    }
}

/// A key of `[nat]` with a value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {sentence}")]
pub struct NatError {
    /// The key.
    pub key: &'static str,
    pub(super) sentence: String,
}

impl NatSettings {
    /// As NAT knows them.
    ///
    /// # Errors
    /// The first value that is out of range.
    pub fn rules(&self) -> Result<Settings, NatError> {
        let wrong = |key, sentence: String| NatError { key, sentence };
        let ports = self.ports.parse().map_err(|error: nat::ForwardError| wrong("ports", error.to_string()))?;
        let count = |key, number: i64, least| match u32::try_from(number) {
            Ok(count) if (least..=Settings::MOST_SESSIONS).contains(&count) => Ok(count),
            _ => Err(wrong(key, format!("is {number}: use {least} to {}", Settings::MOST_SESSIONS))),
        };
        let sessions = count("sessions", self.sessions, 1)?;
        let sessions_per_source = count("sessions-per-source", self.sessions_per_source, 0)?;
        for (key, time) in self.times() {
            if !(1..=1_000_000).contains(&time.as_secs()) {
                return Err(wrong(key, format!("is {}s: use 1s to 1000000s", time.as_secs())));
            }
        }
        Ok(Settings {
            mapping: match self.mapping {
                MappingName::EndpointIndependent => Mapping::EndpointIndependent,
                MappingName::EndpointDependent => Mapping::EndpointDependent,
            },
            filtering: match self.filtering {
                FilteringName::EndpointIndependent => Filtering::EndpointIndependent,
                FilteringName::AddressDependent => Filtering::AddressDependent,
                FilteringName::AddressAndPortDependent => Filtering::AddressAndPortDependent,
            },
            inbound_refresh: self.inbound_refresh,
            ports,
            sessions,
            sessions_per_source: Some(sessions_per_source).filter(|cap| *cap > 0),
            timeouts: Timeouts {
                udp: self.udp,
                udp_unreplied: self.udp_unreplied,
                udp_dns: self.udp_dns,
                icmp: self.icmp,
                tcp_opening: self.tcp_opening,
                tcp_established: self.tcp_established,
                tcp_closing: self.tcp_closing,
            },
            ..Settings::default()
        })
    }

    fn times(&self) -> [(&'static str, Duration); 7] {
        [
            ("udp", self.udp),
            ("udp-unreplied", self.udp_unreplied),
            ("udp-dns", self.udp_dns),
            ("icmp", self.icmp),
            ("tcp-opening", self.tcp_opening),
            ("tcp-established", self.tcp_established),
            ("tcp-closing", self.tcp_closing),
        ]
    }
}

impl Read for MappingName {
    fn read(raw: Raw) -> Result<Self, String> {
        word(raw, &[("endpoint-independent", Self::EndpointIndependent), ("endpoint-dependent", Self::EndpointDependent)])
    }
}

impl Read for FilteringName {
    fn read(raw: Raw) -> Result<Self, String> {
        let words = [
            ("endpoint-independent", Self::EndpointIndependent),
            ("address-dependent", Self::AddressDependent),
            ("address-and-port-dependent", Self::AddressAndPortDependent),
        ];
        word(raw, &words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_that_of_nat() {
        assert_eq!(NatSettings::default().rules(), Ok(Settings::default()));
        let read: NatSettings = toml::from_str(&toml::to_string(&NatSettings::default()).unwrap()).unwrap();
        assert_eq!(read, NatSettings::default());
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (text, part) in [
            ("ports = \"0\"", "`ports` \"0\" is not a port"),
            ("sessions = 0", "`sessions` is 0: use 1 to 2097152"),
            ("udp = \"0s\"", "`udp` is 0s: use 1s"),
        ] {
            let error = toml::from_str::<NatSettings>(text).unwrap().rules().unwrap_err().to_string();
            assert!(error.starts_with(part), "{error}");
        }
        assert!(toml::from_str::<NatSettings>("udp = \"soon\"").is_err());
    }
}
