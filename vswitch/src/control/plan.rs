//! From what runs to what is wanted, in the order that disturbs least.

use std::collections::BTreeMap;

use crate::api::{BridgeName, BridgeSpec, InterfaceName, Netns, Origin, PortName, PortSpec};

/// One step. Each has an inverse, so a list of them can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    AddBridge(BridgeSpec, Origin),
    SetBridge(BridgeSpec, Origin),
    DeleteBridge(BridgeName),
    AddPort(PortSpec, Origin),
    SetPort(PortSpec, Origin),
    DeletePort(PortName),
}

/// Bridges and ports with who asked for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) bridges: BTreeMap<BridgeName, (BridgeSpec, Origin)>,
    pub(super) ports: BTreeMap<PortName, (PortSpec, Origin)>,
}

/// Where a port's device is: two ports cannot share it.
pub(super) fn place(spec: &PortSpec) -> (Option<&Netns>, &InterfaceName) {
    (spec.netns.as_ref(), &spec.ifname)
}

/// The steps from `running` to `wanted`. What is the same in both gets none.
///
/// Bridges come before their ports and go after them. Ports are removed last, so that a failing step before has cost nobody
/// a connection; except those whose device makes place for another port's.
pub(super) fn steps(running: &Layout, wanted: &Layout) -> Vec<Step> {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for (name, (spec, _)) in running.ports.iter().filter(|(name, _)| !wanted.ports.contains_key(*name)) {
        let in_the_way = wanted.ports.values().any(|(new, _)| place(new) == place(spec));
        let list = if in_the_way { &mut first } else { &mut last };
        list.push(Step::DeletePort(name.clone()));
    }
    for (name, (spec, origin)) in &wanted.bridges {
        match running.bridges.get(name) {
            None => first.push(Step::AddBridge(spec.clone(), *origin)),
            Some(old) if *old != (spec.clone(), *origin) => first.push(Step::SetBridge(spec.clone(), *origin)),
            Some(_) => {}
        }
    }
    for (name, (spec, origin)) in &wanted.ports {
        match running.ports.get(name) {
            None => first.push(Step::AddPort(spec.clone(), *origin)),
            Some(old) if *old != (spec.clone(), *origin) => first.push(Step::SetPort(spec.clone(), *origin)),
            Some(_) => {}
        }
    }
    let gone = running.bridges.keys().filter(|name| !wanted.bridges.contains_key(*name));
    last.extend(gone.cloned().map(Step::DeleteBridge));
    first.extend(last);
    first
}

/// Whether a port must be taken apart and put together again to change like this, which its station sees as a link that goes
/// down and comes up.
pub(super) fn needs_new_device(old: &PortSpec, new: &PortSpec) -> bool {
    old.kind != new.kind || old.offload != new.offload || place(old) != place(new)
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
        }
        let file: File = toml::from_str(text).unwrap();
        Layout {
            bridges: file.bridge.into_iter().map(|spec| (spec.name.clone(), (spec, Origin::File))).collect(),
            ports: file.port.into_iter().map(|spec| (spec.name.clone(), (spec, Origin::File))).collect(),
        }
    }

    const TWO: &str = "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"x\"\n\
                       [[port]]\nname = \"b\"\nbridge = \"br0\"\n";

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
    }

    #[test]
    fn a_port_in_the_way_goes_before_its_successor() {
        let renamed = TWO.replace("\"a\"", "\"c\"");
        let steps = steps(&layout(TWO), &layout(&renamed));
        assert!(
            matches!(&steps[..], [Step::DeletePort(a), Step::AddPort(c, _)] if a.as_str() == "a" && c.name.as_str() == "c")
        );
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
