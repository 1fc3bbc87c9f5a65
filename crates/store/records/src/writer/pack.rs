//! Packs what waits to be written, beside what is being written: compression takes longer than the
//! database does, and longer than one core has when a step says all that it can.

use std::mem;
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc::Sender;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::{FLUSH, Shared};
use crate::Error;
use crate::codec::text::TextRow;
use crate::finish::Decide;
use crate::journal::{Said, Stamped};

/// A batch of so many bytes is packed at once.
pub(super) const BATCH_BYTES: usize = 1024 * 1024;
/// Threads that pack one batch at most.
const THREADS_MAX: usize = 4;
/// Less is packed at once: handing it to another thread would take longer.
const HAND_OVER_BYTES: usize = 16 * 1024;

/// What waits to be written. Text is collected where it waits.
pub(super) enum Waiting {
    Event(Stamped),
    Text(TextRow),
}

/// What is written in one transaction.
pub(super) struct Batch {
    pub(super) said: Vec<Said>,
    /// How many calls said it.
    pub(super) count: u64,
    /// What it was before it was packed.
    pub(super) bytes: usize,
    /// How the attempt ends, with the last batch.
    pub(super) decide: Option<Arc<Decide>>,
}

/// What waited.
struct Taken {
    waiting: Vec<Waiting>,
    /// How many calls said it.
    count: u64,
    bytes: usize,
    decide: Option<Arc<Decide>>,
    /// Nothing more will come.
    last: bool,
}

/// Makes batches of what waits.
pub(super) struct Packer {
    shared: Arc<Shared>,
}

impl Packer {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Packs until nothing more is said, or nobody writes any more.
    pub(super) async fn run(self, batches: Sender<Batch>) {
        loop {
            self.gather().await;
            let Taken { waiting, count, bytes, decide, last } = self.take();
            if count > 0 {
                // When the runtime ends the receiver finds out.
                let Ok(said) = pack(waiting, bytes).await else { return };
                if batches.send(Batch { said, count, bytes, decide }).await.is_err() {
                    return;
                }
            }
            if last {
                return;
            }
        }
    }

    /// Waits until there is a batch to pack.
    async fn gather(&self) {
        let mut deadline = None;
        loop {
            {
                let buffer = self.shared.lock();
                let hurry = buffer.hurry > buffer.taken;
                if buffer.closed || hurry || buffer.bytes >= BATCH_BYTES {
                    return;
                }
                if !buffer.waiting.is_empty() {
                    deadline.get_or_insert(Instant::now() + FLUSH);
                }
            }
            let work = self.shared.work.notified();
            if let Some(deadline) = deadline {
                if timeout_at(deadline, work).await.is_err() {
                    return;
                }
            } else {
                work.await;
            }
        }
    }

    /// Takes what waits.
    fn take(&self) -> Taken {
        let mut buffer = self.shared.lock();
        let bytes = mem::take(&mut buffer.bytes);
        buffer.underway += bytes;
        let said = buffer.said;
        let count = said - mem::replace(&mut buffer.taken, said);
        let (waiting, decide) = (mem::take(&mut buffer.waiting), buffer.decide.take());
        buffer.closed |= decide.is_some();
        let last = buffer.closed;
        let taken = Taken { waiting, count, bytes, decide, last };
        drop(buffer);
        self.shared.room.notify_all();
        taken
    }
}

/// Packs `bytes` of what waits, in order.
async fn pack(waiting: Vec<Waiting>, bytes: usize) -> Result<Vec<Said>, Error> {
    if bytes < HAND_OVER_BYTES {
        return Ok(pack_part(waiting));
    }
    // Compression takes longer than a task may keep its thread.
    let parts = split(waiting, threads());
    let running: Vec<_> =
        parts.into_iter().map(|part| spawn_blocking(move || pack_part(part))).collect();
    let mut said = Vec::new();
    for part in running {
        said.extend(part.await.map_err(|_| Error::Gone)?);
    }
    Ok(said)
}

/// Splits a list into at most so many parts, which are about equally long.
fn split<T>(mut rest: Vec<T>, parts: usize) -> Vec<Vec<T>> {
    let length = rest.len().div_ceil(parts.max(1)).max(1);
    let mut split = Vec::with_capacity(parts);
    while rest.len() > length {
        let later = rest.split_off(length);
        split.push(std::mem::replace(&mut rest, later));
    }
    split.push(rest);
    split
}

fn pack_part(waiting: Vec<Waiting>) -> Vec<Said> {
    let said = |waiting| match waiting {
        Waiting::Event(stamped) => Said::Event(stamped),
        Waiting::Text(row) => Said::Text(row.pack()),
    };
    waiting.into_iter().map(said).collect()
}

/// Returns how many threads pack. It is asked for once: the answer takes files to be read.
fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| {
        std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn parts_hold_everything_in_order() {
        for length in 0..20 {
            for parts in 1..6 {
                let all: Vec<usize> = (0..length).collect();
                let split = split(all.clone(), parts);
                assert!(split.len() <= parts);
                assert_eq!(split.concat(), all);
            }
        }
    }
}
