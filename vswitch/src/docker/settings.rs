//! The table `[docker]` of `switch.toml`: its keys and defaults. `config` reads it, and the control side opens the sockets that it names.
//! Touches nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::message::Driver;
use api::PortName;
use api::read::read;

/// `[docker]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct DockerSettings {
    /// Whether Docker is served; only a start reads it.
    #[serde(deserialize_with = "read")]
    pub enabled: bool,
    /// The socket on which Docker finds the driver, whose file name is the driver's name. Those of the other drivers are
    /// beside it. Only a start reads it.
    #[serde(deserialize_with = "read")]
    pub socket: PathBuf,
    /// The socket of Docker's own API, which tells names; only a start reads it.
    #[serde(deserialize_with = "read")]
    pub api: PathBuf,
    /// The uplink of networks that name none; `None`: one by the host's sockets, made for them.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "read")]
    pub uplink: Option<PortName>,
}

impl DockerSettings {
    /// The drivers, each with its socket: `vswitch.sock`, and beside it `vswitch-lan.sock` and `vswitch-overlay.sock`.
    pub fn sockets(&self) -> [(Driver, PathBuf); 3] {
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let beside = |end: &str| {
            let name = part(self.socket.file_stem()) + end;
            self.socket.with_file_name(name).with_extension(part(self.socket.extension()))
        };
        [(Driver::Bridge, self.socket.clone()), (Driver::Lan, beside("-lan")), (Driver::Overlay, beside("-overlay"))]
    }

    /// The first key that only a start reads and that differs from `other`'s.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let keys = [
            (self.enabled != other.enabled, "enabled"),
            (self.socket != other.socket, "socket"),
            (self.api != other.api, "api"),
        ];
        keys.into_iter().find_map(|(differs, key)| differs.then_some(key))
    }
}

impl Default for DockerSettings {
    fn default() -> Self {
        let (socket, api) = ("/run/docker/plugins/vswitch.sock".into(), "/var/run/docker.sock".into());
        Self { enabled: false, socket, api, uplink: None }
    }
}
