//! Variable expansion, word by word.

use std::collections::BTreeMap;

use ashlar_frontend_dockerfile::expand::{Expanded, Options, Variables, expand};

struct Map(BTreeMap<&'static str, &'static str>);

impl Variables for Map {
    fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).copied()
    }
}

fn variables() -> Map {
    Map(BTreeMap::from([
        ("x", "value"),
        ("empty", ""),
        ("path", "/usr/local/bin/tool.tar.gz"),
        ("spaced", "a b"),
        ("star", "a*b"),
        ("uni", "äöü"),
        ("X_1", "one"),
    ]))
}

fn done(word: &str) -> Result<Expanded, String> {
    expand(word, &variables(), &Options::new('\\')).map_err(|e| e.to_string())
}

#[test]
fn words_are_expanded() {
    let table = [
        ("", ""),
        ("plain", "plain"),
        ("$x", "value"),
        ("${x}", "value"),
        ("$x$x", "valuevalue"),
        ("a${x}b", "avalueb"),
        ("$xy", ""),
        ("$X_1", "one"),
        ("$x.y", "value.y"),
        ("$", "$"),
        ("a$", "a$"),
        ("$ x", "$ x"),
        ("$=", "$="),
        ("$1", ""),
        ("$12x", "x"),
        ("$@", ""),
        ("\\$x", "$x"),
        ("\\\\$x", "\\value"),
        ("a\\ b", "a b"),
        ("a\\", "a"),
        ("'$x'", "$x"),
        ("\"$x\"", "value"),
        ("\"\\$x\"", "$x"),
        ("\"\\\"\"", "\""),
        ("\"\\n\"", "\\n"),
        ("\"a'b'\"", "a'b'"),
        ("'a\"b\"'", "a\"b\""),
        ("'a\\'", "a\\"),
        ("\\'", "'"),
        ("\"\"", ""),
        ("a\"b\"c'd'", "abcd"),
        ("<<EOF", "<<EOF"),
        ("a < b", "a < b"),
        ("${x:-y}", "value"),
        ("${no:-y}", "y"),
        ("${empty:-y}", "y"),
        ("${empty-y}", ""),
        ("${no-y}", "y"),
        ("${no:-}", ""),
        ("${no:-$x}", "value"),
        ("${no:-${also:-deep}}", "deep"),
        ("${no:-a b}", "a b"),
        ("${no:-\"q r\"}", "q r"),
        ("${no:-'}'}", "}"),
        ("${no:-\\}}", "}"),
        ("${x:+y}", "y"),
        ("${no:+y}", ""),
        ("${empty:+y}", ""),
        ("${empty+y}", "y"),
        ("${no+y}", ""),
        ("${x:?}", "value"),
        ("${x?gone}", "value"),
        ("${empty?gone}", ""),
        ("${path#*/}", "usr/local/bin/tool.tar.gz"),
        ("${path##*/}", "tool.tar.gz"),
        ("${path%/*}", "/usr/local/bin"),
        ("${path%%/*}", ""),
        ("${path%.*}", "/usr/local/bin/tool.tar"),
        ("${path%%.*}", "/usr/local/bin/tool"),
        ("${path#nothing}", "/usr/local/bin/tool.tar.gz"),
        ("${path#/usr/}", "local/bin/tool.tar.gz"),
        ("${x#?}", "alue"),
        ("${x%?}", "valu"),
        ("${x#*}", "value"),
        ("${x##*}", ""),
        ("${x%u*}", "val"),
        ("${x#$no}", "value"),
        ("${no#a}", ""),
        ("${star#a\\*}", "b"),
        ("${star%\\*b}", "a"),
        ("${uni#?}", "öü"),
        ("${uni%?}", "äö"),
        ("${x/a/b}", "vblue"),
        ("${path/tar/zip}", "/usr/local/bin/tool.zip.gz"),
        ("${path//l/L}", "/usr/LocaL/bin/tooL.tar.gz"),
        ("${path/\\//:}", ":usr/local/bin/tool.tar.gz"),
        ("${path//\\//:}", ":usr:local:bin:tool.tar.gz"),
        ("${x/l*/X}", "vaX"),
        ("${x/?a/}", "lue"),
        ("${x//?/z}", "zzzzz"),
        ("${x/nothing/y}", "value"),
        ("${no/a/b}", ""),
        ("${x/a/$X_1}", "vonelue"),
        ("${path//./\\}}", "/usr/local/bin/tool\\}tar\\}gz"),
    ];
    for (word, want) in table {
        assert_eq!(done(word).map(|e| e.text).as_deref(), Ok(want), "{word}");
    }
}

#[test]
fn malformed_words_are_refused() {
    let table = [
        ("'a", "matching single-quote"),
        ("\"a", "matching double-quote"),
        ("\"$x", "matching double-quote"),
        ("${", "missing '}'"),
        ("${x", "missing '}'"),
        ("${x:", "missing '}'"),
        ("${x:-", "missing '}'"),
        ("${x:-a", "missing '}'"),
        ("${}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${{x}}", "bad substitution"),
        ("${x!}", "unsupported modifier (!)"),
        ("${x:*y}", "unsupported modifier (:*)"),
        ("${x:#y}", "unsupported modifier (:#)"),
        ("${x:%y}", "unsupported modifier (:%)"),
        ("${x y}", "unsupported modifier ( )"),
        ("${no?}", "no: is not allowed to be unset"),
        ("${no:?}", "no: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${no:?set it}", "no: set it"),
        ("${x/a}", "missing '/'"),
        ("${x/a/b", "missing '}'"),
        ("${x#\\a}", "invalid escape '\\a'"),
    ];
    for (word, want) in table {
        let said = done(word).map(|e| e.text).unwrap_err();
        assert!(said.contains(want), "{word}: {said}");
    }
}

#[test]
fn words_are_split_where_nothing_quotes_them() {
    let table: [(&str, &[&str]); 7] = [
        ("a b", &["a", "b"]),
        ("$spaced c", &["a", "b", "c"]),
        ("\"$spaced\" c", &["a b", "c"]),
        ("a\\ b", &["a b"]),
        ("x${spaced}y", &["xa", "by"]),
        ("  ", &[]),
        ("cat <<  EOF x", &["cat", "<<  EOF", "x"]),
    ];
    for (word, want) in table {
        assert_eq!(done(word).unwrap().words, want, "{word}");
    }
}

#[test]
fn names_that_were_asked_for_are_known() {
    let expanded = done("$x ${no:-y} '$quoted' ${empty}").unwrap();
    assert_eq!(Vec::from_iter(expanded.matched), ["empty", "x"]);
    assert_eq!(Vec::from_iter(expanded.unmatched), ["no"]);
}

#[test]
fn other_escape_characters_and_raw_words() {
    let backtick = Options::new('`');
    let text = |word, options: &Options| expand(word, &variables(), options).unwrap().text;
    assert_eq!(text("c:\\$x`$x", &backtick), "c:\\value$x");
    let raw = Options { raw_quotes: true, keep_unset: true, ..Options::new('\\') };
    assert_eq!(text("'$x' \"$x\" $no ${no:-d} ${no}", &raw), "'$x' \"value\" $no ${no:-d} ${no}");
    let body = Options { ignore_quotes: true, ..Options::new('\\') };
    assert_eq!(text("it's $x \\$x", &body), "it's value $x");
}

#[test]
fn growth_is_bounded() {
    let long: &'static str = Box::leak("y".repeat(100_000).into_boxed_str());
    let map = Map(BTreeMap::from([("l", long)]));
    let fail = |word: &str| expand(word, &map, &Options::new('\\')).unwrap_err().to_string();
    assert!(fail("$l$l").contains("longer than"));
    let all = format!("${{l//y/{}}}", "z".repeat(1000));
    assert!(fail(&all).contains("longer than"));
    let deep = format!("{}{}", "${a:-".repeat(1000), "}".repeat(1000));
    assert!(fail(&deep).contains("nested deeper"));
}
