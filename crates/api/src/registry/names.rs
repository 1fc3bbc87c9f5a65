//! Paths of the registry.

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
        _ => return None,
    };
    Some((tenant, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_several_parts() {
        let want = Target::Manifest { name: "team/app", reference: "v1" };
        assert_eq!(parse("acme/team/app/manifests/v1"), Some(("acme", want)));
        assert_eq!(parse("acme/app/tags/list"), Some(("acme", Target::Tags { name: "app" })));
        // A repository may have the words in its own name.
        let want = Target::Blob { digest: "sha256:1" };
        assert_eq!(parse("acme/blobs/manifests/blobs/sha256:1"), Some(("acme", want)));
        for bad in ["", "acme", "acme/manifests/v1", "acme/app/other/v1", "acme/app/manifests/"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
