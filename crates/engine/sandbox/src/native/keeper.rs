//! One thread for each sandbox: it enters new namespaces, builds the tree there, and makes the processes.
//!
//! A thread can have a mount, ipc, uts and network namespace of its own, so nearly all of the set-up is ordinary code
//! with ordinary errors, and only `child` runs under the rules of a fork. The thread never runs a caller's code: once
//! the first process has changed the root, this thread's root is the hostile tree as well. It only makes processes from
//! descriptors then. It lives as long as the sandbox, because processes die with the thread that made them
//! (`PR_SET_PDEATHSIG`).

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use super::child::{Entry, Plan, Program, Stage};
use super::image::Image;
use super::init;
use super::shared::Shared;
use super::sys::{self, Cloned};
use crate::cgroup::Cgroup;
use crate::error::During;
use crate::mounts::resolve::{Kind, Tree};
use crate::mounts::{self, system::Proc};
use crate::network::Attachment;
use crate::{CreatedMountpoint, Process, SandboxError, Security, Spec};

/// A process that was made.
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// The streams of a process: what it gets.
pub(crate) enum Streams {
    /// Three descriptors.
    Pipes([OwnedFd; 3]),
    /// A pseudo terminal made in the sandbox's own devpts.
    Terminal,
}

/// A process to make.
pub(crate) struct Order {
    pub(crate) process: Process,
    pub(crate) streams: Streams,
    pub(crate) reply: SyncSender<Result<Made, SandboxError>>,
}

/// The answer to an order.
pub(crate) struct Made {
    pub(crate) child: Child,
    /// The caller's side of the terminal, when one was asked for.
    pub(crate) terminal: Option<OwnedFd>,
}

/// The caller's side of the thread.
pub(crate) struct Keeper {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    /// The idle pid 1 of a session.
    pub(crate) init: Option<Child>,
    /// Mount points that were missing.
    pub(crate) created: Vec<CreatedMountpoint>,
}

/// What the thread reports when the sandbox is up.
struct Ready {
    init: Option<Child>,
    created: Vec<CreatedMountpoint>,
}

impl Keeper {
    /// Starts the thread and waits until the sandbox is up. `session` asks for an idle pid 1.
    pub(crate) fn start(
        shared: Arc<Shared>,
        spec: Arc<Spec>,
        cgroup: Arc<Cgroup>,
        network: Attachment,
        session: bool,
    ) -> Result<Self, SandboxError> {
        let (orders, inbox) = channel();
        let (ready_sender, ready) = sync_channel(1);
        let work = move || {
            let result = Inside::build(&shared, &spec, &cgroup, &network, session);
            let inside = match result {
                Ok((inside, ready)) => {
                    // The other side waits for exactly this.
                    let _ = ready_sender.send(Ok(ready));
                    inside
                }
                Err(error) => {
                    let _ = ready_sender.send(Err(error));
                    return;
                }
            };
            inside.serve(&inbox);
        };
        let thread = std::thread::Builder::new()
            .name("sandbox".into())
            .spawn(work)
            .during("starting the thread of the sandbox")?;
        let mut keeper =
            Self { orders: Some(orders), thread: Some(thread), init: None, created: Vec::new() };
        let up = ready.recv().map_err(|_| lost())??;
        keeper.init = up.init;
        keeper.created = up.created;
        Ok(keeper)
    }

    /// Makes a process.
    pub(crate) fn make(&self, process: &Process, streams: Streams) -> Result<Made, SandboxError> {
        let (reply, answer) = sync_channel(1);
        let order = Order { process: process.clone(), streams, reply };
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        if !sent {
            return Err(lost());
        }
        answer.recv().map_err(|_| lost())?
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lost() -> SandboxError {
    SandboxError::Invalid("the sandbox's thread ended unexpectedly; this is a bug".into())
}

/// The thread's own state, inside the new namespaces.
struct Inside<'a> {
    shared: &'a Shared,
    spec: &'a Spec,
    cgroup: &'a Cgroup,
    root: OwnedFd,
    pts: OwnedFd,
    proc: Proc,
    host_proc: OwnedFd,
    /// True once pid 1 exists and the root has been changed.
    entered: Cell<bool>,
}

impl<'a> Inside<'a> {
    /// Enters the namespaces and builds the tree.
    fn build(
        shared: &'a Shared,
        spec: &'a Spec,
        cgroup: &'a Cgroup,
        network: &Attachment,
        session: bool,
    ) -> Result<(Self, Ready), SandboxError> {
        enter_namespaces(spec, network)?;
        let insecure = spec.security == Security::Insecure;
        let host_proc = openat(CWD, "/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .during("opening /proc")?;
        let root = mounts::rootfs::mount(&spec.rootfs, &shared.staging)?;
        let mut tree = Tree::new(root.as_fd()).during("reading the root file system")?;
        let (dev, pts) = mounts::system::dev(&mut tree, spec.shm_bytes).during("mounting /dev")?;
        let sys =
            mounts::system::sys(&mut tree, &shared.staging, insecure).during("mounting /sys")?;
        shared.cgroups.mount(sys.as_fd(), cgroup).during("mounting /sys/fs/cgroup")?;
        let proc = Proc::prepare(&mut tree, &shared.staging, insecure).during("preparing /proc")?;
        mounts::step::mount_all(&mut tree, Some(&dev), spec, &shared.staging, network)?;
        let created = std::mem::take(&mut tree.created);
        let inside =
            Self { shared, spec, cgroup, root, pts, proc, host_proc, entered: Cell::new(false) };
        let init = if session { Some(inside.make_init()?) } else { None };
        Ok((inside, Ready { init, created }))
    }

    /// Makes processes until nobody can order one any more.
    fn serve(self, inbox: &Receiver<Order>) {
        for order in inbox {
            let made = self.make(&order.process, &order.streams);
            // Whoever ordered waits for the answer.
            let _ = order.reply.send(made);
        }
    }

    fn make(&self, process: &Process, streams: &Streams) -> Result<Made, SandboxError> {
        let image = Image::new(self.spec, process)?;
        let cwd = Tree::new(self.root.as_fd())
            .and_then(|mut tree| tree.mountpoint(&process.cwd, Kind::Directory))
            .map_err(|errno| SandboxError::Mount {
                target: process.cwd.clone(),
                reason: "the working directory can't be made",
                source: errno.into(),
            })?;
        let program = Program::Step(&image);
        let (child, terminal) = match streams {
            Streams::Pipes(fds) => {
                let fds = fds.each_ref().map(AsFd::as_fd);
                (self.clone_process(program, Some(&cwd), fds, false), None)
            }
            Streams::Terminal => {
                let (ours, theirs) = self.open_terminal().during("making a terminal")?;
                let fds = [theirs.as_fd(); 3];
                (self.clone_process(program, Some(&cwd), fds, true), Some(ours))
            }
        };
        let child = child.map_err(|failure| failure.explain(process))?;
        Ok(Made { child, terminal })
    }

    fn make_init(&self) -> Result<Child, SandboxError> {
        let file = init::program().during("making the session's init")?;
        let nothing = [self.host_proc.as_fd(); 3];
        let child = self
            .clone_process(Program::Init(file.as_fd()), None, nothing, false)
            .map_err(|failure| failure.explain(&self.spec.process))?;
        // From now on new processes of this thread are born in that pid namespace.
        move_into_pid_namespace(child.pidfd.as_fd()).during("entering the pid namespace")?;
        Ok(child)
    }

    fn clone_process(
        &self,
        program: Program<'_>,
        cwd: Option<&OwnedFd>,
        streams: [BorrowedFd<'_>; 3],
        terminal: bool,
    ) -> Result<Child, Failure> {
        let first = !self.entered.get();
        let entry = if first {
            Entry::First { root: self.root.as_fd(), proc: &self.proc }
        } else {
            Entry::Later
        };
        let plan = Plan {
            entry,
            program,
            cgroup: self.cgroup,
            profile: &self.shared.profile,
            host_proc: self.host_proc.as_fd(),
            cwd,
            streams,
            terminal,
        };
        let flags = if first { libc::CLONE_NEWPID as u64 } else { 0 };
        let made = spawn(&plan, flags)?;
        self.entered.set(true);
        Ok(made)
    }

    /// Opens a new terminal of the sandbox's devpts: our side and the process's side.
    fn open_terminal(&self) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let ours = openat(&self.pts, "ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&ours)?;
        let theirs = rustix::pty::ioctl_tiocgptpeer(
            &ours,
            rustix::pty::OpenptFlags::RDWR
                | rustix::pty::OpenptFlags::NOCTTY
                | rustix::pty::OpenptFlags::CLOEXEC,
        )?;
        Ok((ours, theirs))
    }
}

/// Leaves the host's namespaces, all but the pid and cgroup ones, which the process itself gets.
fn enter_namespaces(spec: &Spec, network: &Attachment) -> Result<(), SandboxError> {
    let mut flags =
        UnshareFlags::FS | UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if matches!(network, Attachment::Loopback) {
        flags |= UnshareFlags::NEWNET;
    }
    // SAFETY: the flags don't include FILES, the one that can break descriptors of other threads.
    #[expect(unsafe_code, reason = "rustix marks every unshare unsafe for the sake of one flag")]
    unsafe { rustix::thread::unshare_unsafe(flags) }.during("making namespaces")?;
    network.enter()?;
    // Nothing that is mounted from here on may show on the host, nor the reverse.
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).during("making mounts private")?;
    rustix::system::sethostname(spec.hostname.as_bytes()).during("setting the host name")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Ok(())
}

fn move_into_pid_namespace(pidfd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::thread::move_into_thread_name_spaces(pidfd, ThreadNameSpaceType::PROCESS_ID)
}

/// Why a process did not come to execute its program.
enum Failure {
    Clone(Errno),
    Stage(Stage, &'static str, Errno),
}

impl Failure {
    fn explain(self, process: &Process) -> SandboxError {
        match self {
            Self::Stage(Stage::Exec, _, errno) => exec_error(process, errno),
            Self::Stage(_, step, errno) => SandboxError::Setup { step, source: errno.into() },
            Self::Clone(errno) => {
                SandboxError::Setup { step: "making the process", source: errno.into() }
            }
        }
    }
}

/// The user's mistake, in Docker's words and with its exit codes.
fn exec_error(process: &Process, errno: Errno) -> SandboxError {
    let program = process.args.first().map(|name| name.to_string_lossy().into_owned());
    let program = program.unwrap_or_default();
    let in_path = !Path::new(&program).as_os_str().is_empty() && !program.contains('/');
    let (reason, code) = match errno {
        Errno::NOENT if in_path => ("executable file not found in $PATH".to_owned(), 127),
        Errno::NOENT => {
            ("no such file or directory (or its interpreter is missing)".to_owned(), 127)
        }
        Errno::ACCESS => ("permission denied".to_owned(), 126),
        Errno::NOEXEC => {
            ("exec format error (a script without #!, or another architecture)".to_owned(), 126)
        }
        other => (std::io::Error::from(other).to_string(), 126),
    };
    SandboxError::Exec { program, reason, code }
}

/// Clones, and waits until the new process has executed its program or said why not.
fn spawn(plan: &Plan<'_>, flags: u64) -> Result<Child, Failure> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(Failure::Clone)?;
    sys::block_signals(true);
    // SAFETY: `Plan::run` keeps the rules of the function and never returns.
    #[expect(unsafe_code, reason = "the one place where processes are made")]
    let cloned = unsafe { sys::clone3(flags, plan.cgroup.unified()) };
    let (pid, pidfd) = match cloned {
        Ok(Cloned::Child) => plan.run(writer.as_fd()),
        Ok(Cloned::Parent(pid, pidfd)) => (pid, pidfd),
        Err(errno) => {
            sys::block_signals(false);
            return Err(Failure::Clone(errno));
        }
    };
    sys::block_signals(false);
    drop(writer);
    let mut message = [0u8; 5];
    let length = loop {
        match rustix::io::read(&reader, &mut message) {
            Err(Errno::INTR) => {}
            result => break result.unwrap_or(0),
        }
    };
    if length == 0 {
        return Ok(Child { pid, pidfd });
    }
    // It has ended or is about to; nobody else waits for it.
    let _ = sys::wait(pid);
    let [stage, code @ ..] = message;
    let errno = Errno::from_raw_os_error(i32::from_ne_bytes(code));
    Err(match Stage::from_byte(stage) {
        Some((stage, step)) => Failure::Stage(stage, step, errno),
        None => Failure::Clone(errno),
    })
}
