//! Addresses handed over to another table: after an upgrade, or a crash.

use super::{Entry, Fdb, Packed, Row, key};
use crate::datapath::Fixed;

impl Fdb {
    /// The learned addresses with their ages, in no order. That one is held is not told: what makes it move to and fro does so again.
    pub fn export(&self, now: u32) -> Vec<Row> {
        let learned = self.rows(now).into_iter().filter(|row| row.fixed != Fixed::Given);
        learned.map(|row| Row { fixed: Fixed::No, ..row }).collect()
    }

    /// Takes on addresses that another table learned, those that are not too old; what this one has seen itself is newer, and stays. `now` is in
    /// seconds of this table's clock, which must have begun before the oldest of them was seen: else it is taken for younger than it is.
    pub fn import(&mut self, mut rows: Vec<Row>, now: u32) {
        // The oldest first, as they were seen: each port's list is in this order.
        rows.sort_by_key(|row| std::cmp::Reverse(row.age));
        for Row { vlan, mac, place, age, fixed } in rows {
            let place = Packed::new(place).filter(|_| fixed != Fixed::Given && age < self.ageing && !mac.is_group());
            if let Some(place) = place.filter(|_| self.find(vlan, mac).is_none()) {
                self.insert(Entry { key: key(vlan, mac), place, seen: now.saturating_sub(age) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use packet::{Mac, VlanId};
    use proptest::prelude::*;

    use super::*;
    use crate::datapath::PortId;

    fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
        rows.sort_by_key(|row| (row.vlan, row.mac));
        rows
    }

    fn mac(number: u64) -> Mac {
        Mac::from_u64(0x0200_0000_0000 + number)
    }

    #[test]
    fn what_is_older_than_the_successor_remembers_does_not_come_and_what_it_saw_itself_stays() {
        let mut old = Fdb::new(100, 1000, 1);
        for number in 0..4 {
            old.learn(VlanId::DEFAULT, mac(number), PortId(1).into(), 100 * u32::try_from(number).unwrap());
        }
        let mut new = Fdb::new(100, 300, 2);
        new.learn(VlanId::DEFAULT, mac(3), PortId(7).into(), 999);
        new.import(old.export(400), 1000);
        let rows = sorted(new.rows(1000)).into_iter().map(|row| (row.mac, row.place.port, row.age));
        let expected = [(mac(2), PortId(1), 200), (mac(3), PortId(7), 1)];
        assert_eq!(rows.collect::<Vec<_>>(), expected);
        new.expire(1100);
        assert_eq!(new.len(), 1, "it has the time that was left");
    }

    proptest! {
        #[test]
        fn a_table_that_took_on_another_lives_on_as_it_would_have(
            seen in prop::collection::vec((0u64..60, 1u32..5, 0u32..4), 0..200), start in 0u32..500, capacity in 1u32..80,
        ) {
            let mut old = Fdb::new(capacity, 300, 7);
            let mut now = 0;
            for (number, port, seconds) in seen {
                now += seconds;
                // Each address has its port: what moves to and fro is another matter.
                old.learn(VlanId::DEFAULT, mac(number * 4 + u64::from(port) - 1), PortId(port).into(), now);
            }
            old.expire(now);
            let mut new = Fdb::new(capacity, 300, 8);
            let mut then = start + now;
            new.import(old.export(now), then);
            prop_assert_eq!(sorted(new.rows(then)), sorted(old.rows(now)));
            for _ in 0..40 {
                (now, then) = (now + 10, then + 10);
                old.expire(now);
                new.expire(then);
                prop_assert_eq!(sorted(new.rows(then)), sorted(old.rows(now)));
            }
            prop_assert_eq!(new.len(), 0);
        }
    }
}
