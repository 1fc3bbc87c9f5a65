//! The shell command that a step stands for.

use std::borrow::Cow;

use crate::quote::{operands, shell_quote, words};
use crate::step::Step;

/// Returns the text for `/bin/sh -c`; `None` for steps that run nothing.
pub(crate) fn of(step: &Step) -> Option<Cow<'_, str>> {
    let owned = match step {
        Step::AptInstall { packages } => install(packages, |p| {
            format!("apt-get update && apt-get install -y {p} && rm -rf /var/lib/apt/lists/*")
        })?,
        Step::PipInstall { packages, g } => install(packages, |p| {
            format!("pip install {}--no-cache-dir {p}", if *g { "" } else { "--user " })
        })?,
        Step::NpmInstall { packages, g } => {
            install(packages, |p| format!("npm install {}{p}", if *g { "-g " } else { "" }))?
        }
        Step::BunInstall { packages, g } => {
            install(packages, |p| format!("bun add {}{p}", if *g { "--global " } else { "" }))?
        }
        Step::Run { command, .. } => return Some(Cow::Borrowed(command)),
        Step::Remove { path, recursive, force } => {
            let options = match (recursive, force) {
                (true, true) => "-rf ",
                (true, false) => "-r ",
                (false, true) => "-f ",
                (false, false) => "",
            };
            format!("rm {options}{}", operands(&[path]))
        }
        Step::Rename { src, dst, force } => {
            format!("mv {}{}", if *force { "-f " } else { "" }, operands(&[src, dst]))
        }
        Step::MakeDir { path, mode } => {
            let path = operands(&[path]);
            let chmod = mode.map(|m| format!(" && chmod {m} {path}")).unwrap_or_default();
            format!("mkdir -p {path}{chmod}")
        }
        Step::MakeSymlink { target, path } => format!("ln -s {}", operands(&[target, path])),
        Step::GitClone { url, path, branch, depth } => {
            let branch = branch.as_ref().map(|b| format!("--branch {} ", shell_quote(b)));
            let depth = depth.map(|d| format!("--depth {d} "));
            let options = [branch, depth].into_iter().flatten().collect::<String>();
            format!("git clone {options}{}", operands(&[url, path]))
        }
        Step::Workdir { .. }
        | Step::User { .. }
        | Step::Copy(_)
        | Step::CopyItems { .. }
        | Step::SkipCache => return None,
    };
    Some(Cow::Owned(owned))
}

fn install(packages: &[String], command: impl Fn(String) -> String) -> Option<String> {
    if packages.is_empty() { None } else { Some(command(words(packages))) }
}
