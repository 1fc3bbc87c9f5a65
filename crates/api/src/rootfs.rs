//! A build's image as a bootable root file system.

use ashlar_service::Error;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::{Problem, files, params};

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    /// The least size of the file system, in MiB.
    size_mib: Option<u64>,
}

/// Makes the file system and sends it.
pub(crate) async fn ext4(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
    headers: HeaderMap,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Problem> {
    let build = params::build(&build)?;
    let bytes = wish?.0.size_mib.map(|mib| mib.saturating_mul(MIB));
    let file = shared.service.rootfs(&actor, build, bytes).await?;
    let size = file.metadata().map_err(Error::internal)?.len();
    files::answer(file, size, "application/octet-stream", &headers, true)
}
