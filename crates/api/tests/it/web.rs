//! The web UI.

use reqwest::Method;
use serde_json::json;

use crate::support::{ADMIN, World, id, send};

#[tokio::test(flavor = "multi_thread")]
async fn pages_need_a_login_show_builds_and_run_nothing() {
    let world = World::new().await;
    let nobody = world.client(None);
    assert_eq!(nobody.get("/").await.is(303).header("location"), "/login");
    let login = |token: &str| {
        let request = nobody.request(Method::POST, "/login");
        let kind = "application/x-www-form-urlencoded";
        send(request.header("content-type", kind).body(format!("token={token}")))
    };
    login("wrong").await.is(401);
    let cookie = login(ADMIN).await.is(303);
    let cookie = cookie.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let page = |path: &str| send(nobody.request(Method::GET, path).header("cookie", &cookie));

    let text = "FROM base\nRUN echo '<script>alert(1)</script>'; exit 3\n";
    let ask = json!({"name": "<script>alert(2)</script>", "dockerfile": text});
    let build = world.admin.submit(&ask).await;
    world.admin.wait(&build).await;
    let list = page("/").await.is(200);
    assert!(list.header("content-security-policy").starts_with("default-src 'none'"));
    assert!(list.text().contains("failed"), "{}", list.text());
    let one = page(&format!("/builds/{build}")).await.is(200);
    for shown in [&list, &one] {
        assert!(!shown.text().contains("<script"), "{}", shown.text());
    }
    assert!(one.text().contains("&lt;script&gt;alert(1)&lt;/script&gt;\n"), "{}", one.text());
    assert!(one.text().contains("no earlier build has this step"), "{}", one.text());
    let good = world.admin.built(&json!({"dockerfile": "FROM base\n"})).await;
    let good = page(&format!("/builds/{}", id(&good))).await.is(200).text();
    assert!(good.contains("in any case: it is the newest success of its name"), "{good}");
    assert!(page("/?q=state:done").await.is(400).text().contains("state"));
    page("/builds/none").await.is(404);
    let log = page(&format!("/builds/{build}/log")).await.is(200);
    assert!(log.header("content-security-policy").starts_with("default-src 'none'"));
    let html = log.text();
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;\n"), "{html}");
    assert!(html.ends_with("</pre></body></html>\n") && !html.contains("<script"), "{html}");
    page("/builds/none/log").await.is(404);
    assert_eq!(
        nobody.get(&format!("/builds/{build}/log")).await.is(303).header("location"),
        "/login"
    );
    page("/assets/style.css").await.is(200);
    // The API takes no cookies: other sites cannot make a browser change anything.
    page("/api/v1/whoami").await.is(401);

    let stranger = world.tenant("other", "owner").await;
    let theirs = stranger.built(&json!({"name": "theirs", "image": "base"})).await;
    let new = json!({"principal": "me", "role": "reader"});
    let made = world.admin.post("/api/v1/tokens", &new).await.is(201).json();
    let cookie = world.session(made["token"].as_str().unwrap()).await;
    let path = format!("/builds/{}", id(&theirs));
    send(nobody.request(Method::GET, &path).header("cookie", &cookie)).await.is(404);
    let log = format!("{path}/log");
    send(nobody.request(Method::GET, &log).header("cookie", &cookie)).await.is(404);
    let list = send(nobody.request(Method::GET, "/").header("cookie", &cookie)).await;
    assert!(!list.text().contains("theirs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_no_token_and_ends_with_its_login() {
    let world = World::new().await;
    let nobody = world.client(None);
    let page = |cookie: &str| send(nobody.request(Method::GET, "/").header("cookie", cookie));
    let logout =
        |cookie: &str| send(nobody.request(Method::POST, "/logout").header("cookie", cookie));
    let new = json!({"principal": "ann", "role": "reader"});
    let made = world.admin.post("/api/v1/tokens", &new).await.is(201).json();
    let (token, id) = (made["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    for token in [ADMIN, token] {
        let (cookie, other) = (world.session(token).await, world.session(token).await);
        assert!(!cookie.contains(token), "the cookie is the token");
        let text = cookie.split_once('=').unwrap().1;
        for stolen in [text, text.strip_prefix("session_").unwrap()] {
            world.client(Some(stolen)).get("/api/v1/whoami").await.is(401);
        }
        // A token is no session.
        page(&format!("ashlar_session={token}")).await.is(303);
        page(&cookie).await.is(200);
        logout(&cookie).await.is(303);
        page(&cookie).await.is(303);
        page(&other).await.is(200);
    }
    let session = world.session(token).await;
    let token = world.admin.request(Method::DELETE, &format!("/api/v1/tokens/{id}"));
    send(token).await.is(204);
    page(&session).await.is(303);
    let audit = world.admin.get("/api/v1/audit").await.is(200).text();
    assert!(audit.contains("session.begin") && audit.contains("session.end"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_log_nobody_in_or_out() {
    let world = World::new().await;
    let nobody = world.client(None);
    let cookie = world.session(ADMIN).await;
    let evil = ("origin", "https://evil.example");
    let own = ("origin", world.url.as_str());
    for ((name, value), login, logout) in
        [(evil, 403, 403), (("sec-fetch-site", "cross-site"), 403, 403), (own, 303, 303)]
    {
        let request = nobody.request(Method::POST, "/login").header(name, value);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = send(request.body(format!("token={ADMIN}"))).await.is(login);
        assert_eq!(answer.header("set-cookie").is_empty(), login == 403, "{value}");
        let request = nobody.request(Method::POST, "/logout").header(name, value);
        send(request.header("cookie", &cookie)).await.is(logout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bookmarks_and_policies_that_were_set_are_seen() {
    let world = World::new().await;
    let build = world.admin.submit(&json!({"image": "base"})).await;
    let path = format!("/api/v1/builds/{build}");
    let shown = world.admin.get(&path).await.is(200).json();
    assert_eq!(shown["bookmarked_by"], json!([]));
    let change = world.admin.request(Method::PATCH, &path).json(&json!({"bookmarked": true}));
    send(change).await.is(200);
    let shown = world.admin.get(&path).await.is(200).json();
    assert_eq!(shown["bookmarked_by"], json!([shown["principal"]]));
    let audit = world.admin.get("/api/v1/audit").await.is(200).text();
    assert!(audit.contains("build.bookmark"), "{audit}");

    let path = "/api/v1/scopes/some%2Fapp/policy";
    assert_eq!(world.admin.get(path).await.is(200).json(), json!({"policy": "allow"}));
    let set = json!({"policy": "allow", "active_max": 3});
    send(world.admin.request(Method::PUT, path).json(&set)).await.is(204);
    assert_eq!(world.admin.get(path).await.is(200).json(), set);
    let queue = world.admin.request(Method::PUT, path).json(&json!({"policy": "queue"}));
    send(queue).await.is(204);
    let bound = json!({"policy": "queue", "active_max": 1});
    assert_eq!(world.admin.get(path).await.is(200).json(), bound);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_numbers_need_no_token() {
    let world = World::new().await;
    let nobody = world.client(None);
    assert_eq!(nobody.get("/healthz").await.is(200).json(), json!({"status": "ok"}));
    nobody.get("/readyz").await.is(200);
    world.admin.built(&json!({"image": "base"})).await;
    let metrics = nobody.get("/metrics").await.is(200);
    let line = "ashlar_attempts_ended_total{state=\"succeeded\"} 1\n";
    assert!(metrics.text().contains(line), "{}", metrics.text());
    assert!(!metrics.header("x-request-id").is_empty());
    world.service.drain().await;
    nobody.get("/readyz").await.is(503);
    world.admin.post("/api/v1/builds", &json!({"image": "base"})).await.is(503);
}
