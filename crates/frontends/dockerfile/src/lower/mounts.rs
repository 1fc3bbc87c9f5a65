//! `--mount` of `RUN`.

use ashlar_core::graph::{CacheSharing, Mount, MountKind, NodeId};

use super::stage::Work;
use super::state::Step;
use super::{Lowering, paths};
use crate::parse::ast::Run;
use crate::parse::mount::{self, Kind};
use crate::source::{Problem, Word};

type Checked<T> = std::result::Result<T, Problem>;

/// The mounts of one `RUN` and the trees that they come from.
pub(super) struct Mounted {
    /// Input 0 is the stage's own tree.
    pub(super) inputs: Vec<NodeId>,
    pub(super) mounts: Vec<Mount>,
    /// Variables that get secrets.
    pub(super) secret_variables: Vec<String>,
    /// Where the first ssh agent is.
    pub(super) ssh_socket: Option<String>,
}

impl Mounted {
    /// Returns the index of a tree among the inputs.
    pub(super) fn input(&mut self, node: NodeId) -> usize {
        // Input 0 is written to, so the same tree as a source is an input of its own.
        let known = self.inputs.iter().skip(1).position(|n| *n == node);
        known.map_or_else(
            || {
                self.inputs.push(node);
                self.inputs.len() - 1
            },
            |at| at + 1,
        )
    }
}

impl Lowering<'_> {
    pub(super) fn mounts(&mut self, work: &Work, step: &Step, run: &Run) -> Checked<Mounted> {
        let mut mounted = Mounted {
            inputs: vec![work.at.node],
            mounts: Vec::new(),
            secret_variables: Vec::new(),
            ssh_socket: None,
        };
        let sources = step.sources.iter().chain(std::iter::repeat(&None));
        for (word, source) in run.mounts.iter().zip(sources) {
            let added = self.mount(work, step, word, *source, &mut mounted);
            added.map_err(|p| p.at(word.span))?;
        }
        Ok(mounted)
    }

    fn mount(
        &mut self,
        work: &Work,
        step: &Step,
        word: &Word,
        source: Option<usize>,
        mounted: &mut Mounted,
    ) -> Checked<()> {
        let instruction = &step.instruction;
        let mut expand = |text: &str| self.word(work, instruction, &Word::new(text, word.span));
        let mount = mount::parse(word, &mut expand)?;
        let workdir = work.at.config.config.working_dir.as_str();
        match mount.kind {
            Kind::Secret => {
                secret(&mount, workdir, mounted);
                return Ok(());
            }
            Kind::Ssh => {
                ssh(&mount, workdir, mounted);
                return Ok(());
            }
            Kind::Bind | Kind::Cache | Kind::Tmpfs => {}
        }
        let destination = target(&mount.target, workdir)?;
        let kind = match mount.kind {
            Kind::Tmpfs => MountKind::Tmpfs { size: mount.size.filter(|s| *s > 0) },
            Kind::Cache => self.cache(&mount, source, mounted)?,
            _ => {
                let node = match source {
                    Some(index) => self.tree(index, &mount)?,
                    None => self.context_node()?,
                };
                let input = mounted.input(node);
                let source = paths::clean(&mount.source);
                MountKind::Bind { input, source, writable: !mount.read_only }
            }
        };
        mounted.mounts.push(Mount { destination, kind });
        Ok(())
    }

    fn cache(
        &self,
        mount: &mount::Mount,
        source: Option<usize>,
        mounted: &mut Mounted,
    ) -> Checked<MountKind> {
        let from = source.map(|index| self.tree(index, mount)).transpose()?;
        let seed = from.map(|node| (mounted.input(node), paths::clean(&mount.source)));
        let id = match mount.id.as_str() {
            "" if mount.target.starts_with('/') => paths::clean(&mount.target),
            "" => paths::clean(&mount.target)[1..].to_owned(),
            id => id.to_owned(),
        };
        let space = self.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
        let id = space.filter(|s| !s.is_empty()).map_or(id.clone(), |s| format!("{s}/{id}"));
        Ok(MountKind::Cache {
            id,
            sharing: mount.sharing.unwrap_or(CacheSharing::Shared),
            seed,
            mode: mount.mode.unwrap_or(0o755),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
            readonly: mount.read_only,
        })
    }

    fn tree(&self, index: usize, mount: &mount::Mount) -> Checked<NodeId> {
        let state = &self.states[index];
        state.outcome.as_ref().map(|o| o.node).map_or_else(
            || {
                let message = format!(
                    "cannot mount from stage {:?} to {:?}, stage needs to be defined before \
                     current command",
                    mount.from, mount.target
                );
                Err(Problem::new(message))
            },
            Ok,
        )
    }
}

fn target(target: &str, workdir: &str) -> Checked<String> {
    let path = paths::below(workdir, target);
    if path == "/" || target.is_empty() {
        let problem = Problem::new(format!("invalid mount target {target:?}"));
        return Err(problem.hint("name a directory below / with target="));
    }
    Ok(path)
}

fn secret(mount: &mount::Mount, workdir: &str, mounted: &mut Mounted) {
    let given = if mount.source.is_empty() { &mount.id } else { &mount.source };
    let id = if given.is_empty() { paths::base(&mount.target) } else { given.as_str() };
    let env = mount.env.clone().map(|name| if name.is_empty() { id.to_owned() } else { name });
    let file = env.is_none() || !mount.target.is_empty();
    let destination = if mount.target.is_empty() {
        format!("/run/secrets/{}", paths::base(id))
    } else {
        paths::below(workdir, &mount.target)
    };
    mounted.secret_variables.extend(env.clone());
    mounted.mounts.push(Mount {
        destination,
        kind: MountKind::Secret {
            id: id.to_owned(),
            env,
            file,
            mode: mount.mode.unwrap_or(0o400),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
            required: mount.required,
        },
    });
}

fn ssh(mount: &mount::Mount, workdir: &str, mounted: &mut Mounted) {
    let agents = mounted.mounts.iter().filter(|m| matches!(m.kind, MountKind::Ssh { .. })).count();
    let destination = if mount.target.is_empty() {
        format!("/run/buildkit/ssh_agent.{agents}")
    } else {
        paths::below(workdir, &mount.target)
    };
    mounted.ssh_socket.get_or_insert_with(|| destination.clone());
    mounted.mounts.push(Mount {
        destination,
        kind: MountKind::Ssh {
            id: if mount.id.is_empty() { "default".into() } else { mount.id.clone() },
            mode: mount.mode.unwrap_or(0o600),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
            required: mount.required,
        },
    });
}
