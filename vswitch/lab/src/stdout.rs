//! The one way by which vsctl prints.

use std::io::{self, Write};

/// Prints to stdout, and returns whether there is still a reader. One that has seen enough, as `head` has, is no failure; a full disk is.
///
/// # Errors
/// Why the text is not there, or not whole.
pub fn print(text: &[u8]) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
