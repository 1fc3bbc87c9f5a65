//! Every target survives its seeds, cut and changed seeds, and noise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::io::Write as _;

use ashlar_fuzz::TARGETS;
use proptest::prelude::*;

/// A layer with a directory, a file, links of both kinds and a whiteout, as a tar.
fn tar() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("d")).unwrap();
    std::fs::write(path("d/file"), "content").unwrap();
    std::fs::hard_link(path("d/file"), path("hard")).unwrap();
    std::os::unix::fs::symlink("../../outside", path("soft")).unwrap();
    std::fs::File::create(path("d/.wh.gone")).unwrap().write_all(b"").unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.arg("-C").arg(dir.path()).args(["-cf", "-", "."]);
    let out = tar.output().expect("tar is part of every Debian");
    assert!(out.status.success());
    out.stdout
}

/// A seed with some bytes changed and its end cut off.
fn changed(seed: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let places = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    (places, any::<prop::sample::Index>()).prop_map(move |(places, end)| {
        let mut bytes = seed.clone();
        for (place, byte) in places {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.index(bytes.len()) + 1);
        bytes
    })
}

fn run(target: fn(&[u8]), input: &[u8]) {
    target(input);
}

#[test]
fn every_target_takes_its_seeds_and_what_comes_of_changing_them() {
    let tar = tar();
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() };
    for (name, target, seeds) in TARGETS {
        let mut inputs: Vec<Vec<u8>> = seeds.iter().map(|s| s.to_vec()).collect();
        if inputs.is_empty() {
            inputs.push(tar.clone());
        }
        for seed in inputs {
            run(target, &seed);
            run(target, b"");
            let mut runner = proptest::test_runner::TestRunner::new(config.clone());
            let result = runner.run(&changed(seed), |input| {
                run(target, &input);
                Ok(())
            });
            assert!(result.is_ok(), "{name}: {result:?}");
        }
    }
}

#[test]
fn every_target_has_a_program_for_the_fuzzer() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("targets");
    let mut programs: Vec<String> = std::fs::read_dir(here)
        .unwrap()
        .map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    programs.sort();
    let mut targets: Vec<&str> = TARGETS.iter().map(|(name, ..)| *name).collect();
    targets.sort_unstable();
    assert_eq!(programs, targets);
}
