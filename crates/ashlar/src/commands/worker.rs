//! `ashlar worker`: runs builds of a database's queue, beside its servers, until a signal ends it.

use std::process::ExitCode;

use anyhow::Result;
use ashlar_api::{TrustedProxies, health_app, serve};
use ashlar_service::{Service, ServiceConfig};
use tokio::sync::watch;

use super::serve::{
    CLOSE_MAX, THREADS_MAX, end_max, ended, listen, node_config, start_log, unusable,
    wait_for_signal,
};
use super::{supervisor, usage};
use crate::cli::worker::WorkerArgs;
use crate::output::note;
use crate::settings::Settings;
use crate::telemetry::Traces;

/// Works until SIGTERM or SIGINT, then drains.
pub(crate) fn run(settings: &Settings, args: WorkerArgs) -> Result<ExitCode> {
    let Some(database) = args.database.clone().filter(|d| is_postgres(d)) else {
        return usage(
            "--database: a worker shares the queue of its servers, which takes PostgreSQL: give it \
             the postgres:// address that they have",
        );
    };
    if args.node.blob_store.is_none() {
        return usage(
            "--blob-store: a worker reads contexts from where the servers keep them and brings \
             results there: give it the address that they have",
        );
    }
    if args.node.slots == 0 {
        return usage("--slots: a worker without slots does nothing; give it 1 or more");
    }
    start_log(args.node.log_format);
    let mut config = node_config(settings, &args.node)?;
    config.database = Some(database);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(run_until_signal(config, args));
    runtime.shutdown_timeout(THREADS_MAX);
    code
}

/// Says whether an address is one that several machines can share.
pub(super) fn is_postgres(database: &str) -> bool {
    database.starts_with("postgres://") || database.starts_with("postgresql://")
}

async fn run_until_signal(mut config: ServiceConfig, args: WorkerArgs) -> Result<ExitCode> {
    let traces = Traces::start()?;
    config.observer = traces.observer();
    let slots = config.slots;
    let service = Service::open(config).await.map_err(unusable)?;
    let (stop, stopped) = watch::channel(false);
    let mut listener = None;
    if let Some(address) = args.listen {
        let routes = health_app(&service, TrustedProxies::default());
        let routes = routes.map_err(|e| anyhow::anyhow!(e.internal_text()))?;
        let socket = listen(address).await?;
        note(format!("health and metrics at http://{}", socket.local_addr()?));
        listener = Some(tokio::spawn(serve(socket, routes, ended(stopped), CLOSE_MAX)));
    }
    service.start();
    supervisor::ready();
    note(format!("working on up to {slots} builds at once"));
    wait_for_signal().await?;
    supervisor::stopping(end_max(&service));
    note("stopping: no new builds, running ones may end");
    service.drain().await;
    stop.send_replace(true);
    if let Some(listener) = listener {
        listener.await??;
    }
    service.close().await;
    traces.flush().await;
    Ok(ExitCode::SUCCESS)
}
