//! `ashlar images`: what is here, what comes in, what goes out.

mod list;
mod run;
mod transfer;

use std::process::ExitCode;

use anyhow::Result;
use ashlar_core::journal::{Event, Progress, Sink};
use ashlar_core::{Digest, Platform};
use ashlar_native::Engine;
use ashlar_oci::{LocalImage, PullPolicy, Reference};
use serde::Serialize;

use super::{needs_root, only_here, usage};
use crate::cli::images::ImagesCommand;
use crate::output::{self, note};
use crate::settings::Settings;

/// Runs `ashlar images`.
pub(super) fn run(settings: &Settings, command: ImagesCommand) -> Result<ExitCode> {
    only_here(settings, "images is only for images")?;
    let engine = |settings: &Settings| settings.engine(PullPolicy::Default);
    match command {
        ImagesCommand::List(args) => list::list(&engine(settings)?, args.json),
        ImagesCommand::Pull(args) => transfer::pull(&engine(settings)?, &args),
        ImagesCommand::Push(args) => transfer::push(settings, &args),
        ImagesCommand::Import(args) => transfer::import(&engine(settings)?, &args),
        ImagesCommand::Export(args) => transfer::export(&engine(settings)?, &args),
        ImagesCommand::Run(args) => run::run(settings, &args),
        ImagesCommand::Rm(args) => list::remove(&engine(settings)?, &args),
        ImagesCommand::Tag { image, name } => {
            engine(settings)?.images().store().tag(&image, &reference(&name)?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Reads the name of an image.
fn reference(text: &str) -> Result<Reference> {
    text.parse().or_else(|e| usage(format!("'{text}': {e}")))
}

/// An image for programs.
#[derive(Debug, Serialize)]
struct ImageView {
    id: Digest,
    names: Vec<String>,
    platform: Platform,
    origin: ashlar_oci::Origin,
    created: ashlar_core::Timestamp,
    layers: usize,
    manifest: Option<Digest>,
}

impl ImageView {
    fn of(id: Digest, image: &LocalImage) -> Self {
        Self {
            id,
            names: image.names.iter().map(Reference::familiar).collect(),
            platform: image.platform.clone(),
            origin: image.origin,
            created: image.created,
            layers: image.layers.len(),
            manifest: image.manifest.as_ref().map(|m| m.digest),
        }
    }
}

/// Shows images that were just made.
fn show(engine: &Engine, ids: &[Digest], json: bool) -> Result<()> {
    for (id, image) in engine.images().store().list()? {
        if !ids.contains(&id) {
            continue;
        }
        if json {
            output::json(&ImageView::of(id, &image))?;
        } else {
            let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
            output::line(format!("{id} {}", names.join(" ")).trim_end())?;
        }
    }
    Ok(())
}

/// Tells people that layers arrive.
#[derive(Debug, Default)]
struct Notes(std::sync::Mutex<std::collections::BTreeSet<String>>);

impl Sink for Notes {
    fn event(&self, _: Event) {}

    fn progress(&self, progress: Progress) {
        let mut told = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if progress.total > 0 && told.insert(progress.subject.clone()) {
            note(format!("{} ({})", progress.subject, output::bytes(progress.total)));
        }
    }
}
