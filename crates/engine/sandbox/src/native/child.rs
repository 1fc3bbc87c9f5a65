//! What the new process does between `clone3` and `execve`: the last and irrevocable half of the isolation.
//!
//! Everything here works on prepared data: no allocation, no lock, no panic (see `sys::clone3`). Order matters and is
//! the order of the code: join the cgroup, finish the tree, leave the host's tree, then give up rights, filter first
//! (without no_new_privs a filter needs CAP_SYS_ADMIN), identity and capabilities last.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Result;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::image::{INIT_NAME, Image};
use super::sys;
use crate::cgroup::Cgroup;
use crate::mounts::system::Proc;
use crate::security::{caps, seccomp::Profile};

/// Steps are the first to go when the whole machine runs out of memory.
const OOM_SCORE: &[u8] = b"500";

/// The parts of the set-up that can fail here, as one byte on the report pipe.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Stage {
    Cgroup,
    Proc,
    Root,
    Directory,
    Streams,
    Limits,
    Filter,
    Identity,
    Capabilities,
    Exec,
}

impl Stage {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Cgroup, "joining the cgroup"),
        (Self::Proc, "mounting /proc"),
        (Self::Root, "entering the root file system"),
        (Self::Directory, "entering the working directory"),
        (Self::Streams, "connecting the standard streams"),
        (Self::Limits, "setting resource limits"),
        (Self::Filter, "installing the system call filter"),
        (Self::Identity, "taking the user's identity"),
        (Self::Capabilities, "dropping capabilities"),
        (Self::Exec, "executing the program"),
    ];

    /// Reads a stage back from its byte.
    pub(crate) fn from_byte(byte: u8) -> Option<(Self, &'static str)> {
        Self::ALL.into_iter().find(|(stage, _)| *stage as u8 == byte)
    }
}

/// How a process enters the sandbox.
pub(crate) enum Entry<'a> {
    /// Pid 1: finishes the tree and makes it its root.
    First {
        /// The mounted root.
        root: BorrowedFd<'a>,
        /// Mounts `/proc`.
        proc: &'a Proc,
    },
    /// A later process of a session: the tree is complete and is its root already.
    Later,
}

/// What runs.
pub(crate) enum Program<'a> {
    /// A process of the step.
    Step(&'a Image),
    /// The idle pid 1 of a session.
    Init(BorrowedFd<'a>),
}

/// Everything the new process needs.
pub(crate) struct Plan<'a> {
    pub(crate) entry: Entry<'a>,
    pub(crate) program: Program<'a>,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) profile: &'a Profile,
    /// The host's `/proc`, for the process's own oom score.
    pub(crate) host_proc: BorrowedFd<'a>,
    pub(crate) cwd: Option<&'a OwnedFd>,
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// True when the streams are a terminal that becomes the controlling one.
    pub(crate) terminal: bool,
}

impl Plan<'_> {
    /// Runs in the new process; reports a failure on `report` and never returns.
    pub(crate) fn run(&self, report: BorrowedFd<'_>) -> ! {
        let (stage, error) = match self.enter() {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let code = error.raw_os_error().to_ne_bytes();
        let message = [stage as u8, code[0], code[1], code[2], code[3]];
        // Five bytes into an empty pipe; if even that fails the parent sees a process that ended before exec.
        let _ = rustix::io::write(report, &message);
        sys::exit(126)
    }

    fn enter(&self) -> std::result::Result<std::convert::Infallible, (Stage, rustix::io::Errno)> {
        let at = |stage| move |error| (stage, error);
        // Nothing inside may look into this copy of the engine's memory, /proc/PID/fd or environment.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(at(Stage::Identity))?;
        sys::default_signals();
        self.cgroup.join().map_err(at(Stage::Cgroup))?;
        self.rank_for_oom();
        // After joining, so that the namespace's root is the step's own group.
        unshare_cgroup().map_err(at(Stage::Cgroup))?;
        if let Entry::First { root, proc } = &self.entry {
            proc.mount().map_err(at(Stage::Proc))?;
            change_root(*root).map_err(at(Stage::Root))?;
        }
        rustix::process::setsid().map_err(at(Stage::Streams))?;
        if let Some(cwd) = self.cwd {
            rustix::process::fchdir(cwd).map_err(at(Stage::Directory))?;
        }
        self.connect().map_err(at(Stage::Streams))?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        match self.program {
            Program::Step(image) => self.become_step(image),
            Program::Init(file) => self.become_init(file),
        }
    }

    fn become_step(
        &self,
        image: &Image,
    ) -> std::result::Result<std::convert::Infallible, (Stage, rustix::io::Errno)> {
        let at = |stage| move |error| (stage, error);
        for (resource, limit) in &image.rlimits {
            rustix::process::setrlimit(*resource, *limit).map_err(at(Stage::Limits))?;
        }
        if !image.insecure {
            self.install_filter().map_err(at(Stage::Filter))?;
            caps::limit_bounding_set().map_err(at(Stage::Capabilities))?;
        }
        take_identity(image).map_err(at(Stage::Identity))?;
        drop_capabilities(image).map_err(at(Stage::Capabilities))?;
        // After the change of identity, which clears it.
        die_with_engine().map_err(at(Stage::Identity))?;
        sys::close_on_exec_from(3).map_err(at(Stage::Streams))?;
        sys::block_signals(false);
        Err((Stage::Exec, image.exec()))
    }

    fn become_init(
        &self,
        file: BorrowedFd<'_>,
    ) -> std::result::Result<std::convert::Infallible, (Stage, rustix::io::Errno)> {
        let at = |stage| move |error| (stage, error);
        self.install_filter().map_err(at(Stage::Filter))?;
        caps::limit_bounding_set().map_err(at(Stage::Capabilities))?;
        caps::keep_only(CapabilitySet::empty()).map_err(at(Stage::Capabilities))?;
        rustix::thread::set_no_new_privs(true).map_err(at(Stage::Capabilities))?;
        die_with_engine().map_err(at(Stage::Identity))?;
        sys::ignore_children();
        sys::close_on_exec_from(0).map_err(at(Stage::Streams))?;
        Err((Stage::Exec, sys::fexec(file, INIT_NAME)))
    }

    /// A machine whose `/proc` forbids it still runs steps.
    fn rank_for_oom(&self) {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        if let Ok(file) = openat(self.host_proc, c"self/oom_score_adj", flags, Mode::empty()) {
            let _ = rustix::io::write(file, OOM_SCORE);
        }
    }

    fn connect(&self) -> Result<()> {
        let [stdin, stdout, stderr] = self.streams;
        sys::duplicate_to(stdin, 0)?;
        sys::duplicate_to(stdout, 1)?;
        sys::duplicate_to(stderr, 2)?;
        if self.terminal {
            rustix::process::ioctl_tiocsctty(stdin)?;
        }
        Ok(())
    }

    fn install_filter(&self) -> Result<()> {
        sys::add_filter(&self.profile.0)
    }
}

/// Makes the mounted tree the root of everyone in this mount namespace and lets go of the host's.
fn change_root(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    // The old root now lies over the new one, and "." still is the old one.
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

/// Gives the process a cgroup namespace of its own.
fn unshare_cgroup() -> Result<()> {
    // SAFETY: changes no descriptor table and no memory.
    #[expect(unsafe_code, reason = "rustix marks every unshare unsafe for the sake of one flag")]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP)
    }
}

fn take_identity(image: &Image) -> Result<()> {
    rustix::thread::set_thread_groups(&image.groups)?;
    rustix::thread::set_thread_res_gid(image.gid, image.gid, image.gid)?;
    rustix::thread::set_thread_res_uid(image.uid, image.uid, image.uid)
}

fn drop_capabilities(image: &Image) -> Result<()> {
    let root = image.uid.is_root();
    match (root, image.insecure) {
        (true, true) => return Ok(()),
        (true, false) => caps::keep_only(caps::ROOT)?,
        (false, _) => caps::keep_only(CapabilitySet::empty())?,
    }
    if !root {
        rustix::thread::set_no_new_privs(true)?;
    }
    Ok(())
}

fn die_with_engine() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}
