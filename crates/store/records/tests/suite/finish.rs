//! Ends that move names, and leases of dead processes.

use std::sync::Arc;

use ashlar_core::Digest;
use ashlar_core::journal::{ArtifactRecord, Event, Mode, Record, Sink as _, Submission};
use ashlar_core::state::State;
use ashlar_records::{
    Ending, Error, Exempt, JournalWriter, LetGo, Namespace, NewAlias, What, Why, Writer,
};
use uuid::Uuid;

use crate::common::{
    Database, SECOND, at, check_fold, claim, stamped, state, submission, submit, tenant, worker,
};

crate::on_both! {
    names_move_with_the_end_or_not_at_all;
    an_end_is_decided_by_all_that_was_said;
    an_attempt_that_was_given_up_ends_nothing;
    names_lead_to_what_is_there_or_it_goes_but_not_both;
    names_are_listed_by_their_beginning;
    dead_workers_lose_their_builds_at_once;
}

fn tags() -> Namespace {
    Namespace::new("native", Some(tenant(1)), "tag")
}

fn tag(alias: &str) -> NewAlias {
    NewAlias::protecting(tags(), alias.to_owned())
}

async fn names_move_with_the_end_or_not_at_all(db: Database) {
    let mut last = None;
    for n in 0..2 {
        let build = submit(&db.store, submission(), n).await.submission.build;
        let held = db.store.claim(&claim(1), at(n)).await.unwrap().unwrap();
        // A worker that was given up moves nothing.
        let end = || [stamped(n, state(State::Succeeded))];
        let late = db.store.finish(build, held.fence + 1, end(), &[tag("app:1")]).await;
        assert!(matches!(late, Err(Error::Refused(_))));
        assert_eq!(db.store.resolve(&tags(), "app:1").await.unwrap(), last);
        let names = [tag("app:1"), tag("app:2")];
        db.store.finish(build, held.fence, end(), &names).await.unwrap();
        last = Some(build.uuid());
        assert_eq!(db.store.resolve(&tags(), "app:1").await.unwrap(), last);
        assert_eq!(check_fold(&db.store, build).await.state, State::Succeeded);
    }
}

fn ran(name: &str) -> Event {
    Event::Executor { requested: None, ran: name.into(), reason: None }
}

async fn an_end_is_decided_by_all_that_was_said(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    let held = db.store.claim(&claim(1), at(0)).await.unwrap().unwrap();
    let writer = JournalWriter::spawn(db.store.clone(), build, held.fence);
    writer.event(ran("native"));
    let decide = |row: &Record| {
        assert_eq!(row.executor.as_deref(), Some("native"));
        Ending { events: vec![state(State::Succeeded)], names: vec![tag("app:1")] }
    };
    let row = writer.finish(Arc::new(decide)).await.unwrap();
    assert_eq!((row.state, row.executor.as_deref()), (State::Succeeded, Some("native")));
    assert_eq!(db.store.resolve(&tags(), "app:1").await.unwrap(), Some(build.uuid()));
    assert_eq!(check_fold(&db.store, build).await.next_number, row.next_number);
    // Nobody ends an attempt twice, and what is said late is not heard.
    writer.event(ran("late"));
    let again = writer.finish(Arc::new(|_: &Record| panic!("the attempt has ended"))).await;
    assert!(matches!(&again, Err(Error::Writer { why, .. }) if why.contains("ended")), "{again:?}");
    assert_eq!(check_fold(&db.store, build).await.executor.as_deref(), Some("native"));
}

async fn an_attempt_that_was_given_up_ends_nothing(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    let held = db.store.claim(&claim(1), at(0)).await.unwrap().unwrap();
    let writer = JournalWriter::spawn(db.store.clone(), build, held.fence);
    db.store.append(build, Writer::Service, [stamped(1, state(State::Cancelled))]).await.unwrap();
    let decide =
        |_: &Record| Ending { events: vec![state(State::Succeeded)], names: vec![tag("app:1")] };
    assert!(writer.finish(Arc::new(decide)).await.is_err());
    assert_eq!(db.store.resolve(&tags(), "app:1").await.unwrap(), None);
    assert_eq!(check_fold(&db.store, build).await.state, State::Cancelled);
}

async fn names_lead_to_what_is_there_or_it_goes_but_not_both(db: Database) {
    let store = &db.store;
    for n in 0..20 {
        let mode = Mode::External;
        let build = submit(store, Submission { mode, ..submission() }, n).await.submission.build;
        let artifact = ArtifactRecord {
            name: "image".into(),
            kind: "image".into(),
            digest: Digest::of("image"),
            bytes: Some(1),
            references: Vec::new(),
        };
        let events = [
            stamped(n, state(State::Preparing)),
            stamped(n, Event::Artifact(artifact)),
            stamped(n, state(State::Failed)),
        ];
        store.append(build, Writer::Service, events).await.unwrap();
        let alias = format!("app:{n}");
        let names = [tag(&alias)];
        let (promoted, gone) = tokio::join!(
            store.promote(build, &names, |record| !record.artifacts.is_empty()),
            store.let_go(build, What::Artifacts, Why::Count, at(SECOND)),
        );
        let (promoted, leads) = (promoted.unwrap(), store.resolve(&tags(), &alias).await.unwrap());
        let row = store.row(build).await.unwrap();
        match gone.unwrap() {
            LetGo::Gone => {
                assert_eq!((promoted, leads), (None, None));
                assert!(row.artifacts.is_empty());
            }
            other => {
                assert_eq!(other, LetGo::Spared(Exempt::Promoted));
                assert_eq!((promoted.as_ref(), leads), (Some(&row), Some(build.uuid())));
                assert_eq!(row.artifacts.len(), 1);
            }
        }
    }
    let unknown = store.promote(crate::common::build_id(), &[], |_| true).await;
    assert!(matches!(unknown, Err(Error::NoSuchBuild(_))));
}

async fn names_are_listed_by_their_beginning(db: Database) {
    let target = Uuid::from_u128(7);
    let names: Vec<NewAlias> = ["b:1", "app:2", "app:1", "ap_:1", "äpp:1", "App:3"].map(tag).into();
    db.store.move_aliases(&names, target).await.unwrap();
    let list = |prefix: &'static str, after: &'static str, limit| {
        let store = db.store.clone();
        async move {
            let found = store.aliases_from(&tags(), prefix, after, limit).await.unwrap();
            found.into_iter().map(|(alias, _)| alias).collect::<Vec<_>>()
        }
    };
    assert_eq!(list("app", "", 10).await, ["app:1", "app:2"]);
    assert_eq!(list("app", "app:1", 10).await, ["app:2"]);
    assert_eq!(list("ä", "", 10).await, ["äpp:1"]);
    assert_eq!(list("app", "b", 10).await, [""; 0]);
    assert_eq!(list("app", "ZZZ", 1).await, ["app:1"]);
    assert_eq!(list("", "", 2).await.len(), 2);
    // By code points, whatever the database's own order is.
    assert_eq!(list("", "App:3", 9).await, ["ap_:1", "app:1", "app:2", "b:1", "äpp:1"]);
}

async fn dead_workers_lose_their_builds_at_once(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    db.store.claim(&claim(1), at(0)).await.unwrap().unwrap();
    assert_eq!(db.store.lose_worker(worker(2)).await.unwrap(), 0);
    assert!(db.store.expire(at(SECOND)).await.unwrap().is_empty());
    assert_eq!(db.store.lose_worker(worker(1)).await.unwrap(), 1);
    assert_eq!(db.store.expire(at(SECOND)).await.unwrap(), [build]);
    assert_eq!(check_fold(&db.store, build).await.state, State::Queued);
}
