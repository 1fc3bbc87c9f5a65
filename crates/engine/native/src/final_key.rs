//! The key of the final artifact: all operations with the content of all contexts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ashlar_core::cache::{Bypass, CacheKind, CacheStatus, MissReason};
use ashlar_core::failure::Failure;
use ashlar_core::frontend::Plan;
use ashlar_core::graph::{Copy, Exec, FileAction, MountKind, Network, NodeId, Op};
use ashlar_core::journal::{CacheEvent, Event, StepOutcome};
use ashlar_core::state::State;
use ashlar_core::{Digest, Hasher};
use ashlar_files::{Context, Kind, Selection};

use crate::cache::ResultCache;
use crate::error::{internal, step};
use crate::job::ContextKey;
use crate::request::BuildRequest;

/// The most files of contexts that get a journal entry each.
const FILE_ENTRIES_MAX: usize = 1000;

/// The key, and what was found out on the way to it.
pub(crate) struct FinalKey {
    pub(crate) key: Digest,
    /// Whether an earlier build can answer this one at all. One with effects, unpinned sources or
    /// results as data is answered by none.
    pub(crate) usable: bool,
    /// Why the cache must not be asked.
    pub(crate) bypass: Option<Bypass>,
    /// What the definition takes from its contexts.
    selections: Vec<Arc<Selection>>,
}

impl FinalKey {
    /// Makes the key of a plan whose contexts are open.
    ///
    /// # Errors
    /// When what a step takes from a context is missing or cannot be read.
    pub(crate) fn of(
        request: &BuildRequest,
        plan: &Plan,
        contexts: &BTreeMap<ContextKey, Arc<Context>>,
    ) -> Result<Self, Failure> {
        let mut survey = Survey {
            request,
            plan,
            contexts,
            found: Vec::new(),
            tenants: false,
            given: BTreeSet::new(),
        };
        let needed = plan.graph.needed(plan.target);
        let usable = needed.iter().all(|&id| is_repeatable(&plan.graph.node(id).op));
        let bypass = needed.iter().find_map(|&id| plan.graph.node(id).meta.bypass);
        for &id in &needed {
            if let Err(failure) = survey.visit(id) {
                tell_failed(request, plan, id, usable, bypass);
                return Err(failure);
            }
        }
        let Survey { found: selections, tenants, given, .. } = survey;
        let mut hasher = Hasher::new();
        hasher.field(b"ashlar.final.v1");
        hasher.field(serde_json::to_vec(&plan.config).map_err(internal)?);
        hasher.field(format!("{:?}", request.epoch));
        hasher.field(plan.graph.node(plan.target).digest.as_bytes());
        if tenants {
            hasher.field(format!("{:?}", request.network)).field(&request.tenant);
        }
        if !given.is_empty() {
            // Which ones are mounted is in the graph; which of those are there is not.
            hasher.field(serde_json::to_vec(&given).map_err(internal)?);
        }
        if let Some(identity) = &request.identity {
            hasher.field(b"identity").field(identity.as_bytes());
        }
        for selection in &selections {
            hasher.field(selection.digest().as_bytes());
        }
        Ok(Self { key: hasher.finish(), usable, bypass, selections })
    }

    /// Tells of the files that the definition takes from its contexts: whether a build of the tenant
    /// had their content before. That a file was not read again says less: a server lays each context
    /// out anew, and equal ones of different tenants once.
    pub(crate) fn count_files(&self, request: &BuildRequest, cache: &ResultCache) {
        let (mut told, mut files) = (BTreeSet::new(), Vec::new());
        for (path, entry) in self.selections.iter().flat_map(|s| s.entries()) {
            let Kind::File { content } = &entry.kind else { continue };
            if told.len() == FILE_ENTRIES_MAX {
                break;
            }
            if told.insert(path.clone()) {
                files.push((path, *content));
            }
        }
        let contents: Vec<Digest> = files.iter().filter_map(|(_, content)| *content).collect();
        let known = cache.meet_contents(&request.tenant, &contents);
        for (path, content) in files {
            let path = String::from_utf8_lossy(&path);
            if content.is_some_and(|content| known.contains(&content)) {
                request.sink.event(file_event(&path, CacheStatus::Hit));
            } else {
                request.sink.event(file_event(&path, CacheStatus::Miss));
                request.sink.event(file_event(&path, CacheStatus::Store));
            }
        }
    }

    /// Returns the journal entry of a look-up or store.
    pub(crate) fn event(&self, status: CacheStatus) -> Event {
        final_event(Some(self.key), status, self.bypass)
    }
}

fn final_event(key: Option<Digest>, status: CacheStatus, bypass: Option<Bypass>) -> Event {
    let bypass = bypass.filter(|_| status == CacheStatus::Bypass);
    Event::Cache(CacheEvent {
        cache: CacheKind::FinalArtifact,
        status,
        step: None,
        subject: "final artifact".into(),
        key,
        reason: bypass.map(|by| MissReason::Forced { by }),
        bypass,
    })
}

/// Whether doing the same again gives the same result, as far as the operation says.
fn is_repeatable(op: &Op) -> bool {
    match op {
        Op::Exec(exec) => !exec.effect && exec.returns.is_empty() && exec.keyed_secrets.is_empty(),
        Op::Git { checksum, .. } => checksum.is_some(),
        Op::Http { checksum, .. } => checksum.is_some(),
        Op::Scratch | Op::Image { .. } | Op::Context { .. } | Op::File { .. } | Op::Merge => true,
    }
}

/// Tells of a step that fails before anything runs, since what it takes is not there: it counts like
/// every step that fails, and so does its build.
fn tell_failed(
    request: &BuildRequest,
    plan: &Plan,
    id: NodeId,
    usable: bool,
    bypass: Option<Bypass>,
) {
    let status = |bypass: Option<Bypass>| match bypass {
        Some(_) => CacheStatus::Bypass,
        None => CacheStatus::Miss,
    };
    let sink = &request.sink;
    if usable {
        sink.event(final_event(None, status(bypass), bypass));
    }
    sink.event(Event::State { to: State::Running });
    let meta = &plan.graph.node(id).meta;
    let shown = plan.steps.iter().find(|s| Some(s.id) == meta.step && s.node == Some(id));
    if let Some(step) = shown {
        sink.event(Event::StepStarted { step: step.id });
    }
    if meta.counted {
        let (reason, bypass) = (meta.bypass.map(|by| MissReason::Forced { by }), meta.bypass);
        let (cache, status, subject) = (CacheKind::Layer, status(bypass), meta.name.clone());
        let step = meta.step;
        sink.event(Event::Cache(CacheEvent {
            cache,
            status,
            step,
            subject,
            key: None,
            reason,
            bypass,
        }));
    }
    if let Some(step) = shown {
        let (step, outcome) = (step.id, StepOutcome::Failed);
        let ended = Event::StepEnded { step, outcome, peak_memory_bytes: None, cpu_nanos: None };
        sink.event(ended);
    }
}

/// A walk over the nodes that the target needs.
struct Survey<'a> {
    request: &'a BuildRequest,
    plan: &'a Plan,
    contexts: &'a BTreeMap<ContextKey, Arc<Context>>,
    /// What they take from contexts.
    found: Vec<Arc<Selection>>,
    /// Whether a secret, a volume or the network could influence one of them.
    tenants: bool,
    /// Where secrets and ssh agents are mounted that the build has.
    given: BTreeSet<(u32, String)>,
}

impl Survey<'_> {
    /// Looks at what one node takes in.
    fn visit(&mut self, id: NodeId) -> Result<(), Failure> {
        match &self.plan.graph.node(id).op {
            Op::Exec(exec) => self.visit_exec(id, exec),
            Op::File { actions } => actions.iter().try_for_each(|action| match action {
                FileAction::Copy(copy) => self.select(id, copy),
                _ => Ok(()),
            }),
            _ => Ok(()),
        }
    }

    fn visit_exec(&mut self, id: NodeId, exec: &Exec) -> Result<(), Failure> {
        let network = match exec.network {
            Network::Default => self.request.network,
            said => said,
        };
        let is_bind = |kind: &MountKind| matches!(kind, MountKind::Bind { .. });
        self.tenants |= network != Network::None || exec.mounts.iter().any(|m| !is_bind(&m.kind));
        for mount in &exec.mounts {
            if self.request.was_given(&mount.kind) == Some(true) {
                self.given.insert((id.0, mount.destination.clone()));
            }
            if let MountKind::Bind { input, source, .. } = &mount.kind {
                self.select(id, &crate::job::bind_copy(*input, source))?;
            }
        }
        Ok(())
    }

    /// Finds what a copy takes, when it is a context that it copies from.
    fn select(&mut self, id: NodeId, copy: &Copy) -> Result<(), Failure> {
        let node = self.plan.graph.node(id);
        let Some(input) = node.inputs.get(copy.input) else { return Ok(()) };
        let Op::Context { name, exclude } = &self.plan.graph.node(*input).op else {
            return Ok(());
        };
        let key = ContextKey { name: name.clone(), exclude: exclude.clone() };
        let Some(context) = self.contexts.get(&key) else { return Ok(()) };
        let selection = context.select(copy).map_err(|e| Failure {
            step: node.meta.step,
            location: node.meta.location.clone(),
            command: Some(node.meta.name.clone()),
            ..step(e)
        })?;
        self.found.push(selection);
        Ok(())
    }
}

fn file_event(path: &str, status: CacheStatus) -> Event {
    Event::Cache(CacheEvent {
        cache: CacheKind::FileBlob,
        status,
        step: None,
        subject: path.to_owned(),
        key: None,
        reason: None,
        bypass: None,
    })
}
