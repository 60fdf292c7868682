//! Whether frames can pass ports and uplinks: what the kernel tells of their devices, and what becomes of their namespaces.
//!
//! [`Presence`] is where a port's state is kept. It follows from its *ends*, the devices that its frames pass: the station's, and of a veth
//! pair also the switch's. [`attach::Watch`] tells of each as it changes. Nothing tells that the name of a namespace was taken away: what the switch
//! has open there keeps it and its device alive. So the control loop looks at the namespaces at every `ROLL_CALL`, and closes what it has open
//! in those that are gone.
//!
//! An interface that the switch did not make is taken again when it comes back; one that the switch made, at a reload.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::inventory::{Inventory, Vport};
use super::presence::{Presence, line};
use super::uplink::bridge_settings;
use super::{ControlError, Port, Switch, Uplink};
use crate::attach::{self, End, Heard, Identity, NamespaceNumber, News};
use crate::broker::Descriptor;
use api::{Netns, Origin, PortKind, PortName, PortSpec, PortState, UplinkKind};
use plane::datapath::{PortId, PortSettings};
use plane::worker::{Command, Handle};

/// Most messages about links between two looks at other work.
const TURN: usize = 4096;
/// Most ports of which a reload says that they are not up.
pub(super) const NAMED: usize = 8;

/// What is to be done after news of links.
#[derive(Default)]
struct Due {
    /// An interface that was missed may be there again.
    back: bool,
    /// A container's runtime has taken a device elsewhere.
    moved: bool,
}

impl Inventory {
    /// Takes note of what the kernel says of a link, seen from the namespace `own`. Returns the ports and uplinks that have lost their devices by it.
    fn hear(&mut self, news: &News, own: Option<NamespaceNumber>, due: &mut Due) -> Vec<PortName> {
        let mut lost = Vec::new();
        for vport in self.vports_mut() {
            let moves = matches!(vport, Vport::Port(port) if port.spec.is_handed_over());
            let name = moves.then(|| vport.name().clone());
            let Some(presence) = vport.presence_mut() else { continue };
            let place = presence.place();
            let is_lost = presence.hear(news, name.as_ref().map(|name| (name, own)));
            due.moved |= moves && presence.place() != place;
            if is_lost {
                lost.push(vport.name().clone());
            }
        }
        lost
    }

    /// The names of the interfaces that are to be taken, of links and uplinks, and are not there.
    fn missing(&self) -> impl Iterator<Item = &str> {
        let ports = self.all::<Port>().filter(|port| is_missing(port)).map(|port| port.spec.ifname.as_str());
        let uplinks = self.all::<Uplink>().filter(|uplink| !uplink.presence.state.has_device());
        ports.chain(uplinks.filter_map(|uplink| Some(uplink.spec.device()?.as_str())))
    }

    fn misses(&self, ifname: &str) -> bool {
        self.missing().any(|missing| missing == ifname)
    }
}

impl Switch {
    /// Takes note of what the kernel said about links since it was last asked, and says whether more may wait.
    pub(super) fn follow_links(&mut self) -> bool {
        let (mut due, mut more) = (Due::default(), true);
        for _ in 0..TURN {
            match self.watch.as_mut().map_or(Heard::Nothing, attach::Watch::hear) {
                Heard::News(news) => self.hear(&news, &mut due),
                Heard::Lost => self.look_at_links(),
                Heard::Nothing => {
                    more = false;
                    break;
                }
            }
        }
        if due.back {
            self.retake();
        }
        if due.moved {
            self.find_sandboxes();
            self.note_arrivals();
        }
        self.tell_trees();
        more
    }

    /// Takes note of one thing.
    fn hear(&mut self, news: &News, due: &mut Due) {
        let own = self.watch.as_ref().and_then(attach::Watch::own);
        let mut lost = self.inventory.hear(news, own, due);
        lost.retain(|name| !self.is_there_again(name, news));
        lost.iter().for_each(|name| self.lose_device(name));
        due.back |= !news.gone && self.inventory.misses(&news.ifname);
    }

    /// Whether the device of a port is there, though the kernel has just told of its end. A namespace that is made anew, as when a change is taken
    /// back, may get the number of the one before, and its device the same index. The kernel tells late what ended with the one before
    /// (`cleanup_net`).
    fn is_there_again(&mut self, name: &PortName, gone: &News) -> bool {
        let Some(port) = self.inventory.find_mut::<Port>(name) else { return false };
        let Ok((_, found)) = attach::links_in(&port.spec.netns) else { return false };
        let is_it = |news: &News| (news.end.namespace, news.end.index) == (gone.end.namespace, gone.end.index);
        let Some(news) = found.into_iter().find(is_it) else { return false };
        port.presence.hear(&news, None);
        true
    }

    /// Asks about every link, where the kernel could not tell what became of them.
    pub(super) fn look_at_links(&mut self) {
        let (mut looks, mut looked) = (HashMap::new(), HashSet::new());
        let ports = self.inventory.all::<Port>().filter(|port| port.presence.state.has_device());
        let places: HashSet<_> = ports.map(|port| port.spec.netns.clone()).chain([None]).collect();
        for place in places {
            // What was known of a namespace that cannot be entered stays.
            let Ok((namespace, found)) = attach::links_in(&place) else { continue };
            looked.insert(namespace);
            looks.extend(found.into_iter().map(|news| ((namespace, news.end.index), news)));
        }
        let known: Vec<End> = {
            let all = self.inventory.vports().filter_map(Vport::presence);
            all.flat_map(|presence| presence.station.iter().chain(&presence.near)).copied().collect()
        };
        let is_gone = |end: &&End| looked.contains(&end.namespace) && !looks.contains_key(&(end.namespace, end.index));
        let gone = known.iter().filter(is_gone);
        let gone: Vec<News> =
            gone.map(|end| News { end: *end, ifname: String::new(), mac: None, port: None, gone: true }).collect();
        for news in looks.values().chain(&gone) {
            self.hear(news, &mut Due::default());
        }
        self.retake();
        self.note_arrivals();
        self.tell_trees();
    }

    /// Takes note of a worker's device that reads as gone, if it is not another one by now.
    pub(super) fn note_gone(&mut self, id: PortId) {
        let is_open = |worker: &Handle| worker.ask(|reply| Command::IsOpen(id, reply)).unwrap_or(true);
        if let Some(name) = self.inventory.name_of(id).cloned()
            && !self.plane.workers.iter().all(is_open)
        {
            self.lose_device(&name);
            self.withdraw_lost(&name);
        }
        self.collect_dead();
    }

    /// Takes note that the device of a port or uplink is gone, mostly with its namespace.
    fn lose_device(&mut self, name: &PortName) {
        let namespace_gone = self.inventory.find::<Port>(name).is_some_and(is_namespace_gone);
        let state = if namespace_gone { PortState::NamespaceGone } else { PortState::DeviceGone };
        self.lose(name, state);
    }

    /// Closes what is open for a port or uplink.
    fn lose(&mut self, name: &PortName, state: PortState) {
        let Some(vport) = self.inventory.vport_mut(name) else { return };
        let Some((id, presence)) = vport.id().zip(vport.presence_mut()) else { return };
        if presence.state.has_device() || state == PortState::NamespaceGone {
            presence.lose(state);
        }
        for worker in &self.plane.workers {
            // The data plane has stopped, and vswitchd is about to.
            let _ = worker.ask(|reply| Command::Take(id, reply));
        }
        self.tell_trees();
    }

    /// Says what has changed, and closes what is open in namespaces that were deleted, deleted and made again, or whose processes ended. The
    /// control loop calls it at every `ROLL_CALL`.
    pub(super) fn follow_namespaces(&mut self) {
        let had_one = |state: &PortState| state.has_device() || *state == PortState::DeviceGone;
        let gone = self.inventory.named::<Port>().filter(|(_, port)| had_one(port.presence.state()) && is_namespace_gone(port));
        let gone: Vec<PortName> = gone.map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.abandon_ghost(name);
        }
        if !gone.is_empty() {
            self.collect_dead();
        }
        if self.find_sandboxes() {
            self.note_arrivals();
        }
        self.tell_states();
    }

    /// Lets go of a device in a namespace that cannot be reached by its name any more, where programs may still hold it.
    fn abandon_ghost(&mut self, name: &PortName) {
        let Some(port) = self.inventory.find::<Port>(name) else { return };
        let (id, spec) = (port.id, port.spec.clone());
        let duplicate = |worker: &Handle| worker.ask(|reply| Command::Duplicate(id, reply)).ok()?;
        let queue = self.plane.workers.first().and_then(duplicate).and_then(|device| device.queues.into_iter().next());
        if let Err(error) = attach::abandon(&spec, &queue.map(Descriptor)) {
            tracing::warn!(port = %name, "{error}");
        }
        self.lose(name, PortState::NamespaceGone);
        // A namespace that has its name now is not the switch's.
        if let Some(Netns::Name(netns)) = &spec.netns {
            self.ledger.state.made.netns.remove(netns);
        }
    }

    /// Has the kernel tell of containers' devices in their sandboxes too, which may have been made after the ports. Says whether there were any
    /// new ones.
    fn find_sandboxes(&mut self) -> bool {
        if self.watch.is_none() {
            return false;
        }
        let mut any = false;
        let unknown = |port: &&mut Port| {
            port.spec.is_handed_over() && port.presence.sandbox.is_none() && port.presence.state.has_device()
        };
        for port in self.inventory.all_mut::<Port>().filter(unknown) {
            let Some(sandbox) = port.spec.netns.as_ref().and_then(attach::number_of) else { continue };
            port.presence.sandbox = Some(sandbox);
            any = true;
            // It may have come there before.
            if let Some(end) = attach::moved_end(&port.spec) {
                port.presence.station = Some(end);
                port.presence.look();
            }
        }
        any
    }

    /// The socket by which the kernel tells of links.
    pub(super) fn link_news(&self) -> Option<OwnedFd> {
        self.watch.as_ref()?.descriptor().ok()
    }

    /// What the user should know if the kernel does not tell of everything.
    pub(super) fn watch_note(&self) -> Option<String> {
        let deaf = self.watch.as_ref().is_none_or(|watch| !watch.hears_others());
        deaf.then(|| {
            "what becomes of devices in other namespaces is looked at every two seconds only: vswitchd needs CAP_NET_BROADCAST to be told".to_owned()
        })
    }

    /// Looks for changes of links of which no event tells, and for interfaces that have come back. The control loop calls it at every `SURVEY`.
    pub(super) fn follow_missing(&mut self) {
        if self.watch.as_ref().is_none_or(|watch| !watch.hears_others()) {
            self.look_at_links();
        } else if self.inventory.missing().next().is_some() {
            self.retake();
        }
    }

    /// Sets again what the switch had set on stations' devices and they have lost, or have otherwise. Returns what could not be set, one sentence each.
    pub(super) fn restore_stations(&mut self) -> Vec<String> {
        let up = self.inventory.all::<Port>().filter(|port| port.presence.state().has_device());
        let restored = up.filter_map(|port| {
            let gateways = self.gateways_of(&port.spec, &self.inventory.bridges.get(&port.spec.bridge)?.spec.addresses);
            // A MAC address that was drawn for it is its own as well. That of a container's device is its runtime's matter, and a link has none.
            let mac = port.spec.mac.or(port.mac).filter(|_| port.spec.kind != PortKind::Link && !port.is_of_container());
            let spec = PortSpec { mac, ..port.spec.clone() };
            let error = attach::restore(&spec, &gateways).err()?;
            Some(ControlError::Attach(port.spec.name.clone(), error).to_string())
        });
        restored.collect()
    }

    /// Takes interfaces again that were gone and have come back: those of links and of uplinks.
    pub(super) fn retake(&mut self) {
        let lost: Vec<PortName> =
            self.inventory.all::<Port>().filter(|port| is_missing(port)).map(|port| port.spec.name.clone()).collect();
        for name in lost {
            // What is not there yet is tried again later.
            let _ = self.reopen_port(&name);
        }
        let is_link = |uplink: &&Uplink| matches!(uplink.spec.kind, UplinkKind::Link { .. });
        let lost = self.inventory.all::<Uplink>().filter(is_link).filter(|uplink| !uplink.presence.state.has_device());
        let lost: Vec<PortName> = lost.map(|uplink| uplink.spec.name.clone()).collect();
        for name in lost {
            let _ = self.reopen_uplink(&name);
        }
    }

    /// As [`Self::retake`], for one port, because the user asked for it; if it cannot be, the port says why.
    pub(super) fn try_port(&mut self, name: &PortName) -> Result<(), ControlError> {
        self.reopen_port(name).inspect_err(|error| {
            if let Some(port) = self.inventory.find_mut::<Port>(name) {
                port.presence = Presence::unusable(error);
            }
        })
    }

    /// As [`Self::try_port`].
    pub(super) fn try_uplink(&mut self, name: &PortName) -> Result<(), ControlError> {
        self.reopen_uplink(name).inspect_err(|error| {
            if let Some(uplink) = self.inventory.find_mut::<Uplink>(name) {
                uplink.presence = Presence::unusable(error);
            }
        })
    }

    /// Opens a port's interface under the number that it had, so that its counters go on.
    fn reopen_port(&mut self, name: &PortName) -> Result<(), ControlError> {
        let port = self.inventory.port(name)?;
        let (id, spec, origin, tripped) = (port.id, port.spec.clone(), port.origin, port.tripped);
        let port = self.attach(id, spec, origin)?;
        tracing::info!(port = %name, "its interface is back");
        self.inventory.put(Port { tripped, ..port });
        self.tell_services();
        Ok(())
    }

    /// As [`Self::reopen_port`]; its sessions go on too.
    fn reopen_uplink(&mut self, name: &PortName) -> Result<(), ControlError> {
        let uplink = self.inventory.uplink(name)?;
        let (bridge, port, spec) = (uplink.bridge, uplink.port, uplink.spec.clone());
        let opened = self.open_uplink(&spec, uplink.mac)?;
        let router = self.plane.router()?;
        router.tell(Command::SetBridge(bridge, bridge_settings(opened.mtu)))?;
        let attached = router.ask(|reply| Command::Attach(port, PortSettings::on(bridge), opened.device, reply))?;
        attached.map_err(|error| ControlError::Poll(name.clone(), error))?;
        router.tell(Command::ForgetNeighbors(bridge))?;
        if let Some(uplink) = self.inventory.find_mut::<Uplink>(name) {
            (uplink.mtu, uplink.features, uplink.presence) = (opened.mtu, opened.features, opened.presence);
        }
        tracing::info!(uplink = %name, "its interface is back");
        self.refresh_uplink(name)
    }

    /// Says in the log what has changed.
    fn tell_states(&mut self) {
        let (now, mut news) = (Instant::now(), Vec::new());
        for vport in self.inventory.vports_mut() {
            let told = vport
                .presence_mut()
                .and_then(|presence| presence.news(now))
                .map(|state| (line(state), *state == PortState::Up));
            let Some((line, is_up)) = told else { continue };
            match (&*vport, is_up) {
                // Docker takes its devices from one namespace to another.
                (Vport::Port(port), up) if up || port.origin == Origin::Docker => {
                    tracing::info!(port = %port.spec.name, "{line}");
                }
                (Vport::Uplink(uplink), true) => tracing::info!(uplink = %uplink.spec.name, "{line}"),
                (Vport::Uplink(uplink), false) => tracing::warn!(uplink = %uplink.spec.name, "{line}"),
                (other, _) => tracing::warn!(port = %other.name(), "{line}"),
            }
            news.push((vport.name().clone(), line));
        }
        news.into_iter().for_each(|(name, line)| self.note_link(name, line));
    }

    /// What a reload says about ports and uplinks that frames cannot pass, one sentence each.
    pub(super) fn state_notes(&self) -> Vec<String> {
        let ports = self.inventory.all::<Port>().filter(|port| port.origin != Origin::Docker && !port.spec.policy.down);
        let ports = ports.map(|port| (format!("port \"{}\"", port.spec.name), port.state()));
        let uplinks = self.inventory.all::<Uplink>();
        let uplinks = uplinks.map(|uplink| (format!("uplink \"{}\"", uplink.spec.name), uplink.presence.state().clone()));
        let mut out = ports.chain(uplinks).filter(|(_, state)| *state != PortState::Up);
        let mut notes: Vec<String> = out.by_ref().take(NAMED).map(|(who, state)| note(&who, &state)).collect();
        let more = out.count();
        notes.extend((more > 0).then(|| format!("and {more} more: see vsctl list-ports")));
        notes
    }
}

fn note(who: &str, state: &PortState) -> String {
    match state {
        PortState::Down => format!("{who} is down: whoever set its device down can set it up again (ip link set DEVICE up)"),
        PortState::NoCarrier => format!("{who} has no carrier: nobody is at the other end"),
        state => format!("{who}: {state}"),
    }
}

/// Whether a port waits for an interface that the switch does not make.
pub(super) fn is_missing(port: &Port) -> bool {
    let state = port.presence.state();
    port.spec.kind == PortKind::Link && !state.has_device() && *state != PortState::NamespaceGone
}

/// Whether the namespace of a port's device is not the one that has its name now.
fn is_namespace_gone(port: &Port) -> bool {
    let was = port.presence.namespace.filter(|_| !port.spec.is_handed_over());
    was.zip(port.spec.netns.as_ref()).is_some_and(|(was, netns)| Identity::now(netns) != Some(was))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Option<NamespaceNumber> = Some(NamespaceNumber(1));

    fn end(index: u32) -> End {
        End { namespace: OWN, index, up: true, carrier: true }
    }

    fn news(index: u32, ifname: &str, gone: bool) -> News {
        News { end: end(index), ifname: ifname.to_owned(), mac: None, port: None, gone }
    }

    /// A switch with these ports, whose devices have the indices 1, 2, ...
    fn inventory(ports: &[&str]) -> Inventory {
        let mut inventory = Inventory::default();
        for (index, rest) in (1..).zip(ports) {
            let spec: PortSpec = toml::from_str(&format!("bridge = \"br0\"\n{rest}")).unwrap();
            let (id, presence) = (PortId(index), Presence::at(end(index)));
            let (origin, mac, features) = (Origin::File, spec.mac, Vec::new());
            inventory.put(Port { id, spec, origin, mac, features, presence, reopened: false, tripped: false, seed: 0 });
        }
        inventory
    }

    #[test]
    fn only_the_port_whose_device_is_gone_has_lost_it() {
        let mut inventory = inventory(&["name = \"a\"", "name = \"b\""]);
        let mut hear = |news: News| inventory.hear(&news, OWN, &mut Due::default());
        assert!(hear(news(2, "b", false)).is_empty());
        assert!(hear(news(3, "b", true)).is_empty(), "another device of this name");
        assert_eq!(hear(news(2, "b", true)), ["b".parse().unwrap()]);
    }

    #[test]
    fn an_interface_that_the_switch_did_not_make_is_missed_until_it_is_taken_again() {
        let mut inventory =
            inventory(&["name = \"lan\"\nkind = \"link\"\ndevice = \"eth1\"", "name = \"tap\"\nifname = \"eth2\""]);
        assert_eq!(inventory.missing().count(), 0);
        for port in inventory.all_mut::<Port>() {
            port.presence.lose(PortState::DeviceGone);
        }
        assert_eq!(inventory.missing().collect::<Vec<_>>(), ["eth1"], "what it made itself comes back by a reload");
        assert!(inventory.misses("eth1") && !inventory.misses("eth2"));
        // Where its namespace is gone, nothing comes back.
        inventory.all_mut::<Port>().for_each(|port| port.presence.lose(PortState::NamespaceGone));
        assert_eq!(inventory.missing().count(), 0);
    }

    #[test]
    fn a_device_that_a_runtime_takes_has_moved_and_is_not_lost() {
        let mut inventory = inventory(&["name = \"ep\"", "name = \"a\""]);
        let port = inventory.find_mut::<Port>(&"ep".parse().unwrap()).unwrap();
        port.spec.netns = Some(Netns::Sandbox("/run/docker/netns/1".into()));
        let mut hear = |news: News| {
            let mut due = Due::default();
            (inventory.hear(&news, OWN, &mut due).len(), due.moved)
        };
        assert_eq!(hear(news(1, "ep", false)), (0, false));
        assert_eq!(hear(news(1, "ep", true)), (0, true));
        assert_eq!(hear(news(2, "a", true)), (1, false));
    }
}
