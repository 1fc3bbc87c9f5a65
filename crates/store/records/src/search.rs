//! Searching logs, of running and of ended builds.

use ashlar_core::BuildId;
use ashlar_core::journal::Entry;

use crate::codec::search::Needle;
use crate::read::RowReader;
use crate::{Error, Store};

/// Text that one call looks through at most, in bytes; it then says where to go on.
pub const SEARCHED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Log entries, oldest first.
    pub entries: Vec<Entry>,
    /// The number to go on from, when there may be more.
    pub next: Option<u64>,
}

impl Store {
    /// Looks for log lines with a text, in any case (of other than ASCII texts, as Unicode lowers
    /// it), from an entry's number on: at most `limit`, and only through [`SEARCHED_BYTES_MAX`].
    ///
    /// # Errors
    /// When the database or the blob store fails, or an entry is damaged.
    pub async fn search(
        &self,
        build: BuildId,
        text: &str,
        from: u64,
        limit: usize,
    ) -> Result<Found, Error> {
        let needle = Needle::new(text);
        let mut rows = RowReader::new(self.clone(), build, from);
        let (mut entries, mut searched, mut next) = (Vec::new(), 0, from);
        while let Some((place, plain)) = rows.open().await? {
            rows.advance();
            searched += plain.bytes().len();
            let (needle, left) = (needle.clone(), limit - entries.len());
            let look = move || {
                let mut found = Vec::new();
                let take = &mut |entry| {
                    found.push(entry);
                    // One more says where to go on.
                    found.len() <= left
                };
                plain.search(&place, next, &needle, take).map(|()| found)
            };
            entries.extend(self.readers.run(look).await??);
            next = place.number + place.count;
            if entries.len() > limit {
                let next = entries.pop().map(|more: Entry| more.number);
                return Ok(Found { entries, next });
            }
            if searched >= SEARCHED_BYTES_MAX {
                return Ok(Found { entries, next: Some(next) });
            }
        }
        Ok(Found { entries, next: None })
    }
}
