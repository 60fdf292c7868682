//! A filter as it is typed: compiled by libpcap, and pointed at where libpcap does not understand it.

use api::Instruction;
use sys::pcap::{self, CompileError};

use crate::client::ClientError;

/// What may follow the start of an expression that is right so far, so that both together are one.
const ENDINGS: [&str; 9] = ["", " 1", " 10.0.0.1", " ip", " port 1", " = 1", " 02:00:00:00:00:01", " 1] = 1", "] = 1"];
/// Words that are tried; behind more, nothing is pointed at.
const MOST_WORDS: usize = 64;

/// Compiles a filter.
///
/// # Errors
/// What is wrong, and in which column if that can be told.
pub(in crate::client) fn compile(filter: &str) -> Result<Vec<Instruction>, ClientError> {
    pcap::compile(filter).map_err(|error| match column(filter, &error) {
        Some((column, word)) => ClientError::BadFilter { column, word: word.to_owned(), source: error },
        None => error.into(),
    })
}

/// The first word that libpcap cannot make anything of, and its column, from 1.
fn column<'a>(filter: &'a str, error: &CompileError) -> Option<(usize, &'a str)> {
    let CompileError::Syntax { message, .. } = error else { return None };
    let words = words(filter);
    if !message.contains("syntax error") {
        // libpcap names the word, as in "unknown host 'x'".
        let (at, word) = words
            .into_iter()
            .filter(|(_, word)| word.len() > 1 && message.contains(word))
            .max_by_key(|(_, word)| word.len())?;
        return Some((filter[..at].chars().count() + 1, word));
    }
    let wrong = words.into_iter().take(MOST_WORDS).find(|(at, word)| !may_go_on(&filter[..at + word.len()]))?;
    Some((filter[..wrong.0].chars().count() + 1, wrong.1))
}

/// Whether an expression can begin like this.
fn may_go_on(start: &str) -> bool {
    let open = start.matches('(').count().saturating_sub(start.matches(')').count());
    let close = ")".repeat(open);
    ENDINGS.iter().any(|ending| !matches!(pcap::compile(&format!("{start}{ending}{close}")), Err(CompileError::Syntax { message, .. }) if message.contains("syntax error")))
}

/// The words of an expression, and where they begin: names with what belongs to them, and signs.
fn words(filter: &str) -> Vec<(usize, &str)> {
    let is_name = |c: char| c.is_alphanumeric() || "._:-/\\".contains(c);
    let mut words = Vec::new();
    let mut rest = filter;
    while let Some(first) = rest.chars().next() {
        let at = filter.len() - rest.len();
        let end = if is_name(first) { rest.find(|c| !is_name(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, behind) = rest.split_at(end);
        if !first.is_whitespace() {
            words.push((at, word));
        }
        rest = behind;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use testing::skipped;

    #[test]
    fn the_word_that_is_wrong_is_pointed_at() {
        if let Err(CompileError::Missing(_)) = pcap::compile("") {
            return skipped("the_word_that_is_wrong_is_pointed_at", "no libpcap");
        }
        for (filter, wanted) in [
            ("tcp prot 80", Some((5, "prot"))),
            ("tcp port 80 and and icmp", Some((17, "and"))),
            ("icmp or (arp andd ip)", Some((14, "andd"))),
            ("ip[8 = 64", Some((6, "="))),
            ("udp port nonsense-here", Some((10, "nonsense-here"))),
        ] {
            let error = pcap::compile(filter).unwrap_err();
            assert_eq!(column(filter, &error), wanted, "{filter}: {error}");
        }
        assert!(compile("tcp port 80 or (vlan and arp)").is_ok());
        let said = compile("tcp prot 80").unwrap_err().to_string();
        assert!(
            said.starts_with("\"tcp prot 80\" is not a filter: libpcap says ") && said.ends_with("at column 5, \"prot\""),
            "{said}"
        );
    }
}
