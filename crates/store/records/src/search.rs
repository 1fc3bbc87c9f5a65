//! Searching logs, of running and of ended builds.

use ashlar_core::BuildId;
use ashlar_core::journal::Entry;

use crate::codec::search::Needle;
use crate::most::entry_bytes;
use crate::read::RowReader;
use crate::{Error, Most, Store};

/// Text that one call looks through at most, in bytes; it then says where to go on.
pub const SEARCHED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Lines that one call returns about at most, in bytes as [`crate::line_bytes`] counts them.
pub const FOUND_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Log entries, oldest first.
    pub entries: Vec<Entry>,
    /// The number to go on from, when there may be more.
    pub next: Option<u64>,
    /// The number after the last entry that was looked at: where to go on once there are more.
    pub end: u64,
}

impl Store {
    /// Looks for log lines with a text, in any case (of other than ASCII texts, as Unicode lowers
    /// it), from an entry's number on: at most `limit`, or about [`FOUND_BYTES_MAX`] of them, and
    /// only through [`SEARCHED_BYTES_MAX`].
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
        let (mut entries, mut searched, mut end) = (Vec::new(), 0, from);
        let mut left = Most { entries: limit, bytes: FOUND_BYTES_MAX };
        while let Some((place, plain)) = rows.open().await? {
            rows.advance();
            searched += plain.bytes().len();
            let needle = needle.clone();
            let look = move || {
                let (mut found, mut more) = (Vec::new(), None);
                let take = &mut |entry: Entry| {
                    if left.is_reached() {
                        more = Some(entry.number);
                    } else {
                        left.take(entry_bytes(&entry, 0));
                        found.push(entry);
                    }
                    more.is_none()
                };
                plain.search(&place, end, &needle, take).map(|()| (found, more, left))
            };
            let (found, more, rest) = self.readers.run(look).await??;
            entries.extend(found);
            left = rest;
            end = more.unwrap_or(place.number + place.count).max(from);
            if more.is_some() || searched >= SEARCHED_BYTES_MAX {
                return Ok(Found { entries, next: Some(end), end });
            }
        }
        Ok(Found { entries, next: None, end })
    }
}
