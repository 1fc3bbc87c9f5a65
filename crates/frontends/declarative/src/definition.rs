//! The whole of one declarative build.

use std::collections::BTreeMap;

use ashlar_core::graph::Network;
use ashlar_core::image::ImageConfig;
use ashlar_core::{Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::step::Step;

/// One declarative build.
///
/// Steps start as root in `/`, whatever the base says, until `user` and `workdir` change that.
/// They see the base's variables (so the runtime variables of a base that was built here too) and
/// `build_envs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// What the steps build on.
    pub base: Base,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// Name of the context that copies read.
    pub context: String,
    /// The platform of the base and of the result.
    pub platform: Platform,
    /// Variables that steps see; they stay out of the image.
    #[serde(default)]
    pub build_envs: BTreeMap<String, String>,
    /// How the result runs, on top of what base and steps say.
    #[serde(default)]
    pub runtime: Runtime,
    /// Whether earlier results may be used.
    #[serde(default)]
    pub cache: CacheUse,
    /// What steps see of the network.
    #[serde(default)]
    pub network: Network,
}

impl Definition {
    /// Returns a definition for this machine with all else as usual.
    pub fn new(base: Base, steps: Vec<Step>) -> Self {
        Self {
            base,
            steps,
            context: "context".into(),
            platform: Platform::host(),
            build_envs: BTreeMap::new(),
            runtime: Runtime::default(),
            cache: CacheUse::default(),
            network: Network::Default,
        }
    }

    /// Returns every source of every copy, with the place of its step: for checks against the
    /// context before a build begins.
    pub fn sources(&self) -> impl Iterator<Item = (usize, &str)> {
        self.steps.iter().enumerate().flat_map(|(i, step)| {
            let sources = step.copies().iter().flat_map(|c| &c.sources);
            sources.map(move |source| (i, source.as_str()))
        })
    }
}

/// What the steps build on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// An image by reference; `scratch` is the empty tree.
    Image(String),
    /// An image that is known already, such as an earlier build's result.
    Known {
        /// A name for messages.
        reference: String,
        /// The digest of its manifest.
        manifest: Digest,
        /// Its config.
        config: Box<ImageConfig>,
    },
}

/// How the result runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Runtime {
    /// User; what base and steps say when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Working directory; what base and steps say when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Variables. They stay in the image, and builds on top of it see them; this one does not.
    pub envs: BTreeMap<String, String>,
}

/// Whether earlier results may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheUse {
    /// Up to the first `skip_cache` step.
    #[default]
    Normal,
    /// Not at all.
    Skip,
}
