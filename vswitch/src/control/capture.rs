//! Captures: each has a thread that turns what the workers offer into chunks for its reader.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::mpsc;

use super::holders::Holders;
use super::inventory::Vport;
use super::{ControlError, Port, Switch};
use crate::confine::Role;
use api::{CaptureRequest, PortName, PortSpec, Reply, UplinkSpec, VxlanSpec};
use plane::capture::{self, CapturedPort, Limits, Program, Selection, SlotHolder, Stream};
use plane::datapath::PortId;
use plane::worker::{CaptureId, Command, Handle};

/// Most captures at a time.
const MOST: usize = 16;
/// Chunks that wait for the reader, each up to 256 KiB; then the capture waits, and the workers count what they miss.
const CHUNKS: usize = 4;
/// Most names of addresses that a capture is given.
const MOST_NAMES: usize = 4096;
/// How often a quiet capture looks whether its reader is still there.
const PULSE: Duration = Duration::from_millis(200);

/// The captures that run.
#[derive(Default)]
pub(super) struct Captures {
    running: BTreeMap<CaptureId, Running>,
    next: u64,
    /// Whose the frames are that the recorder has.
    pub(super) holders: Holders,
    /// When the recorder wrote itself down last.
    pub(super) recorded: Option<Instant>,
}

struct Running {
    control: capture::Control,
    /// Ports that are captured; `None`: all, also those to come.
    ports: Option<Vec<PortId>>,
    over: Arc<AtomicBool>,
}

impl Captures {
    pub(super) fn count(&self) -> usize {
        self.running.values().filter(|capture| !capture.over.load(Ordering::Relaxed)).count()
    }

    /// Announces a port that was added.
    pub(super) fn add_interface(&mut self, id: PortId, spec: &PortSpec) {
        self.announce(interface(id, spec));
    }

    /// Announces an uplink that was added.
    pub(super) fn add_uplink(&mut self, id: PortId, spec: &UplinkSpec) {
        self.announce(uplink_interface(id, spec));
    }

    /// Announces a tunnel that was added.
    pub(super) fn add_tunnel(&mut self, id: PortId, spec: &VxlanSpec) {
        self.announce(tunnel_interface(id, spec));
    }

    fn announce(&mut self, port: CapturedPort) {
        for capture in self.running.values() {
            match capture.ports {
                None => capture.control.add_interface(port.clone()),
                Some(_) => capture.control.name_port(port.clone()),
            }
        }
        self.holders.came(port);
    }

    /// Ends what captured only this port, which was removed.
    pub(super) fn remove_interface(&mut self, id: PortId) {
        self.holders.went(id);
        for capture in self.running.values_mut() {
            let Some(ports) = &mut capture.ports else { continue };
            let before = ports.len();
            ports.retain(|port| *port != id);
            if ports.is_empty() && before > 0 {
                capture.control.stop();
            }
        }
    }

    /// Ends all; what was taken still goes to the clients that read it.
    pub(super) fn stop_all(&self, workers: &[Handle]) {
        for (id, capture) in &self.running {
            capture.control.stop();
            workers.iter().for_each(|worker| worker.hint(Command::StopCapture(*id)));
        }
    }
}

impl Switch {
    /// Begins a capture and returns its number; its pcapng file comes out of the receiver. Dropping that ends the capture.
    ///
    /// # Errors
    /// No such port, not a filter, or too many captures.
    pub fn capture(&mut self, request: &CaptureRequest) -> Result<(u64, mpsc::Receiver<Bytes>), ControlError> {
        self.plane.captures.running.retain(|_, capture| !capture.over.load(Ordering::Relaxed));
        if self.plane.captures.running.len() >= MOST {
            return Err(ControlError::Captures(MOST));
        }
        let selection = selection(Program::of(&request.filter)?, request);
        if request.last_milliseconds.is_some() {
            return Ok((u64::MAX, self.recall(request, selection)?));
        }
        let names = self.named_ports(request)?;
        let interfaces = self.interfaces(&names)?;
        let ports = (!names.is_empty()).then(|| interfaces.iter().map(|shown| PortId(shown.port)).collect::<Vec<_>>());
        let limits = Limits { count: request.count, seconds: request.seconds };
        let (tap, control, stream) = capture::open(selection, interfaces, limits);
        if ports.is_some() {
            self.interfaces(&[])?.into_iter().for_each(|port| control.name_port(port));
        }
        control.name_hosts(self.host_names()?);
        let id = CaptureId(self.plane.captures.next);
        self.plane.captures.next += 1;
        let over = Arc::new(AtomicBool::new(false));
        self.plane.captures.running.insert(id, Running { control, ports: ports.clone(), over: Arc::clone(&over) });
        self.plane.tell_all(|| Command::StartCapture(id, ports.clone(), tap.clone()))?;
        drop(tap);
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let (workers, sandbox) = (self.plane.workers.clone(), self.plane.sandbox.clone());
        std::thread::Builder::new().name(format!("capture-{}", id.0)).spawn(move || {
            sandbox.enter(Role::Capture);
            pump(stream, &sender);
            workers.iter().for_each(|worker| worker.hint(Command::StopCapture(id)));
            over.store(true, Ordering::Relaxed);
        })?;
        Ok((id.0, receiver))
    }

    /// The ports that a request names, itself or by their container; none: all.
    fn named_ports(&self, request: &CaptureRequest) -> Result<Vec<PortName>, ControlError> {
        let mut names = request.ports.clone();
        for container in &request.containers {
            names.extend(self.ports_of_container(container)?);
        }
        Ok(names)
    }

    /// The ports that a request names, also of those that were removed; `None`: all.
    pub(super) fn wanted_holders(&self, request: &CaptureRequest) -> Result<Option<Vec<SlotHolder>>, ControlError> {
        let names = self.named_ports(request)?;
        let mut wanted = Vec::new();
        for name in &names {
            let before = wanted.len();
            wanted.extend(self.plane.captures.holders.named(name).cloned());
            if wanted.len() == before {
                self.inventory.port_id(name)?;
            }
        }
        Ok((!names.is_empty()).then_some(wanted))
    }

    /// The ports, tunnels and uplinks with these names; all, if there are none.
    pub(super) fn interfaces(&self, names: &[PortName]) -> Result<Vec<CapturedPort>, ControlError> {
        let all = self.inventory.vports().filter_map(captured);
        let wanted = names.iter().map(|name| self.inventory.port_id(name)).collect::<Result<Vec<PortId>, _>>()?;
        Ok(all.filter(|interface| wanted.is_empty() || wanted.contains(&PortId(interface.port))).collect())
    }

    /// What stations and gateways are called, by their addresses.
    pub(super) fn host_names(&self) -> Result<Vec<(IpAddr, String)>, ControlError> {
        let places = self.docker_places();
        let called = |port: &PortName| {
            let container = places.get(port).and_then(|place| place.container.clone());
            container.unwrap_or_else(|| port.to_string())
        };
        let bridges = self.inventory.bridges.values();
        let gateways =
            bridges.flat_map(|bridge| bridge.spec.addresses.iter().map(|net| (net.addr(), bridge.spec.name.to_string())));
        let ports = self.inventory.all::<Port>();
        let stations = ports.flat_map(|port| port.spec.addresses.iter().map(|net| (net.addr(), called(&port.spec.name))));
        let leases = self.leases(None)?.into_iter().map(|lease| (lease.address, called(&lease.name)));
        let names: BTreeMap<IpAddr, String> = gateways.chain(stations).chain(leases).collect();
        Ok(names.into_iter().take(MOST_NAMES).collect())
    }

    pub(super) fn stop_capture(&self, number: u64) -> Result<Reply, ControlError> {
        let capture = self.plane.captures.running.get(&CaptureId(number)).ok_or(ControlError::NoCapture(number))?;
        capture.control.stop();
        Ok(Reply::Done(Vec::new()))
    }
}

/// Which frames a capture takes.
fn selection(program: Program, request: &CaptureRequest) -> Selection {
    let all = Selection::from(program);
    let snaplen = request.snaplen.map_or(all.snaplen, |length| length.clamp(1, all.snaplen));
    Selection { points: request.at.clone(), direction: request.direction, snaplen, ..all }
}

/// Passes chunks on until the file or its reader ends.
fn pump(mut stream: Stream, reader: &mpsc::Sender<Bytes>) {
    while let Some(chunk) = stream.next_chunk(PULSE) {
        let gone = if chunk.is_empty() { reader.is_closed() } else { reader.blocking_send(chunk.into()).is_err() };
        if gone {
            return;
        }
    }
}

/// A port, tunnel or uplink as captures call it, if it has a number.
fn captured(vport: &Vport) -> Option<CapturedPort> {
    let id = vport.id()?;
    Some(match vport {
        Vport::Port(port) => interface(id, &port.spec),
        Vport::Tunnel(tunnel) => tunnel_interface(id, &tunnel.spec),
        Vport::Uplink(uplink) => uplink_interface(id, &uplink.spec),
    })
}

fn interface(id: PortId, spec: &PortSpec) -> CapturedPort {
    let place = spec.netns.as_ref().map_or_else(|| "on the host".to_owned(), |netns| format!("in netns {netns}"));
    CapturedPort {
        port: id.0,
        name: spec.name.to_string(),
        description: format!("{} {} {place}", spec.kind, spec.ifname),
        ..CapturedPort::default()
    }
}

fn uplink_interface(id: PortId, spec: &UplinkSpec) -> CapturedPort {
    let place = spec.device().map_or_else(|| "by the host's sockets".to_owned(), |device| format!("on {device}"));
    let description = format!("uplink {place}");
    CapturedPort { port: id.0, name: spec.name.to_string(), description, ..CapturedPort::default() }
}

fn tunnel_interface(id: PortId, spec: &VxlanSpec) -> CapturedPort {
    let sealed = spec.wireguard.map_or_else(String::new, |port| format!(" inside WireGuard on port {port}"));
    let description = format!("vxlan {} from {} port {}{sealed}, inner frames", spec.vni, spec.local, spec.port);
    let (vni, vxlan_port) = (Some(spec.vni.number()), Some(spec.port));
    CapturedPort { port: id.0, name: spec.name.to_string(), description, vni, vxlan_port }
}
