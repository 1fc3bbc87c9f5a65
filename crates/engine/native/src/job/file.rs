//! Running file operations.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::FileAction;
use ashlar_core::journal::{Level, LogLine};
use ashlar_files::Root;
use ashlar_files::ops::{self, Base, FileOpError, Input, Options, Reuse};
use ashlar_layers::{Entries, KnownFiles, Stop};
use ashlar_sandbox::Cancel;
use ashlar_snapshots::{Lease, Tree};
use ashlar_solver::Job;

use super::{BuildJob, base_tree};
use crate::cache::LayerRecord;
use crate::cancel::while_waiting;
use crate::error::{failure_of, internal};
use crate::output::{NodeOutput, Output};

impl BuildJob {
    pub(super) fn run_file(
        &self,
        job: &Job<Output>,
        actions: &[FileAction],
        cancel: &Cancel,
    ) -> Result<Output, Failure> {
        let base = base_tree(&job.inputs)?;
        let snapshots = &self.engine.snapshots;
        for input in &job.inputs {
            if let Some(tree) = input.as_tree() {
                self.materialise(tree)?;
            }
        }
        let _lease = snapshots.hold(base).map_err(internal)?;
        let draft = snapshots.begin(base).map_err(internal)?;
        let mounted = snapshots.mount(base, Some(&draft)).map_err(internal)?;
        let mut sources = Vec::new();
        for input in &job.inputs {
            sources.push(match &**input {
                NodeOutput::Tree { tree, .. } => {
                    Source::Tree(snapshots.mount(tree, None).map_err(internal)?)
                }
                NodeOutput::Context(name) => Source::Context(self.context(name)?),
            });
        }
        let roots = sources.iter().map(Source::root).collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<Input<'_>> = sources
            .iter()
            .zip(&roots)
            .filter_map(|(s, r)| match (s, r) {
                (Source::Context(context), _) => Some(Input::Context(context)),
                (Source::Tree(_), Some(root)) => Some(Input::Tree(root)),
                (Source::Tree(_), None) => None,
            })
            .collect();
        let earlier = self.earlier_layer(job)?;
        let reuse = earlier.as_ref().map(EarlierLayer::reuse).transpose()?;
        let upper = Root::open(draft.upper()).map_err(internal)?;
        let target = Base::overlay(root_of(&mounted)?, upper);
        let mut known = KnownFiles::default();
        let stop = Stop::default();
        let options = Options { reuse, stop: stop.clone() };
        let apply = || ops::apply(actions, &target, &inputs, &mut known, &options);
        let done =
            while_waiting(cancel, move || stop.stop(), apply).map_err(|e| file_failure(&e))?;
        self.warn_of_unknown(job, &done.unknown_owners);
        drop((target, mounted));
        self.commit(&job.inputs, draft, &known)
    }

    fn warn_of_unknown(&self, job: &Job<Output>, owners: &BTreeSet<String>) {
        let lines: Vec<_> = owners.iter().map(|name| unknown_owner(name)).collect();
        self.tell_log(job.node, &lines);
    }

    /// Finds the layer that this step made the last time: most of its files will be the same, and
    /// a link costs less than a copy.
    fn earlier_layer(&self, job: &Job<Output>) -> Result<Option<EarlierLayer>, Failure> {
        let node = self.node(job.node);
        let record = self.record(job)?;
        let identity = self.identity(node, &record);
        let (cache, snapshots) = (&self.engine.cache, &self.engine.snapshots);
        for key in cache.earlier_keys(&identity).map_err(internal)? {
            let Some(LayerRecord { layers, .. }) = cache.layer(&key).map_err(internal)? else {
                continue;
            };
            let [layer] = layers.as_slice() else { continue };
            let Ok(lease) = snapshots.hold(&Tree(vec![*layer])) else { continue };
            let entries = snapshots.entries(layer).map_err(internal)?;
            return Ok(Some(EarlierLayer {
                fs: snapshots.layer_fs(layer),
                entries,
                _lease: lease,
            }));
        }
        Ok(None)
    }
}

/// A layer that an earlier build made with the same step.
struct EarlierLayer {
    fs: PathBuf,
    entries: Arc<Entries>,
    _lease: Lease,
}

impl EarlierLayer {
    fn reuse(&self) -> Result<Reuse<'_>, Failure> {
        let layer = Root::open(&self.fs).map_err(internal)?;
        Ok(Reuse { layer, entries: &self.entries })
    }
}

fn unknown_owner(name: &str) -> LogLine {
    let text = format!(
        "the tree's /etc/passwd and /etc/group have no '{name}', so root takes its place: add it in \
         an earlier step, or use its number"
    );
    LogLine::service(Level::Warn, text)
}

/// What the definition or the context is to blame for is the step's failure, all else ours.
fn file_failure(error: &FileOpError) -> Failure {
    let kind = if error.is_input() { FailureKind::Step } else { FailureKind::Internal };
    failure_of(kind, error)
}

enum Source<'a> {
    Tree(ashlar_snapshots::Mounted),
    Context(&'a ashlar_files::Context),
}

impl Source<'_> {
    fn root(&self) -> Result<Option<Root>, Failure> {
        match self {
            Self::Tree(mounted) => root_of(mounted).map(Some),
            Self::Context(_) => Ok(None),
        }
    }
}

/// Returns a mounted tree as a root for file operations.
pub(crate) fn root_of(mounted: &ashlar_snapshots::Mounted) -> Result<Root, Failure> {
    let fd = mounted.fd().try_clone_to_owned().map_err(internal)?;
    Ok(Root::from_fd(fd, mounted.path()))
}
