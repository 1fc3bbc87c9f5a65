//! What must hold of a build whatever happened to those who worked on it.

use std::collections::BTreeMap;
use std::io::Read as _;

use ashlar_core::Digest;
use serde_json::Value;

use super::manifest_path;
use super::nodes::Client;

/// Entries that are asked for at once.
const PAGE: u64 = 1000;
const TERMINAL: [&str; 4] = ["succeeded", "failed", "cancelled", "skipped"];

/// Checks that a journal has no gap, one end, an attempt after the other, and all that anybody was
/// shown of it.
pub(super) async fn check_journal(
    client: &Client,
    build: &str,
    shown: &BTreeMap<(String, u64), Value>,
) {
    let mut entries: Vec<Value> = Vec::new();
    loop {
        let path = format!("/api/v1/builds/{build}/events?from={}&limit={PAGE}", entries.len());
        let page = client.json(&path).await;
        let page = page["entries"].as_array().unwrap();
        if page.is_empty() {
            break;
        }
        entries.extend(page.iter().cloned());
    }
    for (i, entry) in entries.iter().enumerate() {
        assert_eq!(entry["number"], i, "a gap or a repetition in {build}");
    }
    let is_end =
        |e: &&Value| e["event"] == "state" && TERMINAL.contains(&e["to"].as_str().unwrap());
    assert_eq!(entries.iter().filter(is_end).count(), 1, "{build} ended once");
    let claims = entries.iter().filter(|e| e["event"] == "claimed");
    for (i, claim) in claims.enumerate() {
        assert_eq!(claim["attempt"], i + 1, "{build}: {claim}");
    }
    let seen = shown.range((build.to_owned(), 0)..=(build.to_owned(), u64::MAX));
    for ((_, number), entry) in seen {
        let kept = entries.get(usize::try_from(*number).unwrap());
        assert_eq!(kept, Some(entry), "what was shown of {build} is gone");
    }
}

/// Checks that each attempt's lines follow each other, that none came after the next attempt had
/// begun, and that the last attempt of a build that succeeded said all of them.
pub(super) async fn check_log(client: &Client, build: &str, lines: usize) {
    let (status, log) = client.get(&format!("/api/v1/builds/{build}/logs?format=text")).await;
    assert_eq!(status, 200);
    let log = String::from_utf8(log).unwrap();
    let mut attempts: Vec<(&str, usize)> = Vec::new();
    for line in log.lines() {
        let Some((id, number)) = line.split_once(' ').filter(|(id, _)| id.len() == 36) else {
            continue;
        };
        let number: usize = number.parse().unwrap();
        match attempts.last_mut() {
            Some((last, said)) if *last == id => {
                assert_eq!(number, *said + 1, "{build}: {log}");
                *said = number;
            }
            _ => {
                assert_eq!(number, 1, "{build}: lines of a worker that was given up: {log}");
                assert!(attempts.iter().all(|(other, _)| *other != id), "{build}: {log}");
                attempts.push((id, number));
            }
        }
    }
    let shown = client.json(&format!("/api/v1/builds/{build}")).await;
    // A step goes on while its worker hangs. The worker says nothing more for an attempt that it has
    // lost, and a later attempt there may find the step's layer.
    let hits = |cache: &str| shown["cache"][cache]["hits"].as_u64().unwrap();
    let said_before = hits("layer") + hits("final_artifact") > 0;
    if shown["state"] == "succeeded" && !said_before {
        assert_eq!(attempts.last().map(|(_, said)| *said), Some(lines), "{build}: {log}");
    }
}

/// Pulls an image as a registry's client does, checks every digest, and that its file `out` is the
/// build's. Returns the manifest.
pub(super) async fn check_image(client: &Client, build: &str, number: usize) -> Vec<u8> {
    let (status, manifest) = client.get(&manifest_path(build)).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&manifest));
    let document: Value = serde_json::from_slice(&manifest).unwrap();
    let layers = document["layers"].as_array().unwrap();
    let mut out = None;
    for blob in layers.iter().chain([&document["config"]]) {
        let digest = blob["digest"].as_str().unwrap();
        let (status, bytes) = client.get(&format!("/v2/default/builds/blobs/{digest}")).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(Digest::of(&bytes).to_string(), digest, "other bytes");
        if blob["mediaType"].as_str().unwrap().contains("tar") {
            out = file_of(&bytes, "out").or(out);
        }
    }
    assert_eq!(out.as_deref(), Some(format!("{number}\n").as_str()), "{build}");
    manifest
}

/// Returns a file of a compressed layer.
fn file_of(layer: &[u8], name: &str) -> Option<String> {
    let (_, plain) = ashlar_layers::decompress(layer).unwrap();
    let mut archive = tar::Archive::new(plain);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() == Some(name) {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            return Some(text);
        }
    }
    None
}
