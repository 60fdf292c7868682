//! Workers as threads, on memory devices.

mod fates;
mod flows;
mod foretold;
mod handed_over;
mod impaired;
mod limits;
mod rates;
mod still;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use packet::{Capabilities, Mac, Offload, VlanId};

use super::*;
use crate::capture::{self, CapturedPort, Limits, Program, Selection};
use crate::datapath::{BridgeId, BridgeSettings, DropReason, Limiter, PortLimits, PortSettings};
use crate::device::{FarEnd, Memory};
use api::{CapturePoint, ControlFrames, VlanMode};

/// A running data plane of memory devices.
struct Plane {
    workers: Vec<Handle>,
    threads: Vec<std::thread::JoinHandle<()>>,
    events: mpsc::Receiver<Event>,
    /// Of each port, one far end per worker.
    far: Vec<Vec<FarEnd>>,
}

impl Plane {
    fn new(workers: usize, ports: u32) -> Self {
        let (sender, events) = mpsc::channel();
        let made: Vec<_> = (0..workers)
            .map(|_| {
                let sender = sender.clone();
                Worker::new(1, Box::new(move |event| sender.send(event).unwrap_or_default())).unwrap()
            })
            .collect();
        let handles: Vec<Handle> = made.iter().map(|(_, handle)| handle.clone()).collect();
        let mut threads = Vec::new();
        for (number, (mut worker, _)) in made.into_iter().enumerate() {
            let others = handles.iter().enumerate().filter(|(other, _)| *other != number);
            worker.set_peers(others.map(|(_, handle)| handle.clone()).collect());
            if number > 0 {
                worker.set_router(handles[0].clone());
            }
            threads.push(std::thread::spawn(move || worker.run()));
        }
        let mut plane = Self { workers: handles, threads, events, far: Vec::new() };
        let settings = BridgeSettings {
            mtu: 1500,
            ageing: 300,
            max_macs: 100,
            control_frames: ControlFrames::Drop,
            ..BridgeSettings::default()
        };
        plane.tell(|| Command::SetBridge(BridgeId(0), settings.clone()));
        for port in 0..ports {
            let far = plane.attach(port);
            plane.far.push(far);
        }
        plane
    }

    /// Tells every worker, and returns when they have obeyed: what a test pushes next finds it done. A worker that polls its
    /// devices would otherwise see the frame first.
    fn tell(&self, command: impl Fn() -> Command) {
        self.workers.iter().for_each(|worker| worker.tell(command()).unwrap());
        self.settle(&[]);
    }

    fn attach(&self, port: u32) -> Vec<FarEnd> {
        let settings = PortSettings::on(BridgeId(0));
        let attach = |worker: &Handle| {
            let (near, far) = Memory::new(Capabilities::ALL, 1000);
            let reply = worker.ask(|reply| Command::Attach(PortId(port), settings.clone(), Box::new(near), reply));
            reply.unwrap().unwrap();
            far
        };
        self.workers.iter().map(attach).collect()
    }

    /// The next frame that leaves a port, of any worker.
    fn next(&self, port: usize) -> Option<Vec<u8>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some((frame, _)) = self.far[port].iter().find_map(FarEnd::pop) {
                return Some(frame);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// Lets every worker finish what it has received.
    fn settle(&self, ports: &[usize]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let waiting = || ports.iter().any(|port| self.far[*port].iter().any(|far| !far.is_fetched()));
        while waiting() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        for worker in &self.workers {
            worker.ask(|reply| Command::Counters(Vec::new(), reply)).unwrap();
        }
    }

    fn counters(&self, port: u32) -> crate::datapath::Counters {
        let mut sum = crate::datapath::Counters::default();
        for worker in &self.workers {
            let parts = worker.ask(|reply| Command::Counters(vec![PortId(port)], reply)).unwrap();
            parts.iter().for_each(|part| sum.add(part));
        }
        sum
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.workers.iter().for_each(|worker| worker.tell(Command::Stop).unwrap());
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn frame(source: u8, destination: Mac) -> Vec<u8> {
    let mut bytes = [&destination.0[..], &[2, 0, 0, 0, 0, source], &[0x90, 0]].concat();
    bytes.resize(60, source);
    bytes
}

#[test]
fn frames_cross_and_are_counted() {
    let plane = Plane::new(1, 3);
    assert!(plane.far[0][0].push(&frame(1, Mac::BROADCAST), Offload::default()));
    assert_eq!(plane.next(1), Some(frame(1, Mac::BROADCAST)));
    assert_eq!(plane.next(2), Some(frame(1, Mac::BROADCAST)));
    plane.settle(&[0]);
    let (from, to) = (plane.counters(0), plane.counters(1));
    assert_eq!((from.rx_frames, from.rx_bytes, to.tx_frames, to.tx_bytes), (1, 60, 1, 60));
}

#[test]
fn a_port_without_room_drops_and_counts_and_harms_nobody() {
    let plane = Plane::new(1, 3);
    plane.far[2][0].set_up(false);
    for _ in 0..5 {
        plane.far[0][0].push(&frame(1, Mac::BROADCAST), Offload::default());
    }
    assert_eq!((0..5).filter_map(|_| plane.next(1)).count(), 5);
    plane.settle(&[0]);
    assert_eq!(plane.counters(2).drops(DropReason::DeviceDown), 5);
}

#[test]
fn a_port_detached_under_load_harms_nobody() {
    let plane = Plane::new(1, 4);
    let feeder = {
        let far: Vec<FarEnd> = plane.far.iter().map(|far| far[0].clone()).collect();
        std::thread::spawn(move || {
            for round in 0..20_000_u32 {
                for (port, far) in far.iter().enumerate().take(3) {
                    far.push(&frame(u8::try_from(port).unwrap() + 1, Mac::BROADCAST), Offload::default());
                }
                if round % 64 == 0 {
                    far.iter().for_each(|far| drop(far.drain()));
                }
            }
        })
    };
    for _ in 0..50 {
        plane.workers[0].ask(|reply| Command::Detach(PortId(2), reply)).unwrap();
        let _ = plane.attach(2);
    }
    feeder.join().unwrap();
    plane.settle(&[0, 1]);
    plane.far.iter().for_each(|far| drop(far[0].drain()));
    plane.far[0][0].push(&frame(9, Mac::BROADCAST), Offload::default());
    assert_eq!(plane.next(3), Some(frame(9, Mac::BROADCAST)));
}

/// The kernel waits for all its processors with each packet socket that is closed: 130 ms for a port, in which a worker would move no frame.
#[test]
fn the_device_of_a_port_that_goes_is_closed_by_who_asked() {
    let plane = Plane::new(1, 2);
    let worker = &plane.workers[0];
    assert!(worker.ask(|reply| Command::Take(PortId(1), reply)).unwrap().is_some());
    assert!(worker.ask(|reply| Command::Detach(PortId(1), reply)).unwrap().is_none(), "it was taken");
    drop(plane.attach(1));
    assert!(worker.ask(|reply| Command::Detach(PortId(1), reply)).unwrap().is_some());
}

#[test]
fn a_device_that_is_gone_is_reported_once_and_the_port_stays() {
    let plane = Plane::new(1, 2);
    plane.far[1][0].remove();
    assert_eq!(plane.events.recv_timeout(Duration::from_secs(10)), Ok(Event::DeviceGone(PortId(1))));
    plane.far[0][0].push(&frame(1, Mac::BROADCAST), Offload::default());
    plane.settle(&[0]);
    assert_eq!(plane.counters(1).drops(DropReason::DeviceDown), 1);
    assert!(plane.events.try_recv().is_err());
}

#[test]
fn workers_hear_what_others_learn() {
    let plane = Plane::new(2, 3);
    plane.far[0][0].push(&frame(1, Mac::BROADCAST), Offload::default());
    assert!(plane.next(1).is_some() && plane.next(2).is_some());
    let known = |worker: &Handle| worker.ask(|reply| Command::Fdb(BridgeId(0), reply)).unwrap().rows.len();
    let deadline = Instant::now() + Duration::from_secs(10);
    while known(&plane.workers[1]) == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    plane.far[1][1].push(&frame(2, Mac([2, 0, 0, 0, 0, 1])), Offload::default());
    assert!(plane.next(0).is_some());
    plane.settle(&[1]);
    assert_eq!(plane.next_now(2), None, "the second worker knew where to send it");
}

impl Plane {
    fn next_now(&self, port: usize) -> Option<Vec<u8>> {
        self.far[port].iter().find_map(FarEnd::pop).map(|(frame, _)| frame)
    }
}

#[test]
fn a_capture_sees_both_directions_and_the_reason_of_a_drop() {
    let plane = Plane::new(1, 2);
    let interface = |port| CapturedPort { port, name: format!("p{port}"), ..CapturedPort::default() };
    let limits = Limits { count: Some(3), seconds: Some(10) };
    let points = vec![CapturePoint::Ingress, CapturePoint::Egress, CapturePoint::Drop];
    let selection = Selection { points, ..Program::new(&[]).unwrap().into() };
    let (tap, _control, mut stream) = capture::open(selection, vec![interface(0), interface(1)], limits);
    plane.tell(|| Command::StartCapture(CaptureId(1), None, tap.clone()));
    drop(tap);
    plane.far[0][0].push(&frame(1, Mac::BROADCAST), Offload::default());
    plane.far[0][0].push(&[1, 2, 3], Offload::default());
    let mut file = Vec::new();
    while let Some(chunk) = stream.next_chunk(Duration::from_secs(1)) {
        file.extend(chunk);
    }
    let text = String::from_utf8_lossy(&file);
    assert!(text.contains("runt"), "the reason is in the file");
    assert_eq!(file.windows(60).filter(|window| *window == frame(1, Mac::BROADCAST)).count(), 2, "in and out");
    plane.tell(|| Command::StopCapture(CaptureId(1)));
}

/// Times of the frames in a capture, in nanoseconds since the epoch (pcapng, section 4.3).
fn stamps(file: &[u8]) -> Vec<u64> {
    const ENHANCED_PACKET: u32 = 6;
    let number = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap());
    let (mut at, mut stamps) = (0, Vec::new());
    while at < file.len() {
        if number(at) == ENHANCED_PACKET {
            stamps.push(u64::from(number(at + 12)) << 32 | u64::from(number(at + 16)));
        }
        at += number(at + 4) as usize;
    }
    stamps
}

#[test]
fn a_capture_stamps_each_frame_as_it_is_read() {
    const FRAMES: usize = 640;
    let plane = Plane::new(1, 1);
    let interface = CapturedPort { port: 5, name: "p5".to_owned(), ..CapturedPort::default() };
    let limits = Limits { count: Some(FRAMES as u64), seconds: Some(10) };
    let (tap, _control, mut stream) = capture::open(Program::new(&[]).unwrap(), vec![interface], limits);
    plane.tell(|| Command::StartCapture(CaptureId(1), Some([PortId(5)].into()), tap.clone()));
    drop(tap);
    // Full batches wait for the worker. To a port of its own, a frame goes nowhere.
    let (near, far) = Memory::new(Capabilities::ALL, FRAMES);
    (0..FRAMES).for_each(|_| assert!(far.push(&frame(1, Mac([2, 0, 0, 0, 0, 1])), Offload::default())));
    let settings = PortSettings::on(BridgeId(0));
    plane.workers[0].ask(|reply| Command::Attach(PortId(5), settings, Box::new(near), reply)).unwrap().unwrap();
    let mut file = Vec::new();
    while let Some(chunk) = stream.next_chunk(Duration::from_secs(1)) {
        file.extend(chunk);
    }
    let mut stamps = stamps(&file);
    assert_eq!(stamps.len(), FRAMES);
    assert!(stamps.is_sorted());
    stamps.dedup();
    // Two reads may fall into one tick of the clock; a batch has 64.
    assert!(stamps.len() > FRAMES / 4, "{} times of {FRAMES} frames", stamps.len());
}

#[test]
fn vlans_and_flushes_reach_every_worker() {
    let plane = Plane::new(2, 2);
    let access =
        |number| PortSettings { vlans: VlanMode::Access(VlanId::try_from(number).unwrap()), ..PortSettings::on(BridgeId(0)) };
    plane.tell(|| Command::SetPort(PortId(0), access(10)));
    plane.far[0][1].push(&frame(1, Mac::BROADCAST), Offload::default());
    assert_eq!(plane.next(1).map(|bytes| bytes[12..16].to_vec()), Some(vec![0x81, 0, 0, 10]));
    plane.tell(|| Command::FlushFdb(BridgeId(0), None, None));
    let rows = plane.workers[1].ask(|reply| Command::Fdb(BridgeId(0), reply)).unwrap().rows;
    assert_eq!(rows, []);
}
