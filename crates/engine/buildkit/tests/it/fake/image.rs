//! The images of the stand-in: one layer with all that came.

use ashlar_core::Digest;
use serde_json::{Value, json};

use super::Got;

/// Longer than what may wait between the session and whoever reads the archive.
const RUBBISH_BYTES: usize = 4 << 20;

/// Makes an OCI archive of what came; returns it and its config's digest.
pub(super) fn archive(got: &Got) -> (Vec<u8>, String) {
    let mut layer = tar::Builder::new(Vec::new());
    for (name, bytes) in got.dockerfile.iter().chain(&got.context) {
        put(&mut layer, name, bytes);
    }
    for (id, value) in &got.secrets {
        put(&mut layer, &format!("lengths/{id}"), value.len().to_string().as_bytes());
    }
    let layer = layer.into_inner().unwrap();
    let config = bytes(&json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]},
        "history": [{"created_by": "everything"}],
    }));
    let described = |kind: &str, blob: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": Digest::of(blob),
            "size": blob.len(),
        })
    };
    let manifest = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("config.v1+json", &config),
        "layers": [described("layer.v1.tar", &layer)],
    }));
    let index = bytes(&json!({
        "schemaVersion": 2,
        "manifests": [described("manifest.v1+json", &manifest)],
    }));
    let mut all = tar::Builder::new(Vec::new());
    for blob in [&layer, &config, &manifest] {
        put(&mut all, &format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    put(&mut all, "index.json", &index);
    put(&mut all, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    (all.into_inner().unwrap(), Digest::of(&config).to_string())
}

/// Makes what is no archive.
pub(super) fn rubbish() -> Vec<u8> {
    vec![b'x'; RUBBISH_BYTES]
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn put(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, bytes).unwrap();
}
