use std::collections::BTreeSet;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ::packet::{Batch, Capabilities, Packet};

use super::netns::Namespace;
use super::*;
use api::{Netns, PortKind, VlanMode};
use plane::device::{Device, ReceiveStatus, Sent};
use sys::{netns as own, packet};

/// Puts the test's thread, and so what it calls "vswitchd's own namespace", into a new namespace. `None`: not on this machine.
fn prepare(test: &str) -> Option<()> {
    let reason = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if !std::path::Path::new("/dev/net/tun").exists() {
        "needs /dev/net/tun"
    } else {
        own::unshare().unwrap();
        run("ip link set lo up");
        return Some(());
    };
    testing::skipped(test, reason);
    None
}

/// A name for a namespace, which is removed at the end whether the test or the switch made it.
struct Name(String);

impl Name {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self(format!("vst-attach-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    fn exists(&self) -> bool {
        std::path::Path::new("/run/netns").join(&self.0).exists()
    }

    fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.0))
    }

    fn exec(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.0))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = remove_netns(&self.0);
    }
}

fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn port(kind: PortKind, netns: Option<&Name>) -> PortSpec {
    PortSpec {
        name: "web".parse().unwrap(),
        bridge: "br0".parse().unwrap(),
        kind,
        netns: netns.map(|name| Netns::Name(name.0.clone())),
        ifname: "eth0".parse().unwrap(),
        mac: Some("02:00:00:00:00:0a".parse().unwrap()),
        addresses: vec!["10.10.0.2/24".parse().unwrap(), "fd10::2/64".parse().unwrap()],
        vlans: VlanMode::All,
        policy: api::PortPolicy::default(),
        offload: true,
    }
}

/// An open port with the devices of its workers.
struct Open {
    devices: Vec<Box<dyn Device>>,
    made_netns: bool,
    reopened: bool,
    ifname: String,
    ifindex: u32,
    mac: Option<Mac>,
    features: Vec<String>,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("ifname", &self.ifname).finish_non_exhaustive()
    }
}

fn attach_with(spec: &PortSpec, mtu: u16, workers: usize) -> Result<Open, AttachError> {
    let attached = attach(&Plan {
        spec: spec.clone(),
        first_mac: None,
        mtu,
        workers,
        held: Vec::new(),
        gateways: vec!["10.10.0.1/24".parse().unwrap(), "fd10::1/64".parse().unwrap()],
        netns_mark: String::new(),
        routes: Vec::new(),
    })?;
    let Attachment { queues, made_netns, reopened, ifname, ifindex, mac, features, .. } = attached;
    Ok(Open { devices: queues.devices(), made_netns, reopened, ifname, ifindex, mac, features })
}

fn plain(spec: &PortSpec) -> Open {
    attach_with(spec, 1500, 1).unwrap()
}

/// A raw socket on the station's device.
fn station(spec: &PortSpec, index: u32) -> OwnedFd {
    let namespace = Namespace::open(spec.netns.as_ref()).unwrap();
    let open = || {
        let fd = packet::open().unwrap();
        packet::set_auxiliary_data(fd.as_fd()).unwrap();
        packet::ignore_outgoing(fd.as_fd()).unwrap();
        packet::bind(fd.as_fd(), index).unwrap();
        Ok(fd)
    };
    namespace.run(open).unwrap()
}

/// A frame of an experimental protocol (IEEE 802.1, 88b5), with or without a tag.
fn frame(tag: Option<[u8; 4]>, fill: u8) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0xbb, 0x02, 0, 0, 0, 0, 0xaa];
    frame.extend(tag.into_iter().flatten());
    frame.extend([0x88, 0xb5]);
    frame.resize(frame.len() + 100, fill);
    frame
}

fn is_ours(frame: &[u8]) -> bool {
    frame.windows(2).skip(12).take(5).any(|kind| kind == [0x88, 0xb5])
}

/// What the device receives of our protocol, until there are `count` frames or nothing came for a while.
fn received(device: &mut dyn Device, count: usize) -> Vec<Vec<u8>> {
    let (mut batch, mut frames, start) = (Batch::new(), Vec::new(), Instant::now());
    while frames.len() < count && start.elapsed() < Duration::from_millis(500) {
        batch.clear();
        if device.receive(&mut batch).status == ReceiveStatus::Drained {
            std::thread::sleep(Duration::from_millis(2));
        }
        frames.extend(batch.frames().iter().map(|frame| frame.bytes().to_vec()).filter(|frame| is_ours(frame)));
    }
    frames
}

/// What a station's socket receives, with its tag.
fn heard(socket: &OwnedFd, wanted: impl Fn(&[u8]) -> bool) -> Option<(Vec<u8>, Option<[u8; 4]>)> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        let mut buffer = [0; 2000];
        match packet::receive(socket.as_fd(), &mut [std::io::IoSliceMut::new(&mut buffer)]) {
            Ok(reception) if wanted(&buffer[..reception.length]) => {
                return Some((buffer[..reception.length].to_vec(), reception.tag));
            }
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    None
}

fn exchange(spec: &PortSpec, attachment: &mut Open) {
    let socket = station(spec, attachment.ifindex);
    let device = &mut attachment.devices[0];
    for tag in [None, Some([0x81, 0, 0x60, 10]), Some([0x88, 0xa8, 0, 20])] {
        let sent = frame(tag, 1);
        rustix::io::write(&socket, &sent).unwrap();
        assert_eq!(received(device.as_mut(), 1), [sent], "to the switch");

        let sent = frame(tag, 2);
        let (head, tail) = sent.split_at(30);
        assert_eq!(device.send(&Packet::whole(&[IoSlice::new(head), IoSlice::new(tail)])), Sent::Done);
        let (bytes, stripped) = heard(&socket, is_ours).expect("to the station");
        assert_eq!((bytes, stripped), (frame(None, 2), tag), "the tag is beside the frame");
    }
}

#[test]
fn a_tap_is_made_in_a_new_namespace_as_wanted() {
    let Some(()) = prepare("a_tap_is_made_in_a_new_namespace_as_wanted") else { return };
    let name = Name::new();
    let spec = port(PortKind::Tap, Some(&name));
    let mut attachment = attach_with(&spec, 1400, 2).unwrap();
    assert!(attachment.made_netns && !attachment.reopened && attachment.devices.len() == 2);
    assert_eq!((attachment.mac, attachment.ifname.as_str()), (spec.mac, "eth0"));
    let link = name.ip("-d link show dev eth0");
    for part in
        ["mtu 1400", "qlen 8192", "02:00:00:00:00:0a", "alias vswitch port web", ",UP,LOWER_UP", "persist on", "multi_queue"]
    {
        assert!(link.contains(part), "{part}: {link}");
    }
    let addresses = name.ip("addr show dev eth0");
    assert!(addresses.contains("inet 10.10.0.2/24") && addresses.contains("inet6 fd10::2/64"), "{addresses}");
    assert!(!addresses.contains("fd10::2/64 scope global tentative"), "{addresses}");
    assert!(name.ip("route").contains("default via 10.10.0.1 dev eth0"));
    assert!(name.ip("-6 route").contains("default via fd10::1 dev eth0"));
    assert!(name.ip("link show dev lo").contains("LOOPBACK,UP"));
    assert!(name.exec("ethtool eth0").contains("Speed: 10000Mb/s"));
    assert_eq!(attachment.devices[0].capabilities(), Capabilities::ALL);
    let socket = station(&spec, attachment.ifindex);
    rustix::io::write(&socket, &frame(None, 7)).unwrap();
    let got: Vec<_> = attachment.devices.iter_mut().flat_map(|device| received(device.as_mut(), 1)).collect();
    assert_eq!(got, [frame(None, 7)], "on one queue or the other");
    let sent = attachment.devices[0].send(&Packet::whole(&[IoSlice::new(&frame(None, 8))]));
    assert_eq!((sent, heard(&socket, is_ours)), (Sent::Done, Some((frame(None, 8), None))));
}

#[test]
fn a_tap_survives_its_process_and_is_found_again() {
    let Some(()) = prepare("a_tap_survives_its_process_and_is_found_again") else { return };
    let name = Name::new();
    let mut spec = port(PortKind::Tap, Some(&name));
    let first = attach_with(&spec, 1500, 1).unwrap();
    assert!(name.ip("-d link show dev eth0").contains("qdisc noqueue"), "another would cost 50 MB");
    name.ip("addr add 10.99.0.1/24 dev eth0");
    let busy = attach_with(&spec, 1500, 1).unwrap_err();
    let expected = format!(
        "interface \"eth0\" in namespace \"{}\" is in use by another process: stop that one, or choose another `ifname`",
        name.0
    );
    assert_eq!(busy.to_string(), expected);
    let index = first.ifindex;
    drop(first);
    spec.addresses = vec!["10.10.0.3/24".parse().unwrap()];
    let mut second = attach_with(&spec, 1450, 3).unwrap();
    let socket = station(&spec, second.ifindex);
    rustix::io::write(&socket, &frame(None, 7)).unwrap();
    assert_eq!(received(second.devices[0].as_mut(), 1), [frame(None, 7)]);
    for (number, device) in (1..).zip(&mut second.devices) {
        assert_eq!(device.send(&Packet::whole(&[IoSlice::new(&frame(None, number))])), Sent::Done);
        assert_eq!(heard(&socket, is_ours), Some((frame(None, number), None)));
    }
    assert!(second.reopened && !second.made_netns && second.ifindex == index && second.devices.len() == 3);
    let addresses = name.ip("addr show dev eth0");
    assert!(addresses.contains("mtu 1450") && addresses.contains("10.10.0.3/24"), "{addresses}");
    assert!(addresses.contains("10.99.0.1/24"), "not ours to remove: {addresses}");
    assert!(!addresses.contains("10.10.0.2/24") && !addresses.contains("fd10::2"), "{addresses}");
    detach(&spec).unwrap();
    let mut batch = Batch::new();
    let statuses: Vec<_> = second.devices.into_iter().map(|mut device| device.receive(&mut batch).status).collect();
    assert_eq!(statuses, [ReceiveStatus::Gone; 3]);
    assert!(!name.ip("link").contains("eth0"));
    detach(&spec).unwrap();
    remove_netns(&name.0).unwrap();
    detach(&spec).unwrap();
    remove_netns(&name.0).unwrap();
}

#[test]
fn a_tap_of_several_workers_is_found_by_one() {
    let Some(()) = prepare("a_tap_of_several_workers_is_found_by_one") else { return };
    let name = Name::new();
    let spec = port(PortKind::Tap, Some(&name));
    let first = attach_with(&spec, 1500, 2).unwrap();
    assert!(first.features.contains(&"multi_queue".to_owned()));
    drop(first);
    let mut second = attach_with(&spec, 1500, 1).unwrap();
    assert!(second.reopened && second.devices.len() == 1 && second.features.contains(&"multi_queue".to_owned()));
    let socket = station(&spec, second.ifindex);
    rustix::io::write(&socket, &frame(None, 7)).unwrap();
    assert_eq!(received(second.devices[0].as_mut(), 1), [frame(None, 7)]);
}

#[test]
fn a_tap_of_one_queue_is_found_as_it_was_made() {
    let Some(()) = prepare("a_tap_of_one_queue_is_found_as_it_was_made") else { return };
    let name = Name::new();
    let spec = port(PortKind::Tap, Some(&name));
    make_netns(&name.0, "").unwrap();
    let make = || {
        let queue = sys::tun::open().unwrap();
        sys::tun::attach_queue(queue.as_fd(), "eth0", false).unwrap();
        sys::tun::set_persistent(queue.as_fd(), true).unwrap();
        Ok(())
    };
    Namespace::open(spec.netns.as_ref()).unwrap().run(make).unwrap();
    name.ip("link set eth0 alias vswitch\\ port\\ web");
    let mut found = attach_with(&spec, 1500, 3).unwrap();
    assert!(found.reopened && !found.features.iter().any(|feature| feature == "multi_queue" || feature == "flow_queues"));
    // The first worker reads its queue, all write.
    assert_eq!(found.devices.iter().map(|device| device.receives()).collect::<Vec<_>>(), [true, false, false]);
    exchange(&spec, &mut found);
}

/// A datagram of one flow of a station, with its number.
fn datagram(port: u16, number: u32) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xaa], [2, 0, 0, 0, 0, 0xbb]);
    let mut frame = Vec::new();
    let payload = [&number.to_be_bytes()[..], &[0; 1000]].concat();
    builder.ipv4([10, 10, 0, 2], [10, 10, 0, 3], 64).udp(port, 7).write(&mut frame, &payload).unwrap();
    frame
}

/// The ports and numbers of the datagrams that one call brings.
fn batch_of(device: &mut dyn Device) -> Vec<(u16, u32)> {
    let mut batch = Batch::new();
    device.receive(&mut batch);
    let read = |frame: &::packet::Frame| {
        let bytes = frame.bytes().get(12..46).filter(|bytes| bytes.starts_with(&[8, 0]) && bytes[11] == 17)?;
        let (port, number) = (bytes[22..24].try_into().unwrap(), bytes[30..34].try_into().unwrap());
        Some((u16::from_be_bytes(port), u32::from_be_bytes(number)))
    };
    batch.frames().iter().filter_map(read).collect()
}

#[test]
fn a_bulk_flow_leaves_the_way_free_and_keeps_its_order() {
    let Some(()) = prepare("a_bulk_flow_leaves_the_way_free_and_keeps_its_order") else { return };
    for kind in [PortKind::Tap, PortKind::Veth] {
        flood_and_ask(kind);
    }
}

fn flood_and_ask(kind: PortKind) {
    const BULK: u16 = 1000;
    const SPARSE: u16 = 2000;
    let name = Name::new();
    let spec = port(kind, Some(&name));
    let mut attachment = plain(&spec);
    assert!(attachment.features.contains(&"flow_queues".to_owned()), "{:?}", attachment.features);
    let socket = station(&spec, attachment.ifindex);
    let device = attachment.devices[0].as_mut();
    let mut sent = 0;
    let mut send_bulk = |count| {
        for number in sent..sent + count {
            rustix::io::write(&socket, &datagram(BULK, number)).unwrap();
        }
        sent += count;
    };
    send_bulk(500);
    let mut got = batch_of(device);
    assert!(got.len() > 10, "{got:?}");
    // The flow has another queue now, while older frames of it wait in the first.
    send_bulk(500);
    while got.last() != Some(&(BULK, 999)) {
        got.extend(batch_of(device));
    }
    assert_eq!(got, (0..1000).map(|number| (BULK, number)).collect::<Vec<_>>());
    // The worker hears of what comes.
    send_bulk(1000);
    device.wake(1);
    assert_eq!(batch_of(device).len(), 64);
    rustix::io::write(&socket, &datagram(SPARSE, 0)).unwrap();
    device.wake(0);
    assert_eq!(batch_of(device), [(SPARSE, 0)], "it waited behind the others");
}

#[test]
fn a_failure_halfway_leaves_nothing_behind() {
    let Some(()) = prepare("a_failure_halfway_leaves_nothing_behind") else { return };
    let name = Name::new();
    let error = attach_with(&port(PortKind::Tap, Some(&name)), 65_535, 1).unwrap_err().to_string();
    assert!(error.starts_with("cannot set MTU 65535 on \"eth0\" in namespace"), "{error}");
    assert!(!name.exists());

    make_netns(&name.0, "").unwrap();
    name.exec("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    for kind in [PortKind::Tap, PortKind::Veth] {
        let error = attach_with(&port(kind, Some(&name)), 1500, 1).unwrap_err().to_string();
        assert!(error.contains("IPv6 is switched off there"), "{error}");
        assert!(name.exists() && !name.ip("link").contains("eth0"));
        assert!(!run("ip link").contains("vsw-"));
    }
}

#[test]
fn foreign_and_missing_interfaces_are_named() {
    let Some(()) = prepare("foreign_and_missing_interfaces_are_named") else { return };
    let name = Name::new();
    make_netns(&name.0, "").unwrap();
    name.ip("link add eth0 type veth peer name foreign");
    for kind in [PortKind::Tap, PortKind::Veth] {
        let error = attach_with(&port(kind, Some(&name)), 1500, 1).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("interface \"eth0\" exists already in namespace \"{}\" and is not vswitch's", name.0))
        );
        detach(&port(kind, Some(&name))).unwrap();
    }
    assert!(name.ip("link").contains("eth0"));
    let link = |ifname: &str, netns: &str| {
        let mut spec = port(PortKind::Link, Some(&name));
        spec.ifname = ifname.parse().unwrap();
        spec.netns = netns.parse().ok().or(spec.netns);
        attach_with(&spec, 1500, 1).unwrap_err().to_string()
    };
    assert!(link("eth9", "").starts_with("there is no interface \"eth9\" in namespace"));
    assert!(link("lo", "").contains("is the loopback"));
    assert!(link("eth0", "vst-none").starts_with("there is no network namespace vst-none"));
    assert!(link("eth0", "pid:4194305").contains("there is no such process"));
    assert!(link("eth0", "/etc/hostname").starts_with("/etc/hostname is not a network namespace"));
}

#[test]
fn a_veth_pair_moves_frames_both_ways() {
    let Some(()) = prepare("a_veth_pair_moves_frames_both_ways") else { return };
    let name = Name::new();
    let spec = port(PortKind::Veth, Some(&name));
    let mut attachment = plain(&spec);
    exchange(&spec, &mut attachment);
    assert!(name.ip("addr show dev eth0").contains("10.10.0.2/24"));
    assert!(run("ip -d link show dev vsw-web").contains("addrgenmode none"));
    for feature in ["vnet_hdr", "checksum", "tso", "uso", "vlan_auxdata", "stack_isolated"] {
        assert!(attachment.features.iter().any(|f| f == feature), "{feature}: {:?}", attachment.features);
    }
    drop(attachment);
    let again = plain(&spec);
    assert!(again.reopened);
    detach(&spec).unwrap();
    assert!(!run("ip link").contains("vsw-") && !name.ip("link").contains("eth0"));
    detach(&spec).unwrap();
}

#[test]
fn a_veth_pair_within_one_namespace_works_too() {
    let Some(()) = prepare("a_veth_pair_within_one_namespace_works_too") else { return };
    let spec = port(PortKind::Veth, None);
    let mut attachment = plain(&spec);
    exchange(&spec, &mut attachment);
    detach(&spec).unwrap();
    assert!(!run("ip link").contains("web") && !run("ip link").contains("eth0"));
}

#[test]
fn the_host_does_not_answer_on_the_switch_end() {
    let Some(()) = prepare("the_host_does_not_answer_on_the_switch_end") else { return };
    let name = Name::new();
    let spec = port(PortKind::Veth, Some(&name));
    let attachment = plain(&spec);
    run("ip addr add 192.0.2.1/32 dev lo");
    let socket = station(&spec, attachment.ifindex);
    let mut request = vec![0xff; 6];
    request.extend([
        2, 0, 0, 0, 0, 0x0a, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x0a, 10, 10, 0, 2, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1,
    ]);
    let is_reply = |frame: &[u8]| frame.get(20..22) == Some(&[0, 2]) && frame.get(12..14) == Some(&[8, 6]);
    rustix::io::write(&socket, &request).unwrap();
    assert_eq!(heard(&socket, is_reply), None);
    run("tc qdisc del dev vsw-web clsact");
    rustix::io::write(&socket, &request).unwrap();
    assert!(heard(&socket, is_reply).is_some(), "the test would see an answer");
}

#[test]
fn a_link_moves_frames_both_ways_and_is_left_as_it_was() {
    let Some(()) = prepare("a_link_moves_frames_both_ways_and_is_left_as_it_was") else { return };
    let name = Name::new();
    make_netns(&name.0, "").unwrap();
    run(&format!("ip link add lan type veth peer name eth0 netns {}", name.0));
    name.ip("link set eth0 up");
    let mut spec = port(PortKind::Link, None);
    spec.ifname = "lan".parse().unwrap();
    assert_eq!(attach_with(&spec, 1500, 2).unwrap().devices.len(), 2, "though it was down");
    let mut attachment = plain(&spec);
    let mut far = port(PortKind::Link, Some(&name));
    far.mac = None;
    attachment.ifindex = name.ip("-o link show dev eth0").split(':').next().unwrap().trim().parse().unwrap();
    exchange(&far, &mut attachment);

    let device = attachment.devices[0].as_mut();
    run("ip link set lan down");
    assert_eq!(device.receive(&mut Batch::new()).status, ReceiveStatus::Drained);
    assert_eq!(device.send(&Packet::whole(&[IoSlice::new(&frame(None, 1))])), Sent::Down);
    run("ip link set lan up");
    exchange(&far, &mut attachment);
    detach(&spec).unwrap();
    run("ip link del lan");
    let device = attachment.devices[0].as_mut();
    assert_eq!(device.receive(&mut Batch::new()).status, ReceiveStatus::Gone);
}

#[test]
fn several_sockets_share_a_port_and_hear_each_frame_once() {
    let Some(()) = prepare("several_sockets_share_a_port_and_hear_each_frame_once") else { return };
    let name = Name::new();
    let spec = port(PortKind::Veth, Some(&name));
    let mut attachment = attach_with(&spec, 1500, 2).unwrap();
    let socket = station(&spec, attachment.ifindex);
    let sent: BTreeSet<_> = (0..40).map(|fill| frame(None, fill)).collect();
    for frame in &sent {
        rustix::io::write(&socket, frame).unwrap();
        attachment.devices[0].send(&Packet::whole(&[IoSlice::new(frame)]));
    }
    let got: Vec<_> = attachment.devices.iter_mut().flat_map(|device| received(device.as_mut(), 41)).collect();
    assert_eq!(got.len(), 40, "not its own frames, and none twice");
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), sent);
}

#[test]
fn a_change_in_place_keeps_the_queue_and_undoes_itself() {
    let Some(()) = prepare("a_change_in_place_keeps_the_queue_and_undoes_itself") else { return };
    for kind in [PortKind::Tap, PortKind::Veth] {
        let name = Name::new();
        let old = port(kind, Some(&name));
        let _attachment = plain(&old);
        let gateways = ["10.10.0.1/24".parse().unwrap()];
        let mut new = old.clone();
        new.mac = Some("02:00:00:00:00:0b".parse().unwrap());
        new.addresses = vec!["10.10.0.3/24".parse().unwrap()];
        reconfigure(&old, &new, &1300, &gateways).unwrap();
        let state = name.ip("addr show dev eth0");
        assert!(["mtu 1300", "02:00:00:00:00:0b", "10.10.0.3/24"].iter().all(|part| state.contains(part)), "{state}");
        assert!(!state.contains("10.10.0.2/") && !state.contains("fd10::2"), "{state}");
        assert!(name.ip("route").contains("default via 10.10.0.1 dev eth0"));

        name.exec("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        let error = reconfigure(&new, &old, &1400, &gateways).unwrap_err().to_string();
        assert!(error.contains("IPv6 is switched off"), "{error}");
        let after = name.ip("addr show dev eth0");
        assert!(["mtu 1300", "02:00:00:00:00:0b", "10.10.0.3/24"].iter().all(|part| after.contains(part)), "{after}");
        assert!(!after.contains("10.10.0.2/") && name.ip("route").contains("default via 10.10.0.1 dev eth0"), "{after}");
        detach(&new).unwrap();
    }
}

#[test]
fn without_offload_frames_come_finished() {
    let Some(()) = prepare("without_offload_frames_come_finished") else { return };
    for kind in [PortKind::Tap, PortKind::Veth] {
        let name = Name::new();
        let spec = PortSpec { offload: false, ..port(kind, Some(&name)) };
        let mut attachment = plain(&spec);
        assert_eq!(attachment.devices[0].capabilities(), Capabilities::default());
        let settings = name.exec("ethtool -k eth0");
        for line in ["tx-checksumming: off", "tx-tcp-segmentation: off"] {
            assert!(settings.contains(line), "{line}: {settings}");
        }
        name.ip("neigh add 10.10.0.9 lladdr 02:00:00:00:00:99 dev eth0");
        let namespace = Namespace::open(spec.netns.as_ref()).unwrap();
        let send = || {
            let socket = std::net::UdpSocket::bind("10.10.0.2:0").unwrap();
            socket.send_to(&[0x88, 0xb5].repeat(200), "10.10.0.9:9").unwrap();
            Ok(())
        };
        namespace.run(send).unwrap();
        let (mut batch, start) = (Batch::new(), Instant::now());
        let is_udp = |frame: &::packet::Frame| frame.bytes().get(12..14) == Some(&[8, 0]) && frame.bytes().len() == 442;
        while !batch.frames().iter().any(is_udp) {
            assert!(start.elapsed() < Duration::from_secs(2), "the datagram came");
            batch.clear();
            attachment.devices[0].receive(&mut batch);
        }
        let frame = batch.frames().iter().find(|frame| is_udp(frame)).unwrap();
        assert!(Capabilities::default().accept(frame.offload), "{:?}", frame.offload);
        detach(&spec).unwrap();
    }
}

#[test]
fn a_device_of_another_kind_is_replaced() {
    let Some(()) = prepare("a_device_of_another_kind_is_replaced") else { return };
    let name = Name::new();
    drop(plain(&port(PortKind::Tap, Some(&name))));
    assert!(!plain(&port(PortKind::Veth, Some(&name))).reopened);
    assert!(name.ip("-d link show dev eth0").contains("veth"));
    assert!(!plain(&port(PortKind::Tap, Some(&name))).reopened);
    assert!(name.ip("-d link show dev eth0").contains("tun"));
    assert!(!run("ip link").contains("vsw-"));
    let renamed = PortSpec { ifname: "eth1".parse().unwrap(), ..port(PortKind::Tap, Some(&name)) };
    assert!(plain(&renamed).reopened, "it is called otherwise");
    assert!(!name.ip("link").contains("eth0"), "the old name is gone");
}

#[test]
fn a_container_runtime_may_rename_the_device() {
    let Some(()) = prepare("a_container_runtime_may_rename_the_device") else { return };
    let name = Name::new();
    make_netns(&name.0, "").unwrap();
    let mut spec = port(PortKind::Tap, None);
    spec.ifname = "vt1".parse().unwrap();
    let attachment = plain(&spec);
    run(&format!("ip link set vt1 netns {}", name.0));
    name.ip("link set vt1 name eth7");
    drop(attachment);
    spec.netns = Some(Netns::Path(format!("/run/netns/{}", name.0).into()));
    let again = plain(&spec);
    assert!(again.reopened && again.ifname == "eth7");
    detach(&spec).unwrap();
    assert!(!name.ip("link").contains("eth7"));
}

/// What Docker does with a device that is handed over.
fn hand_over(spec: &PortSpec, name: &Name) {
    run(&format!("ip link set {} netns {} name eth0", spec.ifname, name.0));
    for step in ["addr add 10.10.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.10.0.1"] {
        name.ip(step);
    }
}

fn handed_over(kind: PortKind, name: &Name) -> PortSpec {
    let sandbox = Netns::Sandbox(std::path::Path::new("/run/netns").join(&name.0));
    PortSpec { netns: Some(sandbox), ifname: "ep-1".parse().unwrap(), ..port(kind, None) }
}

#[test]
fn a_device_that_is_handed_over_is_found_wherever_it_is() {
    let Some(()) = prepare("a_device_that_is_handed_over_is_found_wherever_it_is") else { return };
    for kind in [PortKind::Tap, PortKind::Veth] {
        let name = Name::new();
        make_netns(&name.0, "").unwrap();
        let spec = handed_over(kind, &name);
        let first = attach_with(&spec, 1400, 1).unwrap();
        let link = run("ip link show dev ep-1");
        assert!(link.contains("mtu 1400") && link.contains("02:00:00:00:00:0a") && !link.contains(",UP"), "{link}");
        assert!(!run("ip addr show dev ep-1").contains("inet"));
        assert!(!has_arrived(&spec).unwrap());
        hand_over(&spec, &name);
        assert!(has_arrived(&spec).unwrap());
        let mut attachment = first;
        exchange(&PortSpec { netns: Some(Netns::Name(name.0.clone())), ..spec.clone() }, &mut attachment);
        drop(attachment);

        // The next vswitchd finds it in the container, and leaves its addresses and routes to Docker.
        let mut again = attach_with(&spec, 1400, 1).unwrap();
        assert!(again.reopened && again.ifname == "eth0", "{again:?}");
        exchange(&PortSpec { netns: Some(Netns::Name(name.0.clone())), ..spec.clone() }, &mut again);
        reconfigure(&spec, &spec, &1300, &[]).unwrap();
        assert!(name.ip("route").contains("default via 10.10.0.1 dev eth0"));
        assert!(name.ip("addr show dev eth0").contains("inet 10.10.0.2/24"));
        assert!(name.ip("link show dev eth0").contains("mtu 1300"));

        // Docker brings it back at the end.
        name.ip("link set eth0 down");
        run(&format!("ip {}", bring_back(&name)));
        drop(again);
        detach(&spec).unwrap();
        detach(&spec).unwrap();
        assert!(!run("ip -o link").contains("ep-1"));
    }
}

#[test]
fn a_device_that_is_handed_over_goes_from_its_sandbox_too() {
    let Some(()) = prepare("a_device_that_is_handed_over_goes_from_its_sandbox_too") else { return };
    let name = Name::new();
    make_netns(&name.0, "").unwrap();
    let spec = handed_over(PortKind::Tap, &name);
    drop(attach_with(&spec, 1500, 1).unwrap());
    hand_over(&spec, &name);
    detach(&spec).unwrap();
    assert!(!name.ip("-o link").contains("eth0"));
    // A sandbox that is gone leaves nothing, or an empty file.
    drop(attach_with(&spec, 1500, 1).unwrap());
    remove_netns(&name.0).unwrap();
    std::fs::write(std::path::Path::new("/run/netns").join(&name.0), "").unwrap();
    assert!(attach_with(&spec, 1500, 1).unwrap().reopened);
    detach(&spec).unwrap();
    assert!(!run("ip -o link").contains("ep-1"));
}

#[test]
fn a_device_that_is_being_moved_is_removed_wherever_it_comes_to() {
    let Some(()) = prepare("a_device_that_is_being_moved_is_removed_wherever_it_comes_to") else { return };
    let name = Name::new();
    make_netns(&name.0, "").unwrap();
    let spec = handed_over(PortKind::Tap, &name);
    let (there, back) = (format!("link set ep-1 netns {} name eth0", name.0), bring_back(&name));
    let mut moved = 0;
    for turn in 0..60 {
        drop(attach_with(&spec, 1500, 1).unwrap());
        let line = if turn % 2 == 0 {
            &there
        } else {
            run(&format!("ip {there}"));
            &back
        };
        // It may have been removed before; then ip complains.
        let mut mover = Command::new("ip").args(line.split(' ')).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(turn / 2 * 150));
        detach(&spec).unwrap();
        moved += usize::from(mover.wait().unwrap().success());
        let left = [run("ip -o link"), name.ip("-o link")].concat();
        assert!(!left.contains("ep-1") && !left.contains("eth0"), "turn {turn}: {left}");
    }
    assert!(moved > 0, "it was always removed before it could move");
}

/// What brings a device back that was handed over, to this thread's namespace.
fn bring_back(name: &Name) -> String {
    let home = format!("/proc/{}/task/{}/ns/net", std::process::id(), rustix::thread::gettid().as_raw_nonzero());
    format!("-n {} link set eth0 netns {home} name ep-1", name.0)
}

#[test]
fn namespaces_look_as_those_of_ip_netns() {
    let Some(()) = prepare("namespaces_look_as_those_of_ip_netns") else { return };
    let name = Name::new();
    assert!(make_netns(&name.0, "vswitch namespace 1").unwrap());
    assert!(!make_netns(&name.0, "").unwrap(), "it exists");
    assert!(is_marked_netns(&name.0, "vswitch namespace 1").unwrap());
    assert!(run("ip netns list").lines().any(|line| line.split(' ').next() == Some(&name.0)));
    run(&format!("ip netns del {}", name.0));
    assert!(!name.exists());
    std::fs::write(format!("/run/netns/{}", name.0), "").unwrap();
    assert!(is_marked_netns(&name.0, "vswitch namespace 1").unwrap(), "and was about to be one of ours");
    assert!(make_netns(&name.0, "").unwrap(), "a leftover file is no namespace");
    assert!(!is_marked_netns(&name.0, "vswitch namespace 1").unwrap(), "another one");
    mark_netns(&name.0, "vswitch namespace 1").unwrap();
    assert!(is_marked_netns(&name.0, "vswitch namespace 1").unwrap());
    remove_netns(&name.0).unwrap();
    assert!(!name.exists() && !is_marked_netns(&name.0, "").unwrap());
}

#[test]
fn what_is_no_namespace_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    // To open it would wait for a writer.
    let mut spec = port(PortKind::Tap, None);
    spec.netns = Some(Netns::Path(fifo.clone()));
    assert!(matches!(attach_with(&spec, 1500, 1), Err(AttachError::NotNetns(path)) if path == fifo));
    assert_eq!((netns_inode(&fifo), netns_inode(std::path::Path::new("/dev/null"))), (None, None));
    assert!(netns_inode(std::path::Path::new("/proc/thread-self/ns/net")).is_some());
}

#[test]
fn missing_privilege_is_explained() {
    let Some(()) = prepare("missing_privilege_is_explained") else { return };
    let name = Name::new();
    make_netns(&name.0, "").unwrap();
    let (nobody, new) = (rustix::process::Uid::from_raw(65_534), Name::new());
    let root = rustix::process::Uid::ROOT;
    // The saved ID stays root's, for the way back.
    rustix::thread::set_thread_res_uid(nobody, nobody, root).unwrap();
    let mut link = port(PortKind::Link, None);
    link.ifname = "lo".parse().unwrap();
    let sentence = |spec: &PortSpec| attach_with(spec, 1500, 1).unwrap_err().to_string();
    for kind in [PortKind::Tap, PortKind::Veth] {
        let error = sentence(&port(kind, None));
        assert!(error.ends_with("vswitchd must run as root, or with CAP_NET_ADMIN"), "{error}");
        for netns in [&name, &new] {
            let error = sentence(&port(kind, Some(netns)));
            assert!(error.ends_with("vswitchd must run as root, or with CAP_SYS_ADMIN"), "{error}");
        }
    }
    assert!(sentence(&link).contains("loopback"));
    assert!(!new.exists());
    rustix::thread::set_thread_res_uid(root, root, root).unwrap();
}
