//! Every form of output, read by others.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::world::World;

const DOCKERFILE: &str = "FROM base\nLABEL a=b\nCOPY f /f\nRUN echo x >/x\n";

fn skopeo(args: &[&str]) -> Value {
    let done = Command::new("skopeo").args(args).output();
    let done = done.expect("install Debian's package skopeo");
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn archives_are_what_skopeo_reads() {
    let world = World::new();
    world.file("f", "f\n");
    let outputs = [
        ("oci-archive", "type=oci,dest=a.tar"),
        ("oci-archive", "type=oci,dest=z.tar,compression=zstd"),
        ("oci-archive", "type=oci,dest=u.tar,compression=uncompressed"),
        ("docker-archive", "type=docker,dest=d.tar"),
        ("oci", "type=oci,tar=false,dest=layout"),
    ];
    let flags: Vec<&str> = outputs.iter().flat_map(|(_, o)| ["-o", o]).collect();
    world.build(DOCKERFILE, &[&["-t", "app:1"], flags.as_slice()].concat()).ok();
    for (transport, output) in outputs {
        let dest = output.split("dest=").nth(1).unwrap().split(',').next().unwrap();
        let config = skopeo(&[
            "inspect",
            "--config",
            &format!("{transport}:{}", world.path(dest).display()),
        ]);
        assert_eq!(config["config"]["Labels"]["a"], "b", "{output}");
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3, "{output}");
    }
    let manifest =
        skopeo(&["inspect", "--raw", &format!("oci-archive:{}", world.path("z.tar").display())]);
    let top = manifest["layers"].as_array().unwrap().last().unwrap();
    assert_eq!(top["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
}

#[test]
fn files_go_to_a_directory_a_tar_or_standard_output() {
    let world = World::new();
    world.file("f", "f\n");
    world.build(DOCKERFILE, &["-o", "out", "-o", "type=tar,dest=files.tar"]).ok();
    assert_eq!(fs::read_to_string(world.path("out/x")).unwrap(), "x\n");
    assert!(fs::symlink_metadata(world.path("out/bin/sh")).unwrap().is_symlink());
    let names = |bytes: &[u8]| -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap();
        entries.map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
    };
    assert!(names(&fs::read(world.path("files.tar")).unwrap()).contains(&"x".to_owned()));
    let piped = world.command(&["build", "context", "-o", "-"]).output().unwrap();
    assert!(names(&piped.stdout).contains(&"f".to_owned()));
}

#[test]
fn reproducible_builds_in_two_places_have_equal_bytes() {
    let archive = || {
        let world = World::empty();
        world.file("f", "f\n");
        fs::copy("/bin/busybox", world.context().join("busybox")).unwrap();
        let dockerfile = "FROM scratch\nCOPY busybox /bin/sh\nCOPY f /f\nRUN echo x >/x\n";
        world.build(dockerfile, &["--reproducible", "-o", "type=oci,dest=a.tar"]).ok();
        fs::read(world.path("a.tar")).unwrap()
    };
    let one = archive();
    // Times of files are to differ by more than the second that archives tell.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let two = archive();
    assert!(!one.is_empty() && one == two, "{} and {} bytes", one.len(), two.len());
}

#[test]
fn secrets_are_seen_by_steps_and_kept_nowhere() {
    let world = World::new();
    let needle = "s3cr3t-needle-73a9f1";
    fs::write(world.path("token"), needle).unwrap();
    let dockerfile = "FROM base\nRUN --mount=type=secret,id=token wc -c </run/secrets/token >/n && \
                      cat /run/secrets/token\nRUN --mount=type=secret,id=env cat /run/secrets/env | rev\n\
                      RUN --mount=type=secret,id=token cat /run/secrets/token; false\n";
    world.file("Dockerfile", dockerfile);
    let args =
        ["build", "context", "--secret", "id=token,src=token", "--secret", "id=env,env=SECRET"];
    let said = world.command(&args).env("SECRET", format!("{needle}-env")).output().unwrap();
    assert_eq!(said.status.code(), Some(1));
    let shown = [said.stdout, said.stderr].concat();
    assert!(!contains(&shown, needle.as_bytes()), "{}", String::from_utf8_lossy(&shown));
    let mut open = vec![world.data()];
    let mut files = 0;
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            if about.is_dir() {
                open.push(path);
            } else if about.is_file() {
                files += 1;
                assert!(
                    !contains(&fs::read(&path).unwrap(), needle.as_bytes()),
                    "{}",
                    path.display()
                );
            }
        }
    }
    assert!(files > 10, "the data directory has only {files} files");
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|w| w == needle)
}
