//! Parsers of the values that flags take: sizes, durations, outputs, secrets and the like.
//!
//! Each returns what to do as its error: clap puts the flag's name before it.

use std::path::PathBuf;
use std::time::Duration;

use ashlar_core::graph::{ExtraHost, Network, Ulimit};
use ashlar_frontend_dockerfile::Entitlement;
use serde::{Deserialize, Serialize};

/// What a parser answers.
pub(crate) type Parsed<T> = Result<T, String>;

/// Reads a size such as `512m`, `1.5g`, `64KiB` or `1024` (bytes); units are powers of 1024.
pub(crate) fn size(text: &str) -> Parsed<u64> {
    let bad = || format!("'{text}' is not a size; write a number with k, m, g or t, e.g. 512m");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(bad()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(bad);
    }
    let fraction: f64 = number.parse().map_err(|_| bad())?;
    let bytes = fraction * (1u64 << shift) as f64;
    // Casting saturates, so what would not fit is refused before.
    if bytes.is_finite() && (0.0..9.0e18).contains(&bytes) { Ok(bytes as u64) } else { Err(bad()) }
}

/// Units of durations, the longest first, with their length in nanoseconds.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Reads a duration such as `30s`, `5m`, `1h30m` or `500ms`.
pub(crate) fn duration(text: &str) -> Parsed<Duration> {
    let bad = || format!("'{text}' is not a duration; write e.g. 30s, 5m or 1h30m");
    let (mut rest, mut nanos) = (text.trim(), 0u64);
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(end);
        let (unit, length) = UNITS.iter().find(|(u, _)| tail.starts_with(u)).ok_or_else(bad)?;
        let value: f64 = number.parse().map_err(|_| bad())?;
        let part = value * *length as f64;
        if !part.is_finite() || part >= 9.0e18 {
            return Err(bad());
        }
        nanos = nanos.checked_add(part.round() as u64).ok_or_else(bad)?;
        rest = &tail[unit.len()..];
    }
    Ok(Duration::from_nanos(nanos))
}

/// Reads a number of processors such as `2` or `1.5`.
pub(crate) fn cpus(text: &str) -> Parsed<f64> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 4096.0 => Ok(n),
        _ => Err(format!("'{text}' is not a number of processors; write e.g. 2 or 1.5")),
    }
}

/// Reads `NAME=VALUE`.
pub(crate) fn key_value(text: &str) -> Parsed<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(format!("'{text}' has no name and value; write NAME=VALUE")),
    }
}

/// Reads a build argument: `NAME=VALUE`, or `NAME` for the variable of the environment.
pub(crate) fn build_arg(text: &str) -> Parsed<(String, Option<String>)> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(format!("'{text}' has no name; write NAME=VALUE, or NAME to take $NAME"));
    }
    Ok((name.to_owned(), value))
}

/// Splits `a=1,b=2` into pairs. As in CSV, a field in double quotes may hold commas.
fn fields(text: &str) -> Vec<String> {
    let (mut all, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    all.push(field);
    all
}

/// Where the value of a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SecretSource {
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
}

/// Reads `id=ID,src=FILE` or `id=ID,env=NAME`; with neither, the variable `ID`, else the file `ID`.
pub(crate) fn secret(text: &str) -> Parsed<(String, SecretSource)> {
    let example = "write id=ID,src=FILE or id=ID,env=NAME";
    let (mut id, mut source, mut kind) = (None, None, None);
    for field in fields(text) {
        let (name, value) = field
            .split_once('=')
            .ok_or_else(|| format!("'{field}' is not a part of a secret; {example}"))?;
        match name {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => source = Some(SecretSource::File(value.into())),
            "env" => source = Some(SecretSource::Env(value.into())),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            _ => return Err(format!("a secret has no '{name}={value}'; {example}")),
        }
    }
    let id = id.filter(|i| !i.is_empty()).ok_or_else(|| format!("the id is missing; {example}"))?;
    let source = match (source, kind.as_deref()) {
        (Some(SecretSource::File(path)), Some("env")) => {
            SecretSource::Env(path.to_string_lossy().into_owned())
        }
        (Some(source), _) => source,
        (None, Some("file")) => SecretSource::File(id.clone().into()),
        (None, _) if std::env::var_os(&id).is_some() => SecretSource::Env(id.clone()),
        (None, Some(_)) => SecretSource::Env(id.clone()),
        (None, None) => SecretSource::File(id.clone().into()),
    };
    Ok((id, source))
}

/// Reads `default`, `ID` or `ID=SOCKET`; without a socket it is `$SSH_AUTH_SOCK`.
pub(crate) fn ssh(text: &str) -> Parsed<(String, PathBuf)> {
    if let Some((id, socket)) = text.split_once('=') {
        return Ok((id.to_owned(), socket.into()));
    }
    match std::env::var_os("SSH_AUTH_SOCK") {
        Some(socket) => Ok((text.to_owned(), socket.into())),
        None => Err(format!("SSH_AUTH_SOCK is not set; start ssh-agent, or write {text}=SOCKET")),
    }
}

/// Reads the name of a network.
pub(crate) fn network(text: &str) -> Parsed<Network> {
    match text {
        "default" | "isolated" | "sandbox" => Ok(Network::Isolated),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        _ => Err(format!("there is no network '{text}'; use isolated, none or host")),
    }
}

/// Reads the name of a privilege.
pub(crate) fn entitlement(text: &str) -> Parsed<Entitlement> {
    [Entitlement::NetworkHost, Entitlement::SecurityInsecure]
        .into_iter()
        .find(|e| e.name() == text)
        .ok_or_else(|| format!("there is no '{text}'; use network.host or security.insecure"))
}

/// Reads `NAME:ADDRESS` or `NAME=ADDRESS`.
pub(crate) fn extra_host(text: &str) -> Parsed<ExtraHost> {
    let bad = || format!("'{text}' is not a host; write NAME:ADDRESS, e.g. db:10.0.0.5");
    let (host, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let fits = address == "host-gateway" || address.parse::<std::net::IpAddr>().is_ok();
    if host.is_empty() || !fits {
        return Err(bad());
    }
    Ok(ExtraHost { host: host.to_owned(), address: address.to_owned() })
}

/// Reads `NAME=SOFT[:HARD]`; -1 is no limit.
pub(crate) fn ulimit(text: &str) -> Parsed<Ulimit> {
    let bad = || format!("'{text}' is not a ulimit; write NAME=SOFT[:HARD], e.g. nofile=1024:4096");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |v: &str| v.parse::<i64>().ok().filter(|n| *n >= -1).ok_or_else(bad);
    let (soft, hard) = (number(soft)?, number(hard)?);
    if name.is_empty() || (hard >= 0 && (soft > hard || soft < 0)) {
        return Err(bad());
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// How layers of an output are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CompressionKind {
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// Not at all.
    Uncompressed,
}

/// The form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OutputType {
    /// An OCI layout, as an archive or a directory.
    Oci,
    /// What `docker load` takes.
    Docker,
    /// The files, in a directory.
    Local,
    /// The files, as one tar.
    Tar,
    /// A repository of a registry.
    Registry,
    /// The local image store.
    Image,
}

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutputSpec {
    /// The form.
    pub(crate) kind: OutputType,
    /// Where it goes; `-` is standard output.
    pub(crate) dest: Option<PathBuf>,
    /// Names in place of those of `--tag`.
    pub(crate) names: Vec<String>,
    /// Whether an OCI layout is one archive.
    pub(crate) tar: bool,
    /// Whether an image is pushed as well.
    pub(crate) push: bool,
    /// Whether its registry is spoken to by plain http.
    pub(crate) insecure: bool,
    /// How layers are compressed; none leaves it to the form.
    pub(crate) compression: Option<CompressionKind>,
    /// How hard.
    pub(crate) level: Option<u8>,
    /// Annotations of the manifest.
    pub(crate) annotations: Vec<(String, String)>,
}

impl OutputSpec {
    /// Returns an output of a form with the defaults.
    pub(crate) fn new(kind: OutputType) -> Self {
        Self {
            kind,
            dest: None,
            names: Vec::new(),
            tar: true,
            push: false,
            insecure: false,
            compression: None,
            level: None,
            annotations: Vec::new(),
        }
    }

    /// Says whether it goes to standard output.
    pub(crate) fn is_stdout(&self) -> bool {
        self.dest.as_deref().is_some_and(|d| d.as_os_str() == "-")
    }
}

/// Reads a database: the address of a PostgreSQL, or the path of an SQLite file.
pub(crate) fn database(text: &str) -> Parsed<String> {
    match text.split_once("://") {
        None | Some(("postgres" | "postgresql", _)) => Ok(text.to_owned()),
        Some((scheme, _)) => Err(format!(
            "there are no {scheme}:// databases; write postgres://USER@HOST/NAME, or leave it out for \
             SQLite in the data directory"
        )),
    }
}

/// The forms, for messages.
const TYPES: &str = "oci, docker, local, tar, registry or image";

/// Reads `type=TYPE,dest=PATH,...`; a bare path is a directory for the files, `-` a tar of them.
pub(crate) fn output(text: &str) -> Parsed<OutputSpec> {
    let all = fields(text);
    if let [bare] = all.as_slice()
        && !bare.contains('=')
    {
        if bare.is_empty() {
            return Err(format!("is empty; write type=TYPE,dest=PATH with {TYPES}"));
        }
        let kind = if bare == "-" { OutputType::Tar } else { OutputType::Local };
        return Ok(OutputSpec { dest: Some(bare.into()), ..OutputSpec::new(kind) });
    }
    let mut pairs = Vec::new();
    for field in &all {
        pairs.push(field.split_once('=').ok_or_else(|| {
            format!("'{field}' has no value; write type=TYPE,dest=PATH with {TYPES}")
        })?);
    }
    let kind = pairs.iter().find(|(n, _)| *n == "type").map(|(_, v)| *v);
    let kind = kind.ok_or_else(|| format!("has no type; add type=TYPE with {TYPES}"))?;
    let mut spec = OutputSpec::new(output_type(kind)?);
    for (name, value) in pairs {
        set_output(&mut spec, name, value)?;
    }
    check_output(&spec, kind)?;
    Ok(spec)
}

fn output_type(text: &str) -> Parsed<OutputType> {
    Ok(match text {
        "oci" => OutputType::Oci,
        "docker" => OutputType::Docker,
        "local" => OutputType::Local,
        "tar" => OutputType::Tar,
        "registry" => OutputType::Registry,
        "image" => OutputType::Image,
        "cacheonly" => {
            let why = "steps are kept in the cache without it; leave --output out";
            return Err(format!("type=cacheonly: {why}"));
        }
        _ => return Err(format!("there is no type '{text}'; use {TYPES}")),
    })
}

fn set_output(spec: &mut OutputSpec, name: &str, value: &str) -> Parsed<()> {
    match name {
        "type" => {}
        "dest" => spec.dest = Some(value.into()),
        "name" => spec.names = value.split(',').map(str::to_owned).collect(),
        "tar" => spec.tar = switch(name, value)?,
        "push" => spec.push = switch(name, value)?,
        "insecure" | "registry.insecure" => spec.insecure = switch(name, value)?,
        "compression" => {
            spec.compression = Some(match value {
                "gzip" => CompressionKind::Gzip,
                "zstd" => CompressionKind::Zstd,
                "uncompressed" => CompressionKind::Uncompressed,
                _ => {
                    return Err(format!(
                        "there is no compression '{value}'; use gzip, zstd or uncompressed"
                    ));
                }
            });
        }
        "compression-level" => {
            let level = value.parse::<u8>().ok().filter(|l| *l <= 22);
            spec.level = Some(level.ok_or_else(|| {
                format!("'{value}' is not a compression level; gzip has 0 to 9, zstd 1 to 19")
            })?);
        }
        // Every layer is named by its content; these switches of BuildKit have nothing to change.
        "oci-mediatypes" | "force-compression" | "unpack" | "store" | "rewrite-timestamp" => {
            switch(name, value)?;
        }
        other => match other.strip_prefix("annotation.") {
            Some(key) if !key.is_empty() => {
                spec.annotations.push((key.to_owned(), value.to_owned()));
            }
            _ => return Err(format!("there is no option '{other}' for outputs")),
        },
    }
    Ok(())
}

fn switch(name: &str, value: &str) -> Parsed<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("'{name}={value}' is neither true nor false")),
    }
}

fn check_output(spec: &OutputSpec, kind: &str) -> Parsed<()> {
    let needs_dest = matches!(spec.kind, OutputType::Local | OutputType::Tar)
        || (spec.kind == OutputType::Oci && !spec.tar);
    if spec.dest.as_ref().is_some_and(|d| d.as_os_str().is_empty()) {
        return Err("dest is empty; write dest=PATH, or dest=- for standard output".into());
    }
    if needs_dest && spec.dest.is_none() {
        return Err(format!("type={kind} needs dest=PATH"));
    }
    let no_file = matches!(spec.kind, OutputType::Local) || (!spec.tar);
    if no_file && spec.is_stdout() {
        return Err("a directory cannot go to standard output; use type=tar".into());
    }
    if spec.dest.is_some() && matches!(spec.kind, OutputType::Registry | OutputType::Image) {
        return Err(format!("type={kind} takes no dest; it takes name=REF"));
    }
    let is_image = match spec.kind {
        OutputType::Registry | OutputType::Image => true,
        OutputType::Docker => spec.dest.is_none(),
        OutputType::Oci | OutputType::Local | OutputType::Tar => false,
    };
    if spec.push && !is_image {
        return Err(format!(
            "push=true is for images, and type={kind} writes a file; push with an output of its own: \
             type=registry,name=REF"
        ));
    }
    let most = if spec.compression == Some(CompressionKind::Zstd) { 19 } else { 12 };
    match spec.level {
        Some(level) if level > most => Err(format!("compression-level goes up to {most}")),
        _ => Ok(()),
    }
}

/// What a named context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContextSpec {
    /// An image.
    Image(String),
    /// A repository.
    Git(String),
    /// A directory.
    Directory(PathBuf),
}

/// Reads `NAME=VALUE`: `docker-image://REF`, a git address, or a directory.
pub(crate) fn build_context(text: &str) -> Parsed<(String, ContextSpec)> {
    let (name, value) = key_value(text)?;
    let spec = match value.strip_prefix("docker-image://") {
        Some(image) => ContextSpec::Image(image.to_owned()),
        None if is_git(&value) => ContextSpec::Git(value),
        None => match value.split_once("://") {
            Some((scheme, _)) => {
                return Err(format!(
                    "contexts cannot come from '{scheme}://'; give a directory, a git address or docker-image://REF"
                ));
            }
            None => ContextSpec::Directory(value.into()),
        },
    };
    Ok((name, spec))
}

/// Says whether a context's text is the address of a git repository, by `docker build`'s rules.
pub(crate) fn is_git(text: &str) -> bool {
    let address = text.split('#').next().unwrap_or_default();
    let remote = ["http://", "https://"].iter().any(|s| text.starts_with(s));
    ["git://", "ssh://", "git@"].iter().any(|s| text.starts_with(s))
        || (remote && (address.ends_with(".git") || text.contains('#')))
        || text.starts_with("github.com/")
        || (text.starts_with("file://") && address.ends_with(".git"))
}

/// An address of a repository with what to take of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GitAddress {
    /// The remote.
    pub(crate) remote: String,
    /// A branch, tag or commit; empty for the default.
    pub(crate) reference: String,
    /// A directory in it; empty for the root.
    pub(crate) subdir: String,
}

/// Takes `URL#REF:DIR` apart.
pub(crate) fn git_address(text: &str) -> GitAddress {
    let (remote, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let remote = if remote.starts_with("github.com/") {
        format!("https://{remote}")
    } else {
        remote.to_owned()
    };
    GitAddress { remote, reference: reference.to_owned(), subdir: subdir.to_owned() }
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
