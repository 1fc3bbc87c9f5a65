//! Build records, journals and the queue in SQLite or PostgreSQL.
//!
//! [`Store`] is the door: [`Store::open`] takes a file or a `postgres://` address. Every change of
//! a build is an entry in its journal, and the build's row is the fold of its entries, written in
//! the same transaction ([`Store::append`]). One module a resource; all SQL lies here and nowhere
//! else, one text for both databases wherever they agree. One-shot commands use [`blocking`].

mod aliases;
mod audit;
mod blob_store;
pub mod blocking;
mod blocks;
mod bounds;
mod builds;
mod cap;
mod codec;
mod db;
mod documents;
mod error;
mod facets;
mod finish;
mod follow;
mod grants;
mod journal;
mod kept;
mod leases;
mod list;
mod most;
mod needs;
mod objects;
mod pages;
mod place;
mod pressure;
mod promote;
mod queue;
mod random;
mod read;
mod readers;
mod readership;
mod recent;
mod removals;
mod removed;
mod retention;
mod seal;
mod search;
mod secrets;
mod segment;
mod segments;
mod standings;
mod store;
mod submit;
mod tail;
mod tenants;
mod tokens;
mod writer;

pub use aliases::{Namespace, NewAlias, NumberedAlias};
pub use audit::{AUDIT_MAX, AuditEntry};
pub use bounds::{Bound, Bounds, Retention, RetentionError, What};
pub use builds::{DEFINITION_BYTES_MAX, FIRST_FENCE, FOUND_MAX};
#[doc(hidden)]
pub use codec::read_any_row;
pub use db::{CONNECTIONS_DEFAULT, DatabaseError, Durability, Options};
pub use documents::{DOCUMENT_BYTES_MAX, DOCUMENTS_MAX, Document, DocumentType, NewDocument};
pub use error::Error;
pub use finish::{ALIASES_MAX, Decide, Ending};
pub use follow::{Follower, POLL};
pub use grants::{GRANTS_MAX, Grant, USED_EVERY};
pub use journal::{Stamped, Writer};
pub use kept::{Exempt, HELD_MAX, Held as HeldAs, IMAGE_RECORD};
pub use leases::{Held, LEASE};
pub use list::{At, Cursor, CursorError, Filter, Listed, Order, PAGE_SIZE_MAX, Page};
pub use most::{Most, line_bytes};
pub use objects::{MovedName, NewObject};
pub use place::records_file;
pub use queue::{AFFINITY_WAIT, Claim, Policy};
pub use random::new_build_id;
pub use read::{ScopeEntry, TimeRange};
pub use readership::{Reader, Readership};
pub use removals::{REMOVAL_MAX, REMOVAL_TIME};
pub use removed::LogRemoved;
pub use retention::{FORGET_AT_ONCE, GROUPS_MAX, Group, LetGo, Place, SPARED_FOR, Standing, Why};
pub use seal::{KEYS_MAX, KeyRing, Secret};
pub use search::{FOUND_BYTES_MAX, Found, SEARCHED_BYTES_MAX};
pub use secrets::{KEPT_PREFIX, SECRET_BYTES_MAX, Sealed};
pub use segments::{SEGMENT_BYTES_MIN, SegmentBlobs};
pub use store::Store;
pub use submit::{Idempotency, KEY_BYTES_MAX, Submit, Submitted};
pub use tenants::TENANTS_MAX;
pub use tokens::{NewToken, PREFIX, TOKENS_MAX, Token, TokenText};
pub use writer::{FLUSH, JournalWriter, WAITING_BYTES_MAX, now};
