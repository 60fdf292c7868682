//! vswitchd at one end of a tunnel, somebody else's VXLAN at the other: the kernel's device, Open vSwitch.

use vswitch_tests::{Lab, Underlay, across, checksum_errors, needs, ping};

/// Less than a tunnel reaches on a slow machine, more than one that loses its super-frames or checksums gets.
const FLOWING: f64 = 30e6;

/// One way to be connected.
#[derive(Clone, Copy, Debug)]
struct Way {
    v6: bool,
    group: bool,
    checksum: bool,
    offloads: bool,
}

impl Way {
    fn address(self, number: u8) -> String {
        if self.v6 { format!("2001:db8::{number}") } else { format!("192.0.2.{number}") }
    }

    fn group(self) -> &'static str {
        if self.v6 { "ff05::1:1" } else { "239.1.1.1" }
    }

    fn toml(self) -> String {
        let reach = if self.group {
            format!("group = \"{}\"\ndevice = \"u0\"", self.group())
        } else {
            format!("peers = [\"{}\"]", self.address(2))
        };
        format!(
            "[[vxlan]]\nname = \"vx0\"\nbridge = \"br0\"\nvni = 42\nlocal = \"{}\"\nudp-checksum = {}\n{reach}\n",
            self.address(1),
            self.checksum
        )
    }

    /// A host with the kernel's bridge and tunnel, and station `a` with 10.0.0.2 and fd00::2.
    fn kernel(self, underlay: &Underlay) -> Lab {
        let lab = Lab::new();
        underlay.join(&lab, 2);
        lab.add_netns("a");
        let reach = if self.group { format!("group {} dev u0", self.group()) } else { format!("remote {}", self.address(1)) };
        let checksum = match (self.checksum, self.v6) {
            (true, true) => "noudp6zerocsumtx noudp6zerocsumrx",
            (false, true) => "udp6zerocsumtx udp6zerocsumrx",
            (true, false) => "udpcsum",
            (false, false) => "noudpcsum",
        };
        let (local, mtu) = (self.address(2), if self.v6 { 1430 } else { 1450 });
        lab.sh(&format!(
            "ip -n @host link add vx0 type vxlan id 42 local {local} {reach} dstport 4789 {checksum} && \
             ip -n @host link add br0 type bridge mcast_snooping 0 && ip -n @host link set br0 up && \
             ip -n @host link set vx0 master br0 up && \
             ip -n @host link add lan mtu {mtu} type veth peer name eth0 mtu {mtu} netns @a && \
             ip -n @host link set lan master br0 up && ip -n @a link set eth0 up && \
             ip -n @a addr add 10.0.0.2/24 dev eth0 && ip -n @a addr add fd00::2/64 dev eth0 nodad"
        ))
        .ok();
        lab
    }
}

#[track_caller]
fn flows(from: &Lab, to: &Lab, address: &str, options: &str, way: impl std::fmt::Debug) {
    let before = checksum_errors(from, "a") + checksum_errors(to, "a");
    let rate = across(from, to, address, options);
    eprintln!("{way:?}: to {address} {options}: {:.0} Mbit/s", rate / 1e6);
    assert!(rate > FLOWING, "{way:?} {address}: {rate}");
    assert_eq!(checksum_errors(from, "a") + checksum_errors(to, "a"), before, "{way:?} {address}");
}

/// Everything that two stations do, in both directions, and not a malformed packet on the underlay.
#[track_caller]
fn converses(way: Way) {
    let underlay = Underlay::new();
    let kernel = way.kernel(&underlay);
    let switch = underlay.host(1, &way.toml());
    underlay.set_offloads(&switch, 1, way.offloads);
    underlay.set_offloads(&kernel, 2, way.offloads);
    let sniffed = Sniffed::start(&underlay);
    assert!(ping(&switch, "a", "10.0.0.2") && ping(&kernel, "a", "10.0.0.1"), "{way:?}");
    switch.until("IPv6 addresses are no longer tentative", |switch| ping(switch, "a", "fd00::2"));
    switch.run_in("a", "ping -n -c 1 -W 2 -s 5000 10.0.0.2").ok();
    kernel.run_in("a", "ping -n -c 1 -W 2 -s 5000 fd00::1").ok();
    sniffed.end(way);
    flows(&switch, &kernel, "10.0.0.2", "-n 16M", way);
    flows(&kernel, &switch, "10.0.0.1", "-n 16M", way);
    flows(&switch, &kernel, "fd00::2", "-n 16M", way);
    flows(&kernel, &switch, "10.0.0.1", "-u -n 4M -b 50M", way);
    flows(&switch, &kernel, "10.0.0.2", "-u -n 4M -b 50M", way);
}

/// What passes the underlay, taken by tcpdump and read by tshark.
struct Sniffed<'a> {
    underlay: &'a Underlay,
    file: std::path::PathBuf,
    tcpdump: std::process::Child,
}

impl<'a> Sniffed<'a> {
    fn start(underlay: &'a Underlay) -> Self {
        let file = underlay.fabric.path("sniffed.pcap");
        let line = format!("exec tcpdump -U --immediate-mode -Z root -i f1 -w {}", file.display());
        let mut command = underlay.fabric.command_in("host", &line);
        let tcpdump = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("tcpdump");
        underlay.fabric.until("tcpdump listens", |_| std::fs::metadata(&file).is_ok_and(|metadata| metadata.len() > 0));
        Self { underlay, file, tcpdump }
    }

    #[track_caller]
    fn end(mut self, way: impl std::fmt::Debug) {
        // Until the last packets are in the file.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
        let file = self.file.display();
        let count = |filter: &str| {
            let line = format!("tshark -r {file} -d udp.port==4789,vxlan -Y '{filter}' 2>/dev/null | wc -l");
            self.underlay.fabric.sh(&line).ok().trim().parse::<u64>().expect("a number")
        };
        assert!(count("vxlan.vni == 42 && icmp") >= 4, "{way:?}");
        assert_eq!(count("_ws.malformed || (vxlan && vxlan.flag_i == 0) || (udp.dstport == 4789 && !vxlan)"), 0, "{way:?}");
    }
}

fn ways(v6: bool, group: bool) -> impl Iterator<Item = Way> {
    let all = [(true, true), (true, false), (false, true), (false, false)];
    all.into_iter().map(move |(checksum, offloads)| Way { v6, group, checksum, offloads })
}

#[test]
fn the_kernel_over_ipv4() {
    needs!("ping", "iperf3", "ethtool", "tcpdump", "tshark");
    ways(false, false).for_each(converses);
}

#[test]
fn the_kernel_over_ipv6() {
    needs!("ping", "iperf3", "ethtool", "tcpdump", "tshark");
    ways(true, false).for_each(converses);
}

#[test]
fn the_kernel_over_an_ipv4_group() {
    needs!("ping", "iperf3", "ethtool", "tcpdump", "tshark");
    ways(false, true).for_each(converses);
}

#[test]
fn the_kernel_over_an_ipv6_group() {
    needs!("ping", "iperf3", "ethtool", "tcpdump", "tshark");
    ways(true, true).for_each(converses);
}

/// Congestion that a router marks on the outer packet reaches the station inside (RFC 6040), and the class of the inner packet is
/// that of the outer one.
#[test]
fn traffic_classes_cross_the_kernel_and_back() {
    needs!("ping", "tcpdump", "tshark");
    let way = Way { v6: false, group: false, checksum: true, offloads: true };
    let underlay = Underlay::new();
    let kernel = way.kernel(&underlay);
    let switch = underlay.host(1, &way.toml());
    assert!(ping(&switch, "a", "10.0.0.2"));
    let sniffed = Sniffed::start(&underlay);
    (0..5).for_each(|_| drop(switch.run_in("a", "ping -n -c 1 -W 2 -Q 0xba 10.0.0.2").ok()));
    let file = sniffed.file.display().to_string();
    let line = format!(
        "sleep 0.3; tshark -r {file} -d udp.port==4789,vxlan -Y 'icmp.type == 8 && ip.dsfield == 0xba' -T fields -e ip.dsfield 2>/dev/null | sort -u"
    );
    assert_eq!(underlay.fabric.sh(&line).ok().trim(), "0xba,0xba");
    sniffed.end(way);
    drop(kernel);
}

/// Open vSwitch's own datapath in user space, which is a third implementation.
#[test]
fn open_vswitch() {
    needs!("ping", "iperf3", "ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovsdb-tool");
    let underlay = Underlay::new();
    let way = Way { v6: false, group: false, checksum: true, offloads: true };
    let mut ovs = Lab::new();
    underlay.join(&ovs, 2);
    ovs.add_netns("a");
    ovs.sh("ip -n @host link add lan mtu 1450 type veth peer name eth0 mtu 1450 netns @a && ip -n @host link set lan up && \
         ip -n @a link set eth0 up && ip -n @a addr add 10.0.0.2/24 dev eth0 && ip -n @a addr add fd00::2/64 dev eth0 nodad")
        .ok();
    // It neither finishes checksums nor cuts super-frames that a veth hands it.
    ovs.run_in("a", "for what in tx tso gso gro; do ethtool -K eth0 $what off; done");
    ovs.run_in(
        "host",
        "for what in tx tso gso gro tx-udp-segmentation; do ethtool -K lan $what off; ethtool -K u0 $what off; done",
    );
    let home = ovs.path("");
    let home = home.display();
    let socket = format!("unix:{home}/db.sock");
    let schema = "/usr/share/openvswitch/vswitch.ovsschema";
    ovs.sh(&format!("ovsdb-tool create {home}/conf.db {schema}")).ok();
    let run = format!("env OVS_RUNDIR={home} OVS_DBDIR={home} OVS_LOGDIR={home}");
    ovs.spawn_in("host", &format!("{run} ovsdb-server {home}/conf.db --remote=p{socket} --unixctl={home}/db.ctl"));
    ovs.until("ovsdb-server listens", |_| std::fs::metadata(format!("{home}/db.sock")).is_ok());
    let ctl = |words: &str| format!("{run} ovs-vsctl --db={socket} --no-wait {words}");
    ovs.run_in("host", &ctl("init")).ok();
    ovs.spawn_in("host", &format!("{run} ovs-vswitchd {socket} --unixctl={home}/ovs.ctl --log-file={home}/ovs.log"));
    ovs.run_in(
        "host",
        &ctl("-- add-br br-u -- set bridge br-u datapath_type=netdev -- add-port br-u u0 \
              -- add-br br-i -- set bridge br-i datapath_type=netdev -- add-port br-i lan \
              -- add-port br-i vx0 -- set interface vx0 type=vxlan options:remote_ip=192.0.2.1 options:key=42 options:csum=true"),
    )
    .ok();
    // The tunnel's own address moves to the bridge that has the underlay's interface.
    ovs.until("the bridge is there", |ovs| ovs.run_in("host", "ip link show br-u").code == Some(0));
    ovs.run_in(
        "host",
        "ip addr flush dev u0 && ip addr add 192.0.2.2/24 dev br-u && ip link set br-u up && ip link set br-i up",
    )
    .ok();
    let switch = underlay.host(1, &way.toml());
    underlay.set_offloads(&switch, 1, false);
    ovs.until("the stations reach each other", |ovs| ping(ovs, "a", "10.0.0.1"));
    assert!(ping(&switch, "a", "10.0.0.2"));
    switch.until("IPv6 addresses are no longer tentative", |switch| ping(switch, "a", "fd00::2"));
    flows(&switch, &ovs, "10.0.0.2", "-n 16M", "Open vSwitch");
    flows(&ovs, &switch, "10.0.0.1", "-n 16M", "Open vSwitch");
}
