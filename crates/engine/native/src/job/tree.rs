//! Trees of files: bringing layers here, looking into them, committing new ones.

use std::collections::BTreeMap;
use std::io::Read;

use ashlar_core::Digest;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::{Exec, ReturnFile};
use ashlar_files::ops::lookup::Ids;
use ashlar_layers::KnownFiles;
use ashlar_snapshots::{Draft, Tree};

use super::BuildJob;
use crate::error::{internal, source, step};
use crate::output::{NodeOutput, Output};

impl BuildJob {
    /// Brings all layers of a tree into the snapshot store.
    pub(crate) fn materialise(&self, tree: &Tree) -> Result<(), Failure> {
        self.engine.materialise(&tree.0, self.watch())
    }

    /// Commits what was written and returns the base tree with it. A draft in which nothing
    /// changed adds no layer.
    pub(super) fn commit(
        &self,
        inputs: &[Output],
        draft: Draft,
        known: &KnownFiles,
    ) -> Result<Output, Failure> {
        let commit = draft.commit(known).map_err(internal)?;
        self.extended(inputs, vec![commit.id], Some(commit.lease))
    }

    /// Looks a user up in the tree's own accounts.
    pub(super) fn user(&self, tree: &Tree, text: &str) -> Result<Ids, Failure> {
        crate::user::look_up(&self.engine.snapshots, tree, text)
    }

    /// Reads the files that an exec hands back as data.
    pub(super) fn take_returns(
        &self,
        exec: &Exec,
        base: &Tree,
        draft: &Draft,
    ) -> Result<(), Failure> {
        if exec.returns.is_empty() {
            return Ok(());
        }
        // The sandbox's own mount of the draft left a work directory that no second mount may use.
        draft.reset_work().map_err(internal)?;
        let mounted = self.engine.snapshots.mount(base, Some(draft)).map_err(internal)?;
        let mut files = BTreeMap::new();
        for file in &exec.returns {
            if let Some(bytes) = read_return(&mounted, file)? {
                files.insert(file.name.clone(), bytes);
            }
        }
        let mut returned = self.returned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        returned.extend(files);
        Ok(())
    }
}

fn read_return(
    root: &ashlar_snapshots::Mounted,
    file: &ReturnFile,
) -> Result<Option<Vec<u8>>, Failure> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    let path = file.path.trim_start_matches('/');
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(root.fd(), path, flags, Mode::empty(), inside) {
        Ok(opened) => std::fs::File::from(opened),
        Err(rustix::io::Errno::NOENT) if !file.required => return Ok(None),
        Err(e) => {
            let text = format!("the step did not leave the file '{}': {e}", file.path);
            return Err(Failure::new(FailureKind::Step, text));
        }
    };
    let mut bytes = Vec::new();
    opened.take(file.bytes_max + 1).read_to_end(&mut bytes).map_err(step)?;
    if bytes.len() as u64 > file.bytes_max {
        let text = format!("the file '{}' is longer than {} bytes", file.path, file.bytes_max);
        return Err(Failure::new(FailureKind::Step, text));
    }
    Ok(Some(bytes))
}

/// Layers of images that were resolved, by the id under which trees name them.
#[derive(Default)]
pub(crate) struct ImageLayers(
    pub(crate) BTreeMap<Digest, (std::sync::Arc<ashlar_oci::ResolvedImage>, usize)>,
);

impl ImageLayers {
    /// Learns the layers of an image and returns them as a tree.
    pub(crate) fn learn(
        &mut self,
        image: &std::sync::Arc<ashlar_oci::ResolvedImage>,
    ) -> Result<Tree, Failure> {
        let mut tree = Vec::new();
        for (i, layer) in image.layers.iter().enumerate() {
            let id = layer.tree.or(layer.diff_id).ok_or_else(|| {
                let text = format!("layer {} of '{}' has no diff id", i + 1, image.reference);
                source(std::io::Error::other(text))
            })?;
            // A place at a registry that all may ask is worth more than one in the store alone.
            let keep = image.repository.is_none()
                && self.0.get(&id).is_some_and(|(known, _)| known.repository.is_some());
            if !keep {
                self.0.insert(id, (image.clone(), i));
            }
            tree.push(id);
        }
        Ok(Tree(tree))
    }
}

/// Makes the output of an image's tree.
pub(crate) fn image_output(tree: Tree) -> Output {
    let own = tree.0.clone();
    NodeOutput::tree(tree, own, None)
}
