//! The cgroup of one sandbox.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::layout::{COMMON, Controller, Layout, Version};
use crate::Limits;

/// Length of the window in which a processor quota holds, in microseconds.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// Smallest quota that the kernel takes, in microseconds.
const CPU_QUOTA_MIN_MICROS: u64 = 1_000;

/// What the kernel counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processes killed for want of memory.
    pub(crate) oom_kills: u64,
    /// Forks refused for want of pids.
    pub(crate) pids_refused: u64,
    /// Peak memory in bytes.
    pub(crate) peak_memory: Option<u64>,
}

/// The groups that one sandbox is in.
#[derive(Debug)]
pub(crate) struct Cgroup {
    /// Directories to remove at the end.
    pub(crate) directories: Vec<PathBuf>,
    memory: Option<(Version, PathBuf)>,
    pids: Option<PathBuf>,
    /// Whether the step is in a group of Ashlar's in each v1 hierarchy that language runtimes look at.
    pub(crate) shown: bool,
    /// `tasks` of each v1 group; writing `0` moves the writing thread there.
    joins: Vec<OwnedFd>,
    /// The v2 group to be born in.
    unified: Option<OwnedFd>,
}

impl Cgroup {
    /// Makes the groups and sets the limits. `devices` tells whether the device rules hold.
    pub(crate) fn create(
        layout: &Layout,
        name: &str,
        limits: &Limits,
        devices: bool,
    ) -> io::Result<Self> {
        let mut group = Self {
            directories: Vec::with_capacity(3),
            memory: None,
            pids: None,
            // Without a limit there is nothing to see, and a step gets by with fewer groups.
            shown: !layout.hierarchies.is_empty()
                && (limits.memory_bytes.is_some() || limits.cpus.is_some()),
            joins: Vec::with_capacity(6),
            unified: None,
        };
        let filled = group.fill(layout, name, limits, devices);
        if let Err(error) = filled {
            for directory in &group.directories {
                let _ = std::fs::remove_dir(directory);
            }
            return Err(error);
        }
        Ok(group)
    }

    fn fill(
        &mut self,
        layout: &Layout,
        name: &str,
        limits: &Limits,
        devices: bool,
    ) -> io::Result<()> {
        if let Some(parent) = layout.unified() {
            let directory = parent.join(name);
            std::fs::create_dir(&directory)?;
            self.unified = Some(File::open(&directory)?.into());
            self.directories.push(directory);
        }
        if let Some(controller) = &layout.memory {
            let directory = self.directory(controller, name)?;
            limit_memory(&directory, controller.version, limits.memory_bytes)?;
            self.memory = Some((controller.version, directory));
        }
        if let Some(controller) = &layout.pids {
            let directory = self.directory(controller, name)?;
            if let Some(pids) = limits.pids {
                write(&directory, "pids.max", &pids.to_string())?;
            }
            self.pids = Some(directory);
        }
        if let Some(controller) = &layout.cpu
            && (limits.cpus.is_some() || self.shown)
        {
            let directory = self.directory(controller, name)?;
            if let Some(cpus) = limits.cpus {
                limit_cpu(&directory, controller.version, cpus)?;
            }
        }
        if self.shown {
            self.join_common(layout)?;
        }
        if let (Some(controller), true) = (&layout.devices, devices) {
            // The rules are those of the parent; nothing is counted, so all sandboxes share it.
            self.joins.push(open_join(&controller.parent)?);
        }
        Ok(())
    }

    fn join_common(&mut self, layout: &Layout) -> io::Result<()> {
        for hierarchy in &layout.hierarchies {
            if self.own_group(&hierarchy.parent).is_none() {
                self.joins.push(open_join(&hierarchy.parent.join(COMMON))?);
            }
        }
        Ok(())
    }

    /// The step's own group below a parent group.
    pub(crate) fn own_group(&self, parent: &Path) -> Option<&Path> {
        let mut groups = self.directories.iter().map(PathBuf::as_path);
        groups.find(|group| group.parent() == Some(parent))
    }

    fn directory(&mut self, controller: &Controller, name: &str) -> io::Result<PathBuf> {
        let directory = controller.parent.join(name);
        if controller.version == Version::V1 && !self.directories.contains(&directory) {
            std::fs::create_dir(&directory)?;
            self.directories.push(directory.clone());
            self.joins.push(open_join(&directory)?);
        }
        Ok(directory)
    }

    /// The v2 group for `CLONE_INTO_CGROUP`.
    pub(crate) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process into the v1 groups. Runs in the new process: does not allocate.
    pub(crate) fn join(&self) -> rustix::io::Result<()> {
        for procs in &self.joins {
            rustix::io::write(procs, b"0")?;
        }
        Ok(())
    }

    /// Reads what was counted so far.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage { pids_refused: self.pids_refused(), ..Usage::default() };
        if let Some((version, directory)) = &self.memory {
            let (events, peak) = match version {
                Version::V1 => ("memory.oom_control", "memory.max_usage_in_bytes"),
                Version::V2 => ("memory.events", "memory.peak"),
            };
            usage.oom_kills = counter(directory, events, "oom_kill");
            usage.peak_memory = number(directory, peak);
        }
        usage
    }

    /// Counts the forks that the pids limit refused.
    pub(crate) fn pids_refused(&self) -> u64 {
        self.pids.as_deref().map_or(0, |directory| counter(directory, "pids.events", "max"))
    }

    /// Ends everything in the v2 group; v1 has no such call, there the pid namespace's end does it.
    pub(crate) fn kill(&self) {
        if let (Some(_), Some(directory)) = (&self.unified, self.directories.first()) {
            let _ = write(directory, "cgroup.kill", "1");
        }
    }
}

fn limit_memory(directory: &Path, version: Version, bytes: Option<u64>) -> io::Result<()> {
    let Some(bytes) = bytes else { return Ok(()) };
    let bytes = bytes.to_string();
    match version {
        Version::V1 => {
            write(directory, "memory.limit_in_bytes", &bytes)?;
            optional(write(directory, "memory.memsw.limit_in_bytes", &bytes))
        }
        Version::V2 => {
            write(directory, "memory.max", &bytes)?;
            write(directory, "memory.oom.group", "1")?;
            optional(write(directory, "memory.swap.max", "0"))
        }
    }
}

fn limit_cpu(directory: &Path, version: Version, cpus: f64) -> io::Result<()> {
    let quota = (cpus * CPU_PERIOD_MICROS as f64) as u64;
    let quota = quota.max(CPU_QUOTA_MIN_MICROS);
    match version {
        Version::V1 => {
            write(directory, "cpu.cfs_period_us", &CPU_PERIOD_MICROS.to_string())?;
            write(directory, "cpu.cfs_quota_us", &quota.to_string())
        }
        Version::V2 => write(directory, "cpu.max", &format!("{quota} {CPU_PERIOD_MICROS}")),
    }
}

/// Kernels without swap accounting lack the file.
fn optional(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Writes a control file; never makes one, which in a plain directory would hide a mistake.
fn write(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(directory.join(file))?.write_all(value.as_bytes())
}

/// Opens what a process of one thread joins by. Through `cgroup.procs` the kernel would move all threads there may be,
/// and first wait until no process of the machine forks: 7 to 15 ms of every step.
fn open_join(directory: &Path) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().write(true).open(directory.join("tasks"))?.into())
}

fn number(directory: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
}

/// A line `key value` of a control file; 0 when it is missing.
fn counter(directory: &Path, file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key).and_then(|(_, n)| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plain directory in which the control files of a v2 group exist.
    fn v2_group(limits: &Limits) -> (tempfile::TempDir, PathBuf) {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join("step");
        std::fs::create_dir(&directory).unwrap();
        for file in ["memory.max", "memory.oom.group", "memory.swap.max", "pids.max", "cpu.max"] {
            std::fs::write(directory.join(file), "").unwrap();
        }
        limit_memory(&directory, Version::V2, limits.memory_bytes).unwrap();
        if let Some(cpus) = limits.cpus {
            limit_cpu(&directory, Version::V2, cpus).unwrap();
        }
        (tree, directory)
    }

    #[test]
    fn v2_limits_are_written() {
        let limits = Limits { memory_bytes: Some(1 << 20), cpus: Some(1.5), ..Limits::default() };
        let (_tree, directory) = v2_group(&limits);
        let read = |file| std::fs::read_to_string(directory.join(file)).unwrap();
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("memory.oom.group"), "1");
        assert_eq!(read("cpu.max"), "150000 100000");
    }

    #[test]
    fn v2_usage_is_read() {
        let (_tree, directory) = v2_group(&Limits::default());
        std::fs::write(directory.join("memory.events"), "low 0\noom 2\noom_kill 1\n").unwrap();
        std::fs::write(directory.join("memory.peak"), "4096\n").unwrap();
        std::fs::write(directory.join("pids.events"), "max 3\n").unwrap();
        let group = Cgroup {
            directories: Vec::new(),
            memory: Some((Version::V2, directory.clone())),
            pids: Some(directory),
            shown: false,
            joins: Vec::new(),
            unified: None,
        };
        let expected = Usage { oom_kills: 1, pids_refused: 3, peak_memory: Some(4096) };
        assert_eq!(group.usage(), expected);
    }

    #[test]
    fn a_quota_below_the_kernel_s_least_is_raised() {
        let limits = Limits { cpus: Some(0.000_1), ..Limits::default() };
        let (_tree, directory) = v2_group(&limits);
        let text = std::fs::read_to_string(directory.join("cpu.max")).unwrap();
        assert_eq!(text, "1000 100000");
    }
}
