//! Pushes to registries that have some, copy some, or break.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ashlar_core::Digest;
use ashlar_oci::manifest::Descriptor;
use ashlar_oci::registry::BlobOrigins;
use ashlar_oci::{NewLayer, Reference, Transfer, compose, media_type as mt};
use serde_json::json;

use crate::support::{Fake, Local, Reply, Request, noise};

/// Puts an image with these layers into the store.
fn image(local: &Local, layers: &[&[u8]]) -> (Descriptor, Vec<Descriptor>) {
    let blobs = local.images.blobs();
    let layer = |bytes: &&[u8]| {
        let info = blobs.put_bytes(bytes).unwrap();
        let blob = Descriptor::new(mt::OCI_LAYER, info.digest, info.size);
        NewLayer { blob, diff_id: info.digest }
    };
    let layers: Vec<_> = layers.iter().map(layer).collect();
    let config = json!({ "os": "linux", "architecture": "amd64", "config": {} });
    let composed = compose(blobs, config, &layers, None).unwrap();
    (composed.manifest, layers.into_iter().map(|l| l.blob).collect())
}

fn target(fake: &Fake) -> Reference {
    format!("{}/team/app:1", fake.host).parse().unwrap()
}

fn push(
    local: &Local,
    fake: &Fake,
    root: &Descriptor,
    origins: &BlobOrigins,
) -> Result<(), String> {
    let registry = local.images.registry();
    let blobs = local.images.blobs();
    let pushed = registry.push(&target(fake), root, blobs, origins, &Transfer::quiet());
    pushed.map_err(|e| e.to_string())
}

/// Answers pushes the honest way.
fn accept(request: &Request) -> Reply {
    let path = request.path.as_str();
    match request.method.as_str() {
        "HEAD" | "GET" => Reply::new(404),
        "POST" => Reply::new(202).header("location", "/v2/team/app/blobs/uploads/u1?state=a"),
        "PATCH" => Reply::new(202).header("location", path.to_owned() + "?state=b"),
        _ => Reply::new(201),
    }
}

#[test]
fn what_is_there_is_not_sent_and_manifests_come_last() {
    let local = Local::new();
    let (root, layers) = image(&local, &[b"there", b"missing"]);
    let there = layers[0].digest.to_string();
    let fake = Fake::start(move |r| {
        if r.method == "HEAD" && r.path.ends_with(&there) { Reply::new(200) } else { accept(r) }
    });
    push(&local, &fake, &root, &BlobOrigins::new()).unwrap();
    let log = fake.log();
    assert_eq!(fake.count("POST", "/blobs/uploads/"), 2, "the missing layer and the config");
    let last = log.last().unwrap();
    assert_eq!(last.line(), "PUT /v2/team/app/manifests/1");
    assert_eq!(last.header("content-type"), Some(mt::OCI_MANIFEST));
    assert_eq!(Digest::of(&last.body), root.digest);
    let sent = log.iter().find(|r| r.method == "PUT" && r.body == b"missing").unwrap();
    let name = layers[1].digest.to_string().replace(':', "%3A");
    assert_eq!(sent.query, format!("state=a&digest={name}"));
}

#[test]
fn the_registry_copies_blobs_of_its_other_repositories() {
    let local = Local::new();
    let (root, layers) = image(&local, &[b"base layer"]);
    let fake =
        Fake::start(|r| if r.query.contains("mount=") { Reply::new(201) } else { accept(r) });
    let base = format!("{}/library/base", fake.host).parse().unwrap();
    // It is not even here: nobody needed to unpack it.
    local.images.blobs().remove(&layers[0].digest).unwrap();
    push(&local, &fake, &root, &BlobOrigins::from([(layers[0].digest, base)])).unwrap();
    let log = fake.log();
    let mount = log.iter().find(|r| r.query.contains("mount=")).unwrap();
    assert!(mount.query.ends_with("&from=library%2Fbase"), "{}", mount.query);
    assert!(log.iter().all(|r| r.body != b"base layer"));
}

#[test]
fn a_refused_copy_is_uploaded_and_fetched_first_when_it_is_elsewhere() {
    let local = Local::new();
    let (root, layers) = image(&local, &[b"base layer"]);
    let elsewhere = Fake::start(|_| Reply::ok("base layer"));
    let fake = Fake::start(accept);
    local.images.blobs().remove(&layers[0].digest).unwrap();
    let base = format!("{}/library/base", elsewhere.host).parse().unwrap();
    push(&local, &fake, &root, &BlobOrigins::from([(layers[0].digest, base)])).unwrap();
    assert!(fake.log().iter().any(|r| r.body == b"base layer"));
}

#[test]
fn a_broken_upload_goes_on_where_it_stopped() {
    let local = Local::new();
    let layer = noise(6_000_000);
    let (root, _) = image(&local, &[&layer]);
    let patches = AtomicUsize::new(0);
    let fake = Fake::start(move |r| match r.method.as_str() {
        "PATCH" if patches.fetch_add(1, Ordering::Relaxed) == 0 => Reply::new(500),
        "GET" => Reply::new(204)
            .header("range", "0-3999999")
            .header("location", "/v2/team/app/blobs/uploads/u2"),
        _ => accept(r),
    });
    push(&local, &fake, &root, &BlobOrigins::new()).unwrap();
    let log = fake.log();
    let patches: Vec<_> = log.iter().filter(|r| r.method == "PATCH").collect();
    assert_eq!(patches.len(), 2);
    assert_eq!(patches[0].body.len(), 6_000_000);
    assert_eq!(patches[1].header("content-range"), Some("4000000-5999999"));
    assert_eq!(patches[1].path, "/v2/team/app/blobs/uploads/u2");
    assert_eq!(patches[1].body, layer[4_000_000..]);
}

#[test]
fn an_upload_that_the_registry_forgot_begins_again() {
    let local = Local::new();
    let (root, _) = image(&local, &[&noise(5_000_000)]);
    let patches = AtomicUsize::new(0);
    let fake = Fake::start(move |r| match r.method.as_str() {
        "PATCH" if patches.fetch_add(1, Ordering::Relaxed) == 0 => Reply::new(503),
        _ => accept(r),
    });
    push(&local, &fake, &root, &BlobOrigins::new()).unwrap();
    assert_eq!(fake.count("PATCH", "/uploads/"), 2);
}

#[test]
fn a_refused_push_says_what_the_registry_said() {
    let local = Local::new();
    let (root, _) = image(&local, &[b"layer"]);
    let fake = Fake::start(|r| match r.method.as_str() {
        "POST" => Reply {
            status: 403,
            ..Reply::ok(r#"{"errors":[{"code":"DENIED","message":"over quota"}]}"#)
        },
        _ => accept(r),
    });
    let error = push(&local, &fake, &root, &BlobOrigins::new()).unwrap_err();
    assert!(error.contains("answered 403 (DENIED over quota)"), "{error}");
    assert_eq!(fake.count("PUT", "/manifests/"), 0);
}

#[test]
fn progress_ends_at_the_whole_of_each_blob() {
    let local = Local::new();
    let layer = noise(9_000_000);
    let (root, layers) = image(&local, &[&layer]);
    let fake = Fake::start(accept);
    let seen = Mutex::new(Vec::new());
    let callback = |p| seen.lock().unwrap().push(p);
    let transfer = Transfer::quiet().with_progress(&callback);
    let (registry, blobs) = (local.images.registry(), local.images.blobs());
    registry.push(&target(&fake), &root, blobs, &BlobOrigins::new(), &transfer).unwrap();
    let seen = seen.into_inner().unwrap();
    let last = seen.iter().rfind(|p| p.digest == layers[0].digest).unwrap();
    assert_eq!((last.done, last.total), (9_000_000, 9_000_000));
}

#[test]
fn an_image_that_is_not_whole_is_not_pushed() {
    let local = Local::new();
    let (root, layers) = image(&local, &[b"layer"]);
    local.images.blobs().remove(&layers[0].digest).unwrap();
    let fake = Fake::start(accept);
    push(&local, &fake, &root, &BlobOrigins::new()).unwrap_err();
    assert_eq!(fake.count("PUT", "/manifests/"), 0);
    let nowhere = Descriptor::new(mt::OCI_MANIFEST, Digest::of("no"), 2);
    push(&local, &fake, &nowhere, &BlobOrigins::new()).unwrap_err();
}
