//! The port information machine: what a port believes of the way to the root, from its own bridge or from its neighbour, and what the two
//! agree on.

use crate::bpdu::{Flags, Message, MessageRole};
use crate::bridge::Bridge;
use crate::port::{InfoIs, Information, Port, Told};
use crate::vector::Vector;

/// What a message is, held against what a port knows (`rcvInfo`, clause 17.21.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Received {
    SuperiorDesignated,
    RepeatedDesignated,
    InferiorDesignated,
    InferiorRootAlternate,
    Other,
}

impl Bridge {
    /// Moves once.
    pub(crate) fn inform(&mut self, at: usize) -> bool {
        let own = self.id.address;
        let port = &mut self.ports[at];
        let update = port.roles.selected && port.roles.update;
        match port.info.is {
            InfoIs::Disabled if port.enabled => port.age(),
            InfoIs::Disabled => return false,
            _ if !port.enabled => port.disable(),
            _ if update => port.update(),
            InfoIs::Received if port.info.message.is_none() && port.timers.information == 0 && !port.roles.update => port.age(),
            InfoIs::Mine | InfoIs::Received if !port.roles.update => match port.info.message.take() {
                Some((message, rapid)) => {
                    let is_own = (message.vector.bridge.address, message.vector.port.number()) == (own, port.number);
                    port.hear(&message, rapid, is_own);
                }
                None => return false,
            },
            _ => return false,
        }
        true
    }
}

impl Port {
    /// DISABLED.
    fn disable(&mut self) {
        let Information { proposing, proposed, agree, agreed, disputed, .. } = &mut self.info;
        (*proposing, *proposed, *agree, *agreed, *disputed) = (false, false, false, false, false);
        (self.info.is, self.info.message, self.timers.information) = (InfoIs::Disabled, None, 0);
        self.info.told = Told::default();
        self.reselect();
    }

    /// AGED.
    fn age(&mut self) {
        self.info.is = InfoIs::Aged;
        self.reselect();
    }

    /// UPDATE: the port says what its bridge knows.
    fn update(&mut self) {
        let info = &mut self.info;
        (info.proposing, info.proposed) = (false, false);
        info.agreed &= info.is == InfoIs::Mine && info.designated <= info.vector;
        self.roles.synced &= info.agreed;
        (info.vector, info.times, info.is) = (info.designated, info.designated_times, InfoIs::Mine);
        (self.roles.update, self.new_info) = (false, true);
    }

    /// RECEIVE, and what follows from it.
    fn hear(&mut self, message: &Message, rapid: bool, is_own: bool) {
        match self.classify(message, is_own) {
            Received::SuperiorDesignated => self.hear_superior(message, rapid),
            Received::RepeatedDesignated => {
                self.record_proposal(message, rapid);
                self.record_changes(message);
                self.refresh();
            }
            // The neighbour takes itself for designated, though it must have heard better from here, if it learns: it does not hear this port.
            Received::InferiorDesignated if rapid && message.flags.has(Flags::LEARNING) => {
                (self.info.disputed, self.info.agreed) = (true, false);
            }
            Received::InferiorRootAlternate => {
                self.record_agreement(message, rapid);
                self.record_changes(message);
            }
            Received::InferiorDesignated | Received::Other => {}
        }
    }

    fn classify(&self, message: &Message, is_own: bool) -> Received {
        let known: &Vector = &self.info.vector;
        match message.role() {
            MessageRole::Designated if is_own => Received::InferiorDesignated,
            MessageRole::Designated if message.vector == *known && message.times == self.info.times => {
                Received::RepeatedDesignated
            }
            MessageRole::Designated if message.vector <= *known || message.vector.is_of_same_port(known) => {
                Received::SuperiorDesignated
            }
            MessageRole::Designated => Received::InferiorDesignated,
            MessageRole::Root | MessageRole::Blocked if message.vector >= *known => Received::InferiorRootAlternate,
            MessageRole::Root | MessageRole::Blocked => Received::Other,
        }
    }

    /// SUPERIOR_DESIGNATED.
    fn hear_superior(&mut self, message: &Message, rapid: bool) {
        (self.info.agreed, self.info.proposing) = (false, false);
        self.record_proposal(message, rapid);
        self.record_changes(message);
        self.info.agree &= self.info.is == InfoIs::Received && message.vector <= self.info.vector;
        (self.info.vector, self.info.times, self.info.is) = (message.vector, message.times, InfoIs::Received);
        self.refresh();
        self.reselect();
    }

    /// `recordProposal`.
    fn record_proposal(&mut self, message: &Message, rapid: bool) {
        self.info.proposed |= rapid && message.flags.has(Flags::PROPOSAL);
    }

    /// `recordAgreement`. One that comes while this port has something to say and may not yet, or that may be about
    /// what it said before, does not count.
    fn record_agreement(&mut self, message: &Message, rapid: bool) {
        let agrees = self.migration.send_rapid && rapid && message.flags.has(Flags::AGREEMENT);
        self.info.agreed = agrees && (self.info.agreed || self.info.told.is(self.info.vector));
        self.info.proposing &= !self.info.agreed;
    }

    /// `setTcFlags`.
    fn record_changes(&mut self, message: &Message) {
        self.changes.received |= message.flags.has(Flags::TOPOLOGY_CHANGE);
        self.changes.acknowledged |= message.flags.has(Flags::ACKNOWLEDGEMENT);
    }

    /// `updtRcvdInfoWhile`: believed for three hellos.
    fn refresh(&mut self) {
        let times = self.info.times;
        self.timers.information = if times.is_expired() { 0 } else { 3 * times.hello() };
    }
}
