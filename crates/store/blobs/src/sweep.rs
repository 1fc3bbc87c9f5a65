//! Walks the store's directories, and clears away what dead writers left.

use std::fs::{self, File, Metadata, TryLockError};
use std::path::Path;
use std::time::Duration;

use ashlar_core::Digest;

use crate::error::{At as _, Result};
use crate::layout::Layout;

/// A temporary file this young may belong to a writer that has not locked it yet.
const TEMP_GRACE: Duration = Duration::from_secs(60);
/// A partial download that nobody resumed for so long is given up.
const PARTIAL_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Calls `visit` with each blob file; files with other names are ignored.
pub(crate) fn for_each_blob(
    layout: &Layout,
    mut visit: impl FnMut(&Path, Digest, &Metadata) -> Result<()>,
) -> Result<()> {
    let root = layout.blobs();
    for shard in fs::read_dir(&root).at("list", &root)? {
        let shard = shard.at("list", &root)?.path();
        let Ok(entries) = fs::read_dir(&shard) else { continue };
        for entry in entries {
            let entry = entry.at("list", &shard)?;
            let name = entry.file_name();
            let Some(digest) = name.to_str().and_then(|n| Digest::from_hex(n).ok()) else {
                continue;
            };
            // Another process may have removed it since it was listed.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_file() {
                visit(&entry.path(), digest, &meta)?;
            }
        }
    }
    Ok(())
}

/// Removes files of writers that are gone.
pub(crate) fn clear_leftovers(layout: &Layout) -> Result<()> {
    clear(&layout.temp(), TEMP_GRACE)?;
    clear(&layout.partial(), PARTIAL_KEPT)
}

fn clear(dir: &Path, older_than: Duration) -> Result<()> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let path = entry.at("list", dir)?.path();
        let Ok(file) = File::options().write(true).open(&path) else { continue };
        let age = file.metadata().and_then(|m| m.modified()).map(|m| m.elapsed());
        let is_old = matches!(age, Ok(Ok(age)) if age > older_than);
        if !is_old || matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            continue;
        }
        tracing::debug!(path = %path.display(), "removing the leftover of a dead writer");
        // Two processes may clear at once: that the file is gone already is what was wanted.
        drop(fs::remove_file(&path));
    }
    Ok(())
}
