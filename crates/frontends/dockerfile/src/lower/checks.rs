//! Warnings about a file as a whole: syntax, stages and their bases.

use std::collections::BTreeSet;

use super::Lowering;
use crate::expand::Expanded;
use crate::lint::Rule;
use crate::parse::ast::Stage;
use crate::suggest;

/// The minor version of the language that this frontend knows.
const SYNTAX_MINOR: u32 = 24;

impl Lowering<'_> {
    /// Warns when `# syntax=` asks for something else than this frontend.
    pub(super) fn check_syntax(&self) {
        let Some((syntax, line)) = &self.file.directives.syntax else { return };
        let image = syntax.split(' ').next().unwrap_or_default();
        let short = image.strip_prefix("docker.io/").unwrap_or(image);
        let known = ["docker/dockerfile", "docker/dockerfile-upstream"];
        let (name, tag) =
            short.split('@').next().unwrap_or_default().split_once(':').unwrap_or((short, ""));
        let text = if !known.contains(&name) {
            format!(
                "the frontend image {image} is not run; the file is read as a Dockerfile 1.{SYNTAX_MINOR}"
            )
        } else {
            let version = tag.split('-').next().unwrap_or_default();
            let mut parts = version.split('.').map(|p| p.parse::<u32>().ok());
            let major = parts.next().flatten().unwrap_or(1);
            let minor = parts.next().flatten().unwrap_or(0);
            if major == 1 && minor <= SYNTAX_MINOR {
                return;
            }
            format!(
                "Dockerfile syntax {version} is newer than 1.{SYNTAX_MINOR}, as which the file is read"
            )
        };
        let place = self.source.lines_at(*line, *line);
        self.lint.warn_at(Rule::SyntaxDirective, place, &self.source, text);
    }

    /// Warns of stages whose base is no image name when nobody gives build arguments.
    pub(super) fn check_default_bases(&self, defaults: &super::Env) {
        for stage in &self.file.stages {
            let Ok(base) = self.expand_with(&stage.base, defaults) else { return };
            if super::reference::Reference::parse(&base.text).is_err() {
                let text = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    stage.base.text
                );
                let lint = self.lint.scoped(&stage.line.comments);
                lint.warn(Rule::InvalidDefaultArgInFrom, &stage.line, &self.source, text);
            }
        }
    }

    pub(super) fn check_undeclared(&self, stage: &Stage, expanded: &Expanded) {
        let declared = self.declared();
        for name in expanded.unmatched.iter().filter(|n| !declared.contains(n.as_str())) {
            let near = suggest::nearest(name, declared.iter().copied());
            let near = near.map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
            let text = format!("FROM argument '{name}' is not declared{near}");
            let lint = self.lint.scoped(&stage.line.comments);
            lint.warn(Rule::UndefinedArgInFrom, &stage.line, &self.source, text);
        }
    }

    pub(super) fn check_stage_names(&self) {
        let mut seen = BTreeSet::new();
        for stage in &self.file.stages {
            let Some(name) = &stage.name else { continue };
            if ["context", "scratch"].contains(&name.as_str()) {
                let text =
                    format!("Stage name should not use the same name as reserved stage {name:?}");
                self.lint.warn(Rule::ReservedStageName, &stage.line, &self.source, text);
            }
            if !seen.insert(name) {
                let text = format!("Duplicate stage name {name:?}, stage names should be unique");
                self.lint.warn(Rule::DuplicateStageName, &stage.line, &self.source, text);
            }
        }
    }

    pub(super) fn check_instruction_casing(&self) {
        let all: Vec<_> = self
            .file
            .stages
            .iter()
            .flat_map(|s| {
                let own = s.instructions.iter().map(|i| (&i.keyword.text, &i.line));
                std::iter::once((&s.keyword.text, &s.line)).chain(own)
            })
            .collect();
        let lower = all.iter().filter(|(k, _)| **k == k.to_lowercase()).count();
        let upper = all.iter().filter(|(k, _)| **k == k.to_uppercase()).count();
        let lower = lower > upper;
        let (case, fits): (_, fn(&str) -> String) =
            if lower { ("lowercase", str::to_lowercase) } else { ("uppercase", str::to_uppercase) };
        for (keyword, line) in all.iter().filter(|(k, _)| fits(k) != **k) {
            let text = format!(
                "Command '{keyword}' should match the case of the command majority ({case})"
            );
            self.lint.warn(Rule::ConsistentInstructionCasing, line, &self.source, text);
        }
    }
}
