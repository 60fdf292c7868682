//! The instructions of classic BPF (Linux, Documentation/networking/filter.rst), taken apart.

use super::filter::{BadProgram, WORDS};
use api::Instruction;

/// Absolute offsets from here on name kernel metadata or headers that the kernel found: `SKF_LL_OFF` (linux/filter.h).
const METADATA: u32 = 0xffe0_0000;

/// One instruction, taken apart and known to be good by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    /// Loads from the frame into A, at the offset or, indexed, at X plus the offset.
    Load {
        width: Width,
        offset: u32,
        indexed: bool,
    },
    /// Loads four times the low nibble of a byte into X: the length of an IPv4 header.
    HeaderLength(u32),
    Set(Register, Value),
    /// Copies the other register into this one.
    Copy(Register),
    Store(Register, usize),
    Compute(Arithmetic, Operand),
    Negate,
    Jump(usize),
    Branch {
        test: Test,
        operand: Operand,
        yes: usize,
        no: usize,
    },
    /// Ends with a constant, or with A.
    Return(Option<u32>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Width {
    Byte,
    Half,
    Word,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Register {
    A,
    X,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Constant(u32),
    Memory(usize),
    Length,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Operand {
    Constant(u32),
    X,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Or,
    And,
    Xor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

impl Operation {
    /// Reads one instruction. The comments are the words of the BPF assembler.
    pub(super) fn decode(at: usize, Instruction(code, yes, no, k): Instruction) -> Result<Self, BadProgram> {
        let word = || usize::try_from(k).ok().filter(|&word| word < WORDS).ok_or(BadProgram::Word(at, k));
        Ok(match code {
            0x00 => Self::Set(Register::A, Value::Constant(k)),     // ld #k
            0x01 => Self::Set(Register::X, Value::Constant(k)),     // ldx #k
            0x60 => Self::Set(Register::A, Value::Memory(word()?)), // ld M[k]
            0x61 => Self::Set(Register::X, Value::Memory(word()?)), // ldx M[k]
            0x80 => Self::Set(Register::A, Value::Length),          // ld #len
            0x81 => Self::Set(Register::X, Value::Length),          // ldx #len
            0x20 | 0x28 | 0x30 if k >= METADATA => return Err(BadProgram::Metadata(at)),
            0x20 => Self::Load { width: Width::Word, offset: k, indexed: false }, // ld [k]
            0x28 => Self::Load { width: Width::Half, offset: k, indexed: false }, // ldh [k]
            0x30 => Self::Load { width: Width::Byte, offset: k, indexed: false }, // ldb [k]
            0x40 => Self::Load { width: Width::Word, offset: k, indexed: true },  // ld [x + k]
            0x48 => Self::Load { width: Width::Half, offset: k, indexed: true },  // ldh [x + k]
            0x50 => Self::Load { width: Width::Byte, offset: k, indexed: true },  // ldb [x + k]
            0xb1 => Self::HeaderLength(k),                                        // ldxb 4*([k]&0xf)
            0x02 => Self::Store(Register::A, word()?),                            // st M[k]
            0x03 => Self::Store(Register::X, word()?),                            // stx M[k]
            0x07 => Self::Copy(Register::X),                                      // tax
            0x87 => Self::Copy(Register::A),                                      // txa
            0x84 => Self::Negate,                                                 // neg
            0x05 => Self::Jump(usize::try_from(k).map_err(|_| BadProgram::Jump(at))?), // ja
            0x06 => Self::Return(Some(k)),                                        // ret #k
            0x16 => Self::Return(None),                                           // ret a
            _ if code & 0xff07 == 0x04 => Self::decode_arithmetic(at, code, k)?,
            _ if code & 0xff07 == 0x05 => Self::decode_branch(at, code, yes, no, k)?,
            _ => return Err(BadProgram::Unknown(at, code)),
        })
    }

    fn decode_arithmetic(at: usize, code: u16, k: u32) -> Result<Self, BadProgram> {
        let operand = Operand::decode(code, k);
        let arithmetic = match code & 0xf0 {
            0x00 => Arithmetic::Add,
            0x10 => Arithmetic::Subtract,
            0x20 => Arithmetic::Multiply,
            0x30 | 0x90 if matches!(operand, Operand::Constant(0)) => return Err(BadProgram::DivisionByZero(at)),
            0x30 => Arithmetic::Divide,
            0x40 => Arithmetic::Or,
            0x50 => Arithmetic::And,
            0x60 | 0x70 if matches!(operand, Operand::Constant(32..)) => return Err(BadProgram::Shift(at, k)),
            0x60 => Arithmetic::ShiftLeft,
            0x70 => Arithmetic::ShiftRight,
            0x90 => Arithmetic::Modulo,
            0xa0 => Arithmetic::Xor,
            _ => return Err(BadProgram::Unknown(at, code)),
        };
        Ok(Self::Compute(arithmetic, operand))
    }

    fn decode_branch(at: usize, code: u16, yes: u8, no: u8, k: u32) -> Result<Self, BadProgram> {
        let test = match code & 0xf0 {
            0x10 => Test::Equal,
            0x20 => Test::Greater,
            0x30 => Test::GreaterOrEqual,
            0x40 => Test::AnyBit,
            _ => return Err(BadProgram::Unknown(at, code)),
        };
        Ok(Self::Branch { test, operand: Operand::decode(code, k), yes: yes.into(), no: no.into() })
    }
}

impl Operand {
    fn decode(code: u16, k: u32) -> Self {
        if code & 0x08 == 0 { Self::Constant(k) } else { Self::X }
    }
}

impl Arithmetic {
    pub(super) fn compute(self, a: u32, b: u32) -> Option<u32> {
        Some(match self {
            Self::Add => a.wrapping_add(b),
            Self::Subtract => a.wrapping_sub(b),
            Self::Multiply => a.wrapping_mul(b),
            Self::Divide => a.checked_div(b)?,
            Self::Modulo => a.checked_rem(b)?,
            Self::Or => a | b,
            Self::And => a & b,
            Self::Xor => a ^ b,
            Self::ShiftLeft => a.checked_shl(b).unwrap_or(0),
            Self::ShiftRight => a.checked_shr(b).unwrap_or(0),
        })
    }
}

impl Test {
    pub(super) fn holds(self, a: u32, b: u32) -> bool {
        match self {
            Self::Equal => a == b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
            Self::AnyBit => a & b != 0,
        }
    }
}
