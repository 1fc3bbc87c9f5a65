//! What was deleted is erased, by the next server if need be.

use std::time::Duration;

use ashlar_core::journal::{BuildKind, Event, Record};
use ashlar_core::state::State;
use ashlar_core::{BuildId, WorkerId};
use ashlar_records::{Claim, Stamped, Store, Writer, now};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::World;

const SPEC: &str = "{version: 1, kind: build, image: busybox}";
/// How long what is done beside a request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes a build as a worker on another machine would, which then holds it.
async fn claim(store: &Store) -> Record {
    let worker = WorkerId::from_parts(1, [7; 10]);
    let claim = Claim { worker, kind: BuildKind::Build, backends: vec!["native".into()], slots: 8 };
    store.claim(&claim, now()).await.unwrap().expect("a build waits")
}

/// Deletes a build and a project while their builds run elsewhere; returns these builds.
async fn deleted() -> (TempDir, Vec<Record>) {
    let world = World::still().await;
    let store = world.records().await;
    let mut held = Vec::new();
    for project in ["first", "second"] {
        world.project(project).await;
        let path = world.build(project, SPEC).await;
        held.push(claim(&store).await);
        let gone = if project == "first" { path } else { format!("/api/v1/acme/{project}/") };
        world.delete(&gone).await.is_empty(204);
        world.get(&gone).await.is(404);
    }
    store.close().await;
    (world.data, held)
}

/// Waits until nobody knows a build any more.
async fn gone(world: &World, id: BuildId) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while world.service.row(world.service.admin(), id).await.is_ok() {
        assert!(tokio::time::Instant::now() < until, "the deleted build {id} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn what_was_deleted_is_erased_by_the_next_server() {
    let first = Runtime::new().unwrap();
    let (data, held) = first.block_on(deleted());
    // All that the first server still had to do ends with it.
    drop(first);
    Runtime::new().unwrap().block_on(async {
        let world = World::open(data, 0).await;
        let store = world.records().await;
        for record in held {
            let id = record.submission.build;
            world.service.row(world.service.admin(), id).await.unwrap();
            let writer = Writer::Worker { fence: record.fence, batch: None };
            let end = Event::State { to: State::Cancelled };
            store.append(id, writer, [Stamped::new(now(), end)]).await.unwrap();
            gone(&world, id).await;
        }
        let none = world.get("/api/v1/archives/acme/projects/").await.is(200);
        assert_eq!(none["count"], 0);
        store.close().await;
    });
}
