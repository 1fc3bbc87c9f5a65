//! Container images: references, registries, local images, OCI layouts and docker archives.
//!
//! All functions block the calling thread; the network runs on a small runtime that starts with
//! the first request. Nothing here unpacks or packs layers: a layer is a blob.
//!
//! Start with [`Images::resolve`], which leads from a name to a config and layers.

pub mod compose;
mod contents;
pub mod export;
mod files;
mod image;
pub mod import;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod store;
mod transfer;
mod walk;

pub use compose::{Composed, NewLayer, compose, compose_index};
pub use contents::Contents;
pub use export::{ArchiveKind, Entry, write_archive, write_layout};
pub use files::FileError;
pub use image::{LayerRef, LocalImage, Origin, ResolvedImage};
pub use import::{Imported, read_archive, read_layout};
pub use manifest::{Descriptor, Document, Index, Manifest};
pub use pull::{Images, PullError, PullPolicy};
pub use reference::{Reference, ReferenceError, Repository};
pub use registry::{
    Credential, Egress, EgressRule, Mirror, Registry, RegistryError, RegistrySettings,
};
pub use store::{ImageStore, ImageStoreError};
pub use transfer::{Progress, Transfer};
pub use walk::WalkError;
