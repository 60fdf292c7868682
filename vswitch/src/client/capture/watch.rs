//! `vsctl watch`: frames as they come, a line each, until there were enough of them or the time is over. It reads what a capture brings, and asks for a
//! trace of each frame whose steps are wanted.

use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use http_body_util::BodyExt;
use serde::Serialize;
use tokio::time::Instant;

use super::blocks::{Blocks, NotedPacket, PACKET, each, packet};
use super::options::WhichFrames;
use super::{Signals, hint};
use crate::client::ClientError;
use crate::client::connection::{Control, broken};
use crate::client::trace;
use crate::client::words::whole;
use crate::filter::compile;
use crate::frame;
use api::{CapturePoint, CaptureRequest, FrameInfo, Reply, Request, TraceFrame, TraceInfo, TraceRequest, TraceStep};
use plane::datapath::DropReason;

/// The options of `vsctl watch`.
#[derive(Debug, Args)]
pub(in crate::client) struct WatchOptions {
    #[command(flatten)]
    which: WhichFrames,
    /// Only frames that are dropped.
    #[arg(long)]
    dropped: bool,
    /// Only frames that are dropped for this reason, such as guard-ip.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Shows below each frame the steps that it takes through the switch, as `vsctl trace` does: those of the same frame, a moment later.
    #[arg(long)]
    steps: bool,
    /// Only each Nth frame.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    sample: u64,
    /// Ends after so many frames.
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    first: Option<u64>,
}

/// What to wait for.
#[derive(Debug)]
pub(in crate::client) struct FrameWatch {
    request: CaptureRequest,
    filter: String,
    /// As drops are named.
    reason: Option<&'static str>,
    steps: bool,
    sample: u64,
    first: Option<u64>,
    timeout: Option<Duration>,
}

/// A frame that was seen. The names are those of a trace.
#[derive(Serialize)]
struct Record<'a> {
    /// RFC 3339, in UTC.
    time: String,
    id: Option<u64>,
    /// `forwarded`, `dropped`, or what else became of it.
    verdict: &'a str,
    drop_reason: Option<String>,
    trace_observation_point: Option<&'static str>,
    r#in: Option<&'a str>,
    out: &'a [String],
    vlan: Option<u16>,
    vni: Option<u32>,
    nat: &'a [String],
    frame: FrameInfo,
    /// Where they were asked for and there is a way to show: the switch's own frames take none.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<&'a [TraceStep]>,
}

impl WatchOptions {
    /// With the time that it takes at most.
    pub(in crate::client) fn watch(self, timeout: Option<Duration>) -> Result<FrameWatch, ClientError> {
        let reason = self.reason.as_deref().map(reason).transpose()?;
        let at = if self.dropped || reason.is_some() { vec![CapturePoint::Drop] } else { Vec::new() };
        let Self { which: WhichFrames { port: ports, container: containers, filter }, steps, sample, first, .. } = self;
        let request = CaptureRequest { ports, containers, at, ..CaptureRequest::default() };
        Ok(FrameWatch { request, filter, reason, steps, sample, first, timeout })
    }
}

/// The reason with this name, spelled with `-` or `_`.
fn reason(text: &str) -> Result<&'static str, ClientError> {
    let wanted = text.replace('_', "-");
    let names = DropReason::ALL.map(DropReason::name);
    names.into_iter().find(|name| *name == wanted).ok_or_else(|| {
        let near = names
            .into_iter()
            .max_by(|one, other| strsim::jaro_winkler(one, &wanted).total_cmp(&strsim::jaro_winkler(other, &wanted)));
        let near = near.map(|near| format!(": did you mean {near}?")).unwrap_or_default();
        ClientError::Argument(format!("\"{}\" is no reason of a drop{near}", text.escape_debug()))
    })
}

impl FrameWatch {
    /// Shows frames until there were enough, the time is over, or a signal comes.
    pub(in crate::client) async fn run(mut self, control: Control, json: bool) -> Result<(), ClientError> {
        self.request.filter = compile(&self.filter)?;
        let mut signals = Signals::listen()?;
        let (number, mut body) = control.capture(&self.request).await?;
        if !json {
            hint::hint(&control, &self.request, &self.filter).await;
        }
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let (mut blocks, mut seen, mut shown) = (Blocks::default(), 0_u64, 0_u64);
        let is_enough = |shown: u64| self.first.is_some_and(|first| shown >= first);
        while !is_enough(shown) {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = sleep_until(deadline) => break,
                () = signals.next() => break,
            };
            let Some(frame) = frame else { break };
            let Ok(bytes) = frame.map_err(broken)?.into_data() else { continue };
            let whole = blocks.push(&bytes).ok_or_else(|| ClientError::Answer("not a capture".to_owned()))?;
            for (_, block) in each(&whole).filter(|(kind, _)| *kind == PACKET) {
                let packet = packet(block);
                if is_enough(shown) || !self.wants(&packet) {
                    continue;
                }
                seen += 1;
                if (seen - 1) % self.sample == 0 {
                    shown += 1;
                    let way = if self.steps { way(&control, &packet).await? } else { None };
                    crate::client::print(line(&packet, way.as_ref(), json).as_bytes())?;
                }
            }
        }
        // It ends with its reader as well.
        let _ = control.ask(&Request::StopCapture(number)).await;
        self.verdict(shown)
    }

    fn wants(&self, packet: &NotedPacket<'_>) -> bool {
        self.reason.is_none_or(|reason| packet.note.drop.as_deref() == Some(reason))
    }

    /// Whether there were enough.
    fn verdict(&self, shown: u64) -> Result<(), ClientError> {
        let wanted = self.first.unwrap_or_else(|| u64::from(self.timeout.is_some()));
        if shown >= wanted {
            return Ok(());
        }
        let what = self.reason.map_or_else(String::new, |reason| format!(" that was dropped as {reason}"));
        let within = self.timeout.map(|timeout| format!(" within {}", humantime::format_duration(timeout))).unwrap_or_default();
        let count = if shown == 0 { "no frame".to_owned() } else { format!("only {shown} of {wanted} frames") };
        Err(ClientError::Argument(format!("{count}{what} came{within}")))
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What would become of a frame, were it to come in again. `None`: it did not come in by a port that is still there.
async fn way(control: &Control, packet: &NotedPacket<'_>) -> Result<Option<TraceInfo>, ClientError> {
    let Some(port) = packet.note.came_in.as_ref().and_then(|name| name.parse().ok()) else { return Ok(None) };
    let frame = TraceFrame::Text(api::hex(packet.bytes));
    let request = TraceRequest { port, frame, super_frame: packet.super_frame };
    match control.ask(&Request::Trace(request)).await {
        Ok(Reply::Trace(trace)) => Ok(Some(*trace)),
        Ok(_) | Err(ClientError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A frame as a line, with its steps below.
fn line(packet: &NotedPacket<'_>, way: Option<&TraceInfo>, json: bool) -> String {
    let NotedPacket { at, note, bytes, .. } = packet;
    let time = humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_nanos(*at)).to_string();
    let offload = frame::offload(bytes, packet.super_frame).unwrap_or_default();
    let frame = frame::read_with(bytes, offload);
    if json {
        let forwarded = if note.out.is_empty() { "noted" } else { "forwarded" };
        let verdict = if note.drop.is_some() { "dropped" } else { note.fate.as_deref().unwrap_or(forwarded) };
        let record = Record {
            time,
            id: note.id,
            verdict,
            drop_reason: note.drop.as_ref().map(|reason| reason.replace('-', "_")),
            trace_observation_point: note.at.map(CapturePoint::name),
            r#in: note.came_in.as_deref(),
            out: &note.out,
            vlan: note.vlan,
            vni: note.vni,
            nat: &note.nat,
            frame,
            steps: way.map(|way| &*way.steps),
        };
        return serde_json::to_string(&record).unwrap_or_default() + "\n";
    }
    // The time of day, in UTC, to the millisecond.
    let time = time.get(11..23).unwrap_or(&time);
    let from = note.came_in.as_deref().unwrap_or("switch");
    let to = match (&note.drop, &note.out[..], &note.fate) {
        (Some(reason), ..) => format!("dropped: {reason}"),
        (None, [], Some(fate)) => fate.clone(),
        (None, [], None) => "noted".to_owned(),
        (None, out, _) => format!("-> {}", out.join(",")),
    };
    let nat: String = note.nat.iter().map(|change| format!(" [{change}]")).collect();
    let steps: String = way.into_iter().flat_map(trace::steps).map(|step| step + "\n").collect();
    let super_frame = frame.super_frame.map(|info| format!(", {info}")).unwrap_or_default();
    format!("{time} {from} {to}: {}{nat}{super_frame}\n{steps}", frame.summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::FrameNote;

    #[test]
    fn a_reason_is_taken_with_either_dash_and_a_wrong_one_is_refused_with_the_nearest() {
        assert_eq!(reason("guard-ip").unwrap(), "guard-ip");
        assert_eq!(reason("guard_ip").unwrap(), "guard-ip");
        let refused = reason("gaurd-ip").unwrap_err().to_string();
        assert!(refused.contains("did you mean guard-ip?"), "{refused}");
    }

    #[test]
    fn a_line_says_where_a_frame_went_or_why_not() {
        let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5], &[0; 46]].concat();
        let note = |text: &str| FrameNote::read(text);
        let of = |text: &str| NotedPacket {
            interface: 0,
            at: 1_500_000_000,
            is_out: false,
            note: note(text),
            super_frame: None,
            bytes: &frame,
        };
        let went = line(&of("id=7 at=ingress in=red out=blue,+3 vlan=1"), None, false);
        assert!(went.starts_with("00:00:01.500 red -> blue,+3: ethertype 0x88b5"), "{went}");
        let dropped = line(&of("id=7 at=ingress in=red vlan=1 drop=guard-mac"), None, false);
        assert!(dropped.contains("red dropped: guard-mac:"), "{dropped}");
        let json: serde_json::Value = serde_json::from_str(&line(&of("id=7 in=red drop=guard-mac"), None, true)).unwrap();
        assert_eq!(
            (&json["verdict"], &json["drop_reason"], &json["in"]),
            (&"dropped".into(), &"guard_mac".into(), &"red".into())
        );
    }
}
