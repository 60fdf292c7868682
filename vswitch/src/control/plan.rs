//! From what runs to what is wanted, in the order that disturbs least.

use std::collections::BTreeMap;

use crate::config::Layout;
use api::{
    BridgeName, BridgeSpec, ForwardKey, ForwardSpec, InterfaceName, Netns, Origin, PortName, PortSpec, Reach, UplinkKindName,
    UplinkSpec, VxlanSpec,
};

/// One step. Each has an inverse, so a list of them can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    AddBridge(BridgeSpec, Origin),
    SetBridge(BridgeSpec, Origin),
    DeleteBridge(BridgeName),
    AddPort(PortSpec, Origin),
    SetPort(PortSpec, Origin),
    DeletePort(PortName),
    AddUplink(UplinkSpec, Origin),
    SetUplink(UplinkSpec, Origin),
    DeleteUplink(PortName),
    AddForward(ForwardSpec, Origin),
    DeleteForward(ForwardKey),
    AddVxlan(VxlanSpec, Origin),
    SetVxlan(VxlanSpec, Origin),
    DeleteVxlan(PortName),
}

/// Where a port's device is: two ports cannot share it.
pub(super) fn place(spec: &PortSpec) -> (Option<&Netns>, &InterfaceName) {
    (spec.netns.as_ref(), &spec.ifname)
}

/// The steps from `running` to `wanted`. What is the same in both gets none.
///
/// Uplinks come before the bridges that use them, bridges before their ports, tunnels before ports, whose MTU they decide; and they go after
/// them. What is removed goes last, so that no connection is lost when a step before fails; except what must make place for something new.
pub(super) fn steps(running: &Layout, wanted: &Layout) -> Vec<Step> {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for (key, (spec, origin)) in &running.forwards {
        let same = wanted.forwards.get(key).is_some_and(|new| *new == (spec.clone(), *origin));
        // Another kind of uplink may not get the port, and need not if no forward wants it any more.
        let moves = running.uplinks.get(&key.uplink) != wanted.uplinks.get(&key.uplink);
        let in_the_way = moves || wanted.forwards.keys().any(|new| new.overlaps(key, UplinkKindName::Host));
        if !same {
            let list = if in_the_way { &mut first } else { &mut last };
            list.push(Step::DeleteForward(key.clone()));
        }
    }
    for (name, (spec, _)) in running.vxlans.iter().filter(|(name, _)| !wanted.vxlans.contains_key(*name)) {
        let in_the_way = wanted.vxlans.values().any(|(new, _)| new.collides_with(spec)) || wanted.has_port(name);
        let list = if in_the_way { &mut first } else { &mut last };
        list.push(Step::DeleteVxlan(name.clone()));
    }
    for (name, (spec, _)) in running.ports.iter().filter(|(name, _)| !wanted.ports.contains_key(*name)) {
        let in_the_way = wanted.ports.values().any(|(new, _)| place(new) == place(spec)) || wanted.has_port(name);
        let list = if in_the_way { &mut first } else { &mut last };
        list.push(Step::DeletePort(name.clone()));
    }
    differences(&running.uplinks, &wanted.uplinks, Step::AddUplink, Step::SetUplink, &mut first);
    differences(&running.bridges, &wanted.bridges, Step::AddBridge, Step::SetBridge, &mut first);
    differences(&running.vxlans, &wanted.vxlans, Step::AddVxlan, Step::SetVxlan, &mut first);
    differences(&running.ports, &wanted.ports, Step::AddPort, Step::SetPort, &mut first);
    differences(&running.forwards, &wanted.forwards, Step::AddForward, Step::AddForward, &mut first);
    last.extend(missing(&running.bridges, &wanted.bridges).map(Step::DeleteBridge));
    last.extend(missing(&running.uplinks, &wanted.uplinks).map(Step::DeleteUplink));
    first.extend(last);
    first
}

/// Whether a step is about something of this origin. A removal always is: what is of another origin goes only with its bridge.
pub(super) fn concerns(step: &Step, wanted: Origin) -> bool {
    match step {
        Step::AddBridge(_, origin) | Step::SetBridge(_, origin) => *origin == wanted,
        Step::AddPort(_, origin) | Step::SetPort(_, origin) => *origin == wanted,
        Step::AddUplink(_, origin) | Step::SetUplink(_, origin) => *origin == wanted,
        Step::AddVxlan(_, origin) | Step::SetVxlan(_, origin) => *origin == wanted,
        Step::AddForward(_, origin) => *origin == wanted,
        Step::DeleteBridge(_) | Step::DeletePort(_) | Step::DeleteUplink(_) | Step::DeleteForward(_) | Step::DeleteVxlan(_) => {
            true
        }
    }
}

fn differences<N: Ord, T: Clone + PartialEq>(
    running: &BTreeMap<N, (T, Origin)>,
    wanted: &BTreeMap<N, (T, Origin)>,
    add: fn(T, Origin) -> Step,
    set: fn(T, Origin) -> Step,
    steps: &mut Vec<Step>,
) {
    for (name, (spec, origin)) in wanted {
        match running.get(name) {
            None => steps.push(add(spec.clone(), *origin)),
            Some(old) if *old != (spec.clone(), *origin) => steps.push(set(spec.clone(), *origin)),
            Some(_) => {}
        }
    }
}

fn missing<N: Ord + Clone, T>(running: &BTreeMap<N, T>, wanted: &BTreeMap<N, T>) -> impl Iterator<Item = N> {
    running.keys().filter(|name| !wanted.contains_key(*name)).cloned()
}

/// Whether a port must be taken apart and put together again to change like this, which its station sees as a link that goes
/// down and comes up.
pub(super) fn needs_new_device(old: &PortSpec, new: &PortSpec) -> bool {
    old.kind != new.kind || old.offload != new.offload || place(old) != place(new)
}

/// Whether a tunnel must be closed and opened again to change like this.
pub(super) fn needs_new_sockets(old: &VxlanSpec, new: &VxlanSpec) -> bool {
    let way = |spec: &VxlanSpec| (spec.vni, spec.local, spec.port, spec.udp_checksum, spec.ttl);
    let group = |spec: &VxlanSpec| match &spec.reach {
        Reach::Peers(_) => None,
        Reach::Group(group, device) => Some((*group, device.clone())),
    };
    way(old) != way(new) || group(old) != group(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str) -> Layout {
        #[derive(serde::Deserialize)]
        struct File {
            #[serde(default)]
            bridge: Vec<BridgeSpec>,
            #[serde(default)]
            port: Vec<PortSpec>,
            #[serde(default)]
            uplink: Vec<UplinkSpec>,
            #[serde(default)]
            forward: Vec<ForwardSpec>,
            #[serde(default)]
            vxlan: Vec<VxlanSpec>,
        }
        let file: File = toml::from_str(text).unwrap();
        Layout {
            bridges: file.bridge.into_iter().map(|spec| (spec.name.clone(), (spec, Origin::File))).collect(),
            ports: file.port.into_iter().map(|spec| (spec.name.clone(), (spec, Origin::File))).collect(),
            uplinks: file.uplink.into_iter().map(|spec| (spec.name.clone(), (spec, Origin::File))).collect(),
            forwards: file.forward.into_iter().map(|spec| (spec.key.clone(), (spec, Origin::File))).collect(),
            vxlans: file.vxlan.into_iter().map(|spec| (spec.name.clone(), (spec, Origin::File))).collect(),
        }
    }

    const TWO: &str = "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"x\"\n\
                       [[port]]\nname = \"b\"\nbridge = \"br0\"\n";

    const WAN: &str = "[[uplink]]\nname = \"wan\"\nkind = \"host\"\n\
                       [[forward]]\nuplink = \"wan\"\nprotocol = \"tcp\"\nport = 80\nto = \"10.0.0.2:80\"\n";

    #[test]
    fn nothing_is_done_where_nothing_differs() {
        assert_eq!(steps(&layout(TWO), &layout(TWO)), []);
    }

    #[test]
    fn bridges_come_first_and_go_last() {
        let names = |steps: Vec<Step>| -> Vec<String> {
            let text = |step| format!("{step:?}").split(['(', '{']).next().unwrap_or_default().to_owned();
            steps.into_iter().map(text).collect()
        };
        assert_eq!(names(steps(&Layout::default(), &layout(TWO))), ["AddBridge", "AddPort", "AddPort"]);
        assert_eq!(names(steps(&layout(TWO), &Layout::default())), ["DeletePort", "DeletePort", "DeleteBridge"]);
        let more = format!("{TWO}{WAN}");
        let up = ["AddUplink", "AddBridge", "AddPort", "AddPort", "AddForward"];
        assert_eq!(names(steps(&Layout::default(), &layout(&more))), up);
        let down = ["DeleteForward", "DeletePort", "DeletePort", "DeleteBridge", "DeleteUplink"];
        assert_eq!(names(steps(&layout(&more), &Layout::default())), down);
        let moved = more.replace("10.0.0.2:80", "10.0.0.3:80");
        assert_eq!(names(steps(&layout(&more), &layout(&moved))), ["DeleteForward", "AddForward"]);
    }

    #[test]
    fn a_port_in_the_way_goes_before_its_successor() {
        let renamed = TWO.replace("\"a\"", "\"c\"");
        let steps = steps(&layout(TWO), &layout(&renamed));
        assert!(
            matches!(&steps[..], [Step::DeletePort(a), Step::AddPort(c, _)] if a.as_str() == "a" && c.name.as_str() == "c")
        );
    }

    const TUNNEL: &str = "[[vxlan]]\nname = \"x\"\nbridge = \"br0\"\nvni = 7\nlocal = \"192.0.2.1\"\n";

    #[test]
    fn a_tunnel_in_the_way_goes_before_its_successor() {
        let renamed = TUNNEL.replace("\"x\"", "\"y\"");
        let steps = steps(&layout(&format!("{TWO}{TUNNEL}")), &layout(&format!("{TWO}{renamed}")));
        assert!(matches!(&steps[..], [Step::DeleteVxlan(_), Step::AddVxlan(..)]));
    }

    #[test]
    fn tunnels_change_their_peers_in_place() {
        let spec = |rest: &str| layout(&format!("{TUNNEL}{rest}")).vxlans.into_values().next().unwrap().0;
        let base = spec("");
        assert!(!needs_new_sockets(&base, &spec("peers = [\"192.0.2.2\"]\nlearn = false\nbum-limit = 5\nvlan = 3")));
        for rest in ["port = 8472", "udp-checksum = false", "ttl = 3", "group = \"239.1.1.1\"\ndevice = \"eth0\""] {
            assert!(needs_new_sockets(&base, &spec(rest)), "{rest}");
        }
    }

    #[test]
    fn only_another_device_takes_the_link_down() {
        let base = layout(TWO).ports.into_values().next().unwrap().0;
        let change = |rest: &str| {
            let text = format!("name = \"a\"\nbridge = \"br0\"\n{rest}");
            needs_new_device(&base, &toml::from_str(&text).unwrap())
        };
        assert!(!change("netns = \"x\"\nvlan = 5\nguard = true\nmac = \"02:00:00:00:00:01\"\naddresses = [\"10.0.0.1/8\"]"));
        assert!(change("netns = \"y\""));
        assert!(change("netns = \"x\"\nifname = \"eth1\""));
        assert!(change("netns = \"x\"\nkind = \"veth\""));
        assert!(change("netns = \"x\"\noffload = false"));
    }
}
