//! Waiting until a background process is ready.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::{Background, Probe, ProbeKind};
use ashlar_sandbox::{Cancel, Exit, Io, Process, Session, Stdin, Stream};

use super::exec::sandbox_failure;
use super::session::{Heard, Listener, Progress, Stage, beside};
use crate::error::internal;

/// What a process without a probe gets, from its start, to do what it does at its start.
const SETTLING: Duration = Duration::from_millis(500);

/// The longest that one attempt over the network may take, however much time is left.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// How often an attempt over the network looks whether it is to stop.
const STOP_POLL: Duration = Duration::from_millis(50);

/// The most bytes of an answer that are read to find its status.
const HEAD_BYTES_MAX: usize = 4096;

/// A background process that is waited for.
pub(super) struct Waiting<'a> {
    pub(super) session: &'a dyn Session,
    pub(super) background: &'a Background,
    /// What a probe's command runs like.
    pub(super) like: &'a Process,
    pub(super) progress: &'a Progress,
    pub(super) said: &'a SyncSender<Heard>,
    pub(super) cancel: &'a Cancel,
}

impl Waiting<'_> {
    /// Waits until the probe passes; without one, until the process has run for a moment or has
    /// done its work.
    pub(super) fn wait(&self, listener: &mut Listener<'_>) -> Result<(), Failure> {
        let began = loop {
            self.check()?;
            match self.progress.get() {
                Stage::Starting => listener.listen(None),
                Stage::Running(since) => break since,
                _ => break Instant::now(),
            }
        };
        match &self.background.probe {
            Some(probe) => self.probe(probe, began, listener),
            None => self.settle(began + SETTLING, listener),
        }
    }

    fn settle(&self, until: Instant, listener: &mut Listener<'_>) -> Result<(), Failure> {
        loop {
            self.check()?;
            if matches!(self.progress.get(), Stage::Ended(_)) || Instant::now() >= until {
                return Ok(());
            }
            listener.listen(Some(until));
        }
    }

    fn probe(
        &self,
        probe: &Probe,
        began: Instant,
        listener: &mut Listener<'_>,
    ) -> Result<(), Failure> {
        let mut next = began + Duration::from_millis(probe.grace_ms);
        let deadline = next + Duration::from_millis(probe.timeout_ms);
        let elapses = matches!(probe.kind, ProbeKind::Elapsed);
        loop {
            self.check()?;
            let now = Instant::now();
            if now >= deadline {
                return if elapses { Ok(()) } else { Err(self.too_late(probe)) };
            }
            if elapses || now < next {
                listener.listen(Some(if elapses { deadline } else { next.min(deadline) }));
                continue;
            }
            if self.attempt(probe, deadline, listener)? {
                return Ok(());
            }
            next = Instant::now() + Duration::from_millis(probe.interval_ms.max(1));
        }
    }

    /// Fails when the build was cancelled, or when the process ended otherwise than with 0: one that
    /// ended well may have left a server behind.
    fn check(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            return Err(Failure::new(FailureKind::Readiness, "stopped before it was ready"));
        }
        match self.progress.get() {
            Stage::Ended(exit) if !exit.success() => Err(self.ended(&exit)),
            Stage::Broken(failure) => Err(failure),
            _ => Ok(()),
        }
    }

    fn ended(&self, exit: &Exit) -> Failure {
        let how = match (exit.limit_hit, exit.code, exit.signal) {
            (Some(limit), ..) => limit.to_string(),
            (None, Some(code), _) => format!("exited with code {code}"),
            (None, None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None, None) => "was stopped".to_owned(),
        };
        let text = format!("'{}' ended before it was ready: {how}", self.background.name);
        Failure {
            exit_code: exit.code,
            ..Failure::new(FailureKind::Readiness, text).hint("its output is in the log above")
        }
    }

    fn too_late(&self, probe: &Probe) -> Failure {
        let text = format!("'{}' was not ready in {} ms", self.background.name, probe.timeout_ms);
        Failure::new(FailureKind::Readiness, text)
            .hint("raise the probe's timeout, or see what the process wrote")
    }

    /// Tries a probe, until the deadline at most.
    fn attempt(
        &self,
        probe: &Probe,
        deadline: Instant,
        listener: &mut Listener<'_>,
    ) -> Result<bool, Failure> {
        let stop = Cancel::new().map_err(internal)?;
        let look = || {
            if Instant::now() >= deadline || self.check().is_err() {
                stop.cancel();
            }
        };
        let deadline = deadline.min(Instant::now() + ATTEMPT_MAX);
        let attempt = Attempt { session: self.session, deadline, stop: &stop };
        let passed = beside(self.said, listener, look, || match &probe.kind {
            ProbeKind::Elapsed => Ok(false),
            ProbeKind::Command { command } => attempt.command(command, self.like),
            ProbeKind::Tcp { port } => Ok(attempt.connect(*port).is_ok()),
            ProbeKind::Http { port, path } => Ok(attempt.http(*port, path)),
        })?;
        // What came after the deadline, or of a process that has failed, does not count.
        Ok(passed && !stop.is_cancelled())
    }
}

/// One try of a probe.
struct Attempt<'a> {
    session: &'a dyn Session,
    /// For tries over the network, which cannot be stopped at any time.
    deadline: Instant,
    stop: &'a Cancel,
}

impl Attempt<'_> {
    fn command(&self, command: &str, like: &Process) -> Result<bool, Failure> {
        let args = ["/bin/sh", "-c", command].map(Into::into).to_vec();
        let process = Process { args, ..like.clone() };
        let mut ignore = |_: Stream, _: &[u8]| {};
        let io = Io { stdin: Stdin::Null, output: &mut ignore };
        let exit = self.session.exec(&process, io, self.stop).map_err(|e| sandbox_failure(&e))?;
        Ok(exit.success())
    }

    fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        ashlar_sandbox::connect_in(&self.session.network_namespace()?, port, left)
    }

    /// Asks for a path over HTTP/1.0 and says whether the status is 200 to 399.
    fn http(&self, port: u16, path: &str) -> bool {
        let path = path.replace(|c: char| c.is_control() || c == ' ', "");
        let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
        let status = self.connect(port).and_then(|stream| self.ask(stream, &request));
        status.is_ok_and(|status| status.is_some_and(|s| (200..400).contains(&s)))
    }

    /// Returns the status of the answer.
    fn ask(&self, mut stream: TcpStream, request: &str) -> std::io::Result<Option<u16>> {
        stream.set_write_timeout(Some(STOP_POLL))?;
        stream.set_read_timeout(Some(STOP_POLL))?;
        stream.write_all(request.as_bytes())?;
        let (mut head, mut buffer) = (Vec::new(), [0; 512]);
        while head.len() < HEAD_BYTES_MAX && !head.contains(&b'\n') {
            if self.stop.is_cancelled() || Instant::now() >= self.deadline {
                return Ok(None);
            }
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => head.extend_from_slice(&buffer[..length]),
                Err(e) if is_timeout(&e) => {}
                Err(e) => return Err(e),
            }
        }
        let status = head.split(|b| b.is_ascii_whitespace()).nth(1);
        Ok(status.and_then(|s| std::str::from_utf8(s).ok()?.parse().ok()))
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
