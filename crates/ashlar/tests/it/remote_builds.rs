//! `ashlar builds`, `token` and `tenants` against a server.

use crate::server::{Server, TOKEN, command};
use crate::world::{Said, World};

fn as_token(world: &World, server: &Server, token: &str, args: &[&str]) -> Said {
    Said::of(command(world, &server.url, token, args).output().unwrap())
}

#[test]
fn the_history_of_a_server_is_listed_filtered_and_shown() {
    let world = World::empty();
    let server = Server::start(&world);
    server.build(&world, "FROM base\nRUN echo hello\n", &["-t", "one", "--label", "team=a"]).ok();
    let failed = server.build(&world, "FROM base\nRUN echo before; exit 3\n", &["-t", "two"]);
    assert_eq!(failed.code, Some(1));
    let all = server.run(&world, &["builds", "list", "--json"]).ok().json();
    assert_eq!((all.len(), &all[0]["state"]), (2, &"failed".into()));
    assert_eq!(all[0]["failure"]["exit_code"], 3);
    let names = |args: &[&str]| -> Vec<String> {
        let said = server.run(&world, &[&["builds", "list", "--json"], args].concat()).ok();
        said.json().iter().map(|b| b["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["state:succeeded"]), ["one"]);
    assert_eq!(names(&["label:team=a", "dialect:native"]), ["one"]);
    assert_eq!(names(&["two"]), ["two"]);
    assert_eq!(names(&["--state", "succeeded"]), ["one"]);
    assert_eq!(names(&["--label", "team=a"]), ["one"]);
    assert_eq!(names(&["--text", "two"]), ["two"]);
    assert_eq!(names(&["--since", "1h", "--limit", "1"]), ["two"]);
    let first = server.run(&world, &["builds", "list", "--limit", "1"]).ok();
    let cursor = first.err.split("--cursor ").nth(1).unwrap().trim().to_owned();
    assert_eq!(names(&["--cursor", &cursor]), ["one"]);
    let wrong = server.run(&world, &["builds", "list", "state:done"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("state:done"), "{wrong:?}");

    let logs = server.run(&world, &["builds", "logs"]).ok().out;
    assert!(logs.contains("#2 before") && logs.contains("failed: "), "{logs}");
    let lines = server.run(&world, &["builds", "logs", "^1", "--json"]).ok().json();
    assert!(lines.iter().any(|l| l["text"] == "hello" && l["stream"] == "stdout"));
    let id = all[1]["id"].as_str().unwrap();
    let shown = server.run(&world, &["builds", "show", &id[..id.len() - 4], "--json"]).ok().json();
    assert_eq!(shown[0]["name"], "one");
    let text = server.run(&world, &["builds", "show", "^1"]).ok().out;
    assert!(text.contains("image      sha256:") && text.contains("label      team=a"), "{text}");
    let timeline = server.run(&world, &["builds", "timeline", "^1"]).ok().out;
    assert!(timeline.contains("#2 [2/2] RUN echo hello"), "{timeline}");
    for unknown in ["^7", "ffff"] {
        assert_eq!(server.run(&world, &["builds", "show", unknown]).code, Some(1), "{unknown}");
    }
    server.run(&world, &["builds", "pin", id]).ok();
    assert_eq!(
        server.run(&world, &["builds", "show", id, "--json"]).ok().json()[0]["pinned"],
        true
    );
}

#[test]
fn a_build_is_cancelled_and_made_again() {
    let world = World::empty();
    let server = Server::start(&world);
    std::fs::write(world.path("token"), "value").unwrap();
    let dockerfile = "FROM base\nRUN --mount=type=secret,id=t test \"$(cat /run/secrets/t)\" = value\n\
                      RUN echo ran\n";
    server.build(&world, dockerfile, &["--secret", "id=t,src=token"]).ok();
    let missing = server.run(&world, &["builds", "retry", "latest"]);
    assert!(missing.code == Some(2) && missing.err.contains("--secret id=t"), "{missing:?}");
    let again = ["builds", "retry", "latest", "--secret", "id=t,src=token", "--no-cache"];
    let said = server.run(&world, &again).ok();
    assert!(said.err.contains("#3 ") && said.err.contains(" ran"), "{said:?}");
    let all = server.run(&world, &["builds", "list", "--json"]).ok().json();
    assert_eq!(all[0]["retry_of"], all[1]["id"]);
    let ended = server.run(&world, &["builds", "cancel", "latest"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("has ended already: succeeded"), "{ended:?}");
    let elsewhere = server.run(&world, &["builds", "retry", "latest", "--backend", "native"]);
    assert!(elsewhere.code == Some(2) && elsewhere.err.contains("--backend"), "{elsewhere:?}");

    world.file("Dockerfile", "FROM base\nRUN sleep 600\n");
    let mut build = server.command(&world, &["build", "context"]).spawn().unwrap();
    loop {
        let newest = server.run(&world, &["builds", "list", "--limit", "1", "--json"]).ok().json();
        if newest[0]["state"] == "running" {
            break;
        }
        assert!(build.try_wait().unwrap().is_none(), "the build ended: {newest:?}");
    }
    let said = server.run(&world, &["builds", "cancel", "latest", "--json"]).ok();
    assert!(said.err.contains("asked "), "{said:?}");
    assert_eq!(build.wait().unwrap().code(), Some(130));
}

#[test]
fn tokens_and_tenants_are_kept_apart() {
    let world = World::empty();
    let server = Server::start(&world);
    server.run(&world, &["tenants", "create", "other"]).ok();
    let tenants = server.run(&world, &["tenants", "list", "--json"]).ok().json();
    let named: Vec<&str> = tenants.iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(named, ["default", "other"]);
    let create = ["token", "create", "ci", "--tenant", "other", "--expires", "1h"];
    let token = server.run(&world, &create).ok().out.trim().to_owned();
    let whoami = as_token(&world, &server, &token, &["token", "show", "--json"]).ok().json();
    assert_eq!((&whoami[0]["tenant"], &whoami[0]["role"]), (&"other".into(), &"developer".into()));

    server.build(&world, "FROM scratch\nCOPY Dockerfile /\n", &["-t", "mine"]).ok();
    let mine = server.run(&world, &["builds", "list", "--json"]).ok().json();
    let id = mine[0]["id"].as_str().unwrap();
    let of_other = |args: &[&str]| as_token(&world, &server, &token, args);
    assert_eq!(of_other(&["builds", "list", "--json"]).ok().out, "");
    for args in [
        ["builds", "show", id],
        ["builds", "logs", id],
        ["builds", "cancel", id],
        ["why", id, "--json"],
    ] {
        let said = of_other(&args);
        assert!(said.code == Some(1) && said.err.contains("no build"), "{args:?}: {said:?}");
    }
    of_other(&["build", "context", "-t", "theirs"]).ok();
    assert_eq!(of_other(&["builds", "list", "--json"]).ok().json().len(), 1);
    assert_eq!(server.run(&world, &["builds", "list", "--json"]).ok().json().len(), 1);
    let seen = server.run(&world, &["builds", "list", "--tenant", "other", "--json"]).ok().json();
    assert_eq!(seen[0]["name"], "theirs");

    let refused = of_other(&["tenants", "create", "third"]);
    assert!(refused.code == Some(1) && refused.err.contains("admin"), "{refused:?}");
    let listed = server.run(&world, &["token", "list", "--tenant", "other", "--json"]).ok().json();
    let id = listed[0]["id"].as_str().unwrap();
    server.run(&world, &["token", "revoke", id, "--tenant", "other"]).ok();
    let revoked = of_other(&["builds", "list"]);
    assert!(revoked.code == Some(1) && revoked.err.contains("ASHLAR_TOKEN"), "{revoked:?}");
    let table = server.run(&world, &["token", "list", "--tenant", "other"]).ok().out;
    assert!(table.contains("revoked "), "{table}");
    assert!(table.lines().any(|l| l.contains(" ci ") && l.contains(" developer ")), "{table}");
}

#[test]
fn what_is_wrong_with_the_server_is_said() {
    let world = World::empty();
    let server = Server::start_bare(&world);
    let list = ["builds", "list"];
    let none = Said::of(world.command(&list).env("ASHLAR_SERVER", &server.url).output().unwrap());
    assert!(none.code == Some(2) && none.err.contains("ASHLAR_TOKEN"), "{none:?}");
    let bad = as_token(&world, &server, "not-the-token", &list);
    assert!(bad.code == Some(1) && bad.err.contains("refused the token"), "{bad:?}");
    for dialect in ["nullspace", "polyaxon", "nowhere"] {
        let url = format!("{}/{dialect}", server.url);
        let said = Said::of(command(&world, &url, TOKEN, &list).output().unwrap());
        assert!(said.code == Some(2) && said.err.contains("dialect's path"), "{said:?}");
    }
    let nobody = Said::of(command(&world, "http://127.0.0.1:9", TOKEN, &list).output().unwrap());
    assert!(
        nobody.code == Some(1) && nobody.err.contains("is `ashlar serve` running"),
        "{nobody:?}"
    );
    let needed = world.run(&["token", "list"]);
    assert!(needed.code == Some(2) && needed.err.contains("--server"), "{needed:?}");
    let unset = Said::of(command(&world, "", TOKEN, &list).output().unwrap()).ok();
    assert!(unset.err.contains("no builds"), "a variable set to nothing is not set: {unset:?}");
}

#[test]
fn commands_on_the_data_directory_see_the_servers_builds() {
    let world = World::empty();
    let server = Server::start(&world);
    server.build(&world, "FROM base\nRUN echo there\n", &["-t", "there"]).ok();
    let dir = world.path("server");
    let dir = ["--data-dir", dir.to_str().unwrap()];
    let here = |args: &[&str]| world.run(&[args, &dir].concat());
    // While the server runs, and with builds that are made without it in the same place.
    here(&["build", "context", "-t", "here"]).ok();
    let names: Vec<String> = here(&["builds", "list", "--json"])
        .ok()
        .json()
        .iter()
        .map(|b| b["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["here", "there"]);
    assert!(here(&["builds", "logs", "^1"]).ok().out.contains("there"));
    let words = here(&["builds", "list", "there", "--tenant", "default", "--json"]).ok().json();
    assert_eq!(words.len(), 1);
    let retried = here(&["builds", "retry", "^1"]);
    assert!(retried.code == Some(2) && retried.err.contains("--server"), "{retried:?}");
    assert!(!world.path("server/history.db").exists());
    server.build(&world, "FROM base\nRUN echo more\n", &[]).ok();
}
