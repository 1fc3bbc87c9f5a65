//! The registry with real clients.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;

use reqwest::Method;
use serde_json::json;

use crate::support::{ADMIN, World, id, send};

fn skopeo(args: &[&str]) -> std::process::Output {
    let run = Command::new("skopeo").args(args).output();
    run.unwrap_or_else(|e| panic!("install Debian's package skopeo: {e}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_takes_built_images_with_the_right_token_only() {
    let world = World::new().await;
    let client = world.tenant("acme", "developer").await;
    let text = "FROM base\nRUN echo hi >/hi\nLABEL a=b\nENTRYPOINT [\"/bin/sh\"]\n";
    let ask = json!({"dockerfile": text, "tags": ["team/app:v1", "team/app:v2"]});
    let built = client.built(&ask).await;
    let new = json!({"principal": "puller", "role": "reader"});
    let request = world.admin.request(Method::POST, "/api/v1/tokens");
    let made = send(request.header("ashlar-tenant", "acme").json(&new)).await.is(201).json();
    let reader = format!("any:{}", made["token"].as_str().unwrap());
    let host = world.url.strip_prefix("http://").unwrap();
    let source = |name: &str| format!("docker://{host}/{name}");
    let inspect = |name: &str, creds: &str| {
        skopeo(&["inspect", "--tls-verify=false", "--creds", creds, &source(name)])
    };
    let by_tag = inspect("acme/team/app:v1", &reader);
    assert!(by_tag.status.success(), "{}", String::from_utf8_lossy(&by_tag.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&by_tag.stdout).unwrap();
    assert_eq!(shown["Labels"], json!({"a": "b"}));
    assert_eq!(shown["RepoTags"], json!(["v1", "v2"]));
    let digest = shown["Digest"].as_str().unwrap();
    let out = tempfile::tempdir().unwrap();
    let to = format!("dir:{}", out.path().display());
    for name in [format!("acme/builds:{}", id(&built)), format!("acme/team/app@{digest}")] {
        let copied = skopeo(&[
            "copy",
            "--src-tls-verify=false",
            "--src-creds",
            &reader,
            &source(&name),
            &to,
        ]);
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    }
    let manifest = std::fs::read(out.path().join("manifest.json")).unwrap();
    assert_eq!(ashlar_core::Digest::of(&manifest).to_string(), digest);
    assert!(inspect("acme/team/app:v1", &format!("any:{ADMIN}")).status.success());
    assert!(!inspect("acme/team/app:v3", &reader).status.success());
    assert!(!inspect("acme/team/app:v1", "any:wrong-token").status.success());
    let other = json!({"principal": "spy", "role": "owner"});
    world.admin.post("/api/v1/tenants", &json!({"name": "other"})).await.is(201);
    let request = world.admin.request(Method::POST, "/api/v1/tokens");
    let made = send(request.header("ashlar-tenant", "other").json(&other)).await.json();
    let spy = made["token"].as_str().unwrap().to_owned();
    assert!(!inspect("acme/team/app:v1", &format!("any:{spy}")).status.success());
    assert!(!inspect(&format!("other/team/app@{digest}"), &format!("any:{spy}")).status.success());
    let spy = world.client(Some(&spy));
    spy.get(&format!("/v2/other/builds/manifests/{}", id(&built))).await.is(404);
    spy.get(&format!("/v2/other/x/blobs/{digest}")).await.is(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_is_not_sent_again() {
    let world = World::new().await;
    let client = &world.admin;
    client.built(&json!({"dockerfile": "FROM base\nLABEL a=b\n", "tags": ["app:1"]})).await;
    let manifest = "/v2/default/app/manifests/1";
    let whole = client.get(manifest).await.is(200);
    let tag = whole.header("etag").to_owned();
    assert_eq!(tag, format!("\"{}\"", whole.header("docker-content-digest")));
    let config = whole.json()["config"]["digest"].as_str().unwrap().to_owned();
    let blob = format!("/v2/default/app/blobs/{config}");
    for (path, tag) in [(manifest, tag), (&blob, format!("\"{config}\""))] {
        for (known, status) in [
            (tag.clone(), 304),
            (format!("\"other\", W/{tag}"), 304),
            ("*".into(), 304),
            ("\"other\"".into(), 200),
        ] {
            let request = client.request(Method::GET, path).header("if-none-match", &known);
            let answer = send(request).await.is(status);
            assert_eq!(answer.header("etag"), tag, "{known}");
            assert_eq!(answer.body.is_empty(), status == 304, "{known}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_come_page_by_page_and_the_last_page_has_no_link() {
    let world = World::new().await;
    let tags = ["app:a", "app:b", "app:c", "app:d"];
    world.admin.built(&json!({"dockerfile": "FROM base\n", "tags": tags})).await;
    let page = async |path: &str| {
        let answer = world.admin.get(path).await.is(200);
        (answer.json()["tags"].clone(), answer.header("link").to_owned())
    };
    let list = "/v2/default/app/tags/list";
    let next = format!("<{list}?n=2&last=b>; rel=\"next\"");
    assert_eq!(page(&format!("{list}?n=2")).await, (json!(["a", "b"]), next));
    let rest = (json!(["c", "d"]), String::new());
    assert_eq!(page(&format!("{list}?n=2&last=b")).await, rest);
    assert_eq!(page(&format!("{list}?n=0")).await, (json!([]), String::new()));
    assert_eq!(page(list).await, (json!(["a", "b", "c", "d"]), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_whose_image_is_gone_is_not_listed() {
    let world = World::new().await;
    let client = &world.admin;
    let built = async |tags: &[&str]| {
        let ask = json!({"dockerfile": format!("FROM base\nLABEL a={}\n", tags[0]), "tags": tags});
        client.built(&ask).await
    };
    let (kept, gone) = (["app:b", "app:d"], ["app:a", "app:c", "app:e", "other:1"]);
    built(&kept).await;
    let gone = built(&gone).await;
    let path = format!("/api/v1/builds/{}", id(&gone));
    client.delete(&format!("{path}/artifacts/image")).await.is(200);
    let list = "/v2/default/app/tags/list";
    let page = async |path: &str| {
        let answer = client.get(path).await.is(200);
        (answer.json()["tags"].clone(), answer.header("link").to_owned())
    };
    assert_eq!(page(list).await, (json!(["b", "d"]), String::new()));
    let next = format!("<{list}?n=1&last=b>; rel=\"next\"");
    assert_eq!(page(&format!("{list}?n=1")).await, (json!(["b"]), next));
    assert_eq!(page(&format!("{list}?n=1&last=b")).await, (json!(["d"]), String::new()));
    // The repository is there, and so is the tag.
    assert_eq!(page("/v2/default/other/tags/list").await, (json!([]), String::new()));
    let missing = client.get("/v2/default/other/manifests/1").await.is(404).json();
    assert_eq!(missing["errors"][0]["code"], "MANIFEST_UNKNOWN");
    assert_eq!(client.get("/api/v1/tags?prefix=other").await.json()["tags"][0]["tag"], "other:1");
    client.get("/v2/default/none/tags/list?last=x").await.is(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_refers_to_an_image() {
    let world = World::new().await;
    let client = &world.admin;
    client.built(&json!({"dockerfile": "FROM base\nLABEL a=b\n", "tags": ["app:1"]})).await;
    let manifest = client.get("/v2/default/app/manifests/1").await.is(200);
    let path = format!("/v2/default/app/referrers/{}", manifest.header("docker-content-digest"));
    let index = "application/vnd.oci.image.index.v1+json";
    for (path, filters) in
        [(path.clone(), ""), (format!("{path}?artifactType=text/spdx"), "artifactType")]
    {
        let answer = client.get(&path).await.is(200);
        assert_eq!(answer.header("content-type"), index);
        assert_eq!(answer.header("oci-filters-applied"), filters);
        let empty = json!({"schemaVersion": 2, "mediaType": index, "manifests": []});
        assert_eq!(answer.json(), empty);
    }
    let stranger = world.tenant("spies", "owner").await;
    stranger.get(&path).await.is(404);
    world.client(None).get(&path).await.is(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_how_long_it_holds() {
    const HOURS: u64 = 2 * 3600;
    let world = World::new().await;
    let own = world.admin.get("/v2/token").await.is(200).json();
    assert_eq!(own, json!({"token": ADMIN, "access_token": ADMIN}), "it has no end");
    let end = ashlar_service::now().nanos() + HOURS as i64 * 1_000_000_000;
    let end = ashlar_core::Timestamp::from_nanos(end).rfc3339();
    let new = json!({"principal": "puller", "role": "reader", "expires_at": end});
    let made = world.admin.post("/api/v1/tokens", &new).await.is(201).json();
    let token = made["token"].as_str().unwrap();
    let given = world.client(Some(token)).get("/v2/token").await.is(200).json();
    assert_eq!((&given["token"], &given["access_token"]), (&json!(token), &json!(token)));
    let left = given["expires_in"].as_u64().unwrap();
    assert!((1..=HOURS).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_read_only_and_says_where_tokens_are() {
    let world = World::new().await;
    let nobody = world.client(None);
    let asked = nobody.get("/v2/").await.is(401);
    let want = format!("Bearer realm=\"{}/v2/token\",service=\"ashlar\"", world.url);
    assert_eq!(asked.header("www-authenticate"), want);
    let refused = nobody.get("/v2/token").await.is(401);
    assert!(refused.header("www-authenticate").starts_with("Basic"));
    world.admin.get("/v2/").await.is(200);
    let upload = world.admin.request(Method::POST, "/v2/default/app/blobs/uploads/");
    let answer = send(upload).await.is(405).json();
    assert_eq!(answer["errors"][0]["code"], "UNSUPPORTED");
    let missing = world.admin.get("/v2/default/app/manifests/latest").await.is(404).json();
    assert_eq!(missing["errors"][0]["code"], "MANIFEST_UNKNOWN");
    let missing = world.admin.get("/v2/default/app/tags/list").await.is(404).json();
    assert_eq!(missing["errors"][0]["code"], "NAME_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_archives_can_be_downloaded() {
    let world = World::new().await;
    let built = world.admin.built(&json!({"dockerfile": "FROM base\nRUN echo a >/a"})).await;
    let path = format!("/api/v1/builds/{}/artifacts/image?format=docker&name=app:1", id(&built));
    let archive = world.admin.get(&path).await.is(200);
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("image.tar");
    std::fs::write(&file, &archive.body).unwrap();
    let shown = skopeo(&["inspect", &format!("docker-archive:{}:app:1", file.display())]);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    world.admin.get(&path.replace("app:1", "APP")).await.is(400);
}

/// Starts a registry that has nothing; returns its host.
fn empty_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            // A request without a body ends with its headers.
            let lines = BufReader::new(connection.try_clone().unwrap()).lines();
            lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_of_another_tenants_image_is_no_way_to_it() {
    let world = World::new().await;
    let (owner, stranger) =
        (world.tenant("acme", "developer").await, world.tenant("spies", "developer").await);
    let built = owner.built(&json!({"dockerfile": "FROM base\nRUN echo mine >/mine\n"})).await;
    let path = format!("/v2/acme/builds/manifests/{}", id(&built));
    let manifest = owner.get(&path).await.is(200);
    let digest = ashlar_core::Digest::of(&manifest.body);
    let text = format!("FROM {}/x@{digest}\nRUN cat /mine\n", empty_registry());
    let failed = stranger.wait(&stranger.dockerfile(&text).await).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    let why = failed["failure"]["message"].as_str().unwrap();
    assert!(why.contains("not found") || why.contains("404"), "{why}");
    // The tenant itself has the image.
    owner.built(&json!({"dockerfile": text})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_has_the_size_of_what_it_holds() {
    let world = World::new().await;
    let size = async |step: &str| {
        let ask = json!({"dockerfile": format!("FROM base\nRUN {step} >/file\n")});
        world.admin.built(&ask).await["artifacts"][0]["bytes"].as_u64().unwrap()
    };
    let (small, large) = (size("echo 8 bytes").await, size("seq 10000").await);
    // The numbers up to 10000, one a line.
    assert_eq!(large - small, 48_894 - "8 bytes\n".len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_with_a_fixed_time_is_the_same_manifest_at_every_door_and_every_time() {
    let ask = json!({
        "dockerfile": "FROM base\nRUN echo made >/file\n", "source_date_epoch": 1_600_000_000,
    });
    let mut manifests = Vec::new();
    // Two servers that share nothing: files and layers are made at other times.
    for world in [World::new().await, World::new().await] {
        let built = world.admin.built(&ask).await;
        let by_registry = format!("/v2/default/builds/manifests/{}", id(&built));
        let by_registry = world.admin.get(&by_registry).await.is(200).body;
        let path = format!("/api/v1/builds/{}/artifacts/image?format=oci&name=app:1", id(&built));
        let archive = world.admin.get(&path).await.is(200);
        let out = tempfile::tempdir().unwrap();
        let file = out.path().join("image.tar");
        std::fs::write(&file, &archive.body).unwrap();
        let shown = skopeo(&["inspect", "--raw", &format!("oci-archive:{}", file.display())]);
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        assert_eq!(shown.stdout, by_registry);
        manifests.push(String::from_utf8(by_registry).unwrap());
    }
    assert_eq!(manifests[0], manifests[1]);
}
