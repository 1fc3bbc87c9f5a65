use ashlar_core::journal::{BuildKind, Mode, OnLost, Submission};
use ashlar_core::{BuildId, Digest, PrincipalId, TenantId, WorkerId};

use super::*;

fn submitted() -> Event {
    Event::Submitted(Box::new(Submission {
        build: BuildId::from_parts(1, [0; 10]),
        tenant: TenantId::from_parts(1, [0; 10]),
        scope: "s".into(),
        principal: PrincipalId::from_parts(1, [0; 10]),
        dialect: DIALECT.into(),
        kind: BuildKind::Build,
        parent: None,
        retry_of: None,
        name: "n".into(),
        source: "dockerfile".into(),
        definition: Value::Null,
        definition_digest: Digest::of("x"),
        backend: None,
        on_lost: OnLost::Requeue { attempts_max: 3 },
        mode: Mode::Managed,
        priority: 0,
        labels: Default::default(),
    }))
}

fn claimed(attempt: u32) -> Event {
    let worker = WorkerId::from_parts(1, [0; 10]);
    Event::Claimed { attempt, fence: u64::from(attempt), worker }
}

fn to(state: State) -> Event {
    Event::State { to: state }
}

fn failed(kind: FailureKind, message: &str, exit_code: Option<i32>) -> Event {
    Event::Failed(Box::new(Failure { exit_code, ..Failure::new(kind, message) }))
}

fn cancel(reason: Option<&str>) -> Event {
    Event::CancelRequested { by: "x".into(), reason: reason.map(str::to_owned) }
}

fn note(status: Status) -> Event {
    let posted = Posted { status, message: None, traceback: None, details: None };
    Event::Note { dialect: DIALECT.into(), value: serde_json::to_value(posted).unwrap() }
}

fn project(mut projection: Projection, events: Vec<Event>) -> Projection {
    for (number, event) in events.into_iter().enumerate() {
        let time = Timestamp::from_nanos(1_000_000_000 * (number as i64 + 1));
        projection.feed(&Entry { number: number as u64, time, event });
    }
    projection
}

fn managed(events: Vec<Event>) -> Projection {
    let mut all = vec![submitted()];
    all.extend(events);
    project(Projection::new(false, false), all)
}

fn words(projection: &Projection) -> Vec<&'static str> {
    projection.rows().iter().map(|r| r.status.as_str()).collect()
}

fn last_message(projection: &Projection) -> &str {
    projection.rows().last().unwrap().message.as_deref().unwrap()
}

#[test]
fn the_usual_build_has_the_usual_rows() {
    let projection =
        managed(vec![claimed(1), to(State::Running), to(State::Exporting), to(State::Succeeded)]);
    assert_eq!(words(&projection), ["created", "scheduled", "building", "running", "succeeded"]);
    assert_eq!(last_message(&projection), "Completed");
    let times: Vec<i64> = projection.rows().iter().map(|r| r.at.nanos()).collect();
    assert!(times.windows(2).all(|w| w[0] + 1_000 <= w[1]), "{times:?}");
    assert_eq!(projection.started_at().unwrap().nanos(), 3_000_000_000);
    assert_eq!(projection.finished_at().unwrap().nanos(), 5_000_000_000);
}

#[test]
fn a_build_answered_from_a_cache_looks_like_one_that_ran() {
    let projection = managed(vec![claimed(1), to(State::Succeeded)]);
    assert_eq!(words(&projection), ["created", "scheduled", "building", "running", "succeeded"]);
}

#[test]
fn a_second_attempt_does_not_show() {
    let again = || Event::Requeued { reason: "lost".into(), planned: false };
    let projection = managed(vec![
        claimed(1),
        to(State::Running),
        again(),
        claimed(2),
        to(State::Running),
        to(State::Succeeded),
    ]);
    assert_eq!(words(&projection), ["created", "scheduled", "building", "running", "succeeded"]);
    let waiting = managed(vec![claimed(1), to(State::Running), again()]);
    assert_eq!(waiting.last(), Some(Status::Running));
}

#[test]
fn a_failed_build_says_why() {
    let table = [
        (FailureKind::Step, "it ended with 3.", Some(3), "exist-code(3)-message(it ended with 3)"),
        (FailureKind::Limit, "out of memory", None, "out of memory"),
        (
            FailureKind::Source,
            "no such image.",
            None,
            "Failed to initialize build job (no such image).",
        ),
        (
            FailureKind::Definition,
            "line 3\n  | FROM x",
            None,
            "Failed to initialize build job (line 3).",
        ),
        (FailureKind::Interrupted, "x", None, ZOMBIE),
        (
            FailureKind::Internal,
            "x",
            None,
            "Could not start build job encountered an internal exception.",
        ),
    ];
    for (kind, message, code, want) in table {
        let projection = managed(vec![claimed(1), failed(kind, message, code), to(State::Failed)]);
        assert_eq!(words(&projection), ["created", "scheduled", "building", "failed"], "{kind:?}");
        assert_eq!(last_message(&projection), want);
        let traceback = &projection.rows().last().unwrap().traceback;
        assert_eq!(traceback.is_some(), kind == FailureKind::Internal);
    }
    assert_eq!(last_message(&managed(vec![to(State::Failed)])), "Failed to build job.");
    let missing = Projection::new(false, true);
    let events = vec![submitted(), failed(FailureKind::Definition, "x", None), to(State::Failed)];
    let missing = project(missing, events);
    assert!(last_message(&missing).contains("extracting the dockerfile"));
    let long =
        managed(vec![failed(FailureKind::Limit, &"ä".repeat(1000), None), to(State::Failed)]);
    assert_eq!(last_message(&long).chars().count(), MESSAGE_MAX);
}

#[test]
fn stopping_says_so_at_each_phase() {
    for phase in [vec![], vec![claimed(1)], vec![claimed(1), to(State::Running)]] {
        let mut events = phase;
        events.extend([cancel(None), to(State::Cancelled), to(State::Succeeded)]);
        assert_eq!(last_message(&managed(events)), STOPPED);
    }
    let deleted = managed(vec![cancel(Some(DELETED)), to(State::Cancelled)]);
    assert_eq!((deleted.last(), last_message(&deleted)), (Some(Status::Stopped), DELETED));
}

#[test]
fn outside_builds_show_what_was_posted_and_no_more() {
    let events = vec![
        submitted(),
        to(State::Preparing),
        note(Status::Running),
        to(State::Running),
        note(Status::Running),
        note(Status::Warning),
        note(Status::Created),
        note(Status::Succeeded),
        to(State::Succeeded),
        note(Status::Running),
        note(Status::Resuming),
    ];
    let projection = project(Projection::new(true, false), events);
    assert_eq!(words(&projection), ["created", "running", "warning", "succeeded"]);
    let stopped = vec![submitted(), cancel(None), to(State::Cancelled)];
    let stopped = project(Projection::new(true, false), stopped);
    assert_eq!(words(&stopped), ["created", "stopped"]);
    // Notes mean nothing to a managed build.
    assert_eq!(words(&managed(vec![note(Status::Failed)])), ["created"]);
}

#[test]
fn the_table_of_transitions_is_the_pages() {
    use Status as S;
    let may = |status: S| -> Vec<S> {
        S::ALL.into_iter().filter(|last| status.may_follow(Some(*last))).collect()
    };
    let open = [
        S::Created,
        S::Resuming,
        S::Building,
        S::Scheduled,
        S::Running,
        S::Unschedulable,
        S::Warning,
        S::Unknown,
    ];
    assert!(may(S::Created).is_empty());
    assert_eq!(may(S::Resuming), [S::Created, S::Warning]);
    let before_building =
        [S::Created, S::Resuming, S::Scheduled, S::Unschedulable, S::Warning, S::Unknown];
    assert_eq!(may(S::Building), before_building);
    let before_scheduled =
        [S::Created, S::Resuming, S::Building, S::Unschedulable, S::Warning, S::Unknown];
    assert_eq!(may(S::Scheduled), before_scheduled);
    let before_running = [
        S::Created,
        S::Resuming,
        S::Building,
        S::Scheduled,
        S::Unschedulable,
        S::Warning,
        S::Unknown,
    ];
    assert_eq!(may(S::Running), before_running);
    for done in [S::Succeeded, S::Failed, S::UpstreamFailed, S::Skipped, S::Stopped] {
        assert_eq!(may(done), open, "{done:?}");
    }
    for status in [S::Warning, S::Unknown, S::Unschedulable] {
        let want: Vec<S> = open.into_iter().filter(|s| *s != status).collect();
        assert_eq!(may(status), want, "{status:?}");
    }
    for status in S::ALL {
        assert!(!status.may_follow(Some(status)), "{status:?} twice");
        assert_eq!(S::parse(status.as_str()), Some(status));
        let word = serde_json::to_value(status).unwrap();
        assert_eq!(word.as_str(), Some(status.as_str()));
    }
    assert!(S::Created.may_follow(None) && S::Building.may_follow(None));
}
