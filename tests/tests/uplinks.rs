//! What the two kinds of uplink carry and how they behave, by the measure of other programs and of kernels at both ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use vswitch_tests::{Lab, needs};

/// Outside: a host (192.0.2.1) on the far end of the veth pair whose near end is `wan`, where vswitchd runs.
const OUTSIDE: &str = "
ip netns add @out && ip -n @out link set lo up
ip -n @host link add wan type veth peer name o0 netns @out && ip -n @host link set wan up
ip -n @out addr add 192.0.2.1/24 dev o0; ip -n @out addr add 2001:db8::1/64 dev o0 nodad; ip -n @out link set o0 up
";

const LINK: &str = r#"
[[uplink]]
name = "up"
kind = "link"
device = "wan"
address = ["192.0.2.10/24", "2001:db8::10/64"]
gateway = ["192.0.2.1", "2001:db8::1"]
"#;

const BRIDGE: &str = r#"
[[bridge]]
name = "br0"
addresses = ["10.10.0.1/24", "fd10::1/64"]
uplink = "up"
"#;

fn station(name: &str, number: u32) -> String {
    let addresses = format!("addresses = [\"10.10.0.{number}/24\", \"fd10::{number}/64\"]");
    format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\n{addresses}\n")
}

fn lab_with(file: &str) -> Lab {
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.write(file);
    lab.start();
    lab
}

/// RFC 5780 as coturn speaks it: what somebody out there finds the mapping to be.
#[test]
fn a_port_is_mapped_as_the_file_says_by_the_word_of_a_stun_server() {
    needs!("turnserver", "turnutils_natdiscovery");
    for (mapping, found) in [
        ("endpoint-independent", "NAT with Endpoint Independent Mapping"),
        ("endpoint-dependent", "NAT with Address and Port Dependent Mapping"),
    ] {
        let mut lab = lab_with(&format!("[nat]\nmapping = \"{mapping}\"\n{LINK}{BRIDGE}{}", station("a", 2)));
        lab.run_in("out", "ip addr add 192.0.2.2/24 dev o0").ok();
        let directory = lab.path("turn").display().to_string();
        std::fs::create_dir(&directory).unwrap();
        let options = "-n -S --no-tls --no-dtls --no-cli --log-file stdout -L 192.0.2.1 -L 192.0.2.2";
        lab.spawn_in("out", &format!("turnserver {options} --pidfile {directory}/pid --userdb {directory}/db"));
        lab.until("the server listens", |lab| lab.run_in("out", "ss -Hlnu").ok().contains("192.0.2.2:3479"));
        let said = lab.run_in("a", "timeout 20 turnutils_natdiscovery -m 192.0.2.1");
        assert!(said.stdout.contains(found), "{mapping}: {said:?}");
    }
}

const HOST: &str = "\n[[uplink]]\nname = \"up\"\nkind = \"host\"\n";

/// Where vswitchd runs has addresses on the way out, as a host with an uplink of that kind has.
fn host_lab(more: &str) -> Lab {
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.sh("ip -n @host addr add 192.0.2.9/24 dev wan; ip -n @host addr add 2001:db8::9/64 dev wan nodad").ok();
    lab.write(&format!("{HOST}{BRIDGE}{}{more}", station("a", 2)));
    lab.start();
    lab
}

/// Runs a program in Python in a namespace of the lab, in the background.
fn python(lab: &mut Lab, netns: &str, name: &str, program: &str, words: &str) {
    let path = lab.path(name);
    std::fs::write(&path, program).unwrap();
    lab.spawn_in(netns, &format!("python3 {} {words}", path.display()));
}

/// Sends back every datagram that comes to a port.
const ECHO: &str = "
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('::', int(sys.argv[1])))
while True:
    s.sendto(*s.recvfrom(65535))
";

/// Sends datagrams of each length to an echo, and prints the lengths that did not come back as they went.
const ASK: &str = "
import os, socket, sys
host, port, lengths = sys.argv[1], int(sys.argv[2]), map(int, sys.argv[3:])
s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
for length in lengths:
    data = os.urandom(length)
    s.sendto(data, (host, port))
    try:
        if s.recv(65535) != data: print('another', length)
    except OSError as error:
        print(error, length)
";

#[test]
fn what_is_longer_than_a_station_s_link_takes_reaches_it_through_the_host_s_sockets() {
    needs!("python3", "ping");
    let forward =
        |to: &str, port: u16| format!("[[forward]]\nuplink = \"up\"\nprotocol = \"udp\"\nport = {port}\nto = \"{to}\"\n");
    let mut lab = host_lab(&format!("{}{}", forward("10.10.0.2:7000", 7004), forward("[fd10::2]:7000", 7006)));
    for netns in ["out", "a"] {
        python(&mut lab, netns, &format!("echo-{netns}.py"), ECHO, "7000");
        lab.until("it listens", |lab| !lab.run_in(netns, "ss -Hlnu sport = :7000").ok().is_empty());
    }
    let ask = lab.path("ask.py");
    std::fs::write(&ask, ASK).unwrap();
    // What just fits, what just does not, and the longest of IPv4.
    let lengths = "0 1 1452 1453 1472 1473 2944 9000 30000 65507";
    for (netns, host, port) in
        [("a", "192.0.2.1", 7000), ("a", "2001:db8::1", 7000), ("out", "192.0.2.9", 7004), ("out", "2001:db8::9", 7006)]
    {
        let said = lab.run_in(netns, &format!("python3 {} {host} {port} {lengths}", ask.display())).ok();
        assert_eq!(said, "", "from {netns} to {host}, port {port}");
    }
    for host in ["192.0.2.1", "2001:db8::1"] {
        for length in [1452, 1473, 65_507] {
            let said = lab.run_in("a", &format!("ping -n -c 2 -i 0.2 -W 5 -s {length} {host}"));
            assert!(said.stdout.contains(" 0% packet loss"), "{host}, {length}: {said:?}");
        }
    }
    // A smaller MTU is taken account of at once.
    lab.write(&format!("{HOST}{}{}", BRIDGE.replace("uplink", "mtu = 1280\nuplink"), station("a", 2)));
    lab.ctl("reload").ok();
    for host in ["192.0.2.1", "2001:db8::1"] {
        let said = lab.run_in("a", &format!("python3 {} {host} 7000 1200 1300 65507", ask.display())).ok();
        assert_eq!(said, "", "to {host} with an MTU of 1280");
    }
}

/// Connects; dies without FIN or reset (`TCP_REPAIR`), open or half closed; connects again from the same port and prints the seconds that it
/// took.
const DIE_AND_RETURN: &str = "
import socket, sys, time
host, how = sys.argv[1], sys.argv[2]
def connect(port):
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(40)
    s.bind(('', port))
    s.connect((host, 8000))
    s.sendall(b'word')
    assert s.recv(4) == b'word'
    return s
s = connect(0)
port = s.getsockname()[1]
if how == 'station': s.shutdown(socket.SHUT_WR)
if how == 'peer':
    s.sendall(b'finish')
    assert s.recv(1) == b''
time.sleep(.3)
s.setsockopt(socket.IPPROTO_TCP, 19, 1)
s.close()
begun = time.time()
connect(port)
print('again', time.time() - begun)
";

/// Says what it hears; finishes when it is told so; and keeps its half open whatever the other does.
const PATIENT: &str = "
import socket, threading
server = socket.create_server(('::', 8000), family=socket.AF_INET6, dualstack_ipv6=True)
def serve(s):
    while data := s.recv(100):
        if data == b'finish': s.shutdown(socket.SHUT_WR)
        else: s.sendall(data)
    threading.Event().wait()
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
";

#[test]
fn a_station_that_died_without_a_word_connects_again_from_the_same_port() {
    needs!("python3");
    let mut lab = host_lab("");
    python(&mut lab, "out", "patient.py", PATIENT, "");
    lab.until("it listens", |lab| !lab.run_in("out", "ss -Hltn sport = :8000").ok().is_empty());
    let path = lab.path("die.py");
    std::fs::write(&path, DIE_AND_RETURN).unwrap();
    for host in ["192.0.2.1", "2001:db8::1"] {
        for how in ["open", "station", "peer"] {
            let said = lab.run_in("a", &format!("timeout 45 python3 {} {host} {how}", path.display()));
            let seconds = said.stdout.strip_prefix("again ").and_then(|rest| rest.trim().parse::<f64>().ok());
            assert!(seconds.is_some_and(|seconds| seconds < 10.0), "{host}, {how}: {said:?}");
        }
    }
}

/// Two ends of a connection, which speak when a file appears: the outside first.
const ENDS: &str = "
import os, socket, sys, time
end, host, port, directory = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
def wait(name):
    while not os.path.exists(f'{directory}/{name}'): time.sleep(.02)
def note(name): open(f'{directory}/{name}', 'w').close()
if end == 'outside':
    server = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True)
    note('listening')
    s = server.accept()[0]
else:
    s = socket.create_connection((host, port))
    note('connected')
wait(end)
s.sendall(end.encode())
note(f'{end}-spoke')
other = 'inside' if end == 'outside' else 'outside'
if s.recv(100) == other.encode(): note(f'{other}-heard')
wait('never')
";

#[test]
fn tcp_through_a_link_uplink_goes_on_after_a_crash_though_the_outside_speaks_first() {
    needs!("python3");
    // Namespaces that are there before outlive the switch.
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.add_netns("a");
    lab.write(&format!("{LINK}{BRIDGE}{}", station("a", 2)));
    lab.start();
    for (host, port) in [("192.0.2.1", 9004), ("2001:db8::1", 9006)] {
        let directory = lab.path(&format!("ends-{port}"));
        std::fs::create_dir(&directory).unwrap();
        let exists = |name: &str| directory.join(name).exists();
        let at = directory.display().to_string();
        python(&mut lab, "out", "outside.py", ENDS, &format!("outside {host} {port} {at}"));
        lab.until("the outside listens", |_| exists("listening"));
        python(&mut lab, "a", "inside.py", ENDS, &format!("inside {host} {port} {at}"));
        lab.until("they are connected", |_| exists("connected"));
        lab.kill();
        lab.start();
        std::fs::write(directory.join("outside"), "").unwrap();
        lab.until("what the outside says comes, and is dropped", |lab| {
            exists("outside-spoke") && lab.json("stats up")[0]["rx_drops"]["nat_older"].as_u64().is_some_and(|count| count > 0)
        });
        std::fs::write(directory.join("inside"), "").unwrap();
        lab.until("both have heard the other", |_| exists("inside-heard") && exists("outside-heard"));
    }
}

/// Opens TCP connections to each `HOST PORT` of its arguments, and says nothing of those that fail.
const CONNECT: &str = "
import socket, sys
words = sys.argv[1:]
for host, port in zip(words[::2], words[1::2]):
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(2)
    try: s.connect((host, int(port)))
    except OSError: pass
";

#[test]
fn an_address_that_the_host_has_is_no_uplinks() {
    needs!();
    let lab = lab_with(&format!("{LINK}{BRIDGE}{}", station("a", 2)));
    lab.run_in("host", "ip addr add 192.0.2.77/24 dev wan").ok();
    let said = lab.ctl("set-uplink up --address 192.0.2.77/24 --address 2001:db8::10/64").refused();
    assert!(said.contains("uplink \"up\": 192.0.2.77 is an address of this host itself"), "{said}");
    lab.ctl("set-uplink up --address 192.0.2.78/24 --address 2001:db8::10/64").ok();
}

#[test]
fn what_an_uplink_counted_is_shown_whichever_its_kind() {
    needs!("python3");
    let counted = |lab: &Lab| {
        let uplink = lab.json("list-uplinks")[0]["counters"].clone();
        assert_eq!(lab.json("stats up")[0]["counters"], uplink);
        uplink
    };
    let connect = |lab: &mut Lab, words: &str| {
        let path = lab.path("connect.py");
        std::fs::write(&path, CONNECT).unwrap();
        lab.run_in("a", &format!("python3 {} {words}", path.display())).ok();
    };
    let mut lab = host_lab("");
    assert_eq!((&counted(&lab)["tcp_refused"], &counted(&lab)["malformed"]), (&0.into(), &0.into()));
    connect(&mut lab, "192.0.2.1 9 192.0.2.1 10");
    let after = counted(&lab);
    assert_eq!((&after["tcp_refused"], &after["tcp_opened"]), (&2.into(), &0.into()), "{after}");
    for shown in ["list-uplinks", "stats up", "show"] {
        assert!(lab.ctl(shown).ok().contains("tcp-refused"), "{shown}");
    }
    let mut lab = lab_with(&format!("{LINK}{BRIDGE}{}", station("a", 2)));
    connect(&mut lab, "192.0.2.1 9 192.0.2.1 10");
    assert_eq!(counted(&lab)["sessions_created"], 2);
    assert!(lab.ctl("show").ok().contains("sessions-created 2"));
    // A port has none of it.
    assert!(lab.json("stats a")[0].get("counters").is_none());
}

#[test]
fn a_client_of_a_published_port_hears_within_seconds_that_its_station_does_not_answer() {
    needs!("curl");
    let forward =
        |port: u32, to: &str| format!("[[forward]]\nuplink = \"up\"\nprotocol = \"tcp\"\nport = \"{port}\"\nto = \"{to}\"\n");
    let lab = host_lab(&(forward(8080, "10.10.0.77:80") + &forward(8081, "[fd10::77]:80")));
    for (from, url) in [
        ("out", "http://192.0.2.9:8080/"),
        ("out", "http://[2001:db8::9]:8081/"),
        ("host", "http://127.0.0.1:8080/"),
        ("host", "http://[::1]:8081/"),
    ] {
        let said = lab.run_in(from, &format!("curl -sS -m 20 {url}"));
        assert!(said.stderr.contains("Connection reset by peer"), "{url} from {from}: {said:?}");
    }
    assert_eq!(lab.json("sessions").as_array().map(Vec::len), Some(0));
}
