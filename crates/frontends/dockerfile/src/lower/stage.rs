//! Lowering of one stage, instruction by instruction.

use ashlar_core::frontend::Step as PlanStep;
use ashlar_core::graph::{FileAction, NodeId, NodeMeta, Op, StepId};
use ashlar_core::image::{History, ImageConfig};
use ashlar_core::{Platform, cache::Bypass};

use super::env::Env;
use super::git::GitRef;
use super::state::{Outcome, Resolved, StageIndex, Step};
use super::{Lowering, Result, names, owner, paths, platform};
use crate::expand::{Expanded, Options, Variables};
use crate::lint::{Lint, Rule};
use crate::parse::ast::{Command, Instruction};
use crate::request::NoCache;
use crate::source::{Problem, Word};
use crate::suggest;

type Checked<T> = std::result::Result<T, Problem>;

/// Where programs are looked for when an image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What BuildKit writes into each history entry.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";
/// The most variables that a stage may set.
const VARIABLES_MAX: usize = 2_000;

/// A stage while it is lowered.
pub(super) struct Work {
    pub(super) index: StageIndex,
    pub(super) at: Outcome,
    /// Steps shown so far.
    pub(super) number: usize,
    pub(super) no_cache: Option<Bypass>,
    pub(super) cmd: Option<Instruction>,
    pub(super) entrypoint: Option<Instruction>,
    pub(super) healthcheck: Option<Instruction>,
    /// Warnings as the comments above the instruction want them.
    pub(super) lint: Lint,
}

impl Lowering<'_> {
    /// Lowers a stage whose needs are all lowered.
    pub(super) fn lower_stage(&mut self, index: StageIndex) -> Result<()> {
        let line = self.states[index].line.clone();
        let mut number = 0;
        let start = self.start(index, &mut number);
        let at = self.place(&line, start)?;
        let mut work = Work {
            index,
            at,
            number,
            no_cache: self.no_cache(index),
            cmd: None,
            entrypoint: None,
            healthcheck: None,
            lint: self.lint.clone(),
        };
        let state = &self.states[index];
        if !state.external && state.stand_in.is_none() {
            self.prepare(&mut work);
            for step in std::mem::take(&mut self.states[index].commands) {
                work.lint = self.lint.scoped(&step.instruction.line.comments);
                let done = self.instruction(&mut work, &step);
                self.place(&step.instruction.line, done)?;
            }
        }
        self.states[index].outcome = Some(work.at);
        Ok(())
    }

    fn no_cache(&self, index: StageIndex) -> Option<Bypass> {
        match &self.request.no_cache {
            NoCache::None => None,
            NoCache::All => Some(Bypass::WholeBuild),
            NoCache::Stages(names) => {
                let name = self.states[index].name.as_ref()?;
                let named = names.iter().any(|n| n.eq_ignore_ascii_case(name));
                named.then_some(Bypass::Boundary)
            }
        }
    }

    /// Makes the node that a stage starts from.
    fn start(&mut self, index: StageIndex, number: &mut usize) -> Checked<Outcome> {
        if let Some(base) = self.states[index].base {
            let missing = || Problem::new("the base stage was not lowered");
            let mut outcome = self.states[base].outcome.clone().ok_or_else(missing)?;
            self.spend(outcome.config.history.len() * 64)?;
            outcome.config.config.on_build.clear();
            return Ok(outcome);
        }
        let resolved = self.states[index].resolved.clone();
        let resolved = resolved.ok_or_else(|| Problem::new("the base was not resolved"))?;
        let target = platform::target(self.request).clone();
        let wanted = self.states[index].platform.clone().unwrap_or_else(|| target.clone());
        let (node, config, platform) = match resolved {
            Resolved::Scratch(config) => {
                let node = self.node(Op::Scratch, vec![], NodeMeta::default())?;
                let platform = if config.is_some() { wanted } else { target };
                (node, config.map_or_else(|| empty_config(&platform), |c| *c), platform)
            }
            Resolved::Image { reference, manifest, config, platform } => {
                let node = self.image_node(index, number, reference, manifest, &platform)?;
                self.check_platform(index, &platform, &config);
                (node, *config, platform)
            }
            Resolved::Directory { name, exclude } => {
                let meta = self.source_meta(&format!("[context {name}] load"));
                let node = self.node(Op::Context { name, exclude }, vec![], meta)?;
                (node, empty_config(&wanted), wanted)
            }
            Resolved::Git(git) => {
                let git: GitRef = *git;
                let meta = self.source_meta(&format!("[context {}] load", git.remote));
                let (keep, checksum) = (git.keep_git_dir.unwrap_or(false), git.checksum.clone());
                let node = self.node(git.op(keep, checksum), vec![], meta)?;
                (node, empty_config(&wanted), wanted)
            }
        };
        let mut config = config;
        config.config.on_build.clear();
        let (env, args, layer_nodes) = (Env::default(), Vec::new(), Vec::new());
        Ok(Outcome { node, config, env, platform, layer_nodes, args, workdir_set: false })
    }

    fn source_meta(&self, name: &str) -> NodeMeta {
        NodeMeta { name: name.to_owned(), ..NodeMeta::default() }
    }

    fn image_node(
        &mut self,
        index: StageIndex,
        number: &mut usize,
        reference: String,
        manifest: ashlar_core::Digest,
        platform: &Platform,
    ) -> Checked<NodeId> {
        let state = &self.states[index];
        let pinned = if reference.contains('@') {
            reference.clone()
        } else {
            format!("{reference}@{manifest}")
        };
        let name = names::prefixed(state, number, false, &format!("FROM {pinned}"));
        let location = Some(self.source.whole(&state.line));
        let external = state.external || state.stand_in.is_some();
        let mut meta = NodeMeta { name, location, ..NodeMeta::default() };
        if !external {
            meta.step = Some(self.next_step());
        }
        let op = Op::Image { reference, manifest, platform: platform.clone() };
        let node = self.node(op, vec![], meta.clone())?;
        self.show(&meta, node);
        Ok(node)
    }

    fn check_platform(&self, index: StageIndex, wanted: &Platform, config: &ImageConfig) {
        let state = &self.states[index];
        if wanted.os == config.os && wanted.architecture == config.architecture {
            return;
        }
        let actual = Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
        };
        let text = format!(
            "Base image {} was pulled with platform {:?}, expected {:?} for current build",
            state.base_name,
            actual.to_string(),
            wanted.to_string()
        );
        let lint = self.lint.scoped(&state.line.comments);
        lint.warn(Rule::InvalidBaseImagePlatform, &state.line, &self.source, text);
    }

    fn next_step(&self) -> StepId {
        StepId(u32::try_from(self.steps.len() + 1).unwrap_or(u32::MAX))
    }

    /// Lists a step.
    fn show(&mut self, meta: &NodeMeta, node: NodeId) {
        if let Some(id) = meta.step {
            let (name, location) = (meta.name.clone(), meta.location.clone());
            self.steps.push(PlanStep { id, name, location, node: Some(node) });
        }
    }

    /// Returns the meta of a step's node; the step is counted.
    pub(super) fn step_meta(&self, work: &mut Work, step: &Step, text: &str) -> NodeMeta {
        let state = &self.states[work.index];
        let counted = !matches!(step.instruction.command, Command::Workdir(_));
        NodeMeta {
            name: names::prefixed(state, &mut work.number, step.trigger, text),
            step: Some(self.next_step()),
            counted,
            bypass: work.no_cache.filter(|_| counted),
            location: Some(self.source.whole(&step.instruction.line)),
            ..NodeMeta::default()
        }
    }

    /// Adds a step's node, which becomes the stage's tree and a layer of its own.
    pub(super) fn advance(
        &mut self,
        work: &mut Work,
        op: Op,
        inputs: Vec<NodeId>,
        meta: NodeMeta,
    ) -> Checked<()> {
        let node = self.node(op, inputs, meta.clone())?;
        self.show(&meta, node);
        work.at.node = node;
        work.at.layer_nodes.push(node);
        Ok(())
    }

    /// Adds a history entry.
    pub(super) fn commit(&self, work: &mut Work, text: String, layer: bool) -> Checked<()> {
        self.spend(text.len() + 64)?;
        work.at.config.history.push(History {
            created: self.created.clone(),
            created_by: Some(text),
            comment: Some(HISTORY_COMMENT.into()),
            empty_layer: !layer,
            ..History::default()
        });
        Ok(())
    }

    /// Sets up variables, directory and user as the base's config has them.
    fn prepare(&self, work: &mut Work) {
        let at = &mut work.at;
        let config = &mut at.config.config;
        if config.env_value("PATH").is_none() && at.platform.os != "windows" {
            config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for entry in &config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            at.env.set(name, value);
        }
        if !config.working_dir.is_empty() {
            config.working_dir = paths::workdir("/", &config.working_dir);
        }
    }

    fn instruction(&mut self, work: &mut Work, step: &Step) -> Checked<()> {
        let instruction = &step.instruction;
        match &instruction.command {
            Command::Arg(args) => self.arg(work, instruction, args),
            Command::Cmd(line) => self.cmd(work, instruction, line),
            Command::Copy(copying) => self.copy(work, step, copying),
            Command::Entrypoint(line) => self.entrypoint(work, instruction, line),
            Command::Env(pairs) => self.env(work, instruction, pairs),
            Command::Expose(ports) => self.expose(work, instruction, ports),
            Command::Healthcheck(check) => self.healthcheck(work, instruction, check),
            Command::Label(pairs) => self.label(work, instruction, pairs),
            Command::Maintainer(name) => {
                work.at.config.author = Some(name.text.clone());
                self.commit(work, format!("MAINTAINER {}", name.text), false)
            }
            Command::Onbuild(text) => {
                work.at.config.config.on_build.push(text.clone());
                Ok(())
            }
            Command::Run(run) => self.exec(work, step, run),
            Command::Shell(shell) => {
                work.at.config.config.shell = Some(shell.clone());
                self.commit(work, format!("SHELL {}", names::plain_list(shell)), false)
            }
            Command::StopSignal(signal) => self.stop_signal(work, instruction, signal),
            Command::User(user) => {
                let user = self.word(work, instruction, user)?;
                work.at.config.config.user.clone_from(&user);
                self.commit(work, format!("USER {user}"), false)
            }
            Command::Volume(volumes) => self.volume(work, instruction, volumes),
            Command::Workdir(path) => self.workdir(work, step, path),
        }
    }

    /// Expands a word with the stage's variables, warning of those that are not set.
    pub(super) fn word(
        &self,
        work: &Work,
        instruction: &Instruction,
        word: &Word,
    ) -> Checked<String> {
        let expanded = self.expand_with(word, &work.at.env)?;
        self.check_undefined(work, instruction, &expanded);
        Ok(expanded.text)
    }

    /// Expands words.
    pub(super) fn words(
        &self,
        work: &Work,
        instruction: &Instruction,
        words: &[Word],
    ) -> Checked<Vec<String>> {
        words.iter().map(|w| self.word(work, instruction, w)).collect()
    }

    pub(super) fn check_undefined(
        &self,
        work: &Work,
        instruction: &Instruction,
        expanded: &Expanded,
    ) {
        let declared = |n: &str| work.at.args.iter().any(|(name, _)| name == n);
        for name in expanded.unmatched.iter().filter(|n| !declared(n)) {
            let near = suggest::nearest(name, work.at.env.names());
            let near = near.map(|n| format!(" (did you mean ${n}?)")).unwrap_or_default();
            let text = format!("Usage of undefined variable '${name}'{near}");
            work.lint.warn(Rule::UndefinedVar, &instruction.line, &self.source, text);
        }
    }

    /// Sets a variable of the stage.
    pub(super) fn set_variable(&self, work: &mut Work, name: &str, value: &str) -> Checked<()> {
        if work.at.env.len() >= VARIABLES_MAX && work.at.env.value(name).is_none() {
            let message = format!("a stage can't have more than {VARIABLES_MAX} variables");
            return Err(Problem::new(message));
        }
        self.spend(name.len() + value.len())?;
        work.at.env.set(name, value);
        Ok(())
    }

    fn workdir(&mut self, work: &mut Work, step: &Step, path: &Word) -> Checked<()> {
        let instruction = &step.instruction;
        let path = self.word(work, instruction, path)?;
        if !work.at.workdir_set && !path.starts_with('/') {
            let text = format!(
                "Relative workdir {path:?} can have unexpected results if the base image changes"
            );
            work.lint.warn(Rule::WorkdirRelativePath, &instruction.line, &self.source, text);
        }
        work.at.workdir_set = true;
        let directory = paths::workdir(&work.at.config.config.working_dir, &path);
        work.at.config.config.working_dir.clone_from(&directory);
        let layer = directory != "/";
        if layer {
            let options = Options::new(self.file.directives.escape);
            let text = names::shown(instruction.code(), &work.at.env, &options);
            let meta = self.step_meta(work, step, &text);
            let user = work.at.config.config.user.clone();
            let owner = if user.is_empty() { Default::default() } else { owner::owner(&user) };
            let path = directory.clone();
            let action = FileAction::Mkdir { path, mode: 0o755, parents: true, owner };
            let inputs = vec![work.at.node];
            self.advance(work, Op::File { actions: vec![action] }, inputs, meta)?;
        }
        self.commit(work, format!("WORKDIR {directory}"), layer)
    }
}

/// Returns the config of a stage that starts from no image.
fn empty_config(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::scratch(platform);
    config.config.working_dir = "/".into();
    if platform.os != "windows" {
        config.config.env = vec![format!("PATH={DEFAULT_PATH}")];
    }
    config
}
