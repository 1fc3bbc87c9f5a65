//! Removes cgroup directories beside the steps, and those that an engine left behind when it died.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::layout::Layout;

/// A group stays busy for a moment after its last process was reaped.
const RETRIES: u32 = 200;
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Names groups and removes them in the background; dropping it waits for the removals.
#[derive(Debug)]
pub(crate) struct Janitor {
    sender: Option<Sender<Vec<PathBuf>>>,
    thread: Option<JoinHandle<()>>,
    prefix: String,
    count: AtomicU64,
}

impl Janitor {
    /// Removes what dead engines left and starts the background thread.
    pub(crate) fn start(layout: &Layout) -> io::Result<Self> {
        remove_stale(layout);
        let (sender, receiver) = channel::<Vec<PathBuf>>();
        let thread =
            std::thread::Builder::new().name("cgroup-janitor".into()).spawn(move || {
                for directories in receiver {
                    directories.iter().for_each(|directory| remove(directory));
                }
            })?;
        let me = std::process::id();
        let prefix = format!("{me}.{}", start_time(me).unwrap_or(0));
        // Several sandboxes of one process share the numbering, so that their groups can't collide.
        static INSTANCES: AtomicU64 = AtomicU64::new(0);
        let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{prefix}-{instance}");
        Ok(Self { sender: Some(sender), thread: Some(thread), prefix, count: AtomicU64::new(0) })
    }

    /// A name that no other group has.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.prefix, self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// Removes groups soon.
    pub(crate) fn remove(&self, directories: Vec<PathBuf>) {
        if let Some(sender) = &self.sender {
            // The thread lives as long as the sender.
            let _ = sender.send(directories);
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Removes one group; one that stays busy is left for the next start.
fn remove(directory: &Path) {
    for _ in 0..RETRIES {
        match std::fs::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(RETRY_PAUSE);
            }
            _ => return,
        }
    }
}

/// Ends and removes the groups of engines that are gone; their names begin with `<pid>.<start time>-`.
fn remove_stale(layout: &Layout) {
    for controller in layout.all() {
        let Ok(entries) = std::fs::read_dir(&controller.parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some((pid, started)) = name.to_str().and_then(owner) else { continue };
            if start_time(pid) == Some(started) {
                continue;
            }
            kill_members(&entry.path());
            remove(&entry.path());
        }
    }
}

/// Tells whether the process that a name belongs to still runs; `None` for names of others.
pub(crate) fn is_running(name: &str) -> Option<bool> {
    owner(name).map(|(pid, started)| start_time(pid) == Some(started))
}

/// The process that a group's name says it belongs to: pid and start time.
fn owner(name: &str) -> Option<(u32, u64)> {
    let (pid, started) = name.split_once('-')?.0.split_once('.')?;
    Some((pid.parse().ok()?, started.parse().ok()?))
}

fn kill_members(group: &Path) {
    let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|line| line.parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Field 22 of `/proc/PID/stat`: tells a process from a later one with the same pid.
fn start_time(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        assert_eq!(owner("12.345-0-7"), Some((12, 345)));
        assert_eq!(owner("other"), None);
        let me = std::process::id();
        assert!(start_time(me).is_some_and(|ticks| ticks > 0));
    }
}
