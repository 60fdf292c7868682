use std::collections::BTreeMap;
use std::io::Write as _;
use std::num::NonZeroU16;
use std::process::Command;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use packet::{Checksum, Gso, GsoKind};

use super::*;
use crate::datapath::DropReason;
use api::Instruction;
use testing::skipped;

const NOW: u64 = 1_700_000_000_123_456_789;
const PLAIN: Offload = Offload { checksum: Checksum::Unverified, gso: None };

fn interface(port: u32, name: &str) -> CapturedPort {
    CapturedPort { port, name: name.to_owned(), description: format!("tap {name} in netns test"), ..CapturedPort::default() }
}

fn everything() -> Program {
    Program::new(&[]).unwrap()
}

fn offer(tap: &mut CaptureTap, port: u32, bytes: &[u8]) {
    tap.offer(&Seen::at(NOW, port, Direction::In), &[bytes], PLAIN);
}

/// The rest of the file of a capture that will end by itself.
fn rest(stream: &mut Stream) -> Vec<u8> {
    let mut file = Vec::new();
    while let Some(chunk) = stream.next_chunk(Duration::from_millis(100)) {
        file.extend(chunk);
    }
    file
}

/// Type and body of each block of a file, whose framing is checked on the way.
fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let length = usize::try_from(word(file, 4)).unwrap();
        let (block, rest) = file.split_at(length);
        assert_eq!((length % 4, word(block, length - 4)), (0, word(block, 4)));
        blocks.push((word(block, 0), &block[8..length - 4]));
        file = rest;
    }
    blocks
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Options by code; of several with one code the last.
fn options(mut bytes: &[u8]) -> BTreeMap<u16, &[u8]> {
    let mut options = BTreeMap::new();
    while !bytes.is_empty() {
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let length = usize::from(u16::from_ne_bytes([bytes[2], bytes[3]]));
        if code != 0 {
            options.insert(code, &bytes[4..4 + length]);
        }
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
    options
}

/// Interface, missed before it and bytes of each packet.
fn packets(file: &[u8]) -> Vec<(u32, u64, &[u8])> {
    let packet = |body: &[u8]| usize::try_from(word(body, 12)).unwrap();
    let blocks = blocks(file).into_iter().filter(|(kind, _)| *kind == 6);
    let read = |(_, body)| {
        let length = packet(body);
        let missed = options(&body[20 + length.next_multiple_of(4)..]).get(&4).map_or(0, |missed| number(missed));
        (word(body, 0), missed, &body[20..20 + length])
    };
    blocks.map(read).collect()
}

/// Interface, received and missed of each interface's statistics.
fn statistics(file: &[u8]) -> Vec<(u32, u64, u64)> {
    let blocks = blocks(file).into_iter().filter(|(kind, _)| *kind == 5);
    blocks.map(|(_, body)| (word(body, 0), number(options(&body[12..])[&4]), number(options(&body[12..])[&5]))).collect()
}

fn names(file: &[u8]) -> Vec<String> {
    let blocks = blocks(file).into_iter().filter(|(kind, _)| *kind == 1);
    blocks.map(|(_, body)| String::from_utf8(options(&body[8..])[&2].to_vec()).unwrap()).collect()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes.try_into().unwrap())
}

#[test]
fn the_headers_come_at_once() {
    let (_tap, _control, mut stream) = open(everything(), vec![interface(7, "a"), interface(9, "b")], Limits::default());
    let before = Instant::now();
    let chunk = stream.next_chunk(Duration::from_secs(60)).unwrap();
    assert!(before.elapsed() < Duration::from_secs(10));
    assert_eq!(names(&chunk), ["a", "b"]);
    assert_eq!(stream.next_chunk(Duration::from_millis(10)), Some(Vec::new()), "nothing yet is not the end");
}

#[test]
fn a_slow_reader_misses_and_is_told_how_many() {
    let (mut tap, control, mut stream) = open_bounded(everything(), vec![interface(3, "a")], Limits::default(), 16, MOST_BYTES);
    for _ in 0..100 {
        offer(&mut tap, 3, &[0; 60]);
    }
    let first = stream.next_chunk(Duration::ZERO).unwrap();
    assert_eq!(packets(&first).len(), 16);
    offer(&mut tap, 3, &[1; 60]);
    control.stop();
    let last = rest(&mut stream);
    assert_eq!(packets(&last), [(0, 84, &[1; 60][..])]);
    assert_eq!(statistics(&last), [(0, 101, 84)]);
}

#[test]
fn statistics_have_times_with_the_upper_half_first() {
    let (tap, _control, mut stream) = open(everything(), vec![interface(0, "a")], Limits::default());
    drop(tap);
    let file = rest(&mut stream);
    let (_, body) = blocks(&file).into_iter().find(|(kind, _)| *kind == 5).unwrap();
    let time = |bytes: &[u8]| Duration::from_nanos(u64::from(word(bytes, 0)) << 32 | u64::from(word(bytes, 4)));
    let options = options(&body[12..]);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    assert!(time(options[&2]) <= time(options[&3]) && time(options[&3]) == time(&body[4..]) && time(&body[4..]) <= now);
    assert!(now - time(options[&2]) < Duration::from_secs(60));
}

#[test]
fn bytes_in_flight_are_bounded_and_given_back() {
    let (mut tap, control, mut stream) = open_bounded(everything(), vec![interface(0, "a")], Limits::default(), 4096, 10_000);
    for _ in 0..3 {
        for _ in 0..15 {
            offer(&mut tap, 0, &[0; 1000]);
        }
        assert_eq!(packets(&stream.next_chunk(Duration::ZERO).unwrap()).len(), 10);
    }
    control.stop();
    assert_eq!(statistics(&rest(&mut stream)), [(0, 45, 15)]);
}

#[test]
fn what_workers_send_is_written_or_missed() {
    let (tap, control, mut stream) = open_bounded(everything(), vec![interface(0, "a")], Limits::default(), 64, MOST_BYTES);
    let file = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let mut tap = tap.clone();
                scope.spawn(move || (0..5000).for_each(|_| offer(&mut tap, 0, &[0; 60])))
            })
            .collect();
        let reader = scope.spawn(move || rest(&mut stream));
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        control.stop();
        reader.join().unwrap()
    });
    let written = u64::try_from(packets(&file).len()).unwrap();
    assert_eq!(statistics(&file), [(0, 20_000, 20_000 - written)]);
}

#[test]
fn a_count_is_exact() {
    for count in [0, 1, 500] {
        let limits = Limits { count: Some(count), seconds: None };
        let (tap, _control, mut stream) = open(everything(), vec![interface(0, "a")], limits);
        let file = std::thread::scope(|scope| {
            for _ in 0..3 {
                let mut tap = tap.clone();
                scope.spawn(move || {
                    while !tap.is_over() {
                        offer(&mut tap, 0, &[0; 60]);
                    }
                });
            }
            rest(&mut stream)
        });
        assert_eq!(u64::try_from(packets(&file).len()).unwrap(), count);
        assert_eq!(statistics(&file).len(), 1);
    }
}

#[test]
fn seconds_end_a_capture() {
    let limits = Limits { count: None, seconds: Some(1) };
    let (mut tap, _control, mut stream) = open(everything(), vec![interface(0, "a")], limits);
    let before = Instant::now();
    offer(&mut tap, 0, &[0; 60]);
    let file = rest(&mut stream);
    assert!((Duration::from_millis(900)..Duration::from_secs(30)).contains(&before.elapsed()));
    assert_eq!((packets(&file).len(), statistics(&file).len()), (1, 1));
    assert!(tap.is_over());
}

#[test]
fn a_capture_ends_with_its_taps_and_taps_with_their_stream() {
    let (mut tap, control, mut stream) = open(everything(), vec![interface(0, "a")], Limits::default());
    drop(control);
    offer(&mut tap, 0, &[0; 60]);
    assert_eq!(packets(&stream.next_chunk(Duration::ZERO).unwrap()).len(), 1);
    assert_eq!(stream.next_chunk(Duration::from_millis(50)), Some(Vec::new()), "without control it still goes on");
    drop(tap);
    assert_eq!(statistics(&rest(&mut stream)), [(0, 1, 0)]);

    let (mut tap, _control, stream) = open(everything(), Vec::new(), Limits::default());
    drop(stream);
    assert!(tap.is_over());
    offer(&mut tap, 0, &[0; 60]);
}

#[test]
fn chunks_are_bounded() {
    let (mut tap, control, mut stream) = open(everything(), vec![interface(0, "a")], Limits::default());
    for _ in 0..40 {
        offer(&mut tap, 0, &vec![0; 60_000]);
    }
    control.stop();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.next_chunk(Duration::ZERO) {
        chunks.push(chunk.len());
    }
    assert!(chunks.len() >= 8 && chunks.iter().all(|&length| length < 256 * 1024 + 61_000), "{chunks:?}");
    assert!(chunks.iter().sum::<usize>() > 40 * 60_000);
}

#[test]
fn the_filter_sees_a_frame_in_parts_as_a_whole() {
    // vlan, cut to 20 bytes
    let code =
        [Instruction(0x28, 0, 0, 12), Instruction(0x15, 0, 1, 0x8100), Instruction(6, 0, 0, 20), Instruction(6, 0, 0, 0)];
    let (mut tap, control, mut stream) = open(Program::new(&code).unwrap(), vec![interface(0, "a")], Limits::default());
    let frame: Vec<u8> = (0..60).collect();
    let parts = [&frame[..12], &[0x81, 0, 0, 10], &frame[12..]];
    tap.offer(&Seen::at(NOW, 0, Direction::Out), &parts, PLAIN);
    tap.offer(&Seen::at(NOW, 0, Direction::Out), &[&frame[..12], &frame[12..]], PLAIN);
    tap.offer(&Seen::at(NOW, 0, Direction::Out), &[&parts.concat()], PLAIN);
    control.stop();
    let file = rest(&mut stream);
    assert_eq!(packets(&file), vec![(0, 0, &parts.concat()[..20]); 2]);
    let original: Vec<_> = blocks(&file).iter().filter(|(kind, _)| *kind == 6).map(|(_, body)| word(body, 16)).collect();
    assert_eq!(original, [64, 64]);
}

#[test]
fn ports_come_while_a_capture_runs() {
    let (mut tap, control, mut stream) = open(everything(), vec![interface(0, "a")], Limits::default());
    let mut file = stream.next_chunk(Duration::ZERO).unwrap();
    control.add_interface(interface(1, "b"));
    offer(&mut tap, 1, &[1; 60]);
    offer(&mut tap, 0, &[0; 60]);
    file.extend(stream.next_chunk(Duration::ZERO).unwrap());
    control.add_interface(interface(0, "c"));
    file.extend(stream.next_chunk(Duration::ZERO).unwrap());
    offer(&mut tap, 0, &[2; 60]);
    offer(&mut tap, 99, &[3; 60]);
    control.stop();
    file.extend(rest(&mut stream));
    assert_eq!(names(&file), ["a", "b", "c", "port 99"]);
    assert_eq!(
        packets(&file).iter().map(|packet| (packet.0, packet.2[0])).collect::<Vec<_>>(),
        [(1, 1), (0, 0), (2, 2), (3, 3)]
    );
    assert_eq!(statistics(&file), [(0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 1, 0)]);
}

#[test]
fn a_port_that_takes_over_a_slot_does_not_inherit_what_was_missed() {
    let (mut tap, control, mut stream) = open_bounded(everything(), vec![interface(0, "a")], Limits::default(), 1, MOST_BYTES);
    let mut file = Vec::new();
    for offers in [5, 3] {
        (0..offers).for_each(|_| offer(&mut tap, 0, &[0; 60]));
        file.extend(stream.next_chunk(Duration::ZERO).unwrap());
        if offers == 5 {
            control.add_interface(interface(0, "b"));
            file.extend(stream.next_chunk(Duration::ZERO).unwrap());
        }
    }
    control.stop();
    file.extend(rest(&mut stream));
    assert_eq!(statistics(&file), [(0, 5, 4), (1, 3, 2)]);
}

/// A capture of one frame of each sort that a comment speaks of.
fn sample() -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.tcp(1000, 2000, 1, 100).write(&mut frame, &[b'x'; 500]).unwrap();
    let partial = Checksum::Partial { start: 34, offset: 16 };
    // The folded pseudo header of TCP from 10.0.0.1 to 10.0.0.2 over 520 bytes.
    frame[50..52].copy_from_slice(&0x1611u16.to_be_bytes());
    let gso = Some(Gso { kind: GsoKind::Tcp4, size: NonZeroU16::new(100).unwrap(), ecn: false });
    let snap = Program::new(&[Instruction(6, 0, 0, 554)]).unwrap();
    let (mut tap, control, mut stream) = open(snap, vec![interface(5, "web-1"), interface(6, "db")], Limits::default());
    tap.offer(&Seen::at(NOW, 5, Direction::In), &[&frame], Offload { checksum: partial, gso: None });
    tap.offer(&Seen::at(NOW + 1, 6, Direction::Out), &[&frame], Offload { checksum: partial, gso });
    tap.offer(&Seen::at(NOW + 2, 5, Direction::In).dropped(DropReason::VlanNotAllowed), &[&frame[..300], &frame[300..]], PLAIN);
    tap.offer(&Seen::at(NOW + 3, 6, Direction::Out), &[&frame, &[0; 20]], Offload { checksum: partial, gso: None });
    control.stop();
    rest(&mut stream)
}

/// Runs a program on a capture file; nothing if the program is not on this machine.
fn run(program: &str, arguments: &[&str], file: &[u8]) -> Option<String> {
    let mut path = tempfile::Builder::new().suffix(".pcapng").tempfile().unwrap();
    path.write_all(file).unwrap();
    let output =
        Command::new(program).args((program != "capinfos").then_some("-r")).arg(path.path()).args(arguments).output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn tshark_shows_ports_directions_times_and_comments() {
    const FIELDS: [&str; 8] = [
        "frame.interface_name",
        "frame.interface_description",
        "frame.packet_flags_direction",
        "frame.time_epoch",
        "frame.len",
        "frame.cap_len",
        "frame.comment",
        "tcp.checksum.status",
    ];
    let mut arguments = vec!["-o", "tcp.check_checksum:TRUE", "-T", "fields", "-E", "aggregator=;"];
    FIELDS.iter().for_each(|field| arguments.extend(["-e", *field]));
    let Some(shown) = run("tshark", &arguments, &sample()) else {
        return skipped("tshark_shows_ports_directions_times_and_comments", "no tshark");
    };
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split('\t').collect()).collect();
    let web = ["web-1", "tap web-1 in netns test", "0x00000001"];
    let db = ["db", "tap db in netns test", "0x00000002"];
    let super_frame = "at=egress out=db;super-frame: TCP segments of 100 bytes;checksum left to the receiver";
    let expected = [
        (web, ["1700000000.123456789", "554", "554", "at=ingress in=web-1"]),
        (db, ["1700000000.123456790", "554", "554", super_frame]),
        (web, ["1700000000.123456791", "554", "554", "at=ingress in=web-1 drop=vlan-not-allowed"]),
        (db, ["1700000000.123456792", "574", "554", "at=egress out=db;checksum left to the receiver"]),
    ];
    for (row, (port, frame)) in rows.iter().zip(expected) {
        assert_eq!((&row[..3], &row[3..7]), (&port[..], &frame[..]));
    }
    assert_eq!((rows.len(), rows[0][7]), (4, "1"), "four packets, the first with a good checksum");
}

#[test]
fn tcpdump_reads_every_packet() {
    let Some(shown) = run("tcpdump", &["-n", "-v", "tcp"], &sample()) else {
        return skipped("tcpdump_reads_every_packet", "no tcpdump");
    };
    assert_eq!(shown.matches("10.0.0.1.1000 > 10.0.0.2.2000").count(), 4, "{shown}");
    assert_eq!(shown.matches("(correct)").count(), 1, "{shown}");
}

#[test]
fn tshark_and_capinfos_show_what_was_missed() {
    let (mut tap, control, mut stream) = open_bounded(everything(), vec![interface(0, "a")], Limits::default(), 2, MOST_BYTES);
    (0..9).for_each(|_| offer(&mut tap, 0, &[0; 60]));
    let mut file = stream.next_chunk(Duration::ZERO).unwrap();
    offer(&mut tap, 0, &[0; 60]);
    control.stop();
    file.extend(rest(&mut stream));
    let Some(dropped) = run("tshark", &["-T", "fields", "-e", "frame.drop_count"], &file) else {
        return skipped("tshark_and_capinfos_show_what_was_missed", "no tshark");
    };
    assert_eq!(dropped.lines().collect::<Vec<_>>(), ["", "", "7"]);
    let Some(information) = run("capinfos", &[], &file) else {
        return skipped("tshark_and_capinfos_show_what_was_missed", "no capinfos");
    };
    assert!(information.contains("Number of stat entries = 1"), "{information}");
}

#[test]
fn a_frame_has_its_id_its_names_and_what_nat_does() {
    let ends = |before: &str, after: &str| nat::EndChange { before: before.parse().unwrap(), after: after.parse().unwrap() };
    let (mut tap, control, mut stream) = open(everything(), vec![interface(0, "a")], Limits::default());
    control.name_port(CapturedPort { vni: Some(42), ..interface(1, "vx0") });
    control.name_hosts(vec![("10.0.0.1".parse().unwrap(), "web1".to_owned()), ("fd00::1".parse().unwrap(), "web6".to_owned())]);
    let mut seen = Seen { id: 77, vlan: Some(10), ..Seen::at(NOW, 0, Direction::In) };
    (0..7).for_each(|_| seen.ways.add(1));
    seen.nat = Some(Box::new([Some(ends("10.0.0.1:4000", "192.0.2.1:5000")), None]));
    tap.offer(&seen, &[&sample_frame()], PLAIN);
    control.stop();
    let file = rest(&mut stream);
    let (_, packet) = blocks(&file).into_iter().find(|(kind, _)| *kind == 6).unwrap();
    let length = usize::try_from(word(packet, 12)).unwrap();
    let options = options(&packet[20 + length.next_multiple_of(4)..]);
    assert_eq!(number(options[&5]), 77);
    let said = "id=77 at=ingress in=a out=vx0,vx0,vx0,vx0,+3 vlan=10 vni=42 nat=10.0.0.1:4000->192.0.2.1:5000";
    assert_eq!(String::from_utf8_lossy(options[&1]), said);
    let Some(shown) = run("tshark", &["-N", "n", "-T", "fields", "-e", "frame.packet_id", "-e", "ip.src_host"], &file) else {
        return skipped("a_frame_has_its_id_its_names_and_what_nat_does", "no tshark");
    };
    assert_eq!(shown.trim(), "77\tweb1");
}

#[test]
fn snaplen_and_direction_choose() {
    let selection = Selection { snaplen: 20, direction: Some(Direction::Out), ..everything().into() };
    let (mut tap, control, mut stream) = open(selection, vec![interface(0, "a")], Limits::default());
    offer(&mut tap, 0, &[1; 60]);
    tap.offer(&Seen::at(NOW, 0, Direction::Out), &[&[2; 60]], PLAIN);
    control.stop();
    assert_eq!(packets(&rest(&mut stream)), [(0, 0, &[2; 20][..])]);
}

fn sample_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.udp(1000, 2000).write(&mut frame, b"x").unwrap();
    frame
}
