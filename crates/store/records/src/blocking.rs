//! The local history for one-shot commands, without async.
//!
//! Several processes may share one file. A thread of its own talks to the database and is left
//! alone at the end of the process: closing SQLite would copy its write-ahead log back, which the
//! next process that has time does as well.

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{Entry, Event, LogText, OnLost, Record, Sink, Submission};
use ashlar_core::state::State;
use ashlar_core::{BuildId, PrincipalId, TenantId, WorkerId};
use tokio::runtime::{Builder, Handle};

use crate::builds::FIRST_FENCE;
use crate::db::{Durability, Options};
use crate::list::{Filter, Listed, Page};
use crate::writer::{JournalWriter, now};
use crate::{Error, SegmentBlobs, Store, random};

/// The name of the tenant that local builds belong to.
const LOCAL_TENANT: &str = "local";
/// How long the end of a process waits for the history to take what was said last.
const DROP_WAIT_MAX: Duration = Duration::from_secs(5);

type Opened = Result<(Store, Handle), Error>;

/// A history that is being opened.
#[derive(Debug)]
pub struct Opening {
    opened: mpsc::Receiver<Opened>,
}

impl Opening {
    /// Waits until the history is open.
    ///
    /// # Errors
    /// As [`LocalHistory::open`].
    pub fn wait(self) -> Result<LocalHistory, Error> {
        let (store, runtime) = self.opened.recv().map_err(|_| Error::Gone)??;
        let worker = WorkerId::from_parts(now().millis(), random::bytes()?);
        Ok(LocalHistory { store, runtime, worker })
    }
}

/// The history of builds that were made without a server.
#[derive(Clone)]
pub struct LocalHistory {
    store: Store,
    runtime: Handle,
    worker: WorkerId,
}

impl LocalHistory {
    /// Opens the history, and makes it when it is missing. Its directory must exist.
    ///
    /// # Errors
    /// When the file cannot be opened, or a newer Ashlar has written it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::start_opening(path)?.wait()
    }

    /// Says where logs are that a server has moved out of the database.
    #[must_use]
    pub fn with_segments(self, blobs: Arc<dyn SegmentBlobs>) -> Self {
        Self { store: self.store.with_segments(blobs), ..self }
    }

    /// Begins to open the history, for a caller that has something else to do in the meantime.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start_opening(path: &Path) -> Result<Opening, Error> {
        let (send, receive) = mpsc::channel();
        let place = path.to_string_lossy().into_owned();
        let thread = std::thread::Builder::new().name("history".into());
        let serve = move || serve(&place, &send);
        thread.spawn(serve)?;
        Ok(Opening { opened: receive })
    }

    /// Returns the tenant of local builds; the same everywhere.
    pub fn tenant(&self) -> TenantId {
        TenantId::from_parts(0, *b"ashlar-own")
    }

    /// Returns the principal of local builds; the same everywhere.
    pub fn principal(&self) -> PrincipalId {
        PrincipalId::from_parts(0, *b"ashlar-own")
    }

    /// Makes a new build id.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn new_build_id(&self) -> Result<BuildId, Error> {
        random::new_build_id(now())
    }

    /// Accepts a build that this process makes; it is durable on return, and in state `preparing`.
    /// When the process is lost the build fails, whatever the submission says: nobody else is there
    /// to run it again.
    ///
    /// # Errors
    /// When the build exists already, its definition is too large or the database fails.
    pub fn begin(&self, submission: Submission) -> Result<BuildWriter, Error> {
        let submission = Submission { on_lost: OnLost::Fail, ..submission };
        let (store, worker) = (self.store.clone(), self.worker);
        let (record, journal) = self.run(async move {
            let record = store.begin(&submission, worker, now()).await?;
            let journal = JournalWriter::spawn(store, submission.build, FIRST_FENCE);
            Ok((record, journal))
        })?;
        let finished = AtomicBool::new(false);
        let inner = Inner { history: self.clone(), journal, record, finished };
        Ok(BuildWriter { inner: Arc::new(inner) })
    }

    /// Lists builds. Those whose process was lost are first ended.
    ///
    /// # Errors
    /// When the page's size is out of bounds or the database fails.
    pub fn list(&self, filter: &Filter, page: &Page) -> Result<Arc<Listed>, Error> {
        let (store, filter, page) = (self.store.clone(), filter.clone(), *page);
        self.run(async move {
            store.expire(now()).await?;
            store.list(&filter, &page).await
        })
    }

    /// Returns a build.
    ///
    /// # Errors
    /// When the database fails or the record is damaged.
    pub fn get(&self, build: BuildId) -> Result<Option<Record>, Error> {
        let store = self.store.clone();
        self.run(async move {
            store.expire(now()).await?;
            store.get(build).await
        })
    }

    /// Returns the tenant of a name; that of builds made without a server is called `local`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn tenant_named(&self, name: &str) -> Result<Option<TenantId>, Error> {
        if name == LOCAL_TENANT {
            return Ok(Some(self.tenant()));
        }
        let (store, name) = (self.store.clone(), name.to_owned());
        self.run(async move { Ok(store.tenant_named(&name).await?.map(|t| t.id)) })
    }

    /// Returns the builds whose ids begin with some digits, newest first, at most ten.
    ///
    /// # Errors
    /// When the database fails.
    pub fn find(&self, prefix: &str) -> Result<Vec<BuildId>, Error> {
        let (store, prefix) = (self.store.clone(), prefix.to_owned());
        self.run(async move { store.find(&prefix).await })
    }

    /// Reads a journal from an entry's number on, at most `limit` entries; nothing at its end.
    ///
    /// # Errors
    /// When the database fails or an entry is damaged.
    pub fn journal(&self, build: BuildId, from: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        let store = self.store.clone();
        self.run(async move { store.journal(build, from, limit).await })
    }

    /// Writes an entry about a build that is not being made by this process: a wish to cancel it,
    /// a label, a new name.
    ///
    /// # Errors
    /// When the build is not there or the entry does not belong there.
    pub fn note(&self, build: BuildId, event: Event) -> Result<Record, Error> {
        let store = self.store.clone();
        let event = crate::journal::Stamped::new(now(), event);
        self.run(async move { store.append(build, crate::Writer::Service, [event]).await })
    }

    /// Forgets builds, as [`Store::forget`] does.
    ///
    /// # Errors
    /// When the database fails; what was forgotten before stays so.
    pub fn forget(&self, builds: &[BuildId]) -> Result<Vec<BuildId>, Error> {
        let (store, builds) = (self.store.clone(), builds.to_vec());
        self.run(async move { store.forget(&builds).await })
    }

    /// Returns the store, for what has no blocking form.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Runs a future on the history's thread.
    fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (send, receive) = mpsc::channel();
        self.runtime.spawn(async move { send.send(future.await) });
        receive.recv().map_err(|_| Error::Gone)?
    }
}

/// Opens the store and serves it until the process ends.
fn serve(place: &str, opened: &mpsc::Sender<Opened>) {
    let runtime = match Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let _ = opened.send(Err(source.into()));
            return;
        }
    };
    runtime.block_on(async {
        let options = Options { durability: Durability::Process, ..Options::default() };
        let store = match Store::open_with(place, options).await {
            Ok(store) => store,
            Err(error) => {
                let _ = opened.send(Err(error));
                return;
            }
        };
        let _ = opened.send(Ok((store.clone(), Handle::current())));
        // Holds a clone, so that the connections outlive the last handle.
        std::future::pending::<()>().await;
        drop(store);
    });
}

/// Takes what happens in one build. The build fails as interrupted when all clones are dropped
/// without [`BuildWriter::finish`].
#[derive(Clone)]
pub struct BuildWriter {
    inner: Arc<Inner>,
}

struct Inner {
    history: LocalHistory,
    journal: JournalWriter,
    record: Record,
    finished: AtomicBool,
}

impl BuildWriter {
    /// Returns the build's id.
    pub fn build(&self) -> BuildId {
        self.inner.journal.build()
    }

    /// Waits until all that was said before is durable.
    ///
    /// # Errors
    /// When the journal refused an entry, or the database failed.
    pub fn flush(&self) -> Result<(), Error> {
        self.record().map(drop)
    }

    /// Returns the row after all that was said before; the definition is left out.
    ///
    /// # Errors
    /// As [`BuildWriter::flush`].
    pub fn record(&self) -> Result<Record, Error> {
        let journal = self.inner.journal.clone();
        let record = self.inner.history.run(async move { journal.flush().await })?;
        Ok(record.map_or_else(|| self.inner.record.clone(), |r| (*r).clone()))
    }

    /// Ends the build: writes the failure, if there is one, and the state. Returns the row.
    ///
    /// # Errors
    /// [`Error::TakenAway`] when somebody else has ended the build, which happens when this process
    /// was not heard of for long; when `end` cannot follow; or as [`BuildWriter::flush`].
    pub fn finish(&self, end: State, failure: Option<Failure>) -> Result<Record, Error> {
        self.inner.finished.store(true, Ordering::Relaxed);
        self.inner.say_end(end, failure);
        let record = self.record();
        self.inner.journal.close();
        match record? {
            record if record.state == end => Ok(record),
            record => Err(Error::TakenAway { build: self.build(), state: record.state }),
        }
    }
}

impl Sink for BuildWriter {
    fn event(&self, event: Event) {
        self.inner.journal.event(event);
    }

    fn text(&self, text: LogText) {
        self.inner.journal.text(text);
    }
}

impl Inner {
    fn say_end(&self, end: State, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.journal.event(Event::Failed(Box::new(failure)));
        }
        self.journal.event(Event::State { to: end });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.finished.load(Ordering::Relaxed) {
            return;
        }
        let why = "the process that made the build ended before the build did";
        let failure = Failure::new(FailureKind::Interrupted, why).hint("start the build again");
        self.say_end(State::Failed, Some(failure));
        let (journal, (send, receive)) = (self.journal.clone(), mpsc::channel());
        self.history.runtime.spawn(async move {
            let flushed = journal.flush().await;
            journal.close();
            send.send(flushed.is_ok())
        });
        // Whatever comes of it, the lease ends by itself and the build with it.
        let _ = receive.recv_timeout(DROP_WAIT_MAX);
    }
}
