//! Which tenant may read which blob. Blobs are shared by content, so to know a digest must not be
//! enough: a tenant has what it uploaded itself and what its own builds made.
//!
//! A grant is an empty file; losing one in a power cut costs an upload, never a secret.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use ashlar_core::{Digest, TenantId};

use crate::Error;

/// The grants of a data directory.
#[derive(Debug, Clone)]
pub(crate) struct Grants {
    root: PathBuf,
}

impl Grants {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn path(&self, tenant: TenantId, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join(tenant.to_string()).join(&hex[..2]).join(hex)
    }

    pub(crate) fn has(&self, tenant: TenantId, digest: &Digest) -> bool {
        self.path(tenant, digest).exists()
    }

    pub(crate) fn add(&self, tenant: TenantId, digest: &Digest) -> Result<(), Error> {
        let path = self.path(tenant, digest);
        match File::create(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let dir = path.parent().unwrap_or(&self.root);
                fs::create_dir_all(dir).and_then(|()| File::create(&path)).map_err(Error::internal)
            }
            other => other.map_err(Error::internal),
        }
        .map(drop)
    }
}
