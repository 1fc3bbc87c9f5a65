//! Threads that take log text apart for readers, and give way to everything else: any number of
//! readers may wish to see what a build writes, but none may slow it down.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::oneshot;

use crate::Error;

/// How much the threads give way (`nice`).
const NICE: i32 = 10;
/// Threads at most.
const THREADS_MAX: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// The threads of a store, started when they are needed first and ended with it.
#[derive(Default)]
pub(crate) struct Readers {
    jobs: OnceLock<Sender<Job>>,
}

impl Readers {
    /// Does some work on one of the threads.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (send, receive) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Whoever asked may be gone; then nobody needs the result.
            if !send.is_closed() {
                let _ = send.send(work());
            }
        });
        let jobs = self.jobs.get_or_init(start);
        jobs.send(job).map_err(|_| Error::Gone)?;
        receive.await.map_err(|_| Error::Gone)
    }
}

fn start() -> Sender<Job> {
    let (sender, receiver) = channel::<Job>();
    let receiver = Arc::new(Mutex::new(receiver));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..cores.min(THREADS_MAX) {
        let receiver = Arc::clone(&receiver);
        let thread = std::thread::Builder::new().name("log readers".into());
        // With fewer threads readers wait longer; with none they are told so.
        if let Err(error) = thread.spawn(move || serve(&receiver)) {
            tracing::warn!(%error, "a thread for readers of logs does not start");
        }
    }
    sender
}

fn serve(jobs: &Mutex<Receiver<Job>>) {
    // Where it is not allowed the threads are as important as all others.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job();
    }
}
