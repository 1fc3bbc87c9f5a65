//! Ids of traces and spans. They follow from the build, so that whoever knows a build finds its
//! trace, and a trace that is sent twice is one.

use ashlar_core::{BuildId, Digest};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The ids of one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    build: BuildId,
    attempt: u32,
    trace: TraceId,
    parent: SpanId,
}

impl Ids {
    /// Returns the ids of an attempt, in the trace that its submission belongs to or else in the
    /// build's own.
    pub(super) fn new(build: BuildId, attempt: u32, trace_parent: Option<&str>) -> Self {
        let (trace, parent) = trace_parent
            .and_then(parse)
            .unwrap_or((TraceId::from_bytes(*build.uuid().as_bytes()), SpanId::INVALID));
        Self { build, attempt, trace, parent }
    }

    /// Returns the span that the submission was made in.
    pub(super) const fn parent(&self) -> SpanId {
        self.parent
    }

    /// Returns the id of the attempt's own span (none) or that of a part of it.
    pub(super) fn span(&self, part: Option<&str>) -> SpanId {
        let text = format!("{}/{}/{}", self.build, self.attempt, part.unwrap_or(""));
        let digest = Digest::of(text);
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest.as_bytes()[..8]);
        SpanId::from_bytes(bytes)
    }

    pub(super) fn context(&self, span: SpanId) -> SpanContext {
        SpanContext::new(self.trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
    }
}

/// Reads a W3C trace parent, which the service has checked.
fn parse(text: &str) -> Option<(TraceId, SpanId)> {
    let mut parts = text.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    Some((trace, SpanId::from_hex(parts.next()?).ok()?))
}
