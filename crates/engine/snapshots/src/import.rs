//! Unpacks layers of images.

use std::io::Read;
use std::os::fd::AsFd as _;

use ashlar_layers::{Limits, ScanOptions, Stop, UnpackOptions, decompress, read_ahead, unpack_tar};

use crate::draft::{CommitOptions, Draft, Identity};
use crate::error::{Result, SnapshotError};
use crate::meta::LayerKind;
use crate::store::{Lease, SnapshotStore};
use crate::{LayerId, Tree};

/// How an image's layer is unpacked.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// For people: which image it came from.
    pub origin: String,
    /// When the archive is too much.
    pub limits: Limits,
    /// Ends the work early.
    pub stop: Stop,
}

impl SnapshotStore {
    /// Unpacks an image's layer, compressed in whatever way, and names it by its diff_id.
    ///
    /// Whoever else wants the same layer, in any process, waits and then has it; `blob` is not read
    /// then. The layer appears only when every byte of it was seen and the digest is right.
    ///
    /// # Errors
    /// [`SnapshotError::WrongDiffId`], or when the archive is broken, hostile or beyond a limit.
    pub fn import_layer(
        &self,
        diff_id: LayerId,
        blob: impl Read + Send,
        options: &ImportOptions,
    ) -> Result<Lease> {
        if let Some(lease) = self.hold_if_here(diff_id)? {
            return Ok(lease);
        }
        let lock = self.lock_named(&self.0.root.join("imports").join(diff_id.hex()))?;
        let lease = match self.hold_if_here(diff_id)? {
            Some(lease) => Ok(lease),
            None => self.unpack(diff_id, blob, options),
        };
        lock.remove();
        lease
    }

    fn hold_if_here(&self, id: LayerId) -> Result<Option<Lease>> {
        match self.hold(&Tree(vec![id])) {
            Ok(lease) => Ok(Some(lease)),
            Err(SnapshotError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn unpack(
        &self,
        diff_id: LayerId,
        blob: impl Read + Send,
        options: &ImportOptions,
    ) -> Result<Lease> {
        let draft: Draft = self.begin(&Tree::scratch())?;
        let upper = std::fs::File::open(draft.upper())
            .map_err(|e| SnapshotError::io("open", draft.upper(), e))?;
        let unpacking = UnpackOptions {
            limits: options.limits.clone(),
            stop: options.stop.clone(),
            ..UnpackOptions::layer()
        };
        let (_, plain) = decompress(blob)
            .map_err(|source| ashlar_layers::LayerError::Stream { action: "read", source })?;
        let (unpacked, actual) =
            read_ahead(plain, |tar| unpack_tar(tar, upper.as_fd(), &unpacking))?;
        if actual != diff_id {
            return Err(SnapshotError::WrongDiffId { expected: diff_id, actual });
        }
        let scan = ScanOptions { stop: options.stop.clone(), ..ScanOptions::default() };
        let commit = CommitOptions { scan, origin: options.origin.clone() };
        let identity = Identity {
            kind: LayerKind::Image,
            id: Some(diff_id),
            implicit_dirs: unpacked.implicit_dirs,
        };
        Ok(draft.commit_as(identity, &unpacked.known, &commit)?.lease)
    }
}
