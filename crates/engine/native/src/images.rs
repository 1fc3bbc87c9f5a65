//! Images as sources: found by name or digest, their layers unpacked when a step needs the files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::Answer;
use ashlar_core::journal::{Event, Level, LogLine};
use ashlar_core::{Digest, Platform};
use ashlar_oci::{PullPolicy, Reference, ResolvedImage, Transfer};
use ashlar_snapshots::Tree;

use crate::engine::Shared;
use crate::error::{internal, source};
use crate::watch::Watch;

/// Layers of an image that are fetched and unpacked at once.
const LAYERS_AT_ONCE: usize = 3;

impl Shared {
    /// Finds an image and remembers where its layers are.
    pub(crate) fn resolve_image(
        &self,
        text: &str,
        platform: &Platform,
        watch: Watch<'_>,
    ) -> Result<Answer, Failure> {
        let reference: Reference = text.parse().map_err(source)?;
        watch.progress(format!("resolve {reference}"), 0, 0);
        let transfer = Transfer::quiet().with_cancel(watch.stop);
        let image = self.images.resolve(&reference, platform, self.config.pull, &transfer);
        let image = Arc::new(image.map_err(|e| {
            let hint = e.hint().map(ToOwned::to_owned);
            Failure { hint, ..source(e) }
        })?);
        if let Some(why) = &image.stale {
            let line = LogLine::service(Level::Warn, format!("{reference}: {why}"));
            watch.sink.event(Event::Log(line));
        }
        let config = image.image_config().map_err(source)?;
        let manifest = image.id();
        self.resolved().insert(manifest, image);
        Ok(Answer::Image { reference: reference.to_string(), manifest, config: Box::new(config) })
    }

    /// Returns the tree of an image that was resolved before, or is resolved now by its digest.
    pub(crate) fn image_tree(
        &self,
        reference: &str,
        manifest: Digest,
        platform: &Platform,
        watch: Watch<'_>,
    ) -> Result<Tree, Failure> {
        let known = self.resolved().get(&manifest).cloned();
        let image = match known {
            Some(image) => image,
            None => self.resolve_pinned(reference, manifest, platform, watch)?,
        };
        self.image_layers().learn(&image)
    }

    /// Finds an image by its digest: among the local ones by its name, since what was built here may
    /// have no manifest yet, else at its registry.
    fn resolve_pinned(
        &self,
        reference: &str,
        manifest: Digest,
        platform: &Platform,
        watch: Watch<'_>,
    ) -> Result<Arc<ResolvedImage>, Failure> {
        let named: Reference = reference.parse().map_err(source)?;
        let quiet = Transfer::quiet();
        let local = self.images.resolve(&named, platform, PullPolicy::Local, &quiet);
        if let Some(image) = local.ok().filter(|image| image.id() == manifest) {
            let image = Arc::new(image);
            self.resolved().insert(manifest, image.clone());
            return Ok(image);
        }
        let pinned = format!("{}@{manifest}", named.repository());
        self.resolve_image(&pinned, platform, watch)?;
        self.resolved().get(&manifest).cloned().ok_or_else(|| {
            let text = format!("'{reference}' no longer leads to {manifest}");
            source(std::io::Error::other(text))
        })
    }

    /// Brings layers into the snapshot store that are not there yet, a few at a time.
    pub(crate) fn materialise(&self, layers: &[Digest], watch: Watch<'_>) -> Result<(), Failure> {
        let mut missing = Vec::new();
        for id in layers {
            if !self.snapshots.has(id) {
                missing.push(*id);
            }
        }
        match missing.as_slice() {
            [] => Ok(()),
            [one] => self.import(one, watch),
            many => self.import_all(many, watch),
        }
    }

    fn import_all(&self, layers: &[Digest], watch: Watch<'_>) -> Result<(), Failure> {
        let (stop, next) = (AtomicBool::new(false), Mutex::new(layers.iter()));
        let work = || -> Result<(), Failure> {
            while !stop.load(Ordering::Relaxed) {
                watch.check()?;
                let id = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(id) = id else { break };
                self.import(id, watch).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        let gone = |_| {
            let text = "a thread that unpacked a layer panicked";
            Err(Failure::new(FailureKind::Internal, text))
        };
        std::thread::scope(|scope| {
            let threads = (0..layers.len().min(LAYERS_AT_ONCE)).map(|_| scope.spawn(work));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(gone))
        })
    }

    fn import(&self, id: &Digest, watch: Watch<'_>) -> Result<(), Failure> {
        let place = self.image_layers().0.get(id).cloned();
        let (image, layer) = place.ok_or_else(|| {
            let text = format!("the layer {id} was removed; build again");
            internal(std::io::Error::other(text))
        })?;
        let subject = format!("pull {} {}", image.reference, id.short());
        let report = |p: ashlar_oci::Progress| watch.progress(subject.clone(), p.done, p.total);
        let transfer = Transfer::quiet().with_progress(&report).with_cancel(watch.stop);
        let blob = self.images.fetch_layer(&image, layer, &transfer).map_err(source)?;
        let file = self.images.blobs().open_read(&blob.digest).map_err(internal)?;
        let origin = image.reference.to_string();
        let options = ashlar_snapshots::ImportOptions { origin, ..Default::default() };
        self.snapshots.import_layer(*id, file, &options).map_err(source)?;
        Ok(())
    }
}
