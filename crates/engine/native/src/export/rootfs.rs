//! A result as a bootable root file system: an ext4 image, for virtual machines.
//!
//! e2fsprogs writes it from the mounted tree, so owners, modes, times, links, device nodes and
//! extended attributes are those that steps saw. Its own configuration is given to it, and UUIDs are
//! drawn from the tree: the same tree makes the same file system whatever the machine's settings.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::process::{Command, Stdio};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::Sink;
use ashlar_layers::{Entries, KnownFiles, Node, ScanOptions, Stop, scan};
use ashlar_snapshots::Tree;

use super::{Way, export};
use crate::Engine;
use crate::error::internal;

/// The largest file system that is made, in bytes.
pub const ROOTFS_BYTES_MAX: u64 = 64 << 30;
/// Bytes that are free in a file system whose size nobody named.
const FREE_BYTES: u64 = 256 << 20;
/// What journal and tables of an empty file system take, in bytes.
const OVERHEAD_BYTES: u64 = 32 << 20;
/// Bytes of a block.
const BLOCK_BYTES: u64 = 4096;
/// Bytes of an inode.
const INODE_BYTES: u64 = 256;
/// Inodes that are free at least.
const FREE_INODES: u64 = 16 << 10;
/// Features that kernels since 4.4 know.
const CONFIG: &str = "[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
enable_periodic_fsck = 0
[fs_types]
ext4 = {
  features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
  inode_size = 256
}
";
/// How much of the tool's own words a failure quotes, in characters.
const QUOTED_MAX: usize = 500;

impl Engine {
    /// Writes a tree as an ext4 file system into the file `out`, which is replaced. It has at least
    /// `bytes`, and is sparse: what is free takes no space here.
    ///
    /// # Errors
    /// When the files need more than [`ROOTFS_BYTES_MAX`], when the program `mke2fs` is missing, or
    /// when something cannot be read or written.
    pub fn write_ext4(
        &self,
        tree: &Tree,
        bytes: Option<u64>,
        out: &Path,
        sink: &dyn Sink,
    ) -> Result<u64, Failure> {
        let way = Way { sink, stop: &Stop::default() };
        let mounted = self.shared.mounted(tree, way)?;
        // The mount's own descriptor names a place; listing needs one that is open for reading.
        let root = File::open(mounted.path()).map_err(internal)?;
        let found = scan(root.as_fd(), &KnownFiles::new(), &ScanOptions::default());
        let size = Size::of(&found.map_err(export)?.entries, bytes)?;
        let file = File::create(out).and_then(|f| f.set_len(size.bytes));
        file.map_err(|e| Failure::new(FailureKind::Export, format!("cannot make a file: {e}")))?;
        let mut config = tempfile::NamedTempFile::new().map_err(internal)?;
        config.write_all(CONFIG.as_bytes()).map_err(internal)?;
        let uuid = uuid_of(tree);
        let done = Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-m", "0", "-b", &BLOCK_BYTES.to_string()])
            .args(["-N", &size.inodes.to_string(), "-U", &uuid])
            .args(["-E", &format!("hash_seed={uuid},lazy_itable_init=1,root_owner=0:0")])
            .arg("-d")
            // The tool is another process: it reaches the mount, which has no path, through us.
            .arg(format!("/proc/{}/fd/{}/.", std::process::id(), root.as_raw_fd()))
            .arg(out)
            .arg(format!("{}k", size.bytes / 1024))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("MKE2FS_CONFIG", config.path())
            .stdin(Stdio::null())
            .output()
            .map_err(missing)?;
        if !done.status.success() {
            let words = String::from_utf8_lossy(&done.stderr);
            let words: String = words.trim().chars().take(QUOTED_MAX).collect();
            let text = format!("mke2fs could not make the file system: {words}");
            return Err(Failure::new(FailureKind::Export, text));
        }
        Ok(size.bytes)
    }
}

fn missing(error: io::Error) -> Failure {
    let failure = Failure::new(FailureKind::Export, format!("cannot run mke2fs: {error}"));
    match error.kind() {
        io::ErrorKind::NotFound => failure.hint("install e2fsprogs on the server"),
        _ => failure,
    }
}

/// How large a file system has to be.
#[derive(Debug, PartialEq, Eq)]
struct Size {
    bytes: u64,
    inodes: u64,
}

impl Size {
    fn of(entries: &Entries, wanted: Option<u64>) -> Result<Self, Failure> {
        let mut content = 0_u64;
        for entry in entries.as_slice() {
            let bytes = match &entry.node {
                Node::File { size, .. } => *size,
                _ => 0,
            };
            // A block each for directories, long links and attributes.
            content = content.saturating_add(bytes.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES);
        }
        let count = entries.len() as u64;
        let inodes = count + count / 4 + FREE_INODES;
        let tables = inodes * INODE_BYTES + content / 64 + OVERHEAD_BYTES;
        let least = content.saturating_add(tables);
        let bytes = wanted.unwrap_or(least.saturating_add(FREE_BYTES)).max(least);
        if bytes > ROOTFS_BYTES_MAX {
            let max = ROOTFS_BYTES_MAX >> 30;
            let text = format!("the root file system would have more than {max} GiB");
            return Err(Failure {
                limit: Some("rootfs".into()),
                ..Failure::new(FailureKind::Limit, text)
            });
        }
        Ok(Self { bytes: bytes.next_multiple_of(BLOCK_BYTES), inodes })
    }
}

/// Returns a UUID that is equal for equal trees.
fn uuid_of(tree: &Tree) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&tree.digest().as_bytes()[..16]);
    // Version 8 (custom), variant 1, as RFC 9562 has them.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
