//! A host's gossip with a socket and a clock.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};

use super::{Gossip, Profile};

/// A host's gossip. It is asked and told from any task while [`Node::run`] moves datagrams.
pub struct Node {
    address: SocketAddr,
    begun: Instant,
    gossip: Mutex<Gossip>,
    socket: Mutex<Option<Arc<UdpSocket>>>,
    /// Why there is no socket.
    trouble: Mutex<Option<String>>,
    news: watch::Sender<()>,
    /// Whether there may be datagrams to send.
    wake: Notify,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gossip at {}", self.address)
    }
}

impl Node {
    /// A host that looks for others at these addresses. Nothing is sent before [`Node::run`].
    pub fn new(profile: Profile, seeds: impl IntoIterator<Item = SocketAddr>) -> Self {
        let address = profile.address;
        let mut gossip = Gossip::new(profile, rand::random());
        gossip.seek(seeds.into_iter().map(|seed| (seed, String::new())).collect(), Duration::ZERO);
        Self {
            address,
            begun: Instant::now(),
            gossip: Mutex::new(gossip),
            socket: Mutex::default(),
            trouble: Mutex::default(),
            news: watch::channel(()).0,
            wake: Notify::new(),
        }
    }

    /// Gossips for ever. Where the port is another's, it is tried again.
    pub async fn run(self: Arc<Self>) {
        loop {
            let error = match UdpSocket::bind(self.address).await {
                Ok(socket) => self.serve(Arc::new(socket)).await,
                Err(error) => error,
            };
            self.say(None, Some(format!("gossip at UDP {}: {}", self.address, advised(&error, self.address.ip()))));
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Moves datagrams until the socket fails.
    async fn serve(&self, socket: Arc<UdpSocket>) -> io::Error {
        self.say(Some(Arc::clone(&socket)), None);
        let mut buffer = vec![0; LONGEST];
        loop {
            let due = self.with(|gossip, now| {
                gossip.tick(now);
                gossip.due()
            });
            let out = self.gossip().take_datagrams();
            for (to, datagram) in out {
                // A host that cannot be reached does not answer.
                let _ = socket.send_to(&datagram, to).await;
            }
            tokio::select! {
                received = socket.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => self.with(|gossip, now| gossip.receive(from, buffer[..length].to_vec(), now)),
                    Err(error) => return error,
                },
                () = tokio::time::sleep_until((self.begun + due).into()) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    fn say(&self, socket: Option<Arc<UdpSocket>>, trouble: Option<String>) {
        *locked(&self.socket) = socket;
        *locked(&self.trouble) = trouble;
        self.news.send_replace(());
    }

    fn gossip(&self) -> MutexGuard<'_, Gossip> {
        locked(&self.gossip)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Gossip, Duration) -> T) -> T {
        let mut gossip = self.gossip();
        let outcome = work(&mut gossip, self.begun.elapsed());
        let is_changed = gossip.take_change();
        drop(gossip);
        if is_changed {
            self.news.send_replace(());
        }
        outcome
    }

    /// Tells the gossip something, whose datagrams leave soon.
    pub fn tell<T>(&self, work: impl FnOnce(&mut Gossip, Duration) -> T) -> T {
        let outcome = self.with(work);
        self.wake.notify_one();
        outcome
    }

    /// Asks the gossip something.
    pub fn ask<T>(&self, ask: impl FnOnce(&Gossip, Duration) -> T) -> T {
        ask(&self.gossip(), self.begun.elapsed())
    }

    /// Hears that something has changed.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Where its datagrams come from.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why there is no socket.
    pub fn trouble(&self) -> Option<String> {
        locked(&self.trouble).clone()
    }

    /// What is wrong, in a sentence.
    pub fn problem(&self) -> Option<String> {
        self.trouble().or_else(|| self.ask(Gossip::problem))
    }

    /// Looks for hosts, as [`Gossip::seek`] says.
    pub fn seek(&self, hosts: BTreeMap<SocketAddr, String>) {
        self.tell(|gossip, now| gossip.seek(hosts, now));
    }

    /// Says goodbye, at once.
    pub fn leave(&self) {
        let out = self.with(|gossip, _| {
            gossip.leave();
            gossip.take_datagrams()
        });
        let socket = locked(&self.socket).clone();
        for (to, datagram) in out {
            // Those who do not hear of it find out.
            let _ = socket.as_ref().map(|socket| socket.try_send_to(&datagram, to));
        }
    }
}

/// Why there is no socket at an address of this host's, and what is to be done.
fn advised(error: &io::Error, address: IpAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => not_here(address),
        io::ErrorKind::AddrInUse => format!("{error}: another program may have it: give all hosts another `gossip-port`"),
        _ => error.to_string(),
    }
}

/// That the `underlay` of this host is no address of it.
pub fn not_here(underlay: IpAddr) -> String {
    format!("`underlay` {underlay} is not an address of this host: `ip address` lists those that are")
}

/// Milliseconds since 1970, by the clock of this host.
pub fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A thread that panicked did so between two steps of the gossip.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host to begin with: `192.0.2.1`, `2001:db8::1`, or either with a port, as `192.0.2.1:7946` and `[2001:db8::1]:7946`.
///
/// # Errors
/// Something else.
pub fn seed(text: &str, port: u16) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, port)));
    address.map_err(|_| {
        let rest = "write the underlay address of a host, as 192.0.2.1 or 192.0.2.1:7946";
        format!("endpoint \"{}\" is no address to begin with: {rest}", text.escape_debug())
    })
}

/// How long a port that is another's is left alone.
const RETRY: Duration = Duration::from_millis(500);

/// The longest datagram there can be.
const LONGEST: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_is_advised_only_where_the_port_is_anothers() {
        let of = |kind: io::ErrorKind| advised(&kind.into(), IpAddr::from([192, 0, 2, 2]));
        assert!(of(io::ErrorKind::AddrInUse).contains("give all hosts another `gossip-port`"));
        assert!(of(io::ErrorKind::AddrNotAvailable).starts_with("`underlay` 192.0.2.2 is not an address of this host: "));
        assert!(!of(io::ErrorKind::PermissionDenied).contains("gossip-port"));
    }
}
