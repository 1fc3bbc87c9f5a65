//! The read-only registry: built images for `docker pull`, `skopeo copy` and other registries.
//!
//! Source: OCI distribution spec 1.1, "Pull"; the token flow of Docker's registry clients. Images
//! lie under `TENANT/NAME:TAG` where `NAME:TAG` is a tag of the native API, and under
//! `TENANT/builds:BUILD`. A manifest is made when it is first asked for.

mod errors;
mod names;

use ashlar_core::Digest;
use ashlar_http::Origin;
use ashlar_service::{Actor, BUILDS, Error, Packaged};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::{Problem, auth, files};
use errors::Refusal;
use names::Target;

/// The largest manifest that is answered with, in bytes.
const MANIFEST_BYTES_MAX: u64 = 8 << 20;
/// What who comes without a token hears.
const NO_TOKEN: &str = "authentication required";
/// Tags of one answer at most; `Link` leads to the rest. One more is read than is answered.
const TAGS_MAX: u32 = 500;
/// Seconds after which a client asks for its token again.
const TOKEN_SECONDS: u64 = 3600;

/// `GET /v2/`: says that this is a registry, to those who may read.
pub(crate) async fn hello(
    State(shared): State<Shared>,
    origin: Origin,
    headers: HeaderMap,
) -> Response {
    match caller(&shared, &headers).await {
        Ok(_) => (version(), Json(json!({}))).into_response(),
        Err(refusal) => refusal.with(&origin),
    }
}

fn version() -> [(HeaderName, HeaderValue); 1] {
    let name = HeaderName::from_static("docker-distribution-api-version");
    [(name, HeaderValue::from_static("registry/2.0"))]
}

/// `GET /v2/token`: gives a client that came with a password the token to go on with, which is
/// the password: Ashlar's tokens are bearer tokens already.
pub(crate) async fn token(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let answer = async {
        let token = auth::token(&headers).ok_or_else(|| shared.service.unknown(NO_TOKEN))?;
        shared.service.authenticate(&token).await.map_err(Refusal::from)?;
        Ok::<_, Refusal>(Json(json!({
            "token": token,
            "access_token": token,
            "expires_in": TOKEN_SECONDS,
        })))
    };
    match answer.await {
        Ok(json) => json.into_response(),
        // Here the client has to send a password, not to fetch a token.
        Err(refusal) => refusal.basic(),
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    n: Option<u32>,
    #[serde(default)]
    last: String,
}

/// `GET` and `HEAD` of manifests, blobs and lists of tags.
pub(crate) async fn read(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    page: Result<Query<Page>, QueryRejection>,
    method: Method,
    origin: Origin,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let actor = caller(&shared, &headers).await?;
        if method != Method::GET && method != Method::HEAD {
            return Err(Refusal::unsupported());
        }
        let path = path.map_err(|_| Refusal::no_name())?.0;
        let page = page.map_err(Problem::from)?.0;
        let (tenant, target) = names::parse(&path).ok_or_else(Refusal::no_name)?;
        let actor = shared.service.act_for(&actor, tenant).await?;
        let with_body = method == Method::GET;
        match target {
            Target::Manifest { name, reference } => {
                let packaged = manifest(&shared, &actor, name, reference).await?;
                Ok(match has_it(&headers, &packaged.digest) {
                    true => not_modified(&packaged.digest),
                    false => manifest_response(packaged, with_body),
                })
            }
            Target::Blob { digest } => {
                let digest: Digest = digest.parse().map_err(|_| Refusal::no_blob())?;
                let (file, size) = shared
                    .service
                    .open_blob(&actor, digest)
                    .await
                    .map_err(|e| Refusal::of(e, Refusal::no_blob))?;
                if has_it(&headers, &digest) {
                    return Ok(not_modified(&digest));
                }
                let kind = "application/octet-stream";
                let mut response = files::answer(file, size, kind, &headers, with_body)?;
                put_digest(&mut response, &digest);
                Ok(response)
            }
            Target::Tags { name } => tags(&shared, &actor, name, &page, &origin).await,
        }
    };
    match answer.await {
        Ok(response) => (version(), response).into_response(),
        Err(refusal) => refusal.with(&origin),
    }
}

async fn caller(shared: &Shared, headers: &HeaderMap) -> Result<Actor, Refusal> {
    let actor = match auth::token(headers) {
        Some(token) => shared.service.authenticate(&token).await,
        None => Err(shared.service.unknown(NO_TOKEN)),
    };
    Ok(actor?)
}

/// Answers a method that no path of the registry has; which it has is said in `Allow`.
pub(crate) async fn no_method() -> Response {
    (version(), Refusal::unsupported()).into_response()
}

async fn manifest(
    shared: &Shared,
    actor: &Actor,
    name: &str,
    reference: &str,
) -> Result<Packaged, Refusal> {
    let none = |e: Error| Refusal::of(e, Refusal::no_manifest);
    let service = &shared.service;
    if let Ok(digest) = reference.parse::<Digest>() {
        let manifest = service.read_blob(actor, digest, MANIFEST_BYTES_MAX).await.map_err(none)?;
        let document: Value =
            serde_json::from_slice(&manifest).map_err(|_| Refusal::no_manifest())?;
        let media_type = document["mediaType"].as_str().ok_or_else(Refusal::no_manifest)?;
        return Ok(Packaged { digest, media_type: media_type.to_owned(), manifest });
    }
    let build = match name {
        BUILDS => reference.parse().map_err(|_| Refusal::no_manifest())?,
        name => service.resolve_tag(actor, &format!("{name}:{reference}")).await.map_err(none)?,
    };
    let record = service.row(actor, build).await.map_err(none)?;
    if record.submission.tenant != actor.tenant.id {
        return Err(Refusal::no_manifest());
    }
    service.package(actor, build).await.map_err(none)
}

fn manifest_response(packaged: Packaged, with_body: bool) -> Response {
    let length = packaged.manifest.len();
    let body = if with_body { Body::from(packaged.manifest) } else { Body::empty() };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::from_str(&packaged.media_type) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    put_digest(&mut response, &packaged.digest);
    response
}

fn put_digest(response: &mut Response, digest: &Digest) {
    if let Ok(value) = HeaderValue::from_str(&digest.to_string()) {
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("docker-content-digest"), value);
    }
    if let Ok(tag) = HeaderValue::from_str(&entity_tag(digest)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
}

/// Returns a digest as RFC 9110 (8.8.3) writes what tells one content from another.
fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Says whether the client has the content already (RFC 9110, 13.1.2).
fn has_it(headers: &HeaderMap, digest: &Digest) -> bool {
    let wanted = entity_tag(digest);
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == wanted)
}

fn not_modified(digest: &Digest) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    put_digest(&mut response, digest);
    response
}

async fn tags(
    shared: &Shared,
    actor: &Actor,
    name: &str,
    page: &Page,
    origin: &Origin,
) -> Result<Response, Refusal> {
    let prefix = format!("{name}:");
    let after = if page.last.is_empty() { String::new() } else { format!("{prefix}{}", page.last) };
    let limit = page.n.unwrap_or(TAGS_MAX).min(TAGS_MAX);
    // One more says whether there is another page.
    let mut found = shared.service.tags(actor, &prefix, &after, limit + 1).await?;
    if found.is_empty() && page.last.is_empty() {
        return Err(Refusal::no_name());
    }
    let is_last = found.len() <= limit as usize;
    found.truncate(limit as usize);
    let tags: Vec<&str> = found.iter().filter_map(|(t, _)| t.strip_prefix(&prefix)).collect();
    let full = format!("{}/{name}", actor.tenant.name);
    let mut response = Json(json!({ "name": full, "tags": tags })).into_response();
    if let (Some(last), false) = (tags.last(), is_last) {
        let next = origin.path(&format!("/v2/{full}/tags/list?n={limit}&last={last}"));
        if let Ok(link) = HeaderValue::from_str(&format!("<{next}>; rel=\"next\"")) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}
