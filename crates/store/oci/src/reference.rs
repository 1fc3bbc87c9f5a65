//! Image references as Docker reads them.
//!
//! Source: the grammar of `distribution/reference` and its rules for short names: `busybox` is
//! `docker.io/library/busybox:latest`; the first part is a host only when it has a dot, a colon or
//! an upper-case letter, or is `localhost`.

use std::fmt;
use std::str::FromStr;

use ashlar_core::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The host that short names belong to.
pub const DEFAULT_HOST: &str = "docker.io";
/// The folder of [`DEFAULT_HOST`] that one-part names belong to.
const DEFAULT_FOLDER: &str = "library";
/// The tag of a reference that names neither a tag nor a digest.
pub const DEFAULT_TAG: &str = "latest";
/// Longest repository path, host not counted (`distribution/reference`).
const PATH_LEN_MAX: usize = 255;
/// Longest tag.
const TAG_LEN_MAX: usize = 128;
/// Longest text that is looked at at all.
const TEXT_LEN_MAX: usize = 1024;

/// A repository: where it is and its path there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    host: String,
    path: String,
}

/// A repository with a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an image reference: {reason}")]
pub struct ReferenceError {
    text: String,
    reason: &'static str,
}

impl Repository {
    /// Returns the registry's host, with its port when one was given, for example `docker.io`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the path at the registry, for example `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the shortest text that names the same repository.
    pub fn familiar(&self) -> String {
        if self.host != DEFAULT_HOST {
            return self.to_string();
        }
        let short = self.path.strip_prefix(DEFAULT_FOLDER).and_then(|p| p.strip_prefix('/'));
        // A two-part rest would be read as another folder.
        short.filter(|s| !s.contains('/')).unwrap_or(&self.path).to_owned()
    }

    /// Returns the reference to `tag` here.
    ///
    /// # Errors
    /// When `tag` has characters that tags can not have.
    pub fn with_tag(self, tag: &str) -> Result<Reference, ReferenceError> {
        check_tag(tag).map_err(|reason| ReferenceError::new(tag, reason))?;
        Ok(Reference { repository: self, tag: Some(tag.to_owned()), digest: None })
    }

    /// Returns the reference to `digest` here.
    pub fn with_digest(self, digest: Digest) -> Reference {
        Reference { repository: self, tag: None, digest: Some(digest) }
    }

    fn parse(name: &str) -> Result<Self, &'static str> {
        let (host, path) = split_host(name);
        check_host(host)?;
        let host = if host == "index.docker.io" { DEFAULT_HOST } else { host };
        let path = if host == DEFAULT_HOST && !path.contains('/') {
            format!("{DEFAULT_FOLDER}/{path}")
        } else {
            path.to_owned()
        };
        check_path(&path)?;
        Ok(Self { host: host.to_owned(), path })
    }
}

impl Reference {
    /// Returns the repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the tag, if the reference has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if the reference is pinned to one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns what a registry is asked for: the digest if there is one, else the tag.
    pub fn selector(&self) -> String {
        self.digest.map_or_else(|| self.tag().unwrap_or(DEFAULT_TAG).to_owned(), |d| d.to_string())
    }

    /// Returns the same reference pinned to `digest`.
    #[must_use]
    pub fn pinned(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// Returns the shortest text that means the same, as people write it.
    pub fn familiar(&self) -> String {
        let tag = self.tag().filter(|t| *t != DEFAULT_TAG || self.digest.is_some());
        self.render(self.repository.familiar(), tag)
    }

    fn render(&self, mut text: String, tag: Option<&str>) -> String {
        for (mark, part) in
            [(':', tag.map(str::to_owned)), ('@', self.digest.map(|d| d.to_string()))]
        {
            if let Some(part) = part {
                text.push(mark);
                text.push_str(&part);
            }
        }
        text
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
        };
        // A colon before the last slash belongs to the host's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        tag.map_or(Ok(()), check_tag)?;
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if name.len() == 64 && name.bytes().all(is_hex) {
            return Err(
                "a name of 64 hex digits looks like an id; put 'sha256:' or a folder before it",
            );
        }
        let repository = Repository::parse(name)?;
        let tag = tag.or(digest.is_none().then_some(DEFAULT_TAG)).map(str::to_owned);
        Ok(Self { repository, tag, digest })
    }
}

fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_HOST, name),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if let Some(port) = port
        && !(port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
    {
        return Err("the port of the host is not a number up to 65535");
    }
    if let Some(inner) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        let is_address = inner.parse::<std::net::Ipv6Addr>().is_ok();
        return if is_address { Ok(()) } else { Err("the host is not an IPv6 address") };
    }
    let fits = |part: &str| {
        let alnum = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = part.as_bytes();
        alnum(bytes.first())
            && alnum(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    if name.split('.').all(fits) {
        Ok(())
    } else {
        Err("the host has characters that hosts can not have")
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.len() > PATH_LEN_MAX {
        return Err("the repository name is longer than 255 characters");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository name must be lower case");
    }
    if path.split('/').all(is_path_component) {
        return Ok(());
    }
    Err("each part of the name must be a-z and 0-9, joined by one '.', one or two '_', or any '-'")
}

/// `[a-z0-9]+ ((\.|_|__|-+) [a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut words = part.split(alnum).peekable();
    let starts_and_ends = part.starts_with(alnum) && part.ends_with(alnum);
    starts_and_ends
        && words.all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    if tag.is_empty() || tag.len() > TAG_LEN_MAX {
        return Err("a tag has 1 to 128 characters");
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fits = tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if fits && tag.bytes().next().is_some_and(word) {
        return Ok(());
    }
    Err("a tag has letters, digits, '_', '.' and '-', and starts with none of the last two")
}

fn parse_digest(text: &str) -> Result<Digest, &'static str> {
    text.parse().map_err(|_| {
        if text.starts_with("sha256:") {
            "the digest after '@' must have 64 lower-case hex digits"
        } else {
            "only sha256 digests are supported after '@'"
        }
    })
}

impl ReferenceError {
    fn new(text: &str, reason: &'static str) -> Self {
        Self { text: text.chars().take(200).collect(), reason }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let result = match text.len() {
            0 => Err("it is empty"),
            n if n > TEXT_LEN_MAX => Err("it is too long"),
            _ => Self::parse(text),
        };
        result.map_err(|reason| ReferenceError::new(text, reason))
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let short = if text.len() > TEXT_LEN_MAX { Err("it is too long") } else { Ok(text) };
        short.and_then(Self::parse).map_err(|reason| ReferenceError::new(text, reason))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl fmt::Display for Reference {
    /// Writes the full form, for example `docker.io/library/busybox:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(self.repository.to_string(), self.tag()))
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Repository {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Repository {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
