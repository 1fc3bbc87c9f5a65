//! What a build is made from, frozen: the JSON in the record, from which a retry builds again.

use std::collections::BTreeMap;
use std::time::Duration;

use ashlar_core::frontend::Plan;
use ashlar_core::graph::{Network, Probe};
use ashlar_core::{BuildId, Digest, Hasher, Platform, TenantId};
use ashlar_frontend_declarative as declarative;
use ashlar_frontend_dockerfile as dockerfile;
use ashlar_native::BuildLimits;
use ashlar_records::{Namespace, NewAlias};
use serde::{Deserialize, Serialize};

use crate::{BuildOutput, Error};

/// All that a build is made from. Values of secrets are never in it, only their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// What is to be done.
    pub recipe: Recipe,
    /// Digests of context manifests ([`crate::Service::put_context`]) by context name. The main
    /// context's name is the recipe's, `context` unless it says otherwise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<String, Digest>,
    /// Ids of the secrets that came with the submission. Filled in by the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Hosts of the registries whose credentials came with the submission. Filled in by the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<String>,
    /// What steps may use up; the server's own limits hold too.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// What steps see of the network when the recipe does not say.
    #[serde(default)]
    pub network: Network,
    /// How the result runs, on top of what the recipe says: also where the recipe has no place for
    /// it, as a Dockerfile. Steps see nothing of it.
    #[serde(default, skip_serializing_if = "is_plain")]
    pub runtime: declarative::Runtime,
    /// A process that must come up on the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartCommand>,
    /// Times of the result after this one, in seconds since 1970, become this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// What else makes the definition another one than its steps and their inputs do: a dialect whose
    /// contract says so gives different digests to requests that must not answer each other, although
    /// they would build the same. Of build variables the service knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Digest>,
    /// Whether registries are asked for newer base images, also where an image here has the name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pull: bool,
    /// What questions about images, branches and addresses came to in an earlier build: a blob with
    /// answers. Filled in by a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Digest>,
    /// Where the result goes besides the server's own images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<BuildOutput>,
    /// Native tags that lead to the build once it has succeeded, each `name:tag`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Native tags that no other build ever has, each `name:tag`: they lead to the build once it has
    /// succeeded, but are no reason to keep it. A retry does not take them over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_tags: Vec<String>,
    /// Names of a dialect that lead to the build once it has succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameOnSuccess>,
}

impl Definition {
    /// Returns a definition of a recipe with all else as usual.
    pub fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            contexts: BTreeMap::new(),
            secrets: Vec::new(),
            credentials: Vec::new(),
            limits: Limits::default(),
            network: Network::Default,
            runtime: declarative::Runtime::default(),
            start: None,
            epoch: None,
            identity: None,
            pull: false,
            answers: None,
            outputs: Vec::new(),
            tags: Vec::new(),
            own_tags: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Returns what the final artifact's key holds beside steps and inputs: the identity, if there is
    /// one, with the build variables, used or not, as they stand in the definition.
    pub(crate) fn final_identity(&self) -> Option<Digest> {
        let identity = self.identity?;
        let mut hasher = Hasher::new();
        hasher.field(identity.as_bytes());
        for (name, value) in self.recipe.build_envs() {
            hasher.field(name).field(value);
        }
        Some(hasher.finish())
    }

    /// Returns the definition of a build from its record.
    ///
    /// # Errors
    /// When the record's definition is none of this service's, as that of an external build.
    pub fn of(record: &ashlar_core::journal::Record) -> Result<Self, Error> {
        serde_json::from_value(record.submission.definition.clone())
            .map_err(|e| Error::Conflict(format!("the build's definition cannot be read: {e}")))
    }
}

fn is_plain(runtime: &declarative::Runtime) -> bool {
    *runtime == declarative::Runtime::default()
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one a build, never in lists")]
pub enum Recipe {
    /// A Dockerfile, as text or as a file of a context.
    Dockerfile(dockerfile::Request),
    /// Ordered steps on a base image.
    Declarative(declarative::Definition),
    /// Ordered steps on what an earlier build made.
    OnBuild {
        /// The earlier build.
        base: BuildId,
        /// Whose build it is, when it is another tenant's that shares it. Filled in by the service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<TenantId>,
        /// The steps; its own `base` is not looked at.
        steps: declarative::Definition,
    },
    /// An image as it is.
    Image {
        /// Its reference.
        reference: String,
        /// The platform that is wanted.
        platform: Platform,
    },
    /// A plan that the caller has lowered itself.
    Graph {
        /// The plan.
        plan: Box<Plan>,
    },
    /// Builds in an order, for builds of kind `workflow`.
    Workflow(crate::Workflow),
    /// Nothing that this service runs: an external build's.
    Other {
        /// What the dialect wants to keep.
        value: serde_json::Value,
    },
}

impl Recipe {
    /// Lets every step run again; results are still kept.
    pub(crate) fn skip_cache(&mut self) {
        match self {
            Self::Dockerfile(request) => request.no_cache = dockerfile::NoCache::All,
            Self::Declarative(steps) | Self::OnBuild { steps, .. } => {
                steps.cache = declarative::CacheUse::Skip;
            }
            Self::Image { .. } | Self::Graph { .. } | Self::Workflow(_) | Self::Other { .. } => {}
        }
    }

    /// Returns names and values of build variables, by name.
    fn build_envs(&self) -> BTreeMap<&str, &str> {
        match self {
            Self::Declarative(steps) | Self::OnBuild { steps, .. } => {
                steps.build_envs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect()
            }
            Self::Dockerfile(request) => {
                request.build_envs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect()
            }
            _ => BTreeMap::new(),
        }
    }

    /// Returns the builds that it stands on.
    pub(crate) fn bases(&self) -> Vec<BuildId> {
        match self {
            Self::OnBuild { base, .. } => vec![*base],
            Self::Workflow(run) => run.definitions().flat_map(|d| d.recipe.bases()).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the source word that lists show when the caller gives none.
    pub const fn source(&self) -> &'static str {
        match self {
            Self::Dockerfile(_) => "dockerfile",
            Self::Declarative(_) => "declarative",
            Self::OnBuild { .. } => "build",
            Self::Image { .. } => "image",
            Self::Graph { .. } => "graph",
            Self::Workflow(_) => "workflow",
            Self::Other { .. } => "other",
        }
    }
}

/// A name that leads to the build once it has succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameOnSuccess {
    /// The dialect whose name it is.
    pub dialect: String,
    /// What it names, for example `tag`.
    pub kind: String,
    /// The name; unique within tenant, dialect and kind.
    pub alias: String,
}

impl NameOnSuccess {
    pub(crate) fn alias(&self, tenant: ashlar_core::TenantId) -> NewAlias {
        let namespace = Namespace::new(&self.dialect, Some(tenant), &self.kind);
        NewAlias::protecting(namespace, self.alias.clone())
    }
}

/// What steps may use up, each step by itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory of a step's processes, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processor time per wall time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Bytes that a step may write to disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Wall time of a step, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_seconds: Option<u64>,
    /// Wall time of the whole build, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_seconds: Option<u64>,
    /// Bytes of log of one attempt at the build; of more the first and the last are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    /// Whether these are the size of machine that is wished for, which an executor that has its
    /// own machines may pass over. The server's own limits are never passed over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub advisory: bool,
}

impl Limits {
    /// Returns what an executor must hold.
    pub(crate) fn binding(&self) -> Self {
        if self.advisory { Self::default() } else { self.clone() }
    }

    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the stricter of these limits and the server's.
    pub(crate) fn within(&self, server: &BuildLimits) -> BuildLimits {
        fn least<T: PartialOrd>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(if a < b { a } else { b }),
                (a, b) => a.or(b),
            }
        }
        BuildLimits {
            memory_bytes: least(self.memory_bytes, server.memory_bytes),
            cpus: least(self.cpus, server.cpus),
            pids: least(self.pids, server.pids),
            disk_bytes: least(self.disk_bytes, server.disk_bytes),
            timeout: least(self.step_seconds.map(Duration::from_secs), server.timeout),
            output_bytes: server.output_bytes,
        }
    }
}

/// A process that is started on the result, must become ready, and is stopped again. What it
/// changed in the file system stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartCommand {
    /// Text for `/bin/sh -c`.
    pub command: String,
    /// Who runs it; the image's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where; the image's working directory when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Variables on top of the image's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub envs: BTreeMap<String, String>,
    /// How to see that it is ready; it only has to start when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// How to see that a process is ready.
pub type Readiness = Probe;

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(identity: &str, value: &str) -> Definition {
        let mut request = dockerfile::Request::text("FROM scratch");
        request.build_envs = [("A".into(), value.into())].into();
        let mut definition = Definition::new(Recipe::Dockerfile(request));
        definition.identity = Some(Digest::of(identity));
        definition
    }

    #[test]
    fn an_identity_is_that_of_the_dialect_with_the_variables() {
        let of = |identity, value| definition(identity, value).final_identity();
        assert_eq!(of("x", "1"), of("x", "1"));
        assert!(of("x", "1").is_some() && of("x", "1") != of("y", "1"));
        assert_ne!(of("x", "1"), of("x", "2"));
        let none = Definition { identity: None, ..definition("x", "1") };
        assert_eq!(none.final_identity(), None);
    }

    #[test]
    fn definitions_without_an_identity_are_written_and_read_as_ever() {
        let none = Definition { identity: None, ..definition("x", "1") };
        let text = serde_json::to_string(&none).unwrap();
        assert!(!text.contains("identity"), "{text}");
        assert_eq!(serde_json::from_str::<Definition>(&text).unwrap(), none);
        let with = definition("x", "1");
        let text = serde_json::to_string(&with).unwrap();
        assert_eq!(serde_json::from_str::<Definition>(&text).unwrap(), with);
    }
}
