//! The data plane: one way for a frame from device to device, on threads that wait for no other and open nothing.
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
//!   services on the control side, or queues it at the port of its next hop; a routed frame does not enter a bridge again. An uplink is a bridge with
//!   one port, so the router looks the same from all sides. Addresses are translated by the crate [`nat`].
//! - **Decide, then act.** Why a frame goes nowhere is a [`DropReason`](datapath::DropReason), counted per port and shown by
//!   `vsctl stats` and in captures.
//! - **Every table is bounded** and has an expiry and a fair eviction rule ([`datapath::Fdb`]).
//!
//! # Threads
//!
//! N [`worker`]s run to completion. Worker *i* owns part *i* of every device and a [`Datapath`](datapath::Datapath) of its own, so sending
//! crosses no thread and takes no lock, with one exception: a session of an encrypted tunnel has one counter for all workers, so they meet at its lock.
//! It has the only clock; the datapath is given the time and runs in tests with a hand-moved one. The
//! control side hands over open devices, and asks for counters and tables, over bounded channels that are drained between batches.
//!
//! # Rooms
//!
//! - [`worker`], [`datapath`] (the router among it), [`device`]: the path above.
//! - [`capture`]: copies of frames on their way to a pcapng file, without ever waiting for its reader.
//! - [`impair`]: lines that delay, lose and damage packets on purpose. The first worker has them all, outside of the datapath.
//! - `shape`: what holds ports to their rates, with a queue for each flow. Every worker has its part. `codel` keeps the queues of both short, and
//!   `transit` is what waits in either. `fair` are queues by flow, for rates and for what one worker hands to another.
//! - [`fragments`], [`table`]: packets put together and cut, and a table that is bounded and fair; the `host` uplinks use them too.
#![forbid(unsafe_code)]

pub mod capture;
mod codel;
pub mod datapath;
pub mod device;
mod fair;
pub mod fragments;
pub mod impair;
mod shape;
pub mod table;
mod transit;
pub mod worker;
