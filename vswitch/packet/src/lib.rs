//! Frames and headers: bytes and nothing else.
//!
//! This crate knows what an Ethernet frame looks like, what the kernel's offload metadata beside it means, and how to turn
//! one frame into many (segmentation) or many into one (coalescing). It does no I/O, has no clock and, but for buffers, no state that
//! outlives a batch, so every function here is tested by properties alone.
//!
//! - [`Mac`], [`VlanId`], [`Ethernet`]: the link layer, parsed once a frame.
//! - [`Offload`]: `struct virtio_net_hdr` in Rust: a checksum left to the receiver, a TCP or UDP super-frame's segment size.
//! - [`Frame`], [`Batch`]: received bytes and the buffers that they live in.
//! - [`Egress`]: from a port's queue to what its device sends. Tags, segmentation, coalescing and checksums happen here, on lists
//!   of slices; frames are neither changed nor copied.
#![forbid(unsafe_code)]

mod batch;
pub mod checksum;
mod coalesce;
mod egress;
mod encapsulated;
mod ethernet;
mod ip;
mod layers;
mod mac;
mod offload;
mod rewrite;
mod segment;
mod super_frame;
mod vlan;

pub use batch::{Batch, Frame, MAX_FRAME, OuterOrigin};
pub use egress::{Egress, MAX_PARTS, Packet, Queued};
pub use ethernet::{ETHERNET_HEADER, Ethernet, Runt, Tag, TagEdit, ethertype};
pub use ip::{Fragment, FragmentKey, IpPacket, protocol};
pub use layers::{IpVersion, Layers, Transport};
pub use mac::{Mac, MacParseError, solicited_node};
pub use offload::{BadOffload, Capabilities, Checksum, Gso, GsoKind, Offload, TUNNEL_VNET_HEADER, UdpTunnel, VNET_HEADER};
pub use vlan::{VlanId, VlanIdError};
