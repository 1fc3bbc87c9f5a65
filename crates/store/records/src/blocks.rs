//! Rows that were read lately, taken apart: those who follow a log read the same rows at about the
//! same time, and whoever pages through a large row would inflate it for every page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::codec::{Place, Plain};

/// Bytes that are remembered at most.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Smaller rows are not worth it.
const BYTES_MIN: usize = 4 * 1024;

/// A build's position, the first entry's number and how many entries there are.
type Key = (i64, u64, u64);

/// Rows that were read lately.
#[derive(Default)]
pub(crate) struct Blocks {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The one that was used last comes last.
    blocks: VecDeque<(Key, Arc<Plain>)>,
    bytes: usize,
}

impl Blocks {
    pub(crate) fn get(&self, position: i64, place: &Place) -> Option<Arc<Plain>> {
        let key = (position, place.number, place.count);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.blocks.iter().position(|(k, _)| *k == key)?;
        let block = kept.blocks.remove(at)?;
        let plain = Arc::clone(&block.1);
        kept.blocks.push_back(block);
        Some(plain)
    }

    pub(crate) fn keep(&self, position: i64, place: &Place, plain: Plain) -> Arc<Plain> {
        let plain = Arc::new(plain);
        let bytes = plain.bytes().len();
        if (BYTES_MIN..BYTES_MAX / 4).contains(&bytes) {
            let key = (position, place.number, place.count);
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.blocks.push_back((key, Arc::clone(&plain)));
            kept.bytes += bytes;
            while kept.bytes > BYTES_MAX {
                let Some((_, oldest)) = kept.blocks.pop_front() else { break };
                kept.bytes -= oldest.bytes().len();
            }
        }
        plain
    }
}
