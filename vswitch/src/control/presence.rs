//! Where a port's or uplink's state is kept: it follows from the *ends* of its device, which the control side hears of from the kernel.

use std::time::{Duration, Instant};

use super::ControlError;
use crate::attach::{Attachment, End, Identity, NamespaceNumber, News};
use api::{PortName, PortState};

/// What is known of the device of a port or uplink.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) state: PortState,
    /// The station's end, or the interface of a link. A container's runtime may have it in its hands, between two namespaces.
    pub(super) station: Option<End>,
    /// The switch's end of a veth pair.
    pub(super) near: Option<End>,
    /// That of the station's device, where it can go away on its own.
    pub(super) namespace: Option<Identity>,
    /// Where a container's runtime brings the device.
    pub(super) sandbox: Option<NamespaceNumber>,
    /// What the log said last, and when.
    pub(super) told: (PortState, Option<Instant>),
}

impl Presence {
    pub(super) fn of(attachment: &Attachment) -> Self {
        let station = attachment.ends.first().copied();
        let near = attachment.ends.get(1).copied();
        let mut presence = Self { station, near, namespace: attachment.namespace, ..Self::always_up() };
        presence.look();
        presence
    }

    /// Of an interface of vswitchd's own namespace.
    pub(super) fn at(end: End) -> Self {
        let mut presence = Self { station: Some(end), ..Self::always_up() };
        presence.look();
        presence
    }

    /// Of an uplink that needs no device.
    pub(super) const fn always_up() -> Self {
        let told = (PortState::Up, None);
        Self { state: PortState::Up, station: None, near: None, namespace: None, sandbox: None, told }
    }

    /// Of what has no device, which the log or the client that asked was told already.
    pub(super) fn unusable(error: &ControlError) -> Self {
        let state = PortState::Unusable(error.to_string());
        Self { told: (state.clone(), None), state, ..Self::always_up() }
    }

    pub(super) const fn state(&self) -> &PortState {
        &self.state
    }

    pub(super) fn lose(&mut self, state: PortState) {
        (self.state, self.station, self.near, self.sandbox) = (state, None, None, None);
    }

    /// Up only if all ends are up and have carrier.
    pub(super) fn look(&mut self) {
        let ends = || self.station.iter().chain(&self.near);
        self.state = if self.station.is_none() || ends().any(|end| !end.up) {
            PortState::Down
        } else if ends().any(|end| !end.carrier) {
            PortState::NoCarrier
        } else {
            PortState::Up
        };
    }

    /// Where the station's end is, as far as the kernel has told; `None`: between two namespaces.
    pub(super) fn place(&self) -> Option<Option<NamespaceNumber>> {
        self.station.map(|end| end.namespace)
    }

    /// Takes note of news, and says whether an end is gone with them. The device of the port `moving` may be brought from the namespace `own`
    /// to its sandbox and back, and is known by its mark.
    pub(super) fn hear(&mut self, news: &News, moving: Option<(&PortName, Option<NamespaceNumber>)>) -> bool {
        let is_it =
            |end: &Option<End>| end.is_some_and(|end| (end.namespace, end.index) == (news.end.namespace, news.end.index));
        let comes = |(name, own): (&PortName, Option<NamespaceNumber>)| {
            let place = news.end.namespace;
            news.port.as_ref() == Some(name) && place.is_some() && (place == own || place == self.sandbox)
        };
        if is_it(&self.near) {
            self.near = Some(news.end);
        } else if is_it(&self.station) && news.gone && moving.is_some() {
            self.station = None;
            self.look();
            return false;
        } else if is_it(&self.station) || !news.gone && moving.is_some_and(comes) {
            self.station = Some(news.end);
        } else {
            return false;
        }
        self.look();
        news.gone
    }

    /// What the log has to say, if it is time.
    pub(super) fn news(&mut self) -> Option<&PortState> {
        let due = self.told.1.is_none_or(|at| at.elapsed() >= PAUSE) || !self.state.has_device();
        if !due || self.told.0 == self.state {
            return None;
        }
        self.told = (self.state.clone(), Some(Instant::now()));
        Some(&self.state)
    }
}

/// What the log says of a state.
pub(super) fn line(state: &PortState) -> String {
    match state {
        PortState::Up => "its link is up".to_owned(),
        PortState::Down => "its link is down".to_owned(),
        PortState::NoCarrier => "its link has no carrier".to_owned(),
        state => state.to_string(),
    }
}

/// The shortest time between two lines of the log about one port that has a device: a station may set it down and up as fast as it can.
const PAUSE: Duration = Duration::from_secs(1);
