//! Why a build failed, in this dialect's phases, codes and words.
//!
//! A failure comes from an engine that other programs use too: what it says of their options and
//! commands is left out here, and each kind has an action of this API's own.

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::StepId;
use ashlar_service::Record;
use serde_json::{Map, Value};

use crate::documents::Attempt;
use crate::errors::code;
use crate::prepare::NOTHING;
use crate::wire::FailureDetail;

/// What the service's last step, the start command, is called in journals.
pub(crate) const START_STEP: &str = "START ";
/// What stands before the messages of a base image that was not found.
const BASE_IMAGE: &str = "base_image:";
/// What runs in front while a start command comes up, as messages show it.
const FRONT: &str = "`/bin/sh -c :`";
/// How messages say that an image cannot be had. Frontends pass it on as a fault of the definition.
const IMAGE_SIGNS: [&str; 3] = [BASE_IMAGE, "cannot read the manifest of ", "cannot look up "];
/// How messages and hints say that somebody did not answer, or not now: the engine's, then
/// BuildKit's. No kind of failure tells it from an image that is not there.
const SILENCE_SIGNS: [&str; 7] = [
    "check the network, ",
    "the registry limits how much is pulled",
    "connection refused",
    "connection reset",
    "i/o timeout",
    "handshake timeout",
    "no such host",
];
/// Where the advice of other programs begins in what a limit says.
const LIMIT_ADVICE: [&str; 2] = ["; raise --", "; free some with `"];
/// What the advice of other programs names: options and commands.
const ADVICE_SIGNS: [&str; 3] = ["--", "`ashlar", "`docker"];

/// A failure, with what is known of where it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed<'a> {
    failure: &'a Failure,
    step: Option<StepId>,
    /// Whether it is the start command's or its probe's, which is no step of the definition.
    start: bool,
}

impl<'a> Failed<'a> {
    /// Places a failure by the names of all steps.
    pub(crate) fn among(failure: &'a Failure, steps: &[String]) -> Self {
        // What a step fetches is no step itself, and has its name.
        let named = || steps.iter().position(|name| Some(name) == failure.command.as_ref());
        let step = failure.step.or_else(|| named().map(|i| StepId(i as u32 + 1)));
        let name = step.and_then(|s| steps.get((s.0 as usize).checked_sub(1)?));
        Self { failure, step, start: name.is_some_and(|n| n.starts_with(START_STEP)) }
    }

    /// Places the failure of a build by its record, unless it did not fail. A step that only its
    /// name tells has no number then.
    pub(crate) fn of(record: &'a Record, attempt: &Attempt) -> Option<Self> {
        let failure = record.failure.as_ref();
        let failure = failure.filter(|_| record.state == ashlar_core::state::State::Failed)?;
        // The start command is the last step.
        let last = failure.step.is_some_and(|step| step.0 == record.steps.total);
        Some(Self { failure, step: failure.step, start: last && attempt.is_started() })
    }

    /// Returns the failure.
    pub(crate) const fn failure(&self) -> &'a Failure {
        self.failure
    }

    /// Says whether it is a step's whose number is not known.
    pub(crate) fn lacks_step(&self) -> bool {
        self.step.is_none() && self.is_fetch()
    }

    fn is_fetch(&self) -> bool {
        self.failure.command.as_deref().is_some_and(|c| bare(c).starts_with("ADD "))
    }

    fn says(&self, signs: &[&str]) -> bool {
        let hint = self.failure.hint.as_deref().unwrap_or_default();
        signs.iter().any(|s| self.failure.message.contains(s) || hint.contains(s))
    }

    fn kind(&self) -> FailureKind {
        match self.failure.kind {
            FailureKind::Step | FailureKind::Limit | FailureKind::Definition if self.start => {
                FailureKind::Readiness
            }
            FailureKind::Definition if self.says(&IMAGE_SIGNS) => FailureKind::Source,
            kind => kind,
        }
    }

    /// Says whether the same build may succeed later.
    fn is_retryable(&self) -> bool {
        match self.kind() {
            FailureKind::Interrupted | FailureKind::Internal => true,
            FailureKind::Source => self.says(&SILENCE_SIGNS),
            _ => false,
        }
    }

    /// Returns the phase in which it came.
    pub(crate) fn phase(&self) -> &'static str {
        let in_step = (self.step.is_some() || self.is_fetch()) && !self.start;
        match self.kind() {
            FailureKind::Auth => "auth",
            FailureKind::Readiness => "readiness",
            FailureKind::Interrupted => "interrupted",
            FailureKind::Step => "build_step",
            FailureKind::Definition | FailureKind::Source if !in_step => "prepare",
            FailureKind::Limit | FailureKind::Internal if !in_step => "snapshot",
            FailureKind::Export => "finalize",
            FailureKind::Definition
            | FailureKind::Source
            | FailureKind::Limit
            | FailureKind::Internal => "build_step",
        }
    }

    /// Returns its code, by which clients choose the exception.
    pub(crate) fn code(&self) -> &'static str {
        match self.kind() {
            FailureKind::Auth => code::UNAUTHORIZED,
            FailureKind::Internal | FailureKind::Interrupted => code::INTERNAL_ERROR,
            _ => code::BUILD_ERROR,
        }
    }

    fn reason(&self) -> &'static str {
        match self.kind() {
            FailureKind::Definition => "definition_invalid",
            FailureKind::Source => "source_unavailable",
            FailureKind::Step if self.failure.exit_code.is_some() => "command_failed",
            FailureKind::Step => "step_failed",
            FailureKind::Readiness => "not_ready",
            FailureKind::Limit => "limit_exceeded",
            FailureKind::Export => "artifact_not_stored",
            FailureKind::Auth => "credentials_refused",
            FailureKind::Interrupted => "server_stopped",
            FailureKind::Internal => "internal",
        }
    }

    fn action(&self) -> &'static str {
        match self.kind() {
            FailureKind::Definition => "Correct the definition and build again.",
            FailureKind::Source if self.is_retryable() => {
                "Build again later; if it fails again, check that the server reaches the address."
            }
            FailureKind::Source => {
                "Check the reference and that it can be reached, then build again."
            }
            FailureKind::Step if self.says(&["--secret "]) => {
                "Send the secret in build_secrets and build again."
            }
            FailureKind::Step => "Fix the command and build again.",
            FailureKind::Readiness => "Check the start command and its readiness probe.",
            FailureKind::Limit => match self.failure.limit.as_deref() {
                Some("memory") => "Raise build_config.memory_mib, or let the step use less memory.",
                Some("disk") => "Raise build_config.disk_mb, or let the step write less.",
                _ => "Let the step use less, or ask the operator to raise the limit.",
            },
            FailureKind::Export => "Build again; if it fails again, ask the operator.",
            FailureKind::Auth => "Check the credentials of the base image.",
            FailureKind::Interrupted => "Retry the build.",
            FailureKind::Internal => "Retry the build; if it fails again, ask the operator.",
        }
    }

    /// Returns the number of the definition's step that it belongs to.
    pub(crate) fn step_index(&self) -> Option<u32> {
        self.step.filter(|_| !self.start && self.kind() != FailureKind::Readiness).map(|s| s.0)
    }

    /// Returns everything that is said of it.
    pub(crate) fn detail(&self, build_id: &str) -> FailureDetail {
        let failure = self.failure;
        let mut details = Map::new();
        details.insert("reason".into(), self.reason().into());
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                details.insert(key.into(), value);
            }
        };
        put("command", self.command().map(Value::from));
        put("exit_code", failure.exit_code.map(Value::from));
        put("limit", failure.limit.clone().map(Value::from));
        put("path", failure.location.as_ref().map(|l| l.file.clone().into()));
        put("line", failure.location.as_ref().map(|l| l.line.into()));
        put("hint", self.hint().map(Value::from));
        if !failure.last_lines.is_empty() {
            put("last_lines", Some(failure.last_lines.clone().into()));
        }
        FailureDetail {
            code: self.code().into(),
            message: self.message(),
            phase: self.phase().into(),
            retryable: self.is_retryable(),
            suggested_action: self.action().into(),
            step_index: self.step_index(),
            build_id: Some(build_id.to_owned()),
            details: Some(Value::Object(details)),
            ..FailureDetail::default()
        }
    }

    /// Returns its sentence, on one line; with the exit code, where there is one.
    pub(crate) fn message(&self) -> String {
        let text = self.text();
        let mut line = text.lines().next().unwrap_or_default().trim_end();
        if self.failure.kind == FailureKind::Limit {
            let advice = LIMIT_ADVICE.iter().filter_map(|a| line.rfind(a)).min();
            line = &line[..advice.unwrap_or(line.len())];
        }
        match self.failure.exit_code {
            Some(exit) if !line.contains(&exit.to_string()) => format!("{line} (exit code {exit})"),
            _ => line.to_owned(),
        }
    }

    /// Returns what it says, with commands on one line and no word of what the service itself runs.
    fn text(&self) -> String {
        let message = &self.failure.message;
        let mut text = message.strip_prefix(BASE_IMAGE).unwrap_or(message).trim().to_owned();
        if let Some(command) = &self.failure.command
            && let Some((first, _)) = command.split_once('\n')
        {
            text = text.replacen(command.as_str(), &format!("{}…", first.trim_end()), 1);
        }
        if self.start || self.kind() == FailureKind::Readiness {
            text = text.replace(&format!("'{NOTHING}'"), "the template");
            text = text.replace(FRONT, "the start command");
        }
        text
    }

    /// Returns what is said beyond the sentence.
    fn hint(&self) -> Option<String> {
        let text = self.text();
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        let (excerpt, advice) = match rest.strip_prefix("hint: ") {
            Some(advice) => ("", advice),
            None => rest.split_once("\nhint: ").unwrap_or((rest, "")),
        };
        let own = |advice: &&str| !ADVICE_SIGNS.iter().any(|s| advice.contains(s));
        let advice = [Some(advice), self.failure.hint.as_deref()].into_iter().flatten().filter(own);
        let said = std::iter::once(excerpt).chain(advice).filter(|t| !t.trim().is_empty());
        let said: Vec<&str> = said.collect();
        (!said.is_empty()).then(|| said.join("\n"))
    }

    fn command(&self) -> Option<&'a str> {
        let command = self.failure.command.as_deref()?;
        if self.start || self.kind() == FailureKind::Readiness {
            return command.strip_prefix(START_STEP).filter(|c| *c != NOTHING);
        }
        let text = bare(command);
        Some(text.strip_prefix("RUN ").unwrap_or(text))
    }
}

/// Returns a step's name without its place, `[2/5] `.
pub(crate) fn bare(name: &str) -> &str {
    match name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, text)) => text,
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(failure: &Failure) -> FailureDetail {
        let steps = ["[1/2] RUN a", "[2/2] ADD http://h/f /f", "START up"].map(str::to_owned);
        Failed::among(failure, &steps).detail("tb_1")
    }

    #[test]
    fn every_kind_has_a_phase_that_clients_know() {
        use FailureKind as K;
        let (step, start) = (Some(StepId(2)), Some(StepId(3)));
        for (kind, step, want) in [
            (K::Definition, None, "prepare"),
            (K::Source, None, "prepare"),
            (K::Source, step, "build_step"),
            (K::Step, step, "build_step"),
            (K::Step, start, "readiness"),
            (K::Definition, start, "readiness"),
            (K::Limit, start, "readiness"),
            (K::Internal, start, "snapshot"),
            (K::Readiness, start, "readiness"),
            (K::Limit, step, "build_step"),
            (K::Export, None, "finalize"),
            (K::Auth, None, "auth"),
            (K::Interrupted, None, "interrupted"),
            (K::Internal, None, "snapshot"),
        ] {
            let detail = told(&Failure { step, ..Failure::new(kind, "x") });
            assert_eq!(detail.phase, want, "{kind:?}");
            let counted = step.filter(|s| Some(*s) != start).map(|s| s.0);
            assert_eq!(detail.step_index, counted, "{kind:?}");
        }
    }

    #[test]
    fn a_failed_command_says_its_code_and_step() {
        let failure = Failure {
            step: Some(StepId(2)),
            command: Some("[2/2] RUN exit 7".into()),
            exit_code: Some(7),
            ..Failure::new(FailureKind::Step, "the command failed")
        };
        let detail = told(&failure);
        assert_eq!(detail.message, "the command failed (exit code 7)");
        assert_eq!(detail.step_index, Some(2));
        let want = serde_json::json!(
            {"reason": "command_failed", "command": "exit 7", "exit_code": 7});
        assert_eq!(detail.details, Some(want));
    }

    #[test]
    fn a_message_is_one_line_and_of_this_program() {
        let hint = |detail: &FailureDetail| detail.details.as_ref().unwrap().get("hint").cloned();
        let command = "/bin/sh -c cat <<X\nx\nX\nexit 7";
        let failure = Failure {
            command: Some(command.into()),
            exit_code: Some(7),
            hint: Some("`ashlar debug` opens a shell in the failed step".into()),
            ..Failure::new(FailureKind::Step, format!("`{command}` exited with code 7"))
        };
        let detail = told(&failure);
        assert_eq!(detail.message, "`/bin/sh -c cat <<X…` exited with code 7");
        assert_eq!(detail.suggested_action, "Fix the command and build again.");
        assert_eq!(hint(&detail), None);

        let text = "Dockerfile:2:1: no such thing\n    2 | RUN --x y\n      |     ^^^";
        let failure = Failure::new(FailureKind::Definition, text).hint("name it");
        let detail = told(&failure);
        assert_eq!(detail.message, "Dockerfile:2:1: no such thing");
        let want = "    2 | RUN --x y\n      |     ^^^\nname it";
        assert_eq!(hint(&detail), Some(want.into()));

        let text = "`x`: memory limit of 9 bytes reached (peak 9); raise --memory";
        let limit = Some("memory".to_owned());
        let detail = told(&Failure { limit, ..Failure::new(FailureKind::Limit, text) });
        assert_eq!(detail.message, "`x`: memory limit of 9 bytes reached (peak 9)");
        assert!(detail.suggested_action.contains("build_config.memory_mib"));

        let text = "the step requires the secret 'zz', which was not given";
        let failure = Failure::new(FailureKind::Step, text).hint("pass it with --secret id=zz");
        let detail = told(&failure);
        assert_eq!((detail.message.as_str(), hint(&detail)), (text, None));
        assert!(detail.suggested_action.contains("build_secrets"));
    }

    #[test]
    fn an_image_that_cannot_be_had_is_a_source_and_one_that_is_silent_may_come_back() {
        let missing = "base_image: cannot read the manifest of r/i:1: http://r: not found\n\
                       hint: check name and tag; `ashlar images list` shows local images";
        let silent = "Dockerfile:1:6: r/i:1: cannot read the manifest of r/i:1: http://r: error\n\
                      hint: check the network, use --registry-mirror HOST=URL";
        for (text, retryable) in [(missing, false), (silent, true)] {
            let detail = told(&Failure::new(FailureKind::Definition, text));
            let reason = detail.details.as_ref().unwrap()["reason"].clone();
            assert_eq!((detail.phase.as_str(), reason), ("prepare", "source_unavailable".into()));
            assert_eq!(detail.retryable, retryable, "{text}");
            assert!(!detail.message.contains('\n') && !detail.suggested_action.contains("--"));
        }
    }

    #[test]
    fn what_a_step_fetches_is_the_steps() {
        let command = Some("[2/2] ADD http://h/f /f".to_owned());
        let failure = Failure { command, ..Failure::new(FailureKind::Source, "not found") };
        let detail = told(&failure);
        assert_eq!((detail.phase.as_str(), detail.step_index), ("build_step", Some(2)));
    }

    #[test]
    fn of_the_start_command_only_the_requests_words_are_told() {
        for (name, said) in [("sleep 9", Some("sleep 9")), (NOTHING, None)] {
            let failure = Failure {
                step: Some(StepId(3)),
                command: Some(format!("{START_STEP}{name}")),
                ..Failure::new(FailureKind::Readiness, format!("'{name}' was not ready in 1000 ms"))
            };
            let detail = told(&failure);
            let details = detail.details.as_ref().unwrap();
            assert_eq!(details.get("command"), said.map(Value::from).as_ref());
            let who = said.map_or("the template".to_owned(), |s| format!("'{s}'"));
            assert_eq!(detail.message, format!("{who} was not ready in 1000 ms"));
        }
    }
}
