//! Typed identifiers: UUIDv7 (RFC 9562, section 5.7), so that they sort by the time they were made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {kind} id")]
pub struct IdError {
    /// What kind of id was wanted.
    pub kind: &'static str,
    /// The text that was given, cut to 100 characters.
    pub text: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes an id from 48 bits of milliseconds since 1970 and ten random bytes, both of
            /// which the caller supplies: this crate reads no clock.
            pub fn from_parts(millis: u64, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }

            /// Wraps an existing UUID.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Returns the UUID.
            pub const fn uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| IdError { kind: $kind, text: text.chars().take(100).collect() })
            }
        }
    )*};
}

ids! {
    /// One build: one request to turn a source into an artifact.
    BuildId "build";
    /// One tenant: whoever owns builds apart from all others.
    TenantId "tenant";
    /// One person or program that acts for a tenant.
    PrincipalId "principal";
    /// One worker process.
    WorkerId "worker";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_round_trip() {
        let a = BuildId::from_parts(1, [255; 10]);
        let b = BuildId::from_parts(2, [0; 10]);
        assert!(a < b);
        assert_eq!(a.to_string().parse::<BuildId>().unwrap(), a);
        assert_eq!("x".parse::<BuildId>().unwrap_err().to_string(), "'x' is not a build id");
    }
}
