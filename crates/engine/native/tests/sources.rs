//! Repositories and addresses as sources, and results as archives.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ashlar_layers::{Compression, Stop};
use ashlar_native::export::{Destination, Image, Output, OutputKind, Way};
use support::{Quiet, World};

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.test"])
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_repository_below_the_root_is_checked_out_and_cached_by_commit() {
    let root = tempfile::tempdir().unwrap();
    let repo = root.path().join("repo");
    std::fs::create_dir_all(repo.join("sub")).unwrap();
    git(&repo, &["init", "-q", "-b", "main"]);
    std::fs::write(repo.join("sub/file"), "one\n").unwrap();
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "-qm", "one"]);
    let first = git(&repo, &["rev-parse", "HEAD"]);
    let world = World::with(|c| c.git_file_root = Some(root.path().to_owned()));
    let url = format!("file://{}", repo.display());
    let done = world.build_git(&url, "main", "sub").unwrap();
    assert_eq!(world.read(&done.built, "/file"), "one\n");
    std::fs::write(repo.join("sub/file"), "two\n").unwrap();
    git(&repo, &["commit", "-qam", "two"]);
    let done = world.build_git(&url, "main", "sub").unwrap();
    assert_eq!(world.read(&done.built, "/file"), "two\n");
    let done = world.build_git(&url, &first, "sub").unwrap();
    assert_eq!(world.read(&done.built, "/file"), "one\n");
    let failed = world.build_git(&url, "nope", "").unwrap_err().failure;
    assert!(failed.message.contains("no branch or tag 'nope'"), "{failed}");
    let refused = World::new().build_git(&url, "main", "").unwrap_err().failure;
    assert!(refused.hint.unwrap().contains("--git-file-root"));
}

#[test]
fn an_address_is_fetched_once_while_it_does_not_change() {
    let served = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = served.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let n = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..n]).to_lowercase();
            let reply = if request.contains("if-none-match: \"v1\"") {
                "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned()
            } else {
                count.fetch_add(1, Ordering::SeqCst);
                "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
                    .to_owned()
            };
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    let world = World::new();
    let dockerfile = format!("FROM base\nADD http://127.0.0.1:{port}/a/file.txt /got/\n");
    for _ in 0..2 {
        let done = world.build(&dockerfile).unwrap();
        assert_eq!(world.read(&done.built, "/got/file.txt"), "hello");
    }
    assert_eq!(served.load(Ordering::SeqCst), 1);
    let wrong = format!(
        "FROM base\nADD --checksum=sha256:{} http://127.0.0.1:{port}/a/file.txt /got/\n",
        "0".repeat(64)
    );
    let failed = world.build(&wrong).unwrap_err().failure;
    assert!(failed.message.contains("digest"), "{failed}");
    assert_eq!(failed.location.unwrap().line, 2);
}

#[test]
fn a_plain_docker_archive_is_written_once_and_into_whatever_its_destination_is() {
    let world = World::new();
    let done = world.build("FROM base\nRUN seq 100000 >/n && ln /n /m\n").unwrap();
    let out = tempfile::tempdir().unwrap();
    let path = |name: &str| out.path().join(name);
    let image = Image::of(&done.built, vec!["example.test/app:1".parse().unwrap()], None).unwrap();
    let export = |kind, compression| {
        let output = Output { kind, compression, annotations: BTreeMap::new() };
        let cancel = ashlar_sandbox::Cancel::new().unwrap();
        world.engine.export(&done.built, &image, &output, &Quiet, &cancel).unwrap().unwrap()
    };
    let docker = |name: &str| OutputKind::DockerArchive(Destination::File(path(name)));
    let made = export(docker("first.tar"), Compression::None);
    let manifest: ashlar_oci::Manifest = serde_json::from_slice(
        &world.engine.images().blobs().read(&made.manifest.digest, 1 << 20).unwrap(),
    )
    .unwrap();
    let layer = manifest.layers.last().unwrap();
    assert!(
        !world.engine.images().blobs().has(&layer.digest).unwrap(),
        "it would be written twice"
    );

    let pipe = path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reading = std::thread::spawn(move || std::fs::read(pipe).unwrap());
    export(docker("pipe"), Compression::None);
    let first = std::fs::read(path("first.tar")).unwrap();
    assert!(reading.join().unwrap() == first, "from a record, into a pipe");
    assert!(path("pipe").metadata().is_ok_and(|m| !m.is_file()), "a pipe stays a pipe");

    export(OutputKind::OciArchive(Destination::File(path("oci.tar"))), Compression::None);
    assert!(world.engine.images().blobs().has(&layer.digest).unwrap());
    export(docker("second.tar"), Compression::None);
    assert!(std::fs::read(path("second.tar")).unwrap() == first, "from the store");
}

#[test]
fn results_leave_in_every_form() {
    let world = World::new();
    let done = world
        .build("FROM base\nRUN echo hi >/hi && ln /hi /hi2\nCMD [\"cat\", \"/hi\"]\n")
        .unwrap();
    let out = tempfile::tempdir().unwrap();
    let path = |name: &str| out.path().join(name);
    let names = vec!["example.test/app:1".parse().unwrap()];
    let image = Image::of(&done.built, names, Some(0)).unwrap();
    let kinds = [
        OutputKind::OciArchive(Destination::File(path("oci.tar"))),
        OutputKind::OciLayout(path("oci")),
        OutputKind::DockerArchive(Destination::File(path("docker.tar"))),
        OutputKind::Directory(path("files")),
        OutputKind::Tar(Destination::File(path("files.tar"))),
    ];
    for kind in kinds {
        for compression in [Compression::GZIP, Compression::ZSTD, Compression::None] {
            let annotations = BTreeMap::new();
            let output = Output { kind: kind.clone(), compression, annotations };
            if matches!(kind, OutputKind::Directory(_)) && path("files").exists() {
                std::fs::remove_dir_all(path("files")).unwrap();
            }
            world
                .engine
                .export(
                    &done.built,
                    &image,
                    &output,
                    &Quiet,
                    &ashlar_sandbox::Cancel::new().unwrap(),
                )
                .unwrap();
        }
    }
    assert_eq!(std::fs::read_to_string(path("files/hi")).unwrap(), "hi\n");
    let listed = Command::new("tar").arg("tf").arg(path("files.tar")).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().lines().any(|l| l == "hi"));
    for source in ["oci-archive:oci.tar", "oci:oci", "docker-archive:docker.tar"] {
        let skopeo = Command::new("skopeo")
            .args(["inspect", "--config", source])
            .current_dir(out.path())
            .output()
            .expect("install Debian's package skopeo");
        assert!(skopeo.status.success(), "{}", String::from_utf8_lossy(&skopeo.stderr));
        let config: serde_json::Value = serde_json::from_slice(&skopeo.stdout).unwrap();
        assert_eq!(config["config"]["Cmd"], serde_json::json!(["cat", "/hi"]));
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    }
    let id = world.engine.keep_image(&image, None).unwrap();
    let again = world.build("FROM example.test/app:1\nRUN test -e /hi\n").unwrap();
    assert!(again.built.layers.len() >= 2);
    assert!(world.engine.images().store().record(&id).unwrap().is_some());
}

#[test]
fn reproducible_layers_do_not_depend_on_what_was_made_before() {
    let world = World::new();
    let done = world.build("FROM base\nRUN seq 1 20000 >/numbers\n").unwrap();
    let manifest = |epoch: Option<i64>, compression: Compression| {
        let image = Image::of(&done.built, Vec::new(), epoch).unwrap();
        let kind = OutputKind::Registry(Vec::new());
        let output = Output { kind, compression, annotations: BTreeMap::new() };
        let way = Way { sink: &Quiet, stop: &Stop::default() };
        world.engine.package(&image, &output, way).unwrap().manifest.digest
    };
    let alone = manifest(Some(0), Compression::GZIP_QUICK);
    // As another order would have made it: the harder one first.
    let harder = manifest(Some(1), Compression::GZIP);
    let after = manifest(Some(1), Compression::GZIP_QUICK);
    assert_ne!(after, harder);
    assert_ne!(manifest(Some(0), Compression::GZIP), alone);
    assert_eq!(manifest(Some(0), Compression::GZIP_QUICK), alone);
    // Where nothing was promised, what is there serves.
    let harder = manifest(None, Compression::GZIP);
    assert_eq!(manifest(None, Compression::GZIP_QUICK), harder);
}
