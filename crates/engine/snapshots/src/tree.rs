//! The state of a root file system: layers on top of each other.

use ashlar_core::{Digest, Hasher};
use serde::{Deserialize, Serialize};

/// The name of one layer: an image layer's diff_id, or the content identity of a layer made here.
pub type LayerId = Digest;

/// The state of a root file system as the list of its layers, the bottom one first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tree(pub Vec<LayerId>);

impl Tree {
    /// Returns the empty root file system.
    pub fn scratch() -> Self {
        Self::default()
    }

    /// Returns this tree with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: LayerId) -> Self {
        let mut layers = self.0.clone();
        layers.push(layer);
        Self(layers)
    }

    /// Returns a name of the whole list.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(b"ashlar-tree-1\n");
        for layer in &self.0 {
            hasher.update(layer.as_bytes());
        }
        hasher.finish()
    }

    /// Returns the topmost layer.
    pub fn top(&self) -> Option<LayerId> {
        self.0.last().copied()
    }

    /// Whether there is no layer.
    pub fn is_scratch(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<LayerId> for Tree {
    fn from_iter<I: IntoIterator<Item = LayerId>>(layers: I) -> Self {
        Self(layers.into_iter().collect())
    }
}
