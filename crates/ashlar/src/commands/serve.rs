//! `ashlar serve`: the build service until a signal ends it.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ashlar_api::{ApiOptions, Apps, TrustedProxies, apps, serve};
use ashlar_oci::{Egress, RegistrySettings};
use ashlar_service::{Error, ErrorKind, Service, ServiceConfig, TokenText};
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use super::worker::is_postgres;
use super::{Usage, supervisor, usage};
use crate::cli::serve::{Expose, LogFormat, ServeArgs};
use crate::cli::worker::NodeArgs;
use crate::output::note;
use crate::settings::Settings;
use crate::telemetry::{FLUSH_MAX, Traces};

/// What the server writes about itself unless `RUST_LOG` says otherwise.
const LOG_DEFAULT: &str = "info";
/// How long connections may go on once builds have been drained.
pub(super) const CLOSE_MAX: Duration = Duration::from_secs(10);
/// How long threads that are still at work are waited for at the very end.
pub(super) const THREADS_MAX: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT, then drains.
pub(crate) fn run(settings: &Settings, args: ServeArgs) -> Result<ExitCode> {
    start_log(args.node.log_format);
    let config = config(settings, &args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(run_until_signal(config, args));
    runtime.shutdown_timeout(THREADS_MAX);
    code
}

/// The dialects by the word of their prefix: one line each.
fn dialects(service: &Arc<Service>) -> Vec<(&'static str, Router)> {
    vec![
        (ashlar_dialect_nullspace::DIALECT, ashlar_dialect_nullspace::router(service.clone())),
        (ashlar_dialect_polyaxon::DIALECT, ashlar_dialect_polyaxon::router(service.clone())),
    ]
}

async fn run_until_signal(mut config: ServiceConfig, args: ServeArgs) -> Result<ExitCode> {
    let traces = Traces::start()?;
    config.observer = traces.observer();
    let service = Service::open(config).await.map_err(unusable)?;
    let options = ApiOptions {
        dialects: dialects(&service),
        proxies: TrustedProxies::new(args.trusted_proxy),
    };
    let apps = apps(&service, options).map_err(|e| anyhow::anyhow!(e.internal_text()))?;
    let exposed = args.expose.iter().map(|e| exposed(&apps, e)).collect::<Result<Vec<_>>>()?;
    let (stop, stopped) = watch::channel(false);
    let mut listeners = JoinSet::new();
    let main = listen(args.listen).await?;
    announce(&service, &main)?;
    listeners.spawn(serve(main, apps.main, ended(stopped.clone()), CLOSE_MAX));
    for (address, router) in exposed {
        let listener = listen(address).await?;
        listeners.spawn(serve(listener, router, ended(stopped.clone()), CLOSE_MAX));
    }
    service.start();
    supervisor::ready();
    wait_for_signal().await?;
    supervisor::stopping(end_max(&service));
    note("stopping: no new builds, running ones may end");
    // Builds first: those who follow them then see how they ended.
    service.drain().await;
    stop.send_replace(true);
    while let Some(served) = listeners.join_next().await {
        served??;
    }
    service.close().await;
    traces.flush().await;
    Ok(ExitCode::SUCCESS)
}

/// Returns how long the end may take once a signal has come: what follows it, one after the other.
pub(super) fn end_max(service: &Service) -> Duration {
    service.drain_max() + CLOSE_MAX + FLUSH_MAX + THREADS_MAX
}

/// Says why the service cannot be opened; a setting that is wrong is bad usage.
pub(super) fn unusable(error: Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::Invalid => Usage(error.public()).into(),
        _ => anyhow::anyhow!(error.internal_text()),
    }
}

fn announce(service: &Service, listener: &TcpListener) -> Result<()> {
    note(format!("listening on http://{}", listener.local_addr()?));
    if let Some(link) = service.public_link("/") {
        note(format!("links that are made with no request lead to {link}"));
    }
    match service.token_path() {
        Some(path) => note(format!("the admin token is in {}", path.display())),
        None => note("the admin token is the one in ASHLAR_TOKEN"),
    }
    Ok(())
}

fn exposed(apps: &Apps, expose: &Expose) -> Result<(SocketAddr, Router)> {
    let dialects = &apps.dialects;
    match dialects.iter().find(|(word, _)| *word == expose.dialect) {
        Some((_, router)) => Ok((expose.address, router.clone())),
        None => {
            let known: Vec<&str> = dialects.iter().map(|(word, _)| *word).collect();
            let (asked, known) = (&expose.dialect, known.join(", "));
            usage(format!("--expose: there is no dialect '{asked}'; there are: {known}"))
        }
    }
}

pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

pub(super) async fn ended(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the end too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

pub(super) async fn wait_for_signal() -> Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    // A second signal ends the process at once; what runs is found again at the next start.
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        std::process::exit(i32::from(crate::signals::INTERRUPTED));
    });
    Ok(())
}

fn config(settings: &Settings, args: &ServeArgs) -> Result<ServiceConfig> {
    let mut config = node_config(settings, &args.node)?;
    let shared = args.database.as_deref().is_some_and(is_postgres);
    if args.node.slots == 0 && !(shared && args.node.blob_store.is_some()) {
        note(
            "this server has no slots, and no worker can help it without PostgreSQL and a blob store",
        );
    }
    config.database.clone_from(&args.database);
    config.retention = args.retention.unwrap_or_default();
    config.public_url = public_url(args);
    config.requests_per_second = args.requests_per_second;
    config.admin_token = variable("ASHLAR_TOKEN").map(TokenText::new);
    Ok(config)
}

/// Returns the address for links: what was set, else the one that it listens on, unless that is
/// every address or a port that is not known yet.
fn public_url(args: &ServeArgs) -> Option<String> {
    let listen = args.listen;
    let is_one = !listen.ip().is_unspecified() && listen.port() != 0;
    let set = args.public_url.as_ref().map(ToString::to_string);
    set.or_else(|| is_one.then(|| format!("http://{listen}")))
}

/// Returns the settings that servers and workers share.
pub(super) fn node_config(settings: &Settings, args: &NodeArgs) -> Result<ServiceConfig> {
    let mut config = ServiceConfig::new(settings.dir()?);
    config.ca_bundle = settings.ca_bundle()?;
    config.git_file_root = settings.git_file_root()?;
    // A server lends no tenant the credentials of the user that it runs as.
    config.registries = RegistrySettings {
        mirrors: settings.mirrors.clone(),
        plain_http: settings.plain_http.clone(),
        ca_bundle: config.ca_bundle.clone(),
        egress: Egress::guarded(args.egress_allow.iter().cloned()).with_loopback(),
        ..RegistrySettings::default()
    };
    config.database_connections = NonZeroU32::new(args.database_connections);
    config.slots = args.slots;
    config.lease = args.lease;
    config.log_cap = args.log_cap;
    config.drain = args.drain;
    config.secrets_key = variable("ASHLAR_SECRETS_KEY");
    config.buildkit = args.buildkit.addresses();
    if let Some(address) = &args.blob_store {
        match ashlar_objects::open(address, std::env::vars()) {
            Ok(store) => config.blob_store = Some(store),
            Err(error) => return usage(format!("--blob-store: {:#}", anyhow::Error::new(error))),
        }
    }
    Ok(config)
}

/// Secrets come from the environment only: command lines are seen by everybody.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

pub(super) fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Pretty => log.with_ansi(colours).compact().init(),
        LogFormat::Json => log.json().init(),
    }
}
