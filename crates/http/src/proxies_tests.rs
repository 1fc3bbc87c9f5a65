use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::Scheme;

fn trusted() -> TrustedProxies {
    TrustedProxies::new(["10.0.0.0/8", "::1", "fd00::/8"].map(|n| n.parse().unwrap()))
}

fn request(peer: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri("/x").header("host", "inner:7070");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    let peer: SocketAddr = peer.parse().unwrap();
    parts.extensions.insert(ConnectInfo(peer));
    parts
}

/// Returns scheme, host, prefix and client in one text.
fn seen(peer: &str, headers: &[(&str, &str)]) -> String {
    let origin = trusted().origin(&request(peer, headers));
    format!("{origin} {}", origin.client.unwrap())
}

const ALL: &[(&str, &str)] = &[
    ("x-forwarded-for", "1.2.3.4"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "build.example.com"),
    ("x-forwarded-prefix", "/ashlar/"),
];

#[test]
fn a_trusted_proxy_is_believed_and_nobody_else() {
    assert_eq!(seen("10.1.1.1:9", ALL), "https://build.example.com/ashlar 1.2.3.4");
    assert_eq!(seen("[::ffff:10.1.1.1]:9", ALL), "https://build.example.com/ashlar 1.2.3.4");
    assert_eq!(seen("[::1]:9", ALL), "https://build.example.com/ashlar 1.2.3.4");
    assert_eq!(seen("11.1.1.1:9", ALL), "http://inner:7070 11.1.1.1");
    assert_eq!(seen("10.1.1.1:9", &[]), "http://inner:7070 10.1.1.1");
    let nobody = TrustedProxies::default();
    assert_eq!(nobody.origin(&request("10.1.1.1:9", ALL)).to_string(), "http://inner:7070");
}

#[test]
fn what_a_client_made_up_stands_left_of_what_its_proxy_saw() {
    let lists = [("x-forwarded-for", "6.6.6.6, 1.2.3.4"), ("x-forwarded-proto", "https, http")];
    assert_eq!(seen("10.1.1.1:9", &lists), "http://inner:7070 1.2.3.4");
    let chain = [
        ("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.9.9.9"),
        ("x-forwarded-proto", "http, https, http"),
        ("x-forwarded-host", "out.example.com"),
    ];
    assert_eq!(seen("10.1.1.1:9", &chain), "https://out.example.com 1.2.3.4");
    // Lines of one header are one list.
    let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4")];
    assert_eq!(seen("10.1.1.1:9", &lines), "http://inner:7070 1.2.3.4");
    let all_ours = [("x-forwarded-for", "10.2.2.2, 10.3.3.3")];
    assert_eq!(seen("10.1.1.1:9", &all_ours), "http://inner:7070 10.2.2.2");
}

#[test]
fn the_standard_header_wins_over_the_customary_ones() {
    let standard = "for=\"[2001:db8::7]:4711\";proto=https;host=\"a.example.com:8443\", \
                    for=10.5.5.5;proto=http;by=x";
    let both = [("forwarded", standard), ALL[0], ALL[1]];
    assert_eq!(seen("10.1.1.1:9", &both), "https://a.example.com:8443 2001:db8::7");
    let hidden = [("forwarded", "for=_secret;proto=https")];
    assert_eq!(seen("10.1.1.1:9", &hidden), "https://inner:7070 10.1.1.1");
    let quoted = [("forwarded", "for=6.6.6.6;host=\"a,for=7.7.7.7;x\", for=\"1.2.3.4:5\"")];
    assert_eq!(seen("10.1.1.1:9", &quoted), "http://inner:7070 1.2.3.4");
}

#[test]
fn values_that_would_change_a_link_are_dropped() {
    for host in ["a/b", "a@b", "a b", "a#b", "a?b", "", "a\\b", "<x>", &"a".repeat(300), "a:b:c"] {
        let shown =
            seen("10.1.1.1:9", &[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-host", host)]);
        assert_eq!(shown, "http://inner:7070 1.2.3.4", "{host}");
    }
    for prefix in ["//evil.example", "/a//b", "/../x", "x", "/a?b", "/a b", "/%2e", "/\"><"] {
        let shown = seen("10.1.1.1:9", &[("x-forwarded-prefix", prefix)]);
        assert_eq!(shown, "http://inner:7070 10.1.1.1", "{prefix}");
    }
    for scheme in ["javascript", "ftp", "httpss", ""] {
        let shown = seen("10.1.1.1:9", &[("x-forwarded-proto", scheme)]);
        assert_eq!(shown, "http://inner:7070 10.1.1.1", "{scheme}");
    }
    assert_eq!(
        trusted().origin(&request("10.1.1.1:9", &[("x-forwarded-proto", "WSS")])).scheme,
        Scheme::Https
    );
}

#[test]
fn a_host_header_that_is_no_host_never_gets_into_links() {
    let mut parts = request("1.1.1.1:9", &[]);
    parts.headers.insert("host", HeaderValue::from_static("evil/<script>"));
    assert_eq!(trusted().origin(&parts).url("/y"), "http://localhost/y");
}

#[test]
fn networks_are_read_with_and_without_a_length() {
    for text in ["10.0.0.0/8", "10.1.2.3/8", "127.0.0.1", "::1", "fd00::/8"] {
        assert!(text.parse::<TrustedProxies>().is_ok(), "{text}");
    }
    assert!("10.1.2.3/8".parse::<TrustedProxies>().unwrap().contains([10, 9, 9, 9].into()));
    for text in ["", "10.0.0.0/33", "example.com", "10.0.0/8", "*"] {
        let error = text.parse::<TrustedProxies>().unwrap_err().to_string();
        assert!(error.contains("CIDR"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_header_gets_more_than_plain_bytes_into_a_link(
        name in prop::sample::select(forwarded::NAMES.to_vec()),
        value in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut parts = request("10.1.1.1:9", &[]);
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            parts.headers.insert(name, value);
        }
        let link = trusted().origin(&parts).to_string();
        let rest = link.split_once("://").unwrap().1;
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]/~".contains(c);
        prop_assert!(rest.chars().all(plain), "{link}");
        prop_assert!(!rest.contains("//"), "{link}");
    }
}
