//! Gathers what the data directory holds and who needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use ashlar_blobs::BlobInfo;
use ashlar_core::Digest;
use ashlar_core::failure::Failure;
use ashlar_layers::LayerBlob;
use ashlar_oci::{Images, LocalImage, Origin, Reference};

use super::grants::Grants;
use super::{Holder, Item, ItemKind, Usage, Use};
use crate::Engine;
use crate::cache::RecordDir;
use crate::error::internal;

/// Blobs and layers that images with a name need, and by which image.
#[derive(Default)]
struct Needed {
    blobs: BTreeMap<Digest, String>,
    layers: BTreeMap<Digest, String>,
    /// What images without a name are made of, by their ids.
    untagged: BTreeMap<Digest, BTreeSet<Digest>>,
}

impl Needed {
    /// Whether an image is there for as long as nobody removes it. One that lost its name to a later
    /// build or pull is made again from what it was made of; one that was imported may not be. An
    /// image that a server's record holds always has the name of its build.
    fn keeps(image: &LocalImage) -> bool {
        !image.names.is_empty() || image.origin == Origin::Imported
    }
}

/// Looks at everything.
pub(super) fn gather(engine: &Engine, busy: bool) -> Result<Usage, Failure> {
    let needed = needed(engine)?;
    let mut items = blobs(engine, &needed)?;
    items.extend(layers(engine, &needed)?);
    items.extend(cache_mounts(engine).map_err(internal)?);
    items.extend(failed_steps(engine).map_err(internal)?);
    items.extend(always(engine).map_err(internal)?);
    let disk = rustix::fs::statvfs(engine.dir().root()).map_err(io::Error::from);
    let disk = disk.map_err(internal)?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let (now, untagged) = (SystemTime::now(), needed.untagged);
    Ok(Usage { items, free_bytes, now, busy, untagged })
}

fn needed(engine: &Engine) -> Result<Needed, Failure> {
    let images = engine.images();
    let mut needed = Needed::default();
    for (id, image) in images.store().list().map_err(internal)? {
        let (blobs, layers) = parts(images, &image)?;
        if !Needed::keeps(&image) {
            needed.untagged.insert(id, blobs.into_iter().chain(layers).collect());
            continue;
        }
        let name = image.names.first().map_or_else(|| id.short(), Reference::familiar);
        needed.blobs.extend(blobs.into_iter().map(|blob| (blob, name.clone())));
        needed.layers.extend(layers.into_iter().map(|layer| (layer, name.clone())));
    }
    for named in images.store().names().map_err(internal)? {
        let Some(index) = named.index else { continue };
        for blob in images.blobs_below(index).map_err(internal)? {
            needed.blobs.insert(blob, named.name.familiar());
        }
        needed.blobs.insert(index, named.name.familiar());
    }
    Ok(needed)
}

/// Returns the blobs and the layers that an image needs.
fn parts(images: &Images, image: &LocalImage) -> Result<(Vec<Digest>, Vec<Digest>), Failure> {
    let mut blobs: Vec<Digest> = image.config_digest.into_iter().collect();
    let mut layers = Vec::new();
    if let Some(manifest) = &image.manifest {
        blobs.push(manifest.digest);
        blobs.extend(images.blobs_below(manifest.digest).map_err(internal)?);
    }
    for layer in &image.layers {
        blobs.extend(layer.blob.as_ref().map(|b| b.digest));
        // A layer with a blob can be unpacked again.
        layers.extend(layer.tree.filter(|_| layer.blob.is_none()));
    }
    Ok((blobs, layers))
}

fn held_by(name: Option<&String>) -> Vec<Holder> {
    name.map(|n| Holder::Image(n.clone())).into_iter().collect()
}

fn blobs(engine: &Engine, needed: &Needed) -> Result<Vec<Item>, Failure> {
    let images = engine.images();
    let mut cached: BTreeMap<Digest, String> = BTreeMap::new();
    for tag in images.pulled_tags().map_err(internal)? {
        for blob in images.blobs_below(tag.digest).map_err(internal)? {
            cached.insert(blob, format!("pulled {}", tag.reference.familiar()));
        }
    }
    for (id, parts) in &needed.untagged {
        for part in parts {
            cached.entry(*part).or_insert_with(|| format!("image {} without a name", id.short()));
        }
    }
    let granted = Grants::of(engine.dir().root()).all().map_err(internal)?;
    let made = RecordDir::new(engine.dir().cache().join("layer-blobs"));
    for (key, _) in made.list().map_err(internal)? {
        if let Some(blob) = made.get::<LayerBlob>(&key).map_err(internal)? {
            cached.entry(blob.digest).or_insert_with(|| "compressed layer".to_owned());
        }
    }
    let listed = images.blobs().list().map_err(internal)?;
    let item = |blob: BlobInfo| {
        let name = needed.blobs.get(&blob.digest).or_else(|| cached.get(&blob.digest));
        let mut holders = held_by(needed.blobs.get(&blob.digest));
        holders.extend(granted.contains(&blob.digest).then_some(Holder::Server));
        Item {
            kind: ItemKind::Blob(blob.digest),
            name: name.cloned().unwrap_or_default(),
            bytes: blob.size,
            last_used: blob.modified,
            holders,
            good_for: if cached.contains_key(&blob.digest) { Use::Cache } else { Use::None },
        }
    };
    Ok(listed.into_iter().map(item).collect())
}

fn layers(engine: &Engine, needed: &Needed) -> Result<Vec<Item>, Failure> {
    let usage = engine.snapshots().usage().map_err(internal)?;
    let item = |(meta, held): (ashlar_snapshots::LayerMeta, bool)| {
        let mut holders = held_by(needed.layers.get(&meta.id));
        holders.extend(held.then_some(Holder::Running));
        Item {
            name: meta.origin.clone(),
            bytes: meta.disk_bytes,
            last_used: meta.last_used,
            kind: ItemKind::Layer(meta.id),
            holders,
            good_for: Use::Cache,
        }
    };
    Ok(usage.layers.into_iter().map(item).collect())
}

fn cache_mounts(engine: &Engine) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    for (about, place) in engine.cache_mounts().list()? {
        let (bytes, last_used) = measure(&place)?;
        items.push(Item {
            name: format!("{} ({})", about.id, about.tenant),
            bytes,
            last_used,
            holders: if engine.cache_mounts().is_used(&place)? {
                vec![Holder::Running]
            } else {
                Vec::new()
            },
            kind: ItemKind::CacheMount(place),
            good_for: Use::Cache,
        });
    }
    Ok(items)
}

fn failed_steps(engine: &Engine) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    for (failed, place) in engine.failed_steps()? {
        let (bytes, last_used) = measure(&place)?;
        let name = format!("{} of build {}", failed.name, failed.build);
        let (holders, good_for) = (Vec::new(), Use::Cache);
        let kind = ItemKind::FailedStep(place);
        items.push(Item { kind, name, bytes, last_used, holders, good_for });
    }
    Ok(items)
}

fn always(engine: &Engine) -> io::Result<Vec<Item>> {
    let root = engine.dir().root();
    let mut history = 0;
    for name in ["records.db", "records.db-wal", "records.db-shm", "history.db"] {
        history += fs::symlink_metadata(root.join(name)).map_or(0, |m| m.blocks() * 512);
    }
    let records = measure(&engine.dir().cache())?.0 + measure(&root.join("images"))?.0;
    let item = |kind, name: &str, bytes| Item {
        kind,
        name: name.to_owned(),
        bytes,
        last_used: SystemTime::now(),
        holders: vec![Holder::Always],
        good_for: Use::Cache,
    };
    let mut items = vec![
        item(ItemKind::Records, "keys, image names, git repositories", records),
        item(ItemKind::History, "history of builds", history),
    ];
    // Where no server ever ran there is nothing to say of them.
    for (kind, folder, name) in [
        (ItemKind::Uploads, "uploads", "uploads that are not finished"),
        (ItemKind::Contexts, "contexts", "contexts of a server's builds"),
    ] {
        let folder = root.join(folder);
        if folder.is_dir() {
            items.push(item(kind, name, measure(&folder)?.0));
        }
    }
    Ok(items)
}

/// Returns the bytes on disk below a folder, each file once, and when anything in the folder
/// itself or one level below last changed.
fn measure(place: &Path) -> io::Result<(u64, SystemTime)> {
    let (mut bytes, mut newest) = (0, SystemTime::UNIX_EPOCH);
    let mut seen = BTreeSet::new();
    let mut open = vec![(place.to_owned(), 0)];
    while let Some((dir, depth)) = open.pop() {
        // A folder may go away while it is measured.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let entry = entry?;
            let Ok(about) = entry.metadata() else { continue };
            if depth < 2 {
                newest = newest.max(about.modified()?);
            }
            if about.nlink() > 1 && !about.is_dir() && !seen.insert((about.dev(), about.ino())) {
                continue;
            }
            bytes += about.blocks() * 512;
            if about.is_dir() {
                open.push((entry.path(), depth + 1));
            }
        }
    }
    Ok((bytes, newest))
}
