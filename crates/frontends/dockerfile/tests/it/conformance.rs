//! The conformance cases, as far as a frontend decides them: config and history of what builds,
//! line and wording of what must be refused. File trees are compared by `conformance/check`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ashlar_core::Platform;
use ashlar_frontend_dockerfile::{Request, Source};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::common;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Case {
    file: Option<String>,
    target: Option<String>,
    platform: Option<String>,
    build_args: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    files: BTreeMap<String, toml::Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    says: String,
    #[serde(default)]
    line: Option<u32>,
}

/// Stands for the registry, whose address cases and results leave open.
const REGISTRY: &str = "127.0.0.1:5000";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../conformance")
}

fn load(folder: &Path) -> (Case, Request, common::World) {
    let options = fs::read_to_string(folder.join("case.toml")).unwrap_or_default();
    let case: Case = toml::from_str(&options).unwrap();
    let path = case.file.clone().unwrap_or("Dockerfile".into());
    let mut request =
        Request::new(Source::Context { context: "context".into(), path: path.clone() });
    request.target.clone_from(&case.target);
    let registry = |v: &String| v.replace("{registry}", REGISTRY);
    request.build_args = case.build_args.iter().map(|(k, v)| (k.clone(), registry(v))).collect();
    request.labels.clone_from(&case.labels);
    request.build_platform = "linux/amd64".parse().unwrap();
    request.platform = Some(
        case.platform
            .as_ref()
            .map_or_else(|| request.build_platform.clone(), |p| p.parse::<Platform>().unwrap()),
    );
    let mut world = common::World::default();
    let place = |path: &str| ("context".to_owned(), path.to_owned());
    for (path, value) in &case.files {
        let text = value.as_str().or_else(|| value.get("text")?.as_str()).unwrap_or_default();
        world.files.insert(place(path), text.as_bytes().to_vec());
    }
    world.files.insert(place(&path), fs::read(folder.join("Dockerfile")).unwrap());
    (case, request, world)
}

/// Drops empty fields, as the expected results do.
fn normal(config: &Value) -> Map<String, Value> {
    let empty = |v: &Value| match v {
        Value::Null | Value::Bool(false) => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    };
    let fields = config.as_object().unwrap().iter();
    fields.filter(|(_, v)| !empty(v)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Says how a case differs from what is expected; nothing when it does not.
fn difference(folder: &Path, expected: &Value) -> Option<String> {
    let (case, request, world) = load(folder);
    let line = expected["error"]["line"].as_u64();
    let plan = match (common::lower(request, &world), &case.error) {
        (Ok((plan, _)), None) => plan,
        // A failure that only a run or the files show.
        (Ok(_), Some(_)) => return None,
        (Err(error), None) => return Some(format!("refused: {error}")),
        (Err(error), Some(refusal)) => {
            let said = regex::Regex::new(&format!("(?i){}", refusal.says)).unwrap();
            if !said.is_match(&error.to_string()) {
                return Some(format!("it says {error}\nand not {}", refusal.says));
            }
            let at = error.location.as_ref().map(|l| (l.line, l.end_line));
            let wanted = refusal.line.or(line.map(|l| l as u32));
            let fits = wanted.is_none_or(|w| at.is_some_and(|(a, b)| (a..=b).contains(&w)));
            return (!fits).then(|| format!("line {at:?}, not {wanted:?}: {error}"));
        }
    };
    let config = normal(&serde_json::to_value(&plan.config.config).unwrap());
    let wanted = normal(&expected["config"]);
    if config != wanted {
        return Some(format!("config {config:#?}\nnot {wanted:#?}"));
    }
    let strip = |text: &str| text.strip_suffix(" # buildkit").unwrap_or(text).to_owned();
    let history: Vec<String> = common::history(&plan).iter().map(|h| strip(h)).collect();
    let wanted: Vec<&str> =
        expected["history"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    // A layer that turns out empty is marked so at the export.
    let alike = |a: &String, b: &&str| a == b || a[1..] == b[1..] && a.starts_with('+');
    if history.len() != wanted.len() || !history.iter().zip(&wanted).all(|(a, b)| alike(a, b)) {
        return Some(format!("history {history:#?}\nnot {wanted:#?}"));
    }
    let layers = plan.config.history.iter().filter(|h| h.comment.is_some() && !h.empty_layer);
    assert_eq!(layers.count(), plan.layer_nodes.len(), "{}", folder.display());
    None
}

#[test]
fn config_and_history_are_buildkits() {
    let known = fs::read_to_string(root().join("known-differences.toml")).unwrap_or_default();
    let mut failures = Vec::new();
    let mut count = 0;
    for folder in fs::read_dir(root().join("cases")).unwrap() {
        let folder = folder.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let expected = fs::read_to_string(root().join(format!("expected/{name}.json")));
        let Ok(text) = expected.map(|text| text.replace("{registry}", REGISTRY)) else { continue };
        count += 1;
        let expected: Value = serde_json::from_str(&text).unwrap();
        if let Some(difference) = difference(&folder, &expected)
            && !known.contains(&format!("\"{name}\""))
        {
            failures.push(format!("== {name}: {difference}"));
        }
    }
    assert!(count >= 100, "only {count} cases were found");
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}
