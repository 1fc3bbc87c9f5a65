use proptest::prelude::*;

use super::*;

#[test]
fn sizes_have_units() {
    let cases = [
        ("0", 0),
        ("1024", 1024),
        ("512m", 512 << 20),
        ("1.5g", 3 << 29),
        ("64KiB", 64 << 10),
        ("2TB", 2 << 40),
        ("10b", 10),
    ];
    for (text, want) in cases {
        assert_eq!(size(text), Ok(want), "{text}");
    }
    for bad in ["", "m", "1x", "-1", "1e9", "99999999999t", "1.2.3m", "NaN", "inf"] {
        assert!(size(bad).is_err(), "{bad}");
    }
}

#[test]
fn durations_add_up() {
    assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
    assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
    assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
    for bad in ["", "5", "s", "-1s", "1x", "1s2", "99999999999d"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn outputs_are_read_and_checked() {
    let oci = output("type=oci,dest=a.tar,compression=zstd,compression-level=9").unwrap();
    assert_eq!((oci.kind, oci.dest), (OutputType::Oci, Some("a.tar".into())));
    assert_eq!((oci.compression, oci.level), (Some(CompressionKind::Zstd), Some(9)));
    assert_eq!(output("out").unwrap().kind, OutputType::Local);
    assert_eq!(output("-").unwrap().kind, OutputType::Tar);
    let two = output("type=registry,\"name=a/b,c/d\",insecure=true").unwrap();
    assert_eq!((two.names.len(), two.insecure), (2, true));
    assert!(output("type=oci,annotation.a=b").unwrap().annotations.len() == 1);
    for pushed in ["type=image,push=true", "type=registry,push=true", "type=docker,push=true"] {
        assert!(output(pushed).unwrap().push, "{pushed}");
    }
    assert!(!output("type=oci,dest=a.tar,push=false").unwrap().push);
    let bad = [
        ("", "type=TYPE"),
        ("type=zip", "no type 'zip'"),
        ("dest=x", "no type"),
        ("type=local", "needs dest"),
        ("type=local,dest=-", "type=tar"),
        ("type=oci,dest=", "dest is empty"),
        ("type=registry,dest=x", "name=REF"),
        ("type=oci,colour=red", "no option 'colour'"),
        ("type=oci,compression=lz4", "no compression"),
        ("type=oci,compression-level=99", "not a compression level"),
        ("type=oci,tar=maybe", "neither true nor false"),
        ("type=oci,dest=a.tar,push=true", "type=registry,name=REF"),
        ("type=docker,dest=a.tar,push=true", "type=registry,name=REF"),
        ("type=local,dest=a,push=true", "type=registry,name=REF"),
    ];
    for (text, says) in bad {
        let error = output(text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn secrets_and_hosts_and_limits() {
    let file = ("a".into(), SecretSource::File("/x".into()));
    assert_eq!(secret("id=a,src=/x"), Ok(file));
    assert_eq!(secret("id=a,env=B"), Ok(("a".into(), SecretSource::Env("B".into()))));
    assert_eq!(secret("id=a,type=file"), Ok(("a".into(), SecretSource::File("a".into()))));
    assert!(secret("src=/x").unwrap_err().contains("id is missing"));
    assert!(secret("id=a,what=x").is_err() && secret("a").is_err());
    assert_eq!(extra_host("db:10.0.0.5").unwrap().address, "10.0.0.5");
    assert_eq!(extra_host("v6=[::1]").unwrap().address, "::1");
    assert!(extra_host("db:nowhere").is_err() && extra_host(":1.2.3.4").is_err());
    assert_eq!(ulimit("nofile=1:2").unwrap().hard, 2);
    assert!(ulimit("nofile=2:1").is_err() && ulimit("nofile").is_err());
    assert_eq!(ulimit("core=-1").unwrap().soft, -1);
}

#[test]
fn git_addresses_are_told_from_directories() {
    for git in
        ["https://e.org/a.git", "git@e.org:a/b", "https://e.org/a#main:sub", "github.com/a/b"]
    {
        assert!(is_git(git), "{git}");
    }
    for dir in [".", "/a/b.git", "https://e.org/context.tar", "repo#1"] {
        assert!(!is_git(dir), "{dir}");
    }
    let parts = git_address("https://e.org/a.git#v1:docker/x");
    assert_eq!((parts.reference.as_str(), parts.subdir.as_str()), ("v1", "docker/x"));
    assert!(matches!(build_context("a=docker-image://b").unwrap().1, ContextSpec::Image(_)));
    assert!(build_context("a=oci-layout://b").is_err());
}

proptest! {
    #[test]
    fn whole_sizes_round_trip(n in 0u64..1 << 20, unit in 0usize..4) {
        let (suffix, shift) = [("", 0), ("k", 10), ("M", 20), ("gib", 30)][unit];
        prop_assert_eq!(size(&format!("{n}{suffix}")), Ok(n << shift));
    }

    #[test]
    fn durations_of_seconds_and_minutes_add(m in 0u64..100_000, s in 0u64..100_000) {
        prop_assert_eq!(duration(&format!("{m}m{s}s")), Ok(Duration::from_secs(m * 60 + s)));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in ".{0,60}") {
        let _ = (size(&text), duration(&text), output(&text), secret(&text), ulimit(&text));
        let _ = (extra_host(&text), build_context(&text), git_address(&text), cpus(&text));
    }

    #[test]
    fn commas_in_quotes_stay_together(parts in proptest::collection::vec("[a-z,]{1,8}", 1..5)) {
        let text: Vec<String> = parts.iter().map(|p| format!("\"{p}\"")).collect();
        prop_assert_eq!(fields(&text.join(",")), parts);
    }
}
