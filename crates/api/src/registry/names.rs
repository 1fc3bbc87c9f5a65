//! Paths of the registry.

use ashlar_core::Digest;

use super::errors::Refusal;

/// Hexadecimal digits of a SHA-512 digest.
const SHA512_DIGITS: usize = 128;

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// A manifest by tag or digest.
    Manifest {
        /// The repository within the tenant.
        name: &'a str,
        /// The tag or digest.
        reference: &'a str,
    },
    /// A blob.
    Blob {
        /// Its digest.
        digest: &'a str,
    },
    /// The tags of a repository.
    Tags {
        /// The repository within the tenant.
        name: &'a str,
    },
    /// The manifests that refer to one.
    Referrers {
        /// The digest of that one.
        digest: &'a str,
    },
}

/// Takes a path after `/v2/` apart: the tenant, and what is wanted of it.
pub(super) fn parse(path: &str) -> Option<(&str, Target<'_>)> {
    let (rest, last) = path.rsplit_once('/')?;
    let (full, word) = rest.rsplit_once('/')?;
    let (tenant, name) = full.split_once('/')?;
    if tenant.is_empty() || name.is_empty() || last.is_empty() {
        return None;
    }
    let target = match (word, last) {
        ("manifests", reference) => Target::Manifest { name, reference },
        ("blobs", digest) => Target::Blob { digest },
        ("tags", "list") => Target::Tags { name },
        ("referrers", digest) => Target::Referrers { digest },
        _ => return None,
    };
    Some((tenant, target))
}

/// Reads a digest; none when it is one of an algorithm that nothing here is named by.
///
/// # Errors
/// When it is no digest.
pub(super) fn digest(text: &str) -> Result<Option<Digest>, Refusal> {
    if let Ok(digest) = text.parse() {
        return Ok(Some(digest));
    }
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match text.strip_prefix("sha512:") {
        Some(hex) if hex.len() == SHA512_DIGITS && hex.bytes().all(is_hex) => Ok(None),
        _ => Err(Refusal::bad_digest()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_known_unknown_or_none() {
        let known = Digest::of("x");
        assert_eq!(digest(&known.to_string()), Ok(Some(known)));
        assert_eq!(digest(&format!("sha512:{}", "0f".repeat(64))), Ok(None));
        for bad in ["sha256:0", "sha512:0f", "md5:00", "sha256:", ":", "latest"] {
            assert_eq!(digest(bad), Err(Refusal::bad_digest()), "{bad}");
        }
    }

    #[test]
    fn names_may_have_several_parts() {
        let want = Target::Manifest { name: "team/app", reference: "v1" };
        assert_eq!(parse("acme/team/app/manifests/v1"), Some(("acme", want)));
        assert_eq!(parse("acme/app/tags/list"), Some(("acme", Target::Tags { name: "app" })));
        // A repository may have the words in its own name.
        let want = Target::Blob { digest: "sha256:1" };
        assert_eq!(parse("acme/blobs/manifests/blobs/sha256:1"), Some(("acme", want)));
        let want = Target::Referrers { digest: "sha256:1" };
        assert_eq!(parse("acme/team/app/referrers/sha256:1"), Some(("acme", want)));
        for bad in ["", "acme", "acme/manifests/v1", "acme/app/other/v1", "acme/app/manifests/"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
