//! Writes the journal of a build that this process works on.
//!
//! Whoever works says what happens from many threads and goes on at once; a task packs it in
//! batches, and another one writes those. What was said last is durable at most [`FLUSH`] (and two
//! batches' time) later. A bound on what waits keeps memory flat: a build that says more than the
//! database takes is slowed down.

mod pack;
mod task;

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ashlar_core::journal::{Event, LogText, Record, Sink};
use ashlar_core::{BuildId, Timestamp};
use tokio::sync::{Notify, mpsc, watch};

use crate::cap::Cap;
use crate::codec::text::TextRow;
use crate::finish::Decide;
use crate::journal::Stamped;
use crate::pressure::Pressure;
use crate::{Error, Store};
use pack::{Packer, Waiting};
use task::Task;

/// How long an event waits for others to be written with.
pub const FLUSH: Duration = Duration::from_millis(50);
/// What may wait to be packed, in bytes; whoever says more waits. As much may be each in the hands of
/// the packer, on its way, and in those of the database.
pub const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// From so many bytes on that are not written readers give way to the writer.
const BEHIND_BYTES: usize = WAITING_BYTES_MAX;
/// What an entry costs besides its text.
const EVENT_BYTES: usize = 128;
/// Returns the time now.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Takes what happens in a build and writes it into its journal. Cheap to clone.
#[derive(Clone)]
pub struct JournalWriter {
    shared: Arc<Shared>,
    _last: Arc<Closer>,
}

/// Ends the task when the last clone of the writer is gone.
struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Shared {
    build: BuildId,
    buffer: Mutex<Buffer>,
    /// Signalled when there is room again.
    room: Condvar,
    /// Signalled when there is something to do.
    work: Notify,
    progress: watch::Sender<Progress>,
    /// Bounds what steps say.
    cap: Option<Mutex<Cap>>,
    /// Where readers see whether this writer is behind.
    pressure: Arc<Pressure>,
}

#[derive(Default)]
struct Buffer {
    waiting: Vec<Waiting>,
    /// What waits, in bytes.
    bytes: usize,
    /// What was taken and is not written, in bytes.
    underway: usize,
    /// Events said so far.
    said: u64,
    /// Events that were taken to be packed.
    taken: u64,
    /// Write up to this event at once.
    hurry: u64,
    /// What is written behind all events, which is the last.
    decide: Option<Arc<Decide>>,
    closed: bool,
    /// Whether so much waits that readers should give way.
    behind: bool,
}

impl Buffer {
    /// Returns what was said and is not written, in bytes.
    const fn unwritten(&self) -> usize {
        self.bytes + self.underway
    }
}

/// How far the task is.
#[derive(Clone, Default)]
struct Progress {
    /// Events written.
    written: u64,
    /// The row after them.
    record: Option<Arc<Record>>,
    /// Why nothing is written any more.
    error: Option<Arc<str>>,
    /// The build may be another worker's: nothing that is said counts any more.
    cut_off: bool,
    cancelled: bool,
}

impl JournalWriter {
    /// Starts a writer for the attempt that holds a build. It also says that the worker is alive
    /// until the build has ended or all clones are gone. When the database cannot be told so for the
    /// length of a lease, the build may be somebody else's: the writer gives up then, and
    /// [`JournalWriter::cancelled`] returns. Needs a Tokio runtime.
    pub fn spawn(store: Store, build: BuildId, fence: u64) -> Self {
        Self::spawn_capped(store, build, fence, None)
    }

    /// As [`JournalWriter::spawn`]; of what steps say at most so many bytes are kept, the first and
    /// the last ones, and the log says what is missing.
    pub fn spawn_capped(store: Store, build: BuildId, fence: u64, cap: Option<u64>) -> Self {
        let shared = Arc::new(Shared {
            build,
            buffer: Mutex::default(),
            room: Condvar::new(),
            work: Notify::new(),
            progress: watch::Sender::new(Progress::default()),
            cap: cap.map(|bytes| Mutex::new(Cap::new(bytes))),
            pressure: Arc::clone(&store.pressure),
        });
        let (send, receive) = mpsc::channel(1);
        tokio::spawn(Packer::new(Arc::clone(&shared)).run(send));
        tokio::spawn(Task::new(Arc::clone(&shared), store, fence).run(receive));
        let last = Arc::new(Closer(Arc::clone(&shared)));
        Self { shared, _last: last }
    }

    /// Returns the build's id.
    pub fn build(&self) -> BuildId {
        self.shared.build
    }

    /// Waits until all that was said before is durable, and returns the row then.
    ///
    /// # Errors
    /// When the journal refuses the entries (the build was taken away or has ended) or the
    /// database has failed for too long.
    pub async fn flush(&self) -> Result<Option<Arc<Record>>, Error> {
        let said = {
            let mut buffer = self.shared.lock();
            buffer.hurry = buffer.said;
            buffer.said
        };
        self.reached(said).await
    }

    /// Writes all that was said before, and what is then decided to end the attempt with, in one
    /// transaction: who follows a name finds a build that has ended, and no ended build lacks its
    /// names. Returns the row after it. Nothing may be said from then on.
    ///
    /// # Errors
    /// As [`JournalWriter::flush`].
    pub async fn finish(&self, decide: Arc<Decide>) -> Result<Arc<Record>, Error> {
        self.end_log();
        let said = {
            let mut buffer = self.shared.lock();
            if buffer.closed {
                drop(buffer);
                return Err(self.given_up());
            }
            buffer.decide = Some(decide);
            buffer.said += 1;
            buffer.hurry = buffer.said;
            buffer.said
        };
        self.reached(said).await?.ok_or_else(|| self.given_up())
    }

    /// Returns why nothing is written any more.
    fn given_up(&self) -> Error {
        let why = self.shared.progress.borrow().error.clone();
        let why = why.as_deref().unwrap_or("it was closed").to_owned();
        Error::Writer { build: self.shared.build, why }
    }

    /// Waits until so many events are written.
    async fn reached(&self, said: u64) -> Result<Option<Arc<Record>>, Error> {
        self.shared.work.notify_one();
        let mut progress = self.shared.progress.subscribe();
        let reached = progress.wait_for(|p| p.written >= said || p.error.is_some()).await;
        let progress = reached.map_err(|_| Error::Gone)?.clone();
        match progress.error {
            Some(why) if progress.cut_off || progress.written < said => {
                Err(Error::Writer { build: self.shared.build, why: why.to_string() })
            }
            _ => Ok(progress.record),
        }
    }

    /// Says the end of a log that is longer than it may be. To be called when no step says anything
    /// any more; states that end a build do so too.
    pub fn end_log(&self) {
        let tail = self.shared.cap().map(|mut cap| cap.end()).unwrap_or_default();
        tail.into_iter().for_each(|(at, text)| self.shared.say_text(at, text));
    }

    /// Waits until the build should be stopped: somebody wants it, or it is no longer ours.
    pub async fn cancelled(&self) {
        let mut progress = self.shared.progress.subscribe();
        // The sender lives as long as `self`.
        let _ = progress.wait_for(|p| p.cancelled || p.error.is_some()).await;
    }

    /// Ends the writer once all that was said is written.
    pub(crate) fn close(&self) {
        self.shared.close();
    }
}

impl Sink for JournalWriter {
    fn event(&self, event: Event) {
        let at = now();
        match &event {
            Event::Log(line) if line.step.is_some() => {
                let kept = self.shared.cap().and_then(|mut cap| cap.admit_line(at, line));
                if let Some(kept) = kept {
                    kept.into_iter().for_each(|text| self.shared.say_text(at, text));
                    return;
                }
            }
            Event::Failed(_) => self.end_log(),
            Event::State { to } if to.is_terminal() => self.end_log(),
            _ => {}
        }
        let bytes = EVENT_BYTES + weight(&event);
        self.shared.say(bytes, |waiting| waiting.push(Waiting::Event(Stamped { at, event })));
    }

    fn text(&self, text: LogText) {
        if text.bytes.is_empty() {
            return;
        }
        let at = now();
        let kept = match self.shared.cap().filter(|_| text.step.is_some()) {
            Some(mut cap) => cap.admit(at, text),
            None => vec![text],
        };
        kept.into_iter().for_each(|text| self.shared.say_text(at, text));
    }
}

fn weight(event: &Event) -> usize {
    match event {
        Event::Log(line) => line.text.len() + line.raw.as_ref().map_or(0, Vec::len),
        _ => 0,
    }
}

impl Shared {
    fn cap(&self) -> Option<MutexGuard<'_, Cap>> {
        self.cap.as_ref().map(|cap| cap.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn say_text(&self, at: Timestamp, text: LogText) {
        self.say(EVENT_BYTES + text.bytes.len(), |waiting| match waiting.last_mut() {
            Some(Waiting::Text(row)) if row.has_room_for(&text) => row.push(at, &text),
            _ => waiting.push(Waiting::Text(TextRow::new(at, &text))),
        });
    }

    /// Adds to what waits, once there is room.
    fn say(&self, bytes: usize, add: impl FnOnce(&mut Vec<Waiting>)) {
        let mut buffer = self.lock();
        while buffer.bytes >= WAITING_BYTES_MAX && !buffer.closed {
            self.work.notify_one();
            buffer = self.room.wait(buffer).unwrap_or_else(PoisonError::into_inner);
        }
        if buffer.closed {
            return;
        }
        let first = buffer.waiting.is_empty();
        add(&mut buffer.waiting);
        buffer.bytes += bytes;
        if buffer.unwritten() >= BEHIND_BYTES && !mem::replace(&mut buffer.behind, true) {
            self.pressure.raise();
        }
        buffer.said += 1;
        let wake = first || buffer.bytes >= pack::BATCH_BYTES;
        drop(buffer);
        if wake {
            self.work.notify_one();
        }
    }

    /// Takes off what was written, in bytes.
    fn written(&self, bytes: usize) {
        self.lock().underway -= bytes;
        self.relieve();
    }

    /// Lets readers go on unless much is not written yet.
    fn relieve(&self) {
        let mut buffer = self.lock();
        if (buffer.unwritten() < BEHIND_BYTES || buffer.closed) && mem::take(&mut buffer.behind) {
            self.pressure.lower();
        }
    }

    /// Takes nothing more; what waits is dropped, and whoever waits for it is told why.
    fn give_up(&self, why: &str) {
        let mut buffer = self.lock();
        buffer.closed = true;
        buffer.waiting.clear();
        drop(buffer);
        self.relieve();
        self.progress.send_modify(|p| p.error = Some(why.into()));
        self.work.notify_one();
        self.room.notify_all();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        // A panic while the lock is held leaves the buffer whole: nothing in between can fail.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
        self.relieve();
    }
}
