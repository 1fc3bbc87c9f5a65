//! What a build shows while it runs: one view of the same events for each `--progress`.

mod json;
mod live;
mod model;
mod plain;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ashlar_core::failure::Failure;
use ashlar_core::journal::{Event, Progress};
use ashlar_core::state::State;
use clap::ValueEnum;
use serde::Serialize;

/// How often the live view is drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// The value of `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressKind {
    /// A live view on a terminal, plain text elsewhere
    Auto,
    /// One line for everything that happens
    Plain,
    /// Versioned JSON lines on standard output
    Json,
    /// The image's id alone
    Quiet,
}

/// What a build made.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Made {
    /// The image's id, when there is an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// The manifest's digest, when one was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<String>,
    /// Names of the image.
    pub(crate) names: Vec<String>,
    /// Where else the result was written.
    pub(crate) outputs: Vec<String>,
    /// Whether the whole build was answered by an earlier one.
    pub(crate) from_cache: bool,
}

/// How a build ended.
pub(crate) struct Ended<'a> {
    /// Its id.
    pub(crate) build: &'a str,
    /// How.
    pub(crate) state: State,
    /// What it made.
    pub(crate) made: &'a Made,
    /// Why it failed.
    pub(crate) failure: Option<&'a Failure>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Shows what happens.
pub(crate) trait View: Send {
    /// The build has begun.
    fn started(&mut self, build: &str, name: &str);
    /// Something happened.
    fn event(&mut self, event: &Event);
    /// Bytes moved.
    fn progress(&mut self, progress: &Progress);
    /// Time passed.
    fn tick(&mut self) {}
    /// The build has ended; nothing follows.
    fn ended(&mut self, end: &Ended<'_>);
}

/// Returns the view that fits a wish and the terminal.
pub(crate) fn view(kind: ProgressKind) -> Box<dyn View> {
    use std::io::IsTerminal as _;
    let dumb = std::env::var("TERM").is_ok_and(|t| t == "dumb");
    match kind {
        ProgressKind::Auto if std::io::stderr().is_terminal() && !dumb => {
            Box::new(live::Live::new())
        }
        ProgressKind::Auto | ProgressKind::Plain => Box::new(plain::Plain::stderr()),
        ProgressKind::Json => Box::new(json::Json::stdout()),
        ProgressKind::Quiet => Box::new(Quiet),
    }
}

/// Shows nothing.
struct Quiet;

impl View for Quiet {
    fn started(&mut self, _: &str, _: &str) {}
    fn event(&mut self, _: &Event) {}
    fn progress(&mut self, _: &Progress) {}
    fn ended(&mut self, _: &Ended<'_>) {}
}

/// A view that many threads speak to, and the thread that redraws it.
#[derive(Clone)]
pub(crate) struct Display {
    view: Arc<Mutex<Box<dyn View>>>,
    stop: Arc<AtomicBool>,
}

impl Display {
    /// Wraps a view.
    pub(crate) fn new(view: Box<dyn View>) -> Self {
        Self { view: Arc::new(Mutex::new(view)), stop: Arc::new(AtomicBool::new(false)) }
    }

    /// Starts the thread that redraws, if there is something to redraw.
    pub(crate) fn start_ticking_when(&self, wanted: bool) -> Option<JoinHandle<()>> {
        let display = self.clone();
        let ticking = move || {
            while !display.stop.load(Ordering::Relaxed) {
                display.lock().tick();
                std::thread::park_timeout(TICK);
            }
        };
        wanted.then(|| std::thread::spawn(ticking))
    }

    /// Ends that thread; what is drawn stays.
    pub(crate) fn stop(&self, ticking: Option<JoinHandle<()>>) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(ticking) = ticking {
            ticking.thread().unpark();
            // A thread that draws has nothing to tell.
            let _ = ticking.join();
        }
    }

    /// Gives access to the view.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Box<dyn View>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the view.
    pub(crate) fn end(&self, end: &Ended<'_>) {
        self.stop.store(true, Ordering::Relaxed);
        self.lock().ended(end);
    }
}
