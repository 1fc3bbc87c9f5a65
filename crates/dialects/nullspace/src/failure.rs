//! Why a build failed, in this dialect's phases and codes.

use ashlar_core::failure::{Failure, FailureKind};
use serde_json::{Map, Value};

use crate::errors::code;
use crate::wire::FailureDetail;

/// What stands before the messages of a base image that was not found.
const BASE_IMAGE: &str = "base_image:";

/// Returns the phase in which a failure came.
pub(crate) fn phase_of(failure: &Failure) -> &'static str {
    match failure.kind {
        FailureKind::Auth => "auth",
        FailureKind::Readiness => "readiness",
        FailureKind::Interrupted => "interrupted",
        FailureKind::Step => "build_step",
        FailureKind::Definition | FailureKind::Source if failure.step.is_none() => "prepare",
        FailureKind::Limit | FailureKind::Internal if failure.step.is_none() => "snapshot",
        FailureKind::Export => "finalize",
        FailureKind::Definition
        | FailureKind::Source
        | FailureKind::Limit
        | FailureKind::Internal => "build_step",
    }
}

/// Returns the code of a failure, by which clients choose the exception.
pub(crate) const fn code_of(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Auth => code::UNAUTHORIZED,
        FailureKind::Internal | FailureKind::Interrupted => code::INTERNAL_ERROR,
        _ => code::BUILD_ERROR,
    }
}

const fn reason_of(failure: &Failure) -> &'static str {
    match failure.kind {
        FailureKind::Definition => "definition_invalid",
        FailureKind::Source => "source_unavailable",
        FailureKind::Step if failure.exit_code.is_some() => "command_failed",
        FailureKind::Step => "step_failed",
        FailureKind::Readiness => "not_ready",
        FailureKind::Limit => "limit_exceeded",
        FailureKind::Export => "artifact_not_stored",
        FailureKind::Auth => "credentials_refused",
        FailureKind::Interrupted => "server_stopped",
        FailureKind::Internal => "internal",
    }
}

const fn action_of(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Definition => "Correct the definition and build again.",
        FailureKind::Source => "Check the reference and that it can be reached, then build again.",
        FailureKind::Step => "Fix the command and build again.",
        FailureKind::Readiness => "Check the start command and its readiness probe.",
        FailureKind::Limit => "Let the step use less, or raise the limit.",
        FailureKind::Export => "Build again; if it fails again, ask the operator.",
        FailureKind::Auth => "Check the credentials of the base image.",
        FailureKind::Interrupted => "Retry the build.",
        FailureKind::Internal => "Retry the build; if it fails again, ask the operator.",
    }
}

/// Returns everything that is said of a failure.
pub(crate) fn detail_of(failure: &Failure, build_id: &str) -> FailureDetail {
    let retryable = matches!(failure.kind, FailureKind::Interrupted | FailureKind::Internal);
    let mut details = Map::new();
    details.insert("reason".into(), reason_of(failure).into());
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            details.insert(key.into(), value);
        }
    };
    put("command", failure.command.as_deref().map(|c| command(c).into()));
    put("exit_code", failure.exit_code.map(Value::from));
    put("limit", failure.limit.clone().map(Value::from));
    put("path", failure.location.as_ref().map(|l| l.file.clone().into()));
    put("line", failure.location.as_ref().map(|l| l.line.into()));
    if !failure.last_lines.is_empty() {
        put("last_lines", Some(failure.last_lines.clone().into()));
    }
    FailureDetail {
        code: code_of(failure.kind).into(),
        message: message_of(failure),
        phase: phase_of(failure).into(),
        retryable,
        suggested_action: failure.hint.clone().unwrap_or_else(|| action_of(failure.kind).into()),
        step_index: failure.step.filter(|_| failure.kind != FailureKind::Readiness).map(|s| s.0),
        build_id: Some(build_id.to_owned()),
        details: Some(Value::Object(details)),
        ..FailureDetail::default()
    }
}

/// Returns a failure's sentence; with the exit code, where there is one.
pub(crate) fn message_of(failure: &Failure) -> String {
    let message = failure.message.strip_prefix(BASE_IMAGE).unwrap_or(&failure.message).trim();
    match failure.exit_code {
        Some(exit) if !message.contains(&exit.to_string()) => {
            format!("{message} (exit code {exit})")
        }
        _ => message.to_owned(),
    }
}

fn command(text: &str) -> &str {
    let text = match text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, text)) => text,
        None => text,
    };
    text.strip_prefix("RUN ").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use ashlar_core::graph::StepId;

    use super::*;

    #[test]
    fn every_kind_has_a_phase_that_clients_know() {
        use FailureKind as K;
        let step = Some(StepId(2));
        for (kind, step, want) in [
            (K::Definition, None, "prepare"),
            (K::Source, None, "prepare"),
            (K::Source, step, "build_step"),
            (K::Step, step, "build_step"),
            (K::Readiness, step, "readiness"),
            (K::Limit, step, "build_step"),
            (K::Export, None, "finalize"),
            (K::Auth, None, "auth"),
            (K::Interrupted, None, "interrupted"),
            (K::Internal, None, "snapshot"),
        ] {
            let failure = Failure { step, ..Failure::new(kind, "x") };
            assert_eq!(phase_of(&failure), want, "{kind:?}");
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
        let detail = detail_of(&failure, "tb_1");
        assert_eq!(detail.message, "the command failed (exit code 7)");
        assert_eq!(detail.step_index, Some(2));
        let want = serde_json::json!(
            {"reason": "command_failed", "command": "exit 7", "exit_code": 7});
        assert_eq!(detail.details, Some(want));
    }
}
