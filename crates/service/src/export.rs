//! A build's image as one file, in the form that a client asks for.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use ashlar_core::journal::Record;
use ashlar_core::{BuildId, Digest, Platform, TenantId};
use ashlar_layers::{Compression, Stop};
use ashlar_native::export::{Destination, Image, Output as Form, OutputKind, Way};
use ashlar_oci::{ArchiveKind, Composed, Descriptor, Entry, LocalImage, Reference, write_archive};

use crate::artifacts::{DOCUMENT_BYTES_MAX, Quiet, blobs_of, epoch_of, image_of, own_layers};
use crate::push::LayerCompression;
use crate::{Actor, Error, Service};

/// Names that one archive may give to its image.
const NAMES_MAX: usize = 20;

/// Forms in which an image can be downloaded as one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Archive {
    /// An OCI layout.
    #[default]
    Oci,
    /// What `docker load` takes.
    Docker,
    /// The files alone.
    Files,
}

/// How an image is wanted.
#[derive(Debug, Clone, Default)]
pub struct ExportWish {
    /// The form.
    pub archive: Archive,
    /// The names that it has in the archive.
    pub names: Vec<String>,
    /// How its own layers are compressed.
    pub compression: LayerCompression,
    /// How hard.
    pub level: Option<u8>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// An image as one file.
#[derive(Debug)]
pub struct Exported {
    /// The file, open at its beginning; it has no name any more.
    pub file: File,
    /// The digest of the image's manifest, in forms that have one.
    pub manifest: Option<Digest>,
}

impl Service {
    /// Writes a build's image as one file.
    ///
    /// # Errors
    /// As [`Service::package`]; [`Error::Invalid`] when a part of the wish cannot be.
    pub async fn export(
        self: &Arc<Self>,
        actor: &Actor,
        build: BuildId,
        wish: ExportWish,
    ) -> Result<Exported, Error> {
        if wish.names.len() > NAMES_MAX {
            return Err(Error::invalid("name", format!("at most {NAMES_MAX} can be given")));
        }
        let name = |n: &String| n.parse().map_err(|e| Error::invalid("name", e));
        let names = wish.names.iter().map(name).collect::<Result<Vec<Reference>, Error>>()?;
        let record = self.show(actor, build).await?;
        self.blocking(move |service| service.export_record(&record, &wish, names)).await
    }

    fn export_record(
        &self,
        record: &Record,
        wish: &ExportWish,
        names: Vec<Reference>,
    ) -> Result<Exported, Error> {
        let dir = tempfile::tempdir_in(self.engine().dir().scratch()).map_err(Error::internal)?;
        let path = dir.path().join("archive");
        if wish.archive == Archive::Files {
            let local = self.local_image(record)?;
            let kind = OutputKind::Tar(Destination::File(path.clone()));
            let id = image_of(record).ok_or_else(|| Error::not_found("image", "image"))?;
            self.export_files(id, &local, kind)?;
            let file = File::open(&path).map_err(Error::internal)?;
            return Ok(Exported { file, manifest: None });
        }
        let manifest = self.manifest_as(record, wish)?;
        let kind = match wish.archive {
            Archive::Docker => ArchiveKind::Docker,
            Archive::Oci | Archive::Files => ArchiveKind::Oci,
        };
        let digest = manifest.digest;
        let mut out = File::create_new(&path).map_err(Error::internal)?;
        let entry = Entry { root: manifest, names };
        let blobs = self.engine().images().blobs();
        write_archive(&mut out, kind, &[entry], blobs).map_err(Error::internal)?;
        let file = File::open(&path).map_err(Error::internal)?;
        Ok(Exported { file, manifest: Some(digest) })
    }

    fn export_files(&self, id: Digest, local: &LocalImage, kind: OutputKind) -> Result<(), Error> {
        let found = self.engine().local(&id.to_string(), &Platform::host());
        let found = found.map_err(Error::internal)?;
        let form = Form { kind, compression: Compression::None, annotations: BTreeMap::new() };
        self.fetch_layers(local, &Stop::default())?;
        let done = self.engine().export_local(&found, Vec::new(), &form, &Quiet);
        done.map(drop).map_err(Error::internal)
    }

    /// Makes the manifest that a wish asks for. The usual one is that of the registry endpoint.
    fn manifest_as(&self, record: &Record, wish: &ExportWish) -> Result<Descriptor, Error> {
        let usual = wish.annotations.is_empty()
            && wish.compression == LayerCompression::default()
            && wish.level.is_none();
        if usual {
            let made = self.make_package(record)?;
            let size = made.manifest.len() as u64;
            return Ok(Descriptor::new(made.media_type, made.digest, size));
        }
        let form = Form {
            kind: OutputKind::Registry(Vec::new()),
            compression: wish.compression.at(wish.level)?,
            annotations: wish.annotations.clone(),
        };
        let (local, tenant) = (self.local_image(record)?, record.submission.tenant);
        let way = Way { sink: &Quiet, stop: &Stop::default() };
        Ok(self.compose_as(tenant, local, &form, epoch_of(record), way)?.manifest)
    }

    /// Makes an image in the form that the registry endpoint and the machines that share a blob
    /// store have it in.
    pub(crate) fn compose_usual(
        &self,
        tenant: TenantId,
        local: LocalImage,
        epoch: Option<i64>,
        stop: &Stop,
    ) -> Result<Descriptor, Error> {
        let form = Form {
            kind: OutputKind::Registry(Vec::new()),
            compression: Compression::GZIP,
            annotations: BTreeMap::new(),
        };
        let way = Way { sink: &Quiet, stop };
        Ok(self.compose_as(tenant, local, &form, epoch, way)?.manifest)
    }

    /// Makes manifest, config and layers of an image in a form, as blobs that last and that the
    /// tenant may read.
    pub(crate) fn compose_as(
        &self,
        tenant: TenantId,
        local: LocalImage,
        form: &Form,
        epoch: Option<i64>,
        way: Way<'_>,
    ) -> Result<Composed, Error> {
        self.fetch_layers(&local, way.stop)?;
        let own = own_layers(&local);
        let image = Image { config: local.config, layers: local.layers, names: Vec::new(), epoch };
        let made = self.engine().package(&image, form, way)?;
        let manifest = self.blobs().read(&made.manifest.digest, DOCUMENT_BYTES_MAX)?;
        let blobs = blobs_of(&made.manifest.digest, &manifest)?;
        self.mark_made(tenant, &made.manifest.digest, &manifest, &own)?;
        self.grants().add(tenant, &blobs)?;
        self.keep_blobs(&blobs, way.stop)?;
        Ok(made)
    }
}
