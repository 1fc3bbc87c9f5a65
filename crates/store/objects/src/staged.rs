//! Files that uploads into a shared directory left when their process died: `<digest>#<number>` beside
//! the blob that they were to become. Nobody sees them and nobody else removes them.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ashlar_core::Digest;

/// A file that was not written to for so long is nobody's any more.
const STAGED_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Removes leftovers in a store's directory, on a thread: it may have very many files.
pub(crate) fn sweep_later(dir: &Path) {
    let root = dir.join("blobs").join("sha256");
    let sweep = move || match sweep(&root, STAGED_KEPT) {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed what dead uploads left"),
        Err(error) => tracing::warn!(%error, "cannot remove what dead uploads left"),
    };
    // Without the thread they stay until the next start.
    let _ = thread::Builder::new().name("blob-store-sweep".into()).spawn(sweep);
}

fn sweep(root: &Path, kept: Duration) -> io::Result<usize> {
    let mut removed = 0;
    let shards = match fs::read_dir(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    for shard in shards {
        // Whatever is no folder of blobs is somebody else's.
        let Ok(entries) = fs::read_dir(shard?.path()) else { continue };
        for entry in entries {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(is_staged) {
                continue;
            }
            // Published or removed since it was listed.
            let Ok(modified) = entry.metadata().and_then(|about| about.modified()) else {
                continue;
            };
            if modified.elapsed().unwrap_or_default() > kept
                && fs::remove_file(entry.path()).is_ok()
            {
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn is_staged(name: &str) -> bool {
    name.split_once('#').is_some_and(|(digest, number)| {
        Digest::from_hex(digest).is_ok()
            && !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn old_leftovers_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sweep(&dir.path().join("none"), STAGED_KEPT).unwrap(), 0);
        let hex = Digest::of("x").hex().to_owned();
        let shard = dir.path().join(&hex[..2]);
        fs::create_dir(&shard).unwrap();
        fs::write(dir.path().join(format!("{hex}#1")), "in no shard").unwrap();
        let old = SystemTime::now() - STAGED_KEPT * 2;
        let names = [hex.clone(), format!("{hex}#1"), format!("{hex}#x"), "notes#1".to_owned()];
        for name in &names {
            fs::write(shard.join(name), "bytes").unwrap();
            fs::File::open(shard.join(name)).unwrap().set_modified(old).unwrap();
        }
        fs::write(shard.join(format!("{hex}#2")), "being written").unwrap();
        assert_eq!(sweep(dir.path(), STAGED_KEPT).unwrap(), 1);
        assert!(!shard.join(&names[1]).exists());
        assert_eq!(fs::read_dir(&shard).unwrap().count(), 4);
    }
}
