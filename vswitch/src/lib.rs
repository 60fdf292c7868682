//! vswitch: a userspace virtual switch for containers, namespaces and VMs.
//!
//! One process, `vswitchd`, is a learning, VLAN-aware L2 switch with a gateway on each bridge that wants one; `vsctl` changes and
//! explains it while it runs. The kernel only lends it devices: TAPs, veth ends, links. This page is the map; each module begins with
//! its own theory of operation.
//!
//! # One way through
//!
//! ```text
//!  Device::receive ─ batch ─▶ parse ─▶ VLAN ─▶ checks ─▶ learn ─▶ look up ─▶ outputs ─▶ egress ─▶ Device::send
//!  (TAP, packet socket)       once             guard,                       (per port)   tag, segment,
//!                                              storm          │              ▲           coalesce, checksum
//!                                         to the gateway's MAC └▶ route ▶ NAT ┘
//! ```
//!
//! A **tunnel** is a port like any other: VXLAN lives at the edge, like the virtio header of a TAP. Its frames leave through a
//! [`device::Sender`] and come in through a [`device::Receiver`], which reads one UDP socket for many tunnels. Remote hosts are *peers* behind
//! the port, by number, so a frame never goes from one to another: split horizon is the rule that nothing leaves where it came from.
//!
//! There is one path for a frame, and it is short enough to read in one sitting: [`worker`] calls
//! [`Device::receive`](device::Device::receive), [`Datapath::forward`](datapath::Datapath::forward), [`packet::Egress::run`] and
//! [`Device::send`](device::Device::send), in this order, for one batch at a time.
//!
//! - A frame carries its **offload metadata** ([`packet::Offload`], the kernel's `virtio_net_hdr`) from port to port. TAP to TAP
//!   passes 64 KiB super-frames whole; a port that cannot take one gets it segmented in software on its way out, with correct
//!   checksums. What belongs to a header inside another packet, as a station's own tunnel makes them, is no exception: a checksum there is
//!   finished as the frame comes in, a super-frame is cut by its inner headers.
//! - **Frames are not copied.** A batch owns its frames. A queue of an output refers to them by number and notes
//!   what happens to the tag; flooding to 200 ports is 200 small entries. Tags, segments and checksums come about while the
//!   frame is gathered for sending. A bridged frame is not changed. Of a routed one the addresses, ports, hop limit and
//!   checksums are, in place, when the batch is decided; only what waits for its next hop's MAC address, or is cut into fragments, is
//!   copied.
//! - **A gateway is a station of its bridge.** What goes to its MAC address goes to the router, which answers it, hands it to the
//!   [`services`], or queues it at the port of its next hop; a routed frame does not enter a bridge again. An uplink is a bridge with
//!   one port, so the router looks the same from all sides. Addresses are translated by the crate [`nat`].
//! - **Decide, then act.** Why a frame goes nowhere is a [`DropReason`](datapath::DropReason), counted per port and shown by
//!   `vsctl stats` and in captures.
//! - **Every table is bounded** and has an expiry and a fair eviction rule ([`datapath::Fdb`]).
//!
//! # Two sides
//!
//! The **data plane** is N [`worker`]s, run to completion. Worker *i* owns queue *i* of every device and a
//! [`Datapath`](datapath::Datapath) of its own, so sending crosses no thread and takes no lock. It has the only clock; the datapath is given the
//! time and runs in tests with a hand-moved one.
//!
//! The **control side** may block: it reads the file ([`config`]), serves the socket and carries out requests ([`control`]), makes
//! namespaces and devices ([`attach`]). It hands open devices to the workers over bounded channels that they drain between
//! batches, and asks them for counters and tables the same way.
//!
//! The first worker routes, and so has all neighbours and sessions; the others hand over what goes to a gateway. What may take its
//! time has a thread of its own: the [`services`], and each uplink that uses the [`host`]'s sockets.
//!
//! # Layers, from the outside in
//!
//! - [`api`]: `Request` and `Reply`, and names and specifications that cannot be built wrong. One vocabulary for the file, `vsctl`,
//!   HTTP and tests.
//! - [`client`]: what `vsctl` is made of.
//! - [`config`]: `switch.toml`, and what was changed at run time and must survive a restart.
//! - [`control`]: the owner of what the switch *is*; every change is all or nothing.
//! - [`docker`]: Docker's network drivers. What Docker asks for is kept, and is a third source of bridges, ports and forwards beside the file
//!   and what `vsctl` changed; a call of Docker's is carried out as a reload is.
//! - [`containers`]: the same for Podman and for whatever speaks CNI; [`plugin`]: the two programs that those call.
//! - [`attach`]: the kernel's side of a port.
//! - [`worker`], [`datapath`] (the router among it), [`device`]: the path above.
//! - [`host`]: an uplink that reaches the outside world through the host's own sockets; a thread, and a device.
//! - [`capture`]: copies of frames on their way to a pcapng file, without ever waiting for its reader.
//! - [`services`]: what the gateway does for its stations besides routing: DHCP, router advertisements, names; and the DHCP clients of
//!   uplinks and of containers on a LAN.
//! - `keep`: files that must outlive the process, safe from others' tricks.
//! - `http`: what the control socket and Docker's have in common.
//! - `fragments`, `table`: what [`datapath`] and [`host`] share: packets put together and cut, a table that is bounded and fair.
//! - [`sys`]: every `unsafe` block of the workspace.
//! - [`packet`]: bytes and nothing else; [`vxlan`], [`nat`]: tunnels and translation without I/O; each a crate of its own.
#![deny(unsafe_code)]

pub mod api;
pub mod attach;
pub mod capture;
pub mod client;
pub mod config;
pub mod containers;
pub mod control;
pub mod datapath;
pub mod device;
pub mod docker;
mod fragments;
pub mod host;
mod http;
mod json;
mod keep;
pub mod plugin;
pub mod services;
#[allow(unsafe_code)]
pub mod sys;
mod table;
#[cfg(test)]
mod testing;
pub mod worker;
