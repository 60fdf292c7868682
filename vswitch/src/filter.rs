//! A filter as it is typed: tcpdump's language, and beside it what looks into tunnels.
//!
//! `inner(EXPR)` is the frame that a frame carries in VXLAN, `vni N` its network. libpcap knows neither, so each becomes a load of one byte that no
//! frame has, where the data plane puts the answer ([`CaptureFilter::code`]); libpcap compiles the rest around it, with its own `and`, `or`, `not` and
//! brackets. Where something is wrong, the word is pointed at in what was typed.

use std::ops::Range;

use api::{CaptureFilter, TUNNEL_STEP, TUNNEL_TESTS, TunnelTest};
use sys::pcap::{self, CompileError};

/// What may follow the start of an expression that is right so far, so that both together are one.
const ENDINGS: [&str; 9] = ["", " 1", " 10.0.0.1", " ip", " port 1", " = 1", " 02:00:00:00:00:01", " 1] = 1", "] = 1"];
/// Words that are tried; behind more, nothing is pointed at.
const MOST_WORDS: usize = 64;

/// Why a text is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// libpcap says so, or is not there.
    #[error(transparent)]
    Libpcap(#[from] CompileError),
    /// libpcap says so, because of one word.
    #[error("{source}; at column {column}, \"{word}\"")]
    Word {
        /// Where the word begins, from 1.
        column: usize,
        /// The word.
        word: String,
        /// What libpcap says.
        source: CompileError,
    },
    /// It asks about tunnels in a way that cannot be.
    #[error("\"{expression}\" is not a filter: {why}; at column {column}, \"{word}\"")]
    Tunnel {
        /// All of it.
        expression: String,
        /// What would be right.
        why: String,
        /// Where the word begins, from 1.
        column: usize,
        /// The word.
        word: String,
    },
}

/// Compiles a filter.
///
/// # Errors
/// What is wrong, and in which column if that can be told.
pub(crate) fn compile(filter: &str) -> Result<CaptureFilter, FilterError> {
    let words = words(filter);
    part(&Text { filter, words: &words }, CaptureFilter::DEEPEST)
}

/// An expression, or one inside another.
struct Text<'a> {
    /// All that was typed.
    filter: &'a str,
    /// The words of the expression, and where they are.
    words: &'a [Range<usize>],
}

/// An expression as libpcap takes it.
#[derive(Default)]
struct Plain {
    text: String,
    /// Where in it each word ends, and which word that was.
    ends: Vec<(usize, Range<usize>)>,
    tests: Vec<TunnelTest>,
}

/// Compiles an expression that holds at most so many others inside each other, itself among them.
fn part(text: &Text<'_>, deepest: usize) -> Result<CaptureFilter, FilterError> {
    let mut plain = Plain::default();
    let mut rest = text.words;
    let mut is_start = true;
    while let Some((first, more)) = rest.split_first() {
        let test = match text.word(first) {
            "vni" if is_start => Some(text.vni(first, more)?),
            "inner" if is_start => Some(text.inner(first, more, deepest)?),
            _ => None,
        };
        // What lies between words is for libpcap to see, as in `tcp[tcpflags]` and `! arp`.
        let (piece, used) = match test {
            Some((test, used)) => (plain.ask(test), 1 + used),
            None => (text.word(first).to_owned(), 1),
        };
        plain.push(&piece, text.gap_before(first), first.clone());
        is_start = matches!(piece.as_str(), "(" | "!" | "&" | "|" | "and" | "or" | "not");
        rest = rest.get(used..).unwrap_or_default();
        if plain.tests.len() > CaptureFilter::MOST_TESTS {
            let most = CaptureFilter::MOST_TESTS;
            return Err(text.wrong(first, format!("it asks more than {most} things about tunnels")));
        }
    }
    match pcap::compile(&plain.text) {
        Ok(code) => Ok(CaptureFilter { code, tunnels: plain.tests }),
        Err(error) => Err(plain.pointed_at(text, error)),
    }
}

impl<'a> Text<'a> {
    fn word(&self, word: &Range<usize>) -> &'a str {
        self.filter.get(word.clone()).unwrap_or_default()
    }

    /// Whether there is space before a word.
    fn gap_before(&self, word: &Range<usize>) -> &'static str {
        if self.filter[..word.start].ends_with(char::is_whitespace) { " " } else { "" }
    }

    fn column(&self, word: &Range<usize>) -> usize {
        self.filter[..word.start].chars().count() + 1
    }

    fn wrong(&self, word: &Range<usize>, why: String) -> FilterError {
        let (expression, column, word) = (self.filter.to_owned(), self.column(word), self.word(word).to_owned());
        FilterError::Tunnel { expression, why, column, word }
    }

    /// `vni N`, and how many words are behind `vni`.
    fn vni(&self, first: &Range<usize>, more: &[Range<usize>]) -> Result<(TunnelTest, usize), FilterError> {
        let number = more.first().unwrap_or(first);
        match self.word(number).parse::<u32>().ok().and_then(|number| vxlan::Vni::try_from(number).ok()) {
            Some(vni) => Ok((TunnelTest::Vni(vni.number()), 1)),
            None => Err(self.wrong(number, "behind vni is a network's number, from 0 to 16777215, as in vni 42".to_owned())),
        }
    }

    /// `inner(EXPR)`, and how many words are behind `inner`.
    fn inner(&self, first: &Range<usize>, more: &[Range<usize>], deepest: usize) -> Result<(TunnelTest, usize), FilterError> {
        let Some(("(", behind)) = more.split_first().map(|(open, behind)| (self.word(open), behind)) else {
            return Err(
                self.wrong(more.first().unwrap_or(first), "behind inner is a filter in brackets, as in inner(icmp)".to_owned())
            );
        };
        let Some(deepest) = deepest.checked_sub(1).filter(|deepest| *deepest > 0) else {
            let most = CaptureFilter::DEEPEST - 1;
            return Err(self.wrong(first, format!("at most {most} inner(...) may be inside each other")));
        };
        let mut depth = 1_usize;
        let close = behind.iter().position(|word| {
            match self.word(word) {
                "(" => depth += 1,
                ")" => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let Some(close) = close else { return Err(self.wrong(first, "the bracket behind inner is not closed".to_owned())) };
        let inside = Text { filter: self.filter, words: behind.get(..close).unwrap_or_default() };
        Ok((TunnelTest::Inner(part(&inside, deepest)?), close + 2))
    }
}

impl Plain {
    /// What libpcap is given for a test: a byte that no frame has.
    fn ask(&mut self, test: TunnelTest) -> String {
        let number = u32::try_from(self.tests.len()).unwrap_or(u32::MAX);
        self.tests.push(test);
        format!("(ether[{}] = 1)", TUNNEL_TESTS.saturating_add(number.saturating_mul(TUNNEL_STEP)))
    }

    fn push(&mut self, piece: &str, gap: &str, word: Range<usize>) {
        self.text += gap;
        self.text += piece;
        self.ends.push((self.text.len(), word));
    }

    /// What libpcap says, of the filter as it was typed, and the first word that it cannot make anything of.
    fn pointed_at(&self, typed: &Text<'_>, error: CompileError) -> FilterError {
        let CompileError::Syntax { message, .. } = error else { return error.into() };
        let word = self.wrong_word(typed, &message);
        let source = CompileError::Syntax { expression: typed.filter.to_owned(), message };
        match word {
            Some(word) => FilterError::Word { column: typed.column(&word), word: typed.word(&word).to_owned(), source },
            None => source.into(),
        }
    }

    fn wrong_word(&self, typed: &Text<'_>, message: &str) -> Option<Range<usize>> {
        let mut words = self.ends.iter();
        if !message.contains("syntax error") {
            // libpcap names the word, as in "unknown host 'x'".
            let named = words.map(|(_, word)| word).filter(|word| word.len() > 1 && message.contains(typed.word(word)));
            return named.max_by_key(|word| word.len()).cloned();
        }
        words.by_ref().take(MOST_WORDS).find(|(end, _)| !may_go_on(&self.text[..*end])).map(|(_, word)| word.clone())
    }
}

/// Whether an expression can begin like this.
fn may_go_on(start: &str) -> bool {
    let open = start.matches('(').count().saturating_sub(start.matches(')').count());
    let close = ")".repeat(open);
    ENDINGS.iter().any(|ending| !matches!(pcap::compile(&format!("{start}{ending}{close}")), Err(CompileError::Syntax { message, .. }) if message.contains("syntax error")))
}

/// Where the words of an expression are: names with what belongs to them, and signs.
fn words(filter: &str) -> Vec<Range<usize>> {
    let is_name = |c: char| c.is_alphanumeric() || "._:-/\\".contains(c);
    let mut words = Vec::new();
    let mut rest = filter;
    while let Some(first) = rest.chars().next() {
        let at = filter.len() - rest.len();
        let length = if is_name(first) { rest.find(|c| !is_name(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        if !first.is_whitespace() {
            words.push(at..at + length);
        }
        rest = &rest[length..];
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use testing::skipped;

    fn has_libpcap(test: &str) -> bool {
        let has = !matches!(pcap::compile(""), Err(CompileError::Missing(_)));
        if !has {
            skipped(test, "no libpcap");
        }
        has
    }

    /// The column and the word that a filter is refused for, and all that is said.
    fn refused(filter: &str) -> (usize, String, String) {
        let error = compile(filter).unwrap_err();
        let said = error.to_string();
        match error {
            FilterError::Word { column, word, .. } | FilterError::Tunnel { column, word, .. } => (column, word, said),
            FilterError::Libpcap(_) => (0, String::new(), said),
        }
    }

    #[test]
    fn the_word_that_is_wrong_is_pointed_at() {
        if !has_libpcap("the_word_that_is_wrong_is_pointed_at") {
            return;
        }
        for (filter, column, word) in [
            ("tcp prot 80", 5, "prot"),
            ("tcp port 80 and and icmp", 17, "and"),
            ("icmp or (arp andd ip)", 14, "andd"),
            ("ip[8 = 64", 6, "="),
            ("udp port nonsense-here", 10, "nonsense-here"),
            ("vni 42 and tcp prot 80", 16, "prot"),
            ("arp or inner(vlan 5 and inner(tcp prot 80)) or icmp", 35, "prot"),
            ("inner(icmp) inner(arp)", 13, "inner"),
            ("vni", 1, "vni"),
            ("not vni 16777216", 9, "16777216"),
            ("inner icmp", 7, "icmp"),
            ("arp or inner(icmp or (arp)", 8, "inner"),
            ("inner(inner(inner(inner(arp))))", 19, "inner"),
        ] {
            let (at, wrong, said) = refused(filter);
            assert_eq!((at, &*wrong), (column, word), "{filter}: {said}");
            assert!(said.starts_with(&format!("\"{filter}\" is not a filter: ")), "{said}");
        }
        let (.., said) = refused("tcp prot 80");
        assert!(
            said.starts_with("\"tcp prot 80\" is not a filter: libpcap says ") && said.ends_with("at column 5, \"prot\""),
            "{said}"
        );
        assert_eq!(refused(&vec!["vni 1"; 17].join(" or ")).0, 145);
        for filter in
            ["tcp port 80 or (vlan and arp)", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "ip[6:2] & 0x1fff != 0 && ! arp"]
        {
            assert_eq!(compile(filter).unwrap(), CaptureFilter { code: pcap::compile(filter).unwrap(), tunnels: Vec::new() });
        }
    }

    #[test]
    fn tunnels_are_asked_about_anywhere_in_a_filter() {
        if !has_libpcap("tunnels_are_asked_about_anywhere_in_a_filter") {
            return;
        }
        let places = |filter: &CaptureFilter| {
            let place = |operand: u32| operand.checked_sub(TUNNEL_TESTS).map(|place| place / TUNNEL_STEP);
            filter.code.iter().filter(|code| code.0 & 7 == 0).filter_map(|code| place(code.3)).collect::<Vec<_>>()
        };
        for (filter, tests) in [
            ("vni 42", "[Vni(42)]"),
            ("! vni 1 && (vni 2 || not vni 3)", "[Vni(1), Vni(2), Vni(3)]"),
            ("vlan 5 and vni 7", "[Vni(7)]"),
        ] {
            let compiled = compile(filter).unwrap();
            assert_eq!(format!("{:?}", compiled.tunnels), tests, "{filter}");
            let mut asked = places(&compiled);
            asked.sort_unstable();
            asked.dedup();
            assert!(asked.iter().copied().eq(0..u32::try_from(compiled.tunnels.len()).unwrap()), "{filter}: {asked:?}");
        }
        let compiled = compile("icmp or inner( tcp port 80 and not vni 3 )").unwrap();
        let [TunnelTest::Inner(inside)] = &compiled.tunnels[..] else { panic!("{compiled:?}") };
        assert_eq!((&inside.tunnels[..], places(inside)), (&[TunnelTest::Vni(3)][..], vec![0]));
        let any = compile("inner()").unwrap();
        assert_eq!(any.tunnels, [TunnelTest::Inner(CaptureFilter { code: pcap::compile("").unwrap(), tunnels: Vec::new() })]);
    }
}
