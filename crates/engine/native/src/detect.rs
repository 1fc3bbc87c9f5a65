//! Answers to a frontend that asks what a command says (buildpack detection).

use std::collections::BTreeSet;
use std::sync::Arc;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::{Answer, Answers, Diagnostic, Frontend, Lowered, Plan};
use ashlar_core::graph::{Graph, NodeId};
use ashlar_core::image::ImageConfig;

use crate::Engine;
use crate::engine::Shared;
use crate::error::internal;
use crate::request::BuildRequest;

/// A frontend whose plan is there already.
struct Ready(Plan);

impl Frontend for Ready {
    fn name(&self) -> &'static str {
        "graph"
    }

    fn lower(&self, _: &Answers) -> Result<Lowered, Box<Diagnostic>> {
        Ok(Lowered::Plan(Box::new(self.0.clone())))
    }
}

/// Runs the graph's last node and returns the files that it hands back.
pub(crate) fn run(
    engine: &Arc<Shared>,
    request: &BuildRequest,
    graph: &str,
) -> Result<Answer, Failure> {
    let graph: Graph = serde_json::from_str(graph).map_err(internal)?;
    let last = graph.nodes().len().checked_sub(1).and_then(|n| u32::try_from(n).ok());
    let target = NodeId(last.ok_or_else(|| {
        Failure::new(FailureKind::Internal, "the frontend asked to run an empty graph")
    })?);
    let plan = Plan {
        graph,
        target,
        config: ImageConfig::default(),
        layer_nodes: Vec::new(),
        steps: Vec::new(),
        warnings: Vec::new(),
    };
    let inner = BuildRequest {
        frontend: Arc::new(Ready(plan)),
        tenant: request.tenant.clone(),
        scope: request.scope.clone(),
        name: format!("{} (detection)", request.name),
        build: request.build.clone(),
        contexts: request.contexts.clone(),
        secrets: request.secrets.clone(),
        hidden: request.hidden.clone(),
        credentials: request.credentials.clone(),
        pull: request.pull,
        ssh: request.ssh.clone(),
        limits: request.limits.clone(),
        network: request.network,
        entitlements: BTreeSet::new(),
        asked: request.asked,
        identity: None,
        epoch: request.epoch,
        sink: request.sink.clone(),
    };
    let cancel = ashlar_sandbox::Cancel::new().map_err(internal)?;
    let engine = Engine { shared: engine.clone() };
    match engine.build(inner, &cancel) {
        Ok(built) => Ok(Answer::Exec { exit_code: 0, files: built.returned }),
        Err(failure) => match failure.exit_code {
            Some(exit_code) => Ok(Answer::Exec { exit_code, files: Default::default() }),
            None => Err(failure),
        },
    }
}
