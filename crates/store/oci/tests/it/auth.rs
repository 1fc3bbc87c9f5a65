//! Token services, basic credentials and Docker's credential helpers.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::{env, fs};

use ashlar_oci::{Credential, PullPolicy, Reference, RegistrySettings, Transfer};

use crate::support::{Content, Fake, Local, Reply, settings};

/// A registry with a token service that gives tokens to those who show `who` as authorization.
fn with_tokens(who: Option<&'static str>) -> Fake {
    let mut content = Content::default();
    content.image("1", "linux/amd64", &[b"layer"]);
    Fake::start(move |r| {
        if r.path == "/token" {
            let shown = r.header("authorization");
            let is_known = who.is_none()
                || shown == who
                || String::from_utf8_lossy(&r.body).contains("refresh_token=idt");
            return if is_known {
                Reply::ok(r#"{"token":"t0k","expires_in":300}"#)
            } else {
                Reply::new(401)
            };
        }
        if r.header("authorization") == Some("Bearer t0k") {
            return content.answer(r);
        }
        let host = r.header("host").unwrap();
        let challenge = format!(
            r#"Bearer realm="http://{host}/token",service="the service",scope="repository:app:pull""#
        );
        Reply::new(401).header("www-authenticate", challenge)
    })
}

fn pull(fake: &Fake, settings: RegistrySettings) -> Result<(), String> {
    let local = Local::with(settings);
    let reference: Reference = format!("{}/app:1", fake.host).parse().unwrap();
    let platform = "linux/amd64".parse().unwrap();
    let quiet = Transfer::quiet();
    let image = local.images.resolve(&reference, &platform, PullPolicy::Pull, &quiet);
    let image = image.map_err(|e| format!("{e} [{}]", e.hint().unwrap_or_default()))?;
    local.images.fetch_layer(&image, 0, &quiet).map(drop).map_err(|e| e.to_string())
}

fn with_credential(fake: &Fake, credential: Credential) -> RegistrySettings {
    let mut settings = settings();
    settings.credentials.insert(fake.host.clone(), credential);
    settings
}

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.into(), password: password.into() }
}

#[test]
fn one_anonymous_token_serves_a_whole_pull() {
    let fake = with_tokens(None);
    pull(&fake, settings()).unwrap();
    assert_eq!(fake.count("GET", "/token"), 1);
    let log = fake.log();
    let asked = log.iter().find(|r| r.path == "/token").unwrap();
    assert_eq!(asked.query, "service=the+service&scope=repository%3Aapp%3Apull");
    assert_eq!(log.iter().filter(|r| r.header("authorization").is_none()).count(), 2);
}

#[test]
fn credentials_go_to_the_token_service_only() {
    let fake = with_tokens(Some("Basic bWU6c2VjcmV0"));
    pull(&fake, with_credential(&fake, basic("me", "secret"))).unwrap();
    let is_basic = |a: &str| a.starts_with("Basic");
    let log = fake.log();
    let mut shown = log.iter().filter(|r| r.header("authorization").is_some_and(is_basic));
    assert!(shown.all(|r| r.path == "/token"));
}

#[test]
fn wrong_credentials_are_named_and_not_tried_again() {
    let fake = with_tokens(Some("Basic bWU6c2VjcmV0"));
    let error = pull(&fake, with_credential(&fake, basic("me", "wrong"))).unwrap_err();
    assert!(error.contains("refused") && error.contains("docker login"), "{error}");
    assert!(!error.contains("wrong"), "no secret in an error: {error}");
    assert_eq!(fake.count("GET", "/token"), 1);
}

#[test]
fn an_identity_token_is_exchanged() {
    let fake = with_tokens(Some("nothing"));
    pull(&fake, with_credential(&fake, Credential::Identity("idt".into()))).unwrap();
    let log = fake.log();
    let asked = log.iter().find(|r| r.path == "/token").unwrap();
    let body = String::from_utf8(asked.body.clone()).unwrap();
    assert_eq!(asked.method, "POST");
    assert!(
        body.contains("grant_type=refresh_token") && body.contains("service=the+service"),
        "{body}"
    );
}

#[test]
fn a_token_that_is_refused_ends_it() {
    let fake = Fake::start(|r| match r.path.as_str() {
        "/token" => Reply::ok(r#"{"access_token":"useless"}"#),
        _ => {
            let host = r.header("host").unwrap();
            let challenge = format!(r#"Bearer realm="http://{host}/token""#);
            Reply::new(401).header("www-authenticate", challenge)
        }
    });
    let error = pull(&fake, settings()).unwrap_err();
    assert!(error.contains("refused the credentials"), "{error}");
    assert_eq!(fake.log().len(), 3);
}

#[test]
fn nonsense_of_a_token_service_is_an_error() {
    for answer in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, "<html>"] {
        let fake = Fake::start(move |r| match r.path.as_str() {
            "/token" => Reply::ok(answer),
            _ => {
                let host = r.header("host").unwrap();
                let challenge = format!(r#"Bearer realm="http://{host}/token""#);
                Reply::new(401).header("www-authenticate", challenge)
            }
        });
        let error = pull(&fake, settings()).unwrap_err();
        assert!(error.contains("broke the protocol"), "{answer}: {error}");
    }
}

#[test]
fn docker_config_entries_are_used() {
    let fake = with_tokens(Some("Basic bWU6c2VjcmV0"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#, fake.host);
    fs::write(&path, text).unwrap();
    pull(&fake, RegistrySettings { docker_config: Some(path), ..settings() }).unwrap();
}

/// Runs again as a child, since only a new process can have another PATH.
#[test]
fn credential_helpers_are_asked() {
    const CHILD: &str = "ASHLAR_TEST_HELPER_DIR";
    if let Some(dir) = env::var_os(CHILD) {
        let fake = with_tokens(Some("Basic bWU6c2VjcmV0"));
        let path = std::path::Path::new(&dir).join("config.json");
        fs::write(&path, r#"{"credsStore":"ashlartest"}"#).unwrap();
        fs::write(std::path::Path::new(&dir).join("expected"), &fake.host).unwrap();
        pull(&fake, RegistrySettings { docker_config: Some(path), ..settings() }).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let helper = dir.path().join("docker-credential-ashlartest");
    let script = "#!/bin/sh\nread -r host || [ -n \"$host\" ]\n\
        [ \"$1\" = get ] && [ \"$host\" = \"$(cat \"$(dirname \"$0\")/expected\")\" ] || exit 1\n\
        echo '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"secret\"}'\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.path().display(), env::var("PATH").unwrap());
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "auth::credential_helpers_are_asked", "--nocapture"])
        .env(CHILD, dir.path())
        .env("PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
