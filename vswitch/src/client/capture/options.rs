//! The options of `vsctl capture`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Capture;
use super::rotate::{Rotate, Rotation};
use crate::client::complete;
use crate::client::words::whole;
use api::{CaptureDirection, CaptureFilter, CapturePoint, CaptureRequest, PortName};

/// Which frames: the options that `vsctl capture` and `vsctl watch` have in common.
#[derive(Debug, Args)]
pub(super) struct WhichFrames {
    /// Only frames of this port; of all if none is named. May be repeated.
    #[arg(long, value_name = "NAME", add = complete::counted())]
    pub(super) port: Vec<PortName>,
    /// Only frames of a container of Docker's, on every network of the switch that it is on. May be repeated.
    #[arg(long, value_name = "NAME", add = complete::containers())]
    pub(super) container: Vec<String>,
    /// Which of them, in tcpdump's language (man pcap-filter); also inner(EXPR), what is carried in VXLAN, and vni N.
    #[arg(long, value_name = "EXPR", default_value = "")]
    pub(super) filter: String,
}

#[derive(Debug, Args)]
pub(in crate::client) struct CaptureOptions {
    #[command(flatten)]
    which: WhichFrames,
    /// Where to take frames, of: ingress, egress, drop, pre-nat, post-nat, underlay. A frame has one packet id at all of them.
    #[arg(long, value_name = "POINT,...", value_delimiter = ',')]
    at: Vec<CapturePoint>,
    /// Takes only frames that are dropped, with the reason; the same as --at drop.
    #[arg(long, conflicts_with = "at")]
    dropped: bool,
    /// Takes only frames that come in by a port, or only those that go out: in or out.
    #[arg(long, value_name = "WAY", value_parser = direction)]
    direction: Option<CaptureDirection>,
    /// Keeps only the first N bytes of each frame.
    #[arg(long, value_name = "N", value_parser = snaplen)]
    snaplen: Option<u32>,
    /// Takes what came in the last so long, such as 10s, from the flight recorder, and ends.
    #[arg(long, value_name = "TIME", value_parser = api::read::time, conflicts_with_all = ["seconds", "rotate"])]
    last: Option<Duration>,
    /// Ends after so many packets.
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    count: Option<u64>,
    /// Ends after so many seconds.
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    seconds: Option<u64>,
    /// Writes a pcapng file; - is stdout, as for `| wireshark -k -i -`.
    #[arg(short, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Begins another file after so many bytes or so long, such as 100MB or 10m: FILE with 00001, 00002, ... before its ending.
    #[arg(long, value_name = "SIZE|TIME", requires = "write")]
    rotate: Option<Rotate>,
    /// Keeps only the last N files.
    #[arg(long, value_name = "N", requires = "rotate", value_parser = files)]
    files: Option<usize>,
}

impl CaptureOptions {
    pub(in crate::client) fn capture(self) -> Capture {
        let request = CaptureRequest {
            ports: self.which.port,
            containers: self.which.container,
            filter: CaptureFilter::default(),
            count: self.count,
            seconds: self.seconds,
            at: if self.dropped { vec![CapturePoint::Drop] } else { self.at },
            direction: self.direction,
            snaplen: self.snaplen,
            last_milliseconds: self.last.map(|last| u64::try_from(last.as_millis()).unwrap_or(u64::MAX)),
        };
        let rotation = self.rotate.map(|rotate| Rotation { rotate, files: self.files });
        Capture { request, filter: self.which.filter, write: self.write, rotation, is_quiet: false }
    }
}

fn direction(text: &str) -> Result<CaptureDirection, String> {
    match text {
        "in" => Ok(CaptureDirection::In),
        "out" => Ok(CaptureDirection::Out),
        _ => Err(format!("\"{}\" is no direction: use in or out", text.escape_debug())),
    }
}

fn snaplen(text: &str) -> Result<u32, String> {
    let length = whole::<u32>(text)?;
    if length == 0 { Err("0 bytes are no frame: use 1 or more, such as 128".to_owned()) } else { Ok(length) }
}

fn files(text: &str) -> Result<usize, String> {
    match whole::<u32>(text)? {
        0 => Err("no file would stay: use 1 or more".to_owned()),
        files => usize::try_from(files).map_err(|error| error.to_string()),
    }
}
