//! Removes what a plan names.

use std::collections::BTreeSet;
use std::fs;

use ashlar_core::Digest;
use ashlar_core::failure::Failure;
use ashlar_layers::LayerBlob;
use ashlar_snapshots::Removal;

use super::grants::Grants;
use super::{ItemKind, Plan, Usage};
use crate::Engine;
use crate::cache::{FinalRecord, LayerRecord, RecordDir};
use crate::error::internal;

/// Removes what the plan names; what turned out to be in use is taken off the plan.
pub(super) fn apply(engine: &Engine, usage: &Usage, plan: &mut Plan) -> Result<(), Failure> {
    let named = forget_images(engine, usage, plan)?;
    let mut gone = BTreeSet::new();
    let mut done = Vec::new();
    for &(index, why) in &plan.remove {
        let item = &usage.items[index];
        if digest_of(&item.kind).is_some_and(|id| named.contains(id)) {
            continue;
        }
        if remove(engine, &item.kind)? {
            gone.extend(digest_of(&item.kind));
            done.push((index, why));
        }
    }
    plan.freed_bytes = done.iter().map(|(i, _)| usage.items[*i].bytes).sum();
    plan.remove = done;
    engine.snapshots().empty_trash().map_err(internal)?;
    forget_records(engine, &gone)
}

/// Forgets images without a name of which a part is to go, before it goes. Returns the parts of those
/// that somebody has given a name meanwhile, which stay.
fn forget_images(engine: &Engine, usage: &Usage, plan: &Plan) -> Result<BTreeSet<Digest>, Failure> {
    let planned = plan.remove.iter().filter_map(|(i, _)| digest_of(&usage.items[*i].kind));
    let planned: BTreeSet<Digest> = planned.copied().collect();
    let mut named = BTreeSet::new();
    for (id, parts) in usage.untagged.iter().filter(|(_, parts)| !parts.is_disjoint(&planned)) {
        if !engine.images().store().remove_untagged(id).map_err(internal)? {
            named.extend(parts);
        }
    }
    Ok(named)
}

const fn digest_of(kind: &ItemKind) -> Option<&Digest> {
    match kind {
        ItemKind::Blob(id) | ItemKind::Layer(id) => Some(id),
        _ => None,
    }
}

fn remove(engine: &Engine, kind: &ItemKind) -> Result<bool, Failure> {
    match kind {
        // A server may have come to need it since it was looked at.
        ItemKind::Blob(digest) if is_granted(engine, digest)? => Ok(false),
        ItemKind::Blob(digest) => engine.images().blobs().remove(digest).map_err(internal),
        ItemKind::Layer(id) => {
            let removal = engine.snapshots().remove(id).map_err(internal)?;
            Ok(removal != Removal::InUse)
        }
        ItemKind::CacheMount(place) => engine.cache_mounts().remove(place).map_err(internal),
        ItemKind::FailedStep(place) => fs::remove_dir_all(place).map(|()| true).map_err(internal),
        ItemKind::Records | ItemKind::Uploads | ItemKind::Contexts | ItemKind::History => Ok(false),
    }
}

fn is_granted(engine: &Engine, digest: &Digest) -> Result<bool, Failure> {
    Grants::of(engine.dir().root()).holds(digest).map_err(internal)
}

/// Forgets results whose layers or blobs are gone. The keys of steps stay, so that the next miss
/// says that the result was removed.
fn forget_records(engine: &Engine, gone: &BTreeSet<Digest>) -> Result<(), Failure> {
    let lost = |ids: &[Digest]| ids.iter().any(|id| gone.contains(id));
    let results = engine.results();
    prune::<LayerRecord>(results.layer_records(), |r| lost(&r.layers))?;
    prune::<FinalRecord>(results.final_records(), |r| lost(&r.tree))?;
    let blobs = RecordDir::new(engine.dir().cache().join("layer-blobs"));
    prune::<LayerBlob>(&blobs, |r| gone.contains(&r.digest))
}

fn prune<T: serde::de::DeserializeOwned>(
    records: &RecordDir,
    goes: impl Fn(&T) -> bool,
) -> Result<(), Failure> {
    for (key, _) in records.list().map_err(internal)? {
        if let Some(record) = records.get::<T>(&key).map_err(internal)?
            && goes(&record)
        {
            records.remove(&key).map_err(internal)?;
        }
    }
    Ok(())
}
