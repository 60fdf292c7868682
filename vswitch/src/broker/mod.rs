//! Two processes: one that has rights, and one that reads what others send.
//!
//! vswitchd starts itself once more as its *broker* before it takes in anything, and then gives up every right that it has, for ever and with all its
//! threads. What takes rights it asks the broker for: to make devices and namespaces and to work in them, to open sockets of kinds that not everybody may
//! open, to start a successor. What the broker opens comes back as a descriptor.
//!
//! **As a service.** Where vswitchd is a service, its broker is another service: who listens at a socket (`--broker-at`) starts it, and neither needs what the
//! other one has. A successor belongs to the service of vswitchd. So it is started by a process of that service, the *starter*, which carries out nothing
//! else. Each connection to the socket gets a broker. So such a broker takes what bounds it from the file, and starts no program; and vswitchd asks first
//! whether the broker is of the same version and for the same file.
//!
//! **What it reads.** The broker reads requests, on a socket that no other program has, the file of the switch, and what the kernel answers. It reads no
//! frame, no datagram, and no connection of others. A request is one of a list, by name, with arguments of its own types (`requests!`); which of them there
//! are is said by the rooms that need them, each beside the function that carries it out. A process that runs an attacker's code may ask for all of them,
//! so each takes as little as it can: names of namespaces and not paths, the sockets and the file of the switch and no others, a successor that this
//! process cannot have written.
//!
//! **One way through.** Where there is no broker, as with `--no-sandbox` and in tests, a request is carried out where it is made, by the same function.
//!
//! **Both end together.** The broker ends when the socket is closed or the process at its other end has ended, and vswitchd when its broker has ended:
//! devices stay as they are after a crash.
//!
//! **What bounds it.** One request is carried out at a time; who asks waits. Its control side asks for nearly all of them, and does one thing at a time
//! itself.

mod descriptor;
mod process;
pub(crate) mod system_error;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::wire;

pub use descriptor::Descriptor;
pub(crate) use process::serve;
pub use process::{Aide, Duty};
pub(crate) use system_error::SystemError;

/// The way to the broker; empty where this process has what rights there are.
static BROKER: OnceLock<Way> = OnceLock::new();
/// The way to the starter, and what it is asked for instead of the broker; empty where the broker starts the successor.
static STARTER: OnceLock<(Rooms, Way)> = OnceLock::new();

/// A way to a process beside this one.
#[derive(Debug)]
struct Way {
    stream: Mutex<UnixStream>,
    /// Who is there, for messages.
    name: String,
}

impl Way {
    fn ask<T: Refusable>(&self, name: &str, arguments: &impl Serialize) -> io::Result<T> {
        ask_by(&self.stream.lock().unwrap_or_else(PoisonError::into_inner), name, arguments)
    }
}

/// Carries out a request, given its arguments, and returns its outcome, both as they are on the wire. The first error is about the arguments, the second
/// about the outcome.
pub(crate) type Handler = fn(Value) -> serde_json::Result<serde_json::Result<Value>>;

/// Lists of requests, each with its name, the types of its arguments and its outcome, and what carries it out.
pub(crate) type Rooms = &'static [&'static [(&'static str, &'static str, Handler)]];

/// What a request says: its name, its arguments, and how many descriptors follow.
type Envelope = (String, Value, usize);

/// Makes a function of each request, which has it carried out by the broker if there is one, and `REQUESTS`, by which a broker carries them out.
///
/// Behind each argument stands, after `=`, the type that it has on its way, of which the argument is a borrow.
macro_rules! requests {
    ($($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $borrow:ty = $owned:ty),*) -> $outcome:ty, by $by:path;)*) => {
        $($(#[$attribute])* $visibility fn $name($($argument: $borrow),*) -> $outcome {
            match $crate::broker::ask(stringify!($name), &($($argument,)*)) {
                Some(outcome) => outcome,
                None => $by($($argument),*),
            }
        })*

        /// What a broker carries out for this room.
        pub(crate) const REQUESTS: &[(&str, &str, $crate::broker::Handler)] = &[$((stringify!($name), stringify!($($owned),* => $outcome), |arguments| {
            let ($($argument,)*): ($($owned,)*) = serde_json::from_value(arguments)?;
            Ok(serde_json::to_value($by($(&$argument),*)))
        })),*];
    };
}
pub(crate) use requests;

/// What a request comes to, which may be that it cannot be passed on, as where no more descriptors may be open.
pub(crate) trait Refusable: DeserializeOwned {
    fn refused(error: io::Error) -> Self;
}

impl<T: DeserializeOwned, E: DeserializeOwned + From<io::Error>> Refusable for Result<T, E> {
    fn refused(error: io::Error) -> Self {
        Err(error.into())
    }
}

impl<T: DeserializeOwned> Refusable for Option<T> {
    fn refused(_: io::Error) -> Self {
        None
    }
}

impl Refusable for bool {
    fn refused(_: io::Error) -> Self {
        false
    }
}

impl Refusable for () {
    fn refused(_: io::Error) -> Self {}
}

/// Who carries out a request of that name.
fn carries_out(rooms: Rooms, name: &str) -> Option<Handler> {
    rooms.iter().copied().flatten().find(|(known, ..)| *known == name).map(|(.., carry_out)| *carry_out)
}

/// Has the broker or the starter carry out a request; `None`: there is no broker. Where the broker does not answer it has ended, and so does this process;
/// without the starter it goes on.
pub(crate) fn ask<T: Refusable>(name: &str, arguments: &impl Serialize) -> Option<T> {
    if let Some((_, starter)) = STARTER.get().filter(|(rooms, _)| carries_out(rooms, name).is_some()) {
        let refused =
            |error| T::refused(io::Error::other(format!("{} does not answer ({error}): restart vswitchd", starter.name)));
        return Some(starter.ask(name, arguments).unwrap_or_else(refused));
    }
    let broker = BROKER.get()?;
    match broker.ask(name, arguments) {
        Ok(outcome) => Some(outcome),
        Err(error) => {
            tracing::error!("{} does not answer ({name}: {error}): vswitchd ends", broker.name);
            std::process::exit(1);
        }
    }
}

fn ask_by<T: Refusable>(stream: &UnixStream, name: &str, arguments: &impl Serialize) -> io::Result<T> {
    let (arguments, descriptors) = descriptor::collect(|| serde_json::to_value(arguments));
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(error) => return Ok(T::refused(error.into())),
    };
    let envelope: Envelope = (name.to_owned(), arguments, descriptors.len());
    descriptor::send(stream, &envelope, &descriptors)?;
    let (outcome, count): (Result<Value, String>, usize) = wire::receive(stream)?;
    let descriptors = match wire::receive_descriptors(stream, count) {
        Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => return Ok(T::refused(error)),
        received => received?,
    };
    match outcome {
        Ok(outcome) => Ok(descriptor::with(descriptors, || serde_json::from_value(outcome))?),
        Err(why) => Ok(T::refused(io::Error::other(why))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    requests! {
        /// Adds.
        fn add(a: &u32 = u32, b: &[u32] = Vec<u32>) -> Option<u32>, by sum;
        /// Gives back what it got, the last first.
        fn reverse(files: &[Descriptor] = Vec<Descriptor>) -> Result<Vec<Descriptor>, SystemError>, by turn;
    }

    fn sum(a: &u32, b: &[u32]) -> Option<u32> {
        Some(a + b.iter().sum::<u32>())
    }

    fn turn(files: &[Descriptor]) -> Result<Vec<Descriptor>, SystemError> {
        Ok(files.iter().rev().map(|file| Descriptor::of(&file.0)).collect::<io::Result<_>>()?)
    }

    fn inode(descriptor: &Descriptor) -> u64 {
        rustix::fs::fstat(&descriptor.0).unwrap().st_ino
    }

    #[test]
    fn without_a_broker_a_request_is_carried_out_here() {
        assert_eq!(add(&1, &[2, 3]), Some(6));
        let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()].map(|file| Descriptor(file.into()));
        assert!(reverse(&files).unwrap().iter().map(inode).eq(files.iter().rev().map(inode)));
    }

    #[test]
    fn a_broker_carries_out_what_is_listed_and_ends_at_all_else() {
        let (one, other) = UnixStream::pair().unwrap();
        let broker = std::thread::spawn(move || process::serve_on(&other, &[REQUESTS]));
        assert_eq!(ask_by::<Option<u32>>(&one, "add", &(1, [2, 3])).unwrap(), Some(6));
        let files: Vec<Descriptor> = (0..100).map(|_| Descriptor(OwnedFd::from(tempfile::tempfile().unwrap()))).collect();
        let turned: Result<Vec<Descriptor>, SystemError> = ask_by(&one, "reverse", &(&files,)).unwrap();
        assert!(turned.unwrap().iter().map(inode).eq(files.iter().rev().map(inode)));
        assert!(ask_by::<Option<u32>>(&one, "run", &("/bin/sh",)).is_err());
        assert!(broker.join().unwrap().unwrap_err().to_string().contains("no request \"run\""));
        let (one, other) = UnixStream::pair().unwrap();
        let broker = std::thread::spawn(move || process::serve_on(&other, &[REQUESTS]));
        assert!(ask_by::<Option<u32>>(&one, "add", &("a", [2, 3])).is_err(), "arguments of other types");
        broker.join().unwrap().unwrap_err();
    }

    #[test]
    fn a_broker_ends_with_the_other_side() {
        let (one, other) = UnixStream::pair().unwrap();
        drop(one);
        process::serve_on(&other, &[REQUESTS]).unwrap();
    }
}
