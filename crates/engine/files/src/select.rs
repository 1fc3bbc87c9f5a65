//! Finds the sources of a copy and scans them.

use ashlar_core::graph::Copy;
use ashlar_layers::Stop;
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::context::Ignore;
use crate::entry::Entry;
use crate::error::ContextError;
use crate::path;
use crate::pattern::{Patterns, Wildcard, has_wildcards, split};
use crate::root::{Resolved, Root, is_dir};
use crate::walk::{Digester, Walk, list};

/// One source of a copy: a file, or a directory with what is selected below it.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it was found, clean; its last component names the copy.
    pub path: Vec<u8>,
    /// The same with links followed.
    pub top: Vec<u8>,
    /// The source itself first, then what lies below it, in [`ashlar_layers::path_order`].
    pub entries: Vec<Entry>,
}

/// Selects from one tree.
pub(crate) struct Selector<'a> {
    pub(crate) root: &'a Root,
    pub(crate) ignore: Option<&'a dyn Ignore>,
    pub(crate) digester: Option<&'a dyn Digester>,
    pub(crate) owners: bool,
    pub(crate) stop: &'a Stop,
}

/// One source as it is written, taken apart.
struct Wanted<'a> {
    written: &'a str,
    /// Clean; the directory before the pivot with `--parents`.
    path: String,
    /// What is taken below `path`; everything when empty.
    include: Patterns,
    literal: bool,
    missing_ok: bool,
    /// Whether it is an error when nothing is found.
    required: bool,
}

impl Selector<'_> {
    /// Returns the sources in the order in which they are copied.
    pub(crate) fn select(&self, copy: &Copy) -> Result<Vec<Source>, ContextError> {
        let exclude = Patterns::new(&copy.exclude)?;
        let mut sources = Vec::new();
        for written in &copy.sources {
            let wanted = Wanted::new(written, copy)?;
            let before = sources.len();
            for path in self.matches(&wanted)? {
                sources.extend(self.source(path, &wanted, &exclude)?);
            }
            if sources.len() == before && wanted.required {
                return Err(self.not_found(&wanted));
            }
        }
        Ok(sources)
    }

    fn matches(&self, wanted: &Wanted<'_>) -> Result<Vec<Vec<u8>>, ContextError> {
        if wanted.literal || !has_wildcards(&wanted.path) {
            return Ok(vec![wanted.path.clone().into_bytes()]);
        }
        let (fixed, wildcards) = split(&wanted.path);
        let start = self.resolve(fixed.as_bytes(), wanted.written)?;
        // A pattern may match nothing, but what stands before it must be there: so it is in BuildKit.
        let Some(stat) = &start.stat else {
            return if wanted.missing_ok { Ok(Vec::new()) } else { Err(self.not_found(wanted)) };
        };
        if !start.path.is_empty() && !self.may_hold(&start.path, is_dir(stat)) {
            return Err(self.not_found(wanted));
        }
        let mut found = vec![start.path];
        for (i, wildcard) in wildcards.iter().enumerate() {
            let mut next = Vec::new();
            for dir in &found {
                self.matches_in(dir, wildcard, i + 1 == wildcards.len(), &mut next)?;
            }
            found = next;
        }
        Ok(found)
    }

    /// Adds the names in `dir` that match, sorted; directories only unless it is the `last` level.
    fn matches_in(
        &self,
        dir: &[u8],
        wildcard: &Wildcard,
        last: bool,
        found: &mut Vec<Vec<u8>>,
    ) -> Result<(), ContextError> {
        let opened = match self.root.open_dir(dir) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(ContextError::io("open the directory", dir, error)),
        };
        let mut names = list(&opened).map_err(|e| ContextError::io("list", dir, e))?;
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, listed) in names {
            let full = path::join(dir, &name);
            let may_be_dir = matches!(listed, FileType::Directory | FileType::Unknown);
            if wildcard.matches(&name) && (last || may_be_dir) && self.may_hold(&full, may_be_dir) {
                found.push(full);
            }
        }
        Ok(())
    }

    /// Whether the path, or something below it, is not left out.
    fn may_hold(&self, path: &[u8], may_be_dir: bool) -> bool {
        self.ignore.is_none_or(|i| !i.excluded(path) || (may_be_dir && i.may_descend(path)))
    }

    fn is_excluded(&self, path: &[u8]) -> bool {
        !path.is_empty() && self.ignore.is_some_and(|i| i.excluded(path))
    }

    fn resolve(&self, path: &[u8], written: &str) -> Result<Resolved, ContextError> {
        self.root.resolve(path).map_err(|error| match error {
            Errno::LOOP => ContextError::Links { path: path::shown(written.as_bytes()) },
            other => ContextError::io("look up", path, other),
        })
    }

    /// Scans one source; `None` when there is nothing.
    fn source(
        &self,
        path: Vec<u8>,
        wanted: &Wanted<'_>,
        exclude: &Patterns,
    ) -> Result<Option<Source>, ContextError> {
        let resolved = self.resolve(&path, wanted.written)?;
        let Some(stat) = &resolved.stat else {
            // A name that a wildcard found leads nowhere: as BuildKit does, it is not left out in
            // silence.
            return if wanted.required { Ok(None) } else { self.dangling(&path, wanted) };
        };
        let top_excluded = self.is_excluded(&resolved.path);
        if resolved.links.iter().any(|l| self.is_excluded(l)) || (top_excluded && !is_dir(stat)) {
            return Ok(None);
        }
        let walk = Walk {
            root: self.root,
            top: &resolved.path,
            ignore: self.ignore,
            exclude,
            include: &wanted.include,
            digester: self.digester,
            owners: self.owners,
            stop: self.stop,
        };
        let entries = walk.run()?;
        let nothing = entries.len() == 1 && (top_excluded || !wanted.include.is_empty());
        Ok((!nothing).then_some(Source { path, top: resolved.path, entries }))
    }

    fn dangling(&self, path: &[u8], wanted: &Wanted<'_>) -> Result<Option<Source>, ContextError> {
        let is_there = self.root.stat(path).is_ok();
        if wanted.literal || !is_there || !has_wildcards(&wanted.path) {
            return Ok(None);
        }
        Err(ContextError::NotFound { path: path::shown(path), excluded: false })
    }

    fn not_found(&self, wanted: &Wanted<'_>) -> ContextError {
        let wild = !wanted.literal && has_wildcards(&wanted.path);
        let fixed = if wild { split(&wanted.path).0 } else { wanted.path.clone() };
        let there = self.root.resolve(fixed.as_bytes()).is_ok_and(|r| r.stat.is_some());
        let plain = wanted.include.is_empty();
        ContextError::NotFound {
            path: path::shown(wanted.written.as_bytes()),
            excluded: there && plain && self.ignore.is_some(),
        }
    }
}

impl<'a> Wanted<'a> {
    fn new(written: &'a str, copy: &Copy) -> Result<Self, ContextError> {
        let (above, pattern) = match (copy.parents, written.split_once("/./")) {
            (false, _) => (written, None),
            (true, Some((above, pattern))) => (above, Some(pattern)),
            (true, None) => ("", Some(written)),
        };
        let text = |p: &str| String::from_utf8_lossy(&path::clean(p.as_bytes())).into_owned();
        let pattern = pattern.map(|p| if copy.literal { escape(&text(p)) } else { text(p) });
        let wild = !copy.literal
            && (has_wildcards(above) || pattern.as_deref().is_some_and(has_wildcards));
        Ok(Self {
            written,
            path: text(above),
            include: Patterns::new(pattern.as_slice())?,
            literal: copy.literal,
            missing_ok: copy.missing_ok,
            required: !wild && !copy.missing_ok,
        })
    }
}

/// Takes every character of a pattern literally.
fn escape(text: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '!');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}
