//! This host's private key for encrypted networks.
//!
//! It is made once and kept as `wg genkey` writes one, for this user alone. A host that has lost it makes another, which the others hear of by the
//! store, and follow.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cluster::key::PublicKey;
use plane::device::PrivateKey;

use crate::keep::Directory;

/// Its file in `state-dir`.
const FILE: &str = "wireguard.key";

/// The key that is kept, or a new one if there is none.
///
/// # Errors
/// A sentence: there is something else, or none can be kept.
pub(crate) fn private_key(directory: &Path) -> Result<PrivateKey, String> {
    let path = directory.join(FILE);
    let about = |error: io::Error| format!("{}: {error}: this host can have no part in encrypted networks", path.display());
    match Directory::open(directory).and_then(|directory| directory.read(FILE)) {
        Ok(bytes) => parse(&bytes).ok_or_else(|| {
            about(io::Error::other("it is no key of 32 bytes in base64; remove it to have another made at the next start"))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(directory).map_err(about),
        Err(error) => Err(about(error)),
    }
}

/// What others must know of it.
pub(crate) fn public_key(private: &PrivateKey) -> PublicKey {
    PublicKey(private.public())
}

fn parse(bytes: &[u8]) -> Option<PrivateKey> {
    let key = STANDARD.decode(bytes.trim_ascii()).ok()?;
    key.try_into().ok().map(PrivateKey::new)
}

fn make(directory: &Path) -> io::Result<PrivateKey> {
    let key: [u8; 32] = rand::random();
    Directory::make(directory)?.write(FILE, format!("{}\n", STANDARD.encode(key)).as_bytes(), None)?;
    Ok(PrivateKey::new(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_this_user_alone_and_nothing_else_is_taken_for_one() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("state");
        let key = private_key(&directory).unwrap().public();
        assert_eq!(private_key(&directory).unwrap().public(), key);
        let file = directory.join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // What RFC 7748, section 6.1, has of Alice.
        let alice = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n";
        std::fs::write(&file, alice).unwrap();
        assert_eq!(public_key(&private_key(&directory).unwrap()).to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
        std::fs::write(&file, "AAAA\n").unwrap();
        let said = private_key(&directory).err().unwrap();
        assert!(said.contains("wireguard.key: it is no key of 32 bytes in base64; remove it"), "{said}");
    }
}
