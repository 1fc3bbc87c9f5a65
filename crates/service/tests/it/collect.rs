//! Objects of a shared blob store, on a real S3 server: what nothing needs goes, and only that.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use ashlar_blobs::{AGE_MIN, BlobInfo, Remote, RemoteError};
use ashlar_core::journal::{ArtifactRecord, Event};
use ashlar_core::{BuildId, Digest, TenantId, Timestamp};
use ashlar_records::{IMAGE_RECORD, Stamped, Store, Writer};
use ashlar_service::{
    Collected, ContextFile, ContextManifest, Service, ServiceConfig, SubmitRequest, now,
};
use serde_json::json;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::s3::{BUCKET, S3};
use crate::world::{World, role};

crate::on_both! {
    what_nothing_needs_is_removed_and_what_is_held_stays;
    images_are_kept_as_long_as_their_build_has_them;
    a_blob_that_somebody_begins_to_need_is_never_lost;
    one_server_collects_at_a_time;
}

/// The part of the bucket that the tests use.
const PREFIX: &str = "shared";

/// A blob store that servers share.
struct Shared {
    s3: S3,
    remote: Arc<dyn Remote>,
    database: String,
}

impl Shared {
    async fn start(world: &World) -> Self {
        let database = world.database();
        let start = move || {
            let s3 = S3::start();
            let remote = ashlar_objects::open(&s3.url(PREFIX), s3.variables()).unwrap();
            Self { s3, remote, database }
        };
        tokio::task::spawn_blocking(start).await.unwrap()
    }

    fn configure(&self, config: &mut ServiceConfig) {
        config.blob_store = Some(self.remote.clone());
        config.database = Some(self.database.clone());
    }

    async fn store(&self) -> Store {
        Store::open(&self.database).await.unwrap()
    }

    fn object(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let place = self.s3.dir.path().join(BUCKET).join(PREFIX).join("blobs/sha256");
        place.join(&hex[..2]).join(hex)
    }

    fn has(&self, digest: &Digest) -> bool {
        self.object(digest).exists()
    }

    /// Makes objects old enough to be collected.
    fn age(&self, digests: &[Digest]) {
        let old = SystemTime::now() - AGE_MIN * 2;
        for digest in digests {
            let file = File::options().append(true).open(self.object(digest)).unwrap();
            file.set_modified(old).unwrap();
        }
    }

    /// Puts an object there that no row names.
    async fn upload(&self, text: &'static str) -> Digest {
        let (remote, digest) = (self.remote.clone(), Digest::of(text));
        let upload = move || remote.upload(&digest, &mut text.as_bytes(), text.len() as u64);
        tokio::task::spawn_blocking(upload).await.unwrap().unwrap();
        digest
    }

    /// Makes rights old enough to lapse.
    async fn age_rights(&self, tenant: TenantId, digests: &[Digest]) {
        let long_ago = Timestamp::from_nanos(now().nanos() - 10 * 86_400_000_000_000);
        assert!(self.store().await.grant(tenant, digests, false, long_ago).await.unwrap());
    }
}

async fn put(service: &Arc<Service>, text: &str) -> Digest {
    service.put_blob(service.admin(), None, text.as_bytes().to_vec()).await.unwrap()
}

async fn collect(service: &Arc<Service>) -> Collected {
    service.collect_objects(Duration::ZERO).await.unwrap().unwrap()
}

/// Submits a build that nobody runs.
async fn waiting(service: &Arc<Service>, context: Option<Digest>) -> BuildId {
    let mut definition = role("ok");
    definition.contexts.extend(context.map(|c| ("context".to_owned(), c)));
    let request = SubmitRequest::new("native", "web", "waits", definition);
    service.submit(service.admin(), request).await.unwrap().record.submission.build
}

async fn what_nothing_needs_is_removed_and_what_is_held_stays(world: World) {
    let shared = Shared::start(&world).await;
    let service = world.open_with(|config| shared.configure(config)).await;
    let tenant = service.admin().tenant.id;
    let context = async |path: &str, file| {
        let files = vec![ContextFile::file(path, file)];
        service.put_context(service.admin(), ContextManifest { files }).await.unwrap()
    };
    let (file, other) = (put(&service, "of a context").await, put(&service, "of another").await);
    let (held, lately) = (context("a", file).await, context("b", other).await);
    let build = waiting(&service, Some(held)).await;
    let used = put(&service, "used lately").await;
    let unused = put(&service, "used long ago").await;
    let orphan = shared.upload("named by no row").await;
    let young = shared.upload("stored just now").await;
    // As a log mover leaves it that died before its rows were replaced.
    let segment = shared.upload("a piece of a log").await;
    let nobody = TenantId::from_uuid(Uuid::nil());
    shared.age_rights(tenant, &[file, held, unused, other]).await;
    shared.age_rights(nobody, &[segment]).await;
    shared.age(&[file, other, held, lately, used, unused, orphan, segment]);
    let done = collect(&service).await;
    assert_eq!((done.grants, done.objects), (2, 3), "{done:?}");
    for digest in [orphan, unused, segment] {
        assert!(!shared.has(&digest));
    }
    for digest in [file, held, other, lately, used, young] {
        assert!(shared.has(&digest));
    }
    // What a build was accepted with is its own until the build is forgotten.
    service.cancel(service.admin(), build, None).await.unwrap();
    service.delete(service.admin(), build).await.unwrap();
    shared.age_rights(tenant, &[file, held]).await;
    let done = collect(&service).await;
    assert!(!shared.has(&file) && !shared.has(&held) && done.objects == 2, "{done:?}");
    // The tenant has it no more, and gets it again by uploading it.
    let missing = service.missing_blobs(service.admin(), vec![file, used]).await.unwrap();
    assert_eq!(missing.0, [file]);
    assert_eq!(put(&service, "of a context").await, file);
    assert!(shared.has(&file));
}

async fn images_are_kept_as_long_as_their_build_has_them(world: World) {
    let shared = Shared::start(&world).await;
    let service = world.open_with(|config| shared.configure(config)).await;
    let store = shared.store().await;
    let (layer, config) = (shared.upload("layer").await, shared.upload("config").await);
    let manifest = json!({ "config": { "digest": config }, "layers": [{ "digest": layer }] });
    let manifest = shared.upload(manifest.to_string().leak()).await;
    let record = json!({ "version": 1, "image": { "manifest": { "digest": manifest } } });
    let record = shared.upload(record.to_string().leak()).await;
    let all = [layer, config, manifest, record];
    let build = waiting(&service, None).await;
    let references = vec![format!("{IMAGE_RECORD}{record}")];
    let (name, kind) = ("image".to_owned(), "image".to_owned());
    let digest = Digest::of("the image's id");
    let artifact = ArtifactRecord { name, kind, digest, bytes: None, references };
    let events = [Stamped::new(now(), Event::Artifact(artifact))];
    store.append(build, Writer::Service, events).await.unwrap();
    shared.age(&all);
    assert_eq!(collect(&service).await.objects, 0);
    assert!(all.iter().all(|digest| shared.has(digest)));
    let gone = Event::ArtifactRemoved { name: "image".into(), reason: "test".into() };
    store.append(build, Writer::Service, [Stamped::new(now(), gone)]).await.unwrap();
    assert_eq!(collect(&service).await.objects, 4);
    assert!(!all.iter().any(|digest| shared.has(digest)));
}

/// Something that another server does at a certain moment.
type Act = Box<dyn FnOnce() + Send>;

/// A store during whose calls something happens.
struct Meanwhile {
    inner: Arc<dyn Remote>,
    /// After all objects were listed.
    listed: Mutex<Option<Act>>,
    /// Right before the first object is removed.
    removing: Mutex<Option<Act>>,
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

fn happen(act: &Mutex<Option<Act>>) {
    let act = act.lock().unwrap().take();
    if let Some(act) = act {
        act();
    }
}

impl Remote for Meanwhile {
    fn check(&self) -> Result<(), RemoteError> {
        self.inner.check()
    }

    fn look(&self, digest: &Digest) -> Result<Option<BlobInfo>, RemoteError> {
        self.inner.look(digest)
    }

    fn fetch(&self, digest: &Digest, from: u64, to: &mut dyn Write) -> Result<(), RemoteError> {
        self.inner.fetch(digest, from, to)
    }

    fn upload(
        &self,
        digest: &Digest,
        content: &mut (dyn Read + Send),
        size: u64,
    ) -> Result<(), RemoteError> {
        self.inner.upload(digest, content, size)
    }

    fn remove(&self, digest: &Digest) -> Result<bool, RemoteError> {
        happen(&self.removing);
        self.inner.remove(digest)
    }

    fn list(&self, visit: &mut dyn FnMut(BlobInfo) -> ControlFlow<()>) -> Result<(), RemoteError> {
        self.inner.list(visit)?;
        happen(&self.listed);
        Ok(())
    }
}

async fn a_blob_that_somebody_begins_to_need_is_never_lost(mut world: World) {
    let shared = Shared::start(&world).await;
    let (listed, removing) = (Mutex::default(), Mutex::default());
    let meanwhile = Arc::new(Meanwhile { inner: shared.remote.clone(), listed, removing });
    let remote = meanwhile.clone();
    let collector = world
        .open_with(|config| {
            shared.configure(config);
            config.blob_store = Some(remote);
        })
        .await;
    let other = world.open_beside_with(|config| shared.configure(config)).await;
    let (granted, again, racing) = (
        shared.upload("granted").await,
        shared.upload("again").await,
        shared.upload("racing").await,
    );
    shared.age(&[granted, again, racing]);
    let (runtime, server, store) = (Handle::current(), other.clone(), shared.remote.clone());
    *meanwhile.listed.lock().unwrap() = Some(Box::new(move || {
        // One is granted, the other one stored by somebody who has yet to say what for.
        runtime.block_on(put(&server, "granted"));
        store.upload(&Digest::of("again"), &mut &b"again"[..], 5).unwrap();
    }));
    let (runtime, server) = (Handle::current(), other.clone());
    let (done, ended) = mpsc::channel();
    *meanwhile.removing.lock().unwrap() = Some(Box::new(move || {
        let (said, says) = mpsc::channel();
        thread::spawn(move || {
            runtime.block_on(put(&server, "racing"));
            // Whoever listens may have given up.
            let _ = said.send(());
            done.send(()).unwrap();
        });
        // Whoever did not wait for the removal would be done before it.
        let _ = says.recv_timeout(Duration::from_millis(500));
    }));
    assert_eq!(collect(&collector).await.objects, 1, "only the one that is stored again after");
    tokio::task::spawn_blocking(move || ended.recv_timeout(Duration::from_secs(60)))
        .await
        .unwrap()
        .unwrap();
    for digest in [granted, again, racing] {
        assert!(shared.has(&digest));
    }
    let missing = collector.missing_blobs(collector.admin(), vec![granted, racing]).await.unwrap();
    assert!(missing.0.is_empty(), "{missing:?}");
}

async fn one_server_collects_at_a_time(mut world: World) {
    let shared = Shared::start(&world).await;
    let one = world.open_with(|config| shared.configure(config)).await;
    let two = world.open_beside_with(|config| shared.configure(config)).await;
    let hour = Duration::from_secs(3600);
    assert_eq!(one.collect_objects(hour).await.unwrap(), Some(Collected::default()));
    for server in [&one, &two] {
        assert_eq!(server.collect_objects(hour).await.unwrap(), None, "it was done just now");
    }
    assert!(two.collect_objects(Duration::ZERO).await.unwrap().is_some());
    let (turn, minute) = ("collect-objects", Duration::from_secs(60));
    let third = ashlar_core::WorkerId::from_uuid(Uuid::max());
    assert!(
        shared.store().await.take_turn(turn, third, now(), minute, Duration::ZERO).await.unwrap()
    );
    assert_eq!(one.collect_objects(Duration::ZERO).await.unwrap(), None, "another is at it");
}
