//! Circular doubly linked lists through the nodes of a slab: append, take out and find the oldest in constant time, without a
//! list's own memory. The owner of a ring keeps its head, the oldest node.

/// No node.
pub(crate) const NONE: u32 = u32::MAX;

/// A node's place in one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    previous: u32,
    next: u32,
}

impl Link {
    /// In no ring.
    pub(crate) const OUT: Self = Self { previous: NONE, next: NONE };
}

/// A node that can be in several rings, each known by a number.
pub(crate) trait Linked {
    /// The node's place in such a ring, to be changed.
    fn link(&mut self, ring: usize) -> &mut Link;

    /// The node's place in such a ring.
    fn place(&self, ring: usize) -> Link;
}

/// Puts a node at the end of a ring.
pub(crate) fn append<T: Linked>(nodes: &mut [T], ring: usize, head: &mut u32, index: u32) {
    if *head == NONE {
        *head = index;
        *nodes[index as usize].link(ring) = Link { previous: index, next: index };
        return;
    }
    let last = std::mem::replace(&mut nodes[*head as usize].link(ring).previous, index);
    nodes[last as usize].link(ring).next = index;
    *nodes[index as usize].link(ring) = Link { previous: last, next: *head };
}

/// Takes a node out of its ring. If it was the head, the next one is.
pub(crate) fn take<T: Linked>(nodes: &mut [T], ring: usize, head: &mut u32, index: u32) {
    let Link { previous, next } = std::mem::replace(nodes[index as usize].link(ring), Link::OUT);
    if next == index {
        *head = NONE;
        return;
    }
    nodes[previous as usize].link(ring).next = next;
    nodes[next as usize].link(ring).previous = previous;
    if *head == index {
        *head = next;
    }
}

/// The node behind another.
pub(crate) fn next<T: Linked>(nodes: &[T], ring: usize, index: u32) -> u32 {
    nodes[index as usize].place(ring).next
}

/// The nodes of a ring from its head on, once each.
pub(crate) fn walk<T: Linked>(nodes: &[T], ring: usize, head: u32) -> impl Iterator<Item = u32> {
    let behind = move |index: &u32| Some(next(nodes, ring, *index)).filter(|next| *next != head);
    std::iter::successors(Some(head).filter(|head| *head != NONE), behind)
}

/// Number of nodes in a ring.
#[cfg(test)]
pub(crate) fn len<T: Linked>(nodes: &[T], ring: usize, head: u32) -> u32 {
    walk(nodes, ring, head).fold(0, |count, _| count + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    impl Linked for Link {
        fn link(&mut self, _: usize) -> &mut Link {
            self
        }

        fn place(&self, _: usize) -> Link {
            *self
        }
    }

    proptest! {
        #[test]
        fn a_ring_is_a_queue_that_can_be_left(steps in prop::collection::vec(0u32..8, 0..60)) {
            let (mut nodes, mut head, mut model) = ([Link::OUT; 8], NONE, VecDeque::new());
            for index in steps {
                if let Some(place) = model.iter().position(|other| *other == index) {
                    take(&mut nodes, 0, &mut head, index);
                    model.remove(place);
                } else {
                    append(&mut nodes, 0, &mut head, index);
                    model.push_back(index);
                }
                prop_assert_eq!(head, model.front().copied().unwrap_or(NONE));
                let mut at = head;
                for expected in &model {
                    prop_assert_eq!(at, *expected);
                    at = next(&nodes, 0, at);
                }
                prop_assert_eq!(at, head);
            }
        }
    }
}
