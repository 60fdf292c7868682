//! Packets under way on a line: they have left its queue, and are due when the delay is over.

use std::collections::VecDeque;
use std::time::Instant;

use api::Reorder;

use super::Transit;
use super::random::Draws;

/// What is under way.
#[derive(Debug)]
pub(super) struct Flight {
    /// In the order in which they are due.
    packets: VecDeque<(Instant, Transit)>,
    /// Those that go ahead of the others.
    ahead: VecDeque<(Instant, Transit)>,
    /// When the last one in order is due.
    last: Instant,
    /// Packets since one went ahead.
    in_order: u32,
    bytes: usize,
}

impl Flight {
    /// Nothing yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { packets: VecDeque::new(), ahead: VecDeque::new(), last: now, in_order: 0, bytes: 0 }
    }

    /// The same packets, under rules of their own for the next.
    pub(super) fn begun_anew(self) -> Self {
        Self { in_order: 0, ..self }
    }

    /// All bytes under way.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sends a packet that is due then, or with the one before it if that is later.
    pub(super) fn push(&mut self, due: Instant, transit: Transit) {
        self.bytes += transit.bytes.len();
        self.last = self.last.max(due);
        self.packets.push_back((self.last, transit));
    }

    /// Sends a packet ahead of the others.
    pub(super) fn push_ahead(&mut self, due: Instant, transit: Transit) {
        self.bytes += transit.bytes.len();
        self.ahead.push_back((due, transit));
    }

    /// Whether the next packet goes ahead of those under way.
    pub(super) fn goes_ahead(&mut self, reorder: Option<Reorder>, draws: &mut Draws) -> bool {
        let Some(reorder) = reorder else { return false };
        self.in_order = self.in_order.saturating_add(1);
        // Each packet takes its number, so that the gap does not change which numbers later ones get.
        let drawn = reorder.share.takes(draws.next());
        let goes = drawn && self.in_order >= reorder.gap;
        if goes {
            self.in_order = 0;
        }
        goes
    }

    /// Takes a packet that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Transit> {
        let due = |queue| due(queue).filter(|due| *due <= now);
        let from = match (due(&self.ahead), due(&self.packets)) {
            (Some(ahead), Some(packet)) if packet < ahead => &mut self.packets,
            (Some(_), _) => &mut self.ahead,
            (None, Some(_)) => &mut self.packets,
            (None, None) => return None,
        };
        let (_, transit) = from.pop_front()?;
        self.bytes -= transit.bytes.len();
        Some(transit)
    }

    /// When the first one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        [due(&self.packets), due(&self.ahead)].into_iter().flatten().min()
    }

    /// Makes all of it due.
    pub(super) fn land(&mut self, now: Instant) {
        self.packets.iter_mut().chain(&mut self.ahead).for_each(|(due, _)| *due = now);
        self.last = now;
    }

    /// Takes all of it, due or not.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Transit> {
        self.bytes = 0;
        self.packets.drain(..).chain(self.ahead.drain(..)).map(|(_, transit)| transit)
    }
}

fn due(queue: &VecDeque<(Instant, Transit)>) -> Option<Instant> {
    queue.front().map(|(due, _)| *due)
}
