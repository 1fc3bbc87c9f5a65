//! Operating system, architecture and variant of an image (OCI image index, "platform").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform such as `linux/amd64` or `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Go's name of the operating system, for example `linux`.
    pub os: String,
    /// Go's name of the architecture, for example `amd64`.
    pub architecture: String,
    /// Variant of the architecture, for example `v8`; none when there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a platform; write it as os/arch or os/arch/variant, e.g. linux/amd64")]
pub struct PlatformError(String);

impl Platform {
    /// Returns the platform that this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }.normalised()
    }

    /// Applies the usual synonyms: `x86_64` is `amd64`, `aarch64` is `arm64`, arm64's `v8` is implied.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        self.os = self.os.to_ascii_lowercase();
        let (architecture, variant) = match self.architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => ("amd64".to_owned(), None),
            "aarch64" => ("arm64".to_owned(), None),
            "armhf" => ("arm".to_owned(), Some("v7".to_owned())),
            "i386" => ("386".to_owned(), None),
            other => (other.to_owned(), self.variant.take()),
        };
        self.architecture = architecture;
        self.variant = variant;
        if self.architecture == "arm64" && self.variant.as_deref() == Some("v8") {
            self.variant = None;
        }
        self
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let fits = |p: &&str| {
            !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(fits) {
            return Err(PlatformError(text.chars().take(100).collect()));
        }
        let variant = parts.get(2).map(|&v| v.to_owned());
        Ok(Self { os: parts[0].into(), architecture: parts[1].into(), variant }.normalised())
    }
}
