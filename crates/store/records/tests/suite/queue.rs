//! The queue: order, fairness, bounds, policies, leases and races.

use std::collections::BTreeSet;
use std::time::Duration;

use ashlar_core::failure::FailureKind;
use ashlar_core::graph::StepId;
use ashlar_core::journal::{BuildKind, Event, OnLost, Record, Submission};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Digest, Timestamp};
use ashlar_records::{Claim, Error, Held, Idempotency, LEASE, Policy, Store, Submit, Writer};

use crate::common::{
    Database, SECOND, at, build_id, check_fold, claim, holding, stamped, state, submission, submit,
    tenant, worker,
};

crate::on_both! {
    first_in_first_out_and_larger_priority_first;
    tenants_take_turns;
    scopes_are_bounded;
    workers_take_what_they_can;
    many_builds_are_claimed_at_once_in_the_same_order;
    policies_make_way;
    lost_workers_are_replaced;
    effects_are_never_repeated;
    late_phases_fail;
    wishes_to_cancel_arrive;
    racing_claims_never_share_a_build;
    racing_replacements_all_succeed;
    submissions_may_be_repeated;
    a_key_whose_build_is_gone_makes_one_new_build;
}

fn of(n: u8, scope: &str) -> Submission {
    Submission { tenant: tenant(n), scope: scope.into(), ..submission() }
}

async fn next(store: &Store, nanos: i64) -> Option<BuildId> {
    let record = store.claim(&claim(1), at(nanos)).await.unwrap();
    record.map(|r| r.submission.build)
}

async fn end(store: &Store, record: &Record, to: State) {
    let end = [stamped(0, state(to))];
    store.append(record.submission.build, holding(record), end).await.unwrap();
}

async fn first_in_first_out_and_larger_priority_first(db: Database) {
    let mut ids = Vec::new();
    for (n, priority) in [0, 5, 0, 5, -1].into_iter().enumerate() {
        let wanted = Submission { priority, ..submission() };
        ids.push(submit(&db.store, wanted, n as i64).await.submission.build);
    }
    assert_eq!(db.store.waiting().await.unwrap(), 5);
    for want in [1, 3, 0, 2, 4] {
        assert_eq!(next(&db.store, 10).await, Some(ids[want]));
    }
    assert_eq!(next(&db.store, 10).await, None);
    let record = check_fold(&db.store, ids[0]).await;
    assert_eq!((record.state, record.attempt, record.fence), (State::Preparing, 1, 1));
}

async fn tenants_take_turns(db: Database) {
    for n in 0..6 {
        submit(&db.store, of(1, "a"), n).await;
    }
    submit(&db.store, of(2, "b"), 7).await;
    submit(&db.store, of(2, "b"), 8).await;
    submit(&db.store, of(3, "c"), 9).await;
    // With many slots those with the fewest at work go first.
    let mut got = Vec::new();
    for n in 0..6 {
        let record = db.store.claim(&claim(1), at(10 + n)).await.unwrap().unwrap();
        got.push(record.submission.tenant);
    }
    assert_eq!(got, [1, 2, 3, 1, 2, 1].map(tenant));
    // With one slot the tenant whose last turn is longest ago does.
    for n in 0..3 {
        submit(&db.store, of(4, "d"), 20 + n).await;
        submit(&db.store, of(5, "e"), 20 + n).await;
    }
    let mut got = Vec::new();
    for n in 0..6 {
        let record = db.store.claim(&claim(1), at(30 + n)).await.unwrap().unwrap();
        got.push(record.submission.tenant);
        end(&db.store, &record, State::Succeeded).await;
    }
    assert_eq!(got, [4, 5, 4, 5, 4, 5].map(tenant));
}

async fn scopes_are_bounded(db: Database) {
    db.store.set_scope_policy(tenant(1), "web", Policy::Allow, Some(2)).await.unwrap();
    for n in 0..4 {
        submit(&db.store, of(1, "web"), n).await;
    }
    let free = submit(&db.store, of(1, "api"), 5).await.submission.build;
    let first = db.store.claim(&claim(1), at(10)).await.unwrap().unwrap();
    assert!(next(&db.store, 11).await.is_some());
    assert_eq!(next(&db.store, 12).await, Some(free));
    assert_eq!(next(&db.store, 13).await, None);
    end(&db.store, &first, State::Failed).await;
    assert!(next(&db.store, 14).await.is_some());
    assert_eq!(next(&db.store, 15).await, None);
}

async fn workers_take_what_they_can(db: Database) {
    let buildkit = Submission { backend: Some("buildkit".into()), ..submission() };
    let run = Submission { kind: BuildKind::Workflow, ..submission() };
    let buildkit = submit(&db.store, buildkit, 0).await.submission.build;
    let run = submit(&db.store, run, 1).await.submission.build;
    assert_eq!(next(&db.store, 2).await, None);
    let take = |kind, backends: &[&str]| {
        let backends = backends.iter().map(|b| (*b).to_owned()).collect();
        let (store, claim) =
            (db.store.clone(), Claim { worker: worker(1), kind, backends, slots: 8 });
        async move { store.claim(&claim, at(3)).await.unwrap().unwrap().submission.build }
    };
    assert_eq!(take(BuildKind::Workflow, &[]).await, run);
    assert_eq!(take(BuildKind::Build, &["native", "buildkit"]).await, buildkit);
}

async fn many_builds_are_claimed_at_once_in_the_same_order(db: Database) {
    db.store.set_scope_policy(tenant(2), "b", Policy::Allow, Some(1)).await.unwrap();
    let mut ids = Vec::new();
    for (n, (by, scope)) in
        [(1, "a"), (1, "a"), (2, "b"), (2, "b"), (1, "a")].into_iter().enumerate()
    {
        ids.push(submit(&db.store, of(by, scope), n as i64).await.submission.build);
    }
    let take = async |most, nanos| {
        let taken = db.store.claim_up_to(&claim(1), most, || at(nanos)).await.unwrap();
        taken.into_iter().map(|record| record.submission.build).collect::<Vec<_>>()
    };
    // Tenants take turns, and a scope's bound holds, within one claim too.
    assert_eq!(take(3, 10).await, [ids[0], ids[2], ids[1]]);
    let record = check_fold(&db.store, ids[2]).await;
    assert_eq!((record.state, record.fence), (State::Preparing, 1));
    assert_eq!(take(0, 11).await, []);
    assert_eq!(take(8, 12).await, [ids[4]]);
    assert_eq!(take(8, 13).await, []);
    end(&db.store, &record, State::Succeeded).await;
    // Another worker is alive now: each takes one at a time.
    for n in 0..3 {
        submit(&db.store, of(3, "c"), 20 + n).await;
    }
    db.store.claim(&claim(2), at(30)).await.unwrap().unwrap();
    assert_eq!(take(8, 31).await.len(), 1);
}

async fn policies_make_way(db: Database) {
    let set = |policy| {
        let store = db.store.clone();
        async move { store.set_scope_policy(tenant(1), "web", policy, None).await.unwrap() }
    };
    set(Policy::Queue).await;
    let running = submit(&db.store, submission(), 0).await.submission.build;
    let waiting = submit(&db.store, submission(), 1).await.submission.build;
    assert_eq!(next(&db.store, 2).await, Some(running));
    assert_eq!(next(&db.store, 2).await, None);

    set(Policy::Forbid).await;
    let error = db.store.submit(&Submit::new(submission()), at(3)).await.unwrap_err();
    assert!(matches!(error, Error::ScopeBusy(_)), "{error}");

    set(Policy::ReplacePending).await;
    let third = db.store.submit(&Submit::new(submission()), at(4)).await.unwrap();
    assert_eq!(third.replaced, [waiting]);
    assert_eq!(check_fold(&db.store, waiting).await.state, State::Cancelled);
    assert_eq!(check_fold(&db.store, running).await.cancellation, None);

    set(Policy::ReplaceRunning).await;
    let last = db.store.submit(&Submit::new(submission()), at(5)).await.unwrap();
    assert_eq!(last.replaced, [third.record.submission.build, running]);
    let stopped = check_fold(&db.store, running).await;
    assert_eq!((stopped.state, stopped.cancellation.is_some()), (State::Preparing, true));
    assert_eq!(next(&db.store, 6).await, None);
    end(&db.store, &stopped, State::Cancelled).await;
    assert_eq!(next(&db.store, 7).await, Some(last.record.submission.build));
}

fn later(leases: u32) -> Timestamp {
    let passed = LEASE * leases + Duration::from_secs(1);
    at(i64::try_from(passed.as_nanos()).unwrap())
}

async fn lost_workers_are_replaced(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    let first = db.store.claim(&claim(1), at(0)).await.unwrap().unwrap();
    assert!(db.store.expire(at(5 * SECOND)).await.unwrap().is_empty());
    let held = db.store.heartbeat(build, first.fence, || at(20 * SECOND)).await.unwrap();
    assert_eq!(held, Held::Yes { cancellation: None });
    assert!(db.store.expire(later(1)).await.unwrap().is_empty());
    assert_eq!(db.store.expire(later(2)).await.unwrap(), [build]);
    assert_eq!(check_fold(&db.store, build).await.state, State::Queued);
    assert_eq!(db.store.heartbeat(build, first.fence, || later(2)).await.unwrap(), Held::No);

    let second = db.store.claim(&claim(2), later(2)).await.unwrap().unwrap();
    assert_eq!((second.attempt, second.fence), (2, 2));
    let error = db.store.append(build, holding(&first), [stamped(0, state(State::Running))]).await;
    assert!(matches!(error, Err(Error::Refused(_))));
    // No attempts are left.
    assert_eq!(db.store.expire(later(4)).await.unwrap(), [build]);
    let record = check_fold(&db.store, build).await;
    assert_eq!(record.failure.unwrap().kind, FailureKind::Interrupted);
    assert_eq!(next(&db.store, 0).await, None);
}

async fn effects_are_never_repeated(db: Database) {
    let forever = OnLost::Requeue { attempts_max: 99 };
    let build = submit(&db.store, Submission { on_lost: forever, ..submission() }, 0).await;
    let build = build.submission.build;
    let record = db.store.claim(&claim(1), at(0)).await.unwrap().unwrap();
    let effect = [stamped(1, Event::EffectBegan { step: StepId(1) })];
    db.store.append(build, holding(&record), effect).await.unwrap();
    assert_eq!(db.store.expire(later(1)).await.unwrap(), [build]);
    assert_eq!(check_fold(&db.store, build).await.state, State::Failed);
}

async fn late_phases_fail(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    let record = db.store.claim(&claim(1), at(0)).await.unwrap().unwrap();
    db.store.set_deadline(build, record.fence + 1, Some(at(0))).await.unwrap();
    db.store.set_deadline(build, record.fence, Some(at(SECOND))).await.unwrap();
    assert!(db.store.expire(at(SECOND)).await.unwrap().is_empty());
    assert_eq!(db.store.expire(at(SECOND + 1)).await.unwrap(), [build]);
    let failure = check_fold(&db.store, build).await.failure.unwrap();
    assert_eq!((failure.kind, failure.limit.as_deref()), (FailureKind::Limit, Some("time")));
}

async fn wishes_to_cancel_arrive(db: Database) {
    let build = submit(&db.store, submission(), 0).await.submission.build;
    let record = db.store.claim(&claim(1), at(0)).await.unwrap().unwrap();
    let wish = Event::CancelRequested { by: "ann".into(), reason: None };
    db.store.append(build, Writer::Service, [stamped(1, wish)]).await.unwrap();
    let held = db.store.heartbeat(build, record.fence, || at(2)).await.unwrap();
    assert!(matches!(held, Held::Yes { cancellation: Some(c) } if c.by == "ann"));
    // A worker that is lost while it should stop does not run the build again.
    assert_eq!(db.store.expire(later(1)).await.unwrap(), [build]);
    assert_eq!(check_fold(&db.store, build).await.state, State::Cancelled);
}

async fn racing_claims_never_share_a_build(db: Database) {
    const BUILDS: usize = 60;
    db.store.set_scope_policy(tenant(1), "web", Policy::Allow, Some(3)).await.unwrap();
    for n in 0..BUILDS {
        let scope = if n % 3 == 0 { "web" } else { "api" };
        submit(&db.store, of((n % 2) as u8, scope), n as i64).await;
    }
    let mut tasks = Vec::new();
    for server in 0..2 {
        // Two servers: each has connections of its own.
        let store = Store::open(&db.place).await.unwrap();
        for n in 0..4 {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                let mut mine = Vec::new();
                while let Some(record) = store.claim(&claim(server * 4 + n), at(100)).await.unwrap()
                {
                    mine.push(record.submission.build);
                    let running = [stamped(0, state(State::Running))];
                    let build = record.submission.build;
                    store.append(build, holding(&record), running).await.unwrap();
                    if n == 0 {
                        end(&store, &record, State::Succeeded).await;
                    }
                }
                mine
            }));
        }
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    // Builds that are not ended fill the bounded scope: what is left of it waits on.
    let left = db.store.waiting().await.unwrap() as usize;
    assert_eq!(all.len() + left, BUILDS);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "a build was claimed twice");
    for build in all {
        assert_eq!(check_fold(&db.store, build).await.attempt, 1);
    }
}

/// Transactions that change several builds share counts with each other; none may fail for it.
async fn racing_replacements_all_succeed(db: Database) {
    let tasks: Vec<_> = (0..4)
        .map(|n| {
            let (store, scope) = (db.store.clone(), format!("s{n}"));
            tokio::spawn(async move {
                let policy = Policy::ReplacePending;
                store.set_scope_policy(tenant(1), &scope, policy, None).await.unwrap();
                for i in 0..15 {
                    let submit = Submit::new(of(1, &scope));
                    let replaced = store.submit(&submit, at(i)).await.unwrap().replaced;
                    assert_eq!(replaced.len(), usize::from(i > 0));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(db.store.waiting().await.unwrap(), 4);
    crate::list::check_facets(&db).await;
}

async fn submissions_may_be_repeated(db: Database) {
    let with_key = |request: &str| Submit {
        idempotency: Some(Idempotency { key: "k1".into(), request: Digest::of(request) }),
        ..Submit::new(submission())
    };
    let first = db.store.submit(&with_key("a"), at(0)).await.unwrap();
    let again = db.store.submit(&with_key("a"), at(1)).await.unwrap();
    assert_eq!((first.repeated, again.repeated), (false, true));
    assert_eq!(again.record.submission.build, first.record.submission.build);
    let error = db.store.submit(&with_key("b"), at(2)).await.unwrap_err();
    assert!(matches!(error, Error::KeyReused(_)), "{error}");
    let mut stranger = with_key("b");
    stranger.submission.tenant = tenant(2);
    assert!(!db.store.submit(&stranger, at(3)).await.unwrap().repeated);
    // A submission that fails does not use up its key.
    let mut taken = with_key("c");
    taken.idempotency.as_mut().unwrap().key = "k2".into();
    taken.submission.build = first.record.submission.build;
    assert!(db.store.submit(&taken, at(4)).await.is_err());
    taken.submission.build = build_id();
    assert!(!db.store.submit(&taken, at(5)).await.unwrap().repeated);
    assert_eq!(db.store.forget_keys(at(1)).await.unwrap(), 1);
    assert!(!db.store.submit(&with_key("z"), at(6)).await.unwrap().repeated);
}

async fn a_key_whose_build_is_gone_makes_one_new_build(db: Database) {
    let ask = |request: &str| Submit {
        idempotency: Some(Idempotency { key: "k1".into(), request: Digest::of(request) }),
        ..Submit::new(submission())
    };
    let first = db.store.submit(&ask("a"), at(0)).await.unwrap().record.submission.build;
    let writer = Writer::Service;
    db.store.append(first, writer, [stamped(1, state(State::Cancelled))]).await.unwrap();
    assert_eq!(db.store.forget(&[first]).await.unwrap(), [first]);
    let error = db.store.submit(&ask("b"), at(2)).await.unwrap_err();
    assert!(matches!(error, Error::KeyReused(_)), "{error}");
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let (store, ask) = (db.store.clone(), ask("a"));
            tokio::spawn(async move { store.submit(&ask, at(10 + n)).await.unwrap() })
        })
        .collect();
    let mut submitted = Vec::new();
    for task in tasks {
        submitted.push(task.await.unwrap());
    }
    assert_eq!(submitted.iter().filter(|s| !s.repeated).count(), 1);
    let second = submitted[0].record.submission.build;
    assert!(submitted.iter().all(|s| s.record.submission.build == second && second != first));
    let rows = db.store.rows(&[first, second]).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.submission.build).collect::<Vec<_>>(), [second]);
    // It is remembered from then on, not from the first time on.
    assert_eq!(db.store.forget_keys(at(10)).await.unwrap(), 0);
    assert_eq!(db.store.forget_keys(at(20)).await.unwrap(), 1);
}
