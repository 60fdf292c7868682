//! Two hosts of an encrypted network on one machine, each with an address of its own, and between them a network that a test carries by hand.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

use super::super::outer::Outer;
use super::super::wireguard::{MOST_WAITING, Opened, datagram};
use super::*;

/// A host, and what has arrived at it.
struct End {
    at: IpAddr,
    wireguard: Arc<Wireguard>,
    socket: UdpSocket,
    sender: Sender,
    key: PrivateKey,
}

const SECRET: &[u8] = b"what nobody else may read";

impl End {
    fn new(at: IpAddr, port: u16, seed: u8, peer: IpAddr) -> Self {
        let source = udp::open(at).unwrap();
        udp::bind(source.as_fd(), SocketAddr::new(at, 0)).unwrap();
        let sources = Arc::new(Sources::new(vec![source], true, SourceHeaders { hops: 64, is_summed: true }));
        let socket = UdpSocket::bind((at, port)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let key = PrivateKey::new([seed; 32]);
        let wireguard = Arc::new(Wireguard::new(key.clone(), SocketAddr::new(at, port), Arc::clone(&sources)));
        let tunnel = Arc::new(Tunnel::new(Vni::try_from(7).unwrap(), 4789, None, MTU));
        tunnel.set_peers(&[peer]);
        let sender = Sender::new(tunnel, sources, Some(Arc::clone(&wireguard)));
        Self { at, wireguard, socket, sender, key }
    }

    fn knows(&self, others: &[&Self]) {
        self.wireguard.set_hosts(&others.iter().map(|other| (other.at, other.key.public())).collect());
    }

    fn send(&mut self, frame: &[u8]) -> Losses {
        assert_eq!(self.sender.send(&Packet { peer: 1, ..Packet::whole(&[IoSlice::new(frame)]) }), Sent::Done);
        self.sender.flush()
    }

    /// The messages that are on their way to it.
    fn arriving(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| self.socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect()
    }

    /// What a message comes to; the frame that is in it, if there is one.
    fn open(&self, from: IpAddr, message: &[u8]) -> Result<Option<Vec<u8>>, UnderlayDrop> {
        let mut plain = vec![0; message.len()];
        match self.wireguard.open(from, message, &mut plain) {
            Opened::Datagram(place) => Ok(Some(plain[place][vxlan::HEADER..].to_vec())),
            Opened::Message => Ok(None),
            Opened::Refused(reason) => Err(reason),
        }
    }
}

/// Two that know each other, and have not spoken yet.
fn hosts() -> [End; 2] {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(41_000);
    let [a, b] = [IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 3])];
    let is_free = |port: &u16| [a, b].iter().all(|at| UdpSocket::bind((*at, *port)).is_ok());
    let port = std::iter::from_fn(|| Some(NEXT.fetch_add(1, Ordering::Relaxed))).take(5000).find(is_free).unwrap();
    [End::new(a, port, 1, b), End::new(b, port, 2, a)]
}

/// Carries all that is on its way, until nothing is; returns the frames that came to each.
fn carry([a, b]: [&End; 2]) -> [Vec<Vec<u8>>; 2] {
    let mut frames = [Vec::new(), Vec::new()];
    loop {
        let waiting = [a.arriving(), b.arriving()];
        if waiting.iter().all(Vec::is_empty) {
            return frames;
        }
        for ((end, from), (waiting, frames)) in [(a, b.at), (b, a.at)].into_iter().zip(waiting.iter().zip(&mut frames)) {
            frames.extend(waiting.iter().filter_map(|message| end.open(from, message).ok().flatten()));
        }
    }
}

/// Two with a session.
fn met() -> [End; 2] {
    let [a, b] = hosts();
    a.knows(&[&b]);
    b.knows(&[&a]);
    carry([&a, &b]);
    assert!([(&a, &b), (&b, &a)].iter().all(|(one, other)| one.wireguard.since_handshake(other.at).is_some()));
    [a, b]
}

/// Frames of one size and a shorter one are a run, also as messages.
#[test]
fn frames_that_wait_for_a_handshake_arrive_after_it_and_none_is_to_be_read_on_the_way() {
    let [mut a, mut b] = hosts();
    a.knows(&[&b]);
    b.knows(&[&a]);
    let frames: Vec<Vec<u8>> =
        [1400, 1400, 1400, 60].map(|length| SECRET.iter().copied().cycle().take(length).collect()).to_vec();
    for frame in &frames {
        assert_eq!(a.send(frame), Losses::default());
    }
    assert_eq!(carry([&a, &b])[1], frames);
    let batch = |end: &mut End| {
        frames.iter().for_each(|frame| {
            assert_eq!(end.sender.send(&Packet { peer: 1, ..Packet::whole(&[IoSlice::new(frame)]) }), Sent::Done)
        })
    };
    batch(&mut b);
    assert_eq!(b.sender.flush(), Losses::default());
    let messages = a.arriving();
    let overhead = vxlan::HEADER + 28 + 32;
    assert_eq!(
        messages.iter().map(Vec::len).collect::<Vec<_>>(),
        frames.iter().map(|frame| frame.len() + overhead).collect::<Vec<_>>()
    );
    assert!(messages.iter().all(|message| !message.windows(SECRET.len()).any(|part| part == SECRET)));
    let opened: Vec<_> = messages.iter().map(|message| a.open(b.at, message)).collect();
    assert_eq!(opened, frames.iter().map(|frame| Ok(Some(frame.clone()))).collect::<Vec<_>>());
}

#[test]
fn no_more_wait_for_a_handshake_than_there_is_room_for_and_the_first_are_kept() {
    let [mut a, b] = hosts();
    a.knows(&[&b]);
    let frames: Vec<Vec<u8>> = (0..40_u8).map(|number| vec![number; 100]).collect();
    let lost: u64 = frames.iter().map(|frame| a.send(frame).full).sum();
    assert_eq!(lost, 40 - MOST_WAITING as u64);
    assert_eq!(b.arriving().len(), 1, "they ask for one handshake");
    b.knows(&[&a]);
    assert_eq!(carry([&a, &b])[1], frames[..MOST_WAITING]);
    assert_eq!(a.send(b"frame"), Losses::default());
}

#[test]
fn a_message_is_taken_once_whole_and_from_its_host_alone() {
    let [mut a, b] = met();
    a.send(b"frame");
    let message = b.arriving().pop().unwrap();
    assert_eq!(b.open(IpAddr::from([127, 0, 0, 9]), &message), Err(UnderlayDrop::UnknownHost));
    for place in [0, 5, 9, 20, message.len() - 1] {
        let mut damaged = message.clone();
        damaged[place] ^= 1;
        assert_eq!(b.open(a.at, &damaged), Err(UnderlayDrop::NotAuthentic), "{place}");
    }
    assert_eq!(b.open(a.at, &message), Ok(Some(b"frame".to_vec())));
    assert_eq!(b.open(a.at, &message), Err(UnderlayDrop::NotAuthentic), "it came before");
    // What a host would have sent in the clear.
    let clear = [&vxlan::Header { vni: Vni::try_from(7).unwrap() }.encode()[..], b"frame"].concat();
    assert_eq!(b.open(a.at, &clear), Err(UnderlayDrop::NotAuthentic));
}

#[test]
fn messages_may_overtake_each_other_and_get_lost() {
    let [mut a, b] = met();
    let frames: Vec<Vec<u8>> = (0..100_u8).map(|number| vec![number; 100]).collect();
    frames.iter().for_each(|frame| assert_eq!(a.send(frame), Losses::default()));
    let mut opened: Vec<_> =
        b.arriving().iter().rev().step_by(2).map(|message| b.open(a.at, message).unwrap().unwrap()).collect();
    opened.reverse();
    assert_eq!(opened, frames.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>());
}

#[test]
fn a_greeting_that_is_lost_is_sent_again_a_second_later_and_only_a_few_times() {
    let [a, b] = hosts();
    a.knows(&[&b]);
    let start = Instant::now();
    let greetings = |second: u64| {
        [0, 300, 900].iter().for_each(|rest| a.wireguard.tick(start + Duration::from_millis(1000 * second + rest)));
        b.arriving().len()
    };
    assert_eq!((1..8).map(greetings).collect::<Vec<_>>(), [2, 1, 1, 1, 0, 0, 0], "with that at the beginning five in all");
    b.knows(&[&a]);
    carry([&a, &b]);
    assert!(a.wireguard.since_handshake(b.at).is_some(), "whoever comes up greets");
}

/// One that was installed anew, and one that is a part of no network any more.
#[test]
fn a_host_is_who_has_the_key_that_the_store_has() {
    let [mut a, b] = met();
    let (at, port) = (b.at, b.wireguard.local().port());
    drop(b);
    let mut b = End::new(at, port, 3, a.at);
    b.knows(&[&a]);
    assert!(carry([&a, &b]).iter().all(Vec::is_empty));
    b.send(b"from the new one");
    assert!(carry([&a, &b]).iter().all(Vec::is_empty), "its key is not known yet");
    a.knows(&[&b]);
    assert_eq!(carry([&a, &b])[0], [b"from the new one".to_vec()]);
    a.send(b"to the new one");
    assert_eq!(carry([&a, &b])[1], [b"to the new one".to_vec()]);
    a.knows(&[]);
    assert_eq!(a.send(b"to nobody"), Losses { down: 1, ..Losses::default() });
    assert!(b.arriving().is_empty());
    b.send(b"from nobody");
    let message = a.arriving().pop().unwrap();
    assert_eq!(a.open(b.at, &message), Err(UnderlayDrop::UnknownHost));
}

/// A session outlives what the store says again.
#[test]
fn hosts_that_stay_keep_their_sessions() {
    let [mut a, b] = met();
    a.knows(&[&b]);
    let more = BTreeMap::from([(b.at, b.key.public()), (IpAddr::from([127, 0, 0, 4]), [9; 32])]);
    a.wireguard.set_hosts(&more);
    a.send(b"frame");
    assert_eq!(b.arriving().iter().map(|message| b.open(a.at, message)).collect::<Vec<_>>(), [Ok(Some(b"frame".to_vec()))]);
}

/// The whole way, and nothing by another: what comes in the clear where messages are heard is no frame.
#[test]
fn a_receiver_of_sealed_frames_hears_none_in_the_clear() {
    let [mut a, b] = met();
    let End { at, wireguard, socket, .. } = b;
    let to = socket.local_addr().unwrap();
    let (changes, changes_in) = crossbeam_channel::unbounded();
    let tunnel = Arc::new(Tunnel::new(Vni::try_from(7).unwrap(), 4789, None, MTU));
    tunnel.set_peers(&[a.at]);
    changes.send(Change::Add(PortId(9), tunnel)).unwrap();
    let counters = Arc::new(UnderlayCounters::default());
    let mut receiver = Receiver::new(socket.into(), changes_in, Arc::clone(&counters), Some(wireguard));
    let payload: Vec<u8> = (0..1300_u32).map(|number| number.to_le_bytes()[0]).collect();
    let frames: Vec<Vec<u8>> = (0..10_u32).map(|number| tcp_at(number * 5000, &payload)).collect();
    frames.iter().for_each(|frame| assert_eq!(a.send(frame), Losses::default()));
    let clear = [&vxlan::Header { vni: Vni::try_from(7).unwrap() }.encode()[..], &frames[0]].concat();
    let stranger = UdpSocket::bind((a.at, 0)).unwrap();
    stranger.send_to(&clear, to).unwrap();
    UdpSocket::bind((at, 0)).unwrap().send_to(&clear, to).unwrap();
    let (mut batch, mut taken) = (Batch::new(), Vec::new());
    while receiver.receive(&mut batch).status == ReceiveStatus::More {}
    taken.extend(batch.frames().iter().map(|frame| (frame.ingress, frame.peer, frame.bytes().to_vec())));
    assert_eq!(taken, frames.into_iter().map(|frame| (9, 1, frame)).collect::<Vec<_>>());
    assert_eq!(UnderlayDrop::ALL.map(|reason| counters.read(reason)), [0, 0, 0, 0, 1, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// What begins as a message does, what was one and is damaged or cut, and anything else.
    #[test]
    fn no_message_breaks_a_host(kind in 0_u8..6, bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0_usize..200, place in 0_usize..132) {
        let [mut a, b] = hosts();
        a.knows(&[&b]);
        b.knows(&[&a]);
        let greeting = b.arriving().pop().unwrap();
        let mut damaged = greeting.clone();
        damaged[place] ^= 1 + kind;
        damaged.truncate(148 - cut.min(148));
        let framed = [&[kind, 0, 0, 0][..], &bytes].concat();
        let sized: Vec<u8> = framed.iter().copied().cycle().take(match kind { 1 => 148, 2 => 92, 3 => 64, _ => 200 }).collect();
        for message in [&bytes, &framed, &sized, &damaged] {
            prop_assert!(matches!(b.open(a.at, message), Err(UnderlayDrop::NotAuthentic)), "{message:?}");
        }
        prop_assert_eq!(b.open(a.at, &greeting), Ok(None));
        a.send(b"frame");
        prop_assert_eq!(&carry([&a, &b])[1], &[b"frame".to_vec()]);
    }

    /// Whatever an authentic host puts into its messages.
    #[test]
    fn only_what_is_a_udp_packet_is_a_datagram(six in any::<bool>(), payload in prop::collection::vec(any::<u8>(), 0..100), place in 0_usize..28, value in any::<u8>()) {
        let [from, to] = if six { ["[fd00::1]:1", "[fd00::2]:2"] } else { ["192.0.2.1:1", "192.0.2.2:2"] }.map(|text| text.parse().unwrap());
        let mut packet = Vec::new();
        Outer { from, to, class: 0, hops: 64, is_summed: false }.packet(&payload, &mut packet).unwrap();
        let found = datagram(&packet).unwrap();
        prop_assert_eq!(&packet[found], &payload[..]);
        packet[place] = value;
        prop_assert!(datagram(&packet).is_none_or(|found| found.end <= packet.len()));
        for length in 0..packet.len() {
            prop_assert!(datagram(&packet[..length]).is_none_or(|found| found.end <= length));
        }
    }
}
