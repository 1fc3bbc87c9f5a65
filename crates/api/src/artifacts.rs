//! Artifacts of a build.

use ashlar_service::{Archive, Error, ExportWish, Exported, LayerCompression};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::view::{Artifact, BuildView, artifacts};
use crate::{Problem, files, params};

/// The digest of an image's manifest, as registries tell it.
const MANIFEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");

#[derive(Serialize)]
pub(crate) struct Artifacts {
    artifacts: Vec<Artifact>,
    tags: Vec<String>,
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
) -> Result<Json<Artifacts>, Problem> {
    let build = params::build(&build)?;
    let record = shared.service.row(&actor, build).await?;
    let tags = shared.service.tags_of(&actor, build).await?;
    Ok(Json(Artifacts { artifacts: artifacts(&record), tags }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Form {
    /// `oci` (the usual), `docker`, or `tar` for the files alone.
    format: Option<String>,
    /// The names that the image has in the archive, with commas between them.
    name: Option<String>,
    #[serde(default)]
    compression: LayerCompression,
    level: Option<u8>,
    /// Annotations of the manifest, as a JSON object.
    annotations: Option<String>,
}

impl Form {
    fn wish(self) -> Result<ExportWish, Problem> {
        let archive = match self.format.as_deref() {
            None | Some("oci") => Archive::Oci,
            Some("docker") => Archive::Docker,
            Some("tar") => Archive::Files,
            Some(_) => return Err(Problem::invalid("format", "must be 'oci', 'docker' or 'tar'")),
        };
        let annotations = self.annotations.as_deref().map(serde_json::from_str).transpose();
        let names = self.name.iter().flat_map(|n| n.split(','));
        Ok(ExportWish {
            archive,
            names: names.map(str::to_owned).collect(),
            compression: self.compression,
            level: self.level,
            annotations: annotations
                .map_err(|e| Problem::invalid("annotations", e))?
                .unwrap_or_default(),
        })
    }
}

pub(crate) async fn download(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path((build, name)): Path<(String, String)>,
    headers: HeaderMap,
    form: Result<Query<Form>, QueryRejection>,
) -> Result<Response, Problem> {
    let (build, form) = (params::build(&build)?, form?.0);
    let record = shared.service.row(&actor, build).await?;
    let artifact = record.artifacts.iter().find(|a| a.name == name);
    let artifact = artifact.ok_or_else(|| Error::not_found("artifact", &name))?;
    if artifact.kind != "image" {
        let (file, size) = shared.service.open_blob(&actor, artifact.digest).await?;
        return files::answer(file, size, "application/octet-stream", &headers, true);
    }
    let Exported { file, manifest } = shared.service.export(&actor, build, form.wish()?).await?;
    let size = file.metadata().map_err(Error::internal)?.len();
    let mut response = files::answer(file, size, "application/x-tar", &headers, true)?;
    let digest = manifest.and_then(|d| HeaderValue::from_str(&d.to_string()).ok());
    if let Some(digest) = digest {
        response.headers_mut().insert(MANIFEST_HEADER, digest);
    }
    let shown = format!("attachment; filename=\"{build}.tar\"");
    if let Ok(shown) = HeaderValue::from_str(&shown) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, shown);
    }
    Ok(response)
}

pub(crate) async fn remove(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path((build, name)): Path<(String, String)>,
) -> Result<Json<BuildView>, Problem> {
    let build = params::build(&build)?;
    let record = shared.service.remove_artifact(&actor, build, &name).await?;
    Ok(Json(BuildView::row(&record)))
}

/// The config of a build's image.
pub(crate) async fn image(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
) -> Result<Json<Value>, Problem> {
    let config = shared.service.image(&actor, params::build(&build)?).await?;
    Ok(Json(serde_json::to_value(config).map_err(Error::internal)?))
}
