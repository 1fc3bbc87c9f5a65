//! Local images: running them, writing them out, making them from root file systems.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::{Exec, Network};
use ashlar_core::image::ImageConfig;
use ashlar_core::journal::Sink;
use ashlar_core::{Digest, Platform};
use ashlar_layers::{
    KnownFiles, ScanOptions, Stop, TarOptions, UnpackOptions, decompress, scan, unpack_tar,
    write_tar,
};
use ashlar_oci::compose::imported_config;
use ashlar_oci::registry::BlobOrigins;
use ashlar_oci::{Composed, Descriptor, LayerRef, LocalImage, Origin, Reference, ResolvedImage};
use ashlar_sandbox::{Cancel, Exit, Io, Rootfs, Spec};
use ashlar_snapshots::Tree;

use crate::Engine;
use crate::error::{internal, source};
use crate::export::{Image, Output, OutputKind, Way};
use crate::request::{BuildLimits, Built};
use crate::watch::Watch;

/// Bytes of an archive that are read at once.
const READ_BYTES: usize = 1 << 20;

/// A local image with its tree.
#[derive(Debug, Clone)]
pub struct Local {
    /// Its id.
    pub id: Digest,
    /// Its record.
    pub image: LocalImage,
    /// Its config.
    pub config: ImageConfig,
    /// Its layers, which may not be unpacked yet.
    pub tree: Tree,
}

/// How an image is run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Arguments in place of the image's `CMD`.
    pub args: Vec<String>,
    /// A program in place of the image's `ENTRYPOINT`.
    pub entrypoint: Option<String>,
    /// Variables on top of the image's.
    pub env: Vec<(String, String)>,
    /// In place of the image's working directory.
    pub workdir: Option<String>,
    /// In place of the image's user.
    pub user: Option<String>,
    /// What it sees of the network.
    pub network: Network,
    /// What it may use up.
    pub limits: BuildLimits,
}

impl Engine {
    /// Finds a local image by name, id or the start of an id.
    ///
    /// # Errors
    /// When there is none, or none of this platform.
    pub fn local(&self, text: &str, platform: &Platform) -> Result<Local, Failure> {
        let store = self.images().store();
        let ids = store.look_up(text).map_err(source)?;
        let mut other = None;
        for id in ids {
            let Some(image) = store.record(&id).map_err(internal)? else { continue };
            if image.platform.clone().normalised() == platform.clone().normalised() {
                return self.local_image(text, id, image);
            }
            other = Some((id, image));
        }
        // An image of one platform only is what was meant, whatever the platform.
        let (id, image) = other.ok_or_else(|| {
            Failure::new(
                FailureKind::Source,
                format!("the image '{text}' is damaged: pull it again"),
            )
        })?;
        self.local_image(text, id, image)
    }

    fn local_image(&self, text: &str, id: Digest, mut image: LocalImage) -> Result<Local, Failure> {
        let config: ImageConfig = serde_json::from_value(image.config.clone()).map_err(internal)?;
        let names = self.images().store().names().map_err(internal)?;
        image.names =
            names.into_iter().filter(|n| n.images.contains(&id)).map(|n| n.name).collect();
        let resolved = resolved(&image)?;
        let tree =
            self.shared.image_layers().learn(&Arc::new(resolved)).map_err(|failure| Failure {
                message: format!("the image '{text}' cannot be used: {}", failure.message),
                ..failure
            })?;
        Ok(Local { id, image, config, tree })
    }

    /// Returns an image whose blobs are in the store as what a build came to: the way to outputs for
    /// what another executor made.
    ///
    /// # Errors
    /// When its config cannot be read, or its layers do not fit it.
    pub fn built_elsewhere(&self, image: &LocalImage) -> Result<Built, Failure> {
        let config = serde_json::from_value(image.config.clone()).map_err(internal)?;
        let resolved = resolved(image)?;
        let (key, layers) = (resolved.id(), image.layers.clone());
        let tree = self.shared.image_layers().learn(&Arc::new(resolved))?;
        let returned = BTreeMap::new();
        Ok(Built { tree, layers, config, key, from_cache: false, returned })
    }

    /// Runs an image in the sandbox; what it writes is thrown away.
    ///
    /// # Errors
    /// When its layers cannot be had or the sandbox cannot be made.
    pub fn run_image(
        &self,
        local: &Local,
        options: &RunOptions,
        sink: &dyn Sink,
        io: Io<'_>,
        cancel: &Cancel,
    ) -> Result<Exit, Failure> {
        let exec = exec_of(&local.config, options)?;
        let snapshots = self.snapshots();
        self.shared.materialise(&local.tree.0, Watch { sink, stop: Stop::default().flag() })?;
        let draft = snapshots.begin(&local.tree).map_err(internal)?;
        let lowers = snapshots.lowers(&local.tree).map_err(internal)?;
        let (upper, work) = (draft.upper().to_owned(), draft.work().to_owned());
        let rootfs = Rootfs::Overlay { lowers, upper, work, volatile: true };
        let user = crate::user::look_up(snapshots, &local.tree, &exec.user)?;
        let mut spec = Spec::new(rootfs, Vec::<String>::new());
        spec.process = crate::job::process(&exec, &user);
        spec.hostname = "ashlar".into();
        spec.network = match exec.network {
            Network::None => ashlar_sandbox::Network::None,
            Network::Host => ashlar_sandbox::Network::Host,
            Network::Default | Network::Isolated => ashlar_sandbox::Network::Isolated,
        };
        spec.limits.memory_bytes = options.limits.memory_bytes;
        spec.limits.cpus = options.limits.cpus;
        spec.limits.pids = options.limits.pids.or(spec.limits.pids);
        spec.limits.disk_bytes = options.limits.disk_bytes;
        spec.limits.timeout = options.limits.timeout;
        spec.disk_paths.push(draft.upper().to_owned());
        self.shared.sandbox.run(&spec, io, cancel).map_err(|e| crate::job::sandbox_failure(&e))
    }

    /// Writes a local image out. One that has a manifest keeps it, byte by byte.
    ///
    /// # Errors
    /// When a layer is gone, something cannot be written, or a registry refuses.
    pub fn export_local(
        &self,
        local: &Local,
        names: Vec<Reference>,
        output: &Output,
        sink: &dyn Sink,
    ) -> Result<Option<Composed>, Failure> {
        let files = matches!(output.kind, OutputKind::Directory(_) | OutputKind::Tar(_));
        if let (Some(manifest), false) = (&local.image.manifest, files)
            && self.is_whole(manifest)?
        {
            let composed = Composed { manifest: manifest.clone(), config: manifest.clone() };
            let way = Way { sink, stop: &Stop::default() };
            self.write_composed(&output.kind, &composed, &names, &BlobOrigins::new(), way)?;
            return Ok(Some(composed));
        }
        let config = local.image.config.clone();
        let image = Image { config, layers: local.image.layers.clone(), names, epoch: None };
        let built = Built {
            tree: local.tree.clone(),
            layers: local.image.layers.clone(),
            config: local.config.clone(),
            key: local.id,
            from_cache: true,
            returned: BTreeMap::new(),
        };
        self.export(&built, &image, output, sink, &Cancel::new().map_err(internal)?)
    }

    /// Says whether all blobs below a manifest are here.
    fn is_whole(&self, manifest: &Descriptor) -> Result<bool, Failure> {
        let blobs = self.images().blobs();
        if !blobs.has(&manifest.digest).map_err(internal)? {
            return Ok(false);
        }
        Ok(ashlar_oci::import::images_of(manifest, blobs).is_ok())
    }

    /// Makes an image of one layer from a root file system: a directory or a tar, compressed or
    /// not. Returns its id.
    ///
    /// # Errors
    /// When it cannot be read, or the archive is hostile.
    pub fn import_rootfs(
        &self,
        from: &Path,
        platform: &Platform,
        names: &[Reference],
    ) -> Result<Digest, Failure> {
        let draft = self.snapshots().begin(&Tree::scratch()).map_err(internal)?;
        let upper = File::open(draft.upper()).map_err(internal)?;
        let read = |e: io::Error| {
            Failure::new(FailureKind::Source, format!("cannot read {}: {e}", from.display()))
        };
        let input = File::open(from).map_err(read)?;
        let known = if from.is_dir() { copy_tree(&input, &upper)? } else { unpack(input, &upper)? };
        let layer = draft.commit(&known).map_err(internal)?;
        let created = crate::clock::now();
        let config = imported_config(platform, created, "imported root file system");
        let layer = LayerRef { tree: Some(layer.id), ..LayerRef::default() };
        let image = LocalImage {
            names: Vec::new(),
            platform: platform.clone(),
            config,
            config_digest: None,
            layers: vec![layer],
            manifest: None,
            origin: Origin::Imported,
            repository: None,
            created,
        };
        let ids = self.images().store().add(&[image], names, None).map_err(internal)?;
        ids.first()
            .copied()
            .ok_or_else(|| Failure::new(FailureKind::Internal, "the image store gave no id"))
    }
}

/// Returns a local image as one that a reference led to.
fn resolved(image: &LocalImage) -> Result<ResolvedImage, Failure> {
    let named = image.names.first().cloned().map_or_else(|| "image".parse(), Ok);
    Ok(ResolvedImage {
        reference: named.map_err(internal)?,
        platform: image.platform.clone(),
        index: None,
        manifest: image.manifest.as_ref().map(|m| m.digest),
        config: image.config.to_string().into_bytes(),
        layers: image.layers.clone(),
        repository: image.repository.clone(),
        stale: None,
    })
}

fn unpack(input: impl Read + Send, upper: &File) -> Result<KnownFiles, Failure> {
    let (_, plain) = decompress(input).map_err(source)?;
    let plain = io::BufReader::with_capacity(READ_BYTES, plain);
    let options = UnpackOptions { devices: true, ..UnpackOptions::archive(Vec::new()) };
    Ok(unpack_tar(plain, upper.as_fd(), &options).map_err(source)?.known)
}

/// Copies a directory as an archive of it would: owners, modes, times, links, devices and
/// attributes come along.
fn copy_tree(from: &File, upper: &File) -> Result<KnownFiles, Failure> {
    let found = scan(from.as_fd(), &KnownFiles::new(), &ScanOptions::default()).map_err(source)?;
    let (reader, writer) = io::pipe().map_err(internal)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut out = io::BufWriter::with_capacity(READ_BYTES, writer);
            write_tar(&found.entries, from.as_fd(), &mut out, &TarOptions::default())?;
            io::Write::flush(&mut out)
                .map_err(|source| ashlar_layers::LayerError::Stream { action: "write", source })
        });
        let known = unpack(reader, upper);
        match writing.join() {
            Ok(Ok(())) => known,
            // A reader that gave up says more than the pipe that it left.
            Ok(Err(error)) => known.and(Err(source(error))),
            Err(_) => Err(Failure::new(FailureKind::Internal, "a thread that read files panicked")),
        }
    })
}

/// Returns the process of an image.
fn exec_of(config: &ImageConfig, options: &RunOptions) -> Result<Exec, Failure> {
    let run = &config.config;
    let mut args = match &options.entrypoint {
        Some(program) => vec![program.clone()],
        None => run.entrypoint.clone().unwrap_or_default(),
    };
    let own = options.entrypoint.is_none() && options.args.is_empty();
    args.extend(if own { run.cmd.clone().unwrap_or_default() } else { options.args.clone() });
    if args.is_empty() {
        let text = "the image names no command";
        return Err(Failure::new(FailureKind::Definition, text)
            .hint("give one: ashlar images run NAME COMMAND..."));
    }
    let mut env: Vec<(String, String)> = Vec::new();
    let image_env = run.env.iter().filter_map(|e| e.split_once('='));
    let pairs = image_env.map(|(n, v)| (n.to_owned(), v.to_owned())).chain(options.env.clone());
    for (name, value) in pairs {
        env.retain(|(n, _)| *n != name);
        env.push((name, value));
    }
    Ok(Exec {
        args,
        env,
        cwd: options.workdir.clone().unwrap_or_else(|| run.working_dir.clone()),
        user: options.user.clone().unwrap_or_else(|| run.user.clone()),
        network: options.network,
        ..Exec::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_replace_the_command_and_an_entrypoint_replaces_both() {
        let mut config = ImageConfig::default();
        config.config.entrypoint = Some(vec!["e".into()]);
        config.config.cmd = Some(vec!["c".into()]);
        config.config.env = vec!["A=1".into(), "B=2".into()];
        let args = |o: &RunOptions| exec_of(&config, o).unwrap().args;
        assert_eq!(args(&RunOptions::default()), ["e", "c"]);
        let given = RunOptions { args: vec!["x".into()], ..RunOptions::default() };
        assert_eq!(args(&given), ["e", "x"]);
        let program = RunOptions { entrypoint: Some("sh".into()), ..RunOptions::default() };
        assert_eq!(args(&program), ["sh"]);
        let env = RunOptions { env: vec![("A".into(), "9".into())], ..RunOptions::default() };
        let got = exec_of(&config, &env).unwrap().env;
        assert_eq!(got, [("B".into(), "2".into()), ("A".into(), "9".into())]);
        assert!(exec_of(&ImageConfig::default(), &RunOptions::default()).is_err());
    }
}
