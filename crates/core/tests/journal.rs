//! No sequence of entries leaves the state machine, and every view is a fold of the journal.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::StepId;
use ashlar_core::journal::{
    BuildKind, CacheEvent, Entry, Event, Mode, OnLost, Record, Refusal, StepOutcome, Submission,
};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Digest, PrincipalId, TenantId, Timestamp, WorkerId};
use proptest::prelude::*;

fn submission(on_lost: OnLost) -> Submission {
    Submission {
        build: BuildId::from_parts(1, [1; 10]),
        tenant: TenantId::from_parts(1, [2; 10]),
        scope: "s".into(),
        principal: PrincipalId::from_parts(1, [3; 10]),
        dialect: "local".into(),
        kind: BuildKind::Build,
        parent: None,
        retry_of: None,
        name: "n".into(),
        source: "dockerfile".into(),
        definition: serde_json::json!({}),
        definition_digest: Digest::of("{}"),
        backend: None,
        on_lost,
        mode: Mode::Managed,
        priority: 0,
        labels: [("a".to_owned(), "1".to_owned())].into(),
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let state = prop::sample::select(State::ALL.to_vec());
    let status = prop::sample::select(vec![
        CacheStatus::Hit,
        CacheStatus::Miss,
        CacheStatus::Bypass,
        CacheStatus::Store,
    ]);
    let worker = WorkerId::from_parts(1, [4; 10]);
    let step = StepId(1);
    prop_oneof![
        4 => state.prop_map(|to| Event::State { to }),
        3 => (1u32..4, 0u64..6)
            .prop_map(move |(attempt, fence)| Event::Claimed { attempt, fence, worker }),
        2 => any::<bool>()
            .prop_map(|planned| Event::Requeued { reason: "lost".into(), planned }),
        1 => Just(Event::EffectBegan { step }),
        1 => Just(Event::AnswersKept { blob: Digest::of("answers") }),
        1 => Just(Event::Submitted(Box::new(submission(OnLost::Fail)))),
        1 => Just(Event::CancelRequested { by: "me".into(), reason: None }),
        1 => Just(Event::Failed(Box::new(Failure::new(FailureKind::Step, "no")))),
        1 => Just(Event::Renamed { name: "other".into() }),
        1 => Just(Event::Labels { changes: [("a".to_owned(), None)].into() }),
        2 => status.prop_map(move |status| Event::Cache(CacheEvent {
            cache: CacheKind::Layer,
            status,
            step: Some(step),
            subject: "x".into(),
            key: None,
            reason: None,
            bypass: None,
        })),
        1 => Just(Event::StepEnded {
            step,
            outcome: StepOutcome::Cached,
            peak_memory_bytes: None,
            cpu_nanos: None,
        }),
    ]
}

fn begin(on_lost: OnLost) -> (Record, Vec<Entry>) {
    let event = Event::Submitted(Box::new(submission(on_lost)));
    let first = Entry { number: 0, time: Timestamp::from_nanos(1), event };
    (Record::begin(&first).unwrap(), vec![first])
}

proptest! {
    #[test]
    fn no_sequence_leaves_the_state_machine(
        events in prop::collection::vec(any_event(), 0..60),
        attempts_max in 0u32..4,
    ) {
        let (mut record, mut journal) = begin(OnLost::Requeue { attempts_max });
        for event in events {
            let before = record.clone();
            let time = Timestamp::from_nanos(record.updated_at.nanos() + 1);
            let entry = Entry { number: record.next_number, time, event };
            match record.apply(&entry) {
                Ok(()) => {
                    if before.state.is_terminal() {
                        prop_assert_eq!(before.state, record.state);
                        prop_assert_eq!(before.finished_at, record.finished_at);
                    }
                    if matches!(entry.event, Event::State { .. }) {
                        prop_assert!(before.state.may_become(record.state));
                    }
                    prop_assert!(record.fence >= before.fence);
                    prop_assert!(record.attempts_counted() <= attempts_max.max(3));
                    journal.push(entry);
                }
                Err(_) => prop_assert_eq!(&before, &record),
            }
            prop_assert_eq!(record.finished_at.is_some(), record.state.is_terminal());
            prop_assert_eq!(record.state.is_active() && record.started_at.is_none(), false);
        }
        let rebuilt = Record::rebuild(&journal).unwrap();
        prop_assert_eq!(&rebuilt, &record);
        let text = serde_json::to_string(&journal).unwrap();
        let read: Vec<Entry> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read, journal);
    }
}

#[test]
fn counters_are_the_entries_of_the_attempt() {
    let (mut record, _) = begin(OnLost::Requeue { attempts_max: 3 });
    let mut add = |event| {
        let time = Timestamp::from_nanos(record.updated_at.nanos() + 5);
        let entry = Entry { number: record.next_number, time, event };
        record.apply(&entry).unwrap();
        record.clone()
    };
    let worker = WorkerId::from_parts(1, [4; 10]);
    let miss = Event::Cache(CacheEvent {
        cache: CacheKind::FinalArtifact,
        status: CacheStatus::Miss,
        step: None,
        subject: "image".into(),
        key: None,
        reason: None,
        bypass: None,
    });
    add(Event::Claimed { attempt: 1, fence: 1, worker });
    assert_eq!(add(miss.clone()).cache.get(CacheKind::FinalArtifact, CacheStatus::Miss), 1);
    add(Event::Requeued { reason: "worker lost".into(), planned: false });
    add(Event::Claimed { attempt: 2, fence: 2, worker });
    assert_eq!(add(miss).cache.get(CacheKind::FinalArtifact, CacheStatus::Miss), 1);
    let done = add(Event::State { to: State::Succeeded });
    assert_eq!(done.duration(), Some(std::time::Duration::from_nanos(10)));
}

#[test]
fn a_worker_that_was_given_up_cannot_write_before_the_next_one_begins() {
    let (mut record, _) = begin(OnLost::Requeue { attempts_max: 9 });
    let worker = WorkerId::from_parts(1, [4; 10]);
    let failed = Event::State { to: State::Failed };
    for (event, admitted) in [
        (Event::Claimed { attempt: 1, fence: 7, worker }, Ok(())),
        (
            Event::Requeued { reason: "worker lost".into(), planned: false },
            Err(Refusal::GivenUp(7)),
        ),
    ] {
        let (number, time) =
            (record.next_number, Timestamp::from_nanos(record.updated_at.nanos() + 1));
        record.apply(&Entry { number, time, event }).unwrap();
        assert_eq!(record.admit(&failed, Some(7)), admitted);
        assert_eq!(record.admit_lines(Some(7)), admitted);
        assert_eq!(record.admit(&failed, None), Ok(()), "the service ends what waits");
    }
}

#[test]
fn an_old_worker_cannot_write_and_an_effect_is_not_repeated() {
    let (mut record, _) = begin(OnLost::Requeue { attempts_max: 9 });
    let worker = WorkerId::from_parts(1, [4; 10]);
    let mut time = 1;
    let mut add = |record: &mut Record, event| {
        time += 1;
        let entry = Entry { number: record.next_number, time: Timestamp::from_nanos(time), event };
        record.apply(&entry)
    };
    add(&mut record, Event::Claimed { attempt: 1, fence: 7, worker }).unwrap();
    let running = Event::State { to: State::Running };
    assert_eq!(record.admit(&running, Some(6)), Err(Refusal::Fenced { held: 7, got: 6 }));
    assert_eq!(record.admit(&running, Some(7)), Ok(()));
    add(&mut record, Event::EffectBegan { step: StepId(1) }).unwrap();
    let requeued = Event::Requeued { reason: "lost".into(), planned: false };
    assert_eq!(add(&mut record, requeued), Err(Refusal::NoMoreAttempts));
}

#[test]
fn an_attempt_that_was_given_up_by_plan_counts_for_nothing() {
    let (mut record, _) = begin(OnLost::Requeue { attempts_max: 2 });
    let worker = WorkerId::from_parts(1, [4; 10]);
    let mut attempt = 0;
    let mut ended = |record: &mut Record, planned| {
        attempt += 1;
        let claimed = Event::Claimed { attempt, fence: attempt.into(), worker };
        for event in [claimed, Event::Requeued { reason: "it ended".into(), planned }] {
            let time = Timestamp::from_nanos(record.updated_at.nanos() + 1);
            record.apply(&Entry { number: record.next_number, time, event })?;
        }
        Ok(())
    };
    for (planned, counted) in [(true, 0), (false, 1), (true, 1), (true, 1)] {
        assert_eq!(ended(&mut record, planned), Ok(()));
        assert_eq!(record.attempts_counted(), counted);
    }
    assert_eq!(ended(&mut record, false), Err(Refusal::NoMoreAttempts));
    // As journals had it before there was a difference.
    let old: Event = serde_json::from_str(r#"{"event":"requeued","reason":"x"}"#).unwrap();
    assert_eq!(old, Event::Requeued { reason: "x".into(), planned: false });
}
