//! What an archive is made of: blobs of the store, and blobs that are made while they are written.

use std::collections::BTreeMap;
use std::io::{self, Write};

use ashlar_blobs::BlobStore;
use ashlar_core::{Digest, Hasher};

use crate::export::ExportError;
use crate::manifest::Descriptor;

/// Writes the bytes of one blob, the same ones at each call.
type Make<'a> = Box<dyn Fn(&mut (dyn Write + Send)) -> io::Result<()> + 'a>;

/// The blobs that an archive is written from.
pub struct Contents<'a> {
    store: &'a BlobStore,
    made: BTreeMap<Digest, Make<'a>>,
}

impl<'a> From<&'a BlobStore> for Contents<'a> {
    fn from(store: &'a BlobStore) -> Self {
        Self { store, made: BTreeMap::new() }
    }
}

impl<'a> Contents<'a> {
    /// Adds a blob that the store need not have: `make` writes it, and what it writes is checked
    /// against the digest. Saves writing a large plain layer twice.
    #[must_use]
    pub fn with(
        mut self,
        digest: Digest,
        make: impl Fn(&mut (dyn Write + Send)) -> io::Result<()> + 'a,
    ) -> Self {
        self.made.insert(digest, Box::new(make));
        self
    }

    pub(crate) fn store(&self) -> &'a BlobStore {
        self.store
    }

    /// Fails unless the blob can be had; one of the store must be as long as its descriptor says.
    pub(crate) fn check(&self, blob: &Descriptor) -> Result<(), ExportError> {
        if self.made.contains_key(&blob.digest) {
            return Ok(());
        }
        let actual = self.store.stat(&blob.digest)?.size;
        if actual == blob.size { Ok(()) } else { Err(wrong_size(blob, actual)) }
    }

    /// Writes the blob to `out`.
    pub(crate) fn write(
        &self,
        blob: &Descriptor,
        out: &mut (impl Write + Send),
    ) -> Result<(), ExportError> {
        if let Some(make) = self.made.get(&blob.digest) {
            return write_made(blob, make, out);
        }
        let file = self.store.open_read(&blob.digest)?;
        let copied = io::copy(&mut io::Read::take(file, blob.size), out).map_err(archive)?;
        if copied == blob.size { Ok(()) } else { Err(wrong_size(blob, copied)) }
    }
}

fn write_made(
    blob: &Descriptor,
    make: &Make<'_>,
    out: &mut (impl Write + Send),
) -> Result<(), ExportError> {
    let mut checked = Checked { out, hasher: Hasher::new(), size: 0 };
    make(&mut checked).map_err(archive)?;
    if checked.size != blob.size {
        return Err(wrong_size(blob, checked.size));
    }
    let actual = checked.hasher.finish();
    if actual == blob.digest {
        return Ok(());
    }
    Err(ExportError::Digest { blob: Box::new(blob.clone()), actual })
}

fn wrong_size(blob: &Descriptor, actual: u64) -> ExportError {
    ExportError::Size { blob: Box::new(blob.clone()), actual }
}

pub(crate) fn archive(source: io::Error) -> ExportError {
    ExportError::Write { path: "archive".into(), source }
}

/// Hashes and counts what goes through.
struct Checked<'a, W> {
    out: &'a mut W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Checked<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
