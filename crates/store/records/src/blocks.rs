//! Rows that were read lately, taken apart: those who follow a log read the same rows at about the
//! same time, and whoever pages through a large row would inflate it for every page.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use crate::codec::Plain;
use crate::read::RawRow;

/// Bytes that are remembered at most.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Smaller rows are not worth it.
const BYTES_MIN: usize = 4 * 1024;

/// A build's position, the first entry's number, how many entries there are, and which body: a row
/// is emptied when its log is removed, and points to a segment when it has moved there.
type Key = (i64, u64, u64, Body);

/// What tells a row's body from those that it had before and will have. What replaces a body is
/// small, so of a large one, which is not read to be looked up, its length is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Large(u64),
    Small(u64),
}

/// Rows that were read lately.
#[derive(Default)]
pub(crate) struct Blocks {
    kept: Mutex<Kept>,
    hasher: RandomState,
}

#[derive(Default)]
struct Kept {
    /// The one that was used last comes last.
    blocks: VecDeque<(Key, Arc<Plain>)>,
    bytes: usize,
}

impl Blocks {
    fn key(&self, position: i64, row: &RawRow) -> Key {
        let body = match row.small_body() {
            Some(body) => Body::Small(self.hasher.hash_one(body)),
            None => Body::Large(row.length),
        };
        (position, row.place.number, row.place.count, body)
    }

    pub(crate) fn get(&self, position: i64, row: &RawRow) -> Option<Arc<Plain>> {
        let key = self.key(position, row);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.blocks.iter().position(|(k, _)| *k == key)?;
        let block = kept.blocks.remove(at)?;
        let plain = Arc::clone(&block.1);
        kept.blocks.push_back(block);
        Some(plain)
    }

    pub(crate) fn keep(&self, position: i64, row: &RawRow, plain: Plain) -> Arc<Plain> {
        let plain = Arc::new(plain);
        let bytes = plain.bytes().len();
        if (BYTES_MIN..BYTES_MAX / 4).contains(&bytes) {
            let key = self.key(position, row);
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
