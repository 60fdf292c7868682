//! The services against clients and servers that others wrote: busybox, ISC, dnsmasq, dig, ndisc6, the kernel.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc;

use super::*;
use crate::services::{Input, run as serve};
use sys::{netns, packet as socket};

/// Puts the test's thread into a new network namespace. `None`: not on this machine.
fn prepare(test: &str, tools: &[&str]) -> Option<()> {
    let missing =
        tools.iter().find(|tool| Command::new("which").arg(tool).stdout(Stdio::null()).status().is_ok_and(|s| !s.success()));
    let reason = if !rustix::process::geteuid().is_root() {
        "needs root".to_owned()
    } else if let Some(tool) = missing {
        format!("needs {tool}")
    } else {
        netns::unshare().unwrap();
        shell("ip link set lo up");
        return Some(());
    };
    testing::skipped(test, &reason);
    None
}

fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A daemon that ends with its test.
struct Daemon(Child);

impl Daemon {
    fn start(command: &str) -> Self {
        Self(Command::new("sh").args(["-c", &format!("exec {command}")]).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A station's namespace with `eth0`, and the services on the other end of the wire.
struct Wire {
    name: String,
    directory: TempDir,
    inputs: Option<mpsc::Sender<Input>>,
    threads: Vec<JoinHandle<()>>,
    end: Arc<AtomicBool>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Wire {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vst-services-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        shell(&format!("ip netns add {name} && ip link add wire type veth peer name eth0 netns {name}"));
        shell("ip link set wire addrgenmode none up");
        let wire = Self {
            name,
            directory: tempfile::tempdir().unwrap(),
            inputs: None,
            threads: Vec::new(),
            end: Arc::default(),
            events: Arc::default(),
        };
        wire.inside(&format!("ip link set eth0 address {} && ip link set lo up && ip link set eth0 up", mac(2)));
        wire
    }

    fn inside(&self, command: &str) -> String {
        shell(&format!("nsenter --net=/run/netns/{} sh -c '{command}'", self.name))
    }

    fn daemon(&self, command: &str) -> Daemon {
        Daemon::start(&format!("nsenter --net=/run/netns/{} {command}", self.name))
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Connects the services; frames of the wire are those of port `db`, or, with `uplink`, of an uplink.
    fn serve(&mut self, first: Input, uplink: bool) {
        let index: u32 = shell("cat /sys/class/net/wire/ifindex 2>/dev/null || ip -o link show dev wire | cut -d: -f1")
            .trim()
            .parse()
            .unwrap();
        let fd = Arc::new(socket::open().unwrap());
        socket::ignore_outgoing(fd.as_fd()).unwrap();
        socket::bind(fd.as_fd(), index).unwrap();
        socket::set_promiscuous(fd.as_fd(), index).unwrap();
        let (sender, inputs) = mpsc::channel(64);
        sender.try_send(first).unwrap();
        self.inputs = Some(sender.clone());
        sender.try_send(Input::Resolvers("nameserver 127.0.0.1\n".to_owned())).unwrap();
        let services = Services::new(self.directory.path(), 1);
        let (out, events) = (fd.clone(), self.events.clone());
        let output = move |output| match output {
            Output::Answer(GatewayAnswer { frame, .. }) | Output::Uplink(_, frame) => drop(rustix::io::write(&out, &frame)),
            Output::Changed(_, event) => events.lock().unwrap().push(event),
            Output::Leases(_) | Output::Usage(_) => {}
            Output::Ask(_) => panic!("asked by itself"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        self.threads.push(std::thread::spawn(move || runtime.block_on(serve(services, inputs, output))));
        let end = self.end.clone();
        self.threads.push(std::thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while !end.load(Ordering::Relaxed) {
                let Ok(length) = rustix::io::read(&fd, &mut buffer) else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let (mut frame, name) = (buffer[..length].to_vec(), if uplink { "wan" } else { "db" });
                // As the router does.
                if let packet::Checksum::Partial { start, offset } = packet::checksum::examine(&frame) {
                    packet::checksum::complete(&mut frame, start, offset).unwrap();
                }
                let (bridge, port) = ("br0".parse().unwrap(), name.parse::<PortName>().unwrap());
                let input = if uplink {
                    Input::Uplink(port, frame, plane::datapath::Ticket::default())
                } else {
                    Input::Frame(Punt { bridge, port, vlan: None, frame }, plane::datapath::Ticket::default())
                };
                let _ = sender.try_send(input);
            }
        }));
    }

    /// The gateway, whose ARP and neighbour discovery are the router's.
    fn serve_bridge(&mut self) {
        self.serve(Input::Link(link()), false);
        for address in ["10.10.0.1", "fd10::1"] {
            self.inside(&format!("ip neigh replace {address} lladdr {GATEWAY} dev eth0"));
        }
    }

    fn stop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.inputs = None;
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.end.store(false, Ordering::Relaxed);
    }

    /// What busybox's client gets, as it tells its script.
    fn udhcpc(&self, more: &str) -> BTreeMap<String, String> {
        let (script, result) = (self.path("udhcpc.sh"), self.path("udhcpc.env"));
        // With its last address a device loses even its permanent neighbours (`fib_disable_ip`).
        let neighbour = format!("ip neigh replace 10.10.0.1 lladdr {GATEWAY} dev eth0");
        let set = format!("ip -4 addr flush dev eth0; ip addr add $ip/$mask dev eth0; {neighbour}");
        let text = format!("#!/bin/sh\n[ $1 = deconfig ] && exit\n{set}\necho event=$1 > {result}\nenv >> {result}\n");
        std::fs::write(&script, text).unwrap();
        shell(&format!("chmod +x {script}; rm -f {result}"));
        self.inside(&format!("busybox udhcpc -i eth0 -f -q -n -t 5 -T 1 -s {script} -O mtu -O broadcast {more} 2>&1"));
        let text = std::fs::read_to_string(result).unwrap();
        text.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.inputs = None;
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// What a client learns about the network, leaving aside who told it and its own surroundings.
fn network(environment: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    let keys = ["subnet", "mask", "router", "dns", "domain", "mtu", "broadcast", "lease", "opt53", "event", "serverid"];
    keys.iter().filter_map(|key| environment.get(*key).map(|value| (*key, value.as_str()))).collect()
}

#[test]
fn busybox_gets_the_same_from_us_as_from_dnsmasq() {
    let tools = ["busybox", "dnsmasq"];
    let Some(()) = prepare("busybox_gets_the_same_from_us_as_from_dnsmasq", &tools) else { return };
    let mut wire = Wire::new();
    wire.serve_bridge();
    let ours = wire.udhcpc("");
    assert_eq!(ours["event"], "bound");
    let again = wire.udhcpc("");
    assert_eq!(again["ip"], ours["ip"], "the same client");
    let wished = wire.udhcpc("-r 10.10.0.99 -x 0x3d:01020304");
    assert_eq!(wished["ip"], "10.10.0.99", "what another one wishes");
    let (script, result, pid) = (wire.path("udhcpc.sh"), wire.path("udhcpc.env"), wire.path("udhcpc.pid"));
    std::fs::write(&result, "").unwrap();
    let client = wire.daemon(&format!("busybox udhcpc -i eth0 -f -t 5 -T 1 -s {script} -p {pid}"));
    let event = |wanted: &str| std::fs::read_to_string(&result).unwrap_or_default().contains(wanted).then_some(());
    until("an address", || event("event=bound"));
    shell(&format!("kill -USR1 $(cat {pid})"));
    until("a renewal", || event("event=renew"));
    shell(&format!("kill -USR2 $(cat {pid})"));
    until("its address is given back", || {
        let kept: BTreeMap<BridgeName, Vec<Lease>> = Store::new(wire.directory.path().join("leases.json")).read();
        let mut leases = kept.values().flatten();
        leases.any(|lease| lease.address.to_string() == ours["ip"] && lease.state == api::LeaseState::Released).then_some(())
    });
    drop(client);
    wire.stop();
    let file = std::fs::read_to_string(wire.path("leases.json")).unwrap();
    assert!(file.contains(&ours["ip"]) && file.contains("10.10.0.99"), "{file}");

    shell("ip addr add 10.10.0.1/24 dev wire");
    let pid = wire.path("dnsmasq.pid");
    let options =
        "--keep-in-foreground --conf-file=/dev/null --port=0 --interface=wire --bind-interfaces --dhcp-authoritative --no-ping";
    let network_options =
        "--dhcp-range=10.10.0.100,10.10.0.200,1h --domain=br0.internal --dhcp-option=26,1400 --dhcp-option=6,10.10.0.1";
    let leases = wire.path("dnsmasq.leases");
    let _daemon =
        Daemon::start(&format!("dnsmasq {options} {network_options} --pid-file={pid} --dhcp-leasefile={leases} --user=root"));
    until("dnsmasq runs", || std::path::Path::new(&pid).exists().then_some(()));
    let theirs = wire.udhcpc("");
    assert_eq!(network(&ours), network(&theirs));
}

#[test]
fn isc_gets_the_same_address_twice_in_both_versions() {
    let Some(()) = prepare("isc_gets_the_same_address_twice_in_both_versions", &["dhclient"]) else { return };
    let mut wire = Wire::new();
    wire.serve_bridge();
    let (leases, pid) = (wire.path("dhclient.leases"), wire.path("dhclient.pid"));
    for version in ["-4", "-6"] {
        if version == "-6" {
            until("the link-local address is ready", || {
                wire.inside("ip -6 addr show dev eth0").contains("inet6 fe80").then_some(())
            });
            until("it is not tentative", || (!wire.inside("ip -6 addr show dev eth0").contains("tentative")).then_some(()));
        }
        let common = format!("dhclient {version} -1 -lf {leases}{version} -pf {pid} -sf /bin/true -cf /dev/null");
        for run in 0..2 {
            wire.inside(&format!(
                "timeout 30 {common} -d eth0 > {}/log 2>&1 & sleep 4; kill $(cat {pid})",
                wire.directory.path().display()
            ));
            let text = std::fs::read_to_string(format!("{leases}{version}")).unwrap();
            let expected: &[&str] = match version {
                "-4" => &["option routers 10.10.0.1;", "option domain-name \"br0.internal\";", "dhcp-lease-time 3600;"],
                _ => &[
                    "iaaddr fd10::",
                    "dhcp6.name-servers fd10::1;",
                    "dhcp6.domain-search \"br0.internal.\";",
                    "max-life 3600;",
                ],
            };
            assert!(expected.iter().all(|part| text.contains(part)), "run {run}: {text}");
        }
    }
    wire.stop();
    let kept: BTreeMap<BridgeName, Vec<Lease>> = Store::new(wire.directory.path().join("leases.json")).read();
    assert_eq!(kept.values().map(Vec::len).sum::<usize>(), 2, "one of each, though asked for twice: {kept:?}");
}

#[test]
fn the_kernel_makes_its_own_address_and_finds_the_router() {
    let Some(()) = prepare("the_kernel_makes_its_own_address_and_finds_the_router", &["rdisc6"]) else { return };
    let mut wire = Wire::new();
    wire.serve_bridge();
    until("an address of its own", || {
        wire.inside("ip -6 addr show dev eth0").contains("inet6 fd10::ff:fe00:102/64 scope global").then_some(())
    });
    let route = wire.inside("ip -6 route show default");
    assert!(route.contains("via fe80::ff:fe00:1 dev eth0 proto ra") && route.contains("mtu 1400"), "{route}");
    // Its own address may not be looked for yet.
    let told = wire.inside("for n in $(seq 100); do rdisc6 -1 eth0 && exit; sleep 0.1; done; exit 1");
    let lines = [
        "Stateful address conf.    :          Yes",
        "Stateful other conf.      :          Yes",
        "Router lifetime           :         1800",
        "Prefix                   : fd10::/64",
        "Autonomous address conf.:          Yes",
        "MTU                      :         1400",
        "Source link-layer address: 02:00:00:00:00:01",
        "Recursive DNS server     : fd10::1",
    ];
    for line in lines {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.lines().any(|told| squeezed(told).starts_with(&squeezed(line))), "{line}: {told}");
    }
    wire.inputs.as_ref().unwrap().try_send(Input::Unlink(link().bridge)).unwrap();
    until("no router any more", || wire.inside("ip -6 route show default").is_empty().then_some(()));
}

#[test]
fn dig_gets_our_names_and_the_hosts() {
    let Some(()) = prepare("dig_gets_our_names_and_the_hosts", &["dig", "dnsmasq"]) else { return };
    let mut wire = Wire::new();
    let pid = wire.path("dnsmasq.pid");
    let longer: String = (1..21).map(|number| format!(",$(printf %0250d {number})")).collect();
    let records = "--host-record=www.example.test,192.0.2.77,2001:db8::77 --txt-record=long.example.test,$(printf %0250d 1),$(printf %0250d 2),$(printf %0250d 3),$(printf %0250d 4),$(printf %0250d 5),$(printf %0250d 6)";
    let options = "--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --listen-address=127.0.0.1 --bind-interfaces --local=/test/ --edns-packet-max=4096 --user=root";
    let daemon =
        Daemon::start(&format!("dnsmasq {options} {records} --txt-record=longer.example.test{longer} --pid-file={pid}"));
    until("dnsmasq runs", || std::path::Path::new(&pid).exists().then_some(()));
    wire.serve_bridge();
    wire.inside("ip addr add 10.10.0.9/24 dev eth0 && ip addr add fd10::9/64 dev eth0 nodad");
    let dig = |question: &str| wire.inside(&format!("dig +tries=1 +time=9 +ignore @10.10.0.1 {question}"));
    let short = |question: &str| dig(&format!("+short {question}")).trim().to_owned();
    assert_eq!(short("web.br0.internal A"), "10.10.0.2");
    assert_eq!(short("web AAAA"), "fd10::2");
    assert_eq!(short("-x 10.10.0.2"), "web.br0.internal.");
    assert_eq!(short("-x fd10::2"), "web.br0.internal.");
    assert_eq!(wire.inside("dig +short +tries=1 @fd10::1 web").trim(), "10.10.0.2");
    let no = dig("nobody.br0.internal");
    assert!(no.contains("status: NXDOMAIN") && no.contains("SOA") && no.contains("flags: qr aa rd ra"), "{no}");
    assert!(dig("web.br0.internal MX").contains("status: NOERROR"));

    assert_eq!(short("www.example.test A"), "192.0.2.77");
    assert_eq!(short("www.example.test AAAA"), "2001:db8::77");
    assert!(dig("other.example.test").contains("status: NXDOMAIN"));
    for (question, truncated) in
        [("long.example.test TXT +bufsize=4096", true), ("long.example.test TXT +noedns", true), ("www.example.test", false)]
    {
        let said = dig(question);
        assert_eq!(said.contains("flags: qr aa tc") || said.contains(" tc "), truncated, "{question}: {said}");
        assert!(!said.contains("WARNING") && !said.contains("malformed"), "{said}");
    }
    // Over TCP, because it was told to or because the answer was truncated, it gets everything.
    let tcp = |question: &str| wire.inside(&format!("dig +tries=1 +time=9 {question}"));
    for (question, part) in [
        ("+tcp +short @10.10.0.1 web", "10.10.0.2\n"),
        ("+tcp +short @fd10::1 www.example.test", "192.0.2.77\n"),
        ("+tcp +keepopen @10.10.0.1 web.br0.internal www.example.test", "192.0.2.77\n"),
        ("@10.10.0.1 long.example.test TXT", "MSG SIZE  rcvd: 15"),
        ("@10.10.0.1 longer.example.test TXT +bufsize=4096", "MSG SIZE  rcvd: 50"),
        ("+tcp @10.10.0.1 longer.example.test TXT", "MSG SIZE  rcvd: 50"),
    ] {
        let said = tcp(question);
        assert!(said.contains(part) && !said.contains(" tc "), "{question}: {said}");
    }
    drop(daemon);
    assert!(tcp("+tcp @10.10.0.1 www.example.test").contains("status: SERVFAIL"));
    assert!(dig("www.example.test").contains("status: SERVFAIL"));
    let own = Input::Resolvers("nameserver 10.10.0.1\nnameserver fd10::1\n".to_owned());
    wire.inputs.as_ref().unwrap().blocking_send(own).unwrap();
    assert!(dig("www.example.test").contains("status: SERVFAIL"), "it does not ask itself");
}

#[test]
fn an_uplink_gets_its_address_from_dnsmasq() {
    let Some(()) = prepare("an_uplink_gets_its_address_from_dnsmasq", &["dnsmasq"]) else { return };
    let mut wire = Wire::new();
    wire.inside("ip addr add 192.0.2.1/24 dev eth0");
    let (pid, leases, log) = (wire.path("dnsmasq.pid"), wire.path("dnsmasq.leases"), wire.path("log"));
    let options = "--keep-in-foreground --conf-file=/dev/null --port=0 --interface=eth0 --bind-interfaces --dhcp-authoritative --no-ping --log-dhcp";
    let network = "--dhcp-range=192.0.2.100,192.0.2.110,2m --dhcp-option=26,1400 --dhcp-option=6,192.0.2.53";
    let _daemon = wire.daemon(&format!(
        "dnsmasq {options} {network} --pid-file={pid} --dhcp-leasefile={leases} --user=root --log-facility={log}"
    ));
    until("dnsmasq runs", || std::path::Path::new(&pid).exists().then_some(()));
    let wan = LeasedUplink { name: "wan".parse().unwrap(), mac: mac(77) };
    let bound = |wire: &Wire| {
        until("an address", || match wire.events.lock().unwrap().pop() {
            Some(Event::Bound(terms)) => Some(terms),
            _ => None,
        })
    };
    wire.serve(Input::Uplinks(vec![wan.clone()]), true);
    let terms = bound(&wire);
    assert_eq!((terms.address.prefix_len(), terms.server, terms.seconds), (24, [192, 0, 2, 1].into(), 120));
    assert_eq!((terms.routers, terms.dns, terms.mtu), (vec![[192, 0, 2, 1].into()], vec![[192, 0, 2, 53].into()], Some(1400)));
    assert!(std::fs::read_to_string(&leases).unwrap().contains(&terms.address.addr().to_string()));

    wire.stop();
    wire.serve(Input::Uplinks(vec![wan]), true);
    assert_eq!(bound(&wire).address, terms.address, "after a restart");
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(text.matches("DHCPDISCOVER(eth0)").count(), 1, "which needed no new discovery: {text}");

    // Another station takes its address, is told that it is taken, and insists.
    wire.inside(&format!("ip addr add {}/24 dev eth0", terms.address.addr()));
    until("declined", || {
        wire.inside(&format!("ping -q -c 1 -W 1 -I {} 192.0.2.200 || true", terms.address.addr()));
        std::fs::read_to_string(&log).unwrap().contains("DHCPDECLINE(eth0)").then_some(())
    });
    assert_ne!(bound(&wire).address, terms.address);
    wire.inputs.as_ref().unwrap().try_send(Input::Uplinks(Vec::new())).unwrap();
    until("released", || std::fs::read_to_string(&log).unwrap().contains("DHCPRELEASE(eth0)").then_some(()));
}
