//! What stages start from: images, the empty tree, and contexts that stand in for them.

use ashlar_core::Platform;
use ashlar_core::frontend::{Answer, Question};

use super::git::GitRef;
use super::reference::Reference;
use super::state::{Resolved, StageIndex};
use super::{Lowering, Result, platform};
use crate::limits::TRIGGER_ROUNDS_MAX;
use crate::parse::{self, ast::Command};
use crate::request::NamedContext;
use crate::source::Problem;
use crate::suggest;

type Checked<T> = std::result::Result<T, Problem>;

impl Lowering<'_> {
    /// Resolves what the target needs and puts triggers in; returns the stages to lower in order,
    /// or nothing when questions are open.
    pub(super) fn resolve(&mut self, target: StageIndex) -> Result<Option<Vec<StageIndex>>> {
        for _ in 0..TRIGGER_ROUNDS_MAX {
            let needed = self.needed(target);
            for &index in &needed {
                let span = self.states[index].span;
                let resolved = self.resolve_base(index).map_err(|p| p.at(span));
                let line = self.states[index].line.clone();
                if let Some(resolved) = self.place(&line, resolved)? {
                    self.states[index].resolved = Some(resolved);
                }
            }
            self.ask_for_ignore_file(&needed);
            let more = self.add_triggers(&needed)?;
            if !self.questions.borrow().is_empty() && !more {
                return Ok(None);
            }
            if !more {
                return Ok(Some(needed.into_iter().collect()));
            }
        }
        let problem = Problem::new("triggers of base images bring in ever more images");
        Err(self.source.diagnose(&self.states[target].line, problem))
    }

    /// Resolves one base; nothing when that is done, not needed, or a question is open.
    fn resolve_base(&self, index: StageIndex) -> Checked<Option<Resolved>> {
        let state = &self.states[index];
        if state.base.is_some() || state.resolved.is_some() {
            return Ok(None);
        }
        let platform = state.platform.as_ref().unwrap_or(platform::target(self.request));
        if let Some(context) = &state.stand_in {
            return self.load(context, platform);
        }
        if state.base_name == "scratch" {
            return Ok(Some(Resolved::Scratch(None)));
        }
        if let Err(why) = Reference::parse(&state.base_name) {
            let message = format!(
                "failed to parse stage name {:?}: invalid reference format: {why}",
                state.base_name
            );
            let hint = self.near_stage(&state.base_name);
            return Err(Problem::new(message).maybe_hint(hint));
        }
        if let Some(context) = self.stand_in(&state.base_name, Some(platform)) {
            return self.load(&context, platform);
        }
        self.image(&state.base_name, platform)
    }

    fn near_stage(&self, name: &str) -> Option<String> {
        let lower = name.to_lowercase();
        let names = self.stage_names();
        let common = ["alpine", "busybox", "debian", "fedora", "golang", "ubuntu"];
        let same = names.contains(lower.as_str()).then(|| format!("the stage is named {lower}"));
        same.or_else(|| suggest::hint(name, names.into_iter().chain(common)))
    }

    /// Returns the context that stands in for a stage or an image.
    pub(super) fn stand_in(&self, name: &str, wanted: Option<&Platform>) -> Option<NamedContext> {
        let contexts = &self.request.named_contexts;
        if contexts.is_empty() || name.eq_ignore_ascii_case("scratch") || name == "context" {
            return None;
        }
        let name = Reference::parse(name).ok()?.familiar();
        let platform = wanted.unwrap_or(platform::target(self.request));
        contexts.get(&format!("{name}::{platform}")).or_else(|| contexts.get(&name)).cloned()
    }

    fn load(&self, context: &NamedContext, platform: &Platform) -> Checked<Option<Resolved>> {
        match context {
            NamedContext::Image(reference) if reference == "scratch" => {
                Ok(Some(Resolved::Scratch(None)))
            }
            NamedContext::Image(reference) => self.image(reference, platform),
            NamedContext::Directory(name) => Ok(self
                .ignore_patterns(name, &[".dockerignore".to_owned()])?
                .map(|exclude| Resolved::Directory { name: name.clone(), exclude })),
            NamedContext::Git(url) => match GitRef::parse(url) {
                Some(Ok(git)) => Ok(Some(Resolved::Git(Box::new(git)))),
                Some(Err(why)) => Err(Problem::new(format!("invalid git context {url}: {why}"))),
                None => Err(Problem::new(format!("the context {url} is not a git URL"))),
            },
        }
    }

    fn image(&self, reference: &str, platform: &Platform) -> Checked<Option<Resolved>> {
        let question =
            Question::Image { reference: reference.to_owned(), platform: platform.clone() };
        match self.ask(question) {
            None => Ok(None),
            Some(Answer::Image { reference, manifest, config }) => {
                let mut config = config.clone();
                config.created = None;
                config.pad_history();
                if !config.history.iter().any(|h| !h.empty_layer) {
                    return Ok(Some(Resolved::Scratch(Some(config))));
                }
                Ok(Some(Resolved::Image {
                    reference: reference.clone(),
                    manifest: *manifest,
                    config,
                    platform: platform.clone(),
                }))
            }
            Some(Answer::Failed { message }) => {
                let problem = Problem::new(format!("{reference}: {message}"));
                Err(problem.maybe_hint(self.near_stage(reference)))
            }
            Some(_) => Err(Problem::new(format!("the answer about {reference} is no image"))),
        }
    }

    /// Puts the triggers of bases before the instructions of the stages on top of them; returns
    /// whether they need something that is not resolved yet.
    fn add_triggers(&mut self, needed: &std::collections::BTreeSet<StageIndex>) -> Result<bool> {
        let mut more = false;
        for &index in needed {
            let Some(triggers) = self.triggers(index) else { continue };
            self.states[index].triggers_in = true;
            let line = self.states[index].line.clone();
            let mut steps = Vec::new();
            for text in triggers {
                let parsed = parse::trigger(&text, &self.source);
                let parsed = parsed.map_err(|p| Problem { span: None, ..p });
                let mut instruction = self.place(&line, parsed)?;
                instruction.line.pin(line.first, line.last);
                let step = self.step(instruction, true)?;
                more |= step.sources.iter().any(Option::is_some);
                self.states[index].needs.extend(step.sources.iter().flatten());
                steps.push(step);
            }
            let state = &mut self.states[index];
            state.total += steps.len();
            steps.append(&mut state.commands);
            state.commands = steps;
        }
        if more {
            self.refuse_circles()?;
        }
        Ok(more)
    }

    /// Returns the triggers of a stage's base, once they are known.
    fn triggers(&self, index: StageIndex) -> Option<Vec<String>> {
        let state = &self.states[index];
        if state.triggers_in || state.stand_in.is_some() {
            return None;
        }
        if let Some(base) = state.base {
            let own = self.states[base].commands.iter();
            let triggers = own.filter_map(|s| match &s.instruction.command {
                Command::Onbuild(text) => Some(text.clone()),
                _ => None,
            });
            return Some(triggers.collect());
        }
        match state.resolved.as_ref()? {
            Resolved::Scratch(Some(config)) | Resolved::Image { config, .. } => {
                Some(config.config.on_build.clone())
            }
            _ => Some(Vec::new()),
        }
    }
}
