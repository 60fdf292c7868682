use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use domain::base::Message;
use domain::base::iana::Rcode;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// How long a server is waited for, and how often all are tried.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Stations ask again after five seconds; an answer later than this is for nobody.
const IN_ALL: Duration = Duration::from_secs(8);
/// Longest UDP payload.
const LONGEST: usize = 65_535;

/// Asks one server after the other; `None` if none answers. What a server refuses to say the next one may know; if all refuse,
/// the last refusal is the answer.
pub(in crate::services) async fn exchange(question: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    let end = Instant::now() + IN_ALL;
    let mut refusal = None;
    for server in std::iter::repeat_n(servers, ROUNDS).flatten() {
        let deadline = end.min(Instant::now() + PATIENCE);
        match timeout_at(deadline, ask(question, *server)).await {
            Ok(Some(answer)) if refuses(&answer) => refusal = Some(answer),
            Ok(Some(answer)) => return Some(answer),
            // It could not be sent, or the server's host says that nobody is there.
            Ok(None) => {}
            Err(_) if Instant::now() >= end => break,
            Err(_) => {}
        }
    }
    refusal
}

fn refuses(answer: &[u8]) -> bool {
    Message::from_octets(answer).is_ok_and(|message| matches!(message.header().rcode(), Rcode::SERVFAIL | Rcode::REFUSED))
}

/// One question, with a number and a port that nobody can guess: the kernel picks the latter at random (`udp_lib_get_port`).
/// The socket is connected, so it hears nobody but the server.
async fn ask(question: &[u8], server: SocketAddr) -> Option<Vec<u8>> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(server).await.ok()?;
    let mut question = question.to_vec();
    question.get_mut(..2)?.copy_from_slice(&rand::random::<u16>().to_be_bytes());
    socket.send(&question).await.ok()?;
    let asked = Message::from_octets(question).ok()?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await.ok()?;
        let answer = buffer.get(..length)?;
        if Message::from_octets(answer).is_ok_and(|message| message.is_answer(&asked)) {
            return Some(answer.to_vec());
        }
    }
}
