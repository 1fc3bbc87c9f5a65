//! The document is locked, and all of its routes are there.

use std::path::Path;

use ashlar_api::routes::ROUTES;
use reqwest::Method;
use serde_json::Value;

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
    let served: Value = world.client(None).get("/api/openapi.json").await.is(200).json();
    assert_eq!(served, ashlar_api::document());
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
