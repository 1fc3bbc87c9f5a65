//! Setting up: global arguments, stages, what they need of each other.

use std::collections::BTreeSet;

use ashlar_core::frontend::Diagnostic;

use super::state::{State, Step};
use super::{Lowering, Result, platform};
use crate::expand::{self, Expanded, Options};
use crate::lint::Rule;
use crate::parse::ast::{Command, Instruction, Stage};
use crate::request::Request;
use crate::source::{Problem, Word};
use crate::suggest;

/// Returns the time of the result, of the request or of a build argument.
pub(super) fn epoch(request: &Request) -> Result<Option<i64>> {
    let argument = request.build_args.get("SOURCE_DATE_EPOCH").filter(|v| !v.is_empty());
    match (request.source_date_epoch, argument) {
        (Some(seconds), _) => Ok(Some(seconds)),
        (None, None) => Ok(None),
        (None, Some(text)) => text.parse().map(Some).map_err(|_| {
            let message = format!("invalid SOURCE_DATE_EPOCH: {text}");
            Box::new(Diagnostic::new(message).hint("give it as seconds since 1970"))
        }),
    }
}

impl Lowering<'_> {
    /// Reads the arguments before the first `FROM`.
    pub(super) fn read_globals(&mut self) -> Result<()> {
        let target = self
            .request
            .target
            .as_deref()
            .or_else(|| self.file.stages.last().and_then(|s| s.name.as_deref()));
        let predefined = platform::predefined(self.request, target.unwrap_or_default());
        let defaults = self.with_global_args(predefined.clone(), false);
        self.globals = self.with_global_args(predefined, true)?;
        if let Some(epoch) = self.request.source_date_epoch {
            self.globals.set("SOURCE_DATE_EPOCH", &epoch.to_string());
        }
        if let Ok(defaults) = defaults {
            self.check_default_bases(&defaults);
        }
        Ok(())
    }

    fn with_global_args(&self, mut env: super::Env, given: bool) -> Result<super::Env> {
        for instruction in &self.file.global_args {
            let Command::Arg(args) = &instruction.command else { continue };
            for arg in args {
                let value = match (self.request.build_args.get(&arg.name), &arg.value) {
                    (Some(value), _) if given => value.clone(),
                    (_, Some(word)) => {
                        let expanded = self.expand_with(word, &env);
                        self.place(&instruction.line, expanded)?.text
                    }
                    (_, None) => continue,
                };
                env.set(&arg.name, &value);
            }
        }
        Ok(env)
    }

    /// Expands a word with the directive's escape character.
    pub(super) fn expand_with(
        &self,
        word: &Word,
        variables: &super::Env,
    ) -> std::result::Result<Expanded, Problem> {
        let options = Options::new(self.file.directives.escape);
        expand::expand(&word.text, variables, &options)
            .map_err(|e| Problem::new(e.to_string()).at(word.span))
    }

    /// Makes a state of each stage.
    pub(super) fn make_states(&mut self) -> Result<()> {
        self.check_stage_names();
        self.check_instruction_casing();
        for (index, stage) in self.file.stages.clone().iter().enumerate() {
            let state = self.place(&stage.line, self.make_state(stage, index))?;
            self.states.push(state);
        }
        self.stage_count = self.states.len();
        Ok(())
    }

    fn make_state(&self, stage: &Stage, index: usize) -> std::result::Result<State, Problem> {
        let base = self.expand_with(&stage.base, &self.globals)?;
        self.check_undeclared(stage, &base);
        if base.text.is_empty() {
            let message = format!("base name ({}) should not be blank", stage.base.text);
            let declared = self.declared();
            let near = |n: &String| suggest::hint(n, declared.iter().copied());
            let near = base.unmatched.iter().find_map(near);
            let hint =
                near.unwrap_or("declare it with a default: ARG NAME=value before FROM".into());
            return Err(Problem::new(message).at(stage.base.span).hint(hint));
        }
        let mut state = State::of_stage(stage, base.text, index);
        state.platform = stage.platform.as_ref().map(|p| self.platform(stage, p)).transpose()?;
        if let Some(name) = &stage.name {
            state.stand_in = self.stand_in(name, state.platform.as_ref());
        }
        if state.stand_in.is_some() {
            return Ok(state);
        }
        state.base = self.states.iter().rposition(|s| s.name.as_ref() == Some(&state.base_name));
        let counts = |i: &&Instruction| {
            matches!(i.command, Command::Copy(_) | Command::Run(_) | Command::Workdir(_))
        };
        let own = stage.instructions.iter().filter(counts).count();
        let from = state.base_name != "scratch" && state.base.is_none();
        state.total = own + usize::from(from);
        Ok(state)
    }

    fn platform(
        &self,
        stage: &Stage,
        word: &Word,
    ) -> std::result::Result<ashlar_core::Platform, Problem> {
        let expanded = self.expand_with(word, &self.globals)?;
        self.check_undeclared(stage, &expanded);
        let lint = self.lint.scoped(&stage.line.comments);
        let only = |set: &BTreeSet<String>| set.iter().map(String::as_str).eq(["TARGETPLATFORM"]);
        let target = platform::target(self.request);
        if only(&expanded.matched)
            && expanded.unmatched.is_empty()
            && expanded.text == target.to_string()
        {
            let text = format!(
                "Setting platform to predefined {} in FROM is redundant as this is the default \
                 behavior",
                word.text
            );
            lint.warn(Rule::RedundantTargetPlatform, &stage.line, &self.source, text);
        }
        if expanded.text.is_empty() {
            let message = format!("empty platform value from expression {}", word.text);
            let declared = self.declared();
            let near = |n: &String| suggest::hint(n, declared.iter().copied());
            let hint = expanded.unmatched.iter().find_map(near);
            return Err(Problem::new(message).at(word.span).maybe_hint(hint));
        }
        let parsed = platform::parse(&expanded.text, &self.request.build_platform)
            .map_err(|e| Problem::new(format!("failed to parse platform: {e}")).at(word.span))?;
        let name = stage.name.as_deref().unwrap_or_default();
        let named = name.contains(&parsed.os) || name.contains(&parsed.architecture);
        if expanded.matched.is_empty() && expanded.unmatched.is_empty() && !named {
            let text =
                format!("FROM --platform flag should not use constant value {:?}", expanded.text);
            lint.warn(Rule::FromPlatformFlagConstDisallowed, &stage.line, &self.source, text);
        }
        Ok(parsed)
    }

    /// Returns the names of arguments that `FROM` may use, with a value or without.
    pub(super) fn declared(&self) -> BTreeSet<&str> {
        let mut declared: BTreeSet<&str> = self.globals.names().collect();
        for instruction in &self.file.global_args {
            if let Command::Arg(args) = &instruction.command {
                declared.extend(args.iter().map(|a| a.name.as_str()));
            }
        }
        declared
    }

    /// Finds the stage to build.
    pub(super) fn find_target(&self) -> Result<usize> {
        let Some(target) = &self.request.target else { return Ok(self.stage_count - 1) };
        self.stage_named(target).ok_or_else(|| {
            let names = self.stage_names();
            let diagnostic = Diagnostic::new(format!("target stage {target:?} could not be found"));
            let hint = suggest::hint(target, names.iter().copied()).unwrap_or_else(|| {
                let names: Vec<&str> = names.into_iter().collect();
                match names.as_slice() {
                    [] => "no stage has a name; write FROM image AS name".into(),
                    names => format!("the stages are {}", names.join(", ")),
                }
            });
            Box::new(diagnostic.hint(hint))
        })
    }

    fn stage_named(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.states[..self.stage_count].iter().rposition(|s| s.name.as_ref() == Some(&name))
    }

    /// Finds what each instruction copies and mounts from, and refuses circles.
    pub(super) fn link(&mut self) -> Result<()> {
        let mut alone = self.stage_count == 1;
        for index in 0..self.stage_count {
            if self.states[index].stand_in.is_some() {
                continue;
            }
            for instruction in self.file.stages[index].instructions.clone() {
                let step = self.step(instruction, false)?;
                alone &= step.sources.is_empty();
                self.add_step(index, step);
            }
        }
        self.refuse_circles()?;
        if alone {
            self.states[0].shown.clear();
        }
        Ok(())
    }

    pub(super) fn add_step(&mut self, index: usize, step: Step) {
        let sources = step.sources.iter().flatten();
        let state = &mut self.states[index];
        state.needs.extend(sources);
        state.commands.push(step);
    }

    /// Finds the sources of an instruction; an image that is no stage becomes a state of its own.
    pub(super) fn step(&mut self, instruction: Instruction, trigger: bool) -> Result<Step> {
        let wanted: Vec<Option<Word>> = match &instruction.command {
            Command::Copy(copying) => copying.from.iter().cloned().map(Some).collect(),
            Command::Run(run) => run.mount_sources.clone(),
            _ => Vec::new(),
        };
        let copies = matches!(instruction.command, Command::Copy(_));
        let mut sources = Vec::new();
        for from in wanted {
            let Some(from) = from else {
                sources.push(None);
                continue;
            };
            let found = self.find_source(&from, copies);
            let found = self.place(&instruction.line, found)?;
            let index = found.unwrap_or_else(|| self.external(&from, &instruction));
            sources.push(Some(index));
        }
        Ok(Step { instruction, sources, trigger })
    }

    fn find_source(
        &self,
        from: &Word,
        copies: bool,
    ) -> std::result::Result<Option<usize>, Problem> {
        if !copies {
            return Ok(self.stage_named(&from.text));
        }
        let plain = self.expand_with(from, &super::Env::default())?;
        if plain.text != from.text {
            let message = "variable expansion is not supported for --from, define a new stage with \
                           FROM using ARG from global scope as a workaround";
            return Err(Problem::new(message).at(from.span));
        }
        let Ok(number) = from.text.parse::<i64>() else { return Ok(self.stage_named(&from.text)) };
        match usize::try_from(number) {
            Ok(index) if index < self.stage_count => Ok(Some(index)),
            _ => {
                let problem = Problem::new(format!("invalid stage index {number}")).at(from.span);
                let last = self.stage_count - 1;
                Err(problem.hint(format!("stages are counted from 0; the last one is {last}")))
            }
        }
    }

    fn external(&mut self, from: &Word, instruction: &Instruction) -> usize {
        let known =
            self.states.iter().skip(self.stage_count).position(|s| s.base_name == from.text);
        known.map_or_else(
            || {
                self.states.push(State::of_image(from, &instruction.line));
                self.states.len() - 1
            },
            |at| at + self.stage_count,
        )
    }

    /// Refuses stages that need themselves, needed or not.
    pub(super) fn refuse_circles(&self) -> Result<()> {
        let mut done = vec![false; self.states.len()];
        for start in 0..self.states.len() {
            let mut path = vec![(start, 0)];
            while let Some((index, next)) = path.last_mut() {
                let state = &self.states[*index];
                let mut edges = state.base.iter().chain(&state.needs);
                let edge = if done[*index] { None } else { edges.nth(*next) };
                let Some(&to) = edge else {
                    done[*index] = true;
                    path.pop();
                    continue;
                };
                *next += 1;
                if path.iter().any(|(i, _)| *i == to) {
                    let from = path.last().map_or(to, |(i, _)| *i);
                    return Err(self.circle(from, to));
                }
                path.push((to, 0));
            }
        }
        Ok(())
    }

    fn circle(&self, from: usize, to: usize) -> Box<Diagnostic> {
        let message = format!("circular dependency detected on stage: {}", self.states[to].shown);
        let problem =
            Problem::new(message).hint("a stage can copy only from stages that stand before it");
        let uses = |s: &&Step| s.sources.contains(&Some(to));
        let step = self.states[from].commands.iter().find(uses);
        let line = step.map_or(&self.states[to].line, |s| &s.instruction.line);
        self.source.diagnose(line, problem)
    }

    /// Returns the stages that `target` needs, itself included, in file order.
    pub(super) fn needed(&self, target: usize) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if needed.insert(index) {
                let state = &self.states[index];
                open.extend(state.base.iter().chain(&state.needs));
            }
        }
        needed
    }
}
