//! The way of an image from a daemon into our stores.

use std::io::Read;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_native::failure_of;
use ashlar_oci::{Images, LocalImage, Origin, read_archive};

use crate::session::Archive;

/// Reads an archive into the blob store as it comes; none when the daemon sent none. The image is in
/// no list yet.
pub(crate) fn take_in(
    images: &Images,
    mut archive: Archive,
) -> Result<Option<LocalImage>, Failure> {
    let failed = |e: &(dyn std::error::Error + 'static)| {
        let failure = failure_of(FailureKind::Export, e);
        let message = format!("the image of the daemon cannot be taken in: {}", failure.message);
        Failure { message, ..failure }
    };
    if !archive.begun().map_err(|e| failed(&e))? {
        return Ok(None);
    }
    let imported = read_archive(&mut archive, images.blobs()).map_err(|e| failed(&e))?;
    // What follows the end of an archive still has to be taken, and may say that it broke off.
    std::io::copy(&mut archive.by_ref(), &mut std::io::sink()).map_err(|e| failed(&e))?;
    // Only what is the image's: the store waits for no blob that others have stored here. Other
    // machines need it once the build has ended, which sees to that.
    for entry in &imported {
        let mut needed = images.blobs_below(entry.root.digest).map_err(|e| failed(&e))?;
        needed.push(entry.root.digest);
        images.blobs().flush_all(&needed).map_err(|e| failed(&e))?;
    }
    let image = imported.into_iter().flat_map(|i| i.images).next();
    let image = image.ok_or_else(|| {
        Failure::new(FailureKind::Export, "the daemon sent an archive without an image")
    })?;
    Ok(Some(LocalImage { origin: Origin::Built, ..image }))
}
