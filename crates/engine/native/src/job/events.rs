//! From the scheduler's reports to journal entries.
//!
//! A counted node gives exactly one layer entry: a miss or bypass when it starts, a hit when an
//! earlier result or a step that is running already is taken; and a store when a result was kept.

use ashlar_core::cache::{CacheKind, CacheStatus, MissReason};
use ashlar_core::failure::Failure;
use ashlar_core::graph::{Node, NodeId, Op};
use ashlar_core::journal::{CacheEvent, Event, LogLine, LogText, StepOutcome};
use ashlar_solver::{How, Report, VertexId};

use super::{BuildJob, Note};
use crate::output::Output;

impl BuildJob {
    pub(super) fn tell(&self, id: NodeId, vertex: VertexId, report: &Report<Output, Failure>) {
        let node = self.node(id);
        let note = self.notes().get(&vertex).cloned().unwrap_or_default();
        match report {
            Report::Started => {
                self.step_started(id, node);
                self.count_start(node, &note);
            }
            Report::Joined => {
                self.step_started(id, node);
                match node.meta.bypass {
                    // It shares a run that took nothing from the cache either.
                    Some(_) => self.count_start(node, &note),
                    None => self.count(node, CacheStatus::Hit, &note),
                }
            }
            Report::Done { output, how } => {
                self.outputs().insert(id, output.clone());
                self.done(id, node, *how, &note);
            }
            Report::Failed { .. } => self.step_ended(id, node, StepOutcome::Failed, &note),
        }
    }

    fn done(&self, id: NodeId, node: &Node, how: How, note: &Note) {
        match how {
            How::Hit => {
                self.step_started(id, node);
                self.count(node, CacheStatus::Hit, note);
                self.step_ended(id, node, StepOutcome::Cached, note);
            }
            How::Ran => {
                if !matches!(&node.op, Op::Exec(exec) if exec.effect) {
                    self.count(node, CacheStatus::Store, note);
                }
                self.step_ended(id, node, StepOutcome::Ran, note);
            }
            How::Joined => self.step_ended(id, node, StepOutcome::Cached, note),
            How::Resolved => self.step_ended(id, node, StepOutcome::Ran, note),
        }
    }

    fn count_start(&self, node: &Node, note: &Note) {
        match node.meta.bypass {
            Some(by) => {
                let reason = Some(MissReason::Forced { by });
                self.count(node, CacheStatus::Bypass, &Note { reason, ..note.clone() });
            }
            None if matches!(&node.op, Op::Exec(exec) if exec.effect) => {}
            None => self.count(node, CacheStatus::Miss, note),
        }
    }

    fn count(&self, node: &Node, status: CacheStatus, note: &Note) {
        if !node.meta.counted {
            return;
        }
        let missed = matches!(status, CacheStatus::Miss | CacheStatus::Bypass);
        self.request.sink.event(Event::Cache(CacheEvent {
            cache: CacheKind::Layer,
            status,
            step: node.meta.step,
            subject: node.meta.name.clone(),
            key: note.record.as_ref().map(|r| r.key()),
            reason: note.reason.clone().filter(|_| missed),
            bypass: node.meta.bypass.filter(|_| status == CacheStatus::Bypass),
        }));
    }

    /// A step may be made of several nodes; it begins and ends with its main one.
    fn is_main(&self, id: NodeId, node: &Node) -> bool {
        let step = node.meta.step;
        step.is_some() && self.plan.steps.iter().any(|s| Some(s.id) == step && s.node == Some(id))
    }

    fn step_started(&self, id: NodeId, node: &Node) {
        if let (Some(step), true) = (node.meta.step, self.is_main(id, node)) {
            self.request.sink.event(Event::StepStarted { step });
        }
    }

    fn step_ended(&self, id: NodeId, node: &Node, outcome: StepOutcome, note: &Note) {
        if let (Some(step), true) = (node.meta.step, self.is_main(id, node)) {
            self.request.sink.event(Event::StepEnded {
                step,
                outcome,
                peak_memory_bytes: note.peak_memory,
                cpu_nanos: note.cpu_nanos,
            });
        }
    }

    pub(super) fn tell_log(&self, id: NodeId, lines: &[LogLine]) {
        let step = self.node(id).meta.step;
        for line in lines {
            self.request.sink.event(Event::Log(LogLine { step, ..line.clone() }));
        }
    }

    pub(super) fn tell_text(&self, id: NodeId, text: &LogText) {
        let step = self.node(id).meta.step;
        self.request.sink.text(LogText { step, ..text.clone() });
    }
}
