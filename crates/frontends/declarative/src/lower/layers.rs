//! Steps in order, each on top of what came before.

use ashlar_core::cache::Bypass;
use ashlar_core::frontend::Step as PlanStep;
use ashlar_core::graph::{
    Copy, Exec, FileAction, Graph, Mode, NodeId, NodeMeta, Op, Owner, StepId,
};
use ashlar_core::image::{History, ImageConfig};

use super::{Done, too_large};
use crate::command;
use crate::definition::{CacheUse, Definition};
use crate::fields::Parse;
use crate::paths;
use crate::render;
use crate::step::{CopyItem, Step};
use crate::user::{has_name, owner};

/// What Docker's clients expect in the history of images that BuildKit's frontend made.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// The shell that commands are given to.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The tree so far, and what holds for the steps that follow.
pub(super) struct Layers<'a> {
    definition: &'a Definition,
    graph: Graph,
    current: NodeId,
    context: Option<NodeId>,
    config: ImageConfig,
    env: Vec<(String, String)>,
    cwd: String,
    user: String,
    bypass: Option<Bypass>,
    total: usize,
    layer_nodes: Vec<NodeId>,
    steps: Vec<PlanStep>,
}

/// What a node does for the image.
enum Effect {
    /// It is a filesystem-changing step, which the cache's counters see.
    Counted,
    /// It only prepares a directory.
    Uncounted,
}

impl<'a> Layers<'a> {
    pub(super) fn new(
        definition: &'a Definition,
        graph: Graph,
        start: NodeId,
        config: ImageConfig,
        env: Vec<(String, String)>,
    ) -> Self {
        let numbered = |step: &&Step| !matches!(step, Step::SkipCache);
        let bypass = match definition.cache {
            CacheUse::Normal => None,
            CacheUse::Skip => Some(Bypass::WholeBuild),
        };
        Self {
            definition,
            graph,
            current: start,
            context: None,
            env,
            config,
            cwd: "/".into(),
            user: String::new(),
            bypass,
            total: definition.steps.iter().filter(numbered).count(),
            layer_nodes: Vec::new(),
            steps: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Done {
        Done {
            graph: self.graph,
            target: self.current,
            config: self.config,
            layer_nodes: self.layer_nodes,
            steps: self.steps,
        }
    }

    pub(super) fn add(&mut self, step: &Step) -> Parse<()> {
        match step {
            // The whole build's reason wins: it was there first.
            Step::SkipCache => {
                self.bypass = self.bypass.or(Some(Bypass::Boundary));
                Ok(())
            }
            Step::Workdir { path } => self.workdir(path),
            Step::User { user } => {
                self.step(format!("USER {user}"), None);
                user.clone_into(&mut self.user);
                user.clone_into(&mut self.config.config.user);
                self.history(format!("USER {user}"), true);
                Ok(())
            }
            Step::Copy(_) | Step::CopyItems { .. } => self.copies(step.copies()),
            Step::Run { user, .. } => self.run(step, user.as_deref()),
            _ => self.run(step, None),
        }
    }

    fn run(&mut self, step: &Step, user: Option<&str>) -> Parse<()> {
        let Some(command) = command::of(step) else {
            self.step(nothing_to_do(step), None);
            return Ok(());
        };
        let args: Vec<String> = SHELL.into_iter().chain([&*command]).map(str::to_owned).collect();
        let created_by = format!("RUN {} # buildkit", args.join(" "));
        let exec = Exec {
            args,
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: user.unwrap_or(&self.user).to_owned(),
            network: self.definition.network,
            ..Exec::default()
        };
        let op = Op::Exec(Box::new(exec));
        self.layer(op, false, format!("RUN {command}"), Effect::Counted, created_by)
    }

    fn workdir(&mut self, path: &str) -> Parse<()> {
        self.cwd = paths::workdir(&self.cwd, path);
        self.cwd.clone_into(&mut self.config.config.working_dir);
        let said = format!("WORKDIR {}", self.cwd);
        if self.cwd == "/" {
            self.step(said.clone(), None);
            self.history(said, true);
            return Ok(());
        }
        let owner = if self.user.is_empty() { Owner::default() } else { owner(&self.user) };
        let path = self.cwd.clone();
        let mkdir = FileAction::Mkdir { path, mode: 0o755, parents: true, owner };
        let op = Op::File { actions: vec![mkdir] };
        self.layer(op, false, said.clone(), Effect::Uncounted, said)
    }

    fn copies(&mut self, items: &[CopyItem]) -> Parse<()> {
        let said: Vec<String> =
            items.iter().map(|i| format!("COPY {}", render::copy_words(i).join(" "))).collect();
        let said = said.join("; ");
        if items.is_empty() {
            self.step("COPY (nothing)".into(), None);
            return Ok(());
        }
        let actions = items.iter().flat_map(|item| self.copy(item)).collect();
        let created_by = format!("{said} # buildkit");
        self.layer(Op::File { actions }, true, said, Effect::Counted, created_by)
    }

    /// One action, or two when literal names and names that look like patterns are mixed.
    fn copy(&self, item: &CopyItem) -> Vec<FileAction> {
        let destination = paths::destination(&self.cwd, &item.dst, item.sources.len() > 1);
        let owner = item.user.as_deref().map(owner);
        // A number needs no look-up: so it is the same operation whichever frontend made it.
        let strict_owner = owner.as_ref().is_some_and(has_name);
        let mut actions: Vec<FileAction> = Vec::new();
        for source in &item.sources {
            let literal = paths::is_pattern(source);
            let source = paths::join("/", source);
            match actions.last_mut() {
                Some(FileAction::Copy(copy)) if copy.literal == literal => {
                    copy.sources.push(source);
                }
                _ => actions.push(FileAction::Copy(Box::new(Copy {
                    input: 1,
                    sources: vec![source],
                    destination: destination.clone(),
                    owner: owner.clone(),
                    strict_owner,
                    mode: item.mode.map(|m| Mode::Bits(m.bits())),
                    literal,
                    ..Copy::default()
                }))),
            }
        }
        actions
    }

    /// Puts an operation on top of the tree, as a step, a layer and an entry of the history.
    fn layer(
        &mut self,
        op: Op,
        from_context: bool,
        said: String,
        effect: Effect,
        created_by: String,
    ) -> Parse<()> {
        let mut inputs = vec![self.current];
        if from_context {
            inputs.push(self.context()?);
        }
        let id = StepId(self.steps.len() as u32 + 1);
        let meta = NodeMeta {
            name: self.step_name(id, &said),
            step: Some(id),
            counted: matches!(effect, Effect::Counted),
            bypass: self.bypass,
            ..NodeMeta::default()
        };
        let node = self.graph.add(op, inputs, meta).map_err(too_large)?;
        self.current = node;
        self.layer_nodes.push(node);
        self.step(said, Some(node));
        self.history(created_by, false);
        Ok(())
    }

    fn context(&mut self) -> Parse<NodeId> {
        if let Some(node) = self.context {
            return Ok(node);
        }
        let name = self.definition.context.clone();
        let meta = NodeMeta { name: "load the build context".into(), ..NodeMeta::default() };
        let op = Op::Context { name, exclude: Vec::new() };
        let node = self.graph.add(op, Vec::new(), meta).map_err(too_large)?;
        self.context = Some(node);
        Ok(node)
    }

    fn step(&mut self, said: String, node: Option<NodeId>) {
        let id = StepId(self.steps.len() as u32 + 1);
        let name = self.step_name(id, &said);
        self.steps.push(PlanStep { id, name, location: None, node });
    }

    fn step_name(&self, id: StepId, said: &str) -> String {
        format!("[{}/{}] {said}", id.0, self.total)
    }

    fn history(&mut self, created_by: String, empty_layer: bool) {
        self.config.history.push(History {
            created_by: Some(created_by),
            comment: Some(HISTORY_COMMENT.into()),
            empty_layer,
            ..History::default()
        });
    }
}

fn nothing_to_do(step: &Step) -> String {
    let what = match step {
        Step::AptInstall { .. } => "apt-get install",
        Step::PipInstall { .. } => "pip install",
        Step::NpmInstall { .. } => "npm install",
        Step::BunInstall { .. } => "bun add",
        _ => "RUN",
    };
    format!("{what} (no packages)")
}

/// The variables of commands, in the order in which they were last set, as the Dockerfile
/// frontend has them.
pub(super) fn environment(definition: &Definition, config: &ImageConfig) -> Vec<(String, String)> {
    let base = config.config.env.iter().map(|e| e.split_once('=').unwrap_or((e, "")));
    let own = definition.build_envs.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let mut env: Vec<(String, String)> = Vec::new();
    for (name, value) in base.chain(own) {
        env.retain(|(n, _)| n != name);
        env.push((name.to_owned(), value.to_owned()));
    }
    env
}
