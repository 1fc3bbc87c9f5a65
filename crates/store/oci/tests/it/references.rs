//! The grammar of image references.

use ashlar_core::Digest;
use ashlar_oci::{Reference, Repository};
use proptest::prelude::*;

fn full(text: &str) -> String {
    text.parse::<Reference>().unwrap_or_else(|e| panic!("{e}")).to_string()
}

#[test]
fn short_names_are_dockers() {
    let d = format!("sha256:{}", "a".repeat(64));
    for (text, expected) in [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("team/app", "docker.io/team/app:latest"),
        ("a/b/c", "docker.io/a/b/c:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("Host/app", "Host/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("ghcr.io/a/b:x_Y-1.0", "ghcr.io/a/b:x_Y-1.0"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("host:80/a__b/c-d.e--f", "host:80/a__b/c-d.e--f:latest"),
        (&format!("busybox@{d}"), &format!("docker.io/library/busybox@{d}")),
        (&format!("busybox:1@{d}"), &format!("docker.io/library/busybox:1@{d}")),
    ] {
        assert_eq!(full(text), expected);
    }
}

#[test]
fn familiar_names_are_short() {
    for (text, expected) in [
        ("docker.io/library/busybox:latest", "busybox"),
        ("docker.io/library/busybox:1", "busybox:1"),
        ("docker.io/team/app", "team/app"),
        ("docker.io/library/a/b", "library/a/b"),
        ("ghcr.io/a/b", "ghcr.io/a/b"),
    ] {
        assert_eq!(text.parse::<Reference>().unwrap().familiar(), expected);
    }
}

#[test]
fn what_docker_refuses_is_refused() {
    let hex = "a".repeat(64);
    let long = "a".repeat(256);
    let tag = format!("a:{}", "t".repeat(129));
    let (short, other) = (format!("a@sha256:{}", &hex[1..]), format!("a@sha512:{hex}{hex}"));
    for text in [
        "",
        ":tag",
        "@",
        "a:",
        "a@",
        "A",
        "a/B",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a._b",
        "a//b",
        "/a",
        "a/",
        "a b",
        "a:b c",
        "a:.b",
        "a:-b",
        "host:port/a",
        "host:99999/a",
        "-h.x/a",
        "a_b.c:80/a",
        "http://a/b",
        "a:b:c",
        "é",
        "[::g]:1/a",
        "a\0b",
        &hex,
        &long,
        &tag,
        &short,
        &other,
    ] {
        let parsed = text.parse::<Reference>();
        assert!(parsed.is_err(), "'{text}' gave {parsed:?}");
    }
    let upper = "MyApp".parse::<Reference>().unwrap_err().to_string();
    assert!(upper.contains("lower case"), "{upper}");
}

#[test]
fn parts_are_reached_and_changed() {
    let reference: Reference = "localhost:5000/a/b:1".parse().unwrap();
    let repository = reference.repository();
    assert_eq!((repository.host(), repository.path()), ("localhost:5000", "a/b"));
    let digest = Digest::of("x");
    assert_eq!(reference.selector(), "1");
    assert_eq!(reference.clone().pinned(digest).selector(), digest.to_string());
    assert!(repository.clone().with_tag("no good").is_err());
    assert_eq!("busybox".parse::<Repository>().unwrap().familiar(), "busybox");
}

proptest! {
    #[test]
    fn both_forms_read_back_as_the_same(
        host in prop::option::of("[a-z0-9]{1,8}(\\.[a-z]{2,4}|:[1-9][0-9]{0,3})|localhost"),
        path in "[a-z0-9]{1,6}((_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,6}(\\.[a-z0-9]{1,3})?){0,3}",
        tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        digest in prop::option::of("[a-z]{0,4}"),
    ) {
        let mut text = host.map(|h| h + "/").unwrap_or_default() + &path;
        if let Some(tag) = tag { text += &format!(":{tag}"); }
        if let Some(seed) = digest { text += &format!("@{}", Digest::of(seed)); }
        let parsed: Reference = text.parse().unwrap();
        prop_assert_eq!(&parsed.to_string().parse::<Reference>().unwrap(), &parsed);
        prop_assert_eq!(&parsed.familiar().parse::<Reference>().unwrap(), &parsed);
        let json = serde_json::to_string(&parsed).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Reference>(&json).unwrap(), &parsed);
    }

    #[test]
    fn no_text_panics_and_what_is_accepted_is_stable(text in "[a-zA-Z0-9:/@._\\[\\]é -]{0,40}") {
        if let Ok(parsed) = text.parse::<Reference>() {
            prop_assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed);
        }
    }
}
