//! Parts of paths and queries.

use ashlar_core::{BuildId, Digest, Timestamp};
use ashlar_service::{At, Order, Page};

use crate::Problem;

/// Records of a page when the client does not say.
const LIMIT_DEFAULT: u32 = 50;

/// Reads a build's id.
pub(crate) fn build(text: &str) -> Result<BuildId, Problem> {
    text.parse().map_err(|_| ashlar_service::Error::not_found("build", text).into())
}

/// Reads a digest.
pub(crate) fn digest(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|e| Problem::invalid("digest", e))
}

/// Reads an RFC 3339 time.
pub(crate) fn time(field: &str, text: &str) -> Result<Timestamp, Problem> {
    Timestamp::parse(text).ok_or_else(|| Problem::invalid(field, "is not an RFC 3339 time"))
}

/// Reads which page of a list is wanted.
pub(crate) fn page(
    limit: Option<u32>,
    cursor: Option<&str>,
    number: Option<u64>,
    order: Option<&str>,
) -> Result<Page, Problem> {
    let at = match (cursor, number) {
        (Some(_), Some(_)) => return Err(Problem::invalid("page", "excludes 'cursor'")),
        (Some(text), None) => At::After(text.parse().map_err(|e| Problem::invalid("cursor", e))?),
        (None, Some(0)) => return Err(Problem::invalid("page", "counts from 1")),
        (None, Some(number)) => At::Number(number),
        (None, None) => At::Start,
    };
    let order = match order {
        None | Some("newest") => Order::NewestFirst,
        Some("oldest") => Order::OldestFirst,
        Some(_) => return Err(Problem::invalid("order", "must be 'newest' or 'oldest'")),
    };
    Ok(Page { size: limit.unwrap_or(LIMIT_DEFAULT), at, order })
}
