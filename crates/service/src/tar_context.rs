//! Contexts that come as one tar archive, plain or compressed with gzip or zstd.

use std::io::{self, Read};
use std::sync::Arc;

use ashlar_core::identity::Role;
use ashlar_core::{Digest, TenantId};

use crate::context::ENTRIES_MAX;
use crate::{Actor, ContextFile, ContextManifest, EntryKind, Error, Service};

/// What the files of one archive may have together, in bytes.
const UNPACKED_BYTES_MAX: u64 = 32 << 30;

impl Service {
    /// Keeps the context in a tar archive and returns its digest. Blocks the calling thread.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the archive is broken or has entries that no context can have.
    pub fn put_context_tar(
        self: &Arc<Self>,
        actor: &Actor,
        archive: &mut (dyn Read + Send),
    ) -> Result<Digest, Error> {
        actor.needs(Role::Developer)?;
        let manifest = self.unpack(actor.tenant.id, archive)?;
        self.keep_context(actor.tenant.id, manifest)
    }

    fn unpack(
        &self,
        tenant: TenantId,
        archive: &mut (dyn Read + Send),
    ) -> Result<ContextManifest, Error> {
        let broken = |e: io::Error| Error::invalid("context", format!("broken archive: {e}"));
        let (_, plain) = ashlar_layers::decompress(archive).map_err(broken)?;
        let mut archive = tar::Archive::new(plain);
        let mut files: std::collections::BTreeMap<String, ContextFile> = Default::default();
        let mut room = UNPACKED_BYTES_MAX;
        let mut stored = Vec::new();
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            if files.len() == ENTRIES_MAX {
                let what = "the context".to_owned();
                return Err(Error::TooLarge { what, max: ENTRIES_MAX as u64, unit: "entries" });
            }
            let path = entry.path_bytes();
            let Some(path) = relative(&path)? else { continue };
            let mode = entry.header().mode().map_err(broken)? & 0o7777;
            let kind = match entry.header().entry_type() {
                tar::EntryType::Directory => EntryKind::Dir,
                tar::EntryType::Symlink => EntryKind::Symlink { target: link(&entry)? },
                tar::EntryType::Link => linked(&files, &link(&entry)?)?,
                t if t.is_file() => {
                    let size = entry.size();
                    room = room.checked_sub(size).ok_or_else(|| Error::TooLarge {
                        what: "the context".into(),
                        max: UNPACKED_BYTES_MAX,
                        unit: "bytes",
                    })?;
                    let blobs = self.engine().images().blobs();
                    let digest = blobs.put_reader(&mut entry, None)?.digest;
                    stored.push(digest);
                    EntryKind::File { digest, size: Some(size) }
                }
                // Devices and pipes mean nothing in a context.
                _ => continue,
            };
            files.insert(path.clone(), ContextFile { path, kind, mode: Some(mode) });
        }
        self.grants().add(tenant, &stored)?;
        Ok(ContextManifest { files: files.into_values().collect() })
    }
}

/// Returns an entry's path below the root; none for the root itself.
fn relative(path: &[u8]) -> Result<Option<String>, Error> {
    let text = std::str::from_utf8(path)
        .map_err(|_| Error::invalid("context", "the archive has a path that is not UTF-8"))?;
    let parts: Vec<&str> = text.split('/').filter(|p| !matches!(*p, "" | ".")).collect();
    if parts.contains(&"..") || text.starts_with('/') {
        let why = format!("the archive's path '{}' leads out of it", text.escape_debug());
        return Err(Error::invalid("context", why));
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

fn link<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, Error> {
    let bytes = entry.link_name_bytes().unwrap_or_default().into_owned();
    String::from_utf8(bytes)
        .map_err(|_| Error::invalid("context", "the archive has a link that is not UTF-8"))
}

/// Returns what a hard link is: the same file once more.
fn linked(
    files: &std::collections::BTreeMap<String, ContextFile>,
    target: &str,
) -> Result<EntryKind, Error> {
    let path = relative(target.as_bytes())?.unwrap_or_default();
    let file = files.get(&path).map(|f| f.kind.clone());
    let kind = file.filter(|k| matches!(k, EntryKind::File { .. }));
    kind.ok_or_else(|| Error::invalid("context", format!("the archive lacks '{target}'")))
}
