//! Databases of older programs: what the new schema wants to know of them is filled in.

use std::fmt::Write as _;

use ashlar_core::journal::{ArtifactRecord, BuildKind, Entry, Event, Mode, Record, Submission};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Digest};
use ashlar_records::{Bound, Bounds, Exempt, Retention, Store, What, Why};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::common::{SECOND, at, check_fold, state, submission, tenant};
use crate::postgres;

/// The schema before anything was known of what builds still have and need.
const OLD: [[&str; 5]; 2] = [
    [
        include_str!("../../migrations/sqlite/0001_builds.sql"),
        include_str!("../../migrations/sqlite/0002_queue.sql"),
        include_str!("../../migrations/sqlite/0003_dialects.sql"),
        include_str!("../../migrations/sqlite/0004_tenants.sql"),
        include_str!("../../migrations/sqlite/0005_segments.sql"),
    ],
    [
        include_str!("../../migrations/postgres/0001_builds.sql"),
        include_str!("../../migrations/postgres/0002_queue.sql"),
        include_str!("../../migrations/postgres/0003_dialects.sql"),
        include_str!("../../migrations/postgres/0004_tenants.sql"),
        include_str!("../../migrations/postgres/0005_segments.sql"),
    ],
];

enum Raw {
    Sqlite(rusqlite::Connection),
    Postgres(PgConnection),
}

impl Raw {
    async fn run(&mut self, sql: String) {
        match self {
            Self::Sqlite(c) => c.execute_batch(&sql).unwrap(),
            Self::Postgres(c) => drop(sqlx::raw_sql(AssertSqlSafe(sql)).execute(c).await.unwrap()),
        }
    }

    /// Makes the old schema.
    async fn make(&mut self) {
        let postgres = matches!(self, Self::Postgres(_));
        for sql in OLD[usize::from(postgres)] {
            self.run(sql.to_owned()).await;
        }
        let version = if postgres {
            "CREATE TABLE ashlar_schema (version BIGINT NOT NULL); \
             INSERT INTO ashlar_schema VALUES (5)"
        } else {
            "PRAGMA user_version = 5"
        };
        self.run(version.to_owned()).await;
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let mut hex = String::new();
        bytes.iter().for_each(|b| write!(hex, "{b:02x}").unwrap());
        match self {
            Self::Sqlite(_) => format!("X'{hex}'"),
            Self::Postgres(_) => format!("'\\x{hex}'::bytea"),
        }
    }

    fn text(value: &impl serde::Serialize) -> String {
        format!("'{}'", serde_json::to_string(value).unwrap().replace('\'', "''"))
    }

    /// Writes a build with its journal as an old program left it; returns its journal's bytes.
    async fn build(&mut self, position: i64, definition: &Value, events: &[Event]) -> u64 {
        let entry = |(number, event): (usize, &Event)| {
            let time = at(position * 100 * SECOND + number as i64);
            Entry { number: number as u64, time, event: event.clone() }
        };
        let entries: Vec<Entry> = events.iter().enumerate().map(entry).collect();
        let record = Record::rebuild(&entries).unwrap();
        let (id, tenant) = (record.submission.build.uuid(), record.submission.tenant.uuid());
        let finished = record.finished_at.map_or("NULL".to_owned(), |t| t.nanos().to_string());
        let (created, updated) = (record.created_at.nanos(), record.updated_at.nanos());
        let row = format!(
            "INSERT INTO builds (position, id, tenant, scope, state, created_at, updated_at, \
             finished_at, fence, batch, record) \
             VALUES ({position}, {}, {}, 1, '{}', {created}, {updated}, {finished}, 0, 0, {})",
            self.blob(id.as_bytes()),
            self.blob(tenant.as_bytes()),
            record.state,
            Self::text(&record),
        );
        self.run(row).await;
        let body = Self::text(definition);
        self.run(format!("INSERT INTO definitions (build, body) VALUES ({position}, {body})"))
            .await;
        let mut bytes = 0;
        for entry in &entries {
            let mut body = vec![0];
            serde_json::to_writer(&mut body, &entry.event).unwrap();
            bytes += body.len() as u64;
            let (number, time, body) = (entry.number, entry.time.nanos(), self.blob(&body));
            let row = format!(
                "INSERT INTO entries (build, number, count, scope, time, last_time, body) \
                 VALUES ({position}, {number}, 1, 1, {time}, {time}, {body})"
            );
            self.run(row).await;
        }
        bytes
    }
}

fn submitted(change: impl FnOnce(&mut Submission)) -> (BuildId, Event) {
    let mut submission = Submission { mode: Mode::External, ..submission() };
    change(&mut submission);
    submission.definition = Value::Null;
    (submission.build, Event::Submitted(Box::new(submission)))
}

async fn an_old_database_knows_what_is_needed(mut raw: Raw, place: &str) {
    raw.make().await;
    let tenant_id = raw.blob(tenant(1).uuid().as_bytes());
    let scope = "INSERT INTO scopes (id, tenant, name, last_time) VALUES (1,";
    raw.run(format!("{scope} {tenant_id}, 'web', {})", at(900 * SECOND).nanos())).await;
    let blob = |name: &str| Digest::of(name);
    let note = json!({ "answers": blob("answers").to_string() });
    let artifact = |name: &str, kind: &str| {
        let (name, kind, digest) = (name.to_owned(), kind.to_owned(), blob(name));
        Event::Artifact(ArtifactRecord { name, kind, digest, bytes: Some(7), references: vec![] })
    };
    // A success with all that one can have, a newer one of its name, a run and a build of it that
    // stands on the first one and has not ended.
    let (base, first) = submitted(|_| {});
    let events = [
        first,
        state(State::Preparing),
        Event::Note { dialect: "service".into(), value: note },
        Event::Note { dialect: "other".into(), value: json!({ "answers": 1 }) },
        artifact("file", "file"),
        artifact("image", "image"),
        state(State::Succeeded),
    ];
    let context = json!({ "contexts": { "context": blob("context") }, "recipe": { "kind": "x" } });
    let bytes = raw.build(1, &context, &events).await;
    let segment = raw.blob(blob("segment").as_bytes());
    let columns = "build, number, last, time, last_time, digest, bytes";
    raw.run(format!("INSERT INTO segments ({columns}) VALUES (1, 2, 3, 0, 0, {segment}, 1000)"))
        .await;
    let (newer, second) = submitted(|_| {});
    let events = [second, state(State::Preparing), state(State::Succeeded)];
    raw.build(2, &json!({}), &events).await;
    let (run, third) = submitted(|s| s.kind = BuildKind::Workflow);
    let node = json!({ "definition": { "contexts": { "main": blob("of a node") } } });
    raw.build(3, &json!({ "recipe": { "kind": "workflow", "nodes": [node] } }), &[third]).await;
    let (child, fourth) = submitted(|s| s.parent = Some(run));
    let on_base = json!({
        "recipe": { "kind": "on_build", "base": base, "steps": {} },
        "answers": blob("answers of the child"),
    });
    raw.build(4, &on_base, &[fourth]).await;
    let document = Raw::text(&json!({ "deep": [{ "blob": blob("of a document") }] }));
    let id = raw.blob(&[7; 16]);
    raw.run(format!(
        "INSERT INTO documents (position, dialect, tenant, kind, id, version, created_at, \
         updated_at, body) VALUES (9, 'd', {tenant_id}, 'k', {id}, 1, 0, 0, {document})"
    ))
    .await;

    let store = Store::open(place).await.unwrap();
    let plain = ["answers", "file", "segment", "answers of the child", "of a document"];
    let contexts = ["context", "of a node"];
    let mut want: Vec<Digest> = plain.iter().chain(&contexts).map(|name| blob(name)).collect();
    want.sort_unstable_by_key(|digest| *digest.as_bytes());
    let held = store.held_blobs(None, 99).await.unwrap();
    assert_eq!(held.iter().map(|(digest, _)| *digest).collect::<Vec<_>>(), want);
    let kind = |name: &str| held.iter().find(|(digest, _)| *digest == blob(name)).unwrap().1;
    assert!(plain.iter().all(|name| kind(name) == kind("file")));
    assert!(contexts.iter().all(|name| kind(name) != kind("file")));

    let bounds: Retention = "logs.bytes=0,artifacts.bytes=0".parse().unwrap();
    let standing = async |build| store.standing(build, &bounds).await.unwrap().unwrap();
    let first = standing(base).await;
    assert_eq!(first.exempt, Some(Exempt::Needed));
    assert_eq!(first.things.map(|place| place.bytes), [bytes + 1000, bytes + 1000, 14]);
    assert_eq!(standing(newer).await.exempt, Some(Exempt::LastGood));
    assert_eq!(store.standing(child, &bounds).await.unwrap(), None);
    // The group's totals are those of its builds.
    let groups = store.retention_groups(None, 9).await.unwrap();
    let most = Bounds { bytes: Some(Bound::Most(bytes + 999)), ..Bounds::default() };
    let due = store.overdue(&groups[0], What::Log, &most, at(0)).await.unwrap();
    assert_eq!(due, [(base, Why::Bytes)]);
    assert_eq!(groups.len(), 1);
    check_fold(&store, base).await;
    // A second start finds nothing to do.
    store.close().await;
    let store = Store::open(place).await.unwrap();
    assert_eq!(store.held_blobs(None, 99).await.unwrap(), held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_sqlite_file_knows_what_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("records.db").to_str().unwrap().to_owned();
    let raw = rusqlite::Connection::open(&place).unwrap();
    an_old_database_knows_what_is_needed(Raw::Sqlite(raw), &place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_postgres_database_knows_what_is_needed() {
    let place = postgres::fresh_database().await;
    let raw = PgConnection::connect(&place).await.unwrap();
    an_old_database_knows_what_is_needed(Raw::Postgres(raw), &place).await;
}
