//! `vsctl capture`: asks vswitchd for a capture and writes it to a file, to stdout or into a tcpdump that it starts; ends with a signal.
//! `client/mod.rs` runs it.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use http_body_util::BodyExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::ClientError;
use super::blocks::Blocks;
use super::connection::{Control, broken};
use api::{CaptureRequest, PortName, Request};
use sys::pcap;

/// A capture as the command line asks for it.
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) ports: Vec<PortName>,
    pub(super) containers: Vec<String>,
    pub(super) filter: String,
    pub(super) count: Option<u64>,
    pub(super) seconds: Option<u64>,
    /// `-` is stdout; `None`: tcpdump shows it.
    pub(super) write: Option<PathBuf>,
}

/// Where the file goes.
enum Output {
    File(Box<dyn Write>, String),
    Tcpdump(Child),
}

impl Capture {
    /// Captures until vswitchd ends it, a signal comes, or the reader of stdout or tcpdump is gone; then says how much it was.
    pub(super) async fn run(self, control: Control, json: bool) -> Result<(), ClientError> {
        let file = match &self.write {
            Some(path) if path.as_os_str() != "-" => Some(path.display().to_string()),
            _ if json => {
                let why = "a capture tells with --json what it wrote into a file: name one with -w FILE, or leave out --json";
                return Err(ClientError::Argument(why.to_owned()));
            }
            _ => None,
        };
        let request = CaptureRequest {
            ports: self.ports,
            containers: self.containers,
            filter: pcap::compile(&self.filter)?,
            count: self.count,
            seconds: self.seconds,
        };
        // Before vswitchd is asked: a signal that came between its answer and this would leave a file without an end.
        let mut signals = Signals::listen()?;
        let (number, mut body) = tokio::select! {
            capture = control.capture(&request) => capture?,
            () = signals.next() => std::process::exit(1),
        };
        let mut output = Output::open(self.write)?;
        tokio::spawn(signals.end(control, number));
        let mut blocks = Blocks::default();
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame.map_err(broken)?.into_data() else { continue };
            let whole = blocks.push(&bytes).ok_or_else(|| ClientError::Answer("not a capture".to_owned()))?;
            if !output.write(&whole)? {
                break;
            }
        }
        output.close()?;
        if json {
            let summary = serde_json::json!({ "file": file, "packets": blocks.packets, "missed": blocks.missed });
            super::print(super::print::document(&summary).as_bytes());
            return Ok(());
        }
        eprintln!("{} packets captured, {} missed because the reader was slow", blocks.packets, blocks.missed);
        Ok(())
    }
}

/// The signals that end a program.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, ClientError> {
        let listen = |kind| signal(kind).map_err(|error| ClientError::System("signals cannot be received", error));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Asks vswitchd for the end of the capture at the first signal, so that its file gets one; the second ends the program.
    async fn end(mut self, control: Control, number: u64) {
        self.next().await;
        let stop = Request::StopCapture(number);
        tokio::select! {
            stopped = control.ask(&stop) => match stopped {
                Ok(_) => self.next().await,
                Err(error) => eprintln!("the capture is cut off: {error}"),
            },
            () = self.next() => {}
        }
        std::process::exit(1);
    }
}

impl Output {
    fn open(path: Option<PathBuf>) -> Result<Self, ClientError> {
        match path {
            None => {
                let mut tcpdump = Command::new("tcpdump");
                tcpdump.args(["-nn", "-l", "-r", "-"]).stdin(Stdio::piped()).stderr(Stdio::null());
                // Ctrl-C is for vsctl, which then ends the file that tcpdump reads.
                std::os::unix::process::CommandExt::process_group(&mut tcpdump, 0);
                tcpdump.spawn().map(Self::Tcpdump).map_err(ClientError::Tcpdump)
            }
            Some(path) if path.as_os_str() == "-" => Ok(Self::File(Box::new(io::stdout()), "to stdout".to_owned())),
            Some(path) => match File::create(&path) {
                Ok(file) => Ok(Self::File(Box::new(file), path.display().to_string())),
                Err(source) => Err(ClientError::Write { what: path.display().to_string(), source }),
            },
        }
    }

    /// Writes, and returns whether there is still a reader.
    fn write(&mut self, bytes: &[u8]) -> Result<bool, ClientError> {
        let (written, what) = match self {
            Self::File(file, what) => (file.write_all(bytes).and_then(|()| file.flush()), what.as_str()),
            Self::Tcpdump(child) => match &mut child.stdin {
                Some(stdin) => (stdin.write_all(bytes), "to tcpdump"),
                None => return Ok(false),
            },
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(source) => Err(ClientError::Write { what: what.to_owned(), source }),
        }
    }

    fn close(self) -> Result<(), ClientError> {
        if let Self::Tcpdump(mut child) = self {
            drop(child.stdin.take());
            child.wait().map_err(ClientError::Tcpdump)?;
        }
        Ok(())
    }
}
