//! Errors as CNI has them: a number and a sentence (specification 1.1, "Error").

use serde_json::{Value, json};

use crate::client::ClientError;
use crate::plugin::{is_away, sentence};

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// A version of CNI that is not spoken.
    Version = 1,
    /// A variable that is missing or wrong.
    Environment = 4,
    /// Something cannot be read or run.
    Io = 5,
    /// Not the JSON that it should be.
    Decode = 6,
    /// A configuration that cannot be.
    Config = 7,
    /// Nothing answers: later it may.
    TryAgain = 11,
    /// ADD cannot be now.
    Unavailable = 50,
    /// The switch refuses.
    Refused = 100,
}

/// Why a call did not do what it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    /// One of ours.
    Ours(Code, String),
    /// What a delegate printed.
    Delegate(Value),
}

impl Fault {
    pub(super) const fn new(code: Code, sentence: String) -> Self {
        Self::Ours(code, sentence)
    }

    /// A configuration that cannot be.
    pub(super) fn config(sentence: impl Into<String>) -> Self {
        Self::new(Code::Config, sentence.into())
    }

    /// As a runtime reads it.
    pub(super) fn document(self, version: &str) -> Value {
        match self {
            Self::Ours(code, sentence) => json!({ "cniVersion": version, "code": code as u32, "msg": sentence }),
            Self::Delegate(document) => document,
        }
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        let code = if is_away(&error) { Code::TryAgain } else { Code::Refused };
        Self::new(code, sentence(&error))
    }
}
