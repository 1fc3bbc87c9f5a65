//! Rows that were read lately: lists show the same builds again and again, and taking the JSON of
//! one apart costs ten times what reading it does.

use std::sync::{Arc, Mutex, PoisonError};

use hashlink::LruCache;
use serde::de::DeserializeOwned;

use crate::Error;

/// Bytes of text that are remembered at most; what was made of it is some times as large.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Larger ones are not remembered.
const ROW_BYTES_MAX: usize = 16 * 1024;

/// What was read lately, by the rows' positions.
pub(crate) struct Recent<T> {
    kept: Mutex<Kept<T>>,
}

struct Kept<T> {
    /// Each with the text that it was made of: whoever changes a row, also from another process,
    /// changes its text.
    rows: LruCache<i64, (Box<str>, Arc<T>)>,
    bytes: usize,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { kept: Mutex::new(Kept { rows: LruCache::new_unbounded(), bytes: 0 }) }
    }
}

impl<T: DeserializeOwned> Recent<T> {
    /// Reads the text of a row, unless it is the one that was read last time.
    ///
    /// # Errors
    /// When it is no `what`.
    pub(crate) fn read(&self, position: i64, text: &str, what: &str) -> Result<Arc<T>, Error> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, read)) = kept.rows.get(&position).filter(|(old, _)| **old == *text) {
            return Ok(read.clone());
        }
        drop(kept);
        let read = serde_json::from_str(text).map_err(|e| Error::damaged(what, e))?;
        let read = Arc::new(read);
        if text.len() <= ROW_BYTES_MAX {
            kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.keep(position, text, &read);
        }
        Ok(read)
    }
}

impl<T> Kept<T> {
    fn keep(&mut self, position: i64, text: &str, read: &Arc<T>) {
        let old = self.rows.insert(position, (text.into(), read.clone()));
        self.bytes += text.len();
        self.bytes -= old.map_or(0, |(text, _)| text.len());
        while self.bytes > BYTES_MAX {
            let Some((_, (text, _))) = self.rows.remove_lru() else { break };
            self.bytes -= text.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_changed_is_read_again() {
        let recent = Recent::<Vec<u8>>::default();
        let first = recent.read(1, "[1]", "a list").unwrap();
        assert!(Arc::ptr_eq(&first, &recent.read(1, "[1]", "a list").unwrap()));
        assert_eq!(*recent.read(1, "[2]", "a list").unwrap(), [2]);
        assert_eq!(*recent.read(2, "[1]", "a list").unwrap(), [1]);
        assert!(recent.read(1, "{}", "a list").is_err());
    }

    #[test]
    fn no_more_is_remembered_than_fits() {
        let recent = Recent::<String>::default();
        let text = format!("\"{}\"", "x".repeat(1022));
        for position in 0..i64::try_from(2 * BYTES_MAX / text.len()).unwrap() {
            recent.read(position, &text, "a text").unwrap();
        }
        let large = format!("\"{}\"", "x".repeat(ROW_BYTES_MAX));
        recent.read(-1, &large, "a text").unwrap();
        let kept = recent.kept.lock().unwrap();
        assert_eq!((kept.bytes, kept.rows.len()), (BYTES_MAX, BYTES_MAX / text.len()));
    }
}
