//! The operation that runs a process tree.

use serde::{Deserialize, Serialize};

/// A process tree in the tree of input 0.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Exec {
    /// The command line; the program is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// The whole environment, in order.
    pub env: Vec<(String, String)>,
    /// Absolute directory that the process starts in; made when missing.
    pub cwd: String,
    /// `name|uid[:group|gid]`, looked up in the tree; root when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// What is mounted over the tree while the process runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// What of the network it sees.
    #[serde(default, skip_serializing_if = "Network::is_default")]
    pub network: Network,
    /// Whether it runs without the sandbox's restrictions.
    #[serde(default, skip_serializing_if = "Security::is_default")]
    pub security: Security,
    /// Further lines of `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<ExtraHost>,
    /// Host name inside; `buildkitsandbox` when empty, which Dockerfiles have come to rely on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Size of `/dev/shm` in bytes; 64 MiB when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
    /// Resource limits of each process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Whether the run changes something outside of the build (a deploy): never cached, never
    /// shared between builds, and after it no final artifact is taken from the cache.
    #[serde(default, skip_serializing_if = "is_false")]
    pub effect: bool,
    /// Processes that are started before the command and stopped after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub background: Vec<Background>,
    /// Files whose bytes are handed back as data when the command has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returns: Vec<ReturnFile>,
    /// Exit codes other than 0 that count as success, in ascending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted_codes: Vec<i32>,
    /// Ids of secrets whose keyed hash enters the cache key, because the result depends on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keyed_secrets: Vec<String>,
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// What a process sees of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// What the executor's settings say: normally `Isolated`.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's own network; needs the entitlement `network.host`.
    Host,
    /// A namespace of its own with outbound connections.
    Isolated,
}

impl Network {
    fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

/// How far a process is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// The sandbox's usual restrictions.
    #[default]
    Sandbox,
    /// All capabilities and no seccomp; needs the entitlement `security.insecure`.
    Insecure,
}

impl Security {
    fn is_default(&self) -> bool {
        *self == Self::Sandbox
    }
}

/// A name in `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub host: String,
    /// Its address, or `host-gateway`.
    pub address: String,
}

/// A resource limit as in setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, lower case, for example `nofile`.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// Something mounted over the tree while a process runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the tree.
    pub destination: String,
    /// What is mounted.
    #[serde(flatten)]
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mount", rename_all = "snake_case")]
pub enum MountKind {
    /// A path of another input's tree. Writes, where allowed, are thrown away.
    Bind {
        /// Index into the node's inputs.
        input: usize,
        /// Path in that tree.
        source: String,
        /// Whether the process may write.
        writable: bool,
    },
    /// A named directory that lives on between builds; its content never enters a key.
    Cache {
        /// Its name; the destination when the user gave none.
        id: String,
        /// What two users at once do.
        sharing: CacheSharing,
        /// What a new directory starts with: index into the node's inputs, and a path there.
        seed: Option<(usize, String)>,
        /// Permission bits of a new directory.
        mode: u32,
        /// Owner of a new directory.
        uid: u32,
        /// Group of a new directory.
        gid: u32,
        /// Whether the process may only read.
        readonly: bool,
    },
    /// A named directory of a scope: restored before the command, saved only when it succeeds.
    Volume {
        /// Its name within the scope.
        id: String,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Bound on its size in bytes; half of the memory when absent.
        size: Option<u64>,
    },
    /// A secret as a file, and as an environment variable when `env` is set.
    Secret {
        /// Which secret.
        id: String,
        /// Variable that gets the value too; the file is left out when `file` is false.
        env: Option<String>,
        /// Whether the file is made.
        file: bool,
        /// Permission bits of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
        /// Whether a missing secret fails the step.
        required: bool,
    },
    /// The socket of the client's ssh agent.
    Ssh {
        /// Which agent; `default` when the user gave none.
        id: String,
        /// Permission bits of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
        /// Whether a missing agent fails the step.
        required: bool,
    },
}

/// What happens when two steps want the same cache mount at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheSharing {
    /// Both use it.
    #[default]
    Shared,
    /// The second one gets a directory of its own.
    Private,
    /// The second one waits.
    Locked,
}

/// A process that runs beside the command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Background {
    /// What people see.
    pub name: String,
    /// The command line.
    pub args: Vec<String>,
    /// Variables on top of the command's own.
    pub env: Vec<(String, String)>,
    /// Absolute directory that it starts in.
    pub cwd: String,
    /// As [`Exec::user`].
    pub user: String,
    /// What must hold before the command starts; none: it only has to start, and gets a moment to do so.
    pub probe: Option<Probe>,
}

/// How to see that a background process is ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// What is tried.
    #[serde(flatten)]
    pub kind: ProbeKind,
    /// Milliseconds from one try to the next.
    pub interval_ms: u64,
    /// Milliseconds before the first try.
    pub grace_ms: u64,
    /// Milliseconds from the end of the grace after which the process counts as failed.
    pub timeout_ms: u64,
}

/// What a probe tries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "probe", rename_all = "snake_case")]
pub enum ProbeKind {
    /// A TCP connection to loopback inside the sandbox.
    Tcp {
        /// Port.
        port: u16,
    },
    /// A GET that must answer 200 to 399.
    Http {
        /// Port.
        port: u16,
        /// Absolute path with query.
        path: String,
    },
    /// A shell command that must exit with 0.
    Command {
        /// Text for `/bin/sh -c`.
        command: String,
    },
    /// Nothing: ready when the time has passed.
    Elapsed,
}

/// A file that a command hands back as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnFile {
    /// Name under which the bytes are handed back.
    pub name: String,
    /// Absolute path in the tree.
    pub path: String,
    /// Most bytes that are read; a longer file fails the step.
    pub bytes_max: u64,
    /// Whether the file must exist.
    pub required: bool,
}
