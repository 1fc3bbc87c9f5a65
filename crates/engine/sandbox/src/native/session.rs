//! A sandbox from start to end: what `run` uses once and `start` hands out.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};

use super::keeper::{Child, Keeper, Streams};
use super::shared::Shared;
use super::supervise::{Ends, Watched, watch};
use super::sys;
use crate::cgroup::Cgroup;
use crate::disk::{Quota, Watch};
use crate::error::During;
use crate::network::Attachment;
use crate::{
    Cancel, CreatedMountpoint, Exit, Io, Network, News, Process, SandboxError, Security, Session,
    Spec, Stdin, Stream,
};

/// A sandbox that is up. Dropping it ends everything inside.
pub(crate) struct NativeSession {
    shared: Arc<Shared>,
    spec: Arc<Spec>,
    cgroup: Arc<Cgroup>,
    /// Behind a lock because sessions are shared between threads; held only while a process is being made.
    keeper: Mutex<Option<Keeper>>,
    disk: Option<Watch>,
    /// Released when nobody is left who could write.
    quota: Option<Arc<Quota>>,
    /// False for `run`, whose one process is pid 1.
    session: bool,
}

impl NativeSession {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        spec: &Spec,
        session: bool,
    ) -> Result<Self, SandboxError> {
        let devices = spec.security == Security::Sandboxed;
        let cgroup = Cgroup::create(&shared.layout, &shared.janitor.name(), &spec.limits, devices)
            .during("making the cgroup")?;
        let mut this = Self {
            shared: Arc::clone(shared),
            spec: Arc::new(spec.clone()),
            cgroup: Arc::new(cgroup),
            keeper: Mutex::new(None),
            disk: None,
            quota: Quota::claim(spec),
            session,
        };
        // From here on, dropping `this` removes the cgroup.
        let network = match spec.network {
            Network::Host => Attachment::Host,
            Network::None => Attachment::Loopback,
            Network::Isolated => this.shared.isolated.attach()?,
        };
        let keeper = Keeper::start(
            Arc::clone(&this.shared),
            Arc::clone(&this.spec),
            Arc::clone(&this.cgroup),
            network,
            session,
        )?;
        this.keeper = Mutex::new(Some(keeper));
        this.disk = Watch::start(&spec.disk_paths, &spec.limits, this.quota.clone())
            .during("watching the disk")?;
        Ok(this)
    }

    /// Takes everything down and tells which mount points were made.
    pub(crate) fn finish(mut self) -> Vec<CreatedMountpoint> {
        self.take_down()
    }

    fn execute(
        &self,
        process: &Process,
        io: Io<'_>,
        news: Option<&(dyn Fn(News) + Sync)>,
        cancel: &Cancel,
    ) -> Result<Exit, SandboxError> {
        let started = Instant::now();
        // Before there is a process, which may be quick to run out of pids.
        let refused_before = self.cgroup.pids_refused();
        let (streams, mut ends) = connect(io.stdin).during("making the streams of the process")?;
        let made = {
            let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
            let keeper = keeper.as_ref().ok_or(SandboxError::Cancelled)?;
            keeper.make(process, streams)?
        };
        if let Some(master) = made.terminal {
            ends.outputs.push((Stream::Stdout, master));
        }
        if let Some(news) = news {
            news(News::Running);
        }
        ends.nonblocking().during("preparing the streams")?;
        let watched = Watched {
            child: made.child,
            kill: &|child| self.kill(child),
            cgroup: &self.cgroup,
            limits: &self.spec.limits,
            disk: self.disk.as_ref(),
            cancel,
            refused_before,
        };
        watch(watched, ends, started, io.output, news)
    }

    /// Ends a process; with pid 1 of `run` goes all of its namespace.
    fn kill(&self, child: &Child) {
        if self.session {
            // It is its own group's leader and not yet reaped, so the number is still its own.
            sys::kill_group(child.pid);
        }
        // Fails only when it has ended already.
        let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
        if !self.session {
            self.cgroup.kill();
        }
    }

    fn take_down(&mut self) -> Vec<CreatedMountpoint> {
        self.disk = None;
        let keeper = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut keeper) = keeper else { return Vec::new() };
        if let Some(init) = keeper.init.take() {
            // The namespace ends with its pid 1.
            let _ = pidfd_send_signal(&init.pidfd, Signal::KILL);
            let _ = sys::wait(init.pid);
        }
        let created = std::mem::take(&mut keeper.created);
        drop(keeper);
        self.quota = None;
        created
    }
}

impl Drop for NativeSession {
    fn drop(&mut self) {
        self.take_down();
        self.shared.janitor.remove(self.cgroup.directories.clone());
    }
}

impl Session for NativeSession {
    fn exec(&self, process: &Process, io: Io<'_>, cancel: &Cancel) -> Result<Exit, SandboxError> {
        self.execute(process, io, None, cancel)
    }

    fn serve(
        &self,
        process: &Process,
        io: Io<'_>,
        news: &(dyn Fn(News) + Sync),
        cancel: &Cancel,
    ) -> Result<Exit, SandboxError> {
        self.execute(process, io, Some(news), cancel)
    }

    fn network_namespace(&self) -> std::io::Result<OwnedFd> {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let init = keeper.as_ref().and_then(|k| k.init.as_ref());
        let init = init.ok_or_else(|| std::io::Error::other("the sandbox has ended"))?;
        let path = format!("/proc/{}/ns/net", init.pid);
        Ok(openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn end(self: Box<Self>) -> Result<Vec<CreatedMountpoint>, SandboxError> {
        Ok(self.finish())
    }
}

/// Makes the streams: what the process gets, and what stays here.
fn connect(stdin: Stdin) -> rustix::io::Result<(Streams, Ends)> {
    let mut ends = Ends { stdin: None, outputs: Vec::with_capacity(2), terminal: None };
    let input: OwnedFd = match stdin {
        Stdin::Terminal(terminal) => {
            ends.terminal = Some(terminal);
            return Ok((Streams::Terminal, ends));
        }
        Stdin::Null => openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
        Stdin::Bytes(bytes) => {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            if !bytes.is_empty() {
                ends.stdin = Some((writer, bytes));
            }
            reader
        }
    };
    let (out_reader, out) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err_reader, err) = pipe_with(PipeFlags::CLOEXEC)?;
    ends.outputs.push((Stream::Stdout, out_reader));
    ends.outputs.push((Stream::Stderr, err_reader));
    Ok((Streams::Pipes([input, out, err]), ends))
}
