//! The kernel's settings that labs rely on: a lab sets them in each of its namespaces, because new ones begin with what the machine has, and
//! a Docker host, a router or a hardened server has other values than a machine that was just installed.
//!
//! [`Hostile`] makes the machine such a host, for the test that shows it.

use crate::interrupt::interrupted;

/// A line of shell that sets them in the network namespace that it runs in: what Linux has by default, but for what a kernel with
/// `br_netfilter` does to its bridges, which no Ethernet does.
pub(crate) const SETTINGS: &str = r#"
put() { local value=$1; shift; for file in "$@"; do if [ -e "$file" ]; then echo "$value" > "$file"; fi; done; }
put 0 /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/conf/*/rp_filter
put 0 /proc/sys/net/ipv4/conf/*/arp_ignore /proc/sys/net/ipv4/conf/*/arp_announce /proc/sys/net/ipv4/conf/*/arp_filter
put 1 /proc/sys/net/ipv4/conf/*/send_redirects /proc/sys/net/ipv4/conf/*/accept_redirects
put 0 /proc/sys/net/ipv6/conf/*/forwarding /proc/sys/net/ipv6/conf/*/disable_ipv6
put 1 /proc/sys/net/ipv6/conf/*/accept_ra /proc/sys/net/ipv6/conf/*/accept_dad
put 0 /proc/sys/net/bridge/bridge-nf-call-iptables /proc/sys/net/bridge/bridge-nf-call-ip6tables
put 0 /proc/sys/net/bridge/bridge-nf-call-arptables /proc/sys/net/ipv4/icmp_echo_ignore_all
put 64 /proc/sys/net/ipv4/ip_default_ttl
put 1024 /proc/sys/net/ipv4/ip_unprivileged_port_start
"#;

/// While it lives, the machine has the settings of a Docker host, a router and a careful administrator at once, and new namespaces begin with
/// them. It is the machine that is changed, so the test that makes one is alone in its program.
#[must_use]
pub struct Hostile {
    before: Vec<(String, String)>,
}

impl Hostile {
    /// Changes the machine's settings, except for those that it cannot change.
    pub fn new() -> Self {
        let mut hostile = Self { before: Vec::new() };
        for (path, value) in HOSTILE {
            hostile.set(path, value);
        }
        hostile
    }

    /// Whether this machine took a value.
    pub fn has(&self, path: &str) -> bool {
        self.before.iter().any(|(changed, _)| changed == path)
    }

    fn set(&mut self, path: &str, value: &str) {
        let Ok(before) = std::fs::read_to_string(path) else { return };
        if !interrupted() && std::fs::write(path, value).is_ok() {
            self.before.push((path.to_owned(), before.trim_end().to_owned()));
        }
    }
}

impl Default for Hostile {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        for (path, value) in self.before.drain(..).rev() {
            let _ = std::fs::write(path, value);
        }
    }
}

/// `devconf_inherit_init_net` makes IPv6's values go over to new namespaces as well, which IPv4's always do.
const HOSTILE: [(&str, &str); 10] = [
    ("/proc/sys/net/core/devconf_inherit_init_net", "1"),
    ("/proc/sys/net/ipv4/ip_forward", "1"),
    ("/proc/sys/net/ipv4/conf/all/rp_filter", "1"),
    ("/proc/sys/net/ipv4/conf/default/rp_filter", "1"),
    ("/proc/sys/net/ipv6/conf/all/forwarding", "1"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
    ("/proc/sys/net/bridge/bridge-nf-call-iptables", "1"),
    ("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "1"),
    ("/proc/sys/net/core/default_qdisc", "fq_codel"),
    ("/proc/sys/net/ipv4/tcp_congestion_control", "bbr"),
];
