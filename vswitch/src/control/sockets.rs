//! The sockets of tunnels.
//!
//! What a tunnel hears comes in at an [`Ear`], which tunnels with the same address and UDP port share; an ear opens with its first
//! tunnel and closes with its last. What it sends leaves from sockets that tunnels which send in the same way share as well.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::net::SocketType;
use vxlan::Vni;

use super::vxlan::Live;
use super::{ControlError, Switch};
use crate::attach::underlay::{self, Listening, SourcePlan, Underlay};
use crate::attach::{self, AttachError};
use crate::broker::Descriptor;
use api::{Origin, VxlanSpec};
use plane::datapath::PortId;
use plane::device::{Change, Device, Receiver, Sender, Sources, UnderlayCounters, Wireguard};
use plane::worker::Command;

/// Where datagrams arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ear {
    Host(SocketAddr),
    /// Where nothing is heard but WireGuard: so frames of encrypted networks come in by no other, and none of those in the clear by this.
    Sealed(SocketAddr),
    /// A group, on the interface with this index.
    Group(SocketAddr, u32),
}

/// An open ear.
pub(super) struct Open {
    id: PortId,
    /// To the receiver on each worker that has one.
    changes: Vec<crossbeam_channel::Sender<Change>>,
    pub(super) counters: Arc<UnderlayCounters>,
    /// The sockets of the receivers, for their options.
    sockets: Vec<OwnedFd>,
    pub(super) runs: bool,
    vnis: BTreeSet<Vni>,
}

/// The sockets of all tunnels.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) ears: BTreeMap<Ear, Open>,
    /// Tunnels that send in the same way share sockets, which are gone with the last of them.
    sources: BTreeMap<SourcePlan, Weak<Sources>>,
    /// What the tunnels of encrypted networks share, gone with the last of them.
    wireguard: BTreeMap<SocketAddr, Weak<Wireguard>>,
}

impl Sockets {
    /// What the tunnels of encrypted networks have: one for each address and port, which are several while some have gone to another already.
    pub(super) fn wireguards(&self) -> impl Iterator<Item = Arc<Wireguard>> {
        self.wireguard.values().filter_map(Weak::upgrade)
    }

    /// The sockets that hear hosts, once more. Those that hear groups are not among them: each process may have its own.
    pub(super) fn all(&self) -> std::io::Result<Vec<OwnedFd>> {
        let hosts = self.ears.iter().filter(|(ear, _)| matches!(ear, Ear::Host(_) | Ear::Sealed(_)));
        hosts.flat_map(|(_, open)| open.sockets.iter().map(OwnedFd::try_clone)).collect()
    }
}

impl Switch {
    pub(super) fn connect(&mut self, spec: &VxlanSpec, origin: Origin, live: &Live) -> Result<(), ControlError> {
        let settings = self.prepare_tunnel((&live.shared, live.beyond), spec, origin)?;
        for worker in &self.plane.workers {
            let sender: Box<dyn Device> =
                Box::new(Sender::new(Arc::clone(&live.shared), Arc::clone(&live.sources), live.wireguard.clone()));
            let attached = worker.ask(|reply| Command::Attach(live.id, settings.clone(), sender, reply))?;
            attached.map_err(|error| ControlError::Poll(spec.name.clone(), error))?;
        }
        for ear in &live.ears {
            self.listen(*ear, (spec, live))?;
            let Some(open) = self.plane.sockets.ears.get_mut(ear) else { continue };
            open.vnis.insert(spec.vni);
            for changes in &open.changes {
                // A receiver that is gone went with its worker.
                let _ = changes.send(Change::Add(live.id, Arc::clone(&live.shared)));
            }
        }
        self.plane.captures.add_tunnel(live.id, spec);
        self.set_beyond(live.beyond, spec, live.shared.mtu())
    }

    pub(super) fn disconnect(&mut self, spec: &VxlanSpec, live: &Live) {
        for ear in &live.ears {
            let Some(open) = self.plane.sockets.ears.get_mut(ear) else { continue };
            open.vnis.remove(&spec.vni);
            open.changes.iter().for_each(|changes| drop(changes.send(Change::Remove(spec.vni))));
            if open.vnis.is_empty()
                && let Some(open) = self.plane.sockets.ears.remove(ear)
            {
                self.detach(open.id);
            }
        }
        self.detach(live.id);
    }

    fn detach(&mut self, id: PortId) {
        for worker in &self.plane.workers {
            let _ = worker.ask(|reply| Command::Detach(id, reply));
        }
        self.plane.captures.remove_interface(id);
        self.inventory.port_ids.remove(id.0);
    }

    /// Opens an ear, unless it is open, and puts a receiver of it on the workers.
    fn listen(&mut self, ear: Ear, (spec, live): (&VxlanSpec, &Live)) -> Result<(), ControlError> {
        let failed = |error: AttachError| ControlError::Attach(spec.name.clone(), error);
        if !self.plane.sockets.ears.contains_key(&ear) {
            let listening = match ear {
                Ear::Host(address) | Ear::Sealed(address) => {
                    let left: Vec<_> =
                        self.handover.inherited.take(SocketType::DGRAM, address).into_iter().map(Descriptor).collect();
                    attach::listen(&address, &self.plane.workers.len(), &left).map_err(failed)?
                }
                Ear::Group(group, interface) => vec![attach::listen_to_group(&group, &interface).map_err(failed)?],
            };
            let id = PortId(self.inventory.port_ids.vacancy());
            // No port has this number, whatever its name.
            self.inventory.port_ids.insert(id.0, spec.name.clone());
            let opened = self.start_receivers(id, listening, (spec, live));
            let open = opened.inspect_err(|_| self.detach(id))?;
            self.plane.sockets.ears.insert(ear, open);
        }
        if let Some(open) = self.plane.sockets.ears.get(&ear).filter(|_| !spec.udp_checksum && spec.local.is_ipv6()) {
            open.sockets.iter().for_each(|socket| underlay::accept_zero_checksum(socket.as_fd()));
        }
        Ok(())
    }

    fn start_receivers(
        &self,
        id: PortId,
        listening: Vec<Listening>,
        (spec, live): (&VxlanSpec, &Live),
    ) -> Result<Open, ControlError> {
        let counters = Arc::new(UnderlayCounters::default());
        let runs = listening.iter().all(|listening| listening.runs);
        let (mut changes, mut sockets) = (Vec::new(), Vec::new());
        for (worker, listening) in self.plane.workers.iter().zip(listening) {
            let poll = |error| ControlError::Poll(spec.name.clone(), error);
            let socket = listening.socket.0;
            sockets.push(socket.try_clone().map_err(poll)?);
            let (sender, receiver) = crossbeam_channel::unbounded();
            let (counters, wireguard) = (Arc::clone(&counters), live.wireguard.clone());
            let device: Box<dyn Device> = Box::new(Receiver::new(socket, receiver, counters, wireguard));
            worker.ask(|reply| Command::Listen(id, device, reply))?.map_err(poll)?;
            changes.push(sender);
        }
        Ok(Open { id, changes, counters, sockets, runs, vnis: BTreeSet::new() })
    }

    /// What the tunnels of encrypted networks share; `None`: this is none of them.
    pub(super) fn wireguard(
        &mut self,
        spec: &VxlanSpec,
        sources: &Arc<Sources>,
    ) -> Result<Option<Arc<Wireguard>>, ControlError> {
        let Some(port) = spec.wireguard else { return Ok(None) };
        let local = SocketAddr::new(spec.local, port);
        let all = &mut self.plane.sockets.wireguard;
        all.retain(|_, shared| shared.strong_count() > 0);
        if let Some(shared) = all.get(&local).and_then(Weak::upgrade) {
            return Ok(Some(shared));
        }
        let key = self.overlay.key().map_err(|why| ControlError::NoKey(spec.name.clone(), why))?;
        let wireguard = Arc::new(Wireguard::new(key.clone(), local, Arc::clone(sources)));
        self.plane.sockets.wireguard.insert(local, Arc::downgrade(&wireguard));
        Ok(Some(wireguard))
    }

    pub(super) fn sources(&mut self, spec: &VxlanSpec, underlay: &Underlay) -> Result<Arc<Sources>, AttachError> {
        let plan = SourcePlan::of(spec, underlay);
        if let Some(sources) = self.plane.sockets.sources.get(&plan).and_then(Weak::upgrade) {
            return Ok(sources);
        }
        let sources = Arc::new(attach::open_sources(&spec.name, &plan)?.of(&plan));
        self.plane.sockets.sources.retain(|_, sources| sources.strong_count() > 0);
        self.plane.sockets.sources.insert(plan, Arc::downgrade(&sources));
        Ok(sources)
    }
}
