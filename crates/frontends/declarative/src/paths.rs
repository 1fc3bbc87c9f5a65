//! Paths in the image and in the context.

use crate::fields::{Parse, error};

/// Refuses sources that could mean anything outside of the context.
pub(crate) fn check_source(place: &str, source: &str) -> Parse<()> {
    if source.starts_with('/') {
        Err(error(place, "must be relative to the root of the context"))
    } else if source.split('/').any(|segment| segment == "..") {
        Err(error(place, "must not hold '..': a copy can't leave the context"))
    } else {
        Ok(())
    }
}

/// Refuses what does not fit on a line.
pub(crate) fn check_line(place: &str, text: &str) -> Parse<()> {
    if text.chars().any(char::is_control) {
        return Err(error(place, "must not hold control characters"));
    }
    Ok(())
}

/// Joins a path to a directory and cleans it lexically, as Go's `path.Join`: `.` goes, `..` takes
/// one segment away and stops at the root.
pub(crate) fn join(directory: &str, path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let start = if path.starts_with('/') { "" } else { directory };
    for segment in start.split('/').chain(path.split('/')) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

/// Returns a new working directory; an absolute one stays as it is written.
pub(crate) fn workdir(cwd: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { join(cwd, path) }
}

/// Returns where a copy goes: absolute, with a trailing `/` when it must be a directory.
pub(crate) fn destination(cwd: &str, dst: &str, several: bool) -> String {
    let mut path = join(cwd, dst);
    let directory = several || dst == "." || dst.ends_with('/') || dst.ends_with("/.");
    if directory && !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// Whether `COPY` would take the path for a pattern.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_lexically() {
        for (directory, path, want) in [
            ("/", "a", "/a"),
            ("/a/b", "../c", "/a/c"),
            ("/a", "/b//c/.", "/b/c"),
            ("/", "../..", "/"),
            ("/a", "", "/a"),
        ] {
            assert_eq!(join(directory, path), want, "{directory} + {path}");
        }
    }

    #[test]
    fn destinations_keep_their_trailing_slash() {
        for (dst, several, want) in [
            ("x", false, "/w/x"),
            ("x", true, "/w/x/"),
            ("x/", false, "/w/x/"),
            (".", false, "/w/"),
            ("/", false, "/"),
            ("/", true, "/"),
        ] {
            assert_eq!(destination("/w", dst, several), want, "{dst}");
        }
    }
}
