//! Fields of a tar header block (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual,
//! "Basic Tar Format").

/// Every header and all padding come in blocks of this many bytes.
pub(crate) const BLOCK: usize = 512;

/// A header block: `name[100] mode[8] uid[8] gid[8] size[12] mtime[12] chksum[8] typeflag
/// linkname[100] magic[6] version[2] uname[32] gname[32] devmajor[8] devminor[8] prefix[155]`.
#[derive(Clone)]
pub(crate) struct Header(pub(crate) [u8; BLOCK]);

/// A numeric or text field as a byte range of the block.
pub(crate) type Field = std::ops::Range<usize>;

pub(crate) const NAME: Field = 0..100;
pub(crate) const MODE: Field = 100..108;
pub(crate) const UID: Field = 108..116;
pub(crate) const GID: Field = 116..124;
pub(crate) const SIZE: Field = 124..136;
pub(crate) const MTIME: Field = 136..148;
pub(crate) const CHECKSUM: Field = 148..156;
pub(crate) const TYPE: usize = 156;
pub(crate) const LINK: Field = 157..257;
pub(crate) const MAGIC: Field = 257..265;
pub(crate) const DEV_MAJOR: Field = 329..337;
pub(crate) const DEV_MINOR: Field = 337..345;
pub(crate) const PREFIX: Field = 345..500;
/// GNU: four pairs of offset and length, then "more follow", then the real size.
pub(crate) const GNU_SPARSE: Field = 386..482;
pub(crate) const GNU_MORE: usize = 482;
pub(crate) const GNU_REAL_SIZE: Field = 483..495;

pub(crate) const MAGIC_USTAR: &[u8; 8] = b"ustar\x0000";

impl Header {
    /// An empty POSIX header.
    pub(crate) fn new(kind: u8) -> Self {
        let mut block = [0; BLOCK];
        block[TYPE] = kind;
        block[MAGIC].copy_from_slice(MAGIC_USTAR);
        Self(block)
    }

    /// Returns a text field up to its first NUL.
    pub(crate) fn text(&self, field: Field) -> &[u8] {
        let text = &self.0[field];
        let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
        &text[..end]
    }

    /// Sets a text field; the caller has checked that it fits.
    pub(crate) fn set_text(&mut self, field: Field, text: &[u8]) {
        self.0[field.start..field.start + text.len()].copy_from_slice(text);
    }

    /// Returns a numeric field: octal, or base 256 when the first bit is set (GNU, star).
    pub(crate) fn number(&self, field: Field) -> Option<i64> {
        parse_number(&self.0[field])
    }

    /// Sets a numeric field if the number fits in octal; else leaves zeros there.
    pub(crate) fn set_number(&mut self, field: Field, number: i64) -> bool {
        let digits = field.len() - 1;
        let fits = number >= 0 && (number >> (3 * digits)) == 0;
        let text = format!("{:0digits$o}", if fits { number } else { 0 });
        self.set_text(field, text.as_bytes());
        fits
    }

    /// Computes and sets the checksum; the last thing to do.
    pub(crate) fn seal(&mut self) {
        let sum = self.checksums().0;
        self.set_text(CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
    }

    /// Whether the checksum is right, by the standard's sum or by that of old signed-char tars.
    pub(crate) fn is_sealed(&self) -> bool {
        let (unsigned, signed) = self.checksums();
        self.number(CHECKSUM).is_some_and(|sum| sum == unsigned || sum == signed)
    }

    fn checksums(&self) -> (i64, i64) {
        let mut sums = (0, 0);
        for (at, &byte) in self.0.iter().enumerate() {
            let byte = if CHECKSUM.contains(&at) { b' ' } else { byte };
            sums.0 += i64::from(byte);
            sums.1 += i64::from(byte.cast_signed());
        }
        sums
    }
}

/// Reads an octal or base-256 number; blank is zero, and anything odd is none.
pub(crate) fn parse_number(field: &[u8]) -> Option<i64> {
    let &first = field.first()?;
    if first & 0x80 != 0 {
        return parse_base256(field);
    }
    let text = field.trim_ascii_start();
    let end = text.iter().position(|&b| b == 0 || b == b' ').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if rest.iter().any(|&b| b != 0 && b != b' ') {
        return None;
    }
    digits.iter().try_fold(0_i64, |number, &digit| match digit {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Two's complement, big endian; the first bit only says that it is base 256.
fn parse_base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let mut number: i128 = if negative { -1 } else { 0 };
    for (at, &byte) in field.iter().enumerate() {
        let byte = match (at, negative) {
            (0, false) => byte & 0x7f,
            _ => byte,
        };
        number = (number << 8) | i128::from(byte);
    }
    i64::try_from(number).ok()
}

/// Returns how many zero bytes follow `size` bytes of data.
pub(crate) fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_both_notations() {
        assert_eq!(parse_number(b"0000644\0"), Some(0o644));
        assert_eq!(parse_number(b"   644 \0"), Some(0o644));
        assert_eq!(parse_number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(parse_number(b"0000648\0"), None);
        assert_eq!(parse_number(b"12\0 7\0\0\0"), None);
        assert_eq!(parse_number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(parse_number(&[0xff; 12]), Some(-1));
        assert_eq!(parse_number(&[0xbf; 12]), None);
    }

    #[test]
    fn set_numbers_read_back() {
        let mut header = Header::new(b'0');
        assert!(header.set_number(SIZE, 0o77_777_777_777));
        assert_eq!(header.number(SIZE), Some(0o77_777_777_777));
        assert!(!header.set_number(SIZE, 1 << 33));
        assert!(!header.set_number(MTIME, -1));
        header.seal();
        assert!(header.is_sealed());
        header.0[0] ^= 1;
        assert!(!header.is_sealed());
    }
}
