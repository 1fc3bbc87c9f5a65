//! Putting a data directory in order at the start, after crashes and power cuts.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use ashlar_core::failure::Failure;
use ashlar_snapshots::SnapshotStore;

use crate::dir::DataDir;
use crate::error::internal;

/// The kernel's id of this boot: another one means that unwritten bytes may have been lost.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A scratch directory that is older than this has no running step.
const SCRATCH_AGE_MAX: Duration = Duration::from_hours(24);

/// Verifies the layers at the first start after a boot; at any other, clears away in the background
/// what killed processes left.
pub(crate) fn at_start(dir: &DataDir, snapshots: &SnapshotStore) -> Result<(), Failure> {
    let boot = fs::read_to_string(BOOT_ID).map_err(internal)?;
    let marker = dir.root().join("verified");
    if fs::read_to_string(&marker).is_ok_and(|seen| seen == boot) {
        clear_in_background(dir, snapshots);
        return Ok(());
    }
    snapshots.verify().map_err(internal)?;
    clear_scratch(&dir.scratch()).map_err(internal)?;
    fs::write(&marker, boot).map_err(internal)
}

fn clear_in_background(dir: &DataDir, snapshots: &SnapshotStore) {
    let left = |folder: &Path| fs::read_dir(folder).is_ok_and(|mut d| d.next().is_some());
    let (scratch, drafts) = (dir.scratch(), snapshots.root().join("drafts"));
    if !left(&scratch) && !left(&drafts) {
        return;
    }
    let snapshots = snapshots.clone();
    // What is not cleared now is cleared at the next start; nothing depends on it.
    let clear = move || {
        let _ = snapshots.verify();
        let _ = clear_scratch(&scratch);
    };
    let _ = std::thread::Builder::new().name("ashlar-repair".into()).spawn(clear);
}

fn clear_scratch(scratch: &Path) -> io::Result<()> {
    for entry in fs::read_dir(scratch)? {
        let entry = entry?;
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if age.is_some_and(|age| age > SCRATCH_AGE_MAX) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
