//! What a caller asks a sandbox to run: plain data, no behaviour.
//!
//! Every path under [`Rootfs`] and every mount destination lies inside a tree that earlier steps wrote, so it is
//! treated as hostile by the implementations. Paths named "host" come from the operator or from Ashlar's own store.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Pids a sandbox may hold at once when the build names no limit of its own.
pub const PIDS_DEFAULT: u64 = 16_384;
/// Size of `/dev/shm` in bytes when the step names none, as in Docker.
pub const SHM_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// The search path of a process whose environment names none, as in Docker.
pub const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One sandbox and the process it is made for.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The root file system of the sandbox.
    pub rootfs: Rootfs,
    /// The process that `run` starts; `start` ignores all but its user, which decides on no_new_privs.
    pub process: Process,
    /// The host name inside.
    pub hostname: String,
    /// Further mounts, made in this order after the system ones.
    pub mounts: Vec<Mount>,
    /// What the step can reach.
    pub network: Network,
    /// Whether the restrictions of a container hold.
    pub security: Security,
    /// What the step may use up.
    pub limits: Limits,
    /// Lines for `/etc/hosts`: name and address.
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// Name service of the step.
    pub dns: Dns,
    /// Bytes of `/dev/shm`.
    pub shm_bytes: u64,
    /// Resource limits by name, in place of the defaults.
    pub ulimits: Vec<Ulimit>,
    /// A host file of CA certificates, shown at [`crate::CA_BUNDLE_PATH`] and named in the usual variables.
    pub ca_bundle: Option<PathBuf>,
    /// Host directories whose growth counts against `limits.disk_bytes` (the upper directory and writable caches).
    pub disk_paths: Vec<PathBuf>,
}

impl Spec {
    /// Makes a spec with the defaults of a `RUN` step: root, no network, default limits.
    pub fn new<S: Into<OsString>>(rootfs: Rootfs, args: impl IntoIterator<Item = S>) -> Self {
        Self {
            rootfs,
            process: Process::new(args),
            hostname: "buildkitsandbox".to_owned(),
            mounts: Vec::new(),
            network: Network::None,
            security: Security::Sandboxed,
            limits: Limits::default(),
            extra_hosts: Vec::new(),
            dns: Dns::default(),
            shm_bytes: SHM_BYTES_DEFAULT,
            ulimits: Vec::new(),
            ca_bundle: None,
            disk_paths: Vec::new(),
        }
    }
}

/// One process of a sandbox.
#[derive(Debug, Clone)]
pub struct Process {
    /// Program and arguments; a program without a slash is looked up in `PATH` of `env`, inside the root.
    pub args: Vec<OsString>,
    /// The whole environment; nothing of the host's is added.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory inside the root; made when missing.
    pub cwd: PathBuf,
    /// Whom it runs as.
    pub user: User,
}

impl Process {
    /// Makes a process of root in `/` with only `PATH` set.
    pub fn new<S: Into<OsString>>(args: impl IntoIterator<Item = S>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            env: vec![("PATH".into(), PATH_DEFAULT.into())],
            cwd: "/".into(),
            user: User::default(),
        }
    }
}

/// Numeric identity of a process; names are resolved by the caller from the root's own `/etc/passwd`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// Where `/` of the sandbox comes from.
#[derive(Debug, Clone)]
pub enum Rootfs {
    /// An overlay mount made for this sandbox alone.
    Overlay {
        /// Read-only layers, topmost first; any number of them.
        lowers: Vec<PathBuf>,
        /// Directory that receives the changes.
        upper: PathBuf,
        /// Empty directory on the file system of `upper`.
        work: PathBuf,
        /// Skips every sync of the upper layer: fast, and right when a crash throws the layer away anyway.
        volatile: bool,
    },
    /// A host directory as it is.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Refuses writes to it.
        readonly: bool,
    },
}

/// Something mounted below the root.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Path inside the root, resolved there so that symbolic links never leave it; made when missing.
    pub target: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
}

/// The kinds of mount.
#[derive(Debug, Clone)]
pub enum MountKind {
    /// A directory or file of the host.
    Bind {
        /// Trusted host path.
        source: PathBuf,
        /// Hostile path below `source`, resolved as if `source` were `/`; empty for `source` itself.
        subpath: PathBuf,
        /// Refuses writes.
        readonly: bool,
    },
    /// Layers shown as one tree; writable mounts lose what was written.
    Layers {
        /// Read-only layers, topmost first.
        lowers: Vec<PathBuf>,
        /// Hostile path below the merged tree; empty for all of it.
        subpath: PathBuf,
        /// An existing empty host directory for a throw-away upper (`upper` and `work` are made in it); `None` mounts read only.
        scratch: Option<PathBuf>,
    },
    /// Memory, counted against the step's memory limit.
    Tmpfs {
        /// Ceiling in bytes; `None` leaves the kernel's default of half the memory.
        size_bytes: Option<u64>,
        /// Mode of its root directory.
        mode: u32,
    },
    /// A file that exists only in memory and only inside this sandbox: a secret.
    Content {
        /// The content.
        bytes: Secret,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A listening Unix socket of the host, such as a forwarded ssh agent; the caller sets its owner and mode.
    Socket {
        /// Trusted host path of the socket.
        source: PathBuf,
    },
}

impl MountKind {
    /// Returns an empty file system in memory that any user may write to.
    pub const fn tmpfs(size_bytes: Option<u64>) -> Self {
        Self::Tmpfs { size_bytes, mode: 0o1777 }
    }
}

/// Bytes that never appear in debug output.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// What a step can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// A namespace with nothing but its own loopback.
    None,
    /// The host's own network; only for builds that were allowed to.
    Host,
    /// A namespace with outbound NAT; the host, other sandboxes and link-local addresses stay out of reach.
    Isolated,
}

/// Whether the restrictions of a container hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// Docker's capabilities, seccomp profile and masked paths.
    Sandboxed,
    /// All capabilities, no filter, nothing masked: only for builds that were allowed to.
    Insecure,
}

/// What a step may use up. `None` leaves the resource without a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Memory with swap, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time per wall time: 1.5 is one and a half cores.
    pub cpus: Option<f64>,
    /// Processes and threads at one time.
    pub pids: Option<u64>,
    /// Growth of `Spec::disk_paths` in bytes; a project quota where the file system has it, else polled: see
    /// [`crate::disk`] for the overshoot.
    pub disk_bytes: Option<u64>,
    /// The file systems of `disk_paths` keep at least this many bytes free; the step ends when it falls below.
    pub disk_free_bytes: Option<u64>,
    /// Wall time of one process.
    pub timeout: Option<Duration>,
    /// Bytes of output, both streams together.
    pub output_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: None,
            cpus: None,
            pids: Some(PIDS_DEFAULT),
            disk_bytes: None,
            disk_free_bytes: None,
            timeout: None,
            output_bytes: None,
        }
    }
}

/// Name service of a step; empty lists take over the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Resolver addresses.
    pub servers: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options as in resolv.conf(5).
    pub options: Vec<String>,
}

/// One resource limit, as `docker build --ulimit` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// Which resource.
    pub resource: UlimitKind,
    /// Soft value; `None` is unlimited.
    pub soft: Option<u64>,
    /// Hard value; `None` is unlimited.
    pub hard: Option<u64>,
}

/// The resources of setrlimit(2), by the names that Docker uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of setrlimit(2)")]
pub enum UlimitKind {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Sigpending,
    Stack,
}

impl UlimitKind {
    /// Finds the resource by Docker's name of it, such as `nofile`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "core" => Self::Core,
            "cpu" => Self::Cpu,
            "data" => Self::Data,
            "fsize" => Self::Fsize,
            "locks" => Self::Locks,
            "memlock" => Self::Memlock,
            "msgqueue" => Self::Msgqueue,
            "nice" => Self::Nice,
            "nofile" => Self::Nofile,
            "nproc" => Self::Nproc,
            "rss" => Self::Rss,
            "rtprio" => Self::Rtprio,
            "sigpending" => Self::Sigpending,
            "stack" => Self::Stack,
            _ => return None,
        })
    }
}
