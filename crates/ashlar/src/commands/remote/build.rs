//! `ashlar build --server`: uploads what the server lacks, submits, follows, fetches.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result};
use ashlar_client::{Build, Client, Error, Submission};
use ashlar_core::Digest;
use ashlar_core::journal::Progress;
use ashlar_core::state::State;
use ashlar_layers::Stop;
use ashlar_native::Checkout;
use ashlar_oci::{PullPolicy, Reference};
use ashlar_sandbox::Cancel;

use super::context::{Local, Scanned};
use super::follow::{Seen, Watched, show_start};
use super::{outputs, submission, told};
use crate::cli::build::BuildArgs;
use crate::commands::build::{self, Definition, Subject, report};
use crate::progress::{self, Display, Ended, ProgressKind};
use crate::settings::Settings;
use crate::signals;

/// Builds at a server and shows it.
///
/// # Errors
/// When it cannot begin, or be watched; a build that fails has its own exit code.
pub(in crate::commands) fn run(
    settings: &Settings,
    client: &Client,
    args: &BuildArgs,
) -> Result<ExitCode> {
    submission::check(args)?;
    let (mut definition, _inputs) = build::read(settings, args)?;
    build::check_stdout(&definition, args.show.kind())?;
    if args.show.kind() != ProgressKind::Quiet {
        submission::tell_what_stays_here(settings, args);
    }
    let began = Instant::now();
    let cancel = signals::cancel_on_signals()?;
    let mut wanted = submission::submission(&definition, args)?;
    wanted.secrets = submission::secrets(build::read_secrets(&definition.secrets)?);
    wanted.idempotency_key = Some(new_key()?);
    let _checkout = check_out(settings, &mut definition, &cancel)?;
    wanted.credentials = submission::logins(&definition)?;
    let display = Display::new(progress::view(args.show.kind()));
    let ticking = display.start_ticking_when(args.show.kind() == ProgressKind::Auto);
    let sent = Sender { settings, client, display: &display, cancel: &cancel };
    let accepted = sent.send(&definition, wanted);
    let accepted = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            display.stop(ticking);
            return stopped_early(error, &cancel, "nothing was built");
        }
    };
    show_start(&display, accepted.id, &accepted.name);
    let watched = Watched { client, build: accepted.id, display: &display, cancel: &cancel };
    let seen = watched.to_the_end().and_then(|mut seen| {
        if seen.state == Some(State::Succeeded) {
            let fetched = outputs::fetch(&watched, &definition, &mut seen.made);
            fetched.with_context(|| format!("the build {} succeeded, but", accepted.id))?;
        }
        Ok(seen)
    });
    let mut seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            display.stop(ticking);
            return stopped_early(error, &cancel, "not all outputs were written");
        }
    };
    seen.made.names = definition.names.iter().map(Reference::familiar).collect();
    let id = accepted.id.to_string();
    let ended = seen.ended(&id, began);
    display.end(&ended);
    display.stop(ticking);
    if ended.state == State::Succeeded {
        let files = (args.result.iidfile.as_deref(), args.result.metadata_file.as_deref());
        let steps = match files.1 {
            Some(_) => client.build(&id).map_err(told)?.steps,
            None => Default::default(),
        };
        report::write_files(files, &ended, steps)?;
    }
    let subject = Subject {
        definition: Some(&definition),
        progress: args.show.kind(),
        server: Some(client.server()),
        pulls: &pull_names(client, &definition, &ended),
    };
    report::show(&subject, &ended);
    Ok(build::exit_code(ended.state))
}

/// Returns the names under which the server's registry has the image: tags lie below the tenant.
/// None where a proxy's path is in the way, since registries lie at the root of a host.
fn pull_names(client: &Client, definition: &Definition, ended: &Ended<'_>) -> Vec<String> {
    let host = client.server().split_once("://").map(|(_, host)| host);
    let host = host.filter(|host| ended.state == State::Succeeded && !host.contains('/'));
    // The build is done: a hint that cannot be had is no failure.
    let (Some(host), Ok(tags), Ok(who)) = (host, submission::tags(definition), client.whoami())
    else {
        return Vec::new();
    };
    let by_id = || vec![format!("builds:{}", ended.build)];
    let names = if tags.is_empty() { by_id() } else { tags };
    names.iter().map(|name| format!("{host}/{}/{name}", who.tenant)).collect()
}

/// Words an error that came before the build had an end.
fn stopped_early(error: anyhow::Error, cancel: &Cancel, what: &str) -> Result<ExitCode> {
    let stopped = matches!(error.downcast_ref::<Error>(), Some(Error::Stopped));
    if stopped || cancel.is_cancelled() {
        crate::output::note(format!("cancelled; {what}"));
        return Ok(ExitCode::from(signals::INTERRUPTED));
    }
    Err(error)
}

impl Seen {
    /// Returns how the build ended. One that was skipped failed for whoever waits for an image.
    pub(super) fn ended<'a>(&'a self, build: &'a str, began: Instant) -> Ended<'a> {
        Ended {
            build,
            state: self.state.unwrap_or(State::Cancelled),
            made: &self.made,
            failure: self.failure.as_ref(),
            took: began.elapsed(),
        }
    }
}

/// Returns a key that makes a repetition of the submission safe.
pub(super) fn new_key() -> Result<String> {
    Ok(ashlar_records::new_build_id(ashlar_records::now())?.to_string())
}

/// Checks a repository out on this machine, whose credentials for it are here.
fn check_out(
    settings: &Settings,
    definition: &mut Definition,
    cancel: &Cancel,
) -> Result<Option<Checkout>> {
    let Some(git) = &definition.git else { return Ok(None) };
    let engine = settings.engine(PullPolicy::Default)?;
    let checkout = engine.checkout(&git.remote, &git.reference, &git.subdir, cancel)?;
    let main = definition.request.context.clone();
    definition.contexts.insert(main, checkout.path().to_owned());
    Ok(Some(checkout))
}

/// Sends what the server lacks.
struct Sender<'a> {
    settings: &'a Settings,
    client: &'a Client,
    display: &'a Display,
    cancel: &'a Cancel,
}

impl Sender<'_> {
    fn send(&self, definition: &Definition, mut wanted: Submission) -> Result<Build> {
        let mut digests = BTreeMap::new();
        for (name, local) in submission::contexts(definition)? {
            digests.insert(name, self.upload(&local)?);
        }
        wanted.context = digests.remove(&definition.request.context);
        wanted.contexts = digests;
        self.client.submit(&wanted, &|| self.cancel.is_cancelled()).map_err(told)
    }

    /// Uploads a context and returns its digest.
    fn upload(&self, local: &Local) -> Result<Digest> {
        let Scanned { entries, uploads } = self.scan(local)?;
        let last = Mutex::new(0);
        let tell = |done: u64, total: u64| {
            let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // Uploads end in any order; a bar goes only forward.
            if done > *last {
                *last = done;
                let subject = "send the context".to_owned();
                self.display.lock().progress(&Progress { subject, done, total });
            }
        };
        let stop = || self.cancel.is_cancelled();
        self.client.upload(&uploads, &stop, &tell).map_err(told)?;
        self.client.put_context(&entries, &stop).map_err(told)
    }

    /// Scans a context; Ctrl-C ends that too.
    fn scan(&self, local: &Local) -> Result<Scanned> {
        let cache = self.settings.dir()?.join("cache/contexts");
        let stop = Stop::default();
        std::thread::scope(|scope| {
            let scan = scope.spawn(|| local.scan(&cache, &stop));
            while !scan.is_finished() {
                if self.cancel.is_cancelled() {
                    stop.stop();
                }
                std::thread::park_timeout(SCAN_POLL);
            }
            scan.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// How often a scan is looked at. Most end sooner than this.
const SCAN_POLL: std::time::Duration = std::time::Duration::from_millis(2);
