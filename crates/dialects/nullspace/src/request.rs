//! What a client asks to be built, read and checked as far as that needs nothing but the request.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_service::Limits;
use ashlar_service::frontends::declarative::{Step, parse_steps};
use ashlar_service::frontends::dockerfile;
use serde_json::Value;

use crate::credentials::{Auth, RegistryAuth, read_auth, read_registry_auth};
use crate::errors::{Answer, ApiError};
use crate::fields::Fields;
use crate::readiness::{Readiness, read_readiness};
use crate::refs::{TAG_DEFAULT, is_name, is_tag};

/// Tags that one request may name.
const TAGS_MAX: usize = 100;
/// The longest Dockerfile, in bytes.
pub(crate) const DOCKERFILE_BYTES_MAX: usize = 4 << 20;
/// The largest size of a root file system that can be asked for, in MiB.
const DISK_MB_MAX: u64 = 1 << 20;

/// Processors of a build whose request names none, and the most that one may name.
const VCPUS_DEFAULT: u64 = 1;
/// As above.
const VCPUS_MAX: u64 = 1024;
/// Memory of a build whose request names none, in MiB, and the most that one may name.
const MEMORY_MIB_DEFAULT: u64 = 512;
/// As above.
const MEMORY_MIB_MAX: u64 = 16 << 20;
/// The longest variable with its name, `=` and a final NUL, in bytes: what Linux starts programs
/// with.
const ENV_BYTES_MAX: usize = 128 << 10;
/// The longest secret, in bytes: BuildKit's limit too.
const SECRET_BYTES_MAX: usize = 500 << 10;

/// What a client asks to be built.
#[derive(Debug)]
pub(crate) struct BuildRequest {
    pub(crate) name: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) source: Source,
    pub(crate) backend: Backend,
    pub(crate) build_envs: BTreeMap<String, String>,
    pub(crate) build_args: BTreeMap<String, String>,
    pub(crate) target: Option<String>,
    pub(crate) start_cmd: Option<String>,
    pub(crate) runtime: Runtime,
    /// The entries of the context, not read yet.
    pub(crate) context: Option<Value>,
    pub(crate) config: BuildConfig,
    pub(crate) base_auth: Option<Auth>,
    pub(crate) registry_auth: Vec<RegistryAuth>,
    pub(crate) secrets: Vec<(String, String)>,
    pub(crate) skip_cache: bool,
    pub(crate) claim_token: Option<String>,
    pub(crate) warnings: Vec<String>,
}

/// What a template is made from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A Dockerfile: its text, or where in the context it is.
    Dockerfile { text: Option<String>, path: String },
    /// Steps on an image or another template.
    Steps {
        base: String,
        steps: Vec<Step>,
        /// The steps as they came, for the digest.
        raw: Value,
    },
}

/// Which backend is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Native,
    Buildkit,
}

impl Backend {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Buildkit => "buildkit",
        }
    }
}

/// How large the machine is that steps run in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BuildConfig {
    pub(crate) vcpus: u64,
    pub(crate) memory_mib: u64,
    pub(crate) disk_mb: Option<u64>,
    pub(crate) internet: bool,
    /// As it came.
    pub(crate) wire: Option<Value>,
}

/// How the artifact runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Runtime {
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) envs: BTreeMap<String, String>,
    pub(crate) readiness: Option<Readiness>,
}

impl BuildConfig {
    /// Returns what steps and the start command may use up.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            memory_bytes: Some(self.memory_mib << 20),
            cpus: Some(self.vcpus as f64),
            disk_bytes: self.disk_mb.map(|mb| mb << 20),
            // Every request has a size; a BuildKit daemon has its own.
            advisory: true,
            ..Limits::default()
        }
    }
}

impl BuildRequest {
    /// Reads a request.
    pub(crate) fn read(body: &Value) -> Answer<Self> {
        let f = Fields::new("", body)?;
        let mut warnings = Vec::new();
        let source = read_source(&f, &mut warnings)?;
        let backend = read_backend(&f, &source)?;
        let build_args = f.map("build_args")?;
        let target = f.word("build_target")?;
        check_dockerfile(&source, target.as_deref(), &mut warnings)?;
        let config = read_config(&f)?;
        let runtime = read_runtime(&f)?;
        let start_cmd = f.word("start_cmd")?;
        Ok(Self {
            name: read_name(&f)?,
            tags: read_tags(&f)?.unwrap_or_else(|| vec![TAG_DEFAULT.to_owned()]),
            secrets: read_secrets(&f, backend)?,
            build_envs: read_envs(&f, "build_envs")?,
            context: read_context(&f)?,
            base_auth: read_base_auth(&f)?,
            registry_auth: read_registries(&f)?,
            skip_cache: f.flag("skip_cache")?.unwrap_or(false),
            claim_token: f.word("claim_token")?,
            source,
            backend,
            build_args,
            target,
            start_cmd,
            runtime,
            config,
            warnings,
        })
    }

    /// Says whether credentials for a private base came with it.
    pub(crate) fn has_credentials(&self) -> bool {
        self.base_auth.is_some() || !self.registry_auth.is_empty()
    }
}

fn read_name(f: &Fields<'_>) -> Answer<Option<String>> {
    let (name, alias) = (f.text("name")?, f.text("alias")?);
    let name = name.or(alias);
    if let Some(name) = &name {
        check_name("name", name)?;
    }
    Ok(name)
}

/// Checks a template's name.
pub(crate) fn check_name(place: &str, name: &str) -> Answer<()> {
    if is_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    Err(ApiError::invalid(format!(
        "{place}: '{shown}' is no name; one has letters, digits, '.', '_' and '-', at most 128, \
         and begins with a letter or digit"
    )))
}

/// Reads a list of tags that must not be empty when it is there.
pub(crate) fn read_tags(f: &Fields<'_>) -> Answer<Option<Vec<String>>> {
    let Some(tags) = f.texts("tags")? else { return Ok(None) };
    if tags.is_empty() {
        return Err(ApiError::invalid("tags: must not be empty"));
    }
    check_tags(tags).map(Some)
}

/// Checks tags; each is kept once.
pub(crate) fn check_tags(tags: Vec<String>) -> Answer<Vec<String>> {
    if tags.len() > TAGS_MAX {
        return Err(ApiError::invalid(format!("tags: has more than {TAGS_MAX} entries")));
    }
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for tag in tags {
        if !is_tag(&tag) {
            let shown: String = tag.chars().take(60).collect();
            return Err(ApiError::invalid(format!(
                "tags: '{shown}' is no tag; one has letters, digits, '_', '.' and '-', at most \
                 128, and does not begin with 'tb_'"
            )));
        }
        if seen.insert(tag.clone()) {
            kept.push(tag);
        }
    }
    Ok(kept)
}

fn read_source(f: &Fields<'_>, warnings: &mut Vec<String>) -> Answer<Source> {
    let base = f.word("base_image")?;
    let text = f.text("dockerfile")?;
    let path = f.word("dockerfile_path")?;
    let steps = f.list("steps")?;
    if text.is_none() && (base.is_some() || path.is_none()) {
        let base = base.ok_or_else(|| {
            ApiError::invalid("there is nothing to build: give base_image or dockerfile")
        })?;
        if path.is_some() {
            let what = "dockerfile_path: there is a base_image and a Dockerfile; give one of them";
            return Err(ApiError::invalid(what));
        }
        return read_steps(f, base, warnings);
    }
    if base.is_some() {
        let what = "base_image: there is a Dockerfile too; give one of them";
        return Err(ApiError::invalid(what));
    }
    if steps.is_some_and(|s| !s.is_empty()) {
        return Err(ApiError::invalid("steps: only go with base_image, not with a Dockerfile"));
    }
    if text.as_ref().is_some_and(|t| t.len() > DOCKERFILE_BYTES_MAX) {
        let max = DOCKERFILE_BYTES_MAX >> 20;
        return Err(ApiError::invalid(format!("dockerfile: has more than {max} MiB")));
    }
    Ok(Source::Dockerfile { text, path: path.unwrap_or_else(|| "Dockerfile".into()) })
}

fn read_steps(f: &Fields<'_>, base: String, warnings: &mut Vec<String>) -> Answer<Source> {
    let raw = f.get("steps").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
    let parsed = parse_steps(&raw)
        .map_err(|all| ApiError::invalid_all(all.iter().map(ToString::to_string).collect()))?;
    warnings.extend(parsed.warnings.iter().map(ToString::to_string));
    Ok(Source::Steps { base, steps: parsed.steps, raw })
}

fn read_backend(f: &Fields<'_>, source: &Source) -> Answer<Backend> {
    let said = f.one_of("build_backend", &["native", "buildkit"])?;
    match (said, source) {
        (Some("native"), Source::Dockerfile { .. }) => {
            Err(ApiError::invalid("build_backend: a Dockerfile needs the backend 'buildkit'"))
        }
        (Some("buildkit"), _) | (None, Source::Dockerfile { .. }) => Ok(Backend::Buildkit),
        _ => Ok(Backend::Native),
    }
}

/// Refuses what the Dockerfile's text shows to be wrong before a build begins.
pub(crate) fn check_dockerfile(
    source: &Source,
    target: Option<&str>,
    warnings: &mut Vec<String>,
) -> Answer<()> {
    let Source::Dockerfile { text: Some(text), path } = source else { return Ok(()) };
    let outline = dockerfile::outline(path, text)
        .map_err(|d| ApiError::invalid(format!("dockerfile: {d}")))?;
    warnings.extend(outline.warnings.iter().map(|w| w.message.clone()));
    let Some(target) = target else { return Ok(()) };
    let named = |s: &dockerfile::StageOutline| {
        s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(target))
    };
    let index = target.parse().is_ok_and(|i: usize| i < outline.stages.len());
    if !index && !outline.stages.iter().any(named) {
        let shown: String = target.chars().take(60).collect();
        let what = format!("build_target: the Dockerfile has no stage '{shown}'");
        return Err(ApiError::invalid(what));
    }
    Ok(())
}

fn read_config(f: &Fields<'_>) -> Answer<BuildConfig> {
    let mut read = BuildConfig {
        vcpus: VCPUS_DEFAULT,
        memory_mib: MEMORY_MIB_DEFAULT,
        disk_mb: None,
        internet: true,
        wire: None,
    };
    let Some(config) = f.object("build_config")? else { return Ok(read) };
    let bounded = |name: &str, max: u64| match config.number(name)? {
        Some(value) if value == 0 || value > max => {
            let what = format!("build_config.{name}: must lie between 1 and {max}");
            Err(ApiError::invalid(what))
        }
        value => Ok(value),
    };
    read.vcpus = bounded("vcpus", VCPUS_MAX)?.unwrap_or(VCPUS_DEFAULT);
    read.memory_mib = bounded("memory_mib", MEMORY_MIB_MAX)?.unwrap_or(MEMORY_MIB_DEFAULT);
    read.disk_mb = bounded("disk_mb", DISK_MB_MAX)?;
    read.internet = config.flag("internet_access")?.unwrap_or(true);
    let mut echo = serde_json::Map::new();
    for key in ["vcpus", "memory_mib", "internet_access", "disk_mb"] {
        if let Some(value) = config.get(key) {
            echo.insert(key.to_owned(), value.clone());
        }
    }
    read.wire = Some(Value::Object(echo));
    Ok(read)
}

fn read_runtime(f: &Fields<'_>) -> Answer<Runtime> {
    let Some(config) = f.object("runtime_config")? else { return Ok(Runtime::default()) };
    let readiness = config.object("readiness")?;
    Ok(Runtime {
        user: config.word("default_user")?,
        workdir: config.word("default_workdir")?,
        envs: read_envs(&config, "default_envs")?,
        readiness: readiness.map(|r| read_readiness(&r)).transpose()?,
    })
}

fn read_envs(f: &Fields<'_>, name: &str) -> Answer<BTreeMap<String, String>> {
    let envs = f.map(name)?;
    for (key, value) in &envs {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            let shown: String = key.escape_debug().take(60).collect();
            let place = f.key(name);
            return Err(ApiError::invalid(format!(
                "{place}: '{shown}' is no variable; names must not be empty or hold '=' or NUL"
            )));
        }
        if key.len() + value.len() + "=\0".len() > ENV_BYTES_MAX {
            let (shown, place): (String, _) = (key.chars().take(60).collect(), f.key(name));
            let max = ENV_BYTES_MAX >> 10;
            return Err(ApiError::invalid(format!(
                "{place}: '{shown}' is longer than the {max} KiB that programs are started with; \
                 pass a file instead"
            )));
        }
    }
    Ok(envs)
}

fn read_context(f: &Fields<'_>) -> Answer<Option<Value>> {
    let Some(context) = f.object("build_context")? else { return Ok(None) };
    context.list("files")?;
    Ok(Some(context.get("files").cloned().unwrap_or_else(|| Value::Array(Vec::new()))))
}

/// Reads credentials for the base image.
pub(crate) fn read_base_auth(f: &Fields<'_>) -> Answer<Option<Auth>> {
    f.object("base_image_auth")?.map(|auth| read_auth(&auth)).transpose()
}

/// Reads credentials by registry.
pub(crate) fn read_registries(f: &Fields<'_>) -> Answer<Vec<RegistryAuth>> {
    f.objects("registry_auth")?.iter().map(read_registry_auth).collect()
}

fn read_secrets(f: &Fields<'_>, backend: Backend) -> Answer<Vec<(String, String)>> {
    let secrets = read_secret_list(f)?;
    if !secrets.is_empty() && backend == Backend::Native {
        let what = "build_secrets: need the backend 'buildkit'";
        return Err(ApiError::invalid(what));
    }
    Ok(secrets)
}

/// Reads secrets: ids with values.
pub(crate) fn read_secret_list(f: &Fields<'_>) -> Answer<Vec<(String, String)>> {
    let mut seen = BTreeSet::new();
    let mut secrets = Vec::new();
    for secret in f.objects("build_secrets")? {
        let id = secret.text_needed("id")?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if id.is_empty() || id.len() > 255 || !id.bytes().all(plain) {
            let what = "has letters, digits, '.', '_' and '-', at most 255";
            return Err(ApiError::invalid(format!("{}: {what}", secret.key("id"))));
        }
        if !seen.insert(id.clone()) {
            return Err(ApiError::invalid(format!("build_secrets: '{id}' is there twice")));
        }
        secret.one_of("source", &["value", "env", "file"])?;
        let value = secret.text_needed("value")?;
        if value.len() > SECRET_BYTES_MAX {
            let (place, max) = (secret.key("value"), SECRET_BYTES_MAX >> 10);
            return Err(ApiError::invalid(format!("{place}: has more than {max} KiB")));
        }
        secrets.push((id, value));
    }
    Ok(secrets)
}
