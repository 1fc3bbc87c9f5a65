//! The document is locked, and all of its routes are there.

use std::path::Path;

use ashlar_api::routes::ROUTES;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{World, send};

/// Set this variable to write the document anew.
const UPDATE: &str = "UPDATE_SNAPSHOTS";

#[test]
fn the_document_is_the_one_that_was_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let now = serde_json::to_string_pretty(&ashlar_api::document()).unwrap() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(now == reviewed, "the API changed; look at it, then set {UPDATE}=1 and run this again");
}

#[test]
fn every_reference_leads_to_a_schema_and_every_schema_is_used() {
    let document = ashlar_api::document();
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert!(schemas.len() > 20);
    for name in schemas.keys() {
        assert!(text.contains(&format!("#/components/schemas/{name}\"")), "{name} is not used");
    }
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "there is no schema {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_table_is_served() {
    let world = World::with(|config| config.slots = 0).await;
    for route in ROUTES {
        let path = filled(route.path);
        let method: Method = route.method.to_uppercase().parse().unwrap();
        let answer = send(world.admin.request(method, &path)).await;
        assert_ne!(answer.status.as_u16(), 405, "{} {}", route.method, route.path);
        if answer.status.as_u16() == 404 {
            let detail = answer.json()["detail"].clone();
            let detail = detail.as_str().unwrap();
            assert!(!detail.contains("no resource"), "{} {path}: {detail}", route.method);
        }
    }
    let mut served: Value = world.client(None).get("/api/openapi.json").await.is(200).json();
    assert_eq!(served["servers"], json!([{ "url": world.url }]));
    served["servers"] = json!([{ "url": "/" }]);
    assert_eq!(served, ashlar_api::document());
}

#[test]
fn headers_that_routes_read_are_parameters() {
    let document = ashlar_api::document();
    let headers = |method: &str, path: &str| -> Vec<String> {
        let parameters = document["paths"][path][method]["parameters"].as_array().unwrap().iter();
        let names = parameters.filter_map(|p| p["$ref"].as_str()?.rsplit('/').next());
        names.map(str::to_owned).collect()
    };
    for (method, path, wanted) in [
        ("post", "/api/v1/builds", &["Idempotency-Key", "ashlar-tenant"][..]),
        ("post", "/api/v1/builds/{build}/retry", &["Idempotency-Key", "ashlar-tenant"]),
        ("post", "/api/v1/workflows", &["Idempotency-Key", "ashlar-tenant"]),
        ("get", "/api/v1/builds/{build}/logs", &["Last-Event-ID", "ashlar-tenant"]),
        ("get", "/api/v1/builds/{build}/events", &["Last-Event-ID", "ashlar-tenant"]),
        ("put", "/api/v1/blobs/{digest}", &["Content-Range", "ashlar-tenant"]),
        ("get", "/api/v1/blobs/{digest}", &["Range", "ashlar-tenant"]),
        ("get", "/healthz", &[]),
    ] {
        assert_eq!(headers(method, path), wanted, "{method} {path}");
    }
    for (name, parameter) in document["components"]["parameters"].as_object().unwrap() {
        assert_eq!((&parameter["name"], &parameter["in"]), (&json!(name), &json!("header")));
    }
}

/// Returns a value that a schema allows, with nothing in it that it does not ask for.
fn least(schema: &Value) -> Value {
    if let Some(only) = schema.get("const") {
        return only.clone();
    }
    match schema["type"].as_str().unwrap() {
        "object" => {
            let required = schema["required"].as_array().unwrap().iter();
            let names = required.map(|n| n.as_str().unwrap());
            names.map(|n| (n.to_owned(), least(&schema["properties"][n]))).collect()
        }
        "array" => json!([least(&schema["items"])]),
        "string" => json!("x"),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kinds_of_steps_are_those_that_the_server_takes() {
    let world = World::with(|config| config.slots = 0).await;
    let submit = async |steps: Value| {
        let ask = json!({ "base": "scratch", "steps": steps });
        world.admin.post("/api/v1/builds", &ask).await
    };
    let document = ashlar_api::document();
    let kinds = document["components"]["schemas"]["Step"]["oneOf"].as_array().unwrap();
    for kind in kinds {
        submit(json!([least(kind)])).await.is(201);
        for name in kind["required"].as_array().unwrap() {
            let mut step = least(kind);
            step.as_object_mut().unwrap().remove(name.as_str().unwrap());
            submit(json!([step])).await.is(400);
        }
    }
    let hint = submit(json!([{ "action": "dance" }])).await.is(400).text();
    let known = hint.split("the actions are ").nth(1).unwrap();
    let known = known.split(|c: char| !c.is_ascii_lowercase() && c != '_' && c != ',' && c != ' ');
    let known: Vec<&str> = known.take(1).flat_map(|list| list.split(", ")).collect();
    let named: Vec<&str> = kinds.iter().map(|k| k["title"].as_str().unwrap()).collect();
    assert_eq!(named, known);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_example_of_a_node_makes_a_run() {
    let world = World::with(|config| config.slots = 0).await;
    let document = ashlar_api::document();
    let node = document["components"]["schemas"]["Node"]["examples"][0].clone();
    let before = json!({ "id": node["needs"][0], "build": { "dockerfile": "FROM base" } });
    let mut run = json!({ "nodes": [before, node], "arguments": { "version": "1.2" } });
    let made = world.admin.post("/api/v1/workflows", &run).await.is(201).text();
    assert!(made.contains("make VERSION=1.2"), "{made}");
    run["arguments"] = json!({});
    let refused = world.admin.post("/api/v1/workflows", &run).await.is(400).text();
    assert!(refused.contains("there is no argument 'version'"), "{refused}");
}

/// Puts something into a path's parameters that can be read and leads nowhere.
pub(crate) fn filled(path: &str) -> String {
    path.replace("{build}", "01900000-0000-7000-8000-000000000000")
        .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
        .replace("{token}", "01900000-0000-7000-8000-000000000000")
        .replace("{tag}", "app:latest")
        .replace("{name}", "image")
        .replace("{scope}", "default")
}
