//! Where a frame lies.

use ashlar_core::Digest;

use super::POINTER;
use super::varint::{get, put};

/// A longer frame is not read: a frame is made of at most [`super::ROW_BYTES_MAX`] bytes, or of one
/// row with a longer line.
const FRAME_BYTES_MAX: u64 = super::INFLATED_MAX as u64;

/// A frame's place in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// The segment's blob.
    pub(crate) segment: Digest,
    /// Offset of the frame's first byte.
    pub(crate) offset: u64,
    /// Bytes of the frame.
    pub(crate) length: u64,
}

impl Pointer {
    /// Packs it as a row's body.
    pub(crate) fn pack(&self) -> Vec<u8> {
        let mut body = vec![POINTER];
        body.extend_from_slice(self.segment.as_bytes());
        put(&mut body, self.offset);
        put(&mut body, self.length);
        body
    }

    /// Reads the body of a row, if it is a pointer: nothing inside when it is cut.
    pub(crate) fn of(body: &[u8]) -> Option<Option<Self>> {
        match body.split_first() {
            Some((&POINTER, rest)) => Some(Self::parse(rest)),
            _ => None,
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (digest, mut rest) = bytes.split_at_checked(32)?;
        let segment = Digest::from_bytes(digest.try_into().ok()?);
        let (offset, length) = (get(&mut rest)?, get(&mut rest)?);
        let ends = offset.checked_add(length).is_some() && length <= FRAME_BYTES_MAX;
        (rest.is_empty() && ends).then_some(Self { segment, offset, length })
    }
}
