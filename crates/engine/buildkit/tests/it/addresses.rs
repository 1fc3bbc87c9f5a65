//! All kinds of addresses lead to a build.

use ashlar_core::failure::FailureKind;

use crate::doors::{Behind, Door, Pki};
use crate::own::OwnDaemon;
use crate::world::{World, daemon, fresh, registry};

fn builds(world: &World) {
    world.file("f", "over the wire");
    let text =
        format!("FROM {}/library/busybox\nCOPY f /f\nRUN echo {} >/m\n", registry(), fresh());
    let made = world.build(&text);
    assert_eq!(world.files(&made)["f"], b"over the wire");
}

#[test]
fn a_docker_daemon_over_tcp_with_certificates_of_both_sides() {
    let door = Door::open(&daemon("classic"), Behind::Dockerd, Some(Pki::new()));
    builds(&World::with(vec![door.address()]));
    let folder = door.pki().folder();
    let one_sided = door.address_with(&format!("?ca={folder}/ca.pem"));
    let plain = door.address_with("");
    let stranger = Pki::new();
    let other = door.address_with(&format!("?certs={}", stranger.folder()));
    for address in [one_sided, plain, other] {
        let failure = World::with(vec![address]).try_build("FROM scratch\n").unwrap_err();
        assert_eq!(failure.kind, FailureKind::Interrupted, "{failure:?}");
    }
    let gone = door.address_with("?certs=/nowhere");
    let mut world = World::with(vec![gone]);
    let failure = world.try_build("FROM scratch\n").unwrap_err();
    assert!(failure.message.contains("cannot read certificates"), "{failure:?}");
    let told = format!("{failure:?} {:?}", world.heard.lines());
    assert!(!told.contains("/nowhere"), "files of the server are nobody's: {told}");
    world.buildkit = world.buildkit.naming_files();
    let failure = world.try_build("FROM scratch\n").unwrap_err();
    assert!(failure.message.contains("/nowhere/ca.pem"), "{failure:?}");
}

#[test]
fn a_real_docker_daemon_that_verifies_certificates_of_clients() {
    let own = OwnDaemon::start();
    builds(&World::with(vec![own.port_with(Some(own.pki()))]));
    let stranger = Pki::new();
    // Whoever trusts the daemon, and is not trusted by it.
    let authority = format!("{}/ca.pem", own.pki().folder());
    std::fs::copy(authority, format!("{}/ca.pem", stranger.folder())).unwrap();
    for certificates in [Some(&stranger), None] {
        let world = World::with(vec![own.port_with(certificates)]);
        let failure = world.try_build("FROM scratch\n").unwrap_err();
        assert_eq!(failure.kind, FailureKind::Interrupted, "{failure:?}");
        if certificates.is_some() {
            assert!(failure.message.contains("TLS failed: received fatal alert"), "{failure:?}");
        }
    }
    let wrong = Pki::new();
    let failure = World::with(vec![own.port_with(Some(&wrong))]).try_build("FROM scratch\n");
    let failure = failure.unwrap_err();
    assert!(failure.message.contains("invalid peer certificate"), "{failure:?}");
}

#[test]
fn a_buildkitd_over_tcp_plain_and_with_certificates() {
    let plain = Door::open(&daemon("store"), Behind::Buildkitd, None);
    builds(&World::with(vec![plain.address()]));
    let tls = Door::open(&daemon("store"), Behind::Buildkitd, Some(Pki::new()));
    builds(&World::with(vec![tls.address()]));
}
