//! Writes a result where `--output` says.

use std::path::Path;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::Sink;
use ashlar_layers::Compression;
use ashlar_native::export::{Destination, Image, Output, OutputKind};
use ashlar_native::{Built, Engine};
use ashlar_oci::{Composed, Reference};
use ashlar_sandbox::Cancel;

use super::Definition;
use crate::progress::Made;
use crate::values::{CompressionKind, OutputSpec, OutputType};

/// Returns the hosts of registries that outputs call insecure.
pub(super) fn insecure_hosts(definition: &Definition) -> Vec<String> {
    let insecure = definition.outputs.iter().filter(|o| o.insecure);
    let names = insecure.flat_map(|o| names_of(o, definition).unwrap_or_default());
    names.map(|n| n.repository().host().to_owned()).collect()
}

/// Writes all outputs and keeps the image among the local ones.
///
/// # Errors
/// With the first output that cannot be written.
pub(super) fn write(
    engine: &Engine,
    definition: &Definition,
    built: &Built,
    sink: &dyn Sink,
    cancel: &Cancel,
    made: &mut Made,
) -> Result<(), Failure> {
    let epoch = definition.request.source_date_epoch;
    let (mut composed, mut kept) = (None::<Composed>, None::<Composed>);
    for spec in &definition.outputs {
        if cancel.is_cancelled() {
            return Err(Failure::new(FailureKind::Export, "the build was cancelled"));
        }
        let names = names_of(spec, definition)?;
        let image = Image::of(built, names.clone(), epoch)?;
        for kind in kinds(spec, &names) {
            let mut annotations = definition.annotations.clone();
            annotations.extend(spec.annotations.iter().cloned());
            let output = Output { kind, compression: compression(spec, epoch), annotations };
            if let Some(done) = engine.export(built, &image, &output, sink, cancel)? {
                // Plain layers are for Docker to load, not for a registry that the image may go to later.
                if !matches!(output.kind, OutputKind::DockerArchive(_)) {
                    kept = Some(done.clone());
                }
                composed = Some(done);
            }
            made.outputs.push(describe(&output.kind));
        }
    }
    made.manifest = composed.as_ref().map(|c| c.manifest.digest.to_string());
    if definition.keep {
        let extra = definition.outputs.iter().filter(|o| o.kind == OutputType::Image);
        let mut names = definition.names.clone();
        for spec in extra {
            names.extend(names_of(spec, definition)?);
        }
        names.sort();
        names.dedup();
        let image = Image::of(built, names.clone(), epoch)?;
        let id = engine.keep_image(&image, kept.as_ref())?;
        made.image = Some(id.to_string());
        made.names = names.iter().map(Reference::familiar).collect();
    } else {
        made.names = definition.names.iter().map(Reference::familiar).collect();
    }
    Ok(())
}

fn names_of(spec: &OutputSpec, definition: &Definition) -> Result<Vec<Reference>, Failure> {
    if spec.names.is_empty() {
        return Ok(definition.names.clone());
    }
    let read = |name: &String| {
        name.parse::<Reference>().map_err(|e| {
            Failure::new(FailureKind::Export, format!("--output: name={name}: {e}"))
                .hint("names look like registry.example.com/team/app:tag")
        })
    };
    spec.names.iter().map(read).collect()
}

/// Returns the engine's outputs for a wish; an image that stays here needs none.
fn kinds(spec: &OutputSpec, names: &[Reference]) -> Vec<OutputKind> {
    let path = || spec.dest.clone().unwrap_or_default();
    let destination = || match &spec.dest {
        Some(path) if path.as_os_str() != "-" => Destination::File(path.clone()),
        _ => Destination::Stdout,
    };
    match spec.kind {
        OutputType::Oci if !spec.tar => vec![OutputKind::OciLayout(path())],
        OutputType::Oci => vec![OutputKind::OciArchive(destination())],
        OutputType::Docker if spec.dest.is_some() => vec![OutputKind::DockerArchive(destination())],
        OutputType::Local => vec![OutputKind::Directory(path())],
        OutputType::Tar => vec![OutputKind::Tar(destination())],
        OutputType::Registry => vec![OutputKind::Registry(names.to_vec())],
        OutputType::Image | OutputType::Docker if spec.push => {
            vec![OutputKind::Registry(names.to_vec())]
        }
        OutputType::Image | OutputType::Docker => Vec::new(),
    }
}

fn compression(spec: &OutputSpec, epoch: Option<i64>) -> Compression {
    match (spec.compression, spec.level) {
        (None, None) => usual_compression(spec, epoch),
        (Some(CompressionKind::Gzip), None) => Compression::GZIP,
        (Some(CompressionKind::Gzip) | None, Some(level)) => Compression::Gzip(level),
        (Some(CompressionKind::Zstd), None) => Compression::ZSTD,
        (Some(CompressionKind::Zstd), Some(level)) => Compression::Zstd(level.max(1)),
        (Some(CompressionKind::Uncompressed), _) => Compression::None,
    }
}

/// What goes over a network is worth more work than a file; what Docker loads it unpacks at once, and
/// `docker save` compresses nothing either. A reproducible image has one digest in a file and in a
/// registry.
fn usual_compression(spec: &OutputSpec, epoch: Option<i64>) -> Compression {
    match spec.kind {
        OutputType::Docker if spec.dest.is_some() => Compression::None,
        OutputType::Oci if epoch.is_none() => Compression::GZIP_QUICK,
        _ => Compression::GZIP,
    }
}

fn describe(kind: &OutputKind) -> String {
    let file = |path: &Path| path.display().to_string();
    let place = |to: &Destination| match to {
        Destination::File(path) => file(path),
        Destination::Stdout => "standard output".to_owned(),
    };
    match kind {
        OutputKind::OciArchive(to) | OutputKind::DockerArchive(to) | OutputKind::Tar(to) => {
            place(to)
        }
        OutputKind::OciLayout(dir) | OutputKind::Directory(dir) => file(dir),
        OutputKind::Registry(names) => {
            names.iter().map(Reference::to_string).collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reproducible_image_is_compressed_alike_for_a_file_and_for_a_registry() {
        let of = |kind, epoch| compression(&OutputSpec::new(kind), epoch);
        assert_eq!(of(OutputType::Oci, Some(0)), of(OutputType::Registry, Some(0)));
        assert_eq!(of(OutputType::Oci, None), Compression::GZIP_QUICK);
        assert_eq!(of(OutputType::Registry, None), Compression::GZIP);
    }
}
