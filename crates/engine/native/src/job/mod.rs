//! One build at work: what the scheduler's threads call.
//!
//! [`keys`] says what can influence a step, [`exec`] and [`file`] run steps, [`sources`] finds
//! out what images, contexts, repositories and addresses stand for, [`events`] turns the
//! scheduler's reports into journal entries.

mod events;
mod exec;
mod file;
mod keys;
mod mounts;
mod probe;
mod session;
mod sources;
mod ssh;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ashlar_core::Digest;
use ashlar_core::cache::{KeyRecord, MissReason};
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::Plan;
use ashlar_core::graph::{Node, NodeId, Op};
use ashlar_files::Context;
use ashlar_oci::Images;
use ashlar_sandbox::Cancel;
use ashlar_snapshots::{SnapshotError, Tree};
use ashlar_solver::{Job, Report, VertexId};

use crate::cache::{LayerRecord, StepIdentity};
use crate::engine::Shared;
use crate::error::internal;
use crate::log::Masker;
use crate::output::{NodeOutput, Output};
use crate::request::BuildRequest;
use crate::scheduler::{Found, Worker};
use crate::watch::Watch;

pub(crate) use exec::{process, sandbox_failure};
pub(crate) use file::root_of;
pub(crate) use keys::bind_copy;
pub(crate) use sources::{ContextKey, check_context};
pub(crate) use tree::ImageLayers;

/// All that the jobs of one build need.
pub(crate) struct BuildJob {
    pub(crate) engine: Arc<Shared>,
    pub(crate) request: BuildRequest,
    pub(crate) plan: Plan,
    /// Images as the build's tenant sees them.
    pub(crate) view: Images,
    /// Contexts by name and what they exclude.
    pub(crate) contexts: BTreeMap<ContextKey, Arc<Context>>,
    pub(crate) masker: Masker,
    pub(crate) outputs: Mutex<HashMap<NodeId, Output>>,
    pub(crate) notes: Mutex<HashMap<VertexId, Note>>,
    pub(crate) returned: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Ends transfers when the build is cancelled.
    pub(crate) stop: Arc<AtomicBool>,
}

/// What is known of a vertex besides its output.
#[derive(Debug, Clone, Default)]
pub(crate) struct Note {
    pub(crate) record: Option<KeyRecord>,
    pub(crate) reason: Option<MissReason>,
    pub(crate) peak_memory: Option<u64>,
    pub(crate) cpu_nanos: Option<u64>,
}

impl BuildJob {
    pub(crate) fn watch(&self) -> Watch<'_> {
        Watch { sink: &*self.request.sink, stop: &self.stop }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.plan.graph.node(id)
    }

    pub(crate) fn notes(&self) -> MutexGuard<'_, HashMap<VertexId, Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn returned(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn outputs(&self) -> MutexGuard<'_, HashMap<NodeId, Output>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the step of a node stands among the steps of its definition.
    fn identity(&self, node: &Node, record: &KeyRecord) -> StepIdentity {
        let place = place_of(&node.meta.name);
        let request = &self.request;
        StepIdentity::new(&request.tenant, &request.scope, &request.name, place, record)
    }

    fn record(&self, job: &Job<Output>) -> Result<KeyRecord, Failure> {
        if let Some(record) = self.notes().get(&job.vertex).and_then(|n| n.record.clone()) {
            return Ok(record);
        }
        let record = self.key_record(self.node(job.node), &job.inputs)?;
        self.notes().entry(job.vertex).or_default().record = Some(record.clone());
        Ok(record)
    }

    /// Returns the result for a key, if all its layers are still there.
    fn earlier(&self, key: &Digest, inputs: &[Output]) -> Result<Option<Output>, Failure> {
        let engine = &self.engine;
        let Some(found) = engine.cache.layer(key).map_err(internal)? else { return Ok(None) };
        // Held before it is looked at, so that nothing is collected in between.
        let lease = match engine.snapshots.hold(&Tree(found.layers.clone())) {
            Ok(lease) => lease,
            Err(SnapshotError::Missing(_)) => return Ok(None),
            Err(e) => return Err(internal(e)),
        };
        self.returned().extend(found.returned);
        Ok(Some(self.extended(inputs, found.layers, Some(lease))?))
    }

    /// Returns the tree of the first input with further layers on it.
    fn extended(
        &self,
        inputs: &[Output],
        layers: Vec<Digest>,
        lease: Option<ashlar_snapshots::Lease>,
    ) -> Result<Output, Failure> {
        let mut tree = base_tree(inputs)?.clone();
        tree.0.extend(&layers);
        Ok(NodeOutput::tree(tree, layers, lease))
    }

    /// Keeps a result, so that later look-ups find it.
    fn keep(&self, job: &Job<Output>, output: &Output, began: Instant) -> Result<(), Failure> {
        let node = self.node(job.node);
        if matches!(&node.op, Op::Exec(exec) if exec.effect) {
            return Ok(());
        }
        let record = self.record(job)?;
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let made = crate::clock::now();
        let mut returned = BTreeMap::new();
        if let Op::Exec(exec) = &node.op {
            let all = self.returned();
            let own = exec
                .returns
                .iter()
                .filter_map(|r| Some((r.name.clone(), all.get(&r.name)?.clone())));
            returned.extend(own);
        }
        let result = LayerRecord { layers: output.own().to_vec(), returned, nanos, made };
        let cache = &self.engine.cache;
        cache.put_layer(&record.key(), &result).map_err(internal)?;
        cache.remember(&self.identity(node, &record), &record).map_err(internal)
    }
}

/// Names of steps hold their number among the stage's steps, which moves when a step is added
/// before them; the place of a step is its name without the total.
fn place_of(name: &str) -> &str {
    name.split_once(']').map_or(name, |(head, _)| head.split_once('/').map_or(head, |(h, _)| h))
}

pub(crate) fn base_tree(inputs: &[Output]) -> Result<&Tree, Failure> {
    inputs.first().and_then(|o| o.as_tree()).ok_or_else(|| {
        Failure::new(FailureKind::Internal, "an operation has no file tree to work on")
    })
}

/// Returns the merge of trees: the first one, with the own layers of all others on it.
fn merged(inputs: &[Output]) -> Result<Output, Failure> {
    let mut tree = base_tree(inputs)?.clone();
    let mut own = Vec::new();
    for input in &inputs[1..] {
        own.extend_from_slice(input.own());
    }
    tree.0.extend(&own);
    Ok(NodeOutput::tree(tree, own, None))
}

impl Worker for BuildJob {
    fn resolve(&self, job: &Job<Output>, cancel: &Cancel) -> Result<Output, Failure> {
        let node = self.node(job.node);
        self.resolve_source(node, cancel).map_err(|failure| self.place_failure(node, failure))
    }

    fn look_up(&self, job: &Job<Output>) -> Result<Found, Failure> {
        let node = self.node(job.node);
        if matches!(node.op, Op::Merge) {
            return Ok(Found::Hit(merged(&job.inputs)?));
        }
        let record = self.record(job)?;
        let key = record.key();
        if let Some(output) = self.earlier(&key, &job.inputs)? {
            return Ok(Found::Hit(output));
        }
        let identity = self.identity(node, &record);
        let reason = self.engine.cache.why_missed(&identity, &record).map_err(internal)?;
        self.notes().entry(job.vertex).or_default().reason = Some(reason);
        Ok(Found::Miss(key))
    }

    fn run(&self, job: &Job<Output>, cancel: &Cancel) -> Result<Output, Failure> {
        let began = Instant::now();
        let node = self.node(job.node);
        let output = match &node.op {
            Op::Exec(exec) => self.run_exec(job, exec, cancel),
            Op::File { actions } => self.run_file(job, actions, cancel),
            Op::Merge => merged(&job.inputs),
            Op::Scratch
            | Op::Image { .. }
            | Op::Context { .. }
            | Op::Git { .. }
            | Op::Http { .. } => self.resolve_source(node, cancel),
        }
        .map_err(|failure| self.place_failure(node, failure))?;
        self.keep(job, &output, began)?;
        Ok(output)
    }

    fn report(&self, node: NodeId, vertex: VertexId, report: &Report<Output, Failure>) {
        self.tell(node, vertex, report);
    }

    fn log(&self, node: NodeId, text: &ashlar_core::journal::LogText) {
        self.tell_text(node, text);
    }
}

impl BuildJob {
    /// Adds to a failure which step it was and where that stands.
    fn place_failure(&self, node: &Node, mut failure: Failure) -> Failure {
        failure.step = failure.step.or(node.meta.step);
        failure.location = failure.location.or_else(|| node.meta.location.clone());
        failure.command.get_or_insert_with(|| node.meta.name.clone());
        failure
    }
}
