//! Text of many lines: a table of pieces, each what one stream wrote at one time, then their bytes.

use ashlar_core::Timestamp;
use ashlar_core::graph::StepId;
use ashlar_core::journal::text::{decode, how_ends, split_lines};
use ashlar_core::journal::{Level, LogLine, LogText, Stream};

use super::lines::{flags, get_step, origin};
use super::varint::{get, later, put};
use super::{ROW_BYTES_MAX, ROW_LINES_MAX, TEXT, TEXT_ZSTD, compressed};

/// Collects text for one row.
#[derive(Debug)]
pub(crate) struct TextRow {
    first: Timestamp,
    last: Timestamp,
    count: u64,
    pieces: u64,
    table: Vec<u8>,
    text: Vec<u8>,
}

/// A row of text whose place in the journal is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackedText {
    /// When its first line was written.
    pub(crate) at: Timestamp,
    pub(crate) count: u64,
    /// Nanoseconds from the first to the last line.
    pub(crate) span: i64,
    pub(crate) body: Vec<u8>,
}

impl TextRow {
    /// Begins a row with a piece of text, which must not be empty.
    pub(crate) fn new(at: Timestamp, text: &LogText) -> Self {
        let last = Timestamp::from_nanos(at.nanos().saturating_sub(1));
        let (table, bytes) = (Vec::new(), Vec::with_capacity(text.bytes.len()));
        let mut row = Self { first: at, last, count: 0, pieces: 0, table, text: bytes };
        row.push(at, text);
        row
    }

    /// Says whether a piece fits too.
    pub(crate) fn has_room_for(&self, text: &LogText) -> bool {
        self.count < ROW_LINES_MAX && self.text.len() + text.bytes.len() <= ROW_BYTES_MAX
    }

    /// Adds a piece of text, which must not be empty.
    pub(crate) fn push(&mut self, at: Timestamp, text: &LogText) {
        let (lines, bytes) = (text.count(), &text.bytes);
        let time = at.after(Some(self.last));
        let gap = time.nanos().saturating_sub(self.last.nanos()).saturating_sub(1);
        put(&mut self.table, u64::try_from(gap).unwrap_or(0));
        self.table.push(flags(text.stream, text.level, text.partial));
        put(&mut self.table, text.step.map_or(0, |s| u64::from(s.0) + 1));
        put(&mut self.table, lines);
        put(&mut self.table, bytes.len() as u64);
        self.text.extend_from_slice(bytes);
        self.pieces += 1;
        self.count += lines;
        self.last = advance(time, lines - 1);
    }

    /// Packs the row.
    pub(crate) fn pack(self) -> PackedText {
        let mut plain = Vec::with_capacity(self.table.len() + self.text.len() + 11);
        plain.push(TEXT);
        put(&mut plain, self.pieces);
        plain.extend_from_slice(&self.table);
        plain.extend_from_slice(&self.text);
        PackedText {
            at: self.first,
            count: self.count,
            span: self.last.nanos().saturating_sub(self.first.nanos()),
            body: compressed(plain, TEXT_ZSTD),
        }
    }
}

/// Packs lines without text, the last one `span` nanoseconds after the first one.
pub(super) fn empty(count: u64, span: i64) -> Vec<u8> {
    let lines = |n: u64| LogText {
        step: None,
        stream: Stream::Service,
        level: Level::Info,
        bytes: vec![b'\n'; usize::try_from(n).unwrap_or(0)],
        partial: false,
    };
    let start = Timestamp::from_nanos(0);
    let mut row = TextRow::new(start, &lines(count.saturating_sub(1).max(1)));
    if count > 1 {
        row.push(Timestamp::from_nanos(span), &lines(1));
    }
    row.pack().body
}

fn advance(time: Timestamp, by: u64) -> Timestamp {
    Timestamp::from_nanos(time.nanos().saturating_add(i64::try_from(by).unwrap_or(i64::MAX)))
}

/// One piece of a row.
pub(super) struct Piece<'a> {
    pub(super) first: Timestamp,
    pub(super) lines: u64,
    pub(super) bytes: &'a [u8],
    step: Option<StepId>,
    stream: Stream,
    level: Level,
    partial: bool,
}

impl Piece<'_> {
    /// Hands out the lines from the `skip`-th on with their places in the piece, as long as `take`
    /// wants more. Nothing when there are not as many as the table says.
    pub(super) fn each(
        &self,
        skip: u64,
        take: &mut dyn FnMut(u64, Timestamp, LogLine) -> bool,
    ) -> Option<bool> {
        let mut place = 0;
        for (bytes, last) in split_lines(self.bytes) {
            if place >= skip {
                let (text, raw) = decode(bytes);
                let (step, stream, level) = (self.step, self.stream, self.level);
                let (partial, unended) = how_ends(self.bytes, last, self.partial);
                let line = LogLine { step, stream, level, text, raw, partial, unended };
                if !take(place, advance(self.first, place), line) {
                    return Some(false);
                }
            }
            place += 1;
        }
        (place == self.lines).then_some(true)
    }
}

/// Takes a row of text apart into its pieces; nothing when it is cut.
pub(super) fn pieces(time: Timestamp, mut bytes: &[u8]) -> Option<Vec<Piece<'_>>> {
    let count = get(&mut bytes)?;
    let mut pieces = Vec::new();
    let mut next = time.nanos();
    for _ in 0..count {
        let first = later(next, get(&mut bytes)?)?;
        let (byte, rest) = bytes.split_first()?;
        bytes = rest;
        let (stream, level, partial) = origin(*byte)?;
        let step = get_step(&mut bytes)?;
        let (lines, length) = (get(&mut bytes)?, usize::try_from(get(&mut bytes)?).ok()?);
        if lines == 0 || lines > length as u64 {
            return None;
        }
        next = later(first, lines)?;
        let piece = Piece {
            first: Timestamp::from_nanos(first),
            lines,
            bytes: &[],
            step,
            stream,
            level,
            partial,
        };
        pieces.push((piece, length));
    }
    let mut whole = Vec::with_capacity(pieces.len());
    for (piece, length) in pieces {
        let (mine, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        whole.push(Piece { bytes: mine, ..piece });
    }
    bytes.is_empty().then_some(whole)
}
