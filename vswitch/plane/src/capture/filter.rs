//! Classic BPF, checked and run.
//!
//! A filter comes from outside (the user who asks for a capture sends it), so [`Program::new`] refuses what the kernel's
//! `bpf_check_classic` (net/core/filter.c) refuses, and turns the rest into operations that cannot be wrong: [`Program::run`]
//! only ever moves forward, so it ends after at most as many steps as there are instructions, whatever the frame holds.
//!
//! Where the kernel and libpcap differ, this is libpcap, as tcpdump's users know it: an indexed load whose address overflows
//! is outside the frame, a shift by 32 or more gives 0.
//!
//! No crate does this: rbpf and its kin run eBPF, bpfjit is a binding to C that makes native code, and classic_bpf and bpf
//! hand a program to the kernel.

use super::operation::{Operand, Operation, Register, Value, Width};
use super::tunnels::{Surroundings, TunnelCheck};
use api::{CaptureFilter, Instruction, TUNNEL_STEP, TUNNEL_TESTS};

/// Most instructions in a program: `BPF_MAXINSNS` (linux/bpf_common.h).
const LONGEST: usize = 4096;
/// Words of scratch memory: `BPF_MEMWORDS` (linux/filter.h).
pub(super) const WORDS: usize = 16;

/// A filter that was checked.
#[derive(Clone, Debug, Default)]
pub struct Program {
    operations: Vec<Operation>,
    /// What it asks about tunnels.
    tests: Vec<TunnelCheck>,
}

/// Why a list of instructions is not a program. Instructions are counted from 0, as tcpdump -d does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProgram {
    /// Too many instructions.
    #[error("the filter has {0} instructions: use at most {LONGEST}")]
    TooLong(usize),
    /// The last instruction would run into nothing.
    #[error("the filter does not end with a return")]
    NoReturn,
    /// Not an instruction of classic BPF.
    #[error("instruction {0} of the filter has the unknown code {1:#06x}")]
    Unknown(usize, u16),
    /// A jump out of the program.
    #[error("instruction {0} of the filter jumps past the end")]
    Jump(usize),
    /// Memory beyond its 16 words.
    #[error("instruction {0} of the filter uses memory word {1}: there are {WORDS}, from 0")]
    Word(usize, u32),
    /// Memory that is read before it is written.
    #[error("instruction {0} of the filter reads memory that no instruction before it has written on every way")]
    Unwritten(usize),
    /// Always a division by zero.
    #[error("instruction {0} of the filter divides by zero")]
    DivisionByZero(usize),
    /// A shift that leaves nothing.
    #[error("instruction {0} of the filter shifts by {1} bits: use at most 31")]
    Shift(usize, u32),
    /// A load of what only the kernel knows.
    #[error(
        "instruction {0} of the filter reads metadata of the kernel, as inbound, outbound and ifindex do: a capture on the switch \
         has none, so choose ports instead"
    )]
    Metadata(usize),
    /// Too many tests.
    #[error("the filter asks {0} things about tunnels: use at most {most}", most = CaptureFilter::MOST_TESTS)]
    TooManyTests(usize),
    /// Too many filters inside each other.
    #[error("more than {most} filters are inside each other", most = CaptureFilter::DEEPEST)]
    TooDeep,
}

impl Program {
    /// Checks `instructions`. An empty list takes every frame whole.
    ///
    /// # Errors
    /// [`BadProgram`] names the first thing that is wrong.
    pub fn new(instructions: &[Instruction]) -> Result<Self, BadProgram> {
        if instructions.len() > LONGEST {
            return Err(BadProgram::TooLong(instructions.len()));
        }
        let decoded = instructions.iter().enumerate().map(|(at, &instruction)| Operation::decode(at, instruction));
        let operations: Vec<_> = decoded.collect::<Result<_, _>>()?;
        check_jumps(&operations)?;
        check_memory(&operations)?;
        match operations.last() {
            None | Some(Operation::Return(_)) => Ok(Self { operations, tests: Vec::new() }),
            Some(_) => Err(BadProgram::NoReturn),
        }
    }

    /// Checks a filter with what it asks about tunnels.
    ///
    /// # Errors
    /// [`BadProgram`] names the first thing that is wrong.
    pub fn of(filter: &CaptureFilter) -> Result<Self, BadProgram> {
        Self::inside(filter, CaptureFilter::DEEPEST)
    }

    /// As [`Program::of`], with at most so many filters inside each other.
    pub(super) fn inside(filter: &CaptureFilter, deepest: usize) -> Result<Self, BadProgram> {
        if filter.tunnels.len() > CaptureFilter::MOST_TESTS {
            return Err(BadProgram::TooManyTests(filter.tunnels.len()));
        }
        let deepest = deepest.checked_sub(1).ok_or(BadProgram::TooDeep)?;
        let tests = filter.tunnels.iter().map(|test| TunnelCheck::of(test, deepest)).collect::<Result<_, _>>()?;
        Ok(Self { tests, ..Self::new(&filter.code)? })
    }

    /// Whether it asks about tunnels.
    pub(super) fn asks_about_tunnels(&self) -> bool {
        !self.tests.is_empty()
    }

    /// How many bytes of the frame `bytes` to keep; 0 if the frame is not wanted.
    pub fn run(&self, bytes: &[u8], around: &Surroundings<'_>) -> u32 {
        if self.operations.is_empty() {
            return u32::MAX;
        }
        let tests = Answers { tests: &self.tests, around, asked: [None; CaptureFilter::MOST_TESTS] };
        let mut machine = Machine { bytes, a: 0, x: 0, memory: [0; WORDS], tests };
        let mut next = 0;
        while let Some(&operation) = self.operations.get(next) {
            next += 1;
            match machine.step(operation) {
                Step::Skip(count) => next += count,
                Step::Return(verdict) => return verdict,
            }
        }
        0
    }
}

fn check_jumps(operations: &[Operation]) -> Result<(), BadProgram> {
    for (at, operation) in operations.iter().enumerate() {
        let furthest = match *operation {
            Operation::Jump(by) => by,
            Operation::Branch { yes, no, .. } => yes.max(no),
            _ => continue,
        };
        if furthest >= operations.len() - at - 1 {
            return Err(BadProgram::Jump(at));
        }
    }
    Ok(())
}

/// Every word that is read must have been written on every way that leads there, as `check_load_and_stores` asks. Jumps go
/// forward only, so one pass sees every way to an instruction before the instruction.
fn check_memory(operations: &[Operation]) -> Result<(), BadProgram> {
    let mut written_at = vec![u16::MAX; operations.len()];
    let mut written = 0;
    for (at, operation) in operations.iter().enumerate() {
        written &= written_at[at];
        match *operation {
            Operation::Store(_, word) => written |= 1 << word,
            Operation::Set(_, Value::Memory(word)) if written & (1 << word) == 0 => return Err(BadProgram::Unwritten(at)),
            Operation::Jump(by) => {
                written_at[at + 1 + by] &= written;
                written = u16::MAX;
            }
            Operation::Branch { yes, no, .. } => {
                written_at[at + 1 + yes] &= written;
                written_at[at + 1 + no] &= written;
                written = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a running program holds.
struct Machine<'a> {
    bytes: &'a [u8],
    a: u32,
    x: u32,
    memory: [u32; WORDS],
    tests: Answers<'a>,
}

/// What a running program was told about tunnels. It is told everything once, so a program takes no longer than all its tests together.
struct Answers<'a> {
    tests: &'a [TunnelCheck],
    around: &'a Surroundings<'a>,
    asked: [Option<bool>; CaptureFilter::MOST_TESTS],
}

impl Answers<'_> {
    fn ask(&mut self, offset: u32, bytes: &[u8]) -> Option<bool> {
        let number = usize::try_from(offset / TUNNEL_STEP).ok()?;
        let test = self.tests.get(number)?;
        let answer = self.asked.get_mut(number)?;
        Some(*answer.get_or_insert_with(|| test.holds(bytes, self.around)))
    }
}

enum Step {
    Skip(usize),
    Return(u32),
}

impl Machine<'_> {
    fn step(&mut self, operation: Operation) -> Step {
        // A load outside the frame and a division by zero end the program with "no".
        const NO: Step = Step::Return(0);
        match operation {
            Operation::Load { width, offset, indexed } => {
                let offset = if indexed { self.x.checked_add(offset) } else { Some(offset) };
                let Some(value) = offset.and_then(|offset| self.load(width, offset)) else { return NO };
                self.a = value;
            }
            Operation::HeaderLength(offset) => {
                let Some(byte) = self.load(Width::Byte, offset) else { return NO };
                self.x = (byte & 0x0f) * 4;
            }
            Operation::Compute(arithmetic, operand) => {
                let Some(value) = arithmetic.compute(self.a, self.operand(operand)) else { return NO };
                self.a = value;
            }
            Operation::Set(register, value) => *self.register(register) = self.value(value),
            Operation::Copy(Register::A) => self.a = self.x,
            Operation::Copy(Register::X) => self.x = self.a,
            Operation::Store(register, word) => self.memory[word] = *self.register(register),
            Operation::Negate => self.a = self.a.wrapping_neg(),
            Operation::Jump(by) => return Step::Skip(by),
            Operation::Branch { test, operand, yes, no } => {
                return Step::Skip(if test.holds(self.a, self.operand(operand)) { yes } else { no });
            }
            Operation::Return(verdict) => return Step::Return(verdict.unwrap_or(self.a)),
        }
        Step::Skip(0)
    }

    fn load(&mut self, width: Width, offset: u32) -> Option<u32> {
        if let Some(offset) = offset.checked_sub(TUNNEL_TESTS) {
            return self.tests.ask(offset, self.bytes).map(u32::from);
        }
        let rest = self.bytes.get(usize::try_from(offset).ok()?..)?;
        match width {
            Width::Byte => rest.first().map(|&byte| byte.into()),
            Width::Half => rest.first_chunk().map(|&bytes| u16::from_be_bytes(bytes).into()),
            Width::Word => rest.first_chunk().map(|&bytes| u32::from_be_bytes(bytes)),
        }
    }

    fn register(&mut self, register: Register) -> &mut u32 {
        match register {
            Register::A => &mut self.a,
            Register::X => &mut self.x,
        }
    }

    fn value(&self, value: Value) -> u32 {
        match value {
            Value::Constant(constant) => constant,
            Value::Memory(word) => self.memory[word],
            Value::Length => u32::try_from(self.bytes.len()).unwrap_or(u32::MAX),
        }
    }

    fn operand(&self, operand: Operand) -> u32 {
        match operand {
            Operand::Constant(constant) => constant,
            Operand::X => self.x,
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;
    use sys::pcap::{self, CompileError};
    use testing::skipped;

    const EXPRESSIONS: &[&str] = &[
        "ip",
        "arp",
        "ip6",
        "host 10.0.0.1",
        "src host 10.0.0.1 and not dst host 10.0.1.2",
        "net 10.0.0.0/24",
        "dst net 10.0.0.0/16",
        "ip6 host fd00::1",
        "ip6 net fd00::/64",
        "port 53",
        "tcp port 80",
        "udp src port 53",
        "portrange 80-443",
        "tcp dst portrange 1000-60000",
        "icmp",
        "icmp[icmptype] = icmp-echo",
        "icmp6",
        "icmp6 and ip6[40] = 128",
        "ether host 02:00:00:00:00:01",
        "ether src 02:00:00:00:00:02 or ether dst 02:00:00:00:00:02",
        "ether broadcast",
        "broadcast or multicast",
        "ether multicast",
        "vlan",
        "vlan 10",
        "vlan 10 and tcp port 80",
        "vlan and vlan and ip",
        "not vlan and not arp",
        "arp host 10.0.0.1",
        "arp[6:2] = 2",
        "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
        "tcp[13] & 0x12 = 0x12 and not port 443",
        "ip[6:2] & 0x1fff != 0",
        "ip[8] < 10",
        "greater 500",
        "less 60",
        "len > 100 and len < 1000",
        "udp[4:2] > 100",
        "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420",
        "(ip[2:2] - ((ip[0] & 0xf) << 2)) != 20",
        "ether[0] & 1 = 1 and ether[len - 1] != 0",
        "ip[0] % 3 = 0 or ip[8] / 2 > 40",
        "ip proto 132 or (udp and not (port 53 or port 4789))",
        "ether proto 0x88cc",
        "ip or ip6 or arp or vlan",
    ];

    fn mac() -> impl Strategy<Value = [u8; 6]> {
        select(vec![[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [0x33, 0x33, 0, 0, 0, 1], [0xff; 6]])
    }

    fn port() -> impl Strategy<Value = u16> {
        prop_oneof![select(vec![22, 53, 80, 443, 4789]), any::<u16>()]
    }

    fn payload() -> impl Strategy<Value = Vec<u8>> {
        let text = Just(b"GET / HTTP/1.1\r\n".to_vec());
        prop_oneof![text, prop::collection::vec(any::<u8>(), 0..64), (0usize..1400).prop_map(|length| vec![0; length])]
    }

    /// A frame of ARP or of a transport over IPv4 or IPv6, untagged and whole.
    fn packet() -> impl Strategy<Value = Vec<u8>> {
        let v4 = || select(vec![[10, 0, 0, 1], [10, 0, 1, 2], [192, 0, 2, 7], [224, 0, 0, 5]]);
        let v6 = || select(vec![1u8, 2, 3]);
        let what = (mac(), mac(), v4(), v4(), v6(), v6());
        (what, 0..8u8, port(), port(), any::<u8>(), any::<u8>(), payload()).prop_map(
            |((source, destination, from, to, from6, to6), kind, sport, dport, flags, ttl, payload)| {
                let v6 = |last, first| [first, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
                let ethernet = PacketBuilder::ethernet2(source, destination);
                let mut frame = Vec::new();
                match kind {
                    0 => {
                        frame.extend_from_slice(&destination);
                        frame.extend_from_slice(&source);
                        frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + flags % 2]);
                        [&source[..], &from, &destination, &to].into_iter().for_each(|field| frame.extend_from_slice(field));
                    }
                    1 => ethernet.ipv4(from, to, ttl).icmpv4_echo_request(1, 2).write(&mut frame, &payload).unwrap(),
                    2 => {
                        let (from, to) = (v6(from6, 0xfd), v6(to6, 0xff));
                        ethernet.ipv6(from, to, ttl).icmpv6_echo_request(1, 2).write(&mut frame, &payload).unwrap();
                    }
                    3 => ethernet.ipv4(from, to, ttl).udp(sport, dport).write(&mut frame, &payload).unwrap(),
                    4 => {
                        let (from, to) = (v6(from6, 0xfd), v6(to6, 0xfe));
                        ethernet.ipv6(from, to, ttl).udp(sport, dport).write(&mut frame, &payload).unwrap();
                    }
                    5 => {
                        let (from, to) = (v6(from6, 0xfe), v6(to6, 0xfd));
                        ethernet.ipv6(from, to, ttl).tcp(sport, dport, 1, 9).syn().write(&mut frame, &payload).unwrap();
                    }
                    _ => {
                        ethernet.ipv4(from, to, ttl).tcp(sport, dport, 1, 9).write(&mut frame, &payload).unwrap();
                        frame[14 + 20 + 13] = flags;
                    }
                }
                frame
            },
        )
    }

    /// Packets with tags, as fragments, of other protocols, cut short, and plain garbage.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let tags = prop::collection::vec((select(vec![0x8100u16, 0x88a8]), select(vec![1u16, 10, 4000])), 0..3);
        let bent = (packet(), tags, any::<u16>(), 0..10u8, any::<prop::sample::Index>()).prop_map(
            |(mut frame, tags, word, bend, index)| {
                match bend {
                    0 => frame[20..22].copy_from_slice(&word.to_be_bytes()),
                    1 => frame[23] = if word % 2 == 0 { 132 } else { word.to_be_bytes()[1] },
                    2 => frame[12..14].copy_from_slice(&0x88cc_u16.to_be_bytes()),
                    3 => frame[14] = word.to_be_bytes()[1],
                    _ => {}
                }
                for (ethertype, vlan) in tags {
                    frame.splice(12..12, [ethertype.to_be_bytes(), vlan.to_be_bytes()].concat());
                }
                if bend == 4 {
                    frame.truncate(index.index(frame.len()));
                }
                frame
            },
        );
        prop_oneof![9 => bent, 1 => prop::collection::vec(any::<u8>(), 0..200)]
    }

    #[test]
    fn libpcap_gives_the_same_verdicts() {
        let compiled = EXPRESSIONS.iter().map(|expression| match pcap::compile(expression) {
            Err(CompileError::Missing(_)) => None,
            code => Some((*expression, code.unwrap())),
        });
        let Some(compiled) = compiled.collect::<Option<Vec<_>>>() else {
            return skipped("libpcap_gives_the_same_verdicts", "no libpcap");
        };
        let mut runner = TestRunner::deterministic();
        let frames: Vec<_> = (0..4000).map(|_| frame().new_tree(&mut runner).unwrap().current()).collect();
        for (expression, code) in compiled {
            let program = Program::new(&code).unwrap();
            let mut taken = 0;
            for frame in &frames {
                let verdict = program.run(frame, &Surroundings::default());
                assert_eq!(verdict, pcap::verdict(&code, frame).unwrap().unwrap(), "{expression} on {frame:02x?}");
                taken += usize::from(verdict != 0);
            }
            assert!(
                (1..frames.len()).contains(&taken),
                "{expression} took {taken} of {}: the frames test nothing",
                frames.len()
            );
        }
    }

    /// Instructions that are often valid: known codes, small operands, short jumps.
    fn instructions() -> impl Strategy<Value = Vec<Instruction>> {
        const CODES: [u16; 45] = [
            0x00, 0x01, 0x60, 0x61, 0x80, 0x81, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1, 0x02, 0x03, 0x07, 0x87, 0x84, 0x05,
            0x06, 0x16, 0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74, 0x7c, 0x94,
            0x9c, 0xa4, 0xac, 0x15, 0x1d, 0x25, 0x4d,
        ];
        let operand = prop_oneof![6 => 0..4u32, 2 => 0..80u32, 1 => any::<u32>()];
        let one = (select(&CODES[..]), 0..3u8, 0..3u8, operand).prop_map(|(code, yes, no, k)| Instruction(code, yes, no, k));
        let writes = (0..4u32).prop_map(|word| Instruction(0x02, 0, 0, word));
        let end = [Instruction(0x16, 0, 0, 0), Instruction(0x16, 0, 0, 0), Instruction(0x16, 0, 0, 0)];
        (prop::collection::vec(writes, 0..4), prop::collection::vec(one, 0..20))
            .prop_map(move |(head, body)| [head, body, end.to_vec()].concat())
    }

    #[test]
    fn any_accepted_program_runs_as_in_libpcap() {
        if let Err(CompileError::Missing(_)) = pcap::compile("") {
            return skipped("any_accepted_program_runs_as_in_libpcap", "no libpcap");
        }
        proptest!(ProptestConfig { cases: 4096, ..ProptestConfig::default() }, |(code in instructions(), frame in frame())| {
            if let Ok(program) = Program::new(&code) {
                prop_assert_eq!(program.run(&frame, &Surroundings::default()), pcap::verdict(&code, &frame).unwrap().unwrap());
            }
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn anything_is_refused_or_ends(
            code in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()), 0..40),
            frame in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let code: Vec<_> = code.into_iter().map(|(code, yes, no, k)| Instruction(code & 0xff, yes & 7, no & 7, k)).collect();
            if let Ok(program) = Program::new(&code) {
                program.run(&frame, &Surroundings::default());
            }
        }
    }

    #[test]
    fn what_only_the_kernel_knows_is_refused() {
        for expression in ["inbound", "outbound and tcp"] {
            match pcap::compile(expression) {
                Err(CompileError::Missing(_)) => return skipped("what_only_the_kernel_knows_is_refused", "no libpcap"),
                code => assert!(matches!(Program::new(&code.unwrap()), Err(BadProgram::Metadata(_))), "{expression}"),
            }
        }
    }

    #[test]
    fn no_instructions_take_everything() {
        assert_eq!(Program::new(&[]).unwrap().run(&[], &Surroundings::default()), u32::MAX);
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        const RETURN: Instruction = Instruction(0x06, 0, 0, 1);
        let refused = |code: &[Instruction]| Program::new(&[code, &[RETURN]].concat()).unwrap_err();
        assert_eq!(Program::new(&vec![RETURN; 4097]).unwrap_err(), BadProgram::TooLong(4097));
        assert!(Program::new(&vec![RETURN; 4096]).is_ok());
        assert_eq!(Program::new(&[Instruction(0x00, 0, 0, 1)]).unwrap_err(), BadProgram::NoReturn);
        for code in [0x08, 0x0e, 0x17, 0x1e, 0x38, 0x8c, 0x91, 0xb4, 0x55, 0x0d, 0x106, 0xa0] {
            assert_eq!(refused(&[Instruction(code, 0, 0, 1)]), BadProgram::Unknown(0, code), "{code:#x}");
        }
        assert_eq!(refused(&[Instruction(0x05, 0, 0, 1)]), BadProgram::Jump(0));
        assert_eq!(refused(&[Instruction(0x05, 0, 0, u32::MAX)]), BadProgram::Jump(0));
        assert_eq!(refused(&[RETURN, Instruction(0x15, 0, 1, 0)]), BadProgram::Jump(1));
        assert_eq!(refused(&[Instruction(0x15, 1, 0, 0)]), BadProgram::Jump(0));
        assert_eq!(refused(&[Instruction(0x02, 0, 0, 16)]), BadProgram::Word(0, 16));
        assert_eq!(refused(&[Instruction(0x61, 0, 0, 16)]), BadProgram::Word(0, 16));
        assert_eq!(refused(&[Instruction(0x60, 0, 0, 3)]), BadProgram::Unwritten(0));
        assert_eq!(refused(&[Instruction(0x34, 0, 0, 0)]), BadProgram::DivisionByZero(0));
        assert_eq!(refused(&[Instruction(0x94, 0, 0, 0)]), BadProgram::DivisionByZero(0));
        assert_eq!(refused(&[Instruction(0x64, 0, 0, 32)]), BadProgram::Shift(0, 32));
        assert_eq!(refused(&[Instruction(0x74, 0, 0, 99)]), BadProgram::Shift(0, 99));
        assert_eq!(refused(&[Instruction(0x28, 0, 0, 0xffff_f004)]), BadProgram::Metadata(0));
        let one_way_only = [Instruction(0x15, 0, 1, 0), Instruction(0x02, 0, 0, 0), Instruction(0x60, 0, 0, 0)];
        assert_eq!(refused(&one_way_only), BadProgram::Unwritten(2));
    }

    #[test]
    fn a_division_by_nothing_and_a_load_outside_say_no() {
        for code in
            [Instruction(0x3c, 0, 0, 0), Instruction(0x9c, 0, 0, 0), Instruction(0x20, 0, 0, 1), Instruction(0xb1, 0, 0, 4)]
        {
            let program = Program::new(&[code, Instruction(0x06, 0, 0, 9)]).unwrap();
            assert_eq!(program.run(&[0; 4], &Surroundings::default()), 0, "{code:?}");
        }
        let program = Program::new(&[Instruction(0x20, 0, 0, 0), Instruction(0x06, 0, 0, 9)]).unwrap();
        assert_eq!(program.run(&[0; 4], &Surroundings::default()), 9);
    }
}
