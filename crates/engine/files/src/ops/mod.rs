//! Carries file actions out on a tree: `COPY`, `ADD`, and what frontends make of other steps.
//!
//! The rules of copying are BuildKit's (fsutil's `copy` package), found out by asking one; where a
//! comment says what BuildKit does, dockerd 28.5 did so.

mod content;
mod copy;
mod error;
pub mod lookup;
mod mode;
mod place;
mod simple;
mod tree;
mod unpack;
mod xattrs;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ashlar_core::graph::{Copy, FileAction, Owner};
use ashlar_layers::{KnownFiles, Stop};
use copy::{Copier, Counts};
use error::Result;
use mode::ModeChange;
use tree::Tree;

pub use error::FileOpError;
pub use mode::ModeError;
pub use place::Reuse;
pub use tree::Base;

use crate::context::{Context, Selection};
use crate::root::Root;
use crate::select::{Selector, Source};

/// What actions copy from.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A context directory: owners become 0:0, extended attributes stay behind.
    Context(&'a Context),
    /// The tree of another stage or image, which nobody writes to.
    Tree(&'a Root),
}

/// How actions are carried out.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// An earlier layer of the same step: unchanged files are linked, not copied.
    pub reuse: Option<Reuse<'a>>,
    /// Ends the work early.
    pub stop: Stop,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// Files that were written.
    pub files: u64,
    /// Files that were linked from an earlier layer.
    pub linked: u64,
    /// Bytes of the files of both kinds.
    pub bytes: u64,
    /// Names of owners that the tree's accounts lack; what they should own is root's, or its user's
    /// own group's.
    pub unknown_owners: BTreeSet<String>,
}

/// Carries `actions` out in order on the tree `base`; they see each other's results. The digests of
/// all files that are written come to lie in `known`, by their paths in the tree.
///
/// # Errors
/// When a source is missing, something stands in the way, or the system refuses. The tree is then in
/// between and to be thrown away.
pub fn apply(
    actions: &[FileAction],
    base: &Base,
    inputs: &[Input<'_>],
    known: &mut KnownFiles,
    options: &Options<'_>,
) -> Result<Applied, FileOpError> {
    let counts = Counts::default();
    let unknown = BTreeSet::new();
    let mut run = Run { tree: Tree::new(base), inputs, known, options, counts: &counts, unknown };
    for action in actions {
        options.stop.check().map_err(|_| FileOpError::Stopped)?;
        run.action(action)?;
    }
    Ok(Applied {
        files: counts.files.load(Ordering::Relaxed),
        linked: counts.linked.load(Ordering::Relaxed),
        bytes: counts.bytes.load(Ordering::Relaxed),
        unknown_owners: run.unknown,
    })
}

struct Run<'a> {
    tree: Tree<'a>,
    inputs: &'a [Input<'a>],
    known: &'a mut KnownFiles,
    options: &'a Options<'a>,
    counts: &'a Counts,
    unknown: BTreeSet<String>,
}

/// Sources of a context are shared with whoever made the key of them.
enum Sources {
    Selected(Arc<Selection>),
    Found(Vec<Source>),
}

impl Sources {
    fn as_slice(&self) -> &[Source] {
        match self {
            Self::Selected(selection) => selection.sources(),
            Self::Found(sources) => sources,
        }
    }
}

impl Run<'_> {
    fn action(&mut self, action: &FileAction) -> Result<()> {
        match action {
            FileAction::Copy(copy) => self.copy(copy),
            FileAction::Mkfile { path, mode, data, owner } => {
                let owner = self.owner(owner)?;
                simple::make_file(&self.tree, path, *mode, data, owner, self.known)
            }
            FileAction::Mkdir { path, mode, parents, owner } => {
                let owner = self.owner(owner)?;
                simple::make_directory(&mut self.tree, path, *mode, *parents, owner)
            }
            FileAction::Remove { path, missing_ok } => {
                simple::remove(&mut self.tree, path, *missing_ok)
            }
            FileAction::Symlink { target, path } => simple::make_link(&self.tree, target, path),
        }
    }

    fn copy(&mut self, copy: &Copy) -> Result<()> {
        let input = self.inputs.get(copy.input);
        let input = *input.ok_or(FileOpError::Input { index: copy.input })?;
        let (from, sources) = self.sources(input, copy)?;
        let owner = copy.owner.as_ref();
        let owner = owner.map(|o| self.owner_of_copy(o, copy.strict_owner)).transpose()?;
        let copier = Copier {
            from,
            owner,
            mode: copy.mode.as_ref().map(ModeChange::new).transpose()?,
            whole_directory: copy.whole_directory,
            keep_xattrs: matches!(input, Input::Tree(_)),
            reuse: self.options.reuse.as_ref(),
            stop: &self.options.stop,
            counts: self.counts,
        };
        let destination = copy.destination.as_bytes();
        for source in sources.as_slice() {
            let done = copy.unpack
                && unpack::try_unpack(&mut self.tree, &copier, source, destination, self.known)?;
            if !done {
                copier.copy(&mut self.tree, source, destination, self.known)?;
            }
        }
        Ok(())
    }

    fn sources<'i>(&self, input: Input<'i>, copy: &Copy) -> Result<(&'i Root, Sources)> {
        Ok(match input {
            Input::Context(context) => (context.root(), Sources::Selected(context.select(copy)?)),
            Input::Tree(root) => {
                let stop = &self.options.stop;
                let selector = Selector { root, ignore: None, digester: None, owners: true, stop };
                (root, Sources::Found(selector.select(copy)?))
            }
        })
    }

    fn owner_of_copy(&mut self, owner: &Owner, strict: bool) -> Result<(u32, u32)> {
        if strict && lookup::has_names(owner) {
            self.tree.accounts()?.check(owner)?;
        }
        self.owner(owner)
    }

    fn owner(&mut self, owner: &Owner) -> Result<(u32, u32)> {
        // Without names nothing needs to be read: a tree may have no /etc at all.
        let accounts = match lookup::has_names(owner) {
            true => self.tree.accounts()?,
            false => lookup::Accounts::default(),
        };
        Ok(accounts.owner(owner, &mut self.unknown))
    }
}
