//! Layer directories on disk and the overlay mounts made of them.
//!
//! The outline of the API (blocking; any number of threads and processes may share a directory):
//!
//! ```text
//! type LayerId = ashlar_core::Digest        image layer: its diff_id; own layer: content identity
//! struct Tree(pub Vec<LayerId>)             bottom first; scratch(), with(id), digest(), top()
//!
//! SnapshotStore: Clone
//!   open(dir) -> Self                       also empties the trash in the background
//!   verify() -> Repairs                     dead drafts, half-made layers, layers lost by a power cut
//!   has(&id) -> bool, layer(&id) -> LayerMeta, layers() -> Vec<LayerMeta>
//!   update(&id, |meta| ..) -> LayerMeta     to note the diff_id and the blobs of a layer
//!   hold(&Tree) -> Lease                    shared lock on each layer, bumps last_used; Clone
//!   begin(&Tree) -> Draft                   the tree gives the root directory's owner and mode
//!   import_layer(diff_id, impl Read, &ImportOptions) -> Lease      (once, whoever else wants it)
//!   lowers(&Tree) -> Vec<PathBuf>           topmost first, never more than 400
//!   mount(&Tree, Option<&Draft>) -> Mounted detached overlay: .fd(), .path() = /proc/self/fd/N
//!   lookup(&Tree, path, Follow) -> Option<Found>, read(&Tree, path, max), list(&Tree, path)
//!   content_digest(&Tree, &Selector) -> Option<Digest>
//!   entries(&id) -> Arc<Entries>            paths, metadata and content digests of one layer
//!   write_blob(&id, Compression, &TarOptions, impl Write) -> LayerBlob  tar, diff_id, blob digest
//!   remove(&id) -> Removal, sync(), usage() -> Usage
//!
//! Draft (dropping it removes it, in the background)
//!   upper() -> &Path, work() -> &Path, id() -> Uuid
//!   commit(self, &KnownFiles) -> Commit { id, lease, reused, meta }
//!   keep_failed(self, &Path)                moves `fs` and `work` there, for a debug shell
//!
//! ashlar_layers::KnownFiles                 insert(relative path bytes, Digest)
//! ```
