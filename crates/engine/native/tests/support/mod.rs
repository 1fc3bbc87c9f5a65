//! A data directory with a base image, and builds in it.
#![allow(dead_code, reason = "no test file needs all of it")]
#![allow(clippy::allow_attributes, reason = "an expectation fails where all is used")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::failure::Failure;
use ashlar_core::frontend::{Answers, Diagnostic, Frontend, Lowered, Plan};
use ashlar_core::graph::{Graph, Network, NodeMeta, Op};
use ashlar_core::image::ImageConfig;
use ashlar_core::journal::{Event, Sink};
use ashlar_core::{Platform, Timestamp};
use ashlar_frontend_dockerfile::{DockerfileFrontend, Request};
use ashlar_layers::KnownFiles;
use ashlar_native::{BuildLimits, BuildRequest, Built, Engine, EngineConfig};
use ashlar_oci::{LayerRef, LocalImage, Origin, PullPolicy, Transfer};
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
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = NativeConfig::new(data.path().join("sandbox"));
        let sandbox = Arc::new(NativeSandbox::new(&config).unwrap());
        let mut config = EngineConfig::new(data.path().join("data"));
        change(&mut config);
        let engine = Engine::open(config, sandbox).unwrap();
        add_base(&engine);
        Self { engine, context: tempfile::tempdir().unwrap(), _data: data }
    }

    /// Opens the same data directory once more, as the next process would.
    pub(crate) fn reopen(self) -> Self {
        let Self { engine, context, _data } = self;
        let config = NativeConfig::new(_data.path().join("sandbox"));
        let sandbox = Arc::new(NativeSandbox::new(&config).unwrap());
        let config = EngineConfig::new(engine.dir().root());
        drop(engine);
        Self { engine: Engine::open(config, sandbox).unwrap(), context, _data }
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
            hidden: BTreeMap::new(),
            credentials: BTreeMap::new(),
            pull: false,
            ssh: BTreeMap::new(),
            limits: BuildLimits::default(),
            network: Network::None,
            entitlements: BTreeSet::new(),
            asked: std::time::Instant::now(),
            identity: None,
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
        self.try_read(built, path).unwrap_or_else(|| panic!("{path} is not there"))
    }

    pub(crate) fn try_read(&self, built: &Built, path: &str) -> Option<String> {
        let bytes = self.engine.snapshots().read(&built.tree, path.as_bytes(), 1 << 20).unwrap();
        bytes.map(|b| String::from_utf8(b).unwrap())
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        self.engine.dir().root()
    }

    /// The operation that stands for the image `base`.
    pub(crate) fn base_op(&self) -> Op {
        let name = "base".parse().unwrap();
        let (images, platform) = (self.engine.images(), Platform::host());
        let policy = PullPolicy::Local;
        let image = images.resolve(&name, &platform, policy, &Transfer::quiet()).unwrap();
        Op::Image { reference: name.to_string(), manifest: image.id(), platform }
    }

    /// Builds the tree of a directory of a repository.
    pub(crate) fn build_git(
        &self,
        url: &str,
        reference: &str,
        subdir: &str,
    ) -> Result<Done, NotDone> {
        let mut graph = Graph::new();
        let op = Op::Git {
            remote: url.into(),
            reference: reference.into(),
            checksum: None,
            subdir: subdir.into(),
            keep_git_dir: false,
            submodules: false,
        };
        let target = graph.add(op, vec![], NodeMeta::default()).unwrap();
        let plan = Plan {
            graph,
            target,
            config: ImageConfig::default(),
            layer_nodes: vec![],
            steps: vec![],
            warnings: vec![],
        };
        let mut request = self.request(Request::text(""));
        request.frontend = Arc::new(Ready(plan));
        self.run(request, &Cancel::new().unwrap())
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

/// A plan that is there already.
pub(crate) struct Ready(pub(crate) Plan);

impl Frontend for Ready {
    fn name(&self) -> &'static str {
        "test"
    }

    fn lower(&self, _: &Answers) -> Result<Lowered, Box<Diagnostic>> {
        Ok(Lowered::Plan(Box::new(self.0.clone())))
    }
}

/// Hears nothing.
pub(crate) struct Quiet;

impl Sink for Quiet {
    fn event(&self, _: Event) {}
}

/// Returns the files below a directory that hold `needle`.
pub(crate) fn needle(dir: &Path, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(self::needle(&path, needle));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            if bytes.windows(needle.len()).any(|w| w == needle) {
                found.push(path);
            }
        }
    }
    found
}

/// Counts processes of the host whose command line holds `text`.
pub(crate) fn processes_with(text: &str) -> usize {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().into_string().ok());
    let mine = std::process::id().to_string();
    let has = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).split('\0').any(|a| a == text)
    };
    pids.filter(|p| p.bytes().all(|b| b.is_ascii_digit()) && *p != mine).filter(has).count()
}
