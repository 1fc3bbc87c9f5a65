//! Points in time with nanosecond precision, UTC.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanoseconds since 1970-01-01T00:00:00Z. In JSON: RFC 3339 with `Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Wraps nanoseconds since 1970.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Returns nanoseconds since 1970.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Returns milliseconds since 1970, never negative.
    pub const fn millis(self) -> u64 {
        if self.0 < 0 { 0 } else { self.0.unsigned_abs() / 1_000_000 }
    }

    /// Returns the time from `earlier` to `self`, or zero when the clock went back.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns the later of `self` and one nanosecond after `last`: times of a journal strictly
    /// increase even when the clock does not.
    pub fn after(self, last: Option<Self>) -> Self {
        last.map_or(self, |l| self.max(Self(l.0.saturating_add(1))))
    }

    /// Returns the RFC 3339 text with nanoseconds.
    pub fn rfc3339(self) -> String {
        DateTime::<Utc>::from_timestamp_nanos(self.0).to_rfc3339_opts(SecondsFormat::Nanos, true)
    }

    /// Reads an RFC 3339 time with any offset; nothing when the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt().map(Self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.rfc3339())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("'{text}' is not an RFC 3339 time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_nanoseconds() {
        let t = Timestamp::from_nanos(1_700_000_000_123_456_789);
        assert_eq!(t.rfc3339(), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(Timestamp::parse(&t.rfc3339()), Some(t));
    }

    #[test]
    fn journal_times_strictly_increase() {
        let last = Timestamp::from_nanos(10);
        assert_eq!(Timestamp::from_nanos(5).after(Some(last)).nanos(), 11);
        assert_eq!(Timestamp::from_nanos(50).after(Some(last)).nanos(), 50);
    }
}
