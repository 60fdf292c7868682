//! The live view of a capture: a line for each frame, of what vswitchd says about it and of what tcpdump says about its bytes.
//!
//! tcpdump reads the file as it comes and prints a line for each packet, in order, and perhaps more lines, which begin with a tab. What vswitchd says
//! about the packets waits in a channel until tcpdump's line comes by on its own thread, where both become one.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::blocks::{INTERFACE, NotedPacket, PACKET, each, options, packet};
use crate::client::ClientError;
use api::{CapturePoint, FrameNote};

/// `if_name` (draft-ietf-opsawg-pcapng, section 4.2).
const NAME: u16 = 2;
/// Widest column of ports: a port's name has at most 15 characters.
const WIDEST: usize = 15;

/// A tcpdump that runs.
pub(super) struct LiveView {
    tcpdump: Child,
    heads: mpsc::Sender<String>,
    printer: JoinHandle<Result<(), ClientError>>,
    /// Names of the file's interfaces.
    interfaces: Vec<String>,
}

impl LiveView {
    pub(super) fn start() -> Result<Self, ClientError> {
        let mut tcpdump = tcpdump();
        tcpdump.args(["-nn", "-l", "-r", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Ctrl-C is for vsctl, which then ends the file that tcpdump reads.
        std::os::unix::process::CommandExt::process_group(&mut tcpdump, 0);
        let mut tcpdump = tcpdump.spawn().map_err(ClientError::Tcpdump)?;
        let (heads, coming) = mpsc::channel();
        let lines = tcpdump.stdout.take();
        let printer = std::thread::spawn(move || lines.map_or(Ok(()), |lines| print(lines, &coming)));
        Ok(Self { tcpdump, heads, printer, interfaces: Vec::new() })
    }

    /// Shows whole blocks, and returns whether there is still a reader.
    pub(super) fn write(&mut self, blocks: &[u8]) -> Result<bool, ClientError> {
        for (kind, block) in each(blocks) {
            match kind {
                INTERFACE => self.interfaces.push(interface_name(block)),
                // A printer that has ended has no reader.
                PACKET => drop(self.heads.send(self.head(block))),
                _ => {}
            }
        }
        let Some(stdin) = &mut self.tcpdump.stdin else { return Ok(false) };
        match stdin.write_all(blocks) {
            Ok(()) => Ok(!self.printer.is_finished()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(source) => Err(ClientError::Write { what: "to tcpdump".to_owned(), source }),
        }
    }

    pub(super) fn close(mut self) -> Result<(), ClientError> {
        drop(self.tcpdump.stdin.take());
        drop(self.heads);
        // It ends when tcpdump does.
        let printed = self.printer.join().unwrap_or(Ok(()));
        self.tcpdump.wait().map_err(ClientError::Tcpdump)?;
        printed
    }

    /// What vswitchd says about a packet.
    fn head(&self, block: &[u8]) -> String {
        let NotedPacket { interface, is_out, note, .. } = packet(block);
        let width = self.interfaces.iter().map(String::len).max().unwrap_or_default().min(WIDEST);
        head(self.interfaces.get(interface).map_or("?", String::as_str), width, is_out, &note)
    }
}

/// Port, way or point, VLAN and reason.
fn head(port: &str, width: usize, is_out: bool, note: &FrameNote) -> String {
    let way = match note.at {
        Some(point @ (CapturePoint::PreNat | CapturePoint::PostNat | CapturePoint::Underlay)) => point.name(),
        _ if is_out => "out",
        _ => "in ",
    };
    let vlan = note.vlan.map(|vlan| format!(" vlan {vlan}")).unwrap_or_default();
    let reason = note.drop.as_ref().map(|reason| format!(" drop={reason}")).unwrap_or_default();
    format!("{port:width$} {way}{vlan}{reason}")
}

fn interface_name(block: &[u8]) -> String {
    let name = options(block, 16).find(|(code, _)| *code == NAME);
    name.map_or_else(|| "?".to_owned(), |(_, value)| String::from_utf8_lossy(value).into_owned())
}

/// tcpdump, which wants to be another user where root starts it. In a namespace of users that has but one, as `unshare -r` makes it, it cannot; there
/// it is started as the user that it is outside.
fn tcpdump() -> Command {
    let is_alone = std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    if !is_alone || !nix::unistd::geteuid().is_root() {
        return Command::new("tcpdump");
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1", "--map-group=1", "--", "tcpdump"]);
    command
}

/// Prints tcpdump's lines, each packet's first with what vswitchd says about the packet, until one of the two ends or stdout has no reader.
fn print(lines: ChildStdout, heads: &mpsc::Receiver<String>) -> Result<(), ClientError> {
    for line in BufReader::new(lines).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        let line = if line.starts_with(char::is_whitespace) {
            line
        } else {
            let Ok(head) = heads.recv() else { break };
            let (time, rest) = line.split_once(' ').unwrap_or((&line, ""));
            format!("{time} {head} {rest}")
        };
        if !crate::client::print(format!("{line}\n").as_bytes())? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_port_way_vlan_and_reason() {
        let note = FrameNote { vlan: Some(10), drop: Some("guard-ip".to_owned()), ..FrameNote::default() };
        assert_eq!(head("a", 5, false, &note), "a     in  vlan 10 drop=guard-ip");
        assert_eq!(head("blue", 4, true, &FrameNote::default()), "blue out");
        let note = FrameNote { at: Some(CapturePoint::PostNat), ..FrameNote::default() };
        assert_eq!(head("wan", 3, true, &note), "wan post-nat");
    }
}
