//! Local images by name.

use std::process::Command;
use std::{env, fs};

use ashlar_core::{Digest, Platform, Timestamp};
use ashlar_oci::{
    Descriptor, ImageStore, ImageStoreError, LayerRef, LocalImage, Origin, PullPolicy, Reference,
    Transfer,
};
use serde_json::json;

use crate::support::Local;

/// An image as a build leaves it: layers are trees, nothing is compressed.
fn built(platform: &str, tree: &str) -> LocalImage {
    let platform: Platform = platform.parse().unwrap();
    LocalImage {
        names: Vec::new(),
        config: json!({ "os": platform.os, "architecture": platform.architecture, "x.unknown": 1 }),
        platform,
        config_digest: None,
        layers: vec![LayerRef { tree: Some(Digest::of(tree)), ..LayerRef::default() }],
        manifest: None,
        origin: Origin::Built,
        repository: None,
        created: Timestamp::from_nanos(1),
    }
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn images_are_found_by_name_platform_and_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let images = [built("linux/amd64", "a"), built("linux/arm64", "b")];
    let ids = store.add(&images, &[name("app"), name("app:2")], None).unwrap();
    let again = ImageStore::open(dir.path()).unwrap();
    let (id, found) =
        again.find(&name("app"), &"linux/arm64/v8".parse().unwrap()).unwrap().unwrap();
    assert_eq!((id, &found.layers), (ids[1], &images[1].layers));
    assert_eq!(found.config["x.unknown"], 1);
    assert!(again.find(&name("app"), &"linux/s390x".parse().unwrap()).unwrap().is_none());
    assert!(again.find(&name("other"), &images[0].platform).unwrap().is_none());
    assert_eq!(again.look_up(&ids[0].hex()[..8]).unwrap(), [ids[0]]);
    assert_eq!(again.look_up(&ids[0].to_string()).unwrap(), [ids[0]]);
    assert!(matches!(again.look_up("zzzz"), Err(ImageStoreError::Unknown(_))));
    assert_eq!(store.add(&images, &[], None).unwrap(), ids, "the same images have the same ids");
    let list = again.list().unwrap();
    assert_eq!(list.len(), 2);
    assert!(list.iter().all(|(_, image)| image.names.len() == 2));
}

#[test]
fn an_image_goes_with_its_last_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let ids = store.add(&[built("linux/amd64", "a")], &[name("app:1")], None).unwrap();
    store.tag("app:1", &name("app:2")).unwrap();
    let removed = store.remove("app:1").unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec![name("app:1")], vec![]));
    assert_eq!(store.roots().unwrap().trees, [Digest::of("a")].into());
    let removed = store.remove(&ids[0].hex()[..12]).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec![name("app:2")], ids));
    assert_eq!(store.list().unwrap(), []);
    assert!(store.roots().unwrap().trees.is_empty());
    assert!(matches!(store.remove("app:2"), Err(ImageStoreError::Unknown(_))));
}

#[test]
fn a_record_may_get_its_archives_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let mut image = built("linux/amd64", "a");
    let id = store.add(&[image.clone()], &[name("app")], None).unwrap()[0];
    image.layers[0].diff_id = Some(Digest::of("tar"));
    store.update(&id, &image).unwrap();
    assert_eq!(store.record(&id).unwrap().unwrap().layers, image.layers);
    assert_eq!(store.add(&[image.clone()], &[], None).unwrap(), [id]);
    assert!(store.update(&Digest::of("none"), &image).is_err());
}

#[test]
fn building_an_exported_image_again_keeps_its_archives() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let mut exported = built("linux/amd64", "a");
    exported.manifest = Some(Descriptor::new("m", Digest::of("manifest"), 1));
    exported.layers[0].blob = Some(Descriptor::new("l", Digest::of("blob"), 1));
    let id = store.add(&[exported], &[], None).unwrap()[0];
    store.add(&[built("linux/amd64", "a")], &[name("app")], None).unwrap();
    let record = store.record(&id).unwrap().unwrap();
    assert!(record.manifest.is_some());
    assert_eq!(store.roots().unwrap().blobs, [Digest::of("manifest"), Digest::of("blob")].into());
}

#[test]
fn many_writers_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dir = dir.path();
            scope.spawn(move || {
                let store = ImageStore::open(dir).unwrap();
                for i in 0..10 {
                    let image = built("linux/amd64", &format!("{thread}-{i}"));
                    store
                        .add(&[image], &[name(&format!("app{thread}:{i}")), name("last")], None)
                        .unwrap();
                }
            });
        }
    });
    let store = ImageStore::open(dir.path()).unwrap();
    assert_eq!(store.list().unwrap().len(), 40);
    assert_eq!(store.names().unwrap().len(), 41);
}

#[test]
fn from_finds_a_built_image_without_a_registry() {
    let local = Local::new();
    let image = built("linux/amd64", "a");
    let reference = name("no-such-registry.invalid/app");
    let (images, names) = ([image.clone()], [reference.clone()]);
    local.images.store().add(&images, &names, None).unwrap();
    let found = local
        .images
        .resolve(&reference, &image.platform, PullPolicy::Default, &Transfer::quiet())
        .unwrap();
    assert_eq!((&found.layers, found.manifest), (&image.layers, None));
    let config: serde_json::Value = serde_json::from_slice(&found.config).unwrap();
    assert_eq!(config, image.config);
    let mut other = found.clone();
    other.layers[0].tree = Some(Digest::of("b"));
    assert_ne!(found.id(), other.id());
}

/// Runs again as a child: the runtime belongs to a whole process.
#[test]
fn without_a_registry_no_network_threads_start() {
    const CHILD: &str = "ASHLAR_TEST_NO_THREADS";
    if env::var_os(CHILD).is_some() {
        let local = Local::new();
        let (images, names) = ([built("linux/amd64", "a")], [name("app")]);
        local.images.store().add(&images, &names, None).unwrap();
        let quiet = Transfer::quiet();
        let policy = PullPolicy::Default;
        local.images.resolve(&names[0], &images[0].platform, policy, &quiet).unwrap();
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.map(|t| fs::read_to_string(t.unwrap().path().join("comm")).unwrap());
        assert_eq!(names.filter(|n| n.trim() == "registry").count(), 0);
        return;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "local_images::without_a_registry_no_network_threads_start"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
