//! Frames as people write and read them: in words, as `vsctl trace` takes them, and as the values that a trace shows. The control side calls it;
//! it touches nothing.

mod build;
mod info;
mod words;

pub(crate) use build::{Endpoints, NoFrame};
pub(crate) use info::{changes, offload, read, read_with};
pub(crate) use words::{FrameWords, WordsError};
