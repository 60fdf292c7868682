//! The switch beside the kernel's bridge: `cargo bench -p vswitch-tests`, as root.
//!
//! Two stations on TAPs of vswitchd, two on veth pairs of a Linux bridge, both at MTU 1500, in namespaces of their own. The two
//! are measured in turns, and what counts is the median of the ratios of neighbours, because the speed of a shared machine
//! changes from minute to minute:
//!
//! - one TCP stream (iperf3);
//! - UDP in frames of 64 bytes, as many as an application receives while another sends what it can, 64 with a system call;
//! - the round trip of `ping -f`.
//!
//! `VSWITCH_BENCH_PAIRS` (5) is the number of turns, `VSWITCH_BENCH_SECONDS` (3) the length of a measurement. Ctrl-C leaves
//! nothing behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here ends the benchmark")]

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use vswitch_tests::bench::{self, Contest, seconds};
use vswitch_tests::{Lab, ping, tcp};

const FILE: &str = r#"
[[bridge]]
name = "br0"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.0.0.1/24"]
[[port]]
name = "b"
bridge = "br0"
netns = "@b"
addresses = ["10.0.0.2/24"]
"#;

/// The stations of the one and of the other.
const VSWITCH: (&str, &str) = ("a", "b");
const BRIDGE: (&str, &str) = ("ka", "kb");
/// Where the second of either is.
const FAR: &str = "10.0.0.2";

fn main() -> ExitCode {
    bench::main(&["ip", "nsenter", "iperf3", "ping"], run)
}

fn run() {
    let mut lab = Lab::new();
    lab.write(FILE);
    lab.start();
    make_bridge(&lab);
    for (from, _) in [VSWITCH, BRIDGE] {
        lab.until("the stations reach each other", |lab| ping(lab, from, FAR));
    }
    let contest = |name, unit, measure: fn(&Lab, (&str, &str)) -> f64| Contest {
        name,
        beside: "bridge and veth",
        unit,
        ours: Box::new(move |lab| measure(lab, VSWITCH)),
        theirs: Box::new(move |lab| measure(lab, BRIDGE)),
    };
    let contests = [
        contest("one TCP stream, MTU 1500", "Gbit/s", stream),
        contest("UDP, 64-byte frames", "kpackets/s", small_frames),
        contest("ping -f, round trip (less is better)", "µs", round_trip),
    ];
    bench::compare(&lab, &contests);
}

fn make_bridge(lab: &Lab) {
    let (one, other) = BRIDGE;
    lab.add_netns("bridge");
    lab.sh("ip -n @bridge link add br0 type bridge forward_delay 0 && ip -n @bridge link set br0 up").ok();
    for (name, address) in [(one, "10.0.0.1"), (other, FAR)] {
        lab.add_netns(name);
        lab.sh(&format!(
            "ip -n @bridge link add {name} type veth peer name eth0 netns @{name} && ip -n @bridge link set {name} master br0 up \
             && ip -n @{name} addr add {address}/24 dev eth0 && ip -n @{name} link set eth0 up"
        ))
        .ok();
    }
}

fn stream(lab: &Lab, (from, to): (&str, &str)) -> f64 {
    tcp(lab, from, to, FAR, &format!("-t {}", seconds())).bits / 1e9
}

/// The mean of as many echoes as there is time for, in microseconds.
fn round_trip(lab: &Lab, (from, _): (&str, &str)) -> f64 {
    let text = lab.run_in(from, &format!("ping -n -q -f -w {} {FAR}", seconds())).ok();
    // rtt min/avg/max/mdev = 0.008/0.012/0.451/0.004 ms, ipg/ewma 0.021/0.011 ms
    let mean = text.split(" = ").nth(1).and_then(|rest| rest.split('/').nth(1)).and_then(|mean| mean.parse::<f64>().ok());
    mean.unwrap_or_else(|| panic!("ping says {text}")) * 1000.0
}

/// Datagrams that the second station receives while the first sends all it can, in thousands a second.
fn small_frames(lab: &Lab, (from, to): (&str, &str)) -> f64 {
    let receiver = socket_in(lab, to, (FAR, 9000));
    receiver.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let sender = socket_in(lab, from, ("0.0.0.0", 0));
    sender.connect((FAR, 9000)).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                send_many(&sender);
            }
        });
        // What comes before the path is warm does not count.
        let count = |time: Duration| {
            let (begun, mut count) = (Instant::now(), 0);
            while begun.elapsed() < time {
                count += receive_many(&receiver);
            }
            f64::from(count) / begun.elapsed().as_secs_f64() / 1e3
        };
        count(Duration::from_millis(300));
        let rate = count(Duration::from_secs(seconds()));
        over.store(true, Ordering::Relaxed);
        rate
    })
}

/// A socket stays in the namespace of the thread that made it.
fn socket_in(lab: &Lab, netns: &str, address: (&str, u16)) -> UdpSocket {
    let file = std::fs::File::open(lab.named(&format!("/run/netns/@{netns}"))).unwrap();
    let bind = || {
        vswitch::sys::netns::enter(file.as_fd()).unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        // It is the path that is measured: its ends have room for a time slice of a busy machine.
        sockopt::set_socket_recv_buffer_size_force(&socket, 32 << 20).unwrap();
        sockopt::set_socket_send_buffer_size_force(&socket, 4 << 20).unwrap();
        socket
    };
    std::thread::scope(|scope| scope.spawn(bind).join().unwrap())
}

/// Datagrams that a system call carries.
const MANY: usize = 64;
/// A frame of 64 bytes, without its FCS, has so many behind its Ethernet, IPv4 and UDP headers.
const PAYLOAD: usize = 22;

fn send_many(socket: &UdpSocket) {
    let mut payload = [0_u8; PAYLOAD];
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: PAYLOAD };
    let mut messages = [message(&mut part); MANY];
    // SAFETY: the descriptor is open, and the messages, which all have the one part, live through the call. Whether they leave
    // does not matter.
    unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), 64, 0) };
}

/// Waits for one datagram and takes those that are there besides.
fn receive_many(socket: &UdpSocket) -> i32 {
    let mut payload = [0_u8; PAYLOAD];
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: PAYLOAD };
    let mut messages = [message(&mut part); MANY];
    let (descriptor, none) = (socket.as_raw_fd(), std::ptr::null_mut());
    // SAFETY: as above; all datagrams are written into the one buffer, whose bytes nobody reads.
    unsafe { libc::recvmmsg(descriptor, messages.as_mut_ptr(), 64, libc::MSG_WAITFORONE, none) }.max(0)
}

fn message(part: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: every field is an integer or a pointer, for which zero is valid.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = part;
    message.msg_hdr.msg_iovlen = 1;
    message
}
