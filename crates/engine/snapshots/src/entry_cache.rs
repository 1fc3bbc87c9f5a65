//! Keeps the entry records of a few layers in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ashlar_layers::Entries;

use crate::LayerId;
use crate::error::Result;

/// Entries kept in all; one takes about 200 bytes, so these are 30 MiB at most.
const ENTRIES_MAX: usize = 150_000;
/// An empty layer counts too.
const LAYERS_MAX: usize = 512;

/// The records used last, the latest at the back.
#[derive(Default)]
pub(crate) struct EntryCache(Mutex<VecDeque<(LayerId, Arc<Entries>)>>);

impl EntryCache {
    pub(crate) fn get(
        &self,
        id: &LayerId,
        read: impl FnOnce() -> Result<Entries>,
    ) -> Result<Arc<Entries>> {
        if let Some(entries) = self.take_latest(id) {
            return Ok(entries);
        }
        let entries = Arc::new(read()?);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((*id, Arc::clone(&entries)));
        let mut total: usize = kept.iter().map(|(_, entries)| entries.len()).sum();
        while kept.len() > 1 && (total > ENTRIES_MAX || kept.len() > LAYERS_MAX) {
            total -= kept.pop_front().map_or(0, |(_, entries)| entries.len());
        }
        Ok(entries)
    }

    fn take_latest(&self, id: &LayerId) -> Option<Arc<Entries>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(other, _)| other == id)?;
        let found = kept.remove(at)?;
        kept.push_back(found.clone());
        Some(found.1)
    }

    pub(crate) fn forget(&self, id: &LayerId) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _)| other != id);
    }
}
