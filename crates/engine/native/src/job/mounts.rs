//! What is mounted into the sandbox of a step.

use std::ffi::OsString;
use std::path::PathBuf;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::{Exec, FileAction, MountKind};
use ashlar_files::Root;
use ashlar_files::ops::{self, Base, Input, Options};
use ashlar_layers::KnownFiles;
use ashlar_sandbox::{Cancel, Mount, Secret};
use ashlar_snapshots::{Lease, Tree};

use super::BuildJob;
use super::file::root_of;
use super::keys::bind_copy;
use super::ssh::{Access, Forward};
use crate::debug::{KeptMount, Shown};
use crate::error::{internal, step};
use crate::mounts::{About, Fresh, HeldMount};
use crate::output::{NodeOutput, Output};

/// Mounts of one step, and what must live as long as they do.
#[derive(Default)]
pub(super) struct StepMounts {
    mounts: Vec<Mount>,
    env: Vec<(OsString, OsString)>,
    kept: Vec<KeptMount>,
    held: Vec<HeldMount>,
    _leases: Vec<Lease>,
    _scratch: Vec<tempfile::TempDir>,
    _agents: Vec<Forward>,
}

impl StepMounts {
    pub(super) fn mounts(&self) -> Vec<Mount> {
        self.mounts.clone()
    }

    pub(super) fn env(&self) -> Vec<(OsString, OsString)> {
        self.env.clone()
    }

    /// What `ashlar debug` can mount again.
    pub(super) fn kept(&self) -> &[KeptMount] {
        &self.kept
    }

    /// Directories that outlive the step and that it may fill.
    pub(super) fn disk_paths(&self) -> Vec<PathBuf> {
        self.held.iter().map(|h| h.path.clone()).collect()
    }

    fn add(&mut self, target: &str, kind: ashlar_sandbox::MountKind) {
        self.mounts.push(Mount { target: target.into(), kind });
    }

    fn keep(&mut self, target: &str, shows: Shown) {
        self.kept.push(KeptMount { target: target.to_owned(), shows });
    }
}

impl BuildJob {
    pub(super) fn mounts(
        &self,
        exec: &Exec,
        inputs: &[Output],
        cancel: &Cancel,
    ) -> Result<StepMounts, Failure> {
        let mut made = StepMounts::default();
        for mount in &exec.mounts {
            let target = mount.destination.as_str();
            match &mount.kind {
                MountKind::Bind { input, source, writable } => {
                    self.bind(target, inputs, *input, source, *writable, &mut made)?;
                }
                MountKind::Cache { .. } => {
                    self.cache_mount(target, &mount.kind, inputs, cancel, &mut made)?;
                }
                MountKind::Volume { id } => self.volume(target, id, cancel, &mut made)?,
                MountKind::Tmpfs { size } => {
                    made.add(target, ashlar_sandbox::MountKind::tmpfs(*size));
                    made.keep(target, Shown::Tmpfs { size: *size });
                }
                MountKind::Secret { .. } => self.secret(target, &mount.kind, &mut made)?,
                MountKind::Ssh { .. } => self.ssh(target, &mount.kind, &mut made)?,
            }
        }
        Ok(made)
    }

    fn bind(
        &self,
        target: &str,
        inputs: &[Output],
        input: usize,
        source: &str,
        writable: bool,
        made: &mut StepMounts,
    ) -> Result<(), Failure> {
        let missing = || Failure::new(FailureKind::Internal, "a mount names no input");
        let (tree, subpath) = match &**inputs.get(input).ok_or_else(missing)? {
            NodeOutput::Tree { tree, .. } => (tree.clone(), source),
            NodeOutput::Context(name) => self.context_tree(name, source)?,
        };
        self.materialise(&tree)?;
        let snapshots = &self.engine.snapshots;
        made._leases.push(snapshots.hold(&tree).map_err(internal)?);
        let scratch = if writable {
            let dir = tempfile::tempdir_in(self.engine.dir.scratch()).map_err(internal)?;
            let path = dir.path().to_owned();
            made._scratch.push(dir);
            Some(path)
        } else {
            None
        };
        let lowers = snapshots.lowers(&tree).map_err(internal)?;
        let subpath = PathBuf::from(subpath.trim_start_matches('/'));
        made.keep(target, Shown::Tree { tree: tree.0, path: subpath.clone(), writable });
        made.add(target, ashlar_sandbox::MountKind::Layers { lowers, subpath, scratch });
        Ok(())
    }

    /// Makes a tree of what a bind mount shows of a context: the very files that were keyed, without
    /// the excluded ones.
    fn context_tree<'a>(&self, name: &str, source: &'a str) -> Result<(Tree, &'a str), Failure> {
        let context = self.context(name)?;
        let root = source.trim_matches('/').is_empty();
        let mut copy = bind_copy(0, source);
        copy.parents = !root;
        let snapshots = &self.engine.snapshots;
        let scratch = Tree::scratch();
        let draft = snapshots.begin(&scratch).map_err(internal)?;
        let mounted = snapshots.mount(&scratch, Some(&draft)).map_err(internal)?;
        let upper = Root::open(draft.upper()).map_err(internal)?;
        let base = Base::overlay(root_of(&mounted)?, upper);
        let mut known = KnownFiles::default();
        let action = [FileAction::Copy(Box::new(copy))];
        let inputs = [Input::Context(context)];
        ops::apply(&action, &base, &inputs, &mut known, &Options::default()).map_err(step)?;
        drop((base, mounted));
        let commit = draft.commit(&known).map_err(internal)?;
        Ok((Tree(vec![commit.id]), source))
    }

    fn cache_mount(
        &self,
        target: &str,
        kind: &MountKind,
        inputs: &[Output],
        cancel: &Cancel,
        made: &mut StepMounts,
    ) -> Result<(), Failure> {
        let MountKind::Cache { id, sharing, seed, mode, uid, gid, readonly } = kind else {
            return Ok(());
        };
        let fresh = Fresh { mode: *mode, uid: *uid, gid: *gid };
        let about = self.about(id);
        let held = self.take_mount(&about, *sharing, fresh, cancel)?;
        if let (Some((input, path)), true) = (seed, held.new) {
            self.seed(&held, inputs, *input, path)?;
        }
        let source = held.path.clone();
        made.held.push(held);
        let kind = ashlar_sandbox::MountKind::Bind {
            source,
            subpath: PathBuf::new(),
            readonly: *readonly,
        };
        made.add(target, kind);
        let (sharing, readonly) = (*sharing, *readonly);
        made.keep(target, Shown::Cache { about, sharing, fresh, readonly });
        Ok(())
    }

    fn about(&self, id: &str) -> About {
        About { tenant: self.request.tenant.clone(), id: id.to_owned() }
    }

    fn take_mount(
        &self,
        about: &About,
        sharing: ashlar_core::graph::CacheSharing,
        fresh: Fresh,
        cancel: &Cancel,
    ) -> Result<HeldMount, Failure> {
        let cancelled = || cancel.is_cancelled();
        self.engine.mounts.take(about, sharing, fresh, &cancelled).map_err(internal)
    }

    /// Fills a new cache directory from a tree.
    fn seed(
        &self,
        held: &HeldMount,
        inputs: &[Output],
        input: usize,
        path: &str,
    ) -> Result<(), Failure> {
        let Some(tree) = inputs.get(input).and_then(|o| o.as_tree()) else {
            let text = "a cache mount starts with an image or stage, not with a context";
            return Err(Failure::new(FailureKind::Definition, text));
        };
        self.materialise(tree)?;
        let mounted = self.engine.snapshots.mount(tree, None).map_err(internal)?;
        let source = root_of(&mounted)?;
        let base = Base::plain(Root::open(&held.path).map_err(internal)?);
        let action = [FileAction::Copy(Box::new(bind_copy(0, path)))];
        let (mut known, inputs) = (KnownFiles::default(), [Input::Tree(&source)]);
        ops::apply(&action, &base, &inputs, &mut known, &Options::default()).map_err(step)?;
        Ok(())
    }

    /// A cache volume: like a locked cache mount of the scope. What a failed step wrote must not
    /// be kept, so the step works on a copy that takes the volume's place when it succeeds.
    fn volume(
        &self,
        target: &str,
        id: &str,
        cancel: &Cancel,
        made: &mut StepMounts,
    ) -> Result<(), Failure> {
        let about = self.about(&format!("volume/{}/{id}", self.request.scope));
        let fresh = Fresh { mode: 0o755, uid: 0, gid: 0 };
        let sharing = ashlar_core::graph::CacheSharing::Locked;
        let held = self.take_mount(&about, sharing, fresh, cancel)?;
        let source = held.path.clone();
        made.held.push(held);
        let kind =
            ashlar_sandbox::MountKind::Bind { source, subpath: PathBuf::new(), readonly: false };
        made.add(target, kind);
        // What a shell writes must not be saved in a volume, no more than what a failed step writes.
        made.keep(target, Shown::Cache { about, sharing, fresh, readonly: true });
        Ok(())
    }

    fn secret(&self, target: &str, kind: &MountKind, made: &mut StepMounts) -> Result<(), Failure> {
        let MountKind::Secret { id, env, file, mode, uid, gid, required } = kind else {
            return Ok(());
        };
        let Some(value) = self.request.secrets.get(id) else {
            if !required {
                return Ok(());
            }
            let text = format!("the step requires the secret '{id}', which was not given");
            return Err(Failure::new(FailureKind::Step, text).hint(format!(
                "pass it with --secret id={id},src=FILE or --secret id={id},env=NAME"
            )));
        };
        if let Some(name) = env {
            use std::os::unix::ffi::OsStringExt as _;
            made.env.push((name.into(), OsString::from_vec(value.clone())));
        }
        if *file {
            let bytes = Secret(value.clone());
            let (mode, uid, gid) = (*mode, *uid, *gid);
            made.add(target, ashlar_sandbox::MountKind::Content { bytes, mode, uid, gid });
        }
        Ok(())
    }

    fn ssh(&self, target: &str, kind: &MountKind, made: &mut StepMounts) -> Result<(), Failure> {
        let MountKind::Ssh { id, mode, uid, gid, required } = kind else { return Ok(()) };
        match self.request.ssh.get(id) {
            Some(agent) => {
                let access = Access { mode: *mode, uid: *uid, gid: *gid };
                let forward =
                    Forward::start(agent, &self.engine.dir.scratch(), access).map_err(|e| {
                        let text = format!("the ssh agent '{id}' cannot be forwarded: {e}");
                        Failure::new(FailureKind::Step, text)
                            .hint(format!("check that an agent listens at {}", agent.display()))
                    })?;
                let source = forward.socket().to_owned();
                made._agents.push(forward);
                made.add(target, ashlar_sandbox::MountKind::Socket { source });
                Ok(())
            }
            None if *required => {
                let text = format!("the step requires the ssh agent '{id}', which was not given");
                Err(Failure::new(FailureKind::Step, text)
                    .hint(format!("pass it with --ssh {id} or --ssh {id}=SOCKET")))
            }
            None => Ok(()),
        }
    }
}
