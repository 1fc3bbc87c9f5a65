//! Commands that need other processes beside them: a server with a probe, then the command.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::{Background, Exec};
use ashlar_sandbox::{Cancel, Exit, Io, News, Process, SandboxError, Session, Spec, Stdin, Stream};

use super::BuildJob;
use super::exec::sandbox_failure;
use super::probe::Waiting;
use crate::error::internal;

/// How many pieces of output may wait to be passed on: whoever writes more is slowed down.
const SAID_MAX: usize = 16;

/// How often it is looked whether the build was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(20);

impl BuildJob {
    /// Starts the background processes, waits until their probes pass, runs the command, and ends
    /// everything.
    pub(super) fn run_with_background(
        &self,
        exec: &Exec,
        spec: &Spec,
        io: Io<'_>,
        cancel: &Cancel,
    ) -> Result<Exit, Failure> {
        let session = self.engine.sandbox.start(spec).map_err(|e| sandbox_failure(&e))?;
        let stop = Cancel::new().map_err(internal)?;
        let Io { stdin, output } = io;
        let stages: Vec<Progress> = exec.background.iter().map(|_| Progress::default()).collect();
        let result = std::thread::scope(|scope| {
            let (said, heard) = sync_channel(SAID_MAX);
            let mut listener = Listener { heard, output };
            for (background, progress) in exec.background.iter().zip(&stages) {
                let process = background_process(background, spec);
                serve(scope, &*session, process, progress, said.clone(), &stop);
            }
            let ready =
                exec.background.iter().zip(&stages).try_for_each(|(background, progress)| {
                    let (session, like) = (&*session, &spec.process);
                    Waiting { session, background, like, progress, said: &said, cancel }
                        .wait(&mut listener)
                });
            let result = ready
                .and_then(|()| run(&*session, &spec.process, stdin, &said, &mut listener, cancel));
            stop.cancel();
            drop(said);
            listener.rest();
            result
        });
        let made = session.end().map_err(|e| sandbox_failure(&e))?;
        result.map(|exit| Exit { created_mountpoints: made, ..exit })
    }
}

fn background_process(background: &Background, spec: &Spec) -> Process {
    let mut env = spec.process.env.clone();
    env.extend(background.env.iter().map(|(n, v)| (n.into(), v.into())));
    Process {
        args: background.args.iter().map(Into::into).collect(),
        env,
        cwd: if background.cwd.is_empty() {
            spec.process.cwd.clone()
        } else {
            (&background.cwd).into()
        },
        user: spec.process.user.clone(),
    }
}

/// Runs a background process on a thread of its own.
fn serve<'scope>(
    scope: &'scope Scope<'scope, '_>,
    session: &'scope dyn Session,
    process: Process,
    progress: &'scope Progress,
    said: SyncSender<Heard>,
    stop: &'scope Cancel,
) {
    scope.spawn(move || {
        let mut write = |stream: Stream, bytes: &[u8]| tell(&said, stream, bytes);
        let news = |news: News| {
            progress.set(match news {
                News::Running => Stage::Running(Instant::now()),
                News::Ended(exit) => Stage::Ended(exit),
            });
            change(&said);
        };
        let served = session.serve(&process, Io::output(&mut write), &news, stop);
        match served {
            Ok(exit) => progress.set(Stage::Ended(exit)),
            Err(error) => progress.set(Stage::Broken(broken(&error))),
        }
        change(&said);
    });
}

/// A command that cannot be executed is no server that gets ready.
fn broken(error: &SandboxError) -> Failure {
    let failure = sandbox_failure(error);
    match error {
        SandboxError::Exec { .. } => Failure { kind: FailureKind::Readiness, ..failure },
        _ => failure,
    }
}

/// Runs the command itself, on a thread of its own: what the others write meanwhile is passed on as
/// it comes.
fn run(
    session: &dyn Session,
    process: &Process,
    stdin: Stdin,
    said: &SyncSender<Heard>,
    listener: &mut Listener<'_>,
    cancel: &Cancel,
) -> Result<Exit, Failure> {
    beside(
        said,
        listener,
        || {},
        || {
            let mut write = |stream: Stream, bytes: &[u8]| tell(said, stream, bytes);
            let io = Io { stdin, output: &mut write };
            session.exec(process, io, cancel).map_err(|e| sandbox_failure(&e))
        },
    )
}

/// Does `work` on a thread of its own and passes output on meanwhile; `look` is called from time to
/// time.
pub(super) fn beside<T: Send + Sync>(
    said: &SyncSender<Heard>,
    listener: &mut Listener<'_>,
    look: impl Fn(),
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let done = OnceLock::new();
    std::thread::scope(|scope| {
        let done = &done;
        let said = said.clone();
        let working = scope.spawn(move || {
            // Nobody else sets it.
            let _ = done.set(work());
            change(&said);
        });
        while done.get().is_none() && !working.is_finished() {
            look();
            listener.listen(None);
        }
    });
    let panicked = || Failure::new(FailureKind::Internal, "a thread of the step panicked");
    done.into_inner().unwrap_or_else(|| Err(panicked()))
}

/// What the thread that may write output hears from the others.
pub(super) enum Heard {
    /// Something to be passed on.
    Said(Stream, Vec<u8>),
    /// A process began or ended, or something else is done.
    Changed,
}

fn tell(said: &SyncSender<Heard>, stream: Stream, bytes: &[u8]) {
    // It cannot fail: the listener outlives whoever tells it something.
    let _ = said.send(Heard::Said(stream, bytes.to_vec()));
}

fn change(said: &SyncSender<Heard>) {
    // Where there is no room, the listener is awake; and it may be waiting for this very thread.
    let _ = said.try_send(Heard::Changed);
}

/// Passes on what processes write.
pub(super) struct Listener<'a> {
    heard: Receiver<Heard>,
    output: &'a mut dyn FnMut(Stream, &[u8]),
}

impl Listener<'_> {
    /// Passes output on until something has changed, for a short while at most, and not beyond
    /// `until`.
    pub(super) fn listen(&mut self, until: Option<Instant>) {
        let soon = Instant::now() + CANCEL_POLL;
        let until = until.map_or(soon, |until| until.min(soon));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(Heard::Said(stream, bytes)) => (self.output)(stream, &bytes),
                Ok(Heard::Changed) | Err(_) => return,
            }
            if left.is_zero() {
                return;
            }
        }
    }

    /// Passes on what is left, until nobody can say anything any more.
    fn rest(&mut self) {
        for heard in &self.heard {
            if let Heard::Said(stream, bytes) = heard {
                (self.output)(stream, &bytes);
            }
        }
    }
}

/// How far a background process has come.
#[derive(Clone, Default)]
pub(super) enum Stage {
    /// It is being made.
    #[default]
    Starting,
    /// It runs since then.
    Running(Instant),
    /// It has ended; what it left behind may go on.
    Ended(Exit),
    /// It could not be run.
    Broken(Failure),
}

/// [`Stage`], as threads share it.
#[derive(Default)]
pub(super) struct Progress(Mutex<Stage>);

impl Progress {
    pub(super) fn get(&self) -> Stage {
        self.lock().clone()
    }

    fn set(&self, stage: Stage) {
        *self.lock() = stage;
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
