use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{CommandFactory, Parser, Subcommand};
use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::ClientError;
use super::capture::Capture;
use super::options::{PortOptions, VxlanOptions, some, station};
use crate::api::{
    BridgeName, ForwardKey, InterfaceName, LogLevel, PortName, Request, StationSpec, UplinkKindName, VxlanChange, protocol_name,
};

/// Changes and explains a running vswitchd.
///
/// A change is all or nothing and survives a restart of vswitchd. Exit status: 0 done, 1 not done, with the reason on stderr,
/// 2 not a command. A vswitchd that has not answered in time may still do it.
#[derive(Debug, Parser)]
#[command(name = "vsctl", version)]
pub struct Arguments {
    /// The control socket of vswitchd.
    #[arg(long, global = true, value_name = "PATH", env = "VSWITCH_CONTROL", default_value = "/run/vswitch/control.sock")]
    pub control: PathBuf,
    /// Prints one JSON document instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// How long an answer may take, 1 to 86400; a capture, until it begins.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a bridge.
    AddBr {
        name: BridgeName,
        /// Its MTU in bytes, 68 to 65535; 1500 by default.
        #[arg(long, value_name = "BYTES")]
        mtu: Option<u32>,
        /// How long a MAC address is remembered, such as 300s or 5m.
        #[arg(long, value_name = "TIME")]
        ageing: Option<String>,
        /// Most MAC addresses that it remembers, 1 to 1048576; 8192 by default.
        #[arg(long, value_name = "N")]
        max_macs: Option<u32>,
        /// What happens to STP, LACP, LLDP and the like: drop or pass.
        #[arg(long, value_name = "WHAT")]
        control_frames: Option<String>,
        /// An address of its gateway, such as 10.0.0.1/24; may be repeated.
        #[arg(long, value_name = "CIDR")]
        address: Vec<IpNet>,
        /// The VLAN of its gateway; 1 by default.
        #[arg(long, value_name = "N", requires = "address")]
        gateway_vlan: Option<VlanId>,
        /// Its gateway gives addresses by DHCP.
        #[arg(long, requires = "address")]
        dhcp: bool,
        /// The uplink by which its stations reach the rest of the world.
        #[arg(long, value_name = "NAME", requires = "address")]
        uplink: Option<PortName>,
        /// Routes between it and other bridges that are open too.
        #[arg(long)]
        open: bool,
    },
    /// Removes a bridge that has no ports.
    DelBr { name: BridgeName },
    /// Lists the bridges.
    ListBr,
    /// Makes a port and attaches it to a bridge.
    AddPort {
        bridge: BridgeName,
        name: PortName,
        #[command(flatten)]
        options: PortOptions,
    },
    /// Changes a port: what is not named stays.
    SetPort {
        name: PortName,
        #[command(flatten)]
        options: PortOptions,
        /// All VLANs: neither access port nor trunk.
        #[arg(long, conflicts_with_all = ["vlan", "trunk"])]
        all_vlans: bool,
    },
    /// Removes a port, and its device unless that is a link.
    DelPort { name: PortName },
    /// Lists the ports, of one bridge or of all.
    ListPorts { bridge: Option<BridgeName> },
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
        #[arg(long, value_name = "BOOL")]
        isolate_bridges: Option<bool>,
    },
    /// Removes an uplink that no bridge uses.
    DelUplink { name: PortName },
    /// Lists the uplinks.
    ListUplinks,
    /// Publishes a port of an uplink: what is sent to it goes to a station.
    AddForward {
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
        uplink: PortName,
        /// As it was given to add-forward; tcp6 or udp6 names the one that goes to an IPv6 address.
        #[arg(value_name = "PROTO/PORT[-PORT]")]
        port: String,
        /// As it was given to add-forward.
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
    },
    /// Lists the published ports.
    ListForwards,
    /// The sessions of the uplinks: both ends, state, seconds left, bytes.
    Sessions {
        /// Of one uplink only.
        #[arg(long, value_name = "NAME")]
        uplink: Option<PortName>,
    },
    /// The neighbours that a bridge's gateway knows (ARP, neighbour discovery).
    Neighbors { bridge: BridgeName },
    /// Makes a VXLAN tunnel and attaches it to a bridge.
    AddVxlan {
        bridge: BridgeName,
        name: PortName,
        #[command(flatten)]
        options: VxlanOptions,
    },
    /// Changes a tunnel while frames pass: what is not named stays.
    SetVxlan {
        name: PortName,
        /// A host to add to those that it reaches; may be repeated.
        #[arg(long, value_name = "IP")]
        add_peer: Vec<IpAddr>,
        /// A host to remove; may be repeated.
        #[arg(long, value_name = "IP")]
        del_peer: Vec<IpAddr>,
        /// A station known beforehand, instead of what was known of its MAC address; may be repeated.
        #[arg(long, value_name = "MAC=PEER[=IP]", value_parser = station)]
        add_static: Vec<StationSpec>,
        /// The MAC address of a station to forget; may be repeated.
        #[arg(long, value_name = "MAC")]
        del_static: Vec<Mac>,
        /// Whether MAC addresses are learned from what arrives: on or off.
        #[arg(long, value_name = "ON", value_parser = BoolishValueParser::new())]
        learn: Option<bool>,
        /// Most frames a second out of the tunnel that go to many; 0 lifts the limit.
        #[arg(long, value_name = "N")]
        bum_limit: Option<u32>,
    },
    /// Removes a tunnel.
    DelVxlan { name: PortName },
    /// Lists the tunnels, of one bridge or of all.
    ListVxlan { bridge: Option<BridgeName> },
    /// The whole switch on one screen.
    Show,
    /// The MAC addresses that a bridge knows.
    Fdb {
        bridge: BridgeName,
        /// Forgets them instead.
        #[arg(long)]
        flush: bool,
    },
    /// Counters, and drops by reason.
    Stats {
        port: Option<PortName>,
        /// Of a container of Docker's, by its name.
        #[arg(long, value_name = "NAME", conflicts_with = "port")]
        container: Option<String>,
    },
    /// Shows or saves the frames of ports, as pcapng.
    ///
    /// Without -w, tcpdump shows them. Ctrl-C ends the capture and its file.
    Capture {
        /// A port to capture; all if none is named. May be repeated.
        #[arg(long, value_name = "NAME")]
        port: Vec<PortName>,
        /// A container of Docker's to capture, on every network of the switch that it is on. May be repeated.
        #[arg(long, value_name = "NAME")]
        container: Vec<String>,
        /// What to capture, in tcpdump's language (man pcap-filter).
        #[arg(long, value_name = "EXPR", default_value = "")]
        filter: String,
        /// Ends after so many packets.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Ends after so many seconds.
        #[arg(long, value_name = "N")]
        seconds: Option<u64>,
        /// Writes a pcapng file; - is stdout, as for `| wireshark -k -i -`.
        #[arg(short, value_name = "FILE")]
        write: Option<PathBuf>,
    },
    /// Reads switch.toml again and applies the difference.
    Reload,
    /// Prints the running switch as a switch.toml that recreates it.
    Export,
    /// What vsctl changed, so that the switch differs from switch.toml, and what of it is left out, with the reason.
    Changes {
        /// Forgets what is left out because it does not fit switch.toml any more, and lists that.
        #[arg(long)]
        forget: bool,
    },
    /// Sets how much vswitchd logs until its next start.
    Log { level: LogLevel },
    /// Ends vswitchd and removes what it made, but for namespaces in which programs run; says what was removed and what stays.
    Shutdown {
        /// Leaves every device and namespace for the next start.
        #[arg(long)]
        keep: bool,
    },
    /// Prints a shell's completions, such as for /etc/bash_completion.d/vsctl.
    Completions { shell: clap_complete::Shell },
}

/// What a command line comes to.
#[derive(Debug)]
pub(super) enum Action {
    Ask(Request),
    Shutdown {
        keep: bool,
    },
    Capture(Capture),
    /// A text to print that needs no vswitchd.
    Print(Vec<u8>),
}

impl Arguments {
    pub(super) fn action(self) -> Result<Action, ClientError> {
        Ok(Action::Ask(match self.command {
            Command::AddBr { name, mtu, ageing, max_macs, control_frames, address, gateway_vlan, dhcp, uplink, open } => {
                Request::AddBridge(spec(json!({
                    "name": name, "mtu": mtu, "ageing": ageing, "max-macs": max_macs, "control-frames": control_frames,
                    "addresses": address, "gateway-vlan": gateway_vlan, "dhcp": dhcp, "uplink": uplink, "isolated": !open,
                }))?)
            }
            Command::AddUplink { name, kind, device, address, gateway, mac, isolate_bridges } => {
                Request::AddUplink(spec(json!({
                    "name": name, "kind": kind, "device": device, "address": some(address), "gateway": some(gateway), "mac": mac,
                    "isolate-bridges": isolate_bridges,
                }))?)
            }
            Command::DelUplink { name } => Request::DeleteUplink(name),
            Command::ListUplinks => Request::ListUplinks,
            Command::AddForward { uplink, port, to, listen } => {
                let key = forward_key(uplink, &port, listen.as_deref())?;
                let (protocol, port) = (protocol_name(key.protocol), key.ports.to_string());
                let table = json!({ "uplink": key.uplink, "protocol": protocol, "port": port, "listen": key.listen, "to": to });
                Request::AddForward(spec(table)?)
            }
            Command::DelForward { uplink, port, listen } => {
                Request::DeleteForward(forward_key(uplink, &port, listen.as_deref())?)
            }
            Command::ListForwards => Request::ListForwards,
            Command::Sessions { uplink } => Request::Sessions(uplink),
            Command::Neighbors { bridge } => Request::Neighbors(bridge),
            Command::DelBr { name } => Request::DeleteBridge(name),
            Command::ListBr => Request::ListBridges,
            Command::AddPort { bridge, name, options } => Request::AddPort(spec(options.table(&bridge, &name))?),
            Command::SetPort { name, options, all_vlans } => Request::SetPort(name, options.change(all_vlans)),
            Command::DelPort { name } => Request::DeletePort(name),
            Command::ListPorts { bridge } => Request::ListPorts(bridge),
            Command::AddVxlan { bridge, name, options } => Request::AddVxlan(spec(options.table(&bridge, &name))?),
            Command::SetVxlan { name, add_peer, del_peer, add_static, del_static, learn, bum_limit } => {
                let (add_peers, remove_peers) = (add_peer, del_peer);
                let (add_stations, remove_stations) = (add_static, del_static);
                let change = VxlanChange { add_peers, remove_peers, add_stations, remove_stations, learn, bum_limit };
                Request::SetVxlan(name, change)
            }
            Command::DelVxlan { name } => Request::DeleteVxlan(name),
            Command::ListVxlan { bridge } => Request::ListVxlans(bridge),
            Command::Show => Request::Show,
            Command::Fdb { bridge, flush: false } => Request::Fdb(bridge),
            Command::Fdb { bridge, flush: true } => Request::FlushFdb(bridge),
            Command::Stats { port, container: None } => Request::Stats(port),
            Command::Stats { container: Some(name), .. } => Request::ContainerStats(name),
            Command::Capture { port, container, filter, count, seconds, write } => {
                return Ok(Action::Capture(Capture { ports: port, containers: container, filter, count, seconds, write }));
            }
            Command::Reload => Request::Reload,
            Command::Export => Request::Export,
            Command::Changes { forget } => Request::Changes { forget },
            Command::Log { level } => Request::SetLog(level),
            Command::Shutdown { keep } => return Ok(Action::Shutdown { keep }),
            Command::Completions { shell } => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "vsctl", &mut text);
                return Ok(Action::Print(text));
            }
        }))
    }
}

fn forward_key(uplink: PortName, port: &str, listen: Option<&str>) -> Result<ForwardKey, ClientError> {
    ForwardKey::parse(uplink, port, listen).map_err(|error| ClientError::Argument(error.to_string()))
}

/// Reads a table in which what was not said is null.
fn spec<T: DeserializeOwned>(table: Value) -> Result<T, ClientError> {
    let said: Map<String, Value> = match table {
        Value::Object(map) => map.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    };
    serde_json::from_value(said.into()).map_err(|error| ClientError::Argument(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BridgeSpec, PortChange, PortSpec, VlanChange, VlanMode, VxlanSpec};

    fn action(line: &str) -> Action {
        let words = std::iter::once("vsctl").chain(line.split_whitespace());
        Arguments::try_parse_from(words).unwrap().action().unwrap()
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_port_is_what_the_file_would_make_of_it() {
        let line = "add-port br0 a --netns x --mac 02:00:00:00:00:0a --address 10.0.0.2/24 --address fd00::2/64 --trunk 20,10 --native 1";
        let Action::Ask(Request::AddPort(spec)) = action(line) else { panic!("{line}") };
        let text = "name = \"a\"\nbridge = \"br0\"\nnetns = \"x\"\nmac = \"02:00:00:00:00:0a\"\n\
                    addresses = [\"10.0.0.2/24\", \"fd00::2/64\"]\ntrunk = [10, 20]\nnative = 1";
        assert_eq!(spec, toml::from_str::<PortSpec>(text).unwrap());
        let Action::Ask(Request::AddPort(spec)) = action("add-port br0 a") else { panic!("{line}") };
        assert_eq!((spec.vlans, spec.guard, spec.offload, spec.ifname.as_str()), (VlanMode::All, false, true, "a"));
    }

    #[test]
    fn a_bridge_is_what_the_file_would_make_of_it() {
        let Action::Ask(Request::AddBridge(spec)) = action("add-br br0 --mtu 9000 --ageing 5m") else { panic!() };
        assert_eq!(spec, toml::from_str::<BridgeSpec>("name = \"br0\"\nmtu = 9000\nageing = \"300s\"").unwrap());
    }

    #[test]
    fn a_change_holds_only_what_was_said() {
        let Action::Ask(Request::SetPort(_, change)) = action("set-port a --vlan 7 --guard on") else { panic!() };
        assert_eq!(
            change,
            PortChange {
                vlans: Some(VlanChange::Access(VlanId::try_from(7).unwrap())),
                guard: Some(true),
                ..PortChange::default()
            }
        );
        let Action::Ask(Request::SetPort(_, change)) = action("set-port a --all-vlans") else { panic!() };
        assert_eq!(change, PortChange { vlans: Some(VlanChange::All), ..PortChange::default() });
    }

    #[test]
    fn a_tunnel_is_what_the_file_would_make_of_it() {
        let line = "add-vxlan br0 vx0 --vni 42 --local 192.0.2.1 --peer 192.0.2.3 --peer 192.0.2.2 --port 8472 --learn off \
                    --static 02:00:00:00:00:0a=192.0.2.2=10.0.0.9";
        let Action::Ask(Request::AddVxlan(spec)) = action(line) else { panic!("{line}") };
        let text = "name = \"vx0\"\nbridge = \"br0\"\nvni = 42\nlocal = \"192.0.2.1\"\npeers = [\"192.0.2.2\", \"192.0.2.3\"]\n\
                    port = 8472\nlearn = false\nstatic = [{ mac = \"02:00:00:00:00:0a\", peer = \"192.0.2.2\", ip = \"10.0.0.9\" }]";
        assert_eq!(spec, toml::from_str::<VxlanSpec>(text).unwrap());
        let words = "vsctl add-vxlan br0 vx0 --vni 16777216 --local 192.0.2.1".split_whitespace();
        let error = Arguments::try_parse_from(words).unwrap().action().unwrap_err().to_string();
        assert!(error.contains("16777216 is not a VNI: use a number from 0 to 16777215"), "{error}");
    }

    #[test]
    fn what_contradicts_itself_is_no_command() {
        for line in [
            "add-port br0 a --vlan 1 --trunk 2",
            "add-port br0 a --native 2",
            "add-port br0",
            "stats a --container b",
            "frobnicate",
            "",
        ] {
            let words = std::iter::once("vsctl").chain(line.split_whitespace());
            assert_eq!(Arguments::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
