//! The new one's side.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::{Ask, Descriptors, FORMAT, Label, Message, PATIENCE};
use crate::config::Config;
use crate::control::handover::Handover;
use crate::control::image::{self, Image};
use crate::control::socket::Passed;
use crate::host::Elder;
use crate::inherited::Inherited;
use crate::wire;
use api::PortName;

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

/// A takeover under way. Dropped before it is over, it says that it failed.
#[derive(Debug)]
pub(in crate::control) struct Takeover {
    /// `None`: it is over.
    stream: Option<UnixStream>,
    image: Option<File>,
    /// Those who see sessions of uplinks through.
    elders: Vec<(PortName, Elder)>,
    /// What leads to the old one, of uplinks whose sessions that will see through.
    wires: BTreeMap<PortName, OwnedFd>,
}

/// What the new one goes on with.
#[derive(Default)]
pub(crate) struct Legacy {
    /// What the tables of the old one knew; `None`: it was killed.
    pub(in crate::control) image: Option<Image>,
    pub(in crate::control) elders: Vec<(PortName, Elder)>,
}

impl Takeover {
    /// Asks the vswitchd that runs for all that it has.
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
        let descriptors = wire::receive_descriptors(&stream, labels.len()).map_err(TakeoverError::Broken)?;
        let mut takeover = Self { stream: Some(stream), image: None, elders: Vec::new(), wires: BTreeMap::new() };
        let (handover, passed) = takeover.sort(labels.into_iter().zip(descriptors).collect());
        Ok((takeover, handover, passed))
    }

    /// Finds out what each descriptor is for.
    fn sort(&mut self, descriptors: Descriptors) -> (Handover, Vec<Passed>) {
        let (mut handover, mut sockets, mut passed) = (Handover::default(), Vec::new(), Vec::new());
        for (label, descriptor) in descriptors {
            match label {
                Label::Image => self.image = Some(descriptor.into()),
                Label::Queue(port) => handover.put(port, descriptor),
                Label::Door { ours } => passed.push(Passed { listener: UnixListener::from(descriptor), ours }),
                Label::Elder { uplink, sessions: Some(sessions) } => {
                    self.elders.push((uplink, Elder::new(descriptor, sessions)));
                }
                Label::Elder { uplink, sessions: None } => drop(self.wires.insert(uplink, descriptor)),
                Label::Socket => sockets.push(descriptor),
            }
        }
        (handover.is_complete, handover.inherited) = (true, Inherited::new(sockets).into());
        (handover, passed)
    }

    /// Says that this one is built, and waits until the old one forwards nothing any more. One that was killed forwards nothing either.
    pub(in crate::control) fn go(&mut self) -> Result<Legacy, TakeoverError> {
        let elders = std::mem::take(&mut self.elders);
        let Some(stream) = &self.stream else { return Ok(Legacy { image: None, elders }) };
        let own = match wire::send(stream, &Message::Ready).and_then(|()| wire::receive(stream)) {
            Ok(Message::Go(own)) => own,
            Ok(_) => return Err(TakeoverError::Broken(io::Error::other("it answers something else"))),
            Err(error) if is_end(&error) => return Ok(Legacy { image: None, elders }),
            Err(error) => return Err(TakeoverError::Broken(error)),
        };
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.image {
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(TakeoverError::Broken)?;
        }
        let own = own.into_iter().filter_map(|(uplink, sessions)| {
            let wire = self.wires.remove(&uplink)?;
            Some((uplink, Elder::new(wire, sessions)))
        });
        Ok(Legacy { image: image::parse(bytes), elders: elders.into_iter().chain(own).collect() })
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
        let _ = self.stream.take().map(|stream| wire::send(&stream, message));
    }
}

/// Whether the other side has ended.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

impl Drop for Takeover {
    fn drop(&mut self) {
        self.tell(&Message::Failed("it ended early".to_owned()));
    }
}
