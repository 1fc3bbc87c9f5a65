//! Build specifications: three generations of one text, read into one thing.
//!
//! Nested ones (`build: {...}`, before 0.4.2) and flat ones are both accepted whatever key they came
//! in. Unlike the original's reader this one never opens a file that a text happens to name.

use serde_json::{Map, Value};

/// The longest specification, in bytes.
pub(crate) const SPEC_BYTES_MAX: usize = 1024 * 1024;
/// Steps, variables or tags that one specification may have.
const ITEMS_MAX: usize = 1000;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// A specification is wrong; the text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Received non valid specification config. {0}")]
pub(crate) struct SpecError(String);

/// Where the Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// Made on an image.
    Image(String),
    /// A file of the code.
    Dockerfile(String),
}

/// A build specification.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Specification {
    /// Whether the build section was an object of its own.
    pub(crate) nested: bool,
    pub(crate) base: Base,
    pub(crate) steps: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) no_cache: bool,
    pub(crate) commit: Option<String>,
    pub(crate) branch: Option<String>,
    /// Folder of the code that is used instead of all of it.
    pub(crate) context: Option<String>,
    pub(crate) backend: Option<String>,
    pub(crate) locale: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) resources: Resources,
}

/// What the steps may use, and what of that is echoed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Resources {
    pub(crate) cpus: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
    /// The `resources` of answers: nothing but the keys that clients know.
    pub(crate) echo: Option<Value>,
}

const TOP: [&str; 12] = [
    "version",
    "kind",
    "logging",
    "tags",
    "name",
    "description",
    "environment",
    "params",
    "declarations",
    "inputs",
    "outputs",
    "backend",
];
const BUILD: [&str; 12] = [
    "image",
    "dockerfile",
    "ref",
    "build_steps",
    "env_vars",
    "nocache",
    "commit",
    "branch",
    "git",
    "context",
    "backend",
    "lang_env",
];
const ENVIRONMENT: [&str; 18] = [
    "resources",
    "labels",
    "annotations",
    "node_selector",
    "node_selectors",
    "affinity",
    "tolerations",
    "service_account",
    "image_pull_secrets",
    "max_restarts",
    "secret_refs",
    "config_map_refs",
    "configmap_refs",
    "data_refs",
    "artifact_refs",
    "outputs",
    "persistence",
    "index",
];
const KINDS: [&str; 7] =
    ["build", "experiment", "group", "job", "notebook", "tensorboard", "pipeline"];
const LEVELS: [&str; 5] = ["INFO", "DEBUG", "WARN", "ERROR", "FATAL"];
const BACKENDS: [&str; 3] = ["native", "kaniko", "other"];

type Read<T> = Result<T, SpecError>;

fn wrong<T>(why: impl Into<String>) -> Read<T> {
    Err(SpecError(why.into()))
}

/// Reads the text of a specification: YAML, of which JSON and the print form of a Python dict with
/// single quotes are parts.
pub(crate) fn read_text(text: &str) -> Read<Map<String, Value>> {
    if text.len() > SPEC_BYTES_MAX {
        return wrong(format!("It is longer than {SPEC_BYTES_MAX} bytes."));
    }
    let value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) => yaml(text)?,
    };
    match value {
        Value::Object(map) => Ok(map),
        _ => wrong("It must be a mapping."),
    }
}

fn yaml(text: &str) -> Read<Value> {
    // YAML 1.1 as this library reads it takes `n` and `y` for booleans, PyYAML does not: a variable
    // may be called so. Words such as `yes` are read where a boolean is wanted.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let said = error.to_string();
        let line = said.lines().next().unwrap_or_default();
        SpecError(format!("It is not valid YAML: {}", line.chars().take(300).collect::<String>()))
    })
}

impl Specification {
    /// Reads a specification.
    pub(crate) fn parse(spec: &Map<String, Value>) -> Read<Self> {
        let spec = &filled(spec)?;
        let top = Section(spec);
        version_and_kind(&top)?;
        let nested = top.get("build").is_some();
        let build = match top.get("build") {
            None => spec,
            Some(Value::Object(build)) => build,
            Some(_) => return wrong("`build` must be a mapping."),
        };
        let known = |key: &str| {
            TOP.contains(&key) || if nested { key == "build" } else { BUILD.contains(&key) }
        };
        top.only(known)?;
        let build = Section(build);
        if nested {
            build.only(|key| BUILD.contains(&key))?;
        }
        logging(&top)?;
        let backend = match build.text("backend")? {
            Some(backend) => Some(backend),
            None => top.text("backend")?,
        };
        if let Some(bad) = backend.as_ref().filter(|b| !BACKENDS.contains(&b.as_str())) {
            return wrong(format!("`backend` must be native, kaniko or other, not `{bad}`."));
        }
        Ok(Self {
            nested,
            base: base(&build)?,
            steps: build.texts("build_steps")?.unwrap_or_default(),
            variables: variables(&build)?,
            no_cache: build.flag("nocache")?,
            commit: build.text("commit")?,
            branch: build.text("branch")?,
            context: build.text("context")?,
            backend,
            locale: build.text("lang_env")?,
            name: top.text("name")?,
            description: top.text("description")?,
            tags: top.texts("tags")?,
            resources: environment(&top)?,
        })
    }
}

fn version_and_kind(top: &Section<'_>) -> Read<()> {
    match top.get("version") {
        Some(version) if version.as_u64() == Some(1) => {}
        Some(_) => return wrong("`version` must be 1."),
        None => return wrong("`version` is required."),
    }
    match top.get("kind").map(Value::as_str) {
        Some(Some("build")) => Ok(()),
        Some(Some(kind)) if KINDS.contains(&kind) => {
            wrong(format!("`kind` is `{kind}`; only `build` is built here."))
        }
        Some(_) => wrong("`kind` must be `build`."),
        None => wrong("`kind` is required."),
    }
}

fn logging(top: &Section<'_>) -> Read<()> {
    let Some(logging) = top.get("logging") else { return Ok(()) };
    let Value::Object(logging) = logging else { return wrong("`logging` must be a mapping.") };
    let logging = Section(logging);
    logging.only(|key| matches!(key, "level" | "formatter"))?;
    logging.text("formatter")?;
    match logging.text("level")? {
        Some(level) if !LEVELS.contains(&level.as_str()) => {
            wrong(format!("`logging.level` must be one of {}.", LEVELS.join(", ")))
        }
        _ => Ok(()),
    }
}

fn base(build: &Section<'_>) -> Read<Base> {
    let image = build.text("image")?.filter(|t| !t.is_empty());
    let dockerfile = build.text("dockerfile")?.filter(|t| !t.is_empty());
    let reference = build.get("ref").filter(|r| r.as_str() != Some(""));
    match (image, dockerfile, reference) {
        (Some(image), None, None) => check_image(&image).map(|()| Base::Image(image)),
        (None, Some(path), None) => Ok(Base::Dockerfile(path)),
        (None, None, Some(_)) => wrong(
            "`ref` is for jobs that use another build's image; a build needs `image` or `dockerfile`.",
        ),
        _ => wrong("Exactly one of `image`, `dockerfile` and `ref` must be set."),
    }
}

/// The original's rule for names of images.
fn check_image(image: &str) -> Read<()> {
    let invalid = || SpecError(format!("Invalid docker image `{image}`."));
    if image.contains(char::is_whitespace) || image.contains(char::is_control) {
        return Err(invalid());
    }
    let parts: Vec<&str> = image.split(':').collect();
    match parts.as_slice() {
        [_] | [_, _] => Ok(()),
        [_, middle, _] if middle.contains('/') && !middle.starts_with('/') => Ok(()),
        _ => Err(invalid()),
    }
}

fn variables(build: &Section<'_>) -> Read<Vec<(String, String)>> {
    let each = |item: &Value| match item.as_array().map(Vec::as_slice) {
        Some([Value::String(name), value]) if !name.is_empty() => match scalar(value) {
            Some(text) => Ok((name.clone(), text)),
            None => wrong(format!("The value of `{name}` in `env_vars` must be a scalar.")),
        },
        _ => wrong("`env_vars` must be a list of [name, value]."),
    };
    match build.get("env_vars") {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= ITEMS_MAX => items.iter().map(each).collect(),
        Some(_) => wrong("`env_vars` must be a list of [name, value]."),
    }
}

/// Returns a scalar as Python prints it, which is how it gets into the original's Dockerfile.
fn scalar(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Null => "None".into(),
        Value::Array(_) | Value::Object(_) => return None,
    })
}

fn environment(top: &Section<'_>) -> Read<Resources> {
    let Some(environment) = top.get("environment") else { return Ok(Resources::default()) };
    let Value::Object(environment) = environment else {
        return wrong("`environment` must be a mapping.");
    };
    let environment = Section(environment);
    environment.only(|key| ENVIRONMENT.contains(&key))?;
    let Some(resources) = environment.get("resources") else { return Ok(Resources::default()) };
    let Value::Object(resources) = resources else {
        return wrong("`resources` must be a mapping.");
    };
    read_resources(&Section(resources))
}

fn read_resources(resources: &Section<'_>) -> Read<Resources> {
    const KEYS: [&str; 4] = ["cpu", "memory", "gpu", "tpu"];
    resources.only(|key| KEYS.contains(&key))?;
    let (mut read, mut echo) = (Resources::default(), Map::new());
    for key in KEYS {
        let Some(value) = resources.get(key) else { continue };
        let Value::Object(bounds) = value else {
            return wrong(format!("`resources.{key}` must have `limits` and `requests`."));
        };
        let bounds = Section(bounds);
        bounds.only(|k| matches!(k, "limits" | "requests"))?;
        let (limits, requests) = (bounds.amount("limits")?, bounds.amount("requests")?);
        match key {
            "cpu" => read.cpus = limits,
            // Mebibytes on the wire. A float's conversion saturates.
            "memory" => read.memory_bytes = limits.map(|m| (m * MEBIBYTE) as u64),
            _ => {}
        }
        echo.insert(key.into(), serde_json::json!({ "limits": limits, "requests": requests }));
    }
    read.echo = (!echo.is_empty()).then_some(Value::Object(echo));
    Ok(read)
}

/// A mapping whose nulls count as absent.
struct Section<'a>(&'a Map<String, Value>);

impl<'a> Section<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn only(&self, known: impl Fn(&str) -> bool) -> Read<()> {
        match self.0.keys().find(|key| !known(key)) {
            None => Ok(()),
            Some(key) => {
                wrong(format!("Unknown key `{}`.", key.chars().take(100).collect::<String>()))
            }
        }
    }

    fn text(&self, key: &str) -> Read<Option<String>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            // A commit of digits only, or a branch that is called 1, is a number to YAML.
            Some(Value::Number(number)) if matches!(key, "commit" | "branch") => {
                Ok(Some(number.to_string()))
            }
            Some(_) => wrong(format!("`{key}` must be a string.")),
        }
    }

    fn flag(&self, key: &str) -> Read<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(word)) => match word.to_lowercase().as_str() {
                "yes" | "on" | "true" => Ok(true),
                "no" | "off" | "false" => Ok(false),
                _ => wrong(format!("`{key}` must be a boolean.")),
            },
            Some(_) => wrong(format!("`{key}` must be a boolean.")),
        }
    }

    fn texts(&self, key: &str) -> Read<Option<Vec<String>>> {
        let text = |item: &Value| match item {
            Value::String(text) => Ok(text.clone()),
            _ => wrong(format!("`{key}` must be a list of strings.")),
        };
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= ITEMS_MAX => {
                items.iter().map(text).collect::<Read<_>>().map(Some)
            }
            Some(_) => wrong(format!("`{key}` must be a list of at most {ITEMS_MAX} strings.")),
        }
    }

    fn amount(&self, key: &str) -> Read<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|n| n.is_finite() && *n > 0.0) {
                Some(amount) => Ok(Some(amount)),
                None => wrong(format!("`{key}` must be a number above 0.")),
            },
        }
    }
}

/// Fills `{{ name }}` from the specification's own parameters. Names that are no parameter stay as
/// they are: shell and Go templates look the same.
fn filled(spec: &Map<String, Value>) -> Read<Map<String, Value>> {
    let section = Section(spec);
    let params = match (section.get("params"), section.get("declarations")) {
        (None, None) => return Ok(spec.clone()),
        (Some(_), Some(_)) => return wrong("Only one of `params` and `declarations` may be set."),
        (Some(params), None) | (None, Some(params)) => params,
    };
    let Value::Object(params) = params else { return wrong("`params` must be a mapping.") };
    let mut filled = spec.clone();
    let mut room = SPEC_BYTES_MAX;
    for (key, value) in &mut filled {
        if !matches!(key.as_str(), "params" | "declarations") {
            fill(value, params, &mut room)?;
        }
    }
    Ok(filled)
}

/// Fills a value and all below it. `room` bounds what may come out of it altogether.
fn fill(value: &mut Value, params: &Map<String, Value>, room: &mut usize) -> Read<()> {
    match value {
        Value::String(text) if text.contains("{{") => {
            *text = fill_text(text, params, room)?;
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| fill(item, params, room)),
        Value::Object(map) => map.values_mut().try_for_each(|item| fill(item, params, room)),
        _ => Ok(()),
    }
}

fn fill_text(text: &str, params: &Map<String, Value>, room: &mut usize) -> Read<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let found = after
            .split_once("}}")
            .and_then(|(name, tail)| Some((scalar(params.get(name.trim())?)?, tail)));
        match found {
            Some((value, tail)) => {
                out.push_str(&value);
                rest = tail;
            }
            None => {
                out.push_str("{{");
                rest = after;
            }
        }
        if out.len() > *room {
            return wrong(format!("Filled in it is longer than {SPEC_BYTES_MAX} bytes."));
        }
    }
    out.push_str(rest);
    *room = room.saturating_sub(out.len());
    Ok(out)
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
