//! The contract between whoever runs steps and whatever isolates them.
//!
//! Life cycle: `run` is a sandbox with one process, which is pid 1 inside, as in BuildKit. `start` makes a sandbox that
//! stays; any number of processes run in it, at once or one after another, until it ends. Both calls block, may be made
//! from any number of threads, and have ended every process they started when they return.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Cancel, Network, Process, SandboxError, Spec};

/// Isolates steps. Implementations: [`crate::NativeSandbox`] and [`crate::RuntimeSandbox`].
pub trait Sandbox: Send + Sync {
    /// Runs the spec's process in a sandbox of its own and waits for the end of the whole process tree.
    ///
    /// A step that fails, is killed or hits a limit is an `Ok` exit; errors mean that it could not be run.
    fn run(&self, spec: &Spec, io: Io<'_>, cancel: &Cancel) -> Result<Exit, SandboxError>;

    /// Makes a sandbox for several processes. Dropping the session ends it.
    fn start(&self, spec: &Spec) -> Result<Box<dyn Session>, SandboxError>;

    /// Makes what all steps with this network share, if that is still to be made; for a caller that has something else
    /// to do before the first of them runs. What fails here fails again there, and is reported there.
    fn expect(&self, network: Network) {
        let _ = network;
    }
}

/// A sandbox that is up.
pub trait Session: Send + Sync {
    /// Runs one more process inside and waits for it.
    ///
    /// Cancelling ends this process and its process group; children that left the group end with the session.
    fn exec(&self, process: &Process, io: Io<'_>, cancel: &Cancel) -> Result<Exit, SandboxError>;

    /// Runs one more process that others rely on, and tells `news` when it runs and when it has ended.
    ///
    /// Unlike [`Session::exec`], this goes on afterwards with what the process left running: what that writes is passed
    /// on until `cancel`, or until nobody is left who could write.
    fn serve(
        &self,
        process: &Process,
        io: Io<'_>,
        news: &(dyn Fn(News) + Sync),
        cancel: &Cancel,
    ) -> Result<Exit, SandboxError>;

    /// Returns the network namespace, for [`crate::connect_in`].
    fn network_namespace(&self) -> std::io::Result<OwnedFd>;

    /// Ends every process and takes the sandbox down.
    fn end(self: Box<Self>) -> Result<Vec<CreatedMountpoint>, SandboxError>;
}

/// What became of a process that is served.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Its program runs.
    Running,
    /// It has ended, so.
    Ended(Exit),
}

/// Which of a process's outputs a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// How a process is connected to its caller.
pub struct Io<'a> {
    /// Where its input comes from.
    pub stdin: Stdin,
    /// Receives output as it is written, on the calling thread; slow receivers slow the step down.
    pub output: &'a mut dyn FnMut(Stream, &[u8]),
}

impl<'a> Io<'a> {
    /// Connects no input and passes output to `output`.
    pub fn output(output: &'a mut dyn FnMut(Stream, &[u8])) -> Self {
        Self { stdin: Stdin::Null, output }
    }
}

/// Input of a process.
#[derive(Debug)]
pub enum Stdin {
    /// `/dev/null`.
    Null,
    /// These bytes, then the end of file.
    Bytes(Vec<u8>),
    /// A pseudo terminal inside the sandbox, on all three streams; its output arrives as `Stream::Stdout`.
    Terminal(Terminal),
}

/// The caller's side of an interactive process.
#[derive(Debug)]
pub struct Terminal {
    /// Bytes typed by the user; the caller has put its own terminal into raw mode.
    pub input: OwnedFd,
    /// Returns rows and columns; asked again from time to time so that resizing works.
    pub size: fn() -> (u16, u16),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// Exit code when it ended by itself.
    pub code: Option<i32>,
    /// Signal number when it was killed.
    pub signal: Option<i32>,
    /// True when [`Cancel`] ended it.
    pub cancelled: bool,
    /// The limit that ended it.
    pub limit_hit: Option<LimitHit>,
    /// The memory limit, when it killed some process and the code is 0 all the same: the one that was
    /// killed stood inside a pipe, or its parent did not care.
    pub limit_survived: Option<LimitHit>,
    /// Peak memory of the sandbox in bytes, where the kernel counts it.
    pub peak_memory: Option<u64>,
    /// Processor time of the sandbox, user and system.
    pub cpu_time: Duration,
    /// Wall time from start to end of the process.
    pub wall: Duration,
    /// Mount points that were made in the root because they were missing; empty for `Session::exec`.
    pub created_mountpoints: Vec<CreatedMountpoint>,
}

impl Exit {
    /// Tells whether the process ended by itself with code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0) && self.limit_hit.is_none() && !self.cancelled
    }
}

/// Which limit ended a step, with the limit itself in the unit of [`crate::Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitHit {
    /// The kernel killed a process of the step for want of memory.
    Memory {
        /// Bytes allowed.
        limit: u64,
        /// Most bytes in use.
        peak: u64,
    },
    /// A fork failed for want of pids, and the step failed.
    Pids {
        /// Processes allowed.
        limit: u64,
    },
    /// The watched directories grew too much.
    Disk {
        /// Bytes allowed.
        limit: u64,
        /// Bytes seen when it was stopped.
        used: u64,
    },
    /// The file system came too close to full.
    DiskFree {
        /// Bytes that have to stay free.
        floor: u64,
    },
    /// It ran too long.
    Time {
        /// Time allowed.
        limit: Duration,
    },
    /// It wrote too much output.
    Output {
        /// Bytes allowed; exactly so many were passed on.
        limit: u64,
    },
}

impl std::fmt::Display for LimitHit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory { limit, peak } => {
                write!(f, "memory limit of {limit} bytes reached (peak {peak}); raise --memory")
            }
            Self::Pids { limit } => {
                write!(f, "limit of {limit} processes reached; raise --pids")
            }
            Self::Disk { limit, used } => {
                write!(f, "disk limit of {limit} bytes passed ({used} used); raise --disk")
            }
            Self::DiskFree { floor } => {
                write!(f, "the disk has less than {floor} bytes free; free some with `ashlar gc`")
            }
            Self::Time { limit } => {
                write!(f, "time limit of {} s reached; raise --timeout", limit.as_secs_f64())
            }
            Self::Output { limit } => write!(f, "output limit of {limit} bytes reached"),
        }
    }
}

/// A mount point that did not exist in the root and was made there, so that the caller can keep it out of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedMountpoint {
    /// Path relative to the root; parents come before children.
    pub path: PathBuf,
    /// True for a directory, false for an empty file.
    pub directory: bool,
    /// Modification time of the parent directory before, in seconds and nanoseconds.
    pub parent_mtime: (i64, u32),
}
