//! The layer cache and the final-artifact cache.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use ashlar_core::cache::{CHANGES_MAX, Change, KeyRecord, MissReason, PartKind};
use ashlar_core::image::ImageConfig;
use ashlar_core::{Digest, Timestamp};
use ashlar_files::Manifest;
use ashlar_files::context::ManifestError;
use serde::{Deserialize, Serialize};

use super::contents::Contents;
use super::files::{CacheError, RecordDir};
use super::steps::{EarlierKeys, StepIdentity};

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The layers that it added to its base, bottom first; none when it changed nothing.
    pub layers: Vec<Digest>,
    /// The files that it handed back as data, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub returned: BTreeMap<String, Vec<u8>>,
    /// How long it ran, in nanoseconds.
    pub nanos: u64,
    /// When.
    pub made: Timestamp,
}

/// What a whole build came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FinalRecord {
    /// The tree's layers, bottom first.
    pub tree: Vec<Digest>,
    /// The image's config without diff ids.
    pub config: ImageConfig,
    /// When.
    pub made: Timestamp,
}

/// Results by key, and the last keys of each step.
#[derive(Debug, Clone)]
pub struct ResultCache {
    layers: RecordDir,
    finals: RecordDir,
    steps: RecordDir,
    manifests: PathBuf,
    contents: Contents,
}

impl ResultCache {
    /// Uses the folder `cache`.
    pub fn new(cache: &Path) -> Self {
        Self {
            layers: RecordDir::new(cache.join("layers")),
            finals: RecordDir::new(cache.join("finals")),
            steps: RecordDir::new(cache.join("steps")),
            manifests: cache.join("manifests"),
            contents: Contents::new(cache.join("contents")),
        }
    }

    /// Returns what the step with this key came to.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn layer(&self, key: &Digest) -> Result<Option<LayerRecord>, CacheError> {
        self.layers.get(key)
    }

    /// Keeps what a step came to.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn put_layer(&self, key: &Digest, result: &LayerRecord) -> Result<(), CacheError> {
        self.layers.put(key, result)
    }

    /// Returns what the build with this key came to.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn final_artifact(&self, key: &Digest) -> Result<Option<FinalRecord>, CacheError> {
        self.finals.get(key)
    }

    /// Keeps what a build came to.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn put_final(&self, key: &Digest, result: &FinalRecord) -> Result<(), CacheError> {
        self.finals.put(key, result)
    }

    /// Remembers the key that a step has now.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remember(&self, step: &StepIdentity, record: &KeyRecord) -> Result<(), CacheError> {
        let key = record.key();
        for identity in [step.place, step.words] {
            let mut earlier: EarlierKeys = self.steps.get(&identity)?.unwrap_or_default();
            if earlier.keys.first().is_some_and(|k| k.key == key) {
                continue;
            }
            earlier.add(key, record);
            self.steps.put(&identity, &earlier)?;
        }
        Ok(())
    }

    /// Returns the keys that the step at this place had lately, newest first.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn earlier_keys(&self, step: &StepIdentity) -> Result<Vec<Digest>, CacheError> {
        let earlier: EarlierKeys = self.steps.get(&step.place)?.unwrap_or_default();
        Ok(earlier.keys.iter().map(|k| k.key).collect())
    }

    /// Says why nothing was found for a step: what differs from the nearest of its earlier keys.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn why_missed(
        &self,
        step: &StepIdentity,
        record: &KeyRecord,
    ) -> Result<MissReason, CacheError> {
        let key = record.key();
        let mut nearest: Option<(Vec<Change>, KeyRecord)> = None;
        for identity in [step.place, step.words] {
            let earlier: EarlierKeys = self.steps.get(&identity)?.unwrap_or_default();
            if earlier.keys.iter().any(|k| k.key == key) {
                return Ok(MissReason::Evicted { key });
            }
            for earlier in earlier.keys {
                let changes = record.changes_since(&earlier.record);
                if nearest.as_ref().is_none_or(|(n, _)| weight(&changes) < weight(n)) {
                    nearest = Some((changes, earlier.record));
                }
            }
        }
        let Some((mut changes, earlier)) = nearest else { return Ok(MissReason::FirstTime) };
        self.name_files(&mut changes, record, &earlier);
        changes.sort_by_key(|c| c.kind == PartKind::Base);
        Ok(MissReason::Changed { changes })
    }

    /// Returns which contents of files a tenant's builds have had before, and remembers them all. Only
    /// counters depend on it: where the file system refuses, none is known.
    pub fn meet_contents(&self, tenant: &str, contents: &[Digest]) -> HashSet<Digest> {
        self.contents.meet(tenant, contents).unwrap_or_default()
    }

    /// Keeps the list of a large selection's files, of which a key holds the digest only.
    ///
    /// # Errors
    /// When the list cannot be written.
    pub fn keep_manifest(&self, manifest: &Manifest) -> Result<(), ManifestError> {
        manifest.store(&self.manifests).map(drop)
    }

    /// Replaces changes of whole directories by those of their files, where both lists are known.
    fn name_files(&self, changes: &mut Vec<Change>, now: &KeyRecord, before: &KeyRecord) {
        // A list that is gone or damaged leaves the directories named, which is true as well.
        let load = |record| {
            let digest = Manifest::named_in(record)?;
            Manifest::load(&self.manifests, &digest).ok().flatten()
        };
        if let (Some(now), Some(before)) = (load(now), load(before)) {
            let files = now.changes_since(&before);
            if !files.is_empty() {
                changes.retain(|c| c.kind != PartKind::File);
                changes.splice(0..0, files.into_iter().take(CHANGES_MAX));
            }
        }
    }

    /// Returns the folder of layer records, for collecting garbage.
    pub fn layer_records(&self) -> &RecordDir {
        &self.layers
    }

    /// Returns the folder of final-artifact records, for collecting garbage.
    pub fn final_records(&self) -> &RecordDir {
        &self.finals
    }

    /// Returns the folder of the steps' earlier keys, for collecting garbage.
    pub fn step_records(&self) -> &RecordDir {
        &self.steps
    }
}

/// Orders sets of changes: few before many, and a changed command is further away than a changed
/// file, since a step with other words is hardly the same step.
fn weight(changes: &[Change]) -> usize {
    changes.iter().map(|c| if c.kind == PartKind::Command { 5 } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(command: &str, file: &str) -> KeyRecord {
        let mut r = KeyRecord::new();
        r.push(PartKind::Base, "", "b");
        r.push(PartKind::Command, "", command);
        r.push(PartKind::File, "a.txt", file);
        r
    }

    #[test]
    fn a_miss_names_what_changed_and_an_evicted_result_is_named_so() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ResultCache::new(dir.path());
        let step = |r: &KeyRecord| StepIdentity::new("t", "s", "b", "1", r);
        let (one, two) = (record("copy", "1"), record("copy", "2"));
        assert_eq!(cache.why_missed(&step(&one), &one).unwrap(), MissReason::FirstTime);
        cache.remember(&step(&one), &one).unwrap();
        let why = cache.why_missed(&step(&two), &two).unwrap();
        assert_eq!(why.sentence(), "file 'a.txt' changed from '1' to '2'");
        assert!(matches!(cache.why_missed(&step(&one), &one).unwrap(), MissReason::Evicted { .. }));
        let other_place = StepIdentity::new("t", "s", "other", "7", &two);
        let why = cache.why_missed(&other_place, &two).unwrap();
        assert_eq!(why.sentence(), "file 'a.txt' changed from '1' to '2'");
    }

    #[test]
    fn what_one_tenant_ran_is_unknown_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ResultCache::new(dir.path());
        let step = |tenant: &str, r: &KeyRecord| StepIdentity::new(tenant, "s", "b", "1", r);
        let theirs = record("deploy --password hunter2", "1");
        cache.remember(&step("one", &theirs), &theirs).unwrap();
        // The very same step too: that it was known and is gone would tell that somebody had it.
        for own in [record("true", "1"), record("deploy --password hunter2", "2"), theirs] {
            let other = step("two", &own);
            assert_eq!(cache.why_missed(&other, &own).unwrap(), MissReason::FirstTime);
            assert!(cache.earlier_keys(&other).unwrap().is_empty());
        }
    }

    #[test]
    fn records_survive_and_nonsense_counts_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ResultCache::new(dir.path());
        let key = Digest::of("k");
        let made = Timestamp::from_nanos(1);
        let result =
            LayerRecord { layers: vec![Digest::of("l")], returned: [].into(), nanos: 5, made };
        cache.put_layer(&key, &result).unwrap();
        assert_eq!(cache.layer(&key).unwrap(), Some(result));
        assert_eq!(cache.layer_records().list().unwrap().len(), 1);
        let hex = key.hex();
        let path = dir.path().join("layers").join(&hex[..2]).join(format!("{hex}.json"));
        std::fs::write(path, b"{").unwrap();
        assert_eq!(cache.layer(&key).unwrap(), None);
    }
}
