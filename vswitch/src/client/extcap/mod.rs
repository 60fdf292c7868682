//! `vsctl extcap`: Wireshark's way to capture on the switch. Wireshark runs a program of its extcap folder, which asks here for interfaces and
//! options, and then for a capture into a FIFO (doc/extcap.4 of Wireshark).
//!
//! What Wireshark asks at every start is answered at once, without ssh, and also where no vswitchd runs. What can be wrong with a capture is
//! found before the FIFO is opened, which waits for Wireshark. During a capture stdout stays empty.

mod install;
mod words;

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Subcommand;

use super::capture::Capture;
use super::connection::Control;
use super::{ClientError, print};
use crate::filter::compile;
use api::{CapturePoint, CaptureRequest, PortName, Reply, Request};
use words::Words;

/// What the interface of all ports is called, and how those of ports begin.
const ALL: &str = "vswitch-all";
const PORT: &str = "vswitch-port-";
/// How long vswitchd may take to say which ports there are.
const PATIENCE: Duration = Duration::from_secs(1);

/// Wireshark's interfaces on the switch.
#[derive(Debug, Subcommand)]
pub(super) enum ExtcapCommand {
    /// Puts the switch's ports among Wireshark's interfaces, and vswitchd's notes among its fields.
    ///
    /// Writes a program into Wireshark's extcap folder and vswitch.lua into the folder of its Lua plugins, of the user who runs this; of all users if
    /// that is root, for a Wireshark that root runs reads no personal folders. Another Wireshark finds them at its next start.
    Install {
        /// Writes both into this folder instead.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Removes both again.
    Remove {
        /// From this folder.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Answers Wireshark.
    #[command(hide = true)]
    Call {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

impl ExtcapCommand {
    pub(super) async fn run(self, control: Control) -> Result<(), ClientError> {
        match self {
            Self::Install { dir } => install::install(dir.as_deref(), &control.path),
            Self::Remove { dir } => install::remove(dir.as_deref()),
            Self::Call { words } => call(&Words::read(&words), control).await,
        }
    }
}

async fn call(words: &Words, control: Control) -> Result<(), ClientError> {
    let interface = words.value("extcap-interface").unwrap_or(ALL);
    if words.has("extcap-interfaces") {
        print(interfaces(&ports(&control).await).as_bytes())?;
    } else if words.has("extcap-dlts") {
        print(b"dlt {number=1}{name=EN10MB}{display=Ethernet}\n")?;
    } else if words.has("extcap-config") {
        print(options(interface, &ports(&control).await).as_bytes())?;
    } else if words.has("capture") {
        return capture(words, interface, control).await;
    } else if let Some(Err(wrong)) = words.value("extcap-capture-filter").map(compile) {
        print(format!("{wrong}\n").as_bytes())?;
    }
    Ok(())
}

/// The names of everything that can be captured; none where no vswitchd answers.
async fn ports(control: &Control) -> Vec<PortName> {
    let control = Control { patience: PATIENCE, ..control.clone() };
    match control.ask(&Request::Stats(Vec::new())).await {
        Ok(Reply::Stats(rows)) => rows.into_iter().map(|row| row.port).collect(),
        _ => Vec::new(),
    }
}

fn interfaces(ports: &[PortName]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut text =
        format!("extcap {{version={version}}}{{display=vswitch}}\ninterface {{value={ALL}}}{{display=vswitch: all ports}}\n");
    ports.iter().for_each(|port| text += &format!("interface {{value={PORT}{port}}}{{display=vswitch: port {port}}}\n"));
    text
}

fn options(interface: &str, ports: &[PortName]) -> String {
    let mut text = String::from(
        "arg {number=0}{call=--at}{display=Where to take frames}{type=multicheck}\
         {tooltip=Nothing ticked: each frame once, where it comes in, and once more if it is dropped later}\n",
    );
    for point in CapturePoint::ALL {
        text += &format!("value {{arg=0}}{{value={name}}}{{display={name}}}{{default=false}}\n", name = point.name());
    }
    text += "arg {number=1}{call=--snaplen}{display=Bytes of each frame}{type=unsigned}{range=1,262144}{default=262144}\n";
    text += "arg {number=2}{call=--remote-host}{display=Host, by ssh}{type=string}{tooltip=USER@HOST; empty: this one}{group=Remote}\n";
    text += "arg {number=3}{call=--remote-control}{display=Its control socket}{type=string}{tooltip=Empty: the usual one}{group=Remote}\n";
    if interface == ALL && !ports.is_empty() {
        text += "arg {number=4}{call=--port}{display=Ports}{type=multicheck}{tooltip=Nothing ticked: all}\n";
        ports.iter().for_each(|port| text += &format!("value {{arg=4}}{{value={port}}}{{display={port}}}{{default=false}}\n"));
    }
    text
}

async fn capture(words: &Words, interface: &str, control: Control) -> Result<(), ClientError> {
    let wrong = |what: &str| ClientError::Argument(what.to_owned());
    let fifo = words.value("fifo").ok_or_else(|| wrong("--capture needs --fifo: Wireshark names it"))?;
    let filter = words.value("extcap-capture-filter").unwrap_or_default();
    let request = request(words, interface)?;
    match words.value("remote-host").filter(|host| !host.is_empty()) {
        None => Capture::for_wireshark(request, filter, Path::new(fifo)).run(control, false).await,
        Some(host) if host.starts_with('-') => Err(wrong("a host's name does not begin with -")),
        Some(host) => {
            compile(filter)?;
            let socket = words.value("remote-control").filter(|path| !path.is_empty());
            Err(capture_there(host, &remote_line(&request, filter, socket), fifo))
        }
    }
}

/// What to capture, by the options of the dialog.
fn request(words: &Words, interface: &str) -> Result<CaptureRequest, ClientError> {
    let list = |key: &str| words.value(key).unwrap_or_default().split(',').filter(|item| !item.is_empty());
    let argument = |error: &dyn std::fmt::Display| ClientError::Argument(error.to_string());
    let port = |name: &str| name.parse::<PortName>().map_err(|error| argument(&error));
    let ports = match interface.strip_prefix(PORT) {
        Some(name) => vec![port(name)?],
        None => list("port").map(port).collect::<Result<_, _>>()?,
    };
    let at = list("at").map(|point| point.parse().map_err(|error: api::PointError| argument(&error)));
    let snaplen = words.value("snaplen").map(|text| api::read::number(text).map_err(|error| argument(&error))).transpose()?;
    let snaplen = snaplen.and_then(|length| u32::try_from(length).ok()).filter(|length| *length > 0);
    Ok(CaptureRequest { ports, at: at.collect::<Result<_, _>>()?, snaplen, ..CaptureRequest::default() })
}

/// The command line of the same capture on another host.
fn remote_line(request: &CaptureRequest, filter: &str, socket: Option<&str>) -> String {
    let mut words = vec!["vsctl".to_owned()];
    words.extend(socket.into_iter().flat_map(|path| ["--control".to_owned(), path.to_owned()]));
    words.extend(["capture", "-w", "-"].map(str::to_owned));
    words.extend(request.ports.iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
    words.extend(request.at.iter().flat_map(|point| ["--at".to_owned(), point.name().to_owned()]));
    words.extend(request.snaplen.iter().flat_map(|length| ["--snaplen".to_owned(), length.to_string()]));
    if !filter.is_empty() {
        words.extend(["--filter".to_owned(), filter.to_owned()]);
    }
    words.iter().map(|word| install::quoted(word)).collect::<Vec<_>>().join(" ")
}

/// Becomes ssh, so that what Wireshark ends is ssh. Returns only if that fails.
fn capture_there(host: &str, line: &str, fifo: &str) -> ClientError {
    match OpenOptions::new().write(true).open(fifo) {
        Ok(fifo) => {
            let why = Command::new("ssh").args(["-o", "BatchMode=yes", "--", host, line]).stdout(fifo).exec();
            ClientError::System("ssh cannot be run", why)
        }
        Err(source) => ClientError::Write { what: fifo.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<PortName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn there_is_an_interface_for_all_ports_and_for_each() {
        let lines = interfaces(&names(&["a", "wan"]));
        let lines: Vec<&str> = lines.lines().collect();
        assert!(lines[0].starts_with("extcap {version="));
        assert_eq!(lines[1], "interface {value=vswitch-all}{display=vswitch: all ports}");
        assert_eq!(lines[3], "interface {value=vswitch-port-wan}{display=vswitch: port wan}");
        let ports = |interface: &str| options(interface, &names(&["a"])).contains("{value=a}");
        assert!(ports(ALL) && !ports("vswitch-port-a"));
    }

    #[test]
    fn the_options_of_the_dialog_become_a_request() {
        let words = ["--at", "drop,pre-nat", "--port=a,b", "--snaplen", "128"].map(str::to_owned);
        let asked = request(&Words::read(&words), ALL).unwrap();
        assert_eq!((asked.ports, asked.at), (names(&["a", "b"]), vec![CapturePoint::Drop, CapturePoint::PreNat]));
        assert_eq!(asked.snaplen, Some(128));
        let asked = request(&Words::read(&["--at".to_owned(), String::new()]), "vswitch-port-c").unwrap();
        assert_eq!((asked.ports, asked.at), (names(&["c"]), Vec::new()));
        assert!(request(&Words::read(&["--at=nowhere".to_owned()]), ALL).is_err());
    }

    #[test]
    fn another_host_is_asked_the_same() {
        let request = CaptureRequest {
            ports: names(&["a"]),
            at: vec![CapturePoint::Drop],
            snaplen: Some(96),
            ..CaptureRequest::default()
        };
        assert_eq!(
            remote_line(&request, "tcp port 80 and not host 'x'", Some("/run/v s.sock")),
            r"vsctl --control '/run/v s.sock' capture -w - --port a --at drop --snaplen 96 --filter 'tcp port 80 and not host '\''x'\'''"
        );
    }
}
