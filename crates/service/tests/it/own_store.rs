//! All nodes of a database have the same blob store, or they do not start.

use std::path::Path;
use std::sync::Arc;

use ashlar_blobs::Remote;
use ashlar_service::{ErrorKind, ServiceConfig};

use crate::world::World;

crate::on_both! {
    a_node_with_another_blob_store_does_not_start;
}

fn store_in(dir: &Path) -> Arc<dyn Remote> {
    let none: [(String, String); 0] = [];
    ashlar_objects::open(&format!("file://{}", dir.display()), none).unwrap()
}

async fn a_node_with_another_blob_store_does_not_start(mut world: World) {
    let (shared, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = world.database();
    let with = |remote: Option<Arc<dyn Remote>>| {
        let database = database.clone();
        move |config: &mut ServiceConfig| {
            config.database = Some(database);
            config.blob_store = remote;
        }
    };
    let first = world.open_beside_with(with(Some(store_in(shared.path())))).await;
    let second = world.open_beside_with(with(Some(store_in(shared.path())))).await;
    for wrong in [Some(store_in(other.path())), None] {
        let refused = world.try_open_beside(with(wrong)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert!(refused.public().contains("--blob-store"), "{refused}");
    }
    for service in [first, second] {
        service.close().await;
    }
}
