//! A plan's last step: a process that must come up on the result.

use ashlar_core::frontend::{Diagnostic, Plan, Step};
use ashlar_core::graph::{Background, Exec, NodeMeta, Op, StepId};
use ashlar_core::image::History;

use crate::StartCommand;

/// What programs are looked up in when the image names no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lets a plan end with a start command.
pub(crate) fn add_start(plan: &mut Plan, start: &StartCommand) -> Result<(), Box<Diagnostic>> {
    let exec = exec(plan, start);
    let number = plan.steps.iter().map(|s| s.id.0).max().unwrap_or(0) + 1;
    let (id, name) = (StepId(number), format!("START {}", start.command));
    let meta = NodeMeta { name: name.clone(), step: Some(id), ..NodeMeta::default() };
    let node = plan.graph.add(Op::Exec(Box::new(exec)), vec![plan.target], meta);
    let node = node.map_err(|e| Box::new(Diagnostic::new(e.to_string())))?;
    plan.steps.push(Step { id, name: name.clone(), location: None, node: Some(node) });
    plan.config.history.push(History { created_by: Some(name), ..History::default() });
    plan.layer_nodes.push(node);
    plan.target = node;
    Ok(())
}

fn exec(plan: &Plan, start: &StartCommand) -> Exec {
    let run = &plan.config.config;
    let split = |e: &String| e.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()));
    let mut env: Vec<(String, String)> = run.env.iter().filter_map(split).collect();
    if !env.iter().any(|(name, _)| name == "PATH") {
        env.insert(0, ("PATH".into(), PATH_DEFAULT.into()));
    }
    let cwd = start.workdir.clone().unwrap_or_else(|| run.working_dir.clone());
    let cwd = if cwd.is_empty() { "/".to_owned() } else { cwd };
    let background = Background {
        name: start.command.clone(),
        args: vec!["/bin/sh".into(), "-c".into(), start.command.clone()],
        env: start.envs.clone().into_iter().collect(),
        cwd: cwd.clone(),
        user: start.user.clone().unwrap_or_else(|| run.user.clone()),
        probe: start.readiness.clone(),
    };
    // The command itself has nothing to do: it begins when the process is ready.
    let args = vec!["/bin/sh".into(), "-c".into(), ":".into()];
    let user = background.user.clone();
    Exec { args, env, cwd, user, background: vec![background], ..Exec::default() }
}
