//! A build's image as a bootable root file system, made when somebody asks.

use std::fs::File;
use std::sync::Arc;

use ashlar_core::failure::FailureKind;
use ashlar_core::{BuildId, Platform};
use ashlar_layers::Stop;
use ashlar_native::export::ROOTFS_BYTES_MAX;

use crate::artifacts::Quiet;
use crate::{Actor, Error, Service};

impl Service {
    /// Returns a build's image as an ext4 file system of at least `bytes`, as a file without a name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such build, or it has no image (any more);
    /// [`Error::TooLarge`]; [`Error::Unavailable`] when the server lacks e2fsprogs.
    pub async fn rootfs(
        self: &Arc<Self>,
        actor: &Actor,
        build: BuildId,
        bytes: Option<u64>,
    ) -> Result<File, Error> {
        if bytes.is_some_and(|b| b > ROOTFS_BYTES_MAX) {
            return Err(too_large());
        }
        let record = self.row(actor, build).await?;
        self.blocking(move |service| {
            let local = service.local_image(&record)?;
            service.fetch_layers(&local, &Stop::default())?;
            let id = crate::artifacts::image_of(&record);
            let id = id.ok_or_else(|| Error::not_found("image of build", build))?;
            let engine = service.engine();
            let local =
                engine.local(&id.to_string(), &Platform::host()).map_err(Error::internal)?;
            let file = tempfile::NamedTempFile::with_prefix_in(".rootfs-", engine.dir().root());
            let file = file.map_err(Error::internal)?;
            engine.write_ext4(&local.tree, bytes, file.path(), &Quiet).map_err(
                |failure| match (failure.kind, &failure.hint) {
                    (FailureKind::Limit, _) => too_large(),
                    (_, Some(hint)) => Error::Unavailable(hint.clone()),
                    _ => Error::internal(failure),
                },
            )?;
            // The tool has replaced nothing but the content; the name is not needed any more.
            file.reopen().map_err(Error::internal)
        })
        .await
    }
}

fn too_large() -> Error {
    let what = "the root file system".to_owned();
    Error::TooLarge { what, max: ROOTFS_BYTES_MAX, unit: "bytes" }
}
