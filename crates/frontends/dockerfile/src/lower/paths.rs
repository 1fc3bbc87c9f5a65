//! Paths in a tree, by text alone.

/// Joins and cleans as Go's `path.Join` does; the result of an absolute start stays below `/`.
pub(super) fn join(base: &str, path: &str) -> String {
    clean(&format!("{base}/{path}"))
}

/// Cleans a path that counts from the root: no `.`, no `..`, no doubled or trailing slash.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Returns a clean path that counts from the working directory unless it is absolute.
pub(super) fn below(workdir: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { join(workdir, path) }
}

/// Returns a new working directory; an absolute one stays as it is written.
pub(super) fn workdir(current: &str, path: &str) -> String {
    let current = if current.is_empty() { "/" } else { current };
    match path {
        "" if current.starts_with('/') => current.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => join(current, path),
    }
}

/// Returns where a copy goes: absolute and clean, with a trailing `/` where it names a directory.
pub(super) fn destination(workdir: &str, path: &str) -> String {
    let directory = matches!(path, "" | ".") || path.ends_with('/') || path.ends_with("/.");
    let full = below(workdir, path);
    if directory && full != "/" { format!("{full}/") } else { full }
}

/// Returns the last part of a path.
pub(super) fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_keep_their_slash() {
        let all = [
            ("/w", "x", "/w/x"),
            ("/w", "x/", "/w/x/"),
            ("/w", ".", "/w/"),
            ("/w", "", "/w/"),
            ("/w", "/a/../b", "/b"),
            ("/w", "/", "/"),
            ("/w", "../../..", "/"),
            ("/w", "x/.", "/w/x/"),
        ];
        for (workdir, path, want) in all {
            assert_eq!(destination(workdir, path), want, "{path}");
        }
    }

    #[test]
    fn workdirs_join() {
        assert_eq!(workdir("", "a"), "/a");
        assert_eq!(workdir("/a", "../b"), "/b");
        assert_eq!(workdir("/a", ""), "/a");
    }
}
