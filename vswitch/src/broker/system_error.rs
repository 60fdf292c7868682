//! What the kernel said, on its way between processes: its number, or a sentence where there is none.

use std::io;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An outcome that is what the kernel said.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SystemError(#[serde(with = "self")] pub(crate) io::Error);

impl From<io::Error> for SystemError {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

pub(crate) fn serialize<S: Serializer>(error: &io::Error, serializer: S) -> Result<S::Ok, S::Error> {
    match error.raw_os_error() {
        Some(number) => Ok(number),
        None => Err(error.to_string()),
    }
    .serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<io::Error, D::Error> {
    let error = Result::<i32, String>::deserialize(deserializer)?;
    Ok(error.map_or_else(io::Error::other, io::Error::from_raw_os_error))
}
