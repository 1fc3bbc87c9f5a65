//! Git URLs as `ADD` and named contexts take them: `URL#ref:subdir` and `URL?key=value`.

use ashlar_core::graph::Op;

use crate::parse::bool_word;

/// A reference to something in a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct GitRef {
    pub(super) remote: String,
    pub(super) reference: String,
    pub(super) checksum: Option<String>,
    pub(super) subdir: String,
    pub(super) keep_git_dir: Option<bool>,
    pub(super) submodules: Option<bool>,
}

impl GitRef {
    /// Reads a text; `None` when it is no git URL, an error when it is a malformed one.
    pub(super) fn parse(text: &str) -> Option<Result<Self, String>> {
        let (base, fragment) = text.split_once('#').map_or((text, ""), |(b, f)| (b, f));
        let (remote, query) = base.split_once('?').map_or((base, ""), |(r, q)| (r, q));
        if !is_git(remote) {
            return None;
        }
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut git = Self {
            remote: remote.to_owned(),
            reference: decoded(reference),
            subdir: relative(&decoded(subdir)),
            ..Self::default()
        };
        Some(git.read_query(query).map(|()| git))
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        let mut seen = std::collections::BTreeSet::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').map_or((pair, None), |(k, v)| (k, Some(v)));
            let (key, value) = (decoded(key), value.map(decoded).filter(|v| !v.is_empty()));
            if !seen.insert(key.clone()) {
                return Err(format!("query {key:?} has multiple values"));
            }
            let switch = |v: Option<String>| match v {
                None => Ok(true),
                Some(v) => bool_word(&v).ok_or(format!("invalid {key} value: {v:?}")),
            };
            let needed = |v: Option<String>| v.ok_or(format!("query {key:?} has no value"));
            match key.as_str() {
                "ref" => merge("ref", &mut self.reference, needed(value)?)?,
                "subdir" => merge("subdir", &mut self.subdir, needed(value)?)?,
                "tag" => tag = Some(prefixed("refs/tags/", &needed(value)?)),
                "branch" => branch = Some(prefixed("refs/heads/", &needed(value)?)),
                "checksum" | "commit" => self.checksum = Some(needed(value)?),
                "keep-git-dir" => self.keep_git_dir = Some(switch(value)?),
                "submodules" => self.submodules = Some(switch(value)?),
                // How a commit is fetched, and what times the files have, change no content.
                "fetch-by-commit" => drop(switch(value)?),
                "mtime" => match needed(value)?.as_str() {
                    "checkout" | "commit" => {}
                    v => return Err(format!("invalid mtime value: {v:?}")),
                },
                _ => return Err(format!("unexpected query {key:?}")),
            }
        }
        match (tag, branch) {
            (Some(_), Some(_)) => Err("branch conflicts with tag".into()),
            (Some(one), None) | (None, Some(one)) => merge("ref", &mut self.reference, one),
            (None, None) => Ok(()),
        }
    }

    /// Returns the operation that checks it out.
    pub(super) fn op(self, keep_git_dir: bool, checksum: Option<String>) -> Op {
        Op::Git {
            remote: self.remote,
            reference: self.reference,
            checksum,
            subdir: self.subdir,
            keep_git_dir,
            submodules: self.submodules.unwrap_or(true),
        }
    }
}

fn merge(what: &str, old: &mut String, new: String) -> Result<(), String> {
    if !old.is_empty() && *old != new {
        return Err(format!("{what} conflicts: {old:?} vs {new:?}"));
    }
    *old = new;
    Ok(())
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn relative(path: &str) -> String {
    super::paths::clean(path)[1..].to_owned()
}

/// `git://` and `ssh://` always are; `http(s)://` when the path ends in `.git`; `user@host:path`.
fn is_git(remote: &str) -> bool {
    if let Some((scheme, rest)) = remote.split_once("://") {
        let path = rest.split_once('/').map_or("", |(_, p)| p);
        return match scheme.to_ascii_lowercase().as_str() {
            "git" | "ssh" => true,
            "http" | "https" => path.ends_with(".git"),
            _ => false,
        };
    }
    let Some((user, rest)) = remote.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let plain = |s: &str, extra: &str| {
        !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    plain(user, "-_") && plain(host, "-.")
}

/// Whether a source of `ADD` is fetched over HTTP as one file.
pub(super) fn is_http(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://"))
        && GitRef::parse(source).is_none()
}

/// Decodes `%xx`.
pub(super) fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Returns the name of the file that a URL fetches.
pub(super) fn http_file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, r)| r);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, p)| p);
    match decoded(path).trim_end_matches('/').rsplit('/').next().unwrap_or_default() {
        "" | "." | ".." => "__unnamed__".into(),
        name => name.to_owned(),
    }
}
