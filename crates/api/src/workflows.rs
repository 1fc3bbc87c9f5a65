//! Runs of builds: `POST /api/v1/workflows`, and where a run's nodes are.

use std::collections::BTreeMap;

use ashlar_service::{
    BuildKind, Definition, Node, NodeBuild, NodeStatus, NodeWork, Recipe, Secret, SubmitRequest,
    When, Workflow,
};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::app::Shared;
use crate::auth::Caller;
use crate::builds::Ask;
use crate::extract::{Body, IdempotencyKey, Path};
use crate::view::BuildView;
use crate::{Problem, params};

/// A run that is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskRun {
    name: Option<String>,
    scope: Option<String>,
    nodes: Vec<AskNode>,
    #[serde(default)]
    sequential: bool,
    parallelism: Option<u32>,
    #[serde(default)]
    arguments: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    #[serde(default)]
    priority: i32,
    idempotency_key: Option<String>,
}

/// One node; without a build it only brings others together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskNode {
    id: String,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    when: When,
    attempts: Option<u32>,
    #[serde(default)]
    optional: bool,
    wait: Option<bool>,
    on: Option<String>,
    #[serde(default)]
    secrets: Vec<String>,
    build: Option<Box<Ask>>,
}

pub(crate) async fn submit(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    key: IdempotencyKey,
    asked: Result<Body<AskRun>, Problem>,
) -> Result<(StatusCode, Json<BuildView>), Problem> {
    let mut request = asked?.0.request()?;
    request.idempotency_key = key.or(request.idempotency_key);
    let accepted = shared.service.submit(&actor, request).await?;
    let status = if accepted.repeated { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(BuildView::whole(&accepted.record))))
}

impl AskRun {
    fn request(self) -> Result<SubmitRequest, Problem> {
        let nodes = self.nodes.into_iter().enumerate();
        let nodes = nodes.map(|(i, node)| node.node(i)).collect::<Result<_, _>>()?;
        let (sequential, parallelism) = (self.sequential, self.parallelism);
        let workflow = Workflow { nodes, sequential, parallelism, arguments: self.arguments };
        let scope = self.scope.unwrap_or_else(|| "default".into());
        let name = self.name.unwrap_or_else(|| scope.clone());
        let definition = Definition::new(Recipe::Workflow(workflow));
        let mut request = SubmitRequest::new("native", &scope, &name, definition);
        request.kind = BuildKind::Workflow;
        request.labels = self.labels;
        request.priority = self.priority;
        request.idempotency_key = self.idempotency_key;
        let secret = |(id, value): (String, String)| (id, Secret::new(value.into_bytes()));
        request.secrets = self.secrets.into_iter().map(secret).collect();
        Ok(request)
    }
}

impl AskNode {
    fn node(self, place: usize) -> Result<Node, Problem> {
        let work = match self.build {
            None => NodeWork::Join,
            Some(ask) => {
                let named = (ask.scope().cloned(), ask.name().cloned());
                let request = ask.for_node(self.on.is_some()).request()?;
                if !request.secrets.is_empty() {
                    let field = format!("nodes[{place}].build.secrets");
                    let why = "values are given to the run, their ids to the node's 'secrets'";
                    return Err(Problem::invalid(&field, why));
                }
                NodeWork::Build(Box::new(NodeBuild {
                    definition: request.definition,
                    on: self.on,
                    scope: named.0,
                    name: named.1,
                    backend: request.backend,
                    labels: request.labels,
                    secrets: self.secrets,
                }))
            }
        };
        Ok(Node {
            id: self.id,
            needs: self.needs,
            when: self.when,
            attempts: self.attempts.unwrap_or(1),
            optional: self.optional,
            wait: self.wait.unwrap_or(true),
            work,
        })
    }
}

/// Where a run's nodes are.
#[derive(Serialize)]
pub(crate) struct Nodes {
    nodes: Vec<NodeView>,
}

#[derive(Serialize)]
struct NodeView {
    id: String,
    needs: Vec<String>,
    #[serde(flatten)]
    status: NodeStatus,
}

pub(crate) async fn nodes(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
) -> Result<Json<Nodes>, Problem> {
    let build = params::build(&build)?;
    let (workflow, progress) = shared.service.run_progress(&actor, build).await?;
    let view =
        |node: Node| NodeView { status: progress.of(&node.id), needs: node.needs, id: node.id };
    Ok(Json(Nodes { nodes: workflow.nodes.into_iter().map(view).collect() }))
}
