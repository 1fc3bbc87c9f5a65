//! What can influence a step: the parts of its cache key.
//!
//! Deliberately not among them: values of secrets (only whether they were given), content of cache
//! mounts, addresses of extra hosts, proxy variables, limits, and modification times.

use ashlar_core::Digest;
use ashlar_core::cache::{KeyRecord, PartKind};
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::{Copy, Exec, FileAction, Mount, MountKind, Network, Node, Op};
use ashlar_files::context::TOTAL_NAME;
use ashlar_files::{Ignore as _, Patterns};
use ashlar_snapshots::{Exclude, Selector, SnapshotError, Tree};

use super::{BuildJob, base_tree};
use crate::error::{internal, step};
use crate::output::{NodeOutput, Output};

impl BuildJob {
    /// Returns the parts of the key of a node whose inputs came to `inputs`.
    pub(super) fn key_record(&self, node: &Node, inputs: &[Output]) -> Result<KeyRecord, Failure> {
        let mut record = KeyRecord::new();
        match &node.op {
            Op::Exec(exec) => self.exec_parts(exec, inputs, &mut record)?,
            Op::File { actions } => self.file_parts(node, actions, inputs, &mut record)?,
            op => record.push(PartKind::Command, "", json(op)?),
        }
        Ok(record)
    }

    fn exec_parts(
        &self,
        exec: &Exec,
        inputs: &[Output],
        record: &mut KeyRecord,
    ) -> Result<(), Failure> {
        record.push(PartKind::Base, "", base_tree(inputs)?.digest().to_string());
        record.push(PartKind::Command, "", json(&exec.args)?);
        for (name, value) in &exec.env {
            let hidden = self.request.hidden.contains_key(value);
            record.push(if hidden { PartKind::Secret } else { PartKind::Env }, name, value);
        }
        let hosts: Vec<_> = exec.extra_hosts.iter().map(|h| &h.host).collect();
        let network = self.network(exec);
        let settings = [
            ("cwd", exec.cwd.clone()),
            ("user", exec.user.clone()),
            ("network", json(&network)?),
            ("security", json(&exec.security)?),
            ("hostname", exec.hostname.clone()),
            ("extra hosts", json(&hosts)?),
            ("shm", json(&exec.shm_bytes)?),
            ("ulimits", json(&exec.ulimits)?),
            ("accepted codes", json(&exec.accepted_codes)?),
            ("background", json(&exec.background)?),
            ("returns", json(&exec.returns)?),
        ];
        for (name, value) in settings {
            record.push(PartKind::Setting, name, value);
        }
        if network != Network::None || exec.mounts.iter().any(is_tenants) {
            record.push(PartKind::Setting, "tenant", &self.request.tenant);
        }
        for mount in &exec.mounts {
            self.mount_parts(mount, inputs, record)?;
        }
        for id in &exec.keyed_secrets {
            let hash = self.request.secrets.get(id).map(|value| self.engine.keyed_hash(id, value));
            record.push(PartKind::Secret, id, hash.map_or("absent".into(), |h| h.to_string()));
        }
        Ok(())
    }

    fn mount_parts(
        &self,
        mount: &Mount,
        inputs: &[Output],
        record: &mut KeyRecord,
    ) -> Result<(), Failure> {
        let name = &mount.destination;
        record.push(PartKind::Mount, name, json(&mount.kind)?);
        if let Some(given) = self.request.was_given(&mount.kind) {
            let said = if given { "given" } else { "not given" };
            record.push(PartKind::Setting, format!("what is mounted at {name}"), said);
        }
        let (input, path) = match &mount.kind {
            MountKind::Bind { input, source, .. } => (*input, source),
            // What a new cache directory starts with is no more in the key than what it holds.
            _ => return Ok(()),
        };
        let copy = bind_copy(input, path);
        self.content_parts(&copy, inputs, record)
    }

    fn file_parts(
        &self,
        node: &Node,
        actions: &[FileAction],
        inputs: &[Output],
        record: &mut KeyRecord,
    ) -> Result<(), Failure> {
        record.push(PartKind::Base, "", base_tree(inputs)?.digest().to_string());
        record.push(PartKind::Command, "", json(&actions)?);
        let contexts = node.inputs.iter().map(|&i| &self.node(i).op);
        debug_assert_eq!(contexts.count(), inputs.len());
        for action in actions {
            if let FileAction::Copy(copy) = action {
                self.content_parts(copy, inputs, record)?;
            }
        }
        Ok(())
    }

    /// Adds what a copy takes from its input: content, never names of trees, so that a source that
    /// changed elsewhere does not matter.
    fn content_parts(
        &self,
        copy: &Copy,
        inputs: &[Output],
        record: &mut KeyRecord,
    ) -> Result<(), Failure> {
        let input = inputs.get(copy.input).ok_or_else(|| {
            Failure::new(FailureKind::Internal, "an operation names an input that it lacks")
        })?;
        match &**input {
            NodeOutput::Context(name) => {
                let context = self.context(name)?;
                let selection = context.select(copy).map_err(step)?;
                let parts = selection.key_parts();
                if parts.iter().any(|p| p.name == TOTAL_NAME) {
                    let kept = self.engine.cache.keep_manifest(selection.manifest());
                    kept.map_err(internal)?;
                }
                for part in parts {
                    record.push(part.kind, part.name, part.value);
                }
            }
            NodeOutput::Tree { tree, .. } => {
                for path in &copy.sources {
                    let digest = self.tree_content(tree, copy, path)?;
                    record.push(PartKind::Source, path, digest);
                }
            }
        }
        Ok(())
    }

    /// Returns the content identity of what a copy takes from a tree. A path with wildcards is
    /// keyed by the directory above the first of them.
    fn tree_content(&self, tree: &Tree, copy: &Copy, path: &str) -> Result<String, Failure> {
        let path = if copy.literal { path } else { without_wildcards(path) };
        let patterns = Patterns::new(&copy.exclude).map_err(step)?;
        let matches = |path: &[u8], _: bool| patterns.excluded(path);
        let mut selector = Selector::new(path.as_bytes());
        if !copy.exclude.is_empty() {
            let key = Digest::of(json(&copy.exclude)?);
            selector.exclude = Some(Exclude { key, matches: &matches });
        }
        let snapshots = &self.engine.snapshots;
        let digest = match snapshots.content_digest(tree, &selector) {
            Err(SnapshotError::Missing(_)) => {
                self.materialise(tree)?;
                snapshots.content_digest(tree, &selector)
            }
            known => known,
        };
        Ok(digest.map_err(internal)?.map_or("absent".into(), |d| d.to_string()))
    }

    /// What an exec sees of the network, once the build's own setting has been applied.
    pub(super) fn network(&self, exec: &Exec) -> Network {
        match exec.network {
            Network::Default => self.request.network,
            said => said,
        }
    }
}

/// Whether what is mounted belongs to a tenant.
fn is_tenants(mount: &Mount) -> bool {
    !matches!(mount.kind, MountKind::Bind { .. } | MountKind::Tmpfs { .. })
}

/// The copy that takes what a bind mount shows.
pub(crate) fn bind_copy(input: usize, path: &str) -> Copy {
    let source = if path.trim_matches('/').is_empty() { ".".to_owned() } else { path.to_owned() };
    Copy { input, sources: vec![source], destination: "/".into(), literal: true, ..Copy::default() }
}

/// Returns the part of a path before its first component with a wildcard.
fn without_wildcards(path: &str) -> &str {
    let Some(first) = path.find(['*', '?', '[', '\\']) else { return path };
    path[..first].rfind('/').map_or("", |slash| &path[..slash])
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(internal)
}
