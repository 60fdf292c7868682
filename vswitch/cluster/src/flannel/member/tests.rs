//! A host, and an etcd that is made of news.

use super::*;
use crate::store::Listing;

const NET: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn lease(number: u8) -> FlannelLease {
    FlannelLease { host: [192, 0, 2, number].into(), mac: Mac([2, 0, 0, 0, 0, number]) }
}

/// Host 1.
fn member(table: FlannelTable) -> FlannelMember {
    FlannelMember::new(lease(1), PREFIX, table)
}

fn entry(key: &str, value: &str) -> Entry {
    Entry { key: key.to_owned(), value: value.to_owned(), version: 1 }
}

fn host(subnet: u8, number: u8) -> Entry {
    entry(&format!("subnets/10.244.{subnet}.0-24"), &lease(number).written(1))
}

fn all(revision: u64, entries: Vec<Entry>) -> News {
    News::All(Listing { entries, revision })
}

fn hosts(member: &FlannelMember) -> Vec<String> {
    member.table().hosts.iter().map(|(subnet, lease)| format!("{subnet} {}", lease.host)).collect()
}

/// A host that has 10.244.5.0/24, and knows two others.
fn settled() -> FlannelMember {
    let mut member = member(FlannelTable::default());
    member.hear(&all(9, vec![entry(CONFIG, NET), host(5, 1), host(6, 2), host(7, 3)]), seconds(0));
    let step = member.due(0).unwrap();
    member.done(&step, Outcome::Done, seconds(0));
    assert!(member.is_in() && member.due(0).is_none() && member.problem().is_none());
    member
}

#[test]
fn a_free_subnet_is_claimed_and_the_others_are_known() {
    let mut member = member(FlannelTable::default());
    assert_eq!((member.due(0), member.problem()), (None, None), "nothing is heard yet");
    member.hear(&all(9, vec![entry(CONFIG, NET), host(1, 2), host(2, 3)]), seconds(0));
    let step = member.due(0).unwrap();
    assert_eq!(step, Step::Claim { key: "subnets/10.244.3.0-24".to_owned(), value: lease(1).written(1) });
    member.done(&step, Outcome::Refused, seconds(0));
    assert_eq!((member.table().own, member.is_in()), (None, false));
    member.hear(&News::Some(vec![Change::Is(host(3, 4))]), seconds(1));
    let step = member.due(0).unwrap();
    assert_eq!(step.key(), "subnets/10.244.4.0-24");
    member.done(&step, Outcome::Done, seconds(1));
    assert_eq!((member.table().own, member.is_in()), (Some(net("10.244.4.0/24")), true));
    assert_eq!(hosts(&member), ["10.244.1.0/24 192.0.2.2", "10.244.2.0/24 192.0.2.3", "10.244.3.0/24 192.0.2.4"]);
    assert_eq!(member.due(0), None);
}

#[test]
fn a_record_with_this_hosts_address_is_its_own_and_so_is_what_it_kept() {
    assert_eq!(settled().table().own, Some(net("10.244.5.0/24")));
    let kept = FlannelTable { own: Some(net("10.244.9.0/24")), ..settled().table().clone() };
    let mut member = member(kept);
    member.hear(&all(9, vec![entry(CONFIG, NET), host(6, 2)]), seconds(0));
    assert!(matches!(member.due(7), Some(Step::Claim { key, .. }) if key == "subnets/10.244.9.0-24"), "never another one");
    // The host has another address now.
    let moved =
        entry("subnets/10.244.9.0-24&fd00:9::-64", &FlannelLease { host: [192, 0, 2, 77].into(), ..lease(1) }.written(1));
    member.hear(&all(10, vec![entry(CONFIG, NET), moved]), seconds(1));
    let expected = Step::Announce { key: "subnets/10.244.9.0-24&fd00:9::-64".to_owned(), value: lease(1).written(1) };
    assert_eq!(member.due(0), Some(expected));
    member.session_ended();
    assert!(!member.is_in());
}

#[test]
fn what_others_do_with_this_hosts_subnet_is_a_sentence_and_changes_nothing() {
    let mut member = settled();
    member.hear(&News::Some(vec![Change::Is(host(5, 8))]), seconds(1));
    assert!(member.problem().unwrap().contains("10.244.5.0/24, which is this host's subnet, is leased to 192.0.2.8 as well"));
    let other = FlannelLease { mac: lease(9).mac, ..lease(1) }.written(1);
    member.hear(&News::Some(vec![Change::Is(entry("subnets/10.244.5.0-24", &other))]), seconds(1));
    assert!(member.problem().unwrap().contains("does flanneld run here"), "{:?}", member.problem());
    assert_eq!((member.due(0), member.table().own), (None, Some(net("10.244.5.0/24"))));
}

#[test]
fn a_host_that_goes_alone_is_withdrawn_and_one_that_comes_is_taken_in() {
    let mut member = settled();
    member.hear(&News::Some(vec![Change::Gone("subnets/10.244.6.0-24".to_owned()), Change::Is(host(8, 4))]), seconds(1));
    member.expire(seconds(2));
    assert_eq!(hosts(&member).len(), 3, "what follows may show that it is not alone");
    member.expire(seconds(3));
    assert_eq!(hosts(&member), ["10.244.7.0/24 192.0.2.3", "10.244.8.0/24 192.0.2.4"]);
    // One that was installed anew has another address and MAC address.
    member.hear(&News::Some(vec![Change::Is(host(7, 9))]), seconds(4));
    assert_eq!(member.table().hosts[&net("10.244.7.0/24")], lease(9));
    let host_gw = r#"{"PublicIP":"192.0.2.9","PublicIPv6":null,"BackendType":"host-gw"}"#;
    member.hear(&News::Some(vec![Change::Is(entry("subnets/10.244.7.0-24", host_gw))]), seconds(5));
    member.expire(seconds(9));
    assert_eq!(hosts(&member), ["10.244.8.0/24 192.0.2.4"], "it has another backend now");
    // A host that gets an IPv6 subnet besides has another key, and the old one goes.
    let both = entry("subnets/10.244.8.0-24&fd00:8::-64", &lease(4).written(1));
    member.hear(&News::Some(vec![Change::Is(both), Change::Gone("subnets/10.244.8.0-24".to_owned())]), seconds(10));
    member.expire(seconds(20));
    assert_eq!(hosts(&member).len(), 1);
    member.hear(&News::Some(vec![Change::Gone("subnets/10.244.8.0-24&fd00:8::-64".to_owned())]), seconds(20));
    member.expire(seconds(22));
    assert_eq!(hosts(&member).len(), 0);
}

#[test]
fn a_store_that_comes_back_empty_or_older_withdraws_nothing_for_a_while() {
    let empty = all(1, Vec::new());
    let wiped = News::Some(["5", "6", "7"].map(|subnet| Change::Gone(format!("subnets/10.244.{subnet}.0-24"))).into());
    let older = all(3, vec![entry(CONFIG, NET), host(5, 1)]);
    for (lost, own) in [(&empty, false), (&wiped, false), (&older, true)] {
        let mut member = settled();
        member.hear(lost, seconds(100));
        assert_eq!((member.due(0).is_some(), member.is_held()), (!own, true), "it puts itself there again");
        member.expire(seconds(159));
        assert_eq!(hosts(&member).len(), 2);
        if let Some(step) = member.due(0) {
            assert!(matches!(&step, Step::Claim { key, .. } if key == "subnets/10.244.5.0-24"));
            member.done(&step, Outcome::Done, seconds(159));
        }
        member.hear(&News::Some(vec![Change::Is(host(7, 3))]), seconds(159));
        member.expire(seconds(160));
        assert_eq!(hosts(&member), ["10.244.7.0/24 192.0.2.3"], "the other did not come back");
    }
    let mut member = settled();
    member.hear(&empty, seconds(1));
    assert!(member.problem().unwrap().contains("/coreos.com/network/config is not there"));
    assert!(member.table().net.is_some());
}

#[test]
fn a_network_in_which_this_host_has_no_part_is_a_sentence() {
    let mut member = settled();
    let other = NET.replace("10.244", "10.5");
    member.hear(&News::Some(vec![Change::Is(entry(CONFIG, &other))]), seconds(1));
    assert!(
        member.problem().unwrap().contains("has the network 10.5.0.0/16, in which this host's subnet 10.244.5.0/24 is none")
    );
    assert_eq!((member.table().net.as_ref().unwrap().network, hosts(&member).len()), (net("10.244.0.0/16"), 2));
    member.hear(&News::Some(vec![Change::Is(entry(CONFIG, NET))]), seconds(2));
    assert_eq!(member.problem(), None);

    let begun = |config: &str, entries: Vec<Entry>| {
        let mut member = super::tests::member(FlannelTable::default());
        let entries = std::iter::once(entry(CONFIG, config)).chain(entries).collect();
        member.hear(&all(9, entries), seconds(0));
        (member.due(0), member.problem().unwrap_or_default())
    };
    let (due, said) = begun(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#, vec![host(5, 1)]);
    assert!(due.is_none() && said.starts_with("/coreos.com/network/config has the backend \"host-gw\""), "{said}");
    let small = r#"{"Network":"10.244.0.0/22","SubnetMin":"10.244.1.0","SubnetMax":"10.244.2.0","Backend":{"Type":"vxlan"}}"#;
    let (due, said) = begun(small, vec![host(1, 2), host(2, 3)]);
    assert!(due.is_none() && said.contains("no /24 of 10.244.0.0/22 is free"), "{said}");
    assert!(begun(small, vec![host(1, 2)]).0.is_some());
}

#[test]
fn no_record_takes_what_is_not_its_own() {
    let mut member = settled();
    let strange = [
        entry("subnets/10.244.5.128-25", &lease(9).written(1)),
        entry("subnets/0.0.0.0-0", &lease(9).written(1)),
        entry("subnets/10.9.0.0-24", &lease(9).written(1)),
        entry("subnets/10.244.77.0-24", &lease(1).written(1)),
        entry("subnets/10.244.78.0-24", "x"),
    ];
    member.hear(&News::Some(strange.into_iter().map(Change::Is).collect()), seconds(1));
    assert_eq!(hosts(&member).len(), 2, "{:?}", hosts(&member));
    assert!(member.problem().unwrap().contains("10.244.5.0/24, which is this host's subnet, is leased to 192.0.2.9 as well"));
    let many = (1..=MOST_HOSTS + 5).map(|number| {
        let address = Ipv4Addr::from(0x0af4_0000 + (u32::try_from(number).unwrap() << 4));
        entry(&format!("subnets/{address}-28"), &lease(9).written(1))
    });
    let net = entry(CONFIG, r#"{"Network":"10.244.0.0/16","SubnetLen":28,"Backend":{"Type":"vxlan"}}"#);
    let mut member = self::member(FlannelTable::default());
    member.hear(&all(9, std::iter::once(net).chain(many).collect()), seconds(2));
    assert_eq!(hosts(&member).len(), MOST_HOSTS);
    assert!(member.problem().unwrap().contains("more than 1024 hosts"));
}

#[test]
fn another_key_of_this_hosts_subnet_that_comes_and_goes_makes_no_step() {
    for key in ["subnets/10.244.5.0-24&fd00:9::-64", "subnets/10.244.5.9-24"] {
        let mut member = settled();
        member.hear(&News::Some(vec![Change::Is(entry(key, &lease(9).written(1)))]), seconds(1));
        assert_eq!((member.due(0), member.is_in(), member.problem().is_some()), (None, true, key.contains('&')), "{key}");
        member.hear(&News::Some(vec![Change::Gone(key.to_owned())]), seconds(2));
        assert_eq!((member.due(0), member.is_in(), member.problem()), (None, true, None), "{key}");
    }
}

#[test]
fn who_was_there_first_stays_and_who_is_refused_is_named() {
    let mut member = settled();
    let before = hosts(&member);
    let same_mac = FlannelLease { host: [192, 0, 2, 9].into(), ..lease(2) }.written(1);
    for (key, value, said) in [
        (
            "subnets/10.244.3.0-24",
            &same_mac,
            "10.244.3.0/24 of 192.0.2.9 is not reached: it has the MAC address 02:00:00:00:00:02 of 10.244.6.0/24 at 192.0.2.2",
        ),
        (
            "subnets/10.244.6.0-30",
            &lease(9).written(1),
            "10.244.6.0/30 of 192.0.2.9 is not reached: it overlaps 10.244.6.0/24 of 192.0.2.2",
        ),
        ("subnets/10.244.6.128-25", &lease(9).written(1), "it overlaps 10.244.6.0/24"),
        ("subnets/10.244.6.0-23", &lease(9).written(1), "it overlaps 10.244.6.0/24"),
        (
            "subnets/10.244.99.0-30",
            &lease(9).written(1),
            "a host's subnet of 10.244.0.0/16 is a /24 from 10.244.1.0 to 10.244.255.0",
        ),
        ("subnets/10.244.0.0-24", &lease(9).written(1), "from 10.244.1.0 to"),
    ] {
        member.hear(&News::Some(vec![Change::Is(entry(key, value))]), seconds(1));
        assert!(member.problem().is_some_and(|problem| problem.contains(said)), "{key}: {:?}", member.problem());
        member.expire(seconds(9));
        assert_eq!(hosts(&member), before, "{key}");
        member.hear(&News::Some(vec![Change::Gone(key.to_owned())]), seconds(1));
        assert_eq!(member.problem(), None, "{key}");
    }
    // Who was refused comes when the other has gone.
    let gone = Change::Gone("subnets/10.244.6.0-24".to_owned());
    member.hear(&News::Some(vec![Change::Is(entry("subnets/10.244.3.0-24", &same_mac)), gone]), seconds(20));
    member.expire(seconds(23));
    assert_eq!((hosts(&member).len(), &*hosts(&member)[0], member.problem()), (2, "10.244.3.0/24 192.0.2.9", None));
}

#[test]
fn what_is_known_outlives_the_process() {
    let table = settled().table().clone();
    let text = serde_json::to_string(&table).unwrap();
    assert_eq!(serde_json::from_str::<FlannelTable>(&text).unwrap(), table);
    let member = member(table);
    assert_eq!((hosts(&member).len(), member.due(0), member.is_in()), (2, None, false), "etcd is away");
}

#[test]
fn records_that_are_too_long_or_take_the_underlay_have_no_part() {
    let mut member = settled();
    let long = format!("{}{}", lease(9).written(1), " ".repeat(LONGEST_VALUE));
    let key = format!("subnets/10.244.98.0-24&fd00::-{}64", "0".repeat(LONGEST_KEY));
    member.hear(
        &News::Some(vec![Change::Is(entry("subnets/10.244.99.0-24", &long)), Change::Is(entry(&key, &lease(8).written(1)))]),
        seconds(1),
    );
    assert_eq!((hosts(&member).len(), member.stored.len(), member.problem()), (2, 3, None));
    let net = NET.replace("10.244", "192.0");
    let mut member = self::member(FlannelTable::default());
    member.hear(&all(9, vec![entry(CONFIG, &net)]), seconds(0));
    assert!(
        member.problem().is_some_and(|said| said.contains("in which this host's `underlay` 192.0.2.1 is")),
        "{:?}",
        member.problem()
    );
    assert_eq!((member.due(0), &member.table().net), (None, &None));
}
