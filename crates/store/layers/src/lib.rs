//! Layer archives: deterministic tars of overlay upper directories, and their safe unpacking.
//!
//! A layer is a directory in overlayfs's upper format: what was added or changed, character devices
//! 0:0 for what was removed ("whiteouts"), `trusted.overlay.opaque` on directories that replace those
//! below. [`scan`] reads it into [`Entries`], whose [`Entries::identity`] names the layer;
//! [`write_tar`] makes an OCI layer of it, [`write_blob`] a compressed one with both digests, and
//! [`unpack_tar`] goes the other way with every member under suspicion. All of it blocks: call it
//! from threads that may.

mod archive;
mod blob;
mod compress;
mod decompress;
mod entries;
mod entry;
mod error;
mod hash;
mod header;
mod known;
mod pax;
mod pump;
mod scan;
mod sparse;
mod stop;
mod unpack;
mod varint;
mod walk;
mod write;
mod xattr;

pub use blob::{LayerBlob, write_blob};
pub use compress::{Compressed, Compression, Input, compress};
pub use decompress::{Format, decompress};
pub use entries::Entries;
pub use entry::{Entry, Node, Xattrs, is_within, path_order};
pub use error::{LayerError, Result};
pub use known::KnownFiles;
pub use pump::{Hashed, read_ahead};
pub use scan::{CONTENT_BYTES_MAX, ENTRIES_MAX, PATH_BYTES_MAX, Scan, ScanOptions, scan};
pub use stop::Stop;
pub use unpack::{Limits, UnpackMode, UnpackOptions, Unpacked, unpack_tar};
pub use write::{TarOptions, TarStats, write_tar};
