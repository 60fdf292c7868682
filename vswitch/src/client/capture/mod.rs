//! `vsctl capture`: asks vswitchd for a capture and writes it to a file, to stdout, or shows it line by line; ends with a signal.
//! `client/mod.rs` runs it.

mod blocks;
mod hint;
mod live;
mod options;
mod output;
mod rotate;
mod watch;

use std::path::{Path, PathBuf};

use http_body_util::BodyExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::ClientError;
use super::connection::{Control, broken};
use crate::filter::compile;
use api::{CaptureRequest, Request};
use blocks::Blocks;
pub(super) use options::CaptureOptions;
use output::CaptureOutput;
use rotate::Rotation;
pub(super) use watch::{FrameWatch, WatchOptions};

/// A capture as the command line asks for it.
#[derive(Debug)]
pub(super) struct Capture {
    request: CaptureRequest,
    /// The filter as it was written.
    filter: String,
    /// `-` is stdout; `None`: it is shown.
    write: Option<PathBuf>,
    rotation: Option<Rotation>,
    /// Says nothing on stderr unless something is wrong.
    is_quiet: bool,
}

impl Capture {
    /// A capture into the FIFO that Wireshark reads.
    pub(super) fn for_wireshark(request: CaptureRequest, filter: &str, fifo: &Path) -> Self {
        Self { request, filter: filter.to_owned(), write: Some(fifo.to_owned()), rotation: None, is_quiet: true }
    }

    /// Captures until vswitchd ends it, a signal comes, or the reader of stdout or of the live view is gone; then says how much it was.
    pub(super) async fn run(mut self, control: Control, json: bool) -> Result<(), ClientError> {
        self.check(json)?;
        self.request.filter = compile(&self.filter)?;
        // Before vswitchd is asked: a signal that came between its answer and this would leave a file without an end.
        let mut signals = Signals::listen()?;
        let (number, mut body) = tokio::select! {
            capture = control.capture(&self.request) => capture?,
            () = signals.next() => std::process::exit(1),
        };
        let mut output = CaptureOutput::open(self.write.as_deref(), self.rotation)?;
        if !json && !self.is_quiet && self.request.last_milliseconds.is_none() {
            eprintln!("{}", self.announcement());
            hint::hint(&control, &self.request, &self.filter).await;
        }
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
            let file = self.write.as_ref().map(|path| path.display().to_string());
            let summary = serde_json::json!({ "file": file, "packets": blocks.packets, "missed": blocks.missed });
            return super::print(super::print::document(&summary).as_bytes()).map(drop);
        }
        if self.is_quiet {
            return Ok(());
        }
        eprintln!("{} packets captured, {} missed because the reader was slow", blocks.packets, blocks.missed);
        Ok(())
    }

    /// What the command line alone shows to be impossible.
    fn check(&self, json: bool) -> Result<(), ClientError> {
        let is_file = self.write.as_ref().is_some_and(|path| path.as_os_str() != "-");
        let why = if json && !is_file {
            "a capture tells with --json what it wrote into a file: name one with -w FILE, or leave out --json"
        } else if self.rotation.is_some() && !is_file {
            "--rotate is for files: name the first with -w FILE"
        } else if self.write.is_some() && !is_file && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            "-w - writes binary, and stdout is a terminal: pipe it into a program, as in `vsctl capture -w - | wireshark -k -i -`, or leave out -w to \
             see the frames"
        } else {
            return Ok(());
        };
        Err(ClientError::Argument(why.to_owned()))
    }

    /// That it captures, and how to stop it.
    fn announcement(&self) -> String {
        let CaptureRequest { ports, containers, count, seconds, .. } = &self.request;
        let ports: Vec<&str> = ports.iter().map(|port| port.as_str()).chain(containers.iter().map(String::as_str)).collect();
        let of = if ports.is_empty() { "all ports".to_owned() } else { ports.join(", ") };
        let to = match self.write.as_deref() {
            Some(path) if path.as_os_str() != "-" => format!(" to {}", path.display()),
            _ => String::new(),
        };
        let until = match (count, seconds) {
            (Some(count), Some(seconds)) => format!("until {count} packets, {seconds} s or Ctrl-C"),
            (Some(count), None) => format!("until {count} packets or Ctrl-C"),
            (None, Some(seconds)) => format!("for {seconds} s or until Ctrl-C"),
            (None, None) => "until Ctrl-C".to_owned(),
        };
        format!("capturing {of}{to} {until}")
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
