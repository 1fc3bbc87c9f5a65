//! Builds, their history, and why they did what they did.

use crate::world::World;

const TWO_STEPS: &str = "FROM base\nCOPY a.txt /a\nRUN cat /a && echo built >/b\n";

#[test]
fn a_build_hits_its_cache_and_says_why_it_missed() {
    let world = World::new();
    world.file("a.txt", "one\n");
    let first = world.build(TWO_STEPS, &["-t", "app"]).ok();
    assert!(first.err.contains("#3 [3/3] RUN cat /a"), "{}", first.err);
    assert!(first.err.contains("ashlar images run app"), "{}", first.err);
    let second = world.build(TWO_STEPS, &["-t", "app"]).ok();
    assert!(second.err.contains("all from cache") && second.err.contains("#3 CACHED"));
    assert!(world.run(&["why"]).ok().out.contains("the whole build was answered"));

    world.file("a.txt", "two\n");
    world.build(TWO_STEPS, &["-t", "app"]).ok();
    let why = world.run(&["why", "latest"]).ok().out;
    assert!(why.contains("miss: file 'a.txt' changed from"), "{why}");
    let steps = world.run(&["why", "--json"]).ok().json();
    let copy = &steps[0]["steps"][1];
    assert_eq!((&copy["status"], &copy["reason"]["reason"]), (&"miss".into(), &"changed".into()));
    let ran = world.run(&["images", "run", "app", "cat", "/a", "/b"]).ok();
    assert_eq!(ran.out, "two\nbuilt\n");
}

#[test]
fn the_history_is_listed_filtered_and_shown() {
    let world = World::new();
    world.build("FROM base\nRUN echo hello\n", &["-t", "one", "--label", "team=a"]).ok();
    let failed = world.build("FROM base\nRUN echo before; exit 3\n", &["-t", "two"]);
    assert_eq!(failed.code, Some(1));
    let all = world.run(&["builds", "list", "--json"]).ok().json();
    assert_eq!((all.len(), &all[0]["state"]), (2, &"failed".into()));
    assert_eq!(all[0]["failure"]["exit_code"], 3);
    let names = |args: &[&str]| -> Vec<String> {
        let said = world.run(&[&["builds", "list", "--json"], args].concat()).ok();
        said.json().iter().map(|b| b["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["--state", "succeeded"]), ["one"]);
    assert_eq!(names(&["--label", "team=a"]), ["one"]);
    assert_eq!(names(&["--text", "two"]), ["two"]);
    assert_eq!(names(&["--since", "1h", "--limit", "1"]), ["two"]);
    assert!(names(&["--since", "2200-01-01T00:00:00Z"]).is_empty());
    let first = world.run(&["builds", "list", "--limit", "1"]).ok();
    let cursor = first.err.split("--cursor ").nth(1).unwrap().trim();
    assert_eq!(names(&["--cursor", cursor]), ["one"]);

    let logs = world.run(&["builds", "logs"]).ok().out;
    assert!(logs.contains("#2 before") && logs.contains("failed: "), "{logs}");
    let lines = world.run(&["builds", "logs", "^1", "--json"]).ok().json();
    assert!(lines.iter().any(|l| l["text"] == "hello" && l["stream"] == "stdout"));
    let id = all[1]["id"].as_str().unwrap();
    let shown = world.run(&["builds", "show", &id[..13], "--json"]).ok().json();
    assert_eq!(shown[0]["name"], "one");
    let timeline = world.run(&["builds", "timeline", "^1"]).ok().out;
    assert!(timeline.contains("#2 [2/2] RUN echo hello"), "{timeline}");
    for unknown in ["^7", "ffff"] {
        assert_eq!(world.run(&["builds", "show", unknown]).code, Some(1));
    }
}

#[test]
fn a_failed_step_can_be_looked_into_and_the_build_made_again() {
    let world = World::new();
    let dockerfile = "FROM base\nENV WHO=me\nWORKDIR /w\nRUN echo left >file && test -e /ok\n";
    let failed = world.build(dockerfile, &[]);
    assert_eq!(failed.code, Some(1));
    let want =
        ["Dockerfile:4:", "4 | RUN echo left", "exit code: 1", "ashlar debug 0", "builds logs 0"];
    for text in want {
        assert!(failed.err.contains(text), "{text}: {}", failed.err);
    }
    let said = world.run(&["debug", "--", "sh", "-c", "cat file; echo $WHO; pwd"]).ok();
    assert_eq!(said.out, "left\nme\n/w\n");
    assert_eq!(world.run(&["debug", "--", "sh", "-c", "exit 9"]).code, Some(9));

    let retried = world.run(&["builds", "retry", "latest"]);
    assert_eq!(retried.code, Some(1));
    let all = world.run(&["builds", "list", "--json"]).ok().json();
    assert_eq!(all[0]["retry_of"], all[1]["id"]);
    world.file("Dockerfile", "FROM base\nRUN true\n");
    world.run(&["builds", "retry", "latest", "--newest"]).ok();
    let ended = world.run(&["builds", "cancel", "latest"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("has ended already: succeeded"), "{ended:?}");
}

#[test]
fn a_retry_asks_for_the_backend_that_the_build_had() {
    let world = World::new();
    let nowhere = world.path("no-daemon.sock");
    let flags = ["--backend", "buildkit", "--buildkit", nowhere.to_str().unwrap()];
    assert_eq!(world.build("FROM scratch\nCOPY Dockerfile /\n", &flags).code, Some(1));
    let shown = |build: &str| world.run(&["builds", "show", build, "--json"]).ok().json().remove(0);
    assert_eq!(shown("latest")["backend"], "buildkit");

    let unnamed = world.run(&["builds", "retry", "latest"]);
    assert_eq!(unnamed.code, Some(2), "{unnamed:?}");
    assert!(
        unnamed.err.contains("BuildKit's") && unnamed.err.contains("--buildkit"),
        "{unnamed:?}"
    );
    let again = world.run(&["builds", "retry", "latest", "--buildkit", nowhere.to_str().unwrap()]);
    assert_eq!((again.code, &shown("latest")["executor"]), (Some(1), &"buildkit".into()));

    world.run(&["builds", "retry", "latest", "--backend", "native"]).ok();
    let native = shown("latest");
    assert_eq!((&native["backend"], &native["executor"]), (&"native".into(), &"native".into()));
    // A daemon that happens to be named changes nothing about a native build.
    world.run(&["builds", "retry", "latest", "--buildkit", nowhere.to_str().unwrap()]).ok();
}

#[test]
fn contexts_come_from_standard_input_too() {
    use std::io::Write as _;
    let world = World::new();
    let feed = |bytes: &[u8]| {
        let mut command = world.command(&["build", "-", "-t", "piped"]);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        assert!(child.wait().unwrap().success());
    };
    feed(b"FROM base\nRUN echo text >/from\n");
    assert_eq!(world.run(&["images", "run", "piped", "cat", "/from"]).ok().out, "text\n");
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in [("Dockerfile", "FROM base\nCOPY f /from\n"), ("f", "tar\n")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    feed(&tar.into_inner().unwrap());
    assert_eq!(world.run(&["images", "run", "piped", "cat", "/from"]).ok().out, "tar\n");
    let again = world.run(&["builds", "retry", "latest"]);
    assert_eq!(again.code, Some(2), "{again:?}");
}

#[test]
fn a_git_repository_is_a_context() {
    let world = World::new();
    let repo = world.path("repo.git");
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.current_dir(&repo).args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args);
        let done = command.output().expect("install Debian's package git");
        assert!(done.status.success(), "{done:?}");
    };
    std::fs::create_dir_all(repo.join("app")).unwrap();
    std::fs::write(repo.join("app/Dockerfile"), "FROM base\nCOPY f /f\n").unwrap();
    std::fs::write(repo.join("app/f"), "committed\n").unwrap();
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    std::fs::write(repo.join("app/f"), "not committed\n").unwrap();
    let address = format!("file://{}#main:app", repo.display());
    let refused = world.run(&["build", &address, "-t", "g"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("--git-file-root"), "{}", refused.err);
    let root = world.path("");
    let root = root.to_str().unwrap();
    world.run(&["build", &address, "-t", "g", "--git-file-root", root]).ok();
    assert_eq!(world.run(&["images", "run", "g", "cat", "/f"]).ok().out, "committed\n");
}

#[test]
fn builds_can_be_pinned_and_named_contexts_used() {
    let world = World::new();
    std::fs::create_dir(world.path("other")).unwrap();
    std::fs::write(world.path("other/x"), "other\n").unwrap();
    let dockerfile = "FROM base\nCOPY --from=extra x /x\nARG V\nRUN echo $V >/v\n";
    let args = ["-t", "n", "--build-context", "extra=other", "--build-arg", "V=7"];
    world.build(dockerfile, &args).ok();
    assert_eq!(world.run(&["images", "run", "n", "cat", "/x", "/v"]).ok().out, "other\n7\n");
    world.run(&["builds", "pin", "latest"]).ok();
    assert_eq!(world.run(&["builds", "show", "--json"]).ok().json()[0]["pinned"], true);
}

#[test]
fn a_log_that_retention_removed_is_one_line() {
    use ashlar_records::{LetGo, Store, What, Why, now, records_file};
    let world = World::new();
    let failed = world.build("FROM base\nRUN seq 1 3000; exit 3\n", &[]);
    assert_eq!(failed.code, Some(1));
    let id = world.run(&["builds", "list", "--json"]).ok().json()[0]["id"].clone();
    let build = id.as_str().unwrap().parse().unwrap();
    let records = records_file(&world.data()).unwrap();
    let gone = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open(records.to_str().unwrap()).await.unwrap();
        let gone = store.let_go(build, What::Log, Why::Age, now()).await.unwrap();
        store.close().await;
        gone
    });
    assert_eq!(gone, LetGo::Gone);
    const SAID: &str = "log removed by retention (age) at 2";
    for args in [&[][..], &["--follow"], &["--step", "2"]] {
        let logs = world.run(&[&["builds", "logs"], args].concat()).ok().out;
        let said: Vec<&str> = logs.lines().filter(|l| l.starts_with("warning: ")).collect();
        assert!(said.len() == 1 && said[0].contains(SAID), "{logs}");
        assert!(logs.lines().count() < 10, "{logs}");
    }
    let lines = world.run(&["builds", "logs", "--json"]).ok().json();
    assert_eq!((lines.len(), &lines[0]["stream"]), (1, &"service".into()));
    assert!(lines[0]["text"].as_str().unwrap().starts_with(SAID), "{lines:?}");
}
