//! A question to the host's resolvers and their answer, over UDP or TCP. The services' thread runs one task for each question (`services/run.rs`).
//! Touches the network: sockets in the network namespace of vswitchd.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use domain::base::Message;
use domain::base::iana::Rcode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use super::Transport;

/// How long a server is waited for, and how often all are tried.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Stations ask again after five seconds; an answer later than this has no station waiting for it.
const IN_ALL: Duration = Duration::from_secs(8);

/// What came of a question.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ResolverOutcome {
    /// What a server said; `None` if none answered.
    pub answer: Option<Vec<u8>>,
    /// Servers that said nothing in time.
    pub silent: Vec<SocketAddr>,
    /// Those that said something.
    pub heard: Vec<SocketAddr>,
}

/// Asks one server after the other. What a server refuses to say the next one may know; if all refuse,
/// the last refusal is the answer. Of an answer longer than a datagram may bring, one byte more than that is kept.
pub(in crate::services) async fn exchange(question: &[u8], transport: Transport, servers: &[SocketAddr]) -> ResolverOutcome {
    let end = Instant::now() + IN_ALL;
    let mut outcome = ResolverOutcome::default();
    for server in std::iter::repeat_n(servers, ROUNDS).flatten() {
        let deadline = end.min(Instant::now() + PATIENCE);
        let asked = async {
            match transport {
                Transport::Udp(room) => ask(question, room, *server).await,
                Transport::Tcp => ask_on_stream(question, *server).await,
            }
        };
        match timeout_at(deadline, asked).await {
            Ok(Some(answer)) => {
                let refused = refuses(&answer);
                outcome.heard.push(*server);
                outcome.answer = Some(answer);
                if !refused {
                    break;
                }
            }
            // It could not be sent, or the server's host says that no program listens there.
            Ok(None) => {}
            Err(_) if Instant::now() >= end => break,
            Err(_) => outcome.silent.push(*server),
        }
    }
    outcome
}

fn refuses(answer: &[u8]) -> bool {
    Message::from_octets(answer).is_ok_and(|message| matches!(message.header().rcode(), Rcode::SERVFAIL | Rcode::REFUSED))
}

/// One question, with a number and a port that no attacker can guess: the kernel picks the port at random (`udp_lib_get_port`).
/// The socket is connected, so it hears the server alone.
async fn ask(question: &[u8], room: u16, server: SocketAddr) -> Option<Vec<u8>> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(server).await.ok()?;
    let question = numbered(question)?;
    socket.send(&question).await.ok()?;
    let asked = Message::from_octets(question).ok()?;
    let mut buffer = vec![0; usize::from(room) + 1];
    loop {
        let length = socket.recv(&mut buffer).await.ok()?;
        let answer = buffer.get(..length)?;
        if Message::from_octets(answer).is_ok_and(|message| message.is_answer(&asked)) {
            return Some(answer.to_vec());
        }
    }
}

/// One question on a connection of its own, where each message has its length before it (RFC 7766, section 8).
async fn ask_on_stream(question: &[u8], server: SocketAddr) -> Option<Vec<u8>> {
    let question = numbered(question)?;
    let length = u16::try_from(question.len()).ok()?;
    let mut stream = TcpStream::connect(server).await.ok()?;
    stream.write_all(&[&length.to_be_bytes(), question.as_slice()].concat()).await.ok()?;
    let asked = Message::from_octets(question).ok()?;
    loop {
        let mut answer = vec![0; stream.read_u16().await.ok()?.into()];
        stream.read_exact(&mut answer).await.ok()?;
        if Message::from_octets(answer.as_slice()).is_ok_and(|message| message.is_answer(&asked)) {
            return Some(answer);
        }
    }
}

/// The question with a number that no attacker can guess.
fn numbered(question: &[u8]) -> Option<Vec<u8>> {
    let mut question = question.to_vec();
    question.get_mut(..2)?.copy_from_slice(&rand::random::<u16>().to_be_bytes());
    Some(question)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base::name::Name;
    use domain::base::{MessageBuilder, Rtype};

    fn question(name: &str) -> Vec<u8> {
        let mut question = MessageBuilder::new_vec().question();
        question.push((name.parse::<Name<Vec<u8>>>().unwrap(), Rtype::A)).unwrap();
        question.finish()
    }

    /// A server that hears one question and says `answers` to it.
    async fn server(answers: impl Fn(Vec<u8>) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            for answer in answers(buffer[..length].to_vec()) {
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        address
    }

    fn answering(mut question: Vec<u8>, code: u8) -> Vec<u8> {
        (question[2], question[3]) = (0x80, code);
        question
    }

    #[tokio::test]
    async fn an_answer_counts_only_with_number_and_question() {
        let server = server(|asked| {
            let mut number = answering(asked.clone(), 0);
            number[1] ^= 1;
            let mut other = answering(question("evil.test"), 0);
            other[..2].copy_from_slice(&asked[..2]);
            vec![number, other, asked.clone(), vec![0; 5], answering(asked, 3)]
        });
        let answer = exchange(&question("good.test"), Transport::Udp(512), &[server.await]).await.answer.unwrap();
        assert_eq!((answer[3], &answer[12..]), (3, &question("good.test")[12..]));
    }

    #[tokio::test]
    async fn numbers_are_not_the_stations() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..8 {
            let server = server(|asked| vec![answering(asked, 0)]).await;
            let answer = exchange(&question("good.test"), Transport::Udp(512), &[server]).await.answer.unwrap();
            seen.insert([answer[0], answer[1]]);
        }
        assert!(seen.len() > 4, "{seen:?}");
    }

    #[tokio::test]
    async fn the_next_server_is_asked_when_one_fails() {
        let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (refusing, good) =
            (server(|asked| vec![answering(asked, 5)]).await, server(|asked| vec![answering(asked, 0)]).await);
        let answer = exchange(&question("good.test"), Transport::Udp(512), &[dead, refusing, good]).await.answer.unwrap();
        assert_eq!(answer[3], 0);
        let refusing = server(|asked| vec![answering(asked, 5)]).await;
        assert_eq!(
            exchange(&question("good.test"), Transport::Udp(512), &[dead, refusing]).await.answer.unwrap()[3],
            5,
            "better than nothing"
        );
        assert_eq!(exchange(&question("good.test"), Transport::Udp(512), &[]).await.answer, None);
    }

    #[tokio::test]
    async fn silent_servers_are_given_up() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = silent.local_addr().unwrap();
        let start = Instant::now();
        let outcome = exchange(&question("good.test"), Transport::Udp(512), &[server]).await;
        assert_eq!(outcome, ResolverOutcome { silent: vec![server; 2], ..ResolverOutcome::default() });
        assert_eq!(start.elapsed().as_secs(), 4, "two rounds");
    }
}
