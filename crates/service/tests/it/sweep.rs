//! What is swept from one machine's disk: names of images, rights to blobs, and what contexts keep.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ashlar_core::{BuildId, Digest, Platform, TenantId};
use ashlar_oci::{ImageStore, LocalImage, Origin, Reference};
use ashlar_records::{Store, Submit};
use ashlar_service::{
    Actor, ContextFile, ContextManifest, ErrorKind, Service, SubmitRequest, new_build_id, now,
};
use serde_json::json;

use crate::world::{World, role};

crate::on_both! {
    names_of_images_go_with_their_builds;
    rights_go_when_nothing_needs_them;
    a_list_that_cannot_be_read_spares_its_tenant_only;
    only_what_was_kept_as_a_context_is_taken_as_one;
    an_upload_stays_until_it_is_stored;
}

const DAY: Duration = Duration::from_secs(86_400);

fn name(tenant: TenantId, build: BuildId) -> Reference {
    format!("build.ashlar.internal/{tenant}/{build}:latest").parse().unwrap()
}

fn image(names: &[Reference]) -> LocalImage {
    LocalImage {
        names: names.to_vec(),
        platform: Platform::host(),
        config: json!({}),
        config_digest: None,
        layers: Vec::new(),
        manifest: None,
        origin: Origin::Built,
        repository: None,
        created: now(),
    }
}

async fn names_of_images_go_with_their_builds(world: World) {
    let service = world.open().await;
    service.start();
    let tenant = service.admin().tenant.id;
    let mut built = Vec::new();
    for _ in 0..2 {
        let request = SubmitRequest::new("native", "web", "app", role("ok"));
        let accepted = service.submit(service.admin(), request).await.unwrap();
        built.push(world.ended(&service, accepted.record.submission.build).await.submission.build);
    }
    let images = ImageStore::open(world.data_dir()).unwrap();
    let unknown = new_build_id(now()).unwrap();
    let app: Reference = "app:1".parse().unwrap();
    let names: Vec<Reference> = [built[0], built[1], unknown].map(|b| name(tenant, b)).into();
    images.add(&[image(&[])], &[names.clone(), vec![app.clone()]].concat(), None).unwrap();
    let left = || -> Vec<Reference> {
        let mut left: Vec<_> = images.names().unwrap().into_iter().map(|n| n.name).collect();
        left.sort_by_key(ToString::to_string);
        left
    };
    assert_eq!(left().len(), 4);
    assert_eq!(service.sweep_images().await.unwrap(), 1);
    assert!(!left().contains(&names[2]));
    // An artifact takes its name with it; should it come back, as after a crash, it is swept.
    service.remove_artifact(service.admin(), built[1], "image").await.unwrap();
    assert!(!left().contains(&names[1]));
    images.add(&[image(&[])], std::slice::from_ref(&names[1]), None).unwrap();
    assert_eq!(service.sweep_images().await.unwrap(), 1);
    let mut want = vec![app, names[0].clone()];
    want.sort_by_key(ToString::to_string);
    assert_eq!(left(), want);
    assert_eq!(service.sweep_images().await.unwrap(), 0);
    service.drain().await;
}

fn right(world: &World, tenant: TenantId, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    world.data_dir().join("grants").join(tenant.to_string()).join(&hex[..2]).join(hex)
}

fn age(world: &World, tenant: TenantId, digests: &[Digest]) {
    let context = world.data_dir().join("grants").join(tenant.to_string()).join("contexts");
    for digest in digests {
        for path in [right(world, tenant, digest), context.join(digest.hex())] {
            if let Ok(file) = File::options().append(true).open(path) {
                file.set_modified(SystemTime::now() - DAY * 3).unwrap();
            }
        }
    }
}

async fn put(service: &Arc<Service>, actor: &Actor, text: &str) -> Digest {
    service.put_blob(actor, None, text.as_bytes().to_vec()).await.unwrap()
}

async fn context(service: &Arc<Service>, actor: &Actor, file: Digest) -> Digest {
    let manifest = ContextManifest { files: vec![ContextFile::file("file", file)] };
    service.put_context(actor, manifest).await.unwrap()
}

fn with_context(context: Digest) -> SubmitRequest {
    let mut definition = role("ok");
    definition.contexts.insert("context".into(), context);
    SubmitRequest::new("native", "web", "app", definition)
}

async fn rights_go_when_nothing_needs_them(world: World) {
    let service = world.open().await;
    let (admin, tenant) = (service.admin().clone(), service.admin().tenant.id);
    let (a, b, c) = (
        put(&service, &admin, "a").await,
        put(&service, &admin, "b").await,
        put(&service, &admin, "c").await,
    );
    let (held, known, forgotten) = (
        context(&service, &admin, a).await,
        context(&service, &admin, b).await,
        context(&service, &admin, c).await,
    );
    let accepted = service.submit(&admin, with_context(held)).await.unwrap();
    let unused = put(&service, &admin, "unused").await;
    // One context is known still, and may be submitted any moment; its file was not looked at since.
    age(&world, tenant, &[a, b, c, held, forgotten, unused]);
    assert_eq!(service.sweep_grants().await.unwrap(), 3);
    for (digest, stays) in
        [(a, true), (held, true), (b, true), (known, true), (c, false), (forgotten, false)]
    {
        assert_eq!(right(&world, tenant, &digest).exists(), stays, "{digest}");
    }
    assert!(!right(&world, tenant, &unused).exists());
    let build = accepted.record.submission.build;
    service.cancel(&admin, build, None).await.unwrap();
    service.delete(&admin, build).await.unwrap();
    assert_eq!(service.sweep_grants().await.unwrap(), 2);
    assert_eq!(service.sweep_grants().await.unwrap(), 0);
}

async fn a_list_that_cannot_be_read_spares_its_tenant_only(world: World) {
    let service = world.open().await;
    let admin = service.admin().clone();
    service.add_tenant(&admin, "other").await.unwrap();
    let other = service.act_for(&admin, "other").await.unwrap();
    // As a build of an older server may hold it: what is no context at all.
    let junk = put(&service, &admin, "this is no list").await;
    let store = Store::open(&world.database()).await.unwrap();
    let accepted = service.submit(&admin, SubmitRequest::new("native", "a", "b", role("ok"))).await;
    let mut held = Submit::new(accepted.unwrap().record.submission);
    held.submission.build = new_build_id(now()).unwrap();
    held.contexts = vec![junk];
    store.submit(&held, now()).await.unwrap();
    let (ours, theirs) = (put(&service, &admin, "x").await, put(&service, &other, "y").await);
    age(&world, admin.tenant.id, &[junk, ours]);
    age(&world, other.tenant.id, &[theirs]);
    assert_eq!(service.sweep_grants().await.unwrap(), 1);
    assert!(right(&world, admin.tenant.id, &ours).exists());
    assert!(!right(&world, other.tenant.id, &theirs).exists());
}

async fn only_what_was_kept_as_a_context_is_taken_as_one(world: World) {
    let service = world.open().await;
    let admin = service.admin().clone();
    let file = put(&service, &admin, "a file").await;
    let text = json!({ "files": [{ "path": "../x", "type": "file", "digest": file }] });
    for junk in ["no JSON".to_owned(), text.to_string()] {
        let junk = put(&service, &admin, &junk).await;
        let error = service.submit(&admin, with_context(junk)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.public().contains("contexts.context"), "{error}");
    }
    let kept = context(&service, &admin, file).await;
    service.submit(&admin, with_context(kept)).await.unwrap();
    // One that was accepted before contexts were known as such is accepted again.
    let mark = world.data_dir().join("grants").join(admin.tenant.id.to_string());
    fs::remove_file(mark.join("contexts").join(kept.hex())).unwrap();
    service.submit(&admin, with_context(kept)).await.unwrap();
    service.add_tenant(&admin, "other").await.unwrap();
    let other = service.act_for(&admin, "other").await.unwrap();
    assert!(service.submit(&other, with_context(kept)).await.is_err());
}

async fn an_upload_stays_until_it_is_stored(world: World) {
    let service = world.open().await;
    let digest = Digest::of("all of it");
    let tenant = service.admin().tenant.id.to_string();
    let partial = world.data_dir().join("uploads").join(tenant).join(digest.hex());
    let blobs = world.data_dir().join("blobs/sha256");
    let there = partial.clone();
    let done = tokio::task::spawn_blocking(move || {
        let mut upload = service.begin_blob(service.admin(), digest).unwrap();
        upload.write(b"all of it").unwrap();
        // Nothing can be stored: a file lies where the blob's folder would be.
        let shard = blobs.join(&digest.hex()[..2]);
        fs::write(&shard, "").unwrap();
        assert!(upload.finish().is_err() && there.exists());
        fs::remove_file(&shard).unwrap();
        let upload = service.begin_blob(service.admin(), digest).unwrap();
        assert_eq!(upload.offset(), 9);
        upload.finish().unwrap();
        assert!(!there.exists());
        // Bytes that are others than they should be are worth nothing.
        let wrong = Digest::of("something else");
        let mut upload = service.begin_blob(service.admin(), wrong).unwrap();
        upload.write(b"bytes").unwrap();
        assert_eq!(upload.finish().unwrap_err().kind(), ErrorKind::Invalid);
        assert!(!there.with_file_name(wrong.hex()).exists());
    });
    done.await.unwrap();
}
