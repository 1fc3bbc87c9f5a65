//! Rights to blobs, marks of readers, and removing objects that nobody needs.

use std::time::Duration;

use ashlar_core::journal::{ArtifactRecord, Event, Mode, Submission};
use ashlar_core::{Digest, Timestamp};
use ashlar_records::{
    Grant, HeldAs, IMAGE_RECORD, REMOVAL_MAX, Reader, Readership, Store, Submit, USED_EVERY, Writer,
};
use sqlx::{Connection as _, PgConnection};

use crate::common::{Database, SECOND, at, stamped, submission, tenant, worker};

crate::on_both! {
    rights_lapse_unless_they_are_used;
    contexts_are_known_as_such;
    a_right_and_a_removal_exclude_each_other;
    what_is_held_is_never_removed;
    a_removal_that_nobody_ends_is_void_in_time;
    work_is_one_servers_at_a_time;
    readers_are_known_to_all;
    images_are_held_by_their_records;
    an_older_database_learns_what_is_needed;
    a_blob_store_is_marked_once;
}

fn digest(text: &str) -> Digest {
    Digest::of(text)
}

fn after(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_nanos(time.nanos() + i64::try_from(by.as_nanos()).unwrap())
}

async fn rights_lapse_unless_they_are_used(db: Database) {
    let (one, two, now) = (digest("1"), digest("2"), at(0));
    assert!(db.store.grant(tenant(1), &[one, two], false, now).await.unwrap());
    assert!(db.store.grant(tenant(2), &[one], false, now).await.unwrap());
    let later = after(now, USED_EVERY * 3);
    let used = db.store.granted(tenant(1), &[one], later).await.unwrap();
    assert_eq!(used, [one].into());
    let mut all: Vec<Grant> = Vec::new();
    loop {
        let piece = db.store.grants(all.last(), 2).await.unwrap();
        if piece.is_empty() {
            break;
        }
        all.extend(piece);
    }
    assert_eq!(all.len(), 3);
    let times: Vec<Timestamp> = all.iter().map(|g| g.used_at).collect();
    assert_eq!(times.iter().filter(|t| **t == later).count(), 1);
    // The list is old by now: who has used a right meanwhile keeps it.
    assert_eq!(db.store.lapse(&all, later).await.unwrap(), 2);
    assert_eq!(db.store.granted(tenant(1), &[one, two], later).await.unwrap(), [one].into());
    assert!(db.store.granted(tenant(2), &[one], later).await.unwrap().is_empty());
}

async fn contexts_are_known_as_such(db: Database) {
    let (context, plain, now) = (digest("context"), digest("plain"), at(0));
    db.store.grant(tenant(1), &[context], true, now).await.unwrap();
    db.store.grant(tenant(1), &[plain, context], false, now).await.unwrap();
    let is = async |n, digest, now| db.store.granted_context(tenant(n), digest, now).await.unwrap();
    assert!(is(1, context, now).await && !is(1, plain, now).await && !is(2, context, now).await);
    let known = db.store.granted_contexts(None, now, 9).await.unwrap();
    assert_eq!(
        known.iter().map(|g| (g.tenant, g.digest)).collect::<Vec<_>>(),
        [(tenant(1), context)]
    );
    assert!(db.store.granted_contexts(known.last(), now, 9).await.unwrap().is_empty());
    assert!(db.store.granted_contexts(None, at(1), 9).await.unwrap().is_empty());
    // One that a build was accepted with before contexts were known as such.
    let old = digest("old");
    let mut wanted = Submit::new(Submission { mode: Mode::External, ..submission() });
    wanted.contexts = vec![old];
    wanted.blobs = vec![plain];
    db.store.submit(&wanted, now).await.unwrap();
    let held = async |n, digest| db.store.holds_context(tenant(n), digest).await.unwrap();
    assert!(held(1, old).await && !held(2, old).await && !held(1, plain).await);
    assert_eq!(db.store.holders(old).await.unwrap(), [tenant(1)].into());
    assert!(db.store.holders(digest("nobody's")).await.unwrap().is_empty());
}

async fn a_right_and_a_removal_exclude_each_other(db: Database) {
    let (needed, garbage, now) = (digest("needed"), digest("garbage"), at(0));
    db.store.grant(tenant(1), &[needed], false, now).await.unwrap();
    let begun = db.store.begin_removal(&[needed, garbage], now).await.unwrap();
    assert_eq!(begun, [garbage]);
    assert!(db.store.begin_removal(&[garbage], now).await.unwrap().is_empty(), "twice");
    // Nothing of it is granted while one is being removed.
    let both = [digest("other"), garbage];
    assert!(!db.store.grant(tenant(2), &both, false, now).await.unwrap());
    assert!(db.store.granted(tenant(2), &both, now).await.unwrap().is_empty());
    db.store.end_removal(&begun, at(-5)).await.unwrap();
    assert!(!db.store.grant(tenant(2), &both, false, now).await.unwrap(), "another removal");
    db.store.end_removal(&begun, now).await.unwrap();
    assert!(db.store.grant(tenant(2), &both, false, now).await.unwrap());
    assert!(db.store.begin_removal(&both, now).await.unwrap().is_empty());
}

async fn what_is_held_is_never_removed(db: Database) {
    let (context, blob, now) = (digest("context"), digest("blob"), at(0));
    let mut wanted = Submit::new(Submission { mode: Mode::External, ..submission() });
    wanted.contexts = vec![context];
    let build = db.store.submit(&wanted, now).await.unwrap().record.submission.build;
    assert_eq!(db.store.begin_removal(&[context, blob], now).await.unwrap(), [blob]);
    db.store.end_removal(&[blob], now).await.unwrap();
    let answers = [1, 2].map(|n| stamped(n, Event::AnswersKept { blob }));
    db.store.append(build, Writer::Service, answers).await.unwrap();
    assert!(db.store.begin_removal(&[context, blob], now).await.unwrap().is_empty());
}

async fn a_removal_that_nobody_ends_is_void_in_time(db: Database) {
    let (garbage, now) = (digest("garbage"), at(0));
    db.store.begin_removal(&[garbage], now).await.unwrap();
    let soon = after(now, REMOVAL_MAX - Duration::from_secs(1));
    assert!(!db.store.grant(tenant(1), &[garbage], false, soon).await.unwrap());
    let late = after(now, REMOVAL_MAX + Duration::from_secs(1));
    assert!(db.store.grant(tenant(1), &[garbage], false, late).await.unwrap());
    // The next one to remove anything clears it away.
    assert_eq!(db.store.begin_removal(&[digest("x")], late).await.unwrap().len(), 1);
    let gone = Grant { tenant: tenant(1), digest: garbage, used_at: late };
    db.store.lapse(&[gone], after(late, USED_EVERY)).await.unwrap();
    assert_eq!(db.store.begin_removal(&[garbage], late).await.unwrap(), [garbage]);
}

async fn work_is_one_servers_at_a_time(db: Database) {
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    let take = async |n, nanos: i64| {
        db.store.take_turn("sweep", worker(n), at(nanos), minute, hour).await.unwrap()
    };
    assert!(take(1, 0).await && take(1, 1).await && !take(2, 2).await);
    // A holder that is not heard of is given up.
    assert!(take(2, 100 * SECOND).await && !take(1, 101 * SECOND).await);
    db.store.end_turn("sweep", worker(1), at(102 * SECOND), true).await.unwrap();
    assert!(!take(1, 103 * SECOND).await, "another's turn is nobody's to end");
    db.store.end_turn("sweep", worker(2), at(104 * SECOND), false).await.unwrap();
    assert!(take(1, 105 * SECOND).await);
    db.store.end_turn("sweep", worker(1), at(106 * SECOND), true).await.unwrap();
    assert!(!take(2, 107 * SECOND).await && !take(1, 108 * SECOND).await, "it is done");
    assert!(take(2, 4000 * SECOND).await);
    assert!(db.store.take_turn("other", worker(1), at(0), minute, hour).await.unwrap());
}

async fn readers_are_known_to_all(db: Database) {
    let (layer, other, now) = (digest("layer"), digest("other"), at(0));
    let is = async |n, digest| db.store.readership(tenant(n), digest).await.unwrap();
    assert_eq!(is(1, layer).await, Readership::Unknown);
    let add = async |reader, if_marked| {
        db.store.add_reader(reader, layer, if_marked).await.unwrap();
    };
    add(Reader::Tenant(tenant(1)), true).await;
    assert_eq!(is(1, layer).await, Readership::Unknown, "nobody was marked");
    add(Reader::Nobody, false).await;
    assert_eq!(is(1, layer).await, Readership::Others);
    add(Reader::Tenant(tenant(1)), true).await;
    add(Reader::Tenant(tenant(2)), false).await;
    assert_eq!(is(1, layer).await, Readership::Reader);
    assert_eq!((is(2, layer).await, is(3, layer).await), (Readership::Reader, Readership::Others));
    assert_eq!(is(1, other).await, Readership::Unknown);
    // A right is as good as a mark.
    db.store.grant(tenant(3), &[layer, other], false, now).await.unwrap();
    assert_eq!((is(3, layer).await, is(3, other).await), (Readership::Reader, Readership::Reader));
    assert_eq!((is(4, layer).await, is(4, other).await), (Readership::Others, Readership::Unknown));
    add(Reader::Everybody, false).await;
    assert_eq!(is(4, layer).await, Readership::Reader);
}

async fn images_are_held_by_their_records(db: Database) {
    let (id, record, now) = (digest("image"), digest("record"), at(0));
    let wanted = Submit::new(Submission { mode: Mode::External, ..submission() });
    let build = db.store.submit(&wanted, now).await.unwrap().record.submission.build;
    let references = vec![format!("{IMAGE_RECORD}{record}"), "app:1".to_owned()];
    let (name, kind) = ("image".to_owned(), "image".to_owned());
    let artifact = ArtifactRecord { name, kind, digest: id, bytes: None, references };
    let made = [stamped(1, Event::Artifact(artifact))];
    db.store.append(build, Writer::Service, made).await.unwrap();
    let held = async || db.store.held_blobs(None, 9).await.unwrap();
    assert_eq!(held().await, [(record, HeldAs::Image)]);
    let removed = Event::ArtifactRemoved { name: "image".into(), reason: "test".into() };
    db.store.append(build, Writer::Service, [stamped(2, removed)]).await.unwrap();
    assert!(held().await.is_empty());
}

/// What takes a database back to the schema before that of collections.
const BACK: [&str; 9] = [
    "DROP TABLE blob_store",
    "DROP INDEX grants_by_digest",
    "DROP INDEX grants_contexts",
    "ALTER TABLE grants DROP COLUMN used_at",
    "ALTER TABLE grants DROP COLUMN context",
    "DROP TABLE readers",
    "DROP TABLE removals",
    "DROP TABLE duties",
    "DELETE FROM holds WHERE context = 2",
];

async fn take_back(place: &str) {
    if place.starts_with("postgres") {
        let mut connection = PgConnection::connect(place).await.unwrap();
        let version = "DELETE FROM ashlar_schema WHERE version > 8";
        for sql in BACK.into_iter().chain([version]) {
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        }
        return;
    }
    let connection = rusqlite::Connection::open(place).unwrap();
    // What came later, in SQLite alone.
    let later = [
        "DROP TRIGGER builds_added",
        "DROP TRIGGER builds_changed",
        "DROP TRIGGER builds_removed",
        "DROP TABLE list_versions",
    ];
    for sql in later.into_iter().chain(BACK) {
        connection.execute_batch(sql).unwrap();
    }
    connection.pragma_update(None, "user_version", 8).unwrap();
}

async fn an_older_database_learns_what_is_needed(db: Database) {
    let (context, record) = (digest("context"), digest("record"));
    let mut wanted = Submit::new(Submission { mode: Mode::External, ..submission() });
    wanted.contexts = vec![context];
    let build = db.store.submit(&wanted, at(0)).await.unwrap().record.submission.build;
    let references = vec!["app:1".to_owned(), format!("{IMAGE_RECORD}{record}")];
    let (name, kind) = ("image".to_owned(), "image".to_owned());
    let image = ArtifactRecord { name, kind, digest: digest("id"), bytes: None, references };
    let (name, kind, references) = ("file".to_owned(), "file".to_owned(), Vec::new());
    let file = ArtifactRecord { name, kind, digest: digest("file"), bytes: None, references };
    let made = [stamped(1, Event::Artifact(image)), stamped(1, Event::Artifact(file))];
    db.store.append(build, Writer::Service, made).await.unwrap();
    db.store.grant(tenant(1), &[context, digest("plain")], false, at(0)).await.unwrap();
    let held = db.store.held_blobs(None, 9).await.unwrap();
    assert_eq!(held.len(), 3);
    take_back(&db.place).await;
    let store = Store::open(&db.place).await.unwrap();
    assert_eq!(store.held_blobs(None, 9).await.unwrap(), held);
    let now = ashlar_records::now();
    let lately = Timestamp::from_nanos(now.nanos() - 600 * SECOND);
    let grants = store.grants(None, 9).await.unwrap();
    assert_eq!(grants.len(), 2);
    assert!(grants.iter().all(|g| g.used_at > lately), "they lapse at once");
    assert!(store.granted_context(tenant(1), context, now).await.unwrap());
    assert!(!store.granted_context(tenant(1), digest("plain"), now).await.unwrap());
}

async fn a_blob_store_is_marked_once(db: Database) {
    let (first, second) = (digest("first"), digest("second"));
    assert_eq!(db.store.blob_store_mark().await.unwrap(), None);
    assert_eq!(db.store.set_blob_store_mark(first).await.unwrap(), first);
    assert_eq!(db.store.set_blob_store_mark(second).await.unwrap(), first);
    assert_eq!(db.store.blob_store_mark().await.unwrap(), Some(first));
    // Whoever collects objects leaves it alone.
    assert_eq!(db.store.begin_removal(&[first, second], at(0)).await.unwrap(), [second]);
    assert_eq!(db.store.held_blobs(None, 9).await.unwrap(), [(first, HeldAs::Plain)]);
}
