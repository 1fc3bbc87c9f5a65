//! Local images: in, out, run, named, removed.

use std::fs;

use crate::world::{World, rootfs};

#[test]
fn images_go_out_and_come_in_again() {
    let world = World::new();
    world.build("FROM base\nENV A=1\nRUN echo x >/x\nCMD [\"cat\", \"/x\"]\n", &["-t", "app"]).ok();
    for kind in ["oci", "docker"] {
        let file = format!("{kind}.tar");
        world.run(&["images", "export", "app", &file, "--type", kind]).ok();
        let other = World::empty();
        let from = world.path(&file);
        other.run(&["images", "import", from.to_str().unwrap(), "mine"]).ok();
        assert_eq!(other.run(&["images", "run", "mine"]).ok().out, "x\n", "{kind}");
    }
    let one = fs::read(world.path("oci.tar")).unwrap();
    world.run(&["images", "export", "app", "again.tar"]).ok();
    assert!(one == fs::read(world.path("again.tar")).unwrap(), "an export changes nothing");
    world.run(&["images", "export", "app", "files.tar", "--type", "tar"]).ok();
    world.run(&["images", "import", "files.tar", "flat"]).ok();
    assert_eq!(world.run(&["images", "run", "flat", "cat", "/x"]).ok().out, "x\n");
    world.run(&["images", "export", "app", "files", "--type", "local"]).ok();
    assert_eq!(fs::read_to_string(world.path("files/x")).unwrap(), "x\n");
}

#[test]
fn running_passes_arguments_variables_input_and_the_exit_code() {
    let world = World::new();
    let said = world.run(&["images", "run", "-e", "A=7", "base", "sh", "-c", "echo $A; exit 5"]);
    assert_eq!((said.code, said.out.as_str()), (Some(5), "7\n"));
    let behind = ["images", "run", "base", "printf", "%s;", "-e", "X=1", "--version", "--"];
    assert_eq!(world.run(&behind).ok().out, "-e;X=1;--version;--;");
    assert_eq!(world.run(&["images", "run", "base", "--", "echo", "-n"]).ok().out, "");
    let entrypoint = ["images", "run", "--entrypoint", "echo", "base", "--version"];
    assert_eq!(world.run(&entrypoint).ok().out, "--version\n");
    let said = world.run(&["images", "run", "-w", "/etc", "base", "pwd"]).ok();
    assert_eq!(said.out, "/etc\n");
    let limited = world.run(&["images", "run", "--timeout", "200ms", "base", "sleep", "9"]);
    assert!(limited.code != Some(0) && limited.err.contains("time limit"), "{limited:?}");
    let missing = world.run(&["images", "run", "base", "no-such-program"]);
    assert!(missing.code != Some(0) && missing.err.contains("no-such-program"), "{missing:?}");
    let mut command = world.command(&["images", "run", "-i", "base", "cat"]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"typed").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"typed");
}

#[test]
fn names_are_given_and_taken() {
    let world = World::new();
    world.run(&["images", "tag", "base", "other:2"]).ok();
    let listed = world.run(&["images", "list", "--json"]).ok().json();
    assert_eq!(listed[0]["names"], serde_json::json!(["base", "other:2"]));
    let removed = world.run(&["images", "rm", "base"]).ok();
    assert!(removed.out.contains("untagged base") && !removed.out.contains("deleted"));
    let removed = world.run(&["images", "rm", "other:2"]).ok();
    assert!(removed.out.contains("deleted  sha256:"), "{removed:?}");
    let none = world.run(&["images", "rm", "base"]);
    assert!(none.code == Some(1) && none.err.contains("images list"), "{none:?}");
}

#[test]
fn what_is_no_image_is_refused_with_a_way_out() {
    let world = World::empty();
    let unnamed = world.run(&["images", "import", rootfs().to_str().unwrap()]);
    assert!(unnamed.code == Some(2) && unnamed.err.contains("PATH NAME"), "{unnamed:?}");
    assert_eq!(world.run(&["images", "import", "nowhere", "x"]).code, Some(2));
    fs::write(world.path("junk"), "this is no archive at all").unwrap();
    assert_eq!(world.run(&["images", "import", "junk", "x"]).code, Some(1));
    assert!(world.run(&["images", "list", "--json"]).ok().out.is_empty());
}
