//! A data directory of its own, a base image in it, and the binary.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// A place with the image `base`, and a context.
pub(crate) struct World {
    dir: TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Checks that the command did its work.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Reads its output as JSON lines, each of which has a version.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        let line =
            |l: &str| serde_json::from_str::<Value>(l).unwrap_or_else(|e| panic!("{l}: {e}"));
        let lines: Vec<Value> = self.out.lines().map(line).collect();
        assert!(lines.iter().all(|l| l["version"] == 1), "{}", self.out);
        lines
    }
}

impl World {
    /// Makes a place with the image `base`.
    pub(crate) fn new() -> Self {
        let world = Self::empty();
        let rootfs = rootfs();
        world.run(&["images", "import", rootfs.to_str().unwrap(), "base"]).ok();
        world
    }

    /// Makes a place with no image.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.path("context")
    }

    /// Writes a file of the context.
    pub(crate) fn file(&self, name: &str, content: &str) -> &Self {
        let path = self.context().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Returns the binary with the settings of this place and nothing of the user's.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ashlar"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("ASHLAR_DATA_DIR", self.data()).env("ASHLAR_NETWORK", "none");
        command.current_dir(self.dir.path()).stdin(Stdio::null()).args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        Said::of(self.command(args).output().unwrap())
    }

    /// Builds the context with a Dockerfile.
    pub(crate) fn build(&self, dockerfile: &str, args: &[&str]) -> Said {
        self.file("Dockerfile", dockerfile);
        self.run(&[&["build", "context"], args].concat())
    }
}

/// Returns a root file system of busybox, made once.
pub(crate) fn rootfs() -> &'static Path {
    static ROOTFS: OnceLock<TempDir> = OnceLock::new();
    ROOTFS.get_or_init(make_rootfs).path()
}

fn make_rootfs() -> TempDir {
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "install Debian's package busybox-static");
    let dir = tempfile::tempdir().unwrap();
    for name in ["bin", "tmp", "etc", "root", "proc", "sys", "dev"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(dir.path().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(busybox, dir.path().join("bin/busybox")).unwrap();
    let list = Command::new(busybox).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(list).unwrap().lines().filter(|a| *a != "busybox") {
        symlink("busybox", dir.path().join("bin").join(applet)).unwrap();
    }
    fs::write(dir.path().join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(dir.path().join("etc/group"), "root:x:0:\n").unwrap();
    dir
}
