//! Copies one source into the tree: directories first, then files by two threads, then links of
//! the same file, and times of directories last.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ashlar_core::Digest;
use ashlar_layers::{KnownFiles, Stop};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::error::{FileOpError, Result};
use super::mode::ModeChange;
use super::place::{Placing, Reuse, make_at};
use super::tree::{Attributes, Handle, Tree, set_attributes, times};
use super::xattrs;
use crate::entry::{Entry, Kind, Time};
use crate::error::ContextError;
use crate::path::{self, shown};
use crate::root::{Root, is_dir};
use crate::select::Source;

/// Threads that write files.
const THREADS: usize = 2;

/// Files of one directory that a thread takes at once.
const CHUNK_FILES: usize = 256;

/// Fewer files are not worth a second thread.
const FILES_FOR_THREADS: usize = 64;

/// What all sources of one copy have in common.
pub(super) struct Copier<'a> {
    pub(super) from: &'a Root,
    /// Owner of everything; as the source has it when none.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<ModeChange>,
    pub(super) whole_directory: bool,
    pub(super) keep_xattrs: bool,
    pub(super) reuse: Option<&'a Reuse<'a>>,
    pub(super) stop: &'a Stop,
    pub(super) counts: &'a Counts,
}

/// What was done so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) files: AtomicU64,
    pub(super) linked: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// The files of one directory.
#[derive(Default)]
struct Job {
    /// In the source's tree.
    from: Vec<u8>,
    /// In the tree that is written to.
    to: Vec<u8>,
    files: Vec<usize>,
}

#[derive(Default)]
struct Plan {
    jobs: Vec<Job>,
    /// Entries that are other names of an earlier one: (first, other).
    links: Vec<(usize, usize)>,
    times: Vec<(Vec<u8>, Time)>,
}

impl Copier<'_> {
    /// Returns what directories are given that are only made on the way.
    pub(super) fn of_parents(&self) -> Attributes {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        Attributes { uid, gid, mode: ModeChange::of_parents(self.mode.as_ref()) }
    }

    /// The same above an unpacked archive, which no mode is applied to.
    pub(super) fn of_parents_of_archive(&self) -> Attributes {
        Attributes { mode: ModeChange::of_parents(None), ..self.of_parents() }
    }

    fn attributes(&self, entry: &Entry) -> Attributes {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let change = self.mode.as_ref();
        let mode = change.map_or(entry.mode, |c| c.apply(entry.mode, entry.is_dir()));
        Attributes { uid, gid, mode }
    }

    /// Copies one source to `destination`, by the rules of `COPY`.
    pub(super) fn copy(
        &self,
        tree: &mut Tree<'_>,
        source: &Source,
        destination: &[u8],
        known: &mut KnownFiles,
    ) -> Result<()> {
        let into = self.place_of(tree, source, destination)?;
        let plan = self.directories(tree, source, &into)?;
        let digests = self.files(tree, source, &into, &plan)?;
        self.links(tree, source, &into, &plan, &digests, known)?;
        for (at, digest) in &digests {
            known.insert(path::join(&into, &source.entries[*at].path), *digest);
        }
        set_times(tree, &plan.times)
    }

    /// Finds out where the source itself comes to lie, and makes the directories above.
    fn place_of(
        &self,
        tree: &mut Tree<'_>,
        source: &Source,
        destination: &[u8],
    ) -> Result<Vec<u8>> {
        let clean = path::clean(destination);
        let is_form = path::is_directory_form(destination);
        let above = if is_form { &clean[..] } else { path::parent(&clean).unwrap_or(b"") };
        let above = tree.resolve(above)?.path;
        tree.make_dirs(&above, self.of_parents())?;
        let found = tree.resolve(&clean)?;
        let is_there = found.stat.is_some();
        let leads_to_dir = found.stat.as_ref().is_some_and(is_dir);
        let contents = source.entries.first().is_some_and(Entry::is_dir) && !self.whole_directory;
        let top_is_dir = source.entries.first().is_some_and(Entry::is_dir);
        let inside = if top_is_dir { !contents && is_there } else { leads_to_dir };
        let into = match inside {
            true => path::join(&found.path, path::base(&source.path)),
            false => found.path,
        };
        let needed = if contents { &into[..] } else { path::parent(&into).unwrap_or(b"") };
        tree.make_dirs(needed, self.of_parents())?;
        Ok(into)
    }

    /// Makes all directories and shares the rest out among jobs.
    fn directories(&self, tree: &mut Tree<'_>, source: &Source, into: &[u8]) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut job_of: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut first_names: HashMap<(u64, u64), usize> = HashMap::new();
        for (at, entry) in source.entries.iter().enumerate() {
            let target = path::join(into, &entry.path);
            if entry.is_dir() {
                self.stop.check().map_err(|_| FileOpError::Stopped)?;
                self.directory(tree, source, entry, &target, &mut plan)?;
                continue;
            }
            if matches!(entry.kind, Kind::File { .. }) && entry.links > 1 {
                let file = (entry.stamp.device, entry.stamp.inode);
                let first = *first_names.entry(file).or_insert(at);
                if first != at {
                    plan.links.push((first, at));
                    continue;
                }
            }
            let from = path::join(&source.top, &entry.path);
            let from = path::parent(&from).unwrap_or(b"");
            let job = match job_of.get(from) {
                Some(job) => *job,
                None => {
                    let to = path::parent(&target).unwrap_or(b"").to_vec();
                    plan.jobs.push(Job { from: from.to_vec(), to, files: Vec::new() });
                    job_of.insert(from.to_vec(), plan.jobs.len() - 1);
                    plan.jobs.len() - 1
                }
            };
            plan.jobs[job].files.push(at);
        }
        Ok(plan)
    }

    /// Makes one directory, or gives one that exists what BuildKit gives it: the top of contents
    /// only its time, those below everything.
    fn directory(
        &self,
        tree: &mut Tree<'_>,
        source: &Source,
        entry: &Entry,
        target: &[u8],
        plan: &mut Plan,
    ) -> Result<()> {
        let attributes = self.attributes(entry);
        let made = tree.make_dir(target, attributes)?;
        let is_top = entry.path.is_empty();
        let all = made || (!is_top && !entry.implied);
        if all || is_top {
            plan.times.push((target.to_vec(), entry.stamp.modified));
        }
        let fail = |e| FileOpError::io("set up the directory", target, e);
        if all {
            let handle = tree.open_dir(target)?;
            if !made {
                set_attributes(handle.fd.as_fd(), attributes).map_err(fail)?;
            }
            if self.keep_xattrs {
                let from = self.open_source(&path::join(&source.top, &entry.path))?;
                xattrs::copy(from.as_fd(), handle.fd.as_fd()).map_err(fail)?;
            }
        } else if !is_top {
            let handle = tree.open_dir(target)?;
            let mode = rustix::fs::Mode::from_raw_mode(entry.mode);
            rustix::fs::fchmod(&handle.fd, mode).map_err(fail)?;
        }
        Ok(())
    }

    fn open_source(&self, dir: &[u8]) -> Result<OwnedFd> {
        self.from.open_dir(dir).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR | Errno::NOENT => FileOpError::Changed { path: shown(dir) },
            other => FileOpError::Source(ContextError::io("open the directory", dir, other)),
        })
    }

    fn files(
        &self,
        tree: &Tree<'_>,
        source: &Source,
        into: &[u8],
        plan: &Plan,
    ) -> Result<Vec<(usize, Digest)>> {
        let chunks = chunks(&plan.jobs);
        let count: usize = plan.jobs.iter().map(|j| j.files.len()).sum();
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let work = || {
            let mut digests = Vec::new();
            while let Some((job, range)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let done = self.chunk(tree, source, into, &plan.jobs[*job], range, &mut digests);
                if let Err(error) = done {
                    // The others end too once they look for more.
                    next.store(chunks.len(), Ordering::Relaxed);
                    lock(&failed).get_or_insert(error);
                }
            }
            digests
        };
        let digests = if count < FILES_FOR_THREADS {
            work()
        } else {
            std::thread::scope(|scope| {
                let others: Vec<_> = (1..THREADS).map(|_| scope.spawn(work)).collect();
                let mut digests = work();
                for other in others {
                    let theirs = other.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
                    digests.extend(theirs);
                }
                digests
            })
        };
        let failed = lock(&failed).take();
        failed.map_or(Ok(digests), Err)
    }

    fn chunk(
        &self,
        tree: &Tree<'_>,
        source: &Source,
        into: &[u8],
        job: &Job,
        range: &Range<usize>,
        digests: &mut Vec<(usize, Digest)>,
    ) -> Result<()> {
        let from = self.open_source(&job.from)?;
        let to = tree.open_dir(&job.to)?;
        // Only into the real directory: an overlay is another file system.
        let reuse = self.reuse.filter(|_| to.direct);
        let layer_dir = reuse.and_then(|r| Some((r, r.layer.open_dir(&job.to).ok()?)));
        for &at in &job.files[range.clone()] {
            self.stop.check().map_err(|_| FileOpError::Stopped)?;
            let entry = &source.entries[at];
            let target = path::join(into, &entry.path);
            let full = path::join(&source.top, &entry.path);
            let placing = self.placing(entry, &from, &full, &to, &target);
            let linked = layer_dir.as_ref().and_then(|(reuse, dir)| placing.link(reuse, dir));
            let (counter, digest) = match linked {
                Some(digest) => (&self.counts.linked, Some(digest)),
                None => (&self.counts.files, placing.place()?),
            };
            if let Some(digest) = digest {
                digests.push((at, digest));
                self.counts.bytes.fetch_add(entry.stamp.size, Ordering::Relaxed);
            }
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn placing<'a>(
        &'a self,
        entry: &'a Entry,
        from: &'a OwnedFd,
        full: &'a [u8],
        to: &'a Handle,
        target: &'a [u8],
    ) -> Placing<'a> {
        Placing {
            entry,
            attributes: self.attributes(entry),
            from: from.as_fd(),
            from_name: path::base(full),
            to,
            to_name: path::base(target),
            target,
            keep_xattrs: self.keep_xattrs,
            stop: self.stop,
        }
    }

    /// Makes the other names of files that have several.
    fn links(
        &self,
        tree: &Tree<'_>,
        source: &Source,
        into: &[u8],
        plan: &Plan,
        digests: &[(usize, Digest)],
        known: &mut KnownFiles,
    ) -> Result<()> {
        if plan.links.is_empty() {
            return Ok(());
        }
        let digests: HashMap<usize, Digest> = digests.iter().copied().collect();
        for &(first, other) in &plan.links {
            self.stop.check().map_err(|_| FileOpError::Stopped)?;
            let entry = &source.entries[other];
            let target = path::join(into, &entry.path);
            let digest =
                match self.link(tree, &path::join(into, &source.entries[first].path), &target) {
                    Ok(()) => digests.get(&first).copied(),
                    // Too many names, or one is in the upper directory and one behind the mount.
                    Err(Failed::Cannot) => self.copy_again(tree, source, entry, &target)?,
                    Err(Failed::Error(error)) => return Err(error),
                };
            if let Some(digest) = digest {
                known.insert(&target, digest);
            }
        }
        Ok(())
    }

    fn link(&self, tree: &Tree<'_>, first: &[u8], target: &[u8]) -> Result<(), Failed> {
        let open = |p: &[u8]| tree.open_dir(path::parent(p).unwrap_or(b""));
        let (from, to) = (open(first)?, open(target)?);
        let (old, new) = (path::base(first), path::base(target));
        let cannot = std::cell::Cell::new(false);
        let made = make_at(&to, new, target, || {
            let linked = rustix::fs::linkat(&from.fd, old, &to.fd, new, AtFlags::empty());
            cannot.set(matches!(linked, Err(Errno::MLINK | Errno::XDEV)));
            linked
        });
        if cannot.get() { Err(Failed::Cannot) } else { made.map_err(Failed::Error) }
    }

    fn copy_again(
        &self,
        tree: &Tree<'_>,
        source: &Source,
        entry: &Entry,
        target: &[u8],
    ) -> Result<Option<Digest>> {
        let full = path::join(&source.top, &entry.path);
        let from = self.open_source(path::parent(&full).unwrap_or(b""))?;
        let to = tree.open_dir(path::parent(target).unwrap_or(b""))?;
        self.placing(entry, &from, &full, &to, target).place()
    }
}

enum Failed {
    Cannot,
    Error(FileOpError),
}

impl From<FileOpError> for Failed {
    fn from(error: FileOpError) -> Self {
        Self::Error(error)
    }
}

fn chunks(jobs: &[Job]) -> Vec<(usize, Range<usize>)> {
    let of_job = |(at, job): (usize, &Job)| {
        let len = job.files.len();
        let starts = (0..len).step_by(CHUNK_FILES);
        starts.map(move |s| (at, s..(s + CHUNK_FILES).min(len))).collect::<Vec<_>>()
    };
    jobs.iter().enumerate().flat_map(of_job).collect()
}

/// Sets the times of directories, deepest first: making a file changes the time of its directory.
fn set_times(tree: &Tree<'_>, all: &[(Vec<u8>, Time)]) -> Result<()> {
    for (dir, modified) in all.iter().rev() {
        let handle = tree.open_dir(dir)?;
        rustix::fs::futimens(&handle.fd, &times(*modified))
            .map_err(|e| FileOpError::io("set the time of", dir, e))?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
