//! What a context selects, what its digests depend on, and when files are read again.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(unreachable_pub, reason = "helpers are shared by several tests")]
#![expect(dead_code, reason = "each test uses its own part of the helpers")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use ashlar_core::cache::{Change, KeyRecord};
use ashlar_core::graph::Copy;
use ashlar_files::context::TOTAL_NAME;
use ashlar_files::{ContextError, Manifest, Selection};
use common::{Places, copy, make};

const SOURCE: &[&str] = &["d/ 0755", "d/a 0644 1", "d/b 0644 2", "d/sub/c 0644 3", "other 0644 x"];

fn names(selection: &Selection) -> Vec<String> {
    selection.entries().map(|(path, _)| String::from_utf8(path).unwrap()).collect()
}

/// Waits until files that were just written can be told from files that will be.
fn settle() {
    std::thread::sleep(Duration::from_millis(120));
}

#[test]
fn only_what_is_asked_for_counts() {
    let places = Places::new(SOURCE, &[]);
    let digest = |c: &Copy| places.context().select(c).unwrap().digest();
    let of_d = copy(&["d"], "/x");
    let first = digest(&of_d);
    make(&places.source, &["other 0644 changed", "new 0644 n"]);
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
    fs::File::open(places.source.join("d/a")).unwrap().set_modified(long_ago).unwrap();
    fs::set_permissions(places.source.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(digest(&of_d), first, "other files, times and the top's mode do not count");
    let whole = Copy { whole_directory: true, ..of_d.clone() };
    assert_ne!(digest(&whole), first);
    let mut seen = vec![first];
    let changes: [&dyn Fn(); 4] = [
        &|| make(&places.source, &["d/a 0644 9"]),
        &|| make(&places.source, &["d/a 0600 9"]),
        &|| make(&places.source, &["d/empty/ 0755"]),
        &|| make(&places.source, &["d/l -> a"]),
    ];
    for change in changes {
        change();
        let now = digest(&of_d);
        assert!(!seen.contains(&now));
        seen.push(now);
    }
}

#[test]
fn known_files_are_not_read_again() {
    let places = Places::new(SOURCE, &[]);
    settle();
    let stats = || {
        let context = places.context();
        let stats = context.select(&copy(&["d"], "/x")).unwrap().stats();
        context.save().unwrap();
        (stats.files, stats.reused, stats.bytes)
    };
    assert_eq!(stats(), (3, 0, 3));
    assert_eq!(stats(), (3, 3, 3));
    make(&places.source, &["d/a 0644 7"]);
    assert_eq!(stats(), (3, 2, 3));
    assert_eq!(stats().1, 2, "it was too young to be believed");
    settle();
    assert_eq!((stats().1, stats().1), (2, 3));
}

/// Same size, and the modification time put back: only the inode's change time tells.
#[test]
fn a_change_that_hides_is_found() {
    let places = Places::new(SOURCE, &[]);
    let file = places.source.join("d/a");
    let old = fs::metadata(&file).unwrap().modified().unwrap();
    settle();
    let digest = || {
        let context = places.context();
        let digest = context.select(&copy(&["d"], "/x")).unwrap().digest();
        context.save().unwrap();
        digest
    };
    let first = digest();
    fs::write(&file, "8").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    assert_ne!(digest(), first);
}

#[test]
fn excluded_files_are_not_there() {
    let places = Places::new(SOURCE, &[]);
    let select = |patterns: &[&str], source: &str| {
        places.context_without(patterns).select(&copy(&[source], "/x")).map(|s| names(&s))
    };
    assert_eq!(select(&["d/sub", "**/b"], ".").unwrap(), ["", "d", "d/a", "other"]);
    assert_eq!(select(&["d", "!d/sub/c"], ".").unwrap(), ["", "d", "d/sub", "d/sub/c", "other"]);
    assert_eq!(select(&["d", "!d/sub/c"], "d").unwrap(), ["d", "d/sub", "d/sub/c"]);
    assert_eq!(select(&["*", "!other"], "*").unwrap(), ["other"]);
    let excluded = select(&["other"], "other").unwrap_err();
    assert!(matches!(excluded, ContextError::NotFound { excluded: true, .. }), "{excluded}");
    assert!(select(&["d"], "d").is_err());
    assert!(select(&["d"], "d/*").is_err() && select(&[], "gone/*").is_err());
    assert!(select(&[], "other/*").unwrap().is_empty());
    make(&places.source, &["l -> other"]);
    assert!(select(&["other"], "l").is_err() && select(&["l"], "l").is_err());
}

#[test]
fn a_miss_can_name_the_file() {
    let record = |selection: &Selection| {
        let mut record = KeyRecord::new();
        selection.key_parts().into_iter().for_each(|p| record.push(p.kind, p.name, p.value));
        record
    };
    let places = Places::new(SOURCE, &[]);
    let select = || places.context().select(&copy(&["d"], "/x")).unwrap();
    let before = record(&select());
    make(&places.source, &["d/b 0644 9"]);
    let said: Vec<_> =
        record(&select()).changes_since(&before).iter().map(Change::sentence).collect();
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("file 'd/b' changed from 'd4735e3a265e"), "{said:?}");
    assert_eq!(Manifest::named_in(&before), None);
}

#[test]
fn many_files_are_keyed_by_directory() {
    let places = Places::new(&[], &[]);
    let lines: Vec<String> = (0..1500).map(|i| format!("m/d{}/e{i}/f 0644 {i}", i % 3)).collect();
    make(&places.source, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let select = || places.context().select(&copy(&["m"], "/x")).unwrap();
    let old = select();
    let parts = old.key_parts();
    let names: Vec<&str> = parts.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["./", "m/", "m/d0/", "m/d1/", "m/d2/", TOTAL_NAME]);
    old.manifest().store(&places.cache).unwrap();
    let mut record = KeyRecord::new();
    parts.into_iter().for_each(|p| record.push(p.kind, p.name, p.value));
    let named = Manifest::named_in(&record).unwrap();
    assert_eq!(named, old.digest());
    make(&places.source, &["m/d2/e5/f 0644 changed"]);
    let new = select();
    let now: Vec<_> = new.key_parts();
    let differ: Vec<&str> =
        now.iter().filter(|p| !record.parts().contains(p)).map(|p| p.name.as_str()).collect();
    assert_eq!(differ, ["m/d2/", TOTAL_NAME]);
    let earlier = Manifest::load(&places.cache, &named).unwrap().unwrap();
    let changes = new.manifest().changes_since(&earlier);
    assert_eq!((changes.len(), changes[0].name.as_str()), (1, "m/d2/e5/f"));
}

#[test]
fn a_question_is_answered_once() {
    let places = Places::new(SOURCE, &[]);
    let context = places.context();
    let first = context.select(&copy(&["d"], "/x")).unwrap();
    make(&places.source, &["d/a 0644 9"]);
    let again = context.select(&copy(&["d"], "/elsewhere")).unwrap();
    assert_eq!(first.digest(), again.digest(), "what was keyed is what is copied");
    let other = Copy { exclude: vec!["a".into()], ..copy(&["d"], "/x") };
    assert_ne!(context.select(&other).unwrap().digest(), first.digest());
}

#[test]
fn frontends_can_read_and_list() {
    let places = Places::new(SOURCE, &[]);
    make(&places.source, &["l -> d", "up -> ../../../../d/a", "out -> /etc/hostname"]);
    let context = places.context_without(&["d"]);
    assert_eq!(context.read("l/a", 10).unwrap().unwrap(), b"1");
    assert_eq!(context.read("up", 10).unwrap().unwrap(), b"1");
    assert_eq!(context.read("../../../d/a", 1).unwrap().unwrap(), b"1");
    assert_eq!(context.read("out", 100).unwrap(), None);
    assert!(context.read("d", 100).is_err() && context.read("d/a", 0).is_err());
    assert_eq!(context.list("").unwrap().unwrap(), ["d/", "l/", "other", "out", "up"]);
    assert_eq!(context.list("l/sub").unwrap().unwrap(), ["c"]);
    assert_eq!((context.list("other").unwrap(), context.list("gone").unwrap()), (None, None));
}
