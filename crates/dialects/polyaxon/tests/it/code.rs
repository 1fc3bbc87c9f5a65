//! Code uploads, hostile ones too, and the code back again.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::{Value, json};

use crate::support::{World, gzip, multipart, tar};

const P: &str = "/api/v1/acme/first/";

async fn world() -> World {
    let world = World::still().await;
    world.project("first").await;
    world
}

async fn commit(world: &World) -> Value {
    let build = world.build("first", "{version: 1, kind: build, image: busybox}").await;
    world.get(&build).await.is(200)["commit"].clone()
}

fn files(archive: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), text);
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_replaces_the_tree_and_equal_code_is_the_same_commit() {
    let world = world().await;
    assert_eq!(commit(&world).await, Value::Null);
    let one = gzip(&tar(&[("app.py", "1"), ("sub/x", "x")]));
    world.upload("first", one.clone(), false).await.is_empty(200);
    let first = commit(&world).await;
    assert_eq!(first.as_str().unwrap().len(), 40);
    let said = world.upload("first", one, true).await.is(200);
    assert_eq!(said, "Could not trigger the project CI.");
    assert_eq!(commit(&world).await, first);
    let two = gzip(&tar(&[("app.py", "2")]));
    world.upload("first", two, false).await.is_empty(200);
    let second = commit(&world).await;
    assert_ne!(first, second);
    assert_eq!(world.get(P).await.is(200)["has_code"], true);
    assert_eq!(world.get(&format!("{P}repo/")).await.is(200)["project"], "acme.first");
    world.poke(&format!("{P}repo/sync/")).await.is_empty(200);
    assert_eq!(world.poke(&format!("{P}repo/external/")).await.status, 403);

    let head = world.get(&format!("{P}repo/download/")).await;
    assert_eq!(files(&head.bytes), BTreeMap::from([("app.py".into(), "2".into())]));
    let length: usize =
        head.headers["x-polyaxon-content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!(length, head.bytes.len());
    let old = world.get(&format!("{P}repo/download/?commit={}", first.as_str().unwrap())).await;
    assert_eq!(files(&old.bytes)["sub/x"], "x");
    assert_eq!(world.get(&format!("{P}repo/download/?commit=nope")).await.status, 404);

    let text =
        format!("{{version: 1, kind: build, image: busybox, commit: {}}}", first.as_str().unwrap());
    let pinned = world.build("first", &text).await;
    assert_eq!(world.get(&pinned).await.is(200)["commit"], first);
    let reference = world.get(&format!("{pinned}coderef/")).await.is(200);
    assert_eq!((&reference["commit"], &reference["head"]), (&first, &second));
    for unknown in ["commit: 0000000000000000000000000000000000000000", "branch: other"] {
        let build = world
            .build("first", &format!("{{version: 1, kind: build, image: busybox, {unknown}}}"))
            .await;
        assert_eq!(world.get(&build).await.is(200)["commit"], Value::Null, "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_code_show_in_the_dockerfile() {
    let world = world().await;
    let code = [
        ("requirements.txt", "r"),
        ("polyaxon_requirements.txt", "r"),
        ("setup.sh", "s"),
        ("docker/Dockerfile", "FROM busybox\nCOPY build/app.py /\n"),
        ("app.py", "1"),
        ("part/conda_env.yml", "c"),
    ];
    world.upload("first", gzip(&tar(&code)), false).await.is_empty(200);
    let dockerfile = async |extra: &str| {
        let build = world.build("first", &format!("{{version: 1, kind: build, {extra}}}")).await;
        world.get(&build).await.is(200)["dockerfile"].clone()
    };
    let whole = dockerfile("image: busybox").await;
    let copies =
        "COPY build/polyaxon_requirements.txt /code\nCOPY build/setup.sh /code\nCOPY build /code\n";
    assert!(whole.as_str().unwrap().ends_with(copies), "{whole}");
    let part = dockerfile("image: busybox, context: part").await;
    assert!(
        part.as_str().unwrap().ends_with("COPY build/conda_env.yml /code\nCOPY build /code\n"),
        "{part}"
    );
    let own = dockerfile("dockerfile: docker/Dockerfile").await;
    assert_eq!(own, "FROM busybox\nCOPY build/app.py /\n");
    assert_eq!(dockerfile("dockerfile: none").await, Value::Null);
}

fn raw_entry(path: &[u8], kind: tar::EntryType, link: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_old();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_archives_are_refused_and_change_nothing() {
    use tar::EntryType as T;
    let world = world().await;
    world.upload("first", gzip(&tar(&[("a", "1")])), false).await.is_empty(200);
    let head = commit(&world).await;
    let good = gzip(&tar(&[("a", "2")]));
    let mut below_link = raw_entry(b"dir", T::Symlink, b"/etc");
    below_link.truncate(512);
    below_link.extend(raw_entry(b"dir/passwd", T::Regular, b""));
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("no archive", b"just some text".to_vec()),
        ("zeros with noise", vec![7; 4096]),
        ("nothing", Vec::new()),
        ("a gzip that ends early", good[..good.len() / 2].to_vec()),
        ("a path upwards", gzip(&raw_entry(b"../../etc/passwd", T::Regular, b""))),
        ("an absolute path", gzip(&raw_entry(b"/etc/passwd", T::Regular, b""))),
        ("a hard link outside", gzip(&raw_entry(b"x", T::Link, b"/etc/passwd"))),
        ("a file below a link", gzip(&below_link)),
        ("a path that is not UTF-8", gzip(&raw_entry(b"\xff\xfe", T::Regular, b""))),
    ];
    for (what, bytes) in table {
        let reply = world.upload("first", bytes, false).await;
        assert_eq!(reply.status, 400, "{what}: {}", reply.text());
        assert_eq!(commit(&world).await, head, "{what}");
    }
    let no_repo = multipart(&[("other", None, b"x".to_vec())], Some("{}"));
    assert_eq!(
        world.upload_body("first", no_repo).await.is(400),
        json!({"repo": ["No file was submitted."]})
    );
    let whole = multipart(&[("repo", Some("x.tar.gz"), good)], None);
    assert_eq!(world.upload_body("first", whole[..whole.len() - 30].to_vec()).await.status, 400);
    assert_eq!(world.upload_body("first", b"nonsense".to_vec()).await.status, 400);
    assert_eq!(world.upload("none", Vec::new(), false).await.status, 404);
    assert_eq!(commit(&world).await, head);
    // Links that lead nowhere good are kept as they are; devices are left out.
    let odd = [
        raw_entry(b"dev", T::Char, b"")[..512].to_vec(),
        raw_entry(b"link", T::Symlink, b"/etc/passwd"),
    ]
    .concat();
    world.upload("first", gzip(&odd), false).await.is_empty(200);
    let back = world.get(&format!("{P}repo/download/")).await;
    assert_eq!(files(&back.bytes).into_keys().collect::<Vec<_>>(), ["link"]);
}
