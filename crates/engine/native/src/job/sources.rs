//! What images, contexts, repositories and addresses stand for.

use std::path::Path;
use std::sync::Arc;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::{Node, Op};
use ashlar_files::Context;
use ashlar_sandbox::Cancel;
use ashlar_snapshots::Tree;

use super::BuildJob;
use super::tree::image_output;
use crate::output::{NodeOutput, Output};

/// A context as one definition sees it: its name, and what is excluded from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContextKey {
    pub(crate) name: String,
    pub(crate) exclude: Vec<String>,
}

impl ContextKey {
    /// Returns a short word for the key, by which outputs name their context.
    pub(crate) fn word(&self) -> String {
        let mut hasher = ashlar_core::Hasher::new();
        hasher.field(&self.name);
        self.exclude.iter().for_each(|e| {
            hasher.field(e);
        });
        format!("{}@{}", self.name, hasher.finish().short())
    }
}

impl BuildJob {
    pub(super) fn resolve_source(&self, node: &Node, cancel: &Cancel) -> Result<Output, Failure> {
        match &node.op {
            Op::Scratch => Ok(NodeOutput::tree(Tree::scratch(), Vec::new(), None)),
            Op::Image { reference, manifest, platform } => {
                let watch = self.watch();
                let view = &self.view;
                let tree = self.engine.image_tree(view, reference, *manifest, platform, watch)?;
                Ok(image_output(tree))
            }
            Op::Context { name, exclude } => {
                let key = ContextKey { name: name.clone(), exclude: exclude.clone() };
                Ok(Arc::new(NodeOutput::Context(key.word())))
            }
            Op::Git { .. } => crate::git::fetch(&self.engine, &node.op, cancel),
            Op::Http { .. } => crate::http::fetch(&self.engine, &node.op, cancel),
            Op::Exec(_) | Op::File { .. } | Op::Merge => {
                Err(Failure::new(FailureKind::Internal, "an operation was taken for a source"))
            }
        }
    }

    pub(super) fn context(&self, word: &str) -> Result<&Arc<Context>, Failure> {
        let found = self.contexts.iter().find(|(key, _)| key.word() == word);
        found.map(|(_, context)| context).ok_or_else(|| {
            Failure::new(FailureKind::Definition, format!("there is no context '{word}'"))
        })
    }
}

/// Says what a directory lacks to be a context.
pub(crate) fn check_context(name: &str, dir: &Path) -> Result<(), Failure> {
    let what = if dir.is_dir() {
        return Ok(());
    } else if dir.exists() {
        "is not a directory"
    } else {
        "does not exist"
    };
    let text = format!("the context '{name}' at {} {what}", dir.display());
    Err(Failure::new(FailureKind::Source, text))
}
