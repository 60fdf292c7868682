//! What a port may do, and how much: what a user would call its policy. One list of keys for `switch.toml`, changes, the data plane and listings.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::stp::{StpCost, StpEdge, StpPortPriority};
use crate::read::{Raw, Read};
use crate::{FrameRate, Impair, Impairment, Rate};

macro_rules! policy_keys {
    ($($(#[$doc:meta])+ $key:literal $field:ident: $type:ty,)+) => {
        /// The policy of a port; by default, everything passes.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct PortPolicy {
            $($(#[$doc])+ #[serde(default)] pub $field: $type,)+
        }

        impl PortPolicy {
            /// Its keys, as `switch.toml` spells them.
            pub const KEYS: &'static [&'static str] = &[$($key),+];

            /// What it says, a word or two for each key.
            pub fn rules(&self) -> Vec<String> {
                [$(self.$field.rule($key)),+].into_iter().flatten().collect()
            }

            fn read_key(&mut self, key: &str, raw: Raw) -> Result<(), String> {
                match key {
                    $($key => self.$field = Read::read(raw)?,)+
                    _ => {}
                }
                Ok(())
            }

            /// Writes the keys that say something, as `switch.toml` spells them.
            pub(super) fn write_keys<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let (mut keys, nothing) = (serializer.serialize_map(None)?, Self::default());
                $(if self.$field != nothing.$field {
                    keys.serialize_entry($key, &self.$field)?;
                })+
                keys.end()
            }
        }
    };
}

// A new key takes these edits, and no more:
//
// 1. its line in the list below. It makes the key one of `[[port]]`, of `set-port`'s changes, of `list-ports --json` and of the text of `show`;
// 2. its option in `PolicyOptions` (vswitch/src/client/options.rs), in which `add-port` and `set-port` share it;
// 3. what it does. The whole policy goes to the data plane: `Port::policy` (vswitch/plane/src/datapath/port.rs) has it beside each frame. What keeps a
//    state over frames, as a limit does, is made in `PortLimits` (limiter.rs there);
// 4. its row in docs/reference.md.
//
// A value of a type of its own says in `Read` how it is read, and in `Rule` how `show` has it.
policy_keys! {
    /// Whether frames whose source MAC, IP, ARP or ND addresses are not this port's are dropped.
    "guard" guard: bool,
    /// Whether no frame goes from it to another protected port of its bridge.
    "protected" protected: bool,
    /// Whether it is unplugged: its station sees no carrier, and nothing comes in by it or leaves.
    "down" down: bool,
    /// Most frames a second that the port may send into the switch to many; `None`: no limit.
    "broadcast-limit" broadcast_limit: Option<FrameRate>,
    /// Most that it may send into the switch; `None`: no limit.
    "send-rate" send_rate: Option<Rate>,
    /// Most that may leave by it; `None`: no limit.
    "receive-rate" receive_rate: Option<Rate>,
    /// What the way through it costs in the bridge's spanning tree; `None`: what its speed comes to.
    "stp-cost" stp_cost: Option<StpCost>,
    /// Its priority in the bridge's spanning tree; `None`: 128.
    "stp-priority" stp_priority: Option<StpPortPriority>,
    /// Whether it leads to a station, for the bridge's spanning tree.
    "stp-edge" stp_edge: StpEdge,
    /// Whether a BPDU that comes in by it, from a bridge where a station should be, takes it down.
    "bpdu-guard" bpdu_guard: bool,
    /// What happens to its packets on purpose.
    "impair" impair: Impair,
}

/// How a value of a policy is told, unless nothing has to be said.
trait Rule {
    fn rule(&self, key: &'static str) -> Option<String>;
}

impl Rule for bool {
    fn rule(&self, key: &'static str) -> Option<String> {
        self.then(|| key.to_owned())
    }
}

impl Rule for StpEdge {
    fn rule(&self, key: &'static str) -> Option<String> {
        (*self != Self::Auto).then(|| format!("{key} {self}"))
    }
}

impl<T: fmt::Display> Rule for Option<T> {
    fn rule(&self, key: &'static str) -> Option<String> {
        self.as_ref().map(|value| format!("{key} {value}"))
    }
}

impl Rule for Impair {
    fn rule(&self, key: &'static str) -> Option<String> {
        let way = |way: &str, words: &Option<Box<Impairment>>| words.as_ref().map(|words| format!("{key}-{way} '{words}'"));
        let seed = self.seed.map(|seed| format!("{key}-seed {seed}"));
        let rules = [way("in", &self.incoming), way("out", &self.outgoing), seed].into_iter().flatten().collect::<Vec<_>>();
        (!rules.is_empty()).then(|| rules.join(" "))
    }
}

/// Reads a table that has the keys of `T` and, between them, those of a policy. serde can flatten one into the other itself, but then neither refuses
/// unknown keys nor knows where in the file a wrong value is.
pub(super) fn read_beside<'de, T: Deserialize<'de>, M: MapAccess<'de>>(
    table: M,
    known: &'static [&'static str],
) -> Result<(T, PortPolicy), M::Error> {
    let mut policy = PortPolicy::default();
    let others = T::deserialize(MapAccessDeserializer::new(Others { table, known, policy: &mut policy }))?;
    Ok((others, policy))
}

/// The keys of a table that are not a policy's, while those that are go there.
struct Others<'a, M> {
    table: M,
    /// Every key that the table may have.
    known: &'static [&'static str],
    policy: &'a mut PortPolicy,
}

impl<'de, M: MapAccess<'de>> MapAccess<'de> for Others<'_, M> {
    type Error = M::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, M::Error> {
        while let Some(key) = self.table.next_key::<String>()? {
            if PortPolicy::KEYS.contains(&&*key) {
                self.table.next_value_seed(PolicyValue { policy: self.policy, key: &key })?;
            } else if self.known.contains(&&*key) {
                return seed.deserialize(key.into_deserializer()).map(Some);
            } else {
                return Err(de::Error::unknown_field(&key, self.known));
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, M::Error> {
        self.table.next_value_seed(seed)
    }
}

/// The value of one key of a policy.
struct PolicyValue<'a> {
    policy: &'a mut PortPolicy,
    key: &'a str,
}

impl<'de> DeserializeSeed<'de> for PolicyValue<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.policy.read_key(self.key, Raw::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
