//! What builds that have ended still have: the numbers that retention goes by, written together
//! with the rows that they are about.

use std::collections::BTreeSet;

use ashlar_core::journal::Record;
use ashlar_core::state::State;
use ashlar_core::{BuildId, Digest, TenantId, Timestamp};

use crate::builds::Loaded;
use crate::db::{Row, Tx, args};
use crate::{Error, Store, needs};

/// The time until which a pinned build is spared.
const FOR_EVER: i64 = i64::MAX;

/// A row of `kept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// None: the log is gone.
    pub(crate) log_bytes: Option<u64>,
    /// None: there is no artifact (any more).
    pub(crate) artifact_bytes: Option<u64>,
    /// 0, or until when nobody looks at it.
    pub(crate) spared_until: i64,
    /// Whether something that it made was removed after its end.
    pub(crate) lost: bool,
}

impl Kept {
    fn read(row: &Row) -> Result<Self, Error> {
        let bytes = |column| Ok::<_, Error>(row.maybe_int(column)?.map(|n| n.max(0) as u64));
        let (log_bytes, artifact_bytes) = (bytes(0)?, bytes(1)?);
        Ok(Self { log_bytes, artifact_bytes, spared_until: row.int(2)?, lost: row.flag(3)? })
    }

    /// Returns what it adds to the totals: records, logs and artifacts with their bytes.
    fn counted(&self) -> [i64; 5] {
        if self.spared_until != 0 {
            return [0; 5];
        }
        let sum = |n: Option<u64>| n.map_or(0, |n| i64::try_from(n).unwrap_or(i64::MAX));
        [
            1,
            i64::from(self.log_bytes.is_some()),
            sum(self.log_bytes),
            i64::from(self.artifact_bytes.is_some()),
            sum(self.artifact_bytes),
        ]
    }
}

/// Returns what a build is known to have.
pub(crate) async fn read(tx: &mut Tx, position: i64) -> Result<Option<Kept>, Error> {
    let sql = "SELECT log_bytes, artifact_bytes, spared_until, lost FROM kept WHERE build = $1";
    tx.maybe(sql, args![position]).await?.map(|row| Kept::read(&row)).transpose()
}

/// Writes what an ended build has now (none: it is forgotten), and the totals with it.
pub(crate) async fn put(
    tx: &mut Tx,
    loaded: &Loaded,
    before: Option<Kept>,
    now: Option<Kept>,
) -> Result<(), Error> {
    match now {
        Some(kept) => {
            let sql = "INSERT INTO kept (build, scope, dialect, ended_at, log_bytes, \
                       artifact_bytes, spared_until, good, lost) \
                       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (build) DO UPDATE \
                       SET log_bytes = excluded.log_bytes, \
                       artifact_bytes = excluded.artifact_bytes, \
                       spared_until = excluded.spared_until, \
                       good = excluded.good, lost = excluded.lost";
            let r = &loaded.record;
            let ended = r.finished_at.unwrap_or(r.updated_at);
            let (dialect, spared) = (&r.submission.dialect, kept.spared_until);
            let good = (r.state == State::Succeeded).then_some(r.name.as_str());
            let mut values = args![loaded.position, loaded.scope, dialect, ended];
            values.extend(args![kept.log_bytes, kept.artifact_bytes, spared, good, kept.lost]);
            tx.run(sql, values).await?;
        }
        None => {
            tx.run("DELETE FROM kept WHERE build = $1", args![loaded.position]).await?;
        }
    }
    let of = |kept: Option<Kept>| kept.map_or([0; 5], |k| k.counted());
    let (old, new) = (of(before), of(now));
    let change: [i64; 5] = std::array::from_fn(|i| new[i].saturating_sub(old[i]));
    if change == [0; 5] {
        return Ok(());
    }
    let sql = "INSERT INTO kept_totals \
               (scope, dialect, records, logs, log_bytes, artifacts, artifact_bytes) \
               VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (scope, dialect) DO UPDATE \
               SET records = kept_totals.records + excluded.records, \
               logs = kept_totals.logs + excluded.logs, \
               log_bytes = kept_totals.log_bytes + excluded.log_bytes, \
               artifacts = kept_totals.artifacts + excluded.artifacts, \
               artifact_bytes = kept_totals.artifact_bytes + excluded.artifact_bytes";
    let mut values = args![loaded.scope, &loaded.record.submission.dialect];
    values.extend(change.map(crate::db::Arg::from));
    tx.run(sql, values).await?;
    if change[0] < 0 {
        // A group without builds must not lengthen every round of upkeep for ever.
        let sql = "DELETE FROM kept_totals WHERE scope = $1 AND dialect = $2 AND records <= 0";
        tx.run(sql, args![loaded.scope, &loaded.record.submission.dialect]).await?;
    }
    Ok(())
}

/// Keeps the numbers in step with a journal that has grown.
pub(crate) async fn after_append(
    tx: &mut Tx,
    loaded: &Loaded,
    before: &Record,
) -> Result<(), Error> {
    let now = &loaded.record;
    if now.artifacts != before.artifacts {
        hold_artifacts(tx, loaded, before).await?;
    }
    // Those of an earlier attempt stay: a retry may have taken them already.
    if let Some(answers) = now.answers.filter(|_| now.answers != before.answers) {
        hold(tx, answers, Holder::Build(loaded.position), Held::Plain).await?;
    }
    if !now.state.is_terminal() {
        return Ok(());
    }
    let ended = before.state.is_terminal();
    let same = now.pinned == before.pinned && now.name == before.name;
    if ended && same && now.artifacts == before.artifacts {
        return Ok(());
    }
    let old = read(tx, loaded.position).await?;
    let log_bytes = match old {
        Some(kept) => kept.log_bytes,
        None => Some(journal_bytes(tx, loaded.position).await?),
    };
    let spared_until = match (now.pinned, old) {
        (true, _) => FOR_EVER,
        (false, Some(kept)) if kept.spared_until != FOR_EVER => kept.spared_until,
        _ => 0,
    };
    let lost = ended && lost(old.is_some_and(|kept| kept.lost), before, now);
    let artifact_bytes = artifact_bytes(now);
    put(tx, loaded, old, Some(Kept { log_bytes, artifact_bytes, spared_until, lost })).await
}

/// Says whether something that an ended build made is gone, from whether it was before: what is
/// added makes up for what was removed.
fn lost(lost: bool, before: &Record, now: &Record) -> bool {
    let lacks = |record: &Record, name: &str| record.artifacts.iter().all(|a| a.name != name);
    let added = now.artifacts.iter().any(|a| lacks(before, &a.name));
    let removed = before.artifacts.iter().any(|a| lacks(now, &a.name));
    !added && (removed || lost)
}

fn artifact_bytes(record: &Record) -> Option<u64> {
    let sizes = record.artifacts.iter().map(|a| a.bytes.unwrap_or(0));
    (!record.artifacts.is_empty()).then(|| sizes.fold(0, u64::saturating_add))
}

async fn journal_bytes(tx: &mut Tx, position: i64) -> Result<u64, Error> {
    let sql = "SELECT CAST(COALESCE(SUM(LENGTH(body)), 0) AS BIGINT) FROM entries WHERE build = $1";
    tx.one(sql, args![position]).await?.count(0)
}

/// What a reference of an artifact begins with that names the blob with the image's record.
pub const IMAGE_RECORD: &str = "record:";

/// Artifacts that are one blob are needed as long as their build has them. An image is kept by its
/// name in the image store, and where servers share a blob store by its record there.
async fn hold_artifacts(tx: &mut Tx, loaded: &Loaded, before: &Record) -> Result<(), Error> {
    let (old, new) = (needed_by(before), needed_by(&loaded.record));
    for (digest, _) in old.iter().filter(|held| !new.contains(held)) {
        let sql = "DELETE FROM holds WHERE digest = $1 AND build = $2 AND document = 0";
        tx.run(sql, args![*digest, loaded.position]).await?;
    }
    for (digest, held) in new.iter().filter(|held| !old.contains(held)) {
        hold(tx, *digest, Holder::Build(loaded.position), *held).await?;
    }
    Ok(())
}

fn needed_by(record: &Record) -> Vec<(Digest, Held)> {
    let mut needed = Vec::new();
    for artifact in &record.artifacts {
        if artifact.kind != "image" {
            needed.push((artifact.digest, Held::Plain));
            continue;
        }
        let records = artifact.references.iter().filter_map(|r| r.strip_prefix(IMAGE_RECORD));
        needed.extend(records.filter_map(|r| Some((r.parse().ok()?, Held::Image))));
    }
    needed
}

/// What a held blob is: some list others that are needed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// Bytes that name nothing.
    Plain,
    /// A context, which needs the files that it lists.
    Context,
    /// The record of an image, which needs the image's blobs.
    Image,
}

impl Held {
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Plain => 0,
            Self::Context => 1,
            Self::Image => 2,
        }
    }

    const fn of_number(number: i64) -> Self {
        match number {
            1 => Self::Context,
            2 => Self::Image,
            _ => Self::Plain,
        }
    }
}

/// Who needs a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Holder {
    /// A build, by its position.
    Build(i64),
    /// A document, by its position.
    Document(i64),
}

/// Writes that a blob is needed, and what it is.
pub(crate) async fn hold(
    tx: &mut Tx,
    digest: Digest,
    holder: Holder,
    held: Held,
) -> Result<(), Error> {
    let (build, document) = match holder {
        Holder::Build(position) => (position, 0),
        Holder::Document(position) => (0, position),
    };
    let sql = "INSERT INTO holds (digest, build, document, context) VALUES ($1, $2, $3, $4) \
               ON CONFLICT DO NOTHING";
    tx.run(sql, args![digest, build, document, held.number()]).await.map(drop)
}

/// Writes that a context is needed, and so are the files that it lists.
pub(crate) async fn hold_context(tx: &mut Tx, digest: Digest, holder: Holder) -> Result<(), Error> {
    hold(tx, digest, holder, Held::Context).await
}

/// Writes that a blob is needed which names no others.
pub(crate) async fn hold_blob(tx: &mut Tx, digest: Digest, holder: Holder) -> Result<(), Error> {
    hold(tx, digest, holder, Held::Plain).await
}

/// Blobs that one look returns at most.
pub const HELD_MAX: u32 = 1000;

impl Store {
    /// Lists the blobs that builds and documents need, by digest, after one, and what each is.
    /// Those that images of one machine need are known to its image store.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn held_blobs(
        &self,
        after: Option<Digest>,
        limit: u32,
    ) -> Result<Vec<(Digest, Held)>, Error> {
        // Several holders of one blob are a few rows of the same key.
        let sql = "SELECT digest, MAX(context) FROM holds WHERE digest > $1 \
                   GROUP BY digest ORDER BY digest LIMIT $2";
        let after = after.map_or_else(Vec::new, |d| d.as_bytes().to_vec());
        let rows = self.db.all(sql, args![after, limit.min(HELD_MAX)]).await?;
        rows.iter().map(|row| Ok((row.digest(0)?, Held::of_number(row.int(1)?)))).collect()
    }

    /// Says whether a build of a tenant was accepted with a context.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn holds_context(&self, tenant: TenantId, digest: Digest) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM holds h JOIN builds b ON b.position = h.build \
                   WHERE h.digest = $1 AND h.context = 1 AND b.tenant = $2 LIMIT 1";
        Ok(self.db.maybe(sql, args![digest, tenant]).await?.is_some())
    }

    /// Returns the tenants whose builds and documents need a blob.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn holders(&self, digest: Digest) -> Result<BTreeSet<TenantId>, Error> {
        let sql = "SELECT DISTINCT b.tenant FROM holds h JOIN builds b ON b.position = h.build \
                   WHERE h.digest = $1 UNION \
                   SELECT DISTINCT d.tenant FROM holds h \
                   JOIN documents d ON d.position = h.document WHERE h.digest = $1";
        let rows = self.db.all(sql, args![digest]).await?;
        rows.iter().map(|row| row.tenant(0)).collect()
    }
}

/// Why a build stays whatever the bounds say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exempt {
    /// Somebody wants it kept.
    Pinned,
    /// A name was moved to it.
    Promoted,
    /// A build that has not ended stands on it, or the run that it belongs to has not.
    Needed,
    /// It is the newest success of its name in its scope, of those that still have all that they
    /// made; of those that have not only where there is no other.
    LastGood,
}

/// Returns why a build stays, if it does.
pub(crate) async fn exempt(
    tx: &mut Tx,
    position: i64,
    build: BuildId,
    pinned: bool,
) -> Result<Option<Exempt>, Error> {
    if pinned {
        return Ok(Some(Exempt::Pinned));
    }
    let sql = "SELECT 1 FROM aliases WHERE target = $1 AND promoted = 1 LIMIT 1";
    if tx.maybe(sql, args![build]).await?.is_some() {
        return Ok(Some(Exempt::Promoted));
    }
    if needs::is_needed(tx, build).await? {
        return Ok(Some(Exempt::Needed));
    }
    Ok(is_last_good(tx, position).await?.then_some(Exempt::LastGood))
}

/// Says whether a build is the newest success of its name. Nothing is written when another one is
/// from then on, so that whatever happens to a build (it is forgotten, renamed, loses its image)
/// leaves a newest one among the others.
async fn is_last_good(tx: &mut Tx, position: i64) -> Result<bool, Error> {
    let sql = "SELECT scope, good FROM kept WHERE build = $1 AND good IS NOT NULL";
    let Some(row) = tx.maybe(sql, args![position]).await? else { return Ok(false) };
    let sql = "SELECT build FROM kept WHERE scope = $1 AND good = $2 \
               ORDER BY lost, ended_at DESC, build DESC LIMIT 1";
    let newest = tx.one(sql, args![row.int(0)?, row.text(1)?]).await?;
    Ok(newest.int(0)? == position)
}

/// Removes all that is known about a build that is forgotten.
pub(crate) async fn forget(tx: &mut Tx, loaded: &Loaded) -> Result<(), Error> {
    if let Some(old) = read(tx, loaded.position).await? {
        put(tx, loaded, Some(old), None).await?;
    }
    let sql = "DELETE FROM holds WHERE build = $1 AND build > 0";
    tx.run(sql, args![loaded.position]).await?;
    needs::forget(tx, loaded).await?;
    crate::segments::forget(tx, loaded.position).await
}

/// Spares a build until a time, or no longer.
pub(crate) async fn spare(
    tx: &mut Tx,
    loaded: &Loaded,
    until: Option<Timestamp>,
) -> Result<(), Error> {
    let Some(old) = read(tx, loaded.position).await? else { return Ok(()) };
    if old.spared_until == FOR_EVER {
        return Ok(());
    }
    let spared_until = until.map_or(0, Timestamp::nanos);
    put(tx, loaded, Some(old), Some(Kept { spared_until, ..old })).await
}
