//! Images as sources: found by name or digest, their layers unpacked when a step needs the files.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::Answer;
use ashlar_core::journal::{Event, Level, LogLine};
use ashlar_core::{Digest, Platform};
use ashlar_oci::{Images, PullError, PullPolicy, Reference, ResolvedImage, Transfer};
use ashlar_snapshots::Tree;

use crate::engine::Shared;
use crate::error::{internal, source};
use crate::watch::Watch;

/// Layers of an image that are fetched and unpacked at once.
const LAYERS_AT_ONCE: usize = 3;

impl Shared {
    /// Finds an image in a tenant's view and remembers where its layers are. What came with the
    /// build's own credentials is fetched whole: nobody has them afterwards. With `pull` no local
    /// image is taken.
    pub(crate) fn resolve_image(
        &self,
        view: &Images,
        text: &str,
        platform: &Platform,
        pull: bool,
        watch: Watch<'_>,
    ) -> Result<Answer, Failure> {
        let reference: Reference = text.parse().map_err(source)?;
        watch.progress(format!("resolve {reference}"), 0, 0);
        let transfer = Transfer::quiet().with_cancel(watch.stop);
        let policy = if pull { PullPolicy::Pull } else { self.config.pull };
        let image = view.resolve(&reference, platform, policy, &transfer);
        let with_login = view.is_private(reference.repository());
        let mut image = image.map_err(|e| refusal(e, with_login))?;
        if let Some(why) = &image.stale {
            let line = LogLine::service(Level::Warn, format!("{reference}: {why}"));
            watch.sink.event(Event::Log(line));
        }
        let config = image.image_config().map_err(source)?;
        let is_private = image.repository.as_ref().is_some_and(|r| view.is_private(r));
        if is_private {
            fetch_whole(view, &image, watch)?;
        }
        self.verify_private(view, &image, watch)?;
        if is_private {
            image.repository = None;
        }
        let image = Arc::new(image);
        let manifest = image.id();
        self.remember(view, image);
        Ok(Answer::Image { reference: reference.to_string(), manifest, config: Box::new(config) })
    }

    /// Returns the tree of an image that was resolved before, or is resolved now by its digest.
    pub(crate) fn image_tree(
        &self,
        view: &Images,
        reference: &str,
        manifest: Digest,
        platform: &Platform,
        watch: Watch<'_>,
    ) -> Result<Tree, Failure> {
        // What has no registry to go back to may have been collected since.
        let known = self.resolved(view, manifest).filter(|i| i.repository.is_some());
        let image = match known {
            Some(image) => image,
            None => self.resolve_pinned(view, reference, manifest, platform, watch)?,
        };
        self.image_layers().learn(&image)
    }

    /// Finds an image by its digest: among the local ones by its name, since what was built here may
    /// have no manifest yet, else at its registry.
    fn resolve_pinned(
        &self,
        view: &Images,
        reference: &str,
        manifest: Digest,
        platform: &Platform,
        watch: Watch<'_>,
    ) -> Result<Arc<ResolvedImage>, Failure> {
        let named: Reference = reference.parse().map_err(source)?;
        let quiet = Transfer::quiet();
        let local = view.resolve(&named, platform, PullPolicy::Local, &quiet);
        if let Some(image) = local.ok().filter(|image| image.id() == manifest) {
            let image = Arc::new(image);
            self.remember(view, image.clone());
            return Ok(image);
        }
        let pinned = format!("{}@{manifest}", named.repository());
        self.resolve_image(view, &pinned, platform, false, watch)?;
        self.resolved(view, manifest).ok_or_else(|| {
            let text = format!("'{reference}' no longer leads to {manifest}");
            source(std::io::Error::other(text))
        })
    }

    /// Makes sure that a tenant has the content of every layer that an image names and that is
    /// another tenant's alone: a config may claim any diff id, and a manifest any blob.
    fn verify_private(
        &self,
        view: &Images,
        image: &ResolvedImage,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let Some(repository) = &image.repository else { return Ok(()) };
        for (i, layer) in image.layers.iter().enumerate() {
            let (Some(blob), Some(diff_id)) = (&layer.blob, layer.diff_id) else { continue };
            let readable = |digest| view.may_read(digest).map_err(internal);
            let known = readable(&diff_id)?;
            if known && view.may_wait(&blob.digest).map_err(internal)? {
                continue;
            }
            let transfer = Transfer::quiet().with_cancel(watch.stop);
            let blob = view.fetch_layer(image, i, &transfer).map_err(source)?;
            if known {
                continue;
            }
            let file = view.blobs().open_read(&blob.digest).map_err(internal)?;
            if content_digest(file)? != diff_id {
                let text = format!("layer {} of '{}' is not {diff_id}", i + 1, image.reference);
                return Err(Failure::new(FailureKind::Source, text));
            }
            view.note_received(repository, &diff_id, false).map_err(internal)?;
        }
        Ok(())
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

/// Fetches all layers of an image.
fn fetch_whole(view: &Images, image: &ResolvedImage, watch: Watch<'_>) -> Result<(), Failure> {
    let report = |p: ashlar_oci::Progress| {
        let subject = format!("pull {} {}", image.reference, p.digest.short());
        watch.progress(subject, p.done, p.total);
    };
    let transfer = Transfer::quiet().with_progress(&report).with_cancel(watch.stop);
    let layers = image.layers.iter().enumerate();
    let blobs: Vec<usize> = layers.filter(|(_, l)| l.blob.is_some()).map(|(i, _)| i).collect();
    view.fetch_layers(image, &blobs, &transfer).map_err(|e| refusal(e, true))
}

/// Says why an image could not be had; whether credentials were refused that came with the build.
fn refusal(error: PullError, with_credentials: bool) -> Failure {
    let refused = with_credentials && error.is_refused();
    let hint = error.hint().map(ToOwned::to_owned);
    let failure = Failure { hint, ..source(error) };
    match refused {
        true => Failure { kind: FailureKind::Auth, hint: None, ..failure },
        false => failure,
    }
}

/// Returns the digest of an archive's content, unpacked.
fn content_digest(blob: impl Read + Send) -> Result<Digest, Failure> {
    let (_, plain) = ashlar_layers::decompress(blob).map_err(source)?;
    let mut hasher = ashlar_core::Hasher::new();
    io::copy(&mut plain.take(ashlar_layers::CONTENT_BYTES_MAX), &mut hasher).map_err(source)?;
    Ok(hasher.finish())
}
