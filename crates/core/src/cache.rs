//! Cache keys made of kept parts, and why a step was not found in the cache.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Hasher};

/// Which of the three caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheKind {
    /// Exec and file operations.
    Layer,
    /// Context files by content.
    FileBlob,
    /// Whole builds.
    FinalArtifact,
}

/// What became of one look-up, or that a result was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheStatus {
    /// An earlier result is used.
    Hit,
    /// There is none.
    Miss,
    /// Earlier results were not asked for.
    Bypass,
    /// A result was kept.
    Store,
}

/// Why earlier results must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bypass {
    /// The whole build was asked for without cache.
    WholeBuild,
    /// The definition has a boundary before this step.
    Boundary,
    /// A file was uploaded anew on purpose.
    ForcedUpload,
    /// The step changes something outside of the build.
    Effect,
}

/// What a part of a key speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// The tree that the step starts from.
    Base,
    /// The command line or file action itself.
    Command,
    /// An environment variable (an `ENV`, or an `ARG` that the step sees).
    Env,
    /// One copied or mounted file or directory.
    File,
    /// A tree that is copied from or mounted.
    Source,
    /// A mount's options.
    Mount,
    /// A secret that was declared as part of the key; values are keyed hashes and never shown.
    Secret,
    /// Working directory, user, network and other settings.
    Setting,
}

/// One named part of a cache key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyPart {
    /// What it speaks of.
    pub kind: PartKind,
    /// Its name within the kind: a variable, a path, a setting.
    pub name: String,
    /// Its value: a digest, or a short text for people.
    pub value: String,
}

/// All that can influence a step's result.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeyRecord {
    parts: Vec<KeyPart>,
}

impl KeyRecord {
    /// Has no parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part.
    pub fn push(&mut self, kind: PartKind, name: impl Into<String>, value: impl Into<String>) {
        self.parts.push(KeyPart { kind, name: name.into(), value: value.into() });
    }

    /// Returns the parts in the order in which they were added.
    pub fn parts(&self) -> &[KeyPart] {
        &self.parts
    }

    /// Returns the key: equal parts in the same order, equal key.
    pub fn key(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.field(b"ashlar.key.v1");
        for part in &self.parts {
            hasher.field([part.kind as u8]).field(&part.name).field(&part.value);
        }
        hasher.finish()
    }

    /// Returns what differs from an `earlier` record, in the order of this one's parts; parts that
    /// are gone come last. At most [`CHANGES_MAX`] changes.
    pub fn changes_since(&self, earlier: &Self) -> Vec<Change> {
        let (now, before) = (self.index(), earlier.index());
        let changed = self.parts.iter().filter_map(|p| {
            let old = before.get(&(p.kind, p.name.as_str())).map(|v| (*v).to_owned());
            (old.as_ref() != Some(&p.value)).then(|| Change::of(p, old, Some(p.value.clone())))
        });
        let gone = earlier.parts.iter().filter(|p| !now.contains_key(&(p.kind, p.name.as_str())));
        let gone = gone.map(|p| Change::of(p, Some(p.value.clone()), None));
        changed.chain(gone).take(CHANGES_MAX).collect()
    }

    fn index(&self) -> BTreeMap<(PartKind, &str), &str> {
        self.parts.iter().map(|p| ((p.kind, p.name.as_str()), p.value.as_str())).collect()
    }
}

/// The most changes that one miss lists.
pub const CHANGES_MAX: usize = 20;

/// One part of a key that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it speaks of.
    pub kind: PartKind,
    /// Its name.
    pub name: String,
    /// The earlier value; `None` when the part is new. Always `None` for secrets.
    pub old: Option<String>,
    /// The value now; `None` when the part is gone. Always `None` for secrets.
    pub new: Option<String>,
}

impl Change {
    fn of(part: &KeyPart, old: Option<String>, new: Option<String>) -> Self {
        let hide = part.kind == PartKind::Secret;
        let keep = |v: Option<String>| v.filter(|_| !hide);
        Self { kind: part.kind, name: part.name.clone(), old: keep(old), new: keep(new) }
    }

    /// Returns a sentence such as `file 'src/main.c' changed`.
    pub fn sentence(&self) -> String {
        let subject = match self.kind {
            PartKind::Base => "base".to_owned(),
            PartKind::Command => "command".to_owned(),
            PartKind::Env => format!("variable '{}'", self.name),
            PartKind::File => format!("file '{}'", self.name),
            PartKind::Source => format!("source '{}'", self.name),
            PartKind::Mount => format!("mount '{}'", self.name),
            PartKind::Secret => return format!("secret '{}' changed (hidden)", self.name),
            PartKind::Setting => format!("setting '{}'", self.name),
        };
        let word = |w: &str| -> String {
            w.strip_prefix("sha256:").map_or(w, |hex| hex.get(..12).unwrap_or(hex)).to_owned()
        };
        let cut = |v: &str| -> String {
            v.split(' ').map(word).collect::<Vec<_>>().join(" ").chars().take(200).collect()
        };
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => {
                format!("{subject} changed from '{}' to '{}'", cut(old), cut(new))
            }
            (None, Some(new)) => format!("{subject} is new: '{}'", cut(new)),
            (Some(old), None) => format!("{subject} is gone, it was '{}'", cut(old)),
            (None, None) => format!("{subject} changed"),
        }
    }
}

/// Why a step was not found in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum MissReason {
    /// No earlier build has a step like it.
    FirstTime,
    /// These parts differ from the nearest earlier key of the step.
    Changed {
        /// What differs, most telling first.
        changes: Vec<Change>,
    },
    /// The same key was known, but its result has been removed.
    Evicted {
        /// The key.
        key: Digest,
    },
    /// The cache was not asked.
    Forced {
        /// Why.
        by: Bypass,
    },
}

impl MissReason {
    /// Returns the reason as a sentence without a full stop.
    pub fn sentence(&self) -> String {
        match self {
            Self::FirstTime => "no earlier build has this step".into(),
            Self::Changed { changes } => match changes.as_slice() {
                [] => "an earlier result differs in the order of its parts".into(),
                [one] => one.sentence(),
                [first, rest @ ..] => format!("{} (and {} more)", first.sentence(), rest.len()),
            },
            Self::Evicted { .. } => "the earlier result was removed to free disk space".into(),
            Self::Forced { by: Bypass::WholeBuild } => "the build was started without cache".into(),
            Self::Forced { by: Bypass::Boundary } => "a cache boundary stands before it".into(),
            Self::Forced { by: Bypass::ForcedUpload } => "a file was uploaded anew".into(),
            Self::Forced { by: Bypass::Effect } => "its effect lies outside of the build".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(parts: &[(PartKind, &str, &str)]) -> KeyRecord {
        let mut r = KeyRecord::new();
        parts.iter().for_each(|(k, n, v)| r.push(*k, *n, *v));
        r
    }

    #[test]
    fn changes_name_the_part_with_both_values() {
        let old = record(&[(PartKind::Env, "A", "1"), (PartKind::File, "x", "d1")]);
        let new = record(&[(PartKind::Env, "A", "2"), (PartKind::File, "y", "d1")]);
        assert_ne!(old.key(), new.key());
        let said: Vec<String> = new.changes_since(&old).iter().map(Change::sentence).collect();
        let want = [
            "variable 'A' changed from '1' to '2'",
            "file 'y' is new: 'd1'",
            "file 'x' is gone, it was 'd1'",
        ];
        assert_eq!(said, want);
    }

    #[test]
    fn secrets_are_never_shown() {
        let old = record(&[(PartKind::Secret, "npm", "h1")]);
        let new = record(&[(PartKind::Secret, "npm", "h2")]);
        let change = &new.changes_since(&old)[0];
        assert_eq!((&change.old, &change.new), (&None, &None));
        assert_eq!(change.sentence(), "secret 'npm' changed (hidden)");
    }
}
