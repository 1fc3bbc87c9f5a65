//! Builds as the server shows them.

use std::collections::BTreeMap;

use ashlar_core::failure::Failure;
use ashlar_core::journal::StepCounts;
use ashlar_core::state::State;
use ashlar_core::{BuildId, Digest, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

/// A build.
#[derive(Debug, Clone, Deserialize)]
pub struct Build {
    /// Its id.
    pub id: BuildId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Within the tenant, what shares a queue and a history.
    pub scope: String,
    /// A name for people.
    pub name: String,
    /// Where it is.
    pub state: State,
    /// Through which door it came.
    pub dialect: String,
    /// What it is made from.
    pub source: String,
    /// The build that it repeats.
    #[serde(default)]
    pub retry_of: Option<BuildId>,
    /// The backend that was asked for.
    #[serde(default)]
    pub requested_backend: Option<String>,
    /// What ran it.
    #[serde(default)]
    pub executor: Option<String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Which attempt this is, from 1; 0 while it waits for the first.
    #[serde(default)]
    pub attempt: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its attempt began.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    /// Steps of the attempt.
    #[serde(default)]
    pub steps: StepCounts,
    /// Counters by cache and status (`hits`, `misses`, `bypasses`, `stores`).
    #[serde(default)]
    pub cache: BTreeMap<String, BTreeMap<String, u32>>,
    /// What it made.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// Why it failed.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// Whether it is kept from being forgotten.
    #[serde(default)]
    pub pinned: bool,
    /// When what belongs to it goes; only when one build is asked for.
    #[serde(default)]
    pub expiry: Option<Expiry>,
    /// Number of the journal's next entry.
    #[serde(default)]
    pub next: u64,
    /// What it was made from, when a single build was asked for.
    #[serde(default)]
    pub definition: serde_json::Value,
}

/// When the things of a build go, as far as is known.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Expiry {
    /// Why it stays in any case: `pinned`, `promoted`, `needed` or `last_good`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exempt: Option<String>,
    /// The record, and all else with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Due>,
    /// The log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Due>,
    /// The artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Due>,
}

/// When something goes, and which bound lets it go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Due {
    /// The first moment.
    pub at: Timestamp,
    /// Which bound: `age`, `count` or `bytes`.
    pub why: String,
}

impl Build {
    /// Returns the ids of the secrets that its definition names: a retry needs their values.
    pub fn secret_ids(&self) -> Vec<&str> {
        self.texts("secrets")
    }

    /// Returns the hosts of the registries that it had logins for; a retry needs them too.
    pub fn login_hosts(&self) -> Vec<&str> {
        self.texts("credentials")
    }

    fn texts(&self, field: &str) -> Vec<&str> {
        let all = self.definition[field].as_array().into_iter().flatten();
        all.filter_map(serde_json::Value::as_str).collect()
    }
}

/// Something that a build made.
#[derive(Debug, Clone, Deserialize)]
pub struct Artifact {
    /// Its name, unique in the build.
    pub name: String,
    /// What it is: `image`, `file`, `push`.
    pub kind: String,
    /// Its digest; the local id of an image.
    pub digest: Digest,
    /// Its size.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Names under which it is elsewhere.
    #[serde(default)]
    pub references: Vec<String>,
}

/// A page of a list.
#[derive(Debug, Clone, Deserialize)]
pub struct Listing {
    /// The builds.
    pub builds: Vec<Build>,
    /// Where the next page begins.
    #[serde(default)]
    pub next: Option<String>,
    /// How many there are in all, when a page was asked for by its number.
    #[serde(default)]
    pub total: Option<u64>,
}

/// A page of a journal.
#[derive(Debug, Clone)]
pub struct Page {
    /// The entries, without those that a newer server has made and this program does not know.
    pub entries: Vec<ashlar_core::journal::Entry>,
    /// Where to go on.
    pub next: u64,
}
