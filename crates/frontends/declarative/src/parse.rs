//! Reading steps from JSON.

use ashlar_core::frontend::Diagnostic;
use serde_json::Value;

use crate::command;
use crate::fields::{Fields, Parse, error};
use crate::limits::{COMMAND_BYTES_MAX, ERRORS_MAX, STEPS_MAX};
use crate::paths::{check_line, check_source};
use crate::step::{CopyItem, Step};
use crate::user::check_user;

/// Steps that are well formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The steps in order.
    pub steps: Vec<Step>,
    /// What was odd but not wrong.
    pub warnings: Vec<Diagnostic>,
}

/// Where `git_clone` puts a checkout when nothing else is said.
const CLONE_PATH: &str = "/workspace";

/// Reads a JSON list of steps.
///
/// # Errors
/// One diagnostic for each wrong step, at most 50. Each names the place, for example
/// `steps[3].packages: must be a list of strings, not a number`.
pub fn parse_steps(value: &Value) -> Result<Parsed, Vec<Diagnostic>> {
    let list = value.as_array().ok_or_else(|| vec![*error("steps", "must be a list of steps")])?;
    if list.len() > STEPS_MAX {
        return Err(vec![*error("steps", format!("has more than {STEPS_MAX} entries"))]);
    }
    let (mut steps, mut warnings, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (i, value) in list.iter().enumerate() {
        match parse_step(&format!("steps[{i}]"), value, &mut warnings) {
            Ok(step) => steps.push(step),
            Err(error) => errors.push(*error),
        }
        if errors.len() == ERRORS_MAX {
            break;
        }
    }
    if errors.is_empty() { Ok(Parsed { steps, warnings }) } else { Err(errors) }
}

pub(crate) fn parse_step(
    place: &str,
    value: &Value,
    warnings: &mut Vec<Diagnostic>,
) -> Parse<Step> {
    let mut fields = Fields::new(place, value, "an object with the key 'action'")?;
    let action = fields.text("action")?;
    let step = read(place, &action, &mut fields, warnings)?;
    check(place, &step)?;
    fields.warn_of_unknown(warnings);
    Ok(step)
}

fn read(
    place: &str,
    action: &str,
    f: &mut Fields<'_>,
    warnings: &mut Vec<Diagnostic>,
) -> Parse<Step> {
    Ok(match action {
        "apt_install" => Step::AptInstall { packages: f.texts("packages")? },
        "pip_install" => Step::PipInstall { packages: f.texts("packages")?, g: f.flag("g", true)? },
        "npm_install" => {
            Step::NpmInstall { packages: f.texts("packages")?, g: f.flag("g", false)? }
        }
        "bun_install" => {
            Step::BunInstall { packages: f.texts("packages")?, g: f.flag("g", false)? }
        }
        "run" => Step::Run { command: f.text("command")?, user: f.text_maybe("user")? },
        "workdir" => Step::Workdir { path: f.text("path")? },
        "user" => Step::User { user: f.text("user")? },
        "copy" => Step::Copy(read_copy(f)?),
        "copy_items" => Step::CopyItems { items: read_items(f, warnings)? },
        "remove" => Step::Remove {
            path: f.text("path")?,
            recursive: f.flag("recursive", false)?,
            force: f.flag("force", false)?,
        },
        "rename" => Step::Rename {
            src: f.text("src")?,
            dst: f.text("dst")?,
            force: f.flag("force", false)?,
        },
        "make_dir" => Step::MakeDir { path: f.text("path")?, mode: f.mode_maybe("mode")? },
        "make_symlink" => Step::MakeSymlink { target: f.text("target")?, path: f.text("path")? },
        "git_clone" => Step::GitClone {
            url: f.text("url")?,
            path: f.text_maybe("path")?.unwrap_or_else(|| CLONE_PATH.into()),
            branch: f.text_maybe("branch")?,
            depth: f.count_maybe("depth")?,
        },
        "skip_cache" => Step::SkipCache,
        other => return Err(unknown_action(place, other)),
    })
}

fn read_copy(f: &mut Fields<'_>) -> Parse<CopyItem> {
    Ok(CopyItem {
        sources: f.texts("sources")?,
        dst: f.text("dst")?,
        user: f.text_maybe("user")?,
        mode: f.mode_maybe("mode")?,
        force_upload: f.flag("force_upload", false)?,
    })
}

fn read_items(f: &mut Fields<'_>, warnings: &mut Vec<Diagnostic>) -> Parse<Vec<CopyItem>> {
    let place = f.key("items");
    let list = f.list("items", "a list of objects")?;
    let item = |(i, value)| {
        let place = format!("{place}[{i}]");
        let mut fields = Fields::new(&place, value, "an object with 'sources' and 'dst'")?;
        let item = read_copy(&mut fields)?;
        fields.warn_of_unknown(warnings);
        Ok(item)
    };
    list.iter().enumerate().map(item).collect()
}

/// The words that `action` may be.
const ACTIONS: [&str; 15] = [
    "apt_install",
    "pip_install",
    "npm_install",
    "bun_install",
    "run",
    "workdir",
    "user",
    "copy",
    "copy_items",
    "remove",
    "rename",
    "make_dir",
    "make_symlink",
    "git_clone",
    "skip_cache",
];

fn unknown_action(place: &str, action: &str) -> Box<Diagnostic> {
    let shown: String = action.chars().take(60).collect();
    let message = format!("unknown action '{}'", shown.escape_debug());
    let hint = format!("the actions are {}", ACTIONS.join(", "));
    let mut diagnostic = error(format!("{place}.action"), message);
    diagnostic.hint = Some(hint);
    diagnostic
}

/// Checks what holds whoever made the step.
pub(crate) fn check(place: &str, step: &Step) -> Parse<()> {
    let at = |key: &str| format!("{place}.{key}");
    match step {
        Step::Run { user: Some(user), .. } | Step::User { user } => check_user(&at("user"), user)?,
        Step::Workdir { path } => check_line(&at("path"), path)?,
        Step::Copy(item) => check_copy(place, item)?,
        Step::CopyItems { items } => {
            for (i, item) in items.iter().enumerate() {
                check_copy(&format!("{place}.items[{i}]"), item)?;
            }
        }
        Step::GitClone { url, branch, .. } => {
            for (key, text) in [("url", Some(url)), ("branch", branch.as_ref())] {
                if text.is_some_and(|t| t.starts_with('-')) {
                    return Err(error(
                        at(key),
                        "must not begin with '-': git takes it for an option",
                    ));
                }
            }
        }
        _ => {}
    }
    if command::of(step).is_some_and(|c| c.len() > COMMAND_BYTES_MAX) {
        let what = format!("makes a command of more than {COMMAND_BYTES_MAX} bytes; split it");
        return Err(error(place, what));
    }
    Ok(())
}

fn check_copy(place: &str, item: &CopyItem) -> Parse<()> {
    if item.sources.is_empty() {
        return Err(error(format!("{place}.sources"), "must not be empty"));
    }
    for (i, source) in item.sources.iter().enumerate() {
        check_source(&format!("{place}.sources[{i}]"), source)?;
    }
    if let Some(user) = &item.user {
        check_user(&format!("{place}.user"), user)?;
    }
    Ok(())
}
