//! Links, cookies and the audit log behind proxies, and hostile headers. The tests' server trusts
//! 127.0.0.2, from where a client can come too.

use std::net::IpAddr;

use reqwest::Method;
use serde_json::json;

use crate::support::{ADMIN, Answer, World, send};

const FORWARDED: &[(&str, &str)] = &[
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "builds.example.com"),
    ("x-forwarded-prefix", "/ashlar"),
];

/// Sends a request with forwarded headers from an address.
async fn ask(world: &World, from: [u8; 4], method: Method, path: &str, body: &str) -> Answer {
    let address: IpAddr = from.into();
    let http = reqwest::Client::builder().local_address(address).no_proxy();
    let http = http.redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut request = http.request(method, format!("{}{path}", world.url));
    for (name, value) in FORWARDED {
        request = request.header(*name, *value);
    }
    let form = "application/x-www-form-urlencoded";
    match body.starts_with('{') {
        true => request = request.header("content-type", "application/json").bearer_auth(ADMIN),
        false => request = request.header("content-type", form),
    }
    send(request.body(body.to_owned())).await
}

const PROXY: [u8; 4] = [127, 0, 0, 2];
const STRANGER: [u8; 4] = [127, 0, 0, 3];

#[tokio::test(flavor = "multi_thread")]
async fn links_and_cookies_follow_a_trusted_proxy_and_nobody_else() {
    let world = World::with(|config| config.slots = 0).await;
    let login = format!("token={ADMIN}");
    let answer = ask(&world, PROXY, Method::POST, "/login", &login).await.is(303);
    assert_eq!(answer.header("location"), "/ashlar/");
    let cookie = answer.header("set-cookie");
    assert!(cookie.contains("; Path=/ashlar/;") && cookie.contains("; Secure"), "{cookie}");
    let answer = ask(&world, STRANGER, Method::POST, "/login", &login).await.is(303);
    assert_eq!(answer.header("location"), "/");
    let cookie = answer.header("set-cookie");
    assert!(cookie.contains("; Path=/;") && !cookie.contains("Secure"), "{cookie}");

    let page = ask(&world, PROXY, Method::GET, "/login", "").await.is(200).text();
    assert!(page.contains("action=\"/ashlar/login\""), "{page}");
    assert!(page.contains("href=\"/ashlar/assets/style.css\""), "{page}");
    let page = ask(&world, STRANGER, Method::GET, "/login", "").await.is(200).text();
    assert!(page.contains("action=\"/login\"") && !page.contains("/ashlar"), "{page}");

    let document = ask(&world, PROXY, Method::GET, "/api/openapi.json", "").await.is(200).json();
    assert_eq!(document["servers"], json!([{ "url": "https://builds.example.com/ashlar" }]));
    let document = ask(&world, STRANGER, Method::GET, "/api/openapi.json", "").await.is(200).json();
    assert_eq!(document["servers"], json!([{ "url": world.url }]));

    let realm = ask(&world, PROXY, Method::GET, "/v2/", "").await.is(401);
    let realm = realm.header("www-authenticate");
    assert!(realm.contains("\"https://builds.example.com/ashlar/v2/token\""), "{realm}");
    let realm = ask(&world, STRANGER, Method::GET, "/v2/", "").await.is(401);
    let realm = realm.header("www-authenticate");
    assert!(realm.contains(&format!("\"{}/v2/token\"", world.url)), "{realm}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registrys_next_page_is_behind_the_proxy_too() {
    let world = World::new().await;
    world.admin.built(&json!({"dockerfile": "FROM base\n", "tags": ["app:a", "app:b"]})).await;
    let path = "/v2/default/app/tags/list?n=1";
    let list = |from| ask(&world, from, Method::GET, path, "{}");
    let next = "/v2/default/app/tags/list?n=1&last=a>; rel=\"next\"";
    assert_eq!(list(PROXY).await.is(200).header("link"), format!("</ashlar{next}"));
    assert_eq!(list(STRANGER).await.is(200).header("link"), format!("<{next}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_names_the_client_and_not_the_proxy() {
    let world = World::with(|config| config.slots = 0).await;
    let body = r#"{"image": "base"}"#;
    let made = ask(&world, PROXY, Method::POST, "/api/v1/builds", body).await.is(201);
    assert!(made.header("location").starts_with("/ashlar/api/v1/builds/"));
    ask(&world, STRANGER, Method::POST, "/api/v1/builds", body).await.is(201);
    let audit = world.admin.get("/api/v1/audit").await.is(200).json();
    let clients: Vec<_> =
        audit["entries"].as_array().unwrap().iter().map(|e| &e["detail"]["client"]).collect();
    assert_eq!(clients, [&json!("127.0.0.3"), &json!("203.0.113.7")], "{audit:#}");
    let id = made.header("x-request-id");
    assert_eq!(audit["entries"][1]["detail"]["request"], json!(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn request_ids_are_kept_when_they_are_plain() {
    let world = World::with(|config| config.slots = 0).await;
    let with = |id: &str| {
        let request = world.client(None).request(Method::GET, "/healthz");
        send(request.header("x-request-id", id))
    };
    assert_eq!(with("abc-1").await.header("x-request-id"), "abc-1");
    for bad in ["a b", &"a".repeat(200), ""] {
        let id = with(bad).await.header("x-request-id").to_owned();
        assert_eq!(id.len(), 36, "{bad}: {id}");
    }
}
