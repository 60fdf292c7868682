//! `vsctl trace`: the frame to ask about, and the answer as text or as a page.

use std::path::{Path, PathBuf};

use super::connection::Control;
use super::{ClientError, complete, page, pcap, print};
use api::{PortName, Reply, Request, TraceExit, TraceFrame, TraceInfo, TraceRequest};

/// The options of `vsctl trace`.
#[derive(Debug, clap::Args)]
#[group(id = "told", required = true, args = ["frame", "to", "pcap"])]
pub(super) struct TraceOptions {
    /// The port, tunnel or uplink that the frame would come in by.
    #[arg(long, value_name = "NAME", add = complete::counted())]
    port: PortName,
    /// The frame: tcp A:PORT > B:PORT [syn ack fin rst psh], udp A:PORT > B:PORT, icmp echo [reply] A > B, arp who-has A [tell B],
    /// nd who-has A, and behind it from MAC, to MAC, vlan N, ttl N, len N, df; or all of it in hex digits.
    #[arg(value_name = "FRAME")]
    frame: Vec<String>,
    /// A ping to this IP address, or to the station of the port or container with this name; a frame to this MAC address.
    #[arg(long, value_name = "IP|MAC|NAME", conflicts_with = "frame")]
    to: Option<String>,
    /// A frame of this pcap or pcapng file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["frame", "to"])]
    pcap: Option<PathBuf>,
    /// Which one, counted from 1 as Wireshark does.
    #[arg(long, value_name = "N", requires = "pcap", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    number: u64,
    /// Writes the way as a page that needs nothing else, to hand in or to send.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A frame to ask about.
#[derive(Debug)]
pub(super) struct Trace {
    request: TraceRequest,
    html: Option<PathBuf>,
}

impl TraceOptions {
    pub(super) fn trace(self) -> Result<Trace, ClientError> {
        let mut super_frame = None;
        let frame = match (self.to, self.pcap) {
            (Some(target), _) => TraceFrame::To(target),
            (None, Some(path)) => {
                let (bytes, cut) = pcap::frame(&path, self.number)?;
                super_frame = cut;
                TraceFrame::Text(api::hex(&bytes))
            }
            (None, None) => TraceFrame::Text(self.frame.join(" ")),
        };
        Ok(Trace { request: TraceRequest { port: self.port, frame, super_frame }, html: self.html })
    }
}

impl Trace {
    pub(super) async fn run(self, control: Control, json: bool) -> Result<(), ClientError> {
        let reply = control.ask(&Request::Trace(self.request)).await?;
        if let (Some(path), Reply::Trace(trace)) = (&self.html, &reply) {
            write_page(path, trace)?;
        }
        let text = if json { print::json(&reply) } else { print::text(&reply) };
        super::print(text.as_bytes()).map(drop)
    }
}

fn write_page(path: &Path, trace: &TraceInfo) -> Result<(), ClientError> {
    let wrong = |source| ClientError::Write { what: path.display().to_string(), source };
    std::fs::write(path, page::html(trace)).map_err(wrong)
}

/// The way of a frame: how it comes in, the steps, what leaves, and what that comes to.
pub(super) fn text(trace: &TraceInfo) -> String {
    let mut lines = vec![format!("in   {}: {}", trace.port, trace.frame.summary)];
    let super_frame = trace.frame.super_frame.map(|info| format!("a super-frame: {info}"));
    lines.extend(addresses(trace).into_iter().chain(super_frame).map(|text| format!("     {text}")));
    lines.extend(steps(trace));
    for exit in &trace.exits {
        lines.push(format!("out  {}: {}", exit.port, exit.frame.summary));
        lines.extend(remarks(exit).into_iter().map(|text| format!("     {text}")));
    }
    lines.extend(wrapped("", &trace.conclusion));
    lines.extend(trace.advice.iter().flat_map(|advice| wrapped("", advice)));
    lines.join("\n") + "\n"
}

/// The steps of a frame, numbered.
pub(super) fn steps(trace: &TraceInfo) -> impl Iterator<Item = String> {
    (1..).zip(&trace.steps).flat_map(|(number, step)| {
        let mark = if step.own { "+" } else { " " };
        wrapped(&format!("{number:>3}{mark} "), &step.text)
    })
}

fn addresses(trace: &TraceInfo) -> Option<String> {
    let ethernet = trace.frame.ethernet.as_ref()?;
    Some(format!("{} > {}, {} bytes", ethernet.source, ethernet.destination, trace.frame.length))
}

/// What there is to say about a frame that leaves.
pub(super) fn remarks(exit: &TraceExit) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(vni) = exit.vni {
        let host = match (exit.remote, &exit.host) {
            (None, _) => "all its hosts".to_owned(),
            (Some(remote), None) => format!("host {remote}"),
            (Some(remote), Some(host)) => format!("host {host} at {remote}"),
        };
        let sealed = if exit.encrypted { ", inside WireGuard" } else { "" };
        remarks.push(format!("inside VXLAN, VNI {vni}{sealed}, to {host}"));
    }
    if exit.own {
        remarks.push("made by the switch".to_owned());
    }
    if exit.frames > 1 {
        remarks.push(format!("the first of {} frames", exit.frames));
    }
    remarks.extend(exit.frame.super_frame.map(|info| format!("whole: {info}")));
    remarks.extend(exit.changes.iter().cloned());
    remarks.extend(exit.drop_reason.iter().map(|reason| format!("dropped there: {}", reason.replace('_', "-"))));
    remarks
}

/// Columns of a terminal.
const WIDTH: usize = 80;

/// A text in lines, the first behind a mark and the others below it.
fn wrapped(mark: &str, text: &str) -> Vec<String> {
    let mut lines = vec![mark.to_owned()];
    let indent = " ".repeat(mark.chars().count());
    for word in text.split(' ') {
        let last = lines.last_mut();
        let fits = last.as_ref().is_some_and(|line| line.chars().count() + 1 + word.chars().count() <= WIDTH);
        match last {
            Some(line) if fits || line.trim().is_empty() => {
                if !line.is_empty() && !line.ends_with(' ') {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines
}
