//! Sealing of values at rest: XChaCha20-Poly1305 under a key that never enters the database.
//!
//! What a value belongs to is authenticated with it, so that a sealed value copied to another
//! place does not open there.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::Path;

use ashlar_core::Hasher;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};

use crate::{Error, random};

/// Keys that one ring holds.
pub const KEYS_MAX: usize = 16;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const FILE_BYTES_MAX: u64 = 4096;

/// The keys for sealed values: the first seals, all open. Never shown.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<(String, XChaCha20Poly1305)>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

/// A value that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps a value.
    pub const fn new(value: Vec<u8>) -> Self {
        Self(value)
    }

    /// Returns the value.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl KeyRing {
    /// Reads keys of 64 hexadecimal digits, separated by commas or white space. The first seals;
    /// put a new one in front to rotate.
    ///
    /// # Errors
    /// When there is none, or one of them is no key.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let words = text.split([',', ' ', '\t', '\r', '\n']).filter(|w| !w.is_empty());
        let keys = words.take(KEYS_MAX).map(Self::key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(Error::Key("is empty; it must be 64 hexadecimal digits"));
        }
        Ok(Self { keys })
    }

    fn key(word: &str) -> Result<(String, XChaCha20Poly1305), Error> {
        // A digest has the same form as a key: 32 bytes in hexadecimal.
        let bytes = ashlar_core::Digest::from_hex(&word.to_ascii_lowercase())
            .map_err(|_| Error::Key("must be 64 hexadecimal digits"))?;
        let mut hasher = Hasher::new();
        hasher.field("ashlar.secrets-key-id.v1").field(bytes.as_bytes());
        let cipher = XChaCha20Poly1305::new(Key::from_slice(bytes.as_bytes()));
        Ok((hasher.finish().short(), cipher))
    }

    /// Reads the keys of a file; makes the file with a random key, readable by its owner only,
    /// when it is missing.
    ///
    /// # Errors
    /// When the file cannot be read or written, or has no keys.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let failed = |source| Error::KeyFile { path: path.to_owned(), source };
        let mut options = std::fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                let key = ashlar_core::Digest::from_bytes(random::bytes::<KEY_BYTES>()?).hex();
                file.write_all(key.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
                Self::parse(&key)
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let mut text = String::new();
                let file = std::fs::File::open(path).map_err(failed)?;
                file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
                Self::parse(&text)
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// Returns the name of the key that seals.
    pub(crate) fn id(&self) -> &str {
        self.keys.first().map_or("", |(id, _)| id)
    }

    /// Seals a value for a place; returns the key's name and the sealed value.
    pub(crate) fn seal(&self, place: &[u8], secret: &Secret) -> Result<(String, Vec<u8>), Error> {
        let (id, cipher) = self.keys.first().ok_or(Error::Key("is missing"))?;
        let nonce: [u8; NONCE_BYTES] = random::bytes()?;
        let payload = Payload { msg: &secret.0, aad: place };
        let sealed = cipher.encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| Error::Key("cannot seal a value of this size"))?;
        Ok((id.clone(), [nonce.as_slice(), &sealed].concat()))
    }

    /// Opens a sealed value; `name` is for the error only.
    pub(crate) fn open(
        &self,
        (id, sealed): (&str, &[u8]),
        place: &[u8],
        name: &str,
    ) -> Result<Secret, Error> {
        let broken = || Error::Sealed(name.to_owned());
        let (_, cipher) = self.keys.iter().find(|(own, _)| own == id).ok_or_else(broken)?;
        let (nonce, msg) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(broken)?;
        let opened = cipher.decrypt(XNonce::from_slice(nonce), Payload { msg, aad: place });
        opened.map(Secret).map_err(|_| broken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_open_at_their_place_with_their_key_only() {
        let (old, new) = ("11".repeat(32), "22".repeat(32));
        let ring = KeyRing::parse(&old).unwrap();
        let secret = Secret::new(b"hunter2".to_vec());
        let (id, mut sealed) = ring.seal(b"here", &secret).unwrap();
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(ring.open((&id, &sealed), b"here", "x").unwrap(), secret);
        assert!(ring.open((&id, &sealed), b"there", "x").is_err());
        assert!(KeyRing::parse(&new).unwrap().open((&id, &sealed), b"here", "x").is_err());
        let both = KeyRing::parse(&format!("{new},{old}\n")).unwrap();
        assert_eq!(both.open((&id, &sealed), b"here", "x").unwrap(), secret);
        sealed[30] ^= 1;
        assert!(ring.open((&id, &sealed), b"here", "x").is_err());
        assert!(ring.open((&id, &sealed[..10]), b"here", "x").is_err());
    }

    #[test]
    fn bad_keys_are_refused_and_nothing_is_shown() {
        assert!(KeyRing::parse(" ").is_err());
        assert!(KeyRing::parse("abc").is_err());
        let shown = format!("{:?} {:?}", KeyRing::parse(&"ab".repeat(32)), Secret::new(vec![1]));
        assert!(!shown.contains("abab") && shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn a_key_file_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = KeyRing::load_or_create(&path).unwrap();
        assert_eq!(first.id(), KeyRing::load_or_create(&path).unwrap().id());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
