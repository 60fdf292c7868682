//! Captures: each has a thread that turns what the workers offer into chunks for its reader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::mpsc;

use super::vxlan::TunnelPort;
use super::{ControlError, Switch};
use api::{CaptureRequest, PortName, PortSpec, Reply, UplinkSpec, VxlanSpec};
use plane::capture::{self, CapturedPort, Limits, Program, Stream};
use plane::datapath::PortId;
use plane::worker::{CaptureId, Command, Handle};

/// Most captures at a time.
const MOST: usize = 16;
/// Chunks that wait for the reader, each up to 256 KiB; then the capture waits, and the workers count what they miss.
const CHUNKS: usize = 4;
/// How often a quiet capture looks whether its reader is still there.
const PULSE: Duration = Duration::from_millis(200);

/// The captures that run.
#[derive(Default)]
pub(super) struct Captures {
    running: BTreeMap<CaptureId, Running>,
    next: u64,
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
    pub(super) fn add_interface(&self, id: PortId, spec: &PortSpec) {
        for capture in self.running.values().filter(|capture| capture.ports.is_none()) {
            capture.control.add_interface(interface(id, spec));
        }
    }

    /// Announces an uplink that was added.
    pub(super) fn add_uplink(&self, id: PortId, spec: &UplinkSpec) {
        for capture in self.running.values().filter(|capture| capture.ports.is_none()) {
            capture.control.add_interface(uplink_interface(id, spec));
        }
    }

    /// Announces a tunnel that was added.
    pub(super) fn add_tunnel(&self, id: PortId, spec: &VxlanSpec) {
        for capture in self.running.values().filter(|capture| capture.ports.is_none()) {
            capture.control.add_interface(tunnel_interface(id, spec));
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
        let program = Program::new(&request.filter)?;
        let mut names = request.ports.clone();
        for container in &request.containers {
            names.extend(self.ports_of_container(container)?);
        }
        let interfaces = self.interfaces(&names)?;
        let ports = (!names.is_empty()).then(|| interfaces.iter().map(|shown| PortId(shown.port)).collect::<Vec<_>>());
        let limits = Limits { count: request.count, seconds: request.seconds };
        let (tap, control, stream) = capture::open(program, interfaces, limits);
        let id = CaptureId(self.plane.captures.next);
        self.plane.captures.next += 1;
        let over = Arc::new(AtomicBool::new(false));
        self.plane.captures.running.insert(id, Running { control, ports: ports.clone(), over: Arc::clone(&over) });
        self.plane.tell_all(|| Command::StartCapture(id, ports.clone(), tap.clone()))?;
        drop(tap);
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let workers = self.plane.workers.clone();
        std::thread::Builder::new().name(format!("capture-{}", id.0)).spawn(move || {
            pump(stream, &sender);
            workers.iter().for_each(|worker| worker.hint(Command::StopCapture(id)));
            over.store(true, Ordering::Relaxed);
        })?;
        Ok((id.0, receiver))
    }

    /// The ports, tunnels and uplinks with these names; all, if there are none.
    fn interfaces(&self, names: &[PortName]) -> Result<Vec<CapturedPort>, ControlError> {
        let tunnel = |tunnel: &TunnelPort| Some(tunnel_interface(tunnel.live()?.id, &tunnel.spec));
        let ports = self.inventory.ports.values().map(|port| interface(port.id, &port.spec));
        let uplinks = self.inventory.uplinks.values().map(|uplink| uplink_interface(uplink.port, &uplink.spec));
        let all = ports.chain(self.inventory.tunnels.values().filter_map(tunnel)).chain(uplinks);
        let wanted = names.iter().map(|name| self.port_id(name)).collect::<Result<Vec<PortId>, _>>()?;
        Ok(all.filter(|interface| wanted.is_empty() || wanted.contains(&PortId(interface.port))).collect())
    }

    pub(super) fn stop_capture(&self, number: u64) -> Result<Reply, ControlError> {
        let capture = self.plane.captures.running.get(&CaptureId(number)).ok_or(ControlError::NoCapture(number))?;
        capture.control.stop();
        Ok(Reply::Done(Vec::new()))
    }
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

fn interface(id: PortId, spec: &PortSpec) -> CapturedPort {
    let place = spec.netns.as_ref().map_or_else(|| "on the host".to_owned(), |netns| format!("in netns {netns}"));
    CapturedPort { port: id.0, name: spec.name.to_string(), description: format!("{} {} {place}", spec.kind, spec.ifname) }
}

fn uplink_interface(id: PortId, spec: &UplinkSpec) -> CapturedPort {
    let place = spec.device().map_or_else(|| "by the host's sockets".to_owned(), |device| format!("on {device}"));
    CapturedPort { port: id.0, name: spec.name.to_string(), description: format!("uplink {place}") }
}

fn tunnel_interface(id: PortId, spec: &VxlanSpec) -> CapturedPort {
    let description = format!("vxlan {} from {} port {}, inner frames", spec.vni, spec.local, spec.port);
    CapturedPort { port: id.0, name: spec.name.to_string(), description }
}
