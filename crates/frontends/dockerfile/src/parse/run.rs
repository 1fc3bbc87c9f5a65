//! `RUN`, but for what its mounts say.

use super::ast::{Run, RunNetwork};
use super::flags::{Flags, Takes};
use super::mount;
use crate::lexer::Line;
use crate::lexer::split::Split;
use crate::source::{Problem, Word};
use crate::suggest;

const FLAGS: [(&str, Takes); 4] = [
    ("mount", Takes::Values),
    ("network", Takes::Value),
    ("security", Takes::Value),
    ("device", Takes::Values),
];

pub(super) fn parse(split: &Split, line: &Line) -> Result<Run, Problem> {
    let flags = Flags::read(split, &FLAGS)?;
    let command = super::command_line(&split.rest)?;
    let mounts = flags.all("mount");
    let mount_sources = mounts.iter().map(mount::source).collect::<Result<_, _>>()?;
    Ok(Run {
        command,
        heredocs: line.heredocs.clone(),
        mounts,
        mount_sources,
        network: network(flags.word("network"))?,
        insecure: insecure(flags.word("security"))?,
        devices: flags.all("device"),
    })
}

fn network(flag: Option<&Word>) -> Result<RunNetwork, Problem> {
    let Some(word) = flag else { return Ok(RunNetwork::Default) };
    Ok(match word.text.as_str() {
        "default" => RunNetwork::Default,
        "none" => RunNetwork::None,
        "host" => RunNetwork::Host(word.clone()),
        other => {
            let problem = Problem::new(format!("invalid network mode {other:?}")).at(word.span);
            let near = suggest::hint(other, ["default", "none", "host"]);
            return Err(problem.hint(near.unwrap_or("it is default, none or host".into())));
        }
    })
}

fn insecure(flag: Option<&Word>) -> Result<Option<Word>, Problem> {
    let Some(word) = flag else { return Ok(None) };
    match word.text.as_str() {
        "sandbox" => Ok(None),
        "insecure" => Ok(Some(word.clone())),
        other => {
            let problem = Problem::new(format!("security {other:?} is not valid")).at(word.span);
            Err(problem.hint("it is sandbox or insecure"))
        }
    }
}
