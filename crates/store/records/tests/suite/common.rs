//! What the tests share: databases, builds and events.

use std::pin::Pin;

use ashlar_core::journal::{
    BuildKind, Event, Level, LogLine, Mode, OnLost, Record, Stream, Submission,
};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Digest, PrincipalId, TenantId, Timestamp, WorkerId};
use ashlar_records::{Claim, Stamped, Store, Submit, Writer};
use serde_json::json;

use crate::postgres;

/// A database of its own, removed with it.
pub(crate) struct Database {
    pub(crate) store: Store,
    pub(crate) place: String,
    _dir: Option<tempfile::TempDir>,
}

pub(crate) async fn sqlite() -> Database {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("records.db").to_str().unwrap().to_owned();
    Database { store: Store::open(&place).await.unwrap(), place, _dir: Some(dir) }
}

pub(crate) async fn postgres() -> Database {
    let place = postgres::fresh_database().await;
    Database { store: Store::open(&place).await.unwrap(), place, _dir: None }
}

/// A test that wants a database.
pub(crate) type Case = (&'static str, fn(Database) -> Pin<Box<dyn Future<Output = ()> + Send>>);

/// Declares tests that run on both databases: on SQLite each by itself, on PostgreSQL all of them
/// in one, which starts the server once.
#[macro_export]
macro_rules! on_both {
    ($($name:ident;)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::common::sqlite().await).await;
            })*
        }
        pub(crate) const CASES: &[$crate::common::Case] =
            &[$((concat!(module_path!(), "::", stringify!($name)), |db| Box::pin($name(db)))),*];
    };
}

pub(crate) fn tenant(n: u8) -> TenantId {
    TenantId::from_parts(1, [n; 10])
}

pub(crate) fn worker(n: u8) -> WorkerId {
    WorkerId::from_parts(2, [n; 10])
}

pub(crate) fn at(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000 + nanos)
}

pub(crate) const SECOND: i64 = 1_000_000_000;

/// Returns when a lease that was granted now has surely ended.
pub(crate) fn after_lease(now: Timestamp, lease: std::time::Duration) -> Timestamp {
    Timestamp::from_nanos(now.nanos() + i64::try_from(lease.as_nanos()).unwrap())
}

pub(crate) fn stamped(nanos: i64, event: Event) -> Stamped {
    Stamped::new(at(nanos), event)
}

pub(crate) fn state(to: State) -> Event {
    Event::State { to }
}

pub(crate) fn log(text: &str) -> Event {
    let text = text.to_owned();
    let (stream, level) = (Stream::Stdout, Level::Info);
    Event::Log(LogLine {
        step: None,
        stream,
        level,
        text,
        raw: None,
        partial: false,
        unended: false,
    })
}

pub(crate) fn build_id() -> BuildId {
    ashlar_records::new_build_id(ashlar_records::now()).unwrap()
}

pub(crate) fn submission() -> Submission {
    let definition = json!({"dockerfile": "FROM busybox\nRUN true\n", "z": 1, "a": 2});
    Submission {
        build: build_id(),
        tenant: tenant(1),
        scope: "web".into(),
        principal: PrincipalId::from_parts(3, [3; 10]),
        dialect: "native".into(),
        kind: BuildKind::Build,
        parent: None,
        retry_of: None,
        name: "shop-front 12".into(),
        source: "dockerfile".into(),
        definition_digest: Digest::of(definition.to_string()),
        definition,
        backend: None,
        on_lost: OnLost::Requeue { attempts_max: 2 },
        mode: Mode::Managed,
        priority: 0,
        labels: [("team".to_owned(), "blue".to_owned())].into(),
    }
}

/// Submits a build and returns its row.
pub(crate) async fn submit(store: &Store, submission: Submission, nanos: i64) -> Record {
    store.submit(&Submit::new(submission), at(nanos)).await.unwrap().record
}

/// What a worker without special gifts claims.
pub(crate) fn claim(n: u8) -> Claim {
    Claim { worker: worker(n), kind: BuildKind::Build, backends: vec!["native".into()], slots: 8 }
}

/// Writes as the worker that holds a build.
pub(crate) fn holding(record: &Record) -> Writer {
    Writer::Worker { fence: record.fence, batch: None }
}

/// Checks that a build's row is the fold of its journal.
pub(crate) async fn check_fold(store: &Store, build: BuildId) -> Record {
    let (row, fold) = store.rebuild(build).await.unwrap();
    assert_eq!(row, fold);
    row
}
