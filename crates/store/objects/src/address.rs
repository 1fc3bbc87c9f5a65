//! What `--blob-store` may say.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ashlar_blobs::Remote;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use reqwest::Url;

use crate::http::Connector;
use crate::objects::Objects;
use crate::staged;

/// Tries of one request after the first.
const RETRIES_MAX: usize = 5;
/// How long one request is tried.
const RETRY_MAX: Duration = Duration::from_secs(20);
/// The first pause between tries; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// The address of a blob store is none.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It has another form.
    #[error("write s3://BUCKET/PREFIX or file:///DIR")]
    Form,
    /// A parameter that nobody knows.
    #[error("there is no parameter '{0}'; there are: endpoint, region, virtual-hosted")]
    Parameter(String),
    /// A parameter has a value that it cannot have.
    #[error("the parameter '{name}' must be {must}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// The settings do not fit together, or the directory cannot be used.
    #[error("the blob store cannot be set up")]
    SetUp(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Makes ready what an address means, without asking it for anything.
///
/// - `s3://BUCKET/PREFIX?endpoint=URL&region=NAME&virtual-hosted=true`: credentials, and what the
///   address does not say, come from the usual `AWS_*` variables among `variables`.
/// - `file:///DIR`: a directory that all machines share.
///
/// # Errors
/// See [`AddressError`].
pub fn open(
    address: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Arc<dyn Remote>, AddressError> {
    let url = Url::parse(address).map_err(|_| AddressError::Form)?;
    match url.scheme() {
        "s3" => s3(&url, variables),
        "file" => directory(&url),
        _ => Err(AddressError::Form),
    }
}

fn set_up(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AddressError {
    AddressError::SetUp(error.into())
}

fn s3(
    url: &Url,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Arc<dyn Remote>, AddressError> {
    let bucket = url.host_str().filter(|h| !h.is_empty()).ok_or(AddressError::Form)?;
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: PAUSE_FIRST, max_backoff: PAUSE_MAX, base: 2.0 },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_MAX,
    };
    let mut builder = AmazonS3Builder::new();
    for (name, value) in variables.into_iter().filter(|(name, _)| name.starts_with("AWS_")) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_bucket_name(bucket)
        .with_retry(retry)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_http_connector(Connector);
    for (name, value) in url.query_pairs() {
        builder = match &*name {
            "endpoint" => builder.with_endpoint(endpoint(&value)?),
            "region" => builder.with_region(value),
            "virtual-hosted" => {
                let must = "true or false";
                let wrong = |_| AddressError::Value { name: "virtual-hosted", must };
                builder.with_virtual_hosted_style_request(value.parse().map_err(wrong)?)
            }
            other => return Err(AddressError::Parameter(other.to_owned())),
        };
    }
    // Whoever writes http:// into the endpoint means it.
    let store = builder.with_allow_http(true).build().map_err(set_up)?;
    let prefix = Path::from_url_path(url.path()).map_err(set_up)?;
    let place = format!("s3://{bucket}{}", url.path());
    Ok(Arc::new(Objects::new(Arc::new(store), prefix, place).map_err(set_up)?))
}

fn endpoint(value: &str) -> Result<String, AddressError> {
    let must = "an http or https URL";
    let wrong = AddressError::Value { name: "endpoint", must };
    match Url::parse(value) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(value.trim_end_matches('/').to_owned())
        }
        _ => Err(wrong),
    }
}

fn directory(url: &Url) -> Result<Arc<dyn Remote>, AddressError> {
    if let Some((name, _)) = url.query_pairs().next() {
        return Err(AddressError::Parameter(name.into_owned()));
    }
    let dir: PathBuf = url.to_file_path().map_err(|()| AddressError::Form)?;
    std::fs::create_dir_all(&dir).map_err(set_up)?;
    staged::sweep_later(&dir);
    let files = LocalFileSystem::new_with_prefix(&dir).map_err(set_up)?.with_fsync(true);
    let files: Arc<dyn ObjectStore> = Arc::new(files);
    let place = format!("file://{}", dir.display());
    Ok(Arc::new(Objects::new(files, Path::default(), place).map_err(set_up)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_none_say_why() {
        for (address, says) in [
            ("bucket", "s3://BUCKET"),
            ("http://bucket/x", "s3://BUCKET"),
            ("s3:///x", "s3://BUCKET"),
            ("s3://b?x=1", "no parameter 'x'"),
            ("s3://b?endpoint=host", "an http or https URL"),
            ("s3://b?virtual-hosted=perhaps", "true or false"),
            ("file:///tmp/x?region=y", "no parameter 'region'"),
        ] {
            let said = open(address, []).unwrap_err().to_string();
            assert!(said.contains(says), "{address}: {said}");
        }
    }
}
