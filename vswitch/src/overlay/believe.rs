//! How the thread takes on what the control side says is here: the networks of this host, and its stations.

use std::collections::BTreeSet;

use cluster::record::Name;
use cluster::view::Announced;
use packet::Mac;

use super::run::Room;
use super::thread::{Happening, name};
use super::{StationRow, Truth};

impl Room {
    /// Takes on what is here now.
    pub(super) fn believe(&mut self, truth: Truth) {
        let now = self.now();
        let wanted: BTreeSet<Name> = truth.networks.keys().filter_map(name).collect();
        let view = self.agent.view_mut();
        let joined: Vec<Name> = view.joined().cloned().collect();
        joined.iter().filter(|name| !wanted.contains(*name)).for_each(|name| view.leave(name));
        for (network, local) in &truth.networks {
            let Some(key) = name(network) else { continue };
            view.join(key.clone(), &local.subnets, local.encrypt);
            view.set_addresses(&key, local.handed_out.clone(), local.claims.clone());
            if let Some(table) = self.tables.networks.get(network).filter(|_| !joined.contains(&key)) {
                let stations = table.stations.iter().filter_map(|(mac, row)| Some((*mac, StationRow::station(row)?)));
                view.recall(&key, table.vni, table.peers.clone(), stations.collect(), now);
            }
            let gone: Vec<Mac> = view.ours(&key).map(|(mac, _)| mac).filter(|mac| !local.stations.contains_key(mac)).collect();
            gone.into_iter().for_each(|mac| view.withdraw(&key, mac));
            for (mac, station) in &local.stations {
                let key = (key.clone(), *mac);
                if self.taken.get(&key).is_some_and(|since| truth.generation < *since) {
                    continue;
                }
                self.taken.remove(&key);
                let announced = view.announce(&key.0, *mac, station.ips.clone(), station.name.clone(), now);
                if announced == Announced::Duplicate && self.said.doubled.insert(key) {
                    let sentence = format!(
                        "{mac} in overlay \"{network}\" is at this host and at another in turn: have two stations one address? \
                         It stays at the other for now"
                    );
                    self.pace.happened.push(Happening::Note(sentence));
                }
            }
        }
        self.taken.retain(|(network, _), since| truth.generation < *since && wanted.contains(network));
        self.truth = truth;
        self.is_told = true;
        (self.pace.eager, self.pace.is_changed) = (true, true);
    }
}
