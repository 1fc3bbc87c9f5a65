//! Bodies of requests: none is waited for without end, and what is refused is read to a bound.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// A body that fails when the client is silent for too long while somebody waits for it.
pub(crate) struct Patient<B> {
    body: B,
    most: Duration,
    silence: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl<B> Patient<B> {
    pub(crate) fn new(body: B, most: Duration) -> Self {
        Self { body, most, silence: Box::pin(sleep(most)), is_waiting: false }
    }
}

impl<B> HttpBody for Patient<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.is_waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // The time that the handler itself took does not count.
        if !this.is_waiting {
            this.is_waiting = true;
            this.silence.as_mut().reset(Instant::now() + this.most);
        }
        std::task::ready!(this.silence.as_mut().poll(context));
        let text = format!("no bytes of the body came for {} s", this.most.as_secs_f32());
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, text).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads what is left of a refused body, at most `most` bytes of it: a client that still sends
/// would see a broken connection instead of the reason.
pub async fn discard(mut body: Body, most: u64) {
    let mut room = most;
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { return };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match room.checked_sub(bytes) {
            Some(left) => room = left,
            None => return,
        }
    }
}
