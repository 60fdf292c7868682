//! The bare forwarder of [`forward`](crate::bench::forward), as a process of its own.

use super::{Contender, IP, NEAR, Place, address_stations};
use crate::lab::Lab;

/// Between two stations. It has no switch's cost, so it is measured where a switch's distance to it says something.
pub(crate) static BARE: Contender =
    Contender { name: "bare forwarder", needs: &[IP], only: Some(&["tcp", "ping", "latency-load", "latency-load-bbr"]), open };

fn open() -> Place {
    let mut lab = Lab::new();
    ["a", "b"].iter().for_each(|name| lab.add_netns(name));
    let [one, other] = ["a", "b"].map(|name| lab.named(&format!("/run/netns/@{name}")));
    let program = std::env::current_exe().expect("its own path");
    let switch = vec![lab.spawn_in("host", &format!("{} --forward {one} {other}", program.display()))];
    for name in ["a", "b"] {
        lab.until("it has made its TAP", |lab| lab.run_in(name, "ip link set eth0 txqueuelen 8192").code == Some(0));
    }
    address_stations(&lab);
    Place::new(lab, ("a", "b"), NEAR, switch)
}
