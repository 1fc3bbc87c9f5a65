//! Garbage collection.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ashlar_core::Digest;
use ashlar_native::gc::{GcPolicy, Holder, ItemKind};
use support::World;

const ALL: GcPolicy =
    GcPolicy { used_bytes_max: None, free_bytes_min: None, keep: Some(Duration::ZERO) };

fn grant(world: &World, tenant: &str, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    let path = world.data().join("grants").join(tenant).join(&hex[..2]).join(hex);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    path
}

#[test]
fn what_a_server_granted_stays_until_no_tenant_has_it() {
    let world = World::new();
    let blobs = world.engine.images().blobs().clone();
    let put = |text: &str| blobs.put_bytes(text.as_bytes()).unwrap().digest;
    let (context, log, nobodys) = (put("context"), put("log"), put("nobody's"));
    let first = grant(&world, "one", &context);
    let second = grant(&world, "two", &context);
    grant(&world, "00000000-0000-0000-0000-000000000000", &log);

    let (usage, plan) = world.engine.collect(&ALL, false).unwrap();
    let held = |digest: &Digest| {
        let kind = ItemKind::Blob(*digest);
        usage.items.iter().find(|i| i.kind == kind).unwrap().holders.clone()
    };
    assert_eq!((held(&context), held(&log)), (vec![Holder::Server], vec![Holder::Server]));
    assert!(plan.remove.iter().any(|(i, _)| usage.items[*i].kind == ItemKind::Blob(nobodys)));
    assert!(blobs.has(&context).unwrap() && blobs.has(&log).unwrap());
    assert!(!blobs.has(&nobodys).unwrap());

    fs::remove_file(first).unwrap();
    world.engine.collect(&ALL, false).unwrap();
    assert!(blobs.has(&context).unwrap());
    fs::remove_file(second).unwrap();
    world.engine.collect(&ALL, false).unwrap();
    assert!(!blobs.has(&context).unwrap() && blobs.has(&log).unwrap());
}

#[test]
fn what_a_server_keeps_for_clients_is_counted() {
    let world = World::new();
    let found = |kind: &ItemKind| {
        let usage = world.engine.usage().unwrap();
        usage.items.into_iter().find(|item| item.kind == *kind)
    };
    for (folder, kind) in [("uploads", ItemKind::Uploads), ("contexts", ItemKind::Contexts)] {
        assert!(found(&kind).is_none());
        let place = world.data().join(folder).join("tenant");
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("bytes"), vec![1; 1 << 20]).unwrap();
        let item = found(&kind).unwrap();
        assert_eq!((kind.word(), item.holders), (folder, vec![Holder::Always]));
        assert!(item.bytes >= 1 << 20);
    }
    world.engine.collect(&ALL, false).unwrap();
    assert!(found(&ItemKind::Uploads).is_some());
}
