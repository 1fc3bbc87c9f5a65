//! Choosing an image of an index by platform.

use ashlar_core::Platform;

use crate::manifest::{Descriptor, Index};

/// Docker marks attestations in an index with this annotation.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Returns the entry of `index` that fits `wanted` best, the first of equals.
///
/// A CPU runs what older variants of it run: `arm/v7` takes `arm/v6` when there is no better.
/// An index with one entry and no platform at all gives that entry.
pub fn select<'a>(index: &'a Index, wanted: &Platform) -> Option<&'a Descriptor> {
    let candidates: Vec<_> =
        index.manifests.iter().filter(|d| d.annotation(REFERENCE_TYPE).is_none()).collect();
    if let [only] = candidates[..]
        && only.platform.is_none()
    {
        return Some(only);
    }
    let fitness = |d: &&&Descriptor| d.platform.as_ref().and_then(|p| fitness(p, wanted));
    let fitting = candidates.iter().filter(|d| fitness(d).is_some());
    // `min_by_key` gives the first of equals.
    fitting.min_by_key(|d| std::cmp::Reverse(fitness(d))).copied()
}

/// Lists the platforms of an index, for an error that says what there is.
pub fn offered(index: &Index) -> Vec<Platform> {
    let known = |p: &&Platform| p.os != "unknown";
    index.manifests.iter().filter_map(|d| d.platform.as_ref()).filter(known).cloned().collect()
}

/// Returns how well `offered` runs where `wanted` is asked for: higher is better, none is not.
fn fitness(offered: &Platform, wanted: &Platform) -> Option<u32> {
    let (offered, wanted) = (offered.clone().normalised(), wanted.clone().normalised());
    if (&offered.os, &offered.architecture) != (&wanted.os, &wanted.architecture) {
        return None;
    }
    let (has, limit) = (level(&offered)?, level(&wanted)?);
    (has <= limit).then_some(has)
}

/// Returns the number of the variant, with the default of the architecture.
fn level(platform: &Platform) -> Option<u32> {
    match (platform.variant.as_deref(), platform.architecture.as_str()) {
        (Some(v), _) => v.strip_prefix('v')?.split('.').next()?.parse().ok(),
        (None, "arm") => Some(7),
        (None, "arm64") => Some(8),
        (None, _) => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use ashlar_core::Digest;

    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let entry = |p: &&str| {
            let d = Descriptor::new(crate::media_type::OCI_MANIFEST, Digest::of(p), 1);
            d.with_platform(p.parse().unwrap())
        };
        Index {
            schema_version: 2,
            media_type: None,
            manifests: platforms.iter().map(entry).collect(),
            annotations: None,
            other: serde_json::Map::new(),
        }
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Option<String> {
        let index = index(platforms);
        let found = select(&index, &wanted.parse().unwrap());
        found.map(|d| d.platform.as_ref().unwrap().to_string())
    }

    #[test]
    fn best_variant_wins() {
        let arms =
            ["linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        assert_eq!(chosen(&arms, "linux/arm/v6").as_deref(), Some("linux/arm/v6"));
        assert_eq!(chosen(&arms, "linux/arm").as_deref(), Some("linux/arm/v7"));
        assert_eq!(chosen(&arms[..2], "linux/arm/v7").as_deref(), Some("linux/arm/v5"));
        assert_eq!(chosen(&arms, "linux/arm64").as_deref(), Some("linux/arm64"));
        assert_eq!(chosen(&arms, "linux/s390x"), None);
        assert_eq!(
            chosen(&["linux/amd64/v3", "linux/amd64"], "linux/amd64").as_deref(),
            Some("linux/amd64")
        );
    }

    #[test]
    fn attestations_are_passed_over() {
        let mut index = index(&["unknown/unknown", "linux/amd64"]);
        index.manifests[0].annotations =
            Some([(REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned())].into());
        let found = select(&index, &"linux/amd64".parse().unwrap()).unwrap();
        assert_eq!(found.digest, index.manifests[1].digest);
        assert_eq!(offered(&index).len(), 1);
    }

    #[test]
    fn a_single_entry_needs_no_platform() {
        let mut index = index(&["linux/amd64"]);
        index.manifests[0].platform = None;
        assert!(select(&index, &"linux/arm64".parse().unwrap()).is_some());
    }
}
