//! Garbage collection.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ashlar_core::Digest;
use ashlar_native::export::Image;
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

#[test]
fn an_image_that_lost_its_name_goes_under_the_bound_and_the_oldest_first() {
    let world = World::new();
    let name = || vec!["roll:1".parse().unwrap()];
    let image_of = |number: usize| {
        let noise = format!("FROM base\nRUN head -c {} /dev/urandom >/noise\n", number << 20);
        let built = world.build(&noise).unwrap().built;
        let image = Image::of(&built, name(), None).unwrap();
        (world.engine.keep_image(&image, None).unwrap(), *built.tree.0.last().unwrap())
    };
    let images: Vec<_> = (1..=3).map(image_of).collect();
    let store = world.engine.images().store();
    let is_there = |id: &Digest| store.has(id);
    let there = || images.iter().map(|(id, _)| is_there(id)).collect::<Vec<_>>();

    // Cache may stay where nothing bounds it.
    world.engine.collect(&GcPolicy::default(), false).unwrap();
    assert_eq!(there(), [true, true, true]);
    let total = world.engine.usage().unwrap().total_bytes();
    let bound = |max| GcPolicy { used_bytes_max: Some(max), ..GcPolicy::default() };
    world.engine.collect(&bound(total - 1), false).unwrap();
    assert_eq!(there(), [false, true, true]);
    world.engine.collect(&bound(1), false).unwrap();
    assert_eq!(there(), [false, false, true]);

    let kept = ItemKind::Layer(images[2].1);
    let usage = world.engine.usage().unwrap();
    let holders = |kind| &usage.items.iter().find(|i| i.kind == kind).unwrap().holders;
    assert_eq!(*holders(kept), [Holder::Image("roll:1".into())]);
    for (_, layer) in &images[..2] {
        assert!(!usage.items.iter().any(|i| i.kind == ItemKind::Layer(*layer)));
    }
}

#[test]
fn imported_images_and_those_that_get_a_name_in_time_stay() {
    let world = World::new();
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "only here").unwrap();
    let platform = ashlar_core::Platform::host();
    let imported = world.engine.import_rootfs(root.path(), &platform, &[]).unwrap();
    let built = world.build("FROM base\nRUN echo one >/one\n").unwrap().built;
    let image = Image::of(&built, Vec::new(), None).unwrap();
    let untagged = world.engine.keep_image(&image, None).unwrap();
    let store = world.engine.images().store();
    store.tag(&untagged.to_string(), &"named:1".parse().unwrap()).unwrap();
    assert!(!store.remove_untagged(&untagged).unwrap());
    world.engine.collect(&ALL, false).unwrap();
    assert!(store.has(&imported) && store.has(&untagged));
    assert_eq!(world.read(&built, "/one"), "one\n");

    store.remove("named:1").unwrap();
    let again = world.engine.keep_image(&image, None).unwrap();
    world.engine.collect(&ALL, false).unwrap();
    assert!(store.has(&imported) && !store.has(&again));
}
