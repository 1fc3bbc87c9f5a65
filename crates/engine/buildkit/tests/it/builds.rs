//! What comes out of builds on real daemons.

use std::collections::BTreeMap;

use ashlar_buildkit::Made;
use ashlar_core::Digest;
use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::failure::FailureKind;
use ashlar_core::journal::{Event, StepOutcome, Stream};
use ashlar_frontend_dockerfile::{NamedContext, NoCache, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::doors::{Behind, Door};
use crate::world::{STORES, World, daemon, fresh, registry};

/// Starts a Dockerfile on the base image, with a first line that no earlier build had.
fn from_base(rest: &str) -> String {
    format!("FROM {}/library/busybox\nENV MARK={}\n{rest}\n", registry(), fresh())
}

#[test]
fn an_image_comes_back_from_both_kinds_of_store() {
    for store in STORES {
        let world = World::on(store);
        world.file("hello.txt", "hello");
        let text = from_base(
            "ENV A=1\nCOPY hello.txt /h\nRUN echo $MARK >/made; echo said\nCMD [\"/bin/sh\"]",
        );
        let made = world.build(&text);
        let files = world.files(&made);
        assert_eq!(files["h"], b"hello", "{store}");
        assert_eq!(files["made"].len(), fresh().len() + 1, "{store}");
        let config = world.config(&made);
        assert_eq!(config.config.env_value("A"), Some("1"), "{store}");
        assert_eq!(config.config.cmd, Some(vec!["/bin/sh".to_owned()]), "{store}");
        assert_eq!(config.rootfs.diff_ids.len(), made.image.layers.len(), "{store}");
        assert!(world.heard.lines().contains(&"said".to_owned()), "{:#?}", world.heard.all());
        let steps = world.heard.steps();
        // The daemon gives a base that another build has just begun on that one's stage, and count.
        assert!(steps[0].contains("1/") && steps[0].contains("] FROM "), "{steps:?}");
        assert_eq!(steps[1], "[2/3] COPY hello.txt /h");
        assert!(steps[2].starts_with("[3/3] RUN echo"), "{steps:?}");
        let outcomes = world.heard.outcomes();
        assert_eq!(outcomes.len(), 3, "each step ends: {outcomes:?}");
        assert_eq!(outcomes[&steps[2]], StepOutcome::Ran, "{store}");
    }
}

/// How often a build is repeated until the daemon takes up its last copy of a context.
///
/// BuildKit continues a copy only if nobody holds it at that moment; otherwise it begins a new one and
/// asks for everything. It is held for a while after each build by what is released late, and by the
/// collection of garbage, which looks at all copies about a second after a build and once a minute.
const TRIES: usize = 10;

/// Repeats a build until so many files were sent; returns the last one.
fn until_sent(files: u64, mut build: impl FnMut(usize) -> Made) -> Made {
    let mut tries = (0..TRIES).map(&mut build);
    let last = tries.find(|made| made.sent.files == files);
    last.unwrap_or_else(|| panic!("of {TRIES} builds none sent {files} files"))
}

#[test]
fn a_second_build_is_cached_and_sends_nothing_and_a_third_only_what_changed() {
    let world = World::on("store");
    for number in 0..20 {
        world.file(&format!("tree/{number}"), &format!("file {number}"));
    }
    world.file("unused", "never asked for");
    let text = from_base("COPY tree /tree\nRUN ls /tree | wc -l");
    let first = world.build(&text);
    assert_eq!(first.sent.files, 21, "BuildKit wants the Dockerfile each time: {:?}", first.sent);
    let second = until_sent(1, |_| world.build(&text));
    let dockerfile = text.len() as u64;
    assert_eq!(second.sent.bytes, dockerfile);
    assert!(world.heard.outcomes().values().skip(1).all(|o| *o == StepOutcome::Cached));
    let hits = |kind| {
        let hit = |e: &Event| matches!(e, Event::Cache(c) if c.cache == kind && c.status == CacheStatus::Hit);
        world.heard.all().iter().filter(|e| hit(e)).count()
    };
    assert_eq!((hits(CacheKind::Layer), hits(CacheKind::FileBlob)), (2, 20));
    assert_eq!(second.image.config_digest, first.image.config_digest);
    let another = |number| format!("another text, number {number:02}");
    let mut last = 0;
    // What was sent once is no change any more.
    let third = until_sent(2, |number| {
        last = number;
        world.file("tree/7", &another(number)).build(&text)
    });
    let changed = another(last);
    assert_eq!(third.sent.bytes, dockerfile + changed.len() as u64);
    assert_eq!(world.files(&third)["tree/7"], changed.as_bytes());
}

#[test]
fn a_file_that_changed_behind_its_size_and_time_is_sent() {
    for store in STORES {
        let world = World::on(store);
        let text = from_base("COPY f /f");
        let write = |content: &str| {
            world.file("f", content);
            let file = std::fs::File::options().write(true).open(world.path("context/f")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(315_619_200))
        };
        for content in ["one", "two", "one"] {
            write(content).unwrap();
            let made = world.build(&text);
            assert_eq!(world.files(&made)["f"], content.as_bytes(), "{store}");
            assert_eq!(world.times(&made)["f"], ["315619200".to_owned()], "{store}");
        }
    }
}

#[test]
fn cache_mounts_are_found_again_by_the_same_key_only() {
    let ours = Digest::of(fresh());
    let seen = |key: Digest| {
        let mut world = World::on("store");
        world.buildkit = world.buildkit.with_key(key);
        let mount = "RUN --mount=type=cache,target=/c echo x >>/c/f; wc -l </c/f >/lines";
        let made = world.build(&from_base(mount));
        String::from_utf8(world.files(&made)["lines"].clone()).unwrap()
    };
    assert_eq!([ours, ours, Digest::of(fresh())].map(seen), ["1\n", "2\n", "1\n"]);
}

#[test]
fn a_build_without_cache_says_so_and_runs_again() {
    let world = World::on("classic");
    let text = from_base("RUN echo once");
    world.build(&text);
    let mut request = Request::text(text);
    request.no_cache = NoCache::All;
    world.try_request(&request).unwrap();
    let bypassed = |e: &Event| matches!(e, Event::Cache(c) if c.status == CacheStatus::Bypass && c.reason.is_some());
    assert_eq!(world.heard.all().iter().filter(|e| bypassed(e)).count(), 1);
    assert!(world.heard.lines().contains(&"once".to_owned()));
}

#[test]
fn a_store_that_takes_nothing_in_is_what_a_build_failed_of() {
    let world = World::on("store");
    // More than what may be under way.
    let text = from_base("RUN head -c 20000000 /dev/urandom >/large");
    let blobs = world.path("data/blobs");
    std::fs::remove_dir_all(&blobs).unwrap();
    std::fs::write(&blobs, "in the way").unwrap();
    let failure = world.try_build(&text).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Export);
    assert!(failure.message.contains("cannot be taken in: "), "{failure:?}");
}

#[test]
fn a_name_that_stays_in_a_daemons_store_fails_no_build() {
    let door = Door::open(&daemon("classic"), Behind::Refusing("DELETE /images/", 500), None);
    let world = World::with(vec![door.address()]);
    let made = world.build(&from_base("RUN echo made >/made"));
    assert_eq!(world.files(&made)["made"], b"made\n");
    assert_eq!(door.asked(), 2, "the name is taken off at the end");
}

/// A Docker daemon removes an image whose last name goes, also while another build of the same gives
/// it one.
#[test]
fn an_image_that_another_build_of_the_same_took_away_is_made_again() {
    let door = Door::open(&daemon("classic"), Behind::Refusing("GET /images/", 404), None);
    let world = World::with(vec![door.address()]);
    let made = world.build(&from_base("RUN echo made >/made"));
    assert_eq!(world.files(&made)["made"], b"made\n");
    assert_eq!(door.asked(), 2, "it is asked for again");
    let ended = |e: &&Event| matches!(e, Event::StepEnded { .. });
    assert_eq!(world.heard.all().iter().filter(ended).count(), 2, "each step ends once");
}

#[test]
fn an_image_that_a_daemon_does_not_hand_out_is_no_lost_daemon() {
    let door = Door::open(&daemon("classic"), Behind::Refusing("GET /images/", 500), None);
    let world = World::with(vec![door.address()]);
    let failure = world.try_build(&from_base("RUN echo made >/made")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Export);
    assert!(failure.message.contains("(500): out of order"), "{failure:?}");
}

#[test]
fn an_image_without_layers_comes_back_where_a_daemon_hands_it_out() {
    let text = format!("FROM scratch\nLABEL m={}\n", fresh());
    let world = World::on("store");
    let made = world.build(&text);
    assert!(made.image.layers.is_empty());
    let failure = World::on("classic").try_build(&text).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Export);
    assert!(failure.hint.as_ref().is_some_and(|h| h.contains("without layers")), "{failure:?}");
}

#[test]
fn secrets_leave_no_trace() {
    let mut world = World::on("store");
    let needle = format!("needle-{}", fresh());
    let forms = [needle.clone(), STANDARD_NO_PAD.encode(&needle)];
    let is_clean = |what: &str, text: &[u8]| {
        for form in &forms {
            assert!(!text.windows(form.len()).any(|w| w == form.as_bytes()), "{what} has {form}");
        }
    };
    world.build.secrets.insert("key".into(), needle.clone().into_bytes());
    let text = from_base(
        "RUN --mount=type=secret,id=key wc -c </run/secrets/key >/length; echo raw; \
         cat /run/secrets/key; echo; echo coded; base64 /run/secrets/key; \
         cat /run/secrets/key >&2; false || true",
    );
    let made = world.build(&text);
    assert_eq!(world.files(&made)["length"], format!("{}\n", needle.len()).as_bytes());
    is_clean("the journal", format!("{:?}", world.heard.all()).as_bytes());
    let lines = world.heard.lines();
    for before in ["raw", "coded"] {
        let at = lines.iter().position(|l| l == before).unwrap();
        assert!(lines[at..].iter().any(|l| l.contains("***")), "{before}: {lines:?}");
    }
    for (path, bytes) in world.files(&made) {
        is_clean(&path, &bytes);
    }
    is_clean("the config", made.image.config.to_string().as_bytes());
    let failing = text.replace("false || true", "exit 7");
    let failure = world.try_build(&failing).unwrap_err();
    is_clean("the failure", format!("{failure:?}").as_bytes());
}

#[test]
fn a_daemons_history_does_not_know_of_our_builds() {
    for store in STORES {
        let door = Door::open(&daemon(store), Behind::Buildkitd, None);
        let world = World::with(vec![daemon(store)]);
        let (value, mark) = (fresh(), fresh());
        let base = registry();
        let text = format!("FROM {base}/library/busybox\nARG A\nRUN echo $A\nLABEL m={mark}\n");
        let mut request = Request::text(text);
        request.build_args = BTreeMap::from([("A".into(), value.clone())]);
        world.try_request(&request).unwrap();
        let history = format!("{:?}", door.history());
        assert!(!history.contains(&value) && !history.contains(&mark), "{store}: {history}");
    }
}

#[test]
fn failures_name_kind_step_line_and_exit_code() {
    for store in STORES {
        let world = World::on(store);
        let failure = world
            .try_build(&from_base("RUN echo out; echo why >&2; exit 3\nRUN true"))
            .unwrap_err();
        assert_eq!((failure.kind, failure.exit_code), (FailureKind::Step, Some(3)), "{failure:?}");
        assert_eq!(failure.location.as_ref().unwrap().line, 3, "{failure:?}");
        assert_eq!(failure.location.unwrap().file, "Dockerfile");
        assert!(failure.last_lines.contains(&"why".to_owned()), "{:?}", failure.last_lines);
        assert!(failure.command.unwrap().starts_with("[2/3] RUN echo out"));
        let names = world.heard.steps();
        let step = failure.step.unwrap();
        assert!(names[step.0 as usize - 1].contains("exit 3"));
        let said = |e: &Event| {
            matches!(e, Event::Log(l) if l.text == "why" && l.stream == Stream::Stderr
                && l.step == Some(step))
        };
        assert!(world.heard.all().iter().any(said), "{:#?}", world.heard.all());
        let table = [
            ("FROM scratch\nRUNN x\n".to_owned(), FailureKind::Definition, Some(2), "RUNN"),
            (from_base("COPY gone /x"), FailureKind::Step, Some(3), "gone"),
            (
                format!("FROM {}/library/no-such-image\n", registry()),
                FailureKind::Source,
                Some(1),
                "no-such-image",
            ),
            (
                from_base("RUN --mount=type=secret,id=none,required true"),
                FailureKind::Definition,
                Some(3),
                "none",
            ),
        ];
        for (text, kind, line, says) in table {
            let failure = world.try_build(&text).unwrap_err();
            assert_eq!(failure.kind, kind, "{store}: {text}: {failure:?}");
            assert_eq!(failure.location.as_ref().map(|l| l.line), line, "{store}: {failure:?}");
            assert!(failure.message.contains(says), "{store}: {failure:?}");
        }
    }
}

#[test]
fn options_reach_the_frontend() {
    let mut world = World::on("store");
    let other = world.path("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("o"), "from the other").unwrap();
    std::fs::write(other.join(".dockerignore"), "ignored\n").unwrap();
    world.build.contexts.insert("named:other".into(), other);
    world.build.epoch = Some(1_000_000_000);
    let base = registry();
    world.file("a/é +%.txt", "odd").file("a/skip.log", "x").file(".dockerignore", "**/*.log\n");
    let mut request = Request::text(format!(
        "FROM {base}/library/busybox AS wanted\nARG WHO=nobody\nRUN echo \"$WHO\" >/who; \
         cat /etc/hosts >/hosts; ls /sys/class/net >/net\nCOPY a /a\nCOPY --from=other o /o\n\
         COPY [\"a/é +%.txt\", \"/odd\"]\nFROM wanted\nRUN false\n"
    ));
    request.target = Some("wanted".into());
    request.build_args = BTreeMap::from([("WHO".into(), fresh())]);
    request.labels = BTreeMap::from([("l".into(), "v".into())]);
    request.network = ashlar_core::graph::Network::None;
    request.extra_hosts =
        vec![ashlar_core::graph::ExtraHost { host: "db".into(), address: "10.1.2.3".into() }];
    let named = NamedContext::Directory("named:other".into());
    request.named_contexts.insert("other".into(), named);
    let made = world.try_request(&request).unwrap();
    let files = world.files(&made);
    assert_eq!(files["who"], format!("{}\n", request.build_args["WHO"]).as_bytes());
    assert!(String::from_utf8_lossy(&files["hosts"]).contains("10.1.2.3\tdb"));
    assert_eq!(files["net"], b"lo\n");
    assert_eq!(
        (files["o"].as_slice(), files["odd"].as_slice()),
        (&b"from the other"[..], &b"odd"[..])
    );
    assert!(
        files.contains_key("a/é +%.txt") && !files.contains_key("a/skip.log"),
        "{:?}",
        files.keys()
    );
    let config = world.config(&made);
    assert_eq!(config.config.labels["l"], "v");
    assert_eq!(config.created.as_deref(), Some("2001-09-09T01:46:40Z"));
}

#[test]
fn warnings_come_with_their_line() {
    let world = World::on("store");
    world.build("FROM scratch AS x\nMAINTAINER me\nCOPY Dockerfile /\n");
    let lines = world.heard.lines();
    assert!(lines.iter().any(|l| l.starts_with("Dockerfile:2: ")), "{lines:?}");
}
