//! Removes objects that nothing needs from a blob store that several servers share.
//!
//! # What is needed
//! What builds and documents hold (contexts, answers, files, pieces of logs, records of images),
//! what those contexts and records list, and all that any tenant has a right to; rights that nothing
//! needs lapse when they were not used for some days ([`crate::sweep`]). Objects that are younger
//! than [`AGE_MIN`] stay in any case: whoever stored one may be about to say what for.
//!
//! # How nothing is lost that a server begins to need meanwhile
//! One server collects at a time, for as long as it prolongs its turn; two at once would do no harm.
//! It lists the objects, and holds those that are old against what is needed, piece by piece. What is
//! left over is removed a few at a time:
//!
//! 1. It writes down which, in one transaction with a last look at rights and holds
//!    ([`ashlar_records::Store::begin_removal`]). Contexts and images that are new since the lists
//!    were read are covered by that: whoever makes one has a right to all that it lists first.
//! 2. It looks whether the object is as old as it was: it may have been stored again.
//! 3. It removes the object, then what was written down.
//!
//! Whoever needs a blob is granted it before it is stored ([`crate::grants::Grants::add`]), and waits
//! where its removal was written down. It then finds the blob missing and stores it again, which is
//! also how the age of an object is renewed. A request of which nobody knows how it went stays written
//! down until it can no longer come about.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ashlar_blobs::{AGE_MIN, BlobError, Remote};
use ashlar_core::{Digest, Timestamp};
use ashlar_records::{REMOVAL_TIME, now};
use tokio::runtime::Handle;

use crate::maintain::ago;
use crate::sweep::GRANT_KEPT;
use crate::{Error, Service};

/// The name of the turn.
const TURN: &str = "collect-objects";
/// How long a turn lasts that is not prolonged.
const TURN_TIME: Duration = Duration::from_secs(3600);
/// How long after a collection the next one begins.
pub(crate) const COLLECT_EVERY: Duration = Duration::from_secs(12 * 3600);
/// Objects that are held against what is needed at once: a bound on memory. For each such piece all
/// lists are read.
const OBJECTS_AT_ONCE: usize = 1 << 17;
/// Objects whose removal is written down at once.
const REMOVED_AT_ONCE: usize = 64;

/// What a collection removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Rights to blobs that lapsed.
    pub grants: usize,
    /// Objects.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Service {
    /// Removes objects of the shared blob store that nothing needs. Nothing when there is no such
    /// store, another server is at it, or one was less than `every` ago.
    ///
    /// # Errors
    /// When the database or the blob store does not answer; what was removed before is gone.
    pub async fn collect_objects(
        self: &Arc<Self>,
        every: Duration,
    ) -> Result<Option<Collected>, Error> {
        let Some(remote) = self.blobs().remote().cloned() else { return Ok(None) };
        let holder = self.workers().id();
        if !self.store().take_turn(TURN, holder, now(), TURN_TIME, every).await? {
            return Ok(None);
        }
        let runtime = Handle::current();
        let done = self
            .blocking(move |service| {
                let collected = Collected::default();
                Collection { service, remote, runtime, collected }.run()
            })
            .await;
        self.store().end_turn(TURN, holder, now(), done.is_ok()).await?;
        done.map(Some)
    }
}

/// A collection under way.
struct Collection<'a> {
    service: &'a Service,
    remote: Arc<dyn Remote>,
    runtime: Handle,
    collected: Collected,
}

impl Collection<'_> {
    fn run(mut self) -> Result<Collected, Error> {
        self.collected.grants = self.service.lapse_grants(&self.runtime)?;
        let (remote, mut piece) = (Arc::clone(&self.remote), HashSet::new());
        let mut failed = None;
        let listed = remote.list(&mut |info| {
            if is_old(info.modified) {
                piece.insert(info.digest);
            }
            if piece.len() < OBJECTS_AT_ONCE {
                return ControlFlow::Continue(());
            }
            match self.remove_unneeded(std::mem::take(&mut piece)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        failed.map_or(Ok(()), Err)?;
        listed.map_err(BlobError::Remote)?;
        self.remove_unneeded(piece)?;
        Ok(self.collected)
    }

    fn remove_unneeded(&mut self, piece: HashSet<Digest>) -> Result<(), Error> {
        let unneeded = self.service.unneeded(&self.runtime, piece, ago(GRANT_KEPT))?;
        let unneeded: Vec<Digest> = unneeded.blobs.into_iter().collect();
        for few in unneeded.chunks(REMOVED_AT_ONCE) {
            self.prolong()?;
            self.remove(few)?;
        }
        Ok(())
    }

    /// Goes on with the turn, unless the server ends or the turn is another's by now.
    fn prolong(&self) -> Result<(), Error> {
        let service = self.service;
        let (store, holder) = (service.store(), service.workers().id());
        let turn = store.take_turn(TURN, holder, now(), TURN_TIME, Duration::ZERO);
        if service.workers().is_draining() || !self.runtime.block_on(turn)? {
            return Err(Error::Unavailable("the collection of objects was stopped".into()));
        }
        Ok(())
    }

    fn remove(&mut self, few: &[Digest]) -> Result<(), Error> {
        let (began, clock) = (now(), Instant::now());
        let store = self.service.store();
        let begun = self.runtime.block_on(store.begin_removal(few, began))?;
        let mut over = Vec::with_capacity(begun.len());
        let removed = begun.iter().try_for_each(|digest| {
            self.remove_one(digest, clock)?;
            over.push(*digest);
            Ok(())
        });
        self.end(&over, began)?;
        removed
    }

    fn end(&self, over: &[Digest], began: Timestamp) -> Result<(), Error> {
        Ok(self.runtime.block_on(self.service.store().end_removal(over, began))?)
    }

    fn remove_one(&mut self, digest: &Digest, clock: Instant) -> Result<(), Error> {
        let Some(info) = self.remote.look(digest).map_err(BlobError::Remote)? else {
            return Ok(());
        };
        // Stored again since it was listed, or too late: others no longer wait.
        if !is_old(info.modified) || clock.elapsed() > REMOVAL_TIME {
            return Ok(());
        }
        self.service.blobs().forget_elsewhere(digest);
        if self.remote.remove(digest).map_err(BlobError::Remote)? {
            tracing::debug!(%digest, bytes = info.size, "removed an object that nothing needs");
            self.collected.objects += 1;
            self.collected.bytes += info.size;
        }
        Ok(())
    }
}

/// A clock elsewhere that is ahead of ours makes no object old.
fn is_old(modified: SystemTime) -> bool {
    modified.elapsed().unwrap_or_default() > AGE_MIN
}
