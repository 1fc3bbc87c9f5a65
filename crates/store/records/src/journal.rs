//! Journals: writing entries with the row that they fold to.

use ashlar_core::journal::{Entry, Event, LineRun, Record};
use ashlar_core::{BuildId, Timestamp};
use sqlx::AssertSqlSafe;

use crate::builds::{self, Loaded};
use crate::codec::text::PackedText;
use crate::codec::{self, Packed};
use crate::db::{Tx, args, pieces, placeholders};
use crate::finish::{Decide, put_alias};
use crate::store::retried;
use crate::writer::now;
use crate::{Error, Store, follow};

/// Something that happened, with the time at which it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped {
    /// When. Its entry's time is this, or later where that keeps times increasing.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

impl Stamped {
    /// Stamps an event.
    pub const fn new(at: Timestamp, event: Event) -> Self {
        Self { at, event }
    }
}

/// What is to be written: an event, or a row full of log lines.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Event(Stamped),
    Text(PackedText),
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The service: cancels, labels, pins.
    Service,
    /// The worker that holds the build.
    Worker {
        /// The fencing number of its claim.
        fence: u64,
        /// Counts this attempt's batches from 1, so that a batch which is sent again after a broken
        /// connection is written once.
        batch: Option<u64>,
    },
}

/// Applies events to a loaded build and writes them; all or none.
pub(crate) async fn append(
    tx: &mut Tx,
    loaded: &mut Loaded,
    fence: Option<u64>,
    events: impl IntoIterator<Item = Stamped>,
) -> Result<(), Error> {
    let said: Vec<Said> = events.into_iter().map(Said::Event).collect();
    write(tx, loaded, fence, &said, None).await
}

async fn write(
    tx: &mut Tx,
    loaded: &mut Loaded,
    fence: Option<u64>,
    said: &[Said],
    decide: Option<&Decide>,
) -> Result<(), Error> {
    let before = loaded.record.clone();
    let (mut entries, mut rows) = (Vec::new(), Vec::new());
    for said in said {
        match said {
            Said::Event(stamped) => entries.push(place_event(loaded, fence, stamped)?),
            Said::Text(text) => {
                rows.extend(codec::pack(&entries)?);
                entries.clear();
                rows.push(place_text(loaded, fence, text)?);
            }
        }
    }
    let ending = decide.map(|decide| decide(&loaded.record)).unwrap_or_default();
    for event in ending.events {
        entries.push(place_event(loaded, fence, &Stamped::new(now(), event))?);
    }
    rows.extend(codec::pack(&entries)?);
    insert_rows(tx, loaded.position, loaded.scope, &rows).await?;
    crate::queue::after_append(tx, loaded, &before).await?;
    builds::update(tx, loaded, &before).await?;
    for name in &ending.names {
        put_alias(tx, name, loaded.record.submission.build.uuid()).await?;
    }
    Ok(())
}

/// Gives an event its number and time.
fn place_event(
    loaded: &mut Loaded,
    fence: Option<u64>,
    Stamped { at, event }: &Stamped,
) -> Result<Entry, Error> {
    loaded.record.admit(event, fence)?;
    let time = at.after(Some(loaded.scope_time));
    let entry = Entry { number: loaded.record.next_number, time, event: event.clone() };
    loaded.record.apply(&entry)?;
    loaded.scope_time = time;
    Ok(entry)
}

/// Gives log lines their numbers and times.
fn place_text(loaded: &mut Loaded, fence: Option<u64>, text: &PackedText) -> Result<Packed, Error> {
    loaded.record.admit_lines(fence)?;
    let first = text.at.after(Some(loaded.scope_time));
    let last = Timestamp::from_nanos(first.nanos().saturating_add(text.span));
    let (number, count) = (loaded.record.next_number, text.count);
    loaded.record.apply_lines(&LineRun { number, count, first, last })?;
    loaded.scope_time = last;
    Ok(Packed { number, count, time: first, last_time: last, body: text.body.clone() })
}

/// Writes entries as rows.
pub(crate) async fn insert(
    tx: &mut Tx,
    build: i64,
    scope: i64,
    entries: &[Entry],
) -> Result<(), Error> {
    insert_rows(tx, build, scope, &codec::pack(entries)?).await
}

/// Writes rows.
pub(crate) async fn insert_rows(
    tx: &mut Tx,
    build: i64,
    scope: i64,
    rows: &[Packed],
) -> Result<(), Error> {
    for piece in pieces(rows) {
        let sql = format!(
            "INSERT INTO entries (build, number, count, scope, time, last_time, body) VALUES {}",
            placeholders(1, piece.len(), 7)
        );
        let values = piece.iter().flat_map(|r| {
            args![build, r.number, r.count, scope, r.time, r.last_time, r.body.as_slice()]
        });
        tx.run(AssertSqlSafe(sql), values.collect()).await?;
    }
    Ok(())
}

/// Tells other processes, once the transaction commits.
pub(crate) async fn announce(tx: &mut Tx, build: BuildId) -> Result<(), Error> {
    if tx.is_postgres() {
        let sql = "SELECT pg_notify($1, $2)";
        tx.all(sql, args![follow::CHANNEL, build.to_string()]).await?;
    }
    Ok(())
}

impl Store {
    /// Appends to a build's journal and returns the row after it. All events are written, or none.
    ///
    /// # Errors
    /// [`Error::Refused`] when an event does not belong there: the build has ended, another
    /// attempt holds it, or the state machine forbids it.
    pub async fn append(
        &self,
        build: BuildId,
        writer: Writer,
        events: impl AsRef<[Stamped]> + Send + Sync,
    ) -> Result<Record, Error> {
        let said: Vec<Said> = events.as_ref().iter().cloned().map(Said::Event).collect();
        self.append_said(build, writer, &said, None).await
    }

    /// As [`Store::append`], for log text too, and for what is decided when that is written.
    pub(crate) async fn append_said(
        &self,
        build: BuildId,
        writer: Writer,
        said: &[Said],
        decide: Option<&Decide>,
    ) -> Result<Record, Error> {
        retried(|| self.append_once(build, writer, said, decide)).await
    }

    async fn append_once(
        &self,
        build: BuildId,
        writer: Writer,
        said: &[Said],
        decide: Option<&Decide>,
    ) -> Result<Record, Error> {
        let mut tx = self.db.write().await?;
        let mut loaded = builds::load(&mut tx, build).await?;
        let fence = match writer {
            Writer::Service => None,
            Writer::Worker { fence, batch } => {
                if let Some(batch) = batch.filter(|_| fence == loaded.record.fence) {
                    if batch <= loaded.batch {
                        return Ok(loaded.record);
                    }
                    loaded.batch = batch;
                }
                Some(fence)
            }
        };
        write(&mut tx, &mut loaded, fence, said, decide).await?;
        announce(&mut tx, build).await?;
        tx.commit().await?;
        self.wakeups.wake(build);
        Ok(loaded.record)
    }
}
