//! Holds the crates' manifests against the layers of `ARCHITECTURE.md`, and files against their bounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crates with parsers of bytes from outside that lie below the use cases.
const PARSERS: &[&str] = &[
    "ashlar-core",
    "ashlar-frontend-dockerfile",
    "ashlar-frontend-declarative",
    "ashlar-blobs",
    "ashlar-layers",
    "ashlar-oci",
    "ashlar-records",
];

/// What each crate may use of ours, in groups. A crate that is not listed fails the test: put it in
/// here and in `ARCHITECTURE.md`.
const ALLOWED: &[(&str, &[&[&str]])] = &[
    ("ashlar-core", &[]),
    ("ashlar-frontend-dockerfile", &[&["ashlar-core"]]),
    ("ashlar-frontend-declarative", &[&["ashlar-core"]]),
    ("ashlar-blobs", &[&["ashlar-core"]]),
    ("ashlar-objects", &[&["ashlar-core", "ashlar-blobs"]]),
    ("ashlar-layers", &[&["ashlar-core"]]),
    ("ashlar-oci", &[&["ashlar-core", "ashlar-blobs"]]),
    ("ashlar-records", &[&["ashlar-core"]]),
    ("ashlar-sandbox", &[]),
    ("ashlar-snapshots", &[&["ashlar-core", "ashlar-layers"]]),
    ("ashlar-files", &[&["ashlar-core", "ashlar-layers"]]),
    ("ashlar-solver", &[&["ashlar-core"]]),
    (
        "ashlar-native",
        &[&[
            "ashlar-core",
            "ashlar-blobs",
            "ashlar-layers",
            "ashlar-oci",
            "ashlar-sandbox",
            "ashlar-snapshots",
            "ashlar-files",
            "ashlar-solver",
        ]],
    ),
    (
        "ashlar-buildkit",
        &[&[
            "ashlar-core",
            "ashlar-frontend-dockerfile",
            "ashlar-layers",
            "ashlar-oci",
            "ashlar-sandbox",
            "ashlar-files",
            "ashlar-native",
        ]],
    ),
    (
        "ashlar-service",
        &[PARSERS, &["ashlar-sandbox", "ashlar-snapshots", "ashlar-native", "ashlar-buildkit"]],
    ),
    ("ashlar-http", &[]),
    ("ashlar-api", &[&["ashlar-core", "ashlar-service", "ashlar-http"]]),
    ("ashlar-client", &[&["ashlar-core"]]),
    ("ashlar-fuzz", &[PARSERS, &["ashlar-service"]]),
];

/// Dialects may use the use cases and the words, and nothing below.
const DIALECT: &[&[&str]] = &[&["ashlar-core", "ashlar-service", "ashlar-http"]];

/// A longer source file has become a drawer for everything.
const LINES_MAX: usize = 900;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn crates_use_only_what_lies_below_them() {
    let allowed: BTreeMap<&str, &[&[&str]]> = ALLOWED.iter().copied().collect();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        if name == "ashlar" {
            continue;
        }
        let may = if name.starts_with("ashlar-dialect-") {
            DIALECT
        } else {
            allowed.get(name).unwrap_or_else(|| panic!("{name} is in no layer"))
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let counts = dependency["kind"].is_null() && used.starts_with("ashlar-");
            let may_use = may.iter().any(|group| group.contains(&used));
            assert!(!counts || may_use, "{name} must not use {used}");
        }
    }
}

#[test]
fn the_page_names_every_crate() {
    let page = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    for package in packages() {
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
        let folder = manifest.parent().unwrap().strip_prefix(workspace().join("crates")).unwrap();
        let row = format!("| `{}` |", folder.display());
        assert!(page.contains(&row), "ARCHITECTURE.md has no row for {}", folder.display());
    }
}

#[test]
fn no_source_file_is_a_drawer_for_everything() {
    let output =
        Command::new("git").args(["ls-files", "*.rs"]).current_dir(workspace()).output().unwrap();
    let files = String::from_utf8(output.stdout).unwrap();
    for file in files.lines() {
        let text = std::fs::read_to_string(workspace().join(file)).unwrap_or_default();
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{file} has {lines} lines");
    }
}
