//! What builds come to when something is away, or somebody wishes them to stop late.

use std::sync::Arc;
use std::time::Duration;

use ashlar_core::BuildId;
use ashlar_core::state::State;
use ashlar_service::{ErrorKind, Service, SubmitRequest};

use crate::cut::{Cut, Way};
use crate::on_both;
use crate::world::{World, eventually, role};

on_both! {
    a_build_that_a_blob_store_failed_runs_again;
    a_wish_to_stop_that_comes_before_the_end_counts;
}

async fn submit(service: &Service, name: &str, played: &str) -> BuildId {
    let request = SubmitRequest::new("native", "scope", name, role(played));
    let accepted = service.submit(service.admin(), request).await.unwrap();
    accepted.record.submission.build
}

/// Opens a worker that reaches the database by way of a cut.
async fn behind(world: &mut World, cut: &Cut, lease: Duration) -> Arc<Service> {
    let url = cut.url.clone();
    let worker = world.open_beside_with(|config| {
        config.database = Some(url);
        config.lease = lease;
    });
    let worker = worker.await;
    worker.start();
    worker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_ends_while_the_database_is_away_ends_as_it_did() {
    let mut world = World::postgres().await;
    let watcher = world.open().await;
    let cut = Cut::before(&world.database()).await;
    let worker = behind(&mut world, &cut, Duration::from_secs(600)).await;
    let build = submit(&watcher, "long", "hold").await;
    world.until(&watcher, build, |row| row.state == State::Running).await;
    cut.set(Way::Closed);
    world.stage.release("long");
    // Whatever asks is refused, the worker that wants to end the build too.
    let before = cut.refused();
    eventually("nobody asks", || cut.refused() > before + 20).await;
    cut.set(Way::Open);
    let ended = world.ended(&watcher, build).await;
    assert_eq!((ended.state, ended.attempt), (State::Succeeded, 1), "{ended:#?}");
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_stops_where_the_worker_is_cut_off_and_runs_elsewhere() {
    let mut world = World::postgres().await;
    let other = world.open().await;
    let cut = Cut::before(&world.database()).await;
    let worker = behind(&mut world, &cut, Duration::from_secs(3)).await;
    let build = submit(&other, "long", "hold").await;
    world.until(&other, build, |row| row.state == State::Running).await;
    cut.set(Way::Silent);
    let stage = Arc::clone(&world.stage);
    eventually("the build goes on", || stage.stopped() == ["long"]).await;
    world.stage.release("long");
    other.start();
    let ended = world.ended(&other, build).await;
    assert_eq!((ended.state, ended.attempt), (State::Succeeded, 2), "{ended:#?}");
    drop(worker);
}

async fn a_build_that_a_blob_store_failed_runs_again(world: World) {
    let service = world.open().await;
    service.start();
    // The store answers again at once, and what other builds learn of it changes nothing.
    let build = submit(&service, "unlucky", "store-away").await;
    let failed = submit(&service, "wrong", "fail").await;
    let (ended, failed) = (world.ended(&service, build).await, world.ended(&service, failed).await);
    assert_eq!((ended.state, ended.attempt), (State::Succeeded, 2), "{ended:#?}");
    assert_eq!((failed.state, failed.attempt), (State::Failed, 1), "{failed:#?}");
}

async fn a_wish_to_stop_that_comes_before_the_end_counts(world: World) {
    let service = world.open().await;
    service.start();
    let build = submit(&service, "late", "deaf").await;
    world.until(&service, build, |row| row.state == State::Running).await;
    service.cancel(service.admin(), build, Some("not needed")).await.unwrap();
    world.stage.release("late");
    let ended = world.ended(&service, build).await;
    assert_eq!((ended.state, ended.artifacts), (State::Cancelled, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_soon_that_its_database_is_away() {
    let mut world = World::postgres().await;
    let cut = Cut::before(&world.database()).await;
    let url = cut.url.clone();
    let service = world.open_beside_with(|config| config.database = Some(url)).await;
    service.check_ready().await.unwrap();
    for way in [Way::Silent, Way::Closed] {
        cut.set(way);
        // Much less than whoever waits for a connection has to.
        let asked = tokio::time::timeout(Duration::from_secs(15), service.check_ready()).await;
        let error = asked.expect("it waits as long as anybody").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.retry_after().is_some());
        let asked = tokio::time::timeout(Duration::from_secs(9), service.update_metrics()).await;
        let error = asked.expect("Prometheus does not wait for longer").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}
