//! An entry as fsutil describes it: modes are those of Go's `os.FileMode`.

use std::collections::HashMap;
use std::io::Read as _;

use ashlar_core::Hasher;
use ashlar_files::{Entry, Kind, Root};
use ashlar_layers::Stop;
use bollard_buildkit_proto::fsutil::types::Stat;

use super::{SyncError, shown};

/// Bytes of a file that are read at once.
const READ_BYTES: usize = 256 << 10;

const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const NAMED_PIPE: u32 = 1 << 25;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHARACTER_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;

/// Describes an entry. Owners are 0, as all clients of BuildKit send them.
pub(super) fn of(root: &Root, entry: &Entry, stop: &Stop) -> Result<Stat, SyncError> {
    let mut stat = Stat {
        path: text(&entry.path)?,
        mode: permissions(entry.mode),
        mod_time: nanoseconds(entry),
        ..Stat::default()
    };
    match &entry.kind {
        Kind::File { .. } => {
            stat.size = i64::try_from(entry.stamp.size).unwrap_or(i64::MAX);
            if entry.stamp.modified.nanoseconds == 0 {
                stat.mod_time = stat.mod_time.saturating_add(mark(root, &entry.path, stop)?);
            }
        }
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

/// Returns nanoseconds that stand for a file's content.
///
/// A daemon takes a file for unchanged when size and time are, and keeps its old bytes. Files of
/// unpacked contexts have made-up times in whole seconds, so that their bytes have to show in what is
/// left of the time. No image has it: layers hold whole seconds.
fn mark(root: &Root, path: &[u8], stop: &Stop) -> Result<i64, SyncError> {
    let failed = |source| SyncError::Read { path: shown(path), source };
    let mut file = root.open_file(path).map_err(failed)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        stop.check().map_err(|_| SyncError::Stopped)?;
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        };
    }
    let digest = hasher.finish();
    let start = digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Ok(i64::try_from(start % 1_000_000_000).unwrap_or(0))
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
