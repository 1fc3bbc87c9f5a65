//! Pushes to registries outside, as outputs of a build: done by its worker in state `exporting`,
//! with the credentials that came with the build. What a push needs never becomes part of the
//! image, and one that fails fails the build; the image stays.

use std::collections::BTreeMap;

use ashlar_core::TenantId;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{ArtifactRecord, Event, Level, LogLine, Progress, Sink};
use ashlar_layers::{Compression, Stop};
use ashlar_native::export::{Output as Form, OutputKind, Way};
use ashlar_native::{RegistryLogin, failure_of};
use ashlar_oci::registry::BlobOrigins;
use ashlar_oci::{Composed, Credential, Reference, RegistryError, Transfer};
use serde::{Deserialize, Serialize};

use crate::recipe::INTERNAL_HOST;
use crate::worker::Stopped;
use crate::{Error, Service};

/// Outputs that one build may have.
const OUTPUTS_MAX: usize = 20;
/// Names that one output may push to.
const NAMES_MAX: usize = 20;
/// The highest compression level of zstd; gzip has 12.
const LEVEL_MAX: u8 = 19;
/// The kind of the artifact that says where an image was pushed.
pub(crate) const KIND: &str = "push";

/// Where a result goes besides the server's own images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum BuildOutput {
    /// Repositories of registries.
    Registry {
        /// The names that the image gets there, with their registries.
        names: Vec<String>,
        /// How its layers are compressed; those of the base stay as they are.
        #[serde(default)]
        compression: LayerCompression,
        /// How hard.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<u8>,
        /// Annotations of the manifest.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        annotations: BTreeMap<String, String>,
    },
}

/// How layers are compressed when they leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerCompression {
    /// gzip, which every client reads.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
    /// Not at all.
    Uncompressed,
}

impl LayerCompression {
    /// Returns it with its level as the engine's.
    pub(crate) fn at(self, level: Option<u8>) -> Result<Compression, Error> {
        if level.is_some_and(|l| l > LEVEL_MAX) {
            return Err(Error::invalid("level", format!("goes up to {LEVEL_MAX}")));
        }
        Ok(match (self, level) {
            (Self::Gzip, None) => Compression::GZIP,
            (Self::Gzip, Some(level)) => Compression::Gzip(level.min(12)),
            (Self::Zstd, None) => Compression::ZSTD,
            (Self::Zstd, Some(level)) => Compression::Zstd(level.max(1)),
            (Self::Uncompressed, _) => Compression::None,
        })
    }
}

/// Checks the outputs of a definition.
pub(crate) fn check(outputs: &[BuildOutput]) -> Result<(), Error> {
    if outputs.len() > OUTPUTS_MAX {
        return Err(Error::invalid("outputs", format!("a build has at most {OUTPUTS_MAX}")));
    }
    for (i, output) in outputs.iter().enumerate() {
        let BuildOutput::Registry { names, compression, level, .. } = output;
        let field = format!("outputs[{i}].names");
        if names.is_empty() || names.len() > NAMES_MAX {
            return Err(Error::invalid(field, format!("an output has 1 to {NAMES_MAX} names")));
        }
        for name in names {
            reference(name).map_err(|why| Error::invalid(&field, why))?;
        }
        compression.at(*level).map_err(|e| Error::invalid(format!("outputs[{i}]"), e.public()))?;
    }
    Ok(())
}

fn reference(name: &str) -> Result<Reference, String> {
    let reference: Reference = name.parse().map_err(|e| format!("{e}"))?;
    if reference.digest().is_some() {
        return Err(format!("'{name}' has a digest, which the push decides"));
    }
    if reference.repository().host() == INTERNAL_HOST {
        return Err(format!("'{name}' is no registry that can be pushed to"));
    }
    Ok(reference)
}

/// What a push needs of its build.
pub(crate) struct Pusher<'a> {
    pub(crate) service: &'a Service,
    pub(crate) tenant: TenantId,
    pub(crate) epoch: Option<i64>,
    pub(crate) logins: &'a BTreeMap<String, RegistryLogin>,
    pub(crate) sink: &'a dyn Sink,
    pub(crate) stop: &'a Stop,
}

impl Pusher<'_> {
    /// Pushes the image among some artifacts to all outputs; returns an artifact for each.
    ///
    /// # Errors
    /// With the first push that fails, or when the service lacks what it needs.
    pub(crate) fn push(
        &self,
        outputs: &[BuildOutput],
        made: &[ArtifactRecord],
    ) -> Result<Vec<ArtifactRecord>, Stopped> {
        if outputs.is_empty() {
            return Ok(Vec::new());
        }
        let Some(image) = made.iter().find(|a| a.kind == "image") else {
            let text = "the build made no image that could be pushed";
            return Err(Failure::new(FailureKind::Export, text).into());
        };
        let local = self.service.engine().images().store().record(&image.digest);
        let local = local.map_err(Error::internal)?;
        let local =
            local.ok_or_else(|| Error::internal("the image is gone before it was pushed"))?;
        let mut artifacts = Vec::new();
        for (i, output) in outputs.iter().enumerate() {
            let BuildOutput::Registry { names, compression, level, annotations } = output;
            let form = Form {
                kind: OutputKind::Registry(Vec::new()),
                compression: compression.at(*level)?,
                annotations: annotations.clone(),
            };
            Stopped::check(self.stop)?;
            let (tenant, epoch) = (self.tenant, self.epoch);
            let way = Way { sink: self.sink, stop: self.stop };
            let composed = self.service.compose_as(tenant, local.clone(), &form, epoch, way)?;
            for name in names {
                let reference = reference(name);
                let reference = reference.map_err(|why| Failure::new(FailureKind::Export, why))?;
                Stopped::check(self.stop)?;
                self.push_one(&reference, &composed)?;
                let digest = composed.manifest.digest;
                let text = format!("pushed {}@{digest}", reference.familiar());
                self.sink.event(Event::Log(LogLine::service(Level::Info, text)));
            }
            artifacts.push(ArtifactRecord {
                name: format!("{KIND}-{}", i + 1),
                kind: KIND.into(),
                digest: composed.manifest.digest,
                bytes: None,
                references: names.clone(),
            });
        }
        Ok(artifacts)
    }

    fn push_one(&self, name: &Reference, composed: &Composed) -> Result<(), Failure> {
        let images = self.service.engine().images();
        let registry = images.registry().with_credentials(self.credentials());
        let report = |p: ashlar_oci::Progress| {
            let subject = format!("push {} {}", name.familiar(), p.digest.short());
            self.sink.progress(Progress { subject, done: p.done, total: p.total });
        };
        let transfer = Transfer::quiet().with_progress(&report).with_cancel(self.stop.flag());
        let origins = BlobOrigins::new();
        let pushed = registry.push(name, &composed.manifest, images.blobs(), &origins, &transfer);
        pushed.map_err(|e| self.failure(name, e))
    }

    fn credentials(&self) -> BTreeMap<String, Credential> {
        self.logins.iter().map(|(host, login)| (host.clone(), login.credential())).collect()
    }

    fn failure(&self, name: &Reference, error: RegistryError) -> Failure {
        let refused = error.is_refused();
        let kind = if refused { FailureKind::Auth } else { FailureKind::Export };
        let failure = failure_of(kind, &error);
        let message = format!("cannot push {}: {}", name.familiar(), failure.message);
        let hint = match (refused, error.hint()) {
            (true, _) => Some("log in to the registry (docker login), and build again".to_owned()),
            (false, hint) => hint.map(str::to_owned),
        };
        Failure { hint, message, ..failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(names: &[&str], level: Option<u8>) -> BuildOutput {
        BuildOutput::Registry {
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            compression: LayerCompression::Gzip,
            level,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn outputs_are_named_when_they_are_wrong() {
        assert!(check(&[output(&["registry.example/app:1"], None)]).is_ok());
        let pinned = format!("a.example/b@sha256:{}", "0".repeat(64));
        let internal = format!("{INTERNAL_HOST}/x/y:1");
        for bad in [&[][..], &["UPPER"], &[pinned.as_str()], &[internal.as_str()]] {
            let error = check(&[output(&["a.example/b"], None), output(bad, None)]);
            let text = error.unwrap_err().public();
            assert!(text.contains("outputs[1]"), "{bad:?}: {text}");
        }
        assert!(check(&[output(&["a.example/b"], Some(20))]).is_err());
        assert!(check(&vec![output(&["a.example/b"], None); OUTPUTS_MAX + 1]).is_err());
    }

    #[test]
    fn what_is_not_an_output_is_refused() {
        let read = |text: &str| serde_json::from_str::<BuildOutput>(text);
        assert!(read(r#"{"type":"registry","names":["a"]}"#).is_ok());
        for bad in [
            r#"{"type":"local","dest":"/"}"#,
            r#"{"type":"registry","names":["a"],"dest":"/"}"#,
            r#"{"names":["a"]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
