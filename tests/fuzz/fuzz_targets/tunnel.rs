//! Any datagrams, one by one or as rows that the kernel hands over in one read, of any class, to a tunnel's receiver: what comes out are frames
//! of the tunnel, what does not is counted, and each control message is for its own datagram.
//!
//! An input is a row of datagrams: how long a segment is, the class, the length in two bytes, and the bytes. It needs the loopback, up.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use packet::Batch;
use plane::datapath::PortId;
use plane::device::{Change, Device, ReceiveStatus, Receiver, Tunnel, UnderlayCounters};
use sys::udp;
use vxlan::Vni;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Bench {
    source: OwnedFd,
    to: SocketAddr,
    receiver: Receiver,
    batch: Batch,
}

static BENCH: LazyLock<Mutex<Bench>> = LazyLock::new(|| Mutex::new(Bench::new()));

fn bound(port: u16) -> Option<OwnedFd> {
    let socket = udp::open(LOCAL).unwrap();
    udp::bind(socket.as_fd(), (LOCAL, port).into()).is_ok().then_some(socket)
}

impl Bench {
    fn new() -> Self {
        let (port, socket) = (30_000..40_000).find_map(|port| Some((port, bound(port)?))).unwrap();
        udp::prepare_receiving(socket.as_fd(), LOCAL).unwrap();
        let tunnel = Tunnel::new(Vni::try_from(7).unwrap(), port, None, 1450);
        tunnel.set_peers(&[LOCAL]);
        let (changes, changes_in) = crossbeam_channel::unbounded();
        changes.send(Change::Add(PortId(9), Arc::new(tunnel))).unwrap();
        let receiver = Receiver::new(socket, changes_in, Arc::new(UnderlayCounters::default()), None);
        Self { source: bound(0).unwrap(), to: (LOCAL, port).into(), receiver, batch: Batch::new() }
    }

    /// Reads all that waits.
    fn receive(&mut self) {
        loop {
            let status = self.receiver.receive(&mut self.batch).status;
            assert!(self.batch.frames().iter().all(|frame| (frame.ingress, frame.peer) == (9, 1)));
            self.batch.clear();
            if status == ReceiveStatus::Drained {
                break;
            }
        }
        self.receiver.report_drops(&mut |port, _, count| assert!(port == PortId(9) && count > 0));
    }
}

fuzz_target!(|input: &[u8]| {
    let mut bench = BENCH.lock().unwrap();
    let mut rest = input;
    while let [segment, class, high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (bytes, behind) = more.split_at(length);
        // At most 64 segments of what the loopback takes; 0: it is one datagram.
        let segment = if *segment == 0 { length.max(1) } else { usize::from(*segment).max(length.div_ceil(64)) };
        let run = udp::Run { bytes, segment, to: bench.to, class: *class };
        let _ = udp::send_run(bench.source.as_fd(), &run);
        rest = behind;
    }
    bench.receive();
});
