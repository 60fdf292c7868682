//! A network of bridges with a hand-moved clock. After every single thing that a bridge does, it is looked whether there is a loop.

use std::collections::BTreeMap;

use packet::Mac;

use crate::*;

/// Milliseconds between two ticks.
const TICK_MS: u64 = 250;

/// A port of a bridge, by the bridge's place in the network and the port's number.
pub(super) type End = (usize, u16);

/// What joins ports: a wire of two, or more of them on one medium.
#[derive(Debug)]
pub(super) struct Lan {
    pub(super) ends: Vec<End>,
    pub(super) up: bool,
    /// Whether what the first end sends is lost.
    pub(super) deaf: bool,
}

pub(super) struct Network {
    pub(super) now: u64,
    /// `None`: it is switched off.
    pub(super) bridges: Vec<Option<Bridge>>,
    settings: Vec<BridgeSettings>,
    pub(super) lans: Vec<Lan>,
    pub(super) ports: BTreeMap<End, PortSettings>,
    states: BTreeMap<End, State>,
    pub(super) flushes: Vec<End>,
    /// What is on its way: when it arrives, and in which order it was sent.
    wire: BTreeMap<(u64, u64), (End, Bpdu)>,
    sent: u64,
    random: u64,
    /// Per cent of what is lost.
    pub(super) loss: u64,
    /// Milliseconds that a BPDU is on its way at most.
    pub(super) delay: u64,
    /// When each began, and when it ended.
    pub(super) loops: Vec<(u64, Option<u64>)>,
}

pub(super) fn settings(number: usize, priority: u16, version: Version) -> BridgeSettings {
    BridgeSettings { address: Mac::from_u64(0x0200_0000_0100 + number as u64), priority, version }
}

pub(super) const PORT: PortSettings = PortSettings { priority: 128, cost: 2000, edge: Edge::Auto };

impl Network {
    /// So many bridges, of which the first is to be the root, the next the next one, and wires between pairs of them.
    pub(super) fn new(bridges: usize, wires: &[(usize, usize)]) -> Self {
        let priority = |number: usize| u16::try_from(4096 * (number + 1).min(15)).unwrap();
        Self::with((0..bridges).map(|number| settings(number, priority(number), Version::Rstp)).collect(), wires)
    }

    pub(super) fn with(settings: Vec<BridgeSettings>, wires: &[(usize, usize)]) -> Self {
        let mut network = Self {
            now: 0,
            bridges: settings.iter().map(|_| None).collect(),
            settings,
            lans: Vec::new(),
            ports: BTreeMap::new(),
            states: BTreeMap::new(),
            flushes: Vec::new(),
            wire: BTreeMap::new(),
            sent: 0,
            random: 1,
            loss: 0,
            delay: 1,
            loops: Vec::new(),
        };
        for (one, other) in wires {
            network.join(&[*one, *other]);
        }
        (0..network.bridges.len()).for_each(|number| network.start(number));
        network
    }

    /// Puts a new port of each of these bridges on one medium.
    pub(super) fn join(&mut self, bridges: &[usize]) -> usize {
        let mut ends = Vec::new();
        for bridge in bridges {
            let end = (*bridge, u16::try_from(self.ports.keys().filter(|(of, _)| of == bridge).count() + 1).unwrap());
            self.ports.insert(end, PORT);
            ends.push(end);
        }
        self.lans.push(Lan { ends, up: true, deaf: false });
        self.lans.len() - 1
    }

    pub(super) fn seed(mut self, seed: u64) -> Self {
        self.random = seed | 1;
        self
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    /// Switches a bridge on.
    pub(super) fn start(&mut self, number: usize) {
        if self.bridges[number].is_some() {
            return;
        }
        self.bridges[number] = Some(Bridge::new(self.settings[number]));
        let ports: Vec<(End, PortSettings)> =
            self.ports.iter().filter(|(end, _)| end.0 == number).map(|(e, s)| (*e, *s)).collect();
        for (end, settings) in ports {
            let up = self.lans.iter().any(|lan| lan.up && lan.ends.contains(&end));
            self.act(number, |bridge| bridge.set_port(end.1, settings));
            self.act(number, |bridge| bridge.set_link(end.1, up));
        }
    }

    /// Switches a bridge off; its neighbours still see their links, as they do when only a program has ended.
    pub(super) fn kill(&mut self, number: usize) {
        self.bridges[number] = None;
        self.states.retain(|end, _| end.0 != number);
    }

    pub(super) fn set_lan(&mut self, lan: usize, up: bool) {
        self.lans[lan].up = up;
        let ends = self.lans[lan].ends.clone();
        self.wire.retain(|_, (to, _)| up || !ends.contains(to));
        for (bridge, port) in ends {
            self.act(bridge, |bridge| bridge.set_link(port, up));
        }
    }

    /// Has a bridge do something, and carries out what comes of it.
    pub(super) fn act(&mut self, number: usize, what: impl FnOnce(&mut Bridge)) {
        let Some(bridge) = self.bridges[number].as_mut() else { return };
        what(bridge);
        for action in bridge.take_actions() {
            match action {
                Action::State(port, state) => {
                    self.states.insert((number, port), state);
                    self.look_for_loops();
                }
                Action::Flush(port) => self.flushes.push((number, port)),
                Action::Send(port, bpdu) => self.send((number, port), bpdu),
                Action::Role(..) | Action::TopologyChange(_) => {}
            }
        }
    }

    fn send(&mut self, from: End, bpdu: Bpdu) {
        let Some(lan) = self.lans.iter().find(|lan| lan.up && lan.ends.contains(&from)) else { return };
        let to: Vec<End> = lan.ends.iter().copied().filter(|end| *end != from && !(lan.deaf && lan.ends[0] == from)).collect();
        for to in to {
            let delay = 1 + self.random(self.delay);
            if self.random(100) >= self.loss {
                // Nothing overtakes what was sent before.
                let last = self.wire.iter().rev().find(|(_, (other, _))| *other == to).map_or(0, |((at, _), _)| *at);
                self.sent += 1;
                self.wire.insert(((self.now + delay).max(last), self.sent), (to, bpdu));
            }
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.now += 1;
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let ((bridge, port), bpdu) = entry.remove();
                self.act(bridge, |bridge| bridge.receive(port, &bpdu));
            }
            for number in 0..self.bridges.len() {
                // Their clocks do not tick together.
                if (self.now + 37 * number as u64).is_multiple_of(TICK_MS) {
                    self.act(number, Bridge::tick);
                }
            }
        }
    }

    /// Lets time pass until something holds; returns how long it took.
    pub(super) fn until(&mut self, most: u64, holds: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now;
        while !holds(self) {
            assert!(self.now < start + most, "not within {most} ms: {}", self.show());
            self.run(1);
        }
        self.now - start
    }

    pub(super) fn state(&self, end: End) -> State {
        self.states.get(&end).copied().unwrap_or_default()
    }

    pub(super) fn role(&self, (bridge, port): End) -> Role {
        self.bridges[bridge].as_ref().and_then(|bridge| bridge.port_status(port)).map_or(Role::Disabled, |status| status.role)
    }

    /// Bridges and media, joined by the ports that forward: where a way leads back to where it began, there is a loop.
    fn parts(&self) -> Result<Vec<usize>, Vec<usize>> {
        let bridges = self.bridges.len();
        let mut parts: Vec<usize> = (0..bridges + self.lans.len()).collect();
        let find = |parts: &[usize], mut node: usize| {
            while parts[node] != node {
                node = parts[node];
            }
            node
        };
        let mut is_loop = false;
        for (number, lan) in self.lans.iter().enumerate().filter(|(_, lan)| lan.up) {
            for end in lan.ends.iter().filter(|end| self.state(**end) == State::Forwarding) {
                let (one, other) = (find(&parts, bridges + number), find(&parts, end.0));
                is_loop |= one == other;
                parts[one] = other;
            }
        }
        let found = (0..bridges).map(|bridge| find(&parts, bridge)).collect();
        if is_loop { Err(found) } else { Ok(found) }
    }

    fn look_for_loops(&mut self) {
        if self.loss > 0 {
            return;
        }
        let is_open = self.loops.last().is_some_and(|(_, end)| end.is_none());
        match (self.parts().is_err(), is_open) {
            (true, false) => {
                self.loops.push((self.now, None));
                // A frame takes longer to go round.
                assert!(self.delay > 1, "a loop: {}", self.show());
            }
            (false, true) => self.loops.last_mut().into_iter().for_each(|(_, end)| *end = Some(self.now)),
            (true, true) => assert!(self.now < self.loops.last().unwrap().0 + self.delay, "a loop: {}", self.show()),
            (false, false) => {}
        }
    }

    /// Whether every bridge that runs reaches each to which there is a way, without a loop, under the right root.
    pub(super) fn is_tree(&self) -> bool {
        let Ok(parts) = self.parts() else { return false };
        let mut reach: Vec<usize> = (0..self.bridges.len()).collect();
        for _ in 0..self.bridges.len() {
            for lan in self.lans.iter().filter(|lan| lan.up) {
                let on = lan.ends.iter().map(|end| end.0).filter(|bridge| self.bridges[*bridge].is_some());
                let on: Vec<usize> = on.collect();
                let least = on.iter().map(|bridge| reach[*bridge]).min().unwrap_or_default();
                on.iter().for_each(|bridge| reach[*bridge] = least);
            }
        }
        let alive: Vec<usize> = (0..self.bridges.len()).filter(|bridge| self.bridges[*bridge].is_some()).collect();
        alive.iter().all(|one| {
            let mine = alive.iter().filter(|other| reach[**other] == reach[*one]);
            let best = mine.clone().map(|other| self.bridges[*other].as_ref().unwrap().status().id).min();
            let root = self.bridges[*one].as_ref().unwrap().status().root;
            Some(root) == best && mine.into_iter().all(|other| parts[*other] == parts[*one])
        })
    }

    pub(super) fn show(&self) -> String {
        let mut text = format!("at {} ms", self.now);
        for (number, bridge) in self.bridges.iter().enumerate() {
            let Some(bridge) = bridge else { continue };
            text += &format!("\nbridge {number}: root {} cost {}", bridge.status().root, bridge.status().cost);
            for (end, _) in self.ports.iter().filter(|(end, _)| end.0 == number) {
                let status = bridge.port_status(end.1).unwrap();
                let lan = self.lans.iter().position(|lan| lan.ends.contains(end)).unwrap();
                text += &format!("\n  {} lan {lan} {:?} {:?} edge {}", end.1, status.role, status.state, status.edge);
            }
        }
        text
    }
}
