//! What a learner has reached in a lab that runs.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::file::Lab;
use crate::place::{self, Meta, Place};

const FILE: &str = "progress.json";

/// Stages that were reached, and answers that were given.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) stages: Vec<StageProgress>,
    pub(crate) answers: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StageProgress {
    /// Whether all of it was right once.
    pub(crate) passed: bool,
    /// Whether the lab did it itself: that gives no points.
    pub(crate) solved: bool,
    pub(crate) hints: usize,
    /// As they were when they were last looked at.
    pub(crate) tasks: Vec<TaskResult>,
}

/// How a task stood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskResult {
    pub(crate) says: String,
    pub(crate) passed: bool,
    /// The points that it would give.
    pub(crate) points: u32,
    /// What was seen instead.
    pub(crate) saw: Option<String>,
}

/// What a learner hands in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) lab: String,
    pub(crate) seed: String,
    pub(crate) learner: String,
    /// In seconds since 1970.
    pub(crate) time: u64,
    pub(crate) points: u32,
    pub(crate) of: u32,
    pub(crate) stages: Vec<ReportedStage>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReportedStage {
    pub(crate) title: String,
    pub(crate) points: u32,
    pub(crate) of: u32,
    pub(crate) hints: usize,
    pub(crate) solved: bool,
    pub(crate) tasks: Vec<TaskResult>,
}

impl Progress {
    pub(crate) fn load(place: &Place, lab: &Lab) -> Result<Self, LabError> {
        let mut progress: Self = place.load(FILE)?.unwrap_or_default();
        progress.stages.resize_with(lab.stages.len(), StageProgress::default);
        Ok(progress)
    }

    pub(crate) fn save(&self, place: &Place) -> Result<(), LabError> {
        place.save(FILE, self)
    }

    /// The first stage that was not reached.
    pub(crate) fn current(&self) -> Option<usize> {
        self.stages.iter().position(|stage| !stage.passed)
    }

    pub(crate) fn points(&self) -> u32 {
        self.stages.iter().map(StageProgress::points).sum()
    }

    /// The points that were earned, and why there may be less than the stages that are done would give.
    pub(crate) fn score(&self, lab: &Lab) -> String {
        let solved = self.stages.iter().any(|stage| stage.solved);
        let why = if solved { " (none for what the lab solved)" } else { "" };
        format!("{} of {} points{why}", self.points(), lab.points())
    }

    /// What is handed in.
    pub(crate) fn report(&self, lab: &Lab, meta: &Meta) -> Report {
        let stages = lab.stages.iter().zip(&self.stages).map(|(stage, progress)| ReportedStage {
            title: stage.title.clone(),
            points: progress.points(),
            of: stage.points(),
            hints: progress.hints,
            solved: progress.solved,
            tasks: progress.tasks.clone(),
        });
        let learner = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
        let time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
        let (points, of) = (self.points(), lab.points());
        Report { lab: meta.name.clone(), seed: meta.seed.clone(), learner, time, points, of, stages: stages.collect() }
    }

    /// Writes the report to where the labs of a user keep theirs.
    pub(crate) fn keep_report(&self, place: &Place, lab: &Lab, meta: &Meta) -> Result<(), LabError> {
        place::make(&place.results())?;
        let name = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_', "_");
        let path = place.results().join(format!("{}-{}.json", name(&meta.name), name(&meta.seed)));
        let kept = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Report>(&text).ok());
        if kept.is_some_and(|kept| kept.points > self.points()) {
            // Of an earlier run, which went further.
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&self.report(lab, meta))
            .map_err(|error| LabError::System("a report".to_owned(), error.into()))?;
        place::write(&path, text)
    }
}

impl StageProgress {
    /// Those that were earned.
    pub(crate) fn points(&self) -> u32 {
        if self.solved { 0 } else { self.tasks.iter().filter(|task| task.passed).map(|task| task.points).sum() }
    }
}
