//! Pages of lists that were asked for lately. Those who watch builds ask for the same page again and
//! again, mostly while nothing has changed.
//!
//! A page is as old as the version of its tenant's builds (`list_versions`, SQLite alone): one that is
//! remembered with the version that the database has now is what the database would say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;

use crate::list::{Filter, Listed, Page};

/// Records of all pages together that are remembered at most; most of them are in [`crate::recent`]
/// too.
const RECORDS_MAX: usize = 4096;

/// What was asked for.
pub(crate) type Asked = (Filter, Page);

/// Pages with the versions that they were read at.
#[derive(Default)]
pub(crate) struct Pages(Mutex<Kept>);

struct Kept {
    pages: LruCache<Asked, (i64, Arc<Listed>)>,
    records: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self { pages: LruCache::new_unbounded(), records: 0 }
    }
}

impl Pages {
    /// Returns a page as it is at a version.
    pub(crate) fn get(&self, asked: &Asked, version: i64) -> Option<Arc<Listed>> {
        let mut kept = self.lock();
        let (read_at, page) = kept.pages.get(asked)?;
        (*read_at == version).then(|| Arc::clone(page))
    }

    /// Remembers a page.
    pub(crate) fn put(&self, asked: Asked, version: i64, page: &Arc<Listed>) {
        let mut kept = self.lock();
        kept.records += weight(page);
        if let Some((_, old)) = kept.pages.insert(asked, (version, Arc::clone(page))) {
            kept.records -= weight(&old);
        }
        while kept.records > RECORDS_MAX {
            let Some((_, (_, old))) = kept.pages.remove_lru() else { break };
            kept.records -= weight(&old);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page without records takes room too.
fn weight(page: &Listed) -> usize {
    page.records.len() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Arc<Listed> {
        Arc::new(Listed { records: Vec::new(), next: None, total: None })
    }

    fn asked(size: u32) -> Asked {
        (Filter::default(), Page::newest(size))
    }

    #[test]
    fn a_page_is_remembered_for_its_version_only() {
        let (pages, page) = (Pages::default(), empty());
        pages.put(asked(1), 7, &page);
        assert!(pages.get(&asked(1), 7).is_some_and(|found| Arc::ptr_eq(&found, &page)));
        assert!(pages.get(&asked(1), 8).is_none() && pages.get(&asked(2), 7).is_none());
        let newer = empty();
        pages.put(asked(1), 8, &newer);
        assert!(pages.get(&asked(1), 8).is_some_and(|found| Arc::ptr_eq(&found, &newer)));
        assert_eq!(pages.lock().records, 1);
    }

    #[test]
    fn no_more_is_remembered_than_fits() {
        let pages = Pages::default();
        let many = u32::try_from(RECORDS_MAX).unwrap() + 10;
        (0..many).for_each(|size| pages.put(asked(size), 1, &empty()));
        let kept = pages.lock();
        assert_eq!((kept.records, kept.pages.len()), (RECORDS_MAX, RECORDS_MAX));
    }
}
