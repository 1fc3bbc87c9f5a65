//! Lowers declarative builds, an ordered list of steps on a base image, to graphs.
//!
//! Start with [`Definition`], which is the whole of a build, and [`parse_steps`], which reads steps
//! from JSON with errors that name the key (`steps[3].packages`). Lowering does no I/O: what must
//! be known of the base image is asked for ([`ashlar_core::frontend::Question::Image`]).
//!
//! Each step does what a Dockerfile instruction does, and lowers to the very operation that the
//! Dockerfile frontend makes of it, so that both share results. [`render_dockerfile`] writes that
//! Dockerfile down. What a step names (paths, packages, addresses) is data: it is quoted wherever
//! a shell reads it. Only the text of `run` is shell.

mod command;
mod definition;
mod fields;
mod limits;
mod lower;
mod parse;
mod paths;
mod quote;
mod render;
mod step;
mod user;

pub use definition::{Base, CacheUse, Definition, Runtime};
pub use limits::{COMMAND_BYTES_MAX, ITEMS_MAX, STEPS_MAX};
pub use lower::Declarative;
pub use parse::{Parsed, parse_steps};
pub use quote::shell_quote;
pub use render::render_dockerfile;
pub use step::{CopyItem, FileMode, Step};
