//! Following a build: live, across broken connections and restarts of the server.

use std::time::Duration;

use ashlar_core::BuildId;
use ashlar_core::journal::{Entry, Event};
use ashlar_core::state::State;
use futures_util::StreamExt as _;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, Response};
use tokio::time::{Instant, sleep, timeout};

use crate::builds::entry;
use crate::sse::Parser;
use crate::{Build, Client, Error, Stop};

/// A stream that says nothing for so long is broken: the server sends something every 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// How long a server may be away before following it is given up.
const AWAY_MAX: Duration = Duration::from_secs(300);
/// The wait before the first try to connect again; doubled for each one after.
const BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// What somebody who follows a build is told.
#[derive(Debug)]
pub enum Followed<'a> {
    /// Something happened; the numbers have no gaps and none comes twice.
    Entry(&'a Entry),
    /// The connection broke; it is tried again.
    Lost(&'a Error),
    /// It is there again.
    Back,
}

/// How following a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The build has ended, in this state.
    Ended(State),
    /// The caller's [`Stop`] said so.
    Stopped,
}

/// One connection's end.
enum Broken {
    Ended(State),
    /// The stream is over though the build has not said so.
    Over,
    Failed(Error),
}

impl Client {
    /// Tells all that happens to a build from entry `next` on until it has ended; `next` is moved
    /// along, so that a call that was stopped can be made again.
    ///
    /// # Errors
    /// When there is no such build (any more); when the server is away for five minutes.
    pub fn follow(
        &self,
        build: BuildId,
        next: &mut u64,
        stop: Stop<'_>,
        tell: &mut dyn FnMut(Followed<'_>),
    ) -> Result<End, Error> {
        let followed = self.wait_unless(stop, self.follow_on(build, next, tell));
        match followed {
            Err(Error::Stopped) => Ok(End::Stopped),
            other => other.map(End::Ended),
        }
    }

    async fn follow_on(
        &self,
        build: BuildId,
        next: &mut u64,
        tell: &mut dyn FnMut(Followed<'_>),
    ) -> Result<State, Error> {
        let (mut wait, mut away_since, mut lost) = (BACKOFF, None::<Instant>, false);
        loop {
            let before = *next;
            let broken = match self.open_events(build, *next).await {
                Ok(response) => {
                    if std::mem::take(&mut lost) {
                        tell(Followed::Back);
                    }
                    self.read_events(response, next, tell).await
                }
                Err(error) => Broken::Failed(error),
            };
            if *next > before {
                (wait, away_since) = (BACKOFF, None);
            }
            let error = match broken {
                Broken::Ended(state) => return Ok(state),
                Broken::Over => match self.ended_before(build, *next).await {
                    Ok(Some(state)) => return Ok(state),
                    Ok(None) => None,
                    Err(error) => Some(error),
                },
                Broken::Failed(error) => Some(error),
            };
            if let Some(error) = error {
                if !error.may_pass() || away_since.is_some_and(|t| t.elapsed() > AWAY_MAX) {
                    return Err(error);
                }
                away_since.get_or_insert_with(Instant::now);
                if !std::mem::replace(&mut lost, true) {
                    tell(Followed::Lost(&error));
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(BACKOFF_MAX);
        }
    }

    async fn open_events(&self, build: BuildId, from: u64) -> Result<Response, Error> {
        let kind = HeaderValue::from_static("text/event-stream");
        let request = self.request(Method::GET, self.events_url(build, from));
        let sent = self.send(request.header(header::ACCEPT, kind));
        match timeout(SILENCE_MAX, sent).await {
            Ok(response) => response,
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> Error {
        let source = format!("it said nothing for {} s", SILENCE_MAX.as_secs()).into();
        Error::Unreachable { server: self.server().to_owned(), source }
    }

    /// Reads a stream to its end, or to the end of the build.
    async fn read_events(
        &self,
        response: Response,
        next: &mut u64,
        tell: &mut dyn FnMut(Followed<'_>),
    ) -> Broken {
        let (mut stream, mut parser) = (response.bytes_stream(), Parser::default());
        loop {
            let bytes = match timeout(SILENCE_MAX, stream.next()).await {
                Err(_) => return Broken::Failed(self.silent()),
                Ok(None) => return Broken::Over,
                Ok(Some(Err(error))) => return Broken::Failed(self.unreachable(error)),
                Ok(Some(Ok(bytes))) => bytes,
            };
            let frames = match parser.push(&bytes) {
                Ok(frames) => frames,
                Err(error) => return Broken::Failed(Error::unreadable("the journal", error)),
            };
            for frame in frames {
                let Some(number) = frame.id.filter(|n| n >= next) else { continue };
                *next = number + 1;
                let read = serde_json::from_str(&frame.data).and_then(entry);
                // An entry of a kind that only a newer program knows.
                let Ok(entry) = read else { continue };
                tell(Followed::Entry(&entry));
                if let Event::State { to } = entry.event
                    && to.is_terminal()
                {
                    return Broken::Ended(to);
                }
            }
        }
    }

    /// Returns the state of a build that has ended and of whose journal nothing is left to read.
    async fn ended_before(&self, build: BuildId, next: u64) -> Result<Option<State>, Error> {
        let url = self.url(&["builds", &build.to_string()]);
        let build: Build = self.json("the build", self.request(Method::GET, url)).await?;
        Ok((build.state.is_terminal() && build.next <= next).then_some(build.state))
    }
}
