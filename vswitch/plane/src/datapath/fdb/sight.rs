//! What a sight of an address that is known comes to, before anything of it is noted: the table learns by it, and a dry run asks it.

use vxlan::Verdict;

use super::lines::Entry;
use super::{Beside, Fdb, Learned};

/// What it comes to that an address was seen.
pub(super) struct Sight {
    pub(super) beside: Beside,
    /// Its entry from now on; `None`: as before.
    pub(super) fresh: Option<Entry>,
    /// Whether it is held from now on.
    pub(super) is_hold: bool,
    pub(super) learned: Learned,
}

impl Fdb {
    /// What it comes to that an address was seen, in another second or place than before. Nothing changes.
    pub(super) fn judge(&self, slot: u32, known: Entry, seen: Entry) -> Sight {
        let mut beside = self.beside[slot as usize];
        let (mut fresh, mut is_hold) = (seen, false);
        if known.place != seen.place {
            match beside.moves.note(seen.seen) {
                Verdict::First => beside.home = known.place,
                Verdict::Again => {}
                Verdict::Hold => (is_hold, fresh.place) = (true, beside.home),
                Verdict::Held => return Sight { beside, fresh: None, is_hold, learned: Learned::Held },
            }
        }
        let news = known.place != fresh.place || fresh.seen.saturating_sub(beside.told) > self.ageing / 4;
        if news {
            beside.told = fresh.seen;
        }
        let learned = match (fresh.place == seen.place, news) {
            (false, _) => Learned::Held,
            (true, true) => Learned::News,
            (true, false) => Learned::Known,
        };
        Sight { beside, fresh: Some(fresh), is_hold, learned }
    }
}
