//! The commands, their arguments and options.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use ipnet::IpNet;
use packet::{Mac, VlanId};

use super::capture::{CaptureOptions, WatchOptions};
use super::cluster::ClusterCommand;
use super::complete;
use super::extcap::ExtcapCommand;
use super::help::GLOSSARY;
use super::options::{BridgeOptions, PortOptions, UplinkOptions, VxlanOptions};
use super::stp::StpOptions;
use super::trace::TraceOptions;
use super::words::{interval, on_or_off, station, whole};
use lab::LabCommand;

use api::read::{address, cidr, number};
use api::{BridgeName, EventKind, InterfaceName, LogLevel, OverlayName, PortName, RouteSpec, StationSpec, UplinkKindName};

/// A command of `vsctl`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(flatten)]
    Bridging(Bridging),
    #[command(flatten)]
    Routing(Routing),
    #[command(flatten)]
    Plain(Plain),
    /// Counters, and drops by reason.
    Stats {
        /// Of these ports, tunnels and uplinks only.
        #[arg(add = complete::counted())]
        ports: Vec<PortName>,
        /// Of a container of Docker's, by its name.
        #[arg(long, value_name = "NAME", conflicts_with = "ports", add = complete::containers())]
        container: Option<String>,
        /// Counts for this time, such as 1s, and shows what came in each second.
        #[arg(long, value_name = "TIME", value_parser = interval)]
        interval: Option<Duration>,
        /// Does so N times, one after the other; 1 by default.
        #[arg(long, value_name = "N", requires = "interval", value_parser = whole::<u64>)]
        count: Option<u64>,
        /// Shows what was added since `vsctl --json stats > FILE`; - is stdin.
        #[arg(long, value_name = "FILE", conflicts_with = "interval")]
        since: Option<PathBuf>,
    },
    /// Follows rates, drops, the busiest flows and the fill of tables on one screen.
    ///
    /// Its keys are on its last line: q ends it, s sorts the ports otherwise, u counts bits, bytes or frames, p or space holds it still, arrows,
    /// page keys, j and k scroll the ports. With --json it prints the counters once.
    Top,
    /// What happened: links, MAC addresses, leases, full tables, who changed what.
    ///
    /// The last 2048 of those that stations cannot cause at will, and as many of the others. The times are UTC.
    Events {
        /// Waits for more until Ctrl-C.
        #[arg(long, short)]
        follow: bool,
        /// Only of this kind. May be repeated.
        #[arg(long, value_name = "KIND")]
        kind: Vec<EventKind>,
    },
    /// Shows or saves the frames of ports, as pcapng.
    ///
    /// Without -w, each frame is a line: when, port, in or out, VLAN, the reason if it was dropped, and what tcpdump says of it. Ctrl-C ends the
    /// capture and its file. A frame is taken once, where it comes in (or, if only the port that it leaves by is captured, there), and once more if it
    /// is lost later; --at says otherwise. The comment of each packet says what became of it.
    Capture(Box<CaptureOptions>),
    /// Says what the switch would do with a frame, step by step, and why.
    ///
    /// The frame goes through the code of the traffic, in which nothing changes then. What it leaves open, such as MAC addresses, is filled in
    /// from what the switch knows of the port's station.
    Trace(TraceOptions),
    /// Waits for frames and says of each where it came from, where it went, and why not.
    ///
    /// Each frame is told once, as it comes in, and once more if it is dropped later. For scripts: --first ends with exit status 0 when there were as
    /// many, --timeout with 1 when there were not.
    Watch(WatchOptions),
    /// Wireshark's interfaces on the switch: install, remove.
    #[command(subcommand)]
    Extcap(ExtcapCommand),
    /// The overlay networks of several hosts, as this one knows them.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// The network of flannel's that this host has a subnet of, and its other hosts.
    Flannel,
    #[command(subcommand)]
    Lab(LabCommand),
    /// Has another vswitchd take over from the one that runs, with every connection.
    ///
    /// PROGRAM is started with the same file and --takeover. If it cannot go on, the one that runs does, and says why. Needs root, or the user of
    /// vswitchd.
    Upgrade {
        /// The new vswitchd.
        #[arg(value_name = "PROGRAM", value_hint = clap::ValueHint::ExecutablePath)]
        program: PathBuf,
    },
    /// Ends vswitchd and removes what it made, but for where programs run.
    ///
    /// A namespace that vswitchd made and in which programs run stays, with its devices. Says what was removed and what stays, and why.
    Shutdown {
        /// Leaves every device and namespace for the next start.
        #[arg(long)]
        keep: bool,
    },
    /// Prints what a shell needs to complete commands and names by Tab.
    ///
    /// For bash: vsctl completions bash > /etc/bash_completion.d/vsctl, or source <(vsctl completions bash).
    Completions { shell: clap_complete::Shell },
    /// Writes the man pages, one for each command, into a directory.
    #[command(hide = true)]
    Man { directory: PathBuf },
}

/// What changes bridges and what is on them.
#[derive(Debug, Subcommand)]
pub(super) enum Bridging {
    /// Makes a bridge.
    AddBr {
        name: BridgeName,
        /// Its MTU in bytes, 68 to 65535, with TAPs to 65521; 1500 by default.
        #[arg(long, value_name = "BYTES", value_parser = number)]
        mtu: Option<i64>,
        /// How long a MAC address is remembered, such as 300s or 5m.
        #[arg(long, value_name = "TIME")]
        ageing: Option<String>,
        /// Most MAC addresses that it remembers, 1 to 1048576; 8192 by default.
        #[arg(long, value_name = "N", value_parser = number)]
        max_macs: Option<i64>,
        /// What happens to STP, LACP, LLDP and the like: drop or pass.
        #[arg(long, value_name = "WHAT")]
        control_frames: Option<String>,
        #[command(flatten)]
        tree: StpOptions,
        /// An address of its gateway, such as 10.0.0.1/24; may be repeated.
        #[arg(long, value_name = "CIDR", value_parser = cidr)]
        address: Vec<IpNet>,
        /// The VLAN of its gateway; 1 by default.
        #[arg(long, value_name = "N", requires = "address")]
        gateway_vlan: Option<VlanId>,
        /// Its gateway gives addresses by DHCP.
        #[arg(long, requires = "address")]
        dhcp: bool,
        /// The uplink by which its stations reach the rest of the world.
        #[arg(long, value_name = "NAME", requires = "address", add = complete::uplinks())]
        uplink: Option<PortName>,
        /// The overlay network that it is a part of, with the bridges of other hosts that name it too.
        #[arg(long, value_name = "NAME")]
        overlay: Option<OverlayName>,
        /// That network is an encrypted one: WireGuard between hosts.
        #[arg(long, requires = "overlay")]
        encrypt: bool,
        /// Routes between it and other bridges that are open too.
        #[arg(long)]
        open: bool,
        /// A static route, such as "10.9.0.0/16 via 10.0.0.5"; may be repeated.
        #[arg(long, value_name = "ROUTE", requires = "address")]
        route: Vec<RouteSpec>,
    },
    /// Changes a bridge while frames pass: what is not named stays.
    SetBr {
        #[arg(add = complete::bridges())]
        name: BridgeName,
        #[command(flatten)]
        options: BridgeOptions,
    },
    /// Removes a bridge that has no ports.
    DelBr {
        #[arg(add = complete::bridges())]
        name: BridgeName,
    },
    /// Makes a port and attaches it to a bridge.
    AddPort {
        #[arg(add = complete::bridges())]
        bridge: BridgeName,
        name: PortName,
        #[command(flatten)]
        options: PortOptions,
    },
    /// Changes a port: what is not named stays.
    SetPort {
        #[arg(add = complete::ports())]
        name: PortName,
        #[command(flatten)]
        options: PortOptions,
        /// All VLANs: neither access port nor trunk.
        #[arg(long, conflicts_with_all = ["vlan", "trunk"])]
        all_vlans: bool,
    },
    /// Removes a port, and its device unless that is a link.
    DelPort {
        #[arg(add = complete::ports())]
        name: PortName,
    },
    /// Makes a VXLAN tunnel and attaches it to a bridge.
    AddVxlan {
        #[arg(add = complete::bridges())]
        bridge: BridgeName,
        name: PortName,
        #[command(flatten)]
        options: VxlanOptions,
    },
    /// Changes a tunnel while frames pass: what is not named stays.
    SetVxlan {
        #[arg(add = complete::tunnels())]
        name: PortName,
        /// A host to add to those that it reaches; may be repeated.
        #[arg(long, value_name = "IP", value_parser = address)]
        add_peer: Vec<IpAddr>,
        /// A host to remove; may be repeated.
        #[arg(long, value_name = "IP", value_parser = address)]
        del_peer: Vec<IpAddr>,
        /// A station known beforehand, instead of what was known of its MAC address; may be repeated.
        #[arg(long, value_name = "MAC=PEER[=IP]", value_parser = station)]
        add_static: Vec<StationSpec>,
        /// The MAC address of a station to forget; may be repeated.
        #[arg(long, value_name = "MAC")]
        del_static: Vec<Mac>,
        /// Whether MAC addresses are learned from what arrives: on or off.
        #[arg(long, value_name = "ON", value_parser = on_or_off)]
        learn: Option<bool>,
        /// Most frames a second out of the tunnel that go to many; 0 lifts the limit.
        #[arg(long, value_name = "N", value_parser = whole::<u32>)]
        bum_limit: Option<u32>,
    },
    /// Removes a tunnel.
    DelVxlan {
        #[arg(add = complete::tunnels())]
        name: PortName,
    },
    /// The MAC addresses that bridges know.
    Fdb {
        /// Of one bridge only.
        #[arg(add = complete::bridges())]
        bridge: Option<BridgeName>,
        /// Only those at this port, or behind this tunnel.
        #[arg(long, value_name = "NAME", add = complete::members())]
        port: Option<PortName>,
        /// Only this one.
        #[arg(long)]
        mac: Option<Mac>,
        /// Forgets those that were learned instead.
        #[arg(long)]
        flush: bool,
    },
}

/// What changes the ways between bridges and to the rest of the world.
#[derive(Debug, Subcommand)]
pub(super) enum Routing {
    /// Adds a static route to a bridge's gateway: a subnet behind a station that routes.
    AddRoute {
        #[arg(add = complete::bridges())]
        bridge: BridgeName,
        /// Such as 10.9.0.0/16 via 10.10.0.5, or default via 10.10.0.5.
        #[arg(value_name = "CIDR via IP", num_args = 1..=3, required = true)]
        route: Vec<String>,
    },
    /// Removes the static route to a subnet.
    DelRoute {
        #[arg(add = complete::bridges())]
        bridge: BridgeName,
        /// Such as 10.9.0.0/16; what add-route was given is understood as well.
        #[arg(value_name = "CIDR", num_args = 1..=3, required = true)]
        route: Vec<String>,
    },
    /// Makes an uplink: a way to the rest of the world.
    AddUplink {
        name: PortName,
        /// link (addresses of the switch's own on an interface) or host (the host's own sockets).
        #[arg(long)]
        kind: UplinkKindName,
        /// The interface of a link.
        #[arg(long, value_name = "IF")]
        device: Option<InterfaceName>,
        /// An address of a link, such as 192.0.2.10/24, or dhcp; one of each IP version may be given.
        #[arg(long, value_name = "CIDR")]
        address: Vec<String>,
        /// Who routes on from a link; one of each IP version may be given.
        #[arg(long, value_name = "IP")]
        gateway: Vec<String>,
        /// The MAC address of a link; one of the switch's own by default.
        #[arg(long)]
        mac: Option<Mac>,
        /// Of the host's own sockets, whether they do not lead into networks of the host's other containers; true by default.
        #[arg(long, value_name = "BOOL", value_parser = on_or_off)]
        isolate_bridges: Option<bool>,
    },
    /// Changes an uplink: what is not named stays.
    ///
    /// Sessions go on, but for those of an address that goes. Another kind, device or MAC address makes it anew.
    SetUplink {
        #[arg(add = complete::uplinks())]
        name: PortName,
        #[command(flatten)]
        options: UplinkOptions,
    },
    /// Removes an uplink that no bridge uses.
    DelUplink {
        #[arg(add = complete::uplinks())]
        name: PortName,
    },
    /// Publishes a port of an uplink: what is sent to it goes to a station.
    AddForward {
        #[arg(add = complete::uplinks())]
        uplink: PortName,
        /// Such as tcp/8080, or udp/5000-5100.
        #[arg(value_name = "PROTO/PORT[-PORT]")]
        port: String,
        /// Where the first port goes, such as 10.10.0.2:80; others go to those that follow.
        #[arg(value_name = "IP:PORT")]
        to: String,
        /// The one address of the uplink to publish it on, such as 127.0.0.1 of the host; all by default.
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
    },
    /// Publishes a port no more.
    DelForward {
        #[arg(add = complete::uplinks())]
        uplink: PortName,
        /// As it was given to add-forward; tcp6 or udp6 names the one that goes to an IPv6 address.
        #[arg(value_name = "PROTO/PORT[-PORT]")]
        port: String,
        /// As it was given to add-forward.
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
    },
}

/// Questions, and what is about the switch as a whole.
#[derive(Debug, Subcommand)]
pub(super) enum Plain {
    /// Lists the routes of a bridge's stations, or of all: subnets, static routes, uplinks.
    ListRoutes {
        #[arg(add = complete::bridges())]
        bridge: Option<BridgeName>,
    },
    /// Lists the bridges.
    ListBr,
    /// Lists the ports, of one bridge or of all.
    ListPorts {
        #[arg(add = complete::bridges())]
        bridge: Option<BridgeName>,
    },
    /// Lists the uplinks.
    ListUplinks,
    /// Lists the published ports.
    ListForwards,
    /// The sessions of the uplinks: both ends, state, seconds left, bytes.
    Sessions {
        /// Of one uplink only.
        #[arg(long, value_name = "NAME", add = complete::uplinks())]
        uplink: Option<PortName>,
    },
    /// The neighbours of a gateway, an uplink, or all (ARP, neighbour discovery).
    Neighbors {
        #[arg(value_name = "NAME", add = complete::interfaces())]
        interface: Option<PortName>,
    },
    /// The addresses that gateways have given out by DHCP: to whom, and for how long.
    Leases {
        #[arg(add = complete::bridges())]
        bridge: Option<BridgeName>,
    },
    /// Lists the tunnels, of one bridge or of all.
    ListVxlan {
        #[arg(add = complete::bridges())]
        bridge: Option<BridgeName>,
    },
    /// The spanning trees: root, and the role and state of each port.
    Stp {
        #[arg(add = complete::bridges())]
        bridge: Option<BridgeName>,
    },
    /// The whole switch on one screen, or one bridge.
    #[command(after_long_help = GLOSSARY)]
    Show {
        #[arg(add = complete::bridges())]
        bridge: Option<BridgeName>,
    },
    /// Reads switch.toml again and applies the difference.
    Reload,
    /// Prints the running switch as a switch.toml that recreates it.
    Export,
    /// What vsctl changed, so that the switch differs from switch.toml.
    ///
    /// Says what of it is left out, and why.
    Changes {
        /// Forgets what is left out because it does not fit switch.toml any more, and lists that.
        #[arg(long)]
        forget: bool,
    },
    /// Sets how much vswitchd logs until its next start.
    Log { level: LogLevel },
}
