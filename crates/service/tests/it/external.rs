//! Builds that somebody outside drives.

use ashlar_core::Digest;
use ashlar_core::journal::{ArtifactRecord, Event, Level, LogLine};
use ashlar_core::state::State;
use ashlar_service::{Error, Mode, SubmitRequest};
use serde_json::json;

use crate::on_both;
use crate::world::{World, role};

on_both! {
    reports_bring_what_is_for_them_and_nothing_else;
}

fn artifact(kind: &str, digest: Digest) -> Event {
    Event::Artifact(ArtifactRecord {
        name: "result".into(),
        kind: kind.into(),
        digest,
        bytes: None,
        references: Vec::new(),
    })
}

async fn reports_bring_what_is_for_them_and_nothing_else(world: World) {
    let service = world.open().await;
    let admin = service.admin().clone();
    let mut request = SubmitRequest::new("outside", "scope", "one", role("ok"));
    request.mode = Mode::External;
    let build = service.submit(&admin, request).await.unwrap().record.submission.build;
    let note = |dialect: &str| Event::Note { dialect: dialect.into(), value: json!({"a": 1}) };
    let theirs = Digest::of("of another tenant");
    for refused in [
        Event::Requeued { reason: "x".into(), planned: false },
        Event::Executor { requested: None, ran: "native".into(), reason: None },
        Event::Steps { names: vec!["x".into()] },
        Event::Labels { changes: [("a".into(), None)].into() },
        note("service"),
        artifact("file", theirs),
        artifact("image", theirs),
    ] {
        let events = vec![Event::State { to: State::Preparing }, refused.clone()];
        let answer = service.report(&admin, build, events).await;
        assert!(matches!(answer, Err(Error::Invalid { .. })), "{refused:?}: {answer:?}");
    }
    let row = service.row(&admin, build).await.unwrap();
    assert_eq!((row.state, row.artifacts.len()), (State::Queued, 0), "all events or none");

    let digest = service.put_blob(&admin, None, b"result".to_vec()).await.unwrap();
    let image = service.report(&admin, build, vec![artifact("image", digest)]).await;
    assert!(matches!(image, Err(Error::Invalid { .. })), "{image:?}");
    let events = vec![
        Event::State { to: State::Preparing },
        Event::State { to: State::Running },
        Event::Log(LogLine::service(Level::Info, "hello")),
        note("outside"),
        artifact("file", digest),
        Event::State { to: State::Succeeded },
    ];
    let ended = service.report(&admin, build, events).await.unwrap();
    assert_eq!((ended.state, ended.artifacts[0].digest), (State::Succeeded, digest));
}
