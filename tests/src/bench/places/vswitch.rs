//! This project's switch.

use std::time::Instant;

use super::{Contender, Crowd, IP, NEAR, Place, silence};
use crate::lab::Lab;

/// With TAPs, which is what ports are if nothing else is said.
pub(crate) static VSWITCH_TAP: Contender = Contender { name: "vswitch", needs: &[IP], only: None, open: || open("tap") };
/// With veth pairs.
pub(crate) static VSWITCH_VETH: Contender = Contender { name: "vswitch", needs: &[IP], only: None, open: || open("veth") };

fn open(kind: &str) -> Place {
    let port = |name: &str, address: &str| {
        format!(
            "[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nkind = \"{kind}\"\nnetns = \"@{name}\"\naddresses = [\"{address}/24\"]\n"
        )
    };
    let file = format!("[[bridge]]\nname = \"br0\"\nmax-macs = 65536\n{}{}", port("a", "10.0.0.1"), port("b", NEAR));
    let lab = Lab::with(&file);
    let switch = vec![lab.pid()];
    let mut place = Place::new(lab, ("a", "b"), NEAR, switch);
    place.known_macs = Some(|lab| lab.ctl("fdb br0").ok().lines().count());
    place
}

/// A switch with so many TAPs.
///
/// # Panics
/// If it does not become ready.
pub(crate) fn switch_of(ports: u32) -> Crowd {
    let mut lab = silence();
    let port = |number| format!("[[port]]\nname = \"p{number}\"\nbridge = \"br0\"\n");
    lab.write(&format!("[[bridge]]\nname = \"br0\"\n{}", (0..ports).map(port).collect::<String>()));
    let begun = Instant::now();
    lab.start();
    let (time, switch) = (begun.elapsed(), vec![lab.pid()]);
    Crowd { _lab: lab, time, switch }
}
