//! tcpdump's filter language, compiled by the system's libpcap.
//!
//! The library is opened when the first filter is compiled, not when the program starts: a machine without libpcap runs
//! everything else. What comes out is classic BPF; `capture::filter` runs it without libpcap, in any process.

use std::ffi::{CStr, CString, NulError, c_char, c_int, c_uint, c_void};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use libloading::Library;

use api::Instruction;

/// Why an expression is not a filter.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// No libpcap, or one without the functions that every release since 0.8 has.
    #[error(
        "filters are compiled by libpcap, which this machine does not have: install libpcap0.8 (Debian, Ubuntu) or libpcap \
         (elsewhere), or capture without a filter"
    )]
    Missing(#[source] libloading::Error),
    /// libpcap does not understand the expression.
    #[error("\"{expression}\" is not a filter: libpcap says \"{message}\" (man pcap-filter has the language)")]
    Syntax {
        /// What was to be compiled.
        expression: String,
        /// libpcap's own words.
        message: String,
    },
    /// C strings end at a zero byte.
    #[error("a filter cannot hold a zero byte: leave it out")]
    Zero(#[source] NulError),
}

/// Compiles `expression` (man 7 pcap-filter) for Ethernet frames of any length. An empty expression takes every frame.
///
/// # Errors
/// [`CompileError`]
pub fn compile(expression: &str) -> Result<Vec<Instruction>, CompileError> {
    let text = CString::new(expression).map_err(CompileError::Zero)?;
    with_libpcap(|library| {
        let message = match library.open_dead() {
            Some(handle) => match handle.compile(&text) {
                Ok(program) => return Ok(program),
                Err(message) => message,
            },
            None => "out of memory".to_owned(),
        };
        Err(CompileError::Syntax { expression: expression.to_owned(), message })
    })?
}

/// Opens libpcap once and lets one thread in at a time: the parser of releases before 1.8 is not reentrant.
fn with_libpcap<T>(act: impl FnOnce(&Libpcap) -> T) -> Result<T, CompileError> {
    static LIBPCAP: Mutex<Option<Libpcap>> = Mutex::new(None);
    let mut slot = LIBPCAP.lock().unwrap_or_else(PoisonError::into_inner);
    let library = match slot.take() {
        Some(library) => library,
        None => Libpcap::load().map_err(CompileError::Missing)?,
    };
    Ok(act(slot.insert(library)))
}

/// The functions of libpcap that are used here. They stay valid as long as the library beside them is open.
struct Libpcap {
    open_dead: unsafe extern "C" fn(c_int, c_int) -> *mut c_void,
    compile: unsafe extern "C" fn(*mut c_void, *mut BpfProgram, *const c_char, c_int, u32) -> c_int,
    geterr: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    freecode: unsafe extern "C" fn(*mut BpfProgram),
    close: unsafe extern "C" fn(*mut c_void),
    validate: unsafe extern "C" fn(*const BpfInstruction, c_int) -> c_int,
    offline_filter: unsafe extern "C" fn(*const BpfProgram, *const PacketHeader, *const u8) -> c_int,
    _library: Library,
}

impl Libpcap {
    fn load() -> Result<Self, libloading::Error> {
        // SAFETY: libpcap's initializers only set up its own data, and nothing here closes it again.
        let library = unsafe { Library::new("libpcap.so.1").or_else(|_| Library::new("libpcap.so.0.8")) }?;
        // SAFETY: the types are those of pcap/pcap.h, unchanged since libpcap 0.8; `library` outlives the pointers, which are
        // copied out of their `Symbol`s into the structure that owns it.
        unsafe {
            Ok(Self {
                open_dead: *library.get(c"pcap_open_dead")?,
                compile: *library.get(c"pcap_compile")?,
                geterr: *library.get(c"pcap_geterr")?,
                freecode: *library.get(c"pcap_freecode")?,
                close: *library.get(c"pcap_close")?,
                validate: *library.get(c"bpf_validate")?,
                offline_filter: *library.get(c"pcap_offline_filter")?,
                _library: library,
            })
        }
    }

    /// A handle without a device, which is all that the compiler asks for.
    fn open_dead(&self) -> Option<Handle<'_>> {
        // SAFETY: any link type and snap length are valid arguments.
        let raw = unsafe { (self.open_dead)(DLT_EN10MB, SNAP_LENGTH) };
        NonNull::new(raw).map(|raw| Handle { library: self, raw })
    }
}

/// `pcap_t`, closed when dropped.
struct Handle<'a> {
    library: &'a Libpcap,
    raw: NonNull<c_void>,
}

impl Handle<'_> {
    fn compile(&self, text: &CStr) -> Result<Vec<Instruction>, String> {
        let mut program = BpfProgram { length: 0, instructions: ptr::null_mut() };
        // SAFETY: the handle is open, the text ends with a zero byte, and `program` is ours to fill.
        let result =
            unsafe { (self.library.compile)(self.raw.as_ptr(), &raw mut program, text.as_ptr(), OPTIMIZE, NETMASK_UNKNOWN) };
        if result != 0 {
            return Err(self.error());
        }
        let copy = program.copy();
        // SAFETY: pcap_compile filled `program`; nothing points into it any more.
        unsafe { (self.library.freecode)(&raw mut program) };
        Ok(copy)
    }

    fn error(&self) -> String {
        // SAFETY: pcap_geterr returns the handle's own buffer, which always holds a C string and lives until pcap_close.
        let message = unsafe { CStr::from_ptr((self.library.geterr)(self.raw.as_ptr())) };
        message.to_string_lossy().into_owned()
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle came from pcap_open_dead and is closed only here.
        unsafe { (self.library.close)(self.raw.as_ptr()) };
    }
}

/// `struct bpf_program` (pcap/bpf.h).
#[repr(C)]
struct BpfProgram {
    length: c_uint,
    instructions: *mut BpfInstruction,
}

impl BpfProgram {
    fn copy(&self) -> Vec<Instruction> {
        let (Ok(length), false) = (usize::try_from(self.length), self.instructions.is_null()) else {
            return Vec::new();
        };
        // SAFETY: pcap_compile left `length` initialized instructions behind the pointer, which is not null.
        let instructions = unsafe { std::slice::from_raw_parts(self.instructions, length) };
        instructions.iter().map(|i| Instruction(i.code, i.jump_true, i.jump_false, i.operand)).collect()
    }
}

/// `struct bpf_insn` (pcap/bpf.h).
#[repr(C)]
struct BpfInstruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    operand: u32,
}

const DLT_EN10MB: c_int = 1;
const SNAP_LENGTH: c_int = 262_144;
const OPTIMIZE: c_int = 1;
const NETMASK_UNKNOWN: u32 = 0xffff_ffff;

/// `struct pcap_pkthdr` (pcap/pcap.h).
#[repr(C)]
struct PacketHeader {
    time: libc::timeval,
    captured: u32,
    length: u32,
}

/// What libpcap's own interpreter says about a frame of at most 4 GiB: how many of its bytes a capture keeps, none of them if it is not
/// wanted. `None`: the program does not end, or leaves its memory. It is what our own interpreter is held against.
///
/// # Errors
/// There is no libpcap.
pub fn verdict(code: &[Instruction], bytes: &[u8]) -> Result<Option<u32>, CompileError> {
    let mut code: Vec<BpfInstruction> = code
        .iter()
        .map(|&Instruction(code, jump_true, jump_false, operand)| BpfInstruction { code, jump_true, jump_false, operand })
        .collect();
    let (Ok(count), Ok(length)) = (c_int::try_from(code.len()), u32::try_from(bytes.len())) else { return Ok(None) };
    let program = BpfProgram { length: count.unsigned_abs(), instructions: code.as_mut_ptr() };
    let header = PacketHeader { time: libc::timeval { tv_sec: 0, tv_usec: 0 }, captured: length, length };
    with_libpcap(|library| {
        // SAFETY: the pointer is to `count` instructions, which the function only reads.
        let is_sound = unsafe { (library.validate)(code.as_ptr(), count) } != 0;
        // SAFETY: the three pointers are valid for the call, the header has the length of `bytes`, and libpcap itself found that the program
        // ends, jumps inside itself and uses only the 16 memory words.
        let verdict = || unsafe { (library.offline_filter)(&raw const program, &raw const header, bytes.as_ptr()) };
        is_sound.then(|| u32::from_ne_bytes(verdict().to_ne_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use testing::skipped;

    #[test]
    fn an_expression_becomes_instructions() {
        let program = match compile("ip") {
            Err(CompileError::Missing(_)) => return skipped("an_expression_becomes_instructions", "no libpcap"),
            program => program.unwrap(),
        };
        let expected = [
            Instruction(0x28, 0, 0, 12),
            Instruction(0x15, 0, 1, 0x0800),
            Instruction(0x06, 0, 0, 262_144),
            Instruction(0x06, 0, 0, 0),
        ];
        assert_eq!(program, expected);
        assert_eq!(compile("").unwrap(), [Instruction(0x06, 0, 0, 262_144)]);
    }

    #[test]
    fn nonsense_is_refused_in_libpcaps_words() {
        let error = match compile("tcp prot 80") {
            Err(CompileError::Missing(_)) => return skipped("nonsense_is_refused_in_libpcaps_words", "no libpcap"),
            result => result.unwrap_err().to_string(),
        };
        assert!(
            error.starts_with("\"tcp prot 80\" is not a filter: libpcap says ") && error.contains("syntax error"),
            "{error}"
        );
        assert!(matches!(compile("ip\0"), Err(CompileError::Zero(_))));
    }

    #[test]
    fn threads_compile_at_once() {
        if let Err(CompileError::Missing(_)) = compile("ip") {
            return skipped("threads_compile_at_once", "no libpcap");
        }
        std::thread::scope(|scope| {
            for port in 1..=8 {
                scope.spawn(move || {
                    let expression = format!("tcp port {port}");
                    let first = compile(&expression).unwrap();
                    assert!((0..50).all(|_| compile(&expression).unwrap() == first));
                });
            }
        });
    }
}
