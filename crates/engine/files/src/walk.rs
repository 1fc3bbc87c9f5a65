//! Scans a source tree with two threads, by directory handles: a name is never followed as a link,
//! whatever others do to the tree meanwhile.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use ashlar_core::Digest;
use ashlar_layers::{Stop, path_order};
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use crate::context::Ignore;
use crate::entry::{Entry, Kind};
use crate::error::ContextError;
use crate::path::{self, PATH_BYTES_MAX, shown};
use crate::pattern::{Marks, Patterns};
use crate::root::{Root, stat_at};

/// Threads of one scan. Two: the kernel's directory locks and two cores make more useless.
const THREADS: usize = 2;

/// The most directories above a selected file.
pub(crate) const DEPTH_MAX: usize = 1000;

/// The most files and directories of one source.
pub(crate) const ENTRIES_MAX: usize = 5_000_000;

/// Bytes of directory entries that are read at once.
const LIST_BYTES: usize = 32 * 1024;

/// Files from this size on are tasks of their own, so that one directory's files spread.
const BIG_FILE_BYTES: u64 = 512 * 1024;

/// Tells the digest of a file's content. Called by several threads at once.
pub(crate) trait Digester: Sync {
    /// Returns the digest of the file `name` in `dir`; `entry` says what is known of it, and is set
    /// right when the file turns out to be newer. `full` is its path for messages.
    fn digest(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        entry: &mut Entry,
        full: &[u8],
        stop: &Stop,
    ) -> Result<Digest, ContextError>;
}

/// What to scan and what to leave out.
pub(crate) struct Walk<'a> {
    pub(crate) root: &'a Root,
    /// The source: a clean path without links.
    pub(crate) top: &'a [u8],
    /// Judges paths relative to the root.
    pub(crate) ignore: Option<&'a dyn Ignore>,
    /// Judges paths relative to the top; the top itself is always taken.
    pub(crate) exclude: &'a Patterns,
    /// Like `exclude`; everything is included when there are none.
    pub(crate) include: &'a Patterns,
    pub(crate) digester: Option<&'a dyn Digester>,
    /// Whether owners are kept.
    pub(crate) owners: bool,
    pub(crate) stop: &'a Stop,
}

/// Tasks name their directory by its path and not by an open handle: of those there may be
/// thousands waiting. The path is looked up without following links, so it cannot lead elsewhere.
enum Task {
    Dir { path: Vec<u8>, include: Marks, exclude: Marks, depth: usize },
    File { entry: Entry },
}

#[derive(Default)]
struct Queue {
    tasks: Vec<Task>,
    busy: usize,
    failed: Option<ContextError>,
}

struct Shared<'a> {
    walk: &'a Walk<'a>,
    queue: Mutex<Queue>,
    wake: Condvar,
    found: AtomicUsize,
}

impl Walk<'_> {
    /// Returns the top and everything below it that is selected, in [`path_order`].
    pub(crate) fn run(&self) -> Result<Vec<Entry>, ContextError> {
        let stat = self.root.stat(self.top).map_err(|e| ContextError::io("read", self.top, e))?;
        let mut top = Entry::of(Vec::new(), &stat, || self.root.read_link(self.top))
            .map_err(|e| ContextError::io("read the link", self.top, e))?;
        if !self.owners {
            (top.uid, top.gid) = (0, 0);
        }
        if !top.is_dir() {
            return self.single(top).map(|entry| vec![entry]);
        }
        top.implied = !self.include.is_empty();
        let mut entries = self.below()?;
        entries.push(top);
        entries.sort_unstable_by(|a, b| path_order(&a.path, &b.path));
        drop_empty_implied(&mut entries);
        Ok(entries)
    }

    fn single(&self, mut entry: Entry) -> Result<Entry, ContextError> {
        if let (Some(digester), Kind::File { .. }) = (self.digester, &entry.kind) {
            let above = path::parent(self.top).unwrap_or(b"");
            let dir = self.root.open_dir(above).map_err(|e| open_error(above, e))?;
            let content =
                digester.digest(&dir, path::base(self.top), &mut entry, self.top, self.stop)?;
            entry.kind = Kind::File { content: Some(content) };
        }
        Ok(entry)
    }

    fn below(&self) -> Result<Vec<Entry>, ContextError> {
        let (include, exclude) = (Marks::default(), Marks::default());
        let first = Task::Dir { path: Vec::new(), include, exclude, depth: 0 };
        let shared = Shared {
            walk: self,
            queue: Mutex::new(Queue { tasks: vec![first], ..Queue::default() }),
            wake: Condvar::new(),
            found: AtomicUsize::new(0),
        };
        let mut entries = std::thread::scope(|scope| {
            let others: Vec<_> =
                (1..THREADS).map(|_| scope.spawn(|| Worker::new(&shared).run())).collect();
            let mut entries = Worker::new(&shared).run();
            for other in others {
                // A panic there is a bug that must not be taken for an empty directory.
                entries
                    .extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            entries
        });
        let failed = lock(&shared.queue).failed.take();
        if !self.owners {
            entries.iter_mut().for_each(|e| (e.uid, e.gid) = (0, 0));
        }
        failed.map_or(Ok(entries), Err)
    }

    fn full(&self, relative: &[u8]) -> Vec<u8> {
        path::join(self.top, relative)
    }
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    entries: Vec<Entry>,
}

/// What the patterns say of one name.
struct Verdict {
    include: Marks,
    exclude: Marks,
    selected: bool,
    descend: bool,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>) -> Self {
        Self { shared, entries: Vec::new() }
    }

    /// Works on tasks until none is left and nobody can make a new one.
    fn run(mut self) -> Vec<Entry> {
        while let Some(task) = self.next() {
            let done = match task {
                Task::Dir { path, include, exclude, depth } => {
                    self.directory(&path, &include, &exclude, depth)
                }
                Task::File { entry } => self.big_file(entry),
            };
            let mut queue = lock(&self.shared.queue);
            queue.busy -= 1;
            if let Err(error) = done {
                queue.failed.get_or_insert(error);
            }
            if queue.failed.is_some() {
                queue.tasks.clear();
            }
            if queue.busy == 0 && queue.tasks.is_empty() {
                self.shared.wake.notify_all();
            }
        }
        self.entries
    }

    fn next(&self) -> Option<Task> {
        let mut queue = lock(&self.shared.queue);
        loop {
            if let Some(task) = queue.tasks.pop() {
                queue.busy += 1;
                return Some(task);
            }
            if queue.busy == 0 {
                return None;
            }
            queue = self.shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn push(&self, task: Task) {
        lock(&self.shared.queue).tasks.push(task);
        self.shared.wake.notify_one();
    }

    fn directory(
        &mut self,
        path: &[u8],
        include: &Marks,
        exclude: &Marks,
        depth: usize,
    ) -> Result<(), ContextError> {
        let walk = self.shared.walk;
        walk.stop.check().map_err(|_| ContextError::Stopped)?;
        let full = walk.full(path);
        let dir = match walk.root.open_dir(&full) {
            Ok(dir) => dir,
            // Gone since its own directory was listed: as if it had never been there.
            Err(Errno::NOENT) if depth > 0 => return Ok(()),
            Err(error) => return Err(open_error(&full, error)),
        };
        for (name, listed) in list(&dir).map_err(|e| ContextError::io("list", &full, e))? {
            let relative = path::join(path, &name);
            let full = walk.full(&relative);
            if full.len() > PATH_BYTES_MAX {
                return Err(ContextError::TooLong { path: shown(&full) });
            }
            let may_be_dir = matches!(listed, FileType::Directory | FileType::Unknown);
            let verdict = self.judge(&relative, &full, include, exclude, may_be_dir);
            if !verdict.selected && !verdict.descend {
                continue;
            }
            let stat = match stat_at(dir.as_fd(), &name) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(ContextError::io("read", &full, error)),
            };
            let read_link = || rustix::fs::readlinkat(&dir, &name[..], Vec::new());
            let mut entry = Entry::of(relative, &stat, || read_link().map(|l| l.into_bytes()))
                .map_err(|e| ContextError::io("read the link", &full, e))?;
            if self.shared.found.fetch_add(1, Ordering::Relaxed) >= ENTRIES_MAX {
                return Err(ContextError::TooMany);
            }
            match entry.kind {
                Kind::Directory => {
                    entry.implied = !verdict.selected;
                    if verdict.descend {
                        self.descend(&entry, &full, verdict, depth + 1)?;
                    }
                    self.entries.push(entry);
                }
                _ if !verdict.selected => {}
                Kind::File { .. }
                    if walk.digester.is_some() && entry.stamp.size >= BIG_FILE_BYTES =>
                {
                    self.push(Task::File { entry });
                }
                _ => self.file(&dir, entry)?,
            }
        }
        Ok(())
    }

    fn descend(
        &self,
        entry: &Entry,
        full: &[u8],
        verdict: Verdict,
        depth: usize,
    ) -> Result<(), ContextError> {
        if depth > DEPTH_MAX {
            return Err(ContextError::TooDeep { path: shown(full) });
        }
        let Verdict { include, exclude, .. } = verdict;
        self.push(Task::Dir { path: entry.path.clone(), include, exclude, depth });
        Ok(())
    }

    fn big_file(&mut self, entry: Entry) -> Result<(), ContextError> {
        let walk = self.shared.walk;
        let above = walk.full(path::parent(&entry.path).unwrap_or(b""));
        let dir = walk.root.open_dir(&above).map_err(|e| open_error(&above, e))?;
        self.file(&dir, entry)
    }

    fn file(&mut self, dir: &OwnedFd, mut entry: Entry) -> Result<(), ContextError> {
        let walk = self.shared.walk;
        if let (Some(digester), Kind::File { .. }) = (walk.digester, &entry.kind) {
            walk.stop.check().map_err(|_| ContextError::Stopped)?;
            let name = path::base(&entry.path).to_vec();
            let full = walk.full(&entry.path);
            let content = digester.digest(dir, &name, &mut entry, &full, walk.stop)?;
            entry.kind = Kind::File { content: Some(content) };
        }
        self.entries.push(entry);
        Ok(())
    }

    fn judge(
        &self,
        relative: &[u8],
        full: &[u8],
        include: &Marks,
        exclude: &Marks,
        dir: bool,
    ) -> Verdict {
        let walk = self.shared.walk;
        let mut verdict = Verdict {
            include: Marks::default(),
            exclude: Marks::default(),
            selected: true,
            descend: dir,
        };
        if !walk.include.is_empty() {
            let (matched, marks) = walk.include.step(include, relative);
            verdict.selected = matched;
            verdict.descend &= matched || walk.include.may_match_below(relative);
            verdict.include = marks;
        }
        if !walk.exclude.is_empty() {
            let (matched, marks) = walk.exclude.step(exclude, relative);
            verdict.selected &= !matched;
            verdict.descend &= !matched || walk.exclude.may_spare_below(relative);
            verdict.exclude = marks;
        }
        if let Some(ignore) = walk.ignore
            && ignore.excluded(full)
        {
            verdict.selected = false;
            verdict.descend &= ignore.may_descend(full);
        }
        verdict
    }
}

/// Directories that were only walked for what might be below them go when nothing was.
fn drop_empty_implied(entries: &mut Vec<Entry>) {
    let mut last: Option<usize> = None;
    let mut keep = vec![true; entries.len()];
    for at in (1..entries.len()).rev() {
        let below = last.is_some_and(|l| path::is_within(&entries[l].path, &entries[at].path));
        keep[at] = !entries[at].implied || below;
        if keep[at] {
            last = Some(at);
        }
    }
    let mut keep = keep.into_iter();
    entries.retain(|_| keep.next().unwrap_or(true));
}

/// Lists a directory; the order is the file system's.
pub(crate) fn list(dir: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut buffer = Vec::with_capacity(LIST_BYTES);
    let mut names = Vec::new();
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(names)
}

/// A directory that is a link or a file by now was swapped while the scan ran.
fn open_error(path: &[u8], error: Errno) -> ContextError {
    match error {
        Errno::LOOP | Errno::NOTDIR | Errno::NOENT => ContextError::changed(path),
        other => ContextError::io("open the directory", path, other),
    }
}

fn lock<'a>(queue: &'a Mutex<Queue>) -> MutexGuard<'a, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
