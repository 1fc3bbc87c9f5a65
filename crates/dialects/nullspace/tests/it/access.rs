//! Every route as nobody, as a stranger, as a reader and as the owner.

use ashlar_core::TenantId;
use ashlar_service::DocumentType;
use axum::body::Body;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::support::{World, steps};

/// A route: method, path, body, what the owner gets, and what a stranger gets.
struct Case {
    method: &'static str,
    path: String,
    body: Option<Value>,
    owner: u16,
    stranger: Stranger,
    /// Whether it changes something.
    writes: bool,
    /// A body that is no JSON.
    raw: Option<&'static str>,
}

/// What a stranger gets.
enum Stranger {
    /// His own, or nothing of ours.
    Own,
    /// A refusal.
    Refused(u16, &'static str),
}

fn case(
    method: &'static str,
    path: impl Into<String>,
    body: Option<Value>,
    owner: u16,
    stranger: Stranger,
) -> Case {
    let writes = method != "GET";
    Case {
        method,
        path: format!("/v1/templates{}", path.into()),
        body,
        owner,
        stranger,
        writes,
        raw: None,
    }
}

/// All routes on a template and one of its builds; those that delete come last.
fn cases(id: &str, build: &str, claim: &str) -> Vec<Case> {
    use Stranger::{Own, Refused};
    let request = || Some(steps("fresh", &["true"]));
    let no_template = || Refused(404, "template_not_found");
    let no_build = || Refused(404, "template_build_not_found");
    let mut all = vec![
        case("GET", "", None, 200, Own),
        case("POST", "", request(), 201, Own),
        case("POST", "/build", request(), 200, Own),
        case("POST", "/builds", request(), 202, Own),
        case("GET", format!("/builds/{build}"), None, 200, no_build()),
        case("GET", format!("/builds/{build}/logs"), None, 200, no_build()),
        case("POST", format!("/builds/{build}/cancel"), Some(json!({})), 200, no_build()),
        case("POST", format!("/builds/{build}/retry"), Some(json!({})), 202, no_build()),
        case(
            "POST",
            format!("/builds/{build}/promote"),
            Some(json!({"tag": "v9"})),
            200,
            no_build(),
        ),
        Case { writes: false, ..case("POST", "/validate", request(), 200, Own) },
        Case { writes: false, ..case("POST", "/plan", request(), 200, Own) },
        case("POST", "/blobs/preflight", Some(json!({"files": []})), 200, Own),
        Case { raw: Some("x"), ..case("PUT", format!("/blobs/{}", blob()), None, 204, Own) },
        case("POST", "/claims", Some(json!({"template_ref": "free"})), 201, Own),
        case(
            "DELETE",
            format!("/claims/{claim}"),
            None,
            204,
            Refused(404, "template_name_claim_not_found"),
        ),
        case("GET", "/namespaces/acme", None, 200, Refused(404, "not_found")),
    ];
    for root in [format!("/{id}"), "/refs/acme%2Fapp".to_owned()] {
        let of = |rest: &str| format!("{root}{rest}");
        all.extend([
            case("GET", of(""), None, 200, no_template()),
            case("GET", of("/builds"), None, 200, no_template()),
            case("GET", of("/tags"), None, 200, no_template()),
            case("POST", of("/tags"), Some(json!({"tags": ["extra"]})), 200, no_template()),
            case("DELETE", of("/tags/extra"), None, 204, no_template()),
            case("POST", of("/rename"), Some(json!({"new_name": "app2"})), 200, no_template()),
            case("GET", of("/aliases"), None, 200, no_template()),
            case("POST", of("/rename"), Some(json!({"new_name": "app"})), 200, no_template()),
            case("DELETE", of("/aliases/app2"), None, 204, no_template()),
            case(
                "PATCH",
                of("/visibility"),
                Some(json!({"visibility": "private"})),
                200,
                no_template(),
            ),
        ]);
    }
    all.push(case("DELETE", "/refs/acme%2Fapp", None, 204, no_template()));
    all.push(case("DELETE", "/fresh", None, 204, Own));
    all
}

/// The id of a blob with the content `x`.
fn blob() -> String {
    format!("sha256-{}-1", ashlar_core::Digest::of("x").hex())
}

/// A template and its build, a claim, and a blob that is announced.
async fn app(world: &World) -> (String, String, String) {
    let entries = world.build(steps("app", &["echo hi"])).await;
    let build = World::ready(&entries);
    let claim = json!({ "template_ref": "claimed" });
    let claim = world.post("/v1/templates/claims", claim).await.is(201);
    let file = json!({ "path": "x", "entry_type": "file", "size_bytes": 1,
        "sha256": ashlar_core::Digest::of("x").hex() });
    let files = world.post("/v1/templates/blobs/preflight", json!({ "files": [file] })).await;
    assert_eq!(files.is(200)["files"][0]["blob_id"], json!(blob()));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&entries[0]["template_id"]), build, text(&claim["claim_token"]))
}

/// The routes of the contract, both forms counted.
const ROUTES: usize = 36;

#[test]
fn the_table_has_every_route() {
    let mut routes = std::collections::BTreeSet::new();
    for case in cases("{id}", "{build}", "{claim}") {
        // What stands in the place of an id is no other route.
        let path = case.path.replace("refs/acme%2Fapp", "refs/{ref}").replace(&blob(), "{blob}");
        let path = path.replace("/fresh", "/{id}");
        routes.insert((case.method, path));
    }
    assert_eq!(routes.len(), ROUTES, "{routes:#?}");
}

fn body(case: &Case) -> Body {
    let json = case.body.as_ref().map_or(Body::empty(), |b| Body::from(b.to_string()));
    case.raw.map_or(json, Body::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_and_wrong_keys_are_unauthorized_everywhere() {
    let world = World::new().await;
    let (id, build, claim) = app(&world).await;
    for token in [None, Some("wrong"), Some("")] {
        for case in cases(&id, &build, &claim) {
            let reply = world.send(token, case.method, &case.path, body(&case)).await;
            reply.refused(401, "unauthorized");
        }
        world.send(token, "GET", "/v1/machines?limit=1", "").await.refused(401, "unauthorized");
    }
    let health = world.send(None, "GET", "/healthz", "").await.is(200);
    assert_eq!(health, json!({ "status": "ok" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_find_nothing_of_others() {
    let world = World::new().await;
    let (id, build, claim) = app(&world).await;
    for case in cases(&id, &build, &claim) {
        let reply = world.send(Some(&world.stranger), case.method, &case.path, body(&case)).await;
        match case.stranger {
            Stranger::Refused(status, code) => drop(reply.refused(status, code)),
            Stranger::Own => {
                let fine = reply.status.is_success() || reply.status == 404;
                assert!(fine, "{} {}: {}", case.method, case.path, reply.text);
                assert!(!reply.text.contains(&id), "{} {}", case.method, case.path);
            }
        }
    }
    world.get(&format!("/v1/templates/{id}")).await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_change_nothing() {
    let world = World::new().await;
    let (id, build, claim) = app(&world).await;
    let reader = world.reader().await;
    for case in cases(&id, &build, &claim) {
        let reply = world.send(Some(&reader), case.method, &case.path, body(&case)).await;
        if case.writes {
            let status = reply.status.as_u16();
            // What is not there is not told from what is forbidden.
            assert!(matches!(status, 403 | 404), "{} {}: {}", case.method, case.path, reply.text);
        } else if case.path.contains("app2") {
            continue;
        } else {
            assert_eq!(reply.status.as_u16(), case.owner, "{} {}", case.method, case.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_gets_the_documented_codes() {
    let world = World::new().await;
    let (id, build, claim) = app(&world).await;
    for case in cases(&id, &build, &claim) {
        let reply = world.send(Some(&world.owner), case.method, &case.path, body(&case)).await;
        let what = format!("{} {}: {}", case.method, case.path, reply.text);
        assert_eq!(reply.status.as_u16(), case.owner, "{what}");
        assert_eq!(reply.text.is_empty(), case.owner == 204, "{what}");
        assert!(!reply.text.contains(":null"), "{what}");
    }
    assert_eq!(world.get("/v1/machines?limit=1").await.is(200), json!([]));
    world.get("/v1/template-warm-pools").await.refused(501, "not_implemented");
    world.get("/v1/nothing").await.refused(404, "not_found");
    world.send(Some(&world.owner), "PUT", "/v1/templates", "").await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_template_is_seen_and_left_alone_by_strangers() {
    let world = World::new().await;
    let (id, ..) = app(&world).await;
    let patch = json!({ "visibility": "public" }).to_string();
    let path = format!("/v1/templates/{id}/visibility");
    world.send(Some(&world.owner), "PATCH", &path, patch).await.is(200);
    let see =
        async |path: &str| world.send(Some(&world.stranger), "GET", path, Body::empty()).await;
    let info = see("/v1/templates/refs/acme/app").await.is(200);
    assert_eq!(
        (&info["visibility"], &info["canonical_ref"]),
        (&json!("public"), &json!("acme/app"))
    );
    assert_eq!(see("/v1/templates").await.is(200).as_array().unwrap().len(), 1);
    assert_eq!(see("/v1/templates/refs/acme/app/builds").await.is(200), json!({ "builds": [] }));
    for (method, rest, body) in [
        ("DELETE", "", ""),
        ("POST", "/rename", r#"{"new_name": "mine"}"#),
        ("POST", "/tags", r#"{"tags": ["mine"]}"#),
        ("PATCH", "/visibility", r#"{"visibility": "private"}"#),
    ] {
        let path = format!("/v1/templates/refs/acme%2Fapp{rest}");
        let reply = world.send(Some(&world.stranger), method, &path, body).await;
        reply.refused(403, "permission_denied");
    }
    // It is a base for others, who keep what they have made of it.
    let mut child = steps("child", &["echo more"]);
    child["base_image"] = json!("acme/app");
    let build = async |body: Value| {
        let path = "/v1/templates";
        world.send(Some(&world.stranger), "POST", path, body.to_string()).await
    };
    build(child.clone()).await.is(201);
    let history = see("/v1/templates/child/builds").await.is(200);
    let child_build = history["builds"][0]["build_id"].as_str().unwrap().to_owned();
    assert_eq!(history["builds"][0]["source_type"], "template_base");
    let retry = format!("/v1/templates/builds/{child_build}/retry");
    world.send(Some(&world.stranger), "POST", &retry, "{}").await.is(202);
    let visibility = async |word: &str| {
        let body = json!({ "visibility": word }).to_string();
        world.send(Some(&world.owner), "PATCH", &path, body).await.is(200);
    };
    visibility("private").await;
    world
        .send(Some(&world.stranger), "POST", &retry, "{}")
        .await
        .refused(400, "template_not_found");
    child["base_image"] = json!(id);
    build(child.clone()).await.refused(400, "template_not_found");
    child["base_image"] = json!("other/child");
    build(child).await.is(201);
    visibility("public").await;
    // A new name is known to others too, and the old one as well.
    world.post(&format!("/v1/templates/{id}/rename"), json!({ "new_name": "apple" })).await.is(200);
    see("/v1/templates/refs/acme%2Fapple").await.is(200);
    see("/v1/templates/refs/acme%2Fapp").await.is(200);
    world.delete(&format!("/v1/templates/{id}")).await.is(204);
    see("/v1/templates/refs/acme%2Fapple").await.refused(404, "template_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_that_a_request_came_with_is_in_the_header_and_in_the_body() {
    let world = World::new().await;
    // What the server around the dialect takes over is taken over here too; it replaces the rest.
    for (id, kept) in [("team/build:7+a", true), ("two words", false)] {
        let request = axum::http::Request::get("/v1/templates/refs/nothing")
            .header("authorization", format!("Bearer {}", world.owner))
            .header("x-request-id", id)
            .body(Body::empty())
            .unwrap();
        let response = world.router.clone().oneshot(request).await.unwrap();
        let header = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(body["request_id"], json!(header));
        assert_eq!(header == id, kept, "{header}");
    }
}

/// The row that makes a template known to others, as the dialect writes it.
#[derive(Debug, Serialize, Deserialize)]
struct PublicRow {
    owner: TenantId,
    namespace: String,
    names: Vec<String>,
}

impl DocumentType for PublicRow {
    const DIALECT: &'static str = ashlar_dialect_nullspace::DIALECT;
    const KIND: &'static str = "public";

    fn keys(&self) -> Vec<(&'static str, String)> {
        self.names.iter().map(|n| ("name", format!("{}/{n}", self.namespace))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_left_behind_shows_no_private_template_and_hides_no_public_one() {
    let world = World::new().await;
    let (id, ..) = app(&world).await;
    let owner = world.service.authenticate(&world.owner).await.unwrap().tenant.id;
    let rows = world.service.dialect(ashlar_dialect_nullspace::DIALECT);
    let leave = async |id: Uuid, name: &str| {
        let row = PublicRow { owner, namespace: "acme".into(), names: vec![name.into()] };
        rows.add_document(None, id, &row).await.unwrap();
    };
    let see =
        async |path: &str| world.send(Some(&world.stranger), "GET", path, Body::empty()).await;
    let template = |id: &str| Uuid::try_parse(id.trim_start_matches("tmpl_")).unwrap();
    // Whoever made it private stopped before the row was gone.
    leave(template(&id), "app").await;
    for path in [format!("/v1/templates/{id}"), "/v1/templates/refs/acme/app".into()] {
        see(&path).await.refused(404, "template_not_found");
    }
    assert_eq!(see("/v1/templates").await.is(200), json!([]));
    let mut child = steps("child", &["true"]);
    child["base_image"] = json!(id);
    let path = "/v1/templates/builds";
    let reply = world.send(Some(&world.stranger), "POST", path, child.to_string()).await;
    reply.refused(400, "template_not_found");

    // Rows of templates that are gone, or are called otherwise now, and then the one that is meant.
    let entries = world.build(steps("meant", &["true"])).await;
    let meant = entries[0]["template_id"].as_str().unwrap().to_owned();
    leave(Uuid::now_v7(), "meant").await;
    let other = world.build(steps("other", &["true"])).await[0]["template_id"].clone();
    leave(template(other.as_str().unwrap()), "meant").await;
    for name in ["meant", "other"] {
        let (path, body) =
            (format!("/v1/templates/{name}/visibility"), r#"{"visibility":"public"}"#);
        world.send(Some(&world.owner), "PATCH", &path, body).await.is(200);
    }
    assert_eq!(see("/v1/templates/refs/acme/meant").await.is(200)["id"], json!(meant));
    assert_eq!(see("/v1/templates/refs/acme/other").await.is(200)["id"], other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_as_public_as_it_was_said_last_whoever_says_so_at_once() {
    let world = World::new().await;
    let (id, ..) = app(&world).await;
    let path = format!("/v1/templates/{id}/visibility");
    let say = async |word: &str| {
        let body = json!({ "visibility": word }).to_string();
        world.send(Some(&world.owner), "PATCH", &path, body).await.is(200);
    };
    for _ in 0..10 {
        tokio::join!(say("public"), say("private"), say("public"), say("private"));
        let said = world.get(&format!("/v1/templates/{id}")).await.is(200)["visibility"].clone();
        let see = world.send(Some(&world.stranger), "GET", "/v1/templates/refs/acme/app", "");
        let status = see.await.status.as_u16();
        assert_eq!(status, if said == "public" { 200 } else { 404 }, "{said}");
    }
}
