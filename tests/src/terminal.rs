//! A shell at a terminal, as a reader has it who types what a page tells.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::interrupt::interrupted;
use crate::lab::PATIENCE;

/// An interactive bash on a pseudo terminal of its own, so that Ctrl-C and `&` do what they do for a person.
pub struct Terminal {
    script: Child,
    shown: Arc<Mutex<String>>,
    /// How far what is shown was read.
    read: usize,
}

impl Terminal {
    /// Opens one where `command` runs what it is given, such as in the namespaces of a host.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    pub fn open(mut command: Command) -> Self {
        command
            .args(["script", "--quiet", "--flush", "--command", SHELL, "/dev/null"])
            .env("TERM", "dumb")
            .env("PROMPT_COMMAND", PROMPT);
        let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
        let mut output = script.stdout.take().expect("a pipe");
        let shown = Arc::new(Mutex::new(String::new()));
        let screen = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                screen.lock().expect("a screen").push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        let mut terminal = Self { script, shown, read: 0 };
        terminal.until("]> ", PATIENCE);
        terminal
    }

    /// Types a line and does not wait for anything.
    ///
    /// # Panics
    /// If the shell is gone.
    #[track_caller]
    pub fn start(&mut self, line: &str) {
        self.read = self.shown.lock().expect("a screen").len();
        let mut input = self.script.stdin.as_ref().expect("a pipe");
        input.write_all(format!("{line}\n").as_bytes()).expect("a line typed");
        // What is typed appears, and would else be taken for what it prints.
        self.until("\n", PATIENCE);
    }

    /// Types a line and waits until the shell asks for the next one. Returns how it ended and what was shown.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    pub fn line(&mut self, line: &str) -> (i32, String) {
        self.start(line);
        self.ended(PATIENCE)
    }

    /// Waits until the line that was started ended. Returns how and what was shown since.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    pub fn ended(&mut self, patience: Duration) -> (i32, String) {
        let shown = self.until("]> ", patience);
        let (before, code) = shown.trim_end_matches("]> ").rsplit_once("[code ").expect("the prompt");
        (code.parse().expect("a number in the prompt"), before.to_owned())
    }

    /// Waits until `text` was shown. Returns all that was shown up to its end.
    ///
    /// # Panics
    /// If it was not in time.
    #[track_caller]
    pub fn until(&mut self, text: &str, patience: Duration) -> String {
        let begun = Instant::now();
        loop {
            let shown = self.shown.lock().expect("a screen").clone();
            if let Some(found) = shown[self.read..].find(text) {
                let end = self.read + found + text.len();
                return shown[std::mem::replace(&mut self.read, end)..end].replace('\r', "");
            }
            assert!(!interrupted(), "interrupted");
            assert!(begun.elapsed() < patience, "\"{text}\" was not shown in time; what was: {shown}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types Ctrl-C.
    ///
    /// # Panics
    /// If the shell is gone.
    pub fn interrupt(&self) {
        self.script.stdin.as_ref().expect("a pipe").write_all(b"\x03").expect("Ctrl-C typed");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The terminal hangs up, which ends what runs in it.
        drop(self.script.stdin.take());
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// Without what would be of the user's own, and without an editor that draws the line anew.
const SHELL: &str = "bash --norc --noprofile --noediting -i";
/// Makes the prompt say how the last line ended. It is not typed, so nothing else that is shown looks like a prompt.
const PROMPT: &str = r#"PS1="[code $?]> ""#;
