//! What is shipped beside the program: units of systemd, and an image that Ashlar builds itself.
//!
//! Needs Debian's packages systemd, nftables, iproute2, git and ca-certificates.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{Said, World, rootfs};

const UNITS: [&str; 2] = ["ashlar.service", "ashlar-worker.service"];

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging")
}

fn unit(name: &str) -> String {
    fs::read_to_string(packaging().join("systemd").join(name)).unwrap()
}

#[test]
fn systemd_takes_the_units() {
    let dir = tempfile::tempdir().unwrap();
    for name in UNITS {
        let text = unit(name);
        let here = text.replace("/usr/bin/ashlar", env!("CARGO_BIN_EXE_ashlar"));
        assert_ne!(text, here);
        let path = dir.path().join(name);
        fs::write(&path, here).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=one"]).arg(&path);
        let said = Said::of(verify.output().expect("install Debian's package systemd")).ok();
        // Wrong keys and values are only warned of.
        assert!(!said.err.contains(name), "{}", said.err);
    }
}

#[test]
fn the_units_and_their_settings_name_real_commands_and_variables() {
    let env = fs::read_to_string(packaging().join("systemd/ashlar.env")).unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = fs::read_to_string(page).unwrap();
    let units = UNITS.map(unit).concat();
    let words = |text: &str| -> BTreeSet<String> {
        let parts = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        parts.filter(|p| p.starts_with("ASHLAR_")).map(str::to_owned).collect()
    };
    for variable in words(&env).into_iter().chain(words(&units)) {
        assert!(page.contains(&format!("`{variable}`")), "{variable} is no setting");
    }
    for line in units.lines().filter_map(|l| l.strip_prefix("ExecStart=/usr/bin/ashlar ")) {
        let said = World::empty().run(&[line, "--help"]);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}

#[test]
fn a_build_needs_no_more_capabilities_than_the_unit_leaves() {
    let world = World::new();
    let text = unit("ashlar.service");
    let line = text.lines().find_map(|l| l.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let kept: Vec<String> =
        line.split_whitespace().map(|c| format!("+{}", &c[4..].to_lowercase())).collect();
    let dockerfile = "FROM base\nRUN mkdir /x && chown 1000:1000 /x && echo $(id -u) && \
                      mknod /n p\nUSER 1000\nRUN test $(id -u) = 1000\n";
    world.file("Dockerfile", dockerfile);
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set=-all,{}", kept.join(",")));
    command.arg(env!("CARGO_BIN_EXE_ashlar")).args(["build", "context", "-t", "x"]);
    command.env("ASHLAR_DATA_DIR", world.data()).env("ASHLAR_NETWORK", "none");
    command.current_dir(world.path(""));
    Said::of(command.output().expect("install Debian's package util-linux")).ok();
}

#[test]
fn ashlar_builds_its_own_image_and_the_program_in_it_runs() {
    let world = World::empty();
    let root = world.path("rootfs");
    let copied = Command::new("cp").arg("-a").arg(rootfs()).arg(&root).status().unwrap();
    assert!(copied.success());
    let programs = ["nft", "ip", "git"].map(which);
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_ashlar"));
    for program in programs.iter().chain([&binary]) {
        if *program != binary {
            copy(program, &root.join("bin").join(program.file_name().unwrap()));
        }
        for library in libraries(program) {
            copy(&library, &root.join(library.strip_prefix("/").unwrap()));
        }
    }
    let bundle = Path::new("/etc/ssl/certs/ca-certificates.crt");
    copy(bundle, &root.join("etc/ssl/certs/ca-certificates.crt"));
    world.run(&["images", "import", root.to_str().unwrap(), "debian:bookworm-slim"]).ok();
    let (context, bin) = (packaging(), world.path("bin"));
    fs::create_dir(&bin).unwrap();
    copy(&binary, &bin.join("ashlar"));
    let bin = format!("bin={}", bin.display());
    let context = context.to_str().unwrap();
    world.run(&["build", context, "--build-context", &bin, "-t", "ashlar"]).ok();
    let said = world.run(&["images", "run", "ashlar", "--", "--version"]).ok();
    assert_eq!(said.out, format!("ashlar {}\n", env!("CARGO_PKG_VERSION")));
}

fn which(program: &str) -> PathBuf {
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(|p| Path::new(p).join(program));
    let found = places.into_iter().find(|p| p.exists());
    found.unwrap_or_else(|| panic!("{program} is missing: run scripts/setup test"))
}

/// Returns the shared libraries that a program loads.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let said = Said::of(Command::new("ldd").arg(program).output().unwrap()).ok();
    let paths = said.out.split_whitespace().filter(|w| w.starts_with('/'));
    paths.map(PathBuf::from).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let _ = fs::remove_file(to);
    fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
}
