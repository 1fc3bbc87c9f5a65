//! Retention: what goes, when, and what stays whatever the bounds say.

use std::time::Duration;

use ashlar_core::journal::{ArtifactRecord, BuildKind, Event, Mode, Record, Submission};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Digest, Timestamp};
use ashlar_records::{
    Bound, Bounds, Error, Exempt, Group, HeldAs, LetGo, Namespace, NewAlias, Retention, SPARED_FOR,
    Standing, Store, Submit, What, Why, Writer,
};

use crate::common::{
    Database, SECOND, at, check_fold, log, stamped, state, submission, submit, tenant,
};

crate::on_both! {
    old_records_go_with_all_that_is_theirs;
    counts_and_sizes_let_the_oldest_go;
    servers_side_by_side_let_no_newer_build_go;
    exempt_builds_stay_and_are_not_counted;
    the_newest_success_of_a_name_has_a_successor;
    what_an_unfinished_build_needs_stays;
    what_is_gone_cannot_be_needed;
    running_builds_are_never_due;
    artifacts_go_before_their_record;
    levels_are_put_together;
    groups_come_in_pieces;
    what_will_go_is_known_ahead;
    a_page_stands_as_each_of_its_builds_does;
    blobs_are_held_as_long_as_they_are_needed;
}

const DAY: i64 = 86_400 * SECOND;

/// Makes a build that ended at a time, with an artifact of so many bytes if it succeeded.
async fn ended(store: &Store, scope: &str, name: &str, nanos: i64, bytes: Option<u64>) -> Record {
    let (mode, scope, name) = (Mode::External, scope.to_owned(), name.to_owned());
    let wanted = Submission { mode, scope, name, ..submission() };
    let build = submit(store, wanted, nanos).await.submission.build;
    let mut events = vec![stamped(nanos, state(State::Preparing)), stamped(nanos, log("hello"))];
    if let Some(bytes) = bytes {
        events.push(stamped(nanos, Event::Artifact(artifact("file", bytes))));
    }
    let end = if bytes.is_some() { State::Succeeded } else { State::Failed };
    events.push(stamped(nanos, state(end)));
    store.append(build, Writer::Service, events).await.unwrap()
}

fn artifact(name: &str, bytes: u64) -> ArtifactRecord {
    let digest = Digest::of(format!("{name} {bytes}"));
    let (name, kind) = (name.to_owned(), "file".to_owned());
    ArtifactRecord { name, kind, digest, bytes: Some(bytes), references: Vec::new() }
}

fn id(record: &Record) -> BuildId {
    record.submission.build
}

async fn groups(store: &Store) -> Vec<Group> {
    store.retention_groups(None, 100).await.unwrap()
}

async fn due(store: &Store, what: What, bounds: Bounds, now: Timestamp) -> Vec<(BuildId, Why)> {
    let mut all = Vec::new();
    for group in groups(store).await {
        all.extend(store.overdue(&group, what, &bounds, now).await.unwrap());
    }
    all
}

fn age(days: u64) -> Bounds {
    Bounds { age_seconds: Some(Bound::Most(days * 86_400)), ..Bounds::default() }
}

fn count(n: u64) -> Bounds {
    Bounds { count: Some(Bound::Most(n)), ..Bounds::default() }
}

async fn old_records_go_with_all_that_is_theirs(db: Database) {
    let old = ended(&db.store, "web", "a", 0, None).await;
    ended(&db.store, "web", "a", DAY, None).await;
    assert_eq!(due(&db.store, What::Record, age(2), at(DAY)).await, []);
    // The scope's clock has moved on a little for each entry.
    let now = at(2 * DAY + SECOND);
    assert_eq!(due(&db.store, What::Record, age(2), now).await, [(id(&old), Why::Age)]);
    let gone = db.store.let_go(id(&old), What::Record, Why::Age, now).await.unwrap();
    assert_eq!(gone, LetGo::Gone);
    assert_eq!(db.store.get(id(&old)).await.unwrap(), None);
    assert_eq!(db.store.journal(id(&old), 0, 10).await.unwrap(), []);
    assert_eq!(due(&db.store, What::Record, age(2), now).await, []);
    let again = db.store.let_go(id(&old), What::Record, Why::Age, now).await.unwrap();
    assert_eq!(again, LetGo::Nothing);
    let (_, entry) = db.store.audit_log(tenant(1), None, 1).await.unwrap().remove(0);
    assert_eq!((entry.action.as_str(), entry.principal), ("retention.record", None));
    assert_eq!((entry.subject, entry.detail["why"].as_str()), (id(&old).to_string(), Some("age")));
}

async fn counts_and_sizes_let_the_oldest_go(db: Database) {
    let mut all = Vec::new();
    for n in 0..5 {
        all.push(id(&ended(&db.store, "web", &format!("{n}"), n * SECOND, Some(100)).await));
    }
    let ids = |due: Vec<(BuildId, Why)>| due.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let now = at(DAY);
    assert_eq!(ids(due(&db.store, What::Record, count(3), now).await), all[..2]);
    assert_eq!(ids(due(&db.store, What::Record, count(5), now).await), []);
    let bytes = |n| Bounds { bytes: Some(Bound::Most(n)), ..Bounds::default() };
    assert_eq!(ids(due(&db.store, What::Artifacts, bytes(299), now).await), all[..3]);
    assert_eq!(ids(due(&db.store, What::Artifacts, bytes(500), now).await), []);
    assert_eq!(ids(due(&db.store, What::Artifacts, bytes(0), now).await), all);
    // Of two bounds the stricter one counts, and says why.
    let both = Bounds { count: Some(Bound::Most(4)), ..bytes(300) };
    let found = due(&db.store, What::Artifacts, both, now).await;
    assert_eq!(found, [(all[0], Why::Count), (all[1], Why::Bytes)]);
    // Another scope, and what came through another door, count for themselves.
    ended(&db.store, "api", "x", 9 * SECOND, None).await;
    assert_eq!(ids(due(&db.store, What::Record, count(4), now).await), all[..1]);
}

/// Lets builds go until nothing is overdue, as the upkeep of one server does.
async fn upkeep(store: Store, bounds: Bounds) {
    let now = at(DAY);
    loop {
        let overdue = due(&store, What::Record, bounds, now).await;
        if overdue.is_empty() {
            return;
        }
        for (build, why) in overdue {
            store.let_go(build, What::Record, why, now).await.unwrap();
        }
    }
}

async fn servers_side_by_side_let_no_newer_build_go(db: Database) {
    let mut all = Vec::new();
    for round in 0..4 {
        for n in 0..30 {
            let time = (round * 30 + n) * SECOND;
            all.push(id(&ended(&db.store, "web", "x", time, None).await));
        }
        let servers: Vec<_> =
            (0..4).map(|_| tokio::spawn(upkeep(db.store.clone(), count(3)))).collect();
        for server in servers {
            server.await.unwrap();
        }
        for newest in &all[all.len() - 3..] {
            assert!(db.store.get(*newest).await.unwrap().is_some());
        }
    }
    assert_eq!(due(&db.store, What::Record, count(2), at(DAY)).await.len(), 1);
}

async fn exempt_builds_stay_and_are_not_counted(db: Database) {
    let promoted = ended(&db.store, "web", "a", 0, Some(1)).await;
    let pinned = ended(&db.store, "web", "a", SECOND, Some(1)).await;
    let plain = ended(&db.store, "web", "a", 2 * SECOND, Some(1)).await;
    let good = ended(&db.store, "web", "a", 3 * SECOND, Some(1)).await;
    let failed = ended(&db.store, "web", "a", 4 * SECOND, None).await;
    let tags = Namespace::new("native", Some(tenant(1)), "tag");
    let tag = NewAlias::protecting(tags.clone(), "a:1".into());
    db.store.move_aliases(std::slice::from_ref(&tag), id(&promoted).uuid()).await.unwrap();
    // A name of its own spares no build.
    let own = NewAlias::own(tags, "a:of-one-build".into());
    db.store.move_aliases(&[own], id(&plain).uuid()).await.unwrap();
    let pin = |pinned| [stamped(5 * SECOND, Event::Pinned { pinned })];
    db.store.append(id(&pinned), Writer::Service, pin(true)).await.unwrap();
    let now = at(10 * DAY);
    let mut kept = Vec::new();
    for (build, why) in due(&db.store, What::Record, age(1), now).await {
        kept.push((build, db.store.let_go(build, What::Record, why, now).await.unwrap()));
    }
    let want = [
        (id(&promoted), LetGo::Spared(Exempt::Promoted)),
        (id(&plain), LetGo::Gone),
        (id(&good), LetGo::Spared(Exempt::LastGood)),
        (id(&failed), LetGo::Gone),
    ];
    assert_eq!(kept, want);
    // They are not looked at again for a while, nor counted.
    assert_eq!(due(&db.store, What::Record, count(0), now).await, []);
    db.store.spare_no_longer(now).await.unwrap();
    assert_eq!(due(&db.store, What::Record, count(0), now).await, []);
    // A newer success and a name that moved on end the exemption; so does unpinning.
    let newer = ended(&db.store, "web", "a", 10 * DAY, Some(1)).await;
    db.store.move_aliases(&[tag], id(&newer).uuid()).await.unwrap();
    db.store.append(id(&pinned), Writer::Service, pin(false)).await.unwrap();
    let now = now_after(now, SPARED_FOR);
    db.store.spare_no_longer(now).await.unwrap();
    let due = due(&db.store, What::Record, age(1), now).await;
    let ids: Vec<BuildId> = due.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [id(&promoted), id(&pinned), id(&good)]);
    for (build, why) in due {
        let gone = db.store.let_go(build, What::Record, why, now).await.unwrap();
        assert_eq!(gone, LetGo::Gone);
    }
    check_fold(&db.store, id(&newer)).await;
}

async fn is_last_good(store: &Store, record: &Record) -> bool {
    let standing = store.standing(id(record), &Retention::default()).await.unwrap().unwrap();
    standing.exempt == Some(Exempt::LastGood)
}

async fn the_newest_success_of_a_name_has_a_successor(db: Database) {
    let store = &db.store;
    let mut all = Vec::new();
    for n in 0..5 {
        all.push(ended(store, "web", "a", n * SECOND, Some(1)).await);
    }
    let last = |of: usize| {
        let all = &all;
        async move {
            for (n, record) in all.iter().enumerate().take(of + 1) {
                assert_eq!(is_last_good(store, record).await, n == of, "{n} of {of}");
            }
        }
    };
    last(4).await;
    // The newest one is forgotten, the next one gets another name, the third one loses its image.
    assert_eq!(store.forget(&[id(&all[4])]).await.unwrap(), [id(&all[4])]);
    last(3).await;
    let renamed = [stamped(9 * SECOND, Event::Renamed { name: "b".into() })];
    store.append(id(&all[3]), Writer::Service, renamed).await.unwrap();
    last(2).await;
    assert!(is_last_good(store, &all[3]).await);
    let removed = Event::ArtifactRemoved { name: "file".into(), reason: "test".into() };
    store.append(id(&all[2]), Writer::Service, [stamped(10 * SECOND, removed)]).await.unwrap();
    last(1).await;
    // Where nothing is better, one that lost its image is the newest success still.
    for older in &all[..2] {
        store.forget(&[id(older)]).await.unwrap();
    }
    assert!(is_last_good(store, &all[2]).await);
    let again = [stamped(11 * SECOND, Event::Artifact(artifact("file", 1)))];
    store.append(id(&all[2]), Writer::Service, again).await.unwrap();
    let back = [stamped(12 * SECOND, Event::Renamed { name: "a".into() })];
    store.append(id(&all[3]), Writer::Service, back).await.unwrap();
    assert!(is_last_good(store, &all[3]).await && !is_last_good(store, &all[2]).await);
}

/// Submits a build that stands on others, or belongs to a run.
async fn needing(store: &Store, kind: BuildKind, needs: &[BuildId]) -> Result<Record, Error> {
    let wanted = Submission { mode: Mode::External, kind, ..submission() };
    let mut submit = Submit::new(wanted);
    submit.needs = needs.to_vec();
    store.submit(&submit, at(0)).await.map(|submitted| submitted.record)
}

async fn end(store: &Store, build: BuildId) {
    let end = [stamped(0, state(State::Preparing)), stamped(0, state(State::Failed))];
    store.append(build, Writer::Service, end).await.unwrap();
}

async fn what_an_unfinished_build_needs_stays(db: Database) {
    let store = &db.store;
    let base = id(&ended(store, "web", "base", 0, Some(1)).await);
    let on_base = id(&needing(store, BuildKind::Build, &[base]).await.unwrap());
    let unknown = crate::common::build_id();
    let run = id(&needing(store, BuildKind::Workflow, &[base, unknown]).await.unwrap());
    let node = Submission { parent: Some(run), mode: Mode::External, ..submission() };
    let node = id(&submit(store, node, 0).await);
    end(store, node).await;
    // A newer success of the same name.
    ended(store, "web", "base", SECOND, Some(1)).await;
    let mut now = at(DAY);
    let mut let_go = async |build, what| {
        now = now_after(now, SPARED_FOR);
        store.let_go(build, what, Why::Count, now).await.unwrap()
    };
    let needed = LetGo::Spared(Exempt::Needed);
    assert_eq!(let_go(base, What::Artifacts).await, needed);
    assert_eq!(let_go(node, What::Record).await, needed);
    end(store, on_base).await;
    // The run may need it still.
    assert_eq!(let_go(base, What::Artifacts).await, needed);
    end(store, run).await;
    assert_eq!(let_go(base, What::Artifacts).await, LetGo::Gone);
    assert_eq!(let_go(node, What::Record).await, LetGo::Gone);
    // A build that comes to a run that has ended is needed by nobody.
    let late = Submission { parent: Some(run), mode: Mode::External, ..submission() };
    let late = id(&submit(store, late, 0).await);
    end(store, late).await;
    assert_eq!(let_go(late, What::Record).await, LetGo::Gone);
}

async fn what_is_gone_cannot_be_needed(db: Database) {
    let store = &db.store;
    for round in 0..20 {
        let base = id(&ended(store, "bases", "base", 2 * round * SECOND, Some(1)).await);
        ended(store, "bases", "base", (2 * round + 1) * SECOND, Some(1)).await;
        // Whoever comes first, no build waits for something that is gone.
        let bases = [base];
        let (accepted, gone) = tokio::join!(
            needing(store, BuildKind::Build, &bases),
            store.let_go(base, What::Artifacts, Why::Count, at(DAY)),
        );
        match gone.unwrap() {
            LetGo::Gone => assert!(matches!(accepted, Err(Error::NotKept(b)) if b == base)),
            other => {
                assert_eq!(other, LetGo::Spared(Exempt::Needed));
                end(store, id(&accepted.unwrap())).await;
            }
        }
    }
    let unknown = needing(store, BuildKind::Build, &[crate::common::build_id()]).await;
    assert!(matches!(unknown, Err(Error::NotKept(_))));
}

fn now_after(now: Timestamp, time: Duration) -> Timestamp {
    Timestamp::from_nanos(now.nanos() + i64::try_from(time.as_nanos()).unwrap())
}

async fn running_builds_are_never_due(db: Database) {
    let build = id(&submit(&db.store, submission(), 0).await);
    let all = Bounds { count: Some(Bound::Most(0)), bytes: Some(Bound::Most(0)), ..age(0) };
    assert!(due(&db.store, What::Record, all, at(DAY)).await.is_empty());
    for what in What::ALL {
        let done = db.store.let_go(build, what, Why::Age, at(DAY)).await.unwrap();
        assert_eq!(done, LetGo::Nothing);
    }
    let bounds = Retention { records: all, ..Retention::default() };
    assert_eq!(db.store.standing(build, &bounds).await.unwrap(), None);
    assert!(db.store.get(build).await.unwrap().is_some());
}

async fn artifacts_go_before_their_record(db: Database) {
    let old = ended(&db.store, "web", "a", 0, Some(7)).await;
    ended(&db.store, "web", "a", SECOND, Some(8)).await;
    let now = at(DAY);
    assert_eq!(due(&db.store, What::Artifacts, count(1), now).await, [(id(&old), Why::Count)]);
    let gone = db.store.let_go(id(&old), What::Artifacts, Why::Count, now).await.unwrap();
    assert_eq!(gone, LetGo::Gone);
    let row = check_fold(&db.store, id(&old)).await;
    assert!(row.artifacts.is_empty());
    let entries = db.store.journal(id(&old), row.next_number - 1, 1).await.unwrap();
    let removed = Event::ArtifactRemoved { name: "file".into(), reason: "retention: count".into() };
    assert_eq!(entries[0].event, removed);
    assert_eq!(due(&db.store, What::Artifacts, count(1), now).await, []);
    let running = submit(&db.store, submission(), 0).await.submission.build;
    let all = [id(&old), running, crate::common::build_id()];
    let without = db.store.without_artifacts(&all).await.unwrap();
    assert_eq!(without, [all[0], all[2]]);
    assert_eq!(due(&db.store, What::Record, count(1), now).await.len(), 1);
}

async fn levels_are_put_together(db: Database) {
    let say = |text: &str| text.parse::<Retention>().unwrap();
    let (whole, web) = (say("records.age=30d,logs.count=9"), say("records.age=unlimited"));
    assert!(!db.store.has_retention().await.unwrap());
    db.store.set_retention(tenant(1), None, &whole, at(0)).await.unwrap();
    db.store.set_retention(tenant(1), Some("web"), &web, at(0)).await.unwrap();
    assert!(db.store.has_retention().await.unwrap());
    assert_eq!(db.store.retention(tenant(1), "api").await.unwrap(), whole);
    assert_eq!(db.store.retention(tenant(2), "web").await.unwrap(), Retention::default());
    let both = db.store.retention(tenant(1), "web").await.unwrap();
    assert_eq!(both, say("records.age=unlimited,logs.count=9"));
    // What lies in a scope goes by what is said for that, unless something is said for itself.
    for inner in ["web/unit", "web/unit/x", "web//"] {
        assert_eq!(db.store.retention(tenant(1), inner).await.unwrap(), both, "{inner}");
    }
    for other in ["web2", "api/web", "/web", "", "/"] {
        assert_eq!(db.store.retention(tenant(1), other).await.unwrap(), whole, "{other}");
    }
    let all = db.store.retentions(tenant(1), None, 10).await.unwrap();
    assert_eq!(all, [(None, whole), (Some("web".to_owned()), web)]);
    let rest = db.store.retentions(tenant(1), Some(""), 10).await.unwrap();
    assert_eq!(rest, [(Some("web".to_owned()), web)]);
    // By code points, whatever the database's own order is.
    db.store.set_retention(tenant(1), Some("Z"), &whole, at(0)).await.unwrap();
    let two = db.store.retentions(tenant(1), Some(""), 10).await.unwrap();
    let after = db.store.retentions(tenant(1), Some("Z"), 10).await.unwrap();
    assert_eq!((two.len(), &after), (2, &rest));
    db.store.set_retention(tenant(1), Some("web"), &Retention::default(), at(1)).await.unwrap();
    assert_eq!(db.store.retention(tenant(1), "web").await.unwrap(), whole);
}

async fn groups_come_in_pieces(db: Database) {
    for scope in ["a", "b", "c", "d", "e"] {
        ended(&db.store, scope, "x", 0, None).await;
    }
    let (mut seen, mut last) = (Vec::new(), None);
    loop {
        let piece = db.store.retention_groups(last.as_ref(), 2).await.unwrap();
        seen.extend(piece.iter().map(|g| g.scope.clone()));
        match piece.last() {
            Some(group) => last = Some(group.clone()),
            None => break,
        }
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

async fn what_will_go_is_known_ahead(db: Database) {
    let first = ended(&db.store, "web", "a", 0, Some(10)).await;
    let second = ended(&db.store, "web", "b", SECOND, None).await;
    ended(&db.store, "web", "a", 2 * SECOND, Some(30)).await;
    let all: Retention = "records.count=9,logs.bytes=9,artifacts.bytes=9".parse().unwrap();
    let standing = db.store.standing(id(&first), &all).await.unwrap().unwrap();
    assert_eq!((standing.ended_at, standing.exempt), (first.finished_at.unwrap(), None));
    let [record, log, artifacts] = standing.things;
    assert!(record.there && log.there && artifacts.there);
    assert_eq!((record.newer, log.newer), (2, 2));
    assert_eq!((artifacts.newer, artifacts.bytes), (1, 40));
    let standing = db.store.standing(id(&second), &all).await.unwrap().unwrap();
    assert!(!standing.things[2].there && standing.things[0].newer == 1);
    // Newer ones are counted as far as a bound goes, and not at all where there is none.
    let few: Retention = "records.count=1,logs.age=1d".parse().unwrap();
    let standing = db.store.standing(id(&first), &few).await.unwrap().unwrap();
    assert!(standing.things.iter().all(|place| place.there));
    assert_eq!(standing.things.map(|place| place.newer), [1, 0, 0]);
}

async fn a_page_stands_as_each_of_its_builds_does(db: Database) {
    let mut all = Vec::new();
    for n in 0..6_i64 {
        let bytes = (n % 3 != 0).then_some(n as u64 * 10);
        all.push(id(&ended(&db.store, "web", "a", n * SECOND, bytes).await));
    }
    // Other groups, one that runs and one that is not there.
    let elsewhere = id(&ended(&db.store, "other", "a", SECOND, Some(7)).await);
    let running = submit(&db.store, submission(), SECOND).await.submission.build;
    let pin = [stamped(9 * SECOND, Event::Pinned { pinned: true })];
    db.store.append(all[2], Writer::Service, pin).await.unwrap();
    let tags = Namespace::new("native", Some(tenant(1)), "tag");
    let tag = NewAlias::protecting(tags, "a:1".into());
    db.store.move_aliases(&[tag], all[1].uuid()).await.unwrap();
    // Spared from now on: it counts for those before it in another way.
    let spared = db.store.let_go(all[1], What::Record, Why::Age, at(DAY)).await.unwrap();
    assert_eq!(spared, LetGo::Spared(Exempt::Promoted));
    let needs = std::slice::from_ref(&all[4]);
    needing(&db.store, BuildKind::Build, needs).await.unwrap();
    let asked = [&all[..], &[elsewhere, running, BuildId::from_parts(1, [1; 10])]].concat();
    let page = db.store.standings(&asked, true).await.unwrap();
    assert_eq!(page.len(), 7);
    let bounds: Retention = "records.count=99,logs.count=99,artifacts.bytes=99".parse().unwrap();
    // Alone, newer ones are counted of builds only that may go.
    let counted = |s: &Standing| s.exempt.is_none().then_some(*s);
    for build in asked {
        let (of_page, alone) = (page.get(&build), db.store.standing(build, &bounds).await.unwrap());
        assert_eq!(of_page.map(|s| s.exempt), alone.map(|s| s.exempt), "{build}");
        assert_eq!(of_page.and_then(counted), alone.as_ref().and_then(counted), "{build}");
    }
    assert_eq!(page[&all[4]].exempt, Some(Exempt::Needed));
    let plain = db.store.standings(&all[..1], false).await.unwrap();
    assert_eq!(plain[&all[0]].things[0].newer, 0, "nobody asked for counts");
    assert_eq!(db.store.standings(&[], true).await.unwrap().len(), 0);
}

async fn blobs_are_held_as_long_as_they_are_needed(db: Database) {
    let (context, answers) = (Digest::of("context"), Digest::of("answers"));
    let mode = Mode::External;
    let mut wanted = Submit::new(Submission { mode, ..submission() });
    (wanted.contexts, wanted.blobs) = (vec![context], vec![answers]);
    let build = id(&db.store.submit(&wanted, at(0)).await.unwrap().record);
    let made = ended(&db.store, "web", "a", 0, Some(5)).await;
    let file = made.artifacts[0].digest;
    let held = |after| {
        let store = db.store.clone();
        async move { store.held_blobs(after, 100).await.unwrap() }
    };
    let plain = HeldAs::Plain;
    let mut want = vec![(context, HeldAs::Context), (answers, plain), (file, plain)];
    want.sort_unstable_by_key(|(digest, _)| *digest.as_bytes());
    assert_eq!(held(None).await, want);
    assert_eq!(held(Some(want[0].0)).await, want[1..]);
    // What a build's questions came to is needed from the moment on at which its journal says so.
    let own = Digest::of("its own answers");
    let events = [
        stamped(1, state(State::Preparing)),
        stamped(1, Event::AnswersKept { blob: own }),
        stamped(1, state(State::Running)),
    ];
    db.store.append(build, Writer::Service, events).await.unwrap();
    assert!(held(None).await.contains(&(own, plain)));
    assert_eq!(check_fold(&db.store, build).await.answers, Some(own));
    let end = [stamped(1, state(State::Failed))];
    db.store.append(build, Writer::Service, end).await.unwrap();
    assert_eq!(held(None).await.len(), 4);
    db.store.forget(&[build]).await.unwrap();
    assert_eq!(held(None).await, [(file, plain)]);
    let removed = Event::ArtifactRemoved { name: "file".into(), reason: "test".into() };
    db.store.append(id(&made), Writer::Service, [stamped(2, removed)]).await.unwrap();
    assert_eq!(held(None).await, []);
}
