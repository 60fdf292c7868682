//! Another plugin that gives addresses (specification 1.1, section 4): found in `CNI_PATH`, and run with what this one was given.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::fault::{Code, Fault};
use super::result::Granted;

/// A plugin that gives addresses.
pub(super) struct Delegate {
    program: PathBuf,
}

impl Delegate {
    /// Finds it in the directories of `CNI_PATH`.
    pub(super) fn find(name: &str, path: &OsStr) -> Result<Self, Fault> {
        if name.contains('/') || matches!(name, "." | "..") {
            return Err(Fault::config(format!("`ipam.type` is \"{}\": use the name of a plugin", name.escape_debug())));
        }
        let found = std::env::split_paths(path).map(|directory| directory.join(name)).find(|program| program.is_file());
        let missing = || {
            let path = path.to_string_lossy();
            let sentence = format!(
                "there is no plugin \"{}\" in {path}, which `ipam.type` names: install it, or leave `ipam` out",
                name.escape_debug()
            );
            Fault::new(Code::Config, sentence)
        };
        Ok(Self { program: found.ok_or_else(missing)? })
    }

    /// Has it give addresses.
    pub(super) fn add(&self, document: &[u8]) -> Result<Granted, Fault> {
        let answer = self.run("ADD", document)?;
        Granted::read(&answer).inspect_err(|_| {
            // The fault that counts is the first one.
            let _ = self.run("DEL", document);
        })
    }

    /// Runs it; what it prints.
    pub(super) fn run(&self, command: &str, document: &[u8]) -> Result<Value, Fault> {
        let failed = |what: &str| Fault::new(Code::Io, format!("the plugin {} {what}", self.program.display()));
        let mut plugin = Command::new(&self.program);
        plugin.env("CNI_COMMAND", command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = plugin.spawn().map_err(|error| failed(&format!("cannot be run: {error}")))?;
        if let Some(mut input) = child.stdin.take() {
            // One that does not read says why by its answer.
            let _ = input.write_all(document);
        }
        let output = child.wait_with_output().map_err(|error| failed(&format!("cannot be waited for: {error}")))?;
        let answer: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        match (output.status.success(), answer) {
            (true, answer) => Ok(answer.unwrap_or_default()),
            (false, Some(answer)) if answer["msg"].is_string() => Err(Fault::Delegate(answer)),
            (false, _) => Err(failed(&format!("failed without a word ({})", output.status))),
        }
    }
}
