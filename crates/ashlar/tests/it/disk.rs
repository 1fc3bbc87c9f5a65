//! Space: who holds it, and making room.

use serde_json::Value;

use crate::world::World;

fn items(world: &World) -> Vec<Value> {
    world.run(&["du", "--json"]).ok().json()
}

#[test]
fn what_a_tag_needs_stays_and_the_rest_goes() {
    let world = World::new();
    let dockerfile = |text: &str| format!("FROM base\nRUN head -c 300000 /dev/urandom >/{text}\n");
    world.build(&dockerfile("kept"), &["-t", "kept", "-o", "type=oci,dest=k.tar"]).ok();
    world.build(&dockerfile("gone"), &["-t", "gone", "-o", "type=oci,dest=g.tar"]).ok();
    assert_eq!(world.build("FROM base\nRUN exit 1\n", &[]).code, Some(1));
    let held = |name: &str| {
        let by = Value::from(format!("image {name}"));
        items(&world).iter().filter(|i| i["held_by"].as_array().unwrap().contains(&by)).count()
    };
    assert!(held("kept") > 0 && held("gone") > 0);
    world.run(&["images", "rm", "gone"]).ok();
    let planned = world.run(&["gc", "--keep", "0s", "--dry-run", "--json"]).ok().json().remove(0);
    let before = items(&world);
    let freed = world.run(&["gc", "--keep", "0s", "--json"]).ok().json().remove(0);
    assert_eq!(planned["freed_bytes"], freed["freed_bytes"]);
    assert!(freed["freed_bytes"].as_u64().unwrap() > 500_000, "{freed}");
    let kinds: Vec<&Value> =
        freed["removed"].as_array().unwrap().iter().map(|r| &r["kind"]).collect();
    for kind in ["blob", "layer", "failed-step"] {
        assert!(kinds.contains(&&Value::from(kind)), "{kind}: {kinds:?}");
    }
    assert!(items(&world).len() < before.len());

    // What is tagged still runs and goes out as before.
    world.run(&["images", "run", "kept", "test", "-s", "/kept"]).ok();
    world.run(&["images", "export", "kept", "again.tar"]).ok();
    let read = |name: &str| std::fs::read(world.path(name)).unwrap();
    assert!(read("k.tar") == read("again.tar"));
    let again = world.build(&dockerfile("gone"), &[]).ok();
    assert!(!again.err.contains("all from cache"));
    let why = world.run(&["why"]).ok().out;
    assert!(why.contains("removed to free disk space"), "{why}");
}

#[test]
fn a_bound_that_images_pass_is_reported() {
    let world = World::new();
    world.build("FROM base\nRUN echo x >/x\n", &["-t", "app"]).ok();
    let said = world.run(&["gc", "--max-used", "1k"]).ok();
    assert!(said.err.contains("over the bound is needed by images"), "{said:?}");
    world.run(&["images", "run", "app", "cat", "/x"]).ok();
    let du = world.run(&["du", "-v"]).ok().out;
    assert!(du.contains("image app") && du.contains("history of builds"), "{du}");
}

#[test]
fn cache_mounts_are_listed_exported_imported_and_removed() {
    let world = World::new();
    let dockerfile =
        "FROM base\nRUN --mount=type=cache,id=pkg,target=/c echo one >>/c/f; cat /c/f >/out\n";
    world.build(dockerfile, &["-t", "c"]).ok();
    let listed = world.run(&["cache", "list", "--json"]).ok().json();
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &"pkg".into()));
    world.run(&["cache", "export", "pkg", "pkg.tar"]).ok();
    world.run(&["cache", "rm", "pkg"]).ok();
    assert!(world.run(&["cache", "list", "--json"]).ok().out.is_empty());
    assert_eq!(world.run(&["cache", "export", "pkg", "x"]).code, Some(1));
    world.run(&["cache", "import", "pkg", "pkg.tar"]).ok();
    world.build(dockerfile, &["-t", "c", "--no-cache"]).ok();
    assert_eq!(world.run(&["images", "run", "c", "cat", "/out"]).ok().out, "one\none\n");
    world.run(&["cache", "rm", "--all"]).ok();
}
