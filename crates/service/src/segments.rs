//! The service's blob store as the place of log segments.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ashlar_blobs::BlobStore;
use ashlar_core::{Digest, TenantId};
use ashlar_records::SegmentBlobs;

use crate::grants::Grants;

/// Segments among all other blobs. A grant that is no tenant's keeps them from the collection of
/// garbage until the database holds them, and as long as it does.
pub(crate) struct Segments {
    pub(crate) blobs: BlobStore,
    pub(crate) grants: Grants,
}

impl SegmentBlobs for Segments {
    fn put(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let nobody = TenantId::from_uuid(uuid::Uuid::nil());
        self.grants.add(nobody, &[*digest]).map_err(io::Error::other)?;
        let stored = self.blobs.put_bytes(bytes).map_err(io::Error::other)?;
        if stored.digest != *digest {
            return Err(io::Error::other("the segment has another digest than it should"));
        }
        self.blobs.keep(&[*digest]).map_err(io::Error::other)
    }

    fn get(&self, digest: &Digest, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let file = self.blobs.open_read(digest).map_err(io::Error::other)?;
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        if file.metadata()?.len() < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// Returns the log segments of a data directory, for commands that read its records without a
/// service. Nothing is opened before a log is read that lies there.
pub fn log_segments(data_dir: &Path) -> Arc<dyn SegmentBlobs> {
    Arc::new(Unopened { data_dir: data_dir.to_owned() })
}

struct Unopened {
    data_dir: PathBuf,
}

impl Unopened {
    fn open(&self) -> io::Result<Segments> {
        let blobs = BlobStore::open(&self.data_dir).map_err(io::Error::other)?;
        Ok(Segments { blobs, grants: Grants::new(self.data_dir.join("grants"), None) })
    }
}

impl SegmentBlobs for Unopened {
    fn put(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        self.open()?.put(digest, bytes)
    }

    fn get(&self, digest: &Digest, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        self.open()?.get(digest, offset, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_read_in_pieces_and_never_past_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(dir.path()).unwrap();
        let grants = Grants::new(dir.path().join("grants"), None);
        let segments = Segments { blobs, grants };
        let digest = Digest::of("0123456789");
        segments.put(&digest, b"0123456789").unwrap();
        segments.put(&digest, b"0123456789").unwrap();
        assert_eq!(segments.get(&digest, 3, 4).unwrap(), b"3456");
        for (offset, length) in [(8, 3), (11, 0), (u64::MAX, 1), (0, 1 << 40)] {
            assert!(segments.get(&digest, offset, length).is_err(), "{offset} {length}");
        }
        assert!(segments.put(&Digest::of("other"), b"bytes").is_err());
        assert!(segments.get(&Digest::of("other"), 0, 1).is_err());
        assert_eq!(log_segments(dir.path()).get(&digest, 9, 1).unwrap(), b"9");
    }
}
