//! Downloads of what builds made.

use std::collections::BTreeMap;
use std::io::Write;

use ashlar_core::BuildId;
use futures_util::StreamExt as _;
use reqwest::{Method, header};

use crate::client::{add_query, text};
use crate::{Client, Error, Stop};

/// The digest of an image's manifest, as registries tell it.
const MANIFEST_HEADER: &str = "docker-content-digest";

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveForm {
    /// An OCI layout.
    Oci,
    /// What `docker load` takes.
    Docker,
    /// The files alone.
    Files,
}

impl ArchiveForm {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::Docker => "docker",
            Self::Files => "tar",
        }
    }
}

/// How an image is wanted.
#[derive(Debug, Clone)]
pub struct ArchiveWish {
    /// The form.
    pub form: ArchiveForm,
    /// The names that it has in the archive.
    pub names: Vec<String>,
    /// `gzip`, `zstd` or `uncompressed`.
    pub compression: &'static str,
    /// How hard.
    pub level: Option<u8>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

impl ArchiveWish {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![("format", self.form.as_str().to_owned())];
        if !self.names.is_empty() {
            query.push(("name", self.names.join(",")));
        }
        if self.form != ArchiveForm::Files {
            query.push(("compression", self.compression.to_owned()));
            query.extend(self.level.map(|l| ("level", l.to_string())));
        }
        if !self.annotations.is_empty() {
            let json = serde_json::to_string(&self.annotations).unwrap_or_default();
            query.push(("annotations", json));
        }
        query
    }
}

impl Client {
    /// Writes a build's image as one archive. Returns the digest of its manifest where it has one.
    ///
    /// # Errors
    /// [`Error::Refused`] when the build has no image (any more); when `out` cannot be written;
    /// when the connection breaks: an archive is not resumed, since it is made anew.
    pub fn download_image(
        &self,
        build: BuildId,
        wish: &ArchiveWish,
        out: &mut dyn Write,
        stop: Stop<'_>,
        tell: &dyn Fn(u64, u64),
    ) -> Result<Option<String>, Error> {
        let mut url = self.url(&["builds", &build.to_string(), "artifacts", "image"]);
        add_query(&mut url, &wish.query());
        self.wait_unless(stop, async {
            let response = self.send(self.request(Method::GET, url)).await?;
            let manifest = response.headers().get(MANIFEST_HEADER);
            let manifest = manifest.and_then(|v| v.to_str().ok()).map(str::to_owned);
            let total = text(response.headers(), &header::CONTENT_LENGTH).parse().unwrap_or(0);
            let (mut stream, mut done) = (response.bytes_stream(), 0);
            while let Some(bytes) = stream.next().await {
                let bytes = bytes.map_err(|e| self.unreachable(e))?;
                let failed =
                    |source| Error::File { action: "write", path: "the output".into(), source };
                out.write_all(&bytes).map_err(failed)?;
                done += bytes.len() as u64;
                tell(done, total);
            }
            Ok(manifest)
        })
    }
}
