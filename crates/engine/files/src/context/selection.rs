//! What a copy takes from a context, and what that means for a cache key.

use std::collections::BTreeMap;

use ashlar_core::cache::{KeyPart, PartKind};
use ashlar_core::{Digest, Hasher};

use super::manifest::{Manifest, TOTAL_NAME, part_name};
use crate::entry::{Entry, Kind};
use crate::path;
use crate::select::Source;

/// Up to so many files each is a part of the key; beyond, each directory is.
const FILE_PARTS_MAX: usize = 1000;

/// Files and directories of a context that one copy takes.
#[derive(Debug)]
pub struct Selection {
    sources: Vec<Source>,
    manifest: Manifest,
    digest: Digest,
}

/// How much a selection holds and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files whose digest was known already.
    pub reused: u64,
}

impl Selection {
    pub(crate) fn new(sources: Vec<Source>, whole_directory: bool) -> Self {
        let mut lines = Vec::new();
        for source in &sources {
            for entry in &source.entries {
                let top = entry.path.is_empty() && !whole_directory;
                lines.push((path::join(&source.path, &entry.path), value(entry, top)));
            }
        }
        let manifest = Manifest::new(lines);
        let digest = manifest.digest();
        Self { sources, manifest, digest }
    }

    /// Returns the sources in the order in which they are copied.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Returns the digest of everything that a copy takes over but times: the manifest's.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the list of all files with their values, for finding out later what changed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns all entries with their paths relative to the context as it was asked for.
    pub fn entries(&self) -> impl Iterator<Item = (Vec<u8>, &Entry)> {
        self.sources
            .iter()
            .flat_map(|s| s.entries.iter().map(|e| (path::join(&s.path, &e.path), e)))
    }

    /// Returns how much is selected.
    pub fn stats(&self) -> Stats {
        let files = self.sources.iter().flat_map(|s| &s.entries);
        files.filter(|e| matches!(e.kind, Kind::File { .. })).fold(Stats::default(), |sum, e| {
            Stats {
                files: sum.files + 1,
                bytes: sum.bytes + e.stamp.size,
                reused: sum.reused + u64::from(e.reused),
            }
        })
    }

    /// Returns the parts of a cache key: one a file; beyond 1,000 files one a directory, and the
    /// manifest's digest as the part [`TOTAL_NAME`], so that the changed files can be named still.
    pub fn key_parts(&self) -> Vec<KeyPart> {
        let part = |name: &[u8], value: String| KeyPart {
            kind: PartKind::File,
            name: part_name(name),
            value,
        };
        let lines = self.manifest.lines();
        if lines.len() <= FILE_PARTS_MAX && lines.iter().all(|l| l.0.is_ascii()) {
            return lines.iter().map(|(name, value)| part(name, value.clone())).collect();
        }
        let total = format!("{} {} entries", self.digest, lines.len());
        let mut parts = self.directory_parts();
        parts.push(KeyPart { kind: PartKind::File, name: TOTAL_NAME.into(), value: total });
        parts
    }

    /// One part a directory, of directories no deeper than that there are at most 1,000 of them.
    fn directory_parts(&self) -> Vec<KeyPart> {
        let lines = self.manifest.lines();
        let mut depth = usize::MAX;
        loop {
            let mut groups: BTreeMap<&[u8], Hasher> = BTreeMap::new();
            for (name, value) in lines {
                let dir = cut(path::parent(name).unwrap_or(b""), depth);
                groups.entry(dir).or_default().field(name).field(value);
            }
            if groups.len() <= FILE_PARTS_MAX || depth == 0 {
                let part = |(dir, hasher): (&[u8], Hasher)| KeyPart {
                    kind: PartKind::File,
                    name: format!("{}/", part_name(dir)),
                    value: hasher.finish().to_string(),
                };
                return groups.into_iter().map(part).collect();
            }
            let deepest = groups.keys().map(|d| components(d)).max().unwrap_or(0);
            depth = deepest.min(depth).saturating_sub(1);
        }
    }
}

fn components(dir: &[u8]) -> usize {
    if dir.is_empty() { 0 } else { dir.iter().filter(|&&b| b == b'/').count() + 1 }
}

/// Returns the first `depth` components.
fn cut(dir: &[u8], depth: usize) -> &[u8] {
    if depth == 0 {
        return b"";
    }
    let mut slashes = dir.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(at, _)| at);
    slashes.nth(depth - 1).map_or(dir, |at| &dir[..at])
}

/// Returns what a copy takes over of one entry, as a text. Of a directory whose contents alone are
/// copied not even the mode counts.
fn value(entry: &Entry, is_contents_top: bool) -> String {
    let mode = entry.mode;
    match &entry.kind {
        Kind::File { content: Some(content) } => format!("{content} {mode:04o}"),
        Kind::File { content: None } => format!("a file of unknown content {mode:04o}"),
        Kind::Directory if is_contents_top => "a directory".to_owned(),
        Kind::Directory => format!("a directory {mode:04o}"),
        Kind::Symlink { target } => format!("a link to {}", part_name(target)),
        Kind::Fifo => format!("a named pipe {mode:04o}"),
        Kind::Socket => format!("a socket {mode:04o}"),
        Kind::Device { block, major, minor } => {
            let kind = if *block { "block" } else { "character" };
            format!("a {kind} device {major}:{minor} {mode:04o}")
        }
    }
}
