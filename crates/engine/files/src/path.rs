//! Paths as bytes, relative to a root that they never leave.

/// The longest path that is worked with, in bytes: the kernel takes at most 4,096 with the final
/// zero byte, and a prefix may have to be put in front.
pub(crate) const PATH_BYTES_MAX: usize = 4000;

/// The most bytes of a hostile path that an error repeats.
const SHOWN_BYTES_MAX: usize = 300;

/// Returns `path` without `.`, `..`, and double, leading or trailing slashes; `..` stops at the
/// root. The root itself is the empty path.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    path.split(|&b| b == b'/').for_each(|name| push_component(&mut out, name));
    out
}

/// Appends one component to a clean path; `.` and empty ones change nothing, `..` takes one away.
pub(crate) fn push_component(path: &mut Vec<u8>, name: &[u8]) {
    match name {
        b"" | b"." => {}
        b".." => path.truncate(parent(path).map_or(0, <[u8]>::len)),
        name => {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
    }
}

/// Returns `dir/name`, where either may be empty.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir, name) {
        (b"", only) | (only, b"") => only.to_vec(),
        (dir, name) => [dir, b"/", name].concat(),
    }
}

/// Returns the directory of a clean path; `None` for the root.
pub(crate) fn parent(path: &[u8]) -> Option<&[u8]> {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => Some(&path[..at]),
        None if path.is_empty() => None,
        None => Some(b""),
    }
}

/// Returns the last component of a clean path; empty for the root.
pub(crate) fn base(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&b| b == b'/').map_or(path, |at| &path[at + 1..])
}

/// Whether `path` is `dir` or below it; both clean.
pub(crate) fn is_within(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty()
        || path.strip_prefix(dir).is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/'))
}

/// Whether a destination names a directory by its form: it ends in a slash, `.` or `..`.
pub(crate) fn is_directory_form(path: &[u8]) -> bool {
    matches!(path.rsplit(|&b| b == b'/').next(), Some(b"" | b"." | b"..") | None)
}

/// Returns a path for people to read: shortened, without control characters.
pub(crate) fn shown(path: &[u8]) -> String {
    let start = &path[..path.len().min(SHOWN_BYTES_MAX)];
    let text = String::from_utf8_lossy(start).replace(char::is_control, "\u{fffd}");
    if start.len() < path.len() { format!("{text}...") } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clean_stops_at_the_root() {
        let table: [(&str, &str); 9] = [
            ("", ""),
            ("/", ""),
            (".", ""),
            ("a//b/./c/", "a/b/c"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../b", "b"),
            ("/a/b/..", "a"),
            ("..a/b..", "..a/b.."),
            ("a/b/../../..", ""),
        ];
        for (input, want) in table {
            assert_eq!(clean(input.as_bytes()), want.as_bytes(), "{input}");
        }
    }

    #[test]
    fn parts_of_paths() {
        assert_eq!(
            (parent(b"a/b"), parent(b"a"), parent(b"")),
            (Some(&b"a"[..]), Some(&b""[..]), None)
        );
        assert_eq!((base(b"a/b"), base(b"a"), base(b"")), (&b"b"[..], &b"a"[..], &b""[..]));
        assert!(is_within(b"a/b", b"a") && is_within(b"a", b"a") && is_within(b"x", b""));
        assert!(!is_within(b"ab", b"a"));
        assert!(
            is_directory_form(b"/a/") && is_directory_form(b"/a/.") && !is_directory_form(b"/a")
        );
        assert_eq!(shown(b"a\n\x1b[b"), "a\u{fffd}\u{fffd}[b");
    }

    proptest! {
        #[test]
        fn clean_paths_have_no_dots(path in "[a./]{0,40}") {
            let cleaned = clean(path.as_bytes());
            prop_assert!(!cleaned.starts_with(b"/") && !cleaned.ends_with(b"/"));
            let odd = |c: &[u8]| matches!(c, b"" | b"." | b"..");
            prop_assert!(cleaned.is_empty() || !cleaned.split(|&b| b == b'/').any(odd));
            prop_assert_eq!(clean(&cleaned), cleaned);
        }
    }
}
