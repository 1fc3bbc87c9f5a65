//! From the bytes that steps write to masked log lines.

mod lines;
mod mask;
mod search;
mod tail;

pub use lines::{LINE_BYTES_MAX, LineCutter};
pub use mask::{MASK, MASKED_MIN, Masker, VARIABLE_MIN};
pub use tail::Tail;
