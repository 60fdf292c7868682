//! The same traffic through the switch and through the kernel's router with nftables: who is asked sees the same.
//!
//! Two worlds with the same addresses: stations a (10.10.0.2) and b (10.10.0.3) behind a gateway (10.10.0.1) whose outer address is
//! 192.0.2.10; outside a host (192.0.2.1, which also has 198.51.100.1 and knows a far host, 203.0.113.9, behind a link with an
//! MTU of 1280). In one world the gateway is vswitchd, in the other a namespace with a bridge, `masquerade` and `dnat`.
//! Each case is a line of shell or Python in one of the namespaces, and what it prints must be equal.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use vswitch_tests::{Lab, needs};

const SWITCH: &str = r#"
[nat]
filtering = "address-and-port-dependent"
[[uplink]]
name = "wan"
kind = "link"
device = "wan"
address = ["192.0.2.10/24", "2001:db8::10/64"]
gateway = ["192.0.2.1", "2001:db8::1"]
[[bridge]]
name = "br0"
addresses = ["10.10.0.1/24", "fd10::1/64"]
uplink = "wan"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.10.0.2/24", "fd10::2/64"]
[[port]]
name = "b"
bridge = "br0"
netns = "@b"
kind = "veth"
addresses = ["10.10.0.3/24", "fd10::3/64"]
[[forward]]
uplink = "wan"
protocol = "tcp"
port = "8080-8082"
to = "10.10.0.3:80"
[[forward]]
uplink = "wan"
protocol = "udp"
port = 9000
to = "10.10.0.3:9000"
[[forward]]
uplink = "wan"
protocol = "tcp"
port = 8080
to = "[fd10::3]:80"
"#;

/// What the kernel is told to be the same router.
const KERNEL: &str = r#"
for s in a b; do netns @$s; done
ip -n @host link add br0 type bridge && ip -n @host link set br0 up
ip -n @host addr add 10.10.0.1/24 dev br0 && ip -n @host addr add fd10::1/64 dev br0 nodad
for s in a b; do
  ip -n @host link add name p$s type veth peer name eth0 netns @$s
  ip -n @host link set dev p$s master br0 up && bridge -n @host link set dev p$s hairpin on && ip -n @$s link set eth0 up
done
ip -n @a addr add 10.10.0.2/24 dev eth0; ip -n @a addr add fd10::2/64 dev eth0 nodad
ip -n @b addr add 10.10.0.3/24 dev eth0; ip -n @b addr add fd10::3/64 dev eth0 nodad
for s in a b; do ip -n @$s route add default via 10.10.0.1; ip -n @$s -6 route add default via fd10::1; done
ip -n @host addr add 192.0.2.10/24 dev wan; ip -n @host addr add 2001:db8::10/64 dev wan nodad
ip -n @host route add default via 192.0.2.1; ip -n @host -6 route add default via 2001:db8::1
ip netns exec @host sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects; echo 0 > /proc/sys/net/ipv4/conf/br0/send_redirects'
ip netns exec @host nft -f - <<NFT
table ip nat {
  chain pre { type nat hook prerouting priority -100;
    ip daddr 192.0.2.10 tcp dport 8080-8082 dnat to 10.10.0.3 : tcp dport map { 8080 : 80, 8081 : 81, 8082 : 82 }
    ip daddr 192.0.2.10 udp dport 9000 dnat to 10.10.0.3:9000
  }
  chain post { type nat hook postrouting priority 100;
    oifname "wan" masquerade
    ip saddr 10.10.0.0/24 oifname "br0" ct status dnat snat to 192.0.2.10
  }
}
table ip6 nat {
  chain pre { type nat hook prerouting priority -100;
    ip6 daddr 2001:db8::10 tcp dport 8080 dnat to [fd10::3]:80
  }
  chain post { type nat hook postrouting priority 100;
    oifname "wan" masquerade
  }
}
NFT
"#;

/// The world outside, the same for both.
const OUTSIDE: &str = r#"
netns @out
netns @far
ip -n @host link add wan type veth peer name o0 netns @out && ip -n @host link set wan up
ip -n @out addr add 192.0.2.1/24 dev o0; ip -n @out addr add 2001:db8::1/64 dev o0 nodad; ip -n @out link set o0 up
ip -n @out addr add 198.51.100.1/32 dev lo
ip -n @out link add f0 type veth peer name f1 netns @far
ip -n @out addr add 203.0.113.1/24 dev f0; ip -n @far addr add 203.0.113.9/24 dev f1
ip -n @out addr add 2001:db8:f::1/64 dev f0 nodad; ip -n @far addr add 2001:db8:f::9/64 dev f1 nodad
ip -n @out link set f0 mtu 1280 up; ip -n @far link set f1 mtu 1280 up
ip -n @far route add default via 203.0.113.1; ip -n @far -6 route add default via 2001:db8:f::1
ip netns exec @out sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
"#;

/// What a peer does, and what a station sees of it.
const PROBE: &str = r#"
import socket, struct, sys, threading, time, select, os
what, args = sys.argv[1], sys.argv[2:]
def family(a): return socket.AF_INET6 if ":" in a else socket.AF_INET
def sock(a, kind, port=0, local=None):
    s = socket.socket(family(a), kind); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.settimeout(6)
    if port: s.bind((local or ("::" if ":" in a else "0.0.0.0"), port))
    return s
def connect(a, port, local=0):
    s = sock(a, socket.SOCK_STREAM, local)
    try: s.connect((a, port)); return s, "connected"
    except OSError as e: return s, e.strerror or type(e).__name__
if what == "serve":   # TCP and UDP: says who asks; behaves as the first line wants
    port = int(args[0])
    u6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u6.bind(("::", port))
    t6 = socket.socket(socket.AF_INET6, socket.SOCK_STREAM); t6.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    t6.bind(("::", port)); t6.listen(64)
    def one(c, peer):
        line = c.recv(100)
        who = f"{peer[0].replace('::ffff:', '')} {peer[1]}\n".encode()
        if line == b"reset": c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); c.close(); return
        if line == b"half":
            c.sendall(who); c.shutdown(socket.SHUT_WR); rest = b""
            while True:
                d = c.recv(1000)
                if not d: break
                rest += d
            open(f"/tmp/vs-half-{os.getpid()}", "wb").write(rest); c.close(); return
        if line == b"waitreset":
            try: c.recv(10); said = "closed"
            except ConnectionResetError: said = "reset"
            global last; last = said; return
        if line == b"last": c.sendall(last.encode()); c.close(); return
        if line.startswith(b"big"): c.sendall(b"x" * 300000); c.close(); return
        c.sendall(who); c.close()
    def tcp():
        while True: threading.Thread(target=one, args=t6.accept(), daemon=True).start()
    last = ""
    threading.Thread(target=tcp, daemon=True).start()
    print("up", flush=True)
    while True:
        d, peer = u6.recvfrom(65535)
        who = f"{peer[0].replace('::ffff:', '')} {peer[1]} {len(d)}".encode()
        if d == b"otherport":
            o = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); o.sendto(b"other", peer[:2])
        elif d == b"otherhost":
            o = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); o.bind(("198.51.100.1", port))
            o.sendto(b"other", (peer[0].replace("::ffff:", ""), peer[1]))
        else: u6.sendto(who, peer[:2])
elif what == "tcp":   # address port local-port line
    a, port, local, line = args[0], int(args[1]), int(args[2]), args[3].encode()
    s, said = connect(a, port, local)
    if said != "connected": print(said); sys.exit()
    s.sendall(line)
    try:
        got = b""
        while True:
            d = s.recv(65536)
            if not d: break
            got += d
        print(got.decode() if len(got) < 1000 else len(got))
        if line == b"half": s.sendall(b"still here"); s.close(); print("half ok")
    except OSError as e: print(e.strerror)
elif what == "reset":
    s, said = connect(args[0], int(args[1])); s.sendall(b"waitreset"); time.sleep(0.3)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close(); time.sleep(0.3)
    s, said = connect(args[0], int(args[1])); s.sendall(b"last"); print(s.recv(100).decode())
elif what == "udp":   # address port local-port size|word
    a, port, local = args[0], int(args[1]), int(args[2])
    data = b"x" * int(args[3]) if args[3].isdigit() else args[3].encode()
    s = sock(a, socket.SOCK_DGRAM, local); s.settimeout(2); s.connect((a, port))
    if len(args) > 4 and args[4] == "df": s.setsockopt(0, 10, 2)
    try:
        for _ in range(3):
            try: s.send(data); break
            except OSError as e: print(e.strerror); break
        print(s.recv(65535).decode())
    except socket.timeout: print("silence")
    except OSError as e: print(e.strerror)
elif what == "udpany":  # unconnected: hears whoever answers
    a, port, local, word = args[0], int(args[1]), int(args[2]), args[3].encode()
    s = sock(a, socket.SOCK_DGRAM, local); s.settimeout(1.5)
    s.sendto(b"hello", (a, port)); print(s.recv(100).decode())
    s.sendto(word, (a, port))
    try: print(s.recv(100).decode())
    except socket.timeout: print("silence")
elif what == "pmtu":
    a, port = args[0], int(args[1])
    s = sock(a, socket.SOCK_DGRAM); s.settimeout(2); s.connect((a, port))
    s.setsockopt(0, 10, 2) if ":" not in a else s.setsockopt(41, 23, 2)
    for _ in range(2):
        try: s.send(b"x" * 1400); print(s.recv(100).decode())
        except OSError as e: print(e.strerror)
    print(s.getsockopt(0, 14) if ":" not in a else s.getsockopt(41, 24))
elif what == "hops":  # who answers a packet with this hop limit
    a, ttl = args[0], int(args[1])
    s = sock(a, socket.SOCK_DGRAM)
    if ":" in a: s.setsockopt(41, 16, ttl); s.setsockopt(41, 25, 1)
    else: s.setsockopt(0, 2, ttl); s.setsockopt(0, 11, 1)
    s.sendto(b"probe", (a, 33434)); time.sleep(0.5)
    try:
        _, aux, _, _ = s.recvmsg(100, 512, 0x2000 | 0x40)
        for level, kind, data in aux:
            errno, origin, icmp, code = struct.unpack("IBBB", data[:7])
            off = data[16:]
            at = socket.inet_ntop(socket.AF_INET6, off[8:24]) if ":" in a else socket.inet_ntoa(off[4:8])
            print(os.strerror(errno), icmp, code, at)
    except OSError as e: print("silence", e.strerror)
"#;

/// Where a case runs, what it is, and its line; `probe` stands for the Python above.
const CASES: &[(&str, &str, &str)] = &[
    ("a", "ping the gateway", "ping -c1 -W2 10.10.0.1 | grep -o '1 received'"),
    ("a", "ping outside", "ping -c1 -W2 192.0.2.1 | grep -o '1 received.*loss'"),
    ("a", "ping behind outside", "ping -c1 -W2 198.51.100.1 | grep -Eo 'ttl=[0-9]+|1 received'"),
    (
        "a",
        "ping a network that outside does not know",
        "ping -c1 -W2 240.1.1.1 2>&1 | grep -Eo 'Net Unreach|Host Unreach|0 received'; ping -c1 -W2 100.64.0.1 | grep -Eo 'From [0-9.]+|Unreachable|0 received'",
    ),
    ("a", "ping with much data", "ping -c1 -W2 -s 6000 198.51.100.1 | grep -Eo '6008 bytes|1 received'"),
    (
        "a",
        "ping that may not be cut",
        "ping -c1 -W2 -M do -s 1400 203.0.113.9; ping -c1 -W2 -M do -s 1400 203.0.113.9 2>&1 | grep -Eo 'mtu ?= ?1280|1 received'; true",
    ),
    ("a", "a TCP client keeps its port", "probe tcp 192.0.2.1 7000 5001 hello"),
    ("a", "a TCP client beyond", "probe tcp 198.51.100.1 7000 5002 hello"),
    ("a", "a TCP port that nobody serves", "probe tcp 192.0.2.1 7999 0 hello"),
    ("a", "a TCP host that is not there", "probe tcp 203.0.113.77 80 0 hello"),
    ("a", "a TCP server that resets", "probe tcp 192.0.2.1 7000 0 reset"),
    ("a", "a TCP client that resets", "probe reset 192.0.2.1 7000"),
    ("a", "a TCP server that closes its half", "probe tcp 192.0.2.1 7000 5003 half"),
    ("a", "a TCP port used again at once", "probe tcp 192.0.2.1 7000 5004 hello; probe tcp 192.0.2.1 7000 5004 hello"),
    ("a", "much data by a small MTU", "probe tcp 203.0.113.9 7000 0 big"),
    ("a", "a UDP client keeps its port", "probe udp 192.0.2.1 7000 6001 100"),
    ("a", "a UDP port that nobody serves", "probe udp 192.0.2.1 7998 0 100"),
    ("a", "a UDP datagram in fragments", "probe udp 198.51.100.1 7000 6002 5000"),
    ("a", "an answer from another port", "probe udpany 192.0.2.1 7000 6003 otherport"),
    ("a", "an answer from another host", "probe udpany 192.0.2.1 7000 6004 otherhost"),
    ("a", "path MTU", "probe pmtu 203.0.113.9 7000"),
    ("a", "the first hop", "probe hops 198.51.100.1 1"),
    ("a", "the second hop, which is the end", "probe hops 198.51.100.1 2"),
    ("a", "the second hop on the way", "probe hops 203.0.113.9 2"),
    ("a", "a TCP port of the gateway", "probe tcp 10.10.0.1 7 0 hello"),
    ("a", "a UDP port of the gateway", "probe udp 10.10.0.1 7 0 hello"),
    ("b", "a second client with the same port", "probe udp 192.0.2.1 7000 6001 100 | sed 's/ [0-9]* / PORT /'"),
    ("out", "a published port", "probe tcp 192.0.2.10 8080 5100 hello"),
    ("out", "the second of a range", "probe tcp 192.0.2.10 8081 5101 hello"),
    ("out", "a published port that nobody serves", "probe tcp 192.0.2.10 8082 0 hello"),
    ("out", "a published UDP port", "probe udp 192.0.2.10 9000 6100 100"),
    ("out", "a published UDP port in fragments", "probe udp 192.0.2.10 9000 6101 4000"),
    ("far", "a published port from far", "probe tcp 192.0.2.10 8080 5102 big"),
    ("out", "a TCP port that is not published", "probe tcp 192.0.2.10 81 0 hello"),
    ("out", "a UDP port that is not published", "probe udp 192.0.2.10 82 0 hello"),
    ("out", "ping the outer address", "ping -c1 -W2 192.0.2.10 | grep -o '1 received'"),
    (
        "out",
        "the inside is not reached directly",
        "ip route add 10.99.0.0/24 via 192.0.2.10; probe tcp 10.99.0.3 80 0 hello | cut -c 1-4",
    ),
    ("a", "a published port from inside", "probe tcp 192.0.2.10 8080 5200 hello"),
    ("b", "a published port from its own station", "probe tcp 192.0.2.10 8080 5201 hello"),
    ("a", "a published UDP port from inside", "probe udp 192.0.2.10 9000 6200 100"),
    ("a", "the outer address from inside", "ping -c1 -W2 192.0.2.10 | grep -o '1 received'"),
    ("a", "IPv6: ping", "ping -c1 -W2 2001:db8::1 | grep -Eo 'ttl=[0-9]+|1 received'"),
    ("a", "IPv6: a TCP client", "probe tcp 2001:db8::1 7000 5300 hello"),
    ("a", "IPv6: a port that nobody serves", "probe tcp 2001:db8::1 7999 0 hello"),
    ("a", "IPv6: a UDP client", "probe udp 2001:db8::1 7000 6300 100"),
    ("a", "IPv6: a UDP port that nobody serves", "probe udp 2001:db8::1 7998 0 100"),
    ("a", "IPv6: the first hop", "probe hops 2001:db8::1 1 | sed 's/fd10.*/gateway/'"),
    ("a", "IPv6: path MTU", "probe pmtu 2001:db8:f::9 7000"),
    ("a", "IPv6: much data by a small MTU", "probe tcp 2001:db8:f::9 7000 0 big"),
    ("out", "IPv6: a published port", "probe tcp 2001:db8::10 8080 5301 hello"),
];

struct World {
    lab: Lab,
}

impl World {
    fn new(by_switch: bool) -> Self {
        let mut lab = Lab::new();
        lab.sh(OUTSIDE).ok();
        if by_switch {
            lab.write(SWITCH);
            lab.start();
        } else {
            lab.sh(KERNEL).ok();
        }
        std::fs::write(lab.path("probe.py"), PROBE).unwrap();
        let script = lab.path("probe.py").display().to_string();
        // Stations answer at once only when duplicate address detection is over.
        for netns in ["a", "b"] {
            lab.until("addresses are ready", |lab| lab.run_in(netns, "ip -6 addr show tentative").ok().is_empty());
        }
        for (netns, port) in [("out", 7000), ("far", 7000), ("b", 80), ("b", 81), ("b", 9000)] {
            lab.spawn_in(netns, &format!("python3 {script} serve {port}"));
            lab.until("a server listens", |lab| !lab.run_in(netns, &format!("ss -Hltn sport = :{port}")).ok().is_empty());
        }
        Self { lab }
    }

    fn see(&self, netns: &str, line: &str) -> String {
        let line = line.replace("probe ", &format!("python3 {} ", self.lab.path("probe.py").display()));
        let outcome = self.lab.run_in(netns, &line);
        format!("{}{}", outcome.stdout, outcome.stderr)
    }
}

#[test]
fn the_kernel_and_the_switch_do_the_same() {
    needs!("ping", "python3", "nft");
    let (switch, kernel) = std::thread::scope(|scope| {
        let switch = scope.spawn(|| World::new(true));
        let kernel = scope.spawn(|| World::new(false));
        (switch.join().unwrap(), kernel.join().unwrap())
    });
    let all = |world: &World| CASES.iter().map(|(netns, _, line)| world.see(netns, line)).collect::<Vec<_>>();
    let (ours, theirs) = std::thread::scope(|scope| {
        let ours = scope.spawn(|| all(&switch));
        let theirs = scope.spawn(|| all(&kernel));
        (ours.join().unwrap(), theirs.join().unwrap())
    });
    let mut different = String::new();
    for (((netns, what, _), ours), theirs) in CASES.iter().zip(&ours).zip(&theirs) {
        println!("{netns}: {what}: {ours:?}");
        if ours != theirs {
            different += &format!("{netns}: {what}\n  switch {ours:?}\n  kernel {theirs:?}\n");
        }
    }
    assert!(CASES.len() >= 30 && different.is_empty(), "\n{different}");
}
