//! Lowers Dockerfiles to graphs, as BuildKit's dockerfile frontend 1.x reads them.
//!
//! A file goes through [`lexer`] (logical lines), [`parse`] (typed instructions) and `lower`
//! (stages, variables, graph, config and history). Nothing here does I/O: base images, ignore files
//! and the Dockerfile itself are asked for ([`ashlar_core::frontend::Question`]).
//!
//! Source of truth: the Dockerfile reference, <https://docs.docker.com/reference/dockerfile/>, and
//! the behaviour of BuildKit where the reference is silent.

pub mod expand;
pub mod ignore;
pub mod lexer;
pub mod limits;
mod lint;
mod lower;
mod outline;
pub mod parse;
mod request;
pub mod source;
mod suggest;

use ashlar_core::frontend::{Answers, Diagnostic, Frontend, Lowered};

pub use ignore::IgnoreMatcher;
pub use lint::Rule;
pub use outline::{ArgOutline, Outline, SecretOutline, StageOutline, outline, read};
pub use request::{Entitlement, NamedContext, NoCache, Request, Source};

/// Lowers one Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct DockerfileFrontend {
    request: Request,
}

impl DockerfileFrontend {
    /// Takes what is to be built.
    pub const fn new(request: Request) -> Self {
        Self { request }
    }

    /// Returns what is to be built.
    pub const fn request(&self) -> &Request {
        &self.request
    }
}

impl Frontend for DockerfileFrontend {
    fn name(&self) -> &'static str {
        "dockerfile"
    }

    fn lower(&self, answers: &Answers) -> Result<Lowered, Box<Diagnostic>> {
        lower::lower(&self.request, answers)
    }
}
