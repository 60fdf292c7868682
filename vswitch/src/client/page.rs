//! A trace as a page that needs nothing else: no script, no other file.

use std::fmt::Write;

use super::trace::remarks;
use api::{FrameInfo, TraceInfo, TraceVerdict};

/// The whole page.
pub(super) fn html(trace: &TraceInfo) -> String {
    let mut body = String::new();
    let class = if trace.drop_reason.is_some() { "drop" } else { "pass" };
    let title = escape(&format!("{} at {}", trace.frame.summary, trace.port));
    // Writing to a string does not fail.
    let _ = write!(body, "<h1>{title}</h1><p class=\"{class}\">{}</p>", escape(&trace.conclusion));
    if let Some(advice) = &trace.advice {
        let _ = write!(body, "<p class=\"advice\">{}</p>", escape(advice));
    }
    let _ = write!(body, "<ol><li class=\"end\"><b>in {}</b>{}</li>", escape(trace.port.as_str()), frame(&trace.frame));
    for step in &trace.steps {
        let class = match (step.step.as_str(), step.own) {
            ("dropped", _) => "drop",
            (_, true) => "own",
            _ => "step",
        };
        let (kind, text) = (escape(&step.step.replace('_', " ")), escape(&step.text));
        let _ = write!(body, "<li class=\"{class}\"><i>{kind}</i>{text}</li>");
    }
    for exit in &trace.exits {
        let remarks: String = remarks(exit).iter().map(|remark| format!("<br><small>{}</small>", escape(remark))).collect();
        let (port, frame) = (escape(exit.port.as_str()), frame(&exit.frame));
        let _ = write!(body, "<li class=\"end\"><b>out {port}</b>{frame}{remarks}</li>");
    }
    if trace.exits.is_empty() && trace.verdict == TraceVerdict::Dropped {
        body.push_str("<li class=\"end\"><b>nothing leaves</b></li>");
    }
    body.push_str("</ol>");
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style><main>{body}</main></html>\n"
    )
}

fn frame(frame: &FrameInfo) -> String {
    let groups: Vec<&str> = frame.hex.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
    let (summary, hex) = (escape(&frame.summary), groups.join(" "));
    let addresses = frame.ethernet.as_ref().map(|ethernet| format!("{} &gt; {}, ", ethernet.source, ethernet.destination));
    let addresses = addresses.unwrap_or_default();
    let super_frame = frame.super_frame.map(|info| format!(", a super-frame: {info}")).unwrap_or_default();
    format!(
        "{summary}<br><small>{addresses}{} bytes{super_frame}</small><details><summary>bytes</summary><code>{hex}</code></details>",
        frame.length
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Both colour schemes, and narrow windows.
const STYLE: &str = "\
:root{color-scheme:light dark;--line:#c8ccd4;--ink:#1b1f27;--soft:#5b6472;--back:#fff;--pass:#0a7a3c;--drop:#b3261e;--dot:#2f6feb}\
@media(prefers-color-scheme:dark){:root{--line:#3a414d;--ink:#e6e9ef;--soft:#9aa4b2;--back:#14171c;--pass:#4cc38a;--drop:#ff8a80;--dot:#7aa7ff}}\
body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{max-width:46rem;margin:0 auto;padding:2rem 1rem}\
h1{font-size:1.25rem;margin:0 0 .5rem;overflow-wrap:anywhere}\
p{margin:.25rem 0}p.pass{color:var(--pass);font-weight:600}p.drop{color:var(--drop);font-weight:600}p.advice{color:var(--soft)}\
ol{list-style:none;margin:1.5rem 0 0;padding:0 0 0 1.25rem;border-left:2px solid var(--line)}\
li{position:relative;margin:0 0 .9rem;overflow-wrap:anywhere}\
li::before{content:'';position:absolute;left:calc(-1.25rem - 6px);top:.45em;width:10px;height:10px;border-radius:50%;background:var(--dot)}\
li.own::before{background:var(--line)}li.drop::before{background:var(--drop)}li.end::before{border-radius:2px;background:var(--ink)}\
li.drop{color:var(--drop)}li b{display:block}li i{display:block;font-style:normal;font-size:.8rem;color:var(--soft)}\
small,summary{color:var(--soft);font-size:.85rem}code{font-size:.8rem;overflow-wrap:anywhere}";
