//! Commands that need other processes beside them: a server with a probe, then the command.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::{Background, Exec, Probe, ProbeKind};
use ashlar_sandbox::{Cancel, Exit, Io, Process, Session, Spec, Stdin, Stream};

use super::BuildJob;
use super::exec::{BACKGROUND_POLL, sandbox_failure};
use crate::error::internal;

impl BuildJob {
    /// Starts the background processes, waits until their probes pass, runs the command, and ends
    /// everything.
    pub(super) fn run_with_background(
        &self,
        exec: &Exec,
        spec: &Spec,
        io: Io<'_>,
        cancel: &Cancel,
    ) -> Result<Exit, Failure> {
        let session = self.engine.sandbox.start(spec).map_err(|e| sandbox_failure(&e))?;
        let stop = Cancel::new().map_err(internal)?;
        let Io { stdin, output } = io;
        let said = Said::default();
        let result = std::thread::scope(|scope| {
            let mut running = Vec::new();
            for background in &exec.background {
                let process = background_process(background, spec);
                let (session, stop, said) = (&*session, &stop, &said);
                let ended = Arc::new(AtomicBool::new(false));
                let mark = Arc::clone(&ended);
                scope.spawn(move || {
                    let mut write = |stream: Stream, bytes: &[u8]| said.push(stream, bytes);
                    let exit = session.exec(&process, Io::output(&mut write), stop);
                    mark.store(true, Ordering::Release);
                    exit
                });
                running.push((background, ended));
            }
            let ready = running.iter().try_for_each(|(background, ended)| {
                let mut drain = || said.drain(output);
                wait_ready(&*session, background, &spec.process, ended, cancel, &mut drain)
            });
            let result = ready.and_then(|()| {
                let mut write = |stream: Stream, bytes: &[u8]| {
                    said.drain(output);
                    output(stream, bytes);
                };
                let io = Io { stdin, output: &mut write };
                session.exec(&spec.process, io, cancel).map_err(|e| sandbox_failure(&e))
            });
            stop.cancel();
            result
        });
        said.drain(output);
        let made = session.end().map_err(|e| sandbox_failure(&e))?;
        result.map(|exit| Exit { created_mountpoints: made, ..exit })
    }
}

fn background_process(background: &Background, spec: &Spec) -> Process {
    let mut env = spec.process.env.clone();
    env.extend(background.env.iter().map(|(n, v)| (n.into(), v.into())));
    Process {
        args: background.args.iter().map(Into::into).collect(),
        env,
        cwd: if background.cwd.is_empty() {
            spec.process.cwd.clone()
        } else {
            (&background.cwd).into()
        },
        user: spec.process.user.clone(),
    }
}

/// What background processes wrote and the command's thread has not passed on yet.
#[derive(Default)]
struct Said(Mutex<Vec<(Stream, Vec<u8>)>>);

impl Said {
    fn push(&self, stream: Stream, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((stream, bytes.to_vec()));
    }

    fn drain(&self, output: &mut dyn FnMut(Stream, &[u8])) {
        let said = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        said.iter().for_each(|(stream, bytes)| output(*stream, bytes));
    }
}

/// Waits until a background process is ready.
fn wait_ready(
    session: &dyn Session,
    background: &Background,
    like: &Process,
    ended: &AtomicBool,
    cancel: &Cancel,
    drain: &mut dyn FnMut(),
) -> Result<(), Failure> {
    let Some(probe) = &background.probe else { return Ok(()) };
    let began = Instant::now();
    let deadline = began + Duration::from_millis(probe.timeout_ms);
    let mut next = began + Duration::from_millis(probe.grace_ms);
    loop {
        if cancel.is_cancelled() {
            return Err(Failure::new(FailureKind::Readiness, "stopped before it was ready"));
        }
        if ended.load(Ordering::Acquire) {
            let text = format!("'{}' ended before it was ready", background.name);
            return Err(
                Failure::new(FailureKind::Readiness, text).hint("its output is in the log above")
            );
        }
        let now = Instant::now();
        if matches!(probe.kind, ProbeKind::Elapsed) && now >= deadline {
            return Ok(());
        }
        if now >= deadline {
            let text = format!("'{}' was not ready in {} ms", background.name, probe.timeout_ms);
            return Err(Failure::new(FailureKind::Readiness, text)
                .hint("raise the probe's timeout, or see what the process wrote"));
        }
        if now >= next {
            if try_probe(session, probe, like, cancel)? {
                return Ok(());
            }
            next = Instant::now() + Duration::from_millis(probe.interval_ms.max(1));
        }
        drain();
        std::thread::sleep(BACKGROUND_POLL);
    }
}

fn try_probe(
    session: &dyn Session,
    probe: &Probe,
    like: &Process,
    cancel: &Cancel,
) -> Result<bool, Failure> {
    match &probe.kind {
        ProbeKind::Elapsed => Ok(false),
        ProbeKind::Command { command } => {
            let args = ["/bin/sh", "-c", command].map(Into::into).to_vec();
            let process = Process { args, ..like.clone() };
            let mut ignore = |_: Stream, _: &[u8]| {};
            let io = Io { stdin: Stdin::Null, output: &mut ignore };
            let exit = session.exec(&process, io, cancel).map_err(|e| sandbox_failure(&e))?;
            Ok(exit.success())
        }
        ProbeKind::Tcp { port } => Ok(connect(session, *port).is_ok()),
        ProbeKind::Http { port, path } => Ok(http_ok(session, *port, path)),
    }
}

fn connect(session: &dyn Session, port: u16) -> std::io::Result<std::net::TcpStream> {
    ashlar_sandbox::connect_in(&session.network_namespace()?, port)
}

/// Asks for a path over HTTP/1.0 and says whether the status is 200 to 399.
fn http_ok(session: &dyn Session, port: u16, path: &str) -> bool {
    use std::io::{Read as _, Write as _};
    const TIMEOUT: Duration = Duration::from_secs(5);
    const HEAD_BYTES_MAX: u64 = 4096;
    let Ok(mut stream) = connect(session, port) else { return false };
    let timeouts =
        stream.set_read_timeout(Some(TIMEOUT)).and(stream.set_write_timeout(Some(TIMEOUT)));
    let path = path.replace(|c: char| c.is_control() || c == ' ', "");
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    if timeouts.is_err() || stream.write_all(request.as_bytes()).is_err() {
        return false;
    }
    let mut head = Vec::new();
    // An error after the status line came does not matter.
    let _ = stream.take(HEAD_BYTES_MAX).read_to_end(&mut head);
    let status = head.split(|&b| b == b' ').nth(1).and_then(|s| std::str::from_utf8(s).ok());
    status.and_then(|s| s.parse::<u16>().ok()).is_some_and(|s| (200..400).contains(&s))
}
