//! What is asked of the daemon: the attributes of BuildKit's Dockerfile frontend, exporters, and
//! rules for mirrors.

use std::collections::{BTreeMap, HashMap};

use ashlar_core::graph::Network;
use ashlar_core::{Digest, Hasher};
use ashlar_frontend_dockerfile::{NoCache, Request};
use ashlar_native::BuildRequest;
use ashlar_oci::Mirror;
use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::{
    MatchType, Policy, PolicyAction, Rule, Selector, Update,
};
use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, SolveRequest};

use crate::build::Job;
use crate::dockerfile::Inputs;

/// The frontend that every daemon has built in.
const FRONTEND: &str = "dockerfile.v0";
/// Separates cache mounts of those who share a daemon.
const CACHE_NAMESPACE: &str = "build-arg:BUILDKIT_CACHE_MOUNT_NS";
/// The privilege to use the host's own network.
const HOST_NETWORK: &str = "network.host";
/// How much of a hash makes a name, in hexadecimal digits.
const NAMESPACE_CHARS: usize = 32;
/// The time of the result, for the frontend.
const EPOCH: &str = "build-arg:SOURCE_DATE_EPOCH";
/// What is said of the built-in frontend when the Dockerfile's own is out of reach.
const BUILT_IN: &str = "docker/dockerfile:built-in";

/// What may be different when a build is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Choices {
    /// Whether a `# syntax=` line is passed over.
    pub(crate) built_in_syntax: bool,
    /// Which of each registry's mirrors is asked; past the last one, the registry itself.
    pub(crate) mirror: usize,
}

/// How the image comes out of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// As an OCI archive over the session.
    Archive,
    /// Into the daemon's own store, under this name.
    Store(String),
}

/// One solve.
pub(crate) struct Solve<'a> {
    /// Names it for its progress.
    pub(crate) reference: &'a str,
    /// The session on which files and secrets are asked for.
    pub(crate) session: &'a str,
    pub(crate) job: &'a Job<'a>,
    pub(crate) inputs: &'a Inputs,
    /// Makes names that nobody else can compute.
    pub(crate) key: &'a Digest,
    pub(crate) way: &'a Way,
    pub(crate) rules: Vec<Rule>,
    pub(crate) choices: Choices,
}

impl Solve<'_> {
    /// Makes the request.
    pub(crate) fn request(self) -> SolveRequest {
        let build = self.job.build;
        let mut attributes = frontend(self.job.dockerfile, build, self.inputs, self.key);
        if self.job.pull {
            attributes.insert("image-resolve-mode".into(), "pull".into());
        }
        if self.choices.built_in_syntax {
            // The frontend takes this for a sign that the syntax line was followed already.
            attributes.insert("cmdline".into(), BUILT_IN.into());
        }
        let exporter = exporter(build, self.way);
        let rules = self.rules;
        SolveRequest {
            r#ref: self.reference.to_owned(),
            session: self.session.to_owned(),
            frontend: FRONTEND.to_owned(),
            frontend_attrs: attributes.into_iter().collect(),
            // Old daemons read only this pair.
            exporter_deprecated: exporter.r#type.clone(),
            exporter_attrs_deprecated: exporter.attrs.clone(),
            exporters: vec![exporter],
            entitlements: entitlements(self.job.dockerfile, build),
            // The daemon's own history would keep build arguments.
            internal: true,
            source_policy: (!rules.is_empty()).then_some(Policy { version: 1, rules }),
            ..SolveRequest::default()
        }
    }
}

/// Returns the privileges that were granted. The network that the operator made everybody's default
/// needs no other permission.
fn entitlements(request: &Request, build: &BuildRequest) -> Vec<String> {
    let mut all = build.entitlements.clone();
    if (request.network, build.network) == (Network::Default, Network::Host) {
        all.insert(HOST_NETWORK.to_owned());
    }
    all.into_iter().collect()
}

fn exporter(build: &BuildRequest, way: &Way) -> Exporter {
    let mut attrs = HashMap::new();
    match way {
        Way::Archive => {
            attrs.insert("oci-mediatypes".into(), "true".into());
            if build.epoch.is_some() {
                attrs.insert("rewrite-timestamp".into(), "true".into());
            }
            Exporter { r#type: "oci".into(), attrs }
        }
        Way::Store(name) => {
            attrs.insert("name".into(), name.clone());
            Exporter { r#type: "moby".into(), attrs }
        }
    }
}

/// Returns the attributes of the frontend.
fn frontend(
    request: &Request,
    build: &BuildRequest,
    inputs: &Inputs,
    key: &Digest,
) -> BTreeMap<String, String> {
    let mut all = inputs.attributes.clone();
    let mut set = |name: &str, value: String| drop(all.insert(name.to_owned(), value));
    set("filename", inputs.file.clone());
    if !request.named_contexts.is_empty() {
        // A frontend too old for named contexts must say so instead of passing them over.
        set("frontend.caps", "moby.buildkit.frontend.contexts+forward".into());
    }
    if let Some(target) = &request.target {
        set("target", target.clone());
    }
    if let Some(platform) = &request.platform {
        set("platform", platform.to_string());
    }
    match &request.no_cache {
        NoCache::None => {}
        NoCache::All => set("no-cache", String::new()),
        NoCache::Stages(names) => set("no-cache", joined(names.iter().cloned())),
    }
    match (request.network, build.network) {
        (Network::Host, _) | (Network::Default, Network::Host) => {
            set("force-network-mode", "host".into());
        }
        (Network::None, _) | (Network::Default, Network::None) => {
            set("force-network-mode", "none".into());
        }
        _ => {}
    }
    if !request.extra_hosts.is_empty() {
        let hosts = request.extra_hosts.iter().map(|h| format!("{}={}", h.host, h.address));
        set("add-hosts", joined(hosts));
    }
    if !request.ulimits.is_empty() {
        let limit = |u: &ashlar_core::graph::Ulimit| format!("{}={}:{}", u.name, u.soft, u.hard);
        set("ulimit", joined(request.ulimits.iter().map(limit)));
    }
    if let Some(bytes) = request.shm_bytes {
        set("shm-size", bytes.to_string());
    }
    if !request.hostname.is_empty() {
        set("hostname", request.hostname.clone());
    }
    for (name, value) in &request.labels {
        set(&format!("label:{name}"), value.clone());
    }
    for (name, value) in &request.build_args {
        set(&format!("build-arg:{name}"), value.clone());
    }
    if let Some(epoch) = build.epoch {
        set(EPOCH, epoch.to_string());
    }
    let own = request.build_args.get("BUILDKIT_CACHE_MOUNT_NS").map_or("", String::as_str);
    set(CACHE_NAMESPACE, cache_namespace(key, build, own));
    all
}

/// Cache mounts are shared within a scope of a tenant, whatever the build says. A build may write any
/// name into its `id=`, and so must not be able to compute another tenant's.
fn cache_namespace(key: &Digest, build: &BuildRequest, own: &str) -> String {
    let mut hasher = Hasher::new();
    hasher.field("buildkit cache mounts").field(key.as_bytes());
    hasher.field(&build.tenant).field(&build.scope).field(own).field(key.as_bytes());
    hasher.finish().hex()[..NAMESPACE_CHARS].to_owned()
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

/// Returns rules that send pulls to mirrors: for each registry its mirror number `choice`. None when
/// no registry has so many.
///
/// A rule holds for everything that the build pulls, whoever names it: `FROM`, `COPY --from`, mounts,
/// the image of a `# syntax=` line. A mirror below a path cannot be told to a daemon, since names of
/// images have no place for it. Whether a mirror is spoken to by plain http is the daemon's setting;
/// loopback always is.
pub(crate) fn mirror_rules(mirrors: &[Mirror], choice: usize) -> Vec<Rule> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut rules = Vec::new();
    for mirror in mirrors {
        let Some(authority) = authority(mirror) else { continue };
        let number = seen.entry(&mirror.host).or_default();
        if *number == choice {
            rules.push(rule(&mirror.host, &authority));
        }
        *number += 1;
    }
    rules
}

fn authority(mirror: &Mirror) -> Option<String> {
    let url = &mirror.url;
    let host = url.host_str()?;
    let plain = url.path().trim_matches('/').is_empty();
    // Without a port, a name of one part would be taken for a path at Docker Hub.
    let port = url.port_or_known_default()?;
    plain.then(|| format!("{host}:{port}"))
}

fn rule(host: &str, mirror: &str) -> Rule {
    let escaped: String =
        host.chars().flat_map(|c| (c == '.').then_some('\\').into_iter().chain([c])).collect();
    Rule {
        action: PolicyAction::Convert.into(),
        selector: Some(Selector {
            identifier: format!("^docker-image://{escaped}/(.*)$"),
            match_type: MatchType::Regex.into(),
            constraints: Vec::new(),
        }),
        updates: Some(Update {
            identifier: format!("docker-image://{mirror}/${{1}}"),
            attrs: HashMap::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_registry_is_sent_to_its_next_mirror() {
        let mirrors: Vec<Mirror> = [
            "docker.io=http://127.0.0.1:5000",
            "docker.io=https://mirror",
            "ghcr.io=https://other:1",
            "quay.io=https://proxy/quay",
        ]
        .iter()
        .map(|m| m.parse().unwrap())
        .collect();
        let targets = |choice| {
            let updates = mirror_rules(&mirrors, choice).into_iter().filter_map(|r| r.updates);
            updates.map(|u| u.identifier).collect::<Vec<_>>()
        };
        let first = ["docker-image://127.0.0.1:5000/${1}", "docker-image://other:1/${1}"];
        assert_eq!(targets(0), first);
        assert_eq!(targets(1), ["docker-image://mirror:443/${1}"]);
        assert!(targets(2).is_empty());
        let rule = &mirror_rules(&mirrors, 0)[0];
        let pattern = &rule.selector.as_ref().unwrap().identifier;
        assert_eq!(pattern, r"^docker-image://docker\.io/(.*)$");
    }
}
