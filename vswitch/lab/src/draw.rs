//! What differs between two learners: the values that a seed draws, and where they are put.
//!
//! A file names them in `[draw]` and has them as `{{name}}` anywhere else, also where TOML wants a number. So it is read twice: first with 0 in all
//! those places, for `[draw]` alone, then with the values. Lines stay where they are.

use std::collections::BTreeMap;

use serde::Deserialize;

/// How a value is drawn.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draw {
    /// A whole number from the first to the last, both included.
    between: Option<[i64; 2]>,
    /// One of these.
    of: Option<Vec<String>>,
    /// So many hexadecimal digits, the first of which is not 0.
    hex: Option<u8>,
    /// Other than these values, which are drawn before.
    #[serde(default)]
    unlike: Vec<String>,
}

/// The values of a seed by their names.
pub(crate) type Values = BTreeMap<String, String>;

/// Most tries to draw a value that is unlike others.
const TRIES: u64 = 1000;

/// Draws every value. The same seed always draws the same, whatever else the file draws.
///
/// # Errors
/// The name of what cannot be drawn, and why.
pub(crate) fn draw(draws: &BTreeMap<String, Draw>, seed: &str) -> Result<Values, (String, String)> {
    let mut values = Values::new();
    // What others are to be unlike comes first.
    let mut rest: Vec<&String> = draws.keys().collect();
    while !rest.is_empty() {
        let (now, later) = rest
            .into_iter()
            .partition::<Vec<&String>, _>(|name| draws[*name].unlike.iter().all(|other| values.contains_key(other)));
        if now.is_empty() {
            let wrong = "is unlike a value that is not drawn, or two are each unlike the other: name only what [draw] has, in one direction";
            return Err((later[0].clone(), wrong.to_owned()));
        }
        for name in now {
            let value = draws[name].one(name, seed, &values).map_err(|wrong| (name.clone(), wrong))?;
            values.insert(name.clone(), value);
        }
        rest = later;
    }
    Ok(values)
}

impl Draw {
    fn one(&self, name: &str, seed: &str, values: &Values) -> Result<String, String> {
        let taken: Vec<&String> = self.unlike.iter().map(|other| &values[other]).collect();
        let tries = (0..TRIES).map(|attempt| self.try_one(&mut Dice::new(&format!("{seed}/{name}/{attempt}"))));
        let mut tries = tries.collect::<Result<Vec<_>, _>>()?.into_iter();
        tries.find(|value| !taken.contains(&value)).ok_or_else(|| "has no value that is unlike the others: widen it".to_owned())
    }

    fn try_one(&self, dice: &mut Dice) -> Result<String, String> {
        match (self.between, &self.of, self.hex) {
            (Some([low, high]), None, None) if low <= high => {
                let offset = dice.roll(low.abs_diff(high).saturating_add(1));
                Ok(low.saturating_add_unsigned(offset).to_string())
            }
            (Some([low, high]), None, None) => Err(format!("is between {low} and {high}: write the smaller first")),
            (None, Some(list), None) if !list.is_empty() => {
                let at = usize::try_from(dice.roll(list.len() as u64)).unwrap_or(0);
                Ok(list[at].clone())
            }
            (None, None, Some(digits @ 1..=12)) => {
                let first = std::iter::once(1 + dice.roll(15));
                let digits = first.chain((1..digits).map(|_| dice.roll(16)));
                Ok(digits.map(|digit| format!("{digit:x}")).collect())
            }
            _ => Err("needs one of `between = [1, 9]`, `of = [\"a\", \"b\"]` and `hex = 4` (1 to 12 digits)".to_owned()),
        }
    }
}

/// Numbers that follow from a word: splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators), begun at the word's FNV-1a
/// hash. A library's generator may give other numbers in its next version, and with them other answers.
struct Dice(u64);

impl Dice {
    fn new(word: &str) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(word.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }

    /// From 0 to one less than `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// Puts `value(name)` wherever a text has `{{name}}`.
///
/// # Errors
/// The line, from 1, and the name for which there is no value.
pub(crate) fn fill<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> Result<String, (usize, String)> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        filled += before;
        let Some((name, behind)) = after.split_once("}}").filter(|(name, _)| is_name(name)) else {
            // Two braces of something else.
            filled += "{{";
            rest = after;
            continue;
        };
        let Some(value) = value(name) else { return Err((filled.matches('\n').count() + 1, name.to_owned())) };
        filled += value;
        rest = behind;
    }
    Ok(filled + rest)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(text: &str) -> BTreeMap<String, Draw> {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_seed_draws_the_same_again_and_another_seed_something_else() {
        let all = draws(
            "a = { between = [10, 99] }\nb = { between = [10, 11], unlike = [\"c\"] }\nc = { between = [10, 11] }\nd = { hex = 4 }",
        );
        let once = draw(&all, "ada").unwrap();
        assert_eq!(draw(&all, "ada").unwrap(), once);
        assert!((0..5).any(|seed| draw(&all, &seed.to_string()).unwrap()["a"] != once["a"]));
        for seed in 0..200 {
            let values = draw(&all, &seed.to_string()).unwrap();
            assert_ne!(values["b"], values["c"]);
            assert!((10..=99).contains(&values["a"].parse::<i64>().unwrap()));
            assert!(u16::from_str_radix(&values["d"], 16).unwrap() >= 0x1000);
        }
        // What else a file draws makes no difference.
        assert_eq!(draw(&draws("a = { between = [10, 99] }"), "ada").unwrap()["a"], once["a"]);
    }

    #[test]
    fn every_value_of_a_list_is_drawn_by_some_seed() {
        let all = draws("fault = { of = [\"a\", \"b\", \"c\", \"d\", \"e\"] }");
        let mut seen: Vec<String> = (0..100).map(|seed| draw(&all, &seed.to_string()).unwrap()["fault"].clone()).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn what_cannot_be_drawn_is_told() {
        for (text, part) in [
            ("a = { between = [2, 1] }", "the smaller first"),
            ("a = {}", "needs one of"),
            ("a = { of = [] }", "needs one of"),
            ("a = { hex = 4, of = [\"x\"] }", "needs one of"),
            ("a = { of = [\"x\"] }\nb = { of = [\"x\"], unlike = [\"a\"] }", "widen it"),
            ("a = { of = [\"x\"], unlike = [\"b\"] }\nb = { of = [\"x\"], unlike = [\"a\"] }", "one direction"),
        ] {
            let (_, wrong) = draw(&draws(text), "s").unwrap_err();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }

    #[test]
    fn values_are_put_where_their_names_are_and_other_braces_stay() {
        let value = |name: &str| (name == "a").then_some("7");
        assert_eq!(fill("x{{a}}y {{ a }} {{}} }} {{a}}", value).unwrap(), "x7y {{ a }} {{}} }} 7");
        assert_eq!(fill("one\n{{b}}", value).unwrap_err(), (2, "b".to_owned()));
    }
}
