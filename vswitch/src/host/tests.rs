//! With real kernels at both ends: a container in a namespace behind a TAP, a bridge of the switch, the uplink in a namespace that
//! stands for the host, and a peer in another behind a veth pair.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command as Program;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::attach::{Plan, attach, remove_netns};
use api::{ControlFrames, Netns, PortKind, PortSpec, VlanMode};
use plane::datapath::{BridgeId, BridgeSettings, PortId, PortSettings};
use plane::worker::{Command, Handle, Worker};
use sys::{datagram, netns};

const CONTAINER: &str = "10.10.0.2";
const CONTAINER6: &str = "fd10::2";
const GATEWAY: &str = "10.10.0.1";
const HOST: &str = "192.0.2.1";
const PEER: &str = "192.0.2.2";
const PEER6: &str = "2001:db8::2";
const LONG: Duration = Duration::from_secs(20);

/// Puts the test's thread into a new namespace. `None`: not on this machine.
pub(super) fn prepare(test: &str) -> Option<()> {
    let reason = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if !std::path::Path::new("/dev/net/tun").exists() {
        "needs /dev/net/tun"
    } else {
        netns::unshare().unwrap();
        return Some(());
    };
    testing::skipped(test, reason);
    None
}

/// A namespace, removed at the end.
struct Name(String);

impl Name {
    fn new(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self(format!("vst-host-{}-{}-{role}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Runs a line of shell in it.
    fn run(&self, line: &str) -> String {
        run(&format!("nsenter --net=/run/netns/{} sh -c '{line}'", self.0))
    }

    /// Runs `work` on a thread in it.
    fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let file = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        std::thread::spawn(move || {
            netns::enter(file.as_fd()).unwrap();
            work()
        })
    }

    fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().unwrap()
    }

    fn listen(&self, address: &str) -> TcpListener {
        let address = address.to_owned();
        self.within(move || TcpListener::bind(address).unwrap())
    }

    fn connect(&self, address: &str) -> std::io::Result<TcpStream> {
        let address: SocketAddr = address.parse().unwrap();
        self.within(move || {
            let stream = TcpStream::connect_timeout(&address, LONG)?;
            stream.set_read_timeout(Some(LONG))?;
            stream.set_write_timeout(Some(LONG))?;
            Ok(stream)
        })
    }

    fn udp(&self, address: &str) -> UdpSocket {
        let address = address.to_owned();
        let socket = self.within(move || UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = remove_netns(&self.0);
    }
}

fn run(command: &str) -> String {
    let output = Program::new("sh").args(["-c", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Everything, with the test's thread on the host.
struct Lab {
    container: Name,
    peer: Name,
    uplink: Option<HostUplink>,
    worker: Handle,
}

impl Lab {
    fn new(test: &str) -> Option<Self> {
        Self::with(test, Capacity::default())
    }

    fn with(test: &str, capacity: Capacity) -> Option<Self> {
        prepare(test)?;
        let (container, peer) = (Name::new("container"), Name::new("peer"));
        crate::attach::make_netns(&peer.0, "").unwrap();
        run(&format!("ip link set lo up; ip link add up0 type veth peer name eth0 netns {} && ip link set up0 up", peer.0));
        run(&format!("ip addr add {HOST}/24 dev up0 && ip addr add 2001:db8::1/64 dev up0 nodad"));
        peer.run(&format!(
            "ip link set lo up; ip link set eth0 up; ip addr add {PEER}/24 dev eth0; ip addr add {PEER6}/64 dev eth0 nodad"
        ));
        let (mac, router) = ("02:00:00:00:00:01".parse().unwrap(), "02:00:00:00:00:0a".parse().unwrap());
        let name = container.0.rsplit('-').nth(1).unwrap().to_owned();
        // As in production: it takes the longest packets, and the station's link does not.
        let settings =
            Settings { name, mac, router, mtu: 65_535, capacity, sandbox: sandbox(), inherited: Arc::default(), holds: false };
        let (uplink, device) = open(settings).unwrap();
        uplink.set_gateways(vec![gateway("10.10.0.1/24"), gateway("fd10::1/64")]).unwrap();
        let worker = bridge([tap(&container, router), device]);
        for address in [GATEWAY, "fd10::1"] {
            container.run(&format!("ip neigh replace {address} lladdr {mac} dev eth0 nud permanent"));
        }
        Some(Self { container, peer, uplink: Some(uplink), worker })
    }

    fn uplink(&self) -> &HostUplink {
        self.uplink.as_ref().unwrap()
    }

    fn forward(&self, forwards: &[(nat::Protocol, &str, &str)]) -> Result<(), HostError> {
        let forward = |(protocol, ports, to): &(nat::Protocol, &str, &str)| Forward {
            rule: nat::Forward::new(*protocol, ports.parse().unwrap(), to.parse().unwrap()).unwrap(),
            listen: None,
        };
        self.uplink().set_forwards(forwards.iter().map(forward).collect())
    }

    /// Ticks of processor time that the uplink's thread has had.
    fn ticks(&self) -> u64 {
        let name = format!("(host-{}) ", self.container.0.rsplit('-').nth(1).unwrap());
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let mut stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
        let stat = stats.find(|stat| stat.contains(&name)).unwrap();
        stat.split(' ').skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    fn until(&self, what: &str, holds: impl Fn(&[Session]) -> bool) {
        let begun = Instant::now();
        while !holds(&self.uplink().sessions().unwrap()) {
            assert!(begun.elapsed() < LONG, "not in time: {what}: {:?}", self.uplink().sessions().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.worker.hint(Command::Stop);
    }
}

fn tap(container: &Name, mac: Mac) -> Box<dyn Device> {
    let spec = PortSpec {
        name: "web".parse().unwrap(),
        bridge: "br0".parse().unwrap(),
        kind: PortKind::Tap,
        netns: Some(Netns::Name(container.0.clone())),
        ifname: "eth0".parse().unwrap(),
        mac: Some(mac),
        addresses: vec![format!("{CONTAINER}/24").parse().unwrap(), format!("{CONTAINER6}/64").parse().unwrap()],
        vlans: VlanMode::All,
        policy: api::PortPolicy::default(),
        offload: true,
    };
    let gateways = [format!("{GATEWAY}/24").parse().unwrap(), "fd10::1/64".parse().unwrap()];
    attach(&Plan {
        spec,
        first_mac: None,
        mtu: 1500,
        workers: 1,
        held: Vec::new(),
        gateways: gateways.to_vec(),
        netns_mark: String::new(),
        routes: Vec::new(),
    })
    .unwrap()
    .queues
    .devices()
    .remove(0)
}

/// As in production.
fn sandbox() -> Confinement {
    Confinement::on(&std::env::temp_dir()).unwrap()
}

/// A gateway of stations with the usual MTU.
fn gateway(address: &str) -> Gateway {
    Gateway { address: address.parse().unwrap(), mtu: 1500 }
}

/// A worker that bridges the two.
fn bridge(devices: [Box<dyn Device>; 2]) -> Handle {
    let (worker, handle) = Worker::new(1, Box::new(|_| ())).unwrap();
    std::thread::spawn(move || worker.run());
    let settings = BridgeSettings {
        mtu: 1500,
        ageing: 300,
        max_macs: 16,
        control_frames: ControlFrames::Drop,
        ..BridgeSettings::default()
    };
    handle.tell(Command::SetBridge(BridgeId(0), settings)).unwrap();
    for (number, device) in (0..).zip(devices) {
        let settings = PortSettings::on(BridgeId(0));
        handle.ask(|reply| Command::Attach(PortId(number), settings, device, reply)).unwrap().unwrap();
    }
    handle
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, from) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    (stream, from)
}

#[test]
fn bytes_go_both_ways_and_each_half_closes_alone() {
    let Some(lab) = Lab::new("bytes_go_both_ways_and_each_half_closes_alone") else { return };
    for (listen, target) in [("0.0.0.0:9000", format!("{PEER}:9000")), ("[::]:9001", format!("[{PEER6}]:9001"))] {
        let listener = lab.peer.listen(listen);
        let data = pattern(3_000_000);
        let mut client = lab.container.connect(&target).unwrap();
        let (mut server, from) = accept(&listener);
        assert!([HOST, "2001:db8::1"].map(|host| host.parse().unwrap()).contains(&from.ip()), "{from}");
        let sent = data.clone();
        let mut writer = client.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_all(&mut server) == data, "to the peer");
        writing.join().unwrap();
        let sent = data.clone();
        let writing = std::thread::spawn(move || server.write_all(&sent).unwrap());
        assert!(read_all(&mut client) == data, "to the container");
        writing.join().unwrap();
        drop(client);
        lab.until("forgotten", <[Session]>::is_empty);
    }
    assert_eq!(lab.uplink().counters().unwrap().malformed, 0);
}

#[test]
fn a_peer_that_finishes_first_still_hears() {
    let Some(lab) = Lab::new("a_peer_that_finishes_first_still_hears") else { return };
    let listener = lab.peer.listen("0.0.0.0:9000");
    let mut client = lab.container.connect(&format!("{PEER}:9000")).unwrap();
    let (mut server, _) = accept(&listener);
    server.write_all(b"bye").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), b"bye");
    client.write_all(b"thanks").unwrap();
    drop(client);
    assert_eq!(read_all(&mut server), b"thanks");
    let begun = Instant::now();
    lab.until("forgotten", <[Session]>::is_empty);
    assert!(begun.elapsed() < Duration::from_secs(6), "it lingers for two seconds");
}

#[test]
fn a_syn_is_answered_with_the_truth() {
    let Some(lab) = Lab::new("a_syn_is_answered_with_the_truth") else { return };
    let kind = |address: &str| lab.container.connect(address).unwrap_err();
    assert_eq!(kind(&format!("{PEER}:9")).kind(), ErrorKind::ConnectionRefused);
    assert_eq!(kind(&format!("[{PEER6}]:9")).kind(), ErrorKind::ConnectionRefused);
    assert_eq!(kind("203.0.113.1:80").kind(), ErrorKind::NetworkUnreachable);
    assert_eq!(kind("[2001:db8:1::1]:80").kind(), ErrorKind::NetworkUnreachable);
    assert_eq!(kind("192.0.2.77:80").kind(), ErrorKind::HostUnreachable);
    // A SYN that came again just then may be under way once more.
    lab.until("forgotten", <[Session]>::is_empty);

    // The peer does not answer, so the uplink does not.
    lab.peer.run(
        "nft add table t; nft add chain t i \"{ type filter hook input priority 0; }\"; nft add rule t i tcp dport 80 drop",
    );
    let address: SocketAddr = format!("{PEER}:80").parse().unwrap();
    let silent = lab.container.within(move || TcpStream::connect_timeout(&address, Duration::from_secs(3)).unwrap_err());
    assert_eq!(silent.kind(), ErrorKind::TimedOut);
    assert_eq!(lab.uplink().sessions().unwrap()[0].state, "connecting");
}

#[test]
fn what_belongs_to_the_host_alone_is_not_reached() {
    let Some(lab) = Lab::new("what_belongs_to_the_host_alone_is_not_reached") else { return };
    let _listener = TcpListener::bind("[::]:9000").unwrap();
    lab.container.run("ip route add 0.0.0.1 via 10.10.0.1");
    for address in ["0.0.0.1:9000", "[::ffff:0:127.0.0.1]:9000"] {
        assert!(lab.container.connect(address).is_err(), "{address}");
    }
    for refused in [
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.169.254",
        "::1",
        "::",
        "ff02::1",
        "fe80::1",
        "::ffff:127.0.0.1",
    ] {
        assert!(super::common::is_refused(refused.parse().unwrap()), "{refused}");
    }
    for allowed in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1", "64:ff9b::1"] {
        assert!(!super::common::is_refused(allowed.parse().unwrap()), "{allowed}");
    }
}

#[test]
fn a_network_that_is_apart_is_reached_no_more_and_the_host_in_it_is() {
    let Some(lab) = Lab::new("a_network_that_is_apart_is_reached_no_more_and_the_host_in_it_is") else { return };
    let listener = lab.peer.listen("0.0.0.0:9000");
    let target = format!("{PEER}:9000");
    let _before = lab.container.connect(&target).unwrap();
    accept(&listener);
    lab.uplink().set_apart(&[format!("{HOST}/24").parse().unwrap()]).unwrap();
    let error = lab.container.connect(&target).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable, "the kernel's word for \"prohibited\"");
    let udp = lab.container.udp("0.0.0.0:0");
    udp.connect(&target).unwrap();
    udp.send(b"question").unwrap();
    assert_eq!(udp.recv(&mut [0]).unwrap_err().kind(), ErrorKind::HostUnreachable);
    lab.container.run(&format!("! ping -c 1 -W 1 {PEER}"));
    assert_eq!(lab.uplink().counters().unwrap().refused_addresses, 3);

    let own = TcpListener::bind("0.0.0.0:9001").unwrap();
    let _client = lab.container.connect(&format!("{HOST}:9001")).unwrap();
    accept(&own);
    lab.uplink().set_apart(&[]).unwrap();
    let _after = lab.container.connect(&target).unwrap();
}

#[test]
fn resets_pass_in_both_directions() {
    let Some(lab) = Lab::new("resets_pass_in_both_directions") else { return };
    let listener = lab.peer.listen("0.0.0.0:9000");
    let reset = |stream: TcpStream| {
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    };
    let target = format!("{PEER}:9000");
    let mut client = lab.container.connect(&target).unwrap();
    reset(accept(&listener).0);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    let client = lab.container.connect(&target).unwrap();
    let (mut server, _) = accept(&listener);
    reset(client);
    assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    lab.until("forgotten", <[Session]>::is_empty);
}

/// Writes until nothing more is taken; returns how much was.
fn fill(stream: &mut TcpStream) -> usize {
    let data = pattern(1 << 20);
    let (mut written, mut stuck) = (0, Instant::now());
    stream.set_nonblocking(true).unwrap();
    while stuck.elapsed() < Duration::from_millis(700) {
        match stream.write(&data[written % data.len()..]) {
            Ok(count) => (written, stuck) = (written + count, Instant::now()),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    stream.set_nonblocking(false).unwrap();
    written
}

#[test]
fn a_slow_reader_stops_its_peer_and_loses_nothing() {
    let Some(lab) = Lab::new("a_slow_reader_stops_its_peer_and_loses_nothing") else { return };
    let listener = lab.peer.listen("0.0.0.0:9000");
    for container_writes in [true, false] {
        let client = lab.container.connect(&format!("{PEER}:9000")).unwrap();
        let (server, _) = accept(&listener);
        let (mut writer, mut reader) = if container_writes { (client, server) } else { (server, client) };
        let written = fill(&mut writer);
        assert!(written < 32 << 20, "{written} bytes without a reader");
        drop(writer);
        let data = pattern(1 << 20);
        let got = read_all(&mut reader);
        assert_eq!(got.len(), written);
        assert!(got.chunks(data.len()).all(|chunk| chunk == &data[..chunk.len()]));
    }
}

#[test]
fn a_forward_shows_the_client_and_tells_the_truth() {
    let Some(lab) = Lab::new("a_forward_shows_the_client_and_tells_the_truth") else { return };
    lab.forward(&[(nat::Protocol::Tcp, "8080", "10.10.0.2:80"), (nat::Protocol::Tcp, "8081", "[fd10::2]:80")]).unwrap();
    let target = format!("{HOST}:8080");
    let early = lab.peer.connect(&target).and_then(|mut client| client.read(&mut [0]));
    assert_eq!(early.unwrap_err().kind(), ErrorKind::ConnectionReset, "the container refuses");

    let listener = lab.container.listen("0.0.0.0:80");
    let listener6 = lab.container.listen("[fd10::2]:80");
    let exchange = |mut client: TcpStream, listener: &TcpListener, seen: IpAddr| {
        let (mut server, from) = accept(listener);
        assert_eq!(from.ip(), seen);
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut server), b"question");
        server.write_all(&pattern(200_000)).unwrap();
        drop(server);
        assert!(read_all(&mut client) == pattern(200_000));
        from.port()
    };
    let client = lab.peer.connect(&target).unwrap();
    let port = client.local_addr().unwrap().port();
    assert_eq!(exchange(client, &listener, PEER.parse().unwrap()), port);
    let client = lab.peer.connect("[2001:db8::1]:8081").unwrap();
    exchange(client, &listener6, PEER6.parse().unwrap());
    let client = lab.peer.connect("[2001:db8::1]:8080").unwrap();
    exchange(client, &listener, GATEWAY.parse().unwrap());
    for own in ["127.0.0.1:8080", &target, "[::1]:8080"] {
        let client = TcpStream::connect(own).unwrap();
        exchange(client, &listener, GATEWAY.parse().unwrap());
    }
    lab.container.run("ip link set eth0 down");
    assert!(lab.peer.connect(&target).is_ok(), "the host has accepted it");
}

#[test]
fn forwards_change_all_or_none_and_what_stays_is_not_touched() {
    let Some(lab) = Lab::new("forwards_change_all_or_none_and_what_stays_is_not_touched") else { return };
    let listener = lab.container.listen("0.0.0.0:80");
    let kept = (nat::Protocol::Tcp, "8080", "10.10.0.2:80");
    lab.forward(&[kept]).unwrap();
    let mut client = lab.peer.connect(&format!("{HOST}:8080")).unwrap();
    let (mut server, _) = accept(&listener);
    let taken = TcpListener::bind("0.0.0.0:9090").unwrap();
    let error = lab.forward(&[(nat::Protocol::Tcp, "9088-9091", "10.10.0.2:80")]).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot forward TCP port 9090 of the host: 0.0.0.0:9090 is in use by another program"),
        "{error}"
    );
    drop(taken);
    assert!(TcpListener::bind("0.0.0.0:9088").is_ok(), "nothing is left of it");
    let twice = lab.forward(&[kept, kept]).unwrap_err().to_string();
    assert_eq!(twice, "TCP port 8080 of 0.0.0.0 is forwarded twice: remove one of the two forwards");
    let all = [nat::Protocol::Tcp, nat::Protocol::Udp].map(|protocol| (protocol, "1-65535", "10.10.0.2:1"));
    assert!(matches!(lab.forward(&all), Err(HostError::TooMany(262_140, _))));

    lab.forward(&[kept, (nat::Protocol::Tcp, "9088-9091", "10.10.0.2:80")]).unwrap();
    client.write_all(b"still here").unwrap();
    server.read_exact(&mut [0; 10]).unwrap();
    assert!(lab.peer.connect(&format!("{HOST}:9088")).is_ok());
    lab.forward(&[]).unwrap();
    client.write_all(b"still here").unwrap();
    server.read_exact(&mut [0; 10]).unwrap();
    assert_eq!(lab.peer.connect(&format!("{HOST}:8080")).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_forward_moves_between_all_addresses_and_one() {
    let Some(lab) = Lab::new("a_forward_moves_between_all_addresses_and_one") else { return };
    let _listener = lab.container.listen("0.0.0.0:80");
    for protocol in [nat::Protocol::Tcp, nat::Protocol::Udp] {
        let forward = |ports: &str, listen: Option<&str>| Forward {
            rule: nat::Forward::new(protocol, ports.parse().unwrap(), "10.10.0.2:80".parse().unwrap()).unwrap(),
            listen: listen.map(|address| address.parse().unwrap()),
        };
        let is_open = |address: &str| match protocol {
            nat::Protocol::Tcp => TcpListener::bind(address).is_err(),
            nat::Protocol::Udp => UdpSocket::bind(address).is_err(),
        };
        lab.uplink().set_forwards(vec![forward("8080", None)]).unwrap();
        let taken = (TcpListener::bind("0.0.0.0:9090").unwrap(), UdpSocket::bind("0.0.0.0:9090").unwrap());
        lab.uplink().set_forwards(vec![forward("8080", Some(HOST)), forward("9090", None)]).unwrap_err();
        assert!(is_open("127.0.0.1:8080") && is_open("[::1]:8080"), "everything is as it was");
        drop(taken);
        lab.uplink().set_forwards(vec![forward("8080", Some(HOST))]).unwrap();
        assert!(is_open("192.0.2.1:8080") && !is_open("127.0.0.1:8080"));
        lab.uplink().set_forwards(vec![forward("8080", None)]).unwrap();
        assert!(is_open("127.0.0.1:8080"));
        let error = lab.uplink().set_forwards(vec![forward("8080", Some("192.0.2.99"))]).unwrap_err().to_string();
        assert!(error.contains("the host has no address 192.0.2.99"), "{error}");
    }
}

#[test]
fn datagrams_of_every_size_go_both_ways() {
    let Some(lab) = Lab::new("datagrams_of_every_size_go_both_ways") else { return };
    for (any, target) in [("0.0.0.0:0", format!("{PEER}:7000")), ("[::]:0", format!("[{PEER6}]:7000"))] {
        let server = lab.peer.udp(&target);
        let client = lab.container.udp(any);
        for length in [0, 1, 1000, 1452, 1453, 1472, 1473, 5000, 40_000, 65_507] {
            let data = pattern(length);
            client.send_to(&data, &target).unwrap();
            let mut buffer = vec![0; 65_536];
            let (count, from) = server.recv_from(&mut buffer).unwrap();
            assert!(buffer[..count] == data, "{length} bytes to the peer");
            server.send_to(&data, from).unwrap();
            let (count, from) = client.recv_from(&mut buffer).unwrap();
            assert!(buffer[..count] == data && from == target.parse().unwrap(), "{length} bytes to the container");
        }
        let session = lab.uplink().sessions().unwrap().into_iter().find(|session| session.remote == target.parse().unwrap());
        assert_eq!(session.map(|session| (session.protocol, session.sent)), Some((Protocol::Udp, 117_358)));
    }
}

#[test]
fn a_port_of_a_container_hears_whom_the_filtering_lets_in() {
    let Some(lab) = Lab::new("a_port_of_a_container_hears_whom_the_filtering_lets_in") else { return };
    lab.peer.run("ip addr add 192.0.2.4/24 dev eth0; ip addr add 2001:db8::4/64 dev eth0 nodad");
    for (any, asked, stranger) in
        [("0.0.0.0:0", "192.0.2.2:7000", "192.0.2.4:7000"), ("[::]:0", "[2001:db8::2]:7000", "[2001:db8::4]:7000")]
    {
        let sockets = [asked, &asked.replace(":7000", ":7001"), stranger].map(|address| lab.peer.udp(address));
        let hears = |filtering| {
            lab.uplink().set_filtering(filtering).unwrap();
            let client = lab.container.udp(any);
            client.send_to(b"question", asked).unwrap();
            let mut buffer = [0; 100];
            let (_, from) = sockets[0].recv_from(&mut buffer).unwrap();
            for (number, socket) in (1..).zip(&sockets) {
                socket.send_to(&[number], from).unwrap();
            }
            sockets[0].send_to(b"end", from).unwrap();
            let mut heard = Vec::new();
            while client.recv(&mut buffer).unwrap() == 1 {
                heard.push(buffer[0]);
            }
            heard
        };
        assert_eq!(hears(Filtering::EndpointIndependent), [1, 2, 3]);
        assert_eq!(hears(Filtering::AddressAndPortDependent), [1]);
        assert_eq!(hears(Filtering::AddressDependent), [1, 2]);
    }
    assert_eq!(lab.uplink().counters().unwrap().filtered, 2 * 3);
}

#[test]
fn what_datagrams_meet_is_told_to_the_container() {
    let Some(lab) = Lab::new("what_datagrams_meet_is_told_to_the_container") else { return };
    let met = |target: String, length: usize| {
        let client = lab.container.udp(if target.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" });
        // Without this the kernel keeps what may pass, such as an unreachable network, to itself (udp(7)).
        datagram::ask_for_errors(client.as_fd(), target.starts_with('[')).unwrap();
        client.connect(&target).unwrap();
        client.send(&vec![0; length]).unwrap();
        client.recv(&mut [0; 10]).unwrap_err()
    };
    assert_eq!(met(format!("{PEER}:9"), 10).kind(), ErrorKind::ConnectionRefused);
    assert_eq!(met(format!("[{PEER6}]:9"), 10).kind(), ErrorKind::ConnectionRefused);
    let unreachable = met("203.0.113.1:9".to_owned(), 10).raw_os_error();
    assert_eq!(unreachable, Some(rustix::io::Errno::NETUNREACH.raw_os_error()));

    // A smaller MTU on the host's link is the container's path MTU.
    run("ip link set up0 mtu 1300");
    let server = lab.peer.udp("0.0.0.0:7000");
    let client = lab.container.udp("0.0.0.0:0");
    rustix::net::sockopt::set_ip_mtu_discover(&client, rustix::net::sockopt::Ipv4PathMtuDiscovery::DO).unwrap();
    client.connect(format!("{PEER}:7000")).unwrap();
    client.send(&[0; 1400]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let too_long = (0..2).map(|_| client.send(&[0; 1400])).find_map(Result::err).unwrap();
    assert_eq!(too_long.raw_os_error(), Some(rustix::io::Errno::MSGSIZE.raw_os_error()));
    assert_eq!(rustix::net::sockopt::ip_mtu(&client).unwrap(), 1300);
    // The error of the first shows once more before anything is sent.
    assert!((0..2).any(|_| client.send(&[0; 1200]).is_ok()));
    assert_eq!(server.recv(&mut [0; 2000]).unwrap(), 1200);
}

#[test]
fn a_udp_forward_answers_from_where_it_was_asked() {
    let Some(lab) = Lab::new("a_udp_forward_answers_from_where_it_was_asked") else { return };
    lab.forward(&[(nat::Protocol::Udp, "5353", "10.10.0.2:53")]).unwrap();
    run("ip addr add 192.0.2.3/24 dev up0");
    let server = lab.container.udp("0.0.0.0:53");
    let ask = |client: &UdpSocket, target: &str, seen: IpAddr| {
        client.send_to(b"question", target).unwrap();
        let mut buffer = [0; 100];
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(from.ip(), seen);
        server.send_to(b"answer", from).unwrap();
        let (_, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(from, target.parse().unwrap());
    };
    let client = lab.peer.udp("0.0.0.0:0");
    ask(&client, &format!("{HOST}:5353"), PEER.parse().unwrap());
    ask(&client, "192.0.2.3:5353", PEER.parse().unwrap());
    let own = UdpSocket::bind("127.0.0.1:0").unwrap();
    own.set_read_timeout(Some(LONG)).unwrap();
    ask(&own, "127.0.0.1:5353", GATEWAY.parse().unwrap());
    lab.forward(&[]).unwrap();
    assert!(lab.uplink().sessions().unwrap().is_empty());
}

#[test]
fn pings_are_answered_with_and_without_privilege() {
    let Some(lab) = Lab::new("pings_are_answered_with_and_without_privilege") else { return };
    // Without the group, a raw socket stands in.
    for group in ["1 0", "0 2147483647"] {
        run(&format!("sysctl -qw net.ipv4.ping_group_range='{group}'"));
        for target in [PEER, PEER6] {
            for size in [56, 1473, 3000, 65_507] {
                let out = lab.container.run(&format!("ping -n -c 2 -i 0.2 -W 2 -s {size} {target}"));
                assert!(out.contains(" 0% packet loss"), "{out}");
            }
        }
        let out = lab.container.run("ping -n -c 1 -W 5 192.0.2.77 || true");
        assert!(out.contains("Destination Host Unreachable"), "{out}");
        lab.container.run("ping -n -c 1 -W 5 203.0.113.1 || true");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(lab.uplink().sessions().unwrap().iter().all(|session| session.protocol == Protocol::Echo));
    // The hop limit goes along, and a router out there is heard.
    run(&format!("ip route add 198.51.100.0/24 via {PEER}; ip route add 2001:db8:1::/64 via {PEER6}"));
    lab.peer.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    lab.peer.run("ip link add far type veth peer name away; ip link set far up; ip link set away up; ip route add 198.51.100.0/24 dev far");
    lab.peer.run("ip route add 2001:db8:1::/64 dev far");
    for (target, router) in [("198.51.100.9", PEER), ("2001:db8:1::9", PEER6)] {
        let out = lab.container.run(&format!("ping -n -c 1 -t 1 -W 5 {target} || true"));
        assert!(out.contains(&format!("From {router}")) && out.contains("exceeded"), "{out}");
    }
}

#[test]
fn a_container_that_fills_the_table_is_refused_while_others_get_in() {
    let capacity = Capacity { tcp: 8, ..Capacity::default() };
    let Some(lab) = Lab::with("a_container_that_fills_the_table_is_refused_while_others_get_in", capacity) else { return };
    lab.container.run("ip addr add 10.10.0.3/24 dev eth0");
    let listener = lab.peer.listen("0.0.0.0:9000");
    let target = format!("{PEER}:9000");
    let held: Vec<_> = (0..8).map(|_| (lab.container.connect(&target).unwrap(), accept(&listener))).collect();
    assert_eq!(lab.container.connect(&target).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    lab.container.run(&format!("echo | nc -N -s 10.10.0.3 -w 5 {PEER} 9000"));
    let mut idlest = &held[0].0;
    assert_eq!(idlest.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(lab.uplink().counters().unwrap().tcp_evicted, 1);
}

#[test]
fn an_uplink_with_nothing_to_do_sleeps() {
    let Some(lab) = Lab::new("an_uplink_with_nothing_to_do_sleeps") else { return };
    let listener = lab.peer.listen("0.0.0.0:9000");
    let pair = || {
        let client = lab.container.connect(&format!("{PEER}:9000")).unwrap();
        (client, accept(&listener).0)
    };
    let idle = pair();
    let (mut stuck_out, mut stuck_in) = (pair(), pair());
    fill(&mut stuck_out.0);
    fill(&mut stuck_in.1);
    let (half_out, half_in) = (pair(), pair());
    half_out.0.shutdown(Shutdown::Write).unwrap();
    half_in.1.shutdown(Shutdown::Write).unwrap();
    let gone = pair();
    lab.container.run("ip link set eth0 down");
    drop(gone.1);
    std::thread::sleep(Duration::from_millis(100));
    let before = lab.ticks();
    std::thread::sleep(Duration::from_secs(2));
    assert!(lab.ticks() - before < 20, "{} ticks of 10 ms in 2 s", lab.ticks() - before);
    drop((idle, stuck_out, stuck_in, half_out, half_in));
}

/// Kibibytes of memory that this process has touched.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn thousands_of_connections_live_at_once() {
    const MANY: usize = 5000;
    let Some(lab) = Lab::new("thousands_of_connections_live_at_once") else { return };
    let listener = lab.peer.listen("0.0.0.0:9000");
    let (stop, stopped) = mpsc::channel::<()>();
    let serving = std::thread::spawn(move || {
        let servers: Vec<_> = (0..MANY).map(|_| listener.accept().unwrap().0).collect();
        for mut server in &servers {
            let mut word = [0; 8];
            server.read_exact(&mut word).unwrap();
            server.write_all(&word).unwrap();
        }
        stopped.recv().unwrap();
    });
    let (begun, before) = (Instant::now(), resident());
    let address: SocketAddr = format!("{PEER}:9000").parse().unwrap();
    let clients = lab.container.within(move || {
        let clients: Vec<_> = (0..MANY).map(|_| TcpStream::connect(address).unwrap()).collect();
        for (number, mut client) in clients.iter().enumerate() {
            client.write_all(&(number as u64).to_le_bytes()).unwrap();
        }
        for (number, mut client) in clients.iter().enumerate() {
            let mut word = [0; 8];
            client.read_exact(&mut word).unwrap();
            assert_eq!(u64::from_le_bytes(word), number as u64);
        }
        clients
    });
    println!("{MANY} connections opened and used in {:?}, {} KiB more than before", begun.elapsed(), resident() - before);
    assert_eq!(lab.uplink().sessions().unwrap().len(), MANY);
    stop.send(()).unwrap();
    serving.join().unwrap();
    drop(clients);
    lab.until("forgotten", <[Session]>::is_empty);
}

#[test]
fn programs_that_people_use_work() {
    let Some(lab) = Lab::new("programs_that_people_use_work") else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    std::fs::write(directory.path().join("file"), pattern(5_000_000)).unwrap();
    let inside = |name: &Name, line: &str| {
        let mut command = Program::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", name.0)).args(["sh", "-c", &format!("exec {line}")]);
        Running(command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap())
    };
    let _servers = [
        inside(&lab.peer, &format!("python3 -m http.server --bind {PEER} --directory {path} 8000")),
        inside(&lab.peer, "iperf3 -s"),
        inside(&lab.container, &format!("python3 -m http.server --directory {path} 8000")),
    ];
    lab.forward(&[(nat::Protocol::Tcp, "8000", "10.10.0.2:8000")]).unwrap();
    for (name, url) in [(&lab.container, format!("http://{PEER}:8000/file")), (&lab.peer, format!("http://{HOST}:8000/file"))] {
        name.run(&format!("curl -sS --retry 20 --retry-delay 1 --retry-all-errors -m 30 -o {path}/copy {url}"));
        assert!(std::fs::read(directory.path().join("copy")).unwrap() == pattern(5_000_000), "{url}");
    }
    for options in [
        "-n 20M",
        "-n 20M -R",
        "-n 20M -P 4 --bidir",
        "-u -b 50M -l 1400 -t 1",
        "-u -b 50M -l 1400 -t 1 -R",
        "-n 20M -M 700 -R",
    ] {
        let text = lab.container.run(&format!("iperf3 -J -c {PEER} {options}"));
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        let bytes = report["end"]["sum_received"]["bytes"].as_u64().or(report["end"]["sum"]["bytes"].as_u64());
        assert!(bytes.is_some_and(|bytes| bytes > 1_000_000), "{options}: {text}");
    }
    let errors = lab.container.run("grep ^Tcp: /proc/net/snmp | tail -n 1");
    assert!(errors.trim_end().ends_with(" 0"), "checksum errors: {errors}");
    assert_eq!(lab.uplink().counters().unwrap().malformed, 0);
}

/// A program that ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_uplink_that_is_dropped_takes_its_device_and_sockets_along() {
    let Some(mut lab) = Lab::new("an_uplink_that_is_dropped_takes_its_device_and_sockets_along") else { return };
    lab.forward(&[(nat::Protocol::Tcp, "8080", "10.10.0.2:80")]).unwrap();
    let listener = lab.peer.listen("0.0.0.0:9000");
    let _client = lab.container.connect(&format!("{PEER}:9000")).unwrap();
    let (mut server, _) = accept(&listener);
    lab.uplink = None;
    assert!(matches!(server.read(&mut [0]), Ok(0) | Err(_)));
    assert!(TcpListener::bind("0.0.0.0:8080").is_ok());
}

#[test]
fn an_mtu_below_ipv6s_is_refused_in_one_sentence() {
    let (mac, router) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let settings = Settings {
        name: "wan".to_owned(),
        mac,
        router,
        mtu: 1000,
        capacity: Capacity::default(),
        sandbox: sandbox(),
        inherited: Arc::default(),
        holds: false,
    };
    let error = open(settings).err().unwrap().to_string();
    assert_eq!(error, "the host uplink \"wan\" cannot have an MTU of 1000: it takes from 1280 to 65535");
}

#[test]
fn a_container_that_the_router_does_not_find_is_a_reset() {
    let (mac, router) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let settings = Settings {
        name: "t".to_owned(),
        mac,
        router,
        mtu: 1500,
        capacity: Capacity::default(),
        sandbox: sandbox(),
        inherited: Arc::default(),
        holds: false,
    };
    let (uplink, mut device) = open(settings).unwrap();
    uplink.set_gateways(vec![gateway("10.10.0.1/24")]).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rule = nat::Forward::new(nat::Protocol::Tcp, free.port().to_string().parse().unwrap(), "10.10.0.9:80".parse().unwrap());
    uplink.set_forwards(vec![Forward { rule: rule.unwrap(), listen: Some(free.ip()) }]).unwrap();
    let mut client = TcpStream::connect(free).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    let mut batch = packet::Batch::new();
    while batch.frames().is_empty() {
        device.receive(&mut batch);
        std::thread::sleep(Duration::from_millis(1));
    }
    let syn = batch.frames()[0].bytes();
    let sliced = etherparse::SlicedPacket::from_ethernet(syn).unwrap();
    let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("not TCP") };
    assert!(tcp.syn() && !tcp.ack());
    assert_eq!(tcp.options()[..4], [2, 4, 5, 180], "an MSS of 1460, whatever the stack believes");
    let mut unreachable = |from: &str| {
        let kind = etherparse::Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Host);
        let header = etherparse::Icmpv4Header::with_checksum(kind, &syn[14..]);
        let message = [&header.to_bytes()[..], &syn[14..]].concat();
        let frame = plane::fragments::whole(from.parse().unwrap(), GATEWAY.parse().unwrap(), 1, &message);
        device.send(&packet::Packet::whole(&[std::io::IoSlice::new(&frame)]));
    };
    unreachable("10.10.0.66");
    assert_eq!(uplink.sessions().unwrap().len(), 1, "a container says nothing about the connections of others");
    unreachable(GATEWAY);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(uplink.sessions().unwrap(), []);
}

/// What the sessions share, without a thread; the device keeps the link open.
pub(super) fn common() -> (Common, link::HostDevice) {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), engine::WAKER).unwrap());
    let (device, link) = link::link(waker).unwrap();
    let mut outbox = Outbox::new(link, Mac([2; 6]), Mac([4; 6]), 1500);
    outbox.gateways = vec![gateway("10.10.0.1/24")];
    let registry = poll.registry().try_clone().unwrap();
    (
        Common {
            outbox,
            registry,
            apart: Apart::default(),
            counters: Counters::default(),
            doors: Doorkeeper::start("test", Arc::default()).unwrap(),
        },
        device,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// All go to addresses that are refused, so nothing of this leaves.
    #[test]
    fn no_frame_brings_it_down(
        frames in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), 0usize..8, any::<bool>()), 1..50),
    ) {
        let (mac, router) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let settings = Settings { name: "t".to_owned(), mac, router, mtu: 1500, capacity: Capacity::default(), sandbox: sandbox(), inherited: Arc::default(), holds: false };
        let (uplink, mut device) = open(settings).unwrap();
        for (payload, kind, fragment) in frames {
            let protocol = [1, 6, 17, 58][kind % 4];
            let (from, to): (IpAddr, IpAddr) = if kind < 4 {
                ([10, 0, 0, 2].into(), [127, 0, 0, 1].into())
            } else {
                ("fd10::2".parse().unwrap(), "::1".parse().unwrap())
            };
            let mut frame = plane::fragments::whole(from, to, protocol, &payload);
            if fragment && kind < 4 {
                frame[20] = 0x20;
                let sum = packet::checksum::Sum::new().plus(&frame[14..24]).plus(&frame[26..34]).checksum();
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let offload = packet::Offload { checksum: packet::Checksum::Valid, gso: None };
            device.send(&packet::Packet { offload, ..packet::Packet::whole(&[std::io::IoSlice::new(&frame)]) });
        }
        prop_assert_eq!(uplink.sessions().unwrap(), []);
        let mut batch = packet::Batch::new();
        device.receive(&mut batch);
        for frame in batch.frames() {
            prop_assert!(etherparse::SlicedPacket::from_ethernet(frame.bytes()).is_ok());
        }
    }
}
