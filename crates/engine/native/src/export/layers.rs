//! From a layer in whatever form to a blob.

use std::io::{self, Write};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::Progress;
use ashlar_core::{Digest, Hasher};
use ashlar_layers::{Compression, LayerBlob, TarOptions};
use ashlar_oci::{Descriptor, LayerRef, NewLayer, Repository, Transfer};
use ashlar_snapshots::{SnapshotError, Tree};

use crate::cache::RecordDir;
use crate::engine::Shared;
use crate::error::{internal, source};

/// How a blob is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlobWish {
    pub(super) compression: Compression,
    pub(super) epoch: Option<i64>,
    pub(super) for_push: bool,
    /// Its bytes are made anew where they are written, not kept as a blob.
    pub(super) loose: bool,
}

impl BlobWish {
    /// Names the record of a layer's blob.
    fn key(&self, id: &Digest, compression: Compression) -> Digest {
        let mut key = Hasher::new();
        key.field(b"layer blob").field(id.as_bytes());
        key.field(format!("{compression:?} {:?}", self.epoch));
        key.finish()
    }
}

impl Shared {
    /// Returns the blob of a layer, and where else it can be had. A layer that came as a blob stays
    /// as it is: its bytes are what its digest was signed for.
    pub(super) fn layer_blob(
        &self,
        layer: &LayerRef,
        wish: BlobWish,
        way: super::Way<'_>,
    ) -> Result<(NewLayer, Option<Repository>), Failure> {
        if let (Some(blob), Some(diff_id)) = (&layer.blob, layer.diff_id) {
            let origin = self.origin_of(layer);
            if !wish.for_push || origin.is_none() {
                self.fetch_blob(layer, way)?;
            }
            return Ok((NewLayer { blob: blob.clone(), diff_id }, origin));
        }
        let Some(id) = layer.tree else {
            let text = "a layer of the image has neither files nor a blob";
            return Err(Failure::new(FailureKind::Internal, text));
        };
        let made = self.make_blob(&id, wish, way)?;
        let media_type = made.compression.media_type();
        let blob = Descriptor::new(media_type, made.digest, made.bytes);
        Ok((NewLayer { blob, diff_id: made.diff_id }, None))
    }

    fn make_blob(
        &self,
        id: &Digest,
        wish: BlobWish,
        way: super::Way<'_>,
    ) -> Result<LayerBlob, Failure> {
        let records = RecordDir::new(self.dir.cache().join("layer-blobs"));
        let blobs = self.images.blobs();
        // What was compressed harder for a registry serves for a file as well, unless the bytes must
        // not depend on what was made before.
        let quick = wish.epoch.is_none() && wish.compression == Compression::GZIP_QUICK;
        let harder = quick.then_some(Compression::GZIP);
        for compression in harder.into_iter().chain([wish.compression]) {
            if let Some(known) =
                records.get::<LayerBlob>(&wish.key(id, compression)).map_err(internal)?
                && (wish.loose || blobs.has(&known.digest).map_err(internal)?)
            {
                return Ok(known);
            }
        }
        let made = if wish.loose {
            self.write_layer(id, wish, way, &mut io::sink()).map_err(super::export)?
        } else {
            let subject = format!("compress layer {}", id.short());
            way.sink.progress(Progress { subject, done: 0, total: 0 });
            let mut writer = blobs.writer().map_err(internal)?;
            let made = self.write_layer(id, wish, way, &mut writer).map_err(super::export)?;
            writer.commit(Some(&made.digest)).map_err(internal)?;
            made
        };
        records.put(&wish.key(id, wish.compression), &made).map_err(internal)?;
        Ok(made)
    }

    /// Writes the blob of a layer to `out`.
    pub(super) fn write_layer(
        &self,
        id: &Digest,
        wish: BlobWish,
        way: super::Way<'_>,
        out: &mut (impl Write + Send),
    ) -> Result<LayerBlob, SnapshotError> {
        let _lease = self.snapshots.hold(&Tree(vec![*id]))?;
        let options = TarOptions { source_date_epoch: wish.epoch, stop: way.stop.clone() };
        self.snapshots.write_blob(id, wish.compression, &options, out)
    }

    fn fetch_blob(&self, layer: &LayerRef, way: super::Way<'_>) -> Result<(), Failure> {
        let Some(blob) = &layer.blob else { return Ok(()) };
        if self.images.blobs().has(&blob.digest).map_err(internal)? {
            return Ok(());
        }
        let Some(origin) = self.origin_of(layer) else {
            let text =
                format!("the layer {} is not here and nothing says where it is", blob.digest);
            return Err(Failure::new(FailureKind::Export, text)
                .hint("pull the base image again, or build without cache"));
        };
        let report = |p: ashlar_oci::Progress| {
            let subject = format!("pull {origin} {}", p.digest.short());
            way.sink.progress(Progress { subject, done: p.done, total: p.total });
        };
        let transfer = Transfer::quiet().with_progress(&report).with_cancel(way.stop.flag());
        let registry = self.images.registry();
        registry.fetch_blob(&origin, blob, self.images.blobs(), &transfer).map_err(source)?;
        Ok(())
    }

    fn origin_of(&self, layer: &LayerRef) -> Option<Repository> {
        let id = layer.tree.or(layer.diff_id)?;
        self.image_layers().0.get(&id).and_then(|(image, _)| image.repository.clone())
    }

    /// Returns where the layers that are blobs came from.
    pub(super) fn repository_of(&self, layers: &[LayerRef]) -> Option<Repository> {
        layers.iter().find_map(|layer| self.origin_of(layer))
    }
}
