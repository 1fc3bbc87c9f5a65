//! Which steps of different builds count as the same step, for telling why one missed.

use ashlar_core::cache::{KeyRecord, PartKind};
use ashlar_core::{Digest, Hasher};
use serde::{Deserialize, Serialize};

/// Earlier keys that are kept of one step.
pub(super) const KEYS_KEPT: usize = 4;

/// Where a step stands and what it says, within one tenant: the keys that are kept of a step hold
/// commands, variables and names of files, which are nobody else's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepIdentity {
    /// The step's place: whose build it is, and the step's name without its number.
    pub place: Digest,
    /// The step's words alone, so that a step is recognised in another build.
    pub words: Digest,
}

impl StepIdentity {
    /// Makes the identity of the step at `place` of what a tenant's `scope` builds under the name
    /// `build`.
    pub fn new(tenant: &str, scope: &str, build: &str, place: &str, record: &KeyRecord) -> Self {
        let mut words = Hasher::new();
        words.field(b"ashlar.step.words.v2").field(tenant);
        for part in record.parts().iter().filter(|p| p.kind == PartKind::Command) {
            words.field(&part.value);
        }
        let mut at = Hasher::new();
        at.field(b"ashlar.step.place.v2").field(tenant).field(scope).field(build).field(place);
        Self { place: at.finish(), words: words.finish() }
    }
}

/// The keys that a step had lately, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct EarlierKeys {
    pub(super) keys: Vec<EarlierKey>,
}

/// One of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EarlierKey {
    pub(super) key: Digest,
    pub(super) record: KeyRecord,
}

impl EarlierKeys {
    /// Puts a key in front.
    pub(super) fn add(&mut self, key: Digest, record: &KeyRecord) {
        self.keys.retain(|k| k.key != key);
        self.keys.insert(0, EarlierKey { key, record: record.clone() });
        self.keys.truncate(KEYS_KEPT);
    }
}
