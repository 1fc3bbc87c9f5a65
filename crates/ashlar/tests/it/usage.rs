//! What is typed wrongly, and what is generated.

use std::os::unix::process::CommandExt as _;

use crate::server::command;
use crate::world::{Said, World};

/// The user and group of nobody.
const NOBODY: u32 = 65_534;

#[test]
fn bad_usage_has_code_2_and_names_the_flag_and_the_way_out() {
    let world = World::empty();
    world.file("Dockerfile", "FROM scratch\n");
    let table: [(&[&str], &str); 30] = [
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
        (&["build", "context", "--cache-from", "type=gha"], "--cache-from: leave it out"),
        (&["build", "context", "--cache-to", "type=inline"], "--cache-to: leave it out"),
        (&["build", "context", "-o", "type=cacheonly"], "leave --output out"),
        (&["build", "https://host/x.tar.gz"], "curl -fsSL https://host/x.tar.gz | ashlar build -"),
        (&["serve", "--database", "mysql://h/d"], "no mysql:// databases; write postgres://"),
        (&["images", "run", "--no-such-flag", "image"], "no flag '--no-such-flag'"),
    ];
    for (args, says) in table {
        let said = world.run(args);
        assert_eq!(said.code, Some(2), "{args:?}: {said:?}");
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
}

#[test]
fn a_server_does_not_start_with_settings_that_it_could_not_work_with() {
    let world = World::empty();
    let file = |name: &str, text: &str| std::fs::write(world.path(name), text).unwrap();
    file("empty.pem", "");
    let refused = |args: &[&str], env: Option<(&str, &str)>, says: &str| {
        let mut command = world.command(&[&["serve", "--listen", "127.0.0.1:0"], args].concat());
        let said = Said::of(command.envs(env).output().unwrap());
        assert_eq!(said.code, Some(2), "{args:?} {env:?}: {said:?}");
        assert!(said.err.contains(says), "{args:?} {env:?}: {}", said.err);
    };
    for rate in ["0", "-1", "nan", "inf", "0.5", "1e400"] {
        let says = "a whole number from 1 on";
        refused(&[&format!("--requests-per-second={rate}")], None, says);
        refused(&[], Some(("ASHLAR_REQUESTS_PER_SECOND", rate)), says);
    }
    for (setting, value, says) in [
        ("ca-bundle", "none.pem", "--ca-bundle: cannot read none.pem"),
        ("ca-bundle", "empty.pem", "--ca-bundle: empty.pem has no certificate"),
        ("git-file-root", "none", "--git-file-root: cannot read none"),
        ("git-file-root", "empty.pem", "--git-file-root: cannot read empty.pem"),
    ] {
        refused(&[&format!("--{setting}"), value], None, says);
        let variable = format!("ASHLAR_{}", setting.replace('-', "_").to_uppercase());
        refused(&[], Some((&variable, value)), says);
        file("settings.toml", &format!("{setting} = \"{value}\"\n"));
        refused(&["--config", "settings.toml"], None, says);
    }
    for (text, says) in [
        ("requests-per-second = 0", "a whole number from 1 on"),
        ("requests-per-second = -1", "a whole number from 1 on"),
        ("requests-per-second = nan", "a whole number from 1 on"),
        ("requests-per-second = inf", "a whole number from 1 on"),
        ("slotz = 1", "there is no setting 'slotz'"),
        ("slots = [1, 2]", "key 'slots'"),
        ("slots =", "TOML"),
    ] {
        file("settings.toml", text);
        refused(&["--config", "settings.toml"], None, says);
        refused(&[], Some(("ASHLAR_CONFIG", "settings.toml")), says);
    }
    refused(&["--config", "none.toml"], None, "--config none.toml: cannot be read");
    let worker = ["worker", "--database", "postgres://127.0.0.1:9/none"];
    let more = ["--blob-store", "file:///nowhere", "--ca-bundle", "none.pem"];
    let said = world.run(&[&worker[..], &more].concat());
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("--ca-bundle: cannot read none.pem"), "{said:?}");
}

#[test]
fn what_is_only_for_this_machine_is_refused_while_a_server_is_set() {
    let world = World::empty();
    for args in [
        &["builds", "debug"][..],
        &["debug", "latest"],
        &["images", "list"],
        &["images", "run", "app", "--data-dir", "x"],
        &["cache", "list"],
        &["du"],
        &["gc", "--dry-run"],
    ] {
        let said = Said::of(command(&world, "http://127.0.0.1:9", "t", args).output().unwrap());
        assert_eq!(said.code, Some(2), "{args:?}: {said:?}");
        let way_out = "ASHLAR_SERVER is http://127.0.0.1:9; unset ASHLAR_SERVER or pass --data-dir";
        assert!(said.err.contains(way_out), "{args:?}: {said:?}");
    }
    for args in [&["du", "--data-dir", "mine"][..], &["--data-dir", "mine", "images", "list"]] {
        Said::of(command(&world, "http://127.0.0.1:9", "t", args).output().unwrap()).ok();
    }
    Said::of(command(&world, "", "", &["du"]).output().unwrap()).ok();
}

#[test]
fn who_is_not_root_hears_so_before_anything_is_fetched() {
    let world = World::empty();
    // Asking its registry would fail in other words.
    world.file("Dockerfile", "FROM 127.0.0.1:9/none\nRUN true\n");
    let data = world.path("data-of-nobody");
    std::fs::create_dir(&data).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode;
    for dir in [data.as_path(), world.path(".").as_path()] {
        std::fs::set_permissions(dir, open(0o777)).unwrap();
    }
    let as_nobody = |args: &[&str]| {
        // The program may lie where only root gets to; its open file does not.
        let program = std::fs::File::open(env!("CARGO_BIN_EXE_ashlar")).unwrap();
        let mut command = std::process::Command::new("/proc/self/fd/0");
        command.env_clear().env("ASHLAR_DATA_DIR", &data).current_dir(world.path("."));
        command.args(args).stdin(program).uid(NOBODY).gid(NOBODY);
        Said::of(command.output().unwrap())
    };
    for (args, says) in [
        (&["build", "context"][..], "`sudo ashlar ...`, or build at a server with --server URL"),
        (&["images", "run", "none"], "images run on this machine needs root"),
        (&["debug"], "debug on this machine needs root"),
    ] {
        let said = as_nobody(args);
        assert_eq!(said.code, Some(2), "{args:?}: {said:?}");
        assert!(said.err.contains(says), "{args:?}: {said:?}");
    }
    as_nobody(&["images", "list"]).ok();
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
