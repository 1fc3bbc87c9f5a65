//! Pulls from registries that stall, lie, drop and refuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Content, Fake, Local, Reply, Request, noise, settings};
use ashlar_core::{Digest, Platform};
use ashlar_oci::registry::Failure;
use ashlar_oci::{
    PullError, PullPolicy, Reference, RegistryError, ResolvedImage, Transfer, media_type as mt,
};
use serde_json::json;

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn name(fake: &Fake, rest: &str) -> Reference {
    format!("{}/{rest}", fake.host).parse().unwrap()
}

fn resolve(local: &Local, reference: &Reference) -> Result<ResolvedImage, PullError> {
    local.images.resolve(reference, &amd64(), PullPolicy::Default, &Transfer::quiet())
}

fn failures(error: &PullError) -> Vec<&Failure> {
    match error {
        PullError::Registry(RegistryError::Endpoints { failures, .. }) => {
            failures.iter().map(|f| &f.failure).collect()
        }
        other => panic!("expected failed endpoints, got {other:?}"),
    }
}

/// A registry with one image `app:1` of one layer, whose blob requests `blob` may answer.
fn with_layer(
    layer: &[u8],
    blob: impl Fn(&Request, &Content) -> Reply + Send + Sync + 'static,
) -> (Fake, Digest) {
    let mut content = Content::default();
    let (_, layers) = content.image("1", "linux/amd64", &[layer]);
    let digest = layers[0].digest;
    let part = digest.to_string();
    let fake = Fake::start(move |request| {
        if request.path.ends_with(&part) {
            blob(request, &content)
        } else {
            content.answer(request)
        }
    });
    (fake, digest)
}

#[test]
fn manifest_and_config_come_first_and_layers_when_asked_for() {
    let mut content = Content::default();
    let (arm, _) = content.image("arm", "linux/arm64", &[b"arm layer"]);
    let (amd, layers) = content.image("amd", "linux/amd64", &[b"first", b"second"]);
    let index = content.index("1", &[(arm, "linux/arm64"), (amd, "linux/amd64")]);
    let fake = Fake::start(move |r| content.answer(r));
    let local = Local::new();
    let reference = name(&fake, "team/app:1");
    let image = resolve(&local, &reference).unwrap();
    assert_eq!((image.index, image.manifest), (Some(index), Some(amd)));
    assert_eq!(image.image_config().unwrap().config.env, ["A=1"]);
    assert!(!local.images.blobs().has(&layers[0].digest).unwrap());
    assert_eq!(fake.count("GET", &layers[0].digest.to_string()), 0);
    local.images.fetch_layers(&image, &[0, 1], &Transfer::quiet()).unwrap();
    let second = local.images.blobs().read(&layers[1].digest, 100).unwrap();
    assert_eq!(second, b"second");
    let before = fake.log().len();
    assert_eq!(resolve(&local, &reference).unwrap(), image);
    let more: Vec<_> = fake.log()[before..].iter().map(Request::line).collect();
    assert_eq!(more, ["HEAD /v2/team/app/manifests/1"], "a known tag costs one question");
}

#[test]
fn a_pinned_image_that_is_here_needs_no_network() {
    let mut content = Content::default();
    let (digest, _) = content.image("1", "linux/amd64", &[b"layer"]);
    let fake = Fake::start(move |r| content.answer(r));
    let local = Local::new();
    let pinned = name(&fake, "app").pinned(digest);
    resolve(&local, &pinned).unwrap();
    let before = fake.log().len();
    resolve(&local, &pinned).unwrap();
    assert_eq!(fake.log().len(), before);
    let resolved =
        local.images.resolve(&pinned, &amd64(), PullPolicy::Local, &Transfer::quiet()).unwrap();
    assert_eq!(resolved.repository, None);
    let missing = local.images.fetch_layer(&resolved, 0, &Transfer::quiet());
    assert!(matches!(missing, Err(PullError::NoLayer { layer: 0, .. })), "{missing:?}");
}

#[test]
fn policies_decide_about_the_network() {
    let mut content = Content::default();
    content.image("1", "linux/amd64", &[b"layer"]);
    let up = Arc::new(AtomicBool::new(true));
    let is_up = up.clone();
    let fake = Fake::start(move |r| {
        if is_up.load(Ordering::Relaxed) { content.answer(r) } else { Reply::new(503) }
    });
    let local = Local::new();
    let reference = name(&fake, "app:1");
    let with = |policy| local.images.resolve(&reference, &amd64(), policy, &Transfer::quiet());
    assert!(matches!(with(PullPolicy::Local), Err(PullError::NotLocal { .. })));
    assert_eq!(fake.log().len(), 0);
    with(PullPolicy::Pull).unwrap();
    with(PullPolicy::Local).unwrap();
    up.store(false, Ordering::Relaxed);
    let stale = with(PullPolicy::Default).unwrap();
    assert!(stale.stale.unwrap().contains("503"));
    assert!(matches!(with(PullPolicy::Pull), Err(PullError::Registry(_))));
}

#[test]
fn a_moved_tag_is_seen() {
    let mut content = Content::default();
    let (old, _) = content.image("old", "linux/amd64", &[b"old"]);
    let (new, _) = content.image("new", "linux/amd64", &[b"new"]);
    let moved = Arc::new(AtomicBool::new(false));
    let is_moved = moved.clone();
    let fake = Fake::start(move |r| {
        let tag = if is_moved.load(Ordering::Relaxed) { "new" } else { "old" };
        let mut r = r.clone();
        r.path = r.path.replace("manifests/1", &format!("manifests/{tag}"));
        content.answer(&r)
    });
    let local = Local::new();
    let reference = name(&fake, "app:1");
    assert_eq!(resolve(&local, &reference).unwrap().manifest, Some(old));
    moved.store(true, Ordering::Relaxed);
    assert_eq!(resolve(&local, &reference).unwrap().manifest, Some(new));
    let tag = local.images.pulled(&reference).unwrap().unwrap();
    assert_eq!(tag.digest, new);
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let layer = noise(3_000_000);
    let tries = AtomicUsize::new(0);
    let (fake, digest) = with_layer(&layer, move |request, content| {
        let reply = content.answer(request);
        match tries.fetch_add(1, Ordering::Relaxed) {
            0 => reply.cut(1_000_000),
            1 => reply.cut(500_000),
            _ => reply,
        }
    });
    let local = Local::new();
    let image = resolve(&local, &name(&fake, "app:1")).unwrap();
    let info = local.images.fetch_layer(&image, 0, &Transfer::quiet()).unwrap();
    assert_eq!((info.digest, info.size), (digest, 3_000_000));
    let log = fake.log();
    let asked = log.iter().filter(|r| r.path.ends_with(&digest.to_string()));
    let ranges: Vec<_> = asked.map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges.len(), 3);
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1].as_deref(), Some("bytes=1000000-"));
    assert_eq!(ranges[2].as_deref(), Some("bytes=1500000-"));
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let layer = noise(2_000_000);
    let tries = AtomicUsize::new(0);
    let (fake, _) = with_layer(&layer, move |request, content| {
        let mut request = request.clone();
        request.headers.remove("range");
        let reply = content.answer(&request);
        if tries.fetch_add(1, Ordering::Relaxed) == 0 { reply.cut(700_000) } else { reply }
    });
    let local = Local::new();
    let image = resolve(&local, &name(&fake, "app:1")).unwrap();
    local.images.fetch_layer(&image, 0, &Transfer::quiet()).unwrap();
}

#[test]
fn a_lie_about_the_range_is_found_by_the_digest_and_repaired() {
    let layer = noise(2_000_000);
    let tries = AtomicUsize::new(0);
    let (fake, digest) = with_layer(&layer, move |request, content| {
        let mut reply = content.answer(request);
        match tries.fetch_add(1, Ordering::Relaxed) {
            0 => reply.cut(700_000),
            1 => {
                reply.body[10] ^= 1;
                reply
            }
            _ => reply,
        }
    });
    let local = Local::new();
    let image = resolve(&local, &name(&fake, "app:1")).unwrap();
    local.images.fetch_layer(&image, 0, &Transfer::quiet()).unwrap();
    assert_eq!(fake.count("GET", &digest.to_string()), 3);
}

#[test]
fn wrong_bytes_and_wrong_sizes_are_refused_at_once() {
    let layer = noise(100_000);
    for (what, change) in [
        ("digest", (|r: &mut Reply| r.body[5] ^= 1) as fn(&mut Reply)),
        ("longer", |r| r.body.push(0)),
        ("shorter", |r| r.body.truncate(99_999)),
    ] {
        let (fake, digest) = with_layer(&layer, move |request, content| {
            let mut reply = content.answer(request);
            change(&mut reply);
            reply
        });
        let local = Local::new();
        let image = resolve(&local, &name(&fake, "app:1")).unwrap();
        let error = local.images.fetch_layer(&image, 0, &Transfer::quiet()).unwrap_err();
        let failures = failures(&error);
        let is_right = match what {
            "digest" => {
                matches!(failures[..], [Failure::Digest { expected, .. }] if *expected == digest)
            }
            _ => matches!(failures[..], [Failure::Size { expected: 100_000, .. }]),
        };
        assert!(is_right, "{what}: {failures:?}");
        assert_eq!(fake.count("GET", &digest.to_string()), 1, "{what}");
        assert!(!local.images.blobs().has(&digest).unwrap());
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_stall_is_broken_off_and_named() {
    let (fake, digest) = with_layer(&noise(100_000), |request, content| Reply {
        stall: Some(Duration::from_secs(5)),
        ..content.answer(request)
    });
    let stall_timeout = Duration::from_millis(300);
    let local = Local::with(ashlar_oci::RegistrySettings { stall_timeout, ..settings() });
    let image = resolve(&local, &name(&fake, "app:1")).unwrap();
    let error = local.images.fetch_layer(&image, 0, &Transfer::quiet()).unwrap_err();
    assert!(matches!(failures(&error)[..], [Failure::Stalled(_)]), "{error:?}");
    assert_eq!(fake.count("GET", &digest.to_string()), 4, "tried again, and no more than set");
}

#[test]
fn cancelling_ends_a_stalled_pull_within_a_second() {
    let (fake, _) = with_layer(&noise(100_000), |request, content| Reply {
        stall: Some(Duration::from_secs(20)),
        ..content.answer(request)
    });
    let local = Local::with(ashlar_oci::RegistrySettings {
        stall_timeout: Duration::from_secs(30),
        ..settings()
    });
    let image = resolve(&local, &name(&fake, "app:1")).unwrap();
    let (cancel, begun) = (AtomicBool::new(false), Instant::now());
    let progress = |_| cancel.store(true, Ordering::Relaxed);
    let transfer = Transfer::quiet().with_progress(&progress).with_cancel(&cancel);
    let error = local.images.fetch_layer(&image, 0, &transfer).unwrap_err();
    assert!(matches!(error, PullError::Registry(RegistryError::Cancelled)), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn many_pulls_at_once_fetch_a_blob_once() {
    let layer = noise(2_000_000);
    let (fake, digest) = with_layer(&layer, |request, content| Reply {
        stall: Some(Duration::from_millis(150)),
        ..content.answer(request)
    });
    let local = Local::new();
    let image = resolve(&local, &name(&fake, "app:1")).unwrap();
    // Other handles on the same directory are what other processes are: locks are per open file.
    let blobs = ashlar_blobs::BlobStore::open(local.dir.path()).unwrap();
    let store = ashlar_oci::ImageStore::open(local.dir.path()).unwrap();
    let registry = ashlar_oci::Registry::new(settings());
    let other = ashlar_oci::Images::new(blobs, store, registry);
    std::thread::scope(|scope| {
        for i in 0..6 {
            let images = if i % 2 == 0 { &local.images } else { &other };
            let image = &image;
            scope.spawn(move || images.fetch_layer(image, 0, &Transfer::quiet()).unwrap());
        }
    });
    assert_eq!(fake.count("GET", &digest.to_string()), 1);
}

#[test]
fn server_errors_are_tried_again_and_other_refusals_are_not() {
    for (status, requests) in [(500, 4), (503, 4), (429, 4), (400, 1), (403, 1), (404, 1)] {
        let fake = Fake::start(move |_| Reply::new(status));
        let error = resolve(&Local::new(), &name(&fake, "app:1")).unwrap_err();
        assert_eq!(fake.log().len(), requests, "status {status}: {error}");
        assert!(error.to_string().contains(&fake.host), "{error}");
    }
}

#[test]
fn retry_after_is_heeded() {
    let mut content = Content::default();
    content.image("1", "linux/amd64", &[b"layer"]);
    let first = AtomicBool::new(true);
    let fake = Fake::start(move |r| {
        if first.swap(false, Ordering::Relaxed) {
            Reply::new(429).header("retry-after", "1")
        } else {
            content.answer(r)
        }
    });
    let begun = Instant::now();
    resolve(&Local::new(), &name(&fake, "app:1")).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[test]
fn mirrors_are_tried_in_order_and_all_are_named() {
    let mut content = Content::default();
    content.image("latest", "linux/amd64", &[b"layer"]);
    let dead = Fake::start(|_| Reply::new(500));
    let empty = Fake::start(|_| Reply::new(404));
    let good = Fake::start(move |r| content.answer(r));
    let mirror =
        |fake: &Fake, path: &str| format!("docker.io=http://{}{path}", fake.host).parse().unwrap();
    let mirrors = vec![mirror(&dead, ""), mirror(&empty, ""), mirror(&good, "/proxy/hub")];
    let local = Local::with(ashlar_oci::RegistrySettings { mirrors, ..settings() });
    let busybox: Reference = "busybox".parse().unwrap();
    resolve(&local, &busybox).unwrap();
    assert_eq!(dead.count("HEAD", "/v2/library/busybox/manifests/latest"), 2);
    assert_eq!(good.count("HEAD", "/v2/proxy/hub/library/busybox/manifests/latest"), 1);

    let origin = Fake::start(|_| Reply::new(404));
    let mirrors = [&dead, &empty].map(|m| format!("{}=http://{}", origin.host, m.host));
    let mirrors = mirrors.map(|m| m.parse().unwrap()).to_vec();
    let local = Local::with(ashlar_oci::RegistrySettings { mirrors, ..settings() });
    let error = resolve(&local, &name(&origin, "app")).unwrap_err();
    let text = error.to_string();
    for fake in [&dead, &empty, &origin] {
        assert!(text.contains(&fake.host), "{text}");
    }
    assert!(text.contains("answered 500") && text.contains("not found"), "{text}");
}

#[test]
fn blobs_go_on_at_the_next_endpoint() {
    let layer = noise(1_000_000);
    let (broken, digest) = with_layer(&layer, |request, content| {
        if request.header("range").is_some() {
            Reply::new(500)
        } else {
            content.answer(request).cut(600_000)
        }
    });
    let (good, _) = with_layer(&layer, |request, content| content.answer(request));
    let mirror = format!("{}=http://{}", good.host, broken.host).parse().unwrap();
    let local = Local::with(ashlar_oci::RegistrySettings { mirrors: vec![mirror], ..settings() });
    let image = resolve(&local, &name(&good, "app:1")).unwrap();
    local.images.fetch_layer(&image, 0, &Transfer::quiet()).unwrap();
    let log = good.log();
    let asked = log.iter().find(|r| r.path.ends_with(&digest.to_string())).unwrap();
    assert_eq!(asked.header("range"), Some("bytes=600000-"));
}

#[test]
fn manifests_that_lie_are_refused() {
    let huge = vec![b' '; (4 << 20) + 1];
    let both = json!({ "schemaVersion": 2, "layers": [], "manifests": [] }).to_string();
    let old = json!({ "schemaVersion": 1, "fsLayers": [] }).to_string();
    let strange = json!({ "schemaVersion": 2, "mediaType": "application/x-thing" }).to_string();
    let wrong = Digest::of("something else").to_string();
    let cases: Vec<(Reply, &str)> = vec![
        (Reply::ok(huge), "more than 4194304 bytes"),
        (Reply::ok("<html>").header("content-type", "text/html"), "not valid JSON"),
        (Reply::ok(both), "both 'layers' and 'manifests'"),
        (Reply::ok(old), "schema 1"),
        (Reply::ok(strange), "application/x-thing"),
        (Reply::ok(r#"{"schemaVersion":2,"layers":"#), "not valid JSON"),
        (Reply::ok("{}").header("docker-content-digest", wrong), "sent content with digest"),
    ];
    for (reply, expected) in cases {
        let fake =
            Fake::start(move |r| if r.method == "HEAD" { Reply::new(200) } else { reply.clone() });
        let error = resolve(&Local::new(), &name(&fake, "app:1")).unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_sloppy_content_type_is_forgiven() {
    let mut content = Content::default();
    let (digest, _) = content.image("1", "linux/amd64", &[b"layer"]);
    content.manifests.values_mut().for_each(|m| m.0 = "application/octet-stream".into());
    let fake = Fake::start(move |r| content.answer(r));
    assert_eq!(resolve(&Local::new(), &name(&fake, "app:1")).unwrap().manifest, Some(digest));
}

#[test]
fn indexes_may_nest_but_not_for_ever() {
    for (depth, is_fine) in [(3, true), (6, false)] {
        let mut content = Content::default();
        let (mut digest, _) = content.image("0", "linux/amd64", &[b"layer"]);
        for level in 1..=depth {
            digest = content.index(&level.to_string(), &[(digest, "linux/amd64")]);
        }
        let fake = Fake::start(move |r| content.answer(r));
        let result = resolve(&Local::new(), &name(&fake, &format!("app:{depth}")));
        let is_nested = matches!(result, Err(PullError::Registry(RegistryError::Nested(_))));
        assert_eq!((result.is_ok(), is_nested), (is_fine, !is_fine));
    }
}

#[test]
fn a_platform_that_lacks_is_an_error_that_lists_what_there_is() {
    let mut content = Content::default();
    let (arm, _) = content.image("arm", "linux/arm64", &[b"layer"]);
    content.index("1", &[(arm, "linux/arm64"), (arm, "linux/s390x")]);
    let fake = Fake::start(move |r| content.answer(r));
    let error = resolve(&Local::new(), &name(&fake, "app:1")).unwrap_err();
    assert!(error.to_string().ends_with("it offers linux/arm64, linux/s390x"), "{error}");
    assert!(error.hint().unwrap().contains("--platform"));
}

#[test]
fn what_is_no_container_image_is_refused() {
    let mut content = Content::default();
    let layer = content.blob(mt::OCI_LAYER, b"layer");
    let chart = content.blob("application/vnd.cncf.helm.config.v1+json", b"{}");
    let bad_json = content.blob(mt::OCI_CONFIG, b"[1]");
    let no_ids = content.blob(mt::OCI_CONFIG, br#"{"rootfs":{"type":"layers","diff_ids":[]}}"#);
    for (tag, config) in [("chart", &chart), ("json", &bad_json), ("ids", &no_ids)] {
        let m = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        content.manifest(tag, mt::OCI_MANIFEST, m.to_string().into_bytes());
    }
    let fake = Fake::start(move |r| content.answer(r));
    for (tag, expected) in [("chart", "helm"), ("json", "not valid"), ("ids", "1 layers")] {
        let error = resolve(&Local::new(), &name(&fake, &format!("app:{tag}"))).unwrap_err();
        assert!(matches!(error, PullError::NotImage { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn redirects_leave_credentials_at_home() {
    let layer = noise(1000);
    let mut storage = Content::default();
    storage.blob(mt::OCI_LAYER, &layer);
    let storage = Fake::start(move |r| storage.answer(r));
    let target = storage.host.clone();
    let mut content = Content::default();
    let (_, layers) = content.image("1", "linux/amd64", &[&layer]);
    let digest = layers[0].digest.to_string();
    let fake = Fake::start(move |r| {
        if r.header("authorization") != Some("Basic bWU6c2VjcmV0") {
            return Reply::new(401).header("www-authenticate", "Basic realm=\"x\"");
        }
        if r.path.ends_with(&digest) {
            return Reply::new(307).header("location", format!("http://{target}/s/{digest}?sig=1"));
        }
        content.answer(r)
    });
    let mut settings = settings();
    let me = ashlar_oci::Credential::Basic { username: "me".into(), password: "secret".into() };
    settings.credentials.insert(fake.host.clone(), me);
    let local = Local::with(settings);
    let image = resolve(&local, &name(&fake, "app:1")).unwrap();
    local.images.fetch_layer(&image, 0, &Transfer::quiet()).unwrap();
    assert_eq!(storage.log().len(), 1);
    assert_eq!(storage.log()[0].header("authorization"), None);
    assert_eq!(fake.log().iter().filter(|r| r.header("authorization").is_none()).count(), 1);
}

#[test]
fn redirects_without_end_end() {
    let fake = Fake::start(|r| Reply::new(302).header("location", r.path.clone()));
    let error = resolve(&Local::new(), &name(&fake, "app:1")).unwrap_err();
    assert!(error.to_string().contains("more than 5 redirects"), "{error}");
}

#[test]
fn a_pulled_image_is_listed_and_still_asked_for() {
    let mut content = Content::default();
    let (digest, layers) = content.image("1", "linux/amd64", &[b"layer"]);
    let fake = Fake::start(move |r| content.answer(r));
    let local = Local::new();
    let reference = name(&fake, "app:1");
    let (id, _) = local.images.pull(&reference, &amd64(), &Transfer::quiet()).unwrap();
    let list = local.images.store().list().unwrap();
    assert_eq!((list[0].0, &list[0].1.names), (id, &vec![reference.clone()]));
    let roots = local.images.store().roots().unwrap();
    assert!(roots.blobs.contains(&digest) && roots.blobs.contains(&layers[0].digest));
    let mut below = local.images.blobs_below(digest).unwrap();
    below.retain(|d| !roots.blobs.contains(d));
    assert_eq!(below, [], "what is below the manifest is what must be kept");
    assert_eq!(local.images.pulled_tags().unwrap()[0].digest, digest);
    let before = fake.log().len();
    resolve(&local, &reference).unwrap();
    assert_eq!(fake.log().len(), before + 1);
}
