use domain::base::iana::Rcode;
use domain::base::message_builder::MessageBuilder;
use domain::base::name::Name;
use domain::base::{Message as Dns, Rtype};
use domain::rdata::AllRecordData;

use super::*;

fn ask(to: &str, name: &str, kind: Rtype, size: Option<u16>) -> Vec<u8> {
    let mut question = MessageBuilder::new_vec().question();
    question.header_mut().set_id(0x1234);
    question.header_mut().set_rd(true);
    question.push((name.parse::<Name<Vec<u8>>>().unwrap(), kind)).unwrap();
    let mut additional = question.additional();
    if let Some(size) = size {
        let set = |opt: &mut domain::base::message_builder::OptBuilder<'_, Vec<u8>>| {
            opt.set_udp_payload_size(size);
            Ok(())
        };
        additional.opt(set).unwrap();
    }
    let to: SocketAddr = to.parse().unwrap();
    let from = if to.is_ipv4() { "10.10.0.9:4000" } else { "[fd10::9]:4000" };
    udp(Hop { from: mac(9), to: GATEWAY }, from.parse().unwrap(), to, &additional.finish()).unwrap()
}

pub(super) fn question(name: &str, kind: Rtype) -> Vec<u8> {
    ask("10.10.0.1:53", name, kind, None)
}

pub(super) fn extended_question(name: &str, kind: Rtype, size: u16) -> Vec<u8> {
    ask("10.10.0.1:53", name, kind, Some(size))
}

fn reverse(address: std::net::Ipv6Addr) -> String {
    let digits = address.octets().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digits: Vec<_> = digits.map(|digit| format!("{digit:x}")).rev().collect();
    format!("{}.ip6.arpa", digits.join("."))
}

/// Code and records, as text.
fn said(frame: &[u8]) -> (Rcode, Vec<String>, Dns<Vec<u8>>) {
    let datagram = datagram(frame);
    let message = Dns::from_octets(datagram.payload.to_vec()).unwrap();
    assert!(message.header().qr() && message.header().ra() && message.header().rd());
    assert_eq!((message.header().id(), message.header_counts().qdcount()), (0x1234, 1));
    let records = message.answer().unwrap().limit_to::<AllRecordData<_, _>>();
    let texts = records.map(|record| record.unwrap().data().to_string().trim_end_matches('.').to_owned()).collect();
    (message.header().rcode(), texts, message.clone())
}

impl Bench {
    fn ask(&mut self, name: &str, kind: Rtype) -> (Rcode, Vec<String>) {
        let frame = self.frame("db", question(name, kind)).unwrap();
        assert_eq!(datagram(&frame).source, "10.10.0.1:53".parse().unwrap());
        assert_eq!(datagram(&frame).destination, "10.10.0.9:4000".parse().unwrap());
        let (code, texts, message) = said(&frame);
        assert!(message.header().aa());
        let negative = message.authority().unwrap().flatten().map(|record| record.rtype()).collect::<Vec<_>>();
        assert_eq!(negative, if texts.is_empty() { vec![Rtype::SOA] } else { vec![] }, "a \"no\" says how long");
        (code, texts)
    }

    fn forwarded(&mut self, port: &str, frame: Vec<u8>) -> Option<Query> {
        match self.receive(port, frame).pop() {
            Some(Output::Ask(query)) => Some(query),
            _ => None,
        }
    }

    fn resolved(&mut self, query: &Query, said: Option<Vec<u8>>) -> Vec<u8> {
        match <[Output; 1]>::try_from(self.services.resolved(self.now, query, said)) {
            Ok([Output::Answer(answer)]) => answer.frame,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn stations_are_found_by_name() {
    let mut bench = Bench::new();
    let yes = |texts: &[&str]| (Rcode::NOERROR, texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    for name in ["web.br0.internal", "WEB.Br0.Internal", "web"] {
        assert_eq!(bench.ask(name, Rtype::A), yes(&["10.10.0.2"]), "{name}");
        assert_eq!(bench.ask(name, Rtype::AAAA), yes(&["fd10::2"]), "{name}");
        assert_eq!(bench.ask(name, Rtype::MX), yes(&[]), "{name}");
        assert_eq!(bench.ask(name, Rtype::ANY).1.len(), 2);
    }
    assert_eq!(bench.ask("web.1.br0.internal", Rtype::A), yes(&["10.10.0.3"]));
    assert_eq!(bench.ask("web.1.br0.internal", Rtype::AAAA), yes(&[]), "it exists without");
    assert_eq!(bench.ask("1.br0.internal", Rtype::A), yes(&[]), "a name above one");
    assert_eq!(bench.ask("2.0.10.10.in-addr.arpa", Rtype::PTR), yes(&["web.br0.internal"]));
    assert_eq!(bench.ask("2.0.10.10.in-addr.arpa", Rtype::A), yes(&[]));
    assert_eq!(bench.ask(&reverse("fd10::2".parse().unwrap()), Rtype::PTR), yes(&["web.br0.internal"]));
    for node in ["internal", "br0.internal"] {
        assert_eq!(bench.ask(node, Rtype::A), yes(&[]), "{node}");
    }
}

#[test]
fn what_is_ours_and_does_not_exist_is_never_forwarded() {
    let mut bench = Bench::new();
    for name in ["nobody.br0.internal", "web.br1.internal", "x.web.br0.internal", "web.internal", "77.0.10.10.in-addr.arpa"] {
        assert_eq!(bench.ask(name, Rtype::A), (Rcode::NXDOMAIN, vec![]), "{name}");
    }
    assert_eq!(bench.ask(&reverse("fd10::77".parse().unwrap()), Rtype::PTR).0, Rcode::NXDOMAIN);
    for name in ["example.com", "nobody", "internal.example", "xinternal", "1.1.1.1.in-addr.arpa", "10.10.in-addr.arpa", "."] {
        assert!(bench.forwarded("db", question(name, Rtype::A)).is_some(), "{name}");
    }
}

#[test]
fn leases_have_names_as_long_as_they_last() {
    let mut bench = Bench::new();
    assert_eq!(bench.ask("db", Rtype::A), (Rcode::NOERROR, vec![]));
    let (v4, v6) = (bench.lease4("db", 2), bench.lease6("db", 2));
    assert_eq!(bench.ask("db.br0.internal", Rtype::A).1, [v4.to_string()]);
    assert_eq!(bench.ask("db", Rtype::AAAA).1, [v6.to_string()]);
    let [a, b, c, d] = v4.octets();
    assert_eq!(bench.ask(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), Rtype::PTR).1, ["db.br0.internal"]);
    assert_eq!(bench.ask(&reverse(v6), Rtype::PTR).1, ["db.br0.internal"]);
    bench.lease4("cache", 2);
    assert_eq!(bench.ask("cache", Rtype::A).1.len(), 0, "another station at that port");
    bench.pass(3600);
    assert_eq!(bench.ask("db", Rtype::A).1.len(), 0);
}

#[test]
fn questions_are_taken_at_the_gateways_addresses_only() {
    let mut bench = Bench::new();
    for to in ["10.10.0.1:53", "[fd10::1]:53", "[fe80::ff:fe00:1]:53"] {
        let frame = bench.frame("db", ask(to, "web", Rtype::A, None)).unwrap();
        assert_eq!(datagram(&frame).source, to.parse().unwrap());
    }
    for to in ["10.10.0.255:53", "192.0.2.1:53", "[ff02::1]:53"] {
        assert_eq!(bench.frame("db", ask(to, "web", Rtype::A, None)), None, "{to}");
    }
}

#[test]
fn edns_is_answered_with_edns() {
    let mut bench = Bench::new();
    let frame = bench.frame("db", extended_question("web", Rtype::A, 4096)).unwrap();
    let (.., message) = said(&frame);
    assert_eq!(message.opt().unwrap().udp_payload_size(), 1232);
    let frame = bench.frame("db", question("web", Rtype::A)).unwrap();
    assert!(said(&frame).2.opt().is_none());
}

#[test]
fn an_answer_that_does_not_fit_says_so() {
    let mut link = link();
    link.members[0].addresses = (0..100_u8).map(|host| format!("10.10.0.{host}/24").parse().unwrap()).collect();
    let mut bench = Bench::with(link);
    let frame = bench.frame("db", question("web", Rtype::A)).unwrap();
    assert!(datagram(&frame).payload.len() <= 512);
    let (code, texts, message) = said(&frame);
    assert!(code == Rcode::NOERROR && message.header().tc() && texts.len() > 10);
    let frame = bench.frame("db", extended_question("web", Rtype::A, 65_000)).unwrap();
    assert!(datagram(&frame).payload.len() <= 1232 && said(&frame).1.len() > 30);
}

#[test]
fn what_is_no_question_is_told_or_ignored() {
    let mut bench = Bench::new();
    let mut altered = |at: usize, byte: u8| {
        let mut payload = datagram(&question("example.com", Rtype::A)).payload.to_vec();
        payload[at] = byte;
        let from = "10.10.0.9:4000".parse().unwrap();
        let frame = udp(Hop { from: mac(9), to: GATEWAY }, from, "10.10.0.1:53".parse().unwrap(), &payload).unwrap();
        bench.frame("db", frame).map(|frame| Dns::from_octets(datagram(&frame).payload.to_vec()).unwrap().header().rcode())
    };
    assert_eq!(altered(2, 0x81), None, "an answer");
    assert_eq!(altered(2, 0x29), Some(Rcode::NOTIMP), "an update");
    assert_eq!(altered(5, 2), Some(Rcode::FORMERR), "two questions");
    assert_eq!(altered(5, 0), Some(Rcode::FORMERR), "no question");
    assert_eq!(altered(12, 0xc0), Some(Rcode::FORMERR), "a name that never ends");
}

#[test]
fn a_foreign_answer_comes_back_as_it_is_with_the_stations_number() {
    let mut bench = Bench::new();
    let query = bench.forwarded("db", extended_question("example.com", Rtype::TXT, 4096)).unwrap();
    let asked = Dns::from_octets(query.message().to_vec()).unwrap();
    assert_eq!(asked.opt().unwrap().udp_payload_size(), 1400 - 28, "so that the answer needs no fragments");
    let mut answer = query.message().to_vec();
    answer[0] = 0xff;
    (answer[2], answer[3]) = (0x83, 0x80);
    let frame = bench.resolved(&query, Some(answer.clone()));
    check_sums(&frame);
    assert_eq!(&datagram(&frame).payload[2..], &answer[2..], "truncation and all");
    assert!(said(&frame).2.header().tc());
    assert_eq!(destination(&frame), mac(9));
    let long = [answer.as_slice(), &[0; 1400]].concat();
    let frame = bench.resolved(&query, Some(long));
    let (code, texts, message) = said(&frame);
    assert!(code == Rcode::NOERROR && texts.is_empty() && message.header().tc(), "one that is too long for the link");
    let frame = bench.resolved(&query, None);
    assert_eq!(said(&frame).0, Rcode::SERVFAIL);
}

#[test]
fn a_port_that_asks_without_end_leaves_room_for_the_others() {
    let mut bench = Bench::new();
    let ask = |bench: &mut Bench, port: &str| bench.forwarded(port, question("example.com", Rtype::A));
    let mut asked: Vec<_> = (0..1000).filter_map(|_| ask(&mut bench, "db")).collect();
    assert_eq!(asked.len(), 256, "half");
    let frame = bench.frame("db", question("example.com", Rtype::A)).unwrap();
    assert_eq!(said(&frame).0, Rcode::SERVFAIL);
    assert_eq!((0..1000).filter_map(|_| ask(&mut bench, "cache")).count(), 128);
    assert!(ask(&mut bench, "web").is_some());
    let query = asked.pop().unwrap();
    bench.resolved(&query, None);
    assert!(ask(&mut bench, "db").is_none(), "others wait too");
    for query in asked {
        bench.resolved(&query, None);
    }
    assert!(ask(&mut bench, "db").is_some());
}

#[test]
fn a_version_of_edns_that_is_not_there_is_told_so() {
    let mut bench = Bench::new();
    for name in ["web.br0.internal", "example.com"] {
        let mut frame = extended_question(name, Rtype::A, 1232);
        // The OPT ends the message: extended code, version, two bytes of flags, two of length.
        let version = frame.len() - 5;
        frame[version] = 1;
        frame[40..42].fill(0);
        let answer = bench.frame("db", frame).unwrap();
        let (code, records, message) = said(&answer);
        let opt = message.opt().unwrap();
        assert_eq!((opt.rcode(message.header()), opt.version()), (domain::base::iana::OptRcode::BADVERS, 0), "{name}");
        assert!(code == Rcode::NOERROR && records.is_empty() && !message.header().tc());
    }
}

#[test]
fn stations_of_other_hosts_have_their_names() {
    let names = [("far", "10.10.0.70"), ("web", "10.10.0.71"), ("odd.name", "10.10.0.72")];
    let names = names.map(|(name, address)| (name.to_owned(), [address.parse().unwrap()].into()));
    let elsewhere = OverlayShare { names: names.into(), ..OverlayShare::default() };
    let mut bench = Bench::with(Link { elsewhere: Some(Box::new(elsewhere)), ..link() });
    for (name, kind, expected) in [
        ("Far", Rtype::A, (Rcode::NOERROR, vec!["10.10.0.70"])),
        ("far.br0.internal", Rtype::A, (Rcode::NOERROR, vec!["10.10.0.70"])),
        ("far", Rtype::AAAA, (Rcode::NOERROR, vec![])),
        ("web", Rtype::A, (Rcode::NOERROR, vec!["10.10.0.2", "10.10.0.71"])),
        ("name.br0.internal", Rtype::A, (Rcode::NOERROR, vec![])),
        ("70.0.10.10.in-addr.arpa", Rtype::PTR, (Rcode::NOERROR, vec!["far.br0.internal"])),
    ] {
        let (code, records) = bench.ask(name, kind);
        assert_eq!((code, records.iter().map(String::as_str).collect()), expected, "{name} {kind}");
    }
}

#[test]
fn names_of_the_own_host_and_of_multicast_dns_are_asked_of_nobody_else() {
    let mut bench = Bench::new();
    for (name, kind, expected) in [
        ("localhost", Rtype::A, (Rcode::NOERROR, vec!["127.0.0.1"])),
        ("db.LocalHost", Rtype::AAAA, (Rcode::NOERROR, vec!["::1"])),
        ("localhost", Rtype::MX, (Rcode::NOERROR, vec![])),
        ("printer.local", Rtype::A, (Rcode::NXDOMAIN, vec![])),
        ("_ipp._tcp.local", Rtype::PTR, (Rcode::NXDOMAIN, vec![])),
        ("local", Rtype::SOA, (Rcode::NXDOMAIN, vec![])),
        ("1.0.0.127.in-addr.arpa", Rtype::PTR, (Rcode::NOERROR, vec!["localhost"])),
        ("7.1.254.169.in-addr.arpa", Rtype::PTR, (Rcode::NXDOMAIN, vec![])),
    ] {
        let (code, records) = bench.ask(name, kind);
        assert_eq!((code, records.iter().map(String::as_str).collect()), expected, "{name} {kind}");
    }
    for name in ["local.example.com", "notlocalhost", "mylocal"] {
        let asked = bench.receive("db", question(name, Rtype::A));
        assert!(matches!(&asked[..], [Output::Ask(_)]), "{name}: {asked:?}");
    }
}
