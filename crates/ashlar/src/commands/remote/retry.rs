//! `ashlar builds retry --server`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use ashlar_client::{Client, RetryAsk};
use ashlar_core::BuildId;

use super::build::new_key;
use super::follow::{Watched, show_start};
use super::{submission, told};
use crate::cli::builds::RetryArgs;
use crate::commands::build::{self, Subject, report};
use crate::commands::usage;
use crate::progress::{self, Display, ProgressKind};
use crate::signals;

/// Lets a server build again and shows it.
///
/// # Errors
/// When a secret is missing; when it cannot begin, or be watched.
pub(in crate::commands) fn retry(
    client: &Client,
    build: BuildId,
    args: &RetryArgs,
) -> Result<ExitCode> {
    if args.backend.is_some() {
        return usage(
            "--backend: a server builds again on what it was asked for then; leave it away",
        );
    }
    let began = Instant::now();
    let earlier = client.build(&build.to_string()).map_err(told)?;
    let given = |id: &&str| args.secrets.iter().any(|(name, _)| name == id);
    if let Some(missing) = earlier.secret_ids().into_iter().find(|id| !given(id)) {
        return usage(format!(
            "the build {build} had the secret '{missing}', which the server has erased since; give \
             it again: --secret id={missing},src=FILE"
        ));
    }
    let secrets = args.secrets.iter().cloned().collect();
    let ask = RetryAsk {
        newest: args.newest,
        no_cache: args.no_cache,
        secrets: submission::secrets(build::read_secrets(&secrets)?),
        credentials: submission::logins_of(earlier.login_hosts().into_iter()),
        idempotency_key: Some(new_key()?),
    };
    let cancel = signals::cancel_on_signals()?;
    let accepted = client.retry(build, &ask).map_err(told)?;
    let display = Display::new(progress::view(args.progress));
    let ticking = display.start_ticking_when(args.progress == ProgressKind::Auto);
    show_start(&display, accepted.id, &accepted.name);
    let watched = Watched { client, build: accepted.id, display: &display, cancel: &cancel };
    let seen = watched.to_the_end();
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            display.stop(ticking);
            return Err(error);
        }
    };
    let id = accepted.id.to_string();
    let ended = seen.ended(&id, began);
    display.end(&ended);
    display.stop(ticking);
    let (progress, server) = (args.progress, Some(client.server()));
    let subject = Subject { definition: None, progress, server, pulls: &[] };
    report::show(&subject, &ended);
    Ok(build::exit_code(ended.state))
}
