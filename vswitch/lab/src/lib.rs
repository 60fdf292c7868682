//! Teaching labs: a network to look at, break and mend, with stages, checks and grades.
//!
//! A lab is one TOML file, a `switch.toml` with more tables beside it (`file`), and a text in Markdown. `draw` puts the values of a seed into
//! both, so that two learners have two networks.
//!
//! # What runs
//!
//! `vsctl lab start` makes namespaces of the lab's own (`boot`): of users where it is not root that asks, of mounts, of process numbers, and of the
//! network unless the lab needs the way out of the host. The first process in there, the keeper (`keep`), makes the hosts, starts the switches and
//! the daemons, and waits. When it ends, whatever the reason, the kernel ends all others and takes the namespaces away with every device in them:
//! nothing needs to be tidied up.
//!
//! What learner and checks run comes into a host by `namespace`; what makes the outermost namespaces is `unshare` of util-linux.
//!
//! # What is kept
//!
//! One directory (`place`): what runs, and the progress; both are files that only the commands here write.
#![forbid(unsafe_code)]

mod boot;
mod check;
mod command;
mod course;
mod desk;
mod draw;
mod enter;
mod file;
mod grade;
mod guide;
mod keep;
mod library;
mod namespace;
mod place;
mod progress;
mod relay;
mod stdout;
mod step;
mod verify;

pub use command::LabCommand;
pub use stdout::print;

/// Why a command about labs failed, in one sentence or more.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// What was asked for cannot be done, and why.
    #[error("{0}")]
    Refused(String),
    /// Something is wrong with a lab's file: each problem with its place.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    File(Vec<Problem>),
    /// The operating system refused something.
    #[error("{0}: {1}")]
    System(String, #[source] std::io::Error),
}

impl LabError {
    fn refused(sentence: impl Into<String>) -> Self {
        Self::Refused(sentence.into())
    }
}

/// Says what was being done when the operating system refused.
trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, LabError>;
}

impl<T> During<T> for std::io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, LabError> {
        self.map_err(|error| LabError::System(what(), error))
    }
}

/// What is wrong in a lab's file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As the user called it.
    pub file: String,
    /// From 1; 0 where the whole file is meant.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub sentence: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.sentence),
            line => write!(f, "{}:{line}: {}", self.file, self.sentence),
        }
    }
}
