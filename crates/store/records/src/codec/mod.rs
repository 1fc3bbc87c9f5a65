//! How entries lie in their rows.
//!
//! The first byte of a row's body says how: one event as JSON, single log lines in a compact form
//! ([`lines`]), text of many lines ([`text`]), or several earlier rows in one frame ([`frame`]),
//! each plain or compressed; that the frame lies in a segment ([`Pointer`]); or that the lines were
//! removed, of which only numbers and times are left. Readers see single entries. Rows come from a
//! database that others may write to, and frames from a blob store, so reading trusts nothing.

pub(crate) mod frame;
mod lines;
mod plain;
pub(crate) mod pointer;
pub(crate) mod search;
pub(crate) mod text;
mod varint;

use std::cell::RefCell;

use ashlar_core::Timestamp;
use ashlar_core::journal::{Entry, Event};

pub(crate) use plain::{Place, Plain};
pub(crate) use pointer::Pointer;

use crate::Error;

const EVENT: u8 = 0;
const LINES: u8 = 1;
const LINES_ZSTD: u8 = 2;
const TEXT: u8 = 3;
const TEXT_ZSTD: u8 = 4;
const FRAME: u8 = 5;
const POINTER: u8 = 6;
const REMOVED: u8 = 7;

/// Log lines that one row holds at most, but for those of one longer piece of text.
pub(crate) const ROW_LINES_MAX: u64 = 128 * 1024;
/// Text that one row holds at most, in bytes, but for a single longer line or piece of text.
pub(crate) const ROW_BYTES_MAX: usize = 256 * 1024;
/// Bodies from this size on are compressed.
const COMPRESS_FROM: usize = 512;
/// What a compressed body may grow to when it is read. A line is bounded by whoever writes it.
const INFLATED_MAX: usize = 64 * 1024 * 1024;
/// Rows are compressed while the build waits for it.
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    /// A compressor's tables cost more to make than a small row to compress.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> =
        RefCell::new(zstd::bulk::Compressor::new(ZSTD_LEVEL).ok());
}

/// Entries that share one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) number: u64,
    pub(crate) count: u64,
    pub(crate) time: Timestamp,
    pub(crate) last_time: Timestamp,
    pub(crate) body: Vec<u8>,
}

/// Packs entries that follow each other into rows.
pub(crate) fn pack(entries: &[Entry]) -> Result<Vec<Packed>, Error> {
    let mut rows = Vec::new();
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let length = lines::run_length(rest).max(1);
        let (now, later) = rest.split_at(length);
        rest = later;
        let body = match &first.event {
            Event::Log(_) => lines::pack(now),
            event => pack_event(event)?,
        };
        let last_time = now.last().map_or(first.time, |e| e.time);
        let (number, time, count) = (first.number, first.time, now.len() as u64);
        rows.push(Packed { number, count, time, last_time, body });
    }
    Ok(rows)
}

fn pack_event(event: &Event) -> Result<Vec<u8>, Error> {
    let mut body = vec![EVENT];
    serde_json::to_writer(&mut body, event).map_err(|e| Error::damaged("an event", e))?;
    Ok(body)
}

/// Says whether a row holds log lines, here.
pub(crate) fn is_log(body: &[u8]) -> bool {
    matches!(body.first(), Some(&(LINES | LINES_ZSTD | TEXT | TEXT_ZSTD)))
}

/// Returns the body that a row has once its log lines were removed: as many empty lines, from the
/// first one's time to the last one's, `span` nanoseconds later. Nothing for a row that holds no log.
pub(crate) fn emptied(body: &[u8], count: u64, span: i64) -> Option<Vec<u8>> {
    let empty = || [&[REMOVED][..], &text::empty(count, span)].concat();
    (holds_log(body) && !is_removed(body)).then(empty)
}

/// Says whether the log lines of a row were removed.
pub(crate) fn is_removed(body: &[u8]) -> bool {
    body.first() == Some(&REMOVED)
}

/// Says whether a row holds log lines, here or in a segment, or held some that were removed.
pub(crate) fn holds_log(body: &[u8]) -> bool {
    is_log(body) || matches!(body.first(), Some(&(FRAME | POINTER | REMOVED)))
}

/// Takes any bytes apart as the body of a row and as a frame, for tests with hostile bytes: returns
/// for each form that was not refused how many entries came out and how many were claimed.
#[doc(hidden)]
pub fn read_any_row(bytes: &[u8]) -> Vec<(u64, u64)> {
    const COUNTS: [u64; 4] = [0, 1, 2, 3];
    let mut read = Vec::new();
    for count in COUNTS {
        let place = Place { number: 7, count, time: Timestamp::from_nanos(1 << 60) };
        for plain in [Plain::of(&place, bytes), Plain::of_frame(&place, bytes)] {
            let mut entries = 0;
            let mut take = |_| {
                entries += 1;
                true
            };
            if plain.and_then(|plain| plain.each(&place, 0, &mut take)).is_ok() {
                read.push((entries, count));
            }
        }
    }
    // A pointer's parser has nothing to promise but that it returns.
    let _ = Pointer::of(bytes);
    read
}

/// Compresses a plain body when that makes it smaller; `kind` is then its first byte.
fn compressed(plain: Vec<u8>, kind: u8) -> Vec<u8> {
    if plain.len() < COMPRESS_FROM {
        return plain;
    }
    let small = COMPRESSOR.with_borrow_mut(|compressor| match compressor {
        Some(compressor) => compressor.compress(&plain[1..]),
        None => zstd::bulk::compress(&plain[1..], ZSTD_LEVEL),
    });
    match small {
        Ok(small) if small.len() < plain.len() => {
            let mut body = Vec::with_capacity(small.len() + 1);
            body.push(kind);
            body.extend_from_slice(&small);
            body
        }
        _ => plain,
    }
}

/// Undoes [`compressed`] for bytes after the first one.
fn inflate(bytes: &[u8], kind: u8) -> Result<Vec<u8>, String> {
    let size = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten();
    let size = size.and_then(|s| usize::try_from(s).ok()).ok_or("its size is not known")?;
    if size > INFLATED_MAX {
        return Err(format!("it claims to hold {size} bytes"));
    }
    let mut plain = vec![0; size + 1];
    plain[0] = kind;
    let read = zstd::bulk::decompress_to_buffer(bytes, &mut plain[1..]);
    let read = read.map_err(|e| e.to_string())?;
    if read != size { Err("it is shorter than it claims".into()) } else { Ok(plain) }
}

#[cfg(test)]
mod tests;
