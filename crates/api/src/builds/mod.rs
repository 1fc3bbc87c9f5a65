//! Builds.

mod actions;
mod events;
mod html;
mod list;
mod logs;
mod secret;
mod start;
mod submit;
mod written;

pub(crate) use actions::{cancel, change, delete, promote, retry, show};
pub(crate) use events::{Cut, entries, events};
pub(crate) use html::Looks;
pub(crate) use list::list;
pub(crate) use logs::logs;
pub(crate) use submit::{Ask, submit};
pub(crate) use written::Written;
