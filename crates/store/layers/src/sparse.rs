//! Maps of sparse files in tars: GNU's old format and PAX formats 0.0, 0.1 and 1.0 (GNU tar manual,
//! "Storing Sparse Files").

use crate::header::{BLOCK, parse_number};
use crate::pax::decimal;

/// Where stored bytes belong: offset and length, in order.
pub(crate) type Segments = Vec<(u64, u64)>;

/// The most segments of one file.
const SEGMENTS_MAX: usize = 1 << 17;
/// Map bytes of an extension block: 21 pairs of 12-byte numbers; the next byte says "more follow".
pub(crate) const GNU_BLOCK_MAP_BYTES: usize = 504;
const GNU_NUMBER_BYTES: usize = 12;

/// What PAX records said about a sparse file.
#[derive(Debug, Clone, Default)]
pub(crate) struct PaxSparse {
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) real_size: Option<u64>,
    pub(crate) map: Option<Segments>,
    major: u64,
    pending_offset: Option<u64>,
}

impl PaxSparse {
    /// Reads the record `GNU.sparse.NAME`; none when the value is impossible.
    pub(crate) fn read(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        match name {
            b"major" => self.major = decimal(value)?,
            b"name" if !value.contains(&0) => self.name = Some(value.to_vec()),
            b"name" => return None,
            b"size" | b"realsize" => self.real_size = Some(decimal(value)?),
            b"offset" => self.pending_offset = Some(decimal(value)?),
            b"numbytes" => {
                let segment = (self.pending_offset.take()?, decimal(value)?);
                push(self.map.get_or_insert_default(), segment)?;
            }
            b"map" => self.map = Some(read_map(value)?),
            _ => {}
        }
        Some(())
    }

    pub(crate) fn is_version_1(&self) -> bool {
        self.major == 1
    }
}

fn push(segments: &mut Segments, segment: (u64, u64)) -> Option<()> {
    if segments.len() >= SEGMENTS_MAX {
        return None;
    }
    segments.push(segment);
    Some(())
}

fn read_map(text: &[u8]) -> Option<Segments> {
    let mut numbers = text.split(|&b| b == b',');
    let mut segments = Segments::new();
    while let Some(offset) = numbers.next() {
        push(&mut segments, (decimal(offset)?, decimal(numbers.next()?)?))?;
    }
    Some(segments)
}

/// Reads pairs of a GNU header or extension block; a pair of NULs ends it.
pub(crate) fn read_gnu_block(map: &[u8], segments: &mut Segments) -> Option<()> {
    for pair in map.chunks_exact(2 * GNU_NUMBER_BYTES) {
        let (offset, len) = pair.split_at(GNU_NUMBER_BYTES);
        if offset[0] == 0 || len[0] == 0 {
            break;
        }
        let number = |field| parse_number(field).and_then(|n| u64::try_from(n).ok());
        push(segments, (number(offset)?, number(len)?))?;
    }
    Some(())
}

/// Collects the map of format 1.0 from blocks: a count, then offsets and lengths, one a line.
#[derive(Default)]
pub(crate) struct MapReader {
    line: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
    segments: Segments,
}

impl MapReader {
    pub(crate) fn is_complete(&self) -> bool {
        self.count == Some(self.segments.len() as u64)
    }

    pub(crate) fn push(&mut self, block: &[u8; BLOCK]) -> Option<()> {
        for &byte in block {
            if self.is_complete() {
                break;
            }
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let number = decimal(&std::mem::take(&mut self.line))?;
            match (self.count, self.offset.take()) {
                (None, _) => self.count = Some(number),
                (_, None) => self.offset = Some(number),
                (_, Some(offset)) => push(&mut self.segments, (offset, number))?,
            }
        }
        // No number has more digits than a u64.
        (self.line.len() <= 20).then_some(())
    }

    pub(crate) fn into_segments(self) -> Segments {
        self.segments
    }
}

/// Whether the segments are in order, within the file, and hold exactly the stored bytes.
pub(crate) fn is_sound(segments: &Segments, real_size: u64, stored: u64) -> bool {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for &(offset, len) in segments {
        let Some(next) = offset.checked_add(len) else { return false };
        if offset < end || next > real_size {
            return false;
        }
        end = next;
        sum += len;
    }
    sum == stored
}
