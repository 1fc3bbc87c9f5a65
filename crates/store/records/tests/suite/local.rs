//! The local history as one-shot commands use it.

use std::time::Instant;

use crate::common::{log, state, submission};
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{Event, OnLost, Sink, Submission};
use ashlar_core::state::State;
use ashlar_records::blocking::LocalHistory;
use ashlar_records::{Error, Filter, Page};

fn own(history: &LocalHistory) -> Submission {
    Submission { tenant: history.tenant(), ..submission() }
}

#[test]
fn a_build_is_listed_shown_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let history = LocalHistory::open(&path).unwrap();
    let wanted = own(&history);
    let writer = history.begin(wanted.clone()).unwrap();
    assert_eq!(history.get(writer.build()).unwrap().unwrap().state, State::Preparing);
    writer.event(state(State::Running));
    for i in 0..1000 {
        writer.event(log(&format!("line {i}")));
    }
    writer.flush().unwrap();
    let other = LocalHistory::open(&path).unwrap();
    let lines = other.journal(wanted.build, 3, 2000).unwrap();
    assert_eq!(lines.len(), 1000);
    assert_eq!(lines[999].event, log("line 999"));
    assert!(lines.windows(2).all(|w| w[0].time < w[1].time && w[0].number + 1 == w[1].number));

    let record = writer.finish(State::Succeeded, None).unwrap();
    assert_eq!(record.state, State::Succeeded);
    let shown = other.get(wanted.build).unwrap().unwrap();
    assert_eq!(shown.submission, Submission { on_lost: OnLost::Fail, ..wanted.clone() });
    assert!(shown.duration().is_some());
    let listed = other.list(&Filter::default(), &Page::newest(10)).unwrap();
    assert_eq!(listed.records.len(), 1);
    assert_eq!(other.find(&wanted.build.to_string()[..13]).unwrap(), [wanted.build]);
}

#[test]
fn a_failure_comes_before_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let history = LocalHistory::open(&dir.path().join("h.db")).unwrap();
    let writer = history.begin(own(&history)).unwrap();
    let failure = Failure::new(FailureKind::Step, "exit code 1");
    let record = writer.finish(State::Failed, Some(failure.clone())).unwrap();
    assert_eq!((record.state, record.failure), (State::Failed, Some(failure)));
    // Late news is dropped and does not block.
    writer.event(log("late"));
    assert_eq!(history.journal(writer.build(), 0, 100).unwrap().len(), 4);
}

#[test]
fn a_build_that_nobody_finishes_is_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let history = LocalHistory::open(&dir.path().join("h.db")).unwrap();
    let writer = history.begin(own(&history)).unwrap();
    writer.event(log("last words"));
    let build = writer.build();
    drop(writer);
    let record = history.get(build).unwrap().unwrap();
    assert_eq!(record.failure.unwrap().kind, FailureKind::Interrupted);
    assert_eq!(history.journal(build, 2, 1).unwrap()[0].event, log("last words"));
}

#[test]
fn a_state_that_cannot_follow_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let history = LocalHistory::open(&dir.path().join("h.db")).unwrap();
    let writer = history.begin(own(&history)).unwrap();
    writer.event(state(State::Queued));
    let error = writer.flush().unwrap_err().to_string();
    assert!(error.contains("cannot go from preparing to queued"), "{error}");
}

#[test]
fn several_processes_worth_of_histories_share_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.db");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                let history = LocalHistory::open(&path).unwrap();
                for _ in 0..5 {
                    let writer = history.begin(own(&history)).unwrap();
                    writer.event(log("x"));
                    writer.finish(State::Succeeded, None).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let history = LocalHistory::open(&path).unwrap();
    let listed = history.list(&Filter::default(), &Page::newest(100)).unwrap();
    assert_eq!(listed.records.len(), 40);
    assert!(listed.records.iter().all(|r| r.state == State::Succeeded && r.next_number == 4));
}

#[test]
fn a_build_that_was_ended_elsewhere_is_not_finished_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.db");
    let history = LocalHistory::open(&path).unwrap();
    let writer = history.begin(own(&history)).unwrap();
    let other = LocalHistory::open(&path).unwrap();
    other.note(writer.build(), state(State::Cancelled)).unwrap();
    assert!(writer.finish(State::Succeeded, None).is_err());
    assert_eq!(history.get(writer.build()).unwrap().unwrap().state, State::Cancelled);
}

#[test]
fn files_that_cannot_be_opened_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no/such/dir/h.db");
    let error = LocalHistory::open(&missing).map(drop).unwrap_err();
    assert!(matches!(&error, Error::Open { place, .. } if place.ends_with("dir/h.db")), "{error}");
    let text = dir.path().join("text.db");
    std::fs::write(&text, "this is not a database, but long enough to be one".repeat(100)).unwrap();
    let error = LocalHistory::open(&text).map(drop).unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error}");
}

#[test]
fn files_of_a_newer_program_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.db");
    drop(LocalHistory::open(&path).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA user_version = 99").unwrap();
    let error = LocalHistory::open(&path).map(drop).unwrap_err();
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
}

/// Not a limit but a sign of life: prints what one-shot use costs.
#[test]
fn a_whole_one_shot_history_is_quick() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.db");
    for _ in 0..3 {
        let start = Instant::now();
        let history = LocalHistory::open(&path).unwrap();
        let opened = start.elapsed();
        let writer = history.begin(own(&history)).unwrap();
        let begun = start.elapsed();
        writer.event(Event::Pinned { pinned: true });
        writer.finish(State::Succeeded, None).unwrap();
        println!("open {opened:?}, begin {begun:?}, finish {:?}", start.elapsed());
    }
}
