//! Rows of lists as they are sent: the same builds are listed again and again, and writing one takes
//! longer than all else that a list does for it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use ashlar_service::Record;
use hashlink::LruCache;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::view::BuildView;

/// Rows that are remembered at most, of 1 to 2 KiB each.
const ROWS_MAX: usize = 4096;

/// A row, written.
#[derive(Debug, Clone)]
pub(crate) struct Row(Arc<RawValue>);

impl Row {
    /// Returns its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.get().len()
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Rows that were written lately.
pub(crate) struct Written {
    /// By where the record is, which nothing else can be as long as it is remembered here. A record
    /// in an [`Arc`] never changes.
    rows: Mutex<LruCache<usize, (Weak<Record>, Row)>>,
}

impl Default for Written {
    fn default() -> Self {
        Self { rows: Mutex::new(LruCache::new(ROWS_MAX)) }
    }
}

impl Written {
    /// Returns the rows of records.
    ///
    /// # Errors
    /// None that is known: rows are objects with plain values.
    pub(crate) fn rows(&self, records: &[Arc<Record>]) -> serde_json::Result<Vec<Row>> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |record: &Arc<Record>| {
            let place = Arc::as_ptr(record).addr();
            if let Some((_, row)) = rows.get(&place) {
                return Ok(row.clone());
            }
            let value = serde_json::value::to_raw_value(&BuildView::row(record))?;
            let row = Row(value.into());
            rows.insert(place, (Arc::downgrade(record), row.clone()));
            Ok(row)
        };
        records.iter().map(row).collect()
    }
}
