//! UDP between the stations of a place, at a load that is kept or as fast as one thread can: 64 datagrams with a system call.

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::contender::Place;
use crate::interrupt::interrupted;
use crate::lab::Lab;

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Bytes of an Ethernet frame, without its FCS.
    pub(crate) frame: usize,
    /// Frames a second; `None`: as many as the sender can.
    pub(crate) rate: Option<f64>,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// How long was sent.
    pub(crate) time: Duration,
}

impl Flow {
    /// Frames a second that were sent.
    pub(crate) fn offered(&self) -> f64 {
        self.sent as f64 / self.time.as_secs_f64()
    }

    /// Frames a second that came in.
    pub(crate) fn rate(&self) -> f64 {
        self.received as f64 / self.time.as_secs_f64()
    }

    /// Share of what was sent that did not come.
    pub(crate) fn lost(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }

    /// Whether the sender kept up with what was to be offered.
    pub(crate) fn reached(&self, load: Load) -> bool {
        load.rate.is_none_or(|rate| self.offered() >= rate * KEPT)
    }

    /// # Panics
    /// If the sender did not keep up: then this is not a measurement at that load.
    pub(crate) fn at(self, load: Load) -> Self {
        let thousands = |rate: f64| rate / 1e3;
        assert!(
            self.reached(load),
            "the sender got only {:.0} of {:.0} thousand packets a second off",
            thousands(self.offered()),
            thousands(load.rate.unwrap_or(0.0))
        );
        self
    }
}

/// Sends for `time` and counts what arrives, after a tenth of a second that does not count.
///
/// # Panics
/// If nothing arrives.
pub(crate) fn run(place: &Place, load: Load, time: Duration) -> Flow {
    let port = place.fresh_port();
    let receiver = socket_in(place.to(), ("0.0.0.0", port));
    receiver.set_read_timeout(Some(SILENCE)).expect("a timeout");
    let sender = socket_in(place.from(), ("0.0.0.0", 0));
    sender.connect((place.address, port)).expect("an address");
    let payload = load.frame - HEADERS;
    phase(&sender, &receiver, load.rate, payload, WARM_UP);
    let flow = phase(&sender, &receiver, load.rate, payload, time);
    assert!(flow.received > 0, "none of {} packets arrived", flow.sent);
    flow
}

fn phase(sender: &UdpSocket, receiver: &UdpSocket, rate: Option<f64>, payload: usize, time: Duration) -> Flow {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let count = scope.spawn(|| receive(receiver, &over));
        let (sent, time) = send(sender, rate, payload, time);
        over.store(true, Ordering::Relaxed);
        Flow { sent, received: count.join().expect("a receiver"), time }
    })
}

/// Sends for a time; how many, and how long it took.
fn send(socket: &UdpSocket, rate: Option<f64>, payload: usize, time: Duration) -> (u64, Duration) {
    let mut bytes = vec![0_u8; payload];
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < time && !interrupted() {
        let due = rate.map_or(MANY, |rate| due(begun.elapsed(), rate, sent));
        if due == 0 {
            std::thread::sleep(PAUSE);
        } else {
            sent += send_many(socket, &mut bytes, due);
        }
    }
    (sent, begun.elapsed())
}

/// How many should be sent now to keep the rate, at most as many as a system call takes.
fn due(elapsed: Duration, rate: f64, sent: u64) -> usize {
    let owed = elapsed.as_secs_f64() * rate - sent as f64;
    (1..=MANY).take_while(|count| *count as f64 <= owed).count()
}

/// Counts until the sending is over and nothing more comes.
fn receive(socket: &UdpSocket, over: &AtomicBool) -> u64 {
    let mut count = 0;
    loop {
        match receive_many(socket) {
            0 if over.load(Ordering::Relaxed) => return count,
            more => count += more,
        }
    }
}

/// A UDP socket at a station, with room for a time slice of a busy machine: it is the path that is measured, not its ends.
///
/// # Panics
/// If the address cannot be bound.
pub(crate) fn socket_in(station: (&Lab, &str), address: (&str, u16)) -> UdpSocket {
    in_netns(station, || {
        let socket = UdpSocket::bind(address).unwrap_or_else(|error| panic!("UDP port {}: {error}", address.1));
        sockopt::set_socket_recv_buffer_size_force(&socket, 32 << 20).expect("a buffer");
        sockopt::set_socket_send_buffer_size_force(&socket, 4 << 20).expect("a buffer");
        socket
    })
}

/// Makes something at a station. A socket stays in the namespace of the thread that made it.
///
/// # Panics
/// If there is no such station.
pub(crate) fn in_netns<T: Send>((lab, netns): (&Lab, &str), make: impl FnOnce() -> T + Send) -> T {
    let file = std::fs::File::open(lab.named(&format!("/run/netns/@{netns}"))).expect("a namespace");
    let make = || {
        sys::netns::enter(file.as_fd()).expect("a namespace to enter");
        make()
    };
    std::thread::scope(|scope| scope.spawn(make).join().expect("made at the station"))
}

/// Sends `count` datagrams of these bytes; how many the kernel took. What its queue has no room for counts as taken: it was offered.
fn send_many(socket: &UdpSocket, bytes: &mut [u8], count: usize) -> u64 {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut messages = [message(&mut part); MANY];
    let count = libc::c_uint::try_from(count.min(MANY)).unwrap_or(0);
    // SAFETY: the descriptor is open; the messages, which all have the one part, live through the call, and there are MANY.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
    u64::try_from(sent).unwrap_or(1)
}

/// Waits for one datagram and takes those that are there besides.
fn receive_many(socket: &UdpSocket) -> u64 {
    let mut bytes = [0_u8; 2048];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut messages = [message(&mut part); MANY];
    let (descriptor, none) = (socket.as_raw_fd(), std::ptr::null_mut());
    // SAFETY: as above; all datagrams are written into the one buffer, whose bytes are never read.
    let received = unsafe { libc::recvmmsg(descriptor, messages.as_mut_ptr(), 64, libc::MSG_WAITFORONE, none) };
    u64::try_from(received).unwrap_or(0)
}

/// A message of one part, to or from the address that the socket is connected to.
pub(crate) fn message(part: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: every field is an integer or a pointer, for which zero is valid.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = part;
    message.msg_hdr.msg_iovlen = 1;
    message
}

/// Datagrams that a system call carries.
const MANY: usize = 64;
/// Ethernet, IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;
/// The share of a rate that is near enough.
const KEPT: f64 = 0.95;
const WARM_UP: Duration = Duration::from_millis(100);
/// After so long without a datagram no more will come.
const SILENCE: Duration = Duration::from_millis(60);
/// Between two looks at the clock when nothing is due; spinning would take the core that the switch needs.
const PAUSE: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_and_made_up_for() {
        let at = |milliseconds, sent| due(Duration::from_millis(milliseconds), 50_000.0, sent);
        assert_eq!(at(0, 0), 0);
        assert_eq!(at(1, 0), 50);
        assert_eq!(at(1, 30), 20);
        assert_eq!(at(1, 60), 0);
        assert_eq!(at(100, 0), MANY, "what is late goes out in full calls");
    }

    #[test]
    fn what_was_lost_is_a_share_of_what_was_sent() {
        let flow = Flow { sent: 1000, received: 900, time: Duration::from_secs(2) };
        assert_eq!((flow.offered(), flow.rate()), (500.0, 450.0));
        assert!((flow.lost() - 0.1).abs() < 1e-9);
    }

    #[test]
    #[should_panic(expected = "only 500 of 1000 thousand packets")]
    fn a_load_that_was_not_reached_is_no_measurement() {
        let flow = Flow { sent: 500_000, received: 500_000, time: Duration::from_secs(1) };
        let _ = flow.at(Load { frame: 64, rate: Some(1e6) });
    }
}
