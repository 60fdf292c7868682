//! What of this room takes rights: the control side asks by these functions, and the broker, or this process where there is none, carries it out by
//! those that are named behind `by`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use packet::Mac;

use super::error::AttachError;
use super::netns::{self, Identity};
use super::underlay::{self, Listening, OpenSources, SourcePlan};
use super::uplink::{self, UplinkAttachment};
use super::watch::{self, End, NamespaceNumber, News, WatchSocket};
use super::{Attachment, Plan, lan, port, programs, veth};
use crate::broker::{Descriptor, SystemError, requests};
use api::{Netns, PortName, PortSpec};

requests! {
    /// See `port::attach`.
    pub(super) fn open_port(plan: &Plan = Plan) -> Result<Attachment, AttachError>, by port::attach;
    /// See `uplink::attach_uplink`.
    pub fn attach_uplink(ifname: &str = String, mac: &Mac = Mac, held: &[Descriptor] = Vec<Descriptor>) -> Result<UplinkAttachment, AttachError>, by uplink::attach_uplink;
    /// See `port::has_arrived`.
    pub fn has_arrived(spec: &PortSpec = PortSpec) -> Result<bool, AttachError>, by port::has_arrived;
    /// See `port::links_in`.
    pub fn links_in(netns: &Option<Netns> = Option<Netns>) -> Result<(Option<NamespaceNumber>, Vec<News>), AttachError>, by port::links_in;
    /// See `port::moved_end`.
    pub fn moved_end(spec: &PortSpec = PortSpec) -> Option<End>, by port::moved_end;
    /// See `port::abandon`.
    pub fn abandon(spec: &PortSpec = PortSpec, queue: &Option<Descriptor> = Option<Descriptor>) -> Result<(), AttachError>, by port::abandon;
    /// See `port::restore`.
    pub fn restore(spec: &PortSpec = PortSpec, gateways: &[IpNet] = Vec<IpNet>) -> Result<(), AttachError>, by port::restore;
    /// See `port::detach`.
    pub fn detach(spec: &PortSpec = PortSpec) -> Result<(), AttachError>, by port::detach;
    /// See `port::reconfigure`.
    pub fn reconfigure(old: &PortSpec = PortSpec, new: &PortSpec = PortSpec, mtu: &u16 = u16, gateways: &[IpNet] = Vec<IpNet>) -> Result<(), AttachError>, by port::reconfigure;
    /// See `port::difference`.
    pub fn difference(spec: &PortSpec = PortSpec, gateways: &[IpNet] = Vec<IpNet>) -> Result<Option<String>, AttachError>, by port::difference;
    /// See `veth::set_switch_end`.
    pub fn set_switch_end(spec: &PortSpec = PortSpec, up: &bool = bool) -> Result<(), AttachError>, by veth::set_switch_end;
    /// See `lan::set_host_routes`.
    pub fn set_host_routes(ifname: &str = String, wanted: &BTreeSet<IpAddr> = BTreeSet<IpAddr>) -> Result<(), AttachError>, by lan::set_host_routes;
    /// See `netns::mark_netns`.
    pub fn mark_netns(name: &str = String, mark: &str = String) -> Result<(), AttachError>, by netns::mark_netns;
    /// See `netns::is_marked_netns`.
    pub fn is_marked_netns(name: &str = String, mark: &str = String) -> Result<bool, AttachError>, by netns::is_marked_netns;
    /// See `netns::remove_netns`.
    pub fn remove_netns(name: &str = String) -> Result<(), AttachError>, by netns::remove_netns;
    /// See `netns::netns_warning`.
    pub fn netns_warning() -> Option<String>, by netns::netns_warning;
    /// See `Identity::at`.
    pub(super) fn identity(path: &Path = PathBuf) -> Option<Identity>, by Identity::at;
    /// See `netns::inode_at`.
    pub(super) fn inode(path: &Path = PathBuf) -> Option<u64>, by netns::inode_at;
    /// Whether there is a file.
    pub fn is_there(path: &Path = PathBuf) -> bool, by Path::exists;
    /// See `programs::programs_in`.
    pub(crate) fn programs_in(places: &[Netns] = Vec<Netns>) -> Result<Vec<Option<String>>, SystemError>, by programs::programs_in;
    /// See `WatchSocket::open`.
    pub(super) fn open_watch() -> Result<WatchSocket, AttachError>, by WatchSocket::open;
    /// See `watch::number_of`.
    pub fn number_of(netns: &Netns = Netns) -> Option<NamespaceNumber>, by watch::number_of;
    /// See `underlay::open_sources`.
    pub fn open_sources(tunnel: &PortName = PortName, plan: &SourcePlan = SourcePlan) -> Result<OpenSources, AttachError>, by underlay::open_sources;
    /// See `underlay::listen`.
    pub fn listen(address: &SocketAddr = SocketAddr, count: &usize = usize, left: &[Descriptor] = Vec<Descriptor>) -> Result<Vec<Listening>, AttachError>, by underlay::listen;
    /// See `underlay::listen_to_group`.
    pub fn listen_to_group(group: &SocketAddr = SocketAddr, interface: &u32 = u32) -> Result<Listening, AttachError>, by underlay::listen_to_group;
}
