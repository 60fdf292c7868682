//! The command line, and what it comes to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::ClientError;
use super::capture::{Capture, FrameWatch};
use super::command::{Bridging, Command, Plain, Routing};
use super::complete;
use super::connection::timeout;
use super::events::Events;
use super::extcap::ExtcapCommand;
use super::help::arranged;
use super::options::some;
use super::stats::{How, Stats};
use super::trace::Trace;
use api::{FdbFilter, ForwardKey, Netns, PortName, Request, RouteSpec, UplinkError, VxlanChange, from_table, protocol_name};

/// Where vswitchd is asked if nothing else is said.
pub(super) const DEFAULT_CONTROL: &str = "/run/vswitch/control.sock";

/// Changes and explains a running vswitchd.
///
/// A change is all or nothing and survives a restart of vswitchd. Exit status: 0 done, 1 not done, with the reason on stderr,
/// 2 not a command. A vswitchd that has not answered in time may still do it.
#[derive(Debug, Parser)]
#[command(name = "vsctl", version)]
pub struct Arguments {
    /// The control socket of vswitchd.
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "PATH", env = "VSWITCH_CONTROL", default_value = DEFAULT_CONTROL)]
    pub control: PathBuf,
    /// Prints one JSON document instead of text.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// How long an answer may take, in seconds or such as 5m, 60 s by default; a capture, until it begins. Of watch: how long it waits for frames.
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "TIME", value_parser = timeout)]
    pub timeout: Option<Duration>,
    #[command(subcommand)]
    command: Command,
}

/// Above the options that every command has.
const GLOBAL: &str = "Global options";

/// What a command line comes to.
#[derive(Debug)]
pub(super) enum Action {
    Ask(Request),
    Shutdown {
        keep: bool,
    },
    Capture(Capture),
    Extcap(ExtcapCommand),
    Lab(lab::LabCommand),
    Stats(Stats),
    Events(Events),
    Trace(Trace),
    Watch(FrameWatch),
    Top,
    /// The man pages, for this directory.
    Man(PathBuf),
    /// A text to print that needs no vswitchd.
    Print(Vec<u8>),
}

impl Arguments {
    /// Reads the command line of this process.
    ///
    /// # Errors
    /// What is wrong with it, or the help that was asked for.
    pub fn read() -> Result<Self, clap::Error> {
        Self::from_words(std::env::args_os())
    }

    fn from_words(words: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>) -> Result<Self, clap::Error> {
        let matches = Self::arranged().try_get_matches_from(words)?;
        Self::from_arg_matches(&matches)
    }

    /// The commands, with their help in groups.
    pub fn arranged() -> clap::Command {
        arranged(Self::command())
    }

    pub(super) fn action(self) -> Result<Action, ClientError> {
        Ok(match self.command {
            Command::Bridging(command) => Action::Ask(command.request()?),
            Command::Routing(command) => Action::Ask(command.request()?),
            Command::Plain(command) => Action::Ask(command.request()),
            Command::Top => Action::Top,
            Command::Events { follow, kind } => Action::Events(Events { follow, kinds: kind }),
            Command::Stats { ports, container, interval, count, since } => {
                let request = container.map_or(Request::Stats(ports), Request::ContainerStats);
                let how = match (interval, since) {
                    (Some(interval), _) => How::Rates(interval, count.unwrap_or(1)),
                    (None, Some(path)) => How::Since(path),
                    (None, None) => How::Total,
                };
                Action::Stats(Stats { request, how })
            }
            Command::Cluster(command) => Action::Ask(Request::Cluster(command.question())),
            Command::Flannel => Action::Ask(Request::Flannel),
            Command::Extcap(command) => Action::Extcap(command),
            Command::Lab(command) => Action::Lab(command),
            Command::Capture(options) => Action::Capture(options.capture()),
            Command::Trace(options) => Action::Trace(options.trace()?),
            Command::Watch(options) => Action::Watch(options.watch(self.timeout)?),
            Command::Upgrade { program } => {
                // vswitchd is in another directory. An empty word is no path anywhere.
                Action::Ask(Request::Upgrade(std::path::absolute(&program).unwrap_or(program)))
            }
            Command::Shutdown { keep } => Action::Shutdown { keep },
            Command::Completions { shell } => return complete::registration(shell).map(Action::Print),
            Command::Man { directory } => Action::Man(directory),
        })
    }
}

impl Bridging {
    fn request(self) -> Result<Request, ClientError> {
        Ok(match self {
            Self::AddBr {
                name,
                mtu,
                ageing,
                max_macs,
                control_frames,
                tree,
                address,
                gateway_vlan,
                dhcp,
                uplink,
                overlay,
                encrypt,
                open,
                route,
            } => Request::AddBridge(spec(json!({
                "name": name, "mtu": mtu, "ageing": ageing, "max-macs": max_macs, "control-frames": control_frames,
                "addresses": address, "gateway-vlan": gateway_vlan, "dhcp": dhcp, "uplink": uplink, "isolated": !open,
                "routes": route, "overlay": overlay, "encrypt": encrypt, "stp": tree.stp, "stp-priority": tree.stp_priority,
            }))?),
            Self::SetBr { name, options } => Request::SetBridge(name, options.patch()),
            Self::DelBr { name } => Request::DeleteBridge(name),
            Self::AddPort { bridge, name, options } => Request::AddPort(spec(options.table(&bridge, &name))?),
            Self::SetPort { name, options, all_vlans } => Request::SetPort(name, options.patch(all_vlans)),
            Self::DelPort { name } => Request::DeletePort(name),
            Self::AddVxlan { bridge, name, options } => Request::AddVxlan(spec(options.table(&bridge, &name))?),
            Self::SetVxlan { name, add_peer, del_peer, add_static, del_static, learn, bum_limit } => {
                let (add_peers, remove_peers) = (add_peer, del_peer);
                let (add_stations, remove_stations) = (add_static, del_static);
                let change = VxlanChange { add_peers, remove_peers, add_stations, remove_stations, learn, bum_limit };
                Request::SetVxlan(name, change)
            }
            Self::DelVxlan { name } => Request::DeleteVxlan(name),
            Self::Fdb { bridge, port, mac, flush } => {
                let filter = FdbFilter { bridge, port, mac };
                if flush { Request::FlushFdb(filter) } else { Request::Fdb(filter) }
            }
        })
    }
}

impl Routing {
    fn request(self) -> Result<Request, ClientError> {
        Ok(match self {
            Self::AddRoute { bridge, route } => Request::AddRoute(bridge, parsed(&route.join(" "))?),
            Self::DelRoute { bridge, route } => {
                let to = match &route[..] {
                    [to] => RouteSpec::destination(to, false).map_err(|error| ClientError::Argument(error.to_string()))?,
                    words => parsed(&words.join(" "))?.to,
                };
                Request::DeleteRoute(bridge, to)
            }
            Self::AddUplink { name, kind, device, address, gateway, mac, isolate_bridges } => {
                Request::AddUplink(spec(json!({
                    "name": name, "kind": kind, "device": device, "address": some(address), "gateway": some(gateway), "mac": mac,
                    "isolate-bridges": isolate_bridges,
                }))?)
            }
            Self::SetUplink { name, options } => Request::SetUplink(name, options.patch()),
            Self::DelUplink { name } => Request::DeleteUplink(name),
            Self::AddForward { uplink, port, to, listen } => {
                let key = forward_key(uplink, &port, listen.as_deref())?;
                if to.parse::<SocketAddr>().is_err() {
                    return Err(ClientError::Argument(format!("`to`: {}", UplinkError::Target(to))));
                }
                let (protocol, port) = (protocol_name(key.protocol), key.ports.to_string());
                let table = json!({ "uplink": key.uplink, "protocol": protocol, "port": port, "listen": key.listen, "to": to });
                Request::AddForward(spec(table)?)
            }
            Self::DelForward { uplink, port, listen } => Request::DeleteForward(forward_key(uplink, &port, listen.as_deref())?),
        })
    }
}

impl Plain {
    fn request(self) -> Request {
        match self {
            Self::ListRoutes { bridge } => Request::ListRoutes(bridge),
            Self::ListBr => Request::ListBridges,
            Self::ListPorts { bridge } => Request::ListPorts(bridge),
            Self::ListUplinks => Request::ListUplinks,
            Self::ListForwards => Request::ListForwards,
            Self::ListVxlan { bridge } => Request::ListVxlans(bridge),
            Self::Sessions { uplink } => Request::Sessions(uplink),
            Self::Neighbors { interface } => Request::Neighbors(interface),
            Self::Leases { bridge } => Request::Leases(bridge),
            Self::Stp { bridge } => Request::Stp(bridge),
            Self::Show { bridge: None } => Request::Show,
            Self::Show { bridge: Some(bridge) } => Request::ShowBridge(bridge),
            Self::Reload => Request::Reload,
            Self::Export => Request::Export,
            Self::Changes { forget } => Request::Changes { forget },
            Self::Log { level } => Request::SetLog(level),
        }
    }
}

fn parsed(text: &str) -> Result<RouteSpec, ClientError> {
    text.parse().map_err(|error: api::RouteError| ClientError::Argument(error.to_string()))
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
    from_table(said).map_err(ClientError::Argument)
}

/// A namespace for a device. Elsewhere `none` takes something away, which nothing does to a namespace.
pub(super) fn netns(text: &str) -> Result<Netns, String> {
    if text == "none" {
        let advice =
            "leave --netns out at add-port for a device on the host, or write /run/netns/none if a namespace is called so";
        return Err(format!("a device is always in a namespace: {advice}"));
    }
    text.parse().map_err(|error: api::SpecError| error.to_string())
}

#[cfg(test)]
mod tests {
    use packet::VlanId;

    use super::*;
    use api::{BridgeSpec, PortSpec, VlanMode, VxlanSpec};

    fn action(line: &str) -> Action {
        let words = std::iter::once("vsctl").chain(line.split_whitespace());
        Arguments::from_words(words).unwrap().action().unwrap()
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::arranged().debug_assert();
    }

    #[test]
    fn a_port_is_what_the_file_would_make_of_it() {
        let line = "add-port br0 a --netns x --mac 02:00:00:00:00:0a --address 10.0.0.2/24 --address fd00::2/64 --trunk 20,10 --native 1";
        let Action::Ask(Request::AddPort(spec)) = action(line) else { panic!("{line}") };
        let text = "name = \"a\"\nbridge = \"br0\"\nnetns = \"x\"\nmac = \"02:00:00:00:00:0a\"\n\
                    addresses = [\"10.0.0.2/24\", \"fd00::2/64\"]\ntrunk = [10, 20]\nnative = 1";
        assert_eq!(spec, toml::from_str::<PortSpec>(text).unwrap());
        let Action::Ask(Request::AddPort(spec)) = action("add-port br0 a") else { panic!("{line}") };
        assert_eq!((spec.vlans, spec.policy.guard, spec.offload, spec.ifname.as_str()), (VlanMode::All, false, true, "a"));
    }

    #[test]
    fn a_bridge_is_what_the_file_would_make_of_it() {
        let Action::Ask(Request::AddBridge(spec)) = action("add-br br0 --mtu 9000 --ageing 5m") else { panic!() };
        assert_eq!(spec, toml::from_str::<BridgeSpec>("name = \"br0\"\nmtu = 9000\nageing = \"300s\"").unwrap());
    }

    #[test]
    fn a_change_holds_only_what_was_said() {
        let changed = |line: &str| {
            let Action::Ask(Request::SetPort(_, patch)) = action(line) else { panic!("{line}") };
            Value::Object(patch.0)
        };
        let vlans = |vlan: Value| json!({ "vlan": vlan, "trunk": null, "native": null, "guard": true });
        assert_eq!(changed("set-port a --vlan 7 --guard on"), vlans(json!(7)));
        assert_eq!(changed("set-port a --all-vlans --guard on"), vlans(Value::Null));
        assert_eq!(changed("set-port a"), json!({}));
        assert_eq!(changed("set-port a --down"), json!({ "down": true }));
        assert_eq!(changed("set-port a --up"), json!({ "down": false }));
        let limits = json!({ "broadcast-limit": 9, "send-rate": "1mbit" });
        assert_eq!(changed("set-port a --broadcast-limit 9 --send-rate 1mbit"), limits);
    }

    fn plain_port() -> PortSpec {
        toml::from_str("name = \"a\"\nbridge = \"br0\"").unwrap()
    }

    #[test]
    fn a_limit_can_be_lifted() {
        let limited = "name = \"a\"\nbridge = \"br0\"\nbroadcast-limit = 5\nsend-rate = \"1mbit\"\nreceive-rate = \"2mbit\"";
        let limited: PortSpec = toml::from_str(limited).unwrap();
        let Action::Ask(Request::SetPort(_, patch)) =
            action("set-port a --broadcast-limit 0 --send-rate none --receive-rate none")
        else {
            panic!()
        };
        assert_eq!(limited.changed(&patch).unwrap(), plain_port());
        let Action::Ask(Request::SetPort(_, patch)) = action("set-port a --broadcast-limit none --send-rate 3mbit") else {
            panic!()
        };
        let changed = limited.changed(&patch).unwrap().policy;
        assert_eq!((changed.broadcast_limit, changed.send_rate), (None, "3mbit".parse().ok()));
        let Action::Ask(Request::SetPort(_, patch)) = action("set-port a --stp-cost 5 --stp-priority none --stp-edge off")
        else {
            panic!()
        };
        assert_eq!(Value::Object(patch.0), json!({ "stp-cost": 5, "stp-priority": null, "stp-edge": false }));
        assert!(wrong("set-port a --send-rate 0").contains("is no rate"));
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
        let error = Arguments::from_words(words).unwrap().action().unwrap_err().to_string();
        assert!(error.contains("16777216 is not a VNI: use a number from 0 to 16777215"), "{error}");
    }

    /// What is told about a word that cannot be meant.
    fn wrong(line: &str) -> String {
        let words = std::iter::once("vsctl").chain(line.split_whitespace());
        match Arguments::from_words(words) {
            Ok(arguments) => arguments.action().unwrap_err().to_string(),
            Err(error) => {
                assert_eq!(error.kind(), clap::error::ErrorKind::ValueValidation, "{line}: {error}");
                error.to_string().lines().next().unwrap_or_default().to_owned()
            }
        }
    }

    #[test]
    fn a_word_that_cannot_be_meant_is_told_with_what_would_be_right() {
        for (line, part) in [
            ("add-port br0 a --vlan -1", "-1 is not a VLAN: use a number from 1 to 4094"),
            ("add-port br0 a --vlan x", "\"x\" is not a VLAN: use a number from 1 to 4094"),
            ("set-port a --vlan 70000", "70000 is not a VLAN"),
            ("set-port a --trunk 9-1", "9-1 goes backwards: write 1-9"),
            ("add-port br0 a --address 10.0.0.1", "\"10.0.0.1\" has no prefix length: add it, such as /24"),
            ("add-port br0 a --guard maybe", "\"maybe\" is neither on nor off"),
            ("set-port a --broadcast-limit -5", "-5 is out of range: use a number from 0 to 4294967295"),
            ("add-br br0 --mtu -5", "MTU -5 of bridge \"br0\" is out of range: use 68 to 65535"),
            ("add-br br0 --mtu big", "\"big\" is not a whole number"),
            ("add-br br0 --ageing 300", "`ageing`: 300 has no unit: write \"300s\" if seconds are meant"),
            ("add-br br0 --control-frames flood", "`control-frames` is \"flood\": write \"drop\" or \"pass\""),
            ("add-br br0 --stp on", "`stp` is \"on\": write \"rstp\", \"stp\" or \"off\""),
            ("add-br br0 --stp-priority 5", "`stp-priority` is 5: write a multiple of 4096"),
            ("set-port a --stp-cost 0", "\"0\" is not a number from 1 to 200000000"),
            ("set-port a --stp-edge maybe", "\"maybe\" is neither auto nor on nor off"),
            ("add-vxlan br0 v --vni 1 --local 192.0.2.1 --port 70000", "`port` of vxlan \"v\" is 70000: use 4789"),
            ("add-vxlan br0 v --vni 1 --local 192.0.2.1/24", "has a prefix length, and one address is meant"),
            ("add-vxlan br0 v --vni -1 --local 192.0.2.1", "-1 is not a VNI: use a number from 0 to 16777215"),
            ("add-forward wan tcp/70000 10.0.0.2:80", "\"70000\" is not a port or a range of ports"),
            ("add-uplink wan --kind link --device e --address 192.0.2.1", "has no prefix length: add it, such as /24"),
            ("add-route br0 10.9.0.0/16", "is not a route: write one such as \"10.9.0.0/16 via 10.10.0.5\""),
            ("stats --interval soon", "\"soon\" is not a time"),
            ("capture --count -1", "-1 is out of range"),
            ("--timeout 0 show", "use 1 to 86400 seconds"),
        ] {
            let told = wrong(line);
            assert!(told.contains(part), "{line}: {told}");
            assert!(!told.contains("expected") && !told.contains("invalid digit"), "{told}");
        }
    }

    #[test]
    fn vlans_of_a_trunk_may_be_ranges() {
        let Action::Ask(Request::AddPort(spec)) = action("add-port br0 a --trunk 1-10,20") else { panic!() };
        let VlanMode::Trunk { allowed, .. } = spec.vlans else { panic!() };
        assert_eq!(allowed.len(), 11);
        let Action::Ask(Request::SetPort(_, change)) = action("set-port a --trunk 3,5-7 --trunk 9") else { panic!() };
        let VlanMode::Trunk { allowed, native: None } = plain_port().changed(&change).unwrap().vlans else { panic!() };
        assert_eq!(allowed.into_iter().map(VlanId::number).collect::<Vec<_>>(), [3, 5, 6, 7, 9]);
    }

    #[test]
    fn none_takes_addresses_from_a_port_which_may_then_be_a_link() {
        let given = "mac = \"02:00:00:00:00:0a\"\naddresses = [\"10.0.0.2/24\", \"fd00::2/64\"]";
        let port: PortSpec = toml::from_str(&format!("name = \"a\"\nbridge = \"br0\"\n{given}")).unwrap();
        let changed = |line: &str| {
            let Action::Ask(Request::SetPort(_, change)) = action(line) else { panic!() };
            port.changed(&change).map_err(|error| error.to_string())
        };
        let bare = changed("set-port a --address none").unwrap();
        assert_eq!((bare.addresses.len(), bare.mac), (0, port.mac));
        assert_eq!(changed("set-port a --mac none").unwrap(), PortSpec { mac: None, ..port.clone() });
        let link = changed("set-port a --kind link --device eth1 --mac none --address none").unwrap();
        assert_eq!((link.kind, link.ifname.as_str(), link.mac), (api::PortKind::Link, "eth1", None));
        let refused = changed("set-port a --kind link --device eth1 --mac none").unwrap_err();
        let sentence =
            "port \"a\" of kind link takes an interface as it is: leave out `addresses` (vsctl set-port: --address none)";
        assert_eq!(refused, sentence);
        let mixed = changed("set-port a --address none --address 10.0.0.3/24").unwrap_err();
        assert!(mixed.contains("\"none\" is not an address with its prefix length"), "{mixed}");
        let Action::Ask(Request::AddPort(spec)) = action("add-port br0 a --mac none --address none") else { panic!() };
        assert_eq!((spec.mac, spec.addresses.len()), (None, 0));
    }

    #[test]
    fn a_change_of_a_bridge_or_uplink_holds_the_keys_that_were_said() {
        let Action::Ask(Request::SetBridge(_, patch)) = action("set-br br0 --mtu 9000 --uplink none --isolated off") else {
            panic!()
        };
        assert_eq!(Value::Object(patch.0), json!({ "mtu": 9000, "uplink": null, "isolated": false }));
        let Action::Ask(Request::SetBridge(_, patch)) = action("set-br br0 --stp rstp --stp-priority 0") else { panic!() };
        assert_eq!(Value::Object(patch.0), json!({ "stp": "rstp", "stp-priority": 0 }));
        let Action::Ask(Request::SetBridge(_, patch)) = action("set-br br0 --address none") else { panic!() };
        assert_eq!(Value::Object(patch.0), json!({ "addresses": [] }));
        let Action::Ask(Request::SetUplink(_, patch)) = action("set-uplink wan --address dhcp") else { panic!() };
        assert_eq!(Value::Object(patch.0), json!({ "address": ["dhcp"], "gateway": null }));
        let Action::Ask(Request::SetUplink(_, patch)) = action("set-uplink wan --mac none") else { panic!() };
        assert_eq!(Value::Object(patch.0), json!({ "mac": null }));
        let Action::Ask(Request::SetUplink(_, patch)) = action("set-uplink wan --kind host") else { panic!() };
        assert_eq!(
            Value::Object(patch.0),
            json!({ "kind": "host", "device": null, "address": null, "gateway": null, "mac": null })
        );
    }

    #[test]
    fn routes_are_typed_as_for_ip_route() {
        let Action::Ask(Request::AddRoute(_, route)) = action("add-route br0 10.9.0.0/16 via 10.10.0.5") else { panic!() };
        assert_eq!(route.to_string(), "10.9.0.0/16 via 10.10.0.5");
        for line in ["del-route br0 10.9.0.0/16", "del-route br0 10.9.0.0/16 via 10.10.0.5"] {
            let Action::Ask(Request::DeleteRoute(_, to)) = action(line) else { panic!() };
            assert_eq!(to.to_string(), "10.9.0.0/16");
        }
    }

    #[test]
    fn what_contradicts_itself_is_no_command() {
        for line in [
            "add-port br0 a --vlan 1 --trunk 2",
            "add-port br0 a --native 2",
            "add-port br0",
            "stats a --container b",
            "stats a --interval 1s --since x",
            "set-port a --up --down",
            "frobnicate",
            "",
        ] {
            let words = std::iter::once("vsctl").chain(line.split_whitespace());
            assert_eq!(Arguments::from_words(words).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
