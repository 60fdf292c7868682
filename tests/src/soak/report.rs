//! What a long run found: a table, a plot, and what drifted.

use std::fmt::Write;
use std::time::Duration;

use super::place::ASKED;
use crate::{Footprint, median};

/// What was found in one minute.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the beginning.
    pub since: Duration,
    /// What the switch's processes hold.
    pub held: Footprint,
    /// Median and 99th percentile of the round trips to each that is asked, in ms; not a number: none came.
    pub round_trips: [(f64, f64); ASKED.len()],
}

/// What a run found.
#[derive(Debug)]
pub struct Report {
    /// One a minute.
    pub samples: Vec<Sample>,
    /// How long it took.
    pub lived: Duration,
    /// Until when the switch was reloaded, upgraded and killed.
    pub turbulent: Duration,
    /// Changes that were made.
    pub changes: u64,
    /// Upgrades.
    pub upgrades: u32,
    /// Crashes.
    pub crashes: u32,
    /// Connections that ended early, and what they said.
    pub cut: Vec<String>,
    /// What is there of ports that are not.
    pub left: Vec<String>,
}

impl Report {
    /// Early and late in the life of the process that lived longest: after it has come to rest, and at the end.
    fn ends(&self) -> Option<(&[Sample], &[Sample])> {
        let calm = self.samples.iter().position(|sample| sample.since > self.turbulent + self.lived / 20)?;
        let calm = &self.samples[calm..];
        let part = calm.len() / 4;
        (part > 0).then(|| (&calm[..part], &calm[calm.len() - part..]))
    }
}

/// One line of the table.
pub(super) fn line(sample: &Sample) -> String {
    let Footprint { memory, descriptors, threads } = sample.held;
    let mut text =
        format!("| {:5.0} | {:6.1} | {descriptors:4} | {threads:3} |", sample.since.as_secs_f64() / 60.0, megabytes(memory));
    for (middle, late) in sample.round_trips {
        let _ = write!(text, " {middle:.2} / {late:.1} |");
    }
    text
}

fn megabytes(kilobytes: u64) -> f64 {
    // No process has so much memory that a float's digits would matter.
    f64::from(u32::try_from(kilobytes).unwrap_or(u32::MAX)) / 1024.0
}

/// A dozen rows and what happened, for people and for documents.
pub fn table(report: &Report) -> String {
    let mut text = String::from("| minute | MB | descriptors | threads |");
    for (name, _) in ASKED {
        let _ = write!(text, " {name}, ms (median / p99) |");
    }
    text += "\n|---|---|---|---|---|---|---|\n";
    for sample in report.samples.iter().step_by(report.samples.len().div_ceil(12).max(1)) {
        text += &line(sample);
        text.push('\n');
    }
    let Report { changes, upgrades, crashes, lived, .. } = report;
    let _ = writeln!(
        text,
        "\n{:.2} hours, {changes} changes, {upgrades} upgrades, {crashes} crashes; connections cut: {}",
        lived.as_secs_f64() / 3600.0,
        report.cut.len()
    );
    text
}

/// What is not at the end as it was after the beginning, one sentence each.
pub fn drifts(report: &Report) -> Vec<String> {
    let mut found: Vec<String> = report.cut.iter().map(|cut| format!("a connection was cut: {cut}")).collect();
    found.extend(report.left.iter().map(|name| format!("{name} was left behind")));
    let Some((early, late)) = report.ends() else {
        found.push("too short to say what drifts".to_owned());
        return found;
    };
    let of = |samples: &[Sample], figure: &dyn Fn(&Sample) -> f64| {
        let figures: Vec<f64> = samples.iter().map(figure).filter(|figure| figure.is_finite()).collect();
        if figures.is_empty() { f64::NAN } else { median(figures) }
    };
    // More than is allowed, of what, in what.
    let mut look = |name: &str, unit: &str, more: f64, figure: &dyn Fn(&Sample) -> f64| {
        let (before, after) = (of(early, figure), of(late, figure));
        if after > before + more {
            found.push(format!("{name}: {before:.2} {unit} early, {after:.2} {unit} late"));
        }
    };
    look("memory", "MB", 8.0, &|sample| megabytes(sample.held.memory));
    look("descriptors", "open", 4.0, &|sample| count(sample.held.descriptors));
    look("threads", "running", 0.5, &|sample| count(sample.held.threads));
    for (number, (name, _)) in ASKED.iter().enumerate() {
        let middle = |sample: &Sample| sample.round_trips[number].0;
        // Half as much again, or a tenth of a millisecond: machines have moods.
        let allowed = (of(early, &middle) / 2.0).max(0.1);
        look(&format!("round trips by {name}"), "ms", allowed, &middle);
    }
    found
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

const WIDTH: f64 = 720.0;
const PANEL: f64 = 130.0;
const LEFT: f64 = 60.0;
const COLORS: [&str; 3] = ["#4a90c2", "#d9893f", "#5a9e5a"];

/// A name, and a figure for each sample.
type Line<'a> = (&'a str, Vec<f64>);

/// Memory, descriptors and round trips over time, as SVG by hand, as the chart of benchmarks is.
pub fn plot(report: &Report) -> String {
    let panels: [(&str, Vec<Line<'_>>); 3] = [
        ("Resident memory, MB", vec![("", figures(report, &|sample| megabytes(sample.held.memory)))]),
        ("Open descriptors", vec![("", figures(report, &|sample| count(sample.held.descriptors)))]),
        (
            "Round trip, median, ms",
            ASKED
                .iter()
                .enumerate()
                .map(|(number, (name, _))| (*name, figures(report, &|sample| sample.round_trips[number].0)))
                .collect(),
        ),
    ];
    let height = PANEL * 3.0 + 40.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (number, (title, lines)) in (0_u8..).zip(&panels) {
        panel(&mut text, 20.0 + PANEL * f64::from(number), title, lines, report);
    }
    let hours = report.lived.as_secs_f64() / 3600.0;
    let _ = writeln!(
        text,
        "<text x=\"{LEFT}\" y=\"{:.0}\">0</text><text x=\"{WIDTH}\" y=\"{0:.0}\" text-anchor=\"end\" dx=\"-12\">{hours:.1} hours</text>",
        height - 6.0
    );
    text + "</svg>\n"
}

fn figures(report: &Report, figure: &dyn Fn(&Sample) -> f64) -> Vec<f64> {
    report.samples.iter().map(figure).collect()
}

fn panel(text: &mut String, top: f64, title: &str, lines: &[Line<'_>], report: &Report) {
    let most = lines.iter().flat_map(|(_, figures)| figures).copied().filter(|figure| figure.is_finite()).fold(0.0, f64::max);
    let scale = if most > 0.0 { most * 1.1 } else { 1.0 };
    let (bottom, room, beside) = (top + PANEL - 30.0, PANEL - 45.0, LEFT - 6.0);
    let span = report.lived.as_secs_f64().max(1.0);
    let x = |since: Duration| LEFT + since.as_secs_f64() / span * (WIDTH - LEFT - 12.0);
    let _ = writeln!(
        text,
        "<text x=\"{LEFT}\" y=\"{:.0}\" font-weight=\"bold\">{title}</text>\
         <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{room:.1}\" fill=\"#f2f2f2\"/>\
         <path d=\"M{LEFT} {bottom:.1}H{:.1}\" stroke=\"#999\"/>\
         <text x=\"{beside:.0}\" y=\"{bottom:.0}\" text-anchor=\"end\">0</text>\
         <text x=\"{beside:.0}\" y=\"{:.0}\" text-anchor=\"end\">{most:.1}</text>",
        top,
        bottom - room,
        x(report.turbulent) - LEFT,
        WIDTH - 12.0,
        bottom - most / scale * room + 4.0
    );
    for (number, (name, figures)) in lines.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let points = report.samples.iter().zip(figures).filter(|(_, figure)| figure.is_finite());
        let points: Vec<String> =
            points.map(|(sample, figure)| format!("{:.1},{:.1}", x(sample.since), bottom - figure / scale * room)).collect();
        let _ =
            writeln!(text, "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>", points.join(" "));
        if !name.is_empty() {
            let place = LEFT + 180.0 + 90.0 * f64::from(u8::try_from(number).unwrap_or(0));
            let _ = writeln!(text, "<text x=\"{place:.0}\" y=\"{top:.0}\" fill=\"{color}\">{name}</text>");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(memory: impl Fn(u64) -> u64, latency: f64) -> Report {
        let sample = |minute: u64| Sample {
            since: Duration::from_secs(60 * minute),
            held: Footprint { descriptors: 100, threads: 10, memory: memory(minute) * 1024 },
            round_trips: [(if minute > 100 { latency } else { 0.2 }, 1.0); ASKED.len()],
        };
        Report {
            samples: (1..=120).map(sample).collect(),
            lived: Duration::from_secs(7200),
            turbulent: Duration::from_secs(1800),
            changes: 0,
            upgrades: 0,
            crashes: 0,
            cut: Vec::new(),
            left: Vec::new(),
        }
    }

    #[test]
    fn what_grows_is_found_and_what_only_grew_at_first_is_not() {
        assert_eq!(drifts(&report(|minute| 20 + minute.min(30), 0.2)), Vec::<String>::new());
        assert_eq!(drifts(&report(|minute| 20 + minute / 2, 0.2)).len(), 1);
        assert_eq!(drifts(&report(|_| 20, 0.9)).len(), 3, "round trips by each way");
        let short = Report { samples: Vec::new(), ..report(|_| 20, 0.2) };
        assert_eq!(drifts(&short), ["too short to say what drifts"]);
    }

    #[test]
    fn a_plot_and_a_table_have_all_that_was_found() {
        let report = report(|_| 20, f64::NAN);
        let plot = plot(&report);
        assert_eq!((plot.matches("<polyline").count(), plot.matches("NaN").count()), (5, 0));
        assert_eq!(table(&report).lines().filter(|line| line.starts_with("| ")).count(), 13);
    }
}
