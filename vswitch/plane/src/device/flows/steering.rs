//! By which queue a flow of a station comes: what fills a turn gets a queue of its own, everything else shares the first one.
//!
//! The queue of a TAP or packet socket has no end for TCP: the kernel takes each packet off its sender's account at once (`tun_net_xmit`,
//! `packet_rcv`), so one bulk flow fills the queue up to its window, and all that shares the queue waits behind it. So the flows of a station are sorted into [`BUCKETS`] by addresses,
//! protocol and ports. A program in the kernel looks up the bucket of each frame in a table that this side writes ([`SteeringTable`]): 0
//! stands for the queue of what is sparse, any other number for a queue of bulk flows.
//!
//! - A flow is *bulk* if it fills a turn of the first queue. Its bucket gets the queue that has the fewest.
//! - **The order within a flow is kept.** When its bucket moves, older frames of it may wait in the first queue, so the new one is held until
//!   those have been read ([`Turns::hold`](super::turns::Turns::hold)).
//! - Buckets come back when their queue has not been a turn behind for a second or two and is empty.
//! - What has no IP addresses where the kernel looks for them, such as ARP, is always sparse.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use packet::Batch;
use rustix::io::Errno;
use sys::bpf::{self, Instruction};

/// How many buckets there are. A sparse flow that falls into one of a bulk flow's shares its queue.
const BUCKETS: u32 = 1024;

/// The table of a device, and the program that looks it up.
#[derive(Debug)]
pub struct SteeringTable {
    /// The table, a map of the kernel's.
    pub table: OwnedFd,
    /// The program, for [`tun::set_steering`](sys::tun::set_steering) or [`packet::steer_group`](sys::packet::steer_group).
    pub program: OwnedFd,
}

impl SteeringTable {
    /// A table in which all is sparse. The first `workers` queues of the device are those of what is sparse, one for each worker.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF` in the first user namespace; a kernel without bpf(2).
    pub fn new(workers: usize) -> Result<Self, Errno> {
        let table = bpf::array(BUCKETS)?;
        let workers = u32::try_from(workers).map_err(|_| Errno::INVAL)?;
        let program = bpf::load(&code::look_up(table.as_fd(), workers))?;
        Ok(Self { table, program })
    }

    /// The part of a worker that has `count` queues of bulk flows, of which the kernel calls the first `first`, and the others what follows.
    pub fn part(self: &Arc<Self>, first: u32, count: usize) -> Steering {
        let queues = vec![0; BUCKETS as usize].into_boxed_slice();
        Steering { shared: Arc::clone(self), first, queues, lanes: vec![Lane::default(); count.min(usize::from(u8::MAX))] }
    }
}

/// A worker's part of a table.
#[derive(Debug)]
pub struct Steering {
    shared: Arc<SteeringTable>,
    /// The number, in the kernel, of this worker's first queue of bulk flows; the others follow.
    first: u32,
    /// The worker's own number of each bucket's queue: 0 is that of what is sparse.
    queues: Box<[u8]>,
    /// How each queue of bulk flows did lately.
    lanes: Vec<Lane>,
}

/// A queue of bulk flows.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// How many buckets use it.
    buckets: u32,
    /// How often time has passed since it last filled a turn.
    idle: u8,
}

impl Steering {
    /// The whole table.
    pub(super) const fn table(&self) -> &Arc<SteeringTable> {
        &self.shared
    }

    /// Takes note that a queue has filled its turn with the frames that `batch` has. If it is the first one, and one flow is most of them, that
    /// flow leaves by another from now on, which is returned.
    pub(super) fn filled(&mut self, queue: usize, batch: &Batch) -> Option<usize> {
        if let Some(lane) = queue.checked_sub(1) {
            self.lanes.get_mut(lane)?.idle = 0;
            return None;
        }
        let bucket = heaviest(batch)?;
        let place = self.queues.get_mut(bucket as usize).filter(|queue| **queue == 0)?;
        let (number, lane) = (1_u8..).zip(&mut self.lanes).min_by_key(|(_, lane)| lane.buckets)?;
        bpf::set(self.shared.table.as_fd(), bucket, self.first + u32::from(number) - 1).ok()?;
        *lane = Lane { buckets: lane.buckets + 1, idle: 0 };
        *place = number;
        Some(number.into())
    }

    /// Lets time pass: buckets of a queue that has not filled a turn since the last call but one become sparse again, if it `is_empty`.
    pub(super) fn expire(&mut self, is_empty: impl Fn(usize) -> bool) {
        for (number, lane) in (1_u8..).zip(&mut self.lanes).filter(|(_, lane)| lane.buckets > 0) {
            lane.idle = lane.idle.saturating_add(1);
            if lane.idle < 2 || !is_empty(number.into()) {
                continue;
            }
            for (bucket, queue) in (0..).zip(&mut self.queues).filter(|(_, queue)| **queue == number) {
                if bpf::set(self.shared.table.as_fd(), bucket, 0).is_ok() {
                    *queue = 0;
                    lane.buckets -= 1;
                }
            }
        }
    }
}

/// The bucket whose flows are most of a batch, by bytes, if one is (Boyer and Moore's vote; where none is, any of them).
fn heaviest(batch: &Batch) -> Option<u32> {
    let (mut leader, mut lead) = (None, 0_usize);
    for frame in batch.frames() {
        let (bucket, weight) = (bucket(frame.bytes()), frame.bytes().len());
        if bucket == leader {
            lead += weight;
        } else if weight > lead {
            (leader, lead) = (bucket, weight - lead);
        } else {
            lead -= weight;
        }
    }
    leader
}

/// The bucket of a frame; `None`: it is always sparse. The program computes the same, without the tag, which the kernel keeps apart.
fn bucket(frame: &[u8]) -> Option<u32> {
    let number = |at: usize| frame.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
    let word = |at: usize| frame.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    let tag = if matches!(number(12)?, 0x8100 | 0x88a8) { 4 } else { 0 };
    let ip = 14 + tag;
    let (addresses, protocol, transport) = match number(12 + tag)? {
        0x0800 => {
            let addresses = word(ip + 12)?.wrapping_add(word(ip + 16)?);
            let is_fragment = number(ip + 6)? & 0x3fff != 0;
            let transport = ip + usize::from(*frame.get(ip)? & 15) * 4;
            (addresses, *frame.get(ip + 9)?, Some(transport).filter(|_| !is_fragment))
        }
        0x86dd => {
            let mut addresses = 0_u32;
            for at in (ip + 8..ip + 40).step_by(4) {
                addresses = addresses.wrapping_add(word(at)?);
            }
            (addresses, *frame.get(ip + 6)?, Some(ip + 40))
        }
        _ => return None,
    };
    let ports = match transport.filter(|_| matches!(protocol, 6 | 17)) {
        Some(transport) => u32::from(number(transport)?) + u32::from(number(transport + 2)?),
        None => 0,
    };
    let ports = ports | u32::from(protocol) << 17;
    let mixed = addresses.wrapping_mul(MIX[0]) ^ ports.wrapping_mul(MIX[1]);
    let mixed = mixed ^ mixed >> 15;
    Some(mixed.wrapping_mul(MIX[2]) >> SHIFT)
}

/// Odd numbers that spread what they multiply.
const MIX: [u32; 3] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d];
const SHIFT: u32 = 32 - BUCKETS.trailing_zeros();

/// The program, instruction by instruction (Documentation/bpf/instruction-set.rst). A load beyond the end of the frame ends it with 0.
mod code {
    use std::os::fd::{AsRawFd, BorrowedFd};

    use super::{Instruction, MIX, SHIFT};

    /// Loads from a frame go by way of these two: the result, and the frame itself.
    const RESULT: u8 = 0;
    const FRAME: u8 = 6;
    const ADDRESSES: u8 = 7;
    const TRANSPORT: u8 = 8;
    const PROTOCOL: u8 = 9;
    const STACK: u8 = 10;

    /// Places count from the Ethernet header, wherever the packet begins for the caller (`SKF_LL_OFF`).
    const FROM_FRAME: u32 = (-0x20_0000_i32).cast_unsigned();

    const WORD: u8 = 0x00;
    const HALF: u8 = 0x08;
    const BYTE: u8 = 0x10;

    const ADD: u8 = 0x00;
    const MULTIPLY: u8 = 0x20;
    const OR: u8 = 0x40;
    const AND: u8 = 0x50;
    const LEFT: u8 = 0x60;
    const RIGHT: u8 = 0x70;
    const MODULO: u8 = 0x90;
    const XOR: u8 = 0xa0;
    const MOVE: u8 = 0xb0;

    const EQUAL: u8 = 0x10;
    const UNEQUAL: u8 = 0x50;

    /// What a jump leads to, by how many instructions are left from there on.
    #[derive(Clone, Copy)]
    struct Label(usize);

    /// A program that is written from its end to its beginning, so that every jump knows how far it goes.
    #[derive(Default)]
    struct Reversed(Vec<Instruction>);

    impl Reversed {
        fn put(&mut self, code: u8, (to, from): (u8, u8), offset: i16, immediate: u32) {
            let registers = to | from << 4;
            self.0.push(Instruction { code, registers, offset, immediate: immediate.cast_signed() });
        }

        fn here(&self) -> Label {
            Label(self.0.len())
        }

        fn distance(&self, label: Label) -> i16 {
            i16::try_from(self.0.len() - label.0).unwrap_or(i16::MAX)
        }

        /// Loads from a fixed place of the frame.
        fn load(&mut self, size: u8, at: u32) {
            self.put(0x20 | size, (0, 0), 0, FROM_FRAME.wrapping_add(at));
        }

        /// Loads from the place that a register says.
        fn load_by(&mut self, size: u8, register: u8) {
            self.put(0x40 | size, (0, register), 0, FROM_FRAME);
        }

        /// Computes, in 32 bits, with a number or another register.
        fn with(&mut self, operation: u8, to: u8, number: u32) {
            self.put(0x04 | operation, (to, 0), 0, number);
        }

        fn by(&mut self, operation: u8, to: u8, from: u8) {
            self.put(0x0c | operation, (to, from), 0, 0);
        }

        /// Copies a whole register, such as a pointer.
        fn copy(&mut self, to: u8, from: u8) {
            self.put(0xbf, (to, from), 0, 0);
        }

        fn jump(&mut self, label: Label) {
            let distance = self.distance(label);
            self.put(0x05, (0, 0), distance, 0);
        }

        fn jump_if(&mut self, how: u8, register: u8, number: u32, label: Label) {
            let distance = self.distance(label);
            self.put(0x05 | how, (register, 0), distance, number);
        }

        fn exit(&mut self) {
            self.put(0x95, (0, 0), 0, 0);
        }
    }

    /// Read it from the bottom up.
    pub(super) fn look_up(table: BorrowedFd<'_>, workers: u32) -> Vec<Instruction> {
        let mut code = Reversed::default();
        code.exit();
        let exit = code.here();
        code.with(MOVE, RESULT, 0);
        let sparse = code.here();
        find(&mut code, table, workers, exit);
        mix(&mut code);
        let without_ports = code.here();
        add_ports(&mut code, without_ports);
        let with_ports = code.here();
        read_v6(&mut code, with_ports);
        let v6 = code.here();
        read_v4(&mut code, with_ports, without_ports);
        code.jump_if(UNEQUAL, RESULT, 0x0800, sparse);
        code.jump_if(EQUAL, RESULT, 0x86dd, v6);
        code.load(HALF, 12);
        code.copy(FRAME, 1);
        code.0.reverse();
        code.0
    }

    /// The queue of the bucket in `ADDRESSES`; without one, the worker's that the bucket falls to.
    fn find(code: &mut Reversed, table: BorrowedFd<'_>, workers: u32, exit: Label) {
        code.jump(exit);
        code.with(MODULO, RESULT, workers.max(1));
        code.by(MOVE, RESULT, ADDRESSES);
        code.jump_if(UNEQUAL, RESULT, 0, exit);
        // What is at the address in it.
        code.put(0x61, (RESULT, RESULT), 0, 0);
        code.jump_if(EQUAL, RESULT, 0, exit);
        // bpf_map_lookup_elem(table, &bucket)
        code.put(0x85, (0, 0), 0, 1);
        code.put(0x07, (2, 0), 0, (-4_i32).cast_unsigned());
        code.copy(2, STACK);
        // A wide number, of which the second half comes behind the first.
        code.put(0x00, (0, 0), 0, 0);
        code.put(0x18, (1, 1), 0, table.as_raw_fd().unsigned_abs());
        code.put(0x63, (STACK, ADDRESSES), -4, 0);
    }

    /// The bucket of `ADDRESSES` and of protocol and ports in `RESULT`.
    fn mix(code: &mut Reversed) {
        code.with(RIGHT, ADDRESSES, SHIFT);
        code.with(MULTIPLY, ADDRESSES, MIX[2]);
        code.by(XOR, ADDRESSES, RESULT);
        code.with(RIGHT, RESULT, 15);
        code.by(MOVE, RESULT, ADDRESSES);
        code.by(XOR, ADDRESSES, RESULT);
        code.with(MULTIPLY, RESULT, MIX[1]);
        code.with(MULTIPLY, ADDRESSES, MIX[0]);
        code.by(OR, RESULT, PROTOCOL);
        code.with(LEFT, PROTOCOL, 17);
    }

    /// The sum of both ports in `RESULT`, or 0, from the protocol in `PROTOCOL`.
    fn add_ports(code: &mut Reversed, done: Label) {
        code.by(ADD, RESULT, 1);
        code.with(AND, RESULT, 0xffff);
        code.with(RIGHT, 1, 16);
        code.by(MOVE, 1, RESULT);
        code.load_by(WORD, TRANSPORT);
        let load = code.here();
        code.jump(done);
        code.with(MOVE, RESULT, 0);
        code.jump_if(EQUAL, PROTOCOL, 17, load);
        code.jump_if(EQUAL, PROTOCOL, 6, load);
    }

    fn read_v6(code: &mut Reversed, with_ports: Label) {
        code.jump(with_ports);
        code.by(MOVE, PROTOCOL, RESULT);
        code.load(BYTE, 20);
        code.with(MOVE, TRANSPORT, 54);
        for at in (26..54).step_by(4).rev() {
            code.by(ADD, ADDRESSES, RESULT);
            code.load(WORD, at);
        }
        code.by(MOVE, ADDRESSES, RESULT);
        code.load(WORD, 22);
    }

    /// Of a fragment, only the first has ports, so none counts by them.
    fn read_v4(code: &mut Reversed, with_ports: Label, without_ports: Label) {
        code.jump(without_ports);
        code.with(MOVE, RESULT, 0);
        code.jump_if(EQUAL, RESULT, 0, with_ports);
        code.with(AND, RESULT, 0x3fff);
        code.load(HALF, 20);
        code.by(MOVE, PROTOCOL, RESULT);
        code.load(BYTE, 23);
        code.with(ADD, TRANSPORT, 14);
        code.with(LEFT, TRANSPORT, 2);
        code.with(AND, TRANSPORT, 15);
        code.by(MOVE, TRANSPORT, RESULT);
        code.load(BYTE, 14);
        code.by(ADD, ADDRESSES, RESULT);
        code.load(WORD, 30);
        code.by(MOVE, ADDRESSES, RESULT);
        code.load(WORD, 26);
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use packet::Offload;
    use proptest::prelude::*;

    use super::*;

    /// What only root on the host may do.
    fn table(test: &str, workers: usize) -> Option<Arc<SteeringTable>> {
        match SteeringTable::new(workers) {
            Ok(table) => Some(Arc::new(table)),
            Err(error) => {
                testing::skipped(test, &format!("it needs CAP_BPF: {error}"));
                None
            }
        }
    }

    /// Where the kernel sends a frame.
    fn steered(table: &SteeringTable, frame: &[u8]) -> u32 {
        bpf::run(table.program.as_fd(), frame).unwrap()
    }

    fn udp(source: u16, length: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(source, 53);
        builder.write(&mut frame, &vec![0; length]).unwrap();
        frame
    }

    fn batch(frames: &[&[u8]]) -> Batch {
        let mut batch = Batch::new();
        frames.iter().for_each(|frame| batch.push(frame, Offload::default()));
        batch
    }

    prop_compose! {
        fn any_frame()(
            kind in prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x0806), any::<u16>()],
            protocol in prop_oneof![Just(6_u8), Just(17), Just(1), any::<u8>()],
            fragment in prop_oneof![Just(0_u16), Just(0x4000), Just(0x2000), any::<u16>()],
            header in prop_oneof![Just(0x45_u8), 0x45_u8..0x50, any::<u8>()],
            // The kernel's test run takes no frame that ends in its IP header.
            mut bytes in prop::collection::vec(any::<u8>(), 54..100),
        ) -> Vec<u8> {
            let mut put = |at: usize, what: &[u8]| {
                if let Some(place) = bytes.get_mut(at..at + what.len()) {
                    place.copy_from_slice(what);
                }
            };
            put(12, &kind.to_be_bytes());
            if kind == 0x0800 {
                put(14, &[header]);
                put(20, &fragment.to_be_bytes());
                put(23, &[protocol]);
            } else {
                put(20, &[protocol]);
            }
            // The kernel keeps a tag apart, and the switch puts it in.
            if matches!(kind, 0x8100 | 0x88a8) { put(12, &[0, 0]); }
            bytes
        }
    }

    #[test]
    fn the_program_finds_the_bucket_that_the_switch_means() {
        let Some(table) = table("the_program_finds_the_bucket_that_the_switch_means", 1) else { return };
        (0..BUCKETS).for_each(|bucket| bpf::set(table.table.as_fd(), bucket, bucket + 1).unwrap());
        proptest!(|(frame in any_frame())| {
            prop_assert_eq!(steered(&table, &frame), bucket(&frame).map_or(0, |bucket| bucket + 1));
            let tagged = [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
            prop_assert_eq!(bucket(&tagged), bucket(&frame));
        });
    }

    #[test]
    fn flows_spread_over_the_buckets_and_both_directions_meet() {
        let buckets: std::collections::BTreeSet<_> = (1000..1256).map(|port| bucket(&udp(port, 10)).unwrap()).collect();
        assert!(buckets.len() > 200, "{} buckets for 256 flows", buckets.len());
        let frame = udp(1000, 10);
        let mut back = frame.clone();
        back[26..34].rotate_left(4);
        back[34..38].rotate_left(2);
        assert_eq!(bucket(&frame), bucket(&back));
    }

    #[test]
    fn a_bulk_flow_gets_a_queue_of_its_own_and_gives_it_back() {
        let Some(table) = table("a_bulk_flow_gets_a_queue_of_its_own_and_gives_it_back", 1) else { return };
        let mut steering = table.part(1, 2);
        let [one, two, three] = [1000, 1001, 1002].map(|port| udp(port, 1000));
        assert_eq!(steering.filled(0, &batch(&[&two, &one, &one])), Some(1), "most of it is that flow");
        assert_eq!([&one, &two].map(|frame| steered(&table, frame)), [1, 0]);
        assert_eq!(steering.filled(0, &batch(&[&one])), None, "what is left in the first queue");
        assert_eq!(steering.filled(0, &batch(&[&two])), Some(2));
        assert_eq!(steering.filled(0, &batch(&[&three])), Some(1), "there are no more queues");
        assert_eq!([&one, &two, &three].map(|frame| steered(&table, frame)), [1, 2, 1]);
        steering.expire(|_| true);
        assert_eq!(steering.filled(2, &batch(&[&two])), None);
        steering.expire(|queue| queue != 1);
        assert_eq!(steered(&table, &one), 1, "something waits there");
        steering.expire(|_| true);
        assert_eq!([&one, &two, &three].map(|frame| steered(&table, frame)), [0, 0, 0]);
        assert_eq!(steering.filled(0, &batch(&[&one])), Some(1));
    }

    #[test]
    fn sparse_flows_are_shared_out_among_workers() {
        let Some(table) = table("sparse_flows_are_shared_out_among_workers", 3) else { return };
        let queues: std::collections::BTreeSet<_> = (1000..1032).map(|port| steered(&table, &udp(port, 10))).collect();
        assert_eq!(queues, [0, 1, 2].into());
        assert_eq!(steered(&table, &[0; 60]), 0, "it has no addresses");
    }
}
