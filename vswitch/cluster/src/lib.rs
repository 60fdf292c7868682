//! Overlay networks across hosts: what hosts say to each other through a store, and what each of them makes of it.
//!
//! ```text
//!  store    etcd, Consul, ZooKeeper, gossip, memory: lists, transactions, sessions, news
//!  gossip   who lives, apart from any store; and what hosts announce, where there is none
//!  record   what is kept there: hosts, networks, members, endpoints, blocks of addresses
//!  key      the public key of a host, for encrypted networks
//!  view     what one host knows: its own truth, what it heard, and the difference that makes for its tunnels
//!  agent    one host's dealings with a store: a session, what is due, and when
//!  flannel  another kind of network, whose records are flannel's: a host's part in it
//! ```
//!
//! Each host writes its own records and reads all of them. It has one session; with it go the host, its memberships and its endpoints, so one that
//! dies vanishes whole. What hosts must not take twice, a network's VNI and blocks of addresses, is taken by transactions, and stays.
//!
//! Three rules come before all others:
//! - **A living endpoint is never renumbered**, and a network that is in use keeps its VNI: when the store has lost them, they are put there again.
//! - **A store that comes back empty or older withdraws nothing.** A host that misses what it has itself put there keeps what it knows for
//!   [`view::HOLD`], in which all hosts put their truth again.
//! - **Another cluster's store is refused**: an id is made with the first host, and is remembered.
//!
//! The switch is not known here: differences go out as values, and time comes in as an argument.
#![forbid(unsafe_code)]

pub mod agent;
pub mod flannel;
pub mod gossip;
pub mod key;
pub mod pace;
pub mod record;
pub mod store;
pub mod view;
