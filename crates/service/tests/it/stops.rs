//! Servers that end as planned, and what it does to builds.

use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_core::failure::FailureKind;
use ashlar_core::state::State;
use ashlar_service::{OnLost, Service, SubmitRequest};

use crate::on_both;
use crate::workflow::reopened;
use crate::world::{World, role};

on_both! {
    a_planned_stop_uses_up_no_attempt;
    what_is_not_to_run_again_does_not;
}

async fn submit(service: &Service, on_lost: OnLost) -> BuildId {
    let mut request = SubmitRequest::new("native", "scope", "long", role("hold"));
    request.on_lost = on_lost;
    service.submit(service.admin(), request).await.unwrap().record.submission.build
}

/// Runs a server until it has begun the build, and stops it.
async fn begin_and_stop(world: &World, build: BuildId) -> Arc<Service> {
    let service = reopened(world).await;
    service.start();
    world.until(&service, build, |row| row.state == State::Running).await;
    service.drain().await;
    service
}

async fn a_planned_stop_uses_up_no_attempt(world: World) {
    let service = world.open().await;
    let build = submit(&service, OnLost::Requeue { attempts_max: 2 }).await;
    drop(service);
    for stopped in 1..=3 {
        let service = begin_and_stop(&world, build).await;
        let row = service.row(service.admin(), build).await.unwrap();
        assert_eq!((row.state, row.attempt), (State::Queued, stopped), "{row:#?}");
        service.close().await;
    }
    world.stage.release("long");
    let service = reopened(&world).await;
    service.start();
    let ended = world.ended(&service, build).await;
    assert_eq!((ended.state, ended.attempt), (State::Succeeded, 4), "{ended:#?}");
    service.drain().await;
}

async fn what_is_not_to_run_again_does_not(world: World) {
    let service = world.open().await;
    let build = submit(&service, OnLost::Fail).await;
    drop(service);
    let service = begin_and_stop(&world, build).await;
    let row = service.row(service.admin(), build).await.unwrap();
    let kind = row.failure.map(|failure| failure.kind);
    assert_eq!((row.state, kind), (State::Failed, Some(FailureKind::Interrupted)));
}
