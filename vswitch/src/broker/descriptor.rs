//! Descriptors as parts of requests and outcomes: on the wire each is its place among those that go beside the text.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire;

/// A descriptor that is part of a request or of an outcome.
#[derive(Debug)]
pub struct Descriptor(pub OwnedFd);

thread_local! {
    /// Those of the text that is being written on this thread.
    static WRITTEN: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
    /// Those of the text that is being read on this thread, until they are taken.
    static READ: RefCell<Vec<Option<OwnedFd>>> = const { RefCell::new(Vec::new()) };
}

impl Descriptor {
    /// The same once more.
    ///
    /// # Errors
    /// This process may open no more.
    pub fn of(descriptor: &OwnedFd) -> io::Result<Self> {
        descriptor.try_clone().map(Self)
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let again = self.0.try_clone().map_err(S::Error::custom)?;
        let place = WRITTEN.with_borrow_mut(|written| {
            written.push(again);
            written.len() - 1
        });
        place.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let place = usize::deserialize(deserializer)?;
        let taken = READ.with_borrow_mut(|read| read.get_mut(place).and_then(Option::take));
        taken.map(Self).ok_or_else(|| D::Error::custom(format!("there is no descriptor {place}")))
    }
}

/// Has `write` write a text, and returns it with the descriptors that go beside it.
pub(super) fn collect<T>(write: impl FnOnce() -> T) -> (T, Vec<OwnedFd>) {
    WRITTEN.take();
    let text = write();
    (text, WRITTEN.take())
}

/// Has `read` read a text beside which these came.
pub(super) fn with<T>(descriptors: Vec<OwnedFd>, read: impl FnOnce() -> T) -> T {
    READ.set(descriptors.into_iter().map(Some).collect());
    let value = read();
    READ.take();
    value
}

/// Sends a text and what goes beside it.
pub(super) fn send(stream: &UnixStream, text: &impl Serialize, descriptors: &[OwnedFd]) -> io::Result<()> {
    wire::send(stream, text)?;
    wire::send_descriptors(stream, &descriptors.iter().map(AsFd::as_fd).collect::<Vec<BorrowedFd<'_>>>())
}
