//! All that a run found, with what it was found on.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::comparison::{Comparison, Row, middle};
use super::paths;

/// A run.
pub struct Report {
    /// What it ran on.
    pub(crate) machine: Machine,
    /// How often each measure was taken.
    pub(crate) pairs: usize,
    /// How long the longest of them took, in seconds.
    pub(crate) seconds: u64,
    /// What was found.
    pub(crate) comparisons: Vec<Comparison>,
    /// A sentence for each contender that was not there.
    pub(crate) absent: Vec<String>,
}

/// What a run ran on.
pub(crate) struct Machine {
    /// Cores.
    pub(crate) cores: usize,
    /// The processor's name for itself.
    pub(crate) processor: String,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The load of the last minute before the run.
    pub(crate) load: f64,
    /// When the run began, seconds since 1970.
    pub(crate) begun: u64,
}

impl Machine {
    /// This machine now.
    pub(crate) fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo");
        let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor.unwrap_or("a processor without a name").to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            begun: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        }
    }

    /// It all in a line of at most 80 columns.
    pub(crate) fn line(&self) -> String {
        let Self { cores, processor, kernel, load, .. } = self;
        let line = format!("{cores} cores, load {load:.1}, Linux {kernel}, {processor}");
        line.chars().take(80).collect()
    }
}

impl Report {
    /// How it was measured, in a line.
    pub(crate) fn settings(&self) -> String {
        let Self { pairs, seconds, .. } = self;
        format!("Rounds: {pairs}; one TCP stream for {seconds} s, the rest for a third of that.")
    }

    /// Every single figure.
    pub fn json(&self) -> Value {
        let Machine { cores, processor, kernel, load, begun } = &self.machine;
        let machine = json!({ "cores": cores, "processor": processor, "kernel": kernel, "load": load });
        let comparisons: Vec<Value> = self.comparisons.iter().flat_map(rows).collect();
        let failures: Vec<Value> = self.comparisons.iter().flat_map(failures).collect();
        json!({
            "begun": begun, "machine": machine, "pairs": self.pairs, "seconds": self.seconds,
            "comparisons": comparisons, "failures": failures, "absent": self.absent,
        })
    }
}

fn rows(comparison: &Comparison) -> Vec<Value> {
    let row = |row: Row<'_>| {
        let spread = row.spread();
        json!({
            "path": comparison.path, "measure": comparison.measure, "metric": row.metric.name.trim_start(),
            "less_is_better": row.metric.less, "beside": row.beside, "ours": row.ours, "theirs": row.theirs, "ratios": row.ratios(),
            "ours_median": middle(&row.ours), "theirs_median": middle(&row.theirs),
            "ratio_median": spread.map(|spread| spread.median), "ratio_min": spread.map(|spread| spread.least),
            "ratio_max": spread.map(|spread| spread.most),
        })
    };
    comparison.rows().into_iter().map(row).collect()
}

fn failures(comparison: &Comparison) -> Vec<Value> {
    let mut list = Vec::new();
    for series in &comparison.series {
        for (round, run) in (1..).zip(&series.runs) {
            if let Err(reason) = run {
                let (path, measure, contender) = (comparison.path, comparison.measure, series.contender);
                list.push(
                    json!({ "path": path, "measure": measure, "contender": contender, "round": round, "reason": reason }),
                );
            }
        }
    }
    list
}

/// What a path is called in the table and the chart.
pub(crate) fn title(path: &str) -> &str {
    paths::titles().find(|(name, _)| *name == path).map_or(path, |(_, title)| title)
}

/// A report for tests of what is made of it.
#[cfg(test)]
pub(crate) fn example() -> Report {
    let processor = "A processor whose name is so long that it would not fit on any line at all".to_owned();
    Report {
        machine: Machine { cores: 2, processor, kernel: "6.1".to_owned(), load: 0.5, begun: 7 },
        pairs: 3,
        seconds: 1,
        comparisons: vec![super::comparison::example()],
        absent: vec!["VDE is not in tap: there is no vde_plug; the package vdeplug has it".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn the_document_has_every_figure() {
        let document = super::example().json();
        let row = &document["comparisons"][0];
        assert_eq!(row["ours"], json!([8.0, 12.0, null]));
        assert_eq!(row["theirs"], json!([4.0, 4.0, 5.0]));
        assert_eq!(row["ratios"], json!([2.0, 3.0]));
        assert_eq!((row["ratio_median"].as_f64(), row["ratio_min"].as_f64()), (Some(2.5), Some(2.0)));
        assert_eq!(document["comparisons"][1]["ratio_median"], json!(null));
        assert_eq!(document["failures"][0]["reason"], "it <hung>");
        assert_eq!((&document["failures"][0]["round"], &document["machine"]["cores"]), (&json!(3), &json!(2)));
    }
}
