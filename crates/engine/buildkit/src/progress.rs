//! From a daemon's progress to journal entries, worded and ordered as those of native builds.
//!
//! A daemon tells of *vertices*: the steps of the Dockerfile, which are named `[stage 2/5] RUN make`,
//! and its own errands. They come in no order; the steps are numbered once all of them are there, or
//! one begins, such that each comes after those that it needs. A vertex is told of several times, and
//! again when a build is tried on another daemon: each step begins once and ends once.

mod names;

use std::collections::{BTreeSet, HashMap, HashSet};

use ashlar_core::cache::{Bypass, CacheKind, CacheStatus, MissReason};
use ashlar_core::frontend::Diagnostic;
use ashlar_core::graph::StepId;
use ashlar_core::journal::{
    CacheEvent, Event, Level, LogLine, LogText, Progress, Sink, StepOutcome, Stream,
};
use ashlar_native::log::{LineCutter, Masker, Tail};
use bollard_buildkit_proto::moby::buildkit::v1::{
    StatusResponse, Vertex as VertexNews, VertexLog, VertexStatus, VertexWarning,
};

pub(crate) use names::location;
use names::{even, is_cancelled, is_counted, place_in_stage};

/// The most vertices of a build that are kept track of.
const VERTICES_MAX: usize = 50_000;
/// The longest name of a step, in characters, as in our own frontend.
const NAME_CHARS_MAX: usize = 4096;
/// The most warnings that are passed on.
const WARNINGS_MAX: usize = 200;
/// The number that the daemon gives to standard error.
const STDERR: i64 = 2;

/// Keeps track of one build.
pub(crate) struct Tracker<'a> {
    sink: &'a dyn Sink,
    masker: &'a Masker,
    /// Why nothing is taken from the cache, when that was asked for.
    bypass: Option<Bypass>,
    /// The Dockerfile as the user named it.
    file: String,
    steps: Vec<Step>,
    /// The steps by their places in the Dockerfile.
    numbers: HashMap<String, usize>,
    /// The steps of earlier tries by their vertices' digests.
    known: HashMap<String, usize>,
    vertices: HashMap<String, Vertex<'a>>,
    warned: usize,
}

struct Step {
    name: String,
    began: bool,
    ended: bool,
    /// How it failed: told only at the build's end, since another try may come to a better one.
    pending: Option<StepOutcome>,
    earlier: Earlier,
    tail: Tail,
}

/// What an earlier try told of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Earlier {
    Nothing,
    /// A part of its log: the rest never came.
    Part,
    /// All of it.
    All,
}

impl Step {
    fn new(name: String) -> Self {
        let (pending, earlier, tail) = (None, Earlier::Nothing, Tail::default());
        Self { name, began: false, ended: false, pending, earlier, tail }
    }
}

struct Vertex<'a> {
    name: String,
    inputs: Vec<String>,
    is_step: bool,
    /// The step's place, once it has one.
    step: Option<usize>,
    error: String,
    /// Standard output and standard error, from the first bytes on.
    logs: Option<[LineCutter<'a>; 2]>,
}

/// The vertex that a build failed at.
pub(crate) struct FailedStep {
    pub(crate) step: Option<StepId>,
    pub(crate) name: String,
    pub(crate) last_lines: Vec<String>,
}

impl<'a> Tracker<'a> {
    pub(crate) fn new(
        sink: &'a dyn Sink,
        masker: &'a Masker,
        bypass: Option<Bypass>,
        file: &str,
    ) -> Self {
        Self {
            sink,
            masker,
            bypass,
            file: file.to_owned(),
            steps: Vec::new(),
            numbers: HashMap::new(),
            known: HashMap::new(),
            vertices: HashMap::new(),
            warned: 0,
        }
    }

    /// Takes news of the daemon.
    pub(crate) fn take(&mut self, news: StatusResponse) {
        self.learn(&news.vertexes);
        self.number_steps(&news);
        for vertex in &news.vertexes {
            if vertex.started.is_some() {
                self.begin(&vertex.digest);
            }
        }
        for log in &news.logs {
            self.log(log);
        }
        for vertex in news.vertexes {
            if vertex.completed.is_some() {
                self.complete(vertex);
            }
        }
        news.statuses.iter().for_each(|s| self.progress(s));
        news.warnings.iter().for_each(|w| self.warn(w));
    }

    /// Forgets what was heard in a try that came to nothing, but not what was told of its steps.
    pub(crate) fn begin_again(&mut self) {
        for (digest, mut vertex) in std::mem::take(&mut self.vertices) {
            flush(&mut vertex, &mut self.steps, self.sink);
            if let Some(number) = vertex.step {
                self.known.insert(digest, number);
            }
        }
        for step in &mut self.steps {
            let said = !std::mem::take(&mut step.tail).into_lines().is_empty();
            if step.ended {
                step.earlier = Earlier::All;
            } else if said {
                step.earlier = Earlier::Part;
            }
        }
    }

    /// Ends the steps that have begun and not ended, when nothing more will be heard of them.
    pub(crate) fn close(&mut self) {
        self.begin_again();
        for number in 0..self.steps.len() {
            if self.steps[number].began {
                let outcome = self.steps[number].pending.unwrap_or(StepOutcome::Cancelled);
                self.end(number, outcome);
            }
        }
    }

    /// Returns what failed: the vertex that the daemon names, else the first with an error.
    pub(crate) fn failed(&mut self, named: Option<&str>) -> Option<FailedStep> {
        let is_reason = |v: &&Vertex<'_>| !v.error.is_empty() && !is_cancelled(&v.error);
        // A step of the Dockerfile says more than an errand that failed with it.
        let mut failed: Vec<&Vertex<'_>> = self.vertices.values().filter(is_reason).collect();
        failed.sort_by_key(|v| (v.step.is_none(), v.step, v.name.clone()));
        let named = named.and_then(|digest| self.vertices.get(digest));
        let vertex = named.or(failed.first().copied())?;
        let (name, step) = (vertex.name.clone(), vertex.step);
        let last_lines = step.map(|n| std::mem::take(&mut self.steps[n].tail).into_lines());
        let last_lines = last_lines.unwrap_or_default();
        Some(FailedStep { step: step.map(id_of), name, last_lines })
    }

    fn learn(&mut self, news: &[VertexNews]) {
        for vertex in news {
            if self.vertices.contains_key(&vertex.digest) || self.vertices.len() >= VERTICES_MAX {
                continue;
            }
            let name: String = even(&vertex.name).chars().take(NAME_CHARS_MAX).collect();
            let name = String::from_utf8_lossy(&self.masker.mask(name.as_bytes())).into_owned();
            let (inputs, is_step) = (vertex.inputs.clone(), place_in_stage(&name).is_some());
            let (step, error, logs) = (None, String::new(), None);
            let state = Vertex { name, inputs, is_step, step, error, logs };
            self.vertices.insert(vertex.digest.clone(), state);
        }
    }

    /// Numbers new steps when all are known, or when something is said of one.
    fn number_steps(&mut self, news: &StatusResponse) {
        let is_new = |v: &Vertex<'_>| v.is_step && v.step.is_none();
        if !self.vertices.values().any(is_new) {
            return;
        }
        let begun = news.vertexes.iter().filter(|v| v.started.is_some()).map(|v| &v.digest);
        let spoken = begun.chain(news.logs.iter().map(|l| &l.vertex));
        let forced = spoken.filter_map(|d| self.vertices.get(d)).any(is_new);
        if !forced && !self.is_whole() {
            return;
        }
        let before = self.steps.len();
        for digest in self.in_order() {
            let Some(name) = self.vertices.get(&digest).filter(|v| is_new(v)) else { continue };
            let number = self.number(&digest, &name.name.clone());
            if let Some(vertex) = self.vertices.get_mut(&digest) {
                vertex.step = Some(number);
            }
        }
        if self.steps.len() > before {
            let names = self.steps.iter().map(|s| s.name.clone()).collect();
            self.sink.event(Event::Steps { names });
        }
    }

    /// Says whether all steps of all stages are known, and all that they need.
    fn is_whole(&self) -> bool {
        let mut stages: HashMap<&str, (BTreeSet<u32>, u32)> = HashMap::new();
        for vertex in self.vertices.values().filter(|v| v.is_step) {
            let Some((stage, number, total)) = place_in_stage(&vertex.name) else { continue };
            let seen = stages.entry(stage).or_default();
            seen.0.insert(number);
            seen.1 = total;
        }
        let known = |digest: &String| self.vertices.contains_key(digest);
        stages.values().all(|(seen, total)| seen.len() as u32 == *total)
            && self.vertices.values().all(|v| v.inputs.iter().all(known))
    }

    /// Returns all vertices, each after its inputs.
    fn in_order(&self) -> Vec<String> {
        let inputs: HashSet<&String> = self.vertices.values().flat_map(|v| &v.inputs).collect();
        let mut ends: Vec<&String> = self.vertices.keys().filter(|d| !inputs.contains(d)).collect();
        ends.sort_by_key(|digest| &self.vertices[*digest].name);
        let mut order = Vec::with_capacity(self.vertices.len());
        let mut seen = HashSet::new();
        let mut stack: Vec<(&String, bool)> = ends.into_iter().rev().map(|d| (d, false)).collect();
        while let Some((digest, left)) = stack.pop() {
            let Some(vertex) = self.vertices.get(digest) else { continue };
            if left {
                order.push(digest.clone());
            } else if seen.insert(digest) {
                stack.push((digest, true));
                stack.extend(vertex.inputs.iter().rev().map(|d| (d, false)));
            }
        }
        order
    }

    /// Finds a step again. A daemon gives what another build has just begun on (a base) that one's
    /// names, and counts, so the vertex says more than they do; but if a daemon words the text of a
    /// step otherwise, it is another vertex in the same place.
    fn number(&mut self, digest: &str, name: &str) -> usize {
        if let Some(number) = self.known.get(digest) {
            return *number;
        }
        let next = self.steps.len();
        let place = name.split_once("] ").map_or(name, |(place, _)| place);
        let number = *self.numbers.entry(place.to_owned()).or_insert(next);
        if number == next {
            let name = name.to_owned();
            self.steps.push(Step::new(name));
        }
        number
    }

    fn begin(&mut self, digest: &str) {
        let Some(number) = self.vertices.get(digest).and_then(|v| v.step) else { return };
        let step = &mut self.steps[number];
        if !std::mem::replace(&mut step.began, true) {
            self.sink.event(Event::StepStarted { step: id_of(number) });
        } else if step.earlier == Earlier::Part {
            step.earlier = Earlier::Nothing;
            let text = format!("{} begins again: what it said before is of another try", step.name);
            self.sink.event(Event::Log(LogLine::service(Level::Info, text)));
        }
    }

    fn complete(&mut self, news: VertexNews) {
        let Some(vertex) = self.vertices.get_mut(&news.digest) else { return };
        flush(vertex, &mut self.steps, self.sink);
        vertex.error.clone_from(&news.error);
        let Some(number) = vertex.step else { return };
        self.begin(&news.digest);
        let outcome = match news.error.as_str() {
            "" if news.cached => StepOutcome::Cached,
            "" => StepOutcome::Ran,
            error if is_cancelled(error) => StepOutcome::Cancelled,
            _ => StepOutcome::Failed,
        };
        match outcome {
            StepOutcome::Ran | StepOutcome::Cached => self.end(number, outcome),
            // A step that was stopped for another one's sake may say so after it failed itself.
            StepOutcome::Cancelled => drop(self.steps[number].pending.get_or_insert(outcome)),
            StepOutcome::Failed => self.steps[number].pending = Some(outcome),
        }
    }

    fn end(&mut self, number: usize, outcome: StepOutcome) {
        if std::mem::replace(&mut self.steps[number].ended, true) {
            return;
        }
        self.count(number, outcome);
        self.sink.event(Event::StepEnded {
            step: id_of(number),
            outcome,
            peak_memory_bytes: None,
            cpu_nanos: None,
        });
    }

    /// Gives a step its entries: which cache it came from is the daemon's secret, and so is the key.
    fn count(&self, number: usize, outcome: StepOutcome) {
        let name = &self.steps[number].name;
        if !is_counted(name) {
            return;
        }
        let missed = if self.bypass.is_some() { CacheStatus::Bypass } else { CacheStatus::Miss };
        let statuses: &[CacheStatus] = match outcome {
            StepOutcome::Cached => &[CacheStatus::Hit],
            StepOutcome::Ran => &[missed, CacheStatus::Store],
            StepOutcome::Failed => &[missed],
            StepOutcome::Cancelled => &[],
        };
        for &status in statuses {
            let bypass = self.bypass.filter(|_| status == CacheStatus::Bypass);
            self.sink.event(Event::Cache(CacheEvent {
                cache: CacheKind::Layer,
                status,
                step: Some(id_of(number)),
                subject: name.clone(),
                key: None,
                reason: bypass.map(|by| MissReason::Forced { by }),
                bypass,
            }));
        }
    }

    fn log(&mut self, log: &VertexLog) {
        let Some(vertex) = self.vertices.get_mut(&log.vertex) else { return };
        let (step, steps, sink, masker) = (vertex.step, &mut self.steps, self.sink, self.masker);
        let cutter = |stream| LineCutter::new(masker, step.map(id_of), stream);
        let logs = vertex.logs.get_or_insert_with(|| [Stream::Stdout, Stream::Stderr].map(cutter));
        let cutter = &mut logs[usize::from(log.stream == STDERR)];
        cutter.push(&log.msg, &mut |text| tell(text, step, steps, sink));
    }

    fn progress(&self, status: &VertexStatus) {
        let Some(vertex) = self.vertices.get(&status.vertex) else { return };
        let name = if status.name.is_empty() { &status.id } else { &status.name };
        let subject = format!("{}: {name}", vertex.name).chars().take(NAME_CHARS_MAX).collect();
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        self.sink.progress(Progress {
            subject,
            done: count(status.current),
            total: count(status.total),
        });
    }

    fn warn(&mut self, warning: &VertexWarning) {
        if self.warned >= WARNINGS_MAX {
            return;
        }
        self.warned += 1;
        let short = String::from_utf8_lossy(&self.masker.mask(&warning.short)).into_owned();
        let mut diagnostic = Diagnostic::new(short);
        diagnostic.location = location(&self.file, &warning.ranges);
        let text = diagnostic.to_string();
        self.sink.event(Event::Log(LogLine::service(Level::Warn, text)));
    }
}

fn flush(vertex: &mut Vertex<'_>, steps: &mut [Step], sink: &dyn Sink) {
    let step = vertex.step;
    for cutter in vertex.logs.iter_mut().flatten() {
        cutter.finish(&mut |text| tell(text, step, steps, sink));
    }
}

fn tell(text: LogText, step: Option<usize>, steps: &mut [Step], sink: &dyn Sink) {
    if let Some(number) = step {
        steps[number].tail.push(&text);
        if steps[number].earlier == Earlier::All {
            return;
        }
    }
    sink.text(text);
}

fn id_of(number: usize) -> StepId {
    StepId(u32::try_from(number + 1).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
