//! Getting results out: layers become archives only here, and only once.
//!
//! [`Engine::package`] makes a manifest with all its blobs; [`Engine::export`] writes what
//! `--output` asks for.

mod files;
mod layers;
mod rootfs;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ashlar_core::Digest;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{Progress, Sink};
use ashlar_layers::{Compression, Stop};
use ashlar_oci::registry::BlobOrigins;
use ashlar_oci::{
    ArchiveKind, Composed, Contents, Entry, LayerRef, LocalImage, NewLayer, Origin, Reference,
    Transfer, compose, write_archive, write_layout,
};
use ashlar_sandbox::Cancel;

use self::layers::BlobWish;
use crate::Engine;
use crate::cancel::while_waiting;
use crate::error::{failure_of, internal};
use crate::request::Built;

pub use rootfs::ROOTFS_BYTES_MAX;

/// Where a result goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Which form.
    pub kind: OutputKind,
    /// How layers are compressed.
    pub compression: Compression,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// The forms that a result can take.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputKind {
    /// An OCI layout as an archive.
    OciArchive(Destination),
    /// An OCI layout as a directory.
    OciLayout(PathBuf),
    /// What `docker load` takes.
    DockerArchive(Destination),
    /// The files alone, in a directory.
    Directory(PathBuf),
    /// The files alone, as one tar.
    Tar(Destination),
    /// A repository of a registry.
    Registry(Vec<Reference>),
}

/// A file to write, or standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file; it appears when it is whole. A device or a pipe is written to as it is.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// A result with its names, whose layers may not be archives yet.
pub struct Image {
    /// The config without diff ids.
    pub config: serde_json::Value,
    /// The layers, bottom first.
    pub layers: Vec<LayerRef>,
    /// Names.
    pub names: Vec<Reference>,
    /// Times of files after this one, in seconds since 1970, become this one in archives.
    pub epoch: Option<i64>,
}

impl Image {
    /// Takes what a build came to.
    ///
    /// # Errors
    /// Never, but the type of a JSON conversion says otherwise.
    pub fn of(built: &Built, names: Vec<Reference>, epoch: Option<i64>) -> Result<Self, Failure> {
        let config = serde_json::to_value(&built.config).map_err(internal)?;
        Ok(Self { config, layers: built.layers.clone(), names, epoch })
    }
}

impl Engine {
    /// Keeps an image under its names among the local ones, without making archives. Returns its id.
    ///
    /// # Errors
    /// When the image store fails.
    pub fn keep_image(&self, image: &Image, made: Option<&Composed>) -> Result<Digest, Failure> {
        let platform = self.platform_of(&image.config);
        let local = LocalImage {
            names: Vec::new(),
            platform,
            config: image.config.clone(),
            config_digest: None,
            layers: image.layers.clone(),
            manifest: made.map(|m| m.manifest.clone()),
            origin: Origin::Built,
            repository: self.shared.repository_of(&image.layers),
            created: crate::clock::now(),
        };
        let ids = self.shared.images.store().add(&[local], &image.names, None).map_err(internal)?;
        ids.first()
            .copied()
            .ok_or_else(|| Failure::new(FailureKind::Internal, "the image store gave no id"))
    }

    fn platform_of(&self, config: &serde_json::Value) -> ashlar_core::Platform {
        let text = |name: &str| config.get(name).and_then(|v| v.as_str()).map(str::to_owned);
        let host = ashlar_core::Platform::host();
        ashlar_core::Platform {
            os: text("os").unwrap_or(host.os),
            architecture: text("architecture").unwrap_or(host.architecture),
            variant: text("variant"),
        }
    }

    /// Makes all blobs of an image and its manifest.
    ///
    /// # Errors
    /// When a layer is gone, cannot be fetched or cannot be read, or it was to stop.
    pub fn package(
        &self,
        image: &Image,
        output: &Output,
        way: Way<'_>,
    ) -> Result<Composed, Failure> {
        let (composed, _) = self.package_unless(image, output, wish(image, output, false), way)?;
        Ok(composed)
    }

    fn package_unless(
        &self,
        image: &Image,
        output: &Output,
        wish: BlobWish,
        way: Way<'_>,
    ) -> Result<(Composed, BlobOrigins), Failure> {
        let mut layers = Vec::new();
        let mut origins = BlobOrigins::new();
        for layer in &image.layers {
            let (made, origin) = self.shared.layer_blob(layer, wish, way)?;
            if let Some(origin) = origin {
                origins.insert(made.blob.digest, origin);
            }
            layers.push(NewLayer { blob: made.blob, diff_id: made.diff_id });
        }
        let notes = (!output.annotations.is_empty()).then(|| output.annotations.clone());
        let blobs = self.shared.images.blobs();
        let composed = compose(blobs, image.config.clone(), &layers, notes).map_err(export)?;
        Ok((composed, origins))
    }

    /// Writes one output. Returns the manifest's descriptor where there is a manifest. When `cancel`
    /// is called it ends soon, and a file that was being written does not appear.
    ///
    /// # Errors
    /// When something cannot be read or written, a registry refuses, or `cancel` was called.
    pub fn export(
        &self,
        built: &Built,
        image: &Image,
        output: &Output,
        sink: &dyn Sink,
        cancel: &Cancel,
    ) -> Result<Option<Composed>, Failure> {
        let stop = Stop::default();
        let way = Way { sink, stop: &stop };
        let end = stop.clone();
        let export = || self.export_unless(built, image, output, way);
        while_waiting(cancel, move || end.stop(), export)
    }

    fn export_unless(
        &self,
        built: &Built,
        image: &Image,
        output: &Output,
        way: Way<'_>,
    ) -> Result<Option<Composed>, Failure> {
        match &output.kind {
            OutputKind::Directory(dir) => {
                self.shared.write_files(&built.tree, dir, way)?;
                return Ok(None);
            }
            OutputKind::Tar(to) => {
                let tree = &built.tree;
                write_to(to, |out| self.shared.write_tar(tree, image.epoch, out, way))?;
                return Ok(None);
            }
            OutputKind::DockerArchive(to) if output.compression == Compression::None => {
                return self.write_plain(to, image, output, way).map(Some);
            }
            _ => {}
        }
        let for_push = matches!(output.kind, OutputKind::Registry(_));
        let wish = wish(image, output, for_push);
        let (composed, origins) = self.package_unless(image, output, wish, way)?;
        self.write_composed(&output.kind, &composed, &image.names, &origins, way)?;
        Ok(Some(composed))
    }

    /// Writes a docker archive whose plain layers go from their files straight into it: a blob of
    /// each would double what is written, for bytes that nothing but this archive wants.
    fn write_plain(
        &self,
        to: &Destination,
        image: &Image,
        output: &Output,
        way: Way<'_>,
    ) -> Result<Composed, Failure> {
        let wish = BlobWish { loose: true, ..wish(image, output, false) };
        let (composed, _) = self.package_unless(image, output, wish, way)?;
        let blobs = self.shared.images.blobs();
        let mut contents = Contents::from(blobs);
        for layer in &image.layers {
            let (made, _) = self.shared.layer_blob(layer, wish, way)?;
            let (Some(id), false) = (layer.tree, blobs.has(&made.blob.digest).map_err(internal)?)
            else {
                continue;
            };
            contents = contents.with(made.blob.digest, move |out| {
                let written = self.shared.write_layer(&id, wish, way, &mut &mut *out);
                written.map(drop).map_err(io::Error::other)
            });
        }
        let entry = Entry { root: composed.manifest.clone(), names: image.names.clone() };
        write_to(to, |out| {
            let out = Stoppable { out, stop: way.stop };
            write_archive(out, ArchiveKind::Docker, &[entry], contents).map_err(export)
        })?;
        Ok(composed)
    }

    /// Writes an image whose manifest and blobs are in the store.
    pub(crate) fn write_composed(
        &self,
        kind: &OutputKind,
        composed: &Composed,
        names: &[Reference],
        origins: &BlobOrigins,
        way: Way<'_>,
    ) -> Result<(), Failure> {
        let blobs = self.shared.images.blobs();
        let entry = || [Entry { root: composed.manifest.clone(), names: names.to_vec() }];
        let archive = |to: &Destination, kind| {
            write_to(to, |out| {
                let out = Stoppable { out, stop: way.stop };
                write_archive(out, kind, &entry(), blobs).map_err(export)
            })
        };
        match kind {
            OutputKind::OciArchive(to) => archive(to, ArchiveKind::Oci),
            OutputKind::DockerArchive(to) => archive(to, ArchiveKind::Docker),
            OutputKind::OciLayout(dir) => write_layout(dir, &entry(), blobs).map_err(export),
            OutputKind::Registry(names) => self.push(names, composed, origins, way),
            OutputKind::Directory(_) | OutputKind::Tar(_) => Ok(()),
        }
    }

    fn push(
        &self,
        names: &[Reference],
        composed: &Composed,
        origins: &BlobOrigins,
        way: Way<'_>,
    ) -> Result<(), Failure> {
        for name in names {
            let report = |p: ashlar_oci::Progress| {
                let subject = format!("push {name} {}", p.digest.short());
                way.sink.progress(Progress { subject, done: p.done, total: p.total });
            };
            let transfer = Transfer::quiet().with_progress(&report).with_cancel(way.stop.flag());
            let blobs = self.shared.images.blobs();
            let registry = self.shared.images.registry();
            registry.push(name, &composed.manifest, blobs, origins, &transfer).map_err(|e| {
                let hint = e.hint().map(ToOwned::to_owned);
                Failure { hint, ..export(e) }
            })?;
        }
        Ok(())
    }
}

/// How an output wants its layers.
fn wish(image: &Image, output: &Output, for_push: bool) -> BlobWish {
    BlobWish { compression: output.compression, epoch: image.epoch, for_push, loose: false }
}

/// Whom an export tells, and what ends it early.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// Hears how far it is.
    pub sink: &'a dyn Sink,
    /// Ends it.
    pub stop: &'a Stop,
}

/// A writer that fails once it shall stop.
struct Stoppable<'a, W> {
    out: W,
    stop: &'a Stop,
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check().map_err(io::Error::other)?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes to a file that appears only when it is whole, or to standard output.
fn write_to(
    to: &Destination,
    write: impl FnOnce(&mut File) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match to {
        Destination::Stdout => {
            use std::os::fd::AsFd as _;
            let out = io::stdout().as_fd().try_clone_to_owned().map_err(export)?;
            write(&mut File::from(out))
        }
        Destination::File(path) if is_special(path) => {
            let opened = File::options().write(true).open(path);
            write(&mut opened.map_err(|e| cannot_write(path, &e))?)
        }
        Destination::File(path) => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let failed = |e: io::Error| cannot_write(path, &e);
            let mut file = tempfile::Builder::new()
                .prefix(".ashlar-")
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .tempfile_in(parent)
                .map_err(failed)?;
            write(file.as_file_mut())?;
            file.as_file_mut().flush().map_err(failed)?;
            file.persist(path).map(drop).map_err(|e| failed(e.error))
        }
    }
}

/// Whether the path leads to a device, a pipe or the like, which is written to, never replaced:
/// `dest=/dev/null`, `dest=>(docker load)`.
fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(FailureKind::Export, format!("cannot write {}: {error}", path.display()))
}

/// Turns an error into a failure of the export.
pub(super) fn export(error: impl std::error::Error + 'static) -> Failure {
    failure_of(FailureKind::Export, &error)
}
