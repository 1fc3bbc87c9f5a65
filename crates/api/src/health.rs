//! For whoever watches the server: alive, ready, numbers.

use ashlar_service::Error;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus::{TEXT_FORMAT, TextEncoder};
use serde_json::{Value, json};

use crate::Problem;
use crate::app::Shared;

/// The process answers.
pub(crate) async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The process can take builds: the database answers and no drain is under way.
pub(crate) async fn ready(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    shared.service.check_ready().await?;
    Ok(Json(json!({ "status": "ok" })))
}

/// Numbers in Prometheus' text format 0.0.4. A database that does not answer is no reason to hide
/// the others: that is when somebody looks.
pub(crate) async fn metrics(State(shared): State<Shared>) -> Result<Response, Problem> {
    if let Err(error) = shared.service.update_metrics().await {
        tracing::warn!(error = error.internal_text(), "numbers of the database are old");
    }
    let families = shared.service.metrics_registry().gather();
    let text = TextEncoder::new().encode_to_string(&families).map_err(Error::internal)?;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}
