//! The use cases of the build service. Whoever speaks to clients (the native API, the web UI, the
//! dialects) calls [`Service`] and knows nothing below it but `ashlar_core`.
//!
//! # The calls, one file each
//!
//! | what | call |
//! |---|---|
//! | who is it | [`Service::authenticate`] gives an [`Actor`]; every other call takes one |
//! | start a build | [`Service::submit`] with a [`SubmitRequest`] around a [`Definition`] |
//! | stop, repeat | [`Service::cancel`], [`Service::retry`] |
//! | look | [`Service::show`], [`Service::list`], [`Service::children`] |
//! | what happened | [`Service::journal`], [`Service::follow`], [`Service::number_at`], [`Service::scope_journal`], [`Service::search_log`] |
//! | change a record | [`Service::set_labels`], [`Service::rename`], [`Service::pin`], [`Service::bookmark`], [`Service::note`], [`Service::delete`] |
//! | contexts | [`Service::missing_blobs`], [`Service::begin_blob`], [`Service::put_context`], [`Service::put_context_tar`] |
//! | results | [`Service::image`], [`Service::package`], [`Service::export`], [`Service::rootfs`], [`Service::promote`], [`Service::resolve_tag`] |
//! | builds driven from outside | [`Service::report`] on a build submitted with [`Mode::External`] |
//! | a dialect's own objects | [`Service::dialect`]: names, counters and documents ([`DialectStore`]) |
//! | tenants, tokens, secrets | [`Service::add_tenant`], [`Service::make_token`], [`Service::hold_secret`] |
//! | runs of builds | [`Service::submit`] with [`BuildKind::Workflow`] and [`Recipe::Workflow`], [`Service::run_progress`]; a dialect's own nodes [`Service::set_node_driver`] |
//! | queues | [`Service::set_scope_policy`] |
//! | retention | [`Service::set_retention`], [`Service::retention`], [`Service::expiry`], a dialect's own default [`Service::set_dialect_retention`] |
//!
//! # Rules that hold in all of them
//!
//! - A build of another tenant does not exist for an [`Actor`] below [`Role::Admin`]:
//!   [`Error::NotFound`], never [`Error::Forbidden`].
//! - What a call has accepted is durable when it returns.
//! - Errors have a kind ([`Error::kind`]), a text for the client ([`Error::public`]) and one for
//!   the operator ([`Error::internal_text`]). Nothing here knows of HTTP.
//! - Workers run inside the process ([`Service::start`]); [`Service::drain`] ends them gracefully.

mod access;
mod artifacts;
mod buildkit;
mod cancel;
mod client;
mod collect;
mod config;
mod context;
mod contexts;
mod credentials;
mod definition;
mod dialect;
mod drain;
mod edit;
mod error;
mod events;
mod executor;
mod export;
mod external;
mod grants;
mod hidden;
mod kept;
mod limits;
mod list;
mod logs;
mod maintain;
mod marks;
mod metrics;
mod needed;
mod observer;
mod own_store;
mod own_tags;
mod partial;
mod places;
mod promote;
mod push;
mod query;
mod rates;
mod recipe;
mod retention;
mod retry;
mod rootfs;
mod secrets;
mod segments;
mod service;
mod sessions;
mod share;
mod show;
mod start;
mod submit;
mod sweep;
mod tar_context;
mod tenants;
mod token_file;
mod tokens;
mod upload;
mod worker;
mod workflow;

pub use access::Actor;
pub use artifacts::Packaged;
pub use ashlar_buildkit::Address as BuildkitAddress;
pub use ashlar_core::identity::{Principal, Role, Tenant};
pub use ashlar_core::journal::{BuildKind, Mode, OnLost, Record};
pub use ashlar_records::{
    At, AuditEntry, Bound, Bounds, Cursor, Document, DocumentType, Exempt, Filter, Follower,
    Listed, LogRemoved, Most, MovedName, Namespace, NewAlias, NewDocument, NewObject,
    NumberedAlias, Order, Page, Policy, Retention, RetentionError, ScopeEntry, Secret, TimeRange,
    Token, TokenText, What, Why, line_bytes, new_build_id, now,
};
pub use client::ClientInfo;
pub use collect::Collected;
pub use config::{LOG_CAP_DEFAULT, SLOTS_DEFAULT, ServiceConfig};
pub use context::{ContextFile, ContextManifest, EntryKind};
pub use credentials::{RegistryCredential, registry_host, registry_of};
pub use definition::{Definition, Limits, NameOnSuccess, Readiness, Recipe, StartCommand};
pub use dialect::DialectStore;
pub use error::{Away, Error, ErrorKind};
pub use executor::{Executor, Finished, Work};
pub use export::{Archive, ExportWish, Exported};
pub use logs::{Found, LogLineAt};
pub use observer::{Observer, trace_parent};
pub use places::{TENANT_UPLOADS_DEFAULT, UPLOADS_DEFAULT, UploadLimits, UploadPlace};
pub use promote::{BUILDS, RepositoryTags};
pub use push::{BuildOutput, LayerCompression};
pub use query::{Query, QueryError};
pub use retention::{Due, Expiry, RetentionRound};
pub use retry::RetryRequest;
pub use segments::log_segments;
pub use service::Service;
pub use sessions::SESSION_MAX;
pub use submit::{ATTEMPTS_DEFAULT, Accepted, SubmitRequest};
pub use upload::{BlobUpload, MissingBlobs};
pub use workflow::{
    Begun, BoxFuture, NODES_MAX, Node, NodeBuild, NodeDriver, NodeState, NodeStatus, NodeWork,
    Progress, Run, When, Workflow,
};

/// What dialects need of the frontends: to read and check definitions before they submit them.
pub mod frontends {
    pub use ashlar_frontend_declarative as declarative;
    pub use ashlar_frontend_dockerfile as dockerfile;
}
