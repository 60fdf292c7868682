//! Anything that a host says to another that gossips with it: whatever it is, it is answered by a few datagrams, and what is remembered of it has
//! bounds.
//!
//! An input is a row of texts: the length, and the bytes.
#![no_main]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use cluster::gossip::{Gossip, Profile, UDP_PORT};
use libfuzzer_sys::fuzz_target;

/// How long the head of a datagram without a secret is.
const HEAD: usize = 9;

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], UDP_PORT))
}

fn start(number: u8, other: u8) -> Gossip {
    let (address, prefix) = (address(number), "p".to_owned());
    let mut gossip = Gossip::new(Profile { address, boot: 1, prefix, secret: None, is_store: true }, number.into());
    gossip.seek(BTreeMap::from([(self::address(other), String::new())]), Duration::ZERO);
    gossip.tick(Duration::ZERO);
    gossip
}

fuzz_target!(|input: &[u8]| {
    let (mut gossip, mut other) = (start(1, 2), start(2, 1));
    let hello = other.take_datagrams().remove(0).1;
    let mut now = Duration::ZERO;
    gossip.receive(address(2), hello.clone(), now);
    let mut rest = input;
    while let Some((length, more)) = rest.split_first() {
        let (text, more) = more.split_at(more.len().min((*length).into()));
        gossip.receive(address(2), [&hello[..HEAD], text].concat(), now);
        now += Duration::from_millis(100);
        gossip.tick(now);
        assert!(gossip.take_datagrams().len() < 40);
        rest = more;
    }
});
