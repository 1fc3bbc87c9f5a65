//! What builds show, for people and for programs.

use serde_json::Value;

use crate::world::World;

#[test]
fn json_lines_are_versioned_numbered_and_end_with_the_result() {
    let world = World::new();
    let said = world.build("FROM base\nRUN echo hi\n", &["--progress", "json", "-t", "a"]).ok();
    let lines = said.json();
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["number"], i as u64);
        assert!(line["time"].as_str().unwrap().ends_with('Z') && line["event"].is_string());
    }
    let events: Vec<&str> = lines.iter().map(|l| l["event"].as_str().unwrap()).collect();
    assert_eq!((events[0], *events.last().unwrap()), ("started", "finished"));
    for wanted in ["steps", "step_started", "cache", "log", "step_ended", "artifact", "state"] {
        assert!(events.contains(&wanted), "{wanted}: {events:?}");
    }
    let log = lines.iter().find(|l| l["event"] == "log").unwrap();
    assert_eq!((&log["text"], &log["step"]), (&Value::from("hi"), &Value::from(2)));
    let end = lines.last().unwrap();
    assert_eq!((&end["state"], &end["names"][0]), (&"succeeded".into(), &"a".into()));
    assert!(end["image"].as_str().unwrap().starts_with("sha256:"));
    assert!(said.err.contains("image  sha256:"), "people read standard error: {}", said.err);

    let failed = world.build("FROM base\nRUN exit 4\n", &["--json"]);
    let end = failed.json().pop().unwrap();
    assert_eq!((&end["state"], &end["failure"]["exit_code"]), (&"failed".into(), &4.into()));
}

#[test]
fn quiet_prints_the_id_alone_and_files_are_written() {
    let world = World::new();
    let args = ["-q", "-t", "q", "--iidfile", "iid", "--metadata-file", "meta.json"];
    let said = world.build("FROM base\nRUN echo loud\n", &args).ok();
    assert_eq!(said.err, "");
    let id = said.out.trim();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(std::fs::read_to_string(world.path("iid")).unwrap(), id);
    let meta = std::fs::read(world.path("meta.json")).unwrap();
    let meta: Value = serde_json::from_slice(&meta).unwrap();
    assert_eq!((&meta["image"], &meta["image.name"]), (&id.into(), &"q".into()));
    let failed = world.build("FROM base\nRUN exit 1\n", &["-q"]);
    assert!(failed.out.is_empty() && failed.err.contains("error: "), "{failed:?}");
}

#[test]
fn a_log_is_shown_as_a_terminal_shows_it_with_colours_only_there() {
    let world = World::new();
    let dockerfile = "FROM base\nRUN busybox printf '\\033[32m+ added\\033[0m\\n'; \
                      busybox printf '\\rDownloading 10%%\\rDownloading 50%%\\n'; \
                      busybox printf '\\033[2Jcleared\\n'\n";
    let built = world.build(dockerfile, &["--progress", "plain"]).ok();
    let logs = world.run(&["builds", "logs", "latest"]).ok();
    for (text, line) in [(&built.err, " + added\n"), (&logs.out, "#2 + added\n")] {
        assert!(text.contains(line) && text.contains(" Downloading 50%\n"), "{text}");
        assert!(text.contains(" cleared\n") && !text.contains(['\u{1b}', '\r']), "{text:?}");
    }
    let shown = |no_color: &str| on_terminal(&world, "builds logs latest", no_color);
    let coloured = shown("");
    assert!(coloured.contains("#2 \u{1b}[32m+ added\u{1b}[0m"), "{coloured:?}");
    assert!(coloured.contains("#2 Downloading 50%") && coloured.contains("#2 cleared"));
    assert!(!shown("1").contains('\u{1b}'));
}

/// Returns what the program writes to a terminal.
fn on_terminal(world: &World, args: &str, no_color: &str) -> String {
    let inner = format!("{} {args}", env!("CARGO_BIN_EXE_ashlar"));
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &inner, "/dev/null"]).current_dir(world.path(""));
    command.env("ASHLAR_DATA_DIR", world.data()).env("ASHLAR_NETWORK", "none");
    command.env("TERM", "xterm").env("NO_COLOR", no_color).env_remove("ASHLAR_PROGRESS");
    let done = command.output().expect("install Debian's package bsdutils (script)");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn a_terminal_gets_a_live_view_and_no_color_is_honoured() {
    let world = World::new();
    world.file("Dockerfile", "FROM base\nRUN echo in the step\n");
    let show = |no_color: &str| on_terminal(&world, "build context --no-cache", no_color);
    let coloured = show("");
    assert!(coloured.contains("[+] Built in") && coloured.contains("RUN echo"), "{coloured}");
    assert!(coloured.contains("\x1b[34m"), "{coloured}");
    assert!(!show("1").contains("\x1b[34m"));
}
