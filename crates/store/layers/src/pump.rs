//! Reads on one thread what another one uses, and hashes it on the way.

use std::io::{BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use ashlar_core::{Digest, Hasher};

use crate::error::{LayerError, Result};

const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks under way between the two threads: 2 MiB.
const CHUNKS: usize = 8;

type Chunk = std::io::Result<Vec<u8>>;

/// What [`read_ahead`] gives to its user: a stream, and at its end the digest of all of it.
pub struct Hashed {
    chunks: Receiver<Chunk>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

/// Reads `input` ahead on a thread of its own while `consume` uses it here, and returns what
/// `consume` did and the SHA-256 of the whole input.
///
/// # Errors
/// Those of `consume`, and read errors of `input` past what `consume` read: the digest is always
/// that of the whole input.
pub fn read_ahead<T>(
    input: impl Read + Send,
    consume: impl FnOnce(&mut Hashed) -> Result<T>,
) -> Result<(T, Digest)> {
    std::thread::scope(|scope| {
        let (full_sender, chunks) = sync_channel(CHUNKS);
        let (empty, empty_receiver) = sync_channel(CHUNKS);
        let reader = scope.spawn(move || read_all(input, &full_sender, &empty_receiver));
        let mut hashed = Hashed { chunks, empty, current: Vec::new(), at: 0, ended: false };
        let used = consume(&mut hashed).and_then(|used| hashed.drain().map(|()| used));
        drop(hashed);
        let digest = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((used?, digest))
    })
}

fn read_all(mut input: impl Read, full: &SyncSender<Chunk>, empty: &Receiver<Vec<u8>>) -> Digest {
    let mut hasher = Hasher::new();
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.resize(CHUNK_BYTES, 0);
        let read = fill(&mut input, &mut chunk);
        let ended = !matches!(read, Ok(CHUNK_BYTES));
        let chunk = read.map(|len| {
            chunk.truncate(len);
            chunk
        });
        // The user sees the chunk first and so can work while it is hashed.
        let copy = chunk.as_ref().map(|chunk| hasher.update(chunk)).is_ok();
        if full.send(chunk).is_err() || ended || !copy {
            return hasher.finish();
        }
    }
}

fn fill(input: &mut impl Read, chunk: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    while len < chunk.len() {
        match input.read(&mut chunk[len..]) {
            Ok(0) => break,
            Ok(got) => len += got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

impl Hashed {
    fn drain(&mut self) -> Result<()> {
        loop {
            let len = self.fill_buf().map_err(read_error)?.len();
            if len == 0 {
                return Ok(());
            }
            self.consume(len);
        }
    }
}

fn read_error(source: std::io::Error) -> LayerError {
    LayerError::Stream { action: "read", source }
}

impl BufRead for Hashed {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.at == self.current.len() && !self.ended {
            let used = std::mem::take(&mut self.current);
            if let Err(TrySendError::Full(unneeded)) = self.empty.try_send(used) {
                drop(unneeded);
            }
            self.at = 0;
            match self.chunks.recv() {
                Ok(chunk) => {
                    let chunk = chunk.inspect_err(|_| self.ended = true)?;
                    self.ended = chunk.len() < CHUNK_BYTES;
                    self.current = chunk;
                }
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, len: usize) {
        self.at += len;
    }
}

impl Read for Hashed {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.fill_buf()?;
        let len = bytes.len().min(into.len());
        into[..len].copy_from_slice(&bytes[..len]);
        self.consume(len);
        Ok(len)
    }
}
