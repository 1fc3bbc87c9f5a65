//! One suite for both databases, and what concerns one of them only.
//!
//! Needs Debian's package `postgresql-15` (any version from 15 on): a private server is started.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod affinity;
mod collection;
mod common;
mod connections;
mod crash;
mod cut;
mod dialects;
mod fencing;
mod finish;
mod journal;
mod list;
mod local;
mod logs;
mod plans;
mod postgres;
mod queue;
mod retention;
mod scale;
mod secrets;
mod tenants;
mod upgrade;

/// All tests that run on both databases.
pub(crate) fn suites() -> [&'static [common::Case]; 11] {
    [
        affinity::CASES,
        collection::CASES,
        dialects::CASES,
        finish::CASES,
        journal::CASES,
        list::CASES,
        logs::CASES,
        queue::CASES,
        retention::CASES,
        secrets::CASES,
        tenants::CASES,
    ]
}

/// Runs the suite on PostgreSQL, each case in a database of its own, and looks at the plans.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_on_postgres() {
    plans::collect();
    let mut failed = Vec::new();
    for (name, case) in suites().iter().flat_map(|s| s.iter()) {
        let database = common::postgres().await;
        if tokio::spawn(case(database)).await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "on PostgreSQL these fail: {failed:?}");
    plans::check_postgres().await;
}
