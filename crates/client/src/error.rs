//! What can go wrong with a server, in words for the one who typed the command.

use std::io;
use std::path::PathBuf;

use reqwest::StatusCode;
use serde::Deserialize;

/// A call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("'{text}' is not the address of a server: {why}; write e.g. http://127.0.0.1:7070")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The token or another header has characters that no header has.
    #[error("the {0} has characters that cannot be sent; give it without blanks and line ends")]
    Header(&'static str),
    /// The certificates cannot be read.
    #[error("cannot use the CA bundle {}", path.display())]
    CaBundle {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The network cannot be used at all.
    #[error("cannot set up the network")]
    SetUp(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nobody answered, or the connection broke.
    #[error("cannot reach the server at {server}; is `ashlar serve` running there?")]
    Unreachable {
        /// The address.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The token is missing, unknown, expired or revoked.
    #[error("{server} refused the token: {detail}; set ASHLAR_TOKEN or --token to a good one")]
    Token {
        /// The address.
        server: String,
        /// What the server said.
        detail: String,
    },
    /// The server said no.
    #[error("{0}")]
    Refused(Problem),
    /// Something else answers there.
    #[error(
        "{url} is not an Ashlar server's API ({found}); give --server the address that `ashlar \
         serve` prints, without a dialect's path"
    )]
    NotAshlar {
        /// What was asked.
        url: String,
        /// What came.
        found: String,
    },
    /// The answer has another form than this program knows.
    #[error("the server's answer about {what} cannot be read; is it of another version?")]
    Unreadable {
        /// What it was about.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of this machine cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The caller's [`crate::Stop`] said so.
    #[error("stopped")]
    Stopped,
}

impl Error {
    /// Says whether what was typed is wrong, and not what the server or the network did.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Address { .. } | Self::Header(_) | Self::NotAshlar { .. })
            || matches!(self, Self::Refused(problem) if problem.status == 400)
    }

    /// Says whether the same call may succeed a moment later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => problem.status >= 500 || problem.status == 429,
            _ => false,
        }
    }

    pub(crate) fn unreadable(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unreadable { what, source: source.into() }
    }
}

/// A problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// The problem in words, the same for all of its kind.
    #[serde(default)]
    pub title: String,
    /// The status code.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The part of the request that is wrong.
    #[serde(default)]
    pub field: Option<String>,
}

/// The longest text of an error that is kept, in bytes.
const DETAIL_BYTES_MAX: usize = 4096;

/// Turns an answer that is no success into an error.
pub(crate) fn refused(
    server: &str,
    url: &str,
    status: StatusCode,
    kind: &str,
    body: &[u8],
) -> Error {
    let body = &body[..body.len().min(DETAIL_BYTES_MAX)];
    let problem = kind.starts_with("application/problem+json");
    let problem = problem.then(|| serde_json::from_slice::<Problem>(body).ok()).flatten();
    match problem {
        Some(problem) if status == StatusCode::UNAUTHORIZED => {
            Error::Token { server: server.to_owned(), detail: problem.detail }
        }
        // The server's own answer where it has no route: a path that is a dialect's, or a typo.
        Some(problem) if status == StatusCode::NOT_FOUND && problem.detail.contains("resource") => {
            Error::NotAshlar { url: url.to_owned(), found: "it has no such route".into() }
        }
        Some(problem) => Error::Refused(problem),
        None if status.is_server_error() => Error::Refused(Problem {
            title: String::new(),
            status: status.as_u16(),
            detail: format!("{server} answers {status}"),
            field: None,
        }),
        None => Error::NotAshlar { url: url.to_owned(), found: format!("it answers {status}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, kind: &str, body: &str) -> Error {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        refused("http://s", "http://s/x/api/v1/builds", status, kind, body.as_bytes())
    }

    #[test]
    fn refusals_are_told_apart() {
        const PROBLEM: &str = "application/problem+json";
        let text = |status: u16, detail: &str| {
            format!(r#"{{"type":"t","title":"T","status":{status},"detail":"{detail}"}}"#)
        };
        let expired = of(401, PROBLEM, &text(401, "the token is expired"));
        assert!(matches!(&expired, Error::Token { .. }) && !expired.is_usage(), "{expired}");
        assert!(expired.to_string().contains("ASHLAR_TOKEN"), "{expired}");
        let gone = of(404, PROBLEM, &text(404, "there is no build x"));
        assert_eq!(gone.to_string(), "there is no build x");
        let wrong = of(404, "text/html", "<html>");
        assert!(wrong.is_usage() && wrong.to_string().contains("dialect"), "{wrong}");
        assert!(of(400, PROBLEM, &text(400, "q: wrong")).is_usage());
        assert!(of(503, PROBLEM, &text(503, "draining")).may_pass());
        assert!(of(502, "text/html", "bad gateway").may_pass());
    }
}
