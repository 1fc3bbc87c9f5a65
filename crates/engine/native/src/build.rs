//! One build from its definition to its tree.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ashlar_core::cache::CacheStatus;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::{Diagnostic, Plan};
use ashlar_core::graph::{NodeId, Op};
use ashlar_core::image::ImageConfig;
use ashlar_core::journal::{Event, Level, LogLine, StepOutcome};
use ashlar_core::state::State;
use ashlar_core::{Digest, Hasher};
use ashlar_oci::{Images, LayerRef};
use ashlar_sandbox::Cancel;
use ashlar_snapshots::Tree;
use ashlar_solver::{Outcome, ShareGroup};

use crate::Engine;
use crate::cache::FinalRecord;
use crate::cancel::while_waiting;
use crate::engine::Shared;
use crate::error::internal;
use crate::final_key::FinalKey;
use crate::job::BuildJob;
use crate::log::Masker;
use crate::prepare;
use crate::request::{BuildRequest, Built};
use crate::watch::Watch;

impl Engine {
    /// Builds one definition. Events go to the request's sink; the caller ends the journal.
    ///
    /// # Errors
    /// With the reason, when the build fails; when `cancel` was called, the failure says so and the
    /// caller looks at the token.
    pub fn build(&self, request: BuildRequest, cancel: &Cancel) -> Result<Built, Failure> {
        let stop = Arc::new(AtomicBool::new(cancel.is_cancelled()));
        let flag = Arc::clone(&stop);
        let stopped = move || flag.store(true, Ordering::Relaxed);
        while_waiting(cancel, stopped, || self.build_watched(request, cancel, &stop))
    }

    fn build_watched(
        &self,
        request: BuildRequest,
        cancel: &Cancel,
        stop: &Arc<AtomicBool>,
    ) -> Result<Built, Failure> {
        let engine = &self.shared;
        let watch = Watch { sink: &*request.sink.clone(), stop };
        warn_short_secrets(&request);
        let view = engine.view(&request);
        let plan = prepare::lower(engine, &request, &view, stop)?;
        announce(&request, &plan);
        let contexts = prepare::contexts(engine, &request, &plan)?;
        let key = FinalKey::of(&request, &plan, &contexts)?;
        key.count_files(&request, &engine.cache);
        contexts.values().try_for_each(|c| c.save()).map_err(internal)?;
        watch.check()?;
        if let Some(built) = look_up_final(engine, (&request, &view), &plan, &key, watch)? {
            return Ok(built);
        }
        request.sink.event(Event::State { to: State::Running });
        let job = Arc::new(BuildJob {
            engine: engine.clone(),
            masker: request.masker_beside(&said(&plan)),
            plan,
            view,
            contexts,
            outputs: Mutex::default(),
            notes: Mutex::default(),
            returned: Mutex::default(),
            stop: stop.clone(),
            request,
        });
        let target = run(engine, &job, cancel)?;
        finish(engine, &job, &target, &key)
    }
}

fn warn_short_secrets(request: &BuildRequest) {
    for (id, value) in &request.secrets {
        if Masker::too_short(value) {
            let text = format!("secret '{id}' is too short to be masked in logs");
            request.sink.event(Event::Log(LogLine::service(Level::Warn, text)));
        }
    }
}

fn announce(request: &BuildRequest, plan: &Plan) {
    let names = plan.steps.iter().map(|s| s.name.clone()).collect();
    request.sink.event(Event::Steps { names });
    for warning in &plan.warnings {
        let text = Diagnostic { source_line: None, ..warning.clone() }.to_string();
        request.sink.event(Event::Log(LogLine::service(Level::Warn, text)));
    }
}

/// Returns what the log and the record of a plan show anyway: names of steps, commands, and the
/// variables of the image, one a line.
fn said(plan: &Plan) -> Vec<u8> {
    let steps = plan.steps.iter().map(|step| &step.name);
    let commands = plan.graph.nodes().iter().filter_map(|node| match &node.op {
        Op::Exec(exec) => Some(&exec.args),
        _ => None,
    });
    let texts = steps.chain(commands.flatten()).chain(&plan.config.config.env);
    texts.flat_map(|text| text.bytes().chain([b'\n'])).collect()
}

fn run(engine: &Arc<Shared>, job: &Arc<BuildJob>, cancel: &Cancel) -> Result<Tree, Failure> {
    let group = share_group(&job.request);
    let (graph, target) = (&job.plan.graph, job.plan.target);
    let ticket = engine.scheduler.start(graph, target, group, job.clone())?;
    let key = ticket.key;
    let scheduler = Arc::clone(&engine.scheduler);
    let outcome = while_waiting(cancel, move || scheduler.cancel(key), || ticket.wait())?;
    match outcome {
        Outcome::Succeeded { output } => output.as_tree().cloned().ok_or_else(|| {
            Failure::new(FailureKind::Definition, "the definition's result is its own context")
        }),
        Outcome::Failed { error, .. } => Err(error),
        Outcome::Cancelled => Err(Failure::new(FailureKind::Step, "the build was cancelled")),
    }
}

/// Builds share running steps within a tenant, and only when their limits agree and they have the
/// same secrets and agents by name: one must not fail because another allowed or had less.
fn share_group(request: &BuildRequest) -> ShareGroup {
    let mut hasher = Hasher::new();
    hasher.field(&request.tenant).field(format!("{:?}", request.limits));
    hasher.field(format!("{:?}{:?}", request.network, request.entitlements));
    hasher.field(format!("{:?}{:?}", request.secrets.keys(), request.ssh.keys()));
    let digest = hasher.finish();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.as_bytes()[..8]);
    ShareGroup(u64::from_le_bytes(bytes))
}

fn look_up_final(
    engine: &Shared,
    (request, view): (&BuildRequest, &Images),
    plan: &Plan,
    key: &FinalKey,
    watch: Watch<'_>,
) -> Result<Option<Built>, Failure> {
    if !key.usable {
        return Ok(None);
    }
    if key.bypass.is_some() {
        request.sink.event(key.event(CacheStatus::Bypass));
        return Ok(None);
    }
    let Some(found) = engine.cache.final_artifact(&key.key).map_err(internal)? else {
        request.sink.event(key.event(CacheStatus::Miss));
        return Ok(None);
    };
    let tree = Tree(found.tree);
    learn_images(engine, view, plan, watch)?;
    if !engine.available(&tree)? {
        request.sink.event(key.event(CacheStatus::Miss));
        return Ok(None);
    }
    request.sink.event(key.event(CacheStatus::Hit));
    for step in plan.steps.iter().filter(|s| s.node.is_some()) {
        let (outcome, step) = (StepOutcome::Cached, step.id);
        let ended = Event::StepEnded { step, outcome, peak_memory_bytes: None, cpu_nanos: None };
        request.sink.event(ended);
    }
    let layers = engine.layer_refs(&tree);
    let (config, returned) = (found.config, BTreeMap::new());
    Ok(Some(Built { tree, layers, config, key: key.key, from_cache: true, returned }))
}

/// Learns where the layers of the plan's images are, without fetching any.
fn learn_images(
    engine: &Shared,
    view: &Images,
    plan: &Plan,
    watch: Watch<'_>,
) -> Result<(), Failure> {
    for id in plan.graph.needed(plan.target) {
        if let Op::Image { reference, manifest, platform } = &plan.graph.node(id).op {
            engine.image_tree(view, reference, *manifest, platform, watch)?;
        }
    }
    Ok(())
}

fn finish(engine: &Shared, job: &BuildJob, tree: &Tree, key: &FinalKey) -> Result<Built, Failure> {
    let outputs = job.outputs();
    let mut config =
        config_of(&job.plan, &|node| outputs.get(&node).is_some_and(|o| !o.own().is_empty()));
    drop(outputs);
    stamp(&mut config, job.request.epoch);
    if key.usable {
        let record =
            FinalRecord { tree: tree.0.clone(), config: config.clone(), made: crate::clock::now() };
        engine.cache.put_final(&key.key, &record).map_err(internal)?;
        job.request.sink.event(key.event(CacheStatus::Store));
    }
    let returned =
        std::mem::take(&mut *job.returned.lock().unwrap_or_else(PoisonError::into_inner));
    let layers = engine.layer_refs(tree);
    Ok(Built { tree: tree.clone(), layers, config, key: key.key, from_cache: false, returned })
}

/// Returns the plan's config with every history entry marked empty whose node made no layer.
fn config_of(plan: &Plan, made_a_layer: &dyn Fn(NodeId) -> bool) -> ImageConfig {
    let mut config = plan.config.clone();
    let layered: Vec<usize> =
        (0..config.history.len()).filter(|&i| !config.history[i].empty_layer).collect();
    let own = layered.len().saturating_sub(plan.layer_nodes.len());
    for (&entry, &node) in layered[own..].iter().zip(&plan.layer_nodes) {
        if !made_a_layer(node) {
            config.history[entry].empty_layer = true;
        }
    }
    config
}

/// Sets when the image was made, on the image and on each history entry that has no time: those
/// of the base keep theirs.
fn stamp(config: &mut ImageConfig, epoch: Option<i64>) {
    let now = epoch.map_or_else(crate::clock::now, |seconds| {
        ashlar_core::Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000))
    });
    let text = now.rfc3339();
    for entry in &mut config.history {
        entry.created.get_or_insert_with(|| text.clone());
    }
    config.created = Some(text);
}

impl Shared {
    /// Says whether every layer is here or can be fetched from where its image came from.
    fn available(&self, tree: &Tree) -> Result<bool, Failure> {
        for id in &tree.0 {
            let known = self.image_layers().0.contains_key(id);
            if !known && !self.snapshots.has(id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns a tree's layers as those of an image.
    pub(crate) fn layer_refs(&self, tree: &Tree) -> Vec<LayerRef> {
        let known = self.image_layers();
        let layer = |id: &Digest| match known.0.get(id) {
            Some((image, i)) => image.layers[*i].clone(),
            None => LayerRef { tree: Some(*id), ..LayerRef::default() },
        };
        tree.0.iter().map(layer).collect()
    }
}
