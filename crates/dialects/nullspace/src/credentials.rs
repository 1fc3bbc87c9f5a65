//! Credentials for registries. They are used for one build's pulls and kept nowhere.

use std::fmt;

use ashlar_service::{RegistryCredential, registry_host};
use serde_json::Value;

use crate::errors::{Answer, ApiError};
use crate::fields::Fields;

/// Credentials of one registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Auth {
    /// A user and a password.
    Basic { username: String, password: String },
    /// A key of a Google service account, as JSON.
    Gcp { key: String },
    /// An AWS access key.
    Aws {
        access_key_id: String,
        secret_access_key: String,
        region: String,
        session_token: Option<String>,
    },
}

impl Auth {
    /// Returns the word for the kind, which is all that is kept of it.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Basic { .. } => "basic",
            Self::Gcp { .. } => "gcp_artifact_registry",
            Self::Aws { .. } => "aws_ecr",
        }
    }
}

impl From<&Auth> for RegistryCredential {
    fn from(auth: &Auth) -> Self {
        match auth.clone() {
            Auth::Basic { username, password } => Self::Basic { username, password },
            // Artifact Registry takes the key of a service account as this user's password.
            Auth::Gcp { key } => Self::Basic { username: "_json_key".into(), password: key },
            Auth::Aws { access_key_id, secret_access_key, region, session_token } => {
                Self::AwsEcr { access_key_id, secret_access_key, region, session_token }
            }
        }
    }
}

/// Returns credentials by registry. Those for the base image go to its registry; a template needs
/// none.
pub(crate) fn by_registry(
    (base, registries): (Option<&Auth>, &[RegistryAuth]),
    base_host: Option<&str>,
    is_template: bool,
) -> Answer<Vec<(String, RegistryCredential)>> {
    let mut all: Vec<(String, RegistryCredential)> = Vec::new();
    match (base, base_host) {
        (Some(auth), Some(host)) => all.push((host.to_owned(), auth.into())),
        (Some(_), None) if !is_template => {
            let what = "the registry of the base image cannot be told; use registry_auth";
            return Err(ApiError::invalid(format!("base_image_auth: {what}")));
        }
        _ => {}
    }
    for RegistryAuth { registry, auth } in registries {
        let host = registry_host(registry)?;
        if all.iter().all(|(known, _)| *known != host) {
            all.push((host, auth.into()));
        }
    }
    Ok(all)
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth({}, hidden)", self.kind())
    }
}

/// Credentials with the registry that they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegistryAuth {
    pub(crate) registry: String,
    pub(crate) auth: Auth,
}

/// Reads credentials.
pub(crate) fn read_auth(f: &Fields<'_>) -> Answer<Auth> {
    let kinds = ["basic", "gcp_artifact_registry", "aws_ecr"];
    let kind = f.one_of("kind", &kinds)?;
    match kind {
        Some("basic") => {
            Ok(Auth::Basic { username: needed(f, "username")?, password: needed(f, "password")? })
        }
        Some("gcp_artifact_registry") => read_gcp(f),
        Some(_) => Ok(Auth::Aws {
            access_key_id: needed(f, "access_key_id")?,
            secret_access_key: needed(f, "secret_access_key")?,
            region: needed(f, "region")?,
            session_token: f.word("session_token")?,
        }),
        None => Err(ApiError::invalid(format!("{}: is missing", f.key("kind")))),
    }
}

fn needed(f: &Fields<'_>, name: &str) -> Answer<String> {
    let found = f.word(name)?;
    found.ok_or_else(|| ApiError::invalid(format!("{}: is missing", f.key(name))))
}

fn read_gcp(f: &Fields<'_>) -> Answer<Auth> {
    let place = f.key("service_account_json");
    let key = match f.get("service_account_json") {
        Some(Value::String(text)) => text.clone(),
        Some(object @ Value::Object(_)) => object.to_string(),
        Some(_) => {
            return Err(ApiError::invalid(format!("{place}: must be an object or a string")));
        }
        None => return Err(ApiError::invalid(format!("{place}: is missing"))),
    };
    let is_object = serde_json::from_str::<Value>(&key).is_ok_and(|v| v.is_object());
    if !is_object {
        return Err(ApiError::invalid(format!("{place}: is no JSON object")));
    }
    Ok(Auth::Gcp { key })
}

/// Reads credentials with their registry.
pub(crate) fn read_registry_auth(f: &Fields<'_>) -> Answer<RegistryAuth> {
    let registry = needed(f, "registry")?;
    let host = registry.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.trim_end_matches('/').to_owned();
    if host.is_empty() || host.contains('/') || host.chars().any(char::is_whitespace) {
        let what = "must be a registry's host";
        return Err(ApiError::invalid(format!("{}: {what}", f.key("registry"))));
    }
    let auth = f.object("auth")?;
    let auth = auth.ok_or_else(|| ApiError::invalid(format!("{}: is missing", f.key("auth"))))?;
    Ok(RegistryAuth { registry: host, auth: read_auth(&auth)? })
}
