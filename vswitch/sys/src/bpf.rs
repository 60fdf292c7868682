//! Programs and maps of the kernel's virtual machine (bpf(2), Documentation/bpf/instruction-set.rst): as much as it takes to say where
//! frames go.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::last_error;

/// One instruction (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Class, size or operation, and mode or source.
    pub code: u8,
    /// The number of the destination register in the low four bits, that of the source in the high four.
    pub registers: u8,
    /// How far a jump goes, or a place relative to a pointer.
    pub offset: i16,
    /// A number in the instruction.
    pub immediate: i32,
}

/// Commands of bpf(2) (linux/bpf.h).
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const PROGRAM_LOAD: libc::c_int = 5;
const PROGRAM_TEST: libc::c_int = 10;

const MAP_OF_ARRAY: u32 = 2;
const SOCKET_FILTER: u32 = 1;

/// `union bpf_attr` as each command reads it. The kernel takes what is shorter than its own and reads the rest as zeros.
#[repr(C)]
struct CreateMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct UpdateMap {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct LoadProgram {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

#[repr(C)]
struct TestProgram {
    program: u32,
    result: u32,
    input_size: u32,
    output_size: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration: u32,
}

/// Makes an array of `entries` numbers, all of them 0, that programs can read.
///
/// # Errors
/// `EPERM` without `CAP_BPF` in the first user namespace, `ENOSYS` for a kernel without bpf(2).
pub fn array(entries: u32) -> Result<OwnedFd, Errno> {
    let mut attributes = CreateMap { kind: MAP_OF_ARRAY, key_size: 4, value_size: 4, entries, flags: 0 };
    call(MAP_CREATE, &mut attributes).map(own)
}

/// Sets one number of an array. A program that runs meanwhile reads the old one or the new one.
///
/// # Errors
/// `E2BIG` for an index that the array does not have.
pub fn set(array: BorrowedFd<'_>, index: u32, value: u32) -> Result<(), Errno> {
    let (key, value) = (std::ptr::from_ref(&index).addr() as u64, std::ptr::from_ref(&value).addr() as u64);
    call(MAP_UPDATE, &mut UpdateMap { map: number(array), padding: 0, key, value, flags: 0 }).map(drop)
}

/// Loads a program that is run for a packet and returns a number (`BPF_PROG_TYPE_SOCKET_FILTER`).
///
/// # Errors
/// `EPERM` without `CAP_BPF`, `EINVAL` or `EACCES` for a program that the kernel cannot prove safe.
pub fn load(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let count = u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let (instructions, license) = (program.as_ptr().addr() as u64, c"GPL".as_ptr().addr() as u64);
    call(PROGRAM_LOAD, &mut LoadProgram { kind: SOCKET_FILTER, count, instructions, license }).map(own)
}

/// Runs a program on a frame, and says what it returned.
///
/// # Errors
/// `EINVAL` for a frame shorter than an Ethernet header, `EPERM` without `CAP_BPF`.
pub fn run(program: BorrowedFd<'_>, frame: &[u8]) -> Result<u32, Errno> {
    let input_size = u32::try_from(frame.len()).map_err(|_| Errno::TOOBIG)?;
    let mut attributes = TestProgram {
        program: number(program),
        result: 0,
        input_size,
        output_size: 0,
        input: frame.as_ptr().addr() as u64,
        output: 0,
        repeat: 1,
        duration: 0,
    };
    call(PROGRAM_TEST, &mut attributes)?;
    Ok(attributes.result)
}

/// How a descriptor is named in attributes and instructions.
fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn call<T>(command: libc::c_int, attributes: &mut T) -> Result<RawFd, Errno> {
    // SAFETY: `attributes` is one of the structures above, exclusively borrowed, laid out as the command reads it, and its own size is
    // given; every pointer in it is to something that the caller holds while it waits, as long as the sizes beside it say.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    match RawFd::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(last_error()),
    }
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor, close-on-exec, for this call alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
