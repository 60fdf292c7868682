//! Docker's networks that are parts of overlay networks (`vswitch-overlay`): two hosts, each with a dockerd and a vswitchd of its own, and an etcd
//! that both reach. What `docs/overlay.md` has of Docker is typed here.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use serde_json::Value;
use vswitch_tests::{DockerHost, Engine, Lab, Tour, Underlay, needs, needs_engine, on_each_engine};

on_each_engine!(containers_of_two_hosts_share_a_network, what_does_not_fit_is_one_sentence);

/// The underlay, a store on it, and hosts with Docker, of which number N is 10.250.7.N there.
struct Place {
    hosts: Vec<DockerHost>,
    store: Lab,
    underlay: Underlay,
}

impl Place {
    fn new(engine: Engine, count: u8) -> Self {
        let underlay = Underlay::new();
        let mut store = Lab::new();
        underlay.join(&store, 9);
        let data = store.path("data").display().to_string();
        store.sh("ip -n @host addr add 10.250.7.9/24 dev u0 && ip -n @host link set lo up").ok();
        store.spawn_in(
            "host",
            &format!(
                "etcd --data-dir {data} --listen-peer-urls http://127.0.0.1:2380 --listen-client-urls http://10.250.7.9:2379 \
                 --advertise-client-urls http://10.250.7.9:2379 --unsafe-no-fsync --log-level error"
            ),
        );
        let mut place = Self { hosts: Vec::new(), store, underlay };
        for number in 1..=count {
            place.add(engine, number);
        }
        place
    }

    fn add(&mut self, engine: Engine, number: u8) {
        let mut host = DockerHost::bare(engine);
        self.underlay.join_docker(&host, number, &format!("10.250.7.{number}/24"));
        host.write("/run/switch.toml", &file(number));
        host.start_vswitchd();
        host.start_dockerd(&[]);
        host.import();
        self.hosts.push(host);
    }

    /// What the store has below a prefix, by key.
    fn keys(&self, prefix: &str) -> Vec<String> {
        let line =
            "curl -s -m 5 -d '{\"key\":\"AA==\",\"range_end\":\"AA==\",\"keys_only\":true}' http://10.250.7.9:2379/v3/kv/range";
        let said: Value = serde_json::from_str(&self.store.run_in("host", line).ok()).unwrap();
        let text = |row: &Value| decoded(row["key"].as_str().unwrap());
        let keys = said["kvs"].as_array().into_iter().flatten().map(text);
        keys.filter_map(|key| key.strip_prefix("/vswitch/").map(str::to_owned)).filter(|key| key.starts_with(prefix)).collect()
    }
}

/// The text that Base64 stands for.
fn decoded(base64: &str) -> String {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = base64.bytes().filter(|c| *c != b'=').map(|c| value(c).into()).collect();
    let bytes = digits.chunks(4).flat_map(|group| {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        bits.to_be_bytes()[1..group.len()].to_vec()
    });
    String::from_utf8(bytes.collect()).unwrap()
}

fn file(number: u8) -> String {
    format!(
        "[docker]\nenabled = true\n[cluster]\nstore = \"etcd\"\nendpoints = [\"http://10.250.7.9:2379\"]\nttl = \"3s\"\n\
         node = \"h{number}\"\nunderlay = \"10.250.7.{number}\"\n"
    )
}

fn json(host: &DockerHost, words: &str) -> Value {
    serde_json::from_str(&host.sh(&format!("vsctl --json {words}")).ok()).unwrap()
}

fn network(host: &DockerHost, name: &str) -> Option<Value> {
    json(host, "cluster networks").as_array().unwrap().iter().find(|row| row["name"] == name).cloned()
}

/// The addresses of the containers of a host on a network.
fn addresses(host: &DockerHost, network: &str) -> Vec<String> {
    let format = "{{range .Containers}}{{.IPv4Address}} {{end}}";
    let said = host.sh(&format!("docker network inspect -f '{format}' {network}")).ok();
    said.split_whitespace().map(str::to_owned).collect()
}

/// What is kept of Docker's.
fn kept(host: &DockerHost) -> Value {
    let state = std::fs::read_to_string(host.file("/var/lib/vswitch/state.json")).unwrap();
    serde_json::from_str::<Value>(&state).unwrap()["docker"].clone()
}

fn containers_of_two_hosts_share_a_network(engine: Engine) {
    needs!("etcd");
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl");
    let mut place = Place::new(engine, 2);
    let part = |name: &str| Tour::of_part("overlay.md", name);
    part("Docker: the first host").run(&place.hosts[0], "");
    part("Docker: the second host").run(&place.hosts[1], "");
    // What vsctl prints is what the document has.
    let printed = network(&place.hosts[0], "ov_net1").unwrap()["docker"].as_str().unwrap().to_owned();
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/overlay.md")).unwrap();
    assert!(document.replace(" \\\n    ", " ").contains(&printed), "{printed}");
    no_address_is_given_twice(&mut place);
    an_address_that_is_asked_for_is_one_hosts(&mut place);
    an_encrypted_one_is_as_any_other(&mut place);
    restarts_leave_it_as_it_is(&mut place);
    nothing_stays(&mut place);
}

/// Containers that start on both hosts at once, and an address that is asked for on both.
fn no_address_is_given_twice(place: &mut Place) {
    let start = "for i in 1 2 3 4 5; do docker run -d --rm --name c$i --network ov_net1 busybox sleep 1000000 & done; wait";
    std::thread::scope(|scope| {
        for host in &place.hosts {
            scope.spawn(|| host.sh(start).ok());
        }
    });
    let mut all = BTreeSet::new();
    for host in &place.hosts {
        let own = addresses(host, "ov_net1");
        assert_eq!(own.len(), 6, "{own:?}");
        own.iter().for_each(|address| assert!(all.insert(address.clone()), "{address} twice: {own:?}"));
    }
    place.hosts[1].until("all agree", |host| json(host, "cluster check").as_array().unwrap().is_empty());
}

/// Docker takes `--ip` in a network with a `--subnet`. An address of a block that no host has is this host's from then on.
fn an_address_that_is_asked_for_is_one_hosts(place: &mut Place) {
    let create = "docker network create -d vswitch-overlay --ipam-driver vswitch-overlay --ipam-opt vswitch.net=fixed \
                  -o vswitch.net=fixed --subnet 10.70.0.0/16 --gateway 10.70.0.9 fixed";
    let run = |host: &DockerHost, address: &str| {
        host.sh(&format!("docker run -d --rm --network fixed --ip {address} busybox sleep 1000000"))
    };
    place.hosts.iter().for_each(|host| drop(host.sh(create).ok()));
    let [first, second] = &place.hosts[..] else { panic!("two hosts") };
    run(first, "10.70.77.70").ok();
    for (address, part) in [("10.70.77.70", "host h1"), ("10.70.77.71", "of 10.70.77.64/26, which host h1 gives out")] {
        let refused = run(second, address);
        assert!(refused.code == Some(125) && refused.stderr.contains(part), "{refused:?}");
    }
    run(first, "10.70.77.71").ok();
    run(second, "10.70.78.1").ok();
    let taken = run(first, "10.70.0.9");
    assert!(taken.code == Some(125), "the gateway's: {taken:?}");
    assert!(second.sh("docker exec $(docker ps -ql) ping -c 1 -W 3 10.70.77.71").code == Some(0));
    place
        .hosts
        .iter()
        .for_each(|host| drop(host.sh("docker rm -f $(docker ps -q --filter network=fixed) && docker network rm fixed").ok()));
}

/// From `box` to `web`, by name.
fn asks(host: &DockerHost) -> bool {
    host.sh("docker exec box timeout 3 wget -q -O- http://web/cgi-bin/who").code == Some(0)
}

fn restarts_leave_it_as_it_is(place: &mut Place) {
    let [first, second] = &mut place.hosts[..] else { panic!("two hosts") };
    let before = addresses(second, "ov_net1");
    for host in 0..2 {
        let host = if host == 0 { &mut *first } else { &mut *second };
        host.stop("vswitchd", libc::SIGKILL);
        host.start_vswitchd();
    }
    second.until("after a crash of both switches", |host| asks(host));
    assert!(first.sh("outside curl -sf -m 3 http://192.0.2.1:8080/cgi-bin/who").code == Some(0));
    assert_eq!(addresses(second, "ov_net1"), before);
    second.stop("dockerd", libc::SIGTERM);
    second.start_dockerd(&[]);
    second.sh("docker start box").ok();
    second.until("after a restart of Docker", |host| asks(host));
    // One that dies while the switch is away.
    second.stop("vswitchd", libc::SIGKILL);
    second.sh_within(100, "docker kill box").ok();
    second.start_vswitchd();
    second.until("it is forgotten", |host| kept(host)["endpoints"].as_object().unwrap().is_empty());
    let given = kept(second)["pools"].as_object().unwrap().values().next().unwrap()["given"].as_array().unwrap().len();
    assert_eq!(given, 1, "the gateway's alone: {}", kept(second));
    second.sh("docker start box").ok();
    second.until("it is back", |host| asks(host));
}

/// What stands in the document of encrypted networks, on both hosts.
fn an_encrypted_one_is_as_any_other(place: &mut Place) {
    for host in &place.hosts {
        Tour::of_part("overlay.md", "Encrypted networks").run(host, "");
        host.sh("docker run -d --rm --name sealed --network green busybox sleep 1000000").ok();
        let link = host.sh("nsenter --net=/proc/$(docker inspect -f '{{.State.Pid}}' sealed)/ns/net ip -o link show eth0").ok();
        assert!(link.contains("mtu 1390"), "{link}");
    }
    let there = addresses(&place.hosts[0], "green").remove(0);
    let there = there.split('/').next().unwrap();
    place.hosts[1]
        .until("they reach each other", |host| host.sh(&format!("docker exec sealed ping -c 1 -W 1 {there}")).code == Some(0));
    for host in &place.hosts {
        host.sh("docker rm -f sealed && docker network rm green && vsctl del-br br1").ok();
    }
    let plain = "docker network create -d vswitch-overlay --ipam-driver vswitch-overlay -o vswitch.net=green --ipam-opt \
                 vswitch.net=green green";
    let refused = place.hosts[1].sh(plain).refused();
    assert!(refused.contains("overlay network \"green\" is encrypted: add -o vswitch.encrypt=true"), "{refused}");
    let printed = network(&place.hosts[1], "green").unwrap()["docker"].as_str().unwrap().to_owned();
    place.hosts[1].sh(&format!("{printed} && docker network rm green")).ok();
}

fn nothing_stays(place: &mut Place) {
    for host in &place.hosts {
        host.sh("docker rm -f $(docker ps -aq) && docker network rm ov_net1").ok();
        let kept = kept(host);
        for what in ["networks", "endpoints", "pools"] {
            assert!(kept[what].as_object().unwrap().is_empty(), "{kept}");
        }
        assert_eq!(host.sh("ip -o link | grep -e ep- -e vx").stdout, "");
        assert!(
            json(host, "list-ports").as_array().unwrap().is_empty() && json(host, "list-vxlan").as_array().unwrap().is_empty()
        );
    }
    let left = |place: &Place| [place.keys("net/ov_net1/member/"), place.keys("net/ov_net1/endpoint/")].concat();
    place.store.until("the store has none of it", |_| left(place).is_empty());
    let line = network(&place.hosts[1], "ov_net1").unwrap()["docker"].as_str().unwrap().to_owned();
    place.hosts[1].sh(&format!("{line} && docker network rm ov_net1")).ok();
}

fn what_does_not_fit_is_one_sentence(engine: Engine) {
    needs!("etcd");
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl");
    let mut place = Place::new(engine, 1);
    let ipam = "--ipam-driver vswitch-overlay --ipam-opt vswitch.net=a";
    let host = &place.hosts[0];
    let create = |words: &str| host.sh(&format!("docker network create {words} net"));
    create(&format!("-d vswitch-overlay {ipam} -o vswitch.net=a --subnet 10.60.0.0/24 --ipv6 --subnet fd60::/64")).ok();
    let known = network(host, "a").unwrap();
    assert_eq!(known["subnets"], serde_json::json!(["10.60.0.0/24", "fd60::/64"]));
    host.sh("docker run --rm --network net busybox ping -c 1 -W 2 fd60::1 && docker network rm net").ok();
    for (words, part) in [
        ("-d vswitch-overlay -o vswitch.net=a --ipam-driver vswitch-overlay", "add --ipam-opt vswitch.net=NAME"),
        ("-d vswitch-overlay --ipam-driver vswitch-overlay --ipam-opt vswitch.net=b", "add -o vswitch.net=NAME"),
        (
            "-d vswitch-overlay -o vswitch.net=b --subnet 10.61.0.0/24",
            "add --ipam-driver vswitch-overlay --ipam-opt vswitch.net=b",
        ),
        ("-d vswitch-overlay -o vswitch.net=b --ipam-driver null", "add --ipam-driver vswitch-overlay"),
        ("-d vswitch --ipam-driver vswitch-overlay --ipam-opt vswitch.net=b", "give both the same driver"),
        (&format!("-d vswitch-overlay {ipam} -o vswitch.net=b --ipv6"), "vswitch.net=b and --ipam-opt vswitch.net=a differ"),
        (
            &format!("-d vswitch-overlay {ipam} -o vswitch.net=a --subnet 10.62.0.0/24"),
            "has 10.60.0.0/24 and fd60::/64, and not",
        ),
        (&format!("-d vswitch-overlay {ipam} -o vswitch.net=a"), "--ipv6 --subnet fd60::/64"),
        (
            &format!("-d vswitch-overlay {ipam} -o vswitch.net=a --subnet 10.60.0.0/24 --ip-range 10.60.0.0/25"),
            "leave out --ip-range",
        ),
        (&format!("-d vswitch-overlay {ipam} -o vswitch.net=a/b --ipv6"), "use a name of 1 to 63"),
        (&format!("-d vswitch-overlay {ipam} -o vswitch.net=a -o vswitch.vlan=7 --ipv6"), "unknown option `vswitch.vlan`"),
    ] {
        let refused = create(words).refused();
        assert!(refused.contains(part) && refused.lines().count() == 1, "{words}: {refused}");
    }
    let kept = kept(host);
    assert!(kept["networks"].as_object().unwrap().is_empty() && kept["pools"].as_object().unwrap().is_empty(), "{kept}");
    assert_eq!(place.keys("cluster/network/"), ["cluster/network/a"]);

    let host = &mut place.hosts[0];
    host.write("/run/switch.toml", &file(1).replace("10.250.7.9", "10.250.7.8"));
    host.sh("vsctl reload").ok();
    let line = format!("docker network create -d vswitch-overlay {ipam} -o vswitch.net=a --ipv6 net");
    let refused = host.sh(&line).refused();
    assert!(refused.contains("overlay network \"a\": ") && refused.contains("10.250.7.8"), "{refused}");
    host.write("/run/switch.toml", "[docker]\nenabled = true\n");
    host.sh("vsctl reload").ok();
    let refused = host.sh(&line).refused();
    assert!(refused.contains("add [cluster] to switch.toml"), "{refused}");
}
