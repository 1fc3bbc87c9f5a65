//! Runs of builds: a parent build of kind `workflow` whose nodes are builds of their own.
//!
//! A run is accepted, listed, followed, cancelled and retried as any build is; its scope's policy
//! says what a new run means for those that are there. A worker claims it ([`driver`]), starts the
//! nodes whose turn it is ([`node`]) and waits for their builds. What became of each node is a note
//! in the run's journal, and the state of the run is the fold of those notes ([`progress`]): the
//! next worker goes on where a lost one was. A node's build has its id before it is submitted, and
//! that it was accepted is noted too, so neither a crash in between nor a deletion doubles anything.
//!
//! A dialect with nodes that are no builds, or whose builds depend on what earlier nodes came to,
//! registers a [`NodeDriver`].

mod arguments;
mod definition;
mod driver;
mod node;
mod progress;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ashlar_core::journal::{BuildKind, Mode};
use serde_json::Value;

pub use definition::{NODES_MAX, Node, NodeBuild, When, Work as NodeWork, Workflow};
pub(crate) use driver::Runs;
pub use progress::{NodeState, NodeStatus, Progress};

use crate::{Actor, Error, Recipe, Record, Service, SubmitRequest};

/// A future that a trait's method returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a node came to be when it was begun.
#[derive(Debug)]
pub enum Begun {
    /// A build; the node ends with it. Its id, parent and retried build are set by the service.
    Build(Box<SubmitRequest>),
    /// The node has done its work; what it came to is for later nodes and for views.
    Done(Value),
    /// The node has nothing to do; what needs it goes on as if it had succeeded.
    Passed,
}

/// A run as its nodes see it.
#[derive(Debug)]
pub struct Run<'a> {
    /// Its record, with the definition.
    pub record: &'a Record,
    /// Who submitted it; its nodes are begun in that name.
    pub actor: &'a Actor,
    /// What its nodes have come to.
    pub progress: &'a Progress,
}

/// Begins the nodes of one dialect's runs that are not plain builds.
pub trait NodeDriver: Send + Sync {
    /// Begins a node whose turn it is. After a crash it may be called again for the same attempt of
    /// a node, so what it does must bear repetition; a build is submitted once all the same.
    ///
    /// [`Error::Unavailable`] means that the node is begun again a little later; any other error
    /// fails the attempt, with its public text.
    fn begin<'a>(
        &'a self,
        service: &'a Arc<Service>,
        run: &'a Run<'a>,
        node: &'a Node,
        attempt: u32,
    ) -> BoxFuture<'a, Result<Begun, Error>>;
}

/// Checks that kind and recipe fit each other, and that a workflow can be run.
pub(crate) fn check(request: &mut SubmitRequest) -> Result<(), Error> {
    let is_run = request.kind == BuildKind::Workflow && request.mode == Mode::Managed;
    match &mut request.definition.recipe {
        Recipe::Workflow(workflow) if is_run => {
            workflow.prepare(&request.scope)?;
            // A run does nothing itself: it goes on as often as its worker is lost.
            request.on_lost = crate::OnLost::Requeue { attempts_max: u32::MAX };
            Ok(())
        }
        Recipe::Workflow(_) => Err(Error::invalid("kind", "a workflow is of kind 'workflow'")),
        _ if is_run => Err(Error::invalid("kind", "a build of kind 'workflow' needs nodes")),
        _ => Ok(()),
    }
}
