//! From a definition to a plan.

use std::collections::BTreeMap;

use ashlar_core::Digest;
use ashlar_core::frontend::{
    Answer, Answers, Diagnostic, Frontend, Lowered, Plan, Question, Step as PlanStep,
};
use ashlar_core::graph::{Graph, GraphError, NodeId, NodeMeta, Op};
use ashlar_core::image::{ImageConfig, RunConfig};

use crate::definition::{Base, Definition};
use crate::fields::{Parse, check_text, error};
use crate::limits::{ENVIRONMENT_BYTES_MAX, STEPS_MAX, VARIABLES_MAX};
use crate::parse::check;
use crate::user::check_user;

mod layers;

use layers::{Layers, environment};

/// The reference that stands for the empty tree.
const SCRATCH: &str = "scratch";

/// What a Dockerfile's steps get when the base names no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The frontend of declarative builds.
#[derive(Debug, Clone, PartialEq)]
pub struct Declarative(pub Definition);

impl Frontend for Declarative {
    fn name(&self) -> &'static str {
        "declarative"
    }

    fn lower(&self, answers: &Answers) -> Result<Lowered, Box<Diagnostic>> {
        let definition = &self.0;
        check_definition(definition)?;
        let base = match base(definition, answers)? {
            Found::Tree(base) => base,
            Found::Question(question) => return Ok(Lowered::Questions(vec![question])),
        };
        Ok(Lowered::Plan(Box::new(plan(definition, base)?)))
    }
}

/// Steps may come from elsewhere than the parser: what it promises is checked again.
fn check_definition(definition: &Definition) -> Parse<()> {
    if definition.steps.len() > STEPS_MAX {
        return Err(error("steps", format!("has more than {STEPS_MAX} entries")));
    }
    for (i, step) in definition.steps.iter().enumerate() {
        check(&format!("steps[{i}]"), step)?;
    }
    check_variables("build_envs", &definition.build_envs)?;
    check_variables("runtime.envs", &definition.runtime.envs)?;
    if let Some(user) = &definition.runtime.user {
        check_user("runtime.user", user)?;
    }
    if let Some(workdir) = &definition.runtime.workdir {
        check_text("runtime.workdir", workdir)?;
    }
    Ok(())
}

fn check_variables(place: &str, variables: &BTreeMap<String, String>) -> Parse<()> {
    if variables.len() > VARIABLES_MAX {
        return Err(error(place, format!("has more than {VARIABLES_MAX} entries")));
    }
    for (name, value) in variables {
        let shown: String = name.escape_debug().take(60).collect();
        let place = format!("{place}['{shown}']");
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(error(place, "a variable's name must not be empty or hold '=' or NUL"));
        }
        if !value.is_empty() {
            check_text(&place, value)?;
        }
    }
    Ok(())
}

/// What the steps start from.
struct BaseImage {
    op: Op,
    config: ImageConfig,
}

enum Found {
    Tree(Box<BaseImage>),
    Question(Question),
}

fn base(definition: &Definition, answers: &Answers) -> Parse<Found> {
    let platform = &definition.platform;
    let image = |reference: &str, manifest: Digest, config: &ImageConfig| {
        let mut config = config.clone();
        config.created = None;
        config.pad_history();
        let op = if config.history.iter().all(|h| h.empty_layer) {
            Op::Scratch
        } else {
            Op::Image { reference: reference.to_owned(), manifest, platform: platform.clone() }
        };
        Found::Tree(Box::new(BaseImage { op, config }))
    };
    let reference = match &definition.base {
        Base::Known { reference, manifest, config } => {
            return Ok(image(reference, *manifest, config));
        }
        Base::Image(reference) if reference == SCRATCH => {
            let mut config = ImageConfig::scratch(platform);
            config.config.working_dir = "/".into();
            return Ok(Found::Tree(Box::new(BaseImage { op: Op::Scratch, config })));
        }
        Base::Image(reference) => reference.clone(),
    };
    check_text("base_image", &reference)?;
    let question = Question::Image { reference, platform: platform.clone() };
    match answers.get(&question) {
        None => Ok(Found::Question(question)),
        Some(Answer::Image { reference, manifest, config }) => {
            Ok(image(reference, *manifest, config))
        }
        Some(Answer::Failed { message }) => Err(error("base_image", message)),
        Some(_) => Err(error("base_image", "got an answer that speaks of no image")),
    }
}

fn plan(definition: &Definition, base: Box<BaseImage>) -> Parse<Plan> {
    let BaseImage { op, mut config } = *base;
    let mut warnings = Vec::new();
    if !std::mem::take(&mut config.config.on_build).is_empty() {
        let message = "the base image has ONBUILD triggers, which only Dockerfile builds run";
        warnings.push(Diagnostic::new(message));
    }
    if config.config.env_value("PATH").is_none() {
        config.config.set_env("PATH", DEFAULT_PATH);
    }
    let mut graph = Graph::new();
    let name = match &op {
        Op::Image { reference, .. } => format!("FROM {reference}"),
        _ => format!("FROM {SCRATCH}"),
    };
    let start = graph.add(op, Vec::new(), NodeMeta { name, ..NodeMeta::default() });
    let start = start.map_err(too_large)?;
    let env = environment(definition, &config);
    check_size(definition, &env)?;
    let mut layers = Layers::new(definition, graph, start, config, env);
    for step in &definition.steps {
        layers.add(step)?;
    }
    let mut done = layers.finish();
    settle_runtime(definition, &mut done.config.config);
    Ok(Plan {
        graph: done.graph,
        target: done.target,
        config: done.config,
        layer_nodes: done.layer_nodes,
        steps: done.steps,
        warnings,
    })
}

fn check_size(definition: &Definition, env: &[(String, String)]) -> Parse<()> {
    let bytes: usize = env.iter().map(|(n, v)| n.len() + v.len()).sum();
    if bytes.saturating_mul(definition.steps.len()) > ENVIRONMENT_BYTES_MAX {
        let mib = ENVIRONMENT_BYTES_MAX >> 20;
        let what = format!("with so many steps, the variables take more than {mib} MiB in all");
        return Err(error("build_envs", what));
    }
    Ok(())
}

fn settle_runtime(definition: &Definition, config: &mut RunConfig) {
    let runtime = &definition.runtime;
    if let Some(user) = &runtime.user {
        config.user.clone_from(user);
    }
    if let Some(workdir) = &runtime.workdir {
        config.working_dir.clone_from(workdir);
    }
    for (name, value) in &runtime.envs {
        config.set_env(name, value);
    }
}

fn too_large(e: GraphError) -> Box<Diagnostic> {
    error("steps", e.to_string())
}

/// What the steps came to.
struct Done {
    graph: Graph,
    target: NodeId,
    config: ImageConfig,
    layer_nodes: Vec<NodeId>,
    steps: Vec<PlanStep>,
}
