//! Files at plain addresses (`ADD https://...`).
//!
//! The server is asked each time whether the file changed since it was last fetched, unless the
//! definition pins its digest. The tree is one file of mode 0600, as BuildKit makes it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::Op;
use ashlar_core::{Digest, Hasher};
use ashlar_layers::KnownFiles;
use ashlar_oci::Transfer;
use ashlar_oci::registry::{Downloaded, Validators};
use ashlar_sandbox::Cancel;
use ashlar_snapshots::Tree;
use serde::{Deserialize, Serialize};

use crate::cache::RecordDir;
use crate::cancel::while_waiting;
use crate::engine::Shared;
use crate::error::{internal, source};
use crate::output::{NodeOutput, Output};

/// The largest file that is fetched, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 30;

/// What an address gave the last time.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Fetched {
    content: Digest,
    layer: Digest,
    etag: Option<String>,
    last_modified: Option<String>,
}

/// Returns the tree of an [`Op::Http`].
pub(crate) fn fetch(engine: &Shared, op: &Op, cancel: &Cancel) -> Result<Output, Failure> {
    let Op::Http { url, checksum, filename } = op else {
        return Err(Failure::new(FailureKind::Internal, "not an address"));
    };
    let mut key = Hasher::new();
    key.field(b"http").field(url).field(filename);
    let key = key.finish();
    let records = RecordDir::new(engine.dir.cache().join("http"));
    let earlier: Option<Fetched> = records.get(&key).map_err(internal)?;
    let earlier = earlier.filter(|f| engine.snapshots.has(&f.layer));
    if let Some(found) = earlier.as_ref().filter(|f| Some(f.content) == *checksum) {
        return held(engine, found.layer);
    }
    // With a pinned digest that the earlier content lacks, "unchanged" would be the wrong answer.
    let earlier = earlier.filter(|_| checksum.is_none());
    let validators = earlier
        .as_ref()
        .map(|f| Validators { etag: f.etag.clone(), last_modified: f.last_modified.clone() });
    let stopped = Arc::new(AtomicBool::new(cancel.is_cancelled()));
    let transfer = Transfer::quiet().with_cancel(&stopped);
    let blobs = engine.images.blobs();
    let registry = engine.images.registry();
    let flag = Arc::clone(&stopped);
    let stop = move || flag.store(true, Ordering::Relaxed);
    let got = while_waiting(cancel, stop, || {
        let (earlier, expected) = (validators.as_ref(), checksum.as_ref());
        registry.download(url, earlier, expected, blobs, FILE_BYTES_MAX, &transfer)
    })
    .map_err(|e| Failure { hint: e.hint().map(str::to_owned), ..source(e) })?;
    match (got, earlier) {
        (Downloaded::Unchanged, Some(found)) => held(engine, found.layer),
        (Downloaded::Unchanged, None) => {
            let text = "the server says that the file did not change, but it was never fetched";
            Err(Failure::new(FailureKind::Source, text))
        }
        (Downloaded::Content(blob, validators), _) => {
            let output = one_file(engine, blob.digest, filename)?;
            let fetched = Fetched {
                content: blob.digest,
                layer: output.own()[0],
                etag: validators.etag,
                last_modified: validators.last_modified,
            };
            records.put(&key, &fetched).map_err(internal)?;
            Ok(output)
        }
    }
}

fn held(engine: &Shared, layer: Digest) -> Result<Output, Failure> {
    let tree = Tree(vec![layer]);
    let lease = engine.snapshots.hold(&tree).map_err(internal)?;
    Ok(NodeOutput::tree(tree, vec![layer], Some(lease)))
}

/// Makes the tree with the one file.
fn one_file(engine: &Shared, content: Digest, filename: &str) -> Result<Output, Failure> {
    let bad =
        filename.is_empty() || filename.contains(['/', '\0']) || matches!(filename, "." | "..");
    if bad {
        let text = format!("'{filename}' cannot be a file's name");
        return Err(Failure::new(FailureKind::Definition, text));
    }
    let draft = engine.snapshots.begin(&Tree::scratch()).map_err(internal)?;
    let path = draft.upper().join(filename);
    let mut from = engine.images.blobs().open_read(&content).map_err(internal)?;
    let mut to = fs::File::create_new(&path).map_err(internal)?;
    std::io::copy(&mut from, &mut to).map_err(internal)?;
    to.set_permissions(fs::Permissions::from_mode(0o600)).map_err(internal)?;
    // The time of the fetch would say nothing: the file shows the epoch, as with BuildKit, unless
    // the server named a time.
    to.set_modified(std::time::UNIX_EPOCH).map_err(internal)?;
    let mut known = KnownFiles::new();
    known.insert(filename, content);
    let commit = draft.commit(&known).map_err(internal)?;
    Ok(NodeOutput::tree(Tree(vec![commit.id]), vec![commit.id], Some(commit.lease)))
}
