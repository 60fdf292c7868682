//! Words into an impairment, or a sentence about the word that is wrong.

use std::fmt;
use std::iter::Peekable;
use std::str::FromStr;
use std::time::Duration;

use super::units::{Time, read_time};
use super::{Burst, Delay, Distribution, Flap, Impairment, Loss, Percent, Reorder};
use crate::ByteSize;

/// Words that are no impairment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpairError {
    /// Where the word that is wrong begins, in characters from 1.
    column: usize,
    /// The word; empty at the end of the text.
    word: String,
    sentence: String,
}

impl ImpairError {
    /// Where the word that is wrong begins, in characters of the text from 1.
    pub const fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for ImpairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { column, word, sentence } = self;
        let shown: String = word.chars().take(LONGEST_SHOWN).collect();
        let cut = if shown.len() < word.len() { "…" } else { "" };
        match word.is_empty() {
            true => write!(f, "at its end, column {column}: {sentence}"),
            false => write!(f, "at \"{}{cut}\", column {column}: {sentence}", shown.escape_debug()),
        }
    }
}

impl std::error::Error for ImpairError {}

/// Most characters of a word that a sentence repeats.
const LONGEST_SHOWN: usize = 40;
/// Every word that begins something.
const WORDS: &str = "delay, loss, duplicate, reorder, corrupt, rate, limit, codel, ecn and flap";

/// A word, and the column where it begins.
#[derive(Clone, Copy)]
struct Word<'a> {
    column: usize,
    text: &'a str,
}

impl Word<'_> {
    fn wrong(self, sentence: impl Into<String>) -> ImpairError {
        ImpairError { column: self.column, word: self.text.to_owned(), sentence: sentence.into() }
    }
}

/// The words of a text that are still to be read.
struct Words<'a, I: Iterator<Item = Word<'a>>> {
    words: Peekable<I>,
    /// Where the text ends.
    end: Word<'a>,
}

impl FromStr for Impairment {
    type Err = ImpairError;

    fn from_str(text: &str) -> Result<Self, ImpairError> {
        let end = Word { column: text.chars().count() + 1, text: "" };
        let words = text.split_ascii_whitespace().map(|word| {
            let before = &text[..word.as_ptr() as usize - text.as_ptr() as usize];
            Word { column: before.chars().count() + 1, text: word }
        });
        let mut words = Words { words: words.peekable(), end };
        let (mut read, mut said) = (Self::NOTHING, Vec::new());
        while let Some(word) = words.words.next() {
            if said.iter().any(|before: &Word<'_>| before.text == word.text) {
                return Err(word.wrong(format!("{} is there twice", word.text)));
            }
            said.push(word);
            words.read(word, &mut read)?;
        }
        if said.is_empty() {
            return Err(end.wrong(format!("it has no words: write what happens, such as \"delay 20ms loss 1%\" (of {WORDS})")));
        }
        let said = |name: &str| said.iter().find(|word| word.text == name).copied().unwrap_or(end);
        read.check(said)
    }
}

impl Impairment {
    /// Whether the words fit together; `said` tells where one of them stands.
    fn check<'a>(self, said: impl Fn(&str) -> Word<'a>) -> Result<Self, ImpairError> {
        let needs = |word: &str, sentence: &str| Err(said(word).wrong(sentence));
        if self.reorder.is_some() && self.delay.is_none() {
            return needs("reorder", "without a delay no packet can overtake another: add one, such as delay 10ms");
        }
        if self.codel && self.rate.is_none() {
            return needs("codel", "without a rate nothing waits for it to keep short: add one, such as rate 10mbit");
        }
        if self.ecn && !self.codel {
            return needs("ecn", "it marks what CoDel would drop: add codel");
        }
        if self.limit.is_some() && self.rate.is_none() && self.delay.is_none() {
            return needs("limit", "without a rate or a delay nothing waits: add one, such as rate 10mbit");
        }
        Ok(self)
    }
}

impl<'a, I: Iterator<Item = Word<'a>>> Words<'a, I> {
    /// Reads what belongs to a word.
    fn read(&mut self, word: Word<'a>, into: &mut Impairment) -> Result<(), ImpairError> {
        match word.text {
            "delay" => into.delay = Some(self.delay()?),
            "loss" => into.loss = Some(self.loss()?),
            "duplicate" => into.duplicate = Some(self.percent("duplicate")?),
            "corrupt" => into.corrupt = Some(self.percent("corrupt")?),
            "reorder" => into.reorder = Some(self.reorder()?),
            "rate" => {
                into.rate =
                    Some(self.value("rate 10mbit", |word| word.parse().map_err(|error: crate::RateError| error.to_string()))?)
            }
            "limit" => into.limit = Some(self.value("limit 100kB", read_limit)?),
            "flap" => into.flap = Some(self.flap()?),
            "codel" => into.codel = true,
            "ecn" => into.ecn = true,
            "jitter" | "distribution" => {
                return Err(word.wrong("it belongs behind a delay: delay 20ms jitter 5ms distribution normal"));
            }
            "gap" => return Err(word.wrong("it belongs behind reorder: delay 10ms reorder 25% gap 5")),
            "every" => return Err(word.wrong("it belongs behind flap: flap 5s every 60s")),
            _ => return Err(word.wrong(format!("it means nothing here: the words are {WORDS}"))),
        }
        Ok(())
    }

    fn delay(&mut self) -> Result<Delay, ImpairError> {
        let time = self.value("delay 20ms", |word| read_time(word).and_then(|time| within(time, Impairment::LONGEST_DELAY)))?;
        let (mut jitter, mut distribution) = (Duration::ZERO, None);
        if let Some(word) = self.next_if("jitter") {
            let strays = |text: &str| match read_time(text)? {
                jitter if jitter > time => Err(format!("it is more than the delay itself: use {} or less", Time(time))),
                jitter => Ok(jitter),
            };
            jitter = self.value("jitter 5ms", strays)?;
            if jitter.is_zero() {
                return Err(word.wrong("a jitter of nothing: leave it out"));
            }
        }
        if let Some(word) = self.next_if("distribution") {
            distribution = Some(self.value("distribution normal", read_distribution)?);
            if jitter.is_zero() {
                return Err(word.wrong("it is that of a jitter: add one before it, such as jitter 5ms"));
            }
        }
        Ok(Delay { time, jitter, distribution: distribution.unwrap_or_default() })
    }

    fn loss(&mut self) -> Result<Loss, ImpairError> {
        if self.next_if("burst").is_some() {
            let share = self.peek();
            let (lost, burst) = (self.percent("loss burst")?, self.value("loss burst 1% 5", read_burst)?);
            // The state in which packets are lost would have to be entered more often than after each packet.
            let most = f64::from(burst.0) / (f64::from(burst.0) + 1.0);
            if lost.probability() > most {
                let percent = (most * 100.0).floor();
                return Err(share
                    .wrong(format!("a run of {} is followed by a packet that is not lost: use {percent}% or less", burst.0)));
            }
            return Ok(Loss::Burst(lost, burst));
        }
        if self.next_if("gemodel").is_some() {
            let (p, r) = (self.percent("loss gemodel")?, self.percent("loss gemodel 1%")?);
            let bad = self.share_if()?.unwrap_or(Percent::ALL);
            let good = if bad == Percent::ALL && !self.is_share() { None } else { self.share_if()? };
            return Ok(Loss::GilbertElliott { p, r, bad, good: good.unwrap_or(Percent::NONE) });
        }
        Ok(Loss::Random(self.percent("loss")?))
    }

    fn reorder(&mut self) -> Result<Reorder, ImpairError> {
        let share = self.percent("reorder")?;
        let gap = match self.next_if("gap") {
            Some(_) => self.value("gap 5", |word| count(word, "gap"))?,
            None => 1,
        };
        Ok(Reorder { share, gap })
    }

    fn flap(&mut self) -> Result<Flap, ImpairError> {
        let down = self.value("flap 5s every 60s", read_time)?;
        let every = self.next().filter(|word| word.text == "every");
        every.ok_or_else(|| self.peek().wrong("say how often it is down: flap 5s every 60s"))?;
        let period = |text: &str| match within(read_time(text)?, Impairment::LONGEST_PERIOD)? {
            every if every <= down => Err(format!("the line would never be up: use more than {}", Time(down))),
            every => Ok(every),
        };
        Ok(Flap { down, every: self.value("every 60s", period)? })
    }

    fn percent(&mut self, before: &str) -> Result<Percent, ImpairError> {
        self.value(&format!("{before} 1%"), Percent::read)
    }

    /// The next word, if it is a share.
    fn share_if(&mut self) -> Result<Option<Percent>, ImpairError> {
        if self.is_share() { self.percent("loss gemodel 1% 10%").map(Some) } else { Ok(None) }
    }

    fn is_share(&mut self) -> bool {
        self.peek().text.ends_with('%')
    }

    /// Reads the next word, which `such` has an example of.
    fn value<T>(&mut self, such: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, ImpairError> {
        let word = self.next().ok_or_else(|| self.end.wrong(format!("something is missing: write {such}")))?;
        read(word.text).map_err(|sentence| word.wrong(sentence))
    }

    fn next(&mut self) -> Option<Word<'a>> {
        self.words.next()
    }

    fn next_if(&mut self, text: &str) -> Option<Word<'a>> {
        self.words.next_if(|word| word.text == text)
    }

    /// The word that comes next, or the end.
    fn peek(&mut self) -> Word<'a> {
        self.words.peek().copied().unwrap_or(self.end)
    }
}

fn within(time: Duration, longest: Duration) -> Result<Duration, String> {
    if time <= longest { Ok(time) } else { Err(format!("that is too long: use {} or less", Time(longest))) }
}

fn read_distribution(word: &str) -> Result<Distribution, String> {
    let known = Distribution::ALL.into_iter().find(|distribution| distribution.name() == word);
    known.ok_or_else(|| "the distributions are uniform, normal, pareto and paretonormal".to_owned())
}

fn read_burst(word: &str) -> Result<Burst, String> {
    count(word, "mean length").map(Burst)
}

fn count(word: &str, what: &str) -> Result<u32, String> {
    let number = word.parse().ok().filter(|number| (1..=Burst::MOST).contains(number));
    number.ok_or_else(|| format!("a {what} is a whole number of packets: use 1 to {}", Burst::MOST))
}

fn read_limit(word: &str) -> Result<ByteSize, String> {
    let size: ByteSize = word.parse().map_err(|error: crate::SizeError| error.to_string())?;
    let range = Impairment::LEAST_BYTES..=Impairment::MOST_BYTES;
    let wrong = || format!("use {} bytes, which is one packet, to 64MiB", Impairment::LEAST_BYTES);
    if range.contains(&size.bytes()) { Ok(size) } else { Err(wrong()) }
}
