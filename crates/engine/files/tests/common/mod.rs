//! Trees described by lines, and copies between them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ashlar_core::graph::{Copy, FileAction};
use ashlar_files::ops::{Applied, Base, FileOpError, Input, Options, apply};
use ashlar_files::{Context, Ignore, Patterns, Root};
use ashlar_layers::{KnownFiles, Stop};

/// Makes what the lines say: `dir/ 0755`, `file 0644 text`, `link -> target`, `a = b` (a second
/// name); an owner may follow the mode as `5:6`.
pub fn make(root: &Path, lines: &[&str]) {
    for line in lines {
        if let Some((name, target)) = line.split_once(" -> ") {
            symlink(target, root.join(name)).unwrap();
            continue;
        }
        if let Some((name, first)) = line.split_once(" = ") {
            fs::hard_link(root.join(first), root.join(name)).unwrap();
            continue;
        }
        let mut words = line.splitn(3, ' ');
        let name = words.next().unwrap();
        let mode = u32::from_str_radix(words.next().unwrap_or("0"), 8).unwrap();
        let mut text = words.next().unwrap_or("");
        let path = root.join(name.trim_end_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut owner = None;
        if let Some((first, rest)) = text.split_once(' ').or(Some((text, "")))
            && let Some((u, g)) = first.split_once(':')
            && let (Ok(u), Ok(g)) = (u.parse(), g.parse())
        {
            owner = Some((u, g));
            text = rest;
        }
        match name.ends_with('/') {
            true => fs::create_dir_all(&path).unwrap(),
            false => fs::write(&path, text).unwrap(),
        }
        if let Some((u, g)) = owner {
            chown(&path, Some(u), Some(g)).unwrap();
        }
        if mode != 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// Returns all of a tree as sorted lines in the form of [`make`], owners only when not 0:0.
pub fn lines(root: &Path) -> Vec<String> {
    let mut out = Vec::new();
    collect(root, root, &mut out);
    out.sort();
    out
}

fn collect(root: &Path, dir: &Path, out: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let meta = fs::symlink_metadata(&path).unwrap();
        let owner = match (meta.uid(), meta.gid()) {
            (0, 0) => String::new(),
            (u, g) => format!(" {u}:{g}"),
        };
        let mode = meta.mode() & 0o7777;
        let kind = meta.file_type();
        if kind.is_symlink() {
            out.push(format!("{name} -> {}{owner}", fs::read_link(&path).unwrap().display()));
        } else if kind.is_dir() {
            out.push(format!("{name}/ {mode:04o}{owner}"));
            collect(root, &path, out);
        } else if kind.is_file() {
            let text = fs::read_to_string(&path).unwrap_or_else(|_| "binary".into());
            out.push(format!("{name} {mode:04o}{owner} {text}").trim_end().to_owned());
        } else {
            out.push(format!("{name} special {mode:04o}{owner}"));
        }
    }
}

/// Directories for one test.
pub struct Places {
    _dir: tempfile::TempDir,
    pub source: PathBuf,
    pub base: PathBuf,
    pub cache: PathBuf,
}

impl Places {
    pub fn new(source: &[&str], base: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let (source_dir, base_dir, cache) = (place("source"), place("base"), place("cache"));
        make(&source_dir, source);
        make(&base_dir, base);
        Self { source: source_dir, base: base_dir, cache, _dir: dir }
    }

    pub fn context(&self) -> Context {
        self.context_without(&[])
    }

    pub fn context_without(&self, patterns: &[&str]) -> Context {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        let ignore: Arc<dyn Ignore> = Arc::new(Patterns::new(&patterns).unwrap());
        Context::open(&self.source, ignore, &self.cache, Stop::default()).unwrap()
    }

    pub fn copy_context(&self, copy: Copy) -> Result<Vec<String>, FileOpError> {
        let context = self.context();
        self.apply(&[FileAction::Copy(Box::new(copy))], &[Input::Context(&context)])
            .map(|_| lines(&self.base))
    }

    pub fn copy_tree(&self, copy: Copy) -> Result<Vec<String>, FileOpError> {
        let root = Root::open(&self.source).unwrap();
        self.apply(&[FileAction::Copy(Box::new(copy))], &[Input::Tree(&root)])
            .map(|_| lines(&self.base))
    }

    pub fn apply(
        &self,
        actions: &[FileAction],
        inputs: &[Input<'_>],
    ) -> Result<Applied, FileOpError> {
        let base = Base::plain(Root::open(&self.base).unwrap());
        apply(actions, &base, inputs, &mut KnownFiles::new(), &Options::default())
    }
}

/// A copy of `sources` to `destination` without options.
pub fn copy(sources: &[&str], destination: &str) -> Copy {
    Copy {
        sources: sources.iter().map(|s| (*s).to_owned()).collect(),
        destination: destination.to_owned(),
        ..Copy::default()
    }
}
