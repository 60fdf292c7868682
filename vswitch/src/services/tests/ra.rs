use std::net::Ipv6Addr;

use super::*;
use crate::services::wire::discovery;

pub(super) fn solicitation(from: &str, station: Mac) -> Vec<u8> {
    let hop = Hop { from: station, to: Mac([0x33, 0x33, 0, 0, 0, 2]) };
    let addresses = (from.parse().unwrap(), "ff02::2".parse().unwrap());
    discovery(hop, addresses, (133, [0; 4]), &[]).unwrap()
}

/// Flags, lifetime and options of an advertisement.
fn read(frame: &[u8]) -> (u8, u16, Vec<(u8, Vec<u8>)>) {
    check_sums(frame);
    assert_eq!(&frame[6..12], &GATEWAY.0);
    assert_eq!((frame[21], &frame[22..38]), (255, GATEWAY.link_local().octets().as_slice()));
    assert_eq!(&frame[54..56], &[134, 0]);
    let (mut options, mut rest) = (Vec::new(), &frame[70..]);
    while let [kind, length, ..] = rest {
        let (option, after) = rest.split_at(usize::from(*length) * 8);
        options.push((*kind, option.to_vec()));
        rest = after;
    }
    (frame[59], u16::from_be_bytes([frame[60], frame[61]]), options)
}

impl Bench {
    fn ticked(&mut self) -> Option<Vec<u8>> {
        let mut outputs = self.services.tick(self.now);
        assert!(outputs.len() <= 1);
        outputs.pop().map(|output| match output {
            Output::Answer(answer) => answer.frame,
            other => panic!("{other:?}"),
        })
    }

    fn quiet(&mut self) {
        for _ in 0..60 {
            self.ticked();
            self.pass(1);
        }
    }
}

#[test]
fn a_start_is_announced_three_times_soon_and_then_now_and_again() {
    let mut bench = Bench::new();
    let mut times = Vec::new();
    for second in 0..4000_u64 {
        if bench.ticked().is_some() {
            times.push(second);
        }
        bench.pass(1);
    }
    assert_eq!(times[..3], [0, 16, 32]);
    for pair in times[2..].windows(2) {
        assert!((200..=601).contains(&(pair[1] - pair[0])), "{times:?}");
    }
}

#[test]
fn an_advertisement_tells_prefix_mtu_gateway_and_name_server() {
    let mut bench = Bench::new();
    let frame = bench.ticked().unwrap();
    assert_eq!(destination(&frame), Mac([0x33, 0x33, 0, 0, 0, 1]));
    let (flags, lifetime, options) = read(&frame);
    assert_eq!((flags, lifetime), (0xc0, 1800), "M and O");
    let gateway: Ipv6Addr = "fd10::1".parse().unwrap();
    let prefix: Ipv6Addr = "fd10::".parse().unwrap();
    let expected = [
        (1, [&[1, 1], GATEWAY.0.as_slice()].concat()),
        (5, [[5, 1, 0, 0], 1400_u32.to_be_bytes()].concat()),
        (
            3,
            [&[3, 4, 64, 0xc0], &2_592_000_u32.to_be_bytes(), &604_800_u32.to_be_bytes(), &[0; 4], prefix.octets().as_slice()]
                .concat(),
        ),
        (25, [&[25, 3, 0, 0], 1800_u32.to_be_bytes().as_slice(), &gateway.octets()].concat()),
    ];
    assert_eq!(options, expected);
    let mut link = link();
    (link.dhcp, link.addresses[1]) = (false, "fd10::1/80".parse().unwrap());
    let (flags, _, options) = read(&Bench::with(link).ticked().unwrap());
    assert_eq!((flags, options[2].1[3]), (0, 0x80), "no DHCP; no addresses of its own in a longer prefix");
}

#[test]
fn a_solicitation_is_answered_to_its_sender() {
    let mut bench = Bench::new();
    bench.quiet();
    let frame = bench.frame("db", solicitation("fe80::9", mac(9))).unwrap();
    assert_eq!(destination(&frame), mac(9));
    assert_eq!(&frame[38..54], &"fe80::9".parse::<Ipv6Addr>().unwrap().octets());
    assert_eq!(read(&frame).1, 1800);
}

#[test]
fn stations_without_an_address_are_answered_all_at_once() {
    let mut bench = Bench::new();
    bench.quiet();
    let mut answers = 0;
    for _ in 0..30 {
        assert_eq!(bench.frame("db", solicitation("::", mac(9))), None);
        answers += usize::from(bench.ticked().is_some());
        bench.pass(1);
    }
    assert_eq!(answers, 10, "one in three seconds");
}

#[test]
fn a_prefix_that_goes_is_deprecated_and_a_gateway_that_goes_says_so() {
    let mut bench = Bench::new();
    bench.quiet();
    let mut other = link();
    other.addresses[1] = "fd20::1/64".parse().unwrap();
    bench.services.set_link(bench.now, other.clone());
    let prefixes = |frame: &[u8]| -> Vec<_> {
        let (.., options) = read(frame);
        let prefixes = options.iter().filter(|(kind, _)| *kind == 3);
        prefixes.map(|(_, option)| (option[16..18].to_vec(), u32::from_be_bytes(*option[8..].first_chunk().unwrap()))).collect()
    };
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.extend(bench.ticked());
        bench.pass(1);
    }
    for frame in &seen[..3] {
        assert_eq!(prefixes(frame), [(vec![0xfd, 0x20], 604_800), (vec![0xfd, 0x10], 0)]);
    }
    assert_eq!(prefixes(&seen[3]), [(vec![0xfd, 0x20], 604_800)]);
    bench.services.set_link(bench.now, other);
    assert_eq!(bench.ticked(), None, "the same again is no news");
    let outputs: Vec<_> = bench.services.remove_link(&link().bridge).into_iter().collect();
    let [Output::Answer(answer)] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!((read(&answer.frame).1, prefixes(&answer.frame)), (0, vec![(vec![0xfd, 0x20], 0)]));
}
