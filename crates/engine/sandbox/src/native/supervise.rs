//! Watches one process from the calling thread: passes its output on, feeds its input, and ends it when a limit is
//! hit or the caller cancels.
//!
//! Guarantee: when this returns, the process has been reaped; if it was pid 1, so has everything in its namespace,
//! since the kernel ends a pid namespace with its first process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::Winsize;

use super::keeper::Child;
use super::sys;
use crate::cgroup::Cgroup;
use crate::disk::Watch;
use crate::error::During;
use crate::{Cancel, Exit, LimitHit, Limits, News, SandboxError, Stream, Terminal};

/// How often counters without an event are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Bytes read from a stream at once.
const CHUNK: usize = 64 * 1024;
/// How many chunks may have been in a stream when its process ended: more than the largest pipe holds.
const READS_MAX: usize = 64;

/// The caller's ends of the streams.
pub(crate) struct Ends {
    /// Where the process's input is written to, with the rest of it.
    pub(crate) stdin: Option<(OwnedFd, Vec<u8>)>,
    pub(crate) outputs: Vec<(Stream, OwnedFd)>,
    /// The user's side of a terminal.
    pub(crate) terminal: Option<Terminal>,
}

impl Ends {
    /// Makes reads and writes return at once when there is nothing to do.
    pub(crate) fn nonblocking(&self) -> rustix::io::Result<()> {
        let outputs = self.outputs.iter().map(|(_, fd)| fd);
        for fd in outputs.chain(self.stdin.iter().map(|(fd, _)| fd)) {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(())
    }
}

/// What the watch depends on.
pub(crate) struct Watched<'a> {
    pub(crate) child: Child,
    /// Ends the process and, as far as it can, everything that it started.
    pub(crate) kill: &'a dyn Fn(&Child),
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) limits: &'a Limits,
    pub(crate) disk: Option<&'a Watch>,
    pub(crate) cancel: &'a Cancel,
    /// Forks that were refused before the process existed.
    pub(crate) refused_before: u64,
}

/// State of one watch.
struct Supervisor<'a, 'b> {
    watched: Watched<'a>,
    ends: Ends,
    output: &'b mut dyn FnMut(Stream, &[u8]),
    passed: u64,
    limit_hit: Option<LimitHit>,
    cancelled: bool,
    killed: bool,
    size: (u16, u16),
    buffer: Vec<u8>,
}

/// Watches until the process ends. With `news`, tells it of that end and passes on afterwards what is written by those
/// whom the process left running.
pub(crate) fn watch(
    watched: Watched<'_>,
    ends: Ends,
    started: Instant,
    output: &mut dyn FnMut(Stream, &[u8]),
    news: Option<&(dyn Fn(News) + Sync)>,
) -> Result<Exit, SandboxError> {
    let mut supervisor = Supervisor {
        watched,
        ends,
        output,
        passed: 0,
        limit_hit: None,
        cancelled: false,
        killed: false,
        size: (0, 0),
        buffer: vec![0; CHUNK],
    };
    let watching = supervisor.watch(started);
    if watching.is_err() {
        supervisor.kill();
    }
    let waited = sys::wait(supervisor.watched.child.pid).during("waiting for the process")?;
    watching.during("watching the process")?;
    let Some(news) = news else {
        supervisor.drain();
        return Ok(supervisor.exit(&waited, started));
    };
    supervisor.read_all();
    let exit = supervisor.exit(&waited, started);
    news(News::Ended(exit.clone()));
    supervisor.linger().during("watching what the process left running")?;
    supervisor.drain();
    Ok(Exit { limit_hit: exit.limit_hit.or(supervisor.limit_hit), ..exit })
}

/// What became ready; the index of an output for `Output`.
#[derive(Clone, Copy)]
enum Event {
    Ended,
    Cancelled,
    Disk,
    Input,
    Typed,
    Output(usize),
}

impl Supervisor<'_, '_> {
    fn watch(&mut self, started: Instant) -> rustix::io::Result<()> {
        let deadline = self.watched.limits.timeout.map(|timeout| started + timeout);
        loop {
            let ready = self.wait(deadline)?;
            for event in ready {
                match event {
                    Event::Ended => return Ok(()),
                    Event::Cancelled => {
                        self.cancelled = true;
                        self.kill();
                    }
                    Event::Disk => self.hit(self.watched.disk.and_then(Watch::hit)),
                    Event::Input => self.feed(),
                    Event::Typed => self.forward(),
                    Event::Output(index) => {
                        self.receive(index);
                    }
                }
            }
            if let (Some(deadline), Some(limit)) = (deadline, self.watched.limits.timeout)
                && Instant::now() >= deadline
            {
                self.hit(Some(LimitHit::Time { limit }));
            }
            self.check_pids();
            self.resize();
        }
    }

    /// Waits for something to happen, at most one tick.
    fn wait(&self, deadline: Option<Instant>) -> rustix::io::Result<Vec<Event>> {
        let mut fds: Vec<(Event, BorrowedFd<'_>, PollFlags)> =
            vec![(Event::Ended, self.watched.child.pidfd.as_fd(), PollFlags::IN)];
        if !self.killed {
            fds.push((Event::Cancelled, self.watched.cancel.as_fd(), PollFlags::IN));
            if let Some(disk) = self.watched.disk {
                fds.push((Event::Disk, disk.event(), PollFlags::IN));
            }
        }
        if let Some((stdin, _)) = &self.ends.stdin {
            fds.push((Event::Input, stdin.as_fd(), PollFlags::OUT));
        }
        if let Some(terminal) = &self.ends.terminal {
            fds.push((Event::Typed, terminal.input.as_fd(), PollFlags::IN));
        }
        for (index, (_, fd)) in self.ends.outputs.iter().enumerate() {
            fds.push((Event::Output(index), fd.as_fd(), PollFlags::IN));
        }
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = if self.killed { TICK } else { left.unwrap_or(TICK).min(TICK) };
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let ready = fds.iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        // Reversed: the outputs come first, and the last of them first, so that removing one moves no other's index.
        let mut events: Vec<Event> = ready.map(|((event, ..), _)| *event).collect();
        events.reverse();
        Ok(events)
    }

    fn hit(&mut self, limit: Option<LimitHit>) {
        if !self.killed && limit.is_some() {
            self.limit_hit = limit;
            self.kill();
        }
    }

    fn kill(&mut self) {
        self.killed = true;
        self.ends.stdin = None;
        self.ends.terminal = None;
        (self.watched.kill)(&self.watched.child);
    }

    /// A step that runs out of pids would mostly try for ever; the first refusal ends it.
    fn check_pids(&mut self) {
        if let Some(limit) = self.watched.limits.pids
            && !self.killed
            && self.watched.cgroup.pids_refused() > self.watched.refused_before
        {
            self.hit(Some(LimitHit::Pids { limit }));
        }
    }

    fn feed(&mut self) {
        let Some((fd, rest)) = &mut self.ends.stdin else { return };
        match rustix::io::write(fd, rest) {
            Ok(written) => {
                rest.drain(..written);
                if rest.is_empty() {
                    self.ends.stdin = None;
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // It reads no more.
            Err(_) => self.ends.stdin = None,
        }
    }

    /// Passes typed bytes on to the terminal.
    fn forward(&mut self) {
        let Some(terminal) = &self.ends.terminal else { return };
        let Some((_, master)) = self.ends.outputs.first() else { return };
        match rustix::io::read(&terminal.input, &mut self.buffer) {
            Ok(0) => {
                // End of the input: what Ctrl-D does.
                let _ = rustix::io::write(master, &[4]);
                self.ends.terminal = None;
            }
            Ok(length) => {
                let _ = rustix::io::write(master, &self.buffer[..length]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.ends.terminal = None,
        }
    }

    fn resize(&mut self) {
        let Some(terminal) = &self.ends.terminal else { return };
        let size = (terminal.size)();
        if size == self.size {
            return;
        }
        self.size = size;
        if let Some((_, master)) = self.ends.outputs.first() {
            let size = Winsize { ws_row: size.0, ws_col: size.1, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(master, size);
        }
    }

    /// Reads one chunk; returns false when there was none.
    fn receive(&mut self, index: usize) -> bool {
        let Some((stream, fd)) = self.ends.outputs.get(index) else { return false };
        let stream = *stream;
        match rustix::io::read(fd, &mut self.buffer) {
            Ok(0) => {
                self.ends.outputs.remove(index);
                false
            }
            Ok(length) => {
                self.pass(stream, length);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            // A terminal whose last process is gone says EIO.
            Err(_) => {
                self.ends.outputs.remove(index);
                false
            }
        }
    }

    /// Passes bytes of the buffer on, up to the limit.
    fn pass(&mut self, stream: Stream, length: usize) {
        let limit = self.watched.limits.output_bytes;
        let room = limit.map_or(length, |limit| {
            usize::try_from(limit - self.passed).unwrap_or(usize::MAX).min(length)
        });
        if room > 0 {
            (self.output)(stream, &self.buffer[..room]);
            self.passed += room as u64;
        }
        if let (Some(limit), true) = (limit, room < length) {
            if self.limit_hit.is_none() {
                self.limit_hit = Some(LimitHit::Output { limit });
            }
            if !self.killed {
                self.kill();
            }
        }
    }

    /// Passes on what was written before the end. Descriptors that others still hold are not waited for.
    fn drain(&mut self) {
        self.read_all();
        self.ends.outputs.clear();
    }

    /// Passes on what was written until now by a process that has been reaped.
    fn read_all(&mut self) {
        // Its number may be another's by now.
        self.killed = true;
        for index in (0..self.ends.outputs.len()).rev() {
            // Others may go on writing for ever.
            let _ = (0..READS_MAX).all(|_| self.receive(index));
        }
    }

    /// Passes on what those write who still hold the streams, until the caller cancels or a limit is hit. The session
    /// ends them.
    fn linger(&mut self) -> rustix::io::Result<()> {
        while !self.ends.outputs.is_empty()
            && self.limit_hit.is_none()
            && !self.watched.cancel.is_cancelled()
        {
            let disk = self.watched.disk;
            let mut polled =
                vec![PollFd::from_borrowed_fd(self.watched.cancel.as_fd(), PollFlags::IN)];
            polled.extend(disk.map(|d| PollFd::from_borrowed_fd(d.event(), PollFlags::IN)));
            let outputs = self.ends.outputs.iter().map(|(_, fd)| fd.as_fd());
            polled.extend(outputs.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            match poll(&mut polled, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            self.limit_hit = disk.and_then(Watch::hit);
            self.read_once();
        }
        Ok(())
    }

    /// Reads from each stream once, so that a flood keeps nobody from being heard.
    fn read_once(&mut self) {
        for index in (0..self.ends.outputs.len()).rev() {
            self.receive(index);
        }
    }

    fn exit(&self, waited: &sys::Waited, started: Instant) -> Exit {
        let usage = self.watched.cgroup.usage();
        let mut exit = Exit {
            code: waited.code,
            signal: waited.signal,
            cancelled: self.cancelled,
            limit_hit: self.limit_hit,
            limit_survived: None,
            peak_memory: usage.peak_memory,
            cpu_time: Duration::from_micros(waited.cpu_micros),
            wall: started.elapsed(),
            created_mountpoints: Vec::new(),
        };
        if exit.limit_hit.is_some() || exit.cancelled {
            return exit;
        }
        let behind = limit_behind(self.watched.limits, &usage, self.watched.refused_before);
        if exit.code == Some(0) {
            exit.limit_survived = behind.filter(|hit| matches!(hit, LimitHit::Memory { .. }));
        } else {
            exit.limit_hit = behind.or_else(|| self.watched.disk.and_then(Watch::refused));
        }
        exit
    }
}

/// The limit that explains a failure, by the kernel's counters.
fn limit_behind(
    limits: &Limits,
    usage: &crate::cgroup::Usage,
    refused_before: u64,
) -> Option<LimitHit> {
    if let Some(limit) = limits.memory_bytes
        && usage.oom_kills > 0
    {
        return Some(LimitHit::Memory { limit, peak: usage.peak_memory.unwrap_or(limit) });
    }
    let limit = limits.pids?;
    (usage.pids_refused > refused_before).then_some(LimitHit::Pids { limit })
}
