//! The engine's side of an upgrade: what it lends to a successor, and what it takes from those before it ([`elder`](super::elder)).

use mio::Interest;

use super::HostError;
use super::elder::{Elder, ElderState, HostLoan};
use super::engine::{Engine, EventSource};

impl Engine {
    /// What a successor needs. From here on nothing is taken in that it might take.
    pub(super) fn lend(&mut self) -> Result<HostLoan, HostError> {
        let listeners = self.listeners.all().map(|(_, listener)| listener.socket.try_clone());
        let elders = self.elders.iter().flatten().map(Elder::duplicate);
        let loan = HostLoan {
            listeners: listeners.collect::<Result<_, _>>().map_err(HostError::Lend)?,
            elders: elders.collect::<Result<_, _>>().map_err(HostError::Lend)?,
        };
        let lent = self.listeners.all().map(|(_, listener)| listener.descriptor());
        lent.chain(self.elders.iter().flatten().map(Elder::descriptor)).for_each(|descriptor| self.common.unwatch(descriptor));
        let is_lent = |source| matches!(source, EventSource::Listener | EventSource::Elder);
        self.again.retain(|token| !EventSource::of(*token).is_some_and(|(source, _)| is_lent(source)));
        self.starved.clear();
        self.holds = true;
        Ok(loan)
    }

    /// Takes in again what was lent, and what further elders say.
    pub(super) fn go_on(&mut self, elders: Vec<Elder>) {
        self.holds = false;
        self.elders.extend(elders.into_iter().map(Some));
        if !self.elders.is_empty() {
            self.elders_frame = vec![0; packet::MAX_FRAME].into();
        }
        // What came meanwhile raises an edge.
        for (number, listener) in self.listeners.all() {
            self.common.watch(listener.descriptor(), EventSource::Listener.token(number), Interest::READABLE);
        }
        for (number, elder) in self.elders.iter().enumerate() {
            let descriptor = elder.as_ref().map(Elder::descriptor);
            descriptor.map(|descriptor| self.common.watch(descriptor, EventSource::Elder.token(number), Interest::READABLE));
        }
    }

    /// Takes what an elder says to containers; says whether more may wait.
    pub(super) fn hear_elder(&mut self, number: usize) -> bool {
        let Some(place) = self.elders.get_mut(number) else { return false };
        match place.as_ref().map(|elder| elder.receive(&mut self.common.outbox, &mut self.elders_frame)) {
            Some(ElderState::More) => true,
            Some(ElderState::Gone) => {
                *place = None;
                false
            }
            Some(ElderState::Drained) | None => false,
        }
    }
}
