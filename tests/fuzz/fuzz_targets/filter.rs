//! Any program as a capture's filter, on any frame: it is refused, or it ends and says how much of the frame is kept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use api::Instruction;
use plane::capture::Program;

fuzz_target!(|input: (Vec<(u16, u8, u8, u32)>, Vec<u8>)| {
    let (instructions, frame) = input;
    let instructions: Vec<Instruction> =
        instructions.into_iter().map(|(code, yes, no, operand)| Instruction(code, yes, no, operand)).collect();
    if let Ok(program) = Program::new(&instructions) {
        let _ = program.run(&frame, &Default::default());
    }
});
