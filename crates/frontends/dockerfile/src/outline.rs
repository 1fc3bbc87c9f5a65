//! What a Dockerfile offers: stages, arguments, secrets and ssh agents, without building it.

use ashlar_core::frontend::Diagnostic;
use serde::Serialize;

use crate::lint::Lint;
use crate::parse::ast::{Command, Instruction};
use crate::parse::{self, mount};
use crate::source::{SourceText, Word};

/// What a Dockerfile offers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Outline {
    /// Stages in file order; the last one is the default.
    pub stages: Vec<StageOutline>,
    /// Arguments in file order, each name once.
    pub args: Vec<ArgOutline>,
    /// Secrets that steps mount.
    pub secrets: Vec<SecretOutline>,
    /// Ssh agents that steps mount.
    pub ssh: Vec<SecretOutline>,
    /// Warnings.
    pub warnings: Vec<Diagnostic>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageOutline {
    /// Its name.
    pub name: Option<String>,
    /// What it starts from, variables not filled in.
    pub base: String,
    /// Value of `--platform`, variables not filled in.
    pub platform: Option<String>,
    /// The comment above that begins with its name.
    pub description: Option<String>,
    /// Line of its `FROM`, from 1.
    pub line: u32,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArgOutline {
    /// Its name.
    pub name: String,
    /// Its default, variables not filled in.
    pub default: Option<String>,
    /// The comment above that begins with its name.
    pub description: Option<String>,
    /// Line, from 1.
    pub line: u32,
}

/// A secret or an ssh agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretOutline {
    /// Its id.
    pub id: String,
    /// Whether a step fails without it.
    pub required: bool,
    /// Line, from 1.
    pub line: u32,
}

/// Reads what a Dockerfile offers.
///
/// # Errors
/// When the file is malformed.
pub fn outline(file_name: &str, text: &str) -> Result<Outline, Box<Diagnostic>> {
    let source = SourceText::new(file_name, text);
    let mut lint = Lint::default();
    let file = parse::file(text, &source, &mut lint)?;
    let mut outline = Outline::default();
    file.global_args.iter().for_each(|i| outline.add(i));
    for stage in &file.stages {
        outline.stages.push(StageOutline {
            name: stage.name.clone(),
            base: stage.base.text.clone(),
            platform: stage.platform.as_ref().map(|p| p.text.clone()),
            description: stage.description.clone(),
            line: stage.line.first,
        });
        stage.instructions.iter().for_each(|i| outline.add(i));
    }
    outline.warnings = lint.finish()?;
    Ok(outline)
}

/// Reads a Dockerfile's instructions as they are written: no variable is filled in.
///
/// # Errors
/// When the file is malformed.
pub fn read(file_name: &str, text: &str) -> Result<parse::ast::File, Box<Diagnostic>> {
    let source = SourceText::new(file_name, text);
    parse::file(text, &source, &mut Lint::default())
}

impl Outline {
    fn add(&mut self, instruction: &Instruction) {
        let line = instruction.line.first;
        match &instruction.command {
            Command::Arg(args) => {
                for arg in args {
                    if self.args.iter().all(|a| a.name != arg.name) {
                        self.args.push(ArgOutline {
                            name: arg.name.clone(),
                            default: arg.value.as_ref().map(|v| v.text.clone()),
                            description: arg.description.clone(),
                            line,
                        });
                    }
                }
            }
            Command::Run(run) => run.mounts.iter().for_each(|m| self.add_mount(m, line)),
            _ => {}
        }
    }

    fn add_mount(&mut self, word: &Word, line: u32) {
        let Ok(mount) = mount::parse(word, &mut |text| Ok(text.to_owned())) else { return };
        let (list, fallback) = match mount.kind {
            mount::Kind::Secret => (&mut self.secrets, mount.target.rsplit('/').next()),
            mount::Kind::Ssh => (&mut self.ssh, Some("default")),
            _ => return,
        };
        let given = [mount.source.as_str(), mount.id.as_str()];
        let id = given.into_iter().find(|s| !s.is_empty()).or(fallback).unwrap_or_default();
        if list.iter().all(|s| s.id != id) {
            list.push(SecretOutline { id: id.to_owned(), required: mount.required, line });
        }
    }
}
