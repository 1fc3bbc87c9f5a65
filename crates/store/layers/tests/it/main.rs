//! Archives written, read and suspected, on a real file system.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod formats;
mod hostile;
mod round_trip;
mod support;
mod unpacking;
mod writing;
