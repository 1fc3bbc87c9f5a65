//! `ashlar images pull`, `push`, `import` and `export`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use ashlar_core::Platform;
use ashlar_layers::Compression;
use ashlar_native::Engine;
use ashlar_native::export::{Destination, Output, OutputKind};
use ashlar_oci::import::ImportError;
use ashlar_oci::{Imported, PullPolicy, Transfer, read_archive, read_layout};
use serde_json::json;

use super::{Notes, reference, show};
use crate::cli::images::{ExportArgs, ExportKind, ImportArgs, PullArgs, PushArgs};
use crate::commands::usage;
use crate::output::{self, note};
use crate::settings::Settings;

pub(super) fn pull(engine: &Engine, args: &PullArgs) -> Result<ExitCode> {
    let name = reference(&args.name)?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let notes = Notes::default();
    let report = |p: ashlar_oci::Progress| {
        let subject = format!("pull {} {}", name.familiar(), p.digest.short());
        let progress = ashlar_core::journal::Progress { subject, done: p.done, total: p.total };
        ashlar_core::journal::Sink::progress(&notes, progress);
    };
    let transfer = Transfer::quiet().with_progress(&report);
    let _lease = engine.work_lease()?;
    match engine.images().pull(&name, &platform, &transfer) {
        Ok((id, _)) => show(engine, &[id], args.json.json)?,
        Err(error) => {
            let hint = error.hint().map(ToOwned::to_owned);
            let error = anyhow::Error::new(error);
            bail!("{error:#}{}", hint.map(|h| format!("\nhint: {h}")).unwrap_or_default());
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn push(settings: &Settings, args: &PushArgs) -> Result<ExitCode> {
    let given = args.name.as_deref().map(reference).transpose()?;
    let mut settings = settings.clone();
    let named = given.clone().or_else(|| args.image.parse().ok());
    if let (true, Some(name)) = (args.insecure, &named) {
        settings.plain_http.push(name.repository().host().to_owned());
    }
    let engine = settings.engine(PullPolicy::Default)?;
    let local = engine.local(&args.image, &Platform::host())?;
    let name = match (given, local.image.names.first()) {
        (Some(name), _) => name,
        (None, _) if named.as_ref().is_some_and(|n| local.image.names.contains(n)) => {
            reference(&args.image)?
        }
        (None, Some(name)) => name.clone(),
        (None, None) => {
            return usage("the image has no name; say where to push it: images push ID NAME");
        }
    };
    let _lease = engine.work_lease()?;
    let output = output_of(OutputKind::Registry(vec![name.clone()]));
    let composed = engine.export_local(&local, vec![name.clone()], &output, &Notes::default())?;
    let digest = composed.map(|c| c.manifest.digest);
    if args.json.json {
        output::json(&json!({ "name": name.to_string(), "manifest": digest }))?;
    } else {
        let digest = digest.map(|d| d.to_string()).unwrap_or_default();
        output::line(format!("pushed {}@{digest}", name.familiar()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn output_of(kind: OutputKind) -> Output {
    Output { kind, compression: Compression::GZIP, annotations: BTreeMap::new() }
}

pub(super) fn import(engine: &Engine, args: &ImportArgs) -> Result<ExitCode> {
    let name = args.name.as_deref().map(reference).transpose()?;
    let path = &args.path;
    if std::fs::metadata(path).is_err() {
        return usage(format!("{} does not exist", path.display()));
    }
    let _lease = engine.work_lease()?;
    let ids = match (args.rootfs, read_image(engine, path)) {
        (false, Ok(imported)) => engine.images().add_imported(&imported, name.as_ref())?,
        (true, _) | (false, Err(ImportError::NotImage)) => {
            let Some(name) = name else {
                return usage("a root file system needs a name: images import PATH NAME");
            };
            let platform = args.platform.clone().unwrap_or_else(Platform::host);
            vec![engine.import_rootfs(path, &platform, &[name])?]
        }
        (false, Err(error)) => {
            return Err(error).with_context(|| format!("cannot import {}", path.display()));
        }
    };
    show(engine, &ids, args.json.json)?;
    if let (false, Some(name)) = (args.json.json, &args.name) {
        note(format!("next: FROM {name} in a Dockerfile, or: ashlar images run {name}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads an OCI layout or a docker archive; [`ImportError::NotImage`] when it is neither.
fn read_image(engine: &Engine, path: &Path) -> Result<Vec<Imported>, ImportError> {
    let blobs = engine.images().blobs();
    if path.is_dir() {
        return read_layout(path, blobs);
    }
    let open = |source| ImportError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(open)?;
    if !holds_image(&file) {
        return Err(ImportError::NotImage);
    }
    std::io::Seek::rewind(&mut file).map_err(open)?;
    read_archive(file, blobs)
}

/// Says whether one of the first members of an archive is what only images have. Reading a root
/// file system as an image would store each of its files first.
fn holds_image(file: &File) -> bool {
    /// Members that are looked at: images have few.
    const MEMBERS_MAX: usize = 4096;
    let Ok((_, plain)) = ashlar_layers::decompress(file) else { return false };
    let mut archive = tar::Archive::new(plain);
    let Ok(entries) = archive.entries() else { return false };
    entries.take(MEMBERS_MAX).filter_map(Result::ok).any(|entry| {
        let name = entry.path_bytes();
        let name = name.strip_prefix(b"./").unwrap_or(&name);
        matches!(name, b"oci-layout" | b"manifest.json" | b"index.json")
    })
}

pub(super) fn export(engine: &Engine, args: &ExportArgs) -> Result<ExitCode> {
    let stdout = args.path.as_os_str() == "-";
    if stdout && args.kind == ExportKind::Local {
        return usage("--type local writes a directory; use --type tar for standard output");
    }
    if stdout && std::io::stdout().is_terminal() {
        return usage("an archive would fill the terminal; give a file");
    }
    let to = match stdout {
        true => Destination::Stdout,
        false => Destination::File(args.path.clone()),
    };
    let kind = match args.kind {
        ExportKind::Oci => OutputKind::OciArchive(to),
        ExportKind::Docker => OutputKind::DockerArchive(to),
        ExportKind::Tar => OutputKind::Tar(to),
        ExportKind::Local => OutputKind::Directory(args.path.clone()),
    };
    let local = engine.local(&args.image, &Platform::host())?;
    let _lease = engine.work_lease()?;
    let names = local.image.names.clone();
    engine.export_local(&local, names, &output_of(kind), &Notes::default())?;
    if !stdout {
        note(format!("wrote {}", args.path.display()));
    }
    Ok(ExitCode::SUCCESS)
}
