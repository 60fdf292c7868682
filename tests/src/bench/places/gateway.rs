//! Ways out of a subnet: an uplink of kind link beside the kernel's router, and one of kind host beside slirp4netns and pasta.

use super::{Contender, FAR, IP, Need, Place, outside};
use crate::lab::Lab;

/// The switch with an uplink of kind link.
pub(crate) static VSWITCH_LINK: Contender = Contender { name: "vswitch", needs: &[IP], only: None, open: open_link };
/// The switch with an uplink of kind host.
pub(crate) static VSWITCH_HOST: Contender = Contender { name: "vswitch", needs: &[IP], only: None, open: open_host };
/// The kernel as router, with a veth pair on either side.
pub(crate) static NFTABLES: Contender = Contender {
    name: "nftables masquerade",
    needs: &[IP, Need { tool: "nft", package: "nftables" }],
    only: None,
    open: open_nftables,
};
/// What rootless containers had for long.
pub(crate) static SLIRP4NETNS: Contender = Contender {
    name: "slirp4netns",
    needs: &[IP, Need { tool: "slirp4netns", package: "slirp4netns" }],
    only: None,
    open: open_slirp,
};
/// What rootless Podman has now.
pub(crate) static PASTA: Contender =
    Contender { name: "pasta", needs: &[IP, Need { tool: "pasta", package: "passt" }], only: None, open: open_pasta };

const BRIDGE: &str = r#"
[[bridge]]
name = "br0"
addresses = ["10.0.0.1/24"]
uplink = "wan"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.0.0.2/24"]
[[uplink]]
name = "wan"
"#;

fn open_link() -> Place {
    let lab = Lab::new();
    outside(&lab, false);
    vswitch(lab, "kind = \"link\"\ndevice = \"wan\"\naddress = \"192.0.2.10/24\"\ngateway = \"192.0.2.1\"\n")
}

fn open_host() -> Place {
    let lab = Lab::new();
    outside(&lab, true);
    vswitch(lab, "kind = \"host\"\n")
}

fn vswitch(mut lab: Lab, uplink: &str) -> Place {
    lab.write(&format!("{BRIDGE}{uplink}"));
    lab.start();
    let switch = vec![lab.pid()];
    Place::new(lab, ("a", "out"), FAR, switch)
}

fn open_nftables() -> Place {
    let lab = Lab::new();
    outside(&lab, true);
    lab.add_netns("a");
    lab.sh(
        "ip -n @host link add lan type veth peer name eth0 netns @a && ip -n @host link set lan up && ip -n @a link set eth0 up && \
         ip -n @host addr add 10.0.0.1/24 dev lan && ip -n @a addr add 10.0.0.2/24 dev eth0 && \
         ip -n @a route add default via 10.0.0.1",
    )
    .ok();
    lab.run_in("host", "echo 1 > /proc/sys/net/ipv4/ip_forward").ok();
    lab.run_in(
        "host",
        "nft 'add table nat; add chain nat post { type nat hook postrouting priority 100; }; \
         add rule nat post oifname wan masquerade'",
    )
    .ok();
    Place::new(lab, ("a", "out"), FAR, Vec::new())
}

fn open_slirp() -> Place {
    let mut lab = beside_host();
    let target = lab.named("/run/netns/@a");
    let line = format!("sh -c 'ulimit -n 65536; exec slirp4netns --configure --mtu=1500 --netns-type=path {target} tap0'");
    let switch = vec![lab.spawn_in("host", &line)];
    Place::new(lab, ("a", "out"), FAR, switch)
}

fn open_pasta() -> Place {
    let mut lab = beside_host();
    let target = lab.named("/run/netns/@a");
    let options = "--config-net --runas 0 --foreground --mtu 1500 -t none -u none -T none -U none --no-map-gw";
    let line = format!("sh -c 'ulimit -n 65536; exec pasta {options} --netns {target}'");
    let switch = vec![lab.spawn_in("host", &line)];
    Place::new(lab, ("a", "out"), FAR, switch)
}

fn beside_host() -> Lab {
    let lab = Lab::new();
    outside(&lab, true);
    // Their sockets for pings are those of users.
    lab.run_in("host", "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range").ok();
    lab.add_netns("a");
    lab
}
