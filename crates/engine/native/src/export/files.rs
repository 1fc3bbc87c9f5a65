//! The result's files alone: into a directory, or as one tar.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::{Copy, FileAction};
use ashlar_files::Root;
use ashlar_files::ops::{self, Base, Input, Options};
use ashlar_layers::{KnownFiles, ScanOptions, TarOptions, scan, write_tar};
use ashlar_snapshots::{Mounted, Tree};

use super::{Way, export};
use crate::engine::Shared;
use crate::error::internal;
use crate::watch::Watch;

/// How much of a tar is written at once, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

impl Shared {
    pub(super) fn mounted(&self, tree: &Tree, way: Way<'_>) -> Result<Mounted, Failure> {
        self.materialise(&tree.0, Watch { sink: way.sink, stop: way.stop.flag() })?;
        self.snapshots.mount(tree, None).map_err(internal)
    }

    /// Copies all files of a tree into a directory, which is made when it is missing.
    pub(super) fn write_files(&self, tree: &Tree, dir: &Path, way: Way<'_>) -> Result<(), Failure> {
        let failed = |e: std::io::Error| {
            Failure::new(FailureKind::Export, format!("cannot write {}: {e}", dir.display()))
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let mounted = self.mounted(tree, way)?;
        let source = crate::job::root_of(&mounted)?;
        let target = Root::open(dir).map_err(failed)?;
        let everything = Copy {
            sources: vec![".".into()],
            destination: "/".into(),
            literal: true,
            ..Copy::default()
        };
        let action = [FileAction::Copy(Box::new(everything))];
        let base = Base::plain(target);
        let options = Options { stop: way.stop.clone(), ..Options::default() };
        let mut known = KnownFiles::new();
        ops::apply(&action, &base, &[Input::Tree(&source)], &mut known, &options)
            .map_err(export)?;
        Ok(())
    }

    /// Writes all files of a tree as one tar.
    pub(super) fn write_tar(
        &self,
        tree: &Tree,
        epoch: Option<i64>,
        out: &mut File,
        way: Way<'_>,
    ) -> Result<(), Failure> {
        let mounted = self.mounted(tree, way)?;
        // The mount's own descriptor names a place; listing needs one that is open for reading.
        let root = File::open(mounted.path()).map_err(internal)?;
        use std::os::fd::AsFd as _;
        let scanned = ScanOptions { stop: way.stop.clone(), ..ScanOptions::default() };
        let found = scan(root.as_fd(), &KnownFiles::new(), &scanned);
        let entries = found.map_err(export)?.entries;
        let options = TarOptions { source_date_epoch: epoch, stop: way.stop.clone() };
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
        write_tar(&entries, root.as_fd(), &mut out, &options).map_err(export)?;
        std::io::Write::flush(&mut out).map_err(export)
    }
}
