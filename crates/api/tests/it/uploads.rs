//! Blobs and contexts from clients.

use ashlar_core::Digest;
use reqwest::Method;
use serde_json::json;

use crate::support::{World, id, send, tar_of};

#[tokio::test(flavor = "multi_thread")]
async fn only_missing_blobs_are_uploaded_and_a_broken_upload_goes_on() {
    let world = World::new().await;
    let client = &world.admin;
    let (small, large) = (b"small\n".to_vec(), vec![b'x'; 3_000_000]);
    let (a, b) = (Digest::of(&small), Digest::of(&large));
    let missing = async || {
        let answer = client.post("/api/v1/blobs/missing", &json!({"digests": [a, b]})).await;
        answer.is(200).json()["missing"].clone()
    };
    assert_eq!(missing().await, json!([a, b]));
    let put = |digest: Digest, body: Vec<u8>, range: Option<String>| {
        let request = client.request(Method::PUT, &format!("/api/v1/blobs/{digest}")).body(body);
        match range {
            Some(range) => send(request.header("content-range", range)),
            None => send(request),
        }
    };
    put(a, small.clone(), None).await.is(201);
    assert_eq!(missing().await, json!([b]));
    put(a, small.clone(), None).await.is(204);
    // Half of it, then the wrong place, then the rest.
    put(b, large[..1_000_000].to_vec(), Some("bytes 0-999999/3000000".into())).await.is(202);
    let progress = client.get(&format!("/api/v1/uploads/{b}")).await.is(200).json();
    assert_eq!(progress, json!({"complete": false, "offset": 1_000_000}));
    put(b, large[5..].to_vec(), Some("bytes 5-2999999/3000000".into())).await.is(409);
    put(b, large[1_000_000..].to_vec(), Some("bytes 1000000-2999999/3000000".into())).await.is(201);
    assert_eq!(missing().await, json!([]));
    let path = format!("/api/v1/blobs/{b}");
    let part = client.request(Method::GET, &path).header("range", "bytes=2999998-");
    assert_eq!(send(part).await.is(206).body, b"xx");
    let head = send(client.request(Method::HEAD, &path)).await.is(200);
    assert_eq!(head.header("content-length"), "3000000");

    let files = json!({"files": [
        {"path": "a/small", "type": "file", "digest": a, "size": 6, "mode": 0o755},
        {"path": "a/link", "type": "symlink", "target": "small"},
        {"path": "empty", "type": "dir"},
    ]});
    let context = client.post("/api/v1/contexts", &files).await.is(201).json()["digest"].clone();
    let text = "FROM base\nCOPY . /c\nRUN cat /c/a/link; test -x /c/a/small; test -d /c/empty\n";
    let built = client.built(&json!({"dockerfile": text, "context": context})).await;
    let log = client.get(&format!("/api/v1/builds/{}/logs?format=text", id(&built))).await;
    assert_eq!(log.text(), "small\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_digest_leaves_nothing_behind() {
    let world = World::new().await;
    let client = &world.admin;
    let digest = Digest::of("right");
    let path = format!("/api/v1/blobs/{digest}");
    let put = || client.request(Method::PUT, &path);
    assert_eq!(send(put().body("wrong")).await.is(400).json()["field"], "digest");
    client.get(&path).await.is(404);
    send(put().body("right")).await.is(201);
    client.get(&path).await.is(200);
    send(client.request(Method::PUT, "/api/v1/blobs/sha256:12").body("x")).await.is(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn to_know_a_digest_is_not_to_have_the_bytes() {
    let world = World::new().await;
    let (owner, thief) =
        (world.tenant("acme", "owner").await, world.tenant("other", "owner").await);
    let digest = Digest::of("the owner's secret plan");
    let put = owner.request(Method::PUT, &format!("/api/v1/blobs/{digest}"));
    send(put.body("the owner's secret plan")).await.is(201);
    let files = json!({"files": [{"path": "plan", "type": "file", "digest": digest}]});
    let context = owner.post("/api/v1/contexts", &files).await.is(201).json()["digest"].clone();
    let missing = thief.post("/api/v1/blobs/missing", &json!({"digests": [digest]})).await.json();
    assert_eq!(missing["missing"], json!([digest]));
    thief.get(&format!("/api/v1/blobs/{digest}")).await.is(404);
    thief.post("/api/v1/contexts", &files).await.is(400);
    let ask = json!({"dockerfile": "FROM base\nCOPY plan /", "context": context});
    thief.post("/api/v1/builds", &ask).await.is(400);
    owner.post("/api/v1/builds", &ask).await.is(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_archives_and_lists_are_refused() {
    let world = World::new().await;
    let client = &world.admin;
    let tar = |body: Vec<u8>| {
        let request = client.request(Method::POST, "/api/v1/contexts");
        send(request.header("content-type", "application/x-tar").body(body))
    };
    tar(tar_of(&[("a/b", "x")])).await.is(201);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..9].copy_from_slice(b"../escape");
    header.set_size(1);
    header.set_cksum();
    archive.append(&header, &b"x"[..]).unwrap();
    tar(archive.into_inner().unwrap()).await.is(400);
    let mut archive = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    archive.append_link(&mut link, "out", "/etc").unwrap();
    let mut file = tar::Header::new_gnu();
    file.set_size(1);
    archive.append_data(&mut file, "out/passwd", &b"x"[..]).unwrap();
    tar(archive.into_inner().unwrap()).await.is(400);
    tar(b"\x1f\x8bthis is no archive".to_vec()).await.is(400);
    let list = |path: &str| json!({"files": [{"path": path, "type": "dir"}]});
    for bad in ["/etc", "../x", "a/../b", ""] {
        client.post("/api/v1/contexts", &list(bad)).await.is(400);
    }
    let request =
        client.request(Method::POST, "/api/v1/contexts").header("content-type", "text/plain");
    send(request.body("x")).await.is(400);
}
