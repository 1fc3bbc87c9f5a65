//! Begins single nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_core::identity::Role;
use ashlar_records::{Error as StoreError, Secret, new_build_id, now};

use super::definition::{Node, NodeBuild, Work};
use super::progress::Progress;
use super::{Begun, Run};
use crate::{
    Actor, Error, Recipe, Record, RegistryCredential, Service, SubmitRequest, credentials, hidden,
};

/// What a run's submission brought for its nodes' builds.
#[derive(Default)]
pub(super) struct Sealed {
    secrets: Vec<(String, Secret)>,
    credentials: Vec<(String, RegistryCredential)>,
    /// Values of build variables, whose hashes the definitions hold.
    hidden: Option<Secret>,
}

impl Sealed {
    /// Sorts a run's secrets by what they are.
    pub(super) fn of(secrets: Vec<(String, Secret)>) -> Result<Self, Error> {
        let (hidden, secrets): (Vec<_>, Vec<_>) =
            secrets.into_iter().partition(|(id, _)| *id == hidden::id());
        let mut plain: BTreeMap<String, Vec<u8>> =
            secrets.into_iter().map(|(id, value)| (id, value.expose().to_vec())).collect();
        let credentials = credentials::take(&mut plain)?.into_iter().collect();
        let secrets = plain.into_iter().map(|(id, value)| (id, Secret::new(value))).collect();
        let hidden = hidden.into_iter().next().map(|(_, value)| value);
        Ok(Self { secrets, credentials, hidden })
    }
}

impl Service {
    /// Returns in whose name a run's nodes are begun.
    pub(crate) async fn actor_of(&self, record: &Record) -> Result<Actor, Error> {
        let s = &record.submission;
        let tenant = self.store().tenant(s.tenant).await?;
        let tenant = tenant.ok_or_else(|| Error::not_found("tenant", s.tenant))?;
        let principal = self.store().principal(s.principal).await?;
        let principal = principal.ok_or_else(|| Error::not_found("principal", s.principal))?;
        Ok(Actor { tenant, principal, role: Role::Developer, token: None })
    }

    /// Says what a node is to be: asks the dialect where only it knows.
    pub(super) async fn begin_node(
        self: &Arc<Self>,
        run: &Run<'_>,
        node: &Node,
        attempt: u32,
        sealed: &Sealed,
    ) -> Result<Begun, Error> {
        match &node.work {
            Work::Join => Ok(Begun::Passed),
            Work::Build(build) => {
                let request = plain_build(run, node, build, sealed)?;
                Ok(Begun::Build(Box::new(request)))
            }
            Work::Custom { .. } => {
                let dialect = &run.record.submission.dialect;
                let driver = self.runs().driver(dialect).ok_or_else(|| {
                    Error::Conflict(format!("this server does not know nodes of '{dialect}'"))
                })?;
                driver.begin(self, run, node, attempt).await
            }
        }
    }

    /// Submits a node's build under the id that was noted for it, unless that was done before.
    pub(super) async fn submit_node(
        &self,
        run: &Run<'_>,
        mut request: SubmitRequest,
        build: BuildId,
        retry_of: Option<BuildId>,
    ) -> Result<(), Error> {
        match self.store().row(build).await {
            Ok(_) => return Ok(()),
            Err(StoreError::NoSuchBuild(_)) => {}
            Err(error) => return Err(error.into()),
        }
        request.build = Some(build);
        request.parent = Some(run.record.submission.build);
        request.retry_of = retry_of;
        let refused = match self.submit(run.actor, request).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // A driver that was given up just now may have submitted it.
        let own = Some(run.record.submission.build);
        match self.store().row(build).await {
            Ok(row) if row.submission.parent == own => Ok(()),
            _ => Err(refused),
        }
    }
}

/// Draws the id of a node's next build.
pub(super) fn draw_id() -> Result<BuildId, Error> {
    Ok(new_build_id(now())?)
}

fn plain_build(
    run: &Run<'_>,
    node: &Node,
    build: &NodeBuild,
    sealed: &Sealed,
) -> Result<SubmitRequest, Error> {
    let s = &run.record.submission;
    let mut definition = build.definition.clone();
    if let (Some(on), Recipe::OnBuild { base, .. }) = (&build.on, &mut definition.recipe) {
        *base = image_of(run.progress, on)?;
    }
    let name = build.name.as_deref().unwrap_or(&node.id);
    let scope = build.scope_of(&s.scope, &node.id);
    let mut request = SubmitRequest::new(&s.dialect, &scope, name, definition);
    request.backend.clone_from(&build.backend);
    request.labels.clone_from(&build.labels);
    request.priority = s.priority;
    let wanted = sealed.secrets.iter().filter(|(id, _)| build.secrets.contains(id));
    request.secrets = wanted.cloned().collect();
    request.credentials.clone_from(&sealed.credentials);
    request.hidden.clone_from(&sealed.hidden);
    Ok(request)
}

fn image_of(progress: &Progress, node: &str) -> Result<BuildId, Error> {
    let build = progress.of(node).build;
    build.ok_or_else(|| Error::invalid("on", format!("the node '{node}' has built nothing")))
}
