//! Traces of builds by OTLP: a build is a trace, a step a span.
//!
//! The spans are made of the journal when an attempt has ended, so that they say what the record
//! says, with its times, and cost a running build nothing. `OTEL_EXPORTER_OTLP_ENDPOINT` turns them
//! on; the other variables are those of the OpenTelemetry specification. Programs built without the
//! feature `otlp` have none of this.

#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod ids;
#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod spans;

#[cfg(feature = "otlp")]
pub(crate) use export::{FLUSH_MAX, Traces};
#[cfg(not(feature = "otlp"))]
pub(crate) use off::{FLUSH_MAX, Traces};

/// The variables that turn traces on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Says whether traces are wanted.
fn wanted() -> bool {
    ENDPOINTS.iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()))
}
