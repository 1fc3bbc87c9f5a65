//! Takes the archive that an exporter sends.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSend;
use bytes::{Buf as _, Bytes};
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

/// What the daemon is told when nobody reads its archive to the end.
pub(crate) const REFUSAL: &str = "the archive is refused";
/// Messages that wait to be read.
const WAITING_MAX: usize = 16;

type Piece = io::Result<Bytes>;

/// Makes the two ends of an archive's way.
pub(crate) fn archive() -> (Receiver, Archive) {
    let (sender, pieces) = mpsc::channel(WAITING_MAX);
    (
        Receiver(Mutex::new(Some(sender))),
        Archive { pieces, now: Bytes::new(), begun: false, ended: false },
    )
}

/// Where the daemon's exporter sends to, once.
pub(crate) struct Receiver(Mutex<Option<mpsc::Sender<Piece>>>);

/// The archive, to be read on a thread that may block. It ends without an error only when it came
/// to its end: an empty piece says so.
pub(crate) struct Archive {
    pieces: mpsc::Receiver<Piece>,
    now: Bytes,
    begun: bool,
    ended: bool,
}

impl Archive {
    /// Waits until something has come; none when the session ended with nothing sent.
    pub(crate) fn begun(&mut self) -> io::Result<bool> {
        if !self.begun && !self.ended {
            match self.pieces.blocking_recv() {
                Some(piece) => self.take(piece?),
                None => self.ended = true,
            }
        }
        Ok(self.begun)
    }

    fn take(&mut self, piece: Bytes) {
        self.begun = true;
        self.ended = piece.is_empty();
        self.now = piece;
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(piece) => self.take(piece?),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.now.len());
        buffer[..count].copy_from_slice(&self.now[..count]);
        self.now.advance(count);
        Ok(count)
    }
}

/// Passes an archive on from a stream of its bytes.
pub(crate) async fn forward(
    mut pieces: impl Stream<Item = Piece> + Unpin,
    to: mpsc::Sender<Piece>,
) {
    use futures_util::StreamExt as _;
    while let Some(piece) = pieces.next().await {
        let broken = piece.is_err();
        let empty = piece.as_ref().is_ok_and(Bytes::is_empty);
        if !empty && (to.send(piece).await.is_err() || broken) {
            return;
        }
    }
    // One who reads no more has all that it wants.
    let _ = to.send(Ok(Bytes::new())).await;
}

impl Receiver {
    /// Takes the way to the archive; none when it was taken before.
    pub(crate) fn take(&self) -> Option<mpsc::Sender<Piece>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[tonic::async_trait]
impl FileSend for Receiver {
    type DiffCopyStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let sender = self.take().ok_or_else(|| Status::already_exists("there is one archive"))?;
        let mut incoming = request.into_inner();
        loop {
            let piece = match incoming.message().await {
                Ok(Some(message)) if message.data.is_empty() => continue,
                Ok(Some(message)) => Ok(Bytes::from(message.data)),
                Ok(None) => break,
                Err(status) => Err(io::Error::other(status)),
            };
            let broken = piece.is_err();
            if sender.send(piece).await.is_err() {
                return Err(Status::aborted(REFUSAL));
            }
            if broken {
                return Err(Status::aborted("the archive broke off"));
            }
        }
        // One who reads no more has all that it wants.
        let _ = sender.send(Ok(Bytes::new())).await;
        Ok(Response::new(Box::pin(stream::empty())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: Vec<&'static [u8]>) -> (bool, io::Result<Vec<u8>>) {
        let (receiver, mut archive) = archive();
        let sender = receiver.take().unwrap();
        assert!(receiver.take().is_none(), "there is one archive");
        for piece in pieces {
            sender.try_send(Ok(Bytes::from_static(piece))).unwrap();
        }
        drop(sender);
        let begun = archive.begun().unwrap();
        let mut all = Vec::new();
        (begun, archive.read_to_end(&mut all).map(|_| all))
    }

    #[test]
    fn only_what_came_to_its_end_is_whole() {
        let (begun, all) = read(vec![b"ab", b"c", b""]);
        assert!(begun);
        assert_eq!(all.unwrap(), b"abc");
        let (begun, all) = read(vec![b"ab"]);
        assert!(begun);
        assert_eq!(all.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (begun, all) = read(Vec::new());
        assert!(!begun && all.unwrap().is_empty());
    }
}
