//! `vsctl`: changes and explains a running vswitchd.

use std::process::ExitCode;

use clap::error::ErrorKind;
use vswitch::client::{self, Arguments};

fn main() -> ExitCode {
    client::complete();
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        // A name or number that cannot be one is a failure like any other: the command itself was understood.
        Err(error) if error.kind() == ErrorKind::ValueValidation => {
            let text = error.to_string();
            let sentence = text.lines().next().unwrap_or_default();
            eprintln!("{}", sentence.strip_prefix("error: ").unwrap_or(sentence));
            return ExitCode::FAILURE;
        }
        Err(error) => return client::explain(&error),
    };
    match client::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
