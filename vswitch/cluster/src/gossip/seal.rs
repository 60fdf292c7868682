//! The envelope of a datagram: whose gossip it is, and, with a secret, encryption by which no one else can read or write it.
//!
//! ```text
//!  "vsg" version | hash of the prefix | sealed | nonce, text, tag     or, without a secret, the text
//! ```
//!
//! The key follows from the secret and the prefix (HKDF, RFC 5869). A nonce is random: with 96 bits, four thousand million datagrams under one
//! secret have one in common with a probability of one in eight thousand million. A datagram that is sent again by another is opened. What it
//! says of who lives is known to be old by its numbers; a table of an earlier life of its host may be taken for the newer, until that host says how far it
//! is, twice a second.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;

use crate::view::hash;

/// How datagrams are sealed and opened.
pub(super) struct Seal {
    head: [u8; HEAD],
    key: Option<LessSafeKey>,
}

/// Why a datagram is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is of something else, of another prefix, or damaged.
    Stranger,
    /// It was sealed with another secret, or with none, or is not sealed although this host has one.
    Secret,
}

const HEAD: usize = 9;
const VERSION: u8 = 1;

impl Seal {
    /// For the hosts that share a prefix and, if there is one, a secret.
    pub(super) fn new(prefix: &str, secret: Option<&str>) -> Self {
        let [a, b, c, d] = hash(prefix).to_be_bytes();
        let head = [b'v', b's', b'g', VERSION, a, b, c, d, u8::from(secret.is_some())];
        Self { head, key: secret.and_then(|secret| derive(prefix, secret)) }
    }

    /// A datagram that says this.
    pub(super) fn seal(&self, text: &[u8]) -> Vec<u8> {
        let Some(key) = &self.key else { return [&self.head, text].concat() };
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = text.to_vec();
        // It fails only for what is longer than 64 GiB.
        let _ = key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&self.head), &mut sealed);
        [&self.head[..], &nonce, &sealed].concat()
    }

    /// What a datagram says.
    pub(super) fn open<'a>(&self, datagram: &'a mut [u8]) -> Result<&'a [u8], Unreadable> {
        let (head, rest) = datagram.split_first_chunk_mut::<HEAD>().ok_or(Unreadable::Stranger)?;
        if head[..HEAD - 1] != self.head[..HEAD - 1] {
            return Err(Unreadable::Stranger);
        }
        if *head != self.head {
            return Err(Unreadable::Secret);
        }
        let Some(key) = &self.key else { return Ok(rest) };
        let (nonce, sealed) = rest.split_first_chunk_mut::<NONCE_LEN>().ok_or(Unreadable::Stranger)?;
        let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(&self.head), sealed);
        opened.map(|text| &*text).map_err(|_| Unreadable::Secret)
    }
}

fn derive(prefix: &str, secret: &str) -> Option<LessSafeKey> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, prefix.as_bytes());
    let secret = salt.extract(secret.as_bytes());
    // One key of the cipher's own length is what HKDF always gives.
    let key = secret.expand(&[b"vswitch gossip"], &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_another_secret_or_none_neither_reads_nor_is_read() {
        let of = |secret| Seal::new("vswitch", secret);
        let seals = [of(None), of(Some("one")), of(Some("two"))];
        for (from, sender) in seals.iter().enumerate() {
            for (to, receiver) in seals.iter().enumerate() {
                let mut datagram = sender.seal(b"a text");
                let expected: Result<&[u8], _> = if from == to { Ok(b"a text") } else { Err(Unreadable::Secret) };
                assert_eq!(receiver.open(&mut datagram), expected, "{from} to {to}");
            }
        }
        assert_eq!(seals[1].open(&mut Seal::new("other", Some("one")).seal(b"x")), Err(Unreadable::Stranger));
        assert_eq!(seals[0].open(&mut []), Err(Unreadable::Stranger));
    }

    #[test]
    fn a_sealed_datagram_hides_its_text_and_cannot_be_changed() {
        let seal = Seal::new("vswitch", Some("secret"));
        let datagram = seal.seal(b"what is said");
        assert!(!datagram.windows(4).any(|window| window == b"said"));
        assert_ne!(datagram, seal.seal(b"what is said"), "each has a nonce of its own");
        for place in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[place] ^= 1;
            assert!(seal.open(&mut changed).is_err(), "{place}");
        }
    }
}
