//! Why the kernel does not give or change a device: the sentences of `attach`, and `Doing`, by which its calls put a failure into words.
//! The control side passes them on to the log and to `vsctl`. Touches nothing itself.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use api::{Netns, PortName};

/// Why a device could not be had, in one sentence that says what would be right.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum AttachError {
    /// The kernel refused.
    #[error("cannot {doing}: {source}{}", advice(source, needs))]
    Kernel {
        /// What was tried.
        doing: String,
        /// The capability that it takes.
        needs: Right,
        /// What the kernel said.
        #[serde(with = "crate::broker::system_error")]
        source: io::Error,
    },
    /// The tun driver is missing.
    #[error(
        "there is no /dev/net/tun: load the driver (modprobe tun), or hand the device to the container (--device /dev/net/tun)"
    )]
    NoTun(
        #[source]
        #[serde(with = "crate::broker::system_error")]
        io::Error,
    ),
    /// No such namespace.
    #[error("there is no network namespace {netns}: {}", missing(netns))]
    NoNetns {
        /// The namespace as it was asked for.
        netns: Netns,
        /// What opening its file said.
        #[serde(with = "crate::broker::system_error")]
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a network namespace: name a file such as /proc/1234/ns/net, or one under /run/netns", .0.display().to_string().escape_debug())]
    NotNetns(PathBuf),
    /// An interface that is not the switch's has the name.
    #[error(
        "interface \"{ifname}\" exists already {place} and is not vswitch's: choose another `ifname`, delete it, or take it with kind link"
    )]
    Taken {
        /// The name.
        ifname: String,
        /// Where.
        place: Place,
    },
    /// Another process has queues of the TAP.
    #[error("interface \"{ifname}\" {place} is in use by another process: stop that one, or choose another `ifname`")]
    InUse {
        /// The name.
        ifname: String,
        /// Where.
        place: Place,
    },
    /// No such interface.
    #[error("there is no interface \"{ifname}\" {place}: `ip link` lists those that exist")]
    NoInterface {
        /// The name.
        ifname: String,
        /// Where.
        place: Place,
    },
    /// The loopback interface.
    #[error("interface \"{ifname}\" {place} is the loopback: a port needs an Ethernet interface")]
    Loopback {
        /// The name.
        ifname: String,
        /// Where.
        place: Place,
    },
    /// Another link layer.
    #[error("interface \"{ifname}\" {place} is not Ethernet: a port needs an Ethernet interface")]
    NotEthernet {
        /// The name.
        ifname: String,
        /// Where.
        place: Place,
    },
    /// IPv6 is switched off for the device.
    #[error(
        "cannot set address {address} on \"{ifname}\" {place}: IPv6 is switched off there; set the sysctl net.ipv6.conf.all.disable_ipv6 to 0, or leave the address out"
    )]
    NoIpv6 {
        /// The address.
        address: IpNet,
        /// The interface.
        ifname: String,
        /// Where.
        place: Place,
        /// What the kernel said.
        #[serde(with = "crate::broker::system_error")]
        source: io::Error,
    },
    /// An address that the host does not have.
    #[error("`local` {0} is not an address of this host: `ip address` lists those that are")]
    NotLocal(IpAddr),
    /// Another process has the UDP port.
    #[error("UDP port {} of {} is in use by another process, or by a VXLAN device of the kernel: stop that one, or use another `port`", .0.port(), .0.ip())]
    PortInUse(SocketAddr),
    /// What the broker opened has not come here.
    #[error("what is open cannot be passed on: {0}")]
    NotPassed(
        #[source]
        #[serde(with = "crate::broker::system_error")]
        io::Error,
    ),
    /// A change that needs another device.
    #[error("port \"{0}\" cannot change its {1} in place: remove it and add it again")]
    NotInPlace(PortName, String),
}

/// Where a device is, as a sentence says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(pub Option<Netns>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("in vswitchd's own namespace"),
            Some(Netns::Name(name)) => write!(f, "in namespace \"{name}\""),
            Some(Netns::Path(path) | Netns::Sandbox(path)) => write!(f, "in namespace {}", path.display()),
            Some(Netns::Pid(pid)) => write!(f, "in the namespace of process {pid}"),
        }
    }
}

/// Turns what the kernel said into a sentence.
pub(super) trait Doing<T> {
    /// `doing` continues "cannot"; `needs` is the capability without which it cannot be done.
    fn doing(self, needs: Right, doing: impl FnOnce() -> String) -> Result<T, AttachError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, needs: Right, doing: impl FnOnce() -> String) -> Result<T, AttachError> {
        self.map_err(|source| AttachError::Kernel { doing: doing(), needs, source: source.into() })
    }
}

impl From<io::Error> for AttachError {
    fn from(source: io::Error) -> Self {
        Self::NotPassed(source)
    }
}

/// A capability that something takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Right {
    /// For devices, addresses and routes.
    NetAdmin,
    /// For packet sockets.
    NetRaw,
    /// For namespaces and mounts.
    SysAdmin,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::SysAdmin => "CAP_SYS_ADMIN",
        })
    }
}

pub(super) const NET_ADMIN: Right = Right::NetAdmin;
pub(super) const NET_RAW: Right = Right::NetRaw;
pub(super) const SYS_ADMIN: Right = Right::SysAdmin;

/// Whether an error is this one.
pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn advice(source: &io::Error, needs: &Right) -> String {
    if is(source, Errno::PERM) || is(source, Errno::ACCESS) {
        format!("; vswitchd must run as root, or with {needs}")
    } else {
        String::new()
    }
}

fn missing(netns: &Netns) -> &'static str {
    match netns {
        Netns::Name(_) => "`ip netns` lists those that exist",
        Netns::Path(_) | Netns::Sandbox(_) => "its file does not exist; has the container ended?",
        Netns::Pid(_) => "there is no such process",
    }
}
