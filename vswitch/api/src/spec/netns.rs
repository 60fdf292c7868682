//! Network namespaces as users name them: by name, file, process or sandbox. Only names are here; `attach` opens what they stand for.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::SpecError;
use crate::read::{Raw, Read, parsed};

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Netns {
    /// A name under `/run/netns`, as `ip netns` knows it.
    Name(String),
    /// A namespace file, such as a container's `/proc/1234/ns/net` or `/run/docker/netns/…`.
    Path(PathBuf),
    /// The namespace of a process, written `pid:1234`.
    Pid(u32),
    /// The namespace of a container whose runtime takes the device out of vswitchd's own namespace and brings it there, under
    /// another name; written `sandbox:/run/docker/netns/…`. Addresses and routes are set by the runtime as well.
    Sandbox(PathBuf),
}

impl Netns {
    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Name(name) => PathBuf::from("/run/netns").join(name),
            Self::Path(path) | Self::Sandbox(path) => path.clone(),
            Self::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        }
    }
}

impl TryFrom<String> for Netns {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        if let Some(pid) = text.strip_prefix("pid:") {
            return match pid.parse() {
                Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
                _ => Err(SpecError::Netns(text)),
            };
        }
        if let Some(path) = text.strip_prefix("sandbox:") {
            let sound = path.starts_with('/') && !path.contains('\0');
            return if sound { Ok(Self::Sandbox(PathBuf::from(path))) } else { Err(SpecError::Netns(text)) };
        }
        if text.starts_with('/') {
            return if text.contains('\0') { Err(SpecError::Netns(text)) } else { Ok(Self::Path(PathBuf::from(text))) };
        }
        let plain = |c: char| c.is_ascii_graphic() && c != '/';
        if text.is_empty() || text.len() > 255 || !text.chars().all(plain) || text == "." || text == ".." {
            return Err(SpecError::Netns(text));
        }
        Ok(Self::Name(text))
    }
}

impl Read for Netns {
    fn read(raw: Raw) -> Result<Self, String> {
        parsed(raw, "a network namespace such as \"red\"")
    }
}

impl FromStr for Netns {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        text.to_owned().try_into()
    }
}

impl From<Netns> for String {
    fn from(netns: Netns) -> Self {
        netns.to_string()
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => path.display().fmt(f),
            Self::Sandbox(path) => write!(f, "sandbox:{}", path.display()),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
        }
    }
}
