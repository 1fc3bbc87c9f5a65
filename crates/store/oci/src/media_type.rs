//! Media types of manifests, configs and layers.

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, not compressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker layer, not compressed.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// How a layer's archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), one or more members.
    Gzip,
    /// Zstandard (RFC 8878), one or more frames.
    Zstd,
}

impl Compression {
    /// Reads the compression from a layer's media type; nothing when it is not a layer's type.
    ///
    /// What the bytes say counts more: there are registries with gzip layers named plain.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        let t = media_type;
        let is_oci = t.starts_with("application/vnd.oci.image.layer.");
        let is_docker = t.starts_with("application/vnd.docker.image.rootfs.");
        if !is_oci && !is_docker {
            return None;
        }
        Some(if t.ends_with("gzip") {
            Self::Gzip
        } else if t.ends_with("zstd") {
            Self::Zstd
        } else {
            Self::None
        })
    }

    /// Reads the compression from the first bytes of a layer.
    pub fn of_magic(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Returns OCI's media type of a layer compressed so.
    pub fn oci_layer(self) -> &'static str {
        match self {
            Self::None => OCI_LAYER,
            Self::Gzip => OCI_LAYER_GZIP,
            Self::Zstd => OCI_LAYER_ZSTD,
        }
    }
}

/// Tells whether `t` is the type of an image of one platform.
pub fn is_manifest(t: &str) -> bool {
    matches!(bare(t), OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Tells whether `t` is the type of an index.
pub fn is_index(t: &str) -> bool {
    matches!(bare(t), OCI_INDEX | DOCKER_INDEX)
}

/// Tells whether `t` is the type of an image's config.
pub fn is_config(t: &str) -> bool {
    matches!(bare(t), OCI_CONFIG | DOCKER_CONFIG)
}

/// Tells whether `t` is what careless servers send for a manifest of any type.
pub(crate) fn is_sloppy(t: &str) -> bool {
    matches!(bare(t), "" | "application/json" | "application/octet-stream" | "text/plain")
}

/// Drops parameters such as `; charset=utf-8`.
fn bare(t: &str) -> &str {
    t.split(';').next().unwrap_or(t).trim()
}
