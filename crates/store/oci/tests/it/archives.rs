//! Layouts and archives: what we write we read, and hostile ones are refused.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use ashlar_core::Digest;
use ashlar_oci::compose::imported_config;
use ashlar_oci::export::ExportError;
use ashlar_oci::import::{ImportError, images_of};
use ashlar_oci::manifest::Descriptor;
use ashlar_oci::{
    ArchiveKind, Entry, Imported, NewLayer, PullPolicy, Reference, Transfer, compose,
    compose_index, media_type as mt, read_archive, read_layout, write_archive, write_layout,
};
use serde_json::{Value, json};

use crate::support::{Local, noise};

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn image(local: &Local, architecture: &str, layers: &[&[u8]]) -> Descriptor {
    let blobs = local.images.blobs();
    let layer = |bytes: &&[u8]| {
        let info = blobs.put_bytes(bytes).unwrap();
        let blob = Descriptor::new(mt::OCI_LAYER, info.digest, info.size);
        NewLayer { blob, diff_id: info.digest }
    };
    let layers: Vec<_> = layers.iter().map(layer).collect();
    let config = json!({ "os": "linux", "architecture": architecture, "config": {}, "x": [1] });
    compose(blobs, config, &layers, None).unwrap().manifest
}

fn entry(root: Descriptor, names: &[&str]) -> Entry {
    Entry { root, names: names.iter().map(|n| name(n)).collect() }
}

fn archive(local: &Local, kind: ArchiveKind, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_archive(&mut bytes, kind, entries, local.images.blobs()).unwrap();
    bytes
}

fn import(bytes: &[u8]) -> (Local, Result<Vec<Imported>, ImportError>) {
    let local = Local::new();
    let result = read_archive(bytes, local.images.blobs());
    (local, result)
}

#[test]
fn archives_of_both_kinds_read_back() {
    let local = Local::new();
    let root = image(&local, "amd64", &[b"one", &noise(5000)]);
    for kind in [ArchiveKind::Oci, ArchiveKind::Docker] {
        let bytes = archive(&local, kind, &[entry(root.clone(), &["app:1", "host:5000/b:2"])]);
        assert_eq!(
            bytes,
            archive(&local, kind, &[entry(root.clone(), &["app:1", "host:5000/b:2"])])
        );
        for packed in [bytes.clone(), gzip(&bytes), zstd::encode_all(&bytes[..], 1).unwrap()] {
            let (other, imported) = import(&packed);
            let imported = imported.unwrap();
            assert_eq!(imported.len(), 1);
            assert_eq!(imported[0].root.digest, root.digest);
            assert_eq!(imported[0].names, [name("app:1"), name("host:5000/b:2")]);
            let extra: Reference = name("extra");
            other.images.add_imported(&imported, Some(&extra)).unwrap();
            let platform = "linux/amd64".parse().unwrap();
            for wanted in [&extra, &name("app:1")] {
                let found = other
                    .images
                    .resolve(wanted, &platform, PullPolicy::Default, &Transfer::quiet())
                    .unwrap();
                assert_eq!(found.manifest, Some(root.digest));
                let fetched = other.images.fetch_layer(&found, 1, &Transfer::quiet()).unwrap();
                assert_eq!(fetched.size, 5000);
            }
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn an_index_keeps_its_platforms_and_docker_refuses_them() {
    let local = Local::new();
    let images = vec![image(&local, "amd64", &[b"a"]), image(&local, "arm64", &[b"a", b"b"])];
    let index = compose_index(local.images.blobs(), images, None).unwrap();
    let entries = [entry(index.clone(), &["multi"])];
    let (_, imported) = import(&archive(&local, ArchiveKind::Oci, &entries));
    let imported = imported.unwrap();
    let platforms: Vec<_> = imported[0].images.iter().map(|i| i.platform.to_string()).collect();
    assert_eq!(
        (imported[0].root.digest, platforms),
        (index.digest, vec!["linux/amd64".into(), "linux/arm64".into()])
    );
    let refused = write_archive(Vec::new(), ArchiveKind::Docker, &entries, local.images.blobs());
    assert!(matches!(refused, Err(ExportError::Platforms)));
}

#[test]
fn a_layout_directory_reads_back_and_can_be_written_over() {
    let local = Local::new();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("layout");
    for layer in [b"old", b"new"] {
        let root = image(&local, "amd64", &[layer]);
        write_layout(&out, &[entry(root.clone(), &[])], local.images.blobs()).unwrap();
        let other = Local::new();
        let imported = read_layout(&out, other.images.blobs()).unwrap();
        assert_eq!(imported[0].root.digest, root.digest);
        let count = other.images.blobs().list().unwrap().len();
        assert_eq!(count, 3, "manifest, config and layer; what nothing names is left out");
    }
}

#[test]
fn hostile_layout_directories_are_refused() {
    let local = Local::new();
    let root = image(&local, "amd64", &[b"layer"]);
    let layer = Digest::of("layer").hex();
    type Change = fn(&std::path::Path);
    let changes: [(&str, Change); 6] = [
        ("blob changed", |b| fs::write(b, "liar!").unwrap()),
        ("blob cut", |b| fs::write(b, "lay").unwrap()),
        ("blob missing", |b| fs::remove_file(b).unwrap()),
        ("blob is a link", |b| {
            fs::rename(b, b.with_extension("real")).unwrap();
            symlink(b.with_extension("real"), b).unwrap();
        }),
        ("blob is a pipe", |b| {
            fs::remove_file(b).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(b).status().unwrap().success());
        }),
        ("index is nonsense", |b| {
            fs::write(b.parent().unwrap().join("../../index.json"), "{").unwrap();
        }),
    ];
    for (what, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        write_layout(dir.path(), &[entry(root.clone(), &[])], local.images.blobs()).unwrap();
        change(&dir.path().join("blobs/sha256").join(&layer));
        let other = Local::new();
        let result = read_layout(dir.path(), other.images.blobs());
        assert!(result.is_err(), "{what}: {result:?}");
        assert_eq!(other.images.blobs().list().unwrap(), [], "{what}: nothing may stay behind");
    }
}

/// Builds an archive of entries as they are told, right or wrong.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn entry(mut self, path: &str, kind: tar::EntryType, link: &str, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        let raw = header.as_old_mut();
        raw.name[..path.len()].copy_from_slice(path.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    fn file(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.entry(path, tar::EntryType::Regular, "", bytes.as_ref())
    }

    fn link(self, path: &str, to: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, to, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn docker_config(layers: &[&[u8]]) -> String {
    let ids: Vec<_> = layers.iter().map(Digest::of).collect();
    json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": ids } })
        .to_string()
}

fn manifest(layers: &[&str]) -> String {
    json!([{ "Config": "c.json", "RepoTags": ["old/app:1"], "Layers": layers }]).to_string()
}

#[test]
fn archives_of_old_dockers_with_links_are_read() {
    let config = docker_config(&[b"layer", b"layer"]);
    let tar = Tar::new()
        .file("aaa/layer.tar", "layer")
        .file("aaa/VERSION", "1.0")
        .link("bbb/layer.tar", "../aaa/layer.tar")
        .file("c.json", &config)
        .file("manifest.json", manifest(&["aaa/layer.tar", "bbb/layer.tar"]));
    let (local, imported) = import(&tar.bytes());
    let imported = imported.unwrap();
    assert_eq!(imported[0].names, [name("old/app:1")]);
    let image = &imported[0].images[0];
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.config_digest, Some(Digest::of(&config)), "the config keeps its digest");
    assert_eq!(local.images.blobs().list().unwrap().len(), 3, "VERSION is not kept");
}

#[test]
fn compressed_layers_of_docker_archives_are_recognised() {
    let (gz, zst) = (gzip(b"one"), zstd::encode_all(&b"two"[..], 1).unwrap());
    let tar = Tar::new()
        .file("1", &gz)
        .file("2", &zst)
        .file("c.json", docker_config(&[b"one", b"two"]))
        .file("manifest.json", manifest(&["1", "2"]));
    let (_, imported) = import(&tar.bytes());
    let image = &imported.unwrap()[0].images[0];
    let types: Vec<_> =
        image.layers.iter().map(|l| l.blob.as_ref().unwrap().media_type.clone()).collect();
    assert_eq!(types, [mt::OCI_LAYER_GZIP, mt::OCI_LAYER_ZSTD]);
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    let config = docker_config(&[b"layer"]);
    let good = || Tar::new().file("l", "layer").file("c.json", &config);
    let fine = manifest(&["l"]);
    let blob = |text: &str| format!("blobs/sha256/{}", Digest::of(text).hex());
    let index = |entries: Value| json!({ "schemaVersion": 2, "manifests": entries }).to_string();
    let layout = || Tar::new().file("oci-layout", "{}");
    let missing = json!([{ "mediaType": mt::OCI_MANIFEST, "digest": Digest::of("no"), "size": 2 }]);
    let cycle_free = json!({ "schemaVersion": 2, "mediaType": mt::OCI_MANIFEST,
        "config": { "mediaType": mt::OCI_CONFIG, "digest": Digest::of("x"), "size": 1 },
        "layers": [] })
    .to_string();
    let no_config = json!([{ "mediaType": mt::OCI_MANIFEST, "digest": Digest::of(&cycle_free), "size": cycle_free.len() }]);
    let wrong_size =
        json!([{ "mediaType": mt::OCI_MANIFEST, "digest": Digest::of(&cycle_free), "size": 1 }]);
    let device = tar::EntryType::Char;
    let hard = tar::EntryType::Link;
    let long = tar::EntryType::GNULongName;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("nonsense", noise(5000)),
        ("nothing in it", Tar::new().bytes()),
        ("a root file system", Tar::new().file("bin/sh", "x").bytes()),
        ("dot dot", good().file("../../etc/passwd", "x").file("manifest.json", &fine).bytes()),
        ("absolute", good().file("/etc/passwd", "x").file("manifest.json", &fine).bytes()),
        ("device", good().entry("d", device, "", b"").file("manifest.json", &fine).bytes()),
        ("link out", good().link("k", "../../etc/shadow").file("manifest.json", &fine).bytes()),
        ("absolute link", good().link("k", "/etc/shadow").file("manifest.json", &fine).bytes()),
        (
            "hard link out",
            good().entry("k", hard, "../x", b"").file("manifest.json", &fine).bytes(),
        ),
        ("link to itself", good().link("k", "k").file("manifest.json", manifest(&["k"])).bytes()),
        ("layer missing", good().file("manifest.json", manifest(&["gone"])).bytes()),
        ("host file", good().file("manifest.json", manifest(&["/etc/passwd"])).bytes()),
        ("too many layers", good().file("manifest.json", manifest(&["l", "l"])).bytes()),
        ("wrong layer", good().file("m", "other").file("manifest.json", manifest(&["m"])).bytes()),
        ("no images", good().file("manifest.json", "[]").bytes()),
        ("bad json", good().file("manifest.json", "[{").bytes()),
        ("huge manifest", good().file("manifest.json", vec![b' '; (4 << 20) + 1]).bytes()),
        ("endless name", good().entry("n", long, "", &vec![b'a'; 1 << 20]).bytes()),
        ("wrong blob", layout().file(&blob("x"), "y").file("index.json", index(json!([]))).bytes()),
        ("empty index", layout().file("index.json", index(json!([]))).bytes()),
        ("missing manifest", layout().file("index.json", index(missing)).bytes()),
        (
            "missing config",
            layout()
                .file(&blob(&cycle_free), &cycle_free)
                .file("index.json", index(no_config))
                .bytes(),
        ),
        (
            "wrong size",
            layout()
                .file(&blob(&cycle_free), &cycle_free)
                .file("index.json", index(wrong_size))
                .bytes(),
        ),
        ("index is no object", layout().file("index.json", "7").bytes()),
    ];
    for (what, bytes) in cases {
        let (local, result) = import(&bytes);
        assert!(result.is_err(), "{what}: {result:?}");
        assert_eq!(local.images.blobs().list().unwrap(), [], "{what}: nothing may stay behind");
    }
}

#[test]
fn a_truncated_archive_is_refused_wherever_it_ends() {
    let local = Local::new();
    let root = image(&local, "amd64", &[&noise(3000)]);
    let bytes = archive(&local, ArchiveKind::Docker, &[entry(root, &["a"])]);
    // The last two blocks only mark the end.
    for len in (0..bytes.len() - 1024 - 512).step_by(701) {
        let (local, result) = import(&bytes[..len]);
        assert!(result.is_err(), "cut at {len} of {}", bytes.len());
        assert_eq!(local.images.blobs().list().unwrap(), []);
    }
}

#[test]
fn deeply_nested_indexes_are_refused() {
    let local = Local::new();
    let mut root = image(&local, "amd64", &[b"layer"]);
    for _ in 0..6 {
        root = compose_index(local.images.blobs(), vec![root], None).unwrap();
    }
    let refused = write_layout(
        tempfile::tempdir().unwrap().path(),
        &[entry(root, &[])],
        local.images.blobs(),
    );
    assert!(matches!(refused, Err(ExportError::Image(_))), "{refused:?}");
}

#[test]
fn what_lacks_in_the_store_is_not_exported() {
    let local = Local::new();
    let root = image(&local, "amd64", &[b"layer"]);
    local.images.blobs().remove(&Digest::of("layer")).unwrap();
    let refused =
        write_archive(Vec::new(), ArchiveKind::Oci, &[entry(root, &[])], local.images.blobs());
    assert!(matches!(refused, Err(ExportError::Blob(_))), "{refused:?}");
}

#[test]
fn a_history_that_does_not_fit_is_refused() {
    let local = Local::new();
    let config = json!({ "history": [{ "empty_layer": true }, {}] });
    assert!(compose(local.images.blobs(), config, &[], None).is_err());
}

#[test]
fn an_imported_root_file_system_becomes_an_image() {
    let local = Local::new();
    let blobs = local.images.blobs();
    let info = blobs.put_bytes(b"tar of a root file system").unwrap();
    let blob = Descriptor::new(mt::OCI_LAYER, info.digest, info.size);
    let platform = "linux/arm/v7".parse().unwrap();
    let created = ashlar_core::Timestamp::from_nanos(0);
    let config = imported_config(&platform, created, "imported");
    let layers = [NewLayer { blob, diff_id: info.digest }];
    let root = compose(blobs, config, &layers, None).unwrap().manifest;
    let images = images_of(&root, blobs).unwrap();
    let imported = [Imported { root, names: vec![], images }];
    local.images.add_imported(&imported, Some(&name("base"))).unwrap();
    let policy = PullPolicy::Local;
    let found = local.images.resolve(&name("base"), &platform, policy, &Transfer::quiet()).unwrap();
    let config = found.image_config().unwrap();
    assert_eq!((found.platform, config.rootfs.diff_ids), (platform, vec![info.digest]));
    assert!(config.config.env_value("PATH").is_some());
}
