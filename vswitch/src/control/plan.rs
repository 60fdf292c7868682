//! From what runs to what is wanted, in the order that disturbs least.

use std::collections::BTreeSet;

use crate::config::Layout;
use api::{
    BridgeSpec, ForwardKey, InterfaceName, Netns, Origin, PortSpec, Reach, Resource, ResourceKey, UplinkKindName, UplinkSpec,
    VxlanSpec,
};

/// One step. Each has an inverse, so a list of them can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Makes a resource, as this source asked for.
    Add(Resource, Origin),
    /// Makes a resource that is there another.
    Set(Resource, Origin),
    /// Removes a resource.
    Delete(ResourceKey),
}

impl Step {
    /// The resource that it is about.
    pub(super) fn key(&self) -> ResourceKey {
        match self {
            Self::Add(resource, _) | Self::Set(resource, _) => resource.key(),
            Self::Delete(key) => key.clone(),
        }
    }
}

/// Where a port's device is: two ports cannot share it.
pub(super) fn place(spec: &PortSpec) -> (Option<&Netns>, &InterfaceName) {
    (spec.netns.as_ref(), &spec.ifname)
}

/// The steps from `running` to `wanted`. What is the same in both gets none.
///
/// What others depend on is made before them and goes after them. What is removed goes last, so that no connection is lost when a step before
/// fails; except what makes place for something new.
pub(super) fn steps(running: &Layout, wanted: &Layout) -> Vec<Step> {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for (key, resource, _) in
        running.iter().rev().filter(|(key, resource, origin)| is_removed(key, (*resource, *origin), wanted))
    {
        let list = if is_in_the_way(resource, running, wanted) { &mut first } else { &mut last };
        list.push(Step::Delete(key.clone()));
    }
    for (key, resource, origin) in wanted.iter() {
        // Bridges let go of an uplink before something else gets its name.
        if let Some(uplink) = predecessor(key).filter(|uplink| running.has(uplink)) {
            last.retain(|step| step.key() != uplink);
            first.push(Step::Delete(uplink));
        }
        match running.get(key) {
            Some(old) if old == (resource, origin) => {}
            Some(_) if !is_removed(key, (resource, origin), running) => first.push(Step::Set(resource.clone(), origin)),
            _ => first.push(Step::Add(resource.clone(), origin)),
        }
    }
    first.extend(last);
    first
}

/// The uplink whose name a port or tunnel has; both cannot be.
fn predecessor(key: &ResourceKey) -> Option<ResourceKey> {
    match key {
        ResourceKey::Port(name) | ResourceKey::Vxlan(name) => Some(ResourceKey::Uplink(name.clone())),
        ResourceKey::Uplink(_) | ResourceKey::Bridge(_) | ResourceKey::Forward(_) => None,
    }
}

/// Whether what runs is removed: it is not wanted, or is a forward, which only goes and comes, or a tunnel that is encrypted and is not to be, or the other
/// way round.
fn is_removed(key: &ResourceKey, resource: (&Resource, Origin), other: &Layout) -> bool {
    match (other.get(key), resource) {
        (None, _) => true,
        (Some((Resource::Vxlan(same), _)), (Resource::Vxlan(spec), _)) => same.wireguard.is_some() != spec.wireguard.is_some(),
        (Some(same), _) => matches!(key, ResourceKey::Forward(_)) && same != resource,
    }
}

/// Whether something that is wanted cannot be while this runs.
fn is_in_the_way(resource: &Resource, running: &Layout, wanted: &Layout) -> bool {
    match resource {
        Resource::Uplink(_) | Resource::Bridge(_) => false,
        Resource::Vxlan(spec) => {
            // What a bridge has to do with its next network does not leave by the tunnel of the last.
            let network = |layout: &Layout| {
                layout.find::<BridgeSpec>(&spec.bridge).map(|(bridge, _)| (bridge.overlay.clone(), bridge.encrypt))
            };
            let is_replaced = wanted.has_port(&spec.name) || wanted.find::<VxlanSpec>(&spec.name).is_some();
            is_replaced || network(running) != network(wanted) || wanted.all::<VxlanSpec>().any(|new| new.collides_with(spec))
        }
        Resource::Port(spec) => wanted.has_port(&spec.name) || wanted.all::<PortSpec>().any(|new| place(new) == place(spec)),
        // Another kind of uplink may not get the port, and need not if no source wants it any more.
        Resource::Forward(spec) => {
            let uplink =
                |layout: &Layout| layout.find::<UplinkSpec>(&spec.key.uplink).map(|(uplink, origin)| (uplink.clone(), origin));
            let overlaps = |new: &ForwardKey| new.overlaps(&spec.key, UplinkKindName::Host);
            uplink(running) != uplink(wanted) || wanted.all().any(|new: &api::ForwardSpec| overlaps(&new.key))
        }
    }
}

/// Those of the steps that are about things of this origin, and about what others have on a bridge of this origin that goes.
pub(super) fn only_of(origin: Origin, mut steps: Vec<Step>, running: &Layout, wanted: &Layout) -> Vec<Step> {
    let is_own = |key: &ResourceKey| running.get(key).is_some_and(|(_, of)| of == origin);
    let bridge_goes = steps.iter().any(|step| matches!(step, Step::Delete(key @ ResourceKey::Bridge(_)) if is_own(key)));
    steps.retain(|step| match step {
        Step::Add(_, of) | Step::Set(_, of) => *of == origin,
        Step::Delete(key) => is_own(key) || bridge_goes && wanted.get(key).is_none(),
    });
    steps
}

/// Steps that make again what has no device, among what does not change.
pub(super) fn revival(wanted: &Layout, steps: &[Step], is_missing: impl Fn(&ResourceKey) -> bool) -> Vec<Step> {
    let touched: BTreeSet<ResourceKey> = steps.iter().map(Step::key).collect();
    let missing = wanted.iter().filter(|(key, ..)| !touched.contains(key) && is_missing(key));
    missing.map(|(_, resource, origin)| Step::Set(resource.clone(), origin)).collect()
}

/// Whether a port must be taken apart and put together again to change like this, which its station sees as a link that goes
/// down and comes up.
pub(super) fn needs_new_device(old: &PortSpec, new: &PortSpec) -> bool {
    old.kind != new.kind || old.offload != new.offload || place(old) != place(new)
}

/// Whether a tunnel must be closed and opened again to change like this.
pub(super) fn needs_new_sockets(old: &VxlanSpec, new: &VxlanSpec) -> bool {
    let way = |spec: &VxlanSpec| (spec.vni, spec.local, spec.port, spec.udp_checksum, spec.ttl, spec.wireguard);
    let group = |spec: &VxlanSpec| match &spec.reach {
        Reach::Peers(_) => None,
        Reach::Group(group, device) => Some((*group, device.clone())),
    };
    way(old) != way(new) || group(old) != group(new) || old.routed.is_some() != new.routed.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{BridgeSpec, ForwardSpec};

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
        let File { bridge, port, uplink, forward, vxlan } = toml::from_str(text).unwrap();
        let resources = bridge.into_iter().map(Resource::from).chain(port.into_iter().map(Resource::from));
        let resources = resources.chain(uplink.into_iter().map(Resource::from)).chain(forward.into_iter().map(Resource::from));
        resources.chain(vxlan.into_iter().map(Resource::from)).map(|resource| (resource, Origin::File)).collect()
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
            let verb = |step: &Step| format!("{step:?}").split(['(', '{']).next().unwrap_or_default().to_owned();
            steps.iter().map(|step| format!("{} {}", verb(step), step.key().part())).collect()
        };
        assert_eq!(names(steps(&Layout::default(), &layout(TWO))), ["Add bridge", "Add port", "Add port"]);
        assert_eq!(names(steps(&layout(TWO), &Layout::default())), ["Delete port", "Delete port", "Delete bridge"]);
        let more = format!("{TWO}{WAN}");
        let up = ["Add uplink", "Add bridge", "Add port", "Add port", "Add forward"];
        assert_eq!(names(steps(&Layout::default(), &layout(&more))), up);
        let down = ["Delete forward", "Delete port", "Delete port", "Delete bridge", "Delete uplink"];
        assert_eq!(names(steps(&layout(&more), &Layout::default())), down);
        let moved = more.replace("10.0.0.2:80", "10.0.0.3:80");
        assert_eq!(names(steps(&layout(&more), &layout(&moved))), ["Delete forward", "Add forward"]);
    }

    #[test]
    fn a_call_of_dockers_leaves_alone_what_others_have_changed_and_takes_it_along_with_its_own_bridge() {
        let with = |text: &str, origin: Origin| -> Vec<(Resource, Origin)> {
            layout(text).iter().map(|(_, resource, _)| (resource.clone(), origin)).collect()
        };
        let (file, dockers) = ("[[bridge]]\nname = \"br0\"\n", "[[bridge]]\nname = \"br1\"\n");
        let moved = WAN.replace("10.0.0.2:80", "10.0.0.3:80");
        let own = "[[port]]\nname = \"own\"\nbridge = \"br1\"\nnetns = \"x\"\n";
        let running: Layout = [with(file, Origin::File), with(&moved, Origin::Runtime), with(dockers, Origin::Docker)]
            .into_iter()
            .chain([with(own, Origin::Runtime)])
            .flatten()
            .collect();
        // The file has another forward, vsctl moved it; and Docker wants a port of its own.
        let port = own.replace("own", "c1");
        let all =
            [with(file, Origin::File), with(WAN, Origin::File), with(dockers, Origin::Docker), with(&port, Origin::Docker)];
        let wanted: Layout = all.into_iter().flatten().collect();
        let of = |wanted: &Layout| only_of(Origin::Docker, steps(&running, wanted), &running, wanted);
        assert!(matches!(&of(&wanted)[..], [Step::Add(Resource::Port(spec), _)] if spec.name == "c1".parse().unwrap()));
        // Its bridge goes, and vsctl's port with it.
        let wanted: Layout = [with(file, Origin::File), with(WAN, Origin::File)].into_iter().flatten().collect();
        let gone: Vec<String> = of(&wanted).iter().map(|step| step.key().to_string()).collect();
        assert_eq!(gone, ["own", "br1"]);
    }

    #[test]
    fn a_port_in_the_way_goes_before_its_successor() {
        let renamed = TWO.replace("\"a\"", "\"c\"");
        let steps = steps(&layout(TWO), &layout(&renamed));
        assert!(
            matches!(&steps[..], [Step::Delete(a), Step::Add(c, _)] if a.to_string() == "a" && c.key().to_string() == "c"),
            "{steps:?}"
        );
    }

    #[test]
    fn an_uplink_goes_before_a_port_gets_its_name_and_after_its_bridges_let_go_of_it() {
        let behind = "[[uplink]]\nname = \"wan\"\nkind = \"host\"\n[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.1/24\"]\n";
        let uplink = layout(&format!("{behind}uplink = \"wan\"\n"));
        let port = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.1/24\"]\n[[port]]\nname = \"wan\"\nbridge = \"br0\"\n";
        let there = steps(&uplink, &layout(port));
        assert!(
            matches!(&there[..], [Step::Set(bridge, _), Step::Delete(ResourceKey::Uplink(_)), Step::Add(Resource::Port(_), _)]
                if bridge.key().to_string() == "br0"),
            "{there:?}"
        );
        let back = steps(&layout(port), &uplink);
        assert!(
            matches!(&back[..], [Step::Delete(ResourceKey::Port(_)), Step::Add(Resource::Uplink(_), _), Step::Set(..)]),
            "{back:?}"
        );
    }

    const TUNNEL: &str = "[[vxlan]]\nname = \"x\"\nbridge = \"br0\"\nvni = 7\nlocal = \"192.0.2.1\"\n";

    #[test]
    fn a_bridge_has_left_its_overlay_network_before_it_is_in_the_next() {
        let bridge = |rest: &str| format!("[[bridge]]\nname = \"br0\"\n{rest}");
        let red = layout(&format!("{}{TUNNEL}", bridge("overlay = \"red\"\n")));
        let port = "[[port]]\nname = \"a\"\nbridge = \"br0\"\n";
        let green = format!("{}{port}", bridge("overlay = \"green\"\nencrypt = true\n"));
        let steps_to = |wanted: &Layout| steps(&red, wanted);
        let begins =
            |steps: &[Step]| matches!(steps, [Step::Delete(ResourceKey::Vxlan(_)), Step::Set(Resource::Bridge(_), _), ..]);
        let waiting = steps_to(&layout(&green));
        assert!(begins(&waiting) && waiting.len() == 3, "{waiting:?}");
        // An encrypted tunnel is never what became of one in the clear.
        let (clear, _) = red.find::<VxlanSpec>(&"x".parse().unwrap()).unwrap();
        let mut sealed = layout(&green);
        sealed.insert(VxlanSpec { wireguard: Some(51_820), ..clear.clone() }, Origin::File);
        let there = steps_to(&sealed);
        let is_made = |step: &Step| matches!(step, Step::Add(Resource::Vxlan(_), _));
        assert!(begins(&there) && there.iter().any(is_made), "{there:?}");
    }

    #[test]
    fn a_tunnel_in_the_way_goes_before_its_successor() {
        let renamed = TUNNEL.replace("\"x\"", "\"y\"");
        let steps = steps(&layout(&format!("{TWO}{TUNNEL}")), &layout(&format!("{TWO}{renamed}")));
        assert!(matches!(&steps[..], [Step::Delete(ResourceKey::Vxlan(_)), Step::Add(Resource::Vxlan(_), _)]));
    }

    #[test]
    fn tunnels_change_their_peers_in_place() {
        let spec = |rest: &str| layout(&format!("{TUNNEL}{rest}")).all::<VxlanSpec>().next().unwrap().clone();
        let base = spec("");
        assert!(!needs_new_sockets(&base, &spec("peers = [\"192.0.2.2\"]\nlearn = false\nbum-limit = 5\nvlan = 3")));
        for rest in ["port = 8472", "udp-checksum = false", "ttl = 3", "group = \"239.1.1.1\"\ndevice = \"eth0\""] {
            assert!(needs_new_sockets(&base, &spec(rest)), "{rest}");
        }
        assert!(needs_new_sockets(&base, &VxlanSpec { wireguard: Some(51_820), ..base.clone() }));
    }

    #[test]
    fn only_another_device_takes_the_link_down() {
        let base = layout(TWO).all::<PortSpec>().next().unwrap().clone();
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
