//! Sends spans to a collector, one attempt's after the other, beside the builds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ashlar_core::journal::{Entry, Record};
use ashlar_service::Observer;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{spans, wanted};

/// The service's name in traces, unless the variable says otherwise.
const SERVICE: (&str, &str) = ("OTEL_SERVICE_NAME", "ashlar");
/// Attempts whose spans wait for the collector; those of later ones are dropped.
const WAITING_MAX: usize = 1024;
/// How long the end of the program waits for what is not sent yet.
pub(crate) const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Takes the spans of ended attempts and sends them.
struct Exporter {
    /// Gone once the program ends.
    waiting: Mutex<Option<Sender<Vec<SpanData>>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Traces, when a variable says where they go.
pub(crate) struct Traces(Option<Arc<Exporter>>);

impl Traces {
    /// Starts sending. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When the variables of OpenTelemetry make no sense.
    pub(crate) fn start() -> Result<Self> {
        if !wanted() {
            return Ok(Self(None));
        }
        // Fails when another part of the program did it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().build().context("OTLP: no client")?;
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .build()
            .context("OTLP: the variables OTEL_EXPORTER_OTLP_* make no exporter")?;
        let (variable, usual) = SERVICE;
        let name = std::env::var(variable).ok().filter(|n| !n.is_empty());
        let resource = Resource::builder().with_service_name(name.unwrap_or_else(|| usual.into()));
        exporter.set_resource(&resource.build());
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let task = tokio::spawn(send(exporter, receiver));
        let (waiting, task) = (Mutex::new(Some(sender)), Mutex::new(Some(task)));
        Ok(Self(Some(Arc::new(Exporter { waiting, task }))))
    }

    /// Returns who takes the builds.
    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.0.clone().map(|exporter| exporter as Arc<dyn Observer>)
    }

    /// Sends what waits, for a while; nothing is taken afterwards.
    pub(crate) async fn flush(&self) {
        let Some(exporter) = &self.0 else { return };
        drop(exporter.waiting.lock().unwrap_or_else(PoisonError::into_inner).take());
        let task = exporter.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && timeout(FLUSH_MAX, task).await.is_err()
        {
            tracing::warn!("some traces were not sent");
        }
    }
}

async fn send(exporter: SpanExporter, mut waiting: Receiver<Vec<SpanData>>) {
    while let Some(spans) = waiting.recv().await {
        // The exporter has a time limit of its own.
        if let Err(error) = exporter.export(spans).await {
            tracing::warn!(%error, "the collector did not take a trace");
        }
    }
}

impl Observer for Exporter {
    fn attempt_ended(&self, record: &Record, journal: &[Entry]) {
        let spans = spans::of(record, journal);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = &*waiting
            && waiting.try_send(spans).is_err()
        {
            let build = record.submission.build;
            tracing::warn!(%build, "a trace was dropped: the collector is too slow");
        }
    }
}
