//! A build goes to the worker whose cache is warm, when that one can take it.

use std::time::Duration;

use ashlar_core::journal::{BuildKind, Record, Submission};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Timestamp};
use ashlar_records::{AFFINITY_WAIT, Claim, Policy, Store};

use crate::common::{
    Database, SECOND, at, check_fold, holding, stamped, state, submission, submit, tenant, worker,
};

crate::on_both! {
    warm_scopes_go_to_their_worker;
    nobody_waits_for_a_busy_or_lost_worker;
    warm_builds_go_first_only_while_all_are_fresh;
    priorities_are_stronger_than_caches;
    runs_and_builds_of_a_scope_are_bounded_apart;
}

fn of(scope: &str, priority: i32) -> Submission {
    Submission { scope: scope.into(), priority, ..submission() }
}

async fn put(store: &Store, scope: &str, nanos: i64) -> BuildId {
    submit(store, of(scope, 0), nanos).await.submission.build
}

async fn take(store: &Store, n: u8, slots: u32, time: Timestamp) -> Option<Record> {
    let backends = vec!["native".into()];
    let claim = Claim { worker: worker(n), kind: BuildKind::Build, backends, slots };
    store.claim(&claim, time).await.unwrap()
}

async fn id(store: &Store, n: u8, time: Timestamp) -> Option<BuildId> {
    take(store, n, 2, time).await.map(|r| r.submission.build)
}

async fn end(store: &Store, record: &Record, nanos: i64) {
    let end = [stamped(nanos, state(State::Failed))];
    store.append(record.submission.build, holding(record), end).await.unwrap();
}

/// Lets a worker build a scope once, so that its cache is warm.
async fn warm(store: &Store, n: u8, scope: &str, nanos: i64) {
    put(store, scope, nanos).await;
    let record = take(store, n, 2, at(nanos)).await.unwrap();
    assert_eq!(record.submission.scope, scope);
    end(store, &record, nanos).await;
}

fn later(nanos: i64, by: Duration) -> Timestamp {
    at(nanos + i64::try_from(by.as_nanos()).unwrap())
}

async fn warm_scopes_go_to_their_worker(db: Database) {
    warm(&db.store, 1, "web", 0).await;
    warm(&db.store, 2, "api", 1).await;
    let web = put(&db.store, "web", SECOND).await;
    let api = put(&db.store, "api", SECOND).await;
    // Each leaves the other's to it.
    assert_eq!(id(&db.store, 2, at(SECOND + 1)).await, Some(api));
    assert_eq!(id(&db.store, 2, at(SECOND + 2)).await, None);
    assert_eq!(id(&db.store, 1, at(SECOND + 3)).await, Some(web));
    // A scope that nobody has built yet waits for nobody.
    let new = put(&db.store, "new", 2 * SECOND).await;
    assert_eq!(id(&db.store, 2, at(2 * SECOND)).await, Some(new));
    check_fold(&db.store, new).await;
}

async fn nobody_waits_for_a_busy_or_lost_worker(db: Database) {
    warm(&db.store, 1, "web", 0).await;
    assert_eq!(id(&db.store, 2, at(1)).await, None);
    // Only for a while, though it is alive.
    let first = put(&db.store, "web", SECOND).await;
    let just_before = later(SECOND, AFFINITY_WAIT - Duration::from_nanos(1));
    assert_eq!(id(&db.store, 2, just_before).await, None);
    let taken = take(&db.store, 2, 2, later(SECOND, AFFINITY_WAIT)).await.unwrap();
    assert_eq!(taken.submission.build, first);
    // Now the scope is warm at the second one, which has no free slot left.
    let busy = put(&db.store, "other", 2 * SECOND).await;
    assert_eq!(take(&db.store, 2, 2, at(2 * SECOND)).await.unwrap().submission.build, busy);
    let second = put(&db.store, "web", 2 * SECOND).await;
    assert_eq!(id(&db.store, 1, at(2 * SECOND + 1)).await, Some(second));
    end(&db.store, &taken, 2 * SECOND).await;
    // The first one is not heard of any more.
    let late = 3600 * SECOND;
    let third = put(&db.store, "web", late).await;
    assert_eq!(id(&db.store, 3, at(late)).await, Some(third));
    // Nor does a clock that is ahead hold a build back.
    warm(&db.store, 1, "docs", late + SECOND).await;
    let ahead = put(&db.store, "docs", late + 100 * SECOND).await;
    assert_eq!(id(&db.store, 3, at(late + 2 * SECOND)).await, Some(ahead));
}

async fn warm_builds_go_first_only_while_all_are_fresh(db: Database) {
    warm(&db.store, 1, "web", 0).await;
    warm(&db.store, 2, "api", 1).await;
    let cold = put(&db.store, "cold", SECOND).await;
    let first = put(&db.store, "web", SECOND + 1).await;
    assert_eq!(id(&db.store, 1, at(SECOND + 2)).await, Some(first));
    // Once it has waited that long, the older one goes before what is warm.
    let second = put(&db.store, "web", later(SECOND, AFFINITY_WAIT).nanos() - at(0).nanos()).await;
    assert_eq!(id(&db.store, 1, later(SECOND, AFFINITY_WAIT)).await, Some(cold));
    assert_eq!(id(&db.store, 2, later(2 * SECOND, AFFINITY_WAIT)).await, Some(second));
}

async fn priorities_are_stronger_than_caches(db: Database) {
    warm(&db.store, 1, "web", 0).await;
    warm(&db.store, 2, "api", 1).await;
    let web = put(&db.store, "web", SECOND).await;
    let urgent = submit(&db.store, of("cold", 5), SECOND + 1).await.submission.build;
    assert_eq!(id(&db.store, 1, at(SECOND + 2)).await, Some(urgent));
    assert_eq!(id(&db.store, 1, at(SECOND + 3)).await, Some(web));
    // Tenants take their turns whatever is warm.
    let own = put(&db.store, "web", 2 * SECOND).await;
    let stranger = Submission { tenant: tenant(2), ..of("strange", 0) };
    let stranger = submit(&db.store, stranger, 2 * SECOND).await.submission.build;
    assert_eq!(id(&db.store, 1, at(2 * SECOND + 1)).await, Some(stranger));
    assert_eq!(id(&db.store, 1, at(2 * SECOND + 2)).await, Some(own));
}

async fn runs_and_builds_of_a_scope_are_bounded_apart(db: Database) {
    db.store.set_scope_policy(tenant(1), "web", Policy::Queue, None).await.unwrap();
    let run = |n| submit(&db.store, Submission { kind: BuildKind::Workflow, ..of("web", 0) }, n);
    let first = run(0).await.submission.build;
    run(1).await;
    let build = put(&db.store, "web", 2).await;
    let claim = |kind| Claim { worker: worker(1), kind, backends: vec!["native".into()], slots: 8 };
    let runs = claim(BuildKind::Workflow);
    let got = db.store.claim(&runs, at(3)).await.unwrap().map(|r| r.submission.build);
    assert_eq!(got, Some(first));
    assert_eq!(db.store.claim(&runs, at(4)).await.unwrap(), None);
    assert_eq!(id(&db.store, 1, at(5)).await, Some(build));
    db.store.set_scope_policy(tenant(1), "web", Policy::ReplaceRunning, None).await.unwrap();
    let asked = db.store.submit(&ashlar_records::Submit::new(of("web", 0)), at(6)).await.unwrap();
    assert_eq!(asked.replaced, [build]);
}
