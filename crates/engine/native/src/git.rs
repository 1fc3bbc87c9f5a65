//! Checkouts of git repositories, by the `git` program.
//!
//! One bare repository a remote lies in the cache; a build fetches what it lacks, one commit deep,
//! and checks it out into a layer. The program gets no configuration of the host's, no prompts, no
//! hooks, and only transports that were allowed: a definition must not read the server's disk. Where
//! builds may not go everywhere, it gets a way to the network that holds it to that ([`way`]).

mod relay;
mod way;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::Op;
use ashlar_core::{Digest, Hasher};
use ashlar_layers::KnownFiles;
use ashlar_sandbox::Cancel;
use ashlar_snapshots::Tree;
use serde::{Deserialize, Serialize};
use way::Way;

use crate::cache::RecordDir;
use crate::engine::Shared;
use crate::error::internal;
use crate::output::{NodeOutput, Output};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(10);

/// The most of a program's messages that an error quotes, in bytes.
const MESSAGE_BYTES_MAX: usize = 2000;

/// What a checkout came to.
#[derive(Serialize, Deserialize)]
struct Checkout {
    layer: Option<Digest>,
}

struct Source<'a> {
    remote: &'a str,
    reference: &'a str,
    checksum: Option<&'a str>,
    subdir: &'a str,
    keep_git_dir: bool,
    submodules: bool,
}

/// Returns the tree of a [`Op::Git`].
pub(crate) fn fetch(engine: &Shared, op: &Op, cancel: &Cancel) -> Result<Output, Failure> {
    let Op::Git { remote, reference, checksum, subdir, keep_git_dir, submodules } = op else {
        return Err(Failure::new(FailureKind::Internal, "not a git source"));
    };
    let source = Source {
        remote,
        reference,
        checksum: checksum.as_deref(),
        subdir,
        keep_git_dir: *keep_git_dir,
        submodules: *submodules,
    };
    let transports = transports(engine, remote)?;
    let way = Way::to(&engine.config.registries, remote)?;
    let git = Git { engine, cancel, transports, way: &way };
    let commit = git.commit_of(&source)?;
    let mut key = Hasher::new();
    key.field(b"git").field(remote).field(&commit).field(subdir);
    key.field([u8::from(*keep_git_dir), u8::from(*submodules)]);
    let key = key.finish();
    let records = RecordDir::new(engine.dir.cache().join("git-trees"));
    if let Some(Checkout { layer }) = records.get(&key).map_err(internal)? {
        let layers: Vec<Digest> = layer.into_iter().collect();
        if let Ok(lease) = engine.snapshots.hold(&Tree(layers.clone())) {
            return Ok(NodeOutput::tree(Tree(layers.clone()), layers, Some(lease)));
        }
    }
    let output = git.check_out(&source, &commit)?;
    let made = Checkout { layer: output.own().first().copied() };
    records.put(&key, &made).map_err(internal)?;
    Ok(output)
}

/// Says which transports a remote may use; plain paths only below the folder that was set.
fn transports(engine: &Shared, remote: &str) -> Result<&'static str, Failure> {
    let refuse = |text: String, hint: &str| Err(Failure::new(FailureKind::Source, text).hint(hint));
    let scheme = remote.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("https" | "http") => Ok("https:http"),
        Some("ssh" | "git+ssh") => Ok("ssh"),
        Some("git") => Ok("git"),
        None if !remote.starts_with(['/', '.', '-']) && remote.contains(':') => Ok("ssh"),
        Some("file") | None => {
            let path = Path::new(remote.strip_prefix("file://").unwrap_or(remote));
            let root = engine.config.git_file_root.as_ref();
            let allowed = root.and_then(|r| r.canonicalize().ok());
            let inside =
                path.canonicalize().ok().zip(allowed).is_some_and(|(p, r)| p.starts_with(r));
            if inside {
                return Ok("file");
            }
            let text = format!("'{remote}' is a path on this machine");
            refuse(text, "paths are read only below the folder that --git-file-root names")
        }
        Some(other) => refuse(
            format!("git remotes cannot use '{other}'"),
            "use https, ssh, git, or http on a trusted network",
        ),
    }
}

struct Git<'a> {
    engine: &'a Shared,
    cancel: &'a Cancel,
    transports: &'static str,
    way: &'a Way,
}

impl Git<'_> {
    fn repository(&self, remote: &str) -> PathBuf {
        let mut hasher = Hasher::new();
        hasher.field(b"git repository").field(remote);
        self.engine.dir.cache().join("git").join(hasher.finish().hex())
    }

    /// Finds the commit that a reference stands for.
    fn commit_of(&self, source: &Source<'_>) -> Result<String, Failure> {
        let wanted = if source.reference.is_empty() { "HEAD" } else { source.reference };
        let commit = if is_commit(wanted) {
            wanted.to_owned()
        } else {
            let listed = self.run(None, &["ls-remote", "--", source.remote])?;
            pick(&listed, wanted).ok_or_else(|| {
                let text = format!("'{}' has no branch or tag '{wanted}'", source.remote);
                Failure::new(FailureKind::Source, text)
            })?
        };
        match source.checksum {
            Some(sum) if !commit.starts_with(sum) => {
                let text = format!("'{wanted}' of '{}' is {commit}, not {sum}", source.remote);
                Err(Failure::new(FailureKind::Source, text))
            }
            _ => Ok(commit),
        }
    }

    fn check_out(&self, source: &Source<'_>, commit: &str) -> Result<Output, Failure> {
        let repository = self.repository(source.remote);
        fs::create_dir_all(&repository).map_err(internal)?;
        let lock = repository.with_extension("lock");
        let lock = fs::OpenOptions::new().create(true).append(true).open(lock);
        let lock = lock.map_err(internal)?;
        lock.lock().map_err(internal)?;
        if !repository.join("HEAD").exists() {
            self.run(Some(&repository), &["init", "--quiet", "--bare"])?;
        }
        let object = format!("{commit}^{{commit}}");
        if self.run(Some(&repository), &["cat-file", "-e", &object]).is_err() {
            self.fetch_commit(&repository, source, commit)?;
        }
        let scratch = tempfile::tempdir_in(self.engine.dir.scratch()).map_err(internal)?;
        self.work_tree(&repository, scratch.path(), source, commit)?;
        let root = subdirectory(scratch.path(), source.subdir)?;
        let draft = self.engine.snapshots.begin(&Tree::scratch()).map_err(internal)?;
        for entry in fs::read_dir(&root).map_err(internal)? {
            let entry = entry.map_err(internal)?;
            fs::rename(entry.path(), draft.upper().join(entry.file_name())).map_err(internal)?;
        }
        let commit = draft.commit(&KnownFiles::default()).map_err(internal)?;
        let own = if commit.meta.entries == 0 { Vec::new() } else { vec![commit.id] };
        Ok(NodeOutput::tree(Tree(own.clone()), own, Some(commit.lease)))
    }

    /// Fetches one commit; servers that give only named refs are asked for the ref.
    fn fetch_commit(
        &self,
        repository: &Path,
        source: &Source<'_>,
        commit: &str,
    ) -> Result<(), Failure> {
        let base = ["fetch", "--quiet", "--no-tags", "--force", "--depth=1", "--"];
        let by_commit = [&base[..], &[source.remote, commit]].concat();
        if self.run(Some(repository), &by_commit).is_ok() {
            return Ok(());
        }
        let reference = if source.reference.is_empty() { "HEAD" } else { source.reference };
        let by_name = if is_commit(reference) {
            ["fetch", "--quiet", "--force", "--", source.remote, "+refs/*:refs/fetched/*"].to_vec()
        } else {
            [&base[..], &[source.remote, reference]].concat()
        };
        self.run(Some(repository), &by_name).map(drop)
    }

    fn work_tree(
        &self,
        repository: &Path,
        tree: &Path,
        source: &Source<'_>,
        commit: &str,
    ) -> Result<(), Failure> {
        let path = tree.to_string_lossy().into_owned();
        if !source.keep_git_dir && !source.submodules {
            let work = format!("--work-tree={path}");
            self.run(
                Some(repository),
                &[&work, "checkout", "--quiet", "--force", commit, "--", "."],
            )?;
            return Ok(());
        }
        let from = repository.to_string_lossy().into_owned();
        let allow = Git { transports: "file", ..*self };
        allow.run(None, &["init", "--quiet", "--", &path])?;
        allow.run(Some(tree), &["fetch", "--quiet", "--depth=1", "--", &from, commit])?;
        allow.run(Some(tree), &["checkout", "--quiet", "--force", commit])?;
        if source.submodules {
            self.run(Some(tree), &["remote", "add", "origin", source.remote])?;
            let of_submodules =
                Git { transports: self.way.submodules.unwrap_or(self.transports), ..*self };
            let update = ["submodule", "update", "--quiet", "--init", "--recursive", "--depth=1"];
            of_submodules.run(Some(tree), &update)?;
        }
        if !source.keep_git_dir {
            fs::remove_dir_all(tree.join(".git")).map_err(internal)?;
        }
        Ok(())
    }

    fn run(&self, dir: Option<&Path>, args: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new("git");
        command.env_clear();
        for name in ["PATH", "SSH_AUTH_SOCK"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", self.transports)
            .args(["-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"])
            .args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]);
        self.way.apply(&mut command);
        command
            .args(args)
            .current_dir(dir.unwrap_or(Path::new("/")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Failure::new(FailureKind::Source, "there is no git program")
                .hint("install git (Debian package git)"),
            _ => internal(e),
        })?;
        let output = wait(child, self.cancel)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        if let Some(refused) = self.way.refused() {
            return Err(refused);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.trim().chars().take(MESSAGE_BYTES_MAX).collect();
        let verb = args.iter().find(|a| !a.starts_with('-')).unwrap_or(&"");
        Err(Failure::new(FailureKind::Source, format!("git {verb} failed: {said}")))
    }
}

/// Waits for a program, and ends it when the build is cancelled.
fn wait(mut child: std::process::Child, cancel: &Cancel) -> Result<std::process::Output, Failure> {
    let drain = |pipe: Option<Box<dyn io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read before an error is all there is to show.
            let _ = pipe.map(|mut p| p.read_to_end(&mut bytes));
            bytes
        })
    };
    let out = drain(child.stdout.take().map(|p| Box::new(p) as _));
    let err = drain(child.stderr.take().map(|p| Box::new(p) as _));
    let status = loop {
        if let Some(status) = child.try_wait().map_err(internal)? {
            break status;
        }
        if cancel.is_cancelled() {
            child.kill().and_then(|()| child.wait()).map_err(internal)?;
            return Err(Failure::new(FailureKind::Source, "stopped"));
        }
        std::thread::sleep(POLL);
    };
    let stdout = out.join().unwrap_or_default();
    let stderr = err.join().unwrap_or_default();
    Ok(std::process::Output { status, stdout, stderr })
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Picks the commit of a name from the lines of `ls-remote`: a full ref, then a tag (what it
/// points at), then a branch.
fn pick(listed: &str, wanted: &str) -> Option<String> {
    let find = |name: &str| {
        let line = listed.lines().find(|l| l.split('\t').nth(1) == Some(name))?;
        line.split('\t').next().map(str::to_owned)
    };
    let tag = format!("refs/tags/{wanted}");
    find(wanted)
        .or_else(|| find(&format!("{tag}^{{}}")))
        .or_else(|| find(&tag))
        .or_else(|| find(&format!("refs/heads/{wanted}")))
        .or_else(|| find(&format!("refs/{wanted}")))
}

/// Finds a directory of a checkout without following links out of it.
fn subdirectory(root: &Path, subdir: &str) -> Result<PathBuf, Failure> {
    let mut path = root.to_owned();
    for part in subdir.split('/').filter(|p| !p.is_empty() && *p != ".") {
        path.push(part);
        let plain = fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
        if part == ".." || !plain {
            let text = format!("the repository has no directory '{subdir}'");
            return Err(Failure::new(FailureKind::Source, text));
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_wins_over_a_branch_and_is_peeled() {
        let listed = "aaa\tHEAD\nbbb\trefs/heads/v1\nccc\trefs/tags/v1\nddd\trefs/tags/v1^{}\n";
        assert_eq!(pick(listed, "v1").as_deref(), Some("ddd"));
        assert_eq!(pick(listed, "HEAD").as_deref(), Some("aaa"));
        assert_eq!(pick(listed, "refs/heads/v1").as_deref(), Some("bbb"));
        assert_eq!(pick(listed, "v2"), None);
    }

    #[test]
    fn a_subdirectory_never_leaves_the_checkout() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("l")).unwrap();
        assert!(subdirectory(dir.path(), "a/.").is_ok());
        for bad in ["..", "a/../..", "l", "missing"] {
            assert!(subdirectory(dir.path(), bad).is_err(), "{bad}");
        }
    }
}
