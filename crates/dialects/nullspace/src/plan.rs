//! What a request would do, without doing it.

use ashlar_service::Actor;
use ashlar_service::frontends::declarative::{render_dockerfile, shell_quote};
use ashlar_service::frontends::dockerfile::parse::ast::{
    Command, CommandLine, Copying, File, Instruction, Stage,
};
use ashlar_service::frontends::dockerfile::read;
use serde_json::{Value, json};

use crate::app::App;
use crate::errors::{Answer, ApiError};
use crate::prepare::Prepared;
use crate::request::{BuildRequest, Source};
use crate::wire::{BuildPlan, IgnoredInstruction, PlanResponse, ValidationResponse};

impl App {
    /// Says whether a request would be accepted. What is wrong is the answer, not an error.
    pub(crate) async fn validate(&self, actor: &Actor, body: &Value) -> Answer<ValidationResponse> {
        match self.prepare(actor, body).await {
            Ok(prepared) => Ok(ValidationResponse {
                valid: true,
                errors: Vec::new(),
                warnings: prepared.request.warnings,
            }),
            Err(error) if error.status.is_server_error() => Err(error),
            Err(error) => Ok(ValidationResponse {
                valid: false,
                errors: error.problems(),
                warnings: Vec::new(),
            }),
        }
    }

    /// Says what a request would do.
    pub(crate) async fn plan(&self, actor: &Actor, body: &Value) -> Answer<PlanResponse> {
        let prepared = self.prepare(actor, body).await?;
        let build_plan = plan_of(&prepared)?;
        Ok(PlanResponse {
            build_backend: prepared.request.backend.as_str(),
            source_type: prepared.source_type,
            build_plan,
            requires_base_image_auth: prepared.request.has_credentials(),
            source_digest: prepared.source_digest,
            dockerfile_digest: prepared.dockerfile_digest,
            context_manifest: prepared.context.as_ref().map(crate::context::Context::summary),
            warnings: prepared.request.warnings,
        })
    }
}

fn plan_of(prepared: &Prepared) -> Answer<BuildPlan> {
    let request = &prepared.request;
    let (name, text) = match &request.source {
        Source::Dockerfile { text, path } => (path.as_str(), text.clone().unwrap_or_default()),
        Source::Steps { steps, .. } => ("steps", render_dockerfile("base", steps)),
    };
    let file = read(name, &text).map_err(|d| ApiError::invalid(format!("dockerfile: {d}")))?;
    let mut plan = BuildPlan {
        base_template: prepared.base_name(),
        build_envs: request.build_envs.clone(),
        start_cmd: request.start_cmd.clone(),
        readiness: request.runtime.readiness.as_ref().map(|r| r.wire.clone()),
        ..BuildPlan::default()
    };
    let stages = chain(&file, request.target.as_deref());
    if let (Source::Dockerfile { .. }, Some(first)) = (&request.source, stages.first()) {
        plan.base_template.clone_from(&first.base.text);
    }
    for instruction in stages.iter().flat_map(|s| &s.instructions) {
        add(&mut plan, instruction);
    }
    // What the request says itself comes after all that the definition says.
    let runtime = &request.runtime;
    plan.default_user = runtime.user.clone().or(plan.default_user);
    plan.default_workdir = prepared.workdir().or(plan.default_workdir);
    Ok(plan)
}

/// Returns what a Dockerfile's wanted stage starts from, in the end; nothing for other sources.
pub(crate) fn dockerfile_base(request: &BuildRequest) -> Answer<Option<String>> {
    let Source::Dockerfile { text, path } = &request.source else { return Ok(None) };
    let file = read(path, text.as_deref().unwrap_or_default())
        .map_err(|d| ApiError::invalid(format!("dockerfile: {d}")))?;
    Ok(chain(&file, request.target.as_deref()).first().map(|stage| stage.base.text.clone()))
}

/// Returns the stages that the wanted one stands on, itself last.
fn chain<'a>(file: &'a File, target: Option<&str>) -> Vec<&'a Stage> {
    let named = |name: &str, before: usize| {
        let by_name = file.stages[..before]
            .iter()
            .position(|s| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name)));
        by_name.or_else(|| name.parse().ok().filter(|i| *i < before))
    };
    let all = file.stages.len();
    let mut at = target.and_then(|t| named(t, all)).or_else(|| all.checked_sub(1));
    let mut stages = Vec::new();
    while let Some(index) = at {
        let stage = &file.stages[index];
        stages.insert(0, stage);
        // A base is a name of an earlier stage, never an index.
        at = named(&stage.base.text, index).filter(|_| stage.base.text.parse::<usize>().is_err());
    }
    stages
}

fn add(plan: &mut BuildPlan, instruction: &Instruction) {
    let mut step = |kind: &str, value: Value| plan.build_steps.push(json!({ kind: value }));
    match &instruction.command {
        Command::Run(run) => {
            let written_out = !run.heredocs.is_empty();
            let command =
                if written_out { instruction.code().to_owned() } else { shell_of(&run.command) };
            step("Run", command.clone().into());
            plan.run_steps.push(command);
        }
        Command::Env(pairs) => {
            for pair in pairs {
                let (name, value) = (pair.name.text.clone(), pair.value.text.clone());
                plan.build_steps.push(json!({ "Env": [name, value] }));
                plan.env_assignments.push((name, value));
            }
        }
        Command::Workdir(path) => {
            step("Workdir", path.text.clone().into());
            let before = plan.default_workdir.as_deref().unwrap_or("/");
            plan.default_workdir = Some(joined(before, &path.text));
        }
        Command::User(user) => {
            step("User", user.text.clone().into());
            plan.default_user = Some(user.text.clone());
        }
        Command::Copy(copying) => {
            step(if copying.add { "Add" } else { "Copy" }, copy(copying));
        }
        Command::Arg(args) => {
            let names: Vec<&str> = args.iter().map(|a| a.name.as_str()).collect();
            step("Arg", names.into());
        }
        Command::Label(pairs) => {
            let labels = pairs.iter().map(|p| (p.name.text.clone(), p.value.text.clone().into()));
            step("Label", Value::Object(labels.collect()));
        }
        Command::Shell(shell) => step("Shell", shell.clone().into()),
        Command::Cmd(_)
        | Command::Entrypoint(_)
        | Command::Expose(_)
        | Command::Healthcheck(_)
        | Command::Maintainer(_)
        | Command::Onbuild(_)
        | Command::StopSignal(_)
        | Command::Volume(_) => ignore(plan, instruction),
    }
}

/// Returns what a shell is given to run a command.
fn shell_of(command: &CommandLine) -> String {
    match command.args.as_slice() {
        args if command.shell => args.join(" "),
        // How steps are written that the shell form would read otherwise.
        [shell, option, text] if shell == "/bin/sh" && option == "-c" => text.clone(),
        args => args.iter().map(|a| shell_quote(a).to_string()).collect::<Vec<_>>().join(" "),
    }
}

/// Returns where a working directory leads that is given within another.
pub(crate) fn joined(before: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let before = if path.starts_with('/') { "" } else { before };
    for part in before.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn copy(copying: &Copying) -> Value {
    let mut sources: Vec<&str> = copying.sources.iter().map(|w| w.text.as_str()).collect();
    sources.extend(copying.bodies.iter().map(|b| b.name.as_str()));
    let mut value = json!({ "sources": sources, "dst": copying.destination.text });
    let words = [("from", &copying.from), ("user", &copying.chown), ("mode", &copying.chmod)];
    for (key, word) in words {
        if let Some(word) = word {
            value[key] = word.text.clone().into();
        }
    }
    value
}

fn ignore(plan: &mut BuildPlan, instruction: &Instruction) {
    let word = instruction.keyword.text.to_ascii_uppercase();
    plan.ignored_instructions.push(word.clone());
    let line = instruction.line.first;
    plan.ignored_instruction_warnings.push(IgnoredInstruction { instruction: word, line });
}
