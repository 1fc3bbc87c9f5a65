//! Journals: numbers, times, folds, fencing, reading and following.

use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::StepId;
use ashlar_core::journal::{
    ArtifactRecord, CacheEvent, Event, Mode, Record, Refusal, Sink, Submission,
};
use ashlar_core::state::State;
use ashlar_core::{Digest, Timestamp};
use ashlar_records::{Error, JournalWriter, Submit, TimeRange, Writer};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::common::{
    Database, SECOND, at, build_id, check_fold, claim, holding, log, stamped, state, submission,
    submit, tenant, worker,
};

crate::on_both! {
    a_build_is_kept_with_its_definition;
    times_increase_within_a_scope;
    refused_events_leave_nothing;
    a_batch_sent_twice_is_written_once;
    the_row_is_the_fold_of_any_events;
    journals_are_read_by_number_and_time;
    scopes_are_read_by_time;
    followers_see_each_entry_once;
    writers_of_journals_slow_nobody_and_lose_nothing;
    ended_builds_are_forgotten;
}

async fn a_build_is_kept_with_its_definition(db: Database) {
    let wanted = submission();
    let accepted = submit(&db.store, wanted.clone(), 0).await;
    assert_eq!(accepted.submission, wanted);
    assert_eq!((accepted.state, accepted.created_at), (State::Queued, at(0)));
    let got = db.store.get(wanted.build).await.unwrap().unwrap();
    assert_eq!(got, accepted);
    assert_eq!(got.submission.definition.to_string(), wanted.definition.to_string());
    assert_eq!(db.store.get(build_id()).await.unwrap(), None);
    let again = db.store.submit(&Submit::new(wanted.clone()), at(5)).await.unwrap_err();
    assert!(matches!(again, Error::Taken { what: "build", .. }), "{again}");
    let huge = Submission {
        build: build_id(),
        definition: serde_json::Value::String("x".repeat(17 << 20)),
        ..wanted
    };
    let error = db.store.submit(&Submit::new(huge), at(5)).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    check_fold(&db.store, accepted.submission.build).await;
}

async fn times_increase_within_a_scope(db: Database) {
    let a = submit(&db.store, submission(), 100).await.submission.build;
    let b = submit(&db.store, submission(), 50).await;
    assert_eq!(b.created_at, at(101));
    let other = Submission { scope: "other".into(), ..submission() };
    assert_eq!(submit(&db.store, other, 50).await.created_at, at(50));
    let events = [stamped(90, log("1")), stamped(300, log("2")), stamped(200, log("3"))];
    db.store.append(a, Writer::Service, events).await.unwrap();
    let times: Vec<Timestamp> =
        db.store.journal(a, 0, 10).await.unwrap().iter().map(|e| e.time).collect();
    assert_eq!(times, [at(100), at(102), at(300), at(301)]);
    let b = b.submission.build;
    let row = db.store.append(b, Writer::Service, [stamped(0, log("x"))]).await.unwrap();
    assert_eq!(row.updated_at, at(302));
}

async fn refused_events_leave_nothing(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    let row = db.store.claim(&claim(1), at(1)).await.unwrap().unwrap();
    let events = [stamped(2, log("kept?")), stamped(3, state(State::Queued))];
    let error = db.store.append(build, holding(&row), events).await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::Transition { .. })), "{error}");
    let stale = Writer::Worker { fence: row.fence + 1, batch: None };
    let error = db.store.append(build, stale, [stamped(3, log("x"))]).await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::Fenced { .. })), "{error}");
    assert_eq!(check_fold(&db.store, build).await.next_number, 2);

    let end = [stamped(4, state(State::Cancelled))];
    db.store.append(build, holding(&row), end).await.unwrap();
    let error = db.store.append(build, holding(&row), [stamped(5, log("x"))]).await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::Ended(State::Cancelled))), "{error}");
    let label = Event::Labels { changes: [("a".into(), Some("b".into()))].into() };
    db.store.append(build, Writer::Service, [stamped(6, label)]).await.unwrap();
    assert_eq!(check_fold(&db.store, build).await.labels["a"], "b");
    let error = db.store.append(build_id(), Writer::Service, []).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchBuild(_)), "{error}");
}

async fn a_batch_sent_twice_is_written_once(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    let row = db.store.claim(&claim(1), at(1)).await.unwrap().unwrap();
    let batch = |n| Writer::Worker { fence: row.fence, batch: Some(n) };
    for n in [1, 1, 2, 1, 2, 3] {
        let line = [stamped(2, log(&format!("batch {n}")))];
        db.store.append(build, batch(n), line).await.unwrap();
    }
    let lines = db.store.journal(build, 2, 10).await.unwrap();
    let lines: Vec<&Event> = lines.iter().map(|e| &e.event).collect();
    assert_eq!(lines, [&log("batch 1"), &log("batch 2"), &log("batch 3")]);
}

/// Events that fit or do not, in any order.
fn any_event() -> impl Strategy<Value = Event> {
    let status = prop::sample::select(vec![CacheStatus::Hit, CacheStatus::Miss]);
    let artifact = |name: String| ArtifactRecord {
        digest: Digest::of(&name),
        name,
        kind: "image".into(),
        bytes: Some(7),
        references: vec!["a:b".into()],
    };
    prop_oneof![
        3 => prop::sample::select(State::ALL.to_vec()).prop_map(|to| Event::State { to }),
        8 => ".{0,40}".prop_map(|text| log(&text)),
        1 => (1_u32..4, 1_u64..4).prop_map(|(attempt, fence)| Event::Claimed {
            attempt, fence, worker: worker(1)
        }),
        1 => any::<bool>()
            .prop_map(|planned| Event::Requeued { reason: "lost".into(), planned }),
        1 => Just(Event::EffectBegan { step: StepId(1) }),
        1 => "[a-c]".prop_map(|answers| Event::AnswersKept { blob: Digest::of(answers) }),
        1 => Just(Event::CancelRequested { by: "me\0".into(), reason: None }),
        1 => Just(Event::Failed(Box::new(Failure::new(FailureKind::Step, "no\0")))),
        1 => "[a-z ]{1,9}".prop_map(|name| Event::Renamed { name }),
        1 => ("[a-c]", proptest::option::of("[a-z\0]{0,3}"))
            .prop_map(|(name, value)| Event::Labels { changes: [(name, value)].into() }),
        1 => "[a-c]".prop_map(move |name| Event::Artifact(artifact(name))),
        1 => "[a-c]".prop_map(|name| Event::ArtifactRemoved { name, reason: "old".into() }),
        1 => Just(Event::Executor { requested: None, ran: "native".into(), reason: None }),
        1 => status.prop_map(|status| Event::Cache(CacheEvent {
            cache: CacheKind::Layer, status, step: Some(StepId(1)), subject: "RUN x".into(),
            key: Some(Digest::of("k")), reason: None, bypass: None,
        })),
    ]
}

fn rounds() -> Vec<Vec<Vec<Event>>> {
    let mut runner = TestRunner::deterministic();
    let batches = prop::collection::vec(prop::collection::vec(any_event(), 1..6), 1..25);
    (0..12).map(|_| batches.new_tree(&mut runner).unwrap().current()).collect()
}

async fn the_row_is_the_fold_of_any_events(db: Database) {
    for (round, batches) in rounds().into_iter().enumerate() {
        let mut wanted = submission();
        wanted.mode = if round % 2 == 0 { Mode::Managed } else { Mode::External };
        let build = submit(&db.store, wanted, round as i64).await.submission.build;
        for events in batches {
            let before = db.store.row(build).await.unwrap();
            let events = events.into_iter().enumerate();
            let events: Vec<_> = events.map(|(i, e)| stamped(i as i64, e)).collect();
            match db.store.append(build, Writer::Service, events).await {
                Ok(row) => assert_eq!(row, db.store.row(build).await.unwrap()),
                Err(Error::Refused(_)) => assert_eq!(before, db.store.row(build).await.unwrap()),
                Err(other) => panic!("{other}"),
            }
        }
        check_fold(&db.store, build).await;
    }
    crate::list::check_facets(&db).await;
}

async fn journals_are_read_by_number_and_time(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    let lines = (1..=9999_i64).map(|n| match n % 1000 {
        0 => stamped(n * 10, Event::Pinned { pinned: true }),
        _ => stamped(n * 10, log(&format!("line {n} {}", "x".repeat(100)))),
    });
    db.store.append(build, Writer::Service, lines.collect::<Vec<_>>()).await.unwrap();
    for (from, limit, want) in [
        (0, 3, 0..3),
        (1, 1, 1..2),
        (999, 3, 999..1002),
        (9990, 99, 9990..10_000),
        (10_000, 5, 0..0),
    ] {
        let read = db.store.journal(build, from, limit).await.unwrap();
        let numbers: Vec<u64> = read.iter().map(|e| e.number).collect();
        assert_eq!(numbers, want.collect::<Vec<u64>>());
        assert!(read.iter().all(|e| e.time == at(e.number as i64 * 10)));
    }
    for (nanos, want) in [(-5, 0), (0, 0), (1, 1), (10, 1), (15, 2), (50_001, 5001), (99_990, 9999)]
    {
        assert_eq!(db.store.number_at(build, at(nanos)).await.unwrap(), want, "{nanos}");
    }
    assert_eq!(db.store.number_at(build, at(99_991)).await.unwrap(), 10_000);
    check_fold(&db.store, build).await;
}

async fn scopes_are_read_by_time(db: Database) {
    let a = submit(&db.store, submission(), 0).await.submission.build;
    let b = submit(&db.store, submission(), 1).await.submission.build;
    let other = Submission { tenant: tenant(2), ..submission() };
    submit(&db.store, other, 2).await;
    for i in 0..200 {
        let build = if i % 2 == 0 { a } else { b };
        let lines = (0..10).map(|n| stamped(100 * i + n, log(&format!("{i}/{n}"))));
        db.store.append(build, Writer::Service, lines.collect::<Vec<_>>()).await.unwrap();
    }
    let read = |from, until, limit, newest_first| {
        let range = TimeRange { from: at(from), until: at(until) };
        let store = db.store.clone();
        async move {
            let found = store.scope_journal(tenant(1), "web", range, limit, newest_first).await;
            let times =
                found.unwrap().into_iter().map(|e| (e.entry.time.nanos() - at(0).nanos(), e.build));
            times.collect::<Vec<_>>()
        }
    };
    assert_eq!(read(1005, 1102, 100, false).await.len(), 5 + 2);
    assert_eq!(read(1005, 1102, 100, true).await[0], (1101, b));
    assert_eq!(read(1005, 1102, 1, false).await, [(1005, a)]);
    let all = read(100, 100 * SECOND, usize::MAX, false).await;
    assert_eq!(all.len(), 1990);
    let mut back = read(100, 100 * SECOND, usize::MAX, true).await;
    back.reverse();
    assert_eq!(all, back);
    assert_eq!(read(19_909, 20_000, 9, true).await, [(19_909, b)]);
    assert_eq!(read(50_000, 60_000, 9, false).await, []);
    let nowhere = TimeRange { from: at(0), until: at(9) };
    let none = db.store.scope_journal(tenant(9), "web", nowhere, 9, false).await.unwrap();
    assert!(none.is_empty());
}

async fn followers_see_each_entry_once(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    // Another process: it hears of the writer's entries through the database only.
    let other = ashlar_records::Store::open(&db.place).await.unwrap();
    let relay = tokio::spawn({
        let other = other.clone();
        async move { other.relay_wakeups().await }
    });
    let follow = |store: &ashlar_records::Store| {
        let mut follower = store.follow(build, 0);
        tokio::spawn(async move {
            let mut numbers = Vec::new();
            loop {
                let entries = follower.next(7).await.unwrap();
                if entries.is_empty() {
                    return numbers;
                }
                numbers.extend(entries.iter().map(|e| e.number));
            }
        })
    };
    let followers = [follow(&db.store), follow(&other)];
    for i in 0..100 {
        let lines = [stamped(i, log("a")), stamped(i, log("b"))];
        db.store.append(build, Writer::Service, lines).await.unwrap();
    }
    db.store.append(build, Writer::Service, [stamped(0, state(State::Skipped))]).await.unwrap();
    for follower in followers {
        assert_eq!(follower.await.unwrap(), (0..202).collect::<Vec<u64>>());
    }
    relay.abort();
}

async fn writers_of_journals_slow_nobody_and_lose_nothing(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    let row = db.store.claim(&claim(1), at(1)).await.unwrap().unwrap();
    let writer = JournalWriter::spawn(db.store.clone(), build, row.fence);
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let writer = writer.clone();
            // Enough to fill what may wait: the threads must be held back, not memory.
            tokio::task::spawn_blocking(move || {
                for i in 0..500 {
                    writer.event(log(&format!("{t} {i} {}", "x".repeat(10_000))));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.await.unwrap();
    }
    let flushed: Record = (*writer.flush().await.unwrap().unwrap()).clone();
    assert_eq!(flushed.next_number, 2 + 2000);
    let read = db.store.journal(build, 2, usize::MAX).await.unwrap();
    for t in 0..4 {
        let mine = read.iter().filter_map(|e| match &e.event {
            Event::Log(line) => line.text.strip_prefix(&format!("{t} ")),
            _ => None,
        });
        let order: Vec<usize> =
            mine.map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(order, (0..500).collect::<Vec<_>>());
    }
    let wish = Event::CancelRequested { by: "me".into(), reason: None };
    db.store.append(build, Writer::Service, [stamped(0, wish)]).await.unwrap();
    writer.event(log("so that the writer looks"));
    writer.cancelled().await;
    writer.event(state(State::Cancelled));
    assert_eq!(writer.flush().await.unwrap().unwrap().state, State::Cancelled);
}

async fn ended_builds_are_forgotten(db: Database) {
    let keep = submit(&db.store, submission(), 0).await.submission.build;
    let pinned = submit(&db.store, submission(), 1).await.submission.build;
    let gone = submit(&db.store, submission(), 2).await.submission.build;
    let pin = [stamped(3, Event::Pinned { pinned: true })];
    db.store.append(pinned, Writer::Service, pin).await.unwrap();
    for build in [pinned, gone] {
        let end = [stamped(3, state(State::Skipped))];
        db.store.append(build, Writer::Service, end).await.unwrap();
    }
    let all = [keep, pinned, gone, build_id()];
    assert_eq!(db.store.forget(&all).await.unwrap(), [gone]);
    assert_eq!(db.store.get(gone).await.unwrap(), None);
    assert!(db.store.journal(gone, 0, 9).await.unwrap().is_empty());
    check_fold(&db.store, keep).await;
    crate::list::check_facets(&db).await;
}
