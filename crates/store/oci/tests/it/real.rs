//! Against Debian's docker-registry and skopeo (packages `docker-registry` and `skopeo`).

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use ashlar_oci::manifest::Descriptor;
use ashlar_oci::registry::BlobOrigins;
use ashlar_oci::{
    ArchiveKind, Composed, Entry, NewLayer, PullPolicy, Reference, RegistrySettings, Transfer,
    compose, media_type as mt, write_archive, write_layout,
};
use serde_json::json;

use crate::support::{Local, noise, settings};

/// A real registry that lives as long as the test.
struct Real {
    host: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Real {
    fn start() -> Self {
        Self::with(tempfile::tempdir().unwrap(), "")
    }

    /// Starts it with more settings for its `http` part.
    fn with(dir: tempfile::TempDir, http: &str) -> Self {
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\nhttp: {{ addr: '{host}'{http} }}\n",
            dir.path().display()
        );
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("install the Debian package docker-registry");
        let real = Self { host, child, _dir: dir };
        let begun = Instant::now();
        while std::net::TcpStream::connect(&real.host).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "docker-registry does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        real
    }

    fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host).parse().unwrap()
    }
}

fn skopeo(arguments: &[&str]) -> String {
    let output = Command::new("skopeo")
        .arg("--insecure-policy")
        .args(arguments)
        .output()
        .expect("install the Debian package skopeo");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// An image with one small gzip layer and one large plain one, as real archives.
fn image(local: &Local) -> Composed {
    let blobs = local.images.blobs();
    let archive = |content: &[u8]| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "file", content).unwrap();
        builder.into_inner().unwrap()
    };
    let small = archive(b"hello");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &small).unwrap();
    let first = blobs.put_bytes(&gz.finish().unwrap()).unwrap();
    let second = blobs.put_bytes(&archive(&noise(9_000_000))).unwrap();
    let layers = [
        NewLayer {
            blob: Descriptor::new(mt::OCI_LAYER_GZIP, first.digest, first.size),
            diff_id: ashlar_core::Digest::of(&small),
        },
        NewLayer {
            blob: Descriptor::new(mt::OCI_LAYER, second.digest, second.size),
            diff_id: second.digest,
        },
    ];
    let config = json!({ "os": "linux", "architecture": "amd64",
        "config": { "Healthcheck": { "Test": ["NONE"] }, "Cmd": ["/hello"] } });
    compose(blobs, config, &layers, None).unwrap()
}

#[test]
fn skopeo_pulls_what_we_push_and_we_pull_what_skopeo_pushes() {
    let (real, local, dir) = (Real::start(), Local::new(), tempfile::tempdir().unwrap());
    let image = image(&local);
    let (registry, blobs) = (local.images.registry(), local.images.blobs());
    let target = real.name("team/app:1");
    registry
        .push(&target, &image.manifest, blobs, &BlobOrigins::new(), &Transfer::quiet())
        .unwrap();

    let layout = format!("oci:{}:copied", dir.path().join("layout").display());
    let source = format!("docker://{target}");
    skopeo(&["copy", "--src-tls-verify=false", &source, &layout]);
    let second = format!("docker://{}", real.name("team/again:2"));
    skopeo(&["copy", "--dest-tls-verify=false", &layout, &second]);

    let other = Local::new();
    let platform = "linux/amd64".parse().unwrap();
    let (_, pulled) =
        other.images.pull(&real.name("team/again:2"), &platform, &Transfer::quiet()).unwrap();
    assert_eq!(pulled.manifest, Some(image.manifest.digest));
    assert_eq!(pulled.config, blobs.read(&image.config.digest, 1 << 20).unwrap());
    for layer in &pulled.layers {
        let digest = layer.blob.as_ref().unwrap().digest;
        other.images.blobs().verify(&digest).unwrap();
    }
    let error = other
        .images
        .resolve(&real.name("team/none"), &platform, PullPolicy::Default, &Transfer::quiet())
        .unwrap_err();
    assert!(error.to_string().contains("not found"), "{error}");
}

#[test]
fn a_real_registry_mounts_across_repositories() {
    let (real, local) = (Real::start(), Local::new());
    let image = image(&local);
    let (registry, blobs) = (local.images.registry(), local.images.blobs());
    let first = real.name("team/base:1");
    registry.push(&first, &image.manifest, blobs, &BlobOrigins::new(), &Transfer::quiet()).unwrap();
    let nodes = blobs.list().unwrap();
    let origins: BlobOrigins =
        nodes.iter().map(|b| (b.digest, first.repository().clone())).collect();
    // The registry has to copy: here is only the manifest.
    for blob in nodes.iter().filter(|b| b.digest != image.manifest.digest) {
        blobs.remove(&blob.digest).unwrap();
    }
    let second = real.name("team/copy:1");
    registry.push(&second, &image.manifest, blobs, &origins, &Transfer::quiet()).unwrap();
    assert_eq!(blobs.list().unwrap().len(), 1, "nothing was fetched to be sent");
    let inspected = skopeo(&["inspect", "--tls-verify=false", &format!("docker://{second}")]);
    assert!(inspected.contains(&image.manifest.digest.to_string()), "{inspected}");
}

#[test]
fn skopeo_reads_what_we_write() {
    let (local, dir) = (Local::new(), tempfile::tempdir().unwrap());
    let image = image(&local);
    let blobs = local.images.blobs();
    let at = |name: &str| dir.path().join(name);
    let names = vec!["app:1".parse::<Reference>().unwrap()];
    let entries = [Entry { root: image.manifest.clone(), names }];
    write_layout(&at("layout"), &entries, blobs).unwrap();
    for (kind, file) in [(ArchiveKind::Oci, "oci.tar"), (ArchiveKind::Docker, "docker.tar")] {
        write_archive(fs::File::create(at(file)).unwrap(), kind, &entries, blobs).unwrap();
    }
    let show = |path: &Path| path.display().to_string();
    for source in [
        format!("oci:{}:1", show(&at("layout"))),
        format!("oci-archive:{}:1", show(&at("oci.tar"))),
        format!("docker-archive:{}:docker.io/library/app:1", show(&at("docker.tar"))),
    ] {
        let config = skopeo(&["inspect", "--config", "--raw", &source]);
        assert!(config.contains("Healthcheck"), "{source}: {config}");
        let copy = tempfile::tempdir().unwrap();
        // Copying makes skopeo check every digest.
        skopeo(&["copy", &source, &format!("dir:{}", show(copy.path()))]);
    }
}

#[test]
fn https_needs_a_certificate_that_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = format!(", tls: {{ certificate: {}, key: {} }}", cert.display(), key.display());
    let real = Real::with(dir, &tls);
    let (_, port) = real.host.rsplit_once(':').unwrap();
    let mirror = format!("127.0.0.1:1=https://localhost:{port}").parse().unwrap();
    let mut settings = RegistrySettings { mirrors: vec![mirror], attempts: 1, ..settings() };
    let pull = |settings: &RegistrySettings| {
        let (local, platform) = (Local::with(settings.clone()), "linux/amd64".parse().unwrap());
        let reference: Reference = "127.0.0.1:1/none".parse().unwrap();
        let quiet = Transfer::quiet();
        let found = local.images.resolve(&reference, &platform, PullPolicy::Default, &quiet);
        found.unwrap_err().to_string()
    };
    let error = pull(&settings);
    assert!(error.contains("certificate"), "{error}");
    settings.ca_bundle = Some(cert);
    let error = pull(&settings);
    assert!(error.contains(&format!("https://localhost:{port}: not found")), "{error}");
    settings.ca_bundle = Some("/nonexistent.pem".into());
    let error = pull(&settings);
    assert!(error.contains("cannot read CA bundle /nonexistent.pem"), "{error}");
}
