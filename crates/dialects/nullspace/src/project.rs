//! A build's log as a projection of its journal.
//!
//! Every entry is made of one journal entry (the files of the context, of the first one), in the
//! journal's order, and of nothing else: whoever projects a journal gets the same entries with the
//! same offsets, today and after a restart. The cache counters count the cache entries among them.

use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_core::cache::{Bypass, CacheKind, CacheStatus};
use ashlar_core::failure::Failure;
use ashlar_core::graph::StepId;
use ashlar_core::journal::{CacheEvent, Entry, Event, Level as LineLevel, LogLine, Stream};
use ashlar_core::state::State;
use uuid::Uuid;

use crate::documents::{AttemptFiles, FileUse};
use crate::failure::{Failed, START_STEP, bare};
use crate::ids;
use crate::prepare::NOTHING;
use crate::wire::{CacheSummary, Level, LogEntry, LogKind};

/// Makes log entries of journal entries, in order.
#[derive(Debug, Clone)]
pub(crate) struct Projector {
    build_id: String,
    template_id: String,
    /// Files of the context that have not been told yet.
    files: AttemptFiles,
    offset: u64,
    next_number: u64,
    attempts_max: Option<u32>,
    /// Names of the definition's steps; shared by those who remember where they are.
    steps: Arc<[String]>,
    failure: Option<Failure>,
    counted: CacheSummary,
    /// The last entry, once it has been made.
    last: Option<Box<LogEntry>>,
}

impl Projector {
    /// Begins at the journal's first entry.
    pub(crate) fn new(build: BuildId, template: Uuid, files: AttemptFiles) -> Self {
        Self {
            build_id: ids::build(build),
            template_id: ids::template(template),
            files,
            offset: 0,
            next_number: 0,
            attempts_max: None,
            steps: Arc::default(),
            failure: None,
            counted: CacheSummary::default(),
            last: None,
        }
    }

    /// Returns the offset of the next entry.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the number of the journal's next entry.
    pub(crate) const fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Returns the counts of the cache entries so far.
    pub(crate) const fn counted(&self) -> CacheSummary {
        self.counted
    }

    /// Says whether the last entry has been made.
    pub(crate) const fn ended(&self) -> bool {
        self.last.is_some()
    }

    /// Returns the last entry, once it has been made.
    pub(crate) fn last(&self) -> Option<&LogEntry> {
        self.last.as_deref()
    }

    /// Makes the log entries of the next journal entry.
    pub(crate) fn add(&mut self, entry: &Entry, out: &mut Vec<LogEntry>) {
        self.next_number = entry.number + 1;
        if self.ended() {
            return;
        }
        let from = out.len();
        self.project(&entry.event, out);
        for made in &mut out[from..] {
            made.build_id.clone_from(&self.build_id);
            made.template_id.clone_from(&self.template_id);
            made.timestamp = entry.time;
            made.offset = self.offset;
            self.offset += 1;
            count(&mut self.counted, made);
            if made.kind.is_terminal() {
                self.last = Some(Box::new(made.clone()));
            }
        }
    }

    fn project(&mut self, event: &Event, out: &mut Vec<LogEntry>) {
        match event {
            Event::Submitted(submission) => {
                self.attempts_max = match submission.on_lost {
                    ashlar_core::journal::OnLost::Requeue { attempts_max } => Some(attempts_max),
                    ashlar_core::journal::OnLost::Fail => None,
                };
                out.push(entry(LogKind::Start, Level::Info, "build accepted", "preparing"));
                // Said once: whoever remembers how far a log was read need not carry them along.
                files(&std::mem::take(&mut self.files), out);
            }
            Event::Claimed { attempt: 1, .. } => {
                out.push(entry(LogKind::Message, Level::Info, "build started", "preparing"));
            }
            Event::Claimed { attempt, .. } => out.push(self.retry(*attempt)),
            Event::Executor { requested: Some(asked), ran, reason } if asked != ran => {
                let why = reason.clone().unwrap_or_else(|| format!("no {asked} is configured"));
                let text = format!("runs on {ran} instead of {asked}: {why}");
                out.push(entry(LogKind::Message, Level::Info, &text, "preparing"));
            }
            Event::Steps { names } => self.steps = names.as_slice().into(),
            Event::StepStarted { step } => out.push(self.step_started(*step)),
            Event::Cache(event) => out.extend(self.cache(event)),
            Event::Log(line) => out.push(self.line(line)),
            Event::State { to } => out.extend(self.state(*to)),
            Event::Failed(failure) => self.failure = Some((**failure).clone()),
            _ => {}
        }
    }

    fn retry(&self, attempt: u32) -> LogEntry {
        LogEntry {
            attempt: Some(attempt),
            // Those that end with the server count for nothing but themselves.
            max_attempts: self.attempts_max.map(|most| most.max(attempt)),
            ..entry(LogKind::Retry, Level::Warn, "the build begins again", "retry")
        }
    }

    /// Steps that people count: the start command is not one of them.
    fn total(&self) -> u32 {
        self.steps.iter().filter(|name| !name.starts_with(START_STEP)).count() as u32
    }

    fn name(&self, step: StepId) -> &str {
        let at = (step.0 as usize).checked_sub(1);
        at.and_then(|i| self.steps.get(i)).map_or("", String::as_str)
    }

    fn is_start(&self, step: StepId) -> bool {
        self.name(step).starts_with(START_STEP)
    }

    /// Says which step an entry belongs to.
    fn of_step(&self, step: Option<StepId>, entry: LogEntry) -> LogEntry {
        match step {
            Some(step) if self.is_start(step) => LogEntry { phase: Some("startup"), ..entry },
            Some(step) => {
                LogEntry { step_index: Some(step.0), total_steps: Some(self.total()), ..entry }
            }
            None => entry,
        }
    }

    fn step_started(&self, step: StepId) -> LogEntry {
        let text = match self.name(step).strip_prefix(START_STEP) {
            Some(NOTHING) => "waiting until the template is ready".to_owned(),
            Some(command) => format!("start command: {command}"),
            None => format!("step {}/{}: {}", step.0, self.total(), bare(self.name(step))),
        };
        self.of_step(Some(step), entry(LogKind::Message, Level::Info, &text, "step"))
    }

    fn cache(&self, event: &CacheEvent) -> Option<LogEntry> {
        let (kind, what) = match event.cache {
            CacheKind::Layer => ("layer", "layer"),
            CacheKind::FinalArtifact => ("final_artifact", "final artifact"),
            // Files are counted when the context is bound, by generation; see `files`.
            CacheKind::FileBlob => return None,
        };
        let (status, reason) = match event.status {
            CacheStatus::Hit => ("hit", None),
            CacheStatus::Miss => ("miss", Some("missing_or_incompatible")),
            CacheStatus::Store => ("stored", None),
            CacheStatus::Bypass => ("bypass", Some(bypass_reason(event.bypass))),
        };
        let made = LogEntry {
            cache_kind: Some(kind),
            cache_status: Some(status),
            cache_reason: reason,
            cache_subject: Some(subject(&event.subject).to_owned()),
            ..entry(LogKind::Cache, Level::Debug, &format!("{what} {status}"), "cache")
        };
        Some(self.of_step(event.step, made))
    }

    fn line(&self, line: &LogLine) -> LogEntry {
        let (kind, level) = match (line.stream, line.level) {
            (Stream::Stdout, _) => (LogKind::Message, Level::Info),
            (Stream::Stderr, _) => (LogKind::Message, Level::Warn),
            (Stream::Service, LineLevel::Debug) => (LogKind::Message, Level::Debug),
            (Stream::Service, LineLevel::Info) => (LogKind::Message, Level::Info),
            (Stream::Service, LineLevel::Warn) => (LogKind::Warning, Level::Warn),
            (Stream::Service, LineLevel::Error) => (LogKind::Warning, Level::Error),
        };
        let phase = if line.step.is_some() { "step" } else { "preparing" };
        self.of_step(line.step, entry(kind, level, &line.text, phase))
    }

    fn state(&self, to: State) -> Option<LogEntry> {
        let made = match to {
            State::Exporting => {
                entry(LogKind::Message, Level::Info, "storing the artifact", "snapshot")
            }
            State::Succeeded => entry(LogKind::End, Level::Info, "build ready", "finalize"),
            State::Cancelled | State::Skipped => {
                entry(LogKind::Cancelled, Level::Warn, "build cancelled", "cleanup")
            }
            State::Failed => self.failed(),
            State::Queued | State::Preparing | State::Running => return None,
        };
        Some(made)
    }

    fn failed(&self) -> LogEntry {
        let unknown = || Failure::new(ashlar_core::failure::FailureKind::Internal, "build failed");
        let failure = self.failure.clone().unwrap_or_else(unknown);
        let failed = Failed::among(&failure, &self.steps);
        let detail = failed.detail(&self.build_id);
        let message = detail.message.clone();
        let phase = match failed.phase() {
            "prepare" => "preparing",
            "build_step" => "step",
            phase @ ("readiness" | "snapshot" | "finalize") => phase,
            _ => "cleanup",
        };
        let step = failed.step_index();
        LogEntry {
            error_detail: Some(detail),
            step_index: step,
            total_steps: step.map(|_| self.total()),
            ..entry(LogKind::Error, Level::Error, &message, phase)
        }
    }
}

fn files(known: &AttemptFiles, out: &mut Vec<LogEntry>) {
    let file = |path: &str, status, reason, message| LogEntry {
        cache_kind: Some("file_blob"),
        cache_status: Some(status),
        cache_reason: reason,
        cache_subject: Some(path.to_owned()),
        ..entry(LogKind::Cache, Level::Debug, message, "cache")
    };
    for (path, known) in &known.files {
        match known {
            FileUse::Known => out.push(file(path, "hit", None, "file known")),
            FileUse::New => {
                let reason = Some("missing_or_incompatible");
                out.push(file(path, "miss", reason, "file not known"));
                out.push(file(path, "stored", None, "file stored"));
            }
            FileUse::Forced => {
                let reason = Some("force_upload");
                out.push(file(path, "bypass", reason, "file uploaded anew"));
                out.push(file(path, "stored", reason, "file stored"));
            }
        }
    }
}

fn entry(kind: LogKind, level: Level, message: &str, phase: &'static str) -> LogEntry {
    LogEntry {
        build_id: String::new(),
        template_id: String::new(),
        offset: 0,
        timestamp: ashlar_core::Timestamp::default(),
        kind,
        level,
        message: message.to_owned(),
        phase: Some(phase),
        step_index: None,
        total_steps: None,
        attempt: None,
        max_attempts: None,
        cache_kind: None,
        cache_status: None,
        cache_reason: None,
        cache_subject: None,
        error_detail: None,
        result: None,
        result_metadata: None,
    }
}

/// Returns what a cache entry speaks of: the command itself, where it is one.
fn subject(name: &str) -> &str {
    let text = bare(name);
    match text.strip_prefix("RUN ").or_else(|| text.strip_prefix(START_STEP)).unwrap_or(text) {
        NOTHING => "readiness",
        text => text,
    }
}

const fn bypass_reason(bypass: Option<Bypass>) -> &'static str {
    match bypass {
        Some(Bypass::Boundary | Bypass::Effect) => "builder_cache_boundary",
        Some(Bypass::ForcedUpload) => "force_upload",
        Some(Bypass::WholeBuild) | None => "whole_build_skip_cache",
    }
}

fn count(summary: &mut CacheSummary, entry: &LogEntry) {
    let (Some(kind), Some(status)) = (entry.cache_kind, entry.cache_status) else { return };
    let counters = match kind {
        "final_artifact" => [
            &mut summary.final_artifact_hits,
            &mut summary.final_artifact_misses,
            &mut summary.final_artifact_bypasses,
            &mut summary.final_artifact_stores,
        ],
        "layer" => [
            &mut summary.layer_hits,
            &mut summary.layer_misses,
            &mut summary.layer_bypasses,
            &mut summary.layer_stores,
        ],
        _ => [
            &mut summary.file_blob_hits,
            &mut summary.file_blob_misses,
            &mut summary.file_blob_bypasses,
            &mut summary.file_blob_stores,
        ],
    };
    let [hits, misses, bypasses, stores] = counters;
    *match status {
        "hit" => hits,
        "miss" => misses,
        "bypass" => bypasses,
        _ => stores,
    } += 1;
}

#[cfg(test)]
mod tests {
    use ashlar_core::failure::FailureKind;
    use ashlar_core::{Timestamp, WorkerId};
    use serde_json::json;

    use super::*;

    fn submitted() -> Event {
        let uuid = Uuid::now_v7();
        let submission = json!({
            "build": uuid, "tenant": uuid, "scope": "s", "principal": uuid, "dialect": "nullspace",
            "kind": "build", "name": "n", "source": "declarative", "definition": null,
            "definition_digest": ashlar_core::Digest::of(""), "mode": "managed", "priority": 0,
            "on_lost": { "do": "requeue", "attempts_max": 3 },
        });
        Event::Submitted(Box::new(serde_json::from_value(submission).unwrap()))
    }

    fn cache(cache: CacheKind, status: CacheStatus, step: Option<u32>) -> Event {
        Event::Cache(CacheEvent {
            cache,
            status,
            step: step.map(StepId),
            subject: "[1/1] RUN make".into(),
            key: None,
            reason: None,
            bypass: None,
        })
    }

    fn project(files: AttemptFiles, events: Vec<Event>) -> (Vec<LogEntry>, Projector) {
        let build = BuildId::from_uuid(Uuid::now_v7());
        let mut projector = Projector::new(build, Uuid::now_v7(), files);
        let mut out = Vec::new();
        for (i, event) in events.into_iter().enumerate() {
            let time = Timestamp::from_nanos(i as i64 + 1);
            projector.add(&Entry { number: i as u64, time, event }, &mut out);
        }
        (out, projector)
    }

    fn claimed(attempt: u32) -> Event {
        let worker = WorkerId::from_uuid(Uuid::now_v7());
        Event::Claimed { attempt, fence: u64::from(attempt), worker }
    }

    #[test]
    fn entries_of_all_attempts_are_numbered_through_and_counted() {
        let files = vec![("a".to_owned(), FileUse::New), ("b".to_owned(), FileUse::Known)];
        let end = Event::State { to: State::Succeeded };
        let note = Event::Note { dialect: "x".into(), value: json!(1) };
        let (entries, projector) = project(
            AttemptFiles { files },
            vec![
                submitted(),
                claimed(1),
                cache(CacheKind::FinalArtifact, CacheStatus::Miss, None),
                Event::Requeued { reason: "lost".into(), planned: false },
                claimed(2),
                Event::Steps { names: vec!["[1/1] RUN make".into(), "START up".into()] },
                cache(CacheKind::FinalArtifact, CacheStatus::Miss, None),
                // The engine's own count of files is not the dialect's.
                cache(CacheKind::FileBlob, CacheStatus::Miss, None),
                Event::StepStarted { step: StepId(1) },
                cache(CacheKind::Layer, CacheStatus::Miss, Some(1)),
                Event::StepStarted { step: StepId(2) },
                end,
                note,
            ],
        );
        let kinds: Vec<LogKind> = entries.iter().map(|e| e.kind).collect();
        use LogKind::{Cache, End, Message, Retry, Start};
        let want = [
            Start, Cache, Cache, Cache, Message, Cache, Retry, Cache, Message, Cache, Message, End,
        ];
        assert_eq!(kinds, want);
        assert!(entries.iter().enumerate().all(|(i, e)| e.offset == i as u64));
        let counted = projector.counted();
        assert_eq!((counted.final_artifact_misses, counted.layer_misses), (2, 1));
        let files = (counted.file_blob_misses, counted.file_blob_stores, counted.file_blob_hits);
        assert_eq!(files, (1, 1, 1));
        assert_eq!((entries[6].attempt, entries[6].max_attempts), (Some(2), Some(3)));
        let layer = &entries[9];
        assert_eq!((layer.step_index, layer.total_steps), (Some(1), Some(1)));
        assert_eq!(layer.cache_subject.as_deref(), Some("make"));
        // The start command is no step of the definition.
        assert_eq!((entries[10].phase, entries[10].step_index), (Some("startup"), None));
        assert!(projector.ended());
    }

    #[test]
    fn files_are_not_kept_once_they_were_told() {
        let files = (0..20_000).map(|i| (format!("file-{i}"), FileUse::New)).collect();
        let (entries, projector) = project(AttemptFiles { files }, vec![submitted(), claimed(1)]);
        assert_eq!(entries.len(), 40_002);
        assert_eq!(projector.files, AttemptFiles::default());
        assert_eq!(projector.counted().file_blob_stores, 20_000);
    }

    #[test]
    fn a_failure_is_the_last_entry_with_its_detail() {
        for (kind, step, phase) in [
            (FailureKind::Step, Some(StepId(1)), "build_step"),
            (FailureKind::Source, None, "prepare"),
            (FailureKind::Interrupted, None, "interrupted"),
            (FailureKind::Readiness, Some(StepId(2)), "readiness"),
        ] {
            let failure = Failure { step, ..Failure::new(kind, "broke") };
            let steps = vec!["[1/1] RUN make".into(), "START up".into()];
            let events = vec![
                submitted(),
                Event::Steps { names: steps },
                Event::Failed(Box::new(failure)),
                Event::State { to: State::Failed },
            ];
            let (entries, projector) = project(AttemptFiles::default(), events);
            assert_eq!(entries.iter().filter(|e| e.kind == LogKind::Error).count(), 1);
            let last = entries.last().unwrap();
            let detail = last.error_detail.as_ref().unwrap();
            assert_eq!((last.kind, detail.phase.as_str()), (LogKind::Error, phase), "{kind:?}");
            assert_eq!(detail.retryable, kind == FailureKind::Interrupted);
            assert!(projector.ended());
        }
    }

    #[test]
    fn output_never_ends_a_build_for_the_client() {
        for stream in [Stream::Stdout, Stream::Stderr, Stream::Service] {
            for level in [LineLevel::Debug, LineLevel::Info, LineLevel::Warn, LineLevel::Error] {
                let line = LogLine { stream, level, ..LogLine::service(level, "x") };
                let (entries, projector) =
                    project(AttemptFiles::default(), vec![submitted(), Event::Log(line)]);
                assert!(!entries[1].kind.is_terminal() && !projector.ended());
            }
        }
    }
}
