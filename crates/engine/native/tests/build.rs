//! Whole builds in a real sandbox, from Dockerfiles, on a base made of Debian's busybox.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

use ashlar_core::cache::{CacheKind, CacheStatus, MissReason};
use ashlar_core::journal::{Event, StepOutcome};
use ashlar_frontend_dockerfile::{NoCache, Request};
use ashlar_sandbox::Cancel;
use ashlar_snapshots::Removal;
use support::{Done, World};

#[test]
fn a_dockerfile_becomes_a_tree_and_hits_its_cache() {
    let world = World::new();
    world.file("hello.txt", "hello\n");
    let dockerfile =
        "FROM base\nRUN echo one >/one\nCOPY hello.txt /in/\nRUN cat /in/hello.txt /one >/both\n";
    let first = world.build(dockerfile).unwrap();
    assert_eq!(world.read(&first.built, "/both"), "hello\none\n");
    assert_eq!(first.count(CacheKind::Layer, CacheStatus::Miss), 3);
    assert_eq!(first.count(CacheKind::Layer, CacheStatus::Store), 3);
    assert_eq!(first.count(CacheKind::FinalArtifact, CacheStatus::Miss), 1);

    let second = world.build(dockerfile).unwrap();
    assert!(second.built.from_cache);
    assert_eq!(second.built.tree, first.built.tree);
    assert_eq!(second.count(CacheKind::FinalArtifact, CacheStatus::Hit), 1);
    assert_eq!(second.count(CacheKind::Layer, CacheStatus::Hit), 0);

    world.file("hello.txt", "goodbye\n");
    let third = world.build(dockerfile).unwrap();
    assert_eq!(world.read(&third.built, "/both"), "goodbye\none\n");
    assert_eq!(third.count(CacheKind::Layer, CacheStatus::Hit), 1);
    assert_eq!(third.count(CacheKind::Layer, CacheStatus::Miss), 2);
    let reasons = third.reasons();
    assert!(reasons[0].contains("file 'hello.txt' changed"), "{reasons:?}");
}

#[test]
fn another_identity_is_not_answered_as_a_whole() {
    let world = World::new();
    let build = |identity: Option<&str>| {
        let mut request = world.request(Request::text("FROM base\nRUN echo one >/one\n"));
        request.identity = identity.map(ashlar_core::Digest::of);
        world.run(request, &Cancel::new().unwrap()).unwrap()
    };
    assert!(!build(None).built.from_cache);
    for identity in ["x", "y"] {
        let first = build(Some(identity));
        assert!(!first.built.from_cache, "{identity}");
        assert_eq!(first.count(CacheKind::Layer, CacheStatus::Hit), 1);
        assert!(build(Some(identity)).built.from_cache, "{identity}");
    }
    assert!(build(None).built.from_cache);
}

#[test]
fn a_step_that_changes_nothing_has_an_empty_layer_as_with_buildkit() {
    let world = World::new();
    let dockerfile = "FROM base\nRUN mkdir /a\nWORKDIR /a\nWORKDIR /a\nRUN pwd >/a/out\n";
    let done = world.build(dockerfile).unwrap();
    let history = &done.built.config.history;
    assert_eq!(history.iter().filter(|h| !h.empty_layer).count(), done.built.tree.0.len());
    let is_workdir = |text: &String| text.starts_with("WORKDIR");
    let workdirs: Vec<_> =
        history.iter().filter(|h| h.created_by.as_ref().is_some_and(is_workdir)).collect();
    assert!(workdirs.len() == 2 && workdirs.iter().all(|h| !h.empty_layer), "{history:?}");
    assert_eq!(world.read(&done.built, "/a/out"), "/a\n");
    // The mount points that every step gets in /etc leave nothing behind either.
    let nothing = world.build("FROM base\nRUN true\n").unwrap();
    let entries = world.engine.snapshots().entries(nothing.built.tree.0.last().unwrap()).unwrap();
    let paths: Vec<_> =
        entries.as_slice().iter().map(|e| String::from_utf8_lossy(&e.path).into_owned()).collect();
    assert!(paths.iter().all(String::is_empty), "{paths:?}");
}

#[test]
fn a_step_that_makes_the_same_tree_again_cuts_off_what_follows() {
    let world = World::new();
    let dockerfile =
        |note: &str| format!("FROM base\nRUN echo same >/out # {note}\nRUN cp /out /end\n");
    let first = world.build(&dockerfile("one")).unwrap();
    let second = world.build(&dockerfile("two")).unwrap();
    assert_eq!(second.built.tree, first.built.tree);
    assert_eq!(second.count(CacheKind::Layer, CacheStatus::Miss), 1);
    assert_eq!(second.count(CacheKind::Layer, CacheStatus::Hit), 1);

    let world = World::new();
    world.file("seed", "1");
    let dockerfile = "FROM base AS a\nCOPY seed /seed\nRUN wc -c </seed >/size\nFROM base\nCOPY --from=a /size /\nRUN cp /size /end\n";
    world.build(dockerfile).unwrap();
    world.file("seed", "2");
    let again = world.build(dockerfile).unwrap();
    assert_eq!(again.count(CacheKind::Layer, CacheStatus::Miss), 2, "{:?}", again.reasons());
    assert_eq!(again.count(CacheKind::Layer, CacheStatus::Hit), 2);
}

#[test]
fn a_miss_names_the_file_among_thousands() {
    let world = World::new();
    for i in 0..1500 {
        world.file(&format!("many/d{}/f{i}", i % 7), &i.to_string());
    }
    world.build("FROM base\nCOPY many /many\n").unwrap();
    world.file("many/d3/f3", "changed");
    let second = world.build("FROM base\nCOPY many /many\n").unwrap();
    let reasons = second.reasons();
    assert!(reasons[0].contains("file 'many/d3/f3' changed"), "{reasons:?}");
    assert_eq!(world.read(&second.built, "/many/d3/f3"), "changed");
    assert_eq!(world.read(&second.built, "/many/d3/f10"), "10");
}

#[test]
fn a_failing_step_says_what_and_where_and_the_build_goes_on_from_there() {
    let world = World::new();
    let dockerfile =
        |last: &str| format!("FROM base\nRUN echo good >/good\nRUN echo oh no >&2; {last}\n");
    let failed = world.build(&dockerfile("exit 7")).unwrap_err();
    assert_eq!(failed.failure.exit_code, Some(7));
    assert_eq!(failed.failure.location.as_ref().unwrap().line, 3);
    assert_eq!(failed.failure.last_lines, ["oh no"]);
    let said = |e: &&Event| matches!(e, Event::Log(l) if l.text == "oh no");
    assert_eq!(failed.events.iter().filter(said).count(), 1);
    let kept = world.engine.failed_steps().unwrap();
    assert_eq!(kept.len(), 1);
    let good = world.build(&dockerfile("true")).unwrap();
    assert_eq!(good.count(CacheKind::Layer, CacheStatus::Hit), 1);
}

#[test]
fn a_build_whose_source_is_missing_counts_as_one_that_failed() {
    let world = World::new();
    let dockerfile = "FROM base\nRUN true\nCOPY nothing /\n";
    for (no_cache, status) in
        [(NoCache::None, CacheStatus::Miss), (NoCache::All, CacheStatus::Bypass)]
    {
        let failed = world.build_with(dockerfile, |r| r.no_cache = no_cache).unwrap_err();
        assert_eq!(failed.failure.location.as_ref().unwrap().line, 3);
        let counted = failed.events.iter().filter_map(|e| match e {
            Event::Cache(c) => Some((c.cache, c.status)),
            _ => None,
        });
        let counted: Vec<_> = counted.collect();
        assert_eq!(counted, [(CacheKind::FinalArtifact, status), (CacheKind::Layer, status)]);
        let ended = failed.events.iter().filter_map(|e| match e {
            Event::StepEnded { step, outcome, .. } => Some((*step, *outcome)),
            _ => None,
        });
        assert_eq!(
            ended.collect::<Vec<_>>(),
            [(failed.failure.step.unwrap(), StepOutcome::Failed)]
        );
    }
}

#[test]
fn no_cache_bypasses_and_still_stores() {
    let world = World::new();
    let dockerfile = "FROM base\nRUN echo a >/a\n";
    world.build(dockerfile).unwrap();
    let forced = world.build_with(dockerfile, |r| {
        r.no_cache = NoCache::All;
    });
    let forced = forced.unwrap();
    assert_eq!(forced.count(CacheKind::Layer, CacheStatus::Bypass), 1);
    assert_eq!(forced.count(CacheKind::Layer, CacheStatus::Store), 1);
    assert_eq!(forced.count(CacheKind::FinalArtifact, CacheStatus::Bypass), 1);
    let ran = |e: &&Event| matches!(e, Event::StepEnded { outcome: StepOutcome::Ran, .. });
    assert!(forced.events.iter().any(|e| ran(&e)));
}

/// Builds as one of several tenants, who all name their scopes and definitions alike.
fn build_as(world: &World, tenant: &str, dockerfile: &str, args: &[(&str, &str)]) -> Done {
    let mut text = Request::text(dockerfile);
    text.build_args.extend(args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
    let mut request = world.request(text);
    request.tenant = tenant.to_owned();
    world.run(request, &Cancel::new().unwrap()).unwrap()
}

#[test]
fn why_a_step_missed_says_nothing_of_other_tenants() {
    let world = World::new();
    let reasons = |tenant: &str, dockerfile: &str, args: &[(&str, &str)]| {
        build_as(&world, tenant, dockerfile, args).reasons()
    };
    let first = MissReason::FirstTime.sentence();
    let deploy = "FROM base\nARG DB_PASS\nRUN echo deploy --pass $DB_PASS\n";
    assert_eq!(reasons("victim", deploy, &[("DB_PASS", "hunter2")]), [&*first]);
    assert_eq!(reasons("other", "FROM base\nRUN true\n", &[]), [&*first]);
    // Not with the very same words either.
    assert_eq!(reasons("third", deploy, &[("DB_PASS", "guess")]), [&*first]);

    world.file("payroll-2026.csv", "theirs\n");
    let copy = "FROM base\nCOPY . /in/\n";
    reasons("victim", copy, &[]);
    std::fs::remove_file(world.context.path().join("payroll-2026.csv")).unwrap();
    world.file("mine", "mine\n");
    assert_eq!(reasons("fourth", copy, &[]), [&*first]);
    // Who it is about still hears it.
    world.file("mine", "mine too\n");
    let own = reasons("victim", copy, &[]);
    assert!(own[0].contains("file 'mine' is new"), "{own:?}");
}

#[test]
fn that_a_result_was_removed_is_said_to_whose_it_was() {
    let world = World::new();
    let dockerfile = "FROM base\nRUN echo one >/one\n";
    let built = build_as(&world, "victim", dockerfile, &[]).built;
    let layer = built.tree.0.last().unwrap();
    let remove = || {
        // The thread that ran the step may hold the layer a moment longer than the build lasts.
        let deadline = Instant::now() + Duration::from_secs(20);
        while world.engine.snapshots().remove(layer).unwrap() != Removal::Removed {
            assert!(Instant::now() < deadline, "the layer stays in use");
            std::thread::yield_now();
        }
    };
    remove();
    let other = build_as(&world, "other", dockerfile, &[]);
    assert_eq!(other.reasons(), [MissReason::FirstTime.sentence()]);
    remove();
    let own = build_as(&world, "victim", dockerfile, &[]).reasons();
    assert!(own[0].contains("removed"), "{own:?}");
}

#[test]
fn files_are_known_by_their_content_wherever_a_context_is_laid_out() {
    let world = World::new();
    let elsewhere = tempfile::tempdir().unwrap();
    for number in 0..30 {
        let (name, text) = (format!("file-{number}"), format!("{number}\n"));
        world.file(&name, &text);
        std::fs::write(elsewhere.path().join(name), text).unwrap();
    }
    std::fs::write(elsewhere.path().join("file-7"), "changed\n").unwrap();
    let counts = |tenant: &str, context: &std::path::Path| {
        let mut request = world.request(Request::text("FROM base\nCOPY . /in/\n"));
        request.tenant = tenant.to_owned();
        request.contexts.insert("context".into(), context.to_owned());
        let done = world.run(request, &Cancel::new().unwrap()).unwrap();
        let of = |status| done.count(CacheKind::FileBlob, status);
        (of(CacheStatus::Hit), of(CacheStatus::Miss), of(CacheStatus::Store))
    };
    assert_eq!(counts("one", world.context.path()), (0, 30, 30));
    assert_eq!(counts("one", elsewhere.path()), (29, 1, 1));
    // That this machine has read the files says nothing of what another tenant had.
    assert_eq!(counts("two", elsewhere.path()), (0, 30, 30));
    assert_eq!(counts("one", elsewhere.path()), (30, 0, 0));
}
