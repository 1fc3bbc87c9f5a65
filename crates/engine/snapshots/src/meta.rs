//! What is known about a layer besides its content.

use std::path::Path;
use std::time::{Duration, SystemTime};

use ashlar_core::Digest;
use serde::{Deserialize, Serialize};

use crate::LayerId;
use crate::error::{Result, SnapshotError};

/// How a layer came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerKind {
    /// Unpacked from an image; named by its diff_id.
    Image,
    /// Made by a step; named by its content identity.
    Built,
    /// Many layers merged into one, since an overlay takes only so many.
    Squashed,
    /// An image layer as it looks on top of certain others, which give its undescribed directories
    /// their attributes and places.
    Adapted,
}

/// A blob that holds the layer's tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// SHA-256 of the blob.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub bytes: u64,
    /// OCI or Docker media type, which tells the compression.
    pub media_type: String,
}

/// What is known about a layer besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// The layer's name in the store.
    pub id: LayerId,
    /// How it came to be.
    pub kind: LayerKind,
    /// Bytes of real disk blocks, each inode once.
    pub disk_bytes: u64,
    /// Logical bytes of its files.
    pub content_bytes: u64,
    /// Paths that it adds, changes or removes.
    pub entries: u64,
    /// Whether it hides all that is below it.
    pub opaque_root: bool,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// SHA-256 of its tar, once that was made or when it came from an image.
    pub diff_id: Option<Digest>,
    /// Blobs known to hold its tar.
    pub blobs: Vec<BlobRef>,
    /// For people: which image or step it came from.
    pub origin: String,
    /// Directories that the layer's archive holds content of but does not describe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub implicit_dirs: Vec<Vec<u8>>,
    /// When it was last used.
    #[serde(skip, default = "epoch")]
    pub last_used: SystemTime,
}

fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH
}

/// Returns seconds since 1970.
pub(crate) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

impl LayerMeta {
    /// Reads `meta.json` and the stamp of last use in the layer directory `dir`.
    pub(crate) fn read(dir: &Path, id: LayerId) -> Result<Self> {
        let path = dir.join("meta.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(SnapshotError::Missing(id));
            }
            Err(error) => return Err(SnapshotError::io("read", &path, error)),
        };
        let damaged = |_| SnapshotError::Damaged { id, reason: "its meta.json is not readable" };
        let mut meta: Self = serde_json::from_slice(&bytes).map_err(damaged)?;
        if meta.id != id {
            return Err(SnapshotError::Damaged { id, reason: "its meta.json is another layer's" });
        }
        let stamp = std::fs::metadata(dir.join("lock")).and_then(|lock| lock.modified());
        meta.last_used = stamp.unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(meta)
    }

    /// Replaces `meta.json` in `dir` as a whole.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join("meta.json");
        let json = serde_json::to_vec(self).map_err(|e| SnapshotError::io("write", &path, e))?;
        replace_file(&path, &json)
    }
}

/// Writes a file so that a reader sees the old or the new content, never a part.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", uuid::Uuid::now_v7().simple()));
    let temporary = Path::new(&name);
    std::fs::write(temporary, bytes).map_err(|e| SnapshotError::io("write", temporary, e))?;
    std::fs::rename(temporary, path).map_err(|e| SnapshotError::io("write", path, e))
}
