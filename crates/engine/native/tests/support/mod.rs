//! A data directory with a base image, and builds in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::failure::Failure;
use ashlar_core::graph::Network;
use ashlar_core::journal::{Event, Sink};
use ashlar_core::{Platform, Timestamp};
use ashlar_frontend_dockerfile::{DockerfileFrontend, Request};
use ashlar_layers::KnownFiles;
use ashlar_native::{BuildLimits, BuildRequest, Built, Engine, EngineConfig};
use ashlar_oci::{LayerRef, LocalImage, Origin};
use ashlar_sandbox::{Cancel, NativeConfig, NativeSandbox};
use ashlar_snapshots::Tree;
use tempfile::TempDir;

/// An engine in a directory of its own, with the image `base` and a context.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) context: TempDir,
    _data: TempDir,
}

/// What a build did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) built: Built,
    pub(crate) events: Vec<Event>,
}

/// What a failed build did.
#[derive(Debug)]
pub(crate) struct NotDone {
    pub(crate) failure: Failure,
    pub(crate) events: Vec<Event>,
}

#[derive(Default)]
struct Collect(Mutex<Vec<Event>>);

impl Sink for Collect {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = NativeConfig::new(data.path().join("sandbox"));
        let sandbox = Arc::new(NativeSandbox::new(&config).unwrap());
        let engine = Engine::open(EngineConfig::new(data.path().join("data")), sandbox).unwrap();
        add_base(&engine);
        Self { engine, context: tempfile::tempdir().unwrap(), _data: data }
    }

    pub(crate) fn file(&self, name: &str, content: &str) {
        let path = self.context.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn build(&self, dockerfile: &str) -> Result<Done, NotDone> {
        self.build_with(dockerfile, |_| {})
    }

    pub(crate) fn build_with(
        &self,
        dockerfile: &str,
        change: impl FnOnce(&mut Request),
    ) -> Result<Done, NotDone> {
        let mut request = Request::text(dockerfile);
        change(&mut request);
        self.run(self.request(request), &Cancel::new().unwrap())
    }

    pub(crate) fn request(&self, request: Request) -> BuildRequest {
        BuildRequest {
            frontend: Arc::new(DockerfileFrontend::new(request)),
            tenant: "local".into(),
            scope: "test".into(),
            name: "test".into(),
            build: "b1".into(),
            contexts: BTreeMap::from([("context".into(), self.context.path().to_owned())]),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            limits: BuildLimits::default(),
            network: Network::None,
            entitlements: BTreeSet::new(),
            epoch: None,
            sink: Arc::new(Collect::default()),
        }
    }

    pub(crate) fn run(&self, mut request: BuildRequest, cancel: &Cancel) -> Result<Done, NotDone> {
        let sink = Arc::new(Collect::default());
        request.sink = sink.clone();
        let result = self.engine.build(request, cancel);
        let events = std::mem::take(&mut *sink.0.lock().unwrap());
        match result {
            Ok(built) => Ok(Done { built, events }),
            Err(failure) => Err(NotDone { failure, events }),
        }
    }

    pub(crate) fn read(&self, built: &Built, path: &str) -> String {
        let bytes = self.engine.snapshots().read(&built.tree, path.as_bytes(), 1 << 20).unwrap();
        String::from_utf8(bytes.unwrap_or_else(|| panic!("{path} is not there"))).unwrap()
    }
}

impl Done {
    pub(crate) fn count(&self, kind: CacheKind, status: CacheStatus) -> usize {
        let fits =
            |e: &&Event| matches!(e, Event::Cache(c) if c.cache == kind && c.status == status);
        self.events.iter().filter(fits).count()
    }

    pub(crate) fn reasons(&self) -> Vec<String> {
        let reason = |e: &Event| match e {
            Event::Cache(c) if c.cache == CacheKind::Layer => Some(c.reason.as_ref()?.sentence()),
            _ => None,
        };
        self.events.iter().filter_map(reason).collect()
    }
}

/// Adds the image `base`: busybox with its applets.
fn add_base(engine: &Engine) {
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "install Debian's package busybox-static");
    let draft = engine.snapshots().begin(&Tree::scratch()).unwrap();
    let root = draft.upper();
    for dir in ["bin", "tmp", "etc", "root", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    let list = std::process::Command::new(busybox).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(list).unwrap().lines().filter(|a| *a != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
    let layer = draft.commit(&KnownFiles::new()).unwrap().id;
    let image = LocalImage {
        names: Vec::new(),
        platform: Platform::host(),
        config: serde_json::json!({
            "architecture": Platform::host().architecture, "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [{"created_by": "busybox"}],
        }),
        config_digest: None,
        layers: vec![LayerRef { tree: Some(layer), ..LayerRef::default() }],
        manifest: None,
        origin: Origin::Imported,
        repository: None,
        created: Timestamp::from_nanos(0),
    };
    let name = "base".parse().unwrap();
    engine.images().store().add(&[image], &[name], None).unwrap();
}
