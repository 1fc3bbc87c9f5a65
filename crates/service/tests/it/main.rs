//! The service with an executor that does what tests say, on both databases.
//!
//! Needs root and Debian's package `postgresql-15` (any version from 15 on).
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod collect;
#[path = "../../../store/records/tests/suite/cut.rs"]
mod cut;
mod external;
mod faults;
mod own_store;
#[path = "../../../store/records/tests/suite/postgres.rs"]
mod postgres;
mod retention;
#[path = "../../../store/objects/tests/it/s3.rs"]
mod s3;
mod stops;
mod sweep;
mod workflow;
mod world;
