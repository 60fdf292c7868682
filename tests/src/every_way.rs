//! A place with every kind of port, uplink and tunnel.

use crate::Lab;

/// Every kind of port, uplink and tunnel: `a` and `b` are TAPs, `c` is a veth pair, `d` a link; `wan` leads to the world, where a kernel's VXLAN has
/// 10.0.0.9.
pub const EVERY_WAY: &str = r#"
[[bridge]]
name = "br0"
addresses = ["10.0.0.254/24"]
uplink = "wan"
[[uplink]]
name = "wan"
kind = "link"
device = "wan"
address = "192.0.2.10/24"
[[forward]]
uplink = "wan"
protocol = "tcp"
port = 5202
to = "10.0.0.2:5201"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.0.0.1/24"]
[[port]]
name = "b"
bridge = "br0"
netns = "@b"
addresses = ["10.0.0.2/24"]
[[port]]
name = "c"
bridge = "br0"
kind = "veth"
netns = "@c"
addresses = ["10.0.0.3/24"]
[[port]]
name = "d"
bridge = "br0"
kind = "link"
device = "d0"
[[vxlan]]
name = "vx0"
bridge = "br0"
vni = 7
local = "198.51.100.1"
peers = ["198.51.100.2"]
"#;

/// A lab with a switch that runs `file`, which has these uplinks and tunnels, and the world around it.
///
/// # Panics
/// If something does not come up.
pub fn every_way(file: &str) -> Lab {
    let mut lab = Lab::new();
    lab.add_netns("world");
    lab.add_netns("d");
    lab.run_in("host", "ip link add wan type veth peer name wan netns @world && ip link set wan up").ok();
    lab.run_in("world", "ip link set wan up && ip addr add 192.0.2.1/24 dev wan && ip addr add 198.51.100.2/32 dev lo").ok();
    lab.run_in("host", "ip addr add 198.51.100.1/32 dev lo && ip addr add 192.0.2.20/24 dev wan && ip route add 198.51.100.2 via 192.0.2.1 src 198.51.100.1").ok();
    lab.run_in("world", "ip route add 198.51.100.1 via 192.0.2.20 src 198.51.100.2").ok();
    lab.run_in("world", "ip link add vx0 type vxlan id 7 local 198.51.100.2 remote 198.51.100.1 dstport 4789 && ip link set vx0 up && ip addr add 10.0.0.9/24 dev vx0").ok();
    lab.run_in("host", "ip link add d0 type veth peer name eth0 netns @d && ip link set d0 up").ok();
    lab.run_in("d", "ip link set eth0 up && ip addr add 10.0.0.4/24 dev eth0").ok();
    lab.write(file);
    lab.start();
    lab
}
