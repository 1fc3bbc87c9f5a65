//! Judges any path by any ignore file: the first line is the path.

use ashlar_frontend_dockerfile::ignore::{IgnoreMatcher, read_file};

/// Any ignore file against any path: what holds a wanted path is descended into.
///
/// # Panics
/// When it is not.
pub fn ignore(data: &[u8]) {
    let Some(end) = data.iter().position(|b| *b == b'\n') else { return };
    let Ok(path) = std::str::from_utf8(&data[..end]) else { return };
    let Ok(patterns) = read_file(&data[end + 1..]) else { return };
    let Ok(matcher) = IgnoreMatcher::new(&patterns) else { return };
    if !matcher.matches(path) {
        for (slash, _) in path.trim_matches('/').match_indices('/') {
            let above = &path.trim_matches('/')[..slash];
            assert!(matcher.may_descend(above), "{above} hides {path}");
        }
    }
}
