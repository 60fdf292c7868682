//! What a filter asks about tunnels: which network a frame is in, and what the frame is that it carries in VXLAN.
//!
//! A frame carries another one if it is a UDP packet, whole, to port 4789 or to that of a tunnel of the switch, and its VXLAN header names a network
//! (RFC 7348, section 5). The switch's own tunnels are ports, whose frames are captured without these headers; of those the network is known by
//! the port. The control side says which ports are tunnels, and the workers look, without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use packet::{Layers, Transport};
use vxlan::Header;

use super::filter::{BadProgram, Program};
use api::TunnelTest;

/// Port slots whose networks are known.
const SLOTS: usize = 4096;

/// One test of a filter.
#[derive(Clone, Debug)]
pub(super) enum TunnelCheck {
    Vni(u32),
    Inner(Program),
}

/// What is known of tunnels beside the bytes of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The network of the tunnel of the switch that the frame comes or leaves by.
    pub(super) vni: Option<u32>,
    /// The switch's tunnels; without them, VXLAN has its usual port only.
    pub(super) tunnels: Option<&'a Tunnels>,
}

/// The tunnels of the switch.
#[derive(Debug)]
pub(super) struct Tunnels {
    /// The network of each port, plus 1; 0: it is no tunnel.
    networks: Box<[AtomicU32]>,
    /// A bit for each UDP port.
    ports: Box<[AtomicU64]>,
}

impl TunnelCheck {
    /// A test with at most so many filters inside each other.
    pub(super) fn of(test: &TunnelTest, deepest: usize) -> Result<Self, BadProgram> {
        match test {
            TunnelTest::Vni(vni) => Ok(Self::Vni(*vni)),
            TunnelTest::Inner(filter) => Program::inside(filter, deepest).map(Self::Inner),
        }
    }

    /// Whether it holds of the frame `bytes`.
    pub(super) fn holds(&self, bytes: &[u8], around: &Surroundings<'_>) -> bool {
        let inside = || open(bytes, around.tunnels);
        match self {
            Self::Vni(wanted) => around.vni == Some(*wanted) || inside().is_some_and(|(vni, _)| vni == *wanted),
            Self::Inner(program) => {
                inside().is_some_and(|(_, frame)| program.run(frame, &Surroundings { vni: None, ..*around }) > 0)
            }
        }
    }
}

impl Tunnels {
    pub(super) fn new() -> Self {
        let networks = (0..SLOTS).map(|_| AtomicU32::new(0)).collect();
        Self { networks, ports: (0..=u16::MAX / 64).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Says what network the port with this slot is, and its UDP port; none of both for one that is no tunnel.
    pub(super) fn set(&self, slot: u32, vni: Option<u32>, port: Option<u16>) {
        if let Some(network) = self.network_at(slot) {
            network.store(vni.map_or(0, |vni| vni.saturating_add(1)), Ordering::Relaxed);
        }
        if let Some(port) = port
            && let Some(bits) = self.ports.get(usize::from(port / 64))
        {
            bits.fetch_or(1 << (port % 64), Ordering::Relaxed);
        }
    }

    /// The network of a port.
    pub(super) fn network(&self, slot: u32) -> Option<u32> {
        self.network_at(slot)?.load(Ordering::Relaxed).checked_sub(1)
    }

    fn network_at(&self, slot: u32) -> Option<&AtomicU32> {
        self.networks.get(usize::try_from(slot).ok()?)
    }

    fn is_port(&self, port: u16) -> bool {
        self.ports.get(usize::from(port / 64)).is_some_and(|bits| bits.load(Ordering::Relaxed) >> (port % 64) & 1 == 1)
    }
}

/// The network and the frame that a frame carries in VXLAN.
fn open<'a>(bytes: &'a [u8], tunnels: Option<&Tunnels>) -> Option<(u32, &'a [u8])> {
    let layers = Layers::parse(bytes).filter(|layers| layers.transport_kind == Transport::Udp)?;
    let to = u16::from_be_bytes(*bytes.get(layers.transport + 2..)?.first_chunk()?);
    if to != vxlan::UDP_PORT && !tunnels.is_some_and(|tunnels| tunnels.is_port(to)) {
        return None;
    }
    let (header, frame) = Header::decode(bytes.get(layers.payload..layers.end)?).ok()?;
    Some((header.vni.number(), frame))
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use api::{CaptureFilter, Instruction, TUNNEL_STEP, TUNNEL_TESTS};

    /// A program that takes what the first of its tests holds of, or holds not of.
    fn first(test: TunnelTest, holds: bool) -> CaptureFilter {
        let (yes, no) = if holds { (0, 1) } else { (1, 0) };
        let code = [
            Instruction(0x30, 0, 0, TUNNEL_TESTS + 9),
            Instruction(0x15, yes, no, 1),
            Instruction(6, 0, 0, 99),
            Instruction(6, 0, 0, 0),
        ];
        CaptureFilter { code: code.to_vec(), tunnels: vec![test] }
    }

    /// Takes frames with this EtherType.
    fn kind(kind: u32) -> TunnelTest {
        let code =
            vec![Instruction(0x28, 0, 0, 12), Instruction(0x15, 0, 1, kind), Instruction(6, 0, 0, 1), Instruction(6, 0, 0, 0)];
        TunnelTest::Inner(CaptureFilter { code, tunnels: Vec::new() })
    }

    fn udp(port: u16, payload: &[u8], is_v6: bool) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let mut frame = Vec::new();
        if is_v6 {
            ethernet.ipv6([1; 16], [2; 16], 9).udp(5555, port).write(&mut frame, payload).unwrap();
        } else {
            ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).udp(5555, port).write(&mut frame, payload).unwrap();
        }
        frame
    }

    fn in_vxlan(port: u16, vni: u32, inner: &[u8], is_v6: bool) -> Vec<u8> {
        let header = Header { vni: vni.try_into().unwrap() }.encode();
        udp(port, &[&header, inner].concat(), is_v6)
    }

    fn takes(filter: &CaptureFilter, frame: &[u8], around: &Surroundings<'_>) -> bool {
        Program::of(filter).unwrap().run(frame, around) > 0
    }

    #[test]
    fn a_frame_is_taken_by_what_it_carries() {
        let inner = [&[2; 12][..], &[8, 6], &[0; 46]].concat();
        let around = Surroundings::default();
        for is_v6 in [false, true] {
            let outer = in_vxlan(4789, 42, &inner, is_v6);
            for (test, wanted) in
                [(kind(0x806), true), (kind(0x800), false), (TunnelTest::Vni(42), true), (TunnelTest::Vni(43), false)]
            {
                assert_eq!(takes(&first(test.clone(), true), &outer, &around), wanted, "{test:?}");
                assert_eq!(takes(&first(test.clone(), false), &outer, &around), !wanted, "not {test:?}");
                assert!(!takes(&first(test, true), &inner, &around), "it is not carried");
            }
            let tagged = [&outer[..12], &[0x81, 0, 0, 10], &outer[12..]].concat();
            assert!(takes(&first(kind(0x806), true), &tagged, &around), "behind a tag");
            let twice = in_vxlan(4789, 7, &outer, is_v6);
            assert!(!takes(&first(kind(0x806), true), &twice, &around));
            let inside = TunnelTest::Inner(first(kind(0x806), true));
            assert!(takes(&first(inside.clone(), true), &twice, &around) && !takes(&first(inside, true), &outer, &around));
            assert!((0..50).all(|end| !takes(&first(kind(0x806), true), &outer[..end], &around)), "cut short");
        }
        assert!(!takes(&first(kind(0x806), true), &udp(4789, &[0; 60], false), &around), "no network is named");
        let mut fragment = in_vxlan(4789, 42, &inner, false);
        fragment[20] = 0x20;
        assert!(!takes(&first(TunnelTest::Vni(42), true), &fragment, &around), "not whole");
    }

    #[test]
    fn the_switchs_own_tunnels_count() {
        let tunnels = Tunnels::new();
        tunnels.set(3, Some(42), Some(8472));
        let (filter, frame) = (first(TunnelTest::Vni(42), true), in_vxlan(8472, 42, &[0; 60], false));
        let around = Surroundings { vni: None, tunnels: Some(&tunnels) };
        assert!(takes(&filter, &frame, &around) && !takes(&filter, &frame, &Surroundings::default()));
        assert!(takes(&filter, &[0; 60], &Surroundings { vni: tunnels.network(3), ..around }), "by the port");
        tunnels.set(3, None, None);
        assert_eq!((tunnels.network(3), tunnels.network(u32::MAX)), (None, None));
    }

    #[test]
    fn too_many_tests_and_too_deep_ones_are_refused() {
        let mut filter = first(TunnelTest::Vni(1), true);
        filter.tunnels = vec![TunnelTest::Vni(1); CaptureFilter::MOST_TESTS + 1];
        assert_eq!(Program::of(&filter).unwrap_err(), BadProgram::TooManyTests(17));
        let deep = |depth| (1..depth).fold(CaptureFilter::default(), |filter, _| first(TunnelTest::Inner(filter), true));
        assert!(Program::of(&deep(CaptureFilter::DEEPEST)).is_ok());
        assert_eq!(Program::of(&deep(CaptureFilter::DEEPEST + 1)).unwrap_err(), BadProgram::TooDeep);
        let mut beyond = first(TunnelTest::Vni(1), true);
        beyond.code[0].3 += TUNNEL_STEP;
        assert!(!takes(&beyond, &[0; 60], &Surroundings::default()), "a test that is none");
    }
}
