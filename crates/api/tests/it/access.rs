//! Every route as nobody, as a stranger, with too small a role, and as the owner.

use ashlar_api::routes::{ROUTES, Route};
use ashlar_core::identity::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Client, World, id, send};

/// Things of one tenant that others must not see.
struct Things {
    build: String,
    run: String,
    token: String,
    blob: String,
}

async fn things(owner: &Client) -> Things {
    let text = "FROM base\nRUN echo the-owners-words >/file; cat /file\n";
    let ask = json!({"name": "the-owners-name", "scope": "the-owners-scope",
        "dockerfile": text, "tags": ["the-owners-tag:1"]});
    let built = owner.built(&ask).await;
    let ask = json!({"name": "the-owners-run", "nodes": [{"id": "the-owners-node"}]});
    let run = owner.post("/api/v1/workflows", &ask).await.is(201).json();
    let new = json!({"principal": "the-owners-friend", "role": "reader"});
    let token = owner.post("/api/v1/tokens", &new).await.is(201).json();
    let blob = ashlar_core::Digest::of("the-owners-blob").to_string();
    let put = owner.request(Method::PUT, &format!("/api/v1/blobs/{blob}"));
    send(put.body("the-owners-blob")).await.is(201);
    Things {
        build: id(&built).into(),
        run: id(&run).into(),
        token: token["id"].as_str().unwrap().into(),
        blob,
    }
}

fn path(route: &Route, things: &Things) -> String {
    let build = if route.path.ends_with("/nodes") { &things.run } else { &things.build };
    let path = route.path.replace("{build}", build).replace("{token}", &things.token);
    let path = path.replace("{digest}", &things.blob).replace("{tag}", "the-owners-tag:1");
    path.replace("{name}", "image").replace("{scope}", "some-scope")
}

fn body(route: &Route) -> Option<Value> {
    Some(match route.body? {
        "Submission" => json!({"image": "base"}),
        "Change" => json!({"name": "changed"}),
        "Promote" => json!({"tags": ["stolen:1"]}),
        "Digests" => json!({"digests": []}),
        "Context" => json!({"files": []}),
        "NewToken" => json!({"principal": "p", "role": "reader"}),
        "NewTenant" => json!({"name": "new-tenant"}),
        "NewPolicy" => json!({"policy": "allow"}),
        "Retention" => json!({"records": {"age_seconds": 86400}}),
        "Workflow" => json!({"nodes": [{"id": "a"}]}),
        "Bytes" => return None,
        _ => json!({}),
    })
}

async fn call(client: &Client, route: &Route, things: &Things) -> Answer {
    let method: Method = route.method.to_uppercase().parse().unwrap();
    let request = client.request(method, &path(route, things));
    match body(route) {
        Some(body) => send(request.json(&body)).await,
        None if route.body == Some("Bytes") => send(request.body("the-owners-blob")).await,
        None => send(request).await,
    }
}

/// Routes that answer a stranger about the stranger's own things, or about nothing.
fn is_about_the_caller(route: &Route) -> bool {
    let names_a_thing = ["{build}", "{token}", "{tag}"].iter().any(|p| route.path.contains(p));
    let reads_a_blob = route.path == "/api/v1/blobs/{digest}" && route.method == "get";
    !names_a_thing && !reads_a_blob
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_nothing_strangers_their_own_and_roles_hold() {
    let world = World::new().await;
    let owner = world.tenant("acme", "owner").await;
    let stranger = world.tenant("other", "owner").await;
    let things = things(&owner).await;
    let nobody = world.client(None);
    let liar = world.client(Some("ashlar_0000"));
    for route in ROUTES.iter().filter(|r| r.role.is_some()) {
        let shown = format!("{} {}", route.method, route.path);
        for client in [&nobody, &liar] {
            assert_eq!(call(client, route, &things).await.status.as_u16(), 401, "{shown}");
        }
        let answer = call(&stranger, route, &things).await;
        // What the stranger said itself is told back.
        let told = answer.text().replace("the-owners-tag:1", "");
        assert!(!told.contains("the-owners"), "{shown}: {told}");
        let status = answer.status.as_u16();
        match route.role {
            Some(Role::Admin) => assert_eq!(status, 403, "{shown}"),
            _ if is_about_the_caller(route) => assert!(status < 300, "{shown}: {}", answer.text()),
            _ => assert_eq!(status, 404, "{shown}: {}", answer.text()),
        }
    }
    // All is as it was.
    let still = owner.get(&format!("/api/v1/builds/{}", things.build)).await.is(200).json();
    assert_eq!((&still["name"], &still["state"]), (&json!("the-owners-name"), &json!("succeeded")));
    let tags = owner.get("/api/v1/tags").await.json();
    assert_eq!(tags["tags"].as_array().unwrap().len(), 1, "{tags}");
    for (role, least) in [("reader", Role::Reader), ("developer", Role::Developer)] {
        let client = world.tenant("acme", role).await;
        for route in ROUTES.iter().filter(|r| r.role.is_some_and(|r| r > least)) {
            let status = call(&client, route, &things).await.status.as_u16();
            assert_eq!(status, 403, "{role}: {} {}", route.method, route.path);
        }
    }
    // At last the owner; what deletes comes last.
    let (last, first): (Vec<&Route>, Vec<&Route>) =
        ROUTES.iter().partition(|r| r.method == "delete" && r.path.contains("{build}"));
    for route in first.into_iter().chain(last.into_iter().rev()) {
        let status = call(&owner, route, &things).await.status.as_u16();
        let fits = match route.role {
            Some(Role::Admin) => status == 403,
            _ => status < 300,
        };
        assert!(fits, "{} {}: {status}", route.method, route.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_when_they_are_revoked_or_too_old_and_give_no_more_than_their_maker_has() {
    let world = World::new().await;
    let owner = world.tenant("acme", "owner").await;
    let too_much = json!({"principal": "p", "role": "admin"});
    owner.post("/api/v1/tokens", &too_much).await.is(403);
    let past = json!({"principal": "p", "role": "reader", "expires_at": "2001-01-01T00:00:00Z"});
    owner.post("/api/v1/tokens", &past).await.is(400);
    let new = json!({"principal": "p", "role": "reader"});
    let made = owner.post("/api/v1/tokens", &new).await.is(201).json();
    let client = world.client(made["token"].as_str());
    assert_eq!(client.get("/api/v1/whoami").await.is(200).json()["principal"], "p");
    let listed = owner.get("/api/v1/tokens").await.is(200).text();
    assert!(!listed.contains(made["token"].as_str().unwrap()), "{listed}");
    owner.delete(&format!("/api/v1/tokens/{}", id(&made))).await.is(204);
    client.get("/api/v1/whoami").await.is(401);
    owner.delete(&format!("/api/v1/tokens/{}", id(&made))).await.is(404);
    let acting = owner.request(Method::GET, "/api/v1/whoami").header("ashlar-tenant", "default");
    send(acting).await.is(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_does_so_no_longer_than_the_token_is_good() {
    let world = World::with(|config| config.slots = 0).await;
    let owner = world.tenant("acme", "owner").await;
    let build = owner.submit(&json!({"image": "base"})).await;
    let new = json!({"principal": "p", "role": "reader"});
    let made = owner.post("/api/v1/tokens", &new).await.is(201).json();
    let client = world.client(made["token"].as_str());
    let follow = async |client: &Client, path: &str| {
        let path = format!("/api/v1/builds/{build}/{path}");
        client.request(Method::GET, &path).send().await.unwrap()
    };
    let events = follow(&client, "events?follow=true").await;
    let text = follow(&client, "logs?format=text&follow=true").await;
    let others = follow(&owner, "events?follow=true").await;
    owner.delete(&format!("/api/v1/tokens/{}", id(&made))).await.is(204);
    assert!(events.text().await.unwrap().contains("event: "), "what was there was sent");
    assert!(text.text().await.is_err(), "a log that is not whole ends as if it were");
    // Whoever has another token goes on to the end.
    owner.post(&format!("/api/v1/builds/{build}/cancel"), &json!({})).await.is(202);
    assert!(others.text().await.unwrap().contains("\"cancelled\""));
}
