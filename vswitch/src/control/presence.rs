//! Where a port's or uplink's state is kept: it follows from the *ends* of its device, which the control side hears of from the kernel.

use std::time::{Duration, Instant};

use packet::Mac;

use super::{ControlError, Port};
use crate::attach::{Attachment, End, Identity, NamespaceNumber, News};
use api::{Netns, PortKind, PortName, PortState};

/// What is known of the device of a port or uplink.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) state: PortState,
    /// The station's end, or the interface of a link. A container's runtime may have it in its hands, between two namespaces.
    pub(super) station: Option<End>,
    /// What the station's end was last told to be called, and its MAC address.
    pub(super) looks: Option<(String, Option<Mac>)>,
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
        let mut presence = Self { station, near, namespace: attachment.namespace, ..Self::without_device() };
        presence.look();
        presence
    }

    /// Of an interface of vswitchd's own namespace.
    pub(super) fn at(end: End) -> Self {
        let mut presence = Self { station: Some(end), ..Self::without_device() };
        presence.look();
        presence
    }

    /// Of an uplink that needs no device.
    pub(super) const fn without_device() -> Self {
        let told = (PortState::Up, None);
        Self { state: PortState::Up, station: None, looks: None, near: None, namespace: None, sandbox: None, told }
    }

    /// Of what has no device, which the log or the client that asked was told already.
    pub(super) fn unusable(error: &ControlError) -> Self {
        let state = PortState::Unusable(error.to_string());
        Self { told: (state.clone(), None), state, ..Self::without_device() }
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
            self.looks = Some((news.ifname.clone(), news.mac)).filter(|_| !news.gone);
        } else {
            return false;
        }
        self.look();
        news.gone
    }

    /// What the log has to say, if it is time.
    pub(super) fn news(&mut self, now: Instant) -> Option<&PortState> {
        let is_over = |at| now.saturating_duration_since(at) >= PAUSE;
        let due = self.told.1.is_none_or(is_over) || !self.state.has_device();
        if !due || self.told.0 == self.state {
            return None;
        }
        self.told = (self.state.clone(), Some(now));
        Some(&self.state)
    }
}

impl Port {
    /// How its device differs from what the switch had made. A container's runtime may change its device, and the owner of a link the interface.
    pub(super) fn altered(&self) -> Option<String> {
        let is_others = self.spec.kind == PortKind::Link || self.is_of_container();
        let (ifname, mac) = self.presence.looks.as_ref().filter(|_| !is_others)?;
        let is_named = matches!(self.spec.netns, None | Some(Netns::Name(_)));
        let name =
            (is_named && ifname != self.spec.ifname.as_str()).then(|| format!("is called \"{}\"", ifname.escape_debug()));
        let mac = mac.filter(|mac| self.mac.is_some_and(|own| own != *mac)).map(|mac| format!("has MAC address {mac}"));
        let words: Vec<String> = name.into_iter().chain(mac).collect();
        let first = words.first()?;
        let all = words.get(1).map_or_else(|| first.clone(), |second| format!("{first} and {second}"));
        Some(format!("{all} now: a reload makes it again what it was"))
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

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Option<NamespaceNumber> = Some(NamespaceNumber(1));
    const SANDBOX: Option<NamespaceNumber> = Some(NamespaceNumber(2));

    fn end(namespace: Option<NamespaceNumber>, index: u32) -> End {
        End { namespace, index, up: true, carrier: true }
    }

    fn news(end: End, port: Option<&PortName>, gone: bool) -> News {
        News { end, ifname: "eth0".to_owned(), mac: None, port: port.cloned(), gone }
    }

    #[test]
    fn frames_can_pass_while_both_ends_are_up_and_have_carrier() {
        let (station, near) = (end(SANDBOX, 5), end(OWN, 9));
        let mut presence = Presence { near: Some(near), ..Presence::at(station) };
        let mut state = |end| {
            assert!(!presence.hear(&news(end, None, false), None));
            presence.state().clone()
        };
        assert_eq!(state(End { carrier: false, ..near }), PortState::NoCarrier);
        assert_eq!(state(End { up: false, ..station }), PortState::Down, "whatever the other end has");
        assert_eq!(state(station), PortState::NoCarrier);
        assert_eq!(state(near), PortState::Up);
        // Another device may have the same index elsewhere.
        assert_eq!(state(End { up: false, ..end(OWN, 5) }), PortState::Up);
        assert!(presence.hear(&news(station, None, true), None), "it is gone");
    }

    #[test]
    fn a_device_that_is_handed_over_is_not_lost_on_its_way() {
        let name: PortName = "ep-1".parse().unwrap();
        let mut presence = Presence { sandbox: SANDBOX, ..Presence::at(end(OWN, 5)) };
        let mut hear = |end, port, gone| {
            assert!(!presence.hear(&news(end, port, gone), Some((&name, OWN))));
            (presence.place(), presence.state().clone())
        };
        assert_eq!(hear(end(OWN, 5), Some(&name), true), (None, PortState::Down));
        // Neither what another port has there nor what comes to a namespace of another container is it.
        let other = "ep-2".parse().unwrap();
        assert_eq!(hear(end(SANDBOX, 6), Some(&other), false), (None, PortState::Down));
        assert_eq!(hear(end(Some(NamespaceNumber(3)), 6), Some(&name), false), (None, PortState::Down));
        assert_eq!(hear(end(SANDBOX, 7), Some(&name), false), (Some(SANDBOX), PortState::Up));
        assert_eq!(hear(end(SANDBOX, 7), Some(&name), true), (None, PortState::Down));
        assert_eq!(hear(end(OWN, 8), Some(&name), false), (Some(OWN), PortState::Up));
    }

    #[test]
    fn a_link_that_flaps_is_told_once_a_second_and_a_device_that_goes_at_once() {
        let (start, up) = (Instant::now(), end(OWN, 5));
        let mut presence = Presence::at(up);
        let mut told = Vec::new();
        for tenth in 0..25_u32 {
            let is_up = tenth % 2 == 0;
            presence.hear(&news(End { up: is_up, ..up }, None, false), None);
            let now = start + Duration::from_millis(100) * tenth;
            told.extend(presence.news(now).map(|state| (tenth, state.clone())));
        }
        assert_eq!(told, [(1, PortState::Down), (12, PortState::Up), (23, PortState::Down)]);
        presence.lose(PortState::DeviceGone);
        assert_eq!(presence.news(start + Duration::from_millis(2500)), Some(&PortState::DeviceGone));
        assert_eq!(presence.news(start + Duration::from_secs(9)), None, "it was told");
    }
}
