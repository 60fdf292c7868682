//! The kernel's bridge between veth pairs: what Docker makes.

use std::fmt::Write;
use std::time::Instant;

use super::{Contender, Crowd, IP, NEAR, Place, address_stations, silence};
use crate::lab::Lab;

/// Between two stations.
pub(crate) static BRIDGE: Contender = Contender { name: "Linux bridge, veth", needs: &[IP], only: None, open };

fn open() -> Place {
    let lab = Lab::new();
    lab.sh("ip -n @host link add br0 type bridge forward_delay 0 && ip -n @host link set br0 up").ok();
    for name in ["a", "b"] {
        lab.add_netns(name);
        lab.sh(&format!(
            "ip -n @host link add name {name} type veth peer name eth0 netns @{name} && ip -n @host link set dev {name} master br0 up"
        ))
        .ok();
    }
    address_stations(&lab);
    Place::new(lab, ("a", "b"), NEAR, Vec::new())
}

/// A bridge with so many veth pairs, made by one `ip -batch`.
///
/// # Panics
/// If they cannot be made.
pub(crate) fn bridge_of(ports: u32) -> Crowd {
    let lab = silence();
    let mut batch = "link add br0 type bridge forward_delay 0\nlink set br0 up\n".to_owned();
    for number in 0..ports {
        let _ = writeln!(batch, "link add p{number} type veth peer name q{number}");
        let _ = writeln!(batch, "link set p{number} master br0 up\nlink set q{number} up");
    }
    let file = lab.path("batch");
    std::fs::write(&file, batch).expect("a file written");
    let begun = Instant::now();
    lab.sh(&format!("ip -n @host -batch {}", file.display())).ok();
    Crowd { time: begun.elapsed(), _lab: lab, switch: Vec::new() }
}
