//! Every refusal has the form of its door.

use reqwest::Method;
use serde_json::json;

use crate::support::{World, send};

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_methods_that_are_none_are_problems() {
    let world = World::new().await;
    for path in ["/api/v1/builds/%ff", "/api/v1/blobs/%ff", "/api/v1/builds/%ff/artifacts/x"] {
        let answer = world.admin.get(path).await.is(400);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        assert_eq!(answer.json()["field"], "path");
        world.client(None).get(path).await.is(401);
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/api/v1/whoami", "GET,HEAD"),
        (Method::PUT, "/api/v1/builds", "GET,HEAD,POST"),
        (Method::POST, "/healthz", "GET,HEAD"),
        (Method::POST, "/api/openapi.json", "GET,HEAD"),
        (Method::DELETE, "/login", "GET,HEAD,POST"),
    ] {
        let answer = send(world.admin.request(method, path)).await.is(405);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        assert_eq!(answer.json()["status"], 405);
        let mut said: Vec<_> = answer.header("allow").split(',').map(str::trim).collect();
        said.sort_unstable();
        assert_eq!(said.join(","), allowed, "{path}");
    }
    let page = send(world.admin.request(Method::GET, "/builds/%ff")).await;
    assert_eq!(page.status.as_u16(), 303, "who is not logged in hears nothing of it");
    let cookie = world.session(crate::support::ADMIN).await;
    for path in ["/builds/%ff", "/builds/%ff/log", "/?q=a&q=b"] {
        let request = world.client(None).request(Method::GET, path).header("cookie", &cookie);
        let page = send(request).await.is(400);
        assert!(page.header("content-type").starts_with("text/html"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_refuses_in_its_own_words() {
    let world = World::new().await;
    let tags = "/v2/default/app/tags/list?n=many";
    world.client(None).get(tags).await.is(401);
    for (method, path, status, code) in [
        (Method::GET, tags, 400, "PAGINATION_NUMBER_INVALID"),
        (Method::GET, "/v2/default/app/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        (Method::GET, "/v2/default/%ff/tags/list", 404, "NAME_UNKNOWN"),
        (Method::GET, "/v2/default/app/blobs/sha256:0", 400, "DIGEST_INVALID"),
        (Method::GET, "/v2/default/app/manifests/sha256:0", 400, "DIGEST_INVALID"),
        (Method::GET, "/v2/default/app/referrers/latest", 400, "DIGEST_INVALID"),
        (Method::GET, "/v2/nobody/app/blobs/sha256:0", 404, "NAME_UNKNOWN"),
        (Method::POST, "/v2/", 405, "UNSUPPORTED"),
        (Method::DELETE, "/v2/token", 405, "UNSUPPORTED"),
    ] {
        let answer = send(world.admin.request(method, path)).await.is(status);
        assert_eq!(answer.json()["errors"][0]["code"], code, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_no_object() {
    let world = World::new().await;
    for (method, path, body) in [
        (Method::POST, "/api/v1/tokens", json!(["somebody", "reader"])),
        (Method::POST, "/api/v1/tenants", json!(["acme"])),
        (Method::POST, "/api/v1/blobs/missing", json!([[]])),
        (Method::PUT, "/api/v1/retention", json!([])),
        (Method::PUT, "/api/v1/retention", json!({ "records": [1] })),
        (Method::POST, "/api/v1/builds", json!(["FROM base"])),
        (Method::POST, "/api/v1/builds", json!({ "dockerfile": "FROM base", "limits": [1] })),
        (
            Method::POST,
            "/api/v1/builds",
            json!({ "dockerfile": "FROM base", "outputs": [["registry", { "names": ["a/b"] }]] }),
        ),
        (Method::POST, "/api/v1/contexts", json!([[]])),
        (Method::POST, "/api/v1/workflows", json!(["w"])),
    ] {
        let answer = send(world.admin.request(method, path).json(&body)).await;
        let answer = answer.is(400);
        assert!(answer.text().contains("invalid type: sequence"), "{path}: {}", answer.text());
    }
    world.admin.post("/api/v1/tenants", &json!({ "name": "acme" })).await.is(201);
}
