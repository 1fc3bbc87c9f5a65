//! Slashes, suffixes, headers, bodies, logins and refusals.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use crate::support::{Reply, World};

async fn raw(
    world: &World,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.request(request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_paths() {
    let world = World::still().await;
    world.project("first").await;
    for path in [
        "/api/v1/acme/first",
        "/api/v1/acme/first/",
        "/api/v1/acme//first",
        "//api/v1/acme/first.json",
        "/api/v1/acme/first.json/",
    ] {
        assert_eq!(world.get(path).await.is(200)["name"], "first", "{path}");
    }
    for path in ["/api/v1/acme/fi.rst/", "/api/v1/acme/first/builds/x/", "/api/v2/users/", "/"] {
        let missing = world.get(path).await;
        assert_eq!(missing.status, 404, "{path}");
        assert!(missing.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    }
    assert_eq!(world.get("/api/v1/acme/none/").await.is(404), json!({"detail": "Not found."}));
    assert_eq!(
        world.get("/api/v1/acme/first/builds/7/").await.is(404),
        json!({"detail": "Not found."})
    );
    // A method that the route lacks comes before the look-up.
    let refused = world.send(Some(&world.owner), "PUT", "/api/v1/acme/none/builds/", None).await;
    assert_eq!(refused.is(405), json!({"detail": "Method \"PUT\" not allowed."}));
    assert_eq!(
        world.send(Some(&world.owner), "HEAD", "/api/v1/acme/first/", None).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_credentials() {
    let world = World::still().await;
    let with = async |value: &str| {
        raw(&world, "GET", "/api/v1/users/", &[("authorization", value)], "").await
    };
    for scheme in ["Token", "token", "TOKEN"] {
        let me = with(&format!("{scheme} {}", world.owner)).await.is(200);
        assert_eq!(me["username"], "owner");
        assert!(me["email"].is_string() && me["is_superuser"] == false, "{me}");
    }
    let table = [
        ("Token", "Invalid token header. No credentials provided."),
        ("Token a b", "Invalid token header. Token string should not contain spaces."),
        ("Token wrong", "Invalid token."),
        ("Bearer x", "Authentication credentials were not provided."),
    ];
    for (value, want) in table {
        let reply = with(value).await;
        assert_eq!(reply.is(401), json!({ "detail": want }), "{value}");
        assert_eq!(reply.headers["www-authenticate"], "Token");
    }
    let me = world.send(Some(&world.admin()), "GET", "/api/v1/users/", None).await.is(200);
    assert_eq!(me, json!({"username": "admin", "email": "root@localhost", "is_superuser": true}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_password() {
    let world = World::still().await;
    let admin = world.admin();
    let path = "/api/v1/users/token/";
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = format!("username=admin&password={admin}&login=true");
    assert_eq!(raw(&world, "POST", path, &form, &body).await.is(200), json!({ "token": admin }));
    let json_body = json!({"username": "admin", "password": admin});
    world.send(None, "POST", path, Some(json_body)).await.is(200);
    let wrong = json!({"non_field_errors": ["Unable to log in with provided credentials."]});
    for (user, password) in [("admin", "x"), ("someone", admin.as_str())] {
        let body = json!({ "username": user, "password": password });
        assert_eq!(world.send(None, "POST", path, Some(body)).await.is(400), wrong, "{user}");
    }
    let missing = world.send(None, "POST", path, Some(json!({"username": "admin"}))).await.is(400);
    assert_eq!(missing, json!({"password": ["This field is required."]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_read() {
    let world = World::still().await;
    let token = format!("Token {}", world.owner);
    let send = async |kind: &str, body: &str| {
        let headers = [("authorization", token.as_str()), ("content-type", kind)];
        raw(&world, "POST", "/api/v1/projects/", &headers, body).await
    };
    let broken = send("application/json", "{\"name\":").await.is(400);
    assert!(broken["detail"].as_str().unwrap().starts_with("JSON parse error - "), "{broken}");
    let list = send("application/json", "[1]").await.is(400);
    assert_eq!(list["non_field_errors"][0], "Invalid data. Expected a dictionary, but got list.");
    let text = send("text/plain", "name=x").await.is(415);
    assert_eq!(text["detail"], "Unsupported media type \"text/plain\" in request.");
    assert_eq!(
        send("application/json", "").await.is(400),
        json!({"name": ["This field is required."]})
    );
    let huge = format!("{{\"name\": \"{}\"}}", "x".repeat(5 << 20));
    assert_eq!(send("application/json", &huge).await.status, 413);
    assert_eq!(send("application/json; charset=utf-8", "{\"name\": \"p\"}").await.status, 201);
}
