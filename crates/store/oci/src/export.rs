//! Writes images out: OCI layout as a directory or archive, and docker-archive.
//!
//! Source: OCI image spec 1.1, image-layout.md; the archive of `docker save` (which since Docker
//! 25 is an OCI layout with a `manifest.json`, and is written so here).

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ashlar_blobs::{BlobError, BlobStore};
use serde_json::{Value, json};

use crate::contents::{Contents, archive};
use crate::manifest::{Descriptor, Document, Manifest};
use crate::media_type as mt;
use crate::reference::{DEFAULT_TAG, Reference};
use crate::walk::{self, Absent, Node, WalkError};

/// Annotation of an entry of `index.json`: its tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of an entry of `index.json`: its whole name, for containerd and Docker.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// Content of the file `oci-layout`.
const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// One image or index to write out, and the names that it gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Manifest or index in the store.
    pub root: Descriptor,
    /// Names for `docker load` and others; may be empty.
    pub names: Vec<Reference>,
}

/// What kind of archive to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// An OCI layout.
    Oci,
    /// What `docker load` reads, older versions too. Images of one platform only.
    Docker,
}

/// An image can not be written out.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store does not hold the whole image.
    #[error(transparent)]
    Image(#[from] WalkError),
    /// The blob store failed.
    #[error("the local blob store failed")]
    Blob(#[from] BlobError),
    /// A blob is not as long as its descriptor says.
    #[error("blob {} has {actual} bytes here, {} in its manifest", blob.digest, blob.size)]
    Size {
        /// The blob.
        blob: Box<Descriptor>,
        /// Its size here.
        actual: u64,
    },
    /// A blob that was made while it was written came out another one.
    #[error("blob {} came out as {actual}; the files of its layer changed meanwhile", blob.digest)]
    Digest {
        /// The blob.
        blob: Box<Descriptor>,
        /// What came out.
        actual: ashlar_core::Digest,
    },
    /// A docker archive holds one platform of an image.
    #[error("a docker archive can not hold several platforms; write an OCI archive instead")]
    Platforms,
    /// The output can not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file, or `archive`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

type Result<T, E = ExportError> = std::result::Result<T, E>;

/// Writes an OCI layout into the directory `dir`, made when it is new. Blobs that are there
/// already stay; `index.json` is replaced.
///
/// # Errors
/// See [`ExportError`].
pub fn write_layout(dir: &Path, entries: &[Entry], blobs: &BlobStore) -> Result<()> {
    let plan = Plan::new(entries, &blobs.into())?;
    let at = |path: &Path| {
        let path = path.to_owned();
        |source| ExportError::Write { path, source }
    };
    let folder = dir.join("blobs/sha256");
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    for blob in &plan.blobs {
        let to = folder.join(blob.digest.hex());
        if fs::symlink_metadata(&to).is_ok_and(|m| m.is_file() && m.len() == blob.size) {
            continue;
        }
        let mut source = blobs.open_read(&blob.digest)?;
        let mut copy = || -> io::Result<()> {
            let mut temp = tempfile::Builder::new().prefix(".new-").tempfile_in(&folder)?;
            io::copy(&mut source, temp.as_file_mut())?;
            publish(temp, &to)
        };
        copy().map_err(at(&to))?;
    }
    for (name, bytes) in [("oci-layout", LAYOUT_FILE.to_vec()), ("index.json", plan.index(entries))]
    {
        let to = dir.join(name);
        let write = || -> io::Result<()> {
            let mut temp = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
            temp.write_all(&bytes)?;
            publish(temp, &to)
        };
        write().map_err(at(&to))?;
    }
    Ok(())
}

/// Names a temporary file, readable by all as other tools expect.
fn publish(temp: tempfile::NamedTempFile, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    temp.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    temp.persist(to)?;
    Ok(())
}

/// Writes an archive to `out`. The same entries give the same bytes.
///
/// With a [`File`](fs::File) as `out` blobs are copied inside the kernel: wrap it in no buffer.
///
/// # Errors
/// See [`ExportError`].
pub fn write_archive<'a, W: Write + Send>(
    out: W,
    kind: ArchiveKind,
    entries: &[Entry],
    contents: impl Into<Contents<'a>>,
) -> Result<()> {
    let contents = contents.into();
    let plan = Plan::new(entries, &contents)?;
    let docker = match kind {
        ArchiveKind::Oci => None,
        ArchiveKind::Docker => Some(plan.docker_manifest(entries)?),
    };
    let mut tar = TarWriter { out };
    tar.file("oci-layout", LAYOUT_FILE)?;
    for folder in ["blobs/", "blobs/sha256/"] {
        tar.folder(folder)?;
    }
    for blob in &plan.blobs {
        tar.blob(blob, &contents)?;
    }
    tar.file("index.json", &plan.index(entries))?;
    if let Some(manifest) = docker {
        tar.file("manifest.json", &manifest)?;
    }
    tar.finish()
}

/// What entries need.
struct Plan {
    /// Each blob once, in the order of their digests.
    blobs: Vec<Descriptor>,
    /// The documents of each entry.
    nodes: Vec<Vec<Node>>,
}

impl Plan {
    fn new(entries: &[Entry], contents: &Contents<'_>) -> Result<Self> {
        let documents = |e: &Entry| walk::documents(contents.store(), &e.root, Absent::Refuse);
        let nodes = entries.iter().map(documents).collect::<Result<Vec<_>, _>>()?;
        let (mut seen, mut blobs) = (BTreeSet::new(), Vec::new());
        for node in nodes.iter().flatten() {
            for blob in node.blobs().chain([&node.descriptor]) {
                if seen.insert(blob.digest) {
                    contents.check(blob)?;
                    blobs.push(blob.clone());
                }
            }
        }
        blobs.sort_by_key(|b| b.digest);
        Ok(Self { blobs, nodes })
    }

    /// `index.json`: one entry a name, since a reader takes one name from each.
    fn index(&self, entries: &[Entry]) -> Vec<u8> {
        let mut manifests = Vec::new();
        for (entry, nodes) in entries.iter().zip(&self.nodes) {
            let mut root = entry.root.clone();
            if let Some(node) = nodes.last() {
                node.document.media_type().clone_into(&mut root.media_type);
            }
            if entry.names.is_empty() {
                manifests.push(root.clone());
            }
            for name in &entry.names {
                let tag = name.tag().unwrap_or(DEFAULT_TAG);
                let named = root.clone().with_annotation(REF_NAME, tag);
                manifests.push(named.with_annotation(IMAGE_NAME, name.to_string()));
            }
        }
        let index =
            json!({ "schemaVersion": 2, "mediaType": mt::OCI_INDEX, "manifests": manifests });
        index.to_string().into_bytes()
    }

    /// `manifest.json` of `docker save`.
    fn docker_manifest(&self, entries: &[Entry]) -> Result<Vec<u8>> {
        let mut images = Vec::new();
        for (entry, nodes) in entries.iter().zip(&self.nodes) {
            let tags: Vec<_> = entry.names.iter().filter(|n| n.tag().is_some()).collect();
            let tags: Vec<_> = tags.into_iter().map(untie).collect();
            images.push(docker_image(single(nodes)?, &tags));
        }
        Ok(Value::Array(images).to_string().into_bytes())
    }
}

/// A name for `docker load` has no digest.
fn untie(name: &Reference) -> String {
    format!("{}:{}", name.repository(), name.tag().unwrap_or(DEFAULT_TAG))
}

/// Returns the one manifest among the documents of an entry; attestations do not count.
fn single(nodes: &[Node]) -> Result<&Manifest> {
    let mut images = nodes.iter().filter_map(|n| match &n.document {
        Document::Manifest(m) if n.descriptor.annotation("vnd.docker.reference.type").is_none() => {
            Some(m)
        }
        _ => None,
    });
    match (images.next(), images.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(ExportError::Platforms),
    }
}

fn docker_image(manifest: &Manifest, tags: &[String]) -> Value {
    let path = |d: &Descriptor| format!("blobs/sha256/{}", d.digest.hex());
    let layers: Vec<_> = manifest.layers.iter().map(path).collect();
    json!({ "Config": path(&manifest.config), "RepoTags": tags, "Layers": layers })
}

/// Writes plain tar entries whose bytes depend on nothing but their content.
struct TarWriter<W> {
    out: W,
}

impl<W: Write + Send> TarWriter<W> {
    fn header(&mut self, name: &str, kind: tar::EntryType, mode: u32, size: u64) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    fn folder(&mut self, name: &str) -> Result<()> {
        self.header(name, tar::EntryType::Directory, 0o755, 0).map_err(archive)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        self.header(name, tar::EntryType::Regular, 0o644, size).map_err(archive)?;
        self.out.write_all(bytes).map_err(archive)?;
        self.pad(size)
    }

    fn blob(&mut self, blob: &Descriptor, contents: &Contents<'_>) -> Result<()> {
        let name = format!("blobs/sha256/{}", blob.digest.hex());
        self.header(&name, tar::EntryType::Regular, 0o644, blob.size).map_err(archive)?;
        contents.write(blob, &mut self.out)?;
        self.pad(blob.size)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = usize::try_from(size.next_multiple_of(512) - size).unwrap_or(0);
        self.out.write_all(&[0; 512][..rest]).map_err(archive)
    }

    fn finish(mut self) -> Result<()> {
        self.out.write_all(&[0; 1024]).map_err(archive)?;
        self.out.flush().map_err(archive)
    }
}
