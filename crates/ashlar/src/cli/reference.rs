//! Holds `docs/configuration.md` against the flags: the page is made from them.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::Cli;
use super::config::{CONFIG, is_setting};

/// Set this variable to write the page anew.
const UPDATE: &str = "UPDATE_SNAPSHOTS";
/// What stands before and after the tables.
const HEAD: &str = include_str!("reference_head.md");
const TAIL: &str = include_str!("reference_tail.md");

/// Returns the commands that take `--config`.
fn configurable() -> Vec<Command> {
    let mut root = Cli::command();
    root.build();
    let takes = |c: &&Command| c.get_arguments().any(|a| a.get_long() == Some(CONFIG));
    root.get_subcommands().filter(takes).cloned().collect()
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for command in configurable() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = write!(page, "\n## `ashlar {}`\n\n{about}.\n\n", command.get_name());
        page += "| flag | variable | key | default | meaning |\n|---|---|---|---|---|\n";
        command.get_arguments().filter(|a| is_setting(a)).for_each(|a| page += &row(a));
    }
    page + TAIL
}

fn row(arg: &Arg) -> String {
    let long = arg.get_long().unwrap_or_default();
    let value = arg.get_value_names().and_then(|n| n.first()).map(|n| format!(" {n}"));
    let env = arg.get_env().map(|e| e.to_string_lossy()).unwrap_or_default();
    let key = match arg.get_action() {
        ArgAction::Append => format!("`{long}` (list)"),
        _ => format!("`{long}`"),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ");
    let (meaning, default) = match help.split_once(" [default: ") {
        Some((meaning, default)) => (meaning.to_owned(), default.trim_end_matches(']').to_owned()),
        None => (help, set_default(arg)),
    };
    let flag = format!("`--{long}{}`", value.unwrap_or_default());
    format!("| {flag} | `{env}` | {key} | {default} | {meaning} |\n")
}

fn set_default(arg: &Arg) -> String {
    let values: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    match values.is_empty() {
        true => String::new(),
        false => format!("`{}`", values.join(",")),
    }
}

#[test]
fn the_page_says_what_the_flags_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let now = page();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        now == written,
        "settings changed; set {UPDATE}=1, run this again, and look at the page"
    );
}

#[test]
fn every_setting_has_all_three_forms() {
    assert!(configurable().iter().any(|c| c.get_name() == "serve"));
    for command in configurable() {
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long() else { panic!("{arg}: a setting is a flag") };
            if ["help", "version", CONFIG].contains(&long) {
                continue;
            }
            let env = format!("ASHLAR_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|e| e.to_str()), Some(&*env), "--{long}");
        }
    }
}
