//! Lists as they are sent: the same pages and the same builds are listed again and again, and writing
//! them takes longer than all else that a list does for them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use ashlar_service::{Listed, Record};
use axum::body::Bytes;
use hashlink::LruCache;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::view::BuildView;

/// Rows that are remembered at most, of 1 to 2 KiB each.
const ROWS_MAX: usize = 4096;
/// Bytes of pages that are remembered at most.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// Bytes around the rows of a page, to begin with.
const AROUND: usize = 256;

/// A row, written.
#[derive(Debug, Clone)]
struct Row(Arc<RawValue>);

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A page of builds.
#[derive(Serialize)]
struct Listing {
    builds: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
}

/// Something that was written lately, by where it is: nothing else can be there as long as it is
/// remembered here, and what is in an [`Arc`] never changes.
type Lately<T, W> = LruCache<usize, (Weak<T>, W)>;

/// Rows and pages that were written lately.
pub(crate) struct Written {
    rows: Mutex<Lately<Record, Row>>,
    pages: Mutex<Pages>,
}

struct Pages {
    pages: Lately<Listed, Bytes>,
    bytes: usize,
}

impl Default for Written {
    fn default() -> Self {
        let pages = Pages { pages: LruCache::new_unbounded(), bytes: 0 };
        Self { rows: Mutex::new(LruCache::new(ROWS_MAX)), pages: Mutex::new(pages) }
    }
}

impl Written {
    /// Returns a page's JSON.
    ///
    /// # Errors
    /// None that is known: pages are objects with plain values.
    pub(crate) fn page(&self, listed: &Arc<Listed>) -> serde_json::Result<Bytes> {
        let place = Arc::as_ptr(listed).addr();
        if let Some((_, page)) = self.pages().pages.get(&place) {
            return Ok(page.clone());
        }
        let builds = self.rows(&listed.records)?;
        let next = listed.next.map(|cursor| cursor.to_string());
        let length: usize = builds.iter().map(|row| row.0.get().len() + 1).sum();
        // A body that grew as it is written would be copied again and again.
        let mut body = Vec::with_capacity(length + AROUND);
        serde_json::to_writer(&mut body, &Listing { builds, next, total: listed.total })?;
        let page = Bytes::from(body);
        self.pages().keep(place, listed, &page);
        Ok(page)
    }

    fn rows(&self, records: &[Arc<Record>]) -> serde_json::Result<Vec<Row>> {
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

    fn pages(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn keep(&mut self, place: usize, listed: &Arc<Listed>, page: &Bytes) {
        // Nobody asks for this page a second time.
        if Arc::strong_count(listed) == 1 {
            return;
        }
        self.bytes += page.len();
        if let Some((_, old)) = self.pages.insert(place, (Arc::downgrade(listed), page.clone())) {
            self.bytes -= old.len();
        }
        while self.bytes > PAGE_BYTES_MAX {
            let Some((_, (_, old))) = self.pages.remove_lru() else { break };
            self.bytes -= old.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(total: u64) -> Arc<Listed> {
        Arc::new(Listed { records: Vec::new(), next: None, total: Some(total) })
    }

    #[test]
    fn a_page_is_written_once_as_long_as_somebody_has_it() {
        let written = Written::default();
        let page = listed(7);
        let _somebody = Arc::clone(&page);
        let first = written.page(&page).unwrap();
        assert_eq!(first, r#"{"builds":[],"total":7}"#);
        assert_eq!(written.page(&page).unwrap().as_ptr(), first.as_ptr());
        assert_eq!(written.page(&listed(8)).unwrap(), r#"{"builds":[],"total":8}"#);
        assert_eq!(written.pages().pages.len(), 1, "nobody has the other one");
    }

    #[test]
    fn no_more_is_remembered_than_fits() {
        let (mut pages, body) = (Written::default(), Bytes::from(vec![b'x'; 1 << 20]));
        let all: Vec<_> = (0..20).map(listed).collect();
        let others = all.clone();
        let pages = pages.pages.get_mut().unwrap();
        for page in &all {
            pages.keep(Arc::as_ptr(page).addr(), page, &body);
        }
        drop(others);
        assert_eq!((pages.bytes, pages.pages.len()), (PAGE_BYTES_MAX, PAGE_BYTES_MAX >> 20));
    }
}
