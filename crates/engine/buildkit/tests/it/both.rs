//! The same Dockerfiles by both executors: equal configs, equal file trees.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use ashlar_core::image::ImageConfig;
use ashlar_frontend_dockerfile::{DockerfileFrontend, Request, Source};
use ashlar_layers::Compression;
use ashlar_native::export::{Destination, Image, Output, OutputKind};
use ashlar_native::{BuildRequest, Built, Engine, EngineConfig};
use ashlar_sandbox::{NativeConfig, NativeSandbox};

use crate::world::{World, registry};

/// Dockerfiles over the base image and the context of [`fill`], each of which shows something else.
const CASES: [(&str, &str); 18] = [
    ("copy a directory", "COPY tree /t"),
    ("copy to a directory", "COPY one two /d/"),
    ("copy over a link", "RUN ln -s /tmp /l\nCOPY one /l/"),
    ("links stay links", "COPY tree/link tree/up /"),
    ("owner and mode", "COPY --chown=7:8 --chmod=0640 one /o"),
    ("wildcards", "COPY t*/*.txt /w/"),
    ("ignored files", "COPY . /all"),
    ("linked copy", "COPY --link one /a/b/one"),
    ("an archive", "ADD tree.tar /x/"),
    ("a step", "RUN mkdir -p /m/n && echo hi >/m/n/f && chmod 751 /m && rm -r /var/www || true"),
    ("a deleted file", "COPY tree /t\nRUN rm /t/a.txt && rm -r /t/deep"),
    ("a here-document", "RUN <<EOT\necho one >/h\necho two >>/h\nEOT\nCOPY <<F /f\nbody\nF"),
    ("variables", "ARG A=1\nENV B=$A C=${A:-x}\nRUN echo $B$C >/v\nWORKDIR /w/$B\nRUN pwd >p"),
    (
        "users",
        "RUN echo me:x:1234:1234::/:/bin/sh >>/etc/passwd\nUSER me\nRUN id -u >/tmp/id\nCOPY --chown=me one /one",
    ),
    (
        "config",
        "EXPOSE 80 90/udp\nVOLUME /v\nLABEL a=b \"c d\"=\"e f\"\nSTOPSIGNAL SIGINT\nENTRYPOINT [\"/e\"]\n\
         CMD a b\nHEALTHCHECK --interval=5s CMD true\nONBUILD RUN x\nSHELL [\"/bin/sh\", \"-ec\"]",
    ),
    ("a cache mount", "RUN --mount=type=cache,target=/c echo x >/c/f && cp /c/f /f"),
    ("a bind mount", "RUN --mount=type=bind,target=/b cp /b/one /from-bind; ls /b/tree >/listed"),
    (
        "stages",
        "RUN echo s >/s\nFROM scratch AS last\nCOPY --from=0 /s /s\nCOPY --from=0 /bin/busybox /b",
    ),
];

fn fill(world: &World) {
    for name in ["one", "two", "tree/a.txt", "tree/b.txt", "tree/deep/c", "tree/skip.log"] {
        world.file(name, name);
    }
    let context = world.path("context");
    symlink("a.txt", context.join("tree/link")).unwrap();
    symlink("../one", context.join("tree/up")).unwrap();
    std::fs::hard_link(context.join("one"), context.join("tree/hard")).unwrap();
    world.file(".dockerignore", "**/*.log\n!keep.log\nDockerfile\n");
    let mut archive = tar::Builder::new(std::fs::File::create(context.join("tree.tar")).unwrap());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o604);
    header.set_uid(5);
    header.set_mtime(1_000_000);
    archive.append_data(&mut header, "in/side", &b"ab"[..]).unwrap();
    archive.finish().unwrap();
}

/// What of a file must be equal.
type Tree = BTreeMap<String, String>;

fn tree(engine: &Engine, world: &World, built: &Built) -> Tree {
    let image = Image::of(built, Vec::new(), None).unwrap();
    let path = world.path("flat.tar");
    let kind = OutputKind::Tar(Destination::File(path.clone()));
    let output = Output { kind, compression: Compression::None, annotations: BTreeMap::new() };
    engine.export(built, &image, &output, &*world.heard, &world.cancel).unwrap();
    let mut tree = Tree::new();
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let link = entry.link_name_bytes().map(|l| String::from_utf8(l.into_owned()).unwrap());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let header = entry.header();
        let about = format!(
            "{:?} {:o} {}:{} {link:?} {}",
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            ashlar_core::Digest::of(&bytes).short()
        );
        tree.insert(name.trim_start_matches("./").trim_end_matches('/').to_owned(), about);
    }
    tree
}

/// Takes out of a config what differs by its nature: times, and the archives of layers.
fn plain(config: &ImageConfig) -> serde_json::Value {
    let mut config = config.clone();
    (config.created, config.rootfs) = (None, Default::default());
    for entry in &mut config.history {
        entry.created = None;
    }
    // BuildKit's own notes on how it was built.
    config.other.retain(|name, _| !name.starts_with("moby.buildkit"));
    serde_json::to_value(config).unwrap()
}

#[test]
fn both_executors_make_the_same_of_the_same() {
    for store in ["store", "classic"] {
        let world = World::on(store);
        fill(&world);
        let sandbox = NativeSandbox::new(&NativeConfig::new(world.path("sandbox"))).unwrap();
        let engine =
            Engine::open(EngineConfig::new(world.path("native")), Arc::new(sandbox)).unwrap();
        let other = Engine::open(
            EngineConfig::new(world.path("data")),
            Arc::new(NativeSandbox::new(&NativeConfig::new(world.path("sandbox2"))).unwrap()),
        )
        .unwrap();
        for (what, rest) in CASES {
            let text = format!("FROM {}/library/busybox\n{rest}\n", registry());
            let made = world.build(&text);
            let theirs = other.built_elsewhere(&made.image).unwrap();
            let path = "Dockerfile".to_owned();
            let source = Source::Context { context: "context".into(), path };
            let request = BuildRequest {
                frontend: Arc::new(DockerfileFrontend::new(Request::new(source))),
                network: ashlar_core::graph::Network::None,
                ..world.request()
            };
            let ours =
                engine.build(request, &world.cancel).unwrap_or_else(|f| panic!("{what}: {f:?}"));
            assert_eq!(plain(&ours.config), plain(&theirs.config), "{store}: {what}");
            let (ours, theirs) = (tree(&engine, &world, &ours), tree(&other, &world, &theirs));
            let differs: Vec<_> = ours
                .keys()
                .chain(theirs.keys())
                .filter(|k| ours.get(*k) != theirs.get(*k))
                .map(|k| (k, ours.get(k), theirs.get(k)))
                .collect();
            assert!(differs.is_empty(), "{store}: {what}: {differs:#?}");
            assert!(theirs.len() > 1, "{what}: an empty tree shows nothing");
        }
    }
}
