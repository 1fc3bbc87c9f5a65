//! Accepts builds, together with all that has to exist from the same moment on.

use ashlar_core::journal::{Record, Submission};
use ashlar_core::{BuildId, Digest, TenantId, Timestamp, WorkerId};

use crate::aliases::{self, NewAlias, NumberedAlias};
use crate::builds::{self, Loaded, waits};
use crate::db::{Tx, args};
use crate::documents::{self, NewDocument};
use crate::kept::{self, Held, Holder};
use crate::objects::{self, NewObject};
use crate::queue::Policy;
use crate::secrets::{self, Sealed};
use crate::store::retried;
use crate::{AuditEntry, Error, Store, audit, journal, leases, needs, queue};

/// The longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// A key by which a caller may repeat a submission safely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, unique within the tenant.
    pub key: String,
    /// Digest of the request: the same key with another request is an error.
    pub request: Digest,
}

/// A build to be accepted, and what is written with it in one transaction.
#[derive(Debug, Clone)]
pub struct Submit {
    /// What is asked for.
    pub submission: Submission,
    /// Makes a repetition safe.
    pub idempotency: Option<Idempotency>,
    /// Names that dialects give the build.
    pub aliases: Vec<NewAlias>,
    /// Names that are the next number of a counter.
    pub numbered: Vec<NumberedAlias>,
    /// Documents of the dialect.
    pub documents: Vec<NewDocument>,
    /// Objects of the dialect that stay when the build goes.
    pub objects: Vec<NewObject>,
    /// Sealed values that live as long as the build waits or runs.
    pub secrets: Vec<Sealed>,
    /// Blobs that are needed as long as the build is there.
    pub blobs: Vec<Digest>,
    /// Contexts, which need the files that they list too.
    pub contexts: Vec<Digest>,
    /// What the audit log says about it.
    pub audit: Option<AuditEntry>,
    /// Builds whose artifacts are needed until this one has ended.
    pub needs: Vec<BuildId>,
}

impl Submit {
    /// Submits a build with nothing beside it.
    pub const fn new(submission: Submission) -> Self {
        Self {
            submission,
            idempotency: None,
            aliases: Vec::new(),
            numbered: Vec::new(),
            documents: Vec::new(),
            objects: Vec::new(),
            secrets: Vec::new(),
            blobs: Vec::new(),
            contexts: Vec::new(),
            audit: None,
            needs: Vec::new(),
        }
    }
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    /// The build's row.
    pub record: Record,
    /// Whether an earlier request with the same key made it.
    pub repeated: bool,
    /// The numbers drawn, in the order of [`Submit::numbered`]; empty when repeated.
    pub numbers: Vec<u64>,
    /// Builds that were cancelled, or asked to stop, by the scope's policy.
    pub replaced: Vec<BuildId>,
}

impl Store {
    /// Accepts a build. From then on it is never lost.
    ///
    /// # Errors
    /// [`Error::ScopeBusy`] when the scope's policy forbids it, [`Error::KeyReused`] and
    /// [`Error::Taken`] when a key, alias or id is in use, [`Error::NotKept`] when a build that is
    /// needed is gone, [`Error::TooLarge`].
    pub async fn submit(&self, submit: &Submit, now: Timestamp) -> Result<Submitted, Error> {
        retried(|| self.submit_once(submit, now)).await
    }

    async fn submit_once(&self, submit: &Submit, now: Timestamp) -> Result<Submitted, Error> {
        let s = &submit.submission;
        let mut tx = self.db.write().await?;
        if let Some(record) = repeated(&mut tx, submit, now).await? {
            return Ok(Submitted {
                record,
                repeated: true,
                numbers: Vec::new(),
                replaced: Vec::new(),
            });
        }
        let replaced = apply_policy(&mut tx, s, now).await?;
        let loaded = builds::accept(&mut tx, s, None, now).await?;
        if waits(&loaded.record) {
            queue::enqueue(&mut tx, &loaded).await?;
        }
        let numbers = extras(&mut tx, submit, &loaded, now).await?;
        journal::announce(&mut tx, s.build).await?;
        tx.commit().await?;
        replaced.iter().for_each(|b| self.wakeups.wake(*b));
        self.wakeups.wake(s.build);
        let record = whole(loaded.record, s);
        Ok(Submitted { record, repeated: false, numbers, replaced })
    }

    /// Accepts a build that the calling process drives itself from the start: it never waits in
    /// the queue. The caller holds it with [`crate::FIRST_FENCE`] and has to be heard of.
    ///
    /// # Errors
    /// When the build exists already, its definition is too large or the database fails.
    pub async fn begin(
        &self,
        submission: &Submission,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Record, Error> {
        let mut tx = self.db.write().await?;
        let loaded = builds::accept(&mut tx, submission, Some(worker), now).await?;
        leases::grant(&mut tx, &loaded, worker, self.leased_until(now)).await?;
        journal::announce(&mut tx, submission.build).await?;
        tx.commit().await?;
        self.wakeups.wake(submission.build);
        Ok(whole(loaded.record, submission))
    }

    /// Forgets idempotency keys that are older than a time; returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_keys(&self, before: Timestamp) -> Result<u64, Error> {
        self.db.run("DELETE FROM idempotency WHERE created_at < $1", args![before]).await
    }
}

/// Puts the definition back, which rows do not have.
fn whole(record: Record, submission: &Submission) -> Record {
    Record { submission: submission.clone(), ..record }
}

/// Returns the build that an earlier request with the same key made, with its definition; remembers
/// the key for the new build when there is none, or none any more.
async fn repeated(tx: &mut Tx, submit: &Submit, now: Timestamp) -> Result<Option<Record>, Error> {
    let Some(Idempotency { key, request }) = &submit.idempotency else { return Ok(None) };
    if key.len() > KEY_BYTES_MAX {
        let max = KEY_BYTES_MAX as u64;
        return Err(Error::TooLarge { what: "the idempotency key", max, unit: "bytes" });
    }
    let (tenant, build) = (submit.submission.tenant, submit.submission.build);
    let sql = "INSERT INTO idempotency (tenant, key, request, build, created_at) \
               VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, key) DO NOTHING";
    if tx.run(sql, args![tenant, key, *request, build, now]).await? == 1 {
        return Ok(None);
    }
    // An update that changes nothing locks the row: of two repetitions of what was deleted, one finds
    // the other's build.
    let sql = "UPDATE idempotency SET build = build WHERE tenant = $1 AND key = $2 \
               RETURNING build, request";
    let row = tx.one(sql, args![tenant, key]).await?;
    if row.bytes(1)? != request.as_bytes() {
        return Err(Error::KeyReused(key.clone()));
    }
    let record = builds::whole(tx, row.build(0)?).await?;
    if record.is_none() {
        let sql =
            "UPDATE idempotency SET build = $3, created_at = $4 WHERE tenant = $1 AND key = $2";
        tx.run(sql, args![tenant, key, build, now]).await?;
    }
    Ok(record)
}

async fn apply_policy(
    tx: &mut Tx,
    submission: &Submission,
    now: Timestamp,
) -> Result<Vec<BuildId>, Error> {
    let (tenant, scope): (TenantId, &str) = (submission.tenant, &submission.scope);
    // Locked, so that two submissions do not both find the scope empty.
    let sql = if tx.is_postgres() {
        "SELECT id, policy FROM scopes WHERE tenant = $1 AND name = $2 FOR UPDATE"
    } else {
        "SELECT id, policy FROM scopes WHERE tenant = $1 AND name = $2"
    };
    let Some(row) = tx.maybe(sql, args![tenant, scope]).await? else { return Ok(Vec::new()) };
    let policy = row.text(1)?;
    let policy = Policy::parse(&policy)
        .ok_or_else(|| Error::damaged("a scope", format!("unknown policy '{policy}'")))?;
    queue::make_way(tx, (row.int(0)?, scope), submission.kind, policy, now).await
}

async fn extras(
    tx: &mut Tx,
    submit: &Submit,
    loaded: &Loaded,
    now: Timestamp,
) -> Result<Vec<u64>, Error> {
    let build = submit.submission.build;
    for alias in &submit.aliases {
        aliases::insert(tx, alias, build.uuid()).await?;
    }
    for document in &submit.documents {
        documents::insert(tx, document, Some(build), now).await?;
    }
    for object in &submit.objects {
        objects::insert(tx, object, now).await?;
    }
    for sealed in &submit.secrets {
        secrets::bind(tx, loaded.position, sealed).await?;
    }
    let holder = Holder::Build(loaded.position);
    for digest in &submit.contexts {
        kept::hold(tx, *digest, holder, Held::Context).await?;
    }
    for digest in &submit.blobs {
        kept::hold(tx, *digest, holder, Held::Plain).await?;
    }
    if let Some(entry) = &submit.audit {
        audit::insert(tx, entry).await?;
    }
    needs::write(tx, loaded, &submit.needs).await?;
    let mut numbers = Vec::new();
    for numbered in &submit.numbered {
        numbers.push(aliases::insert_numbered(tx, numbered, build.uuid()).await?);
    }
    Ok(numbers)
}
