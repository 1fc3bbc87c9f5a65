//! How long things are kept: bounds, and how those of several levels are put together.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The word for a bound that is lifted.
const UNLIMITED: &str = "unlimited";
const DAY_SECONDS: u64 = 24 * 3600;

/// What a bound is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// The record of a build with its journal, names and documents; all else goes with it.
    Record,
    /// The lines of its log; what happened stays.
    Log,
    /// What it made.
    Artifacts,
}

impl What {
    /// All of them; what goes first comes last.
    pub const ALL: [Self; 3] = [Self::Record, Self::Log, Self::Artifacts];

    /// Returns the word used in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "records",
            Self::Log => "logs",
            Self::Artifacts => "artifacts",
        }
    }
}

/// A bound: a number, or that there shall be none whatever a more general level says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// No bound.
    Unlimited,
    /// At most so much.
    Most(u64),
}

impl Bound {
    const fn most(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Most(n) => Some(n),
        }
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unlimited => serializer.serialize_str(UNLIMITED),
            Self::Most(n) => serializer.serialize_u64(*n),
        }
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Word(String),
        }
        match Form::deserialize(deserializer) {
            Ok(Form::Number(n)) => Ok(Self::Most(n)),
            Ok(Form::Word(w)) if w == UNLIMITED => Ok(Self::Unlimited),
            _ => Err(serde::de::Error::custom("a bound is a whole number or \"unlimited\"")),
        }
    }
}

/// The bounds of one kind of thing; what is absent is said by a more general level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Seconds after the build's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<Bound>,
    /// How many of a scope, the newest ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<Bound>,
    /// Bytes of all of a scope together, the newest ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bound>,
}

impl Bounds {
    fn over(self, general: Self) -> Self {
        Self {
            age_seconds: self.age_seconds.or(general.age_seconds),
            count: self.count.or(general.count),
            bytes: self.bytes.or(general.bytes),
        }
    }

    /// Returns how long a thing is kept at most.
    pub fn age(&self) -> Option<Duration> {
        self.age_seconds.and_then(Bound::most).map(Duration::from_secs)
    }

    /// Returns how many are kept at most.
    pub fn count(&self) -> Option<u64> {
        self.count.and_then(Bound::most)
    }

    /// Returns how many bytes are kept at most.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes.and_then(Bound::most)
    }

    /// Says whether there is any bound.
    pub fn is_bound(&self) -> bool {
        self.age().is_some() || self.count().is_some() || self.bytes().is_some()
    }
}

/// How long the builds of a scope are kept. All bounds hold: what one of them lets go goes. What
/// is pinned, what a name was moved to, what a build that has not ended needs and the newest success
/// of each name stay in any case; those before them count them as newer. Logs and artifacts go with
/// their records at the latest, and only before them where they have bounds of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Of records.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "object")]
    pub records: Bounds,
    /// Of logs, before their records.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "object")]
    pub logs: Bounds,
    /// Of artifacts, before their records.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "object")]
    pub artifacts: Bounds,
}

/// Reads an object and nothing else: `serde` would take a list for one, by position.
fn object<'de, D: Deserializer<'de>>(input: D) -> Result<Bounds, D::Error> {
    let fields = serde_json::Map::deserialize(input)?;
    serde_json::from_value(fields.into()).map_err(serde::de::Error::custom)
}

fn is_default(bounds: &Bounds) -> bool {
    *bounds == Bounds::default()
}

impl Retention {
    /// Returns what holds where this is said on top of something more general.
    #[must_use]
    pub fn over(self, general: Self) -> Self {
        Self {
            records: self.records.over(general.records),
            logs: self.logs.over(general.logs),
            artifacts: self.artifacts.over(general.artifacts),
        }
    }

    /// Returns the bounds of a kind of thing.
    pub const fn of(&self, what: What) -> &Bounds {
        match what {
            What::Record => &self.records,
            What::Log => &self.logs,
            What::Artifacts => &self.artifacts,
        }
    }

    /// Says whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Says whether there is any bound.
    pub fn is_bound(&self) -> bool {
        What::ALL.iter().any(|what| self.of(*what).is_bound())
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for what in What::ALL {
            let b = self.of(what);
            for (word, bound) in [("age", b.age_seconds), ("count", b.count), ("bytes", b.bytes)] {
                let Some(bound) = bound else { continue };
                let comma = if std::mem::take(&mut first) { "" } else { "," };
                write!(f, "{comma}{}.{word}=", what.as_str())?;
                match bound {
                    Bound::Unlimited => f.write_str(UNLIMITED)?,
                    Bound::Most(n) if word == "age" => write!(f, "{n}s")?,
                    Bound::Most(n) => write!(f, "{n}")?,
                }
            }
        }
        Ok(())
    }
}

/// A text says nothing about retention.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no bound; write for example records.age=90d, logs.bytes=1073741824 or \
     artifacts.count=20, several with commas; 'unlimited' lifts a bound"
)]
pub struct RetentionError(String);

impl FromStr for Retention {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let mut retention = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let wrong = || RetentionError(part.chars().take(60).collect());
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            let (what, word) = key.split_once('.').ok_or_else(wrong)?;
            let bounds = match what {
                "records" => &mut retention.records,
                "logs" => &mut retention.logs,
                "artifacts" => &mut retention.artifacts,
                _ => return Err(wrong()),
            };
            let (place, read): (_, fn(&str) -> Option<u64>) = match word {
                "age" => (&mut bounds.age_seconds, seconds),
                "count" => (&mut bounds.count, |v| v.parse().ok()),
                "bytes" => (&mut bounds.bytes, |v| v.parse().ok()),
                _ => return Err(wrong()),
            };
            *place = Some(match value {
                UNLIMITED => Bound::Unlimited,
                value => Bound::Most(read(value).ok_or_else(wrong)?),
            });
        }
        Ok(retention)
    }
}

/// Reads `90d`, `12h`, `30m`, `5s` or a number of seconds.
fn seconds(text: &str) -> Option<u64> {
    let (digits, unit) =
        text.split_at(text.trim_end_matches(|c: char| c.is_ascii_lowercase()).len());
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY_SECONDS,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_json_say_the_same() {
        let text = "records.age=90d,records.count=unlimited,logs.bytes=1000,artifacts.count=3";
        let read: Retention = text.parse().unwrap();
        assert_eq!(read.records.age(), Some(Duration::from_secs(90 * DAY_SECONDS)));
        assert_eq!((read.records.count(), read.artifacts.count()), (None, Some(3)));
        assert_eq!(read.to_string().parse::<Retention>().unwrap(), read);
        let json = serde_json::to_value(read).unwrap();
        assert_eq!(json["records"]["count"], "unlimited");
        assert_eq!(serde_json::from_value::<Retention>(json).unwrap(), read);
        for bad in ["age=1d", "records.age=1y", "records.size=1", "x.age=1d", "logs.count=-1"] {
            assert!(bad.parse::<Retention>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Retention>(r#"{"records": {"days": 1}}"#).is_err());
        assert!(serde_json::from_str::<Retention>(r#"{"records": {"count": "1"}}"#).is_err());
    }

    #[test]
    fn the_more_special_level_wins_bound_by_bound() {
        let server: Retention = "records.age=30d,artifacts.count=5".parse().unwrap();
        let scope: Retention = "records.age=unlimited,logs.age=1d".parse().unwrap();
        let both = scope.over(server);
        assert_eq!((both.records.age(), both.artifacts.count()), (None, Some(5)));
        assert!(both.logs.is_bound() && !both.records.is_bound());
    }
}
