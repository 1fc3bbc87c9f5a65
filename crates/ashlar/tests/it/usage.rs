//! What is typed wrongly, and what is generated.

use crate::world::World;

#[test]
fn bad_usage_has_code_2_and_names_the_flag_and_the_way_out() {
    let world = World::empty();
    world.file("Dockerfile", "FROM scratch\n");
    let table: [(&[&str], &str); 24] = [
        (&["build"], "<CONTEXT>"),
        (&["build", "nowhere"], "'nowhere' does not exist"),
        (&["build", "context/Dockerfile"], "-f FILE"),
        (&["build", "ftp://host/x"], "git address"),
        (&["build", "context", "-f", "none"], "--file none"),
        (&["build", "context", "-t", "UPPER"], "--tag UPPER"),
        (&["build", "context", "-o", "type=zip"], "use oci, docker, local, tar"),
        (&["build", "context", "-o", "type=local"], "dest=PATH"),
        (&["build", "context", "-o", "type=registry"], "--tag NAME"),
        (&["build", "context", "--push"], "--tag NAME"),
        (&["build", "context", "-o", "-", "--progress", "json"], "--progress json"),
        (&["build", "context", "-o", "-", "-o", "type=oci"], "only one output"),
        (&["build", "context", "--memory", "lots"], "--memory"),
        (&["build", "context", "--timeout", "5"], "e.g. 30s"),
        (&["build", "context", "--cpus", "0"], "--cpus"),
        (&["build", "context", "--network", "moon"], "isolated, none or host"),
        (&["build", "context", "--network", "host"], "--allow network.host"),
        (&["build", "context", "--allow", "all"], "security.insecure"),
        (&["build", "context", "--secret", "src=x"], "id is missing"),
        (&["build", "context", "--secret", "id=a,src=none"], "--secret id=a"),
        (&["build", "context", "--registry-mirror", "x"], "HOST=URL"),
        (&["build", "context", "--backend", "buildkit"], "--backend"),
        (&["build", "context", "--server", "http://x"], "--server"),
        (&["builds", "list", "--cursor", "zzz"], "--cursor"),
    ];
    for (args, says) in table {
        let said = world.run(args);
        assert_eq!(said.code, Some(2), "{args:?}: {said:?}");
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
}

#[test]
fn a_wrong_definition_names_its_place_and_has_code_1() {
    let world = World::empty();
    let said = world.build("FROM scratch\nRUNN x\n", &[]);
    assert_eq!(said.code, Some(1));
    for text in ["Dockerfile:2:1: ", "2 | RUNN x", "^^^^", "builds logs"] {
        assert!(said.err.contains(text), "{text}: {}", said.err);
    }
}

#[test]
fn settings_come_from_variables_too() {
    let world = World::empty();
    world.file("Dockerfile", "FROM scratch\n");
    let with = |name: &str, value: &str| {
        let mut command = world.command(&["build", "context"]);
        command.env(name, value).output().unwrap().status.code()
    };
    assert_eq!(with("ASHLAR_PROGRESS", "loud"), Some(2));
    assert_eq!(with("ASHLAR_MEMORY", "x"), Some(2));
    assert_eq!(with("ASHLAR_SERVER", "http://x"), Some(2));
    assert_eq!(with("ASHLAR_REGISTRY_MIRROR", "a"), Some(2));
    assert_eq!(with("ASHLAR_PROGRESS", "plain"), Some(0));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let world = World::empty();
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.run(&["completions", shell]).ok().out.contains("ashlar"), "{shell}");
    }
    assert!(world.run(&["man"]).ok().out.contains(".TH ashlar"));
    world.run(&["man", "--dir", "pages"]).ok();
    let page = std::fs::read_to_string(world.path("pages/ashlar-build.1")).unwrap();
    assert!(page.contains("no\\-cache"), "{page}");
    assert!(page.contains("\\-\\-server") && !page.contains("token-of-a-user"), "{page}");
    for page in ["images-run", "token-create", "tenants-list", "builds-retry"] {
        assert!(world.path(&format!("pages/ashlar-{page}.1")).exists(), "{page}");
    }
    assert!(world.run(&["version"]).ok().out.starts_with("ashlar 0."));
}
