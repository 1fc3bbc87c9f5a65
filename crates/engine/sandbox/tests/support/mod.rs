//! A root file system of busybox and a sandbox to run it in.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "each test file uses a part of it"
)]

use std::path::{Path, PathBuf};

use ashlar_sandbox::*;

/// A sandbox, layers, and a place for everything.
pub(crate) struct Bed {
    pub(crate) sandbox: Box<dyn Sandbox>,
    pub(crate) dir: tempfile::TempDir,
}

/// What a step did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = NativeConfig::new(dir.path().join("state"));
        Self::with(Box::new(NativeSandbox::new(&config).unwrap()), dir)
    }

    pub(crate) fn with(sandbox: Box<dyn Sandbox>, dir: tempfile::TempDir) -> Self {
        busybox_root(&dir.path().join("lower"));
        for name in ["upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { sandbox, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn rootfs(&self) -> Rootfs {
        Rootfs::Overlay {
            lowers: vec![self.path("lower")],
            upper: self.path("upper"),
            work: self.path("work"),
            volatile: true,
        }
    }

    pub(crate) fn spec(&self, script: &str) -> Spec {
        Spec::new(self.rootfs(), ["/bin/sh", "-c", script])
    }

    pub(crate) fn run(&self, spec: &Spec) -> Ran {
        self.try_run(spec).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    pub(crate) fn try_run(&self, spec: &Spec) -> Result<Ran, SandboxError> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut output = |stream, bytes: &[u8]| match stream {
            Stream::Stdout => out.extend_from_slice(bytes),
            Stream::Stderr => err.extend_from_slice(bytes),
        };
        let exit = self.sandbox.run(spec, Io::output(&mut output), &Cancel::new().unwrap())?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ran { exit, out: text(out), err: text(err) })
    }

    /// Runs a script and returns its output; panics when it fails.
    pub(crate) fn sh(&self, script: &str) -> String {
        let ran = self.run(&self.spec(script));
        assert!(ran.exit.success(), "{ran:?}");
        ran.out
    }
}

/// An error with its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Makes a small root file system.
pub(crate) fn busybox_root(root: &Path) {
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "these tests need /bin/busybox: install the package busybox-static");
    for name in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    let list = std::process::Command::new(busybox).arg("--list").output().unwrap().stdout;
    for name in String::from_utf8(list).unwrap().lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/:/bin/sh\n",
    )
    .unwrap();
}
