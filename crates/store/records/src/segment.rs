//! The bytes of a segment: zstd frames one after the other, with a table at the end, in the
//! seekable format (facebook/zstd, `contrib/seekable_format`). Any zstd reads it through, and
//! readers of that format find their way in it; ours know each frame's place from the database.

/// Skippable frames, RFC 8878, 3.1.2: the first of their magic numbers.
const SKIPPABLE: u32 = 0x184D_2A50;
/// The skippable frame of a seek table.
const SEEK_TABLE: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
/// Number of frames (4), descriptor (1), magic (4).
const FOOTER_BYTES: usize = 9;

/// Puts a segment together.
#[derive(Debug)]
pub(crate) struct SegmentBuilder {
    bytes: Vec<u8>,
    /// Compressed and plain length of each frame.
    frames: Vec<(u32, u32)>,
}

impl SegmentBuilder {
    /// Begins a segment. The salt makes its digest its own: a segment belongs to one build.
    pub(crate) fn new(salt: &[u8; 10]) -> Self {
        let mut bytes = Vec::new();
        put(&mut bytes, SKIPPABLE);
        put(&mut bytes, length(salt.len()));
        bytes.extend_from_slice(salt);
        let head = length(bytes.len());
        Self { bytes, frames: vec![(head, 0)] }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a compressed frame and returns its offset.
    pub(crate) fn push(&mut self, frame: &[u8], plain_bytes: usize) -> u64 {
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(frame);
        self.frames.push((length(frame.len()), length(plain_bytes)));
        offset
    }

    /// Ends it with its table.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        put(&mut self.bytes, SEEK_TABLE);
        put(&mut self.bytes, length(self.frames.len() * 8 + FOOTER_BYTES));
        for (compressed, plain) in &self.frames {
            put(&mut self.bytes, *compressed);
            put(&mut self.bytes, *plain);
        }
        put(&mut self.bytes, length(self.frames.len()));
        self.bytes.push(0);
        put(&mut self.bytes, SEEKABLE_MAGIC);
        self.bytes
    }
}

fn put(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend_from_slice(&value.to_le_bytes());
}

/// Lengths within a segment are far below 4 GiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_zstd_reads_a_segment_through() {
        let mut segment = SegmentBuilder::new(b"salt567890");
        let parts = [b"one ".repeat(100), b"two ".repeat(100)];
        let mut places = Vec::new();
        for part in &parts {
            let frame = zstd::bulk::compress(part, 1).unwrap();
            places.push((segment.push(&frame, part.len()) as usize, frame));
        }
        let bytes = segment.finish();
        assert_eq!(zstd::stream::decode_all(&bytes[..]).unwrap(), parts.concat());
        for (offset, frame) in places {
            assert_eq!(bytes[offset..offset + frame.len()], frame);
        }
        assert_eq!(bytes[bytes.len() - 4..], SEEKABLE_MAGIC.to_le_bytes());
        let count = &bytes[bytes.len() - FOOTER_BYTES..][..4];
        assert_eq!(count, 3_u32.to_le_bytes());
    }
}
