//! Finds out how a stream is compressed and reads it plain.

use std::io::{BufRead, BufReader, Chain, Cursor, Read};

/// Read from the source at once.
const BUFFER_BYTES: usize = 128 * 1024;
/// The longest magic number: xz's.
const MAGIC_BYTES_MAX: usize = 6;
/// A zstd frame may ask for this window at most (`2^n` bytes): RFC 8878 asks decoders for 8 MiB,
/// `zstd --long` makes up to 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// An xz stream may ask for this much memory at most, in KiB; `xz -9` needs 65 MiB.
const XZ_MEMORY_KIB_MAX: u32 = 128 * 1024;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not at all.
    Plain,
    /// gzip (RFC 1952), any number of members.
    Gzip,
    /// zstd (RFC 8878), any number of frames.
    Zstd,
    /// bzip2, any number of streams.
    Bzip2,
    /// xz, any number of streams.
    Xz,
}

impl Format {
    /// Returns the format whose magic number `start` begins with.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame in front.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }
}

/// Returns the uncompressed form of `source`, whatever it is compressed with.
///
/// # Errors
/// When `source` cannot be read or a decoder cannot be set up. Broken data shows while reading.
pub fn decompress<'a>(
    mut source: impl Read + Send + 'a,
) -> std::io::Result<(Format, Box<dyn Read + Send + 'a>)> {
    let mut start = Vec::with_capacity(MAGIC_BYTES_MAX);
    source.by_ref().take(MAGIC_BYTES_MAX as u64).read_to_end(&mut start)?;
    let format = Format::of(&start);
    let source = rejoin(start, source);
    let plain: Box<dyn Read + Send + 'a> = match format {
        Format::Plain => Box::new(source),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Format::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        Format::Xz => Box::new(xz(source)),
    };
    Ok((format, plain))
}

fn rejoin<R: Read>(start: Vec<u8>, rest: R) -> BufReader<Chain<Cursor<Vec<u8>>, R>> {
    BufReader::with_capacity(BUFFER_BYTES, Cursor::new(start).chain(rest))
}

fn xz<R: BufRead>(source: R) -> impl Read {
    lzma_rust2::XzReader::new_mem_limit(source, true, XZ_MEMORY_KIB_MAX)
}
