//! From the paths that a Dockerfile copies to what has to be sent for them: links on the way are
//! followed within the context.
//!
//! Source: fsutil's `FollowLinks`, whose results BuildKit's cache keys rely on.

use std::collections::BTreeSet;

use ashlar_files::{Patterns, Root};

/// The most links that are followed for one build: a circle ends by itself, a maze here.
const LINKS_MAX: usize = 10_000;

/// Returns what to take, without what lies below another of them; none when one of the paths is the
/// root itself.
pub(super) fn follow(root: &Root, paths: &[String]) -> Option<Vec<String>> {
    let mut resolver = Resolver { root, resolved: BTreeSet::new(), budget: LINKS_MAX };
    for path in paths {
        resolver.add(path);
    }
    let mut kept: Vec<String> = Vec::new();
    for path in resolver.resolved {
        if path.is_empty() {
            return None;
        }
        let below = |above: &String| path.strip_prefix(above).is_some_and(|r| r.starts_with('/'));
        if !kept.last().is_some_and(below) {
            kept.push(path);
        }
    }
    Some(kept)
}

struct Resolver<'a> {
    root: &'a Root,
    resolved: BTreeSet<String>,
    budget: usize,
}

impl Resolver<'_> {
    /// Goes down a path; the first link on the way is taken, and all that its target leads to.
    fn add(&mut self, path: &str) {
        let Some(budget) = self.budget.checked_sub(1) else { return };
        self.budget = budget;
        let path = clean(path);
        if path.is_empty() {
            self.resolved.insert(path);
            return;
        }
        let mut current = String::new();
        let mut rest = path.as_str();
        loop {
            let (name, after) = rest.split_once('/').unwrap_or((rest, ""));
            current = join(&current, name);
            let targets = self.targets(&current);
            if (after.is_empty() || targets.is_some()) && self.resolved.contains(&current) {
                return;
            }
            if let Some(targets) = targets {
                self.resolved.insert(current);
                for target in targets {
                    self.add(&join(&target, after));
                }
                return;
            }
            if after.is_empty() {
                self.resolved.insert(current);
                return;
            }
            rest = after;
        }
    }

    /// Returns what links of this name lead to; none when it can be no link.
    fn targets(&self, path: &str) -> Option<Vec<String>> {
        let (dir, base) = path.rsplit_once('/').unwrap_or(("", path));
        if !base.contains(['*', '?', '[']) {
            return self.target(dir, path).map(|target| vec![target]);
        }
        // What is no pattern matches nothing.
        let pattern = Patterns::new(&[base.to_owned()]).ok()?;
        let names = self.root.names_in(dir.as_bytes());
        let matching = names.into_iter().filter(|n| pattern.matches(n));
        let names = matching.filter_map(|n| String::from_utf8(n).ok());
        Some(names.filter_map(|n| self.target(dir, &join(dir, &n))).collect())
    }

    fn target(&self, dir: &str, path: &str) -> Option<String> {
        let text = String::from_utf8(self.root.link_target(path.as_bytes())?).ok()?;
        let absolute = text.starts_with('/');
        Some(clean(&if absolute { text } else { join(dir, &text) }))
    }
}

fn join(above: &str, name: &str) -> String {
    match (above, name) {
        ("", _) => name.to_owned(),
        (_, "") => above.to_owned(),
        _ => format!("{above}/{name}"),
    }
}

/// Takes `.` and `..` out of a path; what would lead above the root stays at it.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_bring_their_targets_along() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/f"), "x").unwrap();
        symlink("/a/b", dir.path().join("abs")).unwrap();
        symlink("../../../a/b/f", dir.path().join("a/up")).unwrap();
        symlink("one", dir.path().join("two")).unwrap();
        symlink("two", dir.path().join("one")).unwrap();
        symlink("..", dir.path().join("out")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let table: &[(&[&str], Option<&[&str]>)] = &[
            (&["a/b/f"], Some(&["a/b/f"])),
            (&["abs/f"], Some(&["a/b/f", "abs"])),
            (&["a/up"], Some(&["a/b/f", "a/up"])),
            (&["one"], Some(&["one", "two"])),
            (&["a", "a/b", "./a/../a"], Some(&["a"])),
            (&["tw*"], Some(&["one", "tw*", "two"])),
            (&["gone/x"], Some(&["gone/x"])),
            (&["/"], None),
            (&["out"], None),
            (&[], Some(&[])),
        ];
        for (paths, want) in table {
            let paths: Vec<String> = paths.iter().map(|p| (*p).to_owned()).collect();
            let want = want.map(|w| w.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
            assert_eq!(follow(&root, &paths), want, "{paths:?}");
        }
    }
}
