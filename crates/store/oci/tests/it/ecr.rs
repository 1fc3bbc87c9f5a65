//! An AWS access key becomes a login.

use ashlar_oci::registry::{AwsKey, EcrError};
use ashlar_oci::{Registry, RegistrySettings, Transfer};

use crate::support::{Fake, Reply, settings};

fn key() -> AwsKey {
    AwsKey {
        access_key_id: "AKIDEXAMPLE".into(),
        secret_access_key: "very secret".into(),
        session_token: Some("a session".into()),
        region: "eu-central-1".into(),
    }
}

fn registry(fake: &Fake) -> Registry {
    let endpoint = format!("http://{}/", fake.host).parse().unwrap();
    Registry::new(RegistrySettings { ecr_endpoint: Some(endpoint), ..settings() })
}

#[test]
fn the_key_signs_and_does_not_travel() {
    let fake = Fake::start(|_| {
        // `AWS:a password` in Base64.
        Reply::ok(r#"{"authorizationData":[{"authorizationToken":"QVdTOmEgcGFzc3dvcmQ="}]}"#)
    });
    let login = registry(&fake).ecr_login(&key(), &Transfer::quiet()).unwrap();
    assert_eq!(login, ("AWS".to_owned(), "a password".to_owned()));
    let log = fake.log();
    let [asked] = log.as_slice() else { panic!("{log:?}") };
    let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    assert_eq!(asked.header("x-amz-target"), Some(target));
    assert_eq!(asked.header("x-amz-security-token"), Some("a session"));
    assert_eq!(asked.body, b"{}");
    let signed = asked.header("authorization").unwrap();
    assert!(signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{signed}");
    assert!(signed.contains("/eu-central-1/ecr/aws4_request, SignedHeaders=content-type;host;"));
    assert!(!format!("{asked:?}").contains("very secret"));
}

#[test]
fn a_refusal_says_so_and_names_no_secret() {
    let answer =
        r#"{"__type":"com.amazonaws#UnrecognizedClientException","message":"very secret"}"#;
    let fake = Fake::start(move |_| Reply { status: 400, ..Reply::ok(answer) });
    let error = registry(&fake).ecr_login(&key(), &Transfer::quiet()).unwrap_err();
    assert!(matches!(error, EcrError::Refused(_)), "{error}");
    assert_eq!(error.to_string(), "AWS refused the access key (UnrecognizedClientException)");
}

#[test]
fn nonsense_and_wrong_regions_are_errors() {
    let fake = Fake::start(|_| Reply::ok("<html>"));
    let asked = registry(&fake).ecr_login(&key(), &Transfer::quiet());
    assert!(matches!(asked, Err(EcrError::Unavailable { .. })), "{asked:?}");
    let before = fake.log().len();
    for region in ["", "evil.example/", "eu west"] {
        let key = AwsKey { region: region.into(), ..key() };
        let asked = registry(&fake).ecr_login(&key, &Transfer::quiet());
        assert!(matches!(asked, Err(EcrError::Region(_))), "{asked:?}");
    }
    assert_eq!(fake.log().len(), before);
}
