//! The real binary, on a base image that is imported from Debian's package busybox-static.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod architecture;
mod buildkit;
mod builds;
mod cluster;
mod crashes;
mod disk;
mod images;
mod limits;
#[cfg(feature = "otlp")]
mod otlp;
mod outputs;
mod packaging;
#[path = "../../../store/records/tests/suite/postgres.rs"]
mod postgres;
mod progress;
mod remote_build;
mod remote_builds;
mod remote_push;
mod retention;
#[path = "../../../store/objects/tests/it/s3.rs"]
mod s3;
mod serve;
mod server;
mod usage;
mod world;
