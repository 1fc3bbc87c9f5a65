//! Definitions from JSON, lowered on a base without surprises.

use ashlar_core::frontend::{Answer, Answers, Frontend, Lowered, Plan, Question};
use ashlar_core::graph::{Copy, Exec, FileAction, Node, Op};
use ashlar_core::image::{History, ImageConfig, RunConfig};
use ashlar_core::{Digest, Platform};
use ashlar_frontend_declarative::{Base, Declarative, Definition, Step, parse_steps};
use serde_json::Value;

pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) fn steps(json: &Value) -> Vec<Step> {
    parse_steps(json).unwrap_or_else(|e| panic!("{e:?}")).steps
}

pub(crate) fn definition(json: &Value) -> Definition {
    Definition::new(Base::Image("debian".into()), steps(json))
}

pub(crate) fn base_config() -> ImageConfig {
    let env = vec![format!("PATH={PATH}"), "LANG=C.UTF-8".into()];
    ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        config: RunConfig { env, cmd: Some(vec!["bash".into()]), ..RunConfig::default() },
        history: vec![History { created_by: Some("base".into()), ..History::default() }],
        ..ImageConfig::default()
    }
}

pub(crate) fn answers(config: ImageConfig) -> Answers {
    let mut answers = Answers::new();
    let reference = "debian".to_owned();
    answers.put(
        Question::Image { reference, platform: Platform::host() },
        Answer::Image {
            reference: "docker.io/library/debian:latest".into(),
            manifest: Digest::of("debian"),
            config: Box::new(config),
        },
    );
    answers
}

pub(crate) fn lower(definition: Definition) -> Plan {
    lower_on(definition, base_config())
}

pub(crate) fn lower_on(definition: Definition, config: ImageConfig) -> Plan {
    match Declarative(definition).lower(&answers(config)) {
        Ok(Lowered::Plan(plan)) => *plan,
        other => panic!("no plan but {other:?}"),
    }
}

pub(crate) fn lower_json(json: &Value) -> Plan {
    lower(definition(json))
}

/// The nodes of steps, in order.
pub(crate) fn step_nodes(plan: &Plan) -> Vec<&Node> {
    plan.steps.iter().filter_map(|s| s.node).map(|n| plan.graph.node(n)).collect()
}

pub(crate) fn execs(plan: &Plan) -> Vec<&Exec> {
    let ops = step_nodes(plan).into_iter().map(|n| &n.op);
    ops.filter_map(|op| if let Op::Exec(exec) = op { Some(&**exec) } else { None }).collect()
}

pub(crate) fn commands(plan: &Plan) -> Vec<&str> {
    let command = |e: &&Exec| {
        assert_eq!(e.args[..2], ["/bin/sh", "-c"]);
        e.args.len() == 3
    };
    execs(plan).into_iter().filter(command).map(|e| e.args[2].as_str()).collect()
}

pub(crate) fn copies(plan: &Plan) -> Vec<&Copy> {
    let ops = step_nodes(plan).into_iter().map(|n| &n.op);
    let actions = ops.filter_map(|op| match op {
        Op::File { actions } => Some(actions),
        _ => None,
    });
    let copies = actions.flatten().filter_map(|action| match action {
        FileAction::Copy(copy) => Some(&**copy),
        _ => None,
    });
    copies.collect()
}
