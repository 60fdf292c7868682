//! The switch beside what users would take instead.
//!
//! A `Contender` is started in a `Place`: labs with two stations that reach each other. The
//! contenders of a `Path` stand side by side, and a `Measure` goes round: A B C A B C. A machine's speed
//! changes from minute to minute, so what counts is the ratio of neighbouring runs. A measurement that cannot be made panics, and its
//! message is kept as the reason: a contender that hangs or loses everything has no figure, not the figure 0.
//!
//! Whatever a contender starts, it starts in the namespaces and the directory of its place, which goes when the place is dropped, also
//! by Ctrl-C ([`crate::interrupt`]).

mod alone;
mod chart;
mod comparison;
mod contender;
mod contest;
mod forwarder;
mod generator;
mod latency;
mod measure;
mod memory;
mod paths;
mod places;
mod process;
mod report;
mod run;
mod scale;
mod sessions;
mod table;

pub use chart::chart;
pub use contest::{Contest, compare, main, seconds};
pub use forwarder::forward;
pub use places::{hosts, kernel_host, vswitch_host};
pub use report::Report;
pub use run::{Interrupted, Options, Run};
pub use table::table;

/// The paths and, below each, its measures: what `--only` may name.
pub fn list() -> String {
    let mut text = String::new();
    for (path, title) in paths::titles() {
        let measures: Vec<&str> = measures_of(path).collect();
        text.push_str(&format!("{path:<14} {title}\n{:14} {}\n", "", measures.join(" ")));
    }
    text
}

/// What is wrong with the words for `--only`, if anything.
pub fn unknown(words: &[String]) -> Option<String> {
    let known = |word: &str| {
        paths::titles().any(|(path, _)| {
            word == path || measures_of(path).any(|measure| word == measure || word == format!("{path}/{measure}"))
        })
    };
    let word = words.iter().find(|word| !known(word))?;
    Some(format!("{word:?} is no path and no measure: --list shows them"))
}

fn measures_of(path: &str) -> impl Iterator<Item = &'static str> {
    let between = paths::PATHS.iter().filter(move |known| known.name == path).flat_map(|path| path.measures);
    let ports = scale::measures().filter(move |_| path == paths::PORTS.0);
    let alone = (path == paths::DATAPATH.0).then_some(alone::MEASURE);
    between.map(|measure| measure.name).chain(ports).chain(alone)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_word_is_known_or_named() {
        let words = |words: &[&str]| super::unknown(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["tap", "ping", "nat/sessions", "ports/quiet", "datapath"]), None);
        assert!(words(&["tap", "veth/sessions"]).is_some_and(|sentence| sentence.contains("\"veth/sessions\"")));
    }
}
