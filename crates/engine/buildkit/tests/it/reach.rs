//! Images that are out of reach: syntax lines and mirrors.

use ashlar_core::failure::FailureKind;
use ashlar_oci::RegistrySettings;

use crate::world::{STORES, World, daemon, fresh, registry};

/// A host that no name server knows (RFC 2606).
const NOWHERE: &str = "registry.invalid";

#[test]
fn a_known_syntax_out_of_reach_does_not_fail_a_build() {
    for store in STORES {
        let world = World::on(store);
        let text = format!(
            "# syntax=docker/dockerfile:1\nFROM {}/library/busybox\nRUN echo {}\n",
            registry(),
            fresh()
        );
        world.build(&text);
        let told =
            |world: &World| world.heard.lines().iter().any(|l| l.contains("docker/dockerfile:1"));
        assert!(told(&world), "{:?}", world.heard.lines());
        world.build(&text);
        assert!(!told(&world), "what could not be had is not asked for at once again");
        let own = text.replace("docker/dockerfile:1", &format!("{NOWHERE}/own/syntax:1"));
        let failure = world.try_build(&own).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Source, "{failure:?}");
    }
}

#[test]
fn our_mirrors_hold_for_everything_that_a_build_pulls() {
    for store in STORES {
        let mirrors = ["http://127.0.0.1:1".to_owned(), format!("http://{}", registry())];
        let settings = RegistrySettings {
            mirrors: mirrors.iter().map(|m| format!("{NOWHERE}={m}").parse().unwrap()).collect(),
            ..RegistrySettings::default()
        };
        let world = World::with_settings(vec![daemon(store)], settings);
        let text = format!(
            "FROM {NOWHERE}/library/busybox AS a\nRUN echo {} >/a\nFROM scratch\n\
             COPY --from=a /a /a\nCOPY --from={NOWHERE}/library/busybox /bin/busybox /b\n",
            fresh()
        );
        let made = world.build(&text);
        assert!(world.files(&made).contains_key("b"));
        let without = World::on(store);
        let failure = without.try_build(&text).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Source, "{failure:?}");
    }
}
