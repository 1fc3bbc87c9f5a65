//! One container of the runtime, from bundle to removal.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::tree::{self, namespace_path, write_json};
use super::{Shared, config};
use crate::cgroup::Cgroup;
use crate::disk::{Quota, Watch};
use crate::error::During;
use crate::native::keeper;
use crate::native::supervise::{Ends, Watched, watch};
use crate::network::Attachment;
use crate::{
    Cancel, CreatedMountpoint, Exit, Io, Network, News, Process, SandboxError, Session, Spec,
    Stdin, Stream,
};

/// A container; dropping it ends and removes it.
pub(crate) struct RuntimeSession {
    shared: Arc<Shared>,
    spec: Spec,
    id: String,
    bundle: PathBuf,
    cgroup: Cgroup,
    network: Attachment,
    disk: Option<Watch>,
    /// Released when nobody is left who could write.
    quota: Option<Arc<Quota>>,
    created: Vec<CreatedMountpoint>,
    execs: AtomicU64,
}

impl RuntimeSession {
    /// Makes the cgroup, the bundle and the network; nothing runs yet.
    pub(crate) fn new(shared: &Arc<Shared>, spec: &Spec) -> Result<Self, SandboxError> {
        let id = shared.janitor.name();
        // The device rules are the runtime's, in a group of its own.
        let cgroup =
            Cgroup::create(&shared.layout, &id, &spec.limits, false).during("making the cgroup")?;
        let quota = Quota::claim(spec);
        let disk = Watch::start(&spec.disk_paths, &spec.limits, quota.clone());
        let this = Self {
            shared: Arc::clone(shared),
            spec: spec.clone(),
            bundle: shared.bundles.join(&id),
            id,
            cgroup,
            network: match spec.network {
                Network::Host => Attachment::Host,
                Network::None => Attachment::Loopback,
                Network::Isolated => shared.isolated.attach()?,
            },
            disk: disk.during("watching the disk")?,
            quota,
            created: Vec::new(),
            execs: AtomicU64::new(0),
        };
        std::fs::create_dir(&this.bundle).during("making the bundle")?;
        Ok(this)
    }

    fn write_bundle(&self, session: bool) -> Result<(), SandboxError> {
        let network = namespace_path(&self.network);
        let config = config::bundle(&self.shared, &self.spec, &self.id, network, session)?;
        write_json(&self.bundle.join("config.json"), &config)
    }

    /// Runs the spec's process and waits for it.
    pub(crate) fn run(mut self, io: Io<'_>, cancel: &Cancel) -> Result<Exit, SandboxError> {
        self.write_bundle(false)?;
        let started = (Instant::now(), self.cgroup.pids_refused());
        // Kept after its end, so that its counters can still be read.
        let mut command = self.shared.runtime.command(&["run", "--keep", "--bundle"]);
        command.arg(&self.bundle).arg(&self.id);
        let ends = connect(&mut command, io.stdin)?;
        let (child, created) = tree::spawn(&self.shared, &self.spec, &self.network, command)?;
        self.created = created;
        let kill = |_: &keeper::Child| self.shared.runtime.remove(&self.id);
        let mut exit =
            self.watch(child, ends, started, &kill, (Io::output(io.output), None), cancel)?;
        exit.created_mountpoints = std::mem::take(&mut self.created);
        Ok(exit)
    }

    /// Starts the container with an idle pid 1.
    pub(crate) fn start(mut self) -> Result<Self, SandboxError> {
        self.write_bundle(true)?;
        let mut command = self.shared.runtime.command(&["create", "--bundle"]);
        command.arg(&self.bundle).arg(&self.id);
        let log = self.bundle.join("log");
        let file = std::fs::File::create(&log).during("making the bundle")?;
        command.stderr(file);
        let (mut child, created) = tree::spawn(&self.shared, &self.spec, &self.network, command)?;
        self.created = created;
        let status = child.wait().during("waiting for the OCI runtime")?;
        if !status.success() {
            let stderr = std::fs::read_to_string(log).unwrap_or_default();
            return Err(SandboxError::Tool { tool: "the OCI runtime", stderr });
        }
        self.shared.runtime.query(&["start", &self.id])?;
        Ok(self)
    }

    fn watch(
        &self,
        child: Child,
        mut ends: Ends,
        (started, refused_before): (Instant, u64),
        kill: &dyn Fn(&keeper::Child),
        (io, news): (Io<'_>, Option<&(dyn Fn(News) + Sync)>),
        cancel: &Cancel,
    ) -> Result<Exit, SandboxError> {
        let raw = child.id() as i32;
        let pid = Pid::from_raw(raw).ok_or(SandboxError::Cancelled)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).during("watching the OCI runtime")?;
        // `Child` does nothing when dropped; the watch waits for the process by its number.
        let mut child = child;
        let pipes: [(Stream, Option<OwnedFd>); 2] = [
            (Stream::Stdout, child.stdout.take().map(OwnedFd::from)),
            (Stream::Stderr, child.stderr.take().map(OwnedFd::from)),
        ];
        for (stream, fd) in pipes {
            ends.outputs.extend(fd.map(|fd| (stream, fd)));
        }
        if let (Some((slot, _)), Some(stdin)) = (&mut ends.stdin, child.stdin.take()) {
            *slot = stdin.into();
        }
        ends.nonblocking().during("preparing the streams")?;
        let watched = Watched {
            child: keeper::Child { pid: raw, pidfd },
            kill,
            cgroup: &self.cgroup,
            limits: &self.spec.limits,
            disk: self.disk.as_ref(),
            cancel,
            refused_before,
        };
        let told = |said: News| match (news, said) {
            (Some(news), News::Ended(exit)) => news(News::Ended(with_signal(exit))),
            (Some(news), News::Running) => news(News::Running),
            (None, _) => {}
        };
        let told: Option<&(dyn Fn(News) + Sync)> = if news.is_some() { Some(&told) } else { None };
        watch(watched, ends, started, io.output, told).map(with_signal)
    }

    fn execute(
        &self,
        process: &Process,
        io: Io<'_>,
        news: Option<&(dyn Fn(News) + Sync)>,
        cancel: &Cancel,
    ) -> Result<Exit, SandboxError> {
        let started = (Instant::now(), self.cgroup.pids_refused());
        let number = self.execs.fetch_add(1, Ordering::Relaxed);
        let file = self.bundle.join(format!("process-{number}.json"));
        let pid_file = self.bundle.join(format!("process-{number}.pid"));
        write_json(&file, &config::process(&self.spec, process)?)?;
        let mut command = self.shared.runtime.command(&["exec", "--process"]);
        command.arg(&file).arg("--pid-file").arg(&pid_file).arg(&self.id);
        let ends = connect(&mut command, io.stdin)?;
        let child = command.spawn().during("starting the OCI runtime")?;
        if let Some(news) = news {
            // The runtime does not say when it has handed over; that takes it a moment.
            news(News::Running);
        }
        let kill = |_: &keeper::Child| {
            let pid = std::fs::read_to_string(&pid_file).unwrap_or_default();
            if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            }
        };
        self.watch(child, ends, started, &kill, (Io::output(io.output), news), cancel)
    }
}

/// Runtimes tell of a signal as shells do.
fn with_signal(exit: Exit) -> Exit {
    match exit.code {
        Some(code) if code > 128 && code <= 128 + 64 => {
            Exit { signal: Some(code - 128), code: None, ..exit }
        }
        _ => exit,
    }
}

impl Session for RuntimeSession {
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
        let state =
            self.shared.runtime.query(&["state", &self.id]).map_err(std::io::Error::other)?;
        let state: serde_json::Value = serde_json::from_str(&state)?;
        let pid =
            state["pid"].as_u64().ok_or_else(|| std::io::Error::other("no pid in the state"))?;
        Ok(std::fs::File::open(format!("/proc/{pid}/ns/net"))?.into())
    }

    fn end(mut self: Box<Self>) -> Result<Vec<CreatedMountpoint>, SandboxError> {
        Ok(std::mem::take(&mut self.created))
    }
}

impl Drop for RuntimeSession {
    fn drop(&mut self) {
        self.shared.runtime.remove(&self.id);
        self.disk = None;
        self.quota = None;
        let _ = std::fs::remove_dir_all(&self.bundle);
        self.shared.janitor.remove(std::mem::take(&mut self.cgroup.directories));
    }
}

/// Connects the streams of the runtime's process, which hands them on.
fn connect(command: &mut Command, stdin: Stdin) -> Result<Ends, SandboxError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut ends = Ends { stdin: None, outputs: Vec::new(), terminal: None };
    match stdin {
        Stdin::Null => {}
        Stdin::Bytes(bytes) => {
            command.stdin(Stdio::piped());
            // Replaced by the pipe once the process exists.
            let nothing = std::fs::File::open("/dev/null").during("opening /dev/null")?;
            ends.stdin = Some((nothing.into(), bytes));
        }
        Stdin::Terminal(_) => {
            return Err(SandboxError::Invalid(
                "interactive processes need the native sandbox; run this build without an OCI runtime".into(),
            ));
        }
    }
    Ok(ends)
}
