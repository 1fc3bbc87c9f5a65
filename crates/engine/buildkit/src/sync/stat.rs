//! An entry as fsutil describes it: modes are those of Go's `os.FileMode`.

use std::collections::HashMap;

use ashlar_files::{Entry, Kind, Root};
use bollard_buildkit_proto::fsutil::types::Stat;

use super::{SyncError, shown};

const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const NAMED_PIPE: u32 = 1 << 25;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHARACTER_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;

/// Describes an entry. Owners are 0, as all clients of BuildKit send them.
pub(super) fn of(root: &Root, entry: &Entry) -> Result<Stat, SyncError> {
    let mut stat = Stat {
        path: text(&entry.path)?,
        mode: permissions(entry.mode),
        mod_time: nanoseconds(entry),
        ..Stat::default()
    };
    match &entry.kind {
        Kind::File { .. } => stat.size = i64::try_from(entry.stamp.size).unwrap_or(i64::MAX),
        Kind::Directory => stat.mode |= DIRECTORY,
        Kind::Symlink { target } => {
            stat.mode |= SYMLINK;
            stat.linkname = text(target)?;
        }
        Kind::Fifo => stat.mode |= NAMED_PIPE,
        Kind::Socket => {}
        Kind::Device { block, major, minor } => {
            stat.mode |= if *block { DEVICE } else { DEVICE | CHARACTER_DEVICE };
            (stat.devmajor, stat.devminor) = (i64::from(*major), i64::from(*minor));
        }
    }
    if matches!(entry.kind, Kind::File { .. } | Kind::Directory) {
        stat.xattrs = attributes(root, &entry.path);
    }
    Ok(stat)
}

fn text(bytes: &[u8]) -> Result<String, SyncError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| SyncError::Name(shown(bytes)))
}

fn permissions(mode: u32) -> u32 {
    let bit = |unix: u32, go: u32| if mode & unix == 0 { 0 } else { go };
    mode & 0o777 | bit(0o4000, SETUID) | bit(0o2000, SETGID) | bit(0o1000, STICKY)
}

fn nanoseconds(entry: &Entry) -> i64 {
    let time = entry.stamp.modified;
    time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanoseconds))
}

/// Reads extended attributes; a file system without them, or a file that is gone, has none.
fn attributes(root: &Root, path: &[u8]) -> HashMap<String, Vec<u8>> {
    root.attributes(path).into_iter().collect()
}
