//! Brings results from a server: archives and files, none of them left half-written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use ashlar_client::{ArchiveForm, ArchiveWish};
use ashlar_core::journal::Progress;
use ashlar_layers::{Stop, UnpackOptions, unpack_tar};
use ashlar_oci::Reference;

use super::follow::Watched;
use super::submission::{compression, pushes};
use super::told;
use crate::commands::build::Definition;
use crate::progress::Made;
use crate::values::{OutputSpec, OutputType};

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes all outputs of a build that belong on this machine.
///
/// # Errors
/// With the first one that cannot be had or written.
pub(super) fn fetch(watched: &Watched<'_>, definition: &Definition, made: &mut Made) -> Result<()> {
    for spec in definition.outputs.iter().filter(|o| !pushes(o)) {
        let Some(form) = form(spec) else { continue };
        let wish = wish(spec, form, definition);
        let manifest = match &spec.dest {
            Some(dir) if is_directory(spec) => into_directory(watched, &wish, dir)?,
            Some(path) if !spec.is_stdout() => into_file(watched, &wish, path)?,
            _ => download(watched, &wish, &mut io::stdout().lock())?,
        };
        if manifest.is_some() {
            made.manifest = manifest;
        }
        let place = spec.dest.as_ref().filter(|_| !spec.is_stdout());
        made.outputs.push(match place {
            Some(path) => path.display().to_string(),
            None => "standard output".to_owned(),
        });
    }
    Ok(())
}

/// Returns the archive to ask for; none where the image stays at the server.
fn form(spec: &OutputSpec) -> Option<ArchiveForm> {
    match spec.kind {
        OutputType::Oci => Some(ArchiveForm::Oci),
        OutputType::Docker => spec.dest.as_ref().map(|_| ArchiveForm::Docker),
        OutputType::Local | OutputType::Tar => Some(ArchiveForm::Files),
        OutputType::Registry | OutputType::Image => None,
    }
}

fn is_directory(spec: &OutputSpec) -> bool {
    spec.kind == OutputType::Local || (spec.kind == OutputType::Oci && !spec.tar)
}

fn wish(spec: &OutputSpec, form: ArchiveForm, definition: &Definition) -> ArchiveWish {
    let names = match spec.names.as_slice() {
        [] => definition.names.iter().map(Reference::to_string).collect(),
        names => names.to_vec(),
    };
    let mut annotations: BTreeMap<String, String> = definition.annotations.clone();
    annotations.extend(spec.annotations.iter().cloned());
    let (compression, level) = (compression(spec), spec.level);
    ArchiveWish { form, names, compression, level, annotations }
}

fn download(
    watched: &Watched<'_>,
    wish: &ArchiveWish,
    out: &mut dyn io::Write,
) -> Result<Option<String>> {
    let tell = |done: u64, total: u64| {
        let subject = "fetch the result".to_owned();
        watched.display.lock().progress(&Progress { subject, done, total });
    };
    let stop = || watched.cancel.is_cancelled();
    watched.client.download_image(watched.build, wish, out, &stop, &tell).map_err(told)
}

/// Writes a file that appears only when it is whole.
fn into_file(watched: &Watched<'_>, wish: &ArchiveWish, path: &Path) -> Result<Option<String>> {
    let named = || format!("cannot write {}", path.display());
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".ashlar-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(parent)
        .with_context(named)?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let manifest = download(watched, wish, &mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error).with_context(named)?;
    file.persist(path).map_err(|e| e.error).with_context(named)?;
    Ok(manifest)
}

/// Unpacks an archive into a directory while it arrives.
fn into_directory(watched: &Watched<'_>, wish: &ArchiveWish, dir: &Path) -> Result<Option<String>> {
    let named = || format!("cannot write {}", dir.display());
    std::fs::create_dir_all(dir).with_context(named)?;
    let target = File::open(dir).with_context(named)?;
    let (reader, writer) = io::pipe().with_context(named)?;
    let stop = Stop::default();
    std::thread::scope(|scope| {
        let unpacking = scope.spawn(|| unpack(reader, &target, &stop));
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, writer);
        let received = download(watched, wish, &mut writer)
            .and_then(|manifest| writer.flush().with_context(named).map(|()| manifest));
        if received.is_err() {
            stop.stop();
        }
        drop(writer);
        let unpacked = unpacking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (received, unpacked) {
            // A pipe that was left says less than why it was.
            (_, Err(error)) if !stop.is_stopped() => Err(error).with_context(named),
            (received, _) => received,
        }
    })
}

fn unpack(input: impl Read + Send, target: &File, stop: &Stop) -> ashlar_layers::Result<()> {
    let mut input = io::BufReader::with_capacity(BUFFER_BYTES, input);
    let options =
        UnpackOptions { devices: true, stop: stop.clone(), ..UnpackOptions::archive(Vec::new()) };
    unpack_tar(&mut input, target.as_fd(), &options)?;
    Ok(())
}
