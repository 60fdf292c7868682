//! vswitch: a userspace virtual switch for containers, namespaces and VMs.
//!
//! `vswitchd` is a learning, VLAN-aware L2 switch with a gateway on each bridge that wants one; `vsctl` changes and
//! explains it while it runs. The kernel only lends it devices: TAPs, veth ends, links. This page is the map; each module begins with
//! its own theory of operation.
//!
//! # Two sides
//!
//! The **data plane** is the crate [`plane`]: N workers, each of which runs one batch of frames to completion before the next. Its page says how a
//! frame goes through.
//!
//! The **control side** may block: it reads the file ([`config`]), serves the socket and carries out requests ([`control`]), makes
//! namespaces and devices ([`attach`]). It hands open devices to the workers over bounded channels that they drain between
//! batches, and asks them for counters and tables the same way.
//!
//! The first worker routes, and so has all neighbours and sessions; the others hand over what goes to a gateway. What may take its
//! time has a thread of its own: the [`services`], and each uplink that uses the [`host`]'s sockets.
//!
//! # Two processes
//!
//! The one that reads what others send holds no rights. What takes some, such as to make a device in a namespace, it asks its [`broker`] for, which
//! reads nothing but that and what the kernel answers. Each room says beside the functions in question which of them are such requests.
//!
//! # Rooms, from the outside in
//!
//! Crates, so that Cargo keeps the arrows pointing down: `vswitch` needs [`plane`], that needs [`sys`] and [`api`], and those the bytes.
//!
//! ```text
//!  vswitch   client, plugin ─▶ control ─▶ config, docker, containers ─▶ attach, services, host ─▶ broker
//!  plane     worker ─▶ datapath (bridge, router), device, capture
//!  lab       teaching labs, for vsctl: asks the others only as a user does, by running vswitchd and vsctl
//!  sys       every unsafe block of the workspace
//!  api       the vocabulary: names, specifications, Request, Reply
//!  cluster   what hosts say to each other through etcd, Consul or ZooKeeper, or by gossip
//!  packet    bytes and nothing else          nat, vxlan, rstp   translation, tunnels and spanning tree without I/O
//! ```
//!
//! - [`client`]: what `vsctl` is made of.
//! - [`config`]: `switch.toml`, and what was changed at run time and must survive a restart. Each is a *source* of resources; a list says which
//!   wins where two name the same. What they come to is a [`Layout`](config::Layout).
//! - [`control`]: the owner of what the switch *is*; every change is all or nothing. A bridge, port, uplink, forward or tunnel is a
//!   [`Resource`](api::Resource) with one life: it is planned, made, changed, removed, taken back, made again and listed by the same code, which asks
//!   the kind only for what is its own. Its rooms are the ledger (what should be), the inventory (what is), the workers, and what follows the world:
//!   links, LANs, Docker, symptoms. What the tables know is written down for the next vswitchd, which may also take over while this one runs.
//! - [`docker`]: Docker's network drivers. What Docker asks for is kept, and is a source of bridges, ports and forwards as the file is; a call
//!   of Docker's is carried out as a reload is.
//! - [`overlay`]: bridges of several hosts that are one segment. A thread deals with the store through which the hosts hear of each other (the
//!   crate `cluster`); what it hears is a source of tunnels.
//! - [`flannel`]: a bridge that has a subnet of a network of flannel's, beside hosts that run flanneld. A thread deals with their etcd.
//! - [`containers`]: the same for Podman and for whatever speaks CNI; [`plugin`]: the two programs that those call.
//! - [`attach`]: the kernel's side of a port.
//! - [`host`]: an uplink that reaches the outside world through the host's own sockets; a thread, and a device.
//! - [`services`]: what the gateway does for its stations besides routing: DHCP, router advertisements, names; and the DHCP clients of
//!   uplinks and of containers on a LAN.
//! - `stp`: the thread that speaks RSTP for bridges; the protocol itself is the crate `rstp`.
//! - [`confine`]: what the process gives up before it takes in what others send, and its threads besides: capabilities, system calls, files.
//! - [`broker`]: the process that keeps the rights, and the way to it.
//! - `view`: what others look at while the switch runs: events, counters, flows, metrics. Looking waits for no worker. [`web`]: the web view.
//! - [`inherited`]: sockets that the vswitchd before this one left, for those that would else open the same.
//! - `keep`: files that must outlive the process, safe from others' tricks.
//! - `http`: what the control socket, Docker's and the web view have in common.
#![forbid(unsafe_code)]

pub mod attach;
pub mod broker;
pub mod client;
pub mod config;
pub mod confine;
pub mod containers;
pub mod control;
pub mod docker;
mod filter;
pub mod flannel;
mod frame;
pub mod host;
mod http;
pub mod inherited;
mod json;
mod keep;
pub mod overlay;
pub mod plugin;
pub mod services;
mod stp;
mod view;
pub mod web;
mod wire;
