//! `vsctl trace`: what would become of a frame. The worker that routes takes it through the code of the traffic, in which nothing changes then; here
//! the frame is made of words, and what the worker saw is told by name.

mod advice;
mod scene;
mod tell;

use api::{FdbFilter, FrameInfo, PortName, Reply, TraceExit, TraceInfo, TraceRequest};
use packet::Offload;
use plane::datapath::{BridgeId, Fate, Place, PortId};
use plane::worker::{Command, Exit, Foretold};

use super::inventory::{Vport, VportKind};
use super::vxlan::TunnelPort;
use super::{ControlError, Switch, Uplink};
use crate::frame;
use scene::Scene;
use tell::Naming;

impl Switch {
    /// What would become of a frame.
    pub(super) fn trace(&self, request: &TraceRequest) -> Result<Reply, ControlError> {
        let id = self.inventory.port_id(&request.port)?;
        let bytes = self.scene(&request.port)?.frame(request).map_err(|error| ControlError::Trace(error.to_string()))?;
        let offload = frame::offload(&bytes, request.super_frame).ok_or_else(|| {
            ControlError::Trace(
                "the frame is no such super-frame: its transport is another, or its segments are too many".to_owned(),
            )
        })?;
        let place = Place { port: id, peer: self.some_peer(&request.port) };
        let frame = bytes.clone();
        let foretold = self.plane.router()?.ask(|reply| Command::Foretell(place, frame, offload, reply))?;
        let foretold = foretold.ok_or_else(|| ControlError::NoPort(request.port.clone(), Vec::new()))?;
        Ok(Reply::Trace(Box::new(self.tell(&request.port, (&bytes, offload), &foretold))))
    }

    fn scene(&self, port: &PortName) -> Result<Scene, ControlError> {
        let is_uplink = self.inventory.has::<Uplink>(port);
        let filter = FdbFilter { bridge: None, port: Some(port.clone()), mac: None };
        Ok(Scene {
            ports: self.port_infos(None)?,
            bridges: self.bridge_infos(None)?,
            uplinks: self.uplink_infos()?,
            tunnels: self.vxlan_infos(None)?,
            neighbors: self.neighbors(None)?,
            fdb: if is_uplink { Vec::new() } else { self.fdb(&filter)? },
        })
    }

    /// A host at the other end of a tunnel; 0 of any other port.
    fn some_peer(&self, port: &PortName) -> u16 {
        (1..=u16::MAX).take(MOST_PEERS).find(|peer| self.inventory.remote(port, *peer).is_some()).unwrap_or(0)
    }

    fn tell(&self, port: &PortName, (bytes, offload): (&[u8], Offload), foretold: &Foretold) -> TraceInfo {
        let before = frame::read_with(bytes, offload);
        let steps = foretold.steps.iter().filter_map(|(frame, step)| tell::step(*frame, step, self)).collect();
        let exits: Vec<TraceExit> = foretold.exits.iter().map(|exit| self.exit(port, &before, exit)).collect();
        let (verdict, mut conclusion) = tell::verdict(foretold.fate, self);
        let home = self.home(port);
        let lost = foretold.exits.iter().find(|exit| exit.frame == 0 && exit.lost.is_some());
        let mut advice =
            foretold.fate.drop_reason().map(|reason| advice::on(reason, advice::Scope { port: port.as_str(), bridge: &home }));
        if let Some((exit, reason)) = lost.and_then(|exit| Some((exit, exit.lost?))) {
            let out = Naming::port(self, exit.port);
            conclusion.push_str(&format!(" It does not leave by {out}: {}.", reason.name()));
            advice = Some(advice::on(reason, advice::Scope { port: &out, bridge: &home }));
        }
        if foretold.fate == Fate::Waiting(plane::datapath::Wait::Neighbor) {
            advice = Some("If no answer comes it is dropped as neighbor-unresolved: see vsctl neighbors.".to_owned());
        }
        let drop_reason = foretold.fate.drop_reason().map(|reason| reason.json_name());
        TraceInfo { port: port.clone(), frame: before, steps, verdict, drop_reason, exits, conclusion, advice }
    }

    /// What leaves: a frame, or the frames that it is cut into.
    fn exit(&self, port: &PortName, before: &FrameInfo, exit: &Exit) -> TraceExit {
        let after = frame::read_with(&exit.bytes, exit.offload);
        let tunnel = self.inventory.by_id(exit.port).and_then(TunnelPort::of);
        TraceExit {
            remote: tunnel.and_then(|tunnel| self.inventory.remote(&tunnel.spec.name, exit.peer)),
            host: tunnel.and_then(|tunnel| self.host_behind(&tunnel.spec.name, exit.peer)),
            vni: tunnel.map(|tunnel| tunnel.spec.vni.number()),
            encrypted: tunnel.is_some_and(|tunnel| tunnel.spec.wireguard.is_some()),
            own: exit.frame > 0,
            changes: if exit.frame > 0 { Vec::new() } else { frame::changes(before, &after) },
            frame: after,
            frames: exit.frames,
            drop_reason: exit.lost.map(|reason| reason.json_name()),
            port: self.inventory.name_of(exit.port).cloned().unwrap_or_else(|| port.clone()),
        }
    }

    /// The bridge of a port, or the uplink itself.
    fn home(&self, port: &PortName) -> String {
        let bridge = self.inventory.vport(port).and_then(Vport::bridge);
        bridge.map_or_else(|| port.to_string(), ToString::to_string)
    }
}

/// More than a tunnel has.
const MOST_PEERS: usize = 4096;

impl Naming for Switch {
    fn port(&self, id: PortId) -> String {
        self.inventory.name_of(id).map_or_else(|| format!("port {}", id.0), ToString::to_string)
    }

    fn bridge(&self, id: BridgeId) -> String {
        let uplink = self.inventory.all::<Uplink>().find(|uplink| uplink.bridge == id);
        let bridge = self.inventory.bridges.values().find(|bridge| bridge.id == id);
        let bridge = bridge.map(|bridge| format!("bridge {}", bridge.spec.name));
        let routed =
            || self.inventory.all::<TunnelPort>().find(|tunnel| tunnel.live().is_some_and(|live| live.beyond == Some(id)));
        bridge
            .or_else(|| routed().map(|tunnel| format!("tunnel {}", tunnel.spec.name)))
            .or_else(|| uplink.map(|uplink| format!("uplink {}", uplink.spec.name)))
            .unwrap_or_else(|| format!("bridge {}", id.0))
    }

    fn peer(&self, id: PortId, peer: u16) -> String {
        let name = self.inventory.name_of(id).filter(|name| self.inventory.has::<TunnelPort>(name));
        match name.map(|name| self.inventory.remote(name, peer)) {
            Some(Some(remote)) => match name.and_then(|name| self.host_behind(name, peer)) {
                Some(host) => format!(" to host {host} at {remote}"),
                None => format!(" to host {remote}"),
            },
            Some(None) => " to all its hosts".to_owned(),
            None => String::new(),
        }
    }
}
