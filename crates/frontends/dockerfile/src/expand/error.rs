//! Why a word cannot be expanded.

use crate::limits::EXPANSION_DEPTH_MAX;

/// A word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote has no end.
    #[error("unexpected end of statement while looking for matching {0}")]
    Unterminated(&'static str),
    /// `${` has no end.
    #[error("syntax error: missing '{0}' in ${{}}")]
    Missing(char),
    /// `${}` or the like.
    #[error("syntax error: bad substitution")]
    Bad,
    /// An operator inside `${}` that does not exist.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// A pattern that cannot be used.
    #[error("invalid pattern ({0}) in substitution: {1}")]
    Pattern(String, String),
    /// `${x?message}` of a variable that is not set.
    #[error("{0}: {1}")]
    Required(String, String),
    /// The result is too long.
    #[error("the expanded text is longer than {0} bytes")]
    TooLong(usize),
    /// Too many expansions inside each other.
    #[error("substitutions are nested deeper than {EXPANSION_DEPTH_MAX}")]
    TooDeep,
}
