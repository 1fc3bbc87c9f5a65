//! What a context leaves out.

/// Judges the paths of a context, as `.dockerignore` does. Paths are clean and relative to the
/// context's root, never empty. Called by several threads at once.
pub trait Ignore: Send + Sync {
    /// Whether the path, or a directory above it, is left out.
    fn excluded(&self, path: &[u8]) -> bool;

    /// Whether something below `dir`, which is left out itself, may be not left out.
    fn may_descend(&self, dir: &[u8]) -> bool;
}

/// Leaves nothing out.
#[derive(Debug, Clone, Copy, Default)]
pub struct IgnoreNothing;

impl Ignore for IgnoreNothing {
    fn excluded(&self, _: &[u8]) -> bool {
        false
    }

    fn may_descend(&self, _: &[u8]) -> bool {
        true
    }
}
