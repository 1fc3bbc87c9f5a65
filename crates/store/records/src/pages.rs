//! Pages of lists that were asked for lately. Those who watch builds ask for the same page again and
//! again, mostly while nothing has changed.
//!
//! A page is as old as the version of its tenant's builds (`list_versions`, SQLite alone): one that is
//! remembered with the version that the database has now is what the database would say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;

use crate::list::{Filter, Listed, Page};

/// Bytes of the rows of all pages together that are remembered at most, as the database has them;
/// what was made of them is some times as large, and mostly in [`crate::recent`] too.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a page takes without its rows, in bytes: its question above all.
const PAGE_BYTES: usize = 1024;

/// What was asked for.
pub(crate) type Asked = (Filter, Page);

/// Pages with the versions that they were read at.
#[derive(Default)]
pub(crate) struct Pages(Mutex<Kept>);

struct Kept {
    pages: LruCache<Asked, Read>,
    bytes: usize,
}

struct Read {
    version: i64,
    page: Arc<Listed>,
    bytes: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self { pages: LruCache::new_unbounded(), bytes: 0 }
    }
}

impl Pages {
    /// Returns a page as it is at a version.
    pub(crate) fn get(&self, asked: &Asked, version: i64) -> Option<Arc<Listed>> {
        let mut kept = self.lock();
        let read = kept.pages.get(asked)?;
        (read.version == version).then(|| Arc::clone(&read.page))
    }

    /// Remembers a page whose rows have so many bytes.
    pub(crate) fn put(&self, asked: Asked, version: i64, page: &Arc<Listed>, rows: usize) {
        let (page, bytes) = (Arc::clone(page), rows + PAGE_BYTES);
        let mut kept = self.lock();
        kept.bytes += bytes;
        if let Some(old) = kept.pages.insert(asked, Read { version, page, bytes }) {
            kept.bytes -= old.bytes;
        }
        while kept.bytes > BYTES_MAX {
            let Some((_, old)) = kept.pages.remove_lru() else { break };
            kept.bytes -= old.bytes;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Arc<Listed> {
        Arc::new(Listed { records: Vec::new(), next: None, total: None })
    }

    fn held(pages: &Pages) -> (usize, usize) {
        let kept = pages.lock();
        (kept.bytes, kept.pages.len())
    }

    fn asked(size: u32) -> Asked {
        (Filter::default(), Page::newest(size))
    }

    #[test]
    fn a_page_is_remembered_for_its_version_only() {
        let (pages, page) = (Pages::default(), empty());
        pages.put(asked(1), 7, &page, 9);
        assert!(pages.get(&asked(1), 7).is_some_and(|found| Arc::ptr_eq(&found, &page)));
        assert!(pages.get(&asked(1), 8).is_none() && pages.get(&asked(2), 7).is_none());
        let newer = empty();
        pages.put(asked(1), 8, &newer, 5);
        assert!(pages.get(&asked(1), 8).is_some_and(|found| Arc::ptr_eq(&found, &newer)));
        assert_eq!(pages.lock().bytes, PAGE_BYTES + 5);
    }

    #[test]
    fn no_more_is_remembered_than_fits() {
        let pages = Pages::default();
        let row = PAGE_BYTES;
        (0..5000).for_each(|size| pages.put(asked(size), 1, &empty(), row));
        let fitting = BYTES_MAX / (row + PAGE_BYTES);
        assert_eq!(held(&pages), (BYTES_MAX, fitting));
        pages.put(asked(0), 1, &empty(), BYTES_MAX);
        assert_eq!(held(&pages), (0, 0));
    }
}
