//! The options of a port whose packets are impaired.

use clap::Args;
use serde_json::{Map, Value, json};

use super::words::{NONE, OrNone, whole};
use api::{ImpairError, Impairment};

/// What happens to the packets of a port on purpose.
#[derive(Debug, Args)]
pub(super) struct ImpairOptions {
    /// What happens to packets that its station sends into the switch, such as 'delay 20ms jitter 5ms loss 1%'; none ends it.
    #[arg(long, value_name = "WORDS", value_parser = words_or_none)]
    impair_in: Option<OrNone<String>>,
    /// What happens to packets that its station receives; none ends it.
    #[arg(long, value_name = "WORDS", value_parser = words_or_none)]
    impair_out: Option<OrNone<String>>,
    /// What the random numbers of both begin with: the same one, the same packets; none draws one.
    #[arg(long, value_name = "N", value_parser = seed_or_none)]
    impair_seed: Option<OrNone<u32>>,
}

impl ImpairOptions {
    /// The keys that were said, as `[port.impair]` has them; `null` takes one away.
    pub(super) fn table(self) -> Option<Value> {
        let (incoming, outgoing, seed) = (self.impair_in, self.impair_out, self.impair_seed);
        let keys = [
            ("in", incoming.map(|words| json!(words))),
            ("out", outgoing.map(|words| json!(words))),
            ("seed", seed.map(|seed| json!(seed))),
        ];
        let said = keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Some(said.collect::<Map<_, _>>()).filter(|keys| !keys.is_empty()).map(Value::Object)
    }
}

/// What happens to packets, or nothing.
fn words_or_none(text: &str) -> Result<OrNone<String>, ImpairError> {
    if text == NONE || text == "off" {
        return Ok(OrNone(None));
    }
    text.parse().map(|words: Impairment| OrNone(Some(words.to_string())))
}

fn seed_or_none(text: &str) -> Result<OrNone<u32>, String> {
    if text == NONE { Ok(OrNone(None)) } else { whole(text).map(|seed| OrNone(Some(seed))) }
}
