//! The addresses of each port, from the most to the least recently refreshed: lists by the numbers of slots.

/// The end of a list.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Lists {
    /// By the number of the port.
    owners: Vec<Owner>,
    /// For each slot.
    links: Box<[Link]>,
}

/// The addresses of one port.
#[derive(Debug, Clone, Copy)]
struct Owner {
    count: u32,
    newest: u32,
    oldest: u32,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
}

impl Lists {
    pub(super) fn new(slots: usize) -> Self {
        Self { owners: Vec::new(), links: vec![Link { newer: NONE, older: NONE }; slots].into() }
    }

    /// One above the highest port that has, or had, addresses.
    pub(super) const fn ports(&self) -> usize {
        self.owners.len()
    }

    /// The port with the most addresses.
    pub(super) fn largest(&self) -> usize {
        let counts = self.owners.iter().enumerate();
        counts.max_by_key(|(_, owner)| owner.count).map_or(0, |(port, _)| port)
    }

    /// The slot of a port that was refreshed the longest ago.
    pub(super) fn oldest(&self, port: usize) -> Option<u32> {
        self.owners.get(port).map(|owner| owner.oldest).filter(|slot| *slot != NONE)
    }

    /// All slots; those of a port from the oldest on.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        let some = |slot: u32| (slot != NONE).then_some(slot);
        let newer = move |slot: &u32| some(self.links[*slot as usize].newer);
        self.owners.iter().flat_map(move |owner| std::iter::successors(some(owner.oldest), newer))
    }

    /// Puts a slot at the front of a port's list.
    pub(super) fn push(&mut self, port: usize, slot: u32) {
        if port >= self.owners.len() {
            self.owners.resize(port + 1, Owner { count: 0, newest: NONE, oldest: NONE });
        }
        let owner = &mut self.owners[port];
        let second = std::mem::replace(&mut owner.newest, slot);
        owner.count += 1;
        if second == NONE {
            owner.oldest = slot;
        } else {
            self.links[second as usize].newer = slot;
        }
        self.links[slot as usize] = Link { newer: NONE, older: second };
    }

    /// Takes a slot out of its port's list.
    pub(super) fn remove(&mut self, port: usize, slot: u32) {
        let Link { newer, older } = self.links[slot as usize];
        let owner = &mut self.owners[port];
        owner.count -= 1;
        if newer == NONE {
            owner.newest = older;
        } else {
            self.links[newer as usize].older = older;
        }
        if older == NONE {
            owner.oldest = newer;
        } else {
            self.links[older as usize].newer = newer;
        }
    }
}
