//! Checkouts of git repositories as contexts of builds.

use std::path::{Path, PathBuf};

use ashlar_core::failure::Failure;
use ashlar_core::graph::Op;
use ashlar_sandbox::Cancel;

use crate::Engine;
use crate::error::internal;
use crate::output::Output;

/// A checkout; its files stay as long as it lives.
pub struct Checkout {
    path: PathBuf,
    _held: Held,
}

enum Held {
    Layer(#[expect(dead_code, reason = "held for its lease only")] Output),
    Empty(#[expect(dead_code, reason = "held for its end only")] tempfile::TempDir),
}

impl Checkout {
    /// Returns the directory, which nobody may write to.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Engine {
    /// Checks out a directory of a repository, so that a definition may copy from it.
    ///
    /// # Errors
    /// When the repository cannot be reached or has no such reference or directory.
    pub fn checkout(
        &self,
        remote: &str,
        reference: &str,
        subdir: &str,
        cancel: &Cancel,
    ) -> Result<Checkout, Failure> {
        let op = Op::Git {
            remote: remote.to_owned(),
            reference: reference.to_owned(),
            checksum: None,
            subdir: subdir.to_owned(),
            keep_git_dir: false,
            submodules: true,
        };
        let output = crate::git::fetch(&self.shared, &op, cancel)?;
        // A checkout is one layer on nothing, so the layer's directory is the whole of it.
        match output.own().first() {
            Some(layer) => {
                let path = self.shared.snapshots.layer_fs(layer);
                Ok(Checkout { path, _held: Held::Layer(output) })
            }
            None => {
                let dir = tempfile::tempdir_in(self.shared.dir.scratch()).map_err(internal)?;
                Ok(Checkout { path: dir.path().to_owned(), _held: Held::Empty(dir) })
            }
        }
    }
}
