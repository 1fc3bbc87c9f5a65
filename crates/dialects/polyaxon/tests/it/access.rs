//! Every route as nobody, as a stranger, as a reader and as an owner.

use serde_json::json;

use crate::support::World;

const P: &str = "/api/v1/acme/first/";
const B: &str = "/api/v1/acme/first/builds/ID/";

/// Routes with a project or build in them: method, path, what an owner gets, whether it changes.
const ROUTES: &[(&str, &str, u16, bool)] = &[
    ("GET", "/api/v1/acme/", 200, false),
    ("GET", "/api/v1/acme/projects/names/", 200, false),
    ("GET", "/api/v1/archives/acme/builds/", 200, false),
    ("GET", "/api/v1/archives/acme/projects/", 200, false),
    ("GET", "/api/v1/archives/acme/jobs/", 200, false),
    ("GET", "P", 200, false),
    ("PATCH", "P", 200, true),
    ("PUT", "P", 200, true),
    ("POST", "Pbookmark/", 201, false),
    ("DELETE", "Punbookmark/", 204, false),
    ("GET", "Prepo/", 404, false),
    ("GET", "Prepo/download/", 404, false),
    ("POST", "Prepo/external/", 400, false),
    ("POST", "Prepo/sync/", 404, false),
    ("PUT", "Prepo/upload/", 400, true),
    ("POST", "Pci/", 400, false),
    ("GET", "Pbuilds/", 200, false),
    ("POST", "Pbuilds/", 400, true),
    ("POST", "Pbuilds/invalidate/", 200, true),
    ("GET", "B", 200, false),
    ("PATCH", "B", 200, true),
    ("PUT", "B", 200, true),
    ("GET", "Bstatuses/", 200, false),
    ("POST", "Bstatuses/", 400, true),
    ("GET", "Bstatuses/abc/", 404, false),
    ("GET", "Blogs/", 200, false),
    ("GET", "Blogs/stream/", 400, false),
    ("POST", "Binvalidate/", 200, true),
    ("POST", "Bbookmark/", 201, false),
    ("DELETE", "Bunbookmark/", 204, false),
    ("GET", "Bcoderef/", 200, false),
    ("POST", "Bcoderef/", 201, true),
    ("POST", "B_heartbeat/", 200, true),
    ("POST", "B_reconcile/", 400, true),
    ("POST", "Bstop/", 200, true),
    ("POST", "Barchive/", 200, true),
    ("POST", "Brestore/", 200, true),
    ("DELETE", "B", 204, true),
    ("POST", "Parchive/", 200, true),
    ("POST", "Prestore/", 200, true),
    ("DELETE", "P", 204, true),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_route_as_nobody_stranger_reader_and_owner() {
    let world = World::still().await;
    world.project("first").await;
    let made = world.build("first", "{version: 1, kind: build, image: busybox}").await;
    let reader = world.reader().await;
    for (method, path, status, changes) in ROUTES {
        let path = match path.split_at(1) {
            ("P", rest) => format!("{P}{rest}"),
            ("B", rest) => format!("{B}{rest}"),
            _ => (*path).to_owned(),
        };
        let id = made.trim_end_matches('/').rsplit('/').next().unwrap();
        let path = path.replace("ID", id);
        let send = async |token: Option<&str>| world.send(token, method, &path, None).await;
        let nobody = send(None).await;
        assert_eq!(nobody.status, 401, "{method} {path}");
        assert_eq!(nobody.headers["www-authenticate"], "Token");
        assert_eq!(send(Some("wrong")).await.status, 401, "{method} {path}");
        let stranger = send(Some(&world.stranger)).await;
        assert_eq!(stranger.is(404), json!({"detail": "Not found."}), "{method} {path}");
        if *changes && !path.ends_with("restore/") {
            let refused = send(Some(&reader)).await.is(403);
            let want = "You do not have permission to perform this action.";
            assert_eq!(refused["detail"], want, "{method} {path}");
        }
        let owner = send(Some(&world.owner)).await;
        assert_eq!(owner.status, *status, "{method} {path}: {}", owner.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_of_no_project() {
    let world = World::still().await;
    let open = [
        "versions/cli/",
        "versions/platform/",
        "versions/lib/",
        "versions/chart/",
        "log_handler/",
        "users/logout/",
    ];
    for path in open {
        let path = format!("/api/v1/{path}");
        assert_eq!(world.send(None, "GET", &path, None).await.status, 200, "{path}");
        // A wrong token is refused before anything else.
        assert_eq!(world.send(Some("wrong"), "GET", &path, None).await.status, 401, "{path}");
        assert_eq!(world.get(&path).await.status, 200, "{path}");
    }
    world.send(None, "GET", "/healthz/", None).await.is_empty(200);
    for path in
        ["users/", "cluster/", "nodes/1/", "bookmarks/owner/builds/", "bookmarks/acme/projects/"]
    {
        let path = format!("/api/v1/{path}");
        assert_eq!(world.send(None, "GET", &path, None).await.status, 401, "{path}");
        assert_eq!(world.get(&path).await.status, 200, "{path}");
    }
    world.get("/api/v1/bookmarks/nobody-knows/builds/").await.is(404);
    world.get("/api/v1/nodes/2/").await.is(404);
    let versions = world.send(None, "GET", "/api/v1/versions/cli/", None).await.is(200);
    assert_eq!(versions, json!({"latest_version": "0.6.1", "min_version": "0.0.1"}));
    let handler = world.send(None, "GET", "/api/v1/log_handler/", None).await.is(200);
    assert!(
        handler["dsn"].is_null()
            && handler["tags"].is_object()
            && handler["environment"].is_string()
    );
    let cluster = world.get("/api/v1/cluster/").await.is(200);
    assert!(cluster["version_api"].is_object() && cluster["nodes"][0]["memory"].is_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_acts_for_any_owner_and_its_own_tenant_has_its_name() {
    let world = World::still().await;
    world.project("first").await;
    let admin = world.admin();
    let seen = world.send(Some(&admin), "GET", "/api/v1/acme/first/", None).await.is(200);
    assert_eq!(seen["unique_name"], "acme.first");
    let body = json!({ "name": "own" });
    let own = world.send(Some(&admin), "POST", "/api/v1/projects/", Some(body)).await.is(201);
    assert_eq!(own["unique_name"], "admin.own");
    for owner in ["admin", "default"] {
        let path = format!("/api/v1/{owner}/own/");
        world.send(Some(&admin), "GET", &path, None).await.is(200);
        assert_eq!(world.get(&path).await.status, 404, "{owner}");
    }
    world.send(Some(&admin), "GET", "/api/v1/nobody/own/", None).await.is(404);
}
