//! Builds on real daemons (`scripts/peers`), and on a stand-in that speaks their protocol.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod addresses;
mod agent;
mod both;
mod builds;
mod doors;
mod fake;
mod own;
mod reach;
mod standalone;
mod stops;
mod world;
