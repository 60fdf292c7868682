//! What a class has reached: the reports of a directory, as a table, as CSV or as JSON.

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::progress::{Report, ReportedStage};
use crate::{During, LabError};

/// Most bytes of a report.
const LARGEST: u64 = 1 << 20;

/// The reports of a directory and of the directories in it, and why a file is none.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn reports(directory: &Path) -> Result<(Vec<Report>, Vec<String>), LabError> {
    let mut files = files(directory)?;
    files.sort();
    let (mut reports, mut wrong) = (Vec::new(), Vec::new());
    for file in files {
        match report(&file) {
            Ok(report) => reports.push(report),
            Err(why) => wrong.push(format!("{}: {why}", file.display())),
        }
    }
    reports.sort_by(|one: &Report, other| (&one.lab, &one.learner, &one.seed).cmp(&(&other.lab, &other.learner, &other.seed)));
    Ok((reports, wrong))
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, LabError> {
    let list = |directory: &Path| -> Result<Vec<PathBuf>, LabError> {
        let entries = fs::read_dir(directory).during(|| format!("{} cannot be read", directory.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    };
    let mut found = Vec::new();
    for path in list(directory)? {
        if path.is_dir() { found.extend(list(&path)?) } else { found.push(path) }
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    Ok(found)
}

fn report(file: &Path) -> Result<Report, String> {
    let metadata = fs::symlink_metadata(file).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is no plain file".to_owned());
    }
    if metadata.len() > LARGEST {
        return Err(format!("has {} bytes, more than any report", metadata.len()));
    }
    let mut text = String::new();
    let read = fs::File::open(file).and_then(|file| file.take(LARGEST).read_to_string(&mut text));
    read.map_err(|error| error.to_string())?;
    let report: Report =
        serde_json::from_str(&text).map_err(|error| format!("is no report of `vsctl lab check --report`: {error}"))?;
    // A report is a file that its learner can write to.
    let earned = |stage: &ReportedStage| -> u64 {
        let passed = stage.tasks.iter().filter(|task| task.passed && !stage.solved);
        passed.map(|task| u64::from(task.points)).sum()
    };
    let stages: u64 = report.stages.iter().map(|stage| u64::from(stage.points)).sum();
    let is_sum = stages == u64::from(report.points);
    if is_sum && report.stages.iter().all(|stage| stage.points <= stage.of && u64::from(stage.points) == earned(stage)) {
        Ok(report)
    } else {
        Err("its points are not the sum of what was passed".to_owned())
    }
}

/// A line for each report.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut table = format!("{:<16} {:<12} {:<12} {:>6}  {}\n", "LEARNER", "LAB", "SEED", "POINTS", "STAGES");
    for report in reports {
        let stages: Vec<String> = report
            .stages
            .iter()
            .map(|stage| {
                let mark = if stage.solved { "s" } else { "" };
                let hints = "?".repeat(stage.hints.min(9));
                format!("{}/{}{mark}{hints}", stage.points, stage.of)
            })
            .collect();
        let points = format!("{}/{}", report.points, report.of);
        // Writing into a string cannot fail.
        let [learner, lab, seed] = [&report.learner, &report.lab, &report.seed].map(|text| text.escape_debug().to_string());
        let _ = writeln!(table, "{learner:<16} {lab:<12} {seed:<12} {points:>6}  {}", stages.join(" "));
    }
    table += "s: solved by the lab itself; ?: a hint\n";
    table
}

/// A line for each task, as RFC 4180 has it.
pub(crate) fn csv(reports: &[Report]) -> String {
    let field = |text: &str| {
        // A spreadsheet takes what begins so for a formula.
        let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() };
        let plain = !text.contains([',', '"', '\n', '\r']);
        if plain { text } else { format!("\"{}\"", text.replace('"', "\"\"")) }
    };
    let mut lines = "learner,lab,seed,stage,task,points,of,hints,solved,saw\r\n".to_owned();
    for report in reports {
        for stage in &report.stages {
            for task in &stage.tasks {
                let points = if task.passed && !stage.solved { task.points } else { 0 };
                let texts =
                    [&report.learner, &report.lab, &report.seed, &stage.title, &task.says].map(|text| field(text)).join(",");
                let saw = field(task.saw.as_deref().unwrap_or_default());
                let _ = write!(lines, "{texts},{points},{},{},{},{saw}\r\n", task.points, stage.hints, stage.solved);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::TaskResult;

    fn report(learner: &str, points: u32) -> Report {
        let task = TaskResult { says: "a, \"b\"".to_owned(), passed: points > 0, points: 2, saw: None };
        let stage = ReportedStage { title: "One".to_owned(), points, of: 2, hints: 1, solved: false, tasks: vec![task] };
        Report {
            lab: "x".to_owned(),
            seed: "s".to_owned(),
            learner: learner.to_owned(),
            time: 0,
            points,
            of: 2,
            stages: vec![stage],
        }
    }

    #[test]
    fn a_class_is_a_table_and_a_file_that_is_no_report_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: String| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("bob.json", serde_json::to_string(&report("bob", 2)).unwrap());
        put("ada/r.json", serde_json::to_string(&report("ada", 0)).unwrap());
        put("forged.json", serde_json::to_string(&Report { points: 9, ..report("eve", 2) }).unwrap());
        put("broken.json", "{".to_owned());
        put("notes.txt", String::new());
        let (reports, wrong) = reports(directory.path()).unwrap();
        assert_eq!(reports.iter().map(|report| report.learner.as_str()).collect::<Vec<_>>(), ["ada", "bob"]);
        assert!(
            wrong.len() == 2 && wrong[0].contains("broken.json: is no report") && wrong[1].contains("not the sum"),
            "{wrong:?}"
        );
        assert!(!table(&[report("\x1b[2J\nada", 2)]).contains("\x1b") && table(&[report("a\nb", 2)]).lines().count() == 3);
        assert!(table(&reports).contains("bob              x            s               2/2  2/2?"), "{}", table(&reports));
        assert_eq!(csv(&reports).lines().nth(2).unwrap(), "bob,x,s,One,\"a, \"\"b\"\"\",2,2,1,false,");
    }
}
