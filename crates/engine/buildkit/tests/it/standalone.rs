//! Builds on a standalone daemon, as far as one of our own shows them.

use std::net::TcpListener;
use std::time::Duration;

use ashlar_buildkit::Patience;
use ashlar_core::failure::FailureKind;
use ashlar_core::graph::Network;
use ashlar_core::journal::StepOutcome;
use ashlar_frontend_dockerfile::Request;
use ashlar_native::RegistryLogin;
use tonic::Code;

use crate::fake::{At, End, Fake, Script};
use crate::world::{NAMES_MAX, World, fresh};

const DOCKERFILE: &str = "FROM standalone\nRUN everything\n";

fn ends(end: End) -> Script {
    Script { end, ..Script::default() }
}

/// Builds until one came to the first daemon; what was told then is of that build.
fn until_it_comes_to(first: &Fake, world: &mut World) {
    for _ in 0..NAMES_MAX {
        world.build.name = fresh();
        world.build(DOCKERFILE);
        if !first.got().is_empty() {
            return;
        }
    }
    panic!("none of {NAMES_MAX} builds came to the daemon");
}

#[test]
fn a_standalone_daemon_asks_for_all_it_needs_and_hands_an_image_back() {
    for at in [At::Unix, At::Tcp] {
        let (secrets, registries) = (vec!["key".to_owned()], vec!["example.com".to_owned()]);
        let daemon = Fake::start(at, Script { secrets, registries, end: End::Image });
        let mut world = World::with(vec![daemon.address()]);
        world.build.secrets.insert("key".into(), b"twelve bytes".to_vec());
        let login = RegistryLogin { username: "me".into(), password: "p4ssw0rd".into() };
        world.build.credentials.insert("example.com".into(), login);
        world.file("a", "from the context").file("deep/b", &"long ".repeat(200_000));
        let made = world.build(DOCKERFILE);
        let files = world.files(&made);
        assert_eq!(files["a"], b"from the context");
        assert_eq!(files["deep/b"].len(), 1_000_000);
        assert_eq!(files["lengths/key"], b"12");
        let got = daemon.got().pop().unwrap();
        assert_eq!(got.dockerfile["Dockerfile"], DOCKERFILE.as_bytes());
        assert_eq!(got.logins["example.com"], ("me".to_owned(), "p4ssw0rd".to_owned()));
        assert_eq!(got.request.frontend, "dockerfile.v0");
        assert_eq!(got.request.exporters[0].r#type, "oci");
        assert_eq!(world.heard.steps(), ["[1/2] FROM standalone", "[2/2] RUN everything"]);
        assert!(world.heard.outcomes().values().all(|o| *o == StepOutcome::Ran));
        assert!(world.heard.lines().contains(&"up".to_owned()));
    }
}

#[test]
fn the_network_that_a_build_sees_is_the_definitions_or_else_the_operators() {
    let daemon = Fake::start(At::Unix, Script::default());
    let mut world = World::with(vec![daemon.address()]);
    let table = [
        (Network::Default, Network::Isolated, None, false),
        (Network::Default, Network::None, Some("none"), false),
        (Network::Default, Network::Host, Some("host"), true),
        (Network::None, Network::Host, Some("none"), false),
        (Network::Isolated, Network::Host, None, false),
        // What a definition asks for has to be granted.
        (Network::Host, Network::Isolated, Some("host"), false),
    ];
    for (wanted, operators, mode, granted) in table {
        world.build.network = operators;
        let request = Request { network: wanted, ..Request::text(DOCKERFILE) };
        world.try_request(&request).unwrap();
        let got = daemon.got().pop().unwrap().request;
        let said = got.frontend_attrs.get("force-network-mode").map(String::as_str);
        let entitled = got.entitlements.contains(&"network.host".to_owned());
        assert_eq!((said, entitled), (mode, granted), "{wanted:?} {operators:?}");
    }
}

#[test]
fn a_base_that_only_this_machine_has_is_refused_before_a_daemon_takes_another() {
    let daemon = Fake::start(At::Unix, Script::default());
    let world = World::with(vec![daemon.address()]);
    let made = world.build(DOCKERFILE);
    let names = ["own:1".parse().unwrap(), "registry.example/own:1".parse().unwrap()];
    world.images.store().add(&[made.image], &names, None).unwrap();
    for text in ["FROM own:1\n", "ARG N=own\nFROM $N:1 AS a\n", "FROM x\nCOPY --from=own:1 a b\n"] {
        let failure = world.try_build(text).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Definition, "{text}");
        assert!(failure.message.starts_with("'own:1' is an image of this machine"), "{failure:?}");
        assert!(failure.hint.unwrap().contains("push it"), "{text}");
    }
    assert_eq!(daemon.got().len(), 1, "the daemon was not asked");
    for text in ["FROM docker.io/own:1\n", "FROM registry.example/own:1\n", "FROM own:2\n"] {
        world.build(text);
    }
}

#[test]
fn a_standalone_daemon_that_dies_in_the_middle_is_replaced_by_another() {
    let dies = Fake::start(At::Unix, ends(End::Dies));
    let other = Fake::start(At::Tcp, Script::default());
    let mut world = World::with(vec![dies.address(), other.address()]);
    until_it_comes_to(&dies, &mut world);
    let lines = world.heard.lines();
    assert!(lines.iter().any(|l| l.starts_with("BuildKit daemon 1 was lost")), "{lines:?}");
    assert!(world.heard.outcomes().values().all(|o| *o == StepOutcome::Ran));
    // What the first daemon had told is not taken for the second one's.
    assert_eq!(lines.iter().filter(|l| *l == "up").count(), 2, "{lines:?}");
    assert!(lines.iter().any(|l| l.starts_with("[2/2] RUN everything begins again")), "{lines:?}");
}

#[test]
fn what_a_daemon_says_that_is_about_to_end_is_not_believed() {
    for text in ["process \"x\" did not complete successfully: exit code: 137", "database not open"]
    {
        let ends = || Fake::start(At::Unix, ends(End::Ends(Code::Unknown, text.into())));
        let (first, other) = (ends(), Fake::start(At::Tcp, Script::default()));
        let mut world = World::with(vec![first.address(), other.address()]);
        until_it_comes_to(&first, &mut world);
        let lines = world.heard.lines();
        let lost = format!("BuildKit daemon 1 was lost: it is about to end, and said last: {text}");
        assert!(lines.contains(&lost), "{lines:?}");
        assert!(world.heard.outcomes().values().all(|o| *o == StepOutcome::Ran));
        let failure = World::with(vec![ends().address()]).try_build(DOCKERFILE).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Interrupted, "{failure:?}");
    }
}

#[test]
fn an_error_of_a_standalone_daemon_is_the_builds() {
    let text = "failed to solve: target stage \"x\" could not be found";
    let daemon = Fake::start(At::Unix, ends(End::Fails(Code::Unknown, text.into())));
    let world = World::with(vec![daemon.address()]);
    let failure = world.try_build(DOCKERFILE).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Definition);
    assert_eq!(failure.message, "target stage \"x\" could not be found");
    assert_eq!(daemon.got().len(), 1, "it is not tried again");
}

#[test]
fn an_archive_that_cannot_be_taken_in_is_the_reason_and_not_that_it_was_refused() {
    let daemon = Fake::start(At::Unix, ends(End::Rubbish));
    let failure = World::with(vec![daemon.address()]).try_build(DOCKERFILE).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Export);
    let says = "the image of the daemon cannot be taken in: ";
    assert!(failure.message.starts_with(says), "{}", failure.message);
    assert!(!failure.message.contains("refused"), "{}", failure.message);
}

#[test]
fn a_daemon_of_which_nothing_is_heard_any_more_is_replaced_by_another() {
    let hushes = Fake::start(At::Tcp, ends(End::Hushes));
    let other = Fake::start(At::Unix, Script::default());
    let mut world = World::with(vec![hushes.address(), other.address()]);
    let silence = Duration::from_secs(3);
    world.buildkit = world.buildkit.with_patience(Patience { silence, ..Patience::default() });
    until_it_comes_to(&hushes, &mut world);
    let lines = world.heard.lines();
    let lost = "BuildKit daemon 1 was lost: nothing was heard of it for 3 s";
    assert!(lines.contains(&lost.to_owned()), "{lines:?}");
}

#[test]
fn a_daemon_that_never_answers_is_not_waited_for() {
    // Connections come about, and nobody takes them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let mut world = World::with(vec![address.parse().unwrap()]);
    let connect = Duration::from_millis(500);
    world.buildkit = world.buildkit.with_patience(Patience { connect, ..Patience::default() });
    let failure = world.try_build(DOCKERFILE).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Interrupted);
    assert!(failure.message.contains("no answer within 0.5 s"), "{}", failure.message);
}
