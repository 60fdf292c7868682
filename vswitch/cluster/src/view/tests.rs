//! What a view makes of news, step by step.

use super::*;
use crate::record::{Endpoint, Network};
use crate::store::{Entry, Listing};

const RED: &str = "net/red/";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

fn vtep(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn host(last: u8) -> Host {
    Host {
        underlay: vtep(last),
        port: 4789,
        boot: "1".to_owned(),
        program: "0.1".to_owned(),
        key: None,
        gossip: None,
        idle: false,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A store of a few records, which carries out what is due and tells all of it.
#[derive(Default)]
struct Shelf {
    entries: BTreeMap<String, (String, u64)>,
    revision: u64,
}

impl Shelf {
    fn put(&mut self, key: &Key, value: &str) {
        self.revision += 1;
        self.entries.insert(key.to_string(), (value.to_owned(), self.revision));
    }

    fn with_network() -> Self {
        let mut shelf = Self::default();
        shelf.put(&Key::Id, "c1");
        shelf.put(
            &Key::Network(name("red")),
            &Network { vni: 5000, subnets: subnets(), gateways: Vec::new(), encrypt: false }.written(),
        );
        shelf
    }

    fn host(&mut self, number: u8) {
        let host_name = name(&format!("h{number}"));
        self.put(&Key::Host(host_name.clone()), &record::written(&host(number)));
        self.put(&Key::Member(name("red"), host_name), MEMBER);
    }

    fn endpoint(&mut self, number: u8, mac: Mac, sequence: u32) {
        let endpoint = Endpoint { ips: BTreeSet::from([IpAddr::from([10, 0, 0, mac.0[5]])]), name: None, sequence };
        self.put(&Key::Endpoint(name("red"), name(&format!("h{number}")), mac), &record::written(&endpoint));
    }

    fn remove(&mut self, key: &Key) {
        self.revision += 1;
        self.entries.remove(&key.to_string());
    }

    fn tell(&self, view: &mut View, now: Duration) {
        for prefix in [CLUSTER, RED] {
            let there = self.entries.iter().filter(|(key, _)| key.starts_with(prefix));
            let entry = |(key, (value, version)): (&String, &(String, u64))| Entry {
                key: key.clone(),
                value: value.clone(),
                version: *version,
            };
            let listing = Listing { entries: there.map(entry).collect(), revision: self.revision };
            view.hear(prefix, &News::All(listing), now);
        }
    }

    /// Carries out what is due until nothing is; the steps.
    fn take(&mut self, view: &mut View, now: Duration) -> Vec<Step> {
        let mut taken = Vec::new();
        for _ in 0..10 {
            let due = view.due(now);
            for steps in &due {
                let refused = |step: &Step| match step {
                    Step::Create { key, .. } | Step::Claim { key, .. } => self.entries.contains_key(key),
                    Step::Replace { key, version, .. } => self.entries.get(key).is_none_or(|(_, at)| at != version),
                    _ => false,
                };
                if steps.iter().any(refused) {
                    continue;
                }
                self.revision += 1;
                for step in steps {
                    match step {
                        Step::Remove { key } => drop(self.entries.remove(key)),
                        Step::Announce { key, value }
                        | Step::Claim { key, value }
                        | Step::Create { key, value }
                        | Step::Replace { key, value, .. } => {
                            self.entries.insert(key.clone(), (value.clone(), self.revision));
                        }
                    }
                }
                view.committed(steps);
                taken.extend(steps.clone());
            }
            self.tell(view, now);
        }
        assert_eq!(view.due(now), Vec::<Vec<Step>>::new(), "all is done at last");
        taken
    }
}

fn subnets() -> Vec<IpNet> {
    vec!["10.0.0.0/24".parse().unwrap()]
}

/// The view of host 1, which has a part in the network red.
fn view() -> View {
    let mut view = View::new(name("h1"), host(1), None, "c1".to_owned());
    view.join(name("red"), &subnets(), false);
    view
}

fn is(number: u8, mac: Mac) -> Difference {
    let ips = BTreeSet::from([IpAddr::from([10, 0, 0, mac.0[5]])]);
    Difference::Is(name("red"), mac, Station { host: name(&format!("h{number}")), vtep: vtep(number), ips, name: None })
}

#[test]
fn a_station_comes_after_its_host_and_goes_before_it() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    shelf.host(2);
    shelf.endpoint(2, mac(7), 0);
    shelf.tell(&mut view, seconds(1));
    let red = name("red");
    assert_eq!(
        view.differences(seconds(1)),
        [Difference::Vni(red.clone(), 5000), Difference::Joined(red.clone(), vtep(2)), is(2, mac(7))]
    );
    assert_eq!(view.differences(seconds(2)), []);
    shelf.remove(&Key::Host(name("h2")));
    shelf.tell(&mut view, seconds(3));
    assert_eq!(view.differences(seconds(3)), [Difference::Gone(red.clone(), mac(7)), Difference::Left(red, vtep(2))]);
}

#[test]
fn of_two_hosts_the_one_that_saw_a_station_later_has_it() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    (2..=4).for_each(|number| shelf.host(number));
    shelf.endpoint(3, mac(7), 4);
    shelf.endpoint(4, mac(7), 4);
    shelf.endpoint(2, mac(7), 3);
    shelf.tell(&mut view, seconds(1));
    assert!(view.differences(seconds(1)).contains(&is(3, mac(7))), "between equals, the lowest address of a tunnel");
    shelf.endpoint(2, mac(7), 5);
    shelf.tell(&mut view, seconds(2));
    assert_eq!(view.differences(seconds(2)), [is(2, mac(7))]);
    // It comes here, with a higher number, and is lost again to one that is higher still.
    assert_eq!(view.announce(&name("red"), mac(7), BTreeSet::new(), None, seconds(3)), Announced::Told);
    assert_eq!(view.announce(&name("red"), mac(7), BTreeSet::new(), None, seconds(3)), Announced::Known);
    assert_eq!(view.differences(seconds(3)), [Difference::Gone(name("red"), mac(7))]);
    let key = Key::Endpoint(name("red"), name("h1"), mac(7)).to_string();
    let value = r#"{"v":1,"ips":[],"sequence":6}"#.to_owned();
    assert!(shelf.take(&mut view, seconds(3)).contains(&Step::Announce { key: key.clone(), value }));
    shelf.endpoint(4, mac(7), 7);
    shelf.tell(&mut view, seconds(4));
    assert_eq!(view.differences(seconds(4)), [Difference::Taken(name("red"), mac(7), name("h4")), is(4, mac(7))]);
    assert_eq!(shelf.take(&mut view, seconds(4)), [Step::Remove { key }]);
}

#[test]
fn a_station_that_moves_to_and_fro_stays_where_it_is() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    shelf.host(2);
    let mut announce = |view: &mut View, sequence, now| {
        shelf.endpoint(2, mac(7), sequence);
        shelf.tell(view, now);
        view.differences(now);
        view.announce(&name("red"), mac(7), BTreeSet::new(), None, now)
    };
    for round in 0..5 {
        assert_eq!(announce(&mut view, round * 2, seconds(1)), Announced::Told, "{round}");
    }
    assert_eq!(announce(&mut view, 10, seconds(2)), Announced::Duplicate);
    assert_eq!(announce(&mut view, 10, seconds(182)), Announced::Told, "three minutes later");
}

#[test]
fn a_store_that_comes_back_empty_withdraws_nothing_and_is_filled_again() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    shelf.host(2);
    shelf.endpoint(2, mac(7), 0);
    shelf.tell(&mut view, seconds(1));
    view.announce(&name("red"), mac(9), BTreeSet::new(), None, seconds(1));
    shelf.take(&mut view, seconds(1));
    view.differences(seconds(1));
    shelf = Shelf::default();
    shelf.tell(&mut view, seconds(10));
    assert!(view.is_held());
    assert_eq!(view.differences(seconds(10)), []);
    let keys = |shelf: &Shelf| shelf.entries.keys().cloned().collect::<Vec<_>>();
    shelf.take(&mut view, seconds(11));
    let again = [
        "cluster/host/h1",
        "cluster/id",
        "cluster/network/red",
        "cluster/vni/5000",
        "net/red/endpoint/h1/02:00:00:00:00:09",
        "net/red/member/h1",
    ];
    assert_eq!(keys(&shelf), again, "the VNI is what it was");
    assert_eq!(view.differences(seconds(69)), []);
    assert_eq!(
        view.differences(seconds(70)),
        [Difference::Gone(name("red"), mac(7)), Difference::Left(name("red"), vtep(2))],
        "who did not say so again is gone"
    );
}

#[test]
fn an_older_store_withdraws_nothing() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    shelf.take(&mut view, seconds(1));
    let (entries, revision) = (shelf.entries.clone(), shelf.revision);
    shelf.host(2);
    shelf.tell(&mut view, seconds(2));
    assert!(view.differences(seconds(2)).contains(&Difference::Joined(name("red"), vtep(2))));
    Shelf { entries, revision }.tell(&mut view, seconds(3));
    assert_eq!(view.differences(seconds(3)), []);
    assert_eq!(view.differences(seconds(63)), [Difference::Left(name("red"), vtep(2))]);
}

#[test]
fn another_cluster_is_refused() {
    let mut view = View::new(name("h1"), host(1), Some("ours".to_owned()), "new".to_owned());
    view.join(name("red"), &subnets(), false);
    let mut shelf = Shelf::with_network();
    shelf.host(2);
    shelf.tell(&mut view, seconds(1));
    let said = view.refusal().unwrap().to_string();
    assert!(
        said.starts_with("the store is of another cluster (c1, and this host belongs to ours): correct `endpoints`"),
        "{said}"
    );
    assert_eq!((view.differences(seconds(1)), view.due(seconds(1))), (Vec::new(), Vec::new()));
}

#[test]
fn a_name_belongs_to_one_host() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    shelf.put(&Key::Host(name("h1")), &record::written(&host(9)));
    shelf.tell(&mut view, seconds(1));
    let said = view.refusal().unwrap().to_string();
    assert!(
        said.contains("host \"h1\" is in the store already, with underlay address 192.0.2.9: give one of the two"),
        "{said}"
    );
    assert_eq!(view.due(seconds(1)), Vec::<Vec<Step>>::new());
    // One of the same address is this host, before it was started again.
    shelf.put(&Key::Host(name("h1")), &record::written(&Host { boot: "0".to_owned(), ..host(1) }));
    shelf.tell(&mut view, seconds(2));
    assert_eq!(view.refusal(), None);
    assert!(!view.due(seconds(2)).is_empty());
}

#[test]
fn a_network_has_the_subnets_that_it_was_made_with() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    view.join(name("red"), &["10.9.0.1/24".parse().unwrap()], false);
    shelf.host(2);
    shelf.tell(&mut view, seconds(1));
    let said = view.network_refusal(&name("red")).unwrap().to_string();
    assert_eq!(
        said,
        "network \"red\" has 10.0.0.0/24 in the store, and 10.9.0.0/24 here: give the bridge addresses of the same subnets"
    );
    let taken = shelf.take(&mut view, seconds(1));
    assert!(
        matches!(&taken[..], [Step::Announce { key, .. }] if key == "cluster/host/h1"),
        "it takes no part in it: {taken:?}"
    );
    view.join(name("red"), &["10.0.0.2/24".parse().unwrap()], false);
    shelf.tell(&mut view, seconds(2));
    assert_eq!(view.network_refusal(&name("red")), None, "the host part is the gateway's");
    view.join(name("red"), &["10.9.0.1/24".parse().unwrap()], false);
    assert!(view.network_refusal(&name("red")).is_some() && view.refusal().is_none());
    view.leave(&name("red"));
    assert_eq!(view.network_refusal(&name("red")), None, "it is no matter any more");
}

#[test]
fn an_encrypted_network_is_one_for_all_and_none_for_a_program_that_cannot_encrypt() {
    let (mut view, mut shelf) = (view(), Shelf::default());
    view.join(name("red"), &subnets(), true);
    shelf.put(&Key::Id, "c1");
    shelf.tell(&mut view, seconds(1));
    shelf.take(&mut view, seconds(1));
    let kept = shelf.entries["cluster/network/red"].0.clone();
    assert!(Network::read(&kept).unwrap().encrypt && record::read::<Network>(&kept).is_none(), "{kept}");
    assert!(shelf.entries.contains_key("net/red/member/h1"));
    view.join(name("red"), &subnets(), false);
    let said = view.network_refusal(&name("red")).unwrap().to_string();
    assert!(
        said.starts_with("network \"red\" is encrypted in the store, and not here: give its bridge `encrypt = true`"),
        "{said}"
    );
    shelf.take(&mut view, seconds(2));
    assert!(!shelf.entries.contains_key("net/red/member/h1"), "it has left");
    view.join(name("red"), &subnets(), true);
    assert_eq!(view.network_refusal(&name("red")), None);
    let mut shelf = Shelf::with_network();
    shelf.tell(&mut view, seconds(3));
    let said = view.network_refusal(&name("red")).unwrap().to_string();
    assert!(said.starts_with("network \"red\" is not encrypted in the store, and to be here: leave out `encrypt`"), "{said}");
    assert!(
        !shelf
            .take(&mut view, seconds(3))
            .iter()
            .any(|step| matches!(step, Step::Announce { key, .. } if key.contains("member")))
    );
}

#[test]
fn two_networks_never_get_one_vni() {
    let mut view = view();
    let mut shelf = Shelf::default();
    shelf.put(&Key::Id, "c1");
    shelf.tell(&mut view, seconds(1));
    let vni = |shelf: &Shelf| record::read::<Network>(&shelf.entries["cluster/network/red"].0).unwrap().vni;
    shelf.take(&mut view, seconds(1));
    let first = vni(&shelf);
    let mut other = Shelf::default();
    other.put(&Key::Id, "c1");
    other.put(&Key::Vni(first), "blue");
    let mut view = self::view();
    other.tell(&mut view, seconds(1));
    other.take(&mut view, seconds(1));
    assert_eq!(vni(&other), first + 1);
}

#[test]
fn addresses_come_from_blocks_of_ones_own() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    let (red, subnet, reserved) = (name("red"), subnets()[0], BTreeSet::from([IpAddr::from([10, 0, 0, 1])]));
    let ask = |view: &mut View, now| view.address(&red, subnet, &reserved, now);
    shelf.tell(&mut view, seconds(1));
    view.renewed(seconds(1));
    assert_eq!(ask(&mut view, seconds(1)), Err(NoAddress::Soon));
    shelf.take(&mut view, seconds(1));
    let own: Vec<Key> =
        shelf.entries.keys().filter(|key| key.contains("/block/")).map(|key| Key::parse(key).unwrap()).collect();
    let [Key::Block(_, block)] = &own[..] else { panic!("{own:?}") };
    // The store is away now: that does not matter for as many as the block has.
    let mut got = BTreeSet::new();
    while let Ok(address) = ask(&mut view, seconds(2)) {
        assert!(block.contains(&address) && got.insert(address), "{address}");
    }
    assert!((61..=64).contains(&got.len()), "{}", got.len());
    assert_eq!(ask(&mut view, seconds(1) + RECLAIM / 2), Err(NoAddress::Away), "another may have the block by then");
    view.release(&name("red"), *got.first().unwrap());
    assert_eq!(view.address(&name("red"), subnet, &reserved, seconds(3)), Ok(*got.first().unwrap()));
}

#[test]
fn a_host_that_gives_addresses_takes_one_more_block_before_its_own_are_used_up() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    let (red, subnet) = (name("red"), subnets()[0]);
    let blocks = |view: &mut View, now| view.blocks(&red, subnet, now).len();
    shelf.tell(&mut view, seconds(1));
    view.renewed(seconds(1));
    assert_eq!(blocks(&mut view, seconds(1)), 0);
    shelf.take(&mut view, seconds(1));
    assert_eq!(blocks(&mut view, seconds(1)), 1);
    shelf.take(&mut view, seconds(2));
    assert_eq!(blocks(&mut view, seconds(2)), 1, "one is enough");
    let block = *view.blocks(&red, subnet, seconds(2)).first().unwrap();
    let stations = block.hosts().skip(1).take(50).enumerate();
    for (number, address) in stations {
        view.announce(&red, mac(u8::try_from(number).unwrap()), BTreeSet::from([address]), None, seconds(3));
    }
    blocks(&mut view, seconds(3));
    shelf.take(&mut view, seconds(3));
    assert_eq!(blocks(&mut view, seconds(3)), 2);
    assert_eq!(blocks(&mut view, seconds(1) + RECLAIM / 2), 0, "another may have them by then");
    assert_eq!(view.blocks(&red, "10.9.0.0/24".parse().unwrap(), seconds(3)).len(), 0, "no subnet of the network");
}

#[test]
fn an_address_that_is_wanted_brings_its_block_if_no_host_has_that() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    let of = |text: &str| text.parse::<IpNet>().unwrap();
    shelf.host(2);
    let others = record::written(&record::Block { host: name("h2") });
    shelf.put(&Key::Block(name("red"), of("10.0.0.0/26")), &others);
    shelf.tell(&mut view, seconds(1));
    let claims = ["10.0.0.9", "10.0.0.130", "10.0.0.131", "10.9.0.1"].map(|text| text.parse().unwrap());
    view.set_addresses(&name("red"), BTreeSet::new(), claims.into());
    shelf.take(&mut view, seconds(1));
    shelf.tell(&mut view, seconds(1));
    assert_eq!(view.blocks(&name("red"), subnets()[0], seconds(1)), [of("10.0.0.128/26")].into());
    assert_eq!(view.blocks_of_others(&name("red")).collect::<Vec<_>>(), [(of("10.0.0.0/26"), &name("h2"))]);
}

#[test]
fn a_block_of_a_host_that_is_long_dead_is_taken_over_when_no_other_is_left() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    for (number, block) in ["10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26", "10.0.0.192/26"].iter().enumerate() {
        let owner = name(if number == 2 { "dead" } else { "h2" });
        shelf.put(&Key::Block(name("red"), block.parse().unwrap()), &record::written(&record::Block { host: owner }));
    }
    shelf.host(2);
    let subnet = subnets()[0];
    let ask = |view: &mut View, now| view.address(&name("red"), subnet, &BTreeSet::new(), now);
    shelf.take(&mut view, seconds(1));
    view.differences(seconds(1));
    assert_eq!(ask(&mut view, seconds(1)), Err(NoAddress::Soon));
    let late = seconds(1) + RECLAIM;
    shelf.take(&mut view, late - seconds(1));
    view.renewed(late);
    assert_eq!(ask(&mut view, late), Err(NoAddress::Soon), "not before its time");
    shelf.take(&mut view, late);
    assert_eq!(ask(&mut view, late), Ok(IpAddr::from([10, 0, 0, 128])));
}

#[test]
fn what_may_have_been_announced_is_removed_when_it_is_no_more_true() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    shelf.take(&mut view, seconds(1));
    view.announce(&name("red"), mac(7), BTreeSet::new(), None, seconds(2));
    let due = view.due(seconds(2));
    // The answer is lost, and the host leaves the network: it hears no more of it.
    view.perhaps_committed(&due[0]);
    view.leave(&name("red"));
    let key = |key: Key| Step::Remove { key: key.to_string() };
    let removed = [key(Key::Endpoint(name("red"), name("h1"), mac(7))), key(Key::Member(name("red"), name("h1")))];
    assert_eq!(view.due(seconds(3)), [removed.to_vec()]);
    view.committed(&removed);
    assert_eq!(view.due(seconds(3)), Vec::<Vec<Step>>::new());
}

#[test]
fn what_a_tunnel_knew_before_a_restart_stays_until_the_store_was_heard_for_a_while() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    let station =
        |number: u8| Station { host: name(&format!("h{number}")), vtep: vtep(number), ips: BTreeSet::new(), name: None };
    let stations = BTreeMap::from([(mac(7), station(2)), (mac(8), station(3))]);
    view.recall(&name("red"), 5000, BTreeSet::from([vtep(2), vtep(3)]), stations, seconds(0));
    assert_eq!((view.vni(&name("red")), view.peers(&name("red")).count(), view.told(&name("red")).count()), (Some(5000), 2, 2));
    assert_eq!(view.differences(seconds(1)), [], "nothing was heard");
    shelf.host(2);
    shelf.endpoint(2, mac(7), 0);
    shelf.tell(&mut view, seconds(2));
    assert_eq!(view.differences(seconds(2)), [is(2, mac(7))], "host 3 may not have said it again");
    assert!(!view.is_held(), "the store has lost nothing");
    let gone = [Difference::Gone(name("red"), mac(8)), Difference::Left(name("red"), vtep(3))];
    assert_eq!(view.differences(HOLD), gone);
    // A store that has lost the network is told its number again.
    let (mut view, mut shelf) = (self::view(), Shelf::default());
    shelf.put(&Key::Id, "c1");
    view.recall(&name("red"), 5000, BTreeSet::new(), BTreeMap::new(), seconds(0));
    shelf.tell(&mut view, seconds(1));
    let steps = shelf.take(&mut view, seconds(1));
    assert!(steps.iter().any(|step| matches!(step, Step::Create { key, .. } if key == "cluster/vni/5000")), "{steps:?}");
}

#[test]
fn without_a_store_a_number_follows_from_the_name_and_the_later_of_two_that_clash_takes_no_part() {
    let mut numbers = BTreeMap::new();
    let (first, second) = (0..)
        .find_map(|number| {
            let network = name(&format!("n{number:06}"));
            let before = numbers.insert(super::number::first_vni(&network), network.clone());
            before.map(|before| (before, network))
        })
        .unwrap();
    let mut view = View::new(name("h1"), host(1), Some("c1".to_owned()), String::new()).apart();
    let mut shelf = Shelf::default();
    shelf.put(&Key::Id, "c1");
    view.join(second.clone(), &[], false);
    shelf.tell(&mut view, seconds(1));
    let steps = view.due(seconds(1)).remove(0);
    let value = record::written(&Network {
        vni: super::number::first_vni(&first),
        subnets: Vec::new(),
        gateways: Vec::new(),
        encrypt: false,
    });
    assert_eq!(steps[0], Step::Create { key: Key::Network(second.clone()).to_string(), value: value.clone() });
    assert_eq!(view.network_refusal(&second), None);
    // No one can say whose a block of addresses is.
    let subnet: IpNet = "10.5.0.0/24".parse().unwrap();
    view.join(second.clone(), &[subnet], false);
    shelf.put(&Key::Member(second.clone(), name("h2")), MEMBER);
    let listing = Listing { entries: Vec::new(), revision: 1 };
    view.hear(&record::network_prefix(&second), &News::All(listing), seconds(1));
    assert!(view.blocks(&second, subnet, seconds(1)).is_empty());
    let is_block = |step: &Step| matches!(step, Step::Create { key, .. } if matches!(Key::parse(key), Some(Key::Block(..))));
    assert!(!view.due(seconds(1)).iter().flatten().any(is_block));
    // One that is before it in the alphabet is heard of.
    shelf.put(&Key::Network(second.clone()), &value);
    shelf.put(&Key::Network(first.clone()), &value);
    shelf.tell(&mut view, seconds(2));
    let said = view.network_refusal(&second).unwrap().to_string();
    assert!(said.contains(&format!("networks \"{first}\" and \"{second}\" come to one number")), "{said}");
    shelf.remove(&Key::Network(first));
    shelf.tell(&mut view, seconds(3));
    assert_eq!(view.network_refusal(&second), None);
}

/// The view of a host whose file is a copy of host 2's, with another name.
fn copy(of: &str) -> View {
    let mut view = View::new(name(of), host(2), None, "c1".to_owned());
    view.join(name("red"), &subnets(), false);
    view
}

#[test]
fn of_two_hosts_with_one_address_the_later_takes_no_part() {
    // Also where the later comes first in the order of names.
    for later in ["a", "h3"] {
        let (mut view, mut shelf, mut later_view) = (view(), Shelf::with_network(), copy(later));
        shelf.host(2);
        shelf.tell(&mut later_view, seconds(1));
        let refusal = later_view.refusal().map(ToString::to_string);
        let expected = "host \"h2\" of the cluster has the underlay 192.0.2.2 already: give this one its own `underlay`";
        assert_eq!(refusal.as_deref(), Some(expected));
        later_view.announce(&name("red"), mac(9), BTreeSet::new(), None, seconds(1));
        let taken = shelf.take(&mut later_view, seconds(1));
        let value = Host { idle: true, ..host(2) }.written();
        assert_eq!(taken, [Step::Announce { key: Key::Host(name(later)).to_string(), value }], "it is there to be named");
        shelf.tell(&mut view, seconds(2));
        assert_eq!(view.hosts().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["h2"]);
        assert_eq!(view.idle().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [later]);
        let names: Vec<&Name> = view.doubles().remove(&vtep(2)).unwrap().into_iter().collect();
        assert_eq!(names, BTreeSet::from([&name(later), &name("h2")]).into_iter().collect::<Vec<_>>());
        // It takes the place of one that is gone.
        shelf.remove(&Key::Host(name("h2")));
        shelf.remove(&Key::Member(name("red"), name("h2")));
        shelf.tell(&mut later_view, seconds(3));
        assert_eq!(later_view.refusal(), None);
        assert_eq!(shelf.take(&mut later_view, seconds(3)).len(), 3);
    }
}

#[test]
fn of_two_hosts_that_came_at_once_with_one_address_all_keep_to_one() {
    let (mut view, mut shelf, [mut first, mut second]) = (view(), Shelf::with_network(), ["h2", "h3"].map(copy));
    let key = |byte| Host { key: Some(crate::key::PublicKey([byte; 32])), ..host(2) };
    shelf.put(&Key::Host(name("h2")), &key(2).written());
    shelf.put(&Key::Host(name("h3")), &key(3).written());
    for view in [&mut view, &mut first, &mut second] {
        shelf.tell(view, seconds(1));
        assert_eq!(view.hosts().collect::<Vec<_>>(), [(&name("h2"), &key(2))]);
        // Also before it says so of itself.
        assert_eq!(view.idle().collect::<Vec<_>>(), [(&name("h3"), &key(3))]);
    }
    assert_eq!((first.refusal(), second.refusal().is_some()), (None, true));
    shelf.take(&mut second, seconds(1));
    assert!(shelf.entries["cluster/host/h3"].0.contains("\"idle\":true"));
}

#[test]
fn a_host_whose_address_is_not_there_takes_part_as_soon_as_it_is() {
    let (mut view, mut shelf) = (view(), Shelf::with_network());
    view.set_nowhere(true);
    shelf.tell(&mut view, seconds(1));
    assert_eq!(shelf.take(&mut view, seconds(1)).len(), 1);
    assert_eq!(view.hosts().count(), 0);
    view.set_nowhere(false);
    assert_eq!(shelf.take(&mut view, seconds(2)).len(), 2, "its record, and its part in a network");
    assert_eq!(view.hosts().count(), 1);
}
