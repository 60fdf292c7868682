//! The new one's side.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::{Ask, Descriptors, FORMAT, Label, Message, PATIENCE, wire};
use crate::config::Config;
use crate::control::handover::Handover;
use crate::control::socket::Passed;
use crate::host::Elder;
use crate::inherited::Inherited;

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// No vswitchd hears.
    #[error(
        "--takeover: no vswitchd hears at {}: {source}: is one running, with the same `control` socket? Without one, start without --takeover",
        place.display()
    )]
    Nobody {
        /// Its socket.
        place: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It hands over nothing.
    #[error("--takeover: the vswitchd that runs goes on, for it hands over nothing: {0}")]
    Refused(String),
    /// It does not speak as it should.
    #[error("--takeover: the vswitchd that runs goes on: {0}")]
    Broken(#[source] io::Error),
}

/// A takeover under way: what the old one is to be told in the end. Dropped before that, it says that it failed.
#[derive(Debug)]
pub(in crate::control) struct Takeover(Option<UnixStream>);

impl Takeover {
    /// Asks the vswitchd that runs for all that it has. From here on it waits.
    pub(in crate::control) fn begin(config: &Config) -> Result<(Self, Handover, Vec<Passed>), TakeoverError> {
        let place = super::place(&config.switch.control);
        let stream = UnixStream::connect(&place).map_err(|source| TakeoverError::Nobody { place, source })?;
        let ask = Ask { format: FORMAT, workers: config.switch.workers, state_dir: config.switch.state_dir.clone() };
        let asked = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| wire::send(&stream, &Message::Ask(ask)));
        let labels = match asked.and_then(|()| wire::receive(&stream)).map_err(TakeoverError::Broken)? {
            Message::Offer(labels) => labels,
            Message::Refused(why) => return Err(TakeoverError::Refused(why)),
            _ => return Err(TakeoverError::Broken(io::Error::other("it answers something else"))),
        };
        let takeover = Self(Some(stream));
        let descriptors = takeover.receive(labels.len()).map_err(TakeoverError::Broken)?;
        let (handover, passed) = sort(labels.into_iter().zip(descriptors).collect()).map_err(TakeoverError::Broken)?;
        Ok((takeover, handover, passed))
    }

    fn receive(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        self.0.as_ref().map_or_else(|| Ok(Vec::new()), |stream| wire::receive_descriptors(stream, count))
    }

    /// Says that this process goes on.
    pub(in crate::control) fn succeed(mut self) {
        self.tell(&Message::Alive);
    }

    /// Says why it cannot.
    pub(in crate::control) fn fail(mut self, why: &str) {
        self.tell(&Message::Failed(why.to_owned()));
    }

    fn tell(&mut self, message: &Message) {
        // One that was killed meanwhile hears nothing, and needs not.
        let _ = self.0.take().map(|stream| wire::send(&stream, message));
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        self.tell(&Message::Failed("it ended early".to_owned()));
    }
}

/// What the descriptors are for.
fn sort(descriptors: Descriptors) -> io::Result<(Handover, Vec<Passed>)> {
    let (mut handover, mut sockets, mut passed) = (Handover::default(), Vec::new(), Vec::new());
    for (label, descriptor) in descriptors {
        match label {
            Label::Image => {
                let mut file = File::from(descriptor);
                let mut bytes = Vec::new();
                file.rewind()?;
                file.read_to_end(&mut bytes)?;
                handover.image = crate::control::image::parse(bytes);
            }
            Label::Queue(port) => handover.put(port, descriptor),
            Label::Door { ours } => passed.push(Passed { listener: UnixListener::from(descriptor), ours }),
            Label::Elder { uplink, sessions } => handover.put_elder(uplink, Elder::new(descriptor, sessions)),
            Label::Socket => sockets.push(descriptor),
        }
    }
    handover.inherited = Inherited::new(sockets).into();
    Ok((handover, passed))
}
