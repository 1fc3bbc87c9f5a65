//! The scheduler of graphs' vertices: a pure state machine without threads, I/O or a clock.
//!
//! A [`Solver`] schedules the nodes of any number of builds at once. It is told what happened
//! ([`Solver::event`]) and says what to do next ([`Solver::poll_actions`]); whoever owns it runs
//! the threads. So every ordering can be tested without a container.
//!
//! # How a vertex goes
//! A *vertex* is the work of one node, or of equal nodes of several builds:
//!
//! ```text
//! Waiting ─► Resolving ──────────────────────────► Done | Failed     sources
//!        └─► LookingUp ─► hit ────────────────────► Done             from the cache
//!                     └─► miss ─► Ready ─► Running ─► Done | Failed
//!                             └─► Following ────────► as its leader   same key is being run
//!        └─► Ready ...                                               bypassed and effects
//! ```
//!
//! A look-up needs only the *outputs* of the inputs (names of trees), never their files: look-ups
//! go from the sources towards the target and nothing runs before the first miss. Since keys are
//! made of outputs, a step that ran again and made the same tree lets all that follows hit.
//!
//! # What is shared
//! - Equal nodes with the same input vertices are one vertex for all builds of a [`ShareGroup`].
//!   Sources whose content the operation does not fix (contexts, branches, unchecked downloads)
//!   belong to one build; so do nodes with a bypass. An effect is never shared at all.
//! - Vertices whose look-ups missed with the same key: the first runs and the others follow it.
//! - A vertex runs on while any build wants it. When nobody does, [`Action::Cancel`] is given and
//!   the build ends when the caller says that the work has ended.
//!
//! A failure ends every build that wants the vertex: nothing new of theirs starts, siblings that
//! nobody else wants are cancelled, and what was done stays done (by the cache).
//!
//! # What the caller owes
//! - For each [`Action::Resolve`], [`Action::Lookup`] and [`Action::Run`] exactly one ending
//!   event, after [`Action::Cancel`] too: any ending event does then.
//! - A result is in the cache *before* [`Event::Finished`] is given, so that later look-ups find it.
//! - The build named in a [`Job`] lends its secrets, limits and context; when that build ends and
//!   another still wants the work, they are kept until the job's ending event.
//!
//! ```
//! use ashlar_core::graph::{Graph, NodeMeta, Op};
//! use ashlar_solver::*;
//!
//! let mut graph = Graph::new();
//! let target = graph.add(Op::Scratch, vec![], NodeMeta::default())?;
//! let mut solver: Solver<&str, String> = Solver::new(SolverLimits::for_cores(2));
//! solver.add_build(BuildRequest::new(BuildKey(1), &graph, target))?;
//! let mut outcome = None;
//! while outcome.is_none() {
//!     for action in solver.poll_actions() {
//!         match action {
//!             // Real callers hand these to threads, and give the event when the thread is done.
//!             Action::Resolve(job) | Action::Run(job) => {
//!                 solver.event(Event::Finished { vertex: job.vertex, output: "tree" })?;
//!             }
//!             Action::Lookup(job) => solver.event(Event::Miss { vertex: job.vertex, key: None })?,
//!             Action::Cancel { vertex } => solver.event(Event::Cancelled { vertex })?,
//!             Action::Report { .. } => {}
//!             Action::BuildDone { outcome: o, .. } => outcome = Some(o),
//!         }
//!     }
//! }
//! assert_eq!(outcome, Some(Outcome::Succeeded { output: "tree" }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod build;
mod finish;
mod limits;
mod messages;
mod ready;
mod release;
mod share;
mod solver;
mod vertex;

pub use build::{BuildRequest, Progress};
pub use limits::SolverLimits;
pub use messages::{Action, Event, How, Job, Outcome, Report};
pub use share::ShareGroup;
pub use solver::{AddError, EventError, Solver};

/// The caller's name of one build; free again when the build is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildKey(pub u64);

/// One vertex. Never used again, so that late news of an old one can't be taken for a new one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(pub u64);
