//! Frames: rows of a build that follow each other, as one piece of a segment.

use super::varint::{get, get_bytes, later, put, put_bytes};
use super::{Place, Plain, ROW_BYTES_MAX, ROW_LINES_MAX};

/// Frames are made once and read for years: a better compression than that of rows pays.
const ZSTD_LEVEL: i32 = 3;

/// Collects rows for one frame.
#[derive(Debug, Default)]
pub(crate) struct FrameBuilder {
    plain: Vec<u8>,
    first: Option<Place>,
    /// Number after the last row.
    next: u64,
    /// Times of the last row's first and last entry.
    times: (i64, i64),
}

impl FrameBuilder {
    /// Says whether a row of so many plain bytes belongs into the frame. It does when it follows
    /// the frame's last one and there is room.
    pub(crate) fn takes(&self, place: &Place, bytes: usize) -> bool {
        let Some(first) = self.first else { return true };
        place.number == self.next
            && self.plain.len() + bytes <= ROW_BYTES_MAX
            && self.next - first.number + place.count <= ROW_LINES_MAX
    }

    /// Adds a row that [`takes`](Self::takes) allows; `last_nanos` is the time of its last entry.
    pub(crate) fn push(&mut self, place: &Place, last_nanos: i64, row: &Plain) {
        if self.first.is_none() {
            self.first = Some(*place);
            self.times.0 = place.time.nanos();
        }
        put(&mut self.plain, place.count);
        let gap = place.time.nanos().saturating_sub(self.times.0);
        put(&mut self.plain, u64::try_from(gap).unwrap_or(0));
        put_bytes(&mut self.plain, row.bytes());
        self.next = place.number + place.count;
        self.times = (place.time.nanos(), last_nanos);
    }

    /// Returns which entries the frame holds, the time of the last one and the plain frame, and
    /// begins anew; nothing when it is empty.
    pub(crate) fn finish(&mut self) -> Option<(Place, i64, Vec<u8>)> {
        let done = std::mem::take(self);
        let first = done.first?;
        let place = Place { count: done.next - first.number, ..first };
        Some((place, done.times.1, done.plain))
    }
}

/// Compresses a frame; what is damaged later does not pass for anything else.
pub(crate) fn compress(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    compressor.include_checksum(true)?;
    compressor.compress(plain)
}

/// Takes a frame apart into its rows; nothing when it is cut or holds other rows than it should.
pub(super) fn rows<'a>(place: &Place, mut bytes: &'a [u8]) -> Option<Vec<(Place, &'a [u8])>> {
    let (mut number, mut nanos) = (place.number, place.time.nanos());
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let count = get(&mut bytes)?;
        nanos = later(nanos, get(&mut bytes)?)?;
        let body = get_bytes(&mut bytes)?;
        let time = ashlar_core::Timestamp::from_nanos(nanos);
        rows.push((Place { number, count, time }, body));
        number = number.checked_add(count)?;
    }
    (number == place.number.checked_add(place.count)? && rows.iter().all(|r| r.0.count > 0))
        .then_some(rows)
}
