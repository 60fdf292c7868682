//! The page that stands beside the web view's topology: the lab's text as far as the learner has come, and how the tasks stand.

use std::fmt::Write;

use crate::file::{HostName, Lab};
use crate::place::{self, Meta, Place};
use crate::progress::Progress;
use crate::{LabError, course};

/// Writes the page anew.
pub(crate) fn write(place: &Place, lab: &Lab, meta: &Meta, progress: &Progress) -> Result<(), LabError> {
    place::write(&place.in_run("guide.html"), page(lab, meta, progress))
}

fn page(lab: &Lab, meta: &Meta, progress: &Progress) -> String {
    let mut page = course::html(&lab.introduction);
    let shells: Vec<&HostName> = lab.hosts.iter().map(|host| &host.name).collect();
    let commands = shells.iter().map(|host| format!("<pre><code>vsctl lab shell {host}</code></pre>"));
    // Writing into a string cannot fail.
    let _ = write!(page, "<details><summary>A shell on each host</summary>{}</details>", commands.collect::<String>());
    let current = progress.current().unwrap_or(lab.stages.len());
    for (number, (stage, reached)) in lab.stages.iter().zip(&progress.stages).enumerate() {
        if number > current {
            break;
        }
        let open = if number == current { " open" } else { "" };
        let state = if reached.passed { "✓ " } else { "" };
        let _ = write!(page, "<details{open}><summary>{state}Stage {}: {}</summary>", number + 1, escaped(&stage.title));
        page += &course::html(stage.text.split_once('\n').map_or("", |(_, text)| text));
        page += "<ul class=\"tasks\">";
        for (at, task) in stage.tasks.iter().enumerate() {
            let result = reached.tasks.get(at);
            let mark = match result {
                Some(result) if result.passed => "✓",
                Some(_) => "✗",
                None => "○",
            };
            let _ = write!(page, "<li>{mark} {}</li>", escaped(&task.says));
        }
        page += "</ul></details>";
    }
    if current == lab.stages.len() {
        page += "<p><strong>All of it is done.</strong></p>";
    }
    let _ = write!(
        page,
        "<p class=\"dim\">{}. Seed {}. Look again with <code>vsctl lab check</code>.</p>",
        progress.score(lab),
        escaped(&meta.seed)
    );
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
