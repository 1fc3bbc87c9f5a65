//! The read-only registry: built images for `docker pull`, `skopeo copy` and other registries.
//!
//! Source: OCI distribution spec 1.1, "Pull" and "Listing Referrers"; the token flow of Docker's registry clients. Images
//! lie under `TENANT/NAME:TAG` where `NAME:TAG` is a tag of the native API, and under
//! `TENANT/builds:BUILD`. A manifest is made when it is first asked for.

mod errors;
mod names;

use ashlar_core::Digest;
use ashlar_http::Origin;
use ashlar_service::{Actor, BUILDS, Error, Packaged, RepositoryTags};
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
/// Tags of one answer at most; `Link` leads to the rest.
const TAGS_MAX: u32 = 500;
/// The media type of an image index (OCI image spec).
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

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
/// the password: Ashlar's tokens are bearer tokens already. `expires_in` is how long that one still
/// holds. One that has no end is given none: clients take that for a minute, and ask again.
pub(crate) async fn token(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let answer = async {
        let token = auth::token(&headers).ok_or_else(|| shared.service.unknown(NO_TOKEN))?;
        let actor = shared.service.authenticate(&token).await.map_err(Refusal::from)?;
        let mut given = json!({ "token": token, "access_token": token });
        if let Some(left) = shared.service.token_lifetime(&actor).await.map_err(Refusal::from)? {
            given["expires_in"] = json!(left.as_secs());
        }
        Ok::<_, Refusal>(Json(given))
    };
    match answer.await {
        Ok(json) => json.into_response(),
        // Here the client has to send a password, not to fetch a token.
        Err(refusal) => refusal.basic(),
    }
}

/// The queries of all paths.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    n: Option<String>,
    #[serde(default)]
    last: String,
    artifact_type: Option<String>,
}

/// `GET` and `HEAD` of manifests, blobs and lists of tags and referrers.
pub(crate) async fn read(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    asked: Result<Query<Asked>, QueryRejection>,
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
        let asked = asked.map_err(Problem::from)?.0;
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
                let digest = names::digest(digest)?.ok_or_else(Refusal::no_blob)?;
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
            Target::Tags { name } => tags(&shared, &actor, name, &asked, &origin).await,
            Target::Referrers { digest } => {
                names::digest(digest)?;
                Ok(no_referrers(asked.artifact_type.is_some()))
            }
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
    // No tag has a colon.
    if reference.contains(':') {
        let digest = names::digest(reference)?.ok_or_else(Refusal::no_manifest)?;
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
    asked: &Asked,
    origin: &Origin,
) -> Result<Response, Refusal> {
    let limit = match &asked.n {
        Some(n) => n.parse().map_err(|_| Refusal::bad_page())?,
        None => TAGS_MAX,
    };
    let limit = limit.min(TAGS_MAX);
    let found = shared.service.repository_tags(actor, name, &asked.last, limit).await?;
    let RepositoryTags { tags, next } = found.ok_or_else(Refusal::no_name)?;
    let full = format!("{}/{name}", actor.tenant.name);
    let mut response = Json(json!({ "name": full, "tags": tags })).into_response();
    if let Some(last) = next {
        let next = origin.path(&format!("/v2/{full}/tags/list?n={limit}&last={last}"));
        if let Ok(link) = HeaderValue::from_str(&format!("<{next}>; rel=\"next\"")) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}

/// Answers that nothing refers to a manifest: images get here by building them, and builds make no
/// manifest with a `subject`. Also where there is no such manifest, or repository: the spec keeps 404
/// for registries that know no referrers, and clients would look for a tag in their place then.
fn no_referrers(is_filtered: bool) -> Response {
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
    let mut response = Json(index).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(INDEX));
    if is_filtered {
        let name = HeaderName::from_static("oci-filters-applied");
        response.headers_mut().insert(name, HeaderValue::from_static("artifactType"));
    }
    response
}
