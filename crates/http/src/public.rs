//! Where people find this server: for links in what is sent without a request at hand.

use std::fmt;
use std::str::FromStr;

use axum::http::Uri;

use crate::Scheme;
use crate::forwarded::is_prefix;
use crate::origin::is_host;

/// The address that the operator gave the server, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

/// A text is no address for links.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no address for links; write e.g. https://builds.example.com or https://example.com/ashlar"
)]
pub struct PublicUrlError(String);

impl PublicUrl {
    /// Returns an absolute link to a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PublicUrl {
    type Err = PublicUrlError;

    fn from_str(text: &str) -> Result<Self, PublicUrlError> {
        let bad = || PublicUrlError(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let scheme = uri.scheme_str().filter(|s| ["http", "https"].contains(s));
        let scheme = scheme.and_then(Scheme::parse).ok_or_else(bad)?;
        let host = uri.authority().map(|a| a.as_str()).filter(|h| is_host(h)).ok_or_else(bad)?;
        let prefix = uri.path().trim_end_matches('/');
        if uri.query().is_some() || !(prefix.is_empty() || is_prefix(prefix)) {
            return Err(bad());
        }
        Ok(Self(format!("{}://{host}{prefix}", scheme.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_addresses_are_taken() {
        let read = |text: &str| text.parse::<PublicUrl>().map(|url| url.to_string());
        assert_eq!(read("https://b.example.com/"), Ok("https://b.example.com".into()));
        assert_eq!(read("http://[::1]:7070/a/b/"), Ok("http://[::1]:7070/a/b".into()));
        for bad in
            ["", "b.example.com", "ftp://x", "https://", "https://u:p@x", "https://x/?q", "/x"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
