//! What is read is written so that it is read the same; what is wrong is told with its place.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Impairment {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn words_are_read_in_any_order_and_written_in_one() {
    for (text, written) in [
        ("loss 1% delay 20ms jitter 5ms", "delay 20ms jitter 5ms loss 1%"),
        ("delay 1500us", "delay 1.5ms"),
        ("delay 0.0015s jitter 100ns distribution pareto", "delay 1.5ms jitter 100ns distribution pareto"),
        ("delay 10ms jitter 1ms distribution uniform", "delay 10ms jitter 1ms"),
        ("loss burst 2.50% 8", "loss burst 2.5% 8"),
        ("loss gemodel 1% 10%", "loss gemodel 1% 10%"),
        ("loss gemodel 1% 10% 100% 0%", "loss gemodel 1% 10%"),
        ("loss gemodel 1% 10% 100% 0.1%", "loss gemodel 1% 10% 100% 0.1%"),
        ("loss gemodel 1% 10% 70%", "loss gemodel 1% 10% 70%"),
        ("reorder 25% gap 5 delay 10ms", "delay 10ms reorder 25% gap 5"),
        ("delay 10ms reorder 25% gap 1", "delay 10ms reorder 25%"),
        ("ecn codel rate 10000kbit limit 100000", "rate 10mbit limit 100000B codel ecn"),
        ("flap 1min every 0.5s", ""),
        ("flap 5s every 1min", "flap 5s every 60s"),
        ("duplicate 0.000001% corrupt 100%", "duplicate 0.000001% corrupt 100%"),
        ("delay 60s", "delay 60s"),
        ("delay 0ms", "delay 0ms"),
    ] {
        match text.parse::<Impairment>() {
            Ok(impairment) => {
                assert_eq!(impairment.to_string(), written, "{text}");
                assert_eq!(read(written), impairment);
            }
            Err(_) => assert_eq!(written, "", "{text}"),
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_column_and_what_would_be_right() {
    for (text, column, part) in [
        ("", 1, "no words"),
        ("  ", 3, "no words"),
        ("delay 20ms loss 130%", 17, "use 0% to 100%"),
        ("loss 1", 6, "percent sign"),
        ("loss %", 6, "such as 1%"),
        ("loss -1%", 6, "such as 1%"),
        ("loss 0.0000001%", 6, "six decimals"),
        ("delay 20", 7, "20ms"),
        ("delay 20m", 7, "such as 20ms"),
        ("delay 61s", 7, "60s or less"),
        ("delay 99999999999999999999s", 7, "such as 20ms"),
        ("delay", 6, "delay 20ms"),
        ("delay 5ms jitter 6ms", 18, "5ms or less"),
        ("delay 5ms jitter 0ms", 11, "leave it out"),
        ("delay 5ms distribution normal", 11, "jitter 5ms"),
        ("delay 5ms jitter 1ms distribution poisson", 35, "paretonormal"),
        ("jitter 5ms", 1, "behind a delay"),
        ("loss 1% reorder 5%", 9, "add one, such as delay"),
        ("delay 5ms reorder 5% gap 0", 26, "1 to 1000000"),
        ("loss burst 60% 1", 12, "50% or less"),
        ("loss burst 1% 0", 15, "1 to 1000000"),
        ("loss gemodel 1%", 16, "loss gemodel 1% 1%"),
        ("rate 0", 6, "8kbit to 1tbit"),
        ("rate 10", 6, "8kbit to 1tbit"),
        ("codel", 1, "rate 10mbit"),
        ("rate 1mbit ecn", 12, "add codel"),
        ("limit 10kB loss 1%", 1, "rate or a delay"),
        ("rate 1mbit limit 1kB", 18, "1514"),
        ("rate 1mbit limit 65MiB", 18, "64MiB"),
        ("flap 5s", 8, "flap 5s every 60s"),
        ("flap 5s each 60s", 14, "flap 5s every 60s"),
        ("flap 5s every 5s", 15, "more than 5s"),
        ("flap 5s every 90000s", 15, "too long"),
        ("delay 5ms delay 6ms", 11, "twice"),
        ("loss 1% lag 5ms", 9, "the words are delay"),
        ("lössig 1% x", 1, "the words are"),
        ("loss 1%\u{a0}x", 6, "percent sign"),
    ] {
        let error = text.parse::<Impairment>().expect_err(text).to_string();
        assert!(error.contains(&format!("column {column}:")) && error.contains(part), "{text}: {error}");
    }
    let long = format!("loss {}", "9".repeat(500));
    assert!(long.parse::<Impairment>().unwrap_err().to_string().len() < 200);
}

#[test]
fn a_table_says_each_direction_and_takes_nothing_else() {
    let read = |text: &str| toml::from_str::<Impair>(text).map_err(|error| error.message().to_owned());
    let both = read("in = \"delay 20ms\"\nout = \"loss 1%\"\nseed = 7").unwrap();
    assert_eq!(
        (both.incoming.clone(), both.outgoing.clone(), both.seed),
        (Some(super::tests::read("delay 20ms").into()), Some(super::tests::read("loss 1%").into()), Some(7))
    );
    assert_eq!(toml::from_str::<Impair>(&toml::to_string(&both).unwrap()).unwrap(), both);
    assert_eq!(serde_json::from_str::<Impair>(&serde_json::to_string(&both).unwrap()).unwrap(), both);
    let one = read("out = \"loss 1%\"").unwrap();
    assert_eq!(toml::from_str::<Impair>(&toml::to_string(&one).unwrap()).unwrap(), one);
    let listed = serde_json::to_value(&one).unwrap();
    assert_eq!(listed, serde_json::json!({ "in": null, "out": "loss 1%", "seed": null }));
    assert_eq!(serde_json::from_value::<Impair>(listed).unwrap(), one);
    for (text, part) in [
        ("in = 5", "`in` is 5: write words such as"),
        ("out = \"loss 200%\"", "`out` at \"200%\", column 6"),
        ("in = \"none\"", "leave it out"),
        ("in = \"loss 1%\"\nseed = -1", "`seed` is -1: write a whole number from 0 to 4294967295"),
        ("inn = \"loss 1%\"", "unknown field `inn`"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(read("seed = 3").unwrap_err().contains("`seed` stands alone: it is that of `in` or `out`"));
    assert_eq!(both.clone().or_seed(9).seed, Some(7));
    assert_eq!((Impair { seed: None, ..both }.or_seed(9).seed, Impair::default().or_seed(9).seed), (Some(9), None));
}

#[test]
fn a_share_takes_as_many_as_it_says() {
    assert!((0..64).all(|bit| !Percent::NONE.takes(1 << bit) && Percent::ALL.takes(u64::MAX)));
    let quarter = Percent::read("25%").unwrap();
    assert!(quarter.takes((u64::MAX >> 2) - (1 << 40)) && !quarter.takes((u64::MAX >> 2) + (1 << 40)));
}

prop_compose! {
    fn share()(parts in 0_u32..=100_000_000) -> String {
        format!("{}.{:06}%", parts / 1_000_000, parts % 1_000_000)
    }
}

fn time(most: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        1..most,
        (1..=most / 1_000_000).prop_map(|time| time * 1_000_000),
        (1..=most / 1000).prop_map(|time| time * 1000)
    ]
}

fn loss() -> impl Strategy<Value = String> {
    prop_oneof![
        share().prop_map(|share| format!("loss {share}")),
        (0..50_u32, 1..=Burst::MOST).prop_map(|(share, length)| format!("loss burst {share}% {length}")),
        prop::collection::vec(share(), 2..=4).prop_map(|shares| format!("loss gemodel {}", shares.join(" "))),
    ]
}

fn delay() -> impl Strategy<Value = String> {
    let distribution = prop::sample::select(vec![
        "",
        " distribution uniform",
        " distribution normal",
        " distribution pareto",
        " distribution paretonormal",
    ]);
    (time(60_000_000_000), 0..1000_u64, distribution).prop_map(|(time, part, distribution)| {
        let jitter = time / 1000 * part;
        if jitter == 0 { format!("delay {time}ns") } else { format!("delay {time}ns jitter {jitter}ns{distribution}") }
    })
}

prop_compose! {
    fn words()(
        delay in delay(), loss in prop::option::of(loss()), duplicate in prop::option::of(share()),
        corrupt in prop::option::of(share()), reorder in prop::option::of((share(), 1..=9_u32)),
        rate in 8000_u64..=1_000_000_000_000, limit in prop::option::of(1514_u64..=64 << 20), codel in 0..3,
        flap in prop::option::of((time(40_000_000_000_000), time(40_000_000_000_000))),
        order in any::<prop::sample::Index>(),
    ) -> String {
        let mut all = vec![delay, format!("rate {rate}")];
        all.extend(loss);
        all.extend(duplicate.map(|share| format!("duplicate {share}")));
        all.extend(corrupt.map(|share| format!("corrupt {share}")));
        all.extend(reorder.map(|(share, gap)| format!("reorder {share} gap {gap}")));
        all.extend(limit.map(|limit| format!("limit {limit}")));
        all.extend((codel > 0).then(|| "codel".to_owned()));
        all.extend((codel > 1).then(|| "ecn".to_owned()));
        all.extend(flap.map(|(down, more)| format!("flap {down}ns every {}ns", down + more)));
        let middle = order.index(all.len());
        all.rotate_left(middle);
        all.join(" ")
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_the_same(words in words()) {
        let impairment = read(&words);
        let written = impairment.to_string();
        prop_assert_eq!(read(&written), impairment, "{}", written);
        prop_assert_eq!(read(&written).to_string(), written);
    }

    #[test]
    fn no_text_is_too_much(text in ".{0,60}", words in prop::collection::vec("delay|jitter|loss|burst|gemodel|5%|5ms|rate|1mbit|flap|every|gap|reorder|-1|%", 0..8)) {
        let _ = text.parse::<Impairment>();
        if let Ok(read) = words.join(" ").parse::<Impairment>() {
            prop_assert_eq!(read.to_string().parse::<Impairment>(), Ok(read));
        }
    }
}
