//! Ignore files and `--exclude`, by moby's rules.

use ashlar_frontend_dockerfile::IgnoreMatcher;
use ashlar_frontend_dockerfile::ignore::{Parent, read_file};
use proptest::prelude::*;

fn excluded(patterns: &[&str], path: &str) -> bool {
    IgnoreMatcher::new(patterns).unwrap().matches(path)
}

#[test]
fn patterns_match() {
    let table: [(&[&str], &str, bool); 66] = [
        (&["foo"], "foo", true),
        (&["foo"], "foo/bar", true),
        (&["foo"], "foo/bar/baz", true),
        (&["foo"], "a/foo", false),
        (&["foo"], "foobar", false),
        (&["/foo"], "/foo", false),
        (&["foo/"], "foo/x", true),
        (&["./foo"], "foo", true),
        (&["a/../foo"], "foo", true),
        (&["foo/bar"], "foo", false),
        (&["foo/bar"], "foo/bar", true),
        (&["*"], "a", true),
        (&["*"], "a/b", true),
        (&["*.txt"], "a.txt", true),
        (&["*.txt"], "d/a.txt", false),
        (&["*/*.txt"], "d/a.txt", true),
        (&["*/*.txt"], "d/e/a.txt", false),
        (&["a*/b"], "abc/b", true),
        (&["a*/b"], "abc/d/b", false),
        (&["**"], "a", true),
        (&["**"], "a/b/c", true),
        (&["**/"], "a/b", true),
        (&["**/*.txt"], "a.txt", true),
        (&["**/*.txt"], "d/e/a.txt", true),
        (&["**/foo"], "foo", true),
        (&["**/foo"], "d/foo", true),
        (&["**/foo"], "d/foo/x", true),
        (&["**/foo"], "dfoo", false),
        (&["**foo"], "dfoo", true),
        (&["foo/**"], "foo/x", true),
        (&["foo/**"], "foo/x/y", true),
        (&["foo/**"], "foo", false),
        (&["foo**"], "foobar/x", true),
        (&["a/**/b"], "a/b", true),
        (&["a/**/b"], "a/x/y/b", true),
        (&["a/**/b"], "a/xb", false),
        (&["a/**/*.o"], "a/x/y.o", true),
        (&["?"], "a", true),
        (&["?"], "ab", false),
        (&["a?c"], "a/c", false),
        (&["[ab]"], "a", true),
        (&["[a-c]x"], "bx", true),
        (&["[^a-c]x"], "bx", false),
        (&["[^a-c]x"], "dx", true),
        (&["a[b-d]e"], "aze", false),
        (&["[\\]]"], "]", true),
        (&["a\\*b"], "a*b", true),
        (&["a\\*b"], "axb", false),
        (&["a.b"], "axb", false),
        (&["a+b(c)|d{1}$"], "a+b(c)|d{1}$", true),
        (&["a^b"], "a^b", true),
        (&["*", "!keep"], "keep", false),
        (&["*", "!keep"], "other", true),
        (&["dir", "!dir/keep"], "dir/keep", false),
        (&["dir", "!dir/keep"], "dir/other", true),
        (&["dir", "!dir/keep"], "dir/keep/x", false),
        (&["!keep", "keep"], "keep", true),
        (&["*", "!keep", "keep/not"], "keep/not", true),
        (&["*", "!keep", "keep/not"], "keep/yes", false),
        (&["**/*.md", "!README.md"], "README.md", false),
        (&["**/*.md", "!README.md"], "d/README.md", true),
        (&["**/*.md", "!**/README.md"], "d/README.md", false),
        (&["  foo  "], "foo", true),
        (&["", "  "], "foo", false),
        (&["ä*"], "äb", true),
        (&["日?"], "日本", true),
    ];
    for (patterns, path, want) in table {
        assert_eq!(excluded(patterns, path), want, "{patterns:?} {path}");
    }
}

#[test]
fn bad_patterns_are_refused() {
    for bad in ["!", "[", "a[b", "[]", "[]a]", "[-x]", "[a-]", "a\\", "[a\\", "[^]"] {
        assert!(IgnoreMatcher::new(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn directories_are_entered_for_the_sake_of_negations() {
    let table: [(&[&str], &str, bool); 12] = [
        (&["dir"], "dir", false),
        (&["dir"], "other", true),
        (&["*"], "dir", false),
        (&["dir", "!dir/keep"], "dir", true),
        (&["dir", "!other/keep"], "dir", false),
        (&["*", "!**/keep"], "a/b", true),
        (&["*", "!a/b/c"], "a", true),
        (&["*", "!a/b/c"], "a/b", true),
        (&["*", "!a/b/c"], "a/x", false),
        (&["*", "!*/keep"], "any", true),
        (&["*", "!*/keep"], "any/deeper", false),
        (&["*"], "", true),
    ];
    for (patterns, directory, want) in table {
        let matcher = IgnoreMatcher::new(patterns).unwrap();
        assert_eq!(matcher.may_descend(directory), want, "{patterns:?} {directory}");
    }
}

#[test]
fn files_are_read_line_by_line() {
    let text = b"\xef\xbb\xbf# comment\n\n /abs/path \n!  /kept/ \n #not a comment\n./a//b/\r\n/\n";
    let patterns = read_file(text).unwrap();
    assert_eq!(patterns, ["abs/path", "!kept", "#not a comment", "a/b", "/"]);
    assert!(read_file(b"\xff").is_err());
}

fn pattern() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "*", "**", "?", "[ab]", "a*", "\\*"]);
    (any::<bool>(), prop::collection::vec(part, 1..4)).prop_map(|(negated, parts)| {
        format!("{}{}", if negated { "!" } else { "" }, parts.join("/"))
    })
}

proptest! {
    #[test]
    fn any_pattern_and_path_is_judged(patterns in prop::collection::vec(".{0,12}", 0..5), path in ".{0,20}") {
        if let Ok(matcher) = IgnoreMatcher::new(&patterns) {
            matcher.matches(&path);
            matcher.may_descend(&path);
        }
    }

    /// What a walk that remembers its parents finds is what each path alone says, and a walk that
    /// heeds `may_descend` misses nothing.
    #[test]
    fn walks_agree_with_single_paths(
        patterns in prop::collection::vec(pattern(), 0..5),
        names in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "*"]), 1..5),
    ) {
        let matcher = IgnoreMatcher::new(&patterns).unwrap();
        let (mut parent, mut reached) = (Parent::default(), true);
        for depth in 1..=names.len() {
            let path = names[..depth].join("/");
            let included = !matcher.matches(&path);
            prop_assert_eq!(matcher.matches_below(&path, &parent), !included);
            prop_assert!(reached || !included, "{} is never reached", path);
            reached &= matcher.may_descend(&path);
            parent = matcher.enter(&path, &parent);
        }
    }
}
