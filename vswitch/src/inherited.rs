//! Sockets that the last vswitchd left open for this one, known by what they are bound to.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::net::{SocketType, getsockname, sockopt};

/// The sockets that the start has not taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Mutex<Vec<OwnedFd>>);

impl Inherited {
    /// These.
    pub(crate) const fn new(sockets: Vec<OwnedFd>) -> Self {
        Self(Mutex::new(sockets))
    }

    /// Takes those of a kind that are bound to an address and port, in the order in which they were left.
    pub(crate) fn take(&self, kind: SocketType, address: SocketAddr) -> Vec<OwnedFd> {
        let is_it = |socket: &mut OwnedFd| {
            let bound = getsockname(&*socket).ok().and_then(|bound| SocketAddr::try_from(bound).ok());
            bound == Some(address) && sockopt::socket_type(&*socket) == Ok(kind)
        };
        // A thread that panicked did so between two sockets.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extract_if(.., is_it).collect()
    }

    /// Closes the others.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_socket_is_taken_once_by_its_kind_and_address() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        let inherited = Inherited::new(vec![udp.into(), tcp.into()]);
        assert!(inherited.take(SocketType::STREAM, "127.0.0.2:1".parse().unwrap()).is_empty());
        let [taken] = <[OwnedFd; 1]>::try_from(inherited.take(SocketType::STREAM, address)).unwrap();
        assert_eq!(TcpListener::from(taken).local_addr().unwrap(), address);
        assert!(inherited.take(SocketType::STREAM, address).is_empty());
        inherited.close();
        assert!(inherited.take(SocketType::DGRAM, address).is_empty());
    }
}
