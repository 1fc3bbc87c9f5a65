//! Builds the file tree of a sandbox inside a mount namespace of its own.
//!
//! Guarantee: nothing is ever mounted by walking a path of the hostile root with the host's eyes. Each mount is made
//! detached, its mount point is opened with `openat2(RESOLVE_IN_ROOT)`, and the one is moved onto the other by
//! descriptor (`move_mount`). All mounts but `/dev`'s six nodes and devpts are `nodev`.

pub(crate) mod api;
pub(crate) mod cgroups;
pub(crate) mod files;
pub(crate) mod leftovers;
pub(crate) mod place;
pub(crate) mod resolve;
pub(crate) mod rootfs;
pub(crate) mod step;
pub(crate) mod system;

/// Where a step finds the operator's CA bundle: in the sandbox's own `/dev`, so that nothing of it touches a layer.
pub const CA_BUNDLE_PATH: &str = "/dev/ashlar/ca-bundle.crt";

/// The variables by which the usual programs find a CA bundle.
pub(crate) const CA_VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];
