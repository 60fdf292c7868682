//! The token of the web view: made at the first start, and kept where only vswitchd's user can read it.

use std::io;
use std::path::Path;

use rand::RngExt;

use crate::keep::Directory;

/// The file in `state-dir`.
pub(super) const FILE: &str = "web-token";
/// The shortest that a user may have written there.
const SHORTEST: usize = 16;

/// Reads the token, or makes one.
///
/// # Errors
/// What the file says is too short for one, or it cannot be read or written.
pub(super) fn token(state_dir: &Path) -> io::Result<String> {
    let directory = Directory::make(state_dir)?;
    match directory.read(FILE) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            let is_sound = text.len() >= SHORTEST && text.bytes().all(|byte| byte.is_ascii_graphic());
            is_sound
                .then_some(text)
                .ok_or_else(|| io::Error::other(format!("a token has at least {SHORTEST} characters, without spaces")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = format!("{:032x}", rand::rng().random::<u128>());
            directory.write(FILE, format!("{token}\n").as_bytes(), None)?;
            Ok(token)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_one_of_the_users_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let made = token(directory.path()).unwrap();
        assert_eq!((made.len(), token(directory.path()).unwrap()), (32, made));
        let file = directory.path().join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "correct-horse-battery\n").unwrap();
        assert_eq!(token(directory.path()).unwrap(), "correct-horse-battery");
        std::fs::write(&file, "short").unwrap();
        assert!(token(directory.path()).unwrap_err().to_string().contains("at least 16"));
    }
}
