//! The artifact as a bootable root file system, looked into with e2fsprogs' own tools.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{World, add_image, steps};

fn run(command: &mut Command) -> String {
    let output = command.output().expect("install Debian's packages e2fsprogs and attr");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{wrong}");
    said
}

/// Every kind of file there is.
fn fill(root: &Path) {
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let dir = root.join("kinds");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "content").unwrap();
    fs::hard_link(dir.join("file"), dir.join("link")).unwrap();
    chown(dir.join("file"), Some(1234), Some(70_000)).unwrap();
    mode(&dir.join("file"), 0o4751).unwrap();
    symlink("../somewhere else", dir.join("symlink")).unwrap();
    for (name, kind) in
        [("null", &["c", "1", "3"][..]), ("loop", &["b", "7", "0"]), ("pipe", &["p"])]
    {
        run(Command::new("mknod").arg(dir.join(name)).args(kind));
    }
    run(Command::new("setfattr").args(["-n", "user.note", "-v", "kept"]).arg(dir.join("file")));
    mode(&dir, 0o2750).unwrap();
}

fn debugfs(image: &Path, request: &str) -> String {
    run(Command::new("debugfs").args(["-R", request]).arg(image))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_file_system_keeps_all_that_files_are() {
    let world = World::new().await;
    let data = world.data.path().to_owned();
    tokio::task::spawn_blocking(move || add_image(&data, "rich", fill)).await.unwrap();
    let mut request = steps("app", &["echo made > /made; rm /kinds/loop"]);
    request["base_image"] = json!("rich");
    let id = World::ready(&world.build(request).await);
    let build = id.trim_start_matches("tb_").parse().unwrap();
    let admin = world.service.admin().clone();
    let dir = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for (i, bytes) in [None, None, Some(1 << 30)].into_iter().enumerate() {
        let mut file = world.service.rootfs(&admin, build, bytes).await.unwrap();
        let path = dir.path().join(i.to_string());
        std::io::copy(&mut file, &mut File::create(&path).unwrap()).unwrap();
        written.push(path);
    }
    let image = &written[0];
    run(Command::new("e2fsck").args(["-fn"]).arg(image));
    assert_eq!(fs::metadata(&written[2]).unwrap().len(), 1 << 30);
    let superblock = debugfs(image, "show_super_stats -h");
    let uuid = superblock.lines().find(|l| l.starts_with("Filesystem UUID")).unwrap();
    assert!(debugfs(&written[1], "show_super_stats -h").contains(uuid), "equal trees, equal UUIDs");
    assert_eq!(debugfs(image, "cat /made"), "made\n");
    assert_eq!(debugfs(image, "cat /kinds/link"), "content");
    let stat = |path: &str| debugfs(image, &format!("stat {path}"));
    let file = stat("/kinds/file");
    for want in ["Type: regular", "Mode:  04751", "User:  1234", "Group: 70000", "Links: 2", "kept"]
    {
        assert!(file.contains(want), "{want}: {file}");
    }
    let inode = |text: &str| text.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(inode(&file), inode(&stat("/kinds/link")));
    assert!(stat("/kinds").contains("Mode:  02750"));
    assert!(stat("/tmp").contains("Mode:  01777"));
    assert!(stat("/kinds/symlink").contains("../somewhere else"));
    let null = stat("/kinds/null");
    assert!(null.contains("character special") && null.contains("01:03"), "{null}");
    assert!(stat("/kinds/pipe").contains("FIFO"));
    assert!(!debugfs(image, "ls -p /kinds").contains("loop"), "what was removed is not there");
    assert!(stat("/bin/busybox").contains("Type: regular"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_builds_that_are_not_there_are_refused() {
    let world = World::new().await;
    let id = World::ready(&world.build(steps("app", &["true"])).await);
    let build = id.trim_start_matches("tb_").parse().unwrap();
    let admin = world.service.admin().clone();
    let huge = world.service.rootfs(&admin, build, Some(u64::MAX)).await.unwrap_err();
    assert_eq!(huge.kind(), ashlar_service::ErrorKind::TooLarge);
    let stranger = world.service.authenticate(&world.stranger).await.unwrap();
    let hidden = world.service.rootfs(&stranger, build, None).await.unwrap_err();
    assert_eq!(hidden.kind(), ashlar_service::ErrorKind::NotFound);
    let left = fs::read_dir(world.data.path()).unwrap();
    assert!(left.flatten().all(|e| !e.file_name().to_string_lossy().starts_with(".rootfs")));
}
