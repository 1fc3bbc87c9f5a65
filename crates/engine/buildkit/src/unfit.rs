//! Builds that a daemon cannot run as they are asked for.

use ashlar_frontend_dockerfile::{NamedContext, Request, Source};
use ashlar_native::BuildLimits;

/// The address that daemons are to replace by their own, which they do for their own clients only.
const HOST_GATEWAY: &str = "host-gateway";
/// How what stands in place of a sealed value begins.
const STAND_IN: &str = "hidden:";

/// Says why BuildKit cannot run a build, if so. `internal_host` is the registry that stands for
/// images of this server, which no daemon can reach.
pub fn unfit(request: &Request, limits: &BuildLimits, internal_host: &str) -> Option<String> {
    let no = |text: &str| Some(text.to_owned());
    if !request.build_envs.is_empty() {
        return no("variables for all steps that are not in the image are unknown to BuildKit");
    }
    if request.build_args.values().any(|v| v.starts_with(STAND_IN)) {
        return no("the history of an image of BuildKit would tell sealed build arguments");
    }
    if *limits != BuildLimits::default() {
        return no("limits of steps cannot be given to a BuildKit daemon");
    }
    if request.extra_hosts.iter().any(|h| h.address == HOST_GATEWAY) {
        return no("the host's own address cannot be given to a BuildKit daemon");
    }
    if request.build_platform != ashlar_core::Platform::host() {
        return no("the platform that steps run on is a BuildKit daemon's own");
    }
    let names_internal = |text: &str| text.contains(internal_host);
    let image = |c: &NamedContext| matches!(c, NamedContext::Image(r) if names_internal(r));
    let text = matches!(&request.source, Source::Text(text) if names_internal(text));
    let values = request.build_args.values().any(|v| names_internal(v));
    if text || values || request.named_contexts.values().any(image) {
        return no("images of this server cannot be had by a BuildKit daemon");
    }
    let main = request.named_contexts.get(&request.context);
    if matches!(main, Some(NamedContext::Image(_))) {
        return no("an image cannot be the main context of a BuildKit build");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_daemon_cannot_do_is_said() {
        let plain = Request::text("FROM busybox");
        let none = BuildLimits::default();
        let why = |request: &Request, limits: &BuildLimits| unfit(request, limits, "own.internal");
        assert_eq!(why(&plain, &none), None);
        let output = BuildLimits { output_bytes: Some(1), ..none.clone() };
        let memory = BuildLimits { memory_bytes: Some(1), ..none.clone() };
        for limits in [output, memory] {
            assert!(why(&plain, &limits).unwrap().contains("limits"));
        }
        let own = Request::text("FROM own.internal/t/b:latest");
        assert!(why(&own, &none).unwrap().contains("images of this server"));
        let mut envs = plain.clone();
        envs.build_envs.push(("A".into(), "1".into()));
        assert!(why(&envs, &none).unwrap().contains("variables"));
        let mut image = plain;
        image.named_contexts.insert("context".into(), NamedContext::Image("x".into()));
        assert!(why(&image, &none).unwrap().contains("main context"));
    }
}
