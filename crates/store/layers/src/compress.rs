//! Compresses a stream on all cores, with output that does not depend on how many there are.
//!
//! The input is cut into chunks of fixed size, each of which becomes a gzip member or zstd frame of
//! its own: both formats allow any number of them one after the other.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use ashlar_core::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use crate::error::{LayerError, Result};

const GZIP_CHUNK_BYTES: usize = 1 << 20;
const ZSTD_CHUNK_BYTES: usize = 2 << 20;
/// More threads would hold more chunks than the memory that a build may take.
const WORKERS_MAX: usize = 8;

/// How a layer's tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all: the blob digest is the diff_id.
    None,
    /// gzip; level 0 to 12, where 4 is quick and smaller than zlib's 6.
    Gzip(u8),
    /// zstd; level 1 to 19.
    Zstd(u8),
}

impl Compression {
    /// gzip as layers usually have it.
    pub const GZIP: Self = Self::Gzip(4);
    /// gzip for files of this machine: 5 to 8 % larger in two thirds of the time, about as large as
    /// zlib's 6 makes them.
    pub const GZIP_QUICK: Self = Self::Gzip(1);
    /// zstd as quick as gzip is not.
    pub const ZSTD: Self = Self::Zstd(3);

    /// Returns the media type of such a layer (OCI image spec, "layer").
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip(_) => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd(_) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    fn chunk_bytes(self) -> usize {
        match self {
            Self::None | Self::Gzip(_) => GZIP_CHUNK_BYTES,
            Self::Zstd(_) => ZSTD_CHUNK_BYTES,
        }
    }
}

/// Digests and sizes of a stream and of its compressed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// SHA-256 of what went in.
    pub input: Digest,
    /// Bytes that went in.
    pub input_bytes: u64,
    /// SHA-256 of what came out.
    pub output: Digest,
    /// Bytes that came out.
    pub output_bytes: u64,
}

type Chunk = Arc<Vec<u8>>;
type Packed = std::io::Result<Chunk>;
type Job = (Chunk, SyncSender<Packed>);

/// Gives `produce` a stream to write to and writes its compressed form to `out`.
///
/// Reading, hashing, compressing and writing overlap; at most about 40 MiB are held.
///
/// # Errors
/// Those of `produce`, of `out` and of the compressor.
pub fn compress<T>(
    compression: Compression,
    out: &mut (impl Write + Send),
    produce: impl FnOnce(&mut Input) -> Result<T>,
) -> Result<(T, Compressed)> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    compress_on(cores.min(WORKERS_MAX), compression, out, produce)
}

fn compress_on<T>(
    workers: usize,
    compression: Compression,
    out: &mut (impl Write + Send),
    produce: impl FnOnce(&mut Input) -> Result<T>,
) -> Result<(T, Compressed)> {
    std::thread::scope(|scope| {
        let (jobs, job_queue) = sync_channel::<Job>(workers);
        let (order, ordered) = sync_channel::<Receiver<Packed>>(workers + 1);
        let (plain, plain_queue) = sync_channel::<Chunk>(workers + 1);
        let hashing = scope.spawn(move || hash(&plain_queue));
        let writing = scope.spawn(move || write(&ordered, out));
        let job_queue = Arc::new(Mutex::new(job_queue));
        for _ in 0..workers {
            let job_queue = Arc::clone(&job_queue);
            scope.spawn(move || pack_all(compression, &job_queue));
        }
        drop(job_queue);
        let size = compression.chunk_bytes();
        let mut input = Input { jobs, order, plain, chunk: Vec::new(), size };
        let produced =
            produce(&mut input).and_then(|done| input.send().map(|()| done).map_err(write_error));
        drop(input);
        let (input, input_bytes) = join(hashing);
        // What went wrong at the output is the cause; the producer only saw a closed channel.
        let (output, output_bytes) = join(writing)?;
        Ok((produced?, Compressed { input, input_bytes, output, output_bytes }))
    })
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn write_error(source: std::io::Error) -> LayerError {
    LayerError::Stream { action: "write", source }
}

/// Where a producer writes the uncompressed stream.
pub struct Input {
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<Packed>>,
    plain: SyncSender<Chunk>,
    chunk: Vec<u8>,
    size: usize,
}

impl Input {
    fn send(&mut self) -> std::io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = Arc::new(std::mem::take(&mut self.chunk));
        let (reply, packed) = sync_channel(1);
        let closed = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        self.order.send(packed).map_err(|_| closed())?;
        self.jobs.send((Arc::clone(&chunk), reply)).map_err(|_| closed())?;
        self.plain.send(chunk).map_err(|_| closed())
    }
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.chunk.capacity() == 0 {
            self.chunk.reserve_exact(self.size);
        }
        let len = bytes.len().min(self.size - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..len]);
        if self.chunk.len() == self.size {
            self.send()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn hash(chunks: &Receiver<Chunk>) -> (Digest, u64) {
    let mut hasher = Hasher::new();
    let mut bytes = 0;
    for chunk in chunks {
        bytes += chunk.len() as u64;
        hasher.update(chunk.as_slice());
    }
    (hasher.finish(), bytes)
}

fn write(ordered: &Receiver<Receiver<Packed>>, out: &mut impl Write) -> Result<(Digest, u64)> {
    let mut hasher = Hasher::new();
    let mut bytes = 0;
    for packed in ordered {
        let closed = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let packed = packed.recv().map_err(closed).flatten().map_err(write_error)?;
        out.write_all(&packed).map_err(write_error)?;
        hasher.update(packed.as_slice());
        bytes += packed.len() as u64;
    }
    Ok((hasher.finish(), bytes))
}

fn pack_all(compression: Compression, jobs: &Mutex<Receiver<Job>>) {
    let mut packer = Packer::new(compression);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((chunk, reply)) = job else { return };
        let packed = match &mut packer {
            Ok(packer) => packer.pack(&chunk),
            Err(error) => Err(std::io::Error::other(error.to_string())),
        };
        // A closed reply channel means that the output failed, which is reported there.
        let _ = reply.send(packed);
    }
}

enum Packer {
    None,
    Gzip(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Packer {
    fn new(compression: Compression) -> std::io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None,
            Compression::Gzip(level) => {
                let level = libdeflater::CompressionLvl::new(i32::from(level))
                    .map_err(|_| std::io::Error::other("gzip has no such level"))?;
                Self::Gzip(libdeflater::Compressor::new(level))
            }
            Compression::Zstd(level) => {
                let mut packer = zstd::bulk::Compressor::new(i32::from(level))?;
                packer.include_checksum(true)?;
                Self::Zstd(packer)
            }
        })
    }

    fn pack(&mut self, chunk: &Chunk) -> Packed {
        match self {
            Self::None => Ok(Arc::clone(chunk)),
            Self::Zstd(packer) => packer.compress(chunk).map(Arc::new),
            Self::Gzip(packer) => {
                let mut packed = vec![0; packer.gzip_compress_bound(chunk.len())];
                let len = packer
                    .gzip_compress(chunk, &mut packed)
                    .map_err(|error| std::io::Error::other(error.to_string()))?;
                packed.truncate(len);
                Ok(Arc::new(packed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_does_not_depend_on_the_number_of_threads() {
        let text: Vec<u8> = (0..5_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
            let run = |workers| {
                let mut out = Vec::new();
                let feed = |input: &mut Input| input.write_all(&text).map_err(write_error);
                let ((), sums) = compress_on(workers, compression, &mut out, feed).unwrap();
                assert_eq!(sums.output, Digest::of(&out));
                assert_eq!((sums.input, sums.input_bytes), (Digest::of(&text), 20_000_000));
                out
            };
            assert_eq!(run(1), run(5));
        }
    }

    #[test]
    fn a_failing_output_is_the_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let zeros = vec![0; 64 << 20];
        let feed = |input: &mut Input| input.write_all(&zeros).map_err(write_error);
        let error = compress_on(2, Compression::GZIP, &mut Full, feed).unwrap_err();
        assert!(matches!(error, LayerError::Stream { source, .. }
            if source.kind() == std::io::ErrorKind::StorageFull));
    }
}
