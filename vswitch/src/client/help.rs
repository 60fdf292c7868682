//! The overview of all commands, in groups.

use std::fmt::Write;

use clap::Command;

/// The groups, and the commands in each. The last one has all others.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Bridges", &["add-br", "set-br", "del-br", "list-br", "add-route", "del-route", "list-routes"]),
    ("Ports", &["add-port", "set-port", "del-port", "list-ports"]),
    ("Tunnels to other hosts", &["add-vxlan", "set-vxlan", "del-vxlan", "list-vxlan", "cluster", "flannel"]),
    (
        "Uplinks and published ports",
        &["add-uplink", "set-uplink", "del-uplink", "list-uplinks", "add-forward", "del-forward", "list-forwards"],
    ),
    (
        "What goes on",
        &[
            "show",
            "stats",
            "top",
            "events",
            "trace",
            "watch",
            "capture",
            "extcap",
            "fdb",
            "stp",
            "neighbors",
            "leases",
            "sessions",
        ],
    ),
    ("To learn", &["lab"]),
    ("The switch itself", &[]),
];

/// The command with its help in groups. Numbers may be negative everywhere, so that they are refused by what they stand for.
pub(super) fn arranged(command: Command) -> Command {
    let groups = groups(&command);
    let template = format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{groups}\nGlobal options:\n{{options}}");
    let numbers = |arg: clap::Arg| if arg.get_action().takes_values() { arg.allow_negative_numbers(true) } else { arg };
    command.help_template(template).mut_args(numbers).mut_subcommands(|sub| sub.mut_args(numbers))
}

fn groups(command: &Command) -> String {
    let visible: Vec<&Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    let named = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let width = visible.iter().map(|sub| sub.get_name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (heading, names) in GROUPS {
        let chosen = names.iter().filter_map(|name| visible.iter().find(|sub| sub.get_name() == *name));
        let rest = visible.iter().filter(|sub| names.is_empty() && !named(sub.get_name()));
        // Writing into a string cannot fail.
        let _ = writeln!(text, "\n{heading}:");
        for sub in chosen.chain(rest) {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {:<width$}  {about}", sub.get_name());
        }
    }
    text
}

/// What the words of `vsctl show` mean.
pub(super) const GLOSSARY: &str = "\
The words of `show`:

  up                its device is up and has carrier
  down, no carrier  its device is set down; nobody is at the other end
  unplugged         by `set-port --down`
  by vsctl          made or changed at run time: it is not as switch.toml has it
  Docker's          made for a network or container of Docker's
  mtu               the longest packet, in bytes, without its Ethernet header
  its devices N     devices of the bridge have less, for a tunnel of it carries no more
  N of M MACs       addresses that the bridge has learned, and how many it may (`fdb` lists them)
  ageing            how long an address is remembered after its last frame
  control frames    what becomes of STP, LACP, LLDP and the like: drop or pass
  rstp, stp         the spanning tree that it is part of (`stp` says how that stands)
  discarding        the spanning tree blocks the port; learning: it begins to forward
  gateway           the switch's own addresses on the bridge, and its MAC address
  dhcp              the gateway gives out addresses (`leases` lists them)
  uplink            by which the bridge's stations reach the rest of the world
  overlay           bridges of other hosts that name it too are one segment with it (`cluster`)
  isolated, open    whether nothing is routed between it and other bridges that are open
  route             a subnet behind a station that routes (`list-routes` lists all)
  tap, veth, link   what carries the frames: a TAP device, a veth pair, an interface that was there
  vlan N            an access port: this VLAN, without tags
  N,N tagged        a trunk: these VLANs, with tags
  N native          the VLAN of the trunk's frames without tags
  guard             frames from other addresses than the port's are dropped
  protected         no frame goes from it to another protected port
  broadcast-limit   most frames a second that go to many; what is more is dropped
  send-rate, receive-rate    what is more waits, each flow in a queue of its own
  impair-in, impair-out    what happens on purpose to what its station sends, or receives
  bum-limit         most frames a second out of a tunnel that go to many
  underlay mtu      the longest packet between the two hosts of a tunnel
  IP: up, heard Ns ago    a peer of a tunnel, or a host heard through its group; frames each way
  MAC moves         how often addresses were seen at another port than before
  IP address conflict    how often it showed that two stations, or one and the gateway, have one
  no address left   all that the gateway may give out are in use (`leases` lists them)
  warnings          what can be, and is most likely a mistake
  static            a station behind a tunnel that was given, not learned
  loop suspected    addresses move to and fro, and are held where they were
  sessions          connections and flows that an uplink translates (`sessions` lists them)
  -> IP:PORT        where a published port leads

What the kernel was found to offer for a device:

  vnet_hdr          frames come with what is left to do on them
  checksum          checksums may be left to be done
  tso, uso          super-frames of TCP, of UDP, up to 64 KiB
  multi_queue       a queue for each worker
  fanout            a socket for each worker
  persistent        it survives a crash of vswitchd
  speed             it says that it is faster than 10 Mb/s
  vlan_auxdata      tags that the kernel took out are put back
  stack_isolated    the host's own network stack does not hear the switch's end";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::client::Arguments;

    #[test]
    fn every_command_stands_in_one_group_of_the_help() {
        let command = Arguments::command();
        let text = groups(&command);
        for sub in command.get_subcommands() {
            let lines = text.lines().filter(|line| line.trim_start().split(' ').next() == Some(sub.get_name())).count();
            assert_eq!(lines, usize::from(!sub.is_hide_set()), "{}", sub.get_name());
        }
        for (_, names) in GROUPS {
            names.iter().for_each(|name| assert!(command.find_subcommand(name).is_some(), "{name}"));
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn the_reference_has_every_command_and_option() {
        let reference = include_str!("../../../docs/reference.md");
        let (_, commands) = reference.split_once("\n## vsctl\n").unwrap();
        let commands = commands.split("\n## ").next().unwrap();
        let mut missing = Vec::new();
        for sub in Arguments::command().get_subcommands().filter(|sub| !sub.is_hide_set()) {
            if !commands.contains(&format!("`{}", sub.get_name())) {
                missing.push(sub.get_name().to_owned());
            }
            let options = sub.get_arguments().filter_map(|arg| arg.get_long());
            missing.extend(
                options
                    .filter(|long| !commands.contains(&format!("--{long}")))
                    .map(|long| format!("{} --{long}", sub.get_name())),
            );
        }
        assert!(missing.is_empty(), "{missing:?}");
    }
}
