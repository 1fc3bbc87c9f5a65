//! Build records, journals and the queue in SQLite or PostgreSQL.
//!
//! Outline of what one-shot commands use (module `blocking`, no async):
//!
//! ```text
//! LocalHistory::open(path: &Path) -> Result<LocalHistory, Error>       // creates file and schema; Clone + Send + Sync
//!   .begin(submission: Submission) -> Result<BuildWriter, Error>      // Submitted + Claimed(attempt 1), durable on return
//!   .list(filter: &Filter, page: &Page) -> Result<Listed, Error>      // newest first; Filter::default() is everything
//!   .get(build: BuildId) -> Result<Option<Record>, Error>             // with the definition
//!   .find(prefix: &str) -> Result<Vec<BuildId>, Error>                // ids that begin so (any hyphens), newest first, at most 10
//!   .journal(build: BuildId, from: u64, limit: usize) -> Result<Vec<Entry>, Error>   // by number; empty at the end
//!   .tenant() -> TenantId, .principal() -> PrincipalId                // fixed ids of the local user
//!   .new_build_id() -> BuildId
//!
//! BuildWriter: journal::Sink + Clone + Send + Sync                    // event() stamps the time and returns at once;
//!                                                                      // flushed within 50 ms; blocks only when 8 MiB wait
//!   .build() -> BuildId
//!   .flush() -> Result<(), Error>                                      // all that was said before is durable
//!   .finish(end: State, failure: Option<Failure>) -> Result<Record, Error>   // flush + Failed + terminal State
//!   .record() -> Result<Record, Error>
//!   dropped (all clones) without finish: the build fails as interrupted
//!
//! Filter { tenant, scope, dialect, state, source, backend, executor, kind, parent: Option<..>,
//!          labels: BTreeMap<String,String>, created_from/created_until: Option<Timestamp>, text: Option<String> }
//! Page { size: u32, at: At }   At::Newest | At::Before(Cursor) | At::Number(u64 /* from 1, fills Listed.total */)
//! Listed { records: Vec<Record> /* definition: null */, next: Option<Cursor>, total: Option<u64> }
//! ```
