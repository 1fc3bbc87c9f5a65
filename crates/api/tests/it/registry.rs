//! The registry with real clients.

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
