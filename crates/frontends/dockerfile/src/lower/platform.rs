//! Platforms as `--platform` takes them, and the predefined arguments that name them.

use ashlar_core::Platform;

use super::env::Env;
use crate::request::Request;

const SYSTEMS: [&str; 5] = ["linux", "windows", "darwin", "freebsd", "wasip1"];
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
];

/// Reads `os/arch[/variant]`, or one of the two alone.
pub(super) fn parse(text: &str, default: &Platform) -> Result<Platform, String> {
    if text.contains('/') {
        return text.parse().map_err(|e: ashlar_core::platform::PlatformError| e.to_string());
    }
    let lower = text.to_ascii_lowercase();
    let make = |os: &str, architecture: &str| {
        Platform { os: os.into(), architecture: architecture.into(), variant: None }.normalised()
    };
    let named = make("linux", &lower);
    if SYSTEMS.contains(&lower.as_str()) {
        Ok(Platform { os: lower, ..default.clone() })
    } else if ARCHITECTURES.contains(&named.architecture.as_str()) {
        Ok(named)
    } else {
        Err(format!("'{text}' is not a platform; write it as os/arch, for example linux/amd64"))
    }
}

/// Returns the platform of the result.
pub(super) fn target(request: &Request) -> &Platform {
    request.platform.as_ref().unwrap_or(&request.build_platform)
}

/// Returns the arguments that are set before anything is said.
pub(super) fn predefined(request: &Request, target_stage: &str) -> Env {
    let (build, target) = (&request.build_platform, target(request));
    let variant = |p: &Platform| p.variant.clone().unwrap_or_default();
    let stage = if target_stage.is_empty() { "default" } else { target_stage };
    let all = [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", String::new()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", variant(build)),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", String::new()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", variant(target)),
        ("TARGETSTAGE", stage.to_owned()),
    ];
    let mut env = Env::default();
    for (name, value) in all {
        env.set(name, request.build_args.get(name).unwrap_or(&value));
    }
    env
}
