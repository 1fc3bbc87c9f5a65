//! Reads an archive in one pass: OCI layout or docker archive, plain, gzip or zstd.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read};

use ashlar_blobs::BlobStore;
use ashlar_core::Digest;
use tar::EntryType;

use super::{ImportError, Imported, Result, Stored, docker, images};
use crate::manifest::{Descriptor, MANIFEST_BYTES_MAX};
use crate::media_type::Compression;

/// Most entries of an archive.
const ENTRIES_MAX: usize = 65_536;
/// Most bytes of an archive once it is uncompressed, against bombs.
const ARCHIVE_BYTES_MAX: u64 = 256 << 30;
/// Most bytes of an extended header: names and links need far fewer.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;
/// Bytes written at once.
const COPY_LEN: usize = 256 << 10;
/// Documents that are kept in memory.
const DOCUMENTS: [&str; 3] = ["index.json", "manifest.json", "oci-layout"];

/// What an archive holds, by path.
#[derive(Default)]
pub(super) struct Members {
    documents: HashMap<String, Vec<u8>>,
    pub(super) files: HashMap<String, Member>,
    /// Links of old docker archives, from path to path.
    pub(super) links: HashMap<String, String>,
}

/// A file of an archive that is in the store now.
pub(super) struct Member {
    pub(super) blob: Descriptor,
    pub(super) compression: Compression,
}

/// Reads the images of an archive into the store.
///
/// # Errors
/// See [`ImportError`].
pub fn read_archive(input: impl Read, blobs: &BlobStore) -> Result<Vec<Imported>> {
    let mut stored = Stored::new(blobs);
    let input = uncompressed(input)?.take(ARCHIVE_BYTES_MAX);
    let members = Members::read(input, blobs, &mut stored)?;
    let document = |name: &str| members.documents.get(name);
    let imported = match (document("oci-layout"), document("index.json"), document("manifest.json"))
    {
        (Some(_), Some(index), _) => images::read_index(index, blobs)?,
        (_, _, Some(manifest)) => docker::read_manifest(manifest, &members, blobs)?,
        _ => return Err(ImportError::NotImage),
    };
    stored.keep(&imported)?;
    Ok(imported)
}

fn uncompressed<'a>(input: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::with_capacity(1 << 20, input);
    let compression = Compression::of_magic(input.fill_buf().map_err(read_error)?);
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => {
            Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(read_error)?)
        }
    })
}

/// What an extended header says about the entry after it.
#[derive(Default)]
struct Extension {
    path: Option<String>,
    link: Option<String>,
}

impl Members {
    /// Extended headers are read here and not by the tar crate, which puts no limit on them.
    fn read(input: impl Read, blobs: &BlobStore, stored: &mut Stored<'_>) -> Result<Self> {
        let mut members = Self::default();
        let mut archive = tar::Archive::new(input);
        let mut extension = Extension::default();
        for (count, entry) in archive.entries().map_err(read_error)?.raw(true).enumerate() {
            let mut entry = entry.map_err(read_error)?;
            if count >= ENTRIES_MAX {
                return Err(ImportError::Limit {
                    what: format!("more than {ENTRIES_MAX} entries"),
                });
            }
            let kind = entry.header().entry_type();
            if matches!(
                kind,
                EntryType::XHeader
                    | EntryType::XGlobalHeader
                    | EntryType::GNULongName
                    | EntryType::GNULongLink
            ) {
                extension.take(kind, &mut entry)?;
                continue;
            }
            let told = std::mem::take(&mut extension);
            let raw = told.path.unwrap_or_else(|| lossy(&entry.path_bytes()));
            let name = clean(&raw)?;
            let refuse = |reason| Err(ImportError::Entry { name: name.clone(), reason });
            match kind {
                EntryType::Directory => {}
                EntryType::Regular | EntryType::Continuous => {
                    members.file(name, &mut entry, blobs, stored)?;
                }
                EntryType::Symlink | EntryType::Link => {
                    let link = entry.link_name_bytes().map(|l| lossy(&l));
                    let Some(link) = told.link.or(link) else { return refuse("a link to nothing") };
                    members.links.insert(name.clone(), target(&name, kind, &link)?);
                }
                _ => {
                    return refuse(
                        "only files, directories and links belong into an image archive",
                    );
                }
            }
        }
        Ok(members)
    }

    fn file(
        &mut self,
        name: String,
        entry: &mut impl Read,
        blobs: &BlobStore,
        stored: &mut Stored<'_>,
    ) -> Result<()> {
        if DOCUMENTS.contains(&name.as_str()) {
            let bytes = read_limited(entry, MANIFEST_BYTES_MAX, &name)?;
            self.documents.insert(name, bytes);
            return Ok(());
        }
        let expected = name.strip_prefix("blobs/sha256/").and_then(|h| Digest::from_hex(h).ok());
        let mut start = Vec::with_capacity(4);
        entry.by_ref().take(4).read_to_end(&mut start).map_err(read_error)?;
        let compression = Compression::of_magic(&start);
        let writer = blobs.writer()?;
        let mut buffered = io::BufWriter::with_capacity(COPY_LEN, writer);
        // Errors of either side carry no more than their kind; both end the import.
        io::copy(&mut start.as_slice().chain(entry), &mut buffered).map_err(read_error)?;
        let writer = buffered.into_inner().map_err(|e| read_error(e.into_error()))?;
        let digest = writer.digest();
        let is_new = !blobs.has(&digest)?;
        let info = writer.commit(expected.as_ref())?;
        if is_new {
            stored.note(digest);
        }
        let blob = Descriptor::new(compression.oci_layer(), info.digest, info.size);
        self.files.insert(name, Member { blob, compression });
        Ok(())
    }
}

impl Extension {
    fn take(&mut self, kind: EntryType, entry: &mut impl Read) -> Result<()> {
        let bytes = read_limited(entry, EXTENSION_BYTES_MAX, "an extended header")?;
        let text = || lossy(bytes.strip_suffix(&[0]).unwrap_or(&bytes));
        match kind {
            EntryType::GNULongName => self.path = Some(text()),
            EntryType::GNULongLink => self.link = Some(text()),
            EntryType::XHeader => {
                for record in tar::PaxExtensions::new(&bytes) {
                    let record = record.map_err(read_error)?;
                    match record.key_bytes() {
                        b"path" => self.path = Some(lossy(record.value_bytes())),
                        b"linkpath" => self.link = Some(lossy(record.value_bytes())),
                        b"size" => {
                            let name = "an extended header".to_owned();
                            let reason = "a size there could hide entries";
                            return Err(ImportError::Entry { name, reason });
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Brings a path to one form; refuses what leads out of the archive.
fn clean(path: &str) -> Result<String> {
    let refuse = |reason| {
        let name = path.chars().take(200).collect();
        Err(ImportError::Entry { name, reason })
    };
    if path.starts_with('/') {
        return refuse("its path is absolute");
    }
    let parts: Vec<_> = path.split('/').filter(|p| !matches!(*p, "" | ".")).collect();
    if parts.contains(&"..") {
        return refuse("its path has '..'");
    }
    Ok(parts.join("/"))
}

/// Returns what a link leads to, as a path of the archive. Symbolic links are relative to their
/// own directory and may go up, inside the archive; hard links are relative to its root.
fn target(name: &str, kind: EntryType, link: &str) -> Result<String> {
    if kind == EntryType::Link {
        return clean(link);
    }
    let refuse = |reason| Err(ImportError::Entry { name: name.to_owned(), reason });
    if link.starts_with('/') {
        return refuse("it links to an absolute path");
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in link.split('/').filter(|p| !matches!(*p, "" | ".")) {
        if part != ".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return refuse("it links out of the archive");
        }
    }
    Ok(parts.join("/"))
}

fn read_limited(entry: &mut impl Read, limit: u64, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(limit + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > limit {
        return Err(ImportError::Limit { what: format!("{name} of more than {limit} bytes") });
    }
    Ok(bytes)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read_error(source: io::Error) -> ImportError {
    ImportError::Read { path: "archive".into(), source }
}
