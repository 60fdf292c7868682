//! VDE: a switch, and for each station a plug between the switch's socket and a TAP.

use super::{Contender, IP, NEAR, Need, Place, address_stations};
use crate::lab::Lab;

/// Between two stations. It is the slowest by far, so it is spared what would only say so again.
pub(crate) static VDE: Contender = Contender {
    name: "VDE",
    needs: &[IP, Need { tool: "vde_switch", package: "vde-switch" }, Need { tool: "vde_plug", package: "vdeplug" }],
    only: Some(&["tcp", "udp-64-full", "udp-64-50k", "ping"]),
    open,
};

fn open() -> Place {
    let mut lab = Lab::new();
    let home = lab.path("").display().to_string();
    // Without --daemon it ends with its standard input. It stays in the namespace of the lab, with which it ends.
    lab.run_in("host", &format!("vde_switch --daemon --pidfile {home}/vde.pid --sock {home}/vde --mgmt {home}/vde.mgmt")).ok();
    lab.until("vde_switch listens", |lab| lab.path("vde/ctl").exists() && pid(lab).is_some());
    let mut switch: Vec<u32> = pid(&lab).into_iter().collect();
    for name in ["a", "b"] {
        lab.add_netns(name);
        switch.push(lab.spawn_in(name, &format!("vde_plug vde://{home}/vde tap://eth0")));
        lab.until("the plug has made its TAP", |lab| lab.run_in(name, "ip link show eth0").code == Some(0));
    }
    address_stations(&lab);
    Place::new(lab, ("a", "b"), NEAR, switch)
}

fn pid(lab: &Lab) -> Option<u32> {
    std::fs::read_to_string(lab.path("vde.pid")).ok()?.trim().parse().ok()
}
