//! Image references, registries, OCI layouts and docker archives.
