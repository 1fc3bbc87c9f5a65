//! The native API of an Ashlar server as typed calls: what the command line speaks to `--server`.
//!
//! All functions block; the network runs on threads of the [`Client`]'s own. Long calls take a
//! [`Stop`], which they look at often. Start with [`Client::new`].
//!
//! What happens to a build is read with [`Client::follow`]: after any break it goes on from the
//! number of the last entry that was seen, so nothing is lost and nothing comes twice.

mod builds;
mod bundle;
mod client;
mod download;
mod error;
mod follow;
mod identity;
mod model;
mod sse;
mod submission;
mod tls;
mod upload;

pub use builds::{ListQuery, RetryAsk};
pub use client::{Client, Settings, Stop};
pub use download::{ArchiveForm, ArchiveWish};
pub use error::{Error, Problem};
pub use follow::{End, Followed};
pub use identity::{NewToken, Principal, Tenant, Token, Whoami};
pub use model::{Artifact, Build, Due, Expiry, Listing, Page};
pub use submission::{
    ContextEntry, ContextEntryKind, NamedContext, RegistryAccess, RegistryOutput, SecretValue,
    Submission,
};
pub use upload::{Upload, UploadReport};
