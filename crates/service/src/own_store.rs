//! Makes sure that all servers and workers of a database have the same blob store: a node with another
//! one would make builds that nobody else can read.
//!
//! The first node puts a random blob into its store and its digest into the database; every other one
//! must find it. Whoever copies a store with all that is in it copies the mark.

use std::sync::Arc;
use std::time::Duration;

use ashlar_blobs::{BlobError, Remote};
use ashlar_core::Digest;
use ashlar_records::{Store, new_build_id, now};
use tokio::task::spawn_blocking;

use crate::service::within;
use crate::{Away, Error, ErrorKind};

/// How long a start waits for the blob store.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Checks that a node's blob store is that of the database. A store that does not answer is no reason
/// not to start: the server says that it is not ready, and what needs the store waits for it.
///
/// # Errors
/// [`Error::Conflict`] when it is another one, or the node has none though others have; when the
/// database fails.
pub(crate) async fn check(store: &Store, remote: Option<&Arc<dyn Remote>>) -> Result<(), Error> {
    let known = store.blob_store_mark().await?;
    let Some(remote) = remote else {
        return known.map_or(Ok(()), |_| Err(Error::Conflict(NONE.into())));
    };
    match within(ANSWER_MAX, Away::BlobStore, check_shared(store, remote, known)).await {
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            let error = error.internal_text();
            tracing::warn!(error, "nobody knows whether this is the blob store of the other nodes");
            Ok(())
        }
        other => other,
    }
}

const NONE: &str = "the other servers and workers of this database share a blob store, and nothing \
                    that is built without it could be read there: give --blob-store its address";
const OTHER: &str = "this is not the blob store of the other servers and workers of this database, \
                     and nothing that is built here could be read there: give --blob-store the \
                     address that they have; after a move, copy all objects before the start";

async fn check_shared(
    store: &Store,
    remote: &Arc<dyn Remote>,
    known: Option<Digest>,
) -> Result<(), Error> {
    let mark = match known {
        Some(mark) => mark,
        None => store.set_blob_store_mark(upload(remote).await?).await?,
    };
    let remote = Arc::clone(remote);
    let found = spawn_blocking(move || remote.look(&mark)).await.map_err(Error::internal)?;
    match found.map_err(BlobError::Remote)? {
        Some(_) => Ok(()),
        None => Err(Error::Conflict(OTHER.into())),
    }
}

/// Stores a blob that no other store has. Should another node be faster it is garbage.
async fn upload(remote: &Arc<dyn Remote>) -> Result<Digest, Error> {
    let text = format!("The blob store of an Ashlar database: {}\n", new_build_id(now())?);
    let (remote, mark) = (Arc::clone(remote), Digest::of(&text));
    let size = text.len() as u64;
    let stored = spawn_blocking(move || remote.upload(&mark, &mut text.as_bytes(), size));
    stored.await.map_err(Error::internal)?.map_err(BlobError::Remote)?;
    Ok(mark)
}
